//! The words of one array of a [`table`](super::table): where an entry stands. A word is never followed here, so all of this is safe code.
//!
//! Open addressing with linear probing over [words](super::word) of eight bytes. A search walks from the home of the key on and compares the upper sixteen
//! bits with what they would have to be *at this very place*, so that a wrong entry is looked at once in some hundred finds.
//!
//! **Removal leaves no tombstone.** The words behind the gap that may move closer to their home do; the word says how far from home it
//! is, so no entry is touched for it. (Tombstones were rejected: under steady eviction they force a rebuild
//! of the whole table, one cache miss an entry, every few thousand inserts.) A reader may walk past the new place of a
//! word before it is written and reach the old place after it was cleared. Such a false miss is found out by [`moves`](Words::moves): it is raised
//! after the new place is written and before the old one is cleared, so a walk without a hit between two equal readings of it has missed nothing.
//!
//! **An array that follows another** takes its words over home by home, in their order, which is the same in both. A word that was taken over is left where it
//! was, as a part of the walks that go past it; nobody looks at it any more, because who comes from a home that is [`done`](Words::done) does not walk there, and for
//! who comes from another home its bits are wrong. As long as there is an older array the lowest bit of `moves` is set.

use std::ops::Range;
use std::ptr::{NonNull, null_mut};

use super::sync::{Atomic, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use super::word::{ADDRESS, STEP, Scale, Spot, distance, home};

const _: () = assert!(usize::BITS == 64, "a word has room for an address and twenty bits more only on 64-bit machines");

/// The farthest a word may be from its home. A table in which one would have to be farther grows.
const FARTHEST: usize = 254;
/// In the place of a word's number: there is none.
const NOWHERE: usize = usize::MAX;

/// Where an array of words lies and how many homes it has, for who only wants to have a word fetched: to be asked at any time, and right nearly always.
pub(super) struct Place {
    start: AtomicPtr<u8>,
    homes: AtomicUsize,
}

impl Place {
    pub(super) fn of(words: &Words) -> Self {
        let place = Self { start: AtomicPtr::new(null_mut()), homes: AtomicUsize::new(0) };
        place.set(words);
        place
    }

    pub(super) fn set(&self, words: &Words) {
        self.start.store(words.slots.as_ptr().cast_mut().cast(), Ordering::Relaxed);
        self.homes.store(words.homes(), Ordering::Relaxed);
    }

    /// The address at which walks for this hash begin, not to be followed.
    #[inline]
    pub(super) fn home(&self, hash: u64) -> *mut u8 {
        let at = home(self.homes.load(Ordering::Relaxed), hash);
        self.start.load(Ordering::Relaxed).wrapping_add(at * size_of::<*mut u8>())
    }
}

/// One a home, one at the end, and between them as many as the farthest that a word may be from home, so that no walk wraps around.
pub(super) type Slots = Box<[AtomicPtr<u8>]>;

/// Many readers at a time, and one writer.
pub(super) struct Words {
    slots: Slots,
    scale: Scale,
    /// Twice the moves, and whether there is an older array. Here, a reader has it in the cache anyway, and writers elsewhere in the shard do not take it away.
    moves: AtomicU64,
    /// The array whose words are taken over; null when all are here.
    pub(super) older: Atomic<Words>,
    /// Homes of the older array whose words are here.
    done: AtomicUsize,
}

/// An array on its way: a large one takes longer to write than a put.
pub(super) struct Draft {
    slots: Vec<AtomicPtr<u8>>,
    scale: Scale,
}

impl Draft {
    fn new(scale: Scale) -> Self {
        let mut draft = Self { slots: Vec::new(), scale };
        draft.slots.reserve_exact(draft.len());
        draft
    }

    /// Of so many homes, for the words that are in `older`.
    pub(super) fn after(older: &Words, homes: usize) -> Self {
        Self::new(older.scale.rescaled(homes))
    }

    /// Words, written or not.
    pub(super) fn len(&self) -> usize {
        let homes = self.scale.homes();
        homes + FARTHEST.min(homes) + 1
    }

    fn missing(&self) -> usize {
        self.len() - self.slots.len()
    }

    pub(super) fn is_written(&self) -> bool {
        self.missing() == 0
    }

    /// Writes at most so many words more.
    pub(super) fn write(&mut self, most: usize) {
        self.slots.extend((0..most.min(self.missing())).map(|_| AtomicPtr::new(null_mut())));
    }

    pub(super) fn finish(mut self) -> Words {
        self.write(usize::MAX);
        let (moves, older, done) = (AtomicU64::new(0), Atomic::null(), AtomicUsize::new(0));
        Words { slots: self.slots.into(), scale: self.scale, moves, older, done }
    }
}

impl Words {
    pub(super) fn with_homes(homes: usize) -> Self {
        Draft::new(Scale::of(homes)).finish()
    }

    /// It follows `older` from now on, of which no word is here yet.
    pub(super) fn follow(self, older: Atomic<Self>) -> Self {
        Self { older, moves: AtomicU64::new(1), ..self }
    }

    /// What is large of it, when nobody will look at it any more.
    pub(super) fn take_slots(&mut self) -> Slots {
        std::mem::take(&mut self.slots)
    }

    #[inline]
    pub(super) fn scale(&self) -> Scale {
        self.scale
    }

    /// Places at which a walk may begin.
    #[inline]
    pub(super) fn homes(&self) -> usize {
        self.scale.homes()
    }

    /// The farthest a word may be from its home.
    fn farthest(&self) -> usize {
        self.slots.len() - self.homes() - 1
    }

    /// The address of the word of this number, not to be followed.
    pub(super) fn address(&self, at: usize) -> *mut u8 {
        self.slots.as_ptr().cast_mut().cast::<u8>().wrapping_add(at * size_of::<*mut u8>())
    }

    /// Words, used or not.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Changes with each move of a word.
    #[inline]
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    /// Has a walk without a hit, which began at these [`moves`](Self::moves), missed nothing? Then no word has moved, and there is no older array.
    #[inline]
    pub(super) fn is_whole(&self, moves: u64) -> bool {
        self.moves() == moves & !1
    }

    /// Homes of the older array whose words are here.
    #[inline]
    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::Acquire)
    }

    /// The words of all homes before this one were taken over.
    pub(super) fn set_done(&self, done: usize) {
        self.done.store(done, Ordering::Release);
    }

    /// All words were taken over, and `older` is null.
    pub(super) fn set_whole(&self) {
        self.moves.store((self.moves.load(Ordering::Relaxed) & !1) + 2, Ordering::Release);
    }

    #[inline]
    pub(super) fn home(&self, hash: u64) -> usize {
        self.scale.home(hash)
    }

    /// What `look` makes of the first word it takes for the right one; it is shown those whose bits are right. If it takes none: the number
    /// of the first free word of the walk, for [`fill`](Self::fill). Of those beyond the farthest that the entry may be at none is shown.
    #[inline(always)]
    pub(super) fn search<R>(&self, hash: u64, mut look: impl FnMut(*mut u8) -> Option<R>) -> Result<R, usize> {
        let (home, mut upper) = (self.home(hash), self.scale.upper(hash));
        for (step, slot) in self.slots[home..].iter().enumerate() {
            let word = slot.load(Ordering::Acquire);
            if word.addr() >> 48 == upper {
                if let Some(found) = look(word) {
                    return Ok(found);
                }
            } else if word.is_null() {
                return Err(home + step);
            }
            upper += STEP >> 48;
        }
        Err(NOWHERE)
    }

    /// Where the word of this very entry is.
    #[inline]
    pub(super) fn position(&self, hash: u64, entry: NonNull<u8>) -> Option<usize> {
        let Spot { home, bits } = self.scale.spot(hash);
        // Not by the address alone: it may be that of an older entry, whose word was taken over.
        let mut wanted = entry.addr().get() | bits;
        for (step, slot) in self.slots[home..].iter().enumerate().take(self.farthest() + 1) {
            let word = slot.load(Ordering::Relaxed);
            if word.addr() == wanted {
                return Some(home + step);
            } else if word.is_null() {
                break;
            }
            wanted = wanted.wrapping_add(STEP);
        }
        None
    }

    /// Puts the word of an entry into a place that a search for it has found free; false if it had found none near enough.
    #[inline]
    pub(super) fn fill(&self, at: usize, hash: u64, entry: NonNull<u8>) -> bool {
        let Some(slot) = self.slots.get(at) else { return false };
        let Spot { home, bits } = self.scale.spot(hash);
        if at - home > self.farthest() {
            return false;
        }
        let bits = bits + (at - home) * STEP;
        slot.store(entry.as_ptr().map_addr(|address| address | bits), Ordering::Release);
        true
    }

    /// Puts the word of an entry into the first free place, if it is not here; false if there is none near enough.
    pub(super) fn place(&self, spot: Spot, entry: NonNull<u8>) -> bool {
        self.place_from(spot.home, spot, entry).is_some()
    }

    /// The same, where nothing is free before `begin`, and not this word either: the number of its place.
    #[inline]
    pub(super) fn place_from(&self, begin: usize, spot: Spot, entry: NonNull<u8>) -> Option<usize> {
        let mut bits = spot.bits.wrapping_add((begin - spot.home).wrapping_mul(STEP));
        let end = spot.home + self.farthest() + 1;
        for (step, slot) in self.slots.get(begin..end)?.iter().enumerate() {
            let (word, new) = (slot.load(Ordering::Relaxed), entry.as_ptr().map_addr(|address| address | bits));
            if word.is_null() {
                slot.store(new, Ordering::Release);
            }
            if word.is_null() || word == new {
                return Some(begin + step);
            }
            bits = bits.wrapping_add(STEP);
        }
        None
    }

    /// Puts another entry of the same key into a place.
    pub(super) fn replace(&self, at: usize, entry: NonNull<u8>) {
        let bits = self.slots[at].load(Ordering::Relaxed).addr() & !ADDRESS;
        self.slots[at].store(entry.as_ptr().map_addr(|address| address | bits), Ordering::Release);
    }

    /// Clears a word, and moves closer to their homes those behind it that would not be found any more.
    #[inline]
    pub(super) fn clear(&self, at: usize) {
        let (mut gap, mut by) = (&self.slots[at], 0);
        for slot in &self.slots[at + 1..] {
            by += 1;
            let word = slot.load(Ordering::Relaxed);
            if word.is_null() {
                break;
            }
            if distance(word) >= by {
                gap.store(word.map_addr(|address| address - by * STEP), Ordering::Release);
                self.moves.store(self.moves.load(Ordering::Relaxed) + 2, Ordering::Release);
                (gap, by) = (slot, 0);
            }
        }
        gap.store(null_mut(), Ordering::Release);
    }

    /// The words of these homes, wherever they stand, and the home of each.
    pub(super) fn of_homes(&self, homes: Range<usize>) -> impl Iterator<Item = (usize, *mut u8)> {
        let words = (homes.start..).zip(&self.slots[homes.start..]).map(|(at, slot)| (at, slot.load(Ordering::Relaxed)));
        // From home to its place no word is null: behind a null that is not before their last home stands none of them.
        let near = words.take_while(move |(at, word)| at + 1 < homes.end || !word.is_null());
        let with_home = near.filter(|(_, word)| !word.is_null()).map(|(at, word)| (at - distance(word), word));
        with_home.filter(move |(home, _)| homes.contains(home))
    }
}
