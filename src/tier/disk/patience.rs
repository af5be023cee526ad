//! How long the device is waited for.
//!
//! A device that does not answer (a dying disk, a volume whose server is gone) fails no call, it keeps it. So nobody waits without a bound:
//!
//! - A **read** waits no longer than `disk.timeout` and is a miss then. Its thread stays with the device; when that comes back, so does the thread.
//!   While a few reads are overdue others are refused at once, and it is never more than a few dozen threads that wait.
//! - **Notes**, events, the keys that a pattern asks for, syncs and the lock on the folder have twenty times as long: a device that is only busy is slow for
//!   seconds. What takes longer is an error, but for opening ([`opening`](super::opening)).
//! - When the **writer** has work and gets nothing done for as long, the tier goes down, as with any device that refuses: who waits for the writer is
//!   told, and what comes meanwhile is owed to the log. It comes up when the device takes writes again.
//!
//! What the page cache has is read all the same.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use super::threads::Threads;
use crate::error::{Error, ErrorKind};

/// Reads that wait for the device at once.
const MOST_READS: usize = 64;
/// So many overdue reads and the device counts as not answering. One may be a bad sector.
const MOST_OVERDUE_READS: usize = 4;
/// Notes and lists of keys that wait at once.
const MOST_NOTES: usize = 4;
/// All but reads have so many times as long.
const FACTOR: u32 = 20;

/// Who waits for the device, and for how long.
pub(super) struct Patience {
    /// Reads of values.
    pub(super) reads: Arc<Lane>,
    /// Notes, events, lists of keys.
    pub(super) notes: Arc<Lane>,
    /// For all but reads.
    pub(super) limit: Duration,
    /// The writer has not come back from a call that took too long.
    is_stalled: AtomicBool,
}

/// Calls of one kind that wait for the device.
pub(super) struct Lane {
    kind: &'static str,
    limit: Duration,
    most_overdue: usize,
    places: Arc<Semaphore>,
    /// When the call in each place is overdue, in ms since `born`; 0 = there is none. Whoever made the call may have given up long ago.
    due: Box<[AtomicU64]>,
    born: Instant,
}

/// A call that is under way. It ends when this is dropped.
struct Call {
    lane: Arc<Lane>,
    at: Option<usize>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(due) = self.at.and_then(|at| self.lane.due.get(at)) {
            due.store(0, Ordering::Release);
        }
    }
}

impl Lane {
    fn new(kind: &'static str, limit: Duration, places: usize, most_overdue: usize) -> Arc<Self> {
        let due = (0..places).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { kind, limit, most_overdue, places: Arc::new(Semaphore::new(places)), due, born: Instant::now() })
    }

    /// Milliseconds of the life of the lane, never 0.
    fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.born).as_millis()).map_or(u64::MAX, |ms| ms.max(1))
    }

    /// Why further calls are refused, if they are.
    pub(super) fn refusal(&self) -> Option<Error> {
        let now = self.at(Instant::now());
        let is_overdue = |due: &&AtomicU64| (1..=now).contains(&due.load(Ordering::Acquire));
        let overdue = self.due.iter().filter(is_overdue).count();
        (overdue >= self.most_overdue).then(|| {
            let detail = format!("does not answer: overdue {}: {overdue}; others are refused until one comes back", self.kind);
            Error::new(ErrorKind::TierDown, "disk device", detail)
        })
    }

    fn begin(self: &Arc<Self>, place: OwnedSemaphorePermit, end: Instant) -> Call {
        let end = self.at(end);
        let free = |due: &AtomicU64| due.compare_exchange(0, end, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        Call { at: self.due.iter().position(free), lane: self.clone(), _place: place }
    }

    /// Does `work`, which waits for the device, on a thread that may; no longer than the lane's limit. Cancelled, the work goes on and its
    /// outcome is lost.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TierDown`] if the device does not answer in time, or there is no thread.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        threads: &Threads,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        let end = Instant::now() + self.limit;
        let late = || {
            let detail = format!("has not answered within {:?} (see disk.timeout)", self.limit);
            Error::new(ErrorKind::TierDown, "disk device", detail)
        };
        let place = timeout_at(end, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(late()) };
        let call = self.begin(place, end);
        let asked = threads.run(move || {
            let result = work();
            drop(call);
            result
        });
        match timeout_at(end, asked.map_err(no_thread)?).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(Error::new(ErrorKind::TierDown, "disk tier", "a call ended unexpectedly; please report it")),
            Err(_) => Err(late()),
        }
    }
}

/// The system gives no thread.
pub(super) fn no_thread(error: io::Error) -> Error {
    let why = "has no thread to wait for the device with, and the system gives none; raise its limit (RLIMIT_NPROC, or pids.max of the cgroup)";
    Error::caused(ErrorKind::TierDown, "disk tier", why, Error::io("a new thread", error))
}

impl Patience {
    /// Reads wait for `timeout`.
    pub(super) fn new(timeout: Duration) -> Self {
        let limit = timeout.saturating_mul(FACTOR).max(Duration::from_millis(1));
        Self {
            reads: Lane::new("reads", timeout, MOST_READS, MOST_OVERDUE_READS),
            notes: Lane::new("notes", limit, MOST_NOTES, 1),
            limit,
            is_stalled: AtomicBool::new(false),
        }
    }

    /// Why the device does not count as answering, if so.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.reads.refusal().or_else(|| self.notes.refusal())
    }

    /// The writer got on.
    pub(super) fn moved(&self) {
        self.is_stalled.store(false, Ordering::Release);
    }

    /// Is the writer in a call that takes too long?
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Acquire)
    }

    pub(super) fn stalled(&self) {
        self.is_stalled.store(true, Ordering::Release);
    }
}

impl Shared {
    /// A number that grows with all that the writer gets done.
    fn writers_work(&self) -> u64 {
        self.written.load(Ordering::Acquire).wrapping_add(self.recovered.load(Ordering::Acquire))
    }

    /// As [`wait`](Self::wait), for something that the writer does. If it gets nothing done for too long, the tier goes down.
    pub(super) async fn wait_for_writer<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        let limit = self.patience.limit;
        let mut before = self.writers_work();
        loop {
            if let Ok(result) = timeout(limit, self.wait(&mut done)).await {
                return result;
            }
            let now = self.writers_work();
            let is_at_work = {
                let queue = self.queue.lock();
                // At the end it has more to do than to append, and nobody comes who could be told later.
                queue.closing && !queue.ended || (queue.bytes > 0 || self.is_unread()) && !self.is_down()
            };
            if now == before && is_at_work {
                self.patience.stalled();
                self.fail(io::Error::new(io::ErrorKind::TimedOut, format!("the device has taken no write for {limit:?}")));
            }
            before = now;
        }
    }
}
