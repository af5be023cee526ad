//! The recipe of `get_or_fetch`: one loader however many callers, and what they get when it is late or fails.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::redis::RedisServer;
use crate::support::{self, millis, put, read, secs, settings, timed, until};
use aurum_cache::{Cache, Clock, FetchError, Namespace, TtlPolicy};
use tokio::sync::Notify;

const NS: Namespace = Namespace::CURVES;

async fn memory() -> Cache {
    Cache::builder().memory(8 << 20).open().await.unwrap()
}

/// A cache whose `curves` have these settings, and its clock.
async fn governed(lines: &str) -> (Cache, Clock) {
    let clock = Clock::manual();
    let config = settings(&format!("[namespaces.curves]\n{lines}"));
    (Cache::builder().config(config).memory(8 << 20).clock(clock.clone()).open().await.unwrap(), clock)
}

async fn load(cache: &Cache, key: &str, value: u64) -> Result<u64, FetchError<String>> {
    cache.get_or_fetch(NS, key, TtlPolicy::Short, move || async move { Ok(value) }).await.map(|hit| hit.to_value())
}

async fn fail(cache: &Cache, key: &str) -> Result<(u64, bool), FetchError<String>> {
    let fetch = cache.get_or_fetch(NS, key, TtlPolicy::Short, || async { Err::<u64, _>("no source".to_owned()) });
    fetch.await.map(|hit| (hit.to_value(), hit.is_stale()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_of_a_cold_key_run_one_loader() {
    let (cache, runs) = (memory().await, Arc::new(AtomicUsize::new(0)));
    let go = Arc::new(Notify::new());
    let callers: Vec<_> = (0..1_000)
        .map(|_| {
            let (cache, runs, go) = (cache.clone(), runs.clone(), go.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    go.notified().await;
                    Ok::<_, String>("loaded".to_owned())
                };
                cache.get_or_fetch(NS, "k", TtlPolicy::Medium, load).await.unwrap().to_value()
            })
        })
        .collect();
    until("all but one have joined", async || cache.analytics().fetches.joined == 999).await;
    go.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "loaded");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let fetches = cache.analytics().fetches;
    assert_eq!((fetches.ok, fetches.joined), (1, 999));
    assert_eq!(cache.get::<String>(NS, "k").await.unwrap().to_value(), "loaded");
}

#[tokio::test]
async fn a_warm_key_runs_no_loader() {
    let cache = memory().await;
    assert_eq!(load(&cache, "k", 1).await.unwrap(), 1);
    assert_eq!(load(&cache, "k", 2).await.unwrap(), 1);
    assert_eq!(cache.analytics().fetches.ok, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaders_error_reaches_every_caller_and_is_not_kept() {
    let (cache, go) = (memory().await, Arc::new(Notify::new()));
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (cache, go) = (cache.clone(), go.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    go.notified().await;
                    Err::<u64, _>("no source".to_owned())
                };
                cache.get_or_fetch(NS, "k", TtlPolicy::Medium, load).await
            })
        })
        .collect();
    until("all but one have joined", async || cache.analytics().fetches.joined == 9).await;
    go.notify_one();
    for caller in callers {
        match caller.await.unwrap() {
            Err(FetchError::Fetch(cause)) => assert_eq!(*cause, "no source"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(load(&cache, "k", 7).await.unwrap(), 7, "the next caller tries again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_panics_is_an_error_and_the_key_is_free_again() {
    let cache = memory().await;
    let fetch = cache.get_or_fetch(NS, "k", TtlPolicy::Medium, || async {
        assert!(std::hint::black_box(false), "this loader panics on purpose");
        Ok::<u64, String>(1)
    });
    match fetch.await {
        Err(FetchError::Panicked(message)) => assert!(message.contains("on purpose"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(load(&cache, "k", 7).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_caller_may_go_away() {
    let (cache, runs) = (memory().await, Arc::new(AtomicUsize::new(0)));
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let call = |cache: Cache| {
        let (runs, begun, go) = (runs.clone(), begun.clone(), go.clone());
        tokio::spawn(async move {
            let load = move || async move {
                runs.fetch_add(1, Ordering::SeqCst);
                begun.notify_one();
                go.notified().await;
                Ok::<_, String>(7u64)
            };
            cache.get_or_fetch(NS, "k", TtlPolicy::Medium, load).await.map(|hit| hit.to_value())
        })
    };
    let first = call(cache.clone());
    tokio::time::timeout(secs(20), begun.notified()).await.unwrap();
    let second = call(cache.clone());
    until("the second has joined", async || cache.analytics().fetches.joined == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    go.notify_waiters();
    go.notify_one();
    assert_eq!(second.await.unwrap().unwrap(), 7);
    assert_eq!(runs.load(Ordering::SeqCst), 1, "the flight belongs to the cache");
}

#[tokio::test]
async fn a_stale_value_stands_in_for_a_failed_loader_for_as_long_as_was_said() {
    let (cache, clock) = governed("stale_if_error = \"10m\"").await;
    assert_eq!(load(&cache, "k", 7).await.unwrap(), 7);
    clock.advance(TtlPolicy::Short.ttl());
    assert!(cache.get::<u64>(NS, "k").await.is_none(), "a plain read never serves past its time");
    assert_eq!(fail(&cache, "k").await.unwrap(), (7, true), "stale, and marked");
    clock.advance(secs(599));
    assert_eq!(fail(&cache, "k").await.unwrap(), (7, true));
    clock.advance(secs(2));
    assert!(matches!(fail(&cache, "k").await, Err(FetchError::Fetch(_))), "ten minutes are over");
}

#[tokio::test]
async fn without_the_setting_nothing_stale_is_served() {
    let (cache, clock) = governed("").await;
    load(&cache, "k", 7).await.unwrap();
    clock.advance(TtlPolicy::Short.ttl());
    assert!(matches!(fail(&cache, "k").await, Err(FetchError::Fetch(_))));
}

#[tokio::test]
async fn an_invalidated_value_does_not_stand_in() {
    let (cache, clock) = governed("stale_if_error = \"10m\"").await;
    load(&cache, "k", 7).await.unwrap();
    clock.advance(TtlPolicy::Short.ttl());
    cache.invalidate(NS, "k").await.unwrap();
    assert!(matches!(fail(&cache, "k").await, Err(FetchError::Fetch(_))), "invalidated is worse than stale");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_soft_timeout_the_stale_value_is_served_and_the_fetch_goes_on() {
    let (cache, clock) = governed("stale_if_error = \"10m\"\nsoft_timeout = \"50ms\"").await;
    load(&cache, "k", 7).await.unwrap();
    clock.advance(TtlPolicy::Short.ttl());
    let go = Arc::new(Notify::new());
    let slow = go.clone();
    let fetch = cache.get_or_fetch(NS, "k", TtlPolicy::Short, move || async move {
        slow.notified().await;
        Ok::<_, String>(8u64)
    });
    let hit = fetch.await.unwrap();
    assert_eq!((hit.to_value(), hit.is_stale()), (7, true));
    assert_eq!(hit.expires_in(), std::time::Duration::ZERO);
    go.notify_one();
    until("the slow fetch has landed", async || cache.get::<u64>(NS, "k").await.is_some_and(|hit| hit.to_value() == 8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_hard_timeout_the_fetch_has_failed_and_the_key_is_free() {
    let (cache, _) = governed("hard_timeout = \"100ms\"").await;
    let stuck = cache.get_or_fetch(NS, "k", TtlPolicy::Short, || async {
        std::future::pending::<()>().await;
        Ok::<u64, String>(1)
    });
    let (result, took) = timed(stuck).await;
    assert!(matches!(result, Err(FetchError::TimedOut)), "{result:?}");
    assert!(took >= millis(90) && took < secs(5), "{took:?}");
    // The caller has its own watch: it may be told before the fetch itself is ended and counted.
    until("the fetch is counted", async || cache.analytics().fetches.timed_out >= 1).await;
    assert_eq!(load(&cache, "k", 7).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_its_share_of_life_a_hit_is_refreshed_once_in_the_background() {
    let (cache, clock) = governed("refresh_ahead = 0.8").await;
    let runs = Arc::new(AtomicUsize::new(0));
    let get = async || {
        let runs = runs.clone();
        let load = move || async move { Ok::<_, String>(runs.fetch_add(1, Ordering::SeqCst) as u64) };
        cache.get_or_fetch(NS, "k", TtlPolicy::Short, load).await.unwrap().to_value()
    };
    assert_eq!(get().await, 0);
    clock.advance(secs(239));
    assert_eq!(get().await, 0);
    assert_eq!(runs.load(Ordering::SeqCst), 1, "four fifths of five minutes are not over");
    clock.advance(secs(2));
    assert_eq!(get().await, 0, "nobody waits for the refresh");
    until("it was refreshed", async || cache.get::<u64>(NS, "k").await.is_some_and(|hit| hit.to_value() == 1)).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
    assert_eq!(cache.analytics().fetches.refreshed, 1);
    clock.advance(secs(200));
    assert_eq!(get().await, 1, "the refreshed value has a life of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_invalidation_during_a_fetch_is_not_overwritten() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = support::patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let early = tokio::spawn({
        let (cache, begun, go) = (cache.clone(), begun.clone(), go.clone());
        async move {
            let load = move || async move {
                begun.notify_one();
                go.notified().await;
                Ok::<_, String>(1u64)
            };
            cache.get_or_fetch(NS, "k", TtlPolicy::Extended, load).await.unwrap().to_value()
        }
    });
    tokio::time::timeout(secs(20), begun.notified()).await.unwrap();
    cache.invalidate(NS, "k").await.unwrap();
    // Who asks after the invalidation starts anew, although the old flight is still up.
    let late = tokio::time::timeout(secs(20), load(&cache, "k", 2)).await.expect("it does not wait for the old flight");
    assert_eq!(late.unwrap(), 2);
    go.notify_one();
    assert_eq!(early.await.unwrap(), 1, "who asked before gets the old answer");
    for _ in 0..20 {
        assert_eq!(cache.get::<u64>(NS, "k").await.unwrap().to_value(), 2, "the old value landed over the new one");
    }
    let other = support::patient().memory(8 << 20).redis(redis.url()).node("other").open().await.unwrap();
    assert_eq!(other.get::<u64>(NS, "k").await.unwrap().to_value(), 2, "in Redis too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_during_a_fetch_is_not_overwritten() {
    let cache = memory().await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let early = tokio::spawn({
        let (cache, begun, go) = (cache.clone(), begun.clone(), go.clone());
        async move {
            let load = move || async move {
                begun.notify_one();
                go.notified().await;
                Ok::<_, String>(1u64)
            };
            cache.get_or_fetch(NS, "k", TtlPolicy::Medium, load).await.unwrap().to_value()
        }
    });
    tokio::time::timeout(secs(20), begun.notified()).await.unwrap();
    cache.set(NS, "k", &2u64, TtlPolicy::Medium).await.unwrap();
    go.notify_one();
    early.await.unwrap();
    assert_eq!(cache.get::<u64>(NS, "k").await.unwrap().to_value(), 2, "read your writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_asks_for_its_own_key_gets_an_error_and_no_deadlock() {
    let cache = memory().await;
    let inner = cache.clone();
    let outer = cache.get_or_fetch(NS, "a", TtlPolicy::Short, move || async move {
        let middle = inner.clone();
        let b = inner.get_or_fetch(NS, "b", TtlPolicy::Short, move || async move {
            middle.get_or_fetch(NS, "a", TtlPolicy::Short, || async { Ok::<_, String>(1u64) }).await.map(|hit| hit.to_value())
        });
        b.await.map(|hit| hit.to_value()).map_err(|e| e.to_string())
    });
    let result = tokio::time::timeout(secs(10), outer).await.expect("no deadlock");
    assert!(result.is_err(), "{result:?}");
    assert_eq!(load(&cache, "a", 7).await.unwrap(), 7);
    assert_eq!(load(&cache, "c", 8).await.unwrap(), 8);
}

#[tokio::test]
async fn what_is_not_allowed_is_rejected_before_the_loader_runs() {
    let (cache, _) = governed("max_ttl = \"1m\"").await;
    let runs = Arc::new(AtomicUsize::new(0));
    for key in ["", "k"] {
        let runs = runs.clone();
        let load = move || async move {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok::<_, String>(1u64)
        };
        let result = cache.get_or_fetch(NS, key, TtlPolicy::Short, load).await;
        assert!(matches!(result, Err(FetchError::Rejected(_))), "{key:?}: {result:?}");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_value_is_placed_like_a_set_one() {
    use aurum_cache::Tier;
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = support::patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    for (policy, count) in [(TtlPolicy::Short, 2), (TtlPolicy::Extended, 3)] {
        let key = policy.to_string();
        cache.get_or_fetch(NS, &key, policy, || async { Ok::<_, String>(1u64) }).await.unwrap();
        cache.flush().await.unwrap();
        until("it is where it belongs", async || support::tiers(&cache, NS, &key).await.len() == count).await;
        assert_eq!(support::tiers(&cache, NS, &key).await.contains(&Tier::Disk), count == 3);
    }
    put(&cache, NS, "text", "v", TtlPolicy::Short).await;
    assert_eq!(read(&cache, NS, "text").await.as_deref(), Some("v"));
}
