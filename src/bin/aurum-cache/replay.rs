//! `replay`: a trace as read-through traffic, one request after the other: `get`, and on a miss `set`.
//!
//! A value is its key's own pseudo-random bytes, made again and compared on every hit, so that a wrong, torn or foreign value
//! is seen at once. With `--restart-at` the cache is closed and opened again in the middle; the hit ratio of the last requests
//! before and the first after say what the restart cost.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use aurum_cache::{Analytics, Cache, CacheConfig, Cached, Namespace, Tier, TierState};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::args::Replay;
use crate::report::{self, Failure, Outcome, Output, Stopwatch, Times};
use crate::trace::{Request, Trace};
use crate::value::{fill, is_value_of};

const NAMESPACE: Namespace = Namespace::new("replay");

/// How many requests on each side of the restart are compared.
const WINDOW: usize = 10_000;

pub(crate) async fn run(ask: &Replay, out: &Output) -> Outcome {
    report::say("reading the trace");
    let trace = Trace::open(ask.trace.as_deref(), ask.limit)?;
    if ask.wipe_disk {
        refuse_to_wipe_foreign(ask.disk.as_deref())?;
    }
    // Of this run alone: what an earlier run left in Redis would answer for us.
    let prefix = format!("aurum-replay-{:012x}", fastrand::u64(..) >> 16);
    let cut = ask
        .restart_at
        .map_or(trace.requests.len(), |share| (trace.requests.len() as f64 * share) as usize)
        .min(trace.requests.len());
    let (first, second) = trace.requests.split_at(cut);
    report::say(&format!("replaying {} requests", report::count(trace.requests.len() as u64)));
    let bar = report::progress("requests", trace.requests.len() as u64);

    let mut cache = open(ask, &prefix).await?;
    refuse_a_silent_redis(ask, &cache).await?;
    let mut phases = Vec::new();
    let name = if ask.restart_at.is_some() { "before the restart" } else { "all" };
    phases.push(Phase::play(name, &cache, ask, &trace, first, &bar).await?);
    let mut restart = None;
    let mut analytics = vec![cache.analytics()];
    if ask.restart_at.is_some() {
        let clock = Stopwatch::start();
        cache.close().await?;
        drop(cache);
        let close = clock.elapsed();
        if ask.wipe_disk {
            wipe(ask.disk.as_deref())?;
        }
        let clock = Stopwatch::start();
        cache = open(ask, &prefix).await?;
        let open = clock.elapsed();
        phases.push(Phase::play("after the restart", &cache, ask, &trace, second, &bar).await?);
        analytics.push(cache.analytics());
        let [before, after] = [0, 1].map(|at| phases.get(at).map_or(0, |phase: &Phase| phase.first.len()));
        let window = before.min(after);
        restart = Some(Restart {
            at: cut,
            close,
            open,
            wiped_disk: ask.wipe_disk,
            first_before: trace.first_requests(cut - window, cut),
            first_after: trace.first_requests(cut, cut + window),
        });
    }
    bar.finish_and_clear();
    cache.close().await?;
    drop(cache);
    if ask.redis.is_some() {
        empty_redis(ask, &prefix).await?;
    }

    for phase in &phases {
        phase.show(out)?;
    }
    if let Some(restart) = &restart {
        restart.show(&phases, out)?;
    }
    let tiers = tiers(ask, &analytics);
    show_tiers(&tiers, out)?;
    let wrong: u64 = phases.iter().map(|phase| phase.wrong).sum();
    out.object(&json!({
        "trace": trace.name,
        "requests": trace.requests.len(),
        "unique_keys": trace.unique(),
        "memory_bytes": ask.memory,
        "disk_bytes": ask.disk.as_ref().map(|_| ask.disk_capacity),
        "value_bytes": ask.value_size,
        "phases": phases.iter().map(Phase::object).collect::<Vec<_>>(),
        "restart": restart.map(|restart| restart.object(&phases)),
        "tiers": tiers,
    }))?;
    match wrong {
        0 => Ok(()),
        wrong => {
            Err(Failure::said(format!("{wrong} hits brought a value that was not the key's; keep the folder and report this")))
        }
    }
}

async fn open(ask: &Replay, prefix: &str) -> Outcome<Cache> {
    let mut config = CacheConfig::default();
    // A replay asks how warm Redis keeps a cache, not how soon this machine gives up on it: waits show in the latencies, not as misses.
    config.redis.timeout = Duration::from_secs(10);
    let mut builder = Cache::builder().config(config).memory(ask.memory).key_prefix(prefix);
    if let Some(folder) = &ask.disk {
        builder = builder.disk(folder, ask.disk_capacity);
    }
    if let Some(url) = &ask.redis {
        builder = builder.redis(url);
    }
    Ok(builder.open().await?)
}

/// A cache does without a Redis that is away; a replay that was to show it should not.
async fn refuse_a_silent_redis(ask: &Replay, cache: &Cache) -> Outcome {
    if ask.redis.is_none() {
        return Ok(());
    }
    let health = cache.health().await;
    match health.tiers.into_iter().find(|known| known.tier == Tier::Redis) {
        Some(redis) if redis.state == TierState::Up => Ok(()),
        redis => {
            let reason = redis.and_then(|redis| redis.reason).unwrap_or_else(|| "no answer".to_owned());
            Err(Failure::said(format!("redis: {reason}; start it, correct the URL, or leave --redis out")))
        }
    }
}

/// `--wipe-disk` deletes; it must only ever delete what this run wrote.
fn refuse_to_wipe_foreign(folder: Option<&Path>) -> Outcome {
    let Some(folder) = folder else { return Ok(()) };
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let advice = "holds files already; --wipe-disk deletes only what this run wrote, so name an empty or new folder";
            Err(Failure::said(format!("disk folder {}: {advice}", folder.display())))
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Failure::said(format!("disk folder {}: cannot be read ({cause})", folder.display()))),
    }
}

fn wipe(folder: Option<&Path>) -> Outcome {
    let Some(folder) = folder else { return Ok(()) };
    std::fs::remove_dir_all(folder)
        .map_err(|cause| Failure::said(format!("disk folder {}: cannot be deleted ({cause})", folder.display())))
}

/// Takes this run's keys out of Redis again, by a cache without the folder, which stays as it is.
async fn empty_redis(ask: &Replay, prefix: &str) -> Outcome {
    let Some(url) = &ask.redis else { return Ok(()) };
    let cache = Cache::builder().memory(ask.memory).redis(url).key_prefix(prefix).open().await?;
    cache.invalidate_namespace(NAMESPACE).reason("the replay is over").triggered_by("aurum-cache replay").await?;
    Ok(cache.close().await?)
}

/// One stretch of requests against one open cache.
struct Phase {
    name: &'static str,
    requests: u64,
    /// By tier: memory, disk, Redis.
    hits: [u64; 3],
    latency: [Times; 3],
    misses: u64,
    miss_latency: Times,
    set_latency: Times,
    /// `set`s that the cache would not take, and what it said first.
    refused: u64,
    first_refusal: Option<String>,
    /// Hits whose bytes were not the key's.
    wrong: u64,
    took: Duration,
    /// Hit or not, of the first and the last `WINDOW` requests.
    first: Vec<bool>,
    last: VecDeque<bool>,
}

impl Phase {
    async fn play(
        name: &'static str,
        cache: &Cache,
        ask: &Replay,
        trace: &Trace,
        requests: &[Request],
        bar: &ProgressBar,
    ) -> Outcome<Self> {
        let mut phase = Self {
            name,
            requests: requests.len() as u64,
            hits: [0; 3],
            latency: [Times::new(), Times::new(), Times::new()],
            misses: 0,
            miss_latency: Times::new(),
            set_latency: Times::new(),
            refused: 0,
            first_refusal: None,
            wrong: 0,
            took: Duration::ZERO,
            first: Vec::with_capacity(WINDOW),
            last: VecDeque::with_capacity(WINDOW),
        };
        let mut buffer = Vec::new();
        let whole = Stopwatch::start();
        for (done, request) in requests.iter().enumerate() {
            let key = trace.key(request.key);
            let clock = Stopwatch::start();
            let found: Option<Cached<[u8]>> = cache.get(NAMESPACE, key).await;
            let took = clock.elapsed();
            phase.note(found.is_some());
            match found {
                Some(hit) => phase.hit(key, &hit, took),
                None => {
                    phase.misses += 1;
                    phase.miss_latency.record(took);
                    let bytes = if request.size == 0 { ask.value_size } else { u64::from(request.size) };
                    fill(&mut buffer, key, bytes)?;
                    let clock = Stopwatch::start();
                    let set = cache.set(NAMESPACE, key, &buffer[..], ask.policy).await;
                    phase.set_latency.record(clock.elapsed());
                    if let Err(refusal) = set {
                        phase.refused += 1;
                        phase.first_refusal.get_or_insert_with(|| refusal.to_string());
                    }
                }
            }
            if done % 1024 == 1023 {
                bar.inc(1024);
                // A memory hit never waits; without this the cache's own tasks would depend on other workers alone.
                tokio::task::yield_now().await;
            }
        }
        phase.took = whole.elapsed();
        Ok(phase)
    }

    fn note(&mut self, is_hit: bool) {
        if self.first.len() < WINDOW {
            self.first.push(is_hit);
        }
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(is_hit);
    }

    fn hit(&mut self, key: &str, hit: &Cached<[u8]>, took: Duration) {
        let tier = place(hit.tier());
        self.hits[tier] += 1;
        self.latency[tier].record(took);
        self.wrong += u64::from(!is_value_of(key, hit));
    }

    fn all_hits(&self) -> u64 {
        self.hits.iter().sum()
    }

    fn ratio(&self) -> f64 {
        report::ratio(self.all_hits(), self.requests)
    }

    fn show(&self, out: &Output) -> Outcome {
        let mut table = report::table([self.name, "requests", "share", "p50", "p90", "p99", "p99.9", "max"]);
        let mut row = |label: &str, count: u64, times: &Times| {
            let mut cells = vec![label.to_owned(), report::count(count), report::percent(report::ratio(count, self.requests))];
            cells.extend(times.columns());
            table.add_row(cells);
        };
        for tier in Tier::ALL {
            let at = place(tier);
            if self.hits[at] > 0 || tier == Tier::Memory {
                row(&format!("hits in {tier}"), self.hits[at], &self.latency[at]);
            }
        }
        row("misses", self.misses, &self.miss_latency);
        row("sets", self.set_latency.count(), &self.set_latency);
        out.text(format_args!(
            "{table}\nhit ratio {}, {} requests in {}, every value checked, {} wrong",
            report::percent(self.ratio()),
            report::count(self.requests),
            report::time(self.took),
            self.wrong,
        ))?;
        if let Some(said) = &self.first_refusal {
            out.text(format_args!("{} sets refused, the first because of {said}", report::count(self.refused)))?;
        }
        out.text("")
    }

    fn object(&self) -> Value {
        let tiers = Tier::ALL.map(|tier| {
            let at = place(tier);
            let share = report::ratio(self.hits[at], self.requests);
            json!({ "tier": tier.to_string(), "hits": self.hits[at], "share": share, "latency": self.latency[at].object() })
        });
        json!({
            "name": self.name,
            "requests": self.requests,
            "hits": self.all_hits(),
            "misses": self.misses,
            "hit_ratio": self.ratio(),
            "tiers": tiers,
            "miss_latency": self.miss_latency.object(),
            "set_latency": self.set_latency.object(),
            "refused": self.refused,
            "wrong_values": self.wrong,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

/// What happened in the middle.
struct Restart {
    at: usize,
    close: Duration,
    open: Duration,
    wiped_disk: bool,
    /// Requests of the window before for keys that were never asked for before: misses in any cache.
    first_before: u64,
    /// The same of the window after.
    first_after: u64,
}

impl Restart {
    /// How many requests are compared, their hit ratio before and after.
    fn compare(phases: &[Phase]) -> (usize, f64, f64) {
        let [before, after] = phases else { return (0, 0.0, 0.0) };
        let window = before.last.len().min(after.first.len());
        let hits = |hits: &mut dyn Iterator<Item = &bool>| hits.filter(|is_hit| **is_hit).count() as u64;
        let before = hits(&mut before.last.iter().rev().take(window));
        let after = hits(&mut after.first.iter().take(window));
        (window, report::ratio(before, window as u64), report::ratio(after, window as u64))
    }

    fn show(&self, phases: &[Phase], out: &Output) -> Outcome {
        let (window, before, after) = Self::compare(phases);
        out.text(format_args!(
            "restart after {} requests{}: closed in {}, opened in {}\nhit ratio of the {} requests before {}, of the {} after {}\n\
             first requests for a key, which no cache can have: {} before, {} after\n",
            report::count(self.at as u64),
            if self.wiped_disk { ", disk folder deleted" } else { "" },
            report::time(self.close),
            report::time(self.open),
            report::count(window as u64),
            report::percent(before),
            report::count(window as u64),
            report::percent(after),
            report::count(self.first_before),
            report::count(self.first_after),
        ))
    }

    fn object(&self, phases: &[Phase]) -> Value {
        let (window, before, after) = Self::compare(phases);
        json!({
            "at": self.at,
            "close_ms": self.close.as_secs_f64() * 1e3,
            "open_ms": self.open.as_secs_f64() * 1e3,
            "wiped_disk": self.wiped_disk,
            "window": window,
            "before": before,
            "after": after,
            "difference": after - before,
            "first_requests_before": self.first_before,
            "first_requests_after": self.first_after,
            "recovered_share": if before > 0.0 { after / before } else { 1.0 },
        })
    }
}

/// Each configured tier at the end, with what it did in both phases.
fn tiers(ask: &Replay, analytics: &[Analytics]) -> Vec<Value> {
    let configured = [true, ask.disk.is_some(), ask.redis.is_some()];
    let mut rows = Vec::new();
    for tier in Tier::ALL.into_iter().filter(|&tier| configured[place(tier)]) {
        let Some(end) = analytics.last().map(|last| last.tier(tier)) else { continue };
        let sum = |of: fn(&aurum_cache::TierAnalytics) -> u64| analytics.iter().map(|one| of(one.tier(tier))).sum::<u64>();
        rows.push(json!({
            "tier": tier.to_string(),
            "entries": end.entries,
            "bytes": end.bytes,
            "capacity": end.capacity,
            "evictions": sum(|tier| tier.evictions),
            "demotions": sum(|tier| tier.demotions),
            "promotions": sum(|tier| tier.promotions),
            "errors": sum(|tier| tier.errors),
        }));
    }
    rows
}

fn show_tiers(tiers: &[Value], out: &Output) -> Outcome {
    let mut table =
        report::table(["at the end", "entries", "bytes", "capacity", "evictions", "demotions", "promotions", "errors"]);
    for tier in tiers {
        let number = |name: &str| tier[name].as_u64().unwrap_or(0);
        let mut cells = vec![tier["tier"].as_str().unwrap_or("").to_owned()];
        cells.push(report::count(number("entries")));
        cells.extend(["bytes", "capacity"].map(|name| report::bytes(number(name))));
        cells.extend(["evictions", "demotions", "promotions", "errors"].map(|name| report::count(number(name))));
        table.add_row(cells);
    }
    out.text(table)
}

fn place(tier: Tier) -> usize {
    match tier {
        Tier::Memory => 0,
        Tier::Disk => 1,
        Tier::Redis => 2,
    }
}
