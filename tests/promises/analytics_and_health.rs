//! The numbers: what was asked is what is counted.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use crate::support::redis::RedisServer;
use crate::support::{self, put, read, secs, tier_of, until};
use aurum_cache::{Cache, Clock, Namespace, Tier, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hits_and_misses_are_exact() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    for i in 0..10 {
        put(&cache, NS, &i.to_string(), "v", TtlPolicy::Medium).await;
    }
    for _ in 0..3 {
        for i in 0..10 {
            read(&cache, NS, &i.to_string()).await.unwrap();
        }
    }
    for i in 0..6 {
        assert!(read(&cache, Namespace::METADATA, &i.to_string()).await.is_none());
    }
    let _ = cache.get_many::<str>(NS, &["0", "1", "absent", "2"]).await;
    let a = cache.analytics();
    assert_eq!((a.hits, a.misses), (33, 7));
    assert!((a.hit_rate - 33.0 / 40.0).abs() < 1e-9);
    assert_eq!((a.errors, a.error_rate), (0, 0.0));
    let memory = a.tier(Tier::Memory);
    assert_eq!((memory.hits, memory.entries), (33, 10));
    let (curves, metadata) = (a.namespace(NS).unwrap(), a.namespace(Namespace::METADATA).unwrap());
    assert_eq!((curves.hits, curves.misses), (33, 1));
    assert_eq!((metadata.hits, metadata.misses), (0, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_are_exact_from_many_tasks() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Medium).await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for _ in 0..1_000 {
                    read(&cache, NS, "k").await.unwrap();
                    assert!(read(&cache, NS, "absent").await.is_none());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((cache.analytics().hits, cache.analytics().misses), (8_000, 8_000));
}

#[tokio::test]
async fn looking_is_not_reading() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Medium).await;
    for _ in 0..5 {
        cache.contains(NS, "k").await;
        cache.contains(NS, "absent").await;
        cache.describe(NS, "k").await;
        cache.analytics();
        cache.health().await;
    }
    assert_eq!((cache.analytics().hits, cache.analytics().misses), (0, 0));
}

#[tokio::test]
async fn every_miss_has_its_cause() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    put(&cache, NS, "typed", "v", TtlPolicy::Long).await;
    put(&cache, NS, "dead", "v", TtlPolicy::Long).await;
    put(&cache, NS, "brief", "v", TtlPolicy::UltraShort).await;
    cache.invalidate(NS, "dead").await.unwrap();
    clock.advance(secs(30));
    assert!(cache.get::<u64>(NS, "typed").await.is_none());
    for key in ["dead", "brief", "never"] {
        assert!(read(&cache, NS, key).await.is_none());
    }
    let a = cache.analytics();
    let causes = &a.miss_causes;
    assert_eq!((causes.schema, causes.invalidated, causes.expired, causes.absent), (1, 1, 1, 1), "{causes:?}");
    assert_eq!(a.misses, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn response_times_are_measured_in_every_tier() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = support::patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    for i in 0..500 {
        put(&cache, NS, &i.to_string(), "v", TtlPolicy::Extended).await;
        read(&cache, NS, &i.to_string()).await.unwrap();
        assert!(read(&cache, NS, &format!("absent/{i}")).await.is_none());
    }
    let a = cache.analytics();
    for tier in [Tier::Memory, Tier::Disk, Tier::Redis] {
        for (verb, latency) in [("get", &a.tier(tier).get), ("set", &a.tier(tier).set)] {
            assert!(latency.count > 0, "{tier} {verb}: nothing was measured");
            let steps = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
            assert!(steps.is_sorted(), "{tier} {verb}: {steps:?}");
            assert!(latency.max > std::time::Duration::ZERO && latency.max < secs(20), "{tier} {verb}: {steps:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_every_tier_is_known_and_within_its_capacity() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = support::patient().memory(4 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    for i in 0..4_000 {
        let key = i.to_string();
        put(&cache, NS, &key, &support::text(&key, 2_000), TtlPolicy::Extended).await;
    }
    cache.flush().await.unwrap();
    cache.health().await;
    let a = cache.analytics();
    let (memory, disk) = (a.tier(Tier::Memory), a.tier(Tier::Disk));
    assert_eq!((memory.capacity, disk.capacity), (4 << 20, 64 << 20));
    assert!(memory.bytes > 2 << 20 && memory.bytes <= memory.capacity, "{} bytes", memory.bytes);
    assert!(memory.entries > 1_000 && memory.evictions > 1_000, "{} entries, {} evictions", memory.entries, memory.evictions);
    assert!(disk.bytes > 4_000 * 2_000 && disk.bytes <= disk.capacity, "{} bytes", disk.bytes);
    assert_eq!(disk.entries, 4_000);
    until("the memory of Redis is known", async || {
        cache.health().await;
        cache.analytics().redis_memory.is_some_and(|bytes| bytes > 4_000 * 2_000)
    })
    .await;
}

#[tokio::test]
async fn without_redis_there_is_no_memory_of_redis() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    assert_eq!(cache.analytics().redis_memory, None);
}

#[tokio::test]
async fn invalidations_are_counted() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    for i in 0..10 {
        put(&cache, NS, &format!("a/{i}"), "v", TtlPolicy::Medium).await;
    }
    cache.invalidate(NS, "a/0").await.unwrap();
    cache.invalidate(NS, "absent").await.unwrap();
    cache.invalidate_pattern(NS, "a/[1-4]").await.unwrap();
    cache.invalidate_namespace(NS).await.unwrap();
    let a = cache.analytics();
    assert_eq!((a.invalidation_events, a.invalidated_entries), (4, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_show_in_rate_and_health_and_are_forgiven() {
    let mut redis = RedisServer::start();
    let cache = support::patient().memory(8 << 20).redis(redis.url()).open().await.unwrap();
    let health = cache.health().await;
    assert!(health.is_healthy);
    assert_eq!(health.error_rate, 0.0);
    assert_eq!(tier_of(&health, Tier::Disk).state, TierState::Off);

    redis.kill();
    until("errors are seen", async || {
        let _ = read(&cache, NS, "absent").await;
        let (a, health) = (cache.analytics(), cache.health().await);
        a.errors > 0 && a.error_rate > 0.0 && health.error_rate > 0.0 && !health.is_healthy
    })
    .await;
    assert!(cache.analytics().error_rate <= 1.0);
}

#[tokio::test]
async fn fetches_are_counted_by_outcome() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    for i in 0..3u64 {
        let key = i.to_string();
        cache.get_or_fetch(NS, &key, TtlPolicy::Short, move || async move { Ok::<_, String>(i) }).await.unwrap();
    }
    for _ in 0..2 {
        let fetch = cache.get_or_fetch(NS, "bad", TtlPolicy::Short, || async { Err::<u64, _>("no".to_owned()) });
        fetch.await.unwrap_err();
    }
    let fetches = cache.analytics().fetches;
    assert_eq!((fetches.ok, fetches.failed, fetches.joined, fetches.timed_out, fetches.refreshed), (3, 2, 0, 0, 0));
}

#[tokio::test]
async fn analytics_print_as_a_table() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Medium).await;
    read(&cache, NS, "k").await.unwrap();
    let table = cache.analytics().to_string();
    for word in ["memory", "disk", "redis", "hits", "curves"] {
        assert!(table.to_lowercase().contains(word), "no {word} in\n{table}");
    }
    assert!(table.lines().count() > 5, "{table}");
}

/// What a dashboard reads: one object, documented fields, times in nanoseconds; and it reads back.
#[cfg(feature = "serde")]
#[tokio::test]
async fn analytics_health_and_events_are_plain_json() {
    let cache = Cache::builder().memory(8 << 20).node("a").open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Medium).await;
    assert!(read(&cache, NS, "k").await.is_some() && read(&cache, NS, "absent").await.is_none());
    let event = cache.invalidate(NS, "k").reason("data_update").triggered_by("curve_service").await.unwrap();
    let analytics = cache.analytics();
    let json = serde_json::to_value(&analytics).unwrap();
    assert_eq!((json["hits"].as_u64(), json["misses"].as_u64(), json["hit_rate"].as_f64()), (Some(1), Some(1), Some(0.5)));
    assert_eq!((json["memory"]["hits"].as_u64(), json["miss_causes"]["absent"].as_u64()), (Some(1), Some(1)));
    assert_eq!(json["namespaces"][0]["name"], NS.name());
    assert!(json["memory"]["get"]["p99_ns"].is_u64() && json["uptime_ns"].is_u64() && json["redis_memory"].is_null());
    assert_eq!(serde_json::from_value::<aurum_cache::Analytics>(json).unwrap(), analytics);

    let health = serde_json::to_value(cache.health().await).unwrap();
    assert_eq!(health["is_healthy"], true);
    let tiers: Vec<_> = (0..3).map(|i| (health["tiers"][i]["tier"].clone(), health["tiers"][i]["state"].clone())).collect();
    let json = serde_json::Value::from;
    assert_eq!(tiers, [("memory", "up"), ("disk", "off"), ("redis", "off")].map(|(tier, state)| (json(tier), json(state))));

    let json = serde_json::to_value(&event).unwrap();
    assert_eq!((json["scope"]["key"].as_str(), json["count"].as_u64(), json["node"].as_str()), (Some("k"), Some(1), Some("a")));
    assert_eq!((json["reason"].as_str(), json["triggered_by"].as_str()), (Some("data_update"), Some("curve_service")));
    assert_eq!(serde_json::from_value::<aurum_cache::InvalidationEvent>(json).unwrap(), event);
    for policy in TtlPolicy::NAMED {
        assert_eq!(serde_json::from_value::<TtlPolicy>(serde_json::to_value(policy).unwrap()).unwrap(), policy);
    }
}
