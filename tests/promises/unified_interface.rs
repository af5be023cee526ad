//! One handle, one set of verbs, whatever is underneath: memory alone, with a disk, with Redis, with both.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::sync::Arc;

use crate::support::redis::RedisServer;
use crate::support::{patient, until};
use aurum_cache::{Cache, ErrorKind, Namespace, Scope, Tier, TtlPolicy, cacheable};

#[cacheable]
#[derive(Debug, Clone, PartialEq)]
struct Curve {
    hub: String,
    prices: Vec<f64>,
    settled: Option<bool>,
}

fn curve(hub: &str) -> Curve {
    Curve { hub: hub.into(), prices: vec![31.5, 29.75, 0.0], settled: Some(true) }
}

/// Every verb once; the same for each arrangement of tiers.
async fn tour(cache: &Cache) {
    const NS: Namespace = Namespace::CURVES;
    for policy in TtlPolicy::NAMED {
        let key = format!("one/{policy}");
        cache.set(NS, &key, &curve(&key), policy).await.unwrap();
        let hit = cache.get::<Curve>(NS, &key).await.unwrap();
        assert_eq!(hit.to_value(), curve(&key));
        assert_eq!(hit.hub, key); // a view: nothing was decoded
        assert!(!hit.is_stale());
        assert!(hit.expires_in() <= policy.ttl());
        assert_eq!(cache.describe(NS, &key).await.unwrap().policy, policy);
    }

    cache.set(NS, "bytes", &b"raw \0 bytes"[..], TtlPolicy::Medium).await.unwrap();
    assert_eq!(&cache.get::<[u8]>(NS, "bytes").await.unwrap()[..], b"raw \0 bytes");
    cache.set(NS, "text", "words, wörter, 词", TtlPolicy::Medium).await.unwrap();
    assert_eq!(&*cache.get::<str>(NS, "text").await.unwrap(), "words, wörter, 词");
    cache.set(NS, "empty", "", TtlPolicy::Medium).await.unwrap();
    assert_eq!(&*cache.get::<str>(NS, "empty").await.unwrap(), "");
    cache.set(NS, "number", &7u64, TtlPolicy::Medium).await.unwrap();
    assert_eq!(cache.get::<u64>(NS, "number").await.unwrap().to_value(), 7);

    let (a, b) = (curve("a"), curve("b"));
    cache.set_many(NS, &[("many/a", &a), ("many/b", &b)], TtlPolicy::Extended).await.unwrap();
    let found = cache.get_many::<Curve>(NS, &["many/b", "many/absent", "many/a", "many/b"]).await;
    let hubs: Vec<_> = found.iter().map(|hit| hit.as_ref().map(|hit| hit.to_value().hub)).collect();
    assert_eq!(hubs, [Some("b".into()), None, Some("a".into()), Some("b".into())], "in the order of the question");
    assert!(cache.get_many::<Curve>(NS, &[]).await.is_empty());
    cache.set_many::<Curve>(NS, &[], TtlPolicy::Extended).await.unwrap();

    assert_eq!(cache.get_resident::<Curve>(NS, "many/a").unwrap().to_value(), a);
    assert_eq!(cache.with_resident::<Curve, usize>(NS, "many/a", |view| view.prices.len()), Some(3));
    assert!(cache.get_resident::<Curve>(NS, "absent").is_none());

    cache.set(NS, "text", "newer", TtlPolicy::Medium).await.unwrap();
    assert_eq!(&*cache.get::<str>(NS, "text").await.unwrap(), "newer", "a set replaces what was there");

    assert!(cache.contains(NS, "text").await);
    assert!(!cache.contains(NS, "absent").await);
    assert!(cache.describe(NS, "absent").await.is_none());

    let fetched = cache.get_or_fetch(NS, "fetched", TtlPolicy::Short, || async { Ok::<_, std::io::Error>(curve("source")) });
    assert_eq!(fetched.await.unwrap().to_value(), curve("source"));
    assert_eq!(cache.get::<Curve>(NS, "fetched").await.unwrap().to_value(), curve("source"));

    let event = cache.invalidate(NS, "text").reason("data_update").triggered_by("curve_service").await.unwrap();
    assert_eq!(event.count, 1);
    assert!(matches!(&event.scope, Scope::Key(key) if key == "text"));
    assert!(cache.get::<str>(NS, "text").await.is_none());
    assert_eq!(cache.invalidate_pattern(NS, "many/*").await.unwrap().count, 2);
    assert!(cache.invalidate_namespace(NS).await.unwrap().count >= 6);
    assert!(cache.get::<u64>(NS, "number").await.is_none());
    cache.set(NS, "again", "works", TtlPolicy::Extended).await.unwrap();
    cache.invalidate_all().await.unwrap();
    assert!(cache.get::<str>(NS, "again").await.is_none());

    cache.flush().await.unwrap();
    cache.close().await.unwrap();
    cache.close().await.unwrap(); // idempotent
    let error = cache.set(NS, "late", "x", TtlPolicy::Short).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_verbs_over_memory_alone() {
    tour(&Cache::builder().memory(8 << 20).open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_verbs_over_memory_and_disk() {
    let folder = tempfile::tempdir().unwrap();
    tour(&Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_verbs_over_memory_and_redis() {
    let redis = RedisServer::start();
    tour(&patient().memory(8 << 20).redis(redis.url()).open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_verbs_over_all_three_tiers() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    tour(&builder.open().await.unwrap()).await;
}

/// A service on a runtime with one thread and no workers of its own.
#[tokio::test]
async fn the_same_verbs_on_a_single_thread() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    tour(&builder.open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_the_same_from_whichever_tier_it_comes() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let all = patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url()).open().await.unwrap();
    all.set(Namespace::CURVES, "k", &curve("pjm"), TtlPolicy::Persistent).await.unwrap();
    let from_memory = all.get::<Curve>(Namespace::CURVES, "k").await.unwrap();
    assert_eq!(from_memory.tier(), Tier::Memory);
    all.close().await.unwrap();

    let disk = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    let from_disk = disk.get::<Curve>(Namespace::CURVES, "k").await.unwrap();
    disk.close().await.unwrap();
    let remote = patient().memory(8 << 20).redis(redis.url()).open().await.unwrap();
    let from_redis = remote.get::<Curve>(Namespace::CURVES, "k").await.unwrap();
    assert_eq!(from_redis.tier(), Tier::Redis);
    assert_eq!(remote.get::<Curve>(Namespace::CURVES, "k").await.unwrap().tier(), Tier::Memory, "a hit below is promoted");

    for hit in [from_memory, from_disk, from_redis] {
        assert_eq!(hit.to_value(), curve("pjm"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_outlives_its_entry_and_its_cache() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    cache.set(Namespace::CURVES, "k", &curve("pjm"), TtlPolicy::Medium).await.unwrap();
    let hit = cache.get::<Curve>(Namespace::CURVES, "k").await.unwrap();
    let shared = hit.clone();
    cache.invalidate(Namespace::CURVES, "k").await.unwrap();
    cache.close().await.unwrap();
    drop(cache);
    let other = tokio::spawn(async move { shared.to_value() });
    assert_eq!(other.await.unwrap(), hit.to_value());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_set_returns_every_clone_reads_that_value_or_a_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(4 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    let padding = Arc::new("x".repeat(2_000));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (cache, padding) = (cache.clone(), padding.clone());
            tokio::spawn(async move {
                for round in 0..1_000u32 {
                    // 4 x 400 keys of 2 kB do not fit into memory: entries are on their way down all the time.
                    let key = format!("{writer}/{}", round % 400);
                    let value = format!("{key}|{round}|{padding}");
                    cache.set(Namespace::GENERAL, &key, value.as_str(), TtlPolicy::Extended).await.unwrap();
                    let hit = cache.get::<str>(Namespace::GENERAL, &key).await.expect("nothing removes it");
                    assert_eq!(&*hit, value);
                    let earlier = format!("{writer}/{}", round / 2 % 400);
                    let hit = cache.get::<str>(Namespace::GENERAL, &earlier).await.expect("nothing removes it");
                    assert!(hit.starts_with(&format!("{earlier}|")));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    until("all is written", async || cache.flush().await.is_ok()).await;
}
