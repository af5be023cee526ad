//! `get_or_fetch` where it is easy to get wrong: crowds, loaders that ask the cache themselves, circles, and what a failure leaves behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{millis, secs, until};
use aurum_cache::{Cache, Clock, ErrorKind, FetchError, Namespace, NamespaceConfig, TtlPolicy};
use tokio::sync::{Barrier, Notify};

const NS: Namespace = Namespace::CURVES;

async fn memory() -> Cache {
    Cache::builder().memory(8 << 20).open().await.unwrap()
}

async fn governed(config: NamespaceConfig) -> (Cache, Clock) {
    let clock = Clock::manual();
    (Cache::builder().namespace(NS, config).memory(8 << 20).clock(clock.clone()).open().await.unwrap(), clock)
}

async fn load(cache: &Cache, key: &str, value: u64) -> Result<u64, FetchError<String>> {
    cache.get_or_fetch(NS, key, TtlPolicy::Short, move || async move { Ok(value) }).await.map(|hit| hit.to_value())
}

/// What nobody may wait for longer.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(secs(20), work).await.expect("no deadlock")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_callers_of_a_cold_key_run_one_loader() {
    let (cache, runs, go) = (memory().await, Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let callers: Vec<_> = (0..10_000)
        .map(|_| {
            let (cache, runs, go) = (cache.clone(), runs.clone(), go.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    go.notified().await;
                    Ok::<_, String>(7u64)
                };
                cache.get_or_fetch(NS, "k", TtlPolicy::Medium, load).await.unwrap().to_value()
            })
        })
        .collect();
    until("all but one have joined", async || cache.analytics().fetches.joined == 9_999).await;
    go.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 7);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

/// A caller that missed just before the loader's value landed must not load a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_missed_before_a_value_landed_does_not_load_it_again() {
    const CALLERS: usize = 8;
    let (cache, runs) = (memory().await, Arc::new(AtomicUsize::new(0)));
    let together = Arc::new(Barrier::new(CALLERS));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (cache, runs, together) = (cache.clone(), runs.clone(), together.clone());
            tokio::spawn(async move {
                for round in 0..3_000 {
                    together.wait().await;
                    let runs = runs.clone();
                    let load = move || async move { Ok::<_, String>(runs.fetch_add(1, Ordering::SeqCst) as u64) };
                    let key = format!("key/{round}");
                    cache.get_or_fetch(NS, &key, TtlPolicy::Medium, load).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(runs.load(Ordering::SeqCst), 3_000, "one loader for each key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hot_key_that_expires_under_load_is_loaded_once() {
    let (cache, clock) = governed(NamespaceConfig::default()).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let get = {
        let runs = runs.clone();
        move |cache: Cache| {
            let runs = runs.clone();
            let load = move || async move { Ok::<_, String>(runs.fetch_add(1, Ordering::SeqCst) as u64) };
            async move { cache.get_or_fetch(NS, "k", TtlPolicy::Short, load).await.unwrap().to_value() }
        }
    };
    assert_eq!(get(cache.clone()).await, 0);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (cache, get) = (cache.clone(), get.clone());
            tokio::spawn(async move {
                let mut last = 0;
                for _ in 0..5_000 {
                    let seen = get(cache.clone()).await;
                    assert!(seen >= last, "no older value comes back");
                    last = seen;
                }
                // The last expiry may have come after the loop: ask until it was seen.
                while get(cache.clone()).await < 5 {
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for expiry in 1..=5 {
        until("the value of this life is served", async || get(cache.clone()).await == expiry - 1).await;
        clock.advance(secs(300));
        until("it was loaded anew", async || get(cache.clone()).await == expiry).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(runs.load(Ordering::SeqCst), 6, "once at first and once for each expiry");
    assert_eq!(cache.analytics().fetches.failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_panics_is_an_error_for_all_who_wait() {
    let (cache, go) = (memory().await, Arc::new(Notify::new()));
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let (cache, go) = (cache.clone(), go.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    go.notified().await;
                    assert!(std::hint::black_box(false), "this loader panics on purpose");
                    Ok::<u64, String>(1)
                };
                cache.get_or_fetch(NS, "k", TtlPolicy::Short, load).await
            })
        })
        .collect();
    until("all but one have joined", async || cache.analytics().fetches.joined == 9).await;
    go.notify_one();
    for caller in callers {
        let result = soon(caller).await.unwrap();
        assert!(matches!(&result, Err(FetchError::Panicked(text)) if text.contains("on purpose")), "{result:?}");
    }
    assert_eq!(cache.analytics().fetches.panicked, 1);
    assert_eq!(load(&cache, "k", 7).await.unwrap(), 7);
}

/// The caller is dropped after each number of polls that it takes; the key is free, and the value right, every time.
#[tokio::test]
async fn a_caller_that_goes_away_at_any_await_leaves_the_key_free() {
    let cache = memory().await;
    for polls in 0..12 {
        let key = format!("key/{polls}");
        let inner = cache.clone();
        let mut call = Box::pin(async {
            let load = move || async move {
                tokio::task::yield_now().await;
                load(&inner, "shared", 5).await.map_err(|error| error.to_string())
            };
            cache.get_or_fetch(NS, &key, TtlPolicy::Short, load).await.map(|hit| hit.to_value())
        });
        for _ in 0..polls {
            let polled = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context).is_ready()));
            if polled.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        // Whichever came first, the abandoned flight or this loader: it ends, and both know one value.
        let value = soon(load(&cache, &key, 5)).await.unwrap();
        assert_eq!(value, 5, "after {polls} polls");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_asks_for_its_own_key_is_told_so() {
    let cache = memory().await;
    let inner = cache.clone();
    let outer = cache.get_or_fetch(NS, "a", TtlPolicy::Short, move || async move {
        let again = inner.get_or_fetch(NS, "a", TtlPolicy::Short, || async { Ok::<u64, String>(1) }).await;
        match again {
            Err(FetchError::Rejected(error)) => Err::<u64, _>(error),
            other => panic!("{other:?}"),
        }
    });
    let Err(FetchError::Fetch(error)) = soon(outer).await else { panic!("the loader's error was expected") };
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(error.to_string().starts_with("key \"a\": is being loaded"), "{error}");
    assert_eq!(load(&cache, "a", 7).await.unwrap(), 7);
}

/// `a` asks for `b` and `b` for `a`, but two callers began them: neither is inside of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_loaders_that_wait_for_each_other_are_told_so() {
    let cache = memory().await;
    let both_run = Arc::new(Barrier::new(2));
    let call = |own: &'static str, other: &'static str| {
        let (cache, inner, both_run) = (cache.clone(), cache.clone(), both_run.clone());
        tokio::spawn(async move {
            let load = move || async move {
                both_run.wait().await;
                let asked = inner.get_or_fetch(NS, other, TtlPolicy::Short, || async { Ok::<u64, String>(1) }).await;
                asked.map(|hit| hit.to_value()).map_err(|error| error.to_string())
            };
            cache.get_or_fetch(NS, own, TtlPolicy::Short, load).await.map(|hit| hit.to_value())
        })
    };
    let (a, b) = (call("a", "b"), call("b", "a"));
    let results = [soon(a).await.unwrap(), soon(b).await.unwrap()];
    assert!(results.iter().any(Result::is_err), "{results:?}");
    for key in ["a", "b"] {
        assert!(soon(load(&cache, key, 7)).await.is_ok(), "{key} is free");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_over_three_keys_and_two_namespaces_is_found() {
    fn ask(cache: Cache, at: usize) -> std::pin::Pin<Box<dyn Future<Output = Result<u64, String>> + Send>> {
        const ROUND: [(Namespace, &str); 3] = [(Namespace::CURVES, "x"), (Namespace::SCENARIOS, "x"), (Namespace::CURVES, "y")];
        Box::pin(async move {
            let (namespace, key) = ROUND[at % 3];
            let inner = cache.clone();
            let asked = cache.get_or_fetch(namespace, key, TtlPolicy::Short, move || ask(inner, at + 1)).await;
            asked.map(|hit| hit.to_value()).map_err(|error| error.to_string())
        })
    }
    let cache = memory().await;
    let error = soon(ask(cache.clone(), 0)).await.unwrap_err();
    assert!(error.contains("waits for this one"), "{error}");
}

/// One place for loaders, and a loader that needs another key of its namespace: it must not wait for its own place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_inside_of_another_waits_for_no_place() {
    let (cache, _) = governed(NamespaceConfig::default().concurrent_fetches(1)).await;
    let inner = cache.clone();
    let outer = cache.get_or_fetch(NS, "sum", TtlPolicy::Short, move || async move {
        let (a, b) = tokio::join!(load(&inner, "a", 1), load(&inner, "b", 2));
        Ok::<_, FetchError<String>>(a? + b?)
    });
    assert_eq!(soon(outer).await.unwrap().to_value(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_loaders_of_a_namespace_run_than_it_allows() {
    let (cache, _) = governed(NamespaceConfig::default().concurrent_fetches(3)).await;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..40)
        .map(|i| {
            let (cache, running, most) = (cache.clone(), running.clone(), most.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(millis(2)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok::<_, String>(i as u64)
                };
                cache.get_or_fetch(NS, &i.to_string(), TtlPolicy::Short, load).await.unwrap().to_value()
            })
        })
        .collect();
    for (i, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.unwrap(), i as u64);
    }
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");
}

/// Without this, each read past `refresh_ahead` would call a source that is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_fails_is_not_tried_again_by_the_next_hit() {
    let (cache, clock) = governed(NamespaceConfig::default().refresh_ahead(0.5)).await;
    assert_eq!(load(&cache, "k", 7).await.unwrap(), 7);
    clock.advance(secs(200));
    let runs = Arc::new(AtomicUsize::new(0));
    let get = async || {
        let runs = runs.clone();
        let load = move || async move {
            runs.fetch_add(1, Ordering::SeqCst);
            Err::<u64, _>("no source".to_owned())
        };
        cache.get_or_fetch(NS, "k", TtlPolicy::Short, load).await.unwrap().to_value()
    };
    assert_eq!(get().await, 7);
    until("the refresh has failed", async || cache.analytics().fetches.failed == 1).await;
    for _ in 0..100 {
        assert_eq!(get().await, 7);
        tokio::task::yield_now().await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    clock.advance(secs(1));
    assert_eq!(get().await, 7);
    until("after a second it was tried again", async || runs.load(Ordering::SeqCst) == 2).await;
}

/// That there is nothing is a value like another: it is cached as an `Option`, with a life of its own.
#[tokio::test]
async fn nothing_is_a_value() {
    let (cache, clock) = governed(NamespaceConfig::default()).await;
    let get = async |answer: Option<u64>| {
        let hit = cache.get_or_fetch(NS, "k", TtlPolicy::UltraShort, move || async move { Ok::<_, String>(answer) }).await;
        hit.unwrap().to_value()
    };
    assert_eq!(get(None).await, None);
    assert_eq!(get(Some(1)).await, None, "that it is absent was cached");
    assert_eq!(cache.get::<Option<u64>>(NS, "k").await.map(|hit| hit.to_value()), Some(None));
    clock.advance(secs(30));
    assert_eq!(get(Some(1)).await, Some(1));
    assert_eq!(cache.analytics().fetches.ok, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_never_ends_is_given_up_with_its_key_and_its_place() {
    let config = NamespaceConfig::default().hard_timeout(millis(100)).concurrent_fetches(1);
    let (cache, _) = governed(config).await;
    for _ in 0..3 {
        let stuck = cache.get_or_fetch(NS, "k", TtlPolicy::Short, std::future::pending::<Result<u64, String>>);
        assert!(matches!(soon(stuck).await, Err(FetchError::TimedOut)));
    }
    assert_eq!(soon(load(&cache, "k", 7)).await.unwrap(), 7);
    assert_eq!(cache.analytics().fetches.timed_out, 3);
}

/// Two callers load one key as two types: each gets its own, or is told; nobody gets the other's bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_types_under_one_key_are_never_mixed_up() {
    let (cache, begun, go) = (memory().await, Arc::new(Notify::new()), Arc::new(Notify::new()));
    let number = tokio::spawn({
        let (cache, begun, go) = (cache.clone(), begun.clone(), go.clone());
        async move {
            let load = move || async move {
                begun.notify_one();
                go.notified().await;
                Ok::<_, String>(7u64)
            };
            cache.get_or_fetch(NS, "k", TtlPolicy::Short, load).await.map(|hit| hit.to_value())
        }
    });
    soon(begun.notified()).await;
    let words = tokio::spawn({
        let cache = cache.clone();
        async move {
            let load = || async { Ok::<_, Duration>("seven".to_owned()) };
            cache.get_or_fetch(NS, "k", TtlPolicy::Short, load).await.map(|hit| hit.to_value())
        }
    });
    until("the words wait for it", async || cache.analytics().fetches.joined == 1).await;
    go.notify_one();
    assert_eq!(soon(number).await.unwrap().unwrap(), 7);
    assert_eq!(soon(words).await.unwrap().unwrap(), "seven");
}
