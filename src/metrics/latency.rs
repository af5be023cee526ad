//! How long operations took: a histogram by tier and verb, each behind a short mutex.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::clock::lap::{Counter, Scale, Ticks};
use crate::metrics::outcome::Verb;
use crate::metrics::pending::Pending;
use crate::metrics::snapshot::Latency;
use crate::tier::Tier;

/// The longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// By tier and verb, 30 KiB each. Those of disk and Redis are made with the first time.
pub(crate) struct Latencies([[Mutex<Option<Histogram<u64>>>; 2]; 3]);

impl Latencies {
    pub(crate) fn new() -> Self {
        let latencies = Self([const { [const { Mutex::new(None) }; 2] }; 3]);
        // Now, for a hit allocates nothing.
        latencies.0[Tier::Memory as usize].iter().for_each(|latency| *latency.lock() = histogram());
        latencies
    }

    /// One took so long, and stands for so many. Below 1 ns and above 60 s it is counted as these.
    pub(crate) fn record(&self, tier: Tier, verb: Verb, took: Duration, operations: u64) {
        let mut latency = self.0[tier as usize][verb as usize].lock();
        if latency.is_none() {
            *latency = histogram();
        }
        if let Some(histogram) = latency.as_mut() {
            histogram.saturating_record_n(nanos(took), operations);
        }
    }

    /// One of memory took so long. `pending` is the caller's own, if it has one. A hit waits for nobody: a time that finds no room while somebody
    /// else has the histogram is not told.
    pub(crate) fn record_soon(&self, verb: Verb, took: Ticks, pending: Option<&Pending>, counter: &Counter) {
        if pending.is_some_and(|pending| pending.push(took)) {
            return;
        }
        let Some(mut latency) = self.0[Tier::Memory as usize][verb as usize].try_lock() else { return };
        if let Some(histogram) = latency.as_mut() {
            let scale = counter.scale();
            pending.into_iter().for_each(|pending| pending.each(|took| histogram.saturating_record(bounded(scale.nanos(took)))));
            histogram.saturating_record(bounded(scale.nanos(took)));
        }
        pending.into_iter().for_each(Pending::clear);
    }

    /// As somebody who reads memory's times does.
    #[cfg(test)]
    pub(crate) fn hold(&self, verb: Verb) -> impl Drop {
        self.0[Tier::Memory as usize][verb as usize].lock()
    }

    /// What was measured so far, with what the threads have not recorded yet.
    pub(crate) fn tell<'p>(&self, tier: Tier, verb: Verb, pending: impl Iterator<Item = &'p Pending>, scale: Scale) -> Latency {
        let latency = self.0[tier as usize][verb as usize].lock();
        let Some(histogram) = latency.as_ref() else { return Latency::default() };
        if tier != Tier::Memory {
            return tell(histogram);
        }
        let mut all = histogram.clone();
        pending.for_each(|pending| pending.each(|took| all.saturating_record(bounded(scale.nanos(took)))));
        drop(latency);
        tell(&all)
    }
}

/// These bounds are constants that hdrhistogram accepts; should it ever not, latencies are not told.
fn histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, LONGEST_NS, 2).ok()
}

fn nanos(took: Duration) -> u64 {
    bounded(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

fn bounded(nanos: u64) -> u64 {
    nanos.clamp(1, LONGEST_NS)
}

fn tell(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile).min(LONGEST_NS));
    Latency {
        count: histogram.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: Duration::from_nanos(histogram.max().min(LONGEST_NS)),
    }
}
