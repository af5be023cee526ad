//! Warming: values are loaded before anybody asks, a few at a time, and only where they are missing.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{millis, put, read, secs, until};
use aurum_cache::{Cache, Namespace, TtlPolicy, Warming};

const NS: Namespace = Namespace::METADATA;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("key/{i}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_loads_what_is_missing_keeps_what_is_there_and_counts_what_failed() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    cache.set(NS, "key/0", &1_000u64, TtlPolicy::Long).await.unwrap();
    let warming = Warming::<u64>::new(NS, TtlPolicy::Long).keys(names(10)).concurrency(3).fetcher(|key: String| async move {
        match key.as_str() {
            "key/3" | "key/7" => Err(format!("{key} has no source")),
            _ => Ok(key.len() as u64),
        }
    });
    let report = cache.warm(warming).await;
    assert_eq!((report.loaded, report.already_warm, report.failed), (7, 1, 2));
    assert_eq!(cache.get::<u64>(NS, "key/0").await.unwrap().to_value(), 1_000, "what was there is kept");
    assert_eq!(cache.get::<u64>(NS, "key/1").await.unwrap().to_value(), 5);
    assert!(cache.get::<u64>(NS, "key/3").await.is_none());
    assert_eq!(cache.describe(NS, "key/1").await.unwrap().policy, TtlPolicy::Long);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_loaders_run_at_once_than_was_asked_for() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // The first five wait for each other: fewer at a time would never get on.
    let five = Arc::new(tokio::sync::Barrier::new(5));
    let counters = (running.clone(), most.clone());
    let warming = Warming::<u64>::new(NS, TtlPolicy::Long).keys(names(60)).concurrency(5).fetcher(move |_| {
        let ((running, most), five) = (counters.clone(), five.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            five.wait().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, String>(1)
        }
    });
    let report = tokio::time::timeout(secs(20), cache.warm(warming)).await.expect("five run at a time");
    assert_eq!(report.loaded, 60);
    assert_eq!(most.load(Ordering::SeqCst), 5, "five at once, no more and no fewer");
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_panics_fails_its_key_and_no_other() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    let warming = Warming::<u64>::new(NS, TtlPolicy::Long).keys(names(4)).fetcher(|key: String| async move {
        assert_ne!(key, "key/2", "this loader panics on purpose");
        Ok::<_, String>(1)
    });
    let report = cache.warm(warming).await;
    assert_eq!((report.loaded, report.failed), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_warming_runs_now_and_again() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    let rounds = Arc::new(AtomicUsize::new(0));
    let counter = rounds.clone();
    cache.configure_warming(Warming::<u64>::new(NS, TtlPolicy::Long).keys(["k"]).every(millis(50)).fetcher(move |_| {
        let counter = counter.clone();
        async move { Ok::<_, String>(counter.fetch_add(1, Ordering::SeqCst) as u64) }
    }));
    until("it was loaded without a read", async || cache.get_resident::<u64>(NS, "k").is_some()).await;
    for round in 2..4 {
        cache.invalidate(NS, "k").await.unwrap();
        until("it was loaded again", async || cache.get_resident::<u64>(NS, "k").is_some()).await;
        assert!(rounds.load(Ordering::SeqCst) >= round);
    }
    cache.close().await.unwrap();
    let at_close = rounds.load(Ordering::SeqCst);
    cache.close().await.unwrap();
    tokio::time::sleep(millis(200)).await; // four rounds would have been due
    assert_eq!(rounds.load(Ordering::SeqCst), at_close, "close ends it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warming_that_is_off_does_nothing() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    let off = || {
        let warming = Warming::<u64>::new(NS, TtlPolicy::Long).keys(["k"]).every(millis(10)).enabled(false);
        warming.fetcher(|_| async { Ok::<_, String>(1) })
    };
    cache.configure_warming(off());
    let report = cache.warm(off()).await;
    assert_eq!((report.loaded, report.already_warm, report.failed), (0, 0, 0));
    assert!(cache.get::<u64>(NS, "k").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_being_loaded_during_an_invalidation_does_not_land() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    let (begun, go) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let warming = {
        let (begun, go) = (begun.clone(), go.clone());
        Warming::<String>::new(NS, TtlPolicy::Long).keys(["k"]).fetcher(move |_| {
            let (begun, go) = (begun.clone(), go.clone());
            async move {
                begun.notify_one();
                go.notified().await;
                Ok::<_, String>("old".to_owned())
            }
        })
    };
    let task = tokio::spawn({
        let cache = cache.clone();
        async move { cache.warm(warming).await }
    });
    tokio::time::timeout(secs(20), begun.notified()).await.unwrap();
    cache.invalidate(NS, "k").await.unwrap();
    go.notify_one();
    task.await.unwrap();
    assert!(cache.get::<String>(NS, "k").await.is_none());
    put(&cache, NS, "k", "new", TtlPolicy::Long).await;
    assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("new"));
}

/// After a deploy that changed a type its old bytes are on disk, but no reader could use them: they are not warm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_another_type_are_not_warm() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    put(&cache, NS, "k", "written by the last version", TtlPolicy::Extended).await;
    let warming = || Warming::new(NS, TtlPolicy::Extended).keys(["k"]).fetcher(|_| async { Ok::<u64, String>(7) });
    assert_eq!(cache.warm(warming()).await.loaded, 1);
    assert_eq!(cache.get::<u64>(NS, "k").await.unwrap().to_value(), 7);
    assert_eq!(cache.warm(warming()).await.already_warm, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_lower_tier_holds_is_warm_and_warming_counts_as_no_read() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    let cache = open().await;
    cache.set(NS, "k", &7u64, TtlPolicy::Extended).await.unwrap();
    cache.close().await.unwrap();
    let cache = open().await;
    let warming = Warming::new(NS, TtlPolicy::Extended).keys(["k", "new"]).fetcher(|_| async { Ok::<u64, String>(8) });
    let report = cache.warm(warming).await;
    assert_eq!((report.loaded, report.already_warm, report.failed), (1, 1, 0));
    let analytics = cache.analytics();
    assert_eq!((analytics.hits, analytics.misses, analytics.fetches.ok), (0, 0, 1));
}
