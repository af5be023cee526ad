//! A queue of resident entries, oldest first, which is also the timer of their ends.
//!
//! Blocks of 64 places. A place is the table's reference to an entry (8 bytes) and the bit `trial`. A block knows the earliest end of a life
//! in it, so expiry looks only at the entries of blocks in which something may end: no wheel, nothing to cancel. An entry carries the low 31 bits of its place's number, so it is taken out of the middle without a search.
//!
//! Taking out leaves a hole. When there are more holes than half of the entries, a few places are moved together with each further
//! removal: `gap` is the run of holes between what was moved already and what was not.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::ghost::Side;
use super::table::{Held, expect};
use crate::entry::Entry;

const BLOCK: u64 = 64;
/// Places moved in one step of closing holes.
const STEP: u32 = 8;
/// Places between the oldest and the one that is fetched into the cache with it.
const AHEAD: u64 = 3;
/// A number keeps 31 bits in the entry; the 32nd says which queue.
const NUMBER: u64 = 0x7FFF_FFFF;
/// The end of nothing.
pub(super) const NEVER: u32 = u32::MAX;

struct Block {
    held: [Option<Held>; BLOCK as usize],
    trial: u64,
}

struct Blocked {
    /// No entry of the block ends earlier; see [`Seconds`].
    earliest: u32,
    block: Box<Block>,
}

struct Gap {
    write: u64,
    read: u64,
}

/// Coarse time: seconds of 1024 ms since the tier was made, in 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Seconds {
    /// Steady milliseconds when the tier was made.
    pub(super) born: u64,
}

impl Seconds {
    /// The second of a steady time, rounded down.
    pub(super) fn of(self, at: u64) -> u32 {
        u32::try_from(at.saturating_sub(self.born) >> 10).unwrap_or(NEVER).min(NEVER - 1)
    }

    /// The second in which the last use of an entry ends.
    fn end(self, entry: &Entry) -> u32 {
        self.of(entry.stale_until())
    }
}

/// What stands in a place.
pub(super) struct Item {
    pub(super) held: Held,
    /// Was promoted as a ghost, and not hit since.
    pub(super) trial: bool,
}

/// Entries of one side of a shard, oldest first.
pub(super) struct Queue {
    side: Side,
    seconds: Seconds,
    blocks: VecDeque<Blocked>,
    /// Number of the first place of the first block.
    first: u64,
    head: u64,
    tail: u64,
    len: usize,
    /// What its entries cost; kept by the shard.
    pub(super) bytes: u64,
    gap: Option<Gap>,
    /// Sweeps under way. They go by place numbers, so nothing is moved towards the head meanwhile.
    pub(super) sweeps: u32,
    spare: Option<Box<Block>>,
    /// Bytes of the places.
    footprint: u64,
}

impl Queue {
    pub(super) fn new(side: Side, seconds: Seconds) -> Self {
        let (blocks, gap, spare) = (VecDeque::new(), None, None);
        Self { side, seconds, blocks, first: 0, head: 0, tail: 0, len: 0, bytes: 0, gap, sweeps: 0, spare, footprint: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the places.
    #[inline]
    pub(super) fn footprint(&self) -> u64 {
        self.footprint
    }

    /// To be called whenever the number of blocks has changed.
    fn measure(&mut self) {
        let blocks = self.blocks.len() + usize::from(self.spare.is_some());
        self.footprint = (blocks * size_of::<Block>() + self.blocks.capacity() * size_of::<Blocked>()) as u64;
    }

    /// Something is going to be appended.
    #[inline]
    pub(super) fn expect(&self) {
        if let Some(Blocked { block, .. }) = self.blocks.back() {
            expect(&block.held[(self.tail % BLOCK) as usize]);
        }
    }

    /// Appends.
    #[inline]
    pub(super) fn push(&mut self, item: Item) {
        if self.tail == self.first + self.blocks.len() as u64 * BLOCK {
            self.add_block();
        }
        self.len += 1;
        self.write(self.tail, item);
        self.tail += 1;
    }

    #[cold]
    fn add_block(&mut self) {
        let fresh = || Box::new(Block { held: [const { None }; BLOCK as usize], trial: 0 });
        let block = self.spare.take().unwrap_or_else(fresh);
        self.blocks.push_back(Blocked { earliest: NEVER, block });
        self.measure();
    }

    /// Takes the oldest out.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Item> {
        while self.head < self.tail {
            if let Some(gap) = &mut self.gap
                && gap.write == self.head
            {
                // Nothing was moved before the gap, or it is taken already: go on behind it.
                if gap.read == self.head {
                    gap.read += 1;
                } else {
                    self.head = gap.read;
                }
                gap.write = gap.read;
                if self.head == gap.read {
                    self.free_front();
                    continue;
                }
            }
            let item = self.empty(self.head);
            // The oldest were not looked at for longest: the next ones are on their way while this one is dealt with.
            if let Some(next) = self.get(self.head + AHEAD) {
                next.expect();
            }
            self.head += 1;
            self.free_front();
            if let Some(item) = item {
                self.len -= 1;
                return Some(item);
            }
        }
        None
    }

    /// Takes out what stands in a place, and leaves the hole to [`close_holes`](Self::close_holes).
    pub(super) fn take_at(&mut self, number: u64) -> Option<Item> {
        let item = self.empty(number)?;
        self.len -= 1;
        Some(item)
    }

    /// Puts an item into a place that was just taken.
    pub(super) fn put_back(&mut self, number: u64, item: Item) {
        self.len += 1;
        self.write(number, item);
    }

    /// The number of this entry's place, if it is in this queue.
    pub(super) fn number(&self, entry: &Entry) -> Option<u64> {
        let place = entry.place().load(Ordering::Relaxed);
        if (place >> 31 == 1) == (self.side == Side::Main) {
            let number = self.head + (u64::from(place).wrapping_sub(self.head) & NUMBER);
            if self.get(number).is_some_and(|held| held.is(entry)) {
                return Some(number);
            }
        }
        self.search(entry)
    }

    /// For an entry that another table holds too, and whose place is the one there.
    #[cold]
    fn search(&self, entry: &Entry) -> Option<u64> {
        (self.head..self.tail).find(|number| self.get(*number).is_some_and(|held| held.is(entry)))
    }

    /// Numbers of the oldest place and of the one behind the youngest.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.head..self.tail
    }

    /// The oldest, unless it was taken out.
    #[inline]
    pub(super) fn oldest(&self) -> Option<&Held> {
        self.get(self.head)
    }

    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<&Held> {
        if !self.range().contains(&number) {
            return None;
        }
        let (block, at) = self.at(number);
        self.blocks[block].block.held[at].as_ref()
    }

    /// The next place, from `from` on, of an entry that may end in the second `now` or before.
    pub(super) fn next_ending(&mut self, from: u64, now: u32) -> Option<u64> {
        let (mut number, seconds) = (from.max(self.head), self.seconds);
        let end = |held: &Option<Held>| held.as_ref().map_or(NEVER, |held| seconds.end(held));
        while number < self.tail {
            let (block, at) = self.at(number);
            let blocked = &mut self.blocks[block];
            if blocked.earliest <= now {
                if at == 0 {
                    // What ended was taken out by an earlier visit, and some that is left may end later.
                    blocked.earliest = blocked.block.held.iter().map(end).min().unwrap_or(NEVER);
                }
                if let Some(found) = blocked.block.held[at..].iter().position(|held| end(held) <= now) {
                    return Some(number + found as u64);
                }
            }
            number = number - at as u64 + BLOCK;
        }
        None
    }

    /// Moves a few places together if there are many holes.
    pub(super) fn close_holes(&mut self) {
        if self.sweeps > 0 {
            return;
        }
        if self.gap.is_none() && self.tail - self.head > (self.len + self.len / 2) as u64 + BLOCK {
            self.gap = Some(Gap { write: self.head, read: self.head });
        }
        for _ in 0..STEP {
            let Some(Gap { write, read }) = self.gap else { return };
            if read == self.tail {
                self.truncate(write);
                return;
            }
            let moved = self.empty(read);
            let write = write + u64::from(moved.is_some());
            if let Some(item) = moved {
                self.write(write - 1, item);
            }
            self.gap = Some(Gap { write, read: read + 1 });
        }
    }

    fn truncate(&mut self, tail: u64) {
        self.gap = None;
        self.tail = tail;
        let needed = (tail - self.first).div_ceil(BLOCK) as usize;
        self.blocks.truncate(needed);
        if self.blocks.capacity() > 4 * needed + 8 {
            self.blocks.shrink_to(2 * needed);
        }
        self.measure();
    }

    #[inline]
    fn free_front(&mut self) {
        if self.head >= self.first + BLOCK {
            self.free_blocks();
        }
    }

    #[cold]
    fn free_blocks(&mut self) {
        while self.head >= self.first + BLOCK && !self.blocks.is_empty() {
            self.spare = self.blocks.pop_front().map(|blocked| blocked.block);
            self.first += BLOCK;
        }
        self.measure();
    }

    #[inline]
    fn at(&self, number: u64) -> (usize, usize) {
        let at = number - self.first;
        ((at / BLOCK) as usize, (at % BLOCK) as usize)
    }

    #[inline]
    fn empty(&mut self, number: u64) -> Option<Item> {
        let (block, at) = self.at(number);
        let block = &mut self.blocks[block].block;
        let held = block.held[at].take()?;
        let trial = block.trial >> at & 1 == 1;
        block.trial &= !(1 << at);
        Some(Item { held, trial })
    }

    #[inline]
    fn write(&mut self, number: u64, Item { held, trial }: Item) {
        let ((block, at), end) = (self.at(number), self.seconds.end(&held));
        let which = u32::from(self.side == Side::Main) << 31;
        held.place().store((number & NUMBER) as u32 | which, Ordering::Relaxed);
        let Blocked { earliest, block } = &mut self.blocks[block];
        *earliest = (*earliest).min(end);
        block.trial |= u64::from(trial) << at;
        block.held[at] = Some(held);
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, fuzzing))]
    pub(super) fn validate(&self) {
        assert!(self.first <= self.head && self.head <= self.tail);
        let blocks = self.blocks.len() + usize::from(self.spare.is_some());
        let footprint = blocks * size_of::<Block>() + self.blocks.capacity() * size_of::<Blocked>();
        assert_eq!(self.footprint, footprint as u64, "the bytes of the places are known");
        let mut len = 0;
        for number in self.range() {
            let (block, at) = self.at(number);
            let Blocked { earliest, block } = &self.blocks[block];
            let Some(held) = &block.held[at] else {
                assert_eq!(block.trial >> at & 1, 0, "a hole is empty");
                continue;
            };
            len += 1;
            assert!(*earliest <= self.seconds.end(held), "the block knows the earliest end");
            assert_eq!(self.number(held), Some(number), "the entry knows its place");
            assert!(self.gap.as_ref().is_none_or(|gap| !(gap.write..gap.read).contains(&number)), "the gap is empty");
        }
        assert_eq!(len, self.len);
    }
}
