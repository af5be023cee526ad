//! The table under loom: every interleaving of a reader and writers on a tiny table, with every reordering that the orderings allow.
//!
//! This is `table.rs` itself, read a second time with loom's atomics and lock for the real ones. In place of crossbeam's epoch stands the
//! simplest one there can be: what was deferred under a guard runs when all guards are gone that were alive when that one was dropped. The test keeps a clone of each
//! entry, so nothing is ever freed; an entry whose reference the table gave up while a reader could see it is found by its count.
//!
//! Seen failing, each in less than a second: `moves` not raised, or raised with `Relaxed` (`an_entry_is_found_while_it_moves_twice`: a resident entry
//! was not found); a moved word stored with `Relaxed` (`two_writers_and_a_reader_do_not_lose_an_entry`); a yard that frees one batch too
//! early (`an_entry_that_is_removed_is_whole_or_gone`: the table gave its reference up).

mod sync {
    //! Loom's atomics and lock, and an epoch that is right by being simple.

    use std::cell::RefCell;
    use std::marker::PhantomData;
    use std::ops::{Deref, DerefMut};

    pub(super) use loom::sync::MutexGuard;
    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

    pub(super) const PAGES: usize = 1;
    pub(super) const FEWEST: usize = 3;
    pub(super) const SOME: usize = 1;
    pub(super) const WORK: usize = 1;
    pub(super) const LOOK: usize = 1;
    pub(super) const PIECE: usize = 16;
    pub(super) const BATCH: usize = 1;
    pub(super) const BATCH_BYTES: usize = 1;

    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no writer panics")
        }
    }

    type Work = Box<dyn FnOnce()>;

    #[derive(Default)]
    struct Epoch {
        next: u64,
        guards: Vec<u64>,
        deferred: Vec<Deferred>,
    }

    struct Deferred {
        under: u64,
        /// The guards it waits for.
        guards: Vec<u64>,
        work: Work,
    }

    thread_local! {
        // Loom runs all threads of a model on one.
        static EPOCH: RefCell<Epoch> = RefCell::default();
    }

    loom::lazy_static! {
        // Whoever pins after a guard was dropped sees what was unlinked under that guard: crossbeam's fences and its count of epochs.
        static ref DROPPED: AtomicUsize = AtomicUsize::new(0);
    }

    pub(super) struct Guard(u64);

    pub(super) fn pin() -> Guard {
        DROPPED.fetch_add(0, Ordering::AcqRel);
        EPOCH.with_borrow_mut(|epoch| {
            epoch.next += 1;
            epoch.guards.push(epoch.next);
            Guard(epoch.next)
        })
    }

    /// Of nobody: for who edits.
    ///
    /// # Safety
    ///
    /// As crossbeam's.
    pub(super) unsafe fn unprotected() -> &'static Guard {
        static NOBODY: Guard = Guard(0);
        &NOBODY
    }

    impl Guard {
        pub(super) fn flush(&self) {}

        pub(super) fn defer(&self, work: impl FnOnce() + 'static) {
            EPOCH.with_borrow_mut(|epoch| {
                epoch.deferred.push(Deferred { under: self.0, guards: epoch.guards.clone(), work: Box::new(work) });
            });
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::AcqRel);
            let due: Vec<Deferred> = EPOCH.with_borrow_mut(|epoch| {
                epoch.guards.retain(|guard| *guard != self.0);
                for deferred in &mut epoch.deferred {
                    if deferred.under == self.0 {
                        deferred.guards.clone_from(&epoch.guards);
                    }
                    deferred.guards.retain(|guard| *guard != self.0);
                }
                let (due, rest) =
                    std::mem::take(&mut epoch.deferred).into_iter().partition(|deferred| deferred.guards.is_empty());
                epoch.deferred = rest;
                due
            });
            due.into_iter().for_each(|deferred| (deferred.work)());
        }
    }

    pub(super) struct Owned<T>(Box<T>);

    impl<T> Owned<T> {
        pub(super) fn new(value: T) -> Self {
            Self(Box::new(value))
        }
    }

    impl<T> Deref for Owned<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for Owned<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }

    pub(super) struct Shared<'g, T>(*mut T, PhantomData<&'g Guard>);

    impl<'g, T> Shared<'g, T> {
        pub(super) fn null() -> Self {
            Self(std::ptr::null_mut(), PhantomData)
        }

        pub(super) fn is_null(&self) -> bool {
            self.0.is_null()
        }

        /// # Safety
        ///
        /// As crossbeam's.
        pub(super) unsafe fn as_ref(&self) -> Option<&'g T> {
            // SAFETY: null, or from `Box::leak`; only `try_into_owned` takes it back, from a table that nobody else has.
            unsafe { self.0.as_ref() }
        }

        /// # Safety
        ///
        /// As crossbeam's.
        pub(super) unsafe fn deref(&self) -> &'g T {
            // SAFETY: as above, and the caller knows that it is not null.
            unsafe { &*self.0 }
        }
    }

    /// What can be stored.
    pub(super) trait Pointer<T> {
        fn raw(self) -> *mut T;
    }

    impl<T> Pointer<T> for Owned<T> {
        fn raw(self) -> *mut T {
            Box::leak(self.0)
        }
    }

    impl<T> Pointer<T> for Shared<'_, T> {
        fn raw(self) -> *mut T {
            self.0
        }
    }

    pub(super) struct Atomic<T>(AtomicPtr<T>);

    impl<T> Atomic<T> {
        pub(super) fn new(value: T) -> Self {
            Self(AtomicPtr::new(Box::leak(Box::new(value))))
        }

        pub(super) fn null() -> Self {
            Self(AtomicPtr::new(std::ptr::null_mut()))
        }

        pub(super) fn load<'g>(&self, order: Ordering, _: &'g Guard) -> Shared<'g, T> {
            Shared(self.0.load(order), PhantomData)
        }

        pub(super) fn store(&self, new: impl Pointer<T>, order: Ordering) {
            self.0.store(new.raw(), order);
        }

        pub(super) fn swap<'g>(&self, new: impl Pointer<T>, order: Ordering, _: &'g Guard) -> Shared<'g, T> {
            Shared(self.0.swap(new.raw(), order), PhantomData)
        }

        /// # Safety
        ///
        /// As crossbeam's.
        pub(super) unsafe fn try_into_owned(self) -> Option<Owned<T>> {
            let raw = self.0.load(Ordering::Relaxed);
            // SAFETY: from `Box::leak`, and the caller is the only one who has it.
            (!raw.is_null()).then(|| Owned(unsafe { Box::from_raw(raw) }))
        }
    }

    impl<T> From<Shared<'_, T>> for Atomic<T> {
        fn from(shared: Shared<'_, T>) -> Self {
            Self(AtomicPtr::new(shared.0))
        }
    }
}

#[path = "counts.rs"]
mod counts;
#[path = "grow.rs"]
mod grow;
#[path = "pin.rs"]
mod pin;
#[path = "table.rs"]
mod table;
#[path = "word.rs"]
mod word;
#[path = "words.rs"]
mod words;
#[path = "yard.rs"]
mod yard;

use loom::sync::Arc;

use super::few;

use self::pin::pin;
use self::table::{Held, Table};
use crate::entry::{Entry, Meta};
use crate::key::Key;
use crate::namespace::NamespaceId;
use crate::policy::TtlPolicy;

/// All of one home and one tag, which is the worst case for whoever walks; or, from `x` on, of another.
fn hash(text: &str) -> u64 {
    if text < "x" { 0 } else { 0xF000_0000 }
}

fn key(text: &str) -> Key<'_> {
    Key { id: NamespaceId(0), text, hash: hash(text) }
}

fn entry(text: &str, payload: &[u8]) -> Entry {
    let meta = Meta { policy: TtlPolicy::Medium, fingerprint: 1, created: 0, expires: 1, stale_until: 1, stamp: 0 };
    Entry::new(&key(text), &meta, payload)
}

/// A table whose entries the test keeps clones of.
struct Bench {
    table: Table<Vec<Held>>,
}

impl Bench {
    /// With these keys in it, each with the payload "old".
    fn with(texts: &[&str]) -> (Arc<Self>, Vec<Entry>) {
        let bench = Arc::new(Self { table: Table::new(Vec::new()) });
        let kept = texts.iter().map(|text| bench.insert(text)).collect();
        (bench, kept)
    }

    fn insert(&self, text: &str) -> Entry {
        let new = entry(text, b"old");
        let kept = new.clone();
        let mut locked = self.table.lock();
        let (mut edit, held) = locked.parts();
        let gap = edit.search(&key(text)).err().expect("it is not there");
        held.push(edit.insert(hash(text), new, &gap, |entry| hash(entry.key())));
        kept
    }

    fn take(&self, text: &str) -> Option<Held> {
        let mut locked = self.table.lock();
        let (_, held) = locked.parts();
        let at = held.iter().position(|held| held.key() == text)?;
        Some(held.swap_remove(at))
    }

    fn remove(&self, text: &str) {
        let held = self.take(text).expect("it is there");
        let mut locked = self.table.lock();
        let (mut edit, _) = locked.parts();
        edit.remove(hash(text), held);
        let mut freed = table::Freed::new();
        edit.leftovers(&mut freed, &mut few::Few::new());
        drop(locked);
        drop(freed);
    }

    fn replace(&self, text: &str) -> Entry {
        let new = entry(text, b"new");
        let (kept, old) = (new.clone(), self.take(text).expect("it is there"));
        let mut locked = self.table.lock();
        let (mut edit, held) = locked.parts();
        held.push(edit.replace(hash(text), old, new));
        let mut freed = table::Freed::new();
        edit.leftovers(&mut freed, &mut few::Few::new());
        drop(locked);
        drop(freed);
        kept
    }

    /// What a reader finds. While it is pinned the table's reference is there, besides the test's.
    fn find(&self, text: &str) -> Option<Vec<u8>> {
        let pin = pin();
        let seen = self.table.find(&key(text), &pin)?;
        assert_eq!(seen.key(), text, "the entry of another key");
        loom::thread::yield_now();
        assert!(seen.is_shared(), "the table gave its reference up while a reader could see the entry");
        Some(seen.payload().to_vec())
    }
}

/// Runs `work` in every order with at most so many switches of thread that no thread asked for; nearly all faults of such code need two
/// (Musuvathi and Qadeer, PLDI 2007), and without a bound it takes hours.
fn every_order(switches: usize, work: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(switches);
    model.check(work);
}

/// Runs `write` beside a reader of `text`, in every order, and shows what the reader found to `judge`.
fn model(texts: &'static [&'static str], text: &'static str, write: fn(&Bench) -> Vec<Entry>, judge: fn(Option<Vec<u8>>)) {
    every_order(3, move || {
        let (bench, kept) = Bench::with(texts);
        let reader = loom::thread::spawn({
            let bench = bench.clone();
            move || judge(bench.find(text))
        });
        let more = write(&bench);
        reader.join().expect("the reader's judgement");
        drop((bench, kept, more));
    });
}

fn must_be_there(found: Option<Vec<u8>>) {
    assert!(found.is_some(), "a resident entry was not found");
}

#[test]
fn an_entry_is_found_while_the_one_before_it_is_removed() {
    model(
        &["a", "b"],
        "b",
        |bench| {
            bench.remove("a");
            Vec::new()
        },
        must_be_there,
    );
}

#[test]
fn an_entry_is_found_while_it_moves_twice() {
    model(
        &["a", "b", "c"],
        "c",
        |bench| {
            bench.remove("a");
            bench.remove("b");
            Vec::new()
        },
        must_be_there,
    );
}

#[test]
fn an_entry_is_found_while_the_array_grows() {
    model(&["a", "b"], "b", |bench| ["c", "d"].map(|text| bench.insert(text)).to_vec(), must_be_there);
}

#[test]
fn an_entry_is_found_while_it_is_taken_over_and_the_older_array_is_given_up() {
    // One home a put, and then the older array.
    let grow = |bench: &Bench| ["c", "x", "y", "z", "d"].map(|text| bench.insert(text)).to_vec();
    model(&["a", "b"], "b", grow, must_be_there);
}

#[test]
fn an_entry_of_the_older_array_is_found_while_the_one_before_it_is_removed() {
    model(
        &["x", "y"],
        "y",
        |bench| {
            // From here on another array follows; neither of the two is taken over yet.
            let kept = bench.insert("a");
            bench.remove("x");
            vec![kept, bench.insert("b")]
        },
        must_be_there,
    );
}

#[test]
fn what_was_taken_over_and_removed_does_not_come_back() {
    every_order(2, || {
        let (bench, kept) = Bench::with(&["a", "b"]);
        let reader = loom::thread::spawn({
            let bench = bench.clone();
            move || {
                let (first, second) = (bench.find("a"), bench.find("a"));
                assert!(first.is_some() || second.is_none(), "it came back");
            }
        });
        let more = ["c", "d"].map(|text| bench.insert(text));
        bench.remove("a");
        assert!(bench.find("a").is_none());
        reader.join().expect("the reader's judgement");
        drop((bench, kept, more));
    });
}

#[test]
fn an_entry_that_is_replaced_is_the_old_or_the_new_one() {
    let judge = |found: Option<Vec<u8>>| assert!(matches!(found.as_deref(), Some(b"old" | b"new")), "{found:?}");
    model(&["a", "b"], "b", |bench| vec![bench.replace("b")], judge);
}

#[test]
fn an_entry_that_is_removed_is_whole_or_gone() {
    let judge = |found: Option<Vec<u8>>| assert!(matches!(found.as_deref(), None | Some(b"old")), "{found:?}");
    model(
        &["a", "b"],
        "a",
        |bench| {
            bench.remove("a");
            Vec::new()
        },
        judge,
    );
}

#[test]
fn a_key_that_was_removed_and_set_again_is_never_another_key() {
    let judge = |found: Option<Vec<u8>>| assert!(matches!(found.as_deref(), None | Some(b"old")), "{found:?}");
    model(
        &["a", "b"],
        "a",
        |bench| {
            bench.remove("a");
            vec![bench.insert("c"), bench.insert("a")]
        },
        judge,
    );
}

#[test]
fn two_writers_and_a_reader_do_not_lose_an_entry() {
    every_order(2, || {
        let (bench, kept) = Bench::with(&["a", "b"]);
        let writer = loom::thread::spawn({
            let bench = bench.clone();
            move || {
                bench.insert("c");
            }
        });
        let other = bench.clone();
        let reader = loom::thread::spawn(move || must_be_there(other.find("b")));
        bench.remove("a");
        writer.join().expect("the writer");
        reader.join().expect("the reader's judgement");
        assert!(bench.find("a").is_none());
        drop(kept);
    });
}
