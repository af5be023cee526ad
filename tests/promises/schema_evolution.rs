//! A deploy changes a type: old bytes are counted misses, never misread, and everything else stays warm.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::path::Path;

use crate::support::patient;
use crate::support::redis::RedisServer;
use aurum_cache::{Cache, Namespace, Payload, TtlPolicy, cacheable};

const NS: Namespace = Namespace::CURVES;

/// As it was before the deploy.
mod before {
    use super::cacheable;

    #[cacheable]
    pub struct Added {
        pub bid: f64,
        pub ask: f64,
    }
    #[cacheable]
    pub struct Renamed {
        pub bid: f64,
        pub ask: f64,
    }
    #[cacheable]
    pub struct Swapped {
        pub bid: f64,
        pub ask: f64,
    }
    #[cacheable]
    pub struct Retyped {
        pub bid: f64,
        pub id: u64,
    }
    #[cacheable]
    #[derive(Clone, Copy)]
    pub enum Side {
        Buy,
        Sell,
    }
    #[cacheable]
    pub struct Nested {
        pub inner: Vec<Option<Swapped>>,
    }
    #[cacheable]
    pub struct Meant {
        pub price: f64,
    }
    #[cacheable]
    #[derive(Debug, PartialEq)]
    pub struct Same {
        pub hub: String,
        pub prices: Vec<f64>,
    }
}

/// As it is after the deploy.
mod after {
    use super::cacheable;

    #[cacheable]
    pub struct Added {
        pub bid: f64,
        pub ask: f64,
        pub size: u32,
    }
    #[cacheable]
    pub struct Renamed {
        pub bid: f64,
        pub offer: f64,
    }
    #[cacheable]
    pub struct Swapped {
        pub ask: f64,
        pub bid: f64,
    }
    #[cacheable]
    pub struct Retyped {
        pub bid: f64,
        pub id: i64,
    }
    #[cacheable]
    #[derive(Clone, Copy)]
    pub enum Side {
        Sell,
        Buy,
    }
    #[cacheable]
    pub struct Nested {
        pub inner: Vec<Option<Swapped>>,
    }
    /// The same fields, now in another currency.
    #[cacheable(version = 2)]
    pub struct Meant {
        pub price: f64,
    }
    #[cacheable]
    #[derive(Debug, PartialEq)]
    pub struct Same {
        pub hub: String,
        pub prices: Vec<f64>,
    }
}

/// The changed types, by the key under which each is stored.
const CHANGED: [&str; 7] = ["added", "renamed", "swapped", "retyped", "side", "nested", "meant"];

async fn set<T: Payload>(cache: &Cache, key: &str, value: T) {
    cache.set(NS, key, &value, TtlPolicy::Extended).await.unwrap();
}

async fn write_old(cache: &Cache) {
    let (bid, ask) = (31.5, 32.0);
    set(cache, "added", before::Added { bid, ask }).await;
    set(cache, "renamed", before::Renamed { bid, ask }).await;
    set(cache, "swapped", before::Swapped { bid, ask }).await;
    set(cache, "retyped", before::Retyped { bid, id: 7 }).await;
    set(cache, "side", before::Side::Buy).await;
    set(cache, "nested", before::Nested { inner: vec![Some(before::Swapped { bid, ask }), None] }).await;
    set(cache, "meant", before::Meant { price: bid }).await;
    for i in 0..50 {
        set(cache, &format!("same/{i}"), before::Same { hub: format!("hub {i}"), prices: vec![bid, ask] }).await;
        cache.set(NS, &format!("text/{i}"), "words", TtlPolicy::Extended).await.unwrap();
    }
}

async fn is_missed<T: Payload>(cache: &Cache, key: &str) {
    let before = cache.analytics().miss_causes.schema;
    assert!(cache.get::<T>(NS, key).await.is_none(), "{key} was read as another type");
    assert_eq!(cache.analytics().miss_causes.schema, before + 1, "{key}: the miss is counted as one of the schema");
    assert!(cache.get_resident::<T>(NS, key).is_none(), "{key}");
    assert!(cache.get_many::<T>(NS, &[key]).await[0].is_none(), "{key}");
}

/// A service of the new version over what the old one left behind.
async fn the_new_version_finds_old_bytes_missing_and_all_else_warm(cache: &Cache) {
    is_missed::<after::Added>(cache, "added").await;
    is_missed::<after::Renamed>(cache, "renamed").await;
    is_missed::<after::Swapped>(cache, "swapped").await;
    is_missed::<after::Retyped>(cache, "retyped").await;
    is_missed::<after::Side>(cache, "side").await;
    is_missed::<after::Nested>(cache, "nested").await;
    is_missed::<after::Meant>(cache, "meant").await;
    for i in 0..50 {
        let same = cache.get::<after::Same>(NS, &format!("same/{i}")).await.expect("an unchanged type stays warm");
        assert_eq!(same.to_value(), after::Same { hub: format!("hub {i}"), prices: vec![31.5, 32.0] });
        assert_eq!(&*cache.get::<str>(NS, &format!("text/{i}")).await.expect("a text stays warm"), "words");
    }
    assert_eq!(cache.analytics().miss_causes.corrupt, 0, "old is not damaged");

    // The new version writes its own, and reads it.
    set(cache, "swapped", after::Swapped { ask: 2.0, bid: 1.0 }).await;
    let hit = cache.get::<after::Swapped>(NS, "swapped").await.expect("the new one");
    assert_eq!((hit.ask, hit.bid), (2.0.into(), 1.0.into()));
    let fetch = || async { Ok::<_, String>(after::Added { bid: 1.0, ask: 2.0, size: 3 }) };
    let hit = cache.get_or_fetch(NS, "added", TtlPolicy::Extended, fetch).await.expect("a schema miss is loaded anew");
    assert_eq!(hit.size, 3);
    assert_eq!(cache.get::<after::Added>(NS, "added").await.expect("and kept").size, 3);
    assert!(cache.get::<before::Added>(NS, "added").await.is_none(), "nor does the old version misread the new");
}

async fn embedded(folder: &Path) -> Cache {
    Cache::builder().memory(8 << 20).disk(folder, 64 << 20).open().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    write_old(&cache).await;
    the_new_version_finds_old_bytes_missing_and_all_else_warm(&cache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_same_disk_folder() {
    let folder = tempfile::tempdir().unwrap();
    let old = embedded(folder.path()).await;
    write_old(&old).await;
    old.close().await.unwrap();
    drop(old);
    the_new_version_finds_old_bytes_missing_and_all_else_warm(&embedded(folder.path()).await).await;
}

/// During a rolling deploy both versions are up: each sees its own and nothing of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_same_redis() {
    let redis = RedisServer::start();
    let old = patient().memory(8 << 20).redis(redis.url()).node("old").open().await.unwrap();
    write_old(&old).await;
    let new = patient().memory(8 << 20).redis(redis.url()).node("new").open().await.unwrap();
    the_new_version_finds_old_bytes_missing_and_all_else_warm(&new).await;
    assert_eq!(old.get::<before::Retyped>(NS, "retyped").await.expect("still of the old version").id, 7);
}

#[test]
fn every_changed_type_has_another_fingerprint_and_the_unchanged_one_the_same() {
    use aurum_cache::Schema;
    fn changed<A: Schema, B: Schema>() -> bool {
        A::FINGERPRINT != B::FINGERPRINT
    }
    let table = [
        changed::<before::Added, after::Added>(),
        changed::<before::Renamed, after::Renamed>(),
        changed::<before::Swapped, after::Swapped>(),
        changed::<before::Retyped, after::Retyped>(),
        changed::<before::Side, after::Side>(),
        changed::<before::Nested, after::Nested>(),
        changed::<before::Meant, after::Meant>(),
    ];
    for (name, changed) in CHANGED.iter().zip(table) {
        assert!(changed, "{name}");
    }
    assert!(!changed::<before::Same, after::Same>(), "the module a type stands in is not part of it");
}
