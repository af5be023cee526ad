//! Times that one thread measured and that are in no histogram yet.
//!
//! A histogram is behind a mutex and scattered over 30 KiB; a time is one store next to the last. A full array goes into the histogram at
//! once, unless somebody else has that, and who wants to know adds what is not there yet.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::clock::lap::Ticks;

/// With the length two cache lines.
const ROOM: usize = 15;

/// Written by the thread whose cells it is in. Emptied by it, too, and under the histogram's lock: who holds that sees every time once, here or there.
#[derive(Default)]
pub(crate) struct Pending {
    len: AtomicUsize,
    ticks: [AtomicU64; ROOM],
}

impl Pending {
    pub(crate) const fn new() -> Self {
        Self { len: AtomicUsize::new(0), ticks: [const { AtomicU64::new(0) }; ROOM] }
    }

    /// Adds a time, if there is room.
    #[must_use]
    pub(crate) fn push(&self, took: Ticks) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        let Some(free) = self.ticks.get(len) else { return false };
        free.store(took.0, Ordering::Relaxed);
        // Who sees the length sees the time.
        self.len.store(len + 1, Ordering::Release);
        true
    }

    /// All that were added since it was emptied, for who holds the histogram's lock.
    pub(crate) fn each(&self, mut record: impl FnMut(Ticks)) {
        let len = self.len.load(Ordering::Acquire);
        self.ticks[..len].iter().for_each(|ticks| record(Ticks(ticks.load(Ordering::Relaxed))));
    }

    /// Forgets all, by the owner, who holds the histogram's lock.
    pub(crate) fn clear(&self) {
        self.len.store(0, Ordering::Relaxed);
    }
}
