//! A key in one namespace is never seen in another, in any tier.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use crate::support::redis::RedisServer;
use crate::support::{self, put, read};
use aurum_cache::{Cache, Namespace, TtlPolicy};

const PRICES: Namespace = Namespace::new("prices");
/// Names that would collide if namespace and key were joined carelessly.
const DOTTED: Namespace = Namespace::new("prices.k");
const DASHED: Namespace = Namespace::new("prices-");

fn all() -> Vec<Namespace> {
    Namespace::GIVEN.into_iter().chain([PRICES, DOTTED, DASHED]).collect()
}

/// Keys that try to look like something else.
const KEYS: [&str; 7] = ["k", "prices:k", "prices.k", "{prices}:k", ":k", "*", "curves:{general}:k\r\nDEL k"];

async fn fill(cache: &Cache) {
    for namespace in all() {
        for key in KEYS {
            put(cache, namespace, key, &format!("{namespace}/{key}"), TtlPolicy::Extended).await;
        }
    }
}

async fn each_has_its_own(cache: &Cache) {
    for namespace in all() {
        for key in KEYS {
            assert_eq!(read(cache, namespace, key).await, Some(format!("{namespace}/{key}")));
        }
    }
}

/// One namespace is emptied, and then one key of another is removed: all else stays.
async fn the_end_of_one_is_not_the_end_of_another(cache: &Cache) {
    assert_eq!(cache.invalidate_namespace(PRICES).await.unwrap().count, KEYS.len() as u64);
    cache.invalidate(Namespace::GENERAL, "k").await.unwrap();
    assert_eq!(cache.invalidate_pattern(Namespace::CURVES, "prices*").await.unwrap().count, 2);
    for namespace in all() {
        for key in KEYS {
            let gone = namespace == PRICES
                || (namespace == Namespace::GENERAL && key == "k")
                || (namespace == Namespace::CURVES && key.starts_with("prices"));
            let expected = (!gone).then(|| format!("{namespace}/{key}"));
            assert_eq!(read(cache, namespace, key).await, expected, "{namespace} {key:?}");
        }
    }
}

#[test]
fn there_are_eight_and_a_service_adds_its_own() {
    let names: Vec<_> = Namespace::GIVEN.iter().map(|namespace| namespace.name()).collect();
    let given = ["curves", "scenarios", "metadata", "eia_data", "external_data", "user_data", "system_config", "general"];
    assert_eq!(names, given);
    assert_eq!(PRICES.to_string(), "prices");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    fill(&cache).await;
    each_has_its_own(&cache).await;
    the_end_of_one_is_not_the_end_of_another(&cache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    let cache = open().await;
    fill(&cache).await;
    cache.close().await.unwrap();
    drop(cache);
    let cache = open().await;
    each_has_its_own(&cache).await;
    the_end_of_one_is_not_the_end_of_another(&cache).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_redis_seen_by_another_node() {
    let redis = RedisServer::start();
    let open = async |node: &str| support::patient().memory(8 << 20).redis(redis.url()).node(node).open().await.unwrap();
    let writer = open("writer").await;
    fill(&writer).await;
    each_has_its_own(&open("reader").await).await;
    the_end_of_one_is_not_the_end_of_another(&open("third").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_with_different_prefixes_share_a_redis_and_nothing_else() {
    let redis = RedisServer::start();
    let open = async |prefix: &str| {
        support::patient().memory(8 << 20).redis(redis.url()).key_prefix(prefix).node(prefix).open().await.unwrap()
    };
    // One prefix begins with the other, and one ends with what separates it from the key.
    let (one, two, three) = (open("app").await, open("app2").await, open("app:").await);
    for (cache, name) in [(&one, "one"), (&two, "two"), (&three, "three")] {
        put(cache, PRICES, "k", name, TtlPolicy::Long).await;
    }
    assert_eq!(read(&open("app").await, PRICES, "k").await.as_deref(), Some("one"));
    three.invalidate_all().await.unwrap();
    one.invalidate_namespace(PRICES).await.unwrap();
    assert!(read(&open("app").await, PRICES, "k").await.is_none());
    assert!(read(&open("app:").await, PRICES, "k").await.is_none());
    assert_eq!(read(&two, PRICES, "k").await.as_deref(), Some("two"));
    assert_eq!(read(&open("app2").await, PRICES, "k").await.as_deref(), Some("two"));
}
