//! The yard: what was taken out of a table and may still be looked at.
//!
//! Oldest first, in batches. With each full batch one small mark goes to the epoch; when that runs, nobody is pinned any more who was
//! when the batch was closed, and the writers that come later take the batch away, a few items each. (Every item left to the epoch by itself was
//! rejected: the epoch frees them hundreds at a time, and one put in three hundred waited for that.)
//!
//! A mark also speaks for the batches before it: whoever was pinned when an older batch was closed has left by now, or was still
//! pinned when the younger one was. So marks may run in any order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::pin::pin;
use super::sync::{AtomicU64, BATCH, BATCH_BYTES, Ordering};

/// What waits until nobody who was pinned when it came is pinned still.
pub(super) struct Yard<T> {
    /// Oldest first: what is ready, the closed batches, the open one.
    waiting: VecDeque<T>,
    /// How many nobody can see any more.
    ready: usize,
    /// How many each closed batch has; never none.
    closed: VecDeque<usize>,
    /// Number of the oldest closed batch.
    oldest: u64,
    /// Of the open batch: items and bytes.
    open: u32,
    open_bytes: usize,
    /// Of the item that came last; of more than 4 GiB, that much.
    last_bytes: u32,
    /// Batches with a lower number are seen by nobody any more. Counted up by the epoch.
    passed: Arc<AtomicU64>,
    /// Was something left to the epoch since somebody asked?
    wants_flush: bool,
}

impl<T> Yard<T> {
    pub(super) fn new() -> Self {
        let (waiting, closed, passed) = (VecDeque::new(), VecDeque::new(), Arc::new(AtomicU64::new(0)));
        Self { waiting, ready: 0, closed, oldest: 0, open: 0, open_bytes: 0, last_bytes: 0, passed, wants_flush: false }
    }

    /// Takes in what nobody can find any more, and what of it is in memory. Is the batch full, and closed?
    #[inline]
    pub(super) fn lay(&mut self, item: T, bytes: usize) -> bool {
        self.open += 1;
        self.open_bytes += bytes;
        self.last_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.waiting.push_back(item);
        let is_full = self.open >= BATCH as u32 || self.open_bytes >= BATCH_BYTES;
        if is_full {
            self.close();
        }
        is_full
    }

    /// Closes the open batch, unless it is empty.
    #[cold]
    pub(super) fn close(&mut self) {
        if self.open == 0 {
            return;
        }
        let (passed, behind) = (self.passed.clone(), self.oldest + self.closed.len() as u64 + 1);
        self.closed.push_back(std::mem::take(&mut self.open) as usize);
        self.open_bytes = 0;
        self.wants_flush = true;
        pin().later(move || {
            passed.fetch_max(behind, Ordering::AcqRel);
        });
    }

    /// Is nothing in it?
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Is a flush wanted, or something to be freed?
    pub(super) fn has_work(&self) -> bool {
        self.wants_flush || self.ready > 0 || !self.closed.is_empty() && self.oldest < self.passed.load(Ordering::Acquire)
    }

    /// Was something left to the epoch since this was asked last?
    #[inline]
    pub(super) fn wants_flush(&mut self) -> bool {
        std::mem::take(&mut self.wants_flush)
    }

    /// Hands out a few that nobody can see any more: more than one put lays in, and more than that where there is a backlog.
    #[inline]
    pub(super) fn free(&mut self, mut take: impl FnMut(T)) {
        for _ in 0..1 + self.closed.len() / 4 {
            if self.ready == 0 && !self.open_next() {
                return;
            }
            self.ready -= 1;
            if let Some(item) = self.waiting.pop_front() {
                take(item);
            }
        }
    }

    /// What was said of the item that came last.
    #[inline]
    pub(super) fn last_bytes(&self) -> usize {
        self.last_bytes as usize
    }

    /// What is to be handed out after so many others.
    #[inline]
    pub(super) fn upcoming(&self, after: usize) -> Option<&T> {
        self.waiting.get(after)
    }

    /// Makes the oldest closed batch ready, if nobody can see it any more.
    #[inline(never)]
    fn open_next(&mut self) -> bool {
        if self.oldest >= self.passed.load(Ordering::Acquire) {
            return false;
        }
        let Some(batch) = self.closed.pop_front() else { return false };
        self.ready = batch;
        self.oldest += 1;
        true
    }

    /// All of it, when there is nobody left who could see it.
    pub(super) fn clear(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.waiting)
    }
}
