//! Counting at next to no cost: exact, per thread, added up when read.
//!
//! Each living thread of the process owns a number below [`OWNED`]; in every recorder that number is a slot which only
//! this thread writes. One writer needs no atomic addition: a relaxed load and a relaxed store are exact and touch a cache line that
//! no other core writes. When the thread ends, the number goes back through a mutex, whose order makes the next owner see
//! the last count. Threads beyond [`OWNED`], and a thread that is already being torn down, share the last slot and add atomically.
//!
//! A hit is one count, in the cell of its namespace and tier; the sums (hits of a tier, of a namespace, of all) are made
//! when somebody asks. Events that cost microseconds anyway (errors, fetches, movements) are plain shared atomics.
//!
//! Latencies go into histograms behind short mutexes: [`Recorder::sample`] lets one in 64 of a thread's operations be timed
//! for memory, where a clock read would be a third of the operation; disk and Redis are always timed.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::clock::{Clock, Stopwatch};
use crate::metrics::snapshot::{Analytics, FetchAnalytics, Latency, MissCauses, NamespaceAnalytics, TierAnalytics, share};
use crate::namespace::{MAX_NAMESPACES, NamespaceId};
use crate::tier::{Tier, Usage};

/// How many threads at a time have a slot of their own.
const OWNED: usize = 64;
/// Number of the slot that is shared by all the others.
const SHARED: usize = OWNED;
/// Namespaces are counted in blocks that come into being with their first count.
const BLOCK: usize = 8;
/// One in so many memory operations is timed.
const SAMPLE_EVERY: u32 = 64;
/// The longest latency that is told apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
/// What "the last minute" is, in milliseconds.
const MINUTE_MS: u64 = 60_000;
/// How far apart the marks of the last minute are at least, in milliseconds.
const MARK_MS: u64 = 1_000;

/// Why a read missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MissCause {
    /// Not known to any tier.
    Absent,
    /// There, past its time.
    Expired,
    /// There, declared dead.
    Invalidated,
    /// There not long ago, put out for room.
    Evicted,
    /// There as another type.
    Schema,
    /// There, damaged.
    Corrupt,
    /// A tier that might have had it did not answer.
    TierDown,
}

impl MissCause {
    const COUNT: usize = 7;
}

/// What became of a loader, or of a caller who waited for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FetchOutcome {
    /// The loader brought a value.
    Ok,
    /// The loader returned an error.
    Failed,
    /// A caller waits for a loader that was running already.
    Joined,
    /// A caller gave up at its hard timeout.
    TimedOut,
    /// A background refresh brought a value.
    Refreshed,
    /// The loader panicked.
    Panicked,
    /// A stuck loader was given up for a new one.
    Replaced,
}

impl FetchOutcome {
    const COUNT: usize = 7;
}

/// Which act of a tier was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    /// A read.
    Get,
    /// A write.
    Set,
}

/// Counts what happens in one cache. Shared by reference; every method may be called from any thread.
pub(crate) struct Recorder {
    clock: Clock,
    /// Steady milliseconds at open.
    opened: u64,
    /// By the number of the writing thread; the last is shared.
    slots: [OnceLock<Box<CachePadded<Slot>>>; OWNED + 1],
    rare: CachePadded<Rare>,
    /// By tier and verb; made with the first measurement (30 KiB each).
    latency: [[Mutex<Option<Histogram<u64>>>; 2]; 3],
    minute: Mutex<Minute>,
}

/// The counts of one thread.
struct Slot {
    tier_misses: [Cell64; 3],
    namespaces: [OnceLock<Box<[NamespaceCells; BLOCK]>>; MAX_NAMESPACES / BLOCK],
}

/// One thread's counts of one namespace.
#[derive(Default)]
struct NamespaceCells {
    hits: [Cell64; 3],
    misses: [Cell64; MissCause::COUNT],
    stale: Cell64,
    sets: Cell64,
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

/// A count in a thread's slot. Never decreases.
#[derive(Default)]
struct Cell64(AtomicU64);

impl Cell64 {
    #[inline]
    fn bump(&self, owner: Owner) {
        match owner {
            // The only writer: nothing can come between the load and the store.
            Owner::One => self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed),
            Owner::Many => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who writes to a slot.
#[derive(Clone, Copy)]
enum Owner {
    One,
    Many,
}

impl Recorder {
    pub(crate) fn new(clock: Clock) -> Self {
        let opened = clock.steady();
        Self {
            clock,
            opened,
            slots: [const { OnceLock::new() }; OWNED + 1],
            rare: CachePadded::default(),
            latency: [const { [const { Mutex::new(None) }; 2] }; 3],
            minute: Mutex::new(Minute::new(opened)),
        }
    }

    /// A read was answered by `tier`.
    #[inline]
    pub(crate) fn hit(&self, tier: Tier, ns: NamespaceId) {
        let (slot, owner) = self.slot();
        slot.namespace(ns).hits[tier as usize].bump(owner);
    }

    /// `tier` was asked and had nothing to serve.
    #[inline]
    pub(crate) fn tier_miss(&self, tier: Tier) {
        let (slot, owner) = self.slot();
        slot.tier_misses[tier as usize].bump(owner);
    }

    /// A read was answered by no tier.
    #[inline]
    pub(crate) fn miss(&self, ns: NamespaceId, cause: MissCause) {
        let (slot, owner) = self.slot();
        slot.namespace(ns).misses[cause as usize].bump(owner);
    }

    /// A caller got a value past its time. Comes in addition to the read's hit or miss.
    #[inline]
    pub(crate) fn stale(&self, ns: NamespaceId) {
        let (slot, owner) = self.slot();
        slot.namespace(ns).stale.bump(owner);
    }

    /// A value was written.
    #[inline]
    pub(crate) fn set(&self, ns: NamespaceId) {
        let (slot, owner) = self.slot();
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
        let turn = THREAD.with(|thread| {
            let turn = thread.turn.get();
            thread.turn.set(turn.wrapping_add(1));
            turn
        });
        turn.is_multiple_of(SAMPLE_EVERY).then(Clock::stopwatch)
    }

    /// An operation of `tier` took so long. Below 1 ns and above 60 s it is counted as these.
    pub(crate) fn timed(&self, tier: Tier, verb: Verb, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).clamp(1, LONGEST_NS);
        let mut latency = self.latency[tier as usize][verb as usize].lock();
        if latency.is_none() {
            // These bounds are constants that hdrhistogram accepts; should it ever not, latencies are not told.
            *latency = Histogram::new_with_bounds(1, LONGEST_NS, 2).ok();
        }
        if let Some(histogram) = latency.as_mut() {
            histogram.saturating_record(ns);
        }
    }

    /// Notes how much was done so far, for [`error_rate_last_minute`](Self::error_rate_last_minute), which is as fine as
    /// this is called often. To be called by the maintenance task; more than once a second does nothing.
    pub(crate) fn tick(&self) {
        let now = self.clock.steady();
        if self.minute.lock().wants_mark(now) {
            let operations = self.totals().operations();
            self.minute.lock().mark(now, operations);
        }
    }

    /// Errors per operation (reads and writes) of the last minute, at most 1; 0 when there was no error.
    pub(crate) fn error_rate_last_minute(&self) -> f64 {
        self.tick();
        let operations = self.totals().operations();
        let (errors, before) = self.minute.lock().since_a_minute_ago(self.clock.steady());
        rate(errors, operations.saturating_sub(before))
    }

    /// Everything, with what the tiers say of themselves in the order of [`Tier::ALL`].
    pub(crate) fn snapshot(&self, usage: [Option<Usage>; 3], redis_memory: Option<u64>) -> Analytics {
        let totals = self.totals();
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
            memory,
            disk,
            redis,
            namespaces: totals.namespaces,
            uptime: Duration::from_millis(self.clock.steady().saturating_sub(self.opened)),
        }
    }

    /// This thread's slot, made on its first count.
    #[inline]
    fn slot(&self) -> (&Slot, Owner) {
        let number = number();
        let owner = if number == SHARED { Owner::Many } else { Owner::One };
        (self.slots[number].get_or_init(Slot::new), owner)
    }

    /// The sums over all threads.
    fn totals(&self) -> Totals {
        let slots: Vec<&Slot> = self.slots.iter().filter_map(OnceLock::get).map(|slot| &***slot).collect();
        let mut totals = Totals::default();
        for slot in &slots {
            for (sum, cell) in totals.tier_misses.iter_mut().zip(&slot.tier_misses) {
                *sum += cell.read();
            }
        }
        for id in 0..MAX_NAMESPACES {
            let one = NamespaceTotals::of(&slots, id);
            if !one.is_idle() {
                totals.add(NamespaceId(id as u16), &one);
            }
        }
        totals.namespaces.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        totals
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

impl Slot {
    #[cold]
    fn new() -> Box<CachePadded<Self>> {
        let namespaces = [const { OnceLock::new() }; MAX_NAMESPACES / BLOCK];
        Box::new(CachePadded::new(Self { tier_misses: Default::default(), namespaces }))
    }

    #[inline]
    fn namespace(&self, ns: NamespaceId) -> &NamespaceCells {
        let index = usize::from(ns.0) % MAX_NAMESPACES;
        &self.namespaces[index / BLOCK].get_or_init(Box::default)[index % BLOCK]
    }
}

/// The sums of one namespace over all threads.
#[derive(Default)]
struct NamespaceTotals {
    hits: [u64; 3],
    misses: [u64; MissCause::COUNT],
    stale: u64,
    sets: u64,
}

impl NamespaceTotals {
    fn of(slots: &[&Slot], id: usize) -> Self {
        let mut one = Self::default();
        for cells in slots.iter().filter_map(|slot| slot.namespaces[id / BLOCK].get()).map(|block| &block[id % BLOCK]) {
            for (sum, cell) in one.hits.iter_mut().zip(&cells.hits) {
                *sum += cell.read();
            }
            for (sum, cell) in one.misses.iter_mut().zip(&cells.misses) {
                *sum += cell.read();
            }
            one.stale += cells.stale.read();
            one.sets += cells.sets.read();
        }
        one
    }

    fn is_idle(&self) -> bool {
        self.hits.iter().chain(&self.misses).all(|count| *count == 0) && self.stale == 0 && self.sets == 0
    }
}

/// The sums over all threads and namespaces.
#[derive(Default)]
struct Totals {
    hits: [u64; 3],
    tier_misses: [u64; 3],
    misses: [u64; MissCause::COUNT],
    stale: u64,
    sets: u64,
    namespaces: Vec<NamespaceAnalytics>,
}

impl Totals {
    fn add(&mut self, id: NamespaceId, one: &NamespaceTotals) {
        for (sum, count) in self.hits.iter_mut().zip(one.hits) {
            *sum += count;
        }
        for (sum, count) in self.misses.iter_mut().zip(one.misses) {
            *sum += count;
        }
        self.stale += one.stale;
        self.sets += one.sets;
        let (hits, misses): (u64, u64) = (one.hits.iter().sum(), one.misses.iter().sum());
        let [memory_hits, disk_hits, redis_hits] = one.hits;
        self.namespaces.push(NamespaceAnalytics {
            name: id.namespace().name().to_owned(),
            hits,
            memory_hits,
            disk_hits,
            redis_hits,
            misses,
            hit_rate: share(hits, hits + misses),
            stale: one.stale,
            sets: one.sets,
            miss_causes: causes(&one.misses),
        });
    }

    fn operations(&self) -> u64 {
        self.hits.iter().chain(&self.misses).sum::<u64>() + self.sets
    }
}

fn causes(counts: &[u64; MissCause::COUNT]) -> MissCauses {
    let [absent, expired, invalidated, evicted, schema, corrupt, tier_down] = *counts;
    MissCauses { absent, expired, invalidated, evicted, schema, corrupt, tier_down }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// Errors without a counted operation (a background probe) are a rate of 1, not a division by zero.
fn rate(errors: u64, operations: u64) -> f64 {
    share(errors, operations.max(errors))
}

/// The last minute in seconds: exact for errors, as fine as the ticks for operations.
struct Minute {
    /// Errors by second of steady time modulo the length, with that second. Two more than a minute has, so that the
    /// oldest that counts is not the one being overwritten.
    errors: [(u64, u64); 62],
    /// When a mark was made and how many operations there had been; oldest first, evenly grown, at most 64.
    marks: std::collections::VecDeque<(u64, u64)>,
}

impl Minute {
    fn new(opened: u64) -> Self {
        Self { errors: [(0, 0); 62], marks: [(opened, 0)].into() }
    }

    fn error(&mut self, now: u64) {
        let second = now / 1_000;
        let bucket = &mut self.errors[(second % 62) as usize];
        if bucket.0 != second {
            *bucket = (second, 0);
        }
        bucket.1 += 1;
    }

    fn wants_mark(&self, now: u64) -> bool {
        self.marks.back().is_none_or(|(at, _)| now >= at.saturating_add(MARK_MS))
    }

    fn mark(&mut self, now: u64, operations: u64) {
        if !self.wants_mark(now) {
            return; // another thread was faster
        }
        self.marks.push_back((now, operations));
        // Only the newest mark beyond the minute is of use.
        while self.marks.len() > 1 && (self.marks[1].0.saturating_add(MINUTE_MS) <= now || self.marks.len() > 64) {
            self.marks.pop_front();
        }
    }

    /// Errors of the last minute, and how many operations there had been at its beginning.
    fn since_a_minute_ago(&self, now: u64) -> (u64, u64) {
        let second = now / 1_000;
        let errors = self.errors.iter().filter(|(at, _)| *at + 60 > second && *at <= second).map(|(_, count)| count).sum();
        let begin = |(at, _): &&(u64, u64)| at.saturating_add(MINUTE_MS) <= now;
        let before = self.marks.iter().rev().find(begin).or(self.marks.front()).map_or(0, |(_, operations)| *operations);
        (errors, before)
    }
}

/// What a thread keeps for all recorders. No destructor, so that it can be used to the very end of the thread.
struct Thread {
    /// Its slot's number; `UNKNOWN` before its first count, `SHARED` after its number was given back.
    number: Cell<usize>,
    /// Operations offered to `sample` so far.
    turn: Cell<u32>,
}

const UNKNOWN: usize = usize::MAX;

thread_local! {
    static THREAD: Thread = const { Thread { number: Cell::new(UNKNOWN), turn: Cell::new(0) } };
    /// Gives the number back when the thread ends.
    static NUMBER: Number = Number::take();
}

/// Numbers that no living thread owns, and the lowest that was never given out.
static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

struct Number(usize);

#[inline]
fn number() -> usize {
    match THREAD.with(|thread| thread.number.get()) {
        UNKNOWN => first_number(),
        number => number,
    }
}

#[cold]
fn first_number() -> usize {
    // Fails only while the thread is torn down.
    let number = NUMBER.try_with(|number| number.0).unwrap_or(SHARED);
    THREAD.with(|thread| thread.number.set(number));
    number
}

impl Number {
    fn take() -> Self {
        let mut free = FREE.lock();
        if let Some(number) = free.0.pop() {
            return Self(number);
        }
        let number = free.1.min(SHARED);
        free.1 = (free.1 + 1).min(SHARED);
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // What this thread still counts in other destructors goes to the shared slot.
        THREAD.with(|thread| thread.number.set(SHARED));
        if self.0 != SHARED {
            FREE.lock().0.push(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Namespace;

    fn id(namespace: Namespace) -> NamespaceId {
        namespace.id().unwrap()
    }

    #[test]
    fn counts_are_exact_under_four_threads() {
        let recorder = Recorder::new(Clock::manual());
        let (curves, general) = (id(Namespace::CURVES), id(Namespace::GENERAL));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        recorder.hit(Tier::Memory, curves);
                        recorder.miss(general, MissCause::Absent);
                        recorder.tier_miss(Tier::Memory);
                    }
                });
            }
        });
        let seen = recorder.snapshot([None; 3], None);
        assert_eq!((seen.hits, seen.misses, seen.memory.hits, seen.memory.misses), (400_000, 400_000, 400_000, 400_000));
        assert_eq!(seen.hit_rate, 0.5);
        assert_eq!(seen.miss_causes.absent, 400_000);
        assert_eq!(seen.namespace(Namespace::CURVES).unwrap().hits, 400_000);
        assert_eq!(seen.namespace(Namespace::CURVES).unwrap().misses, 0);
        assert!(seen.namespace(Namespace::USER_DATA).is_none());
    }

    #[test]
    fn counts_are_exact_with_more_threads_than_slots_and_with_threads_that_come_and_go() {
        let recorder = Recorder::new(Clock::manual());
        let ns = id(Namespace::CURVES);
        for _ in 0..3 {
            let all_there = std::sync::Barrier::new(OWNED + 16);
            std::thread::scope(|scope| {
                for _ in 0..OWNED + 16 {
                    scope.spawn(|| {
                        recorder.hit(Tier::Disk, ns);
                        all_there.wait();
                        (0..1_000).for_each(|_| recorder.hit(Tier::Disk, ns));
                    });
                }
            });
        }
        assert_eq!(recorder.snapshot([None; 3], None).disk.hits, 3 * (OWNED as u64 + 16) * 1_001);
    }

    #[test]
    fn an_idle_recorder_divides_by_nothing_and_prints_a_table() {
        let seen = Recorder::new(Clock::manual()).snapshot([None; 3], None);
        assert_eq!((seen.hit_rate, seen.error_rate), (0.0, 0.0));
        assert!(seen.namespaces.is_empty());
        assert!(seen.to_string().contains("memory"));
    }

    #[test]
    fn percentiles_of_known_samples_are_right_to_two_digits() {
        let recorder = Recorder::new(Clock::manual());
        for ms in 1..=1_000 {
            recorder.timed(Tier::Redis, Verb::Get, Duration::from_millis(ms));
        }
        recorder.timed(Tier::Disk, Verb::Set, Duration::ZERO);
        recorder.timed(Tier::Disk, Verb::Set, Duration::MAX);
        let seen = recorder.snapshot([None; 3], None);
        let get = &seen.redis.get;
        assert_eq!(get.count, 1_000);
        for (told, ms) in [(get.p50, 500.0), (get.p90, 900.0), (get.p99, 990.0), (get.p999, 999.0), (get.max, 1_000.0)] {
            let off = (told.as_secs_f64() * 1e3 / ms - 1.0).abs();
            assert!(off < 0.01, "{told:?} for {ms} ms");
        }
        assert_eq!(seen.disk.set.max, Duration::from_secs(60));
        assert_eq!(seen.disk.set.count, 2);
        assert_eq!(seen.memory.get, Latency::default());
    }

    #[test]
    fn the_error_rate_speaks_of_the_last_minute_and_forgets() {
        let clock = Clock::manual();
        let recorder = Recorder::new(clock.clone());
        let ns = id(Namespace::CURVES);
        assert_eq!(recorder.error_rate_last_minute(), 0.0);
        (0..100).for_each(|_| recorder.hit(Tier::Memory, ns));
        (0..10).for_each(|_| recorder.error(Tier::Redis));
        assert_eq!(recorder.error_rate_last_minute(), 0.1);
        for _ in 0..61 {
            clock.advance(Duration::from_secs(1));
            recorder.tick();
        }
        assert_eq!(recorder.error_rate_last_minute(), 0.0);
        (0..4).for_each(|_| recorder.set(ns));
        recorder.error(Tier::Disk);
        assert_eq!(recorder.error_rate_last_minute(), 0.25);
        let seen = recorder.snapshot([None; 3], None);
        assert_eq!((seen.errors, seen.disk.errors, seen.redis.errors), (11, 1, 10));
        assert_eq!(seen.error_rate, 11.0 / 104.0);
    }

    #[test]
    fn one_operation_in_sixty_four_is_timed() {
        let recorder = Recorder::new(Clock::manual());
        let timed = std::thread::scope(|scope| {
            let count = || (0..640).filter(|_| recorder.sample().is_some()).count();
            scope.spawn(count).join().unwrap()
        });
        assert_eq!(timed, 10);
    }

    #[test]
    fn what_the_tiers_hold_and_what_moved_stands_in_the_snapshot() {
        let recorder = Recorder::new(Clock::manual());
        recorder.promoted(Tier::Disk, 2);
        recorder.demoted(Tier::Memory, 3);
        recorder.expired(Tier::Memory, 1);
        recorder.invalidated(7);
        recorder.fetch(FetchOutcome::Replaced);
        recorder.stale(id(Namespace::CURVES));
        let usage = Usage { entries: 5, bytes: 600, capacity: 1_000, evictions: 4, expirations: 2 };
        let seen = recorder.snapshot([Some(usage), None, None], Some(9));
        assert_eq!((seen.disk.promotions, seen.memory.demotions, seen.memory.expirations), (2, 3, 3));
        assert_eq!((seen.memory.entries, seen.memory.bytes, seen.memory.capacity, seen.memory.evictions), (5, 600, 1_000, 4));
        assert_eq!((seen.invalidation_events, seen.invalidated_entries, seen.fetches.replaced), (1, 7, 1));
        assert_eq!((seen.stale, seen.redis_memory), (1, Some(9)));
    }
}
