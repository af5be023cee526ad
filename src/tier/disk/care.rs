//! The caretaker: the thread that syncs the log, every flush interval and when it is asked to, and does the upkeep.
//!
//! Who asks waits for a round that began after he asked, so that one `fdatasync` serves all who asked before it, and a device that does not come
//! back from it holds one thread. Nobody waits longer than for the writer.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::time::{Instant, timeout};

use super::Shared;
use crate::error::{Error, ErrorKind};

/// What the caretaker is asked for.
#[derive(Default)]
pub(super) struct Care {
    asked: Mutex<Asked>,
    wake: Condvar,
}

#[derive(Default)]
struct Asked {
    /// The end.
    stop: bool,
    sync: Turns,
    upkeep: Turns,
    /// Why the last sync failed, if it did.
    failed: Option<Error>,
    /// When the round under way began.
    since: Option<Instant>,
}

/// How often something was asked for, and up to which of these it is done.
#[derive(Clone, Copy, Default)]
struct Turns {
    asked: u64,
    done: u64,
}

impl Turns {
    fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }
}

impl Shared {
    /// Waits for the device until all that is appended is on it; else the tier is down.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.segments.all().iter().try_for_each(|segment| segment.sync()).inspect_err(|error| {
            let code = error.raw_os_error();
            let same = code.map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error);
            self.fail(same);
        })
    }

    /// The body of the thread: rounds until told to stop.
    pub(super) fn care_for_ever(&self) {
        let mut next = Instant::now() + self.config.flush_interval;
        loop {
            let (sync, upkeep) = {
                let mut asked = self.care.asked.lock();
                let is_asked = |asked: &mut Asked| {
                    asked.stop || asked.sync.asked > asked.sync.done || asked.upkeep.asked > asked.upkeep.done
                };
                self.care.wake.wait_while_until(&mut asked, |asked| !is_asked(asked), next.into_std());
                if asked.stop {
                    return;
                }
                asked.since = Some(Instant::now());
                (asked.sync, asked.upkeep)
            };
            if upkeep.asked > upkeep.done {
                self.expire();
                self.look_after_folder();
            }
            let is_due = sync.asked > sync.done || next <= Instant::now();
            let synced = is_due.then(|| {
                next = Instant::now() + self.config.flush_interval;
                match self.down_reason() {
                    Some(error) => Err(error),
                    // It says itself when it fails.
                    None => self.sync().map_err(|error| Error::io(self.subject(), error)),
                }
            });
            {
                let mut asked = self.care.asked.lock();
                (asked.sync.done, asked.upkeep.done, asked.since) = (sync.asked, upkeep.asked, None);
                if let Some(synced) = synced {
                    asked.failed = synced.err();
                }
            }
            self.changed();
        }
    }

    /// Waits until all that is appended is on the device.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] or [`ErrorKind::TierDown`] if it is not, or nobody can tell yet.
    pub(super) async fn synced(self: &Arc<Self>) -> Result<(), Error> {
        if let Some(error) = self.trouble() {
            return Err(error);
        }
        self.start_threads()?;
        if let Some(error) = self.overdue_round() {
            return Err(error);
        }
        let turn = self.care.asked.lock().sync.ask();
        self.care.wake.notify_one();
        let done = || {
            let asked = self.care.asked.lock();
            // At the end the writer has synced.
            (asked.stop || asked.sync.done >= turn)
                .then(|| asked.failed.clone().or_else(|| self.down_reason()).map_or(Ok(()), Err))
        };
        match timeout(self.patience.limit, self.wait(done)).await {
            Ok(result) => result,
            Err(_) => Err(self.overdue_round().unwrap_or_else(|| self.late_round())),
        }
    }

    /// Waits until a round of upkeep is done, for a bounded time.
    pub(super) async fn kept_up(&self) {
        let turn = self.care.asked.lock().upkeep.ask();
        self.care.wake.notify_one();
        let done = || {
            let asked = self.care.asked.lock();
            (asked.stop || asked.upkeep.done >= turn).then_some(())
        };
        // The next maintenance will ask again.
        let _ = timeout(self.patience.limit, self.wait(done)).await;
    }

    /// Why nobody should wait for a sync, if the device keeps the caretaker.
    pub(super) fn overdue_round(&self) -> Option<Error> {
        let since = self.care.asked.lock().since;
        since.is_some_and(|since| since.elapsed() >= self.patience.limit).then(|| self.late_round())
    }

    fn late_round(&self) -> Error {
        let limit = self.patience.limit;
        let detail = format!(
            "has not synced the log within {limit:?}; what was put last is not known to outlive a power cut (see disk.timeout)"
        );
        Error::new(ErrorKind::TierDown, "disk device", detail)
    }

    pub(super) fn stop_caring(&self) {
        self.care.asked.lock().stop = true;
        self.care.wake.notify_all();
    }
}
