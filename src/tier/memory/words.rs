//! The words of one array of a [`table`](super::table): where an entry stands. A word is never followed here, so all of this is safe code.
//!
//! Open addressing with linear probing over words of eight bytes. A word is null, or an entry's address with sixteen bits
//! that an address does not use:
//!
//! ```text
//! | distance from home + 1 (8) | bits of the hash (8) | address of the entry (48) |
//! ```
//!
//! A search walks the words from the home of the key on and compares the sixteen bits with what they would have
//! to be *at this very place*, so that a wrong entry is looked at about once in three hundred finds.
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

const _: () = assert!(usize::BITS == 64, "a word has room for an address and sixteen bits more only on 64-bit machines");

const ADDRESS_BITS: u32 = 48;
const ADDRESS: usize = (1 << ADDRESS_BITS) - 1;
/// One step further from home, in the upper sixteen bits of a word.
const STEP: usize = 1 << 8;
/// The farthest a word may be from its home. A table in which one would have to be farther grows.
const FARTHEST: usize = 254;
/// In the place of a word's number: there is none.
const NOWHERE: usize = usize::MAX;

/// The address in a word.
#[inline]
pub(super) fn bare(word: *mut u8) -> *mut u8 {
    word.map_addr(|address| address & ADDRESS)
}

/// Does the address leave room for sixteen bits? One that did not would be cut; no supported system hands such a one out unasked.
#[inline]
pub(super) fn fits(entry: NonNull<u8>) -> bool {
    entry.addr().get() & !ADDRESS == 0
}

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
        self.homes.store(words.homes, Ordering::Relaxed);
    }

    /// The address at which walks for this hash begin, not to be followed.
    #[inline]
    pub(super) fn home(&self, hash: u64) -> *mut u8 {
        let at = home(self.homes.load(Ordering::Relaxed), hash);
        self.start.load(Ordering::Relaxed).wrapping_add(at * size_of::<*mut u8>())
    }
}

/// At which of so many homes the walk for this hash begins.
#[inline]
fn home(homes: usize, hash: u64) -> usize {
    (((hash & 0xFFFF_FFFF) * homes as u64) >> 32) as usize
}

/// Many readers at a time, and one writer.
pub(super) struct Words {
    /// `homes + farthest` words, so that no walk wraps around.
    slots: Box<[AtomicPtr<u8>]>,
    homes: usize,
    /// At most [`FARTHEST`].
    farthest: usize,
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
    homes: usize,
    farthest: usize,
}

impl Draft {
    pub(super) fn with_homes(homes: usize) -> Self {
        let farthest = FARTHEST.min(homes);
        Self { slots: Vec::with_capacity(homes + farthest + 1), homes, farthest }
    }

    /// Writes at most so many words more. Are all written?
    pub(super) fn write(&mut self, most: usize) -> bool {
        let missing = self.homes + self.farthest + 1 - self.slots.len();
        self.slots.extend((0..most.min(missing)).map(|_| AtomicPtr::new(null_mut())));
        missing <= most
    }

    pub(super) fn finish(mut self) -> Words {
        self.write(usize::MAX);
        let (moves, older, done) = (AtomicU64::new(0), Atomic::null(), AtomicUsize::new(0));
        Words { slots: self.slots.into(), homes: self.homes, farthest: self.farthest, moves, older, done }
    }
}

impl Words {
    pub(super) fn with_homes(homes: usize) -> Self {
        Draft::with_homes(homes).finish()
    }

    /// It follows `older` from now on, of which no word is here yet.
    pub(super) fn follow(self, older: Atomic<Self>) -> Self {
        Self { older, moves: AtomicU64::new(1), ..self }
    }

    /// Places at which a walk may begin.
    #[inline]
    pub(super) fn homes(&self) -> usize {
        self.homes
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
        home(self.homes, hash)
    }

    /// The words from home on, and the number of the first. Those beyond the farthest that the entry may be at can be looked at: none is taken for it.
    #[inline]
    fn walk(&self, hash: u64) -> (usize, &[AtomicPtr<u8>]) {
        let home = self.home(hash);
        (home, &self.slots[home..])
    }

    /// The sixteen bits at home.
    #[inline]
    fn bits(hash: u64) -> usize {
        (hash >> 32) as usize & 0xFF | STEP
    }

    /// What `look` makes of the first word it takes for the right one; it is shown those whose sixteen bits are right. If it takes none: the number
    /// of the first free word of the walk, for [`fill`](Self::fill).
    #[inline(always)]
    pub(super) fn search<R>(&self, hash: u64, mut look: impl FnMut(*mut u8) -> Option<R>) -> Result<R, usize> {
        let ((home, slots), mut bits) = (self.walk(hash), Self::bits(hash));
        for (step, slot) in slots.iter().enumerate() {
            let word = slot.load(Ordering::Acquire);
            if word.addr() >> ADDRESS_BITS == bits {
                if let Some(found) = look(word) {
                    return Ok(found);
                }
            } else if word.is_null() {
                return Err(home + step);
            }
            bits += STEP;
        }
        Err(NOWHERE)
    }

    /// Where the word of this very entry is.
    #[inline]
    pub(super) fn position(&self, hash: u64, entry: NonNull<u8>) -> Option<usize> {
        let ((home, slots), mut bits) = (self.walk(hash), Self::bits(hash));
        for (step, slot) in slots.iter().enumerate() {
            let word = slot.load(Ordering::Relaxed);
            // Not the address alone: it may be that of an older entry, whose word was taken over.
            if word.addr() == entry.addr().get() | bits << ADDRESS_BITS {
                return Some(home + step);
            } else if word.is_null() {
                break;
            }
            bits += STEP;
        }
        None
    }

    /// Puts the word of an entry into a place that a search for it has found free; false if it had found none near enough.
    #[inline]
    pub(super) fn fill(&self, at: usize, hash: u64, entry: NonNull<u8>) -> bool {
        let Some(slot) = self.slots.get(at) else { return false };
        let from_home = at - self.home(hash);
        if from_home > self.farthest {
            return false;
        }
        let bits = from_home * STEP + Self::bits(hash);
        slot.store(entry.as_ptr().map_addr(|address| address | bits << ADDRESS_BITS), Ordering::Release);
        true
    }

    /// Puts the word of an entry into the first free place; false if there is none near enough.
    pub(super) fn place(&self, hash: u64, entry: NonNull<u8>) -> bool {
        let free = self.search(hash, |_| None::<()>).err();
        free.is_some_and(|at| self.fill(at, hash, entry))
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
            // The upper eight bits are one more than the steps it may go.
            if word.addr() >> (ADDRESS_BITS + 8) > by {
                gap.store(word.map_addr(|address| address - ((by * STEP) << ADDRESS_BITS)), Ordering::Release);
                self.moves.store(self.moves.load(Ordering::Relaxed) + 2, Ordering::Release);
                (gap, by) = (slot, 0);
            }
        }
        gap.store(null_mut(), Ordering::Release);
    }

    /// The words of these homes, wherever they stand.
    pub(super) fn of_homes(&self, homes: Range<usize>) -> impl Iterator<Item = *mut u8> {
        let words = (homes.start..).zip(&self.slots[homes.start..]).map(|(at, slot)| (at, slot.load(Ordering::Relaxed)));
        // From home to its place no word is null: behind a null that is not before their last home stands none of them.
        let near = words.take_while(move |(at, word)| at + 1 < homes.end || !word.is_null());
        let is_of = move |at: usize, word: *mut u8| homes.contains(&(at + 1 - (word.addr() >> (ADDRESS_BITS + 8))));
        near.filter(move |(at, word)| !word.is_null() && is_of(*at, *word)).map(|(_, word)| word)
    }
}
