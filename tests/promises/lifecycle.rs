//! The end of a cache: closed once or twice, at a bad moment, dropped where nobody expects it. Nothing panics, nothing hangs, nothing is lost that
//! was promised.

#![cfg(feature = "disk")] // what a close must keep is on disk

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{put, read, secs, tier_of, until};
use aurum_cache::{Cache, Error, ErrorKind, FetchError, Namespace, Tier, TierState, TtlPolicy, Warming};
use tokio::sync::Notify;

const NS: Namespace = Namespace::CURVES;

async fn open(folder: &tempfile::TempDir) -> Cache {
    Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap()
}

#[track_caller]
fn is_closed<T>(result: Result<T, Error>) {
    match result {
        Ok(_) => panic!("a closed cache did it"),
        Err(error) => {
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Closed, "cache: is closed; open a new one"))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_close_every_read_misses_and_every_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(&folder).await;
    put(&cache, NS, "k", "v", TtlPolicy::Extended).await;
    let clone = cache.clone();
    cache.close().await.unwrap();
    for cache in [&cache, &clone] {
        assert!(read(cache, NS, "k").await.is_none());
        assert!(cache.get_resident::<str>(NS, "k").is_none());
        assert!(cache.with_resident::<str, ()>(NS, "k", |_| ()).is_none());
        assert!(cache.get_many::<str>(NS, &["k"]).await[0].is_none());
        assert!(!cache.contains(NS, "k").await);
        assert!(cache.describe(NS, "k").await.is_none());
        is_closed(cache.set(NS, "k", "v", TtlPolicy::Short).await);
        is_closed(cache.set_many(NS, &[("k", "v")], TtlPolicy::Short).await);
        is_closed(cache.invalidate(NS, "k").await);
        is_closed(cache.invalidate_pattern(NS, "*").await);
        is_closed(cache.invalidate_namespace(NS).await);
        is_closed(cache.invalidate_all().await);
        is_closed(cache.flush().await);
        let fetched = cache.get_or_fetch(NS, "k", TtlPolicy::Short, || async { Ok::<_, String>(1u64) }).await;
        assert!(matches!(&fetched, Err(FetchError::Rejected(error)) if error.kind() == ErrorKind::Closed), "{fetched:?}");
        let warming = || Warming::new(NS, TtlPolicy::Short).keys(["k"]).fetcher(|_| async { Ok::<_, String>(1u64) });
        assert_eq!(cache.warm(warming()).await.failed, 1);
        cache.configure_warming(warming());
        let health = cache.health().await;
        assert!(!health.is_healthy);
        assert_eq!(tier_of(&health, Tier::Memory).state, TierState::Down);
        assert!(cache.analytics().to_string().contains("memory"));
        cache.run_maintenance().await;
    }
    let again = open(&folder).await;
    assert_eq!(read(&again, NS, "k").await.as_deref(), Some("v"));
}

/// Whoever closes returns when the cache is closed, not when somebody else has begun to: the folder is free for the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_may_close_at_once_and_each_waits_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let cache = open(&folder).await;
        for i in 0..200 {
            put(&cache, NS, &i.to_string(), &round.to_string(), TtlPolicy::Extended).await;
        }
        let others: Vec<_> = (0..4)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.close().await })
            })
            .collect();
        until("somebody has begun", async || cache.flush().await.is_err()).await;
        cache.close().await.unwrap();
        let next = open(&folder).await;
        assert_eq!(read(&next, NS, "199").await, Some(round.to_string()));
        next.close().await.unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_close_that_was_dropped_halfway_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for polls in 0..6 {
        let cache = open(&folder).await;
        put(&cache, NS, "k", &polls.to_string(), TtlPolicy::Extended).await;
        let mut halfway = Box::pin(cache.close());
        for _ in 0..polls {
            let done = std::future::poll_fn(|context| std::task::Poll::Ready(halfway.as_mut().poll(context).is_ready())).await;
            if done {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(halfway);
        cache.close().await.unwrap();
        let next = open(&folder).await;
        assert_eq!(read(&next, NS, "k").await, Some(polls.to_string()), "after {polls} polls");
        next.close().await.unwrap();
    }
}

/// The loader ends after the close: who waited has its value, and the closed cache does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_arrives_after_close_is_answered_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(&folder).await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let caller = tokio::spawn({
        let (cache, begun, go) = (cache.clone(), begun.clone(), go.clone());
        async move {
            let load = move || async move {
                begun.notify_one();
                go.notified().await;
                Ok::<_, String>(7u64)
            };
            cache.get_or_fetch(NS, "k", TtlPolicy::Extended, load).await.map(|hit| hit.to_value())
        }
    });
    begun.notified().await;
    cache.close().await.unwrap();
    go.notify_one();
    assert_eq!(tokio::time::timeout(secs(20), caller).await.unwrap().unwrap().unwrap(), 7);
    assert!(cache.get_resident::<u64>(NS, "k").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_read_after_a_close_that_came_in_the_middle_of_writes() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(&folder).await;
        let written = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (cache, written) = (cache.clone(), written.clone());
                tokio::spawn(async move {
                    for i in 0.. {
                        let key = format!("{writer}/{}", i % 50);
                        match cache.set(NS, &key, "v", TtlPolicy::Extended).await {
                            Ok(()) => written.fetch_add(1, Ordering::SeqCst),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                                return;
                            }
                        };
                        read(&cache, NS, &key).await;
                        // None of these waits for anything: without this no worker is left to run timers.
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        until("there is work under way", async || written.load(Ordering::SeqCst) > 100).await;
        cache.close().await.unwrap();
        for writer in writers {
            writer.await.unwrap();
        }
        for writer in 0..4 {
            for i in 0..50 {
                assert!(cache.get_resident::<str>(NS, &format!("{writer}/{i}")).is_none());
            }
        }
    }
}

/// A service that forgets its cache when a thousand reads are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_handle_may_be_dropped_while_a_thousand_reads_are_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(&folder).await;
    for i in 0..100 {
        put(&cache, NS, &i.to_string(), "v", TtlPolicy::Extended).await;
    }
    cache.flush().await.unwrap();
    let readers: Vec<_> = (0..1_000)
        .map(|i| {
            let cache = cache.clone();
            tokio::spawn(async move { read(&cache, NS, &(i % 200).to_string()).await })
        })
        .collect();
    drop(cache);
    for (i, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.await.unwrap().is_some(), i % 200 < 100);
    }
    until("the folder is free", async || match Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await {
        Ok(next) => next.contains(NS, "1").await,
        Err(_) => false,
    })
    .await;
}

/// A loader that never ends must not hold the folder of a cache that nobody has any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_loader_does_not_keep_a_dropped_cache_open() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(&folder).await;
    let begun = Arc::new(Notify::new());
    let caller = tokio::spawn({
        let (cache, begun) = (cache.clone(), begun.clone());
        async move {
            let load = move || async move {
                begun.notify_one();
                std::future::pending::<Result<u64, String>>().await
            };
            cache.get_or_fetch(NS, "k", TtlPolicy::Short, load).await.map(|hit| hit.to_value())
        }
    });
    begun.notified().await;
    caller.abort();
    let _ = caller.await;
    drop(cache);
    until("the folder is free", async || Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.is_ok())
        .await;
}

#[test]
fn a_cache_may_outlive_its_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cache = runtime.block_on(async {
        let cache = open(&folder).await;
        put(&cache, NS, "k", "v", TtlPolicy::Extended).await;
        cache.flush().await.unwrap();
        // A loader is under way when the runtime goes.
        let flying = cache.clone();
        tokio::spawn(async move {
            let load = || std::future::pending::<Result<u64, String>>();
            flying.get_or_fetch(NS, "stuck", TtlPolicy::Short, load).await.map(drop)
        });
        tokio::task::yield_now().await;
        cache
    });
    runtime.shutdown_timeout(secs(5));
    assert_eq!(cache.get_resident::<str>(NS, "k").as_deref(), Some("v"), "memory needs no runtime");
    drop(cache); // outside of any runtime
    let next = tokio::runtime::Runtime::new().unwrap();
    next.block_on(async {
        // The drop waits a second for the disk's writer; on a busy machine that may not be enough.
        let mut again = None;
        until("the folder is free", async || {
            again = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.ok();
            again.is_some()
        })
        .await;
        let cache = again.expect("it was opened");
        assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("v"));
        cache.close().await.unwrap();
    });
}

#[test]
fn a_second_runtime_may_go_on_with_a_cache_and_close_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = tokio::runtime::Runtime::new().unwrap();
    let cache = first.block_on(open(&folder));
    drop(first);
    let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    second.block_on(async {
        put(&cache, NS, "k", "v", TtlPolicy::Extended).await;
        assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("v"));
        let fetched = cache.get_or_fetch(NS, "f", TtlPolicy::Short, || async { Ok::<_, String>(1u64) }).await;
        assert_eq!(fetched.unwrap().to_value(), 1);
        cache.close().await.unwrap();
        let next = open(&folder).await;
        assert_eq!(read(&next, NS, "k").await.as_deref(), Some("v"));
    });
}
