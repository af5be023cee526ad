//! What one thread counts and times of one namespace of one cache: plain words that only this thread writes.
//!
//! Cells are made once and lent to recorders for ever after, so that a thread can remember where it counts without owning it and
//! without asking whether it is still there (see [`super::slot`]).

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::metrics::outcome::MissCause;
use crate::metrics::pending::Pending;

/// One thread's counts and times of one namespace, in cache lines of its own.
pub(crate) type Cells = CachePadded<NamespaceCells>;

/// See [`Cells`].
#[derive(Default)]
pub(crate) struct NamespaceCells {
    pub(crate) hits: [Cell64; 3],
    /// The tier was asked and had nothing to serve.
    pub(crate) tier_misses: [Cell64; 3],
    pub(crate) misses: [Cell64; MissCause::COUNT],
    pub(crate) stale: Cell64,
    pub(crate) sets: Cell64,
    /// Times of memory, by verb.
    pub(crate) pending: [Pending; 2],
}

/// Cells that no recorder uses.
static IDLE: Mutex<Vec<&'static Cells>> = Mutex::new(Vec::new());

impl NamespaceCells {
    pub(crate) const fn new() -> Self {
        Self {
            hits: [const { Cell64::new() }; 3],
            tier_misses: [const { Cell64::new() }; 3],
            misses: [const { Cell64::new() }; MissCause::COUNT],
            stale: Cell64::new(),
            sets: Cell64::new(),
            pending: [const { Pending::new() }; 2],
        }
    }

    /// Cells that nobody adds up.
    pub(crate) const fn nobody() -> &'static Cells {
        static NOBODY: Cells = CachePadded::new(NamespaceCells::new());
        &NOBODY
    }

    /// Cells that count nothing yet, to be [given back](Self::give_back).
    pub(crate) fn lent() -> &'static Cells {
        IDLE.lock().pop().unwrap_or_else(|| Box::leak(Box::default()))
    }

    /// For others to use. Nobody counts in them any more.
    pub(crate) fn give_back(cells: &'static Cells) {
        cells
            .hits
            .iter()
            .chain(&cells.tier_misses)
            .chain(&cells.misses)
            .chain([&cells.stale, &cells.sets])
            .for_each(Cell64::clear);
        cells.pending.iter().for_each(Pending::clear);
        IDLE.lock().push(cells);
    }
}

/// A count. Never decreases while it is lent.
#[derive(Default)]
pub(crate) struct Cell64(AtomicU64);

impl Cell64 {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more, by a thread that is its only writer: nothing can come between the load and the store.
    #[inline(always)]
    pub(crate) fn bump_alone(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn bump(&self, owner: Owner) {
        match owner {
            Owner::One => self.bump_alone(),
            Owner::Many => {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Who writes to a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    One,
    Many,
}
