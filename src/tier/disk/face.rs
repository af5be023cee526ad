//! The face of the tier: what the engine calls.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::files;
use super::index::{Pending, Place};
use super::segment::{RECORD_HEAD, RecordHead, Segment, key_hash, parse_value, value_len};
use super::shared::holder;
use super::writer;
use super::{DiskConfig, DiskCounts, Removal, Shared};
use crate::clock::Clock;
use crate::entry::{Entry, Header};
use crate::error::{Error, ErrorKind};
use crate::key::{Key, KeyHasher};
use crate::namespace::Namespace;
use crate::tier::{Lookup, TierReport, Usage};

/// How long dropping the last handle waits for the writer.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// The largest record that is read into the thread's own buffer.
const INLINE_BYTES: u64 = 1 << 20;

/// What a read comes to without waiting.
enum Look {
    Done(Lookup),
    /// The record is here, and the device may have to be asked.
    Wait(Arc<Segment>, Place),
}

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
    /// Opens a folder; blocks for as long as that takes. Damage costs entries and is counted, it never fails an open. Where the system
    /// is short of something (file descriptors, memory, space) or the device does not answer, the tier begins down and loses nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] on an impossible capacity, [`ErrorKind::Locked`] if the folder is open elsewhere,
    /// [`ErrorKind::Io`] if it cannot be used.
    pub(crate) fn open(config: DiskConfig, clock: Clock, hasher: KeyHasher) -> Result<Self, Error> {
        config.check()?;
        let mut shared = Shared::new(config, clock, hasher);
        let taken = shared.take_folder();
        match &taken {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::new(
                    ErrorKind::Locked,
                    shared.subject(),
                    format!("is open in another cache{}; close that one or use another folder", holder(&shared.config.path)),
                ));
            }
            Err(_) => {}
            Ok(()) => shared.open_catalogue(),
        }
        let shared = Arc::new(shared);
        let writer = match taken.and_then(|()| shared.recover(true)) {
            Ok(writer) => Some(writer),
            // It says nothing of what is in the folder: read it when it has passed.
            Err(error) if files::is_passing(&error) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                shared.fail(error);
                None
            }
            Err(error) => {
                shared.catalogue.close();
                return Err(Error::io(shared.subject(), error));
            }
        };
        let theirs = shared.clone();
        let spawned = std::thread::Builder::new().name("aurum-disk-writer".into()).spawn(move || writer::run(&theirs, writer));
        spawned.map_err(|error| Error::io(shared.subject(), error))?;
        // From here on, whatever fails, the writer is told to end.
        let disk = Self { _open: Arc::new(Open(shared.clone())), shared };
        let shared = disk.shared.clone();
        let spawned = std::thread::Builder::new().name("aurum-disk-sync".into()).spawn(move || shared.sync_for_ever());
        spawned.map_err(|error| Error::io(disk.shared.subject(), error))?;
        Ok(disk)
    }

    /// The newest value of a key. No thread is changed for what is on its way or in the page cache. Its freshness is not judged, but
    /// what may not even be served stale any more is a miss.
    pub(crate) async fn get(&self, key: &Key<'_>) -> Lookup {
        match self.look(key) {
            Look::Done(lookup) => lookup,
            Look::Wait(segment, place) => self.read_elsewhere(key, segment, place).await,
        }
    }

    /// The same without a future; `None` if the device must be waited for.
    pub(crate) fn get_now(&self, key: &Key<'_>) -> Option<Lookup> {
        match self.look(key) {
            Look::Done(lookup) => Some(lookup),
            Look::Wait(..) => None,
        }
    }

    /// Everything of a read that waits for nothing.
    fn look(&self, key: &Key<'_>) -> Look {
        if let Some(error) = self.shared.trouble() {
            return Look::Done(Lookup::Down(error));
        }
        let clock = &self.shared.clock;
        let place = {
            let mut shard = self.shared.index.shard(key.hash);
            // An empty map is asked nothing: mostly nothing is on its way.
            let pending = if shard.pending.is_empty() { None } else { shard.pending.get(&key.hash) };
            match pending {
                Some(Pending::Put { entry, .. }) if entry.is_of(key) && clock.is_before(entry.stale_until()) => {
                    return Look::Done(Lookup::Hit(entry.clone()));
                }
                Some(_) => return Look::Done(Lookup::Miss),
                // What has ended within the last tick is found out from the record.
                None => shard.touch(key.hash, clock.recent()),
            }
        };
        let Some(place) = place else { return Look::Done(Lookup::Miss) };
        // Dropped between the two looks: evicted.
        let Some(segment) = self.shared.segments.get(place.segment) else { return Look::Done(Lookup::Miss) };
        match self.shared.read_inline(key, &segment, place) {
            Some(lookup) => Look::Done(lookup),
            None => Look::Wait(segment, place),
        }
    }

    /// Reads on a thread that may wait for the device.
    async fn read_elsewhere(&self, key: &Key<'_>, segment: Arc<Segment>, place: Place) -> Lookup {
        let (shared, id, text, hash) = (self.shared.clone(), key.id, key.text.to_owned(), key.hash);
        let read = tokio::task::spawn_blocking(move || {
            let key = Key { id, text: &text, hash };
            let mut bytes = vec![0; place.len as usize];
            shared.counts.device_reads.fetch_add(1, Ordering::Relaxed);
            match segment.file.read_exact_at(&mut bytes, place.offset) {
                Ok(()) => shared.judge(&key, &segment, place, &bytes),
                // Shorter than it was: somebody cut the file.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => shared.judge(&key, &segment, place, &[]),
                Err(error) => {
                    shared.counts.io_errors.fetch_add(1, Ordering::Relaxed);
                    Lookup::Down(Error::io(shared.subject(), error))
                }
            }
        });
        match read.await {
            Ok(lookup) => lookup,
            Err(_) => Lookup::Down(Error::new(
                ErrorKind::TierDown,
                "disk tier",
                "has no thread to read with; the runtime is going down",
            )),
        }
    }

    /// Is there an entry? From memory alone.
    pub(crate) fn contains(&self, key: &Key<'_>) -> bool {
        if self.shared.trouble().is_some() {
            return false;
        }
        let now = self.shared.clock.steady();
        let shard = self.shared.index.shard(key.hash);
        match shard.pending.get(&key.hash) {
            Some(Pending::Put { entry, .. }) => entry.is_of(key) && entry.stale_until() > now,
            Some(Pending::Remove { .. }) => false,
            None => shard.find(key.hash, now).is_some(),
        }
    }

    /// Waits until the write queue has room, or the tier is down and takes nothing.
    pub(crate) async fn room(&self) {
        let shared = &self.shared;
        if !shared.has_room() {
            shared.wait(|| (shared.has_room() || shared.trouble().is_some()).then_some(())).await;
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

    /// Takes a value that memory lets go, if there is room for it at once.
    pub(crate) fn offer(&self, entry: &Entry) -> bool {
        let welcome = self.shared.trouble().is_none() && self.shared.has_room();
        if welcome {
            self.put(entry);
        } else {
            self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        welcome
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
    /// [`ErrorKind::TierDown`] if the log cannot be written; it will be when the tier comes back.
    pub(crate) async fn settled(&self, ticket: u64) -> Result<(), Error> {
        let shared = &self.shared;
        shared
            .wait(|| {
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
    /// [`ErrorKind::TierDown`] or [`ErrorKind::Io`] if it is not.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let last = self.shared.queue.lock().last;
        self.settled(last).await?;
        self.blocking(Shared::sync).await
    }

    /// Writes and syncs what waits, ends the threads and lets the folder go. Again: does nothing.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.shared.begin_close();
        let shared = &self.shared;
        shared.wait(|| shared.queue.lock().ended.then_some(())).await;
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
        let shared = self.shared.clone();
        let _ = tokio::task::spawn_blocking(move || {
            shared.expire();
            shared.look_after_folder();
        })
        .await;
        self.shared.queue.lock().tidy = true;
        self.shared.work.notify_one();
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
        if self.shared.unread.load(Ordering::Acquire) {
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
            let words = match tokio::task::spawn_blocking(listing).await {
                Ok(words) => words.map_err(|error| Error::io(self.shared.subject(), error)),
                Err(_) => return Err(self.no_thread()),
            };
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

    /// The parts, for tests.
    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    /// No more work is taken; what waits is written.
    fn begin_close(&self) {
        self.closed.store(true, Ordering::Release);
        self.queue.lock().closing = true;
        self.work.notify_one();
    }

    /// Reads what is in the page cache, on this thread; `None` = it is not, or the call is not to be had.
    fn read_inline(&self, key: &Key<'_>, segment: &Segment, place: Place) -> Option<Lookup> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        if place.len > INLINE_BYTES {
            return None;
        }
        BUFFER.with_borrow_mut(|buffer| {
            let len = place.len as usize;
            if buffer.len() < len {
                buffer.resize(len.next_power_of_two(), 0);
            }
            self.cached.read(&segment.file, &mut buffer[..len], place.offset)?;
            self.counts.inline_reads.fetch_add(1, Ordering::Relaxed);
            Some(self.judge(key, segment, place, &buffer[..len]))
        })
    }

    /// Bytes from the device are an entry of this key only if everything fits.
    fn judge(&self, key: &Key<'_>, segment: &Segment, place: Place, bytes: &[u8]) -> Lookup {
        let head = RecordHead::parse(bytes, segment.salt, place.offset);
        if let (Some(head), Some(body)) = (&head, bytes.get(RECORD_HEAD..)) {
            match value_of(key, body) {
                Some((header, payload)) => {
                    if let Ok(entry) = Entry::decode_parsed(key, &header, payload, &self.clock, None) {
                        return if self.clock.is_before(entry.stale_until()) { Lookup::Hit(entry) } else { Lookup::Miss };
                    }
                }
                None => {
                    if parse_value(body).is_some_and(|value| head.key_hash == key_hash(value.namespace, value.key)) {
                        // Another key with the same hash.
                        return Lookup::Miss;
                    }
                }
            }
        }
        // Let it go, and say so in the log: an older record of this key must not stand up after a restart.
        self.counts.damaged.fetch_add(1, Ordering::Relaxed);
        self.take_away(key.hash, key.id, key.text, |shard| {
            !shard.pending.contains_key(&key.hash) && shard.is_at(key.hash, place)
        });
        Lookup::Damaged(Error::corrupt("disk record", "is damaged; it was dropped"))
    }
}

/// Header and payload of the body of a record, if it says that it is of this key. Only lengths are checked.
fn value_of<'a>(key: &Key<'_>, body: &'a [u8]) -> Option<(Header, &'a [u8])> {
    let (header, rest) = body.split_first_chunk::<{ Header::LEN }>()?;
    let header = Header::parse(header).ok()?;
    let (name, text) = (key.namespace().name().as_bytes(), key.text.as_bytes());
    if (usize::from(header.namespace_len), usize::from(header.key_len)) != (name.len(), text.len()) {
        return None;
    }
    let rest = rest.strip_prefix(name)?.strip_prefix(text)?;
    let (payload, padding) = rest.split_at_checked(header.payload_len as usize)?;
    (padding.len() < 8).then_some((header, payload))
}
