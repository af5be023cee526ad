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
            let (due, rest) = std::mem::take(&mut epoch.deferred).into_iter().partition(|deferred| deferred.guards.is_empty());
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

    pub(super) fn as_raw(&self) -> *const T {
        self.0
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
