//! Where an entry lives, policy by policy, as the placement table says.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use crate::support::redis::RedisServer;
use crate::support::{self, put, read, secs, settings, text, tiers, until};
use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_goes_to_the_tiers_of_its_policy() {
    use Tier::{Disk, Memory, Redis};
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = support::patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    let table: [(TtlPolicy, &[Tier]); 9] = [
        (TtlPolicy::UltraShort, &[Memory, Redis]),
        (TtlPolicy::Short, &[Memory, Redis]),
        (TtlPolicy::Medium, &[Memory, Redis]),
        (TtlPolicy::Long, &[Memory, Redis]),
        (TtlPolicy::Extended, &[Memory, Disk, Redis]),
        (TtlPolicy::Persistent, &[Memory, Disk, Redis]),
        (TtlPolicy::Custom(secs(60)), &[Memory, Redis]),
        (TtlPolicy::Custom(secs(20 * 3_600)), &[Memory, Redis]),
        (TtlPolicy::Custom(secs(25 * 3_600)), &[Memory, Disk, Redis]),
    ];
    for (policy, expected) in table {
        let key = policy.to_string();
        put(&cache, NS, &key, "v", policy).await;
        cache.flush().await.unwrap();
        assert_eq!(tiers(&cache, NS, &key).await, expected, "{policy}");
    }
}

/// Fills memory several times over with one policy; returns how many keys went down to disk alone.
async fn flood(cache: &Cache, policy: TtlPolicy) -> usize {
    let keys: Vec<_> = (0..6_000).map(|i| format!("{policy}/{i}")).collect();
    for key in &keys {
        put(cache, NS, key, &text(key, 2_000), policy).await;
        // A second use, so that it is no one-hit wonder.
        let _ = read(cache, NS, key).await;
    }
    cache.flush().await.unwrap();
    let mut down = 0;
    for key in &keys {
        down += usize::from(tiers(cache, NS, key).await == [Tier::Disk]);
    }
    down
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_evicts_goes_to_disk_if_its_policy_is_medium_or_long() {
    for (policy, goes_down) in [(TtlPolicy::Short, false), (TtlPolicy::Medium, true), (TtlPolicy::Long, true)] {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::builder().memory(4 << 20).disk(folder.path(), 128 << 20).open().await.unwrap();
        let down = flood(&cache, policy).await;
        assert!(cache.analytics().tier(Tier::Memory).evictions > 1_000, "memory was not filled");
        assert_eq!(down > 1_000, goes_down, "{policy}: {down} entries on disk");
        assert_eq!(cache.analytics().tier(Tier::Memory).demotions > 1_000, goes_down, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_entry_is_read_from_disk_and_promoted() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(4 << 20).disk(folder.path(), 128 << 20).open().await.unwrap();
    flood(&cache, TtlPolicy::Long).await;
    let mut down = Vec::new();
    for i in 0..6_000 {
        let key = format!("long/{i}");
        if tiers(&cache, NS, &key).await == [Tier::Disk] {
            down.push(key);
        }
    }
    let key = &down[down.len() / 2];
    let hit = cache.get::<str>(NS, key).await.unwrap();
    assert_eq!((hit.tier(), &*hit), (Tier::Disk, text(key, 2_000).as_str()));
    assert!(cache.get_resident::<str>(NS, key).is_some(), "a disk hit goes to memory");
    assert!(cache.analytics().tier(Tier::Disk).promotions >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_hit_goes_to_memory_and_with_a_disk_policy_also_to_disk() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let writer = support::patient().memory(8 << 20).redis(redis.url()).node("writer").open().await.unwrap();
    put(&writer, NS, "lasting", "v", TtlPolicy::Extended).await;
    put(&writer, NS, "passing", "v", TtlPolicy::Short).await;

    let builder = support::patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url()).node("reader");
    let reader = builder.open().await.unwrap();
    for key in ["lasting", "passing"] {
        assert_eq!(tiers(&reader, NS, key).await, [Tier::Redis]);
        assert_eq!(reader.get::<str>(NS, key).await.unwrap().tier(), Tier::Redis);
    }
    until("the lasting one is in all tiers", async || {
        tiers(&reader, NS, "lasting").await == [Tier::Memory, Tier::Disk, Tier::Redis]
    })
    .await;
    reader.flush().await.unwrap();
    assert_eq!(tiers(&reader, NS, "passing").await, [Tier::Memory, Tier::Redis]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_changes_the_place_of_a_policy() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        settings("[placement.short]\ndisk = \"on_set\"\nredis = true\n[placement.extended]\ndisk = \"never\"\nredis = true");
    let cache = Cache::builder().config(config).memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    put(&cache, NS, "short", "v", TtlPolicy::Short).await;
    put(&cache, NS, "extended", "v", TtlPolicy::Extended).await;
    cache.flush().await.unwrap();
    assert_eq!(tiers(&cache, NS, "short").await, [Tier::Memory, Tier::Disk]);
    assert_eq!(tiers(&cache, NS, "extended").await, [Tier::Memory]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_too_big_for_memory_goes_to_the_lower_tiers_only() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(4 << 20).disk(folder.path(), 512 << 20).open().await.unwrap();
    let big = text("big", 6 << 20);
    put(&cache, NS, "small", "v", TtlPolicy::Extended).await;
    put(&cache, NS, "big", &big, TtlPolicy::Extended).await;
    assert_eq!(tiers(&cache, NS, "big").await, [Tier::Disk]);
    assert_eq!(read(&cache, NS, "big").await.as_deref(), Some(big.as_str()));
    assert!(cache.get_resident::<str>(NS, "small").is_some(), "one big value does not flush memory");
    // And the smaller one that was there before under the same key is gone from memory too.
    put(&cache, NS, "grows", "tiny", TtlPolicy::Extended).await;
    put(&cache, NS, "grows", &big, TtlPolicy::Extended).await;
    assert_eq!(read(&cache, NS, "grows").await.map(|v| v.len()), Some(big.len()));
}
