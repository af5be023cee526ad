//! A cache in memory alone is complete, in every build; and a build without a tier says so when it is asked for it.

use std::time::Duration;

use aurum_cache::{Cache, Clock, Namespace, Tier, TtlPolicy, cacheable};

#[cacheable]
#[derive(Debug, PartialEq)]
struct Price {
    hub: String,
    cents: Vec<i64>,
}

#[tokio::test]
async fn a_cache_in_memory_alone_is_complete() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    let price = Price { hub: "pjm".into(), cents: vec![1, 2, 3] };
    cache.set(Namespace::CURVES, "pjm:1", &price, TtlPolicy::Extended).await.unwrap();
    cache.set(Namespace::CURVES, "ercot:1", &price, TtlPolicy::UltraShort).await.unwrap();
    assert_eq!(cache.get::<Price>(Namespace::CURVES, "pjm:1").await.unwrap().to_value(), price);
    assert_eq!(cache.describe(Namespace::CURVES, "pjm:1").await.unwrap().tiers, [Tier::Memory]);
    clock.advance(Duration::from_secs(30));
    assert!(cache.get::<Price>(Namespace::CURVES, "ercot:1").await.is_none());
    let event = cache.invalidate_pattern(Namespace::CURVES, "pjm:*").reason("test").await.unwrap();
    assert_eq!((event.count, event.memory, event.disk, event.redis), (1, 1, 0, 0));
    assert!(cache.get::<Price>(Namespace::CURVES, "pjm:1").await.is_none());
    let fetched = cache.get_or_fetch(Namespace::CURVES, "pjm:1", TtlPolicy::Short, || async { Ok::<_, String>(7_u64) }).await;
    assert_eq!(fetched.unwrap().to_native(), 7);
    cache.close().await.unwrap();
}

#[tokio::test]
#[cfg(not(feature = "disk"))]
async fn a_build_without_the_disk_says_so_when_it_is_asked_for() {
    let error = Cache::builder().disk("never-made", 64 << 20).open().await.unwrap_err();
    assert!(error.to_string().starts_with("disk.path: needs the crate's feature `disk`"), "{error}");
}

#[tokio::test]
#[cfg(not(feature = "redis"))]
async fn a_build_without_redis_says_so_when_it_is_asked_for() {
    let error = Cache::builder().redis("redis://127.0.0.1:1").open().await.unwrap_err();
    assert!(error.to_string().starts_with("redis.url: needs the crate's feature `redis`"), "{error}");
}
