//! One stretch of a replay: every request, its answer and its time.

use std::collections::VecDeque;
use std::time::Duration;

use aurum_cache::{Cache, Cached, Tier};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{NAMESPACE, WINDOW, place};
use crate::args::Replay;
use crate::report::{self, Outcome, Output, Stopwatch, Times};
use crate::trace::{Request, Trace};
use crate::value::{fill, is_value_of};

/// After so many bytes the disk may catch up. A trace of days is played in a second; without this the disk's queue (8 MiB) would refuse most
/// demotions, and the hit ratio would be one of this machine's speed.
const UNWRITTEN: u64 = 4 << 20;

/// One stretch of requests against one open cache.
pub(super) struct Phase {
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
    pub(super) wrong: u64,
    took: Duration,
    /// Hit or not, of the first and the last `WINDOW` requests.
    pub(super) first: Vec<bool>,
    pub(super) last: VecDeque<bool>,
}

impl Phase {
    pub(super) async fn play(
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
        let mut unwritten = 0;
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
                    unwritten += bytes;
                    if ask.disk.is_some() && unwritten > UNWRITTEN {
                        cache.flush().await?;
                        unwritten = 0;
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

    pub(super) fn ratio(&self) -> f64 {
        report::ratio(self.all_hits(), self.requests)
    }

    pub(super) fn show(&self, out: &Output) -> Outcome {
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

    pub(super) fn object(&self) -> Value {
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
