//! What the table is synchronised with. `model` puts loom's in its place, and checks every interleaving on a tiny table.

pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use std::sync::LazyLock;

pub(super) use crossbeam_epoch::{Atomic, Guard, Owned, Shared, unprotected};
use crossbeam_epoch::{Collector, LocalHandle};
pub(super) use parking_lot::{Mutex, MutexGuard};

/// Arrays of a table; a power of two.
pub(super) const PAGES: usize = 16;
/// Homes of the smallest array.
pub(super) const FEWEST: usize = 8;
/// Homes whose words are taken over together where an array grows; and after how many words a put leaves it at that.
pub(super) const SOME: usize = 8;
pub(super) const WORK: usize = 12;
/// To ask an entry for its hash is as much work as so many words.
pub(super) const LOOK: usize = 12;
/// Words of a larger array that a put writes.
pub(super) const PIECE: usize = 128;
/// Entries that are freed together, at most, and their bytes.
pub(super) const BATCH: usize = 64;
pub(super) const BATCH_BYTES: usize = 32 << 10;

/// A collector of our own: whoever else in the process stays pinned for long does not hold back what is freed here.
static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

thread_local! {
    static HANDLE: LocalHandle = COLLECTOR.register();
}

/// Pins the epoch.
#[inline(always)]
pub(super) fn pin() -> Guard {
    // A thread that is being torn down pins in passing.
    HANDLE.try_with(LocalHandle::pin).unwrap_or_else(|_| COLLECTOR.register().pin())
}
