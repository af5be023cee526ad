//! What the table is synchronised with. `model` puts loom's in its place, and checks every interleaving on a tiny table.

pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

pub(super) use crossbeam_epoch::{Atomic, Guard, Owned, pin, unprotected};
pub(super) use parking_lot::{Mutex, MutexGuard};

/// Arrays of a table; a power of two.
pub(super) const PAGES: usize = 16;
/// Homes of the smallest array.
pub(super) const FEWEST: usize = 8;
/// Entries that are freed together, at most, and their bytes.
pub(super) const BATCH: usize = 64;
pub(super) const BATCH_BYTES: usize = 32 << 10;
