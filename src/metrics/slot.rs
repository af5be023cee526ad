//! Where a thread counts: in cells of its own, without an atomic addition.
//!
//! Each living thread of the process owns a number below [`OWNED`]; in every recorder that number is a slot which only
//! this thread writes. One writer needs no atomic addition: a relaxed load and a relaxed store are exact and touch a cache line that
//! no other core writes. When the thread ends, the number goes back through a mutex, whose order makes the next owner see
//! the last count. Threads beyond [`OWNED`], and a thread that is already being torn down, share the last slot and add atomically.
//!
//! From the number to the cells of a namespace it is four loads, one behind the other, and as many tests. So a thread remembers
//! where it counted last, and out of line some **seats** where it did before, by the place of recorder and namespace, which is unique for
//! the life of the process. A seat is only ever taken in a slot that the thread owns; who sits needs not ask.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::metrics::cells::{Cells, NamespaceCells, Owner};
use crate::namespace::{MAX_NAMESPACES, NamespaceId};

/// How many threads at a time have a slot of their own.
pub(crate) const OWNED: usize = 64;
/// Number of the slot that is shared by all the others.
const SHARED: usize = OWNED;
/// Places that a thread remembers.
const SEATS: usize = 8;
/// One in so many operations on memory is timed.
const MEMORY_EVERY: i32 = 64;
/// Namespaces of a block of a slot.
const BLOCK: usize = 32;

/// The slots of one recorder, by the number of the writing thread; the last is shared.
pub(crate) struct Slots {
    places: Places,
    slots: [OnceLock<Box<CachePadded<Slot>>>; OWNED + 1],
}

impl Slots {
    pub(crate) fn new() -> Self {
        static RECORDERS: AtomicU64 = AtomicU64::new(1);
        // More apart than there are namespaces, and odd: the same namespace of two caches is not the same seat.
        let places = Places(RECORDERS.fetch_add(1, Ordering::Relaxed) * (MAX_NAMESPACES as u64 + 1));
        Self { places, slots: [const { OnceLock::new() }; OWNED + 1] }
    }

    pub(crate) fn places(&self) -> Places {
        self.places
    }

    /// This thread's cells of a namespace, if it counted there last.
    #[inline(always)]
    fn seated(&self, ns: NamespaceId) -> Option<&'static Cells> {
        FRONT.with(|front| front.seated(self.places.of(ns)))
    }

    /// This thread's cells of a namespace, made with its first count.
    #[inline]
    pub(crate) fn cells(&self, ns: NamespaceId) -> (&'static Cells, Owner) {
        match self.seated(ns) {
            Some(cells) => (cells, Owner::One),
            None => self.sit(ns),
        }
    }

    #[inline(never)]
    fn sit(&self, ns: NamespaceId) -> (&'static Cells, Owner) {
        let place = self.places.of(ns);
        let before = BEFORE.with(|before| before[place as usize % SEATS].get());
        let cells = if before.place == place {
            before.cells
        } else {
            let (slot, owner) = self.own();
            let cells = slot.cells(ns);
            if owner == Owner::Many {
                return (cells, owner);
            }
            BEFORE.with(|before| before[place as usize % SEATS].set(Seat { place, cells }));
            cells
        };
        FRONT.with(|front| front.sit(place, cells));
        (cells, Owner::One)
    }

    /// This thread's slot, made on its first use.
    fn own(&self) -> (&Slot, Owner) {
        let number = number();
        let slot = self.slots[number].get_or_init(Box::default);
        (slot, if number == SHARED { Owner::Many } else { Owner::One })
    }

    /// Every slot that was ever used.
    pub(crate) fn used(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter_map(OnceLock::get).map(|slot| &***slot)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // Who still remembers a place here never asks for it again: no other recorder has it.
        self.used().flat_map(Slot::all).for_each(NamespaceCells::give_back);
    }
}

/// Where the places of a recorder begin, by namespace. Copied to where a hit reads it anyway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places(u64);

impl Places {
    /// Of a recorder that counts nothing.
    pub(crate) const NONE: Self = Self(0);

    #[inline]
    fn of(self, ns: NamespaceId) -> u64 {
        self.0.wrapping_add(u64::from(ns.0))
    }

    /// This thread's cells of a namespace, if it counted there last, for an operation on memory that is not to be timed. For others
    /// ask [`memory_turn_is_up`] and [`Slots::cells`].
    #[inline(always)]
    pub(crate) fn seated_and_untimed(self, ns: NamespaceId) -> Option<&'static Cells> {
        FRONT.with(|front| if front.goes_untimed() { front.seated(self.of(ns)) } else { None })
    }
}

/// What one thread counted and timed of one cache.
#[derive(Default)]
pub(crate) struct Slot {
    blocks: [OnceLock<Box<Block>>; MAX_NAMESPACES / BLOCK],
}

#[derive(Default)]
struct Block([OnceLock<&'static Cells>; BLOCK]);

impl Slot {
    fn cells(&self, ns: NamespaceId) -> &'static Cells {
        let id = usize::from(ns.0) % MAX_NAMESPACES;
        self.blocks[id / BLOCK].get_or_init(Box::default).0[id % BLOCK].get_or_init(NamespaceCells::lent)
    }

    /// The cells of the namespace with this number, if this thread ever counted there.
    pub(crate) fn found(&self, id: usize) -> Option<&'static Cells> {
        self.blocks[id / BLOCK].get()?.0[id % BLOCK].get().copied()
    }

    /// Every cell there is.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'static Cells> {
        self.blocks.iter().filter_map(OnceLock::get).flat_map(|block| &block.0).filter_map(OnceLock::get).copied()
    }
}

/// What every operation on memory needs of its thread, in one cache line.
#[repr(align(32))]
struct Front {
    /// Operations on memory still to come before one is [timed](memory_turn).
    until: Cell<i32>,
    /// Where it counted last: the place, and the cells that are there.
    place: Cell<u64>,
    cells: Cell<&'static Cells>,
}

impl Front {
    const fn new() -> Self {
        Self { until: Cell::new(0), place: Cell::new(Seat::FREE.place), cells: Cell::new(Seat::FREE.cells) }
    }

    /// Another operation, which nearly always is not to be timed. If it may be, ask [`memory_turn_is_up`].
    #[inline(always)]
    fn goes_untimed(&self) -> bool {
        let left = self.until.get() - 1;
        self.until.set(left);
        left >= 0
    }

    #[inline(always)]
    fn seated(&self, place: u64) -> Option<&'static Cells> {
        (self.place.get() == place).then(|| self.cells.get())
    }

    fn sit(&self, place: u64, cells: &'static Cells) {
        self.place.set(place);
        self.cells.set(cells);
    }
}

/// A place, and the cells that this thread has there.
#[derive(Clone, Copy)]
struct Seat {
    /// Of the recorder and namespace; 0 is nobody's.
    place: u64,
    cells: &'static Cells,
}

impl Seat {
    const FREE: Self = Self { place: 0, cells: NamespaceCells::nobody() };
}

const UNKNOWN: usize = usize::MAX;

// What a thread keeps for all recorders. Without destructors, so that it can be used to the very end of the thread.
thread_local! {
    static FRONT: Front = const { Front::new() };
    /// Its slot's number; `UNKNOWN` before its first count, `SHARED` after its number was given back.
    static SLOT: Cell<usize> = const { Cell::new(UNKNOWN) };
    /// Reads of the page cache offered to [`page_cache_turn`] so far.
    static READS: Cell<u32> = const { Cell::new(0) };
    /// Where it counted before.
    static BEFORE: [Cell<Seat>; SEATS] = const { [const { Cell::new(Seat::FREE) }; SEATS] };
    /// Gives the number back when the thread ends.
    static NUMBER: Number = Number::take();
}

/// Numbers that no living thread owns, and the lowest that was never given out.
static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

struct Number(usize);

/// Is this operation of this thread on memory to be timed? The first is, and then one in [`MEMORY_EVERY`]; by a count over all recorders.
#[inline]
pub(crate) fn memory_turn() -> bool {
    !FRONT.with(Front::goes_untimed) && memory_turn_is_up()
}

/// Is the present operation to be timed? To be asked once.
#[cold]
pub(crate) fn memory_turn_is_up() -> bool {
    FRONT.with(|front| {
        let is_up = front.until.get() < 0;
        if is_up {
            front.until.set(MEMORY_EVERY - 1);
        }
        is_up
    })
}

/// For how many reads of the page cache by this thread this one stands, if it is the first of `every`: all since the one before. A count
/// of its own: the same read may be one of memory, too, and would take every turn of one kind from the other.
pub(crate) fn page_cache_turn(every: u32) -> Option<u64> {
    let turn = READS.get();
    READS.set(turn.wrapping_add(1));
    turn.is_multiple_of(every).then_some(if turn == 0 { 1 } else { u64::from(every) })
}

fn number() -> usize {
    match SLOT.get() {
        UNKNOWN => first_number(),
        number => number,
    }
}

fn first_number() -> usize {
    // Fails only while the thread is torn down.
    let number = NUMBER.try_with(|number| number.0).unwrap_or(SHARED);
    SLOT.set(number);
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
        SLOT.set(SHARED);
        FRONT.with(|front| front.sit(Seat::FREE.place, Seat::FREE.cells));
        BEFORE.with(|before| before.iter().for_each(|seat| seat.set(Seat::FREE)));
        if self.0 != SHARED {
            FREE.lock().0.push(self.0);
        }
    }
}
