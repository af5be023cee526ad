//! The table of one shard: found without a lock, edited under one. All `unsafe` of the tier is in this file.
//!
//! An entry is found by its [`words`](super::words): a reader pins the epoch, walks them, and compares the whole key of what it finds.
//!
//! **Growth** publishes a new array; readers of the old one finish there. The old one is not changed any more, and is freed by the epoch.
//! A table is sixteen arrays, chosen by four bits of the hash, which grow each for itself: by a quarter, so that little stands empty,
//! and at a time when few entries have to be asked for their hash, so that no put waits long.
//!
//! **Who owns what.** [`Held`] is the table's reference to an entry; a word is a copy of its address. A `Held` can be given back only
//! through [`Edit::remove`] and [`Edit::replace`], which first take the word out and then lay the reference into the [`yard`](super::yard), so whoever found the word
//! while pinned may go on reading. A `Held` that is dropped otherwise leaks its entry, on purpose.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use crossbeam_utils::CachePadded;

use super::few::Few;
use super::pin::{Pin, pin};
use super::sync::{Atomic, AtomicU64, AtomicUsize, FEWEST, Mutex, MutexGuard, Ordering, Owned, PAGES, unprotected};
use super::words::{Place, Words, bare, fits};
use super::yard::Yard;
use crate::entry::Entry;
use crate::key::Key;

/// Which array of its table a hash belongs to; by bits that neither home nor tag use.
#[inline]
fn page(hash: u64) -> usize {
    (hash >> 40) as usize & (PAGES - 1)
}

/// Homes after one growth: the load goes from 3/4 to 3/5.
fn grown(homes: usize) -> usize {
    homes + (homes / 4).max(1)
}

/// Entries that are on their way into the cache while an array is built anew.
const COMING: usize = 16;

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
    fn raw(&self) -> NonNull<u8> {
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
struct Page {
    words: Atomic<Words>,
    place: Place,
}

pub(super) struct Side<S> {
    pub(super) counts: Counts,
    /// Bytes that are free, for who asks without the lock; kept by the writers where there is somebody who asks.
    pub(super) spare: AtomicU64,
    guarded: Mutex<Guarded<S>>,
}

/// What the writer's lock guards.
pub(super) struct Guarded<S> {
    state: S,
    yard: Yard<Held>,
}

/// Written by the writer only.
pub(super) struct Counts {
    /// Words in use of each array.
    lens: [AtomicUsize; PAGES],
    /// Words of all arrays, used or not.
    words: AtomicUsize,
}

/// Fetches what lies at `place` into the cache, if the processor likes.
#[inline]
pub(super) fn expect<T>(place: &T) {
    prefetch(std::ptr::from_ref(place).cast_mut().cast(), 0);
}

/// Somebody is going to look at the head and the key of a word's entry.
#[inline]
fn expect_head(word: *mut u8) {
    prefetch(word, 0);
    prefetch(word, 48);
}

/// Fetches the bytes so far behind the entry of a word into the cache, if the processor likes, while others are still on their way.
#[inline]
fn prefetch(word: *mut u8, behind: usize) {
    let address = bare(word).map_addr(|address| address + behind);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it reads nothing, faults at no address, and every x86-64 processor has it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast_const().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The entry of a word, without its sixteen bits.
///
/// # Safety
///
/// `word` is of a `Held` whose reference is not given up while the result lives, and the result is not dropped.
#[inline]
unsafe fn entry_of(word: *mut u8) -> Entry {
    // SAFETY: a word's address is that of an entry, which is not null; the rest is promised by the caller.
    unsafe { Entry::from_raw(NonNull::new_unchecked(bare(word))) }
}

/// The entry of this key among these words, or the number of the word where it would stand. Nothing of it is given up while `_while` lives: a pin, or the
/// only right to edit.
#[inline]
fn search<'p, P>(words: &Words, key: &Key<'_>, _while: &'p P) -> Result<Seen<'p>, usize> {
    words.search(key.hash, |word| {
        // SAFETY: a word that is not null is of a `Held`. Whoever takes it out leaves the reference to the yard, and `_while` was there before
        // the word was read and holds that back.
        let entry = ManuallyDrop::new(unsafe { entry_of(word) });
        prefetch(word, 64);
        prefetch(word, 128);
        prefetch(word, 192);
        entry.is_of(key).then_some(Seen { entry, pinned: PhantomData })
    })
}

impl<S> Table<S> {
    pub(super) fn new(state: S) -> Self {
        let pages = std::array::from_fn(|_| {
            let words = Words::with_homes(FEWEST);
            Page { place: Place::of(&words), words: Atomic::new(words) }
        });
        let words = AtomicUsize::new(PAGES * Words::with_homes(FEWEST).len());
        let counts = Counts { lens: std::array::from_fn(|_| AtomicUsize::new(0)), words };
        let guarded = Mutex::new(Guarded { state, yard: Yard::new() });
        Self { pages, side: CachePadded::new(Side { counts, spare: AtomicU64::new(0), guarded }) }
    }

    /// A key of this hash is going to be asked for. Worth the while of pinning.
    #[inline]
    pub(super) fn expect(&self, hash: u64) {
        prefetch(self.pages[page(hash)].place.home(hash), 0);
    }

    /// The entry of this key. Takes no lock and writes nothing.
    #[inline(always)]
    pub(super) fn find<'p>(&self, key: &Key<'_>, pinned: &'p Pin) -> Option<Seen<'p>> {
        let words = self.words(key.hash, pinned);
        let moves = words.moves();
        match search(words, key, pinned) {
            Ok(found) => Some(found),
            // The walk has missed nothing that moved meanwhile.
            Err(_) if words.moves() == moves => None,
            Err(_) => self.find_again(key, pinned),
        }
    }

    /// Repeats only if a writer got on.
    #[cold]
    fn find_again<'p>(&self, key: &Key<'_>, pinned: &'p Pin) -> Option<Seen<'p>> {
        loop {
            let words = self.words(key.hash, pinned);
            let moves = words.moves();
            let found = search(words, key, pinned).ok();
            if found.is_some() || words.moves() == moves {
                return found;
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
            // SAFETY: `&mut self`: no reader is in here, and nobody else refers to this array.
            drop(unsafe { std::mem::replace(&mut page.words, Atomic::null()).into_owned() });
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
        let Guarded { state, yard } = &mut *self.guarded;
        (Edit { pages: &self.table.pages, counts: &self.table.side.counts, yard }, state)
    }
}

/// Entries to be dropped when the lock is released.
pub(super) type Freed = Few<Entry>;

/// Where the entry of a key that is not here would be put, as long as nothing is put into its array and nothing taken out.
pub(super) struct Gap {
    slot: usize,
    /// Words in use when it was found.
    len: usize,
}

/// The right to edit the words of one table: made only from its lock.
pub(super) struct Edit<'e> {
    pages: &'e [Page; PAGES],
    counts: &'e Counts,
    yard: &'e mut Yard<Held>,
}

impl Edit<'_> {
    #[inline]
    fn words(&self, hash: u64) -> &Words {
        // SAFETY: never null; only this writer could replace the array, which takes `&mut self`.
        unsafe { self.pages[page(hash)].words.load(Ordering::Relaxed, unprotected()).deref() }
    }

    /// A key of this hash is going to be asked for.
    #[inline]
    pub(super) fn expect(&self, hash: u64) {
        prefetch(self.pages[page(hash)].place.home(hash), 0);
    }

    /// The entry of this key, for somebody who may look at it after the lock is released.
    pub(super) fn find<'p>(&self, key: &Key<'_>, pinned: &'p Pin) -> Option<Seen<'p>> {
        search(self.words(key.hash), key, pinned).ok()
    }

    /// The entry of this key, while nothing is edited; or the place where it would be put.
    #[inline]
    pub(super) fn search<'s>(&'s self, key: &Key<'_>) -> Result<Seen<'s>, Gap> {
        search(self.words(key.hash), key, self).map_err(|slot| Gap { slot, len: self.len(key.hash) })
    }

    /// Bytes of the arrays.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        (self.counts.words.load(Ordering::Relaxed) * size_of::<*mut u8>()) as u64
    }

    /// Words in use of the array of this hash.
    fn len(&self, hash: u64) -> usize {
        self.counts.lens[page(hash)].load(Ordering::Relaxed)
    }

    fn set_len(&self, hash: u64, len: usize) {
        self.counts.lens[page(hash)].store(len, Ordering::Relaxed);
    }

    /// Words in use.
    #[cfg(any(test, fuzzing))]
    pub(super) fn total(&self) -> usize {
        self.counts.lens.iter().map(|len| len.load(Ordering::Relaxed)).sum()
    }

    /// Takes in an entry whose key is not here; `gap` is what the [search](Self::search) for it has found, and since when other keys may have been
    /// taken out. `hash_of` is asked for the hashes of the entries of an array that grows.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, entry: Entry, gap: &Gap, hash_of: impl Fn(&Entry) -> u64) -> Held {
        let held = Held(ManuallyDrop::new(entry));
        assert!(fits(held.raw()), "an address has more than 48 bits");
        let words = self.words(hash);
        let len = self.len(hash);
        self.set_len(hash, len + 1);
        // What was taken out may have left a gap before this one, and would have changed the number.
        let is_there = gap.len == len && (len + 1) * 4 <= words.homes() * 3;
        if !(is_there && words.fill(gap.slot, hash, held.raw())) {
            self.place_anew(hash, &held, &hash_of);
        }
        held
    }

    #[cold]
    fn place_anew(&mut self, hash: u64, held: &Held, hash_of: &impl Fn(&Entry) -> u64) {
        let homes = self.words(hash).homes();
        if self.len(hash) * 4 > homes * 3 {
            self.rebuild(hash, grown(homes), hash_of);
        }
        while !self.words(hash).place(hash, held.raw()) {
            let homes = self.words(hash).homes();
            self.rebuild(hash, grown(homes), hash_of);
        }
    }

    /// Makes the array of this hash smaller when it is mostly empty.
    #[inline]
    pub(super) fn shrink(&mut self, hash: u64, hash_of: impl Fn(&Entry) -> u64) {
        let (len, homes) = (self.len(hash), self.words(hash).homes());
        if homes > FEWEST && len * 8 < homes {
            self.rebuild(hash, (len * 2).max(FEWEST), &hash_of);
        }
    }

    /// Puts `new` into the place of `old`, which has the same key.
    pub(super) fn replace(&mut self, hash: u64, old: Held, new: Entry) -> Held {
        let held = Held(ManuallyDrop::new(new));
        assert!(fits(held.raw()), "an address has more than 48 bits");
        let words = self.words(hash);
        if let Some(at) = words.position(hash, old.raw()) {
            words.replace(at, held.raw());
            self.lay(old);
        }
        held
    }

    /// Takes an entry out. Its bytes stay readable for whoever is pinned now.
    #[inline]
    pub(super) fn remove(&mut self, hash: u64, held: Held) {
        let words = self.words(hash);
        // A `Held` of another table is not found; its own table still has the word, so its reference is not given up.
        if let Some(at) = words.position(hash, held.raw()) {
            words.clear(at);
            self.set_len(hash, self.len(hash) - 1);
            self.lay(held);
        }
    }

    /// Leaves the table's reference to the yard.
    #[inline]
    fn lay(&mut self, held: Held) {
        let bytes = held.footprint();
        self.yard.lay(held, bytes);
    }

    /// A few entries that were taken out and that nobody can see any more, to be dropped when the lock is released; and whether to
    /// [`flush`](Pin::flush) then.
    #[inline]
    pub(super) fn leftovers(&mut self, freed: &mut Freed) -> bool {
        self.yard.free(|held| freed.push(ManuallyDrop::into_inner(held.0)));
        self.yard.wants_flush()
    }

    /// Lets the last that were taken out go too, though they are few.
    pub(super) fn close_batch(&mut self) {
        self.yard.close();
    }

    /// Publishes an array for this hash, of at least so many homes, with the same words.
    #[cold]
    fn rebuild(&mut self, hash: u64, mut homes: usize, hash_of: &impl Fn(&Entry) -> u64) {
        let old = self.words(hash);
        let new = 'larger: loop {
            let new = Words::with_homes(homes);
            let mut coming = old.used().skip(COMING);
            for word in old.used() {
                coming.next().into_iter().for_each(expect_head);
                // SAFETY: the word is in the table and this is its only writer, so its `Held` is not given up meanwhile; not dropped.
                let entry = ManuallyDrop::new(unsafe { entry_of(word) });
                let held = Held(entry);
                if !new.place(hash_of(&held), held.raw()) {
                    homes = grown(homes);
                    continue 'larger;
                }
            }
            break new;
        };
        let words = self.counts.words.load(Ordering::Relaxed) + new.len() - old.len();
        self.counts.words.store(words, Ordering::Relaxed);
        let pinned = pin();
        let page = &self.pages[page(hash)];
        page.place.set(&new);
        let before = page.words.swap(Owned::new(new), Ordering::AcqRel, pinned.guard());
        // SAFETY: the array was just unpublished by its only writer; readers that still walk it are pinned.
        unsafe { pinned.guard().defer_destroy(before) };
        self.yard.ask_for_flush();
    }
}
