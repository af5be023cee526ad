//! After an invalidation returns, nothing older is ever read again: not from another tier, not by what was
//! in flight, not after a restart, not after a kill -9.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::path::Path;
use std::sync::Arc;

use crate::support::child::{Child, given, linger, role, say};
use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::{self, millis, put, read, secs, settings, text, until};
use aurum_cache::{Cache, Namespace, TtlPolicy};
use tokio::sync::Notify;

const NS: Namespace = Namespace::CURVES;
const OTHER: Namespace = Namespace::SCENARIOS;
const SCOPES: [&str; 4] = ["key", "pattern", "namespace", "all"];

async fn open(folder: &Path, redis: Option<&str>) -> Cache {
    let builder = Cache::builder().memory(4 << 20).disk(folder, 128 << 20).node("a");
    let builder = match redis {
        Some(url) => builder.redis(url),
        None => builder,
    };
    builder.open().await.expect("the cache opens")
}

/// 40 doomed keys in all tiers that there are, and one in each namespace that some scopes spare.
async fn fill(cache: &Cache) {
    for i in 0..40 {
        let policy = [TtlPolicy::Extended, TtlPolicy::Long][i % 2];
        put(cache, NS, &format!("pjm:{i}"), "old", policy).await;
    }
    put(cache, NS, "ercot:1", "spared", TtlPolicy::Extended).await;
    put(cache, OTHER, "pjm:1", "spared", TtlPolicy::Extended).await;
}

async fn invalidate(cache: &Cache, scope: &str) {
    match scope {
        "key" => {
            for i in 0..40 {
                cache.invalidate(NS, &format!("pjm:{i}")).await.unwrap();
            }
        }
        "pattern" => drop(cache.invalidate_pattern(NS, "pjm:*").await.unwrap()),
        "namespace" => drop(cache.invalidate_namespace(NS).await.unwrap()),
        _ => drop(cache.invalidate_all().await.unwrap()),
    }
}

/// Every way of reading says that the doomed are dead; who was spared lives.
async fn judge(cache: &Cache, scope: &str, when: &str) {
    for i in 0..40 {
        let key = format!("pjm:{i}");
        assert_eq!(read(cache, NS, &key).await, None, "{scope}, {when}: {key}");
        assert!(cache.get_resident::<str>(NS, &key).is_none(), "{scope}, {when}: {key} is resident");
        assert!(!cache.contains(NS, &key).await, "{scope}, {when}: {key} is contained");
        assert!(cache.describe(NS, &key).await.is_none(), "{scope}, {when}: {key} is described");
        assert!(cache.get_many::<str>(NS, &[&key]).await[0].is_none(), "{scope}, {when}: {key} in bulk");
    }
    let spared = Some("spared".to_owned());
    if matches!(scope, "key" | "pattern") {
        assert_eq!(read(cache, NS, "ercot:1").await, spared, "{scope}, {when}");
    }
    if scope != "all" {
        assert_eq!(read(cache, OTHER, "pjm:1").await, spared, "{scope}, {when}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    let Some(role) = role() else { return };
    if role == "cut off" {
        return change_cut_off().await;
    }
    let redis = std::env::var("REDIS").ok();
    let cache = open(Path::new(&given("FOLDER")), redis.as_deref()).await;
    fill(&cache).await;
    cache.flush().await.unwrap();
    invalidate(&cache, &role).await;
    say("invalidated");
    linger().await;
}

async fn clean_restarts(redis: Option<&str>) {
    for scope in SCOPES {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), redis).await;
        fill(&cache).await;
        cache.flush().await.unwrap();
        invalidate(&cache, scope).await;
        judge(&cache, scope, "at once").await;
        for restart in ["after a restart", "after a second restart"] {
            cache.close().await.unwrap();
            let cache = open(folder.path(), redis).await;
            judge(&cache, scope, restart).await;
            tokio::task::yield_now().await;
            judge(&cache, scope, restart).await;
            cache.close().await.unwrap();
        }
    }
}

async fn kills(redis: Option<&str>) {
    for scope in SCOPES {
        let folder = tempfile::tempdir().unwrap();
        let mut given = vec![("FOLDER", folder.path().to_str().unwrap())];
        given.extend(redis.map(|url| ("REDIS", url)));
        let child = Child::play(module_path!(), scope, &given);
        assert_eq!(child.hear(), "invalidated");
        child.kill();
        for restart in ["after kill -9", "after a restart on top"] {
            let cache = open(folder.path(), redis).await;
            judge(&cache, scope, restart).await;
            cache.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_brings_nothing_back() {
    clean_restarts(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_brings_nothing_back_with_redis() {
    let redis = RedisServer::start();
    clean_restarts(Some(&redis.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_9_brings_nothing_back() {
    kills(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_9_brings_nothing_back_with_redis() {
    let redis = RedisServer::start();
    kills(Some(&redis.url())).await;
}

/// Writes what Redis does not hear of, with maintenance too seldom to write it down.
async fn change_cut_off() {
    let proxy = Proxy::to(given("PORT").parse().unwrap());
    let settings = support::settings("maintenance.interval = \"1h\"\n[redis]\ntimeout = \"20s\"");
    let builder = Cache::builder().config(settings).memory(8 << 20).disk(given("FOLDER"), 64 << 20);
    let cache = builder.redis(proxy.url()).open().await.unwrap();
    put(&cache, NS, "pjm:1", "old", TtlPolicy::Short).await;
    put(&cache, OTHER, "pjm:1", "old", TtlPolicy::Short).await;
    proxy.cut();
    put(&cache, NS, "pjm:1", "new", TtlPolicy::Short).await;
    cache.invalidate(OTHER, "pjm:1").await.unwrap();
    say("changed");
    linger().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_was_not_told_is_not_forgotten_by_a_kill_9() {
    let (redis, folder, other) = (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let neighbour = open(other.path(), Some(&redis.url())).await;
    let (path, port) = (folder.path().to_str().unwrap(), redis.port().to_string());
    let child = Child::play(module_path!(), "cut off", &[("FOLDER", path), ("PORT", &port)]);
    assert_eq!(child.hear(), "changed");
    for ns in [NS, OTHER] {
        until("the others still have it", async || read(&neighbour, ns, "pjm:1").await.as_deref() == Some("old")).await;
    }
    child.kill();
    let cache = open(folder.path(), Some(&redis.url())).await;
    for _ in 0..20 {
        for ns in [NS, OTHER] {
            assert_eq!(read(&cache, ns, "pjm:1").await, None, "what Redis still had of {ns} came back");
        }
    }
    for ns in [NS, OTHER] {
        until("the others hear of it", async || read(&neighbour, ns, "pjm:1").await.is_none()).await;
        assert_eq!(read(&cache, ns, "pjm:1").await, None);
    }
}

/// The older value of an overwritten key is as dead as an invalidated one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overwrite_that_does_not_land_on_disk_leaves_nothing_older_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), None).await;
    put(&cache, NS, "k", "old", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    put(&cache, NS, "k", "new", TtlPolicy::Short).await;
    for i in 0..6_000 {
        put(&cache, NS, &i.to_string(), &text("v", 2_000), TtlPolicy::Short).await;
    }
    let found = read(&cache, NS, "k").await;
    assert!(found.is_none() || found.as_deref() == Some("new"), "{found:?} after eviction");
    cache.close().await.unwrap();
    drop(cache);
    assert_eq!(read(&open(folder.path(), None).await, NS, "k").await, None, "after a restart");
}

/// A loader that began before the invalidation: its caller gets the value, the cache does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fetch_in_flight_does_not_land() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let url = redis.url();
    let cache = open(folder.path(), Some(&url)).await;
    for scope in SCOPES {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let waiting = tokio::spawn({
            let (cache, begun, go) = (cache.clone(), begun.clone(), go.clone());
            async move {
                let load = move || async move {
                    begun.notify_one();
                    go.notified().await;
                    Ok::<_, String>("old".to_owned())
                };
                cache.get_or_fetch(NS, "pjm:0", TtlPolicy::Extended, load).await.map(|hit| hit.to_value())
            }
        });
        tokio::time::timeout(secs(20), begun.notified()).await.expect("the loader begins");
        invalidate(&cache, scope).await;
        go.notify_one();
        assert_eq!(waiting.await.unwrap().unwrap(), "old", "{scope}: who asked before still gets the answer");
        assert!(cache.get::<String>(NS, "pjm:0").await.is_none(), "{scope}: it landed after the invalidation");
        let fresh = cache.get_or_fetch(NS, "pjm:0", TtlPolicy::Extended, || async { Ok::<_, String>("new".to_owned()) });
        assert_eq!(fresh.await.unwrap().to_value(), "new", "{scope}");
        assert_eq!(cache.get::<String>(NS, "pjm:0").await.unwrap().to_value(), "new", "{scope}");
        cache.invalidate_all().await.unwrap();
    }
}

/// A value that is on its way up from a slow Redis when it is invalidated.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_promotion_in_flight_does_not_land() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port());
    let config = settings("[redis]\ntimeout = \"5s\"");
    let writer = support::patient().memory(8 << 20).redis(redis.url()).node("writer").open().await.unwrap();
    for scope in SCOPES {
        let folder = tempfile::tempdir().unwrap();
        let builder = Cache::builder().config(config.clone()).memory(8 << 20).disk(folder.path(), 64 << 20);
        let cache = builder.redis(proxy.url()).node("reader").open().await.unwrap();
        fill(&writer).await;
        proxy.delay(millis(150));
        let reads: Vec<_> = (0..40)
            .map(|i| {
                let cache = cache.clone();
                tokio::spawn(async move { read(&cache, NS, &format!("pjm:{i}")).await })
            })
            .collect();
        tokio::time::sleep(millis(75)).await; // the answers are in the proxy; if not, the test is weaker, not wrong
        if scope == "key" {
            let all: Vec<_> = (0..40).map(|i| (cache.clone(), format!("pjm:{i}"))).collect();
            let tasks =
                all.into_iter().map(|(cache, key)| tokio::spawn(async move { cache.invalidate(NS, &key).await.unwrap() }));
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        } else {
            invalidate(&cache, scope).await;
        }
        proxy.delay(millis(0));
        judge(&cache, scope, "while the promotion was under way").await;
        for read in reads {
            let _ = read.await.unwrap();
        }
        judge(&cache, scope, "after the promotion").await;
        cache.flush().await.unwrap();
        judge(&cache, scope, "after a flush").await;
        cache.close().await.unwrap();
        let cache = open(folder.path(), None).await;
        judge(&cache, scope, "on the disk").await;
        cache.close().await.unwrap();
    }
}
