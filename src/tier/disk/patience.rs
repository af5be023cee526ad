//! How long the device is waited for.
//!
//! A device that does not answer (a dying disk, a volume whose server is gone) fails no call, it keeps it. So:
//!
//! - A **read** waits no longer than `disk.timeout` and is a miss then. Its thread stays with the device; when that comes back, so does the thread.
//!   While a few reads are overdue others are refused at once, and it is never more than a few dozen threads that wait.
//! - When the **writer** has work and gets nothing done for twenty times as long, the tier goes down, as with any device that refuses: who waits for the
//!   writer is told, and what comes meanwhile is owed to the log. It comes up when the device takes writes again.
//!
//! What the page cache has is read all the same. An `fdatasync` is waited for however long it takes, by `flush` and by `close`; and so is what
//! opening reads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use crate::error::{Error, ErrorKind};

/// Reads that wait for the device at once.
const MOST_READS: usize = 64;
/// So many overdue reads and the device counts as not answering. One may be a bad sector.
const MOST_OVERDUE: usize = 4;
/// The writer has so many times as long as a read: a device that is only busy throttles writes for seconds.
const WRITER_FACTOR: u32 = 20;

/// Who waits for the device.
pub(super) struct Patience {
    reads: Arc<Semaphore>,
    /// Reads that are late and did not come back yet.
    overdue: AtomicUsize,
    /// The writer has not come back from a call that took too long.
    is_stalled: AtomicBool,
}

const RUNNING: u8 = 0;
const OVERDUE: u8 = 1;
const ENDED: u8 = 2;

/// A read that is under way. It ends when this is dropped.
struct Read {
    shared: Arc<Shared>,
    state: Arc<AtomicU8>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Read {
    fn drop(&mut self) {
        if self.state.swap(ENDED, Ordering::AcqRel) == OVERDUE {
            self.shared.patience.overdue.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Patience {
    pub(super) fn new() -> Self {
        let reads = Arc::new(Semaphore::new(MOST_READS));
        Self { reads, overdue: AtomicUsize::new(0), is_stalled: AtomicBool::new(false) }
    }

    /// Why reads of the device are refused, if they are.
    pub(super) fn refusal(&self) -> Option<Error> {
        let overdue = self.overdue.load(Ordering::Acquire);
        (overdue >= MOST_OVERDUE).then(|| {
            let detail = format!("does not answer: {overdue} reads are overdue, and others are refused until one comes back");
            Error::new(ErrorKind::TierDown, "disk device", detail)
        })
    }

    /// The writer got on.
    pub(super) fn moved(&self) {
        self.is_stalled.store(false, Ordering::Release);
    }

    /// Is the writer in a call that takes too long?
    pub(super) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Does `work`, which waits for the device, on a thread that may; no longer than the timeout.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TierDown`] if the device does not answer in time, or there is no thread.
    pub(super) async fn read_device<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(error) = self.patience.refusal() {
            return Err(error);
        }
        let late = || {
            let detail = format!("has not answered a read within {:?} (disk.timeout)", self.config.timeout);
            Error::new(ErrorKind::TierDown, "disk device", detail)
        };
        let end = Instant::now() + self.config.timeout;
        let place = timeout_at(end, self.patience.reads.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(late()) };
        let state = Arc::new(AtomicU8::new(RUNNING));
        let read = Read { shared: self.clone(), state: state.clone(), _place: place };
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(read);
            result
        });
        match timeout_at(end, task).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => {
                Err(Error::new(ErrorKind::TierDown, "disk tier", "has no thread to read with; the runtime is going down"))
            }
            Err(_) => {
                // Counted before it is said, so that the end of the read finds it counted.
                self.patience.overdue.fetch_add(1, Ordering::AcqRel);
                if state.compare_exchange(RUNNING, OVERDUE, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    self.patience.overdue.fetch_sub(1, Ordering::AcqRel);
                }
                Err(late())
            }
        }
    }

    /// As [`wait`](Self::wait), for something that the writer does. If it gets nothing done for too long, the tier goes down.
    pub(super) async fn wait_for_writer<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        let patience = self.config.timeout.saturating_mul(WRITER_FACTOR).max(Duration::from_millis(1));
        let mut before = self.written.load(Ordering::Acquire);
        loop {
            if let Ok(result) = timeout(patience, self.wait(&mut done)).await {
                return result;
            }
            let now = self.written.load(Ordering::Acquire);
            if now == before && self.queue.lock().bytes > 0 && !self.is_down() {
                self.patience.is_stalled.store(true, Ordering::Release);
                self.fail(io::Error::new(io::ErrorKind::TimedOut, format!("the device has taken no write for {patience:?}")));
            }
            before = now;
        }
    }
}
