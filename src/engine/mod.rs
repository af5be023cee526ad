//! The engine: the only place where an entry moves between tiers. One file a verb.
//!
//! Only this file starts tasks, and `close` ends each of them. Tasks hold the engine weakly: when the last handle is dropped,
//! they end by themselves.

pub(crate) mod fetch;
pub(crate) mod inherit;
pub(crate) mod invalidate;
pub(crate) mod maintain;
pub(crate) mod movement;
pub(crate) mod promotion;
pub(crate) mod read;
pub(crate) mod read_many;
pub(crate) mod repairs;
pub(crate) mod see;
pub(crate) mod state;
pub(crate) mod warm;
pub(crate) mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Clock;
use crate::coherence::{Cursor, Event, follow};
use crate::engine::maintain::CURSOR_NOTE;
use crate::engine::state::{CoherenceState, Engine};
use crate::error::{Error, ErrorKind};
use crate::tier::Tier;

/// How long `open` waits for the log between nodes before it serves what the local disk holds.
const CATCH_UP: Duration = Duration::from_secs(2);

impl Engine {
    /// Starts what runs in the background. The local disk is trusted once the log between nodes was read up to now.
    pub(crate) async fn start(self: &Arc<Self>, strict: bool) -> Result<(), Error> {
        let has_inherited = self.inherit(false).await;
        // Boxed: what it awaits goes down to the connections, and a caller's future need not be as deep.
        Box::pin(self.catch_up(strict)).await?;
        if has_inherited {
            self.start_refill().await;
        }
        self.tasks.lock().push(tokio::spawn(Self::maintain_forever(Arc::downgrade(self), self.maintenance)));
        Ok(())
    }

    /// Brings the hot keys of the last run back to memory, in the background; once.
    pub(crate) async fn start_refill(self: &Arc<Self>) {
        if self.refill.is_started.swap(true, Ordering::AcqRel) {
            return;
        }
        let keys = self.read_hot_list().await;
        self.refill.planned.store(keys.len() as u64, Ordering::Relaxed);
        self.refill.finished.store(keys.is_empty(), Ordering::Release);
        if !keys.is_empty() {
            let mut tasks = self.tasks.lock();
            // Whoever closes has taken the tasks that there were.
            if !self.closed.load(Ordering::Acquire) {
                tasks.push(tokio::spawn(Self::refill(Arc::downgrade(self), keys)));
            }
        }
    }

    async fn catch_up(self: &Arc<Self>, strict: bool) -> Result<(), Error> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let note = match &self.disk {
            Some(disk) => self.noted(Tier::Disk, disk.read_note(CURSOR_NOTE).await).flatten(),
            None => None,
        };
        *self.coherence.lock() = Some(CoherenceState::Blind(Clock::stopwatch()));
        let mut follower = follow(remote, note.as_deref().and_then(Cursor::from_bytes));
        let reading = async {
            loop {
                let event = follower.next().await;
                let (done, lost) = (matches!(event, Event::CaughtUp(_)), matches!(event, Event::Lost(_)));
                self.hear(event).await;
                if done || lost {
                    return done;
                }
            }
        };
        let current = tokio::time::timeout(CATCH_UP, reading).await.unwrap_or(false);
        if !current && strict {
            let advice =
                "cannot be read, and coherence = \"strict\"; start Redis, or set coherence = \"lenient\" to serve what is here";
            return Err(Error::new(ErrorKind::TierDown, "the log between nodes in Redis", advice));
        }
        let weak = Arc::downgrade(self);
        self.tasks.lock().push(tokio::spawn(Self::follow(weak, follower)));
        Ok(())
    }

    /// Makes everything durable that was set before and lands on disk.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        self.check_open()?;
        match &self.disk {
            Some(disk) => disk.flush().await,
            None => Ok(()),
        }
    }

    /// Ends the tasks, keeps the warm set, closes the tiers, once; every later call gets the same answer. One that comes meanwhile waits for it,
    /// and goes on with it if the first was dropped halfway.
    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        self.ended.get_or_init(|| self.wind_down()).await.clone()
    }

    async fn wind_down(&self) -> Result<(), Error> {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        // All of them first: whoever goes on with a close that was dropped here finds none that still runs.
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        for task in tasks {
            // Aborted or done: either way it no longer runs.
            let _ = task.await;
        }
        self.export();
        self.keep_repairs().await;
        let warm = self.keep_warm().await;
        let disk = match &self.disk {
            Some(disk) => disk.close().await,
            None => Ok(()),
        };
        if let Some(remote) = &self.remote {
            remote.close().await;
        }
        // Nobody follows the log any more: what is left in memory could grow stale, so it is not served.
        drop(self.memory.remove_matching(&mut |_| true));
        warm.and(disk)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}
