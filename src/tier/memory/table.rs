//! The table of one shard: found without a lock, edited under one. All `unsafe` of the tier is in this file.
//!
//! An entry is found by its [`words`](super::words): a reader pins the epoch, walks them, and compares the whole key of what it finds.
//!
//! **Growth.** A table is sixteen arrays, chosen by four bits of the hash, which grow each for itself: by a quarter, so that little stands empty. A larger
//! array is published empty, and follows the one before: each put that comes takes the words of some homes over, so that none waits long. Until all
//! are there, a reader that misses in the new array looks how far they are, and goes on in the older one if its home is not done. The older
//! one gains no word and is freed by the epoch; who reads it still finds what was there when it came. [`Edit::insert`] says when an array grows.
//!
//! **Who owns what.** [`Held`] is the table's reference to an entry; a word is a copy of its address. A `Held` can be given back only
//! through [`Edit::remove`] and [`Edit::replace`], which first take the word out and then lay the reference into the [`yard`](super::yard), so whoever found the word
//! while pinned may go on reading. (A word that was taken over stays in the older array: who looks at it came before it was taken over.) A `Held`
//! that is dropped otherwise leaks its entry, on purpose.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, Range};
use std::ptr::NonNull;

use crossbeam_utils::CachePadded;

use super::counts::Counts;
use super::few::Few;
use super::grow::Growth;
use super::pin::{Pin, pin};
use super::sync::{Atomic, AtomicU64, FEWEST, LOOK, Mutex, MutexGuard, Ordering, Owned, PAGES, Shared, unprotected};
use super::word::{bare, fits};
use super::words::{Place, Slots, Words};
use super::yard::Yard;
use crate::entry::Entry;
use crate::key::Key;

/// Which array of its table a hash belongs to; by bits that neither home nor tag use.
#[inline]
pub(super) fn page(hash: u64) -> usize {
    (hash >> 40) as usize & (PAGES - 1)
}

/// An entry as a pinned reader sees it: no reference is counted.
pub(super) struct Seen<'p> {
    entry: ManuallyDrop<Entry>,
    pinned: PhantomData<&'p Pin>,
}

impl Deref for Seen<'_> {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// The table's own reference to an entry; see the head of this file.
pub(super) struct Held(ManuallyDrop<Entry>);

impl Deref for Held {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        &self.0
    }
}

impl Held {
    /// A reference that is to be put into a table.
    #[inline]
    pub(super) fn new(entry: Entry) -> Self {
        let held = Self(ManuallyDrop::new(entry));
        assert!(fits(held.raw()), "an address has more than 48 bits");
        held
    }

    /// The same entry for somebody who is pinned, and may look at it after the lock is released.
    pub(super) fn seen<'p>(&self, _pinned: &'p Pin) -> Seen<'p> {
        // SAFETY: this `Held` is alive now, and its reference is given up only through the epoch, which `_pinned` holds back from now on.
        let entry = unsafe { Entry::from_raw(self.raw()) };
        Seen { entry: ManuallyDrop::new(entry), pinned: PhantomData }
    }

    /// Are these the same bytes, not only equal ones?
    pub(super) fn is(&self, other: &Entry) -> bool {
        std::ptr::eq(self.hits(), other.hits())
    }

    /// Somebody is going to look at this entry's head and key.
    #[inline]
    pub(super) fn expect(&self) {
        expect_head(self.raw().as_ptr());
    }

    /// Stands for this entry as long as it is in the table.
    #[inline]
    pub(super) fn address(&self) -> usize {
        self.raw().addr().get()
    }

    #[inline]
    pub(super) fn raw(&self) -> NonNull<u8> {
        // SAFETY: the bits are copied, and the copy is turned back into the bare address at once; no reference is dropped.
        unsafe { std::ptr::read(&*self.0) }.into_raw()
    }
}

/// Table and writer's state of one shard. Readers touch only the first field.
pub(super) struct Table<S> {
    pages: [Page; PAGES],
    pub(super) side: CachePadded<Side<S>>,
}

/// One array of a table.
pub(super) struct Page {
    words: Atomic<Words>,
    pub(super) place: Place,
}

pub(super) struct Side<S> {
    pub(super) counts: Counts,
    /// Bytes that are free, for who asks without the lock; kept by the writers where there is somebody who asks.
    pub(super) spare: AtomicU64,
    guarded: Mutex<Guarded<S>>,
}

/// An array that was given up, with the one that it follows. Nobody sees it any more when it is dropped: it comes out of a yard, or the table is gone.
pub(super) struct Retired(Atomic<Words>);

impl Retired {
    /// Takes apart the array and the one that it follows.
    fn each(&mut self, mut take: impl FnMut(Owned<Words>)) {
        let mut next = std::mem::replace(&mut self.0, Atomic::null());
        // SAFETY: unpublished by its only writer, and not seen any more; an array that it follows only through it.
        while let Some(mut words) = unsafe { next.try_into_owned() } {
            next = std::mem::replace(&mut words.older, Atomic::null());
            take(words);
        }
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        self.each(drop);
    }
}

/// What the writer's lock guards.
pub(super) struct Guarded<S> {
    state: S,
    yard: Yard<Held>,
    arrays: Yard<Retired>,
    heads: Vec<Owned<Words>>,
    growth: Growth,
}

/// Fetches what lies at `place` into the cache, if the processor likes.
#[inline]
pub(super) fn expect<T>(place: &T) {
    prefetch(std::ptr::from_ref(place).cast_mut().cast(), 0);
}

/// Somebody is going to look at the head and the key of a word's entry.
#[inline]
pub(super) fn expect_head(word: *mut u8) {
    prefetch(bare(word), 0);
    prefetch(bare(word), 48);
}

/// Fetches the bytes so far behind an address into the cache, if the processor likes, while others are still on their way.
#[inline]
pub(super) fn prefetch(start: *mut u8, behind: usize) {
    let address = start.wrapping_add(behind);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing, faults at no address, and every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast_const().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The entry of a word, without its other bits.
///
/// # Safety
///
/// `word` is of a `Held` whose reference is not given up while the result lives, and the result is not dropped.
#[inline]
unsafe fn entry_of(word: *mut u8) -> Entry {
    // SAFETY: a word's address is that of an entry, which is not null; the rest is promised by the caller.
    unsafe { Entry::from_raw(NonNull::new_unchecked(bare(word))) }
}

/// The entry of this key among these words, or the number of the word where it would stand. Fetches the line in which its key ends, and all of it if it
/// `is_small`. Nothing of it is given up while `_while` lives: a pin, or the only right to edit.
#[inline]
pub(super) fn search<'p, P>(words: &Words, key: &Key<'_>, _while: &'p P, is_small: bool) -> Result<Seen<'p>, usize> {
    words.search(key.hash, |word| {
        // SAFETY: a word that is not null is of a `Held`. Whoever takes it out leaves the reference to the yard, and `_while` was there before
        // the word was read and holds that back.
        let entry = ManuallyDrop::new(unsafe { entry_of(word) });
        prefetch(bare(word), 64);
        if is_small {
            prefetch(bare(word), 128);
            prefetch(bare(word), 192);
        }
        entry.is_of(key).then_some(Seen { entry, pinned: PhantomData })
    })
}

impl<S> Table<S> {
    pub(super) fn new(state: S) -> Self {
        let pages = std::array::from_fn(|_| {
            let words = Words::with_homes(FEWEST);
            Page { place: Place::of(&words), words: Atomic::new(words) }
        });
        let counts = Counts::of(PAGES * Words::with_homes(FEWEST).len());
        let guarded =
            Mutex::new(Guarded { state, yard: Yard::new(), arrays: Yard::new(), heads: Vec::new(), growth: Growth::No });
        Self { pages, side: CachePadded::new(Side { counts, spare: AtomicU64::new(0), guarded }) }
    }

    /// A key of this hash is going to be asked for. Worth the while of pinning.
    #[inline]
    pub(super) fn expect(&self, hash: u64) {
        prefetch(self.pages[page(hash)].place.home(hash), 0);
    }

    /// An entry of this hash is going to be put: fetches what that looks at first. Where a thread does much else between its puts, they wait mostly for memory.
    #[inline]
    pub(super) fn expect_put(&self, hash: u64) {
        self.expect(hash);
        // SAFETY: not followed.
        let words = self.pages[page(hash)].words.load(Ordering::Relaxed, unsafe { unprotected() }).as_raw();
        prefetch(words.cast_mut().cast(), 0);
        let side = std::ptr::from_ref(&*self.side).cast_mut().cast();
        // Every second line: processors fetch the one beside it too. (To ask for all of them cost warm puts more than it gave to cold ones.)
        (0..size_of::<Side<S>>()).step_by(128).for_each(|behind| prefetch(side, behind));
    }

    /// The entry of this key. Takes no lock and writes nothing.
    #[inline(always)]
    pub(super) fn find<'p>(&self, key: &Key<'_>, pinned: &'p Pin) -> Option<Seen<'p>> {
        let words = self.words(key.hash, pinned);
        let moves = words.moves();
        match search(words, key, pinned, true) {
            Ok(found) => Some(found),
            Err(_) if words.is_whole(moves) => None,
            Err(_) => self.find_again(key, pinned),
        }
    }

    /// Looks at what is not taken over yet, too. Repeats only if a writer got on.
    #[cold]
    fn find_again<'p>(&self, key: &Key<'_>, pinned: &'p Pin) -> Option<Seen<'p>> {
        loop {
            let words = self.words(key.hash, pinned);
            let moves = words.moves();
            // Before the walk: what is done by now, the walk cannot miss, and what is not is in the older array, even if it is taken over meanwhile.
            // SAFETY: null, or an array that was not unpublished when it was loaded, and is freed by the epoch; `pinned` holds that back.
            let older = unsafe { words.older.load(Ordering::Acquire, pinned.guard()).as_ref() };
            let older = older.filter(|older| older.home(key.hash) >= words.done()).map(|older| (older, older.moves()));
            let found =
                search(words, key, pinned, true).or_else(|_| older.map_or(Err(0), |(older, _)| search(older, key, pinned, true)));
            let still = words.moves() == moves && older.is_none_or(|(older, moves)| older.moves() == moves);
            if found.is_ok() || still {
                return found.ok();
            }
        }
    }

    #[inline]
    pub(super) fn words<'p>(&self, hash: u64, pinned: &'p Pin) -> &'p Words {
        // SAFETY: never null from `new` on; a replaced array is freed by the epoch, and `pinned` holds that back.
        unsafe { self.pages[page(hash)].words.load(Ordering::Acquire, pinned.guard()).deref() }
    }

    /// Becomes the one writer.
    #[inline]
    pub(super) fn lock(&self) -> Locked<'_, S> {
        Locked { guarded: self.side.guarded.lock(), table: self }
    }
}

impl<S> Drop for Table<S> {
    fn drop(&mut self) {
        for page in &mut self.pages {
            // `&mut self`: no reader is in here.
            drop(Retired(std::mem::replace(&mut page.words, Atomic::null())));
        }
        let mut guarded = self.side.guarded.lock();
        let left = guarded.yard.clear();
        drop(guarded);
        // Nobody can be pinned in a table that is given up; the entries in it, which nobody took out, leak.
        left.into_iter().for_each(|held| drop(ManuallyDrop::into_inner(held.0)));
    }
}

/// The writer's lock.
pub(super) struct Locked<'t, S> {
    table: &'t Table<S>,
    guarded: MutexGuard<'t, Guarded<S>>,
}

impl<S> Locked<'_, S> {
    /// The right to edit the words, and the state behind the lock; both end with it.
    #[inline]
    pub(super) fn parts(&mut self) -> (Edit<'_>, &mut S) {
        let Guarded { state, yard, arrays, heads, growth } = &mut *self.guarded;
        (Edit { pages: &self.table.pages, counts: &self.table.side.counts, yard, arrays, heads, growth, has_grown: false }, state)
    }
}

/// Entries to be dropped when the lock is released.
pub(super) type Freed = Few<Entry>;

/// The right to edit the words of one table: made only from its lock.
pub(super) struct Edit<'e> {
    pub(super) pages: &'e [Page; PAGES],
    pub(super) counts: &'e Counts,
    pub(super) yard: &'e mut Yard<Held>,
    pub(super) arrays: &'e mut Yard<Retired>,
    /// What is left of arrays that were freed, for the next ones: a small allocation among large ones that come and go takes microseconds now and then.
    pub(super) heads: &'e mut Vec<Owned<Words>>,
    pub(super) growth: &'e mut Growth,
    /// Was something done for growth? Then it is for a later writer to free arrays.
    pub(super) has_grown: bool,
}

impl Edit<'_> {
    #[inline]
    pub(super) fn array(&self, number: usize) -> &Words {
        // SAFETY: never null; only this writer could replace the array, which takes `&mut self`.
        unsafe { self.pages[number].words.load(Ordering::Relaxed, unprotected()).deref() }
    }

    /// The array that the one of this number follows.
    pub(super) fn followed(&self, number: usize) -> Option<&Words> {
        // SAFETY: null, or an array that only this writer could give up, which takes `&mut self`.
        unsafe { self.array(number).older.load(Ordering::Relaxed, unprotected()).as_ref() }
    }

    /// A few entries that were taken out, and arrays that were given up, which nobody can see any more, to be dropped when the lock is released; and
    /// whether to [`flush`](Pin::flush) then.
    #[inline]
    pub(super) fn leftovers(&mut self, freed: &mut Freed, arrays: &mut Few<Slots>) -> bool {
        self.yard.free(|held| freed.push(ManuallyDrop::into_inner(held.0)));
        self.expect_free();
        let wants_flush = self.yard.wants_flush();
        if self.has_grown || self.arrays.is_empty() {
            return wants_flush;
        }
        self.arrays.free(|mut array| {
            array.each(|mut words| {
                arrays.push(words.take_slots());
                if self.heads.len() < PAGES {
                    self.heads.push(words);
                }
            });
        });
        self.arrays.wants_flush() || wants_flush
    }

    /// Publishes an array that follows the one of this number, which follows none. It is counted already.
    pub(super) fn follow(&mut self, number: usize, new: Words) {
        if self.followed(number).is_some() {
            return;
        }
        let page = &self.pages[number];
        // SAFETY: only this writer could give the array up.
        let old = page.words.load(Ordering::Relaxed, unsafe { unprotected() });
        let new = new.follow(Atomic::from(old));
        page.place.set(&new);
        let new = self.with_head(new);
        self.pages[number].words.store(new, Ordering::Release);
    }

    /// Puts the words of some homes into another array, where some of them are already if `some_are_there`. Returns how much work that was; nothing if one finds no
    /// place near enough.
    pub(super) fn carry(
        &self,
        from: &Words,
        homes: Range<usize>,
        to: &Words,
        some_are_there: bool,
        hash_of: &impl Fn(&Entry) -> u64,
    ) -> Option<usize> {
        let (way, mut work) = (to.scale().way_from(from.scale()), 1);
        // Of the word before: between its home and its place nothing is free.
        let (mut before, mut behind) = (0, 0);
        for (home, word) in from.of_homes(homes) {
            // SAFETY: the word is in the table and this is its only writer, so its `Held` is not given up meanwhile; not dropped.
            let held = Held(ManuallyDrop::new(unsafe { entry_of(word) }));
            let spot = way.and_then(|way| way.spot(home, word));
            debug_assert!(spot.is_none_or(|spot| spot == to.scale().spot(hash_of(&held))), "a word tells where it belongs");
            work += if spot.is_some() { 1 } else { LOOK };
            let spot = spot.unwrap_or_else(|| to.scale().spot(hash_of(&held)));
            let begin = if spot.home < before || some_are_there { spot.home } else { behind.max(spot.home) };
            (before, behind) = (spot.home, to.place_from(begin, spot, held.raw())? + 1);
        }
        Some(work)
    }

    /// Gives up the array that the one of this number follows. All of its words are there.
    pub(super) fn give_up_older(&mut self, number: usize) {
        let Some(size) = self.followed(number).map(Words::len) else { return };
        let (words, pinned) = (self.array(number), pin());
        let before = words.older.swap(Shared::null(), Ordering::AcqRel, pinned.guard());
        words.set_whole();
        self.retire(before, size);
    }

    /// Publishes an array in the place of the one of this number and of the one that it follows, whose words it has.
    pub(super) fn supersede(&mut self, number: usize, new: Words) {
        let size = self.array(number).len() + self.followed(number).map_or(0, Words::len);
        self.counts.add(new.len());
        let (page, pinned) = (&self.pages[number], pin());
        page.place.set(&new);
        let new = self.with_head(new);
        let before = page.words.swap(new, Ordering::AcqRel, pinned.guard());
        self.retire(before, size);
    }

    fn with_head(&mut self, words: Words) -> Owned<Words> {
        let Some(mut head) = self.heads.pop() else { return Owned::new(words) };
        *head = words;
        head
    }

    /// Leaves to the yard an array that is published no more, with the one that it follows; so many words they had.
    fn retire(&mut self, before: Shared<'_, Words>, size: usize) {
        self.counts.subtract(size);
        self.arrays.lay(Retired(Atomic::from(before)), size * size_of::<*mut u8>());
    }
}
