//! Counting at next to no cost: exact, per thread, added up when read.
//!
//! A hit is one count, in the cell of its namespace and tier that its thread has to itself ([`super::slot`]); the sums (hits of a
//! tier, of a namespace, of all) are made when somebody asks ([`super::totals`]). Events that cost microseconds anyway (errors,
//! fetches, movements) are plain shared atomics.
//!
//! One in 64 of a thread's operations on memory is timed, by the processor's own counter ([`crate::clock::lap`]), for its end waits for
//! the read and lets none of its neighbours overlap with it; one in eight of the disk's that find the page cache warm, which then counts for eight; all else of
//! disk and Redis. What is rare on a hit (it is timed, it is the first, the thread has no slot of its own) is out of line, behind one test.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::clock::lap::{Counter, Lap, Ticks};
use crate::clock::{Clock, Stopwatch};
use crate::metrics::cells::{Cells, NamespaceCells, Owner};
use crate::metrics::latency::Latencies;
use crate::metrics::log::{LogAnalytics, RefillAnalytics};
use crate::metrics::minute::Minute;
use crate::metrics::outcome::{FetchOutcome, MissCause, Verb};
use crate::metrics::slot::{Places, Slot, Slots, memory_turn, memory_turn_is_up, page_cache_turn};
use crate::metrics::snapshot::{Analytics, FetchAnalytics, Latency, TierAnalytics, share};
use crate::metrics::totals::{Totals, causes};
use crate::namespace::NamespaceId;
use crate::tier::{Tier, Usage};

/// One in so many reads of the page cache is timed: a dozen times a memory hit, and two looks at the clock are 3 % of it.
const SAMPLE_CACHED_EVERY: u32 = 8;

/// Counts what happens in one cache. Shared by reference; every method may be called from any thread.
pub(crate) struct Recorder {
    clock: Clock,
    /// Steady milliseconds at open.
    opened: u64,
    is_idle: bool,
    /// Times what memory does.
    counter: &'static Counter,
    slots: Slots,
    rare: CachePadded<Rare>,
    latencies: Latencies,
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
    /// With `counts` false, reads and writes are neither counted nor timed, so that it can be measured what that costs.
    pub(crate) fn new(clock: Clock, counts: bool) -> Self {
        let opened = clock.steady();
        Self {
            clock,
            opened,
            is_idle: !counts,
            counter: Counter::of_process(),
            slots: Slots::new(),
            rare: CachePadded::default(),
            latencies: Latencies::new(),
            minute: Mutex::new(Minute::new(opened)),
        }
    }

    #[inline(always)]
    fn count(&self, ns: NamespaceId, bump: impl FnOnce(&Cells, Owner)) {
        if !self.is_idle {
            let (cells, owner) = self.slots.cells(ns);
            bump(cells, owner);
        }
    }

    /// A read was answered by `tier`.
    #[inline]
    pub(crate) fn hit(&self, tier: Tier, ns: NamespaceId) {
        self.count(ns, |cells, owner| cells.hits[tier as usize].bump(owner));
    }

    /// For [`resident_hit`](Self::resident_hit).
    pub(crate) fn places(&self) -> Places {
        if self.is_idle { Places::NONE } else { self.slots.places() }
    }

    /// A read of memory begins, which [counts](ResidentHit::count) itself if it hits. Where it counts is looked up now, while
    /// the entry is fetched, and not behind the count of references, where it was waited for. `places` are those of this recorder.
    #[inline(always)]
    pub(crate) fn resident_hit(&self, places: Places, ns: NamespaceId) -> ResidentHit {
        if places == Places::NONE {
            return ResidentHit { cells: NamespaceCells::nobody(), rarely: Some(Rarely { owner: Owner::Many, lap: None }) };
        }
        match places.seated_and_untimed(ns) {
            Some(cells) => ResidentHit { cells, rarely: None },
            None => self.rare_resident_hit(ns),
        }
    }

    #[cold]
    fn rare_resident_hit(&self, ns: NamespaceId) -> ResidentHit {
        let (cells, owner) = self.slots.cells(ns);
        // The clock last: what came before is not a part of the read.
        ResidentHit { cells, rarely: Some(Rarely { owner, lap: memory_turn_is_up().then(|| self.counter.begin()) }) }
    }

    #[cold]
    fn count_rare_hit(&self, cells: &Cells, rarely: Rarely) {
        // The clock first: the count is not a part of the read.
        let took = rarely.lap.map(|lap| self.counter.end(lap));
        cells.hits[Tier::Memory as usize].bump(rarely.owner);
        if let Some(took) = took {
            self.time_in_memory(Verb::Get, cells, rarely.owner, took);
        }
    }

    /// `tier` was asked and had nothing to serve.
    #[inline]
    pub(crate) fn tier_miss(&self, tier: Tier, ns: NamespaceId) {
        self.count(ns, |cells, owner| cells.tier_misses[tier as usize].bump(owner));
    }

    /// A read that asks memory alone was not answered.
    #[inline]
    pub(crate) fn resident_miss(&self, ns: NamespaceId, cause: MissCause) {
        self.count(ns, |cells, owner| {
            cells.tier_misses[Tier::Memory as usize].bump(owner);
            cells.misses[cause as usize].bump(owner);
        });
    }

    /// A read was answered by no tier.
    #[inline]
    pub(crate) fn miss(&self, ns: NamespaceId, cause: MissCause) {
        self.count(ns, |cells, owner| cells.misses[cause as usize].bump(owner));
    }

    /// A caller got a value past its time. Comes in addition to the read's hit or miss.
    #[inline]
    pub(crate) fn stale(&self, ns: NamespaceId) {
        self.count(ns, |cells, owner| cells.stale.bump(owner));
    }

    /// A value was written.
    #[inline]
    pub(crate) fn set(&self, ns: NamespaceId) {
        self.count(ns, |cells, owner| cells.sets.bump(owner));
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

    /// A lap begins for one in 64 of this thread's operations, the first among them.
    #[inline]
    pub(crate) fn sample(&self) -> Option<Lap> {
        (!self.is_idle && memory_turn()).then(|| self.counter.begin())
    }

    /// A stopwatch for one in eight of this thread's reads of the disk that may not wait, the first among them, and for how many reads it stands.
    #[inline]
    pub(crate) fn sample_cached(&self) -> Option<(Stopwatch, u64)> {
        page_cache_turn(SAMPLE_CACHED_EVERY).map(|reads| (Clock::stopwatch(), reads))
    }

    /// A [sampled](Self::sample) operation of memory ends. Below 1 ns and above 60 s it is counted as these.
    #[cold]
    pub(crate) fn timed_in_memory(&self, verb: Verb, ns: NamespaceId, lap: Lap) {
        let took = self.counter.end(lap);
        let (cells, owner) = self.slots.cells(ns);
        self.time_in_memory(verb, cells, owner, took);
    }

    fn time_in_memory(&self, verb: Verb, cells: &Cells, owner: Owner, took: Ticks) {
        let pending = (owner == Owner::One).then_some(&cells.pending[verb as usize]);
        self.latencies.record_soon(verb, took, pending, self.counter);
    }

    /// An operation of `tier` took so long. Bounded as those in memory.
    pub(crate) fn timed(&self, tier: Tier, verb: Verb, took: Duration) {
        self.timed_for(tier, verb, took, 1);
    }

    /// The same, standing for so many operations.
    pub(crate) fn timed_for(&self, tier: Tier, verb: Verb, took: Duration, operations: u64) {
        self.latencies.record(tier, verb, took, operations);
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
        let pending = self.slots.used().flat_map(Slot::all).map(|cells| &cells.pending[verb as usize]);
        self.latencies.tell(tier, verb, pending, self.counter.scale())
    }
}

/// A read of memory that may become a hit.
pub(crate) struct ResidentHit {
    cells: &'static Cells,
    /// What is not so with nearly every read.
    rarely: Option<Rarely>,
}

struct Rarely {
    owner: Owner,
    lap: Option<Lap>,
}

impl ResidentHit {
    /// It did, says the recorder that was told of its begin.
    #[inline(always)]
    pub(crate) fn count(self, recorder: &Recorder) {
        match self.rarely {
            None => self.cells.hits[Tier::Memory as usize].bump_alone(),
            Some(_) if recorder.is_idle => {}
            Some(rarely) => recorder.count_rare_hit(self.cells, rarely),
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
