//! What callers and threads of the tier share, and the tier's state.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::DiskConfig;
use super::care::Care;
use super::catalogue::{Catalogue, Directory};
use super::debt::Debt;
use super::files::{self, Handle, How};
use super::index::{Index, Pending, Shard};
use super::log::{CachedReads, Segments};
use super::notes::Ledger;
use super::opening::Crew;
use super::patience::Patience;
use super::queue::{Op, Queue, What};
use super::segment::Segment;
use super::sweep::Carried;
use super::threads::Threads;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::error::Error;
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
    pub(super) patience: Patience,
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
    /// Held while an event is written.
    pub(super) ledger: Mutex<Ledger>,
    /// Bytes of its file, for who must not wait for the device.
    pub(super) ledger_bytes: AtomicU64,
    /// Held while a note is written.
    pub(super) notes: Mutex<()>,
    pub(super) counts: Counts,
    /// How often the tier went down, and why it is; `None` = up.
    pub(super) down: Mutex<(u64, Option<Error>)>,
    /// The same, for a glance. Changed under `down`.
    pub(super) is_down: AtomicBool,
    /// The log was not read yet, so nobody knows what is in it.
    pub(super) unread: AtomicBool,
    /// What was carried over since each sweep that is under way began.
    pub(super) sweeps: Mutex<Vec<Arc<Carried>>>,
    /// Files that were read at open.
    pub(super) recovered: AtomicU64,
    pub(super) closed: AtomicBool,
    pub(super) debt: Debt,
    pub(super) care: Care,
    /// Threads that wait for the device.
    pub(super) threads: Threads,
    /// Those that stay.
    pub(super) crew: Mutex<Crew>,
    /// The lock file, locked while the tier is open.
    pub(super) lock: Mutex<Option<Handle>>,
}

/// [`DiskCounts`](super::DiskCounts) in the making.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) refused: AtomicU64,
    pub(super) not_admitted: AtomicU64,
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

/// The file that is locked while the folder is open. It says which process has it.
pub(super) const LOCK: &str = "lock";

/// Who has the lock of a folder, as far as its file says.
pub(super) fn holder(folder: &Path) -> String {
    let text = files::read_whole(&folder.join(LOCK), 16).ok().flatten().and_then(|text| String::from_utf8(text).ok());
    match text.and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(process) if process == std::process::id() => " of this process".to_owned(),
        Some(process) => format!(" of process {process}"),
        None => String::new(),
    }
}

impl Shared {
    pub(super) fn new(config: DiskConfig, clock: Clock, hasher: KeyHasher) -> Self {
        Self {
            patience: Patience::new(config.timeout),
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
            catalogue: Catalogue::new(),
            ledger: Mutex::new(Ledger::empty()),
            ledger_bytes: AtomicU64::new(0),
            notes: Mutex::new(()),
            counts: Counts::default(),
            down: Mutex::default(),
            is_down: AtomicBool::new(false),
            unread: AtomicBool::new(true),
            sweeps: Mutex::default(),
            recovered: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            debt: Debt::default(),
            care: Care::default(),
            threads: Threads::default(),
            crew: Mutex::default(),
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
    /// `WouldBlock` if somebody else has it, `InvalidInput` if it is a symlink: who planted that chose where our files go.
    pub(super) fn take_folder(&self) -> io::Result<()> {
        let folder = &self.config.path;
        files::make_folder(folder)?;
        // Put together anew, without a slash at its end, which would follow the link.
        if files::look(&folder.components().collect::<PathBuf>())?.is_symlink() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symlink; name the folder that it leads to"));
        }
        let file = files::open(&folder.join(LOCK), How::Keep)?;
        file.lock()?;
        // Only for who finds it locked; without it he is told less.
        let _ = file.set_len(0).and_then(|()| file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
        *self.lock.lock() = Some(file);
        Ok(())
    }

    /// Is the locked file still the one in the folder?
    pub(super) fn folder_is_ours(&self) -> io::Result<bool> {
        self.lock.lock().as_ref().map_or(Ok(false), |file| file.is_at(&self.config.path.join(LOCK)))
    }

    /// Can something be written?
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.config.path.join("probe.tmp");
        let probed = files::open(&path, How::Fresh).and_then(|file| file.write_all_at(&[0; 4096], 0));
        let _ = files::remove(&path);
        probed
    }

    /// What the ledger's file takes.
    pub(super) fn ledger_is(&self, ledger: &Ledger) {
        self.ledger_bytes.store(ledger.bytes(), Ordering::Relaxed);
    }

    /// A segment is full: its directory goes to the catalogue.
    pub(super) fn sealed(&self, segment: &Segment, directory: Directory) {
        self.catalogue.add(segment, directory);
    }

    /// Opens the catalogue, where the capacity is worth one, and a panic of sled over a damaged file would not be the end of the process.
    pub(super) fn open_catalogue(&self) {
        let budget = self.config.catalogue_budget();
        if budget > 0 && cfg!(panic = "unwind") {
            self.catalogue.open(&self.config.path, budget);
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
        // Woken for other reasons, too: the limit is for all of the wait.
        self.ended.wait_while_for(&mut queue, |queue| !queue.ended, limit);
        queue.ended
    }

    /// Puts an operation on the queue and says its sequence. `_shard` is the lock under which the word on the key is
    /// changed, so that queue and index agree on the order. `None` in place of the place on the queue if the log is let go as a whole.
    fn push(&self, _shard: &mut Shard, hash: u64, what: What) -> (u64, Option<()>) {
        let mut queue = self.queue.lock();
        queue.last += 1;
        let op = Op { sequence: queue.last, hash, what };
        let sequence = op.sequence;
        if self.is_down() && queue.bytes + op.len() > self.config.queue_bytes {
            queue.owe_everything();
        }
        if queue.let_go {
            return (sequence, None);
        }
        queue.bytes += op.len();
        queue.ops.push_back(op);
        drop(queue);
        self.work.notify_one();
        (sequence, Some(()))
    }

    /// Accepts a value. What it replaces is dropped outside of the lock.
    pub(super) fn accept(&self, hash: u64, entry: &Entry) {
        let mut shard = self.index.shard(hash);
        let (sequence, queued) = self.push(&mut shard, hash, What::Put(entry.clone()));
        let before = queued.and_then(|()| shard.pending.insert(hash, Pending::Put { sequence, entry: entry.clone() }));
        drop(shard);
        drop(before);
    }

    /// Takes the newest word on a key away, if `really`; whether there was an entry, and the ticket of the removal. `None` if
    /// nothing has to go to the log.
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
        let live = shard.find(hash, now).is_some();
        let in_log = shard.remove(hash);
        let existed = match shard.pending.get(&hash) {
            // Said already, and still on its way to the log.
            Some(Pending::Remove { sequence, id: of, key: said }) if (*of, &**said) == (id, key) => {
                return Some((false, *sequence));
            }
            Some(Pending::Put { .. }) => true,
            // Of another key with this hash.
            Some(Pending::Remove { .. }) => false,
            None if in_log || self.is_blind() => live,
            None => return None,
        };
        let key: Arc<str> = key.into();
        let (sequence, queued) = self.push(&mut shard, hash, What::Remove(id, key.clone()));
        let before = queued.and_then(|()| shard.pending.insert(hash, Pending::Remove { sequence, id, key }));
        drop(shard);
        drop(before);
        Some((existed, sequence))
    }

    /// May something be in the log that the index does not know?
    fn is_blind(&self) -> bool {
        self.is_unread() || self.is_down() && self.queue.lock().let_go
    }
}
