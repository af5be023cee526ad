//! While the tier is down, and how it comes back.
//!
//! When the system refuses, the tier goes down and the cache goes on without it. Nothing of what is owed to the log is forgotten:
//! values that wait become removals of their keys, because an older record of the key may be in the log; removals wait, one for a
//! key, and are written first when the log can be written again. If more of them wait than the queue may hold, or if nobody can
//! tell which keys a pattern meant, everything in the log is let go instead, before the tier comes back.
//!
//! It comes back at the next maintenance after the fault is gone: the folder is still ours, what a failed write left behind is
//! cut off, what a failed sync may have lost is written again, and the device takes a probe. A tier that could not even read its log
//! begins down and reads it then.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::Shared;
use super::catalogue::Directory;
use super::files;
use super::index::Pending;
use super::log::make_segment;
use super::notes::Ledger;
use super::queue::{Op, Queue, What};
use super::recovery::segment_files;
use super::writer::Writer;
use crate::error::{Error, ErrorKind};

/// So often an opening that fails on a file is tried again before the file counts as damaged.
const TRIES: u32 = 5;

/// Somebody has taken the folder away, or put another in its place.
pub(super) fn gone() -> io::Error {
    io::Error::other("the folder was removed or replaced; it will be made anew")
}

impl Queue {
    /// Owes so much that the log is let go as a whole.
    pub(super) fn owe_everything(&mut self) {
        self.bytes -= self.ops.drain(..).map(|op| op.len()).sum::<u64>();
        self.let_go = true;
    }
}

impl Shared {
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
        if self.is_down() { self.down.lock().1.clone() } else { None }
    }

    pub(super) fn go_down(&self, error: &Error) {
        self.counts.io_errors.fetch_add(1, Ordering::Relaxed);
        let why = Error::caused(ErrorKind::TierDown, "disk tier", "is down and will be tried again", error.clone());
        let is_news = {
            let mut down = self.down.lock();
            down.0 += 1;
            self.is_down.store(true, Ordering::Release);
            down.1.replace(why).is_none()
        };
        if is_news {
            tracing::warn!(%error, "disk tier is down; the cache goes on without it");
        }
        // The writer has to mark what is owed.
        self.work.notify_one();
        self.changed();
    }

    /// The same for what the system said.
    pub(super) fn fail(&self, error: io::Error) {
        self.go_down(&Error::io(self.subject(), error));
    }

    /// Goes down if the folder is not ours any more.
    pub(super) fn look_after_folder(&self) {
        if !self.is_down() && self.folder_is_ours().is_ok_and(|is_ours| !is_ours) {
            self.fail(gone());
        }
    }

    /// How often the tier went down so far.
    fn falls(&self) -> u64 {
        self.down.lock().0
    }

    /// Up again, unless it went down once more since `falls` were counted.
    pub(super) fn come_up(&self, falls: u64) {
        let mut down = self.down.lock();
        if down.0 == falls && down.1.take().is_some() {
            self.is_down.store(false, Ordering::Release);
            tracing::info!("disk tier is up again");
        }
    }

    /// Nobody can tell what of the log an invalidation meant: all of it goes, and until it has gone the tier is down.
    pub(super) fn let_everything_go(&self, error: &Error) {
        self.queue.lock().owe_everything();
        self.go_down(error);
    }

    /// What has to be appended even so: a removal for each key that something was said of. Values are let go.
    pub(super) fn owe(&self, ops: VecDeque<Op>) -> VecDeque<Op> {
        let owe = |op: Op| {
            let What::Put(entry) = &op.what else { return op };
            let (id, key): (_, Arc<str>) = (entry.namespace_id(), entry.key().into());
            let mut shard = self.index.shard(op.hash);
            let sequence = op.sequence;
            let before = if shard.pending.get(&op.hash).is_some_and(|pending| pending.sequence() == sequence) {
                shard.remove(op.hash);
                shard.pending.insert(op.hash, Pending::Remove { sequence, id, key: key.clone() })
            } else {
                None
            };
            drop(shard);
            drop(before);
            Op { what: What::Remove(id, key), ..op }
        };
        ops.into_iter().map(owe).collect()
    }

    /// Takes what the folder holds of a log that could not be read at open, again and again until it can.
    pub(super) fn read_late(self: &Arc<Self>) -> Option<Writer> {
        for tried in 1.. {
            let is_last = {
                let mut queue = self.queue.lock();
                while !queue.closing && !queue.retry {
                    if queue.wants_mark() {
                        MutexGuard::unlocked(&mut queue, || self.mark_debt());
                    } else {
                        self.work.wait(&mut queue);
                    }
                }
                (queue.retry, queue.is_mark_tried) = (false, self.debt.is_marked());
                queue.closing
            };
            match self.take_and_read(tried < TRIES) {
                Ok(writer) => {
                    // Down until what was said meanwhile is in the log.
                    self.queue.lock().retry = true;
                    return Some(writer);
                }
                Err(error) => self.fail(error),
            }
            if is_last {
                self.forget_on_disk();
                return None;
            }
        }
        None
    }

    /// The end has come and something is still owed to a log that takes nothing. Better no log than one that says what was taken back.
    fn forget_on_disk(&self) {
        let is_owed = {
            let queue = self.queue.lock();
            queue.let_go || !queue.ops.is_empty()
        };
        if is_owed && self.lock.lock().is_some() {
            let gone =
                segment_files(&self.config.path).and_then(|files| files.values().try_for_each(|path| files::remove_all(path)));
            // A folder that is marked is let go by who opens it next.
            if let Err(error) = gone
                && !self.debt.is_marked()
            {
                tracing::warn!(%error, "the disk tier ends down: what was removed or replaced meanwhile may be there at the next open");
            }
        }
    }
}

impl Writer {
    /// After a failure: can the folder be written again, and is it still ours? `true` if everything in the log was let go.
    pub(super) fn come_back(&mut self) -> io::Result<bool> {
        self.falls = self.shared.falls();
        let mut anew = self.shared.queue.lock().let_go;
        if !self.shared.folder_is_ours()? {
            // Removed, or put aside for another: made anew, empty.
            self.shared.take_folder()?;
            self.shared.forget_mark();
            anew = true;
        }
        if !anew {
            if self.torn {
                self.open.file.set_len(self.open.len())?;
                self.torn = false;
            }
            for segment in self.shared.segments.all() {
                // The system has let go of some of it: what it said is not known any more.
                anew |= segment.is_in_doubt() && !segment.write_again()?;
            }
        }
        if anew {
            self.start_over()?;
        }
        self.shared.probe()?;
        Ok(anew)
    }

    /// Lets everything go: the files, then what is known and owed of them.
    fn start_over(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let folder = &shared.config.path;
        for path in segment_files(folder)?.values() {
            files::remove_all(path)?;
        }
        let open = make_segment(folder, self.open.id.checked_add(1).unwrap_or(1))?;
        let last = {
            let mut queue = shared.queue.lock();
            queue.owe_everything();
            queue.let_go = false;
            queue.last
        };
        shared.index.forget_until(last);
        shared.segments.clear();
        shared.segments.insert(open.clone());
        *shared.directory.lock() = Directory::new(open.id);
        shared.catalogue.retain(vec![open.id]);
        let ledger = Ledger::open(folder, shared.config.notes_budget()).unwrap_or_else(|_| Ledger::empty());
        shared.ledger_is(&ledger);
        *shared.ledger.lock() = ledger;
        (self.records, self.sealed, self.torn, self.log_bytes) = (0, false, false, open.len());
        self.open = open;
        shared.written.fetch_max(last, Ordering::AcqRel);
        Ok(())
    }

    /// The end: what is still owed gets a last chance, and the device is waited for.
    pub(super) fn end(&self) {
        if self.shared.is_down() {
            self.shared.forget_on_disk();
        } else {
            // Says so itself when it fails.
            let _ = self.shared.sync();
        }
    }
}
