//! The face of the tier: what the engine calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::index::Pending;
use super::segment::value_len;
use super::{DiskCounts, Removal, Shared};
use crate::entry::Entry;
use crate::error::Error;
use crate::key::Key;
use crate::namespace::Namespace;
use crate::policy::placement::Admission;
use crate::tier::{TierReport, Usage};

/// How long dropping the last handle waits for the writer.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// The disk tier. Clones are the same tier.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(super) shared: Arc<Shared>,
    _open: Arc<Open>,
}

/// Closes the tier when the last handle goes.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.begin_close();
        self.0.wait_ended(DROP_WAIT);
    }
}

impl Disk {
    /// The one handle of a tier, which other handles are clones of.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { _open: Arc::new(Open(shared.clone())), shared }
    }

    /// Is there an entry? From memory alone.
    pub(crate) fn contains(&self, key: &Key<'_>) -> bool {
        if self.shared.trouble().is_some() {
            return false;
        }
        // What ended within the last tick is not worth a demotion either.
        let now = self.shared.clock.recent();
        let shard = self.shared.index.shard(key.hash);
        match shard.pending.get(&key.hash) {
            Some(Pending::Put { entry, .. }) => entry.is_of(key) && entry.stale_until() > now,
            Some(Pending::Remove { .. }) => false,
            None => !self.shared.is_unread() && shard.find(key.hash, now).is_some(),
        }
    }

    /// May there be an entry? While the tier is down or being read, nobody can say that there is none.
    pub(crate) fn may_hold(&self, key: &Key<'_>) -> bool {
        self.shared.is_down() || self.shared.is_unread() || self.contains(key)
    }

    /// May a write come in, or must it wait for [`room`](Self::room)?
    pub(crate) fn has_room(&self) -> bool {
        self.shared.has_room()
    }

    /// Waits until the write queue has room, or the tier is down and takes nothing.
    pub(crate) async fn room(&self) {
        let shared = &self.shared;
        if !shared.has_room() {
            shared.wait_for_writer(|| (shared.has_room() || shared.trouble().is_some()).then_some(())).await;
        }
    }

    /// Takes a value. Never waits; readable at once. What is larger than half a segment is refused and counted, and
    /// takes the older value of its key away; so does any value while the tier is down.
    pub(crate) fn put(&self, entry: &Entry) {
        let (id, key) = (entry.namespace_id(), entry.key());
        let hash = self.shared.hasher.hash(id, key);
        if self.shared.closed.load(Ordering::Acquire) {
            return;
        }
        let len = value_len(id.namespace().name(), key, entry.payload().len());
        let too_large = len > self.shared.config.segment() / 2;
        if too_large {
            self.shared.counts.too_large.fetch_add(1, Ordering::Relaxed);
        }
        if too_large || self.shared.is_down() {
            self.shared.take_away(hash, id, key, |_| true);
        } else {
            self.shared.accept(hash, entry);
        }
    }

    /// Takes a value that memory lets go, if there is room for it at once and it is worth a write: one that was not `reused` may only take what
    /// nobody else needs.
    pub(crate) fn offer(&self, entry: &Entry, reused: bool) -> bool {
        let (shared, counts) = (&self.shared, &self.shared.counts);
        if shared.trouble().is_some() || !shared.has_room() {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if !reused && shared.config.admission == Admission::Reused && !shared.has_room_to_spare() {
            counts.not_admitted.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.put(entry);
        true
    }

    /// Removes a key; no later read sees it. `settled` with the ticket says when that outlives a crash.
    pub(crate) fn remove(&self, key: &Key<'_>) -> Removal {
        match self.shared.take_away(key.hash, key.id, key.text, |_| true) {
            Some((existed, ticket)) => Removal { existed, ticket },
            None => Removal { existed: false, ticket: 0 },
        }
    }

    /// Waits until the record of this ticket, and all before it, are appended to the log.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TierDown`](crate::ErrorKind::TierDown) if the log cannot be written; it will be when the tier comes back.
    pub(crate) async fn settled(&self, ticket: u64) -> Result<(), Error> {
        let shared = &self.shared;
        shared
            .wait_for_writer(|| {
                if shared.written.load(Ordering::Acquire) >= ticket {
                    return Some(Ok(()));
                }
                if shared.queue.lock().ended { Some(Err(Error::closed())) } else { shared.down_reason().map(Err) }
            })
            .await
    }

    /// Everything put so far has a lower position than this.
    pub(crate) fn position(&self) -> u64 {
        self.shared.queue.lock().last + 1
    }

    /// All that was put before is on the device when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TierDown`](crate::ErrorKind::TierDown) or [`ErrorKind::Io`](crate::ErrorKind::Io) if it is not.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let last = self.shared.queue.lock().last;
        self.settled(last).await?;
        self.shared.synced().await
    }

    /// Writes and syncs what waits, ends the threads and lets the folder go. Again: does nothing. A writer that the device keeps
    /// is not waited for, and ends when the device lets it.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.shared.begin_close();
        let shared = &self.shared;
        shared.wait_for_writer(|| (shared.queue.lock().ended || shared.patience.is_stalled()).then_some(())).await;
        shared.down_reason().map_or(Ok(()), Err)
    }

    /// Upkeep: drops what is past its time, and tries to come back if the tier is down.
    pub(crate) async fn maintain(&self) {
        if self.shared.closed.load(Ordering::Acquire) {
            return;
        }
        if self.shared.is_down() {
            self.shared.queue.lock().retry = true;
            self.shared.work.notify_one();
        }
        // What is missing is said by the report.
        if self.shared.start_threads().is_ok() {
            self.shared.kept_up().await;
        }
        self.shared.queue.lock().tidy = true;
        self.shared.work.notify_one();
    }

    /// Is what the folder holds not known yet, and will be?
    pub(crate) fn is_being_read(&self) -> bool {
        self.shared.is_unread() && self.shared.trouble().is_none()
    }

    pub(crate) fn report(&self) -> TierReport {
        self.shared.report()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.shared.usage()
    }

    pub(crate) fn counts(&self) -> DiskCounts {
        self.shared.counted()
    }

    /// Removes the entries of a namespace (or of all) that match and were put before `before`; the hashes of their keys. The
    /// removals are in the log when this returns.
    ///
    /// # Errors
    ///
    /// As [`settled`](Self::settled), or if a segment could not be read.
    pub(crate) async fn remove_matching(
        &self,
        namespace: Option<Namespace>,
        pattern: Option<&(dyn Fn(&str) -> bool + Send + Sync)>,
        literal_prefix: &str,
        before: u64,
    ) -> Result<Vec<u64>, Error> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        self.shared.known().await;
        if self.shared.is_unread() {
            // What is in the log is not known yet, so all of it goes.
            let error = self.shared.down_reason().unwrap_or_else(Error::closed);
            self.shared.let_everything_go(&error);
            return Err(error);
        }
        let mut sweep = super::sweep::Sweep::new(self.shared.clone(), namespace, literal_prefix, before);
        sweep.take_pending(pattern);
        // What was written before is in one of these, or was carried over meanwhile.
        let newest = self.shared.segments.newest();
        let mut last = None;
        while let Some(segment) = self.shared.segments.after(last).filter(|segment| Some(segment.id) <= newest) {
            last = Some(segment.id);
            // The keys are read on a thread that may wait; the pattern, which is borrowed, is asked here.
            let listing = sweep.list(segment);
            let words = self.shared.patience.notes.ask(&self.shared.threads, listing).await;
            let words = words.and_then(|words| words.map_err(|error| Error::io(self.shared.subject(), error)));
            let words = words.inspect_err(|error| self.shared.let_everything_go(error))?;
            for chunk in words.chunks(256) {
                sweep.take(chunk, pattern);
                tokio::task::yield_now().await;
            }
        }
        sweep.take_carried(pattern);
        // Not only our own removals: what another call found first is gone from the index, but maybe not yet from the log.
        self.settled(self.shared.index.newest_removal()).await?;
        Ok(std::mem::take(&mut sweep.removed))
    }

    /// The parts, for the verbs in files of their own and for tests.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    /// No more work is taken; what waits is written.
    fn begin_close(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Release);
        self.queue.lock().closing = true;
        self.work.notify_one();
        self.end_without_writer();
    }
}
