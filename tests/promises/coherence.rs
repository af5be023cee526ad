//! Two nodes over one Redis: what one declares dead or overwrites, the other does not serve.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::path::Path;

use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::{self, put, read, tiers, until};
use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;
const SCOPES: [&str; 4] = ["key", "pattern", "namespace", "all"];

async fn node(name: &str, folder: &Path, url: &str) -> Cache {
    let builder = support::patient().memory(8 << 20).disk(folder, 64 << 20).redis(url.to_owned());
    builder.node(name).open().await.expect("the node opens")
}

async fn invalidate(cache: &Cache, scope: &str) {
    let invalidate = match scope {
        "key" => cache.invalidate(NS, "pjm:1"),
        "pattern" => cache.invalidate_pattern(NS, "pjm:*"),
        "namespace" => cache.invalidate_namespace(NS),
        _ => cache.invalidate_all(),
    };
    invalidate.reason("data_update").triggered_by("a test").await.expect("the invalidation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_set_on_one_node_replaces_the_local_copies_of_the_other() {
    let (redis, fa, fb) = (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &redis.url()).await);
    put(&a, NS, "k", "0", TtlPolicy::Extended).await;
    for round in 1..20 {
        let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert!(read(reader, NS, "k").await.is_some(), "the reader has a copy of its own");
        put(writer, NS, "k", &round.to_string(), TtlPolicy::Extended).await;
        assert_eq!(read(writer, NS, "k").await, Some(round.to_string()), "read your writes");
        until("the other node sees it", async || read(reader, NS, "k").await == Some(round.to_string())).await;
        for _ in 0..20 {
            for cache in [writer, reader] {
                assert_eq!(read(cache, NS, "k").await, Some(round.to_string()), "and it stays");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_invalidation_on_one_node_is_seen_by_the_other() {
    let (redis, fa, fb) = (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &redis.url()).await);
    for scope in SCOPES {
        put(&a, NS, "pjm:1", "old", TtlPolicy::Extended).await;
        put(&a, NS, "ercot:1", "spared", TtlPolicy::Extended).await;
        until("both nodes have it", async || read(&b, NS, "pjm:1").await.is_some() && read(&b, NS, "ercot:1").await.is_some())
            .await;
        invalidate(&a, scope).await;
        assert!(read(&a, NS, "pjm:1").await.is_none(), "{scope}");
        until("the other node has dropped it", async || read(&b, NS, "pjm:1").await.is_none()).await;
        for _ in 0..20 {
            assert!(read(&b, NS, "pjm:1").await.is_none(), "{scope}: it came back");
        }
        if matches!(scope, "key" | "pattern") {
            assert_eq!(read(&b, NS, "ercot:1").await.as_deref(), Some("spared"), "{scope}");
        }
        // And it can be written again, by either.
        put(&b, NS, "pjm:1", "new", TtlPolicy::Extended).await;
        until("the first node sees the new one", async || read(&a, NS, "pjm:1").await.as_deref() == Some("new")).await;
        a.invalidate_all().await.unwrap();
        until("both are empty", async || read(&b, NS, "pjm:1").await.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_closed_does_not_serve_what_was_invalidated_meanwhile() {
    let redis = RedisServer::start();
    for scope in SCOPES {
        let (fa, fb) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &redis.url()).await);
        put(&b, NS, "pjm:1", "old", TtlPolicy::Persistent).await;
        put(&b, NS, "pjm:2", "old", TtlPolicy::Long).await;
        put(&b, NS, "ercot:1", "spared", TtlPolicy::Persistent).await;
        b.close().await.unwrap();
        drop(b);
        invalidate(&a, scope).await;
        let b = node("b", fb.path(), &redis.url()).await;
        // From the first read on, without any grace.
        assert_eq!(read(&b, NS, "pjm:1").await, None, "{scope}: served from its disk");
        if scope != "key" {
            assert_eq!(read(&b, NS, "pjm:2").await, None, "{scope}: kept warm over the restart");
        }
        if matches!(scope, "key" | "pattern") {
            assert_eq!(read(&b, NS, "ercot:1").await.as_deref(), Some("spared"), "{scope}");
        }
        b.close().await.unwrap();
        a.invalidate_all().await.unwrap();
        a.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_closed_does_not_serve_what_was_overwritten_meanwhile() {
    let (redis, fa, fb) = (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &redis.url()).await);
    put(&b, NS, "k", "old", TtlPolicy::Persistent).await;
    b.close().await.unwrap();
    drop(b);
    put(&a, NS, "k", "new", TtlPolicy::Persistent).await;
    let b = node("b", fb.path(), &redis.url()).await;
    assert_eq!(read(&b, NS, "k").await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_cut_off_reads_on_when_it_is_back() {
    let (redis, fa, fb) = (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let proxy = Proxy::to(redis.port());
    let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &proxy.url()).await);
    // Its own write: what the other wrote may be dropped again when the log tells of it late.
    put(&b, NS, "stays", "old", TtlPolicy::Extended).await;
    for key in ["pjm:1", "pjm:2"] {
        put(&a, NS, key, "old", TtlPolicy::Extended).await;
        until("both have it", async || read(&b, NS, key).await.is_some()).await;
    }
    proxy.cut();
    invalidate(&a, "key").await;
    put(&a, NS, "pjm:2", "new", TtlPolicy::Extended).await;
    assert_eq!(read(&b, NS, "stays").await.as_deref(), Some("old"), "cut off, it serves what it has");
    proxy.heal();
    until("it has caught up", async || {
        read(&b, NS, "pjm:1").await.is_none() && read(&b, NS, "pjm:2").await.as_deref() == Some("new")
    })
    .await;
    assert_eq!(read(&b, NS, "stays").await.as_deref(), Some("old"));
}

/// The log is gone, wholly or as far as the cursor: nobody knows what was invalidated, so local copies go.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_the_log_is_lost_local_copies_are_dropped() {
    let redis = RedisServer::start();
    let log = "aurum:{aurum:log}";
    let losses: [&[&str]; 3] = [&["FLUSHALL"], &["DEL", log], &["XTRIM", log, "MAXLEN", "0"]];
    for loss in losses {
        let (fa, fb) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &redis.url()).await);
        put(&b, NS, "pjm:1", "old", TtlPolicy::Persistent).await;
        b.close().await.unwrap();
        drop(b);
        invalidate(&a, "key").await;
        redis.ask(loss);
        let b = node("b", fb.path(), &redis.url()).await;
        until("the copy of an unknown past is not served", async || read(&b, NS, "pjm:1").await.is_none()).await;
        for _ in 0..20 {
            assert!(read(&b, NS, "pjm:1").await.is_none(), "{loss:?}");
        }

        // And under nodes that run: what they hold goes, and what is written then is heard.
        put(&a, NS, "pjm:2", "old", TtlPolicy::Persistent).await;
        until("both have it", async || read(&b, NS, "pjm:2").await.is_some()).await;
        redis.ask(loss);
        for cache in [&a, &b] {
            until("neither keeps what it held", async || {
                !tiers(cache, NS, "pjm:2").await.iter().any(|tier| *tier != Tier::Redis)
            })
            .await;
        }
        put(&a, NS, "pjm:3", "0", TtlPolicy::Persistent).await;
        until("the other reads it", async || read(&b, NS, "pjm:3").await.as_deref() == Some("0")).await;
        put(&a, NS, "pjm:3", "1", TtlPolicy::Persistent).await;
        until("the other hears of it", async || read(&b, NS, "pjm:3").await.as_deref() == Some("1")).await;
        a.close().await.unwrap();
        b.close().await.unwrap();
    }
}

/// A node fills Redis with what it loaded before the other invalidated: the lease refuses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fetch_on_one_node_does_not_land_after_an_invalidation_on_another() {
    use std::sync::Arc;
    use tokio::sync::Notify;
    let (redis, fa, fb) = (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &redis.url()).await);
    for scope in SCOPES {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = tokio::spawn({
            let (b, begun, go) = (b.clone(), begun.clone(), go.clone());
            async move {
                let load = move || async move {
                    begun.notify_one();
                    go.notified().await;
                    Ok::<_, std::io::Error>("old".to_owned())
                };
                b.get_or_fetch(NS, "pjm:1", TtlPolicy::Extended, load).await.map(|hit| hit.to_value())
            }
        });
        tokio::time::timeout(support::PATIENCE, begun.notified()).await.expect("the loader begins");
        invalidate(&a, scope).await;
        go.notify_one();
        assert_eq!(slow.await.unwrap().unwrap(), "old");
        assert!(a.get::<String>(NS, "pjm:1").await.is_none(), "{scope}: it landed in Redis");
        until("nor does the other keep it", async || b.get::<String>(NS, "pjm:1").await.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_event_says_which_node() {
    let (redis, fa, fb) = (RedisServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (node("a", fa.path(), &redis.url()).await, node("b", fb.path(), &redis.url()).await);
    put(&a, NS, "pjm:1", "v", TtlPolicy::Long).await;
    until("both have it", async || read(&b, NS, "pjm:1").await.is_some()).await;
    invalidate(&a, "pattern").await;
    let since = std::time::SystemTime::UNIX_EPOCH;
    assert_eq!(a.invalidation_events(since).last().map(|event| event.node.clone()), Some("a".to_owned()));
    until("the other node knows of it, with who, why and where", async || {
        b.invalidation_events(since).iter().any(|event| {
            event.node == "a" && event.reason.as_deref() == Some("data_update") && event.triggered_by.as_deref() == Some("a test")
        })
    })
    .await;
}
