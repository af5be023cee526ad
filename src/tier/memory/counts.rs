//! How many words the arrays of a table have. Written by its writer only.

use super::sync::{AtomicUsize, Ordering, PAGES};
use super::table::page;

/// Of one table.
pub(super) struct Counts {
    /// Entries of each array; where it follows another, of both together.
    lens: [AtomicUsize; PAGES],
    /// Words of all arrays, used or not.
    words: AtomicUsize,
}

impl Counts {
    /// No entry, and so many words.
    pub(super) fn of(words: usize) -> Self {
        Self { lens: std::array::from_fn(|_| AtomicUsize::new(0)), words: AtomicUsize::new(words) }
    }

    /// Entries in the array of this hash.
    #[inline]
    pub(super) fn len(&self, hash: u64) -> usize {
        self.lens[page(hash)].load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_len(&self, hash: u64, len: usize) {
        self.lens[page(hash)].store(len, Ordering::Relaxed);
    }

    /// Entries in all arrays.
    #[cfg(any(test, fuzzing))]
    pub(super) fn total(&self) -> usize {
        self.lens.iter().map(|len| len.load(Ordering::Relaxed)).sum()
    }

    /// An array of so many words is there.
    pub(super) fn add(&self, words: usize) {
        self.words.store(self.words.load(Ordering::Relaxed) + words, Ordering::Relaxed);
    }

    /// An array of so many words was given up.
    pub(super) fn subtract(&self, words: usize) {
        self.words.store(self.words.load(Ordering::Relaxed) - words, Ordering::Relaxed);
    }

    /// Bytes of all arrays.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        (self.words.load(Ordering::Relaxed) * size_of::<*mut u8>()) as u64
    }
}
