//! Where a thread counts: a slot of its own, without an atomic addition.
//!
//! Each living thread of the process owns a number below [`OWNED`]; in every recorder that number is a slot which only
//! this thread writes. One writer needs no atomic addition: a relaxed load and a relaxed store are exact and touch a cache line that
//! no other core writes. When the thread ends, the number goes back through a mutex, whose order makes the next owner see
//! the last count. Threads beyond [`OWNED`], and a thread that is already being torn down, share the last slot and add atomically.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::metrics::outcome::MissCause;
use crate::namespace::{MAX_NAMESPACES, NamespaceId};

/// How many threads at a time have a slot of their own.
pub(crate) const OWNED: usize = 64;
/// Number of the slot that is shared by all the others.
const SHARED: usize = OWNED;

/// The slots of one recorder, by the number of the writing thread; the last is shared.
pub(crate) struct Slots([OnceLock<Box<CachePadded<Slot>>>; OWNED + 1]);

impl Slots {
    pub(crate) fn new() -> Self {
        Self([const { OnceLock::new() }; OWNED + 1])
    }

    /// This thread's slot, made on its first count.
    #[inline]
    pub(crate) fn own(&self) -> (&Slot, Owner) {
        let number = THREAD.with(|thread| thread.number.get());
        match self.0.get(number).and_then(OnceLock::get) {
            Some(slot) => (slot, Owner::of(number)),
            None => self.first(),
        }
    }

    /// This thread has no number yet, or its slot was never used here.
    #[cold]
    fn first(&self) -> (&Slot, Owner) {
        let number = number();
        (self.0[number].get_or_init(Slot::new), Owner::of(number))
    }

    /// Every slot that was ever used.
    pub(crate) fn used(&self) -> Vec<&Slot> {
        self.0.iter().filter_map(OnceLock::get).map(|slot| &***slot).collect()
    }
}

/// The counts of one thread.
pub(crate) struct Slot {
    pub(crate) tier_misses: [Cell64; 3],
    /// Each comes into being with its first count. No blocks of them: a hit would pay for the arithmetic.
    namespaces: [OnceLock<Box<CachePadded<NamespaceCells>>>; MAX_NAMESPACES],
}

/// One thread's counts of one namespace.
#[derive(Default)]
pub(crate) struct NamespaceCells {
    pub(crate) hits: [Cell64; 3],
    pub(crate) misses: [Cell64; MissCause::COUNT],
    pub(crate) stale: Cell64,
    pub(crate) sets: Cell64,
}

impl Slot {
    #[cold]
    fn new() -> Box<CachePadded<Self>> {
        let namespaces = [const { OnceLock::new() }; MAX_NAMESPACES];
        Box::new(CachePadded::new(Self { tier_misses: Default::default(), namespaces }))
    }

    #[inline]
    pub(crate) fn namespace(&self, ns: NamespaceId) -> &NamespaceCells {
        self.namespaces[usize::from(ns.0) % MAX_NAMESPACES].get_or_init(Box::default)
    }

    /// The cells of the namespace with this number, if this thread ever counted there.
    pub(crate) fn cells(&self, id: usize) -> Option<&NamespaceCells> {
        self.namespaces[id].get().map(|cells| &***cells)
    }
}

/// A count in a thread's slot. Never decreases.
#[derive(Default)]
pub(crate) struct Cell64(AtomicU64);

impl Cell64 {
    #[inline]
    pub(crate) fn bump(&self, owner: Owner) {
        match owner {
            // The only writer: nothing can come between the load and the store.
            Owner::One => self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed),
            Owner::Many => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who writes to a slot.
#[derive(Clone, Copy)]
pub(crate) enum Owner {
    One,
    Many,
}

impl Owner {
    #[inline]
    fn of(number: usize) -> Self {
        if number == SHARED { Self::Many } else { Self::One }
    }
}

/// What a thread keeps for all recorders. No destructor, so that it can be used to the very end of the thread.
struct Thread {
    /// Its slot's number; `UNKNOWN` before its first count, `SHARED` after its number was given back.
    number: Cell<usize>,
    /// Operations of each kind offered to [`sampled`] so far.
    turns: [Cell<u32>; 2],
}

const UNKNOWN: usize = usize::MAX;

thread_local! {
    static THREAD: Thread = const { Thread { number: Cell::new(UNKNOWN), turns: [const { Cell::new(0) }; 2] } };
    /// Gives the number back when the thread ends.
    static NUMBER: Number = Number::take();
}

/// Numbers that no living thread owns, and the lowest that was never given out.
static FREE: Mutex<(Vec<usize>, usize)> = Mutex::new((Vec::new(), 0));

struct Number(usize);

/// What is timed by samples. Each kind has a count of its own: one read may be both, and would take every turn of one kind from the other.
#[derive(Clone, Copy)]
pub(crate) enum Sampled {
    Memory,
    PageCache,
}

/// For how many operations of this thread this one stands, if it is the first of `every`: all since the one before; by a count over all recorders.
#[inline]
pub(crate) fn sampled(kind: Sampled, every: u32) -> Option<u64> {
    THREAD.with(|thread| {
        let count = &thread.turns[kind as usize];
        let turn = count.get();
        count.set(turn.wrapping_add(1));
        turn.is_multiple_of(every).then_some(if turn == 0 { 1 } else { u64::from(every) })
    })
}

fn number() -> usize {
    match THREAD.with(|thread| thread.number.get()) {
        UNKNOWN => first_number(),
        number => number,
    }
}

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
