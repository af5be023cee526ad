//! Reading: index, then the page cache, then, if it must be, the device.
//!
//! A record in the page cache is read on the caller's own thread (`preadv2` with `RWF_NOWAIT`) and costs no future; what is not
//! there, and everything where the system cannot tell, goes to a thread that may wait. An absent key costs no call of the system.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::face::Disk;
use super::index::{Pending, Place};
use super::segment::{RECORD_HEAD, RecordHead, Segment, key_hash, parse_value};
use crate::entry::{Entry, Header};
use crate::error::Error;
use crate::key::Key;
use crate::tier::Lookup;

/// The largest record that is read into the thread's own buffer.
const INLINE_BYTES: u64 = 1 << 20;

/// What a read comes to without waiting.
enum Look {
    Done(Lookup),
    /// The record is here, and the device may have to be asked.
    Wait(Arc<Segment>, Place),
}

impl Disk {
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
        if let Some(error) = self.shared().trouble() {
            return Look::Done(Lookup::Down(error));
        }
        let clock = &self.shared().clock;
        let place = {
            let mut shard = self.shared().index.shard(key.hash);
            // An empty map is asked nothing: mostly nothing is on its way.
            let pending = if shard.pending.is_empty() { None } else { shard.pending.get(&key.hash) };
            match pending {
                Some(Pending::Put { entry, .. }) if entry.is_of(key) && clock.is_before(entry.stale_until()) => {
                    return Look::Done(Lookup::Hit(entry.clone()));
                }
                Some(_) => return Look::Done(Lookup::Miss),
                None if self.shared().is_unread() => return Look::Done(Lookup::Down(self.shared().reading())),
                // What has ended within the last tick is found out from the record.
                None => shard.touch(key.hash, clock.recent()),
            }
        };
        let Some(place) = place else { return Look::Done(Lookup::Miss) };
        let segments = self.shared().segments.listed();
        // Dropped between the two looks: evicted.
        let Some(segment) = segments.get(place.segment) else { return Look::Done(Lookup::Miss) };
        match self.shared().read_inline(key, segment, place) {
            Some(lookup) => Look::Done(lookup),
            None => Look::Wait(segment.clone(), place),
        }
    }

    /// Reads on a thread that may wait for the device, for a bounded time.
    async fn read_elsewhere(&self, key: &Key<'_>, segment: Arc<Segment>, place: Place) -> Lookup {
        let (shared, id, text, hash) = (self.shared().clone(), key.id, key.text.to_owned(), key.hash);
        let (patience, threads) = (&self.shared().patience, &self.shared().threads);
        let read = patience.reads.ask(threads, move || {
            let key = Key { id, text: &text, hash };
            let mut bytes = vec![0; place.len as usize];
            shared.counts.device_reads.fetch_add(1, Ordering::Relaxed);
            match segment.file.read_exact_at(&mut bytes, place.offset) {
                Ok(()) => shared.judge(&key, &segment, place, &mut bytes),
                // Shorter than it was: somebody cut the file.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => shared.judge(&key, &segment, place, &mut []),
                Err(error) => {
                    shared.counts.io_errors.fetch_add(1, Ordering::Relaxed);
                    Lookup::Down(Error::io(shared.subject(), error))
                }
            }
        });
        read.await.unwrap_or_else(Lookup::Down)
    }
}

impl Shared {
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
            Some(self.judge(key, segment, place, &mut buffer[..len]))
        })
    }

    /// Bytes from the device are an entry of this key only if everything fits. They are used up.
    fn judge(&self, key: &Key<'_>, segment: &Segment, place: Place, bytes: &mut [u8]) -> Lookup {
        let head = RecordHead::parse(bytes, segment.salt, place.offset);
        if let (Some(head), Some(body)) = (&head, bytes.get_mut(RECORD_HEAD..)) {
            match header_of(key, body) {
                Some((header, payload)) => {
                    let verified = header.verify_whole(&mut body[..payload.end]);
                    let entry = verified.and_then(|()| Entry::revive(key, &header, &body[payload], &self.clock, None));
                    if let Ok(entry) = entry {
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

/// The header of the body of a record and where in the body its payload is, if it says that it is of this key. Only lengths are checked.
fn header_of(key: &Key<'_>, body: &[u8]) -> Option<(Header, Range<usize>)> {
    let (bytes, rest) = body.split_first_chunk::<{ Header::LEN }>()?;
    let header = Header::parse(bytes).ok()?;
    let (name, text) = (key.namespace().name().as_bytes(), key.text.as_bytes());
    if (usize::from(header.namespace_len), usize::from(header.key_len)) != (name.len(), text.len()) {
        return None;
    }
    let rest = rest.strip_prefix(name)?.strip_prefix(text)?;
    let (start, len) = (body.len() - rest.len(), header.payload_len as usize);
    let padding = rest.len().checked_sub(len)?;
    (padding < 8).then_some((header, start..start + len))
}
