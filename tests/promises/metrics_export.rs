//! The feature `metrics`: what `analytics()` says reaches the recorder of the process, by name, with unit and description.

#![cfg(all(feature = "disk", feature = "redis", feature = "metrics"))] // its promises speak of every tier

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::support::redis::RedisServer;
use crate::support::{self, patient, put, read, until};
use aurum_cache::{Analytics, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

/// What was exported: `name{label=value,..}`, labels in order of their names, and the number.
type Exported = HashMap<String, f64>;

/// Keeps what it is told last.
#[derive(Default)]
struct Listener {
    described: Mutex<HashSet<String>>,
    told: Mutex<HashMap<String, Arc<Told>>>,
}

/// The bits of the last number.
#[derive(Default)]
struct Told(AtomicU64);

impl Listener {
    fn told(&self, key: &Key) -> Arc<Told> {
        assert!(self.described.lock().unwrap().contains(key.name()), "{key} comes without unit and description");
        let mut labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        self.told.lock().unwrap().entry(format!("{}{{{}}}", key.name(), labels.join(","))).or_default().clone()
    }

    fn exported(&self) -> Exported {
        let number = |told: &Arc<Told>| f64::from_bits(told.0.load(Ordering::SeqCst));
        self.told.lock().unwrap().iter().map(|(name, told)| (name.clone(), number(told))).collect()
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, text: &str) {
        assert!(unit.is_some() && !text.is_empty());
        self.described.lock().unwrap().insert(name.as_str().to_owned());
    }
}

impl Recorder for Listener {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("{} is a histogram", name.as_str());
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.told(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.told(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("{key} is a histogram");
    }
}

impl CounterFn for Told {
    fn increment(&self, _: u64) {
        panic!("counters are told as they stand");
    }

    fn absolute(&self, value: u64) {
        self.0.store((value as f64).to_bits(), Ordering::SeqCst);
    }
}

impl GaugeFn for Told {
    fn increment(&self, _: f64) {
        panic!("gauges are told as they stand");
    }

    fn decrement(&self, _: f64) {
        panic!("gauges are told as they stand");
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::SeqCst);
    }
}

/// The numbers of a snapshot under the names that the README promises.
fn expected(all: &Analytics) -> Exported {
    let mut expected = Exported::new();
    let mut is = |name: &str, value: u64| expected.insert(name.to_owned(), value as f64);
    for tier in Tier::ALL {
        let numbers = all.tier(tier);
        for (what, count) in [
            ("hits", numbers.hits),
            ("tier_misses", numbers.misses),
            ("errors", numbers.errors),
            ("promotions", numbers.promotions),
            ("demotions", numbers.demotions),
            ("evictions", numbers.evictions),
            ("expirations", numbers.expirations),
        ] {
            is(&format!("aurum_cache_{what}_total{{node=seen,tier={tier}}}"), count);
        }
        for (op, latency) in [("get", &numbers.get), ("set", &numbers.set)] {
            is(&format!("aurum_cache_latency_measured_total{{node=seen,op={op},tier={tier}}}"), latency.count);
        }
        is(&format!("aurum_cache_tier_up{{node=seen,tier={tier}}}"), 1);
        is(&format!("aurum_cache_namespace_hits_total{{namespace=curves,node=seen,tier={tier}}}"), numbers.hits);
    }
    for tier in [Tier::Memory, Tier::Disk] {
        let numbers = all.tier(tier);
        is(&format!("aurum_cache_entries{{node=seen,tier={tier}}}"), numbers.entries);
        is(&format!("aurum_cache_capacity_bytes{{node=seen,tier={tier}}}"), numbers.capacity);
    }
    let causes = &all.miss_causes;
    for (cause, count) in [("absent", causes.absent), ("invalidated", causes.invalidated), ("evicted", causes.evicted)] {
        is(&format!("aurum_cache_misses_total{{cause={cause},node=seen}}"), count);
    }
    for (outcome, count) in [("ok", all.fetches.ok), ("failed", all.fetches.failed)] {
        is(&format!("aurum_cache_fetches_total{{node=seen,outcome={outcome}}}"), count);
    }
    is("aurum_cache_stale_total{node=seen}", all.stale);
    is("aurum_cache_sets_total{node=seen}", all.sets);
    is("aurum_cache_invalidations_total{node=seen}", all.invalidation_events);
    is("aurum_cache_invalidated_entries_total{node=seen}", all.invalidated_entries);
    is("aurum_cache_namespace_misses_total{namespace=curves,node=seen}", all.misses);
    is("aurum_cache_namespace_sets_total{namespace=curves,node=seen}", all.sets);
    expected
}

// One thread, on which the cache's tasks run too: the recorder is that thread's alone, so other tests are not heard.
#[tokio::test]
async fn what_analytics_says_is_exported_by_maintenance_and_at_close() {
    let listener = Listener::default();
    let _here = metrics::set_default_local_recorder(&listener);
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let config = support::settings("[redis]\ntimeout = \"20s\"\n[maintenance]\ninterval = \"10ms\"");
    let builder = patient().config(config).memory(1 << 20).disk(folder.path(), 64 << 20).redis(redis.url()).node("seen");
    let cache = builder.open().await.unwrap();
    let other = patient().memory(1 << 20).redis(redis.url()).node("other").open().await.unwrap();
    for n in 0..600 {
        // More than memory holds.
        let key = format!("k{n}");
        put(&cache, NS, &key, &support::text(&key, 4_000), TtlPolicy::Extended).await;
    }
    put(&other, NS, "theirs", "v", TtlPolicy::Long).await;
    for key in ["k0", "k1", "k599", "theirs", "absent"] {
        read(&cache, NS, key).await;
    }
    cache.invalidate(NS, "k0").await.unwrap();
    read(&cache, NS, "k0").await;
    let load = || async { Ok::<_, std::io::Error>(7u64) };
    cache.get_or_fetch(NS, "loaded", TtlPolicy::Short, load).await.unwrap();
    other.close().await.unwrap();

    // The numbers move no more, but for those that time moves; so those that were exported last are those of a later snapshot.
    until("the numbers that were exported are those of analytics", async || {
        let expected = expected(&cache.analytics());
        let found = listener.exported();
        expected.iter().all(|(name, value)| found.get(name) == Some(value))
    })
    .await;
    let found = listener.exported();
    let analytics = cache.analytics();
    assert!(analytics.memory.hits > 0 && analytics.disk.hits > 0 && analytics.redis.hits > 0, "{analytics}");
    assert!(analytics.memory.evictions > 0 && analytics.fetches.ok == 1 && analytics.invalidated_entries == 1, "{analytics}");
    let of = |name: &str| *found.get(name).unwrap_or_else(|| panic!("{name} was not exported: {:?}", found.keys()));
    assert!(of("aurum_cache_bytes{node=seen,tier=memory}") > 0.0 && of("aurum_cache_bytes{node=seen,tier=disk}") > 0.0);
    assert!(of("aurum_cache_redis_memory_bytes{node=seen}") > 100_000.0);
    assert!(of("aurum_cache_coherence_lag_seconds{node=seen}") >= 0.0);
    let quantile = |of_all: &str| of(&format!("aurum_cache_latency_seconds{{node=seen,op=get,quantile={of_all},tier=redis}}"));
    assert!(0.0 < quantile("0.5") && quantile("0.5") <= quantile("0.99") && quantile("0.99") <= quantile("1"));
    assert!(!found.contains_key("aurum_cache_entries{node=seen,tier=redis}"), "Redis is not counted");

    // What happened since the last round is not lost.
    for _ in 0..10 {
        read(&cache, NS, "loaded too late").await;
    }
    let misses = cache.analytics().misses;
    cache.close().await.unwrap();
    assert_eq!(listener.exported()["aurum_cache_namespace_misses_total{namespace=curves,node=seen}"], misses as f64);
}

#[tokio::test]
async fn a_tier_that_is_down_is_seen_and_one_that_is_off_is_not() {
    let listener = Listener::default();
    let _here = metrics::set_default_local_recorder(&listener);
    let mut redis = RedisServer::start();
    let config = support::settings("[maintenance]\ninterval = \"10ms\"");
    let cache = aurum_cache::Cache::builder().config(config).memory(1 << 20).redis(redis.url()).open().await.unwrap();
    let up = |found: &Exported| found.get("aurum_cache_tier_up{tier=redis}").copied();
    until("Redis is up", async || up(&listener.exported()) == Some(1.0)).await;
    redis.kill();
    until("Redis is down", async || up(&listener.exported()) == Some(0.0)).await;
    let lag = "aurum_cache_coherence_lag_seconds{}";
    let before = listener.exported()[lag];
    until("this node knows that it falls behind", async || listener.exported()[lag] > before).await;
    assert!(!listener.exported().keys().any(|name| name.contains("tier=disk") && !name.contains("namespace")));
    cache.close().await.unwrap();
}
