//! Counting at next to no cost: exact, per thread, added up when read.
//!
//! A hit is one count, in the cell of its namespace and tier, in the slot of its thread ([`super::slot`]); the sums (hits of a tier, of
//! a namespace, of all) are made when somebody asks ([`super::totals`]). Events that cost microseconds anyway (errors, fetches,
//! movements) are plain shared atomics.
//!
//! Latencies go into histograms behind short mutexes: [`Recorder::sample`] lets one in 64 of a thread's operations be timed
//! for memory, where a clock read would be a third of the operation, and [`Recorder::sample_cached`] one in eight of the disk's that find
//! the page cache warm, which then counts for eight. All else of disk and Redis is timed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::clock::{Clock, Stopwatch};
use crate::metrics::log::{LogAnalytics, RefillAnalytics};
use crate::metrics::minute::Minute;
use crate::metrics::outcome::{FetchOutcome, MissCause, Verb};
use crate::metrics::slot::{Cell64, Owner, Sampled, Slots, sampled};
use crate::metrics::snapshot::{Analytics, FetchAnalytics, Latency, TierAnalytics, share};
use crate::metrics::totals::{Totals, causes};
use crate::namespace::NamespaceId;
use crate::tier::{Tier, Usage};

/// One in so many memory operations is timed.
const SAMPLE_EVERY: u32 = 64;
/// One in so many reads of the page cache is timed: a dozen times a memory hit, and two looks at the clock are 3 % of it.
const SAMPLE_CACHED_EVERY: u32 = 8;
/// The longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// Counts what happens in one cache. Shared by reference; every method may be called from any thread.
pub(crate) struct Recorder {
    clock: Clock,
    /// Steady milliseconds at open.
    opened: u64,
    slots: Slots,
    rare: CachePadded<Rare>,
    /// By tier and verb; made with the first measurement (30 KiB each).
    latency: [[Mutex<Option<Histogram<u64>>>; 2]; 3],
    minute: Mutex<Minute>,
}

/// Counts of what happens seldom enough for a shared atomic addition.
#[derive(Default)]
struct Rare {
    tiers: [RareTier; 3],
    fetches: [AtomicU64; FetchOutcome::COUNT],
    invalidation_events: AtomicU64,
    invalidated_entries: AtomicU64,
}

#[derive(Default)]
struct RareTier {
    errors: AtomicU64,
    expirations: AtomicU64,
    promotions: AtomicU64,
    demotions: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(clock: Clock) -> Self {
        let opened = clock.steady();
        Self {
            clock,
            opened,
            slots: Slots::new(),
            rare: CachePadded::default(),
            latency: [const { [const { Mutex::new(None) }; 2] }; 3],
            minute: Mutex::new(Minute::new(opened)),
        }
    }

    /// A read was answered by `tier`.
    #[inline]
    pub(crate) fn hit(&self, tier: Tier, ns: NamespaceId) {
        let (slot, owner) = self.slots.own();
        slot.namespace(ns).hits[tier as usize].bump(owner);
    }

    /// A read of memory begins, which [counts](ResidentHit::count) itself if it hits. Where it counts is looked up now, and
    /// not behind the count of references, which nothing overtakes.
    #[inline]
    pub(crate) fn resident_hit(&self, ns: NamespaceId) -> ResidentHit<'_> {
        let (slot, owner) = self.slots.own();
        ResidentHit { recorder: self, cell: &slot.namespace(ns).hits[Tier::Memory as usize], owner, took: self.sample() }
    }

    /// `tier` was asked and had nothing to serve.
    #[inline]
    pub(crate) fn tier_miss(&self, tier: Tier) {
        let (slot, owner) = self.slots.own();
        slot.tier_misses[tier as usize].bump(owner);
    }

    /// A read that asks memory alone was not answered.
    #[inline]
    pub(crate) fn resident_miss(&self, ns: NamespaceId, cause: MissCause) {
        let (slot, owner) = self.slots.own();
        slot.tier_misses[Tier::Memory as usize].bump(owner);
        slot.namespace(ns).misses[cause as usize].bump(owner);
    }

    /// A read was answered by no tier.
    #[inline]
    pub(crate) fn miss(&self, ns: NamespaceId, cause: MissCause) {
        let (slot, owner) = self.slots.own();
        slot.namespace(ns).misses[cause as usize].bump(owner);
    }

    /// A caller got a value past its time. Comes in addition to the read's hit or miss.
    #[inline]
    pub(crate) fn stale(&self, ns: NamespaceId) {
        let (slot, owner) = self.slots.own();
        slot.namespace(ns).stale.bump(owner);
    }

    /// A value was written.
    #[inline]
    pub(crate) fn set(&self, ns: NamespaceId) {
        let (slot, owner) = self.slots.own();
        slot.namespace(ns).sets.bump(owner);
    }

    /// Something went wrong in `tier`.
    pub(crate) fn error(&self, tier: Tier) {
        add(&self.rare.tiers[tier as usize].errors, 1);
        let now = self.clock.steady();
        self.minute.lock().error(now);
    }

    /// `n` entries left `tier` because a read found their life over; what a tier sweeps by itself stands in its [`Usage`].
    #[cfg(test)]
    pub(crate) fn expired(&self, tier: Tier, n: u64) {
        add(&self.rare.tiers[tier as usize].expirations, n);
    }

    /// `n` entries of `from` are now in a faster tier as well.
    pub(crate) fn promoted(&self, from: Tier, n: u64) {
        add(&self.rare.tiers[from as usize].promotions, n);
    }

    /// `n` entries were put out of `from` and kept in a slower tier.
    pub(crate) fn demoted(&self, from: Tier, n: u64) {
        add(&self.rare.tiers[from as usize].demotions, n);
    }

    /// A loader ended, or a caller stopped or began to wait for one.
    pub(crate) fn fetch(&self, outcome: FetchOutcome) {
        add(&self.rare.fetches[outcome as usize], 1);
    }

    /// One invalidation removed `entries` distinct keys.
    pub(crate) fn invalidated(&self, entries: u64) {
        add(&self.rare.invalidation_events, 1);
        add(&self.rare.invalidated_entries, entries);
    }

    /// A stopwatch for one in 64 of this thread's operations, the first among them.
    #[inline]
    pub(crate) fn sample(&self) -> Option<Stopwatch> {
        sampled(Sampled::Memory, SAMPLE_EVERY).map(|_| Clock::stopwatch())
    }

    /// A stopwatch for one in eight of this thread's reads of the disk that may not wait, the first among them, and for how many reads it stands.
    #[inline]
    pub(crate) fn sample_cached(&self) -> Option<(Stopwatch, u64)> {
        sampled(Sampled::PageCache, SAMPLE_CACHED_EVERY).map(|reads| (Clock::stopwatch(), reads))
    }

    /// An operation of `tier` took so long. Below 1 ns and above 60 s it is counted as these.
    pub(crate) fn timed(&self, tier: Tier, verb: Verb, took: Duration) {
        self.timed_for(tier, verb, took, 1);
    }

    /// The same, standing for so many operations.
    pub(crate) fn timed_for(&self, tier: Tier, verb: Verb, took: Duration, operations: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).clamp(1, LONGEST_NS);
        let mut latency = self.latency[tier as usize][verb as usize].lock();
        if latency.is_none() {
            // These bounds are constants that hdrhistogram accepts; should it ever not, latencies are not told.
            *latency = Histogram::new_with_bounds(1, LONGEST_NS, 2).ok();
        }
        if let Some(histogram) = latency.as_mut() {
            histogram.saturating_record_n(ns, operations);
        }
    }

    /// Notes how much was done so far, for [`error_rate_last_minute`](Self::error_rate_last_minute), which is as fine as
    /// this is called often. To be called by the maintenance task; more than once a second does nothing.
    pub(crate) fn tick(&self) {
        let now = self.clock.steady();
        if self.minute.lock().wants_mark(now) {
            let operations = Totals::of(&self.slots).operations();
            self.minute.lock().mark(now, operations);
        }
    }

    /// Errors per operation (reads and writes) of the last minute, at most 1; 0 when there was no error.
    pub(crate) fn error_rate_last_minute(&self) -> f64 {
        self.tick();
        let operations = Totals::of(&self.slots).operations();
        let (errors, before) = self.minute.lock().since_a_minute_ago(self.clock.steady());
        rate(errors, operations.saturating_sub(before))
    }

    /// Everything, with what the tiers say of themselves in the order of [`Tier::ALL`].
    pub(crate) fn snapshot(&self, usage: [Option<Usage>; 3], redis_memory: Option<u64>) -> Analytics {
        let totals = Totals::of(&self.slots);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [memory, disk, redis] = Tier::ALL.map(|tier| {
            let index = tier as usize;
            let (rare, usage) = (&self.rare.tiers[index], usage[index].unwrap_or_default());
            TierAnalytics {
                hits: totals.hits[index],
                misses: totals.tier_misses[index],
                errors: count(&rare.errors),
                entries: usage.entries,
                bytes: usage.bytes,
                capacity: usage.capacity,
                promotions: count(&rare.promotions),
                demotions: count(&rare.demotions),
                evictions: usage.evictions,
                expirations: usage.expirations.saturating_add(count(&rare.expirations)),
                get: self.latency(tier, Verb::Get),
                set: self.latency(tier, Verb::Set),
            }
        });
        let outcome = |outcome: FetchOutcome| count(&self.rare.fetches[outcome as usize]);
        let fetches = FetchAnalytics {
            ok: outcome(FetchOutcome::Ok),
            failed: outcome(FetchOutcome::Failed),
            joined: outcome(FetchOutcome::Joined),
            timed_out: outcome(FetchOutcome::TimedOut),
            refreshed: outcome(FetchOutcome::Refreshed),
            panicked: outcome(FetchOutcome::Panicked),
            replaced: outcome(FetchOutcome::Replaced),
        };
        let (hits, misses) = (totals.hits.iter().sum(), totals.misses.iter().sum());
        let errors = memory.errors + disk.errors + redis.errors;
        Analytics {
            hits,
            misses,
            hit_rate: share(hits, hits + misses),
            stale: totals.stale,
            sets: totals.sets,
            errors,
            error_rate: rate(errors, totals.operations()),
            fetches,
            invalidation_events: count(&self.rare.invalidation_events),
            invalidated_entries: count(&self.rare.invalidated_entries),
            miss_causes: causes(&totals.misses),
            redis_memory,
            coherence_lag: None,
            disk_log: LogAnalytics::default(),
            refill: RefillAnalytics::default(),
            memory,
            disk,
            redis,
            namespaces: totals.namespaces,
            uptime: Duration::from_millis(self.clock.steady().saturating_sub(self.opened)),
        }
    }

    fn latency(&self, tier: Tier, verb: Verb) -> Latency {
        let latency = self.latency[tier as usize][verb as usize].lock();
        let Some(histogram) = latency.as_ref() else { return Latency::default() };
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
}

/// A read of memory that may become a hit.
pub(crate) struct ResidentHit<'r> {
    recorder: &'r Recorder,
    cell: &'r Cell64,
    owner: Owner,
    took: Option<Stopwatch>,
}

impl ResidentHit<'_> {
    /// It did.
    #[inline(always)]
    pub(crate) fn count(self) {
        self.cell.bump(self.owner);
        if let Some(took) = self.took {
            self.recorder.timed(Tier::Memory, Verb::Get, took.elapsed());
        }
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Errors without a counted operation (a background probe) are a rate of 1, not a division by zero.
fn rate(errors: u64, operations: u64) -> f64 {
    share(errors, operations.max(errors))
}

#[cfg(test)]
mod tests;
