//! Finding, replacing and taking out under the lock of a table. [`grow`](super::grow) puts in.
//!
//! Where an array follows another, an entry is in either: in the older one if its home is not [`done`](super::words::Words::done).

use super::pin::Pin;
use super::table::{Edit, Held, Seen, page, prefetch, search};
use super::words::Words;
use crate::entry::Entry;
use crate::key::Key;

/// Entries of so many bytes and fewer are small: all of one is fetched.
const SMALL: usize = 256;
/// What glibc's allocator keeps as it is when it is freed. It merges what is larger with what is free behind, and looks for that at the heads of the next two.
const KEPT: usize = 1032;
const CHUNK_HEAD: usize = 8;
/// An entry is fetched when so many others are freed before it.
const SOON: usize = 3;

/// Where the entry of a key that is not here would be put, as long as nothing is put into its array and nothing taken out.
pub(super) struct Gap {
    pub(super) slot: usize,
    /// Words in use when it was found.
    pub(super) len: usize,
}

impl Edit<'_> {
    #[inline]
    pub(super) fn words(&self, hash: u64) -> &Words {
        self.array(page(hash))
    }

    /// Where an entry of this hash may be besides, if its array follows another.
    #[inline]
    fn older(&self, hash: u64) -> Option<&Words> {
        if self.growth.following() != Some(page(hash)) {
            return None;
        }
        self.followed(page(hash)).filter(|older| older.home(hash) >= self.words(hash).done())
    }

    /// The array and the place of this very entry.
    #[inline]
    fn position(&self, hash: u64, held: &Held) -> Option<(&Words, usize)> {
        let of = |words: &'_ Words| words.position(hash, held.raw());
        let words = self.words(hash);
        if let Some(at) = of(words) {
            return Some((words, at));
        }
        let older = self.older(hash)?;
        Some((older, of(older)?))
    }

    /// A key of this hash is going to be asked for.
    #[inline]
    pub(super) fn expect(&self, hash: u64) {
        prefetch(self.pages[page(hash)].place.home(hash), 0);
    }

    /// The entry of this key, for somebody who may look at it after the lock is released.
    pub(super) fn find<'p>(&self, key: &Key<'_>, pinned: &'p Pin) -> Option<Seen<'p>> {
        let found = search(self.words(key.hash), key, pinned, true).ok();
        found.or_else(|| search(self.older(key.hash)?, key, pinned, true).ok())
    }

    /// The entry of this key, which may be of so many bytes, while nothing is edited; or the place where it would be put.
    #[inline]
    pub(super) fn search<'s>(&'s self, key: &Key<'_>, bytes: usize) -> Result<Seen<'s>, Gap> {
        // All of what is small is needed: it is written to again soon, when it is replaced and its memory gets the next entry.
        let is_small = bytes <= SMALL;
        search(self.words(key.hash), key, self, is_small).or_else(|slot| {
            let found = self.older(key.hash).and_then(|older| search(older, key, self, is_small).ok());
            found.ok_or(Gap { slot, len: self.counts.len(key.hash) })
        })
    }

    /// Puts `new` into the place of `old`, which has the same key.
    pub(super) fn replace(&mut self, hash: u64, old: Held, new: Entry) -> Held {
        let held = Held::new(new);
        if let Some((words, at)) = self.position(hash, &old) {
            words.replace(at, held.raw());
            self.lay(old);
        }
        held
    }

    /// Takes an entry out. Its bytes stay readable for whoever is pinned now.
    #[inline]
    pub(super) fn remove(&mut self, hash: u64, held: Held) {
        // A `Held` of another table is not found; its own table still has the word, so its reference is not given up.
        if let Some((words, at)) = self.position(hash, &held) {
            words.clear(at);
            self.counts.set_len(hash, self.counts.len(hash) - 1);
            self.lay(held);
        }
    }

    /// Leaves the table's reference to the yard.
    #[inline]
    fn lay(&mut self, held: Held) {
        let bytes = held.footprint();
        if self.yard.lay(held, bytes) {
            // Where entries come and go and no array grows any more, the last ones that were given up would wait for company.
            self.arrays.close();
            self.heads.clear();
        }
    }

    /// Where entries are large, fetches what is looked at when one that was taken out is freed: its head, and those that the allocator asks.
    #[inline]
    pub(super) fn expect_free(&self) {
        if self.yard.last_bytes() > KEPT {
            self.expect_free_large();
        }
    }

    #[inline(never)]
    fn expect_free_large(&self) {
        // As if all were of one size, which they often are.
        let chunk = (self.yard.last_bytes() + CHUNK_HEAD).next_multiple_of(2 * CHUNK_HEAD);
        if let Some(soon) = self.yard.upcoming(SOON) {
            let start = soon.raw().as_ptr();
            [0, chunk - CHUNK_HEAD, 2 * chunk - CHUNK_HEAD].into_iter().for_each(|behind| prefetch(start, behind));
        }
    }

    /// Is there something to do for the arrays that were given up?
    #[inline]
    pub(super) fn has_arrays_to_free(&self) -> bool {
        self.arrays.has_work()
    }

    /// Lets the last that were taken out go too, though they are few.
    pub(super) fn close_batch(&mut self) {
        self.yard.close();
        self.arrays.close();
    }
}
