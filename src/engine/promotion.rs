//! Does it pay to bring to memory what the page cache has?
//!
//! A promotion costs as much as half a read of the page cache: memory is full, so something must leave for it, and the new entry is written where
//! the processor's cache was not for long. It pays where promoted entries are asked for again before they leave, which is the rule. Where
//! many more keys are read than memory holds, and all of them alike (a scan, a batch job), nearly none is.
//!
//! So it is counted what became of the promoted: memory says of each that it lets go whether it was reused. While that is so for one in eight
//! or more, every read is promoted, as it is at first. Else only a key that *was read from the page cache a short time before* is, until one read
//! in four is such a second one. What is not promoted is where it was: on disk. Room for which nothing must leave is used in any case, and what
//! came from the device or from Redis is always promoted.
//!
//! Promoting at the second hit is what RocksDB does with its secondary cache. That promoting seldom keeps what is asked for often, and is slower to
//! learn where the order of reads matters more than their number, is the theory of q-LRU (Garetto, Leonardi and Martina, 2016). What it
//! does on traces: `ARCHITECTURE.md`, "Where an entry lives".

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

/// A read is remembered for each so many bytes of memory. (Four and sixteen times as many were tried on traces: more is promoted, and no run was
/// faster beyond the noise.)
const BYTES_PER_READ: u64 = 16 << 10;
/// At least and at most so many. They take two bytes each, which the budget of memory does not count: a part in 8192 of it.
const FEWEST: u64 = 1 << 9;
const MOST: u64 = 1 << 20;

/// Judges promotions of one cache. Counts may be lost where two threads meet; they are estimates.
pub(crate) struct Promotions {
    /// Of the promoted that left, those that were reused.
    reused: Share,
    /// Of the reads of the page cache, those whose key was read a short time before. Kept while only these are promoted.
    second: Share,
    /// Is only the second read of a key promoted?
    is_choosy: AtomicBool,
    /// Keys that were read lately, by a few bits of their hash; an older one is written over. Made when it is first needed.
    seen: OnceLock<Box<[AtomicU16]>>,
    slots: u64,
}

impl Promotions {
    /// For a memory of so many bytes.
    pub(crate) fn new(memory: u64) -> Self {
        let slots = (memory / BYTES_PER_READ).clamp(FEWEST, MOST).next_power_of_two();
        Self { reused: Share::new(1.0), second: Share::new(0.0), is_choosy: AtomicBool::new(false), seen: OnceLock::new(), slots }
    }

    /// Memory has let go of a promoted entry.
    pub(crate) fn left(&self, was_reused: bool) {
        if self.is_choosy.load(Ordering::Relaxed) || self.reused.note(was_reused) >= LOW {
            return;
        }
        self.second.set(0.0);
        self.is_choosy.store(true, Ordering::Relaxed);
    }

    /// The key with this hash was read from the page cache: does it pay to promote it, though something must leave for it?
    pub(crate) fn pays(&self, hash: u64) -> bool {
        if !self.is_choosy.load(Ordering::Relaxed) {
            return true;
        }
        let is_second = self.saw(hash);
        if self.second.note(is_second) >= HIGH {
            self.reused.set(1.0);
            self.is_choosy.store(false, Ordering::Relaxed);
        }
        is_second
    }

    /// Was this hash seen a short time before? If not, it is now.
    fn saw(&self, hash: u64) -> bool {
        let seen = self.seen.get_or_init(|| (0..self.slots).map(|_| AtomicU16::new(0)).collect());
        let slot = &seen[(hash >> 16) as usize & (seen.len() - 1)];
        // Never the empty one.
        let tag = hash as u16 | 1;
        let was_there = slot.load(Ordering::Relaxed) == tag;
        slot.store(if was_there { 0 } else { tag }, Ordering::Relaxed);
        was_there
    }
}

/// A share of events, of which the last few hundred matter: a moving average in parts of 65536.
struct Share(AtomicU32);

const ONE: u32 = 1 << 16;
/// Below it promotions do not pay.
const LOW: u32 = ONE / 8;
/// From it on they would.
const HIGH: u32 = ONE / 4;
/// The weight of one event is one in two to the power of this.
const WEIGHT: u32 = 8;

impl Share {
    fn new(share: f64) -> Self {
        Self(AtomicU32::new((share * f64::from(ONE)) as u32))
    }

    fn set(&self, share: f64) {
        self.0.store((share * f64::from(ONE)) as u32, Ordering::Relaxed);
    }

    /// One more event; the share with it.
    fn note(&self, happened: bool) -> u32 {
        let before = self.0.load(Ordering::Relaxed);
        let after = before - (before >> WEIGHT) + if happened { ONE >> WEIGHT } else { 0 };
        self.0.store(after, Ordering::Relaxed);
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promotions that brought nothing, until the judge has seen enough.
    fn disappointed() -> Promotions {
        let promotions = Promotions::new(16 << 20);
        let needed =
            (0..10_000).take_while(|_| !promotions.is_choosy.load(Ordering::Relaxed)).map(|_| promotions.left(false)).count();
        assert!((256..1_024).contains(&needed), "{needed} events");
        promotions
    }

    #[test]
    fn every_read_is_promoted_while_one_in_eight_of_the_promoted_is_reused() {
        let promotions = Promotions::new(16 << 20);
        for event in 0..10_000 {
            promotions.left(event % 6 == 0);
            assert!(promotions.pays(event));
        }
        assert!(promotions.seen.get().is_none(), "nothing is kept for what is not needed");
    }

    #[test]
    fn where_the_promoted_are_not_reused_only_a_second_read_is_promoted() {
        let (promotions, mut rng) = (disappointed(), fastrand::Rng::with_seed(1));
        let hashes: Vec<u64> = (0..100).map(|_| rng.u64(..)).collect();
        assert!(hashes.iter().all(|&hash| !promotions.pays(hash)));
        let again = hashes.iter().filter(|&&hash| promotions.pays(hash)).count();
        assert!(again > 90, "{again}: but those that share a place");
    }

    #[test]
    fn keys_read_once_are_never_promoted_for_long() {
        let (promotions, mut rng) = (disappointed(), fastrand::Rng::with_seed(2));
        let promoted = (0..100_000).filter(|_| promotions.pays(rng.u64(..))).count();
        assert!(promoted < 100, "{promoted}");
    }

    #[test]
    fn when_reads_come_twice_again_every_one_is_promoted() {
        let (promotions, mut rng) = (disappointed(), fastrand::Rng::with_seed(3));
        let mut reads = 0;
        while promotions.is_choosy.load(Ordering::Relaxed) {
            let hash = rng.u64(..);
            promotions.pays(hash);
            promotions.pays(hash);
            reads += 2;
            assert!(reads < 1_000);
        }
        assert!(promotions.pays(rng.u64(..)), "a first read");
        promotions.left(false);
        assert!(promotions.pays(rng.u64(..)), "one disappointment changes nothing");
    }

    #[test]
    fn a_share_is_never_below_none_nor_above_all() {
        let share = Share::new(1.0);
        assert!((0..10_000).all(|_| share.note(true) <= ONE));
        let last = (0..10_000).map(|_| share.note(false)).last().unwrap();
        assert!(last < ONE / 200, "{last}");
    }
}
