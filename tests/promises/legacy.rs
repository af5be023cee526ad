//! The old interface still compiles, warns, and shares the new cache: `general`, `medium`.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier
#![allow(deprecated)] // it is what this file tests

use crate::support::read;
use crate::support::redis::RedisServer;
use aurum_cache::legacy::{AsyncCache, CacheBackend};
use aurum_cache::{Cache, Namespace, TtlPolicy, cacheable};

#[cacheable]
#[derive(Debug, Clone, PartialEq)]
struct Quote {
    hub: String,
    price: f64,
}

/// One test, because there is one global cache in a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_interface_forwards_to_the_global_cache() {
    let server = RedisServer::start();
    let cache = Cache::builder().memory(8 << 20).redis(server.url()).open().await.unwrap();
    Cache::install_global(cache.clone()).unwrap();
    let memory = AsyncCache::new(CacheBackend::Memory).await.unwrap();
    let redis = AsyncCache::new(CacheBackend::Redis).await.unwrap();

    memory.set("text", "old words").await.unwrap();
    assert_eq!(read(&cache, Namespace::GENERAL, "text").await.as_deref(), Some("old words"));
    assert_eq!(cache.describe(Namespace::GENERAL, "text").await.unwrap().policy, TtlPolicy::Medium);
    assert_eq!(&*redis.get::<str>("text").await.unwrap(), "old words", "both backends are the one cache");

    let quote = Quote { hub: "pjm".into(), price: 31.5 };
    memory.set("quote", &quote).await.unwrap();
    assert_eq!(memory.get::<Quote>("quote").await.unwrap().to_value(), quote);
    cache.set(Namespace::GENERAL, "new", "from the new side", TtlPolicy::Short).await.unwrap();
    assert_eq!(&*memory.get::<str>("new").await.unwrap(), "from the new side");
    assert!(memory.get::<str>("absent").await.is_none());

    redis.delete("text").await.unwrap();
    assert!(memory.get::<str>("text").await.is_none());
    assert!(read(&cache, Namespace::GENERAL, "text").await.is_none());
    assert!(memory.get::<Quote>("quote").await.is_some());
    memory.delete("absent").await.unwrap();
    assert!(memory.set("", "x").await.is_err());
}
