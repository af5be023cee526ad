//! What callers and threads of the tier share, and the tier's state.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::DiskConfig;
use super::catalogue::{Catalogue, Directory};
use super::index::{Index, Pending, Shard};
use super::log::{CachedReads, Segments, make_folder, open_private};
use super::notes::Ledger;
use super::segment::Segment;
use super::writer::{Op, Queue, What};
use crate::clock::Clock;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::key::KeyHasher;
use crate::namespace::NamespaceId;

/// The parts. Lock order: a shard of the index, then the queue; the others alone.
pub(super) struct Shared {
    pub(super) config: DiskConfig,
    pub(super) clock: Clock,
    pub(super) hasher: KeyHasher,
    pub(super) index: Index,
    pub(super) segments: Segments,
    pub(super) cached: CachedReads,
    pub(super) queue: Mutex<Queue>,
    /// The queue has something for the writer.
    pub(super) work: Condvar,
    /// The last sequence that was appended; all before it were too.
    pub(super) written: AtomicU64,
    /// `written`, the queue's room or the state changed.
    pub(super) progress: Notify,
    /// For the blocking waiters of the same.
    pub(super) ended: Condvar,
    /// Last words of the open segment.
    pub(super) directory: Mutex<Directory>,
    pub(super) catalogue: Catalogue,
    pub(super) ledger: Mutex<Ledger>,
    /// Held while a note is written.
    pub(super) notes: Mutex<()>,
    pub(super) counts: Counts,
    pub(super) faults: Faults,
    /// Why the tier is down; `None` = up.
    down: Mutex<Option<Error>>,
    /// The same, for a glance.
    is_down: AtomicBool,
    pub(super) closed: AtomicBool,
    /// The syncing thread should end.
    stop: Mutex<bool>,
    stopping: Condvar,
    /// The lock file, locked while the tier is open.
    pub(super) lock: Mutex<Option<File>>,
}

/// [`DiskCounts`](super::DiskCounts) in the making.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) refused: AtomicU64,
    pub(super) too_large: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) distrusted: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) payload_bytes_written: AtomicU64,
    pub(super) carried: AtomicU64,
    pub(super) inline_reads: AtomicU64,
    pub(super) device_reads: AtomicU64,
    pub(super) io_errors: AtomicU64,
    pub(super) catalogued: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) expirations: AtomicU64,
}

/// The seam for faults of the device: a countdown of calls after which each fails. Unset in production.
pub(super) struct Faults {
    /// Calls left before they fail; negative = never.
    left: AtomicI64,
}

impl Faults {
    pub(super) fn never() -> Self {
        Self { left: AtomicI64::new(-1) }
    }

    /// For tests: after `calls` more calls, every one fails; negative heals.
    #[cfg(test)]
    pub(super) fn after(&self, calls: i64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    /// Asked before each call that changes files.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.left.load(Ordering::Relaxed) < 0 {
            return Ok(());
        }
        let count = |left: i64| Some(if left > 0 { left - 1 } else { left });
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) {
            Ok(0) => Err(io::Error::other("injected fault")),
            _ => Ok(()),
        }
    }
}

impl Shared {
    pub(super) fn new(config: DiskConfig, clock: Clock, hasher: KeyHasher) -> Self {
        Self {
            config,
            clock,
            hasher,
            index: Index::new(),
            segments: Segments::default(),
            cached: CachedReads::new(),
            queue: Mutex::default(),
            work: Condvar::new(),
            written: AtomicU64::new(0),
            progress: Notify::new(),
            ended: Condvar::new(),
            directory: Mutex::new(Directory::new(0)),
            catalogue: Catalogue::none(),
            ledger: Mutex::new(Ledger::empty()),
            notes: Mutex::new(()),
            counts: Counts::default(),
            faults: Faults::never(),
            down: Mutex::new(None),
            is_down: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            stop: Mutex::new(false),
            stopping: Condvar::new(),
            lock: Mutex::new(None),
        }
    }

    /// The tier as an error names it.
    pub(super) fn subject(&self) -> String {
        format!("disk folder {}", self.config.path.display())
    }

    /// Makes the folder if need be and locks it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody else has it.
    pub(super) fn take_folder(&self) -> io::Result<()> {
        make_folder(&self.config.path)?;
        let path = self.config.path.join("lock");
        let file = open_private(&path, OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        *self.lock.lock() = Some(file);
        Ok(())
    }

    /// Is the locked file still the one in the folder?
    pub(super) fn folder_is_ours(&self) -> bool {
        let ours = self.lock.lock().as_ref().and_then(|file| file.metadata().ok());
        let there = std::fs::symlink_metadata(self.config.path.join("lock")).ok();
        ours.zip(there).is_some_and(|(ours, there)| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    }

    /// Can something be written?
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.config.path.join("probe.tmp");
        let probed = open_private(&path, OpenOptions::new().write(true).create(true).truncate(true))
            .and_then(|mut file| io::Write::write_all(&mut file, &[0; 4096]));
        let _ = std::fs::remove_file(&path);
        probed
    }

    /// A segment is full: its directory goes to the catalogue.
    pub(super) fn sealed(&self, segment: &Segment, directory: Directory) {
        self.catalogue.add(segment, directory);
    }

    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// Why the tier cannot be used now, if so.
    pub(super) fn trouble(&self) -> Option<Error> {
        if self.closed.load(Ordering::Acquire) {
            return Some(Error::closed());
        }
        self.down_reason()
    }

    /// Why the tier is down, if it is.
    pub(super) fn down_reason(&self) -> Option<Error> {
        if self.is_down() { self.down.lock().clone() } else { None }
    }

    /// Opens the catalogue, where the capacity is worth one.
    pub(super) fn open_catalogue(&mut self) {
        let budget = self.config.catalogue_budget();
        self.catalogue = if budget == 0 { Catalogue::none() } else { Catalogue::open(&self.config.path, budget) };
    }

    pub(super) fn go_down(&self, error: &Error) {
        self.counts.io_errors.fetch_add(1, Ordering::Relaxed);
        let why = Error::caused(ErrorKind::TierDown, "disk tier", "is down and will be tried again", error.clone());
        let before = self.down.lock().replace(why);
        self.is_down.store(true, Ordering::Release);
        if before.is_none() {
            tracing::warn!(%error, "disk tier is down; the cache goes on without it");
        }
        self.changed();
    }

    pub(super) fn come_up(&self) {
        if self.is_down() {
            self.is_down.store(false, Ordering::Release);
            *self.down.lock() = None;
            tracing::info!("disk tier is up again");
        }
    }

    /// Wakes all who wait for `written`, room or the state.
    pub(super) fn changed(&self) {
        self.progress.notify_waiters();
        self.ended.notify_all();
    }

    /// Waits until `done` says something.
    pub(super) async fn wait<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if let Some(value) = done() {
                return value;
            }
            progress.await;
        }
    }

    /// Blocks until the writer has ended, for a bounded time; has it?
    pub(super) fn wait_ended(&self, limit: Duration) -> bool {
        let mut queue = self.queue.lock();
        while !queue.ended {
            if self.ended.wait_for(&mut queue, limit).timed_out() {
                return queue.ended;
            }
        }
        true
    }

    /// Puts an operation on the queue and says its sequence. `_shard` is the lock under which the word on the key is
    /// changed, so that queue and index agree on the order.
    pub(super) fn push(&self, _shard: &mut Shard, hash: u64, what: What) -> u64 {
        let mut queue = self.queue.lock();
        queue.last += 1;
        let op = Op { sequence: queue.last, hash, what };
        queue.bytes += op.len();
        let sequence = op.sequence;
        queue.ops.push_back(op);
        drop(queue);
        self.work.notify_one();
        sequence
    }

    /// Accepts a value. What it replaces is dropped outside of the lock.
    pub(super) fn accept(&self, hash: u64, entry: &Entry) {
        let mut shard = self.index.shard(hash);
        let sequence = self.push(&mut shard, hash, What::Put(entry.clone()));
        let before = shard.pending.insert(hash, Pending::Put { sequence, entry: entry.clone() });
        drop(shard);
        drop(before);
    }

    /// Takes the newest word on a key away, if `really`; the ticket of the removal, if there was anything.
    pub(super) fn take_away(
        &self,
        hash: u64,
        id: NamespaceId,
        key: &str,
        really: impl FnOnce(&Shard) -> bool,
    ) -> Option<(bool, u64)> {
        let now = self.clock.steady();
        let mut shard = self.index.shard(hash);
        if !really(&shard) {
            return None;
        }
        let on_its_way = shard.pending.get(&hash).map(|pending| match pending {
            Pending::Put { .. } => true,
            Pending::Remove { .. } => false,
        });
        let live = shard.find(hash, now).is_some();
        let in_log = shard.remove(hash);
        if on_its_way.is_none() && !in_log {
            return None;
        }
        let sequence = self.push(&mut shard, hash, What::Remove(id, key.into()));
        let before = match on_its_way {
            Some(_) => shard.pending.insert(hash, Pending::Remove { sequence }),
            None => None,
        };
        drop(shard);
        drop(before);
        Some((on_its_way.unwrap_or(live), sequence))
    }

    /// Waits for the device until all that is appended is on it.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.segments.all().iter().try_for_each(|segment| {
            self.faults.check()?;
            segment.sync()
        })
    }

    /// Syncs every flush interval until told to stop; the body of a thread.
    pub(super) fn sync_for_ever(&self) {
        loop {
            {
                let mut stop = self.stop.lock();
                if !*stop {
                    self.stopping.wait_for(&mut stop, self.config.flush_interval);
                }
                if *stop {
                    return;
                }
            }
            let synced = if self.is_down() { Ok(()) } else { self.sync() };
            if let Err(error) = synced {
                self.go_down(&Error::io(self.subject(), error));
            }
        }
    }

    pub(super) fn stop_syncing(&self) {
        *self.stop.lock() = true;
        self.stopping.notify_all();
    }
}
