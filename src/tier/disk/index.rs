//! Where a key's newest record is: 24 bytes an entry, and the entries that are still on their way.
//!
//! The [`table`] is cut into shards under short locks. It knows a key by its 64-bit keyed hash; the key itself is compared in the
//! record. Two keys with one hash displace each other, which costs a miss and never a wrong value.
//!
//! `pending` of a shard holds what the writer has not appended yet. It stands before the table: a queued value is
//! read from it, a queued removal hides what the table says. The sequence number tells the writer, when it is done
//! with a record, whether that record is still the newest word on its key.

mod table;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::table::{READ, Slot, Table};
use crate::entry::Entry;
use crate::namespace::NamespaceId;

pub(super) const SHARDS: usize = 64;

/// Number of the shard of a hash.
pub(super) fn shard_of(hash: u64) -> usize {
    (hash >> 58) as usize
}

/// A place in the log. Offsets and lengths are multiples of 8 and kept in such units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u64,
    /// Bytes of the record, head and padding included.
    pub(super) len: u64,
}

/// What waits for the writer.
pub(super) enum Pending {
    Put { sequence: u64, entry: Entry },
    Remove { sequence: u64, id: NamespaceId, key: Arc<str> },
}

impl Pending {
    pub(super) fn sequence(&self) -> u64 {
        match self {
            Self::Put { sequence, .. } | Self::Remove { sequence, .. } => *sequence,
        }
    }
}

/// The shards.
pub(super) struct Index {
    shards: Box<[Mutex<Shard>]>,
}

/// A part of the index under one lock.
#[derive(Default)]
pub(super) struct Shard {
    table: Table,
    pub(super) pending: HashMap<u64, Pending, foldhash::fast::RandomState>,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(hash)].lock()
    }

    /// Each shard in turn, locked one at a time.
    pub(super) fn each(&self, mut visit: impl FnMut(&mut Shard)) {
        for shard in &self.shards {
            visit(&mut shard.lock());
        }
    }

    /// Entries in the log and on their way; a key that is both counts once or twice.
    pub(super) fn len(&self) -> u64 {
        let mut entries = 0;
        self.each(|shard| entries += shard.table.len as u64);
        entries
    }

    /// Bytes of memory of the tables.
    #[cfg(test)]
    pub(super) fn memory(&self) -> u64 {
        let mut bytes = 0;
        self.each(|shard| bytes += shard.table.bytes());
        bytes
    }

    /// The log is going to be loaded into the empty index.
    pub(super) fn load(&self) {
        self.each(|shard| shard.table.load());
    }

    /// It is.
    pub(super) fn settle(&self) {
        self.each(|shard| shard.table.settle());
    }

    /// Forgets all that is in the log.
    pub(super) fn clear(&self) {
        self.each(|shard| shard.table = Table::default());
    }

    /// Forgets all that was said up to a sequence, in the log and on its way.
    pub(super) fn forget_until(&self, sequence: u64) {
        self.each(|shard| {
            shard.table = Table::default();
            shard.pending.retain(|_, pending| pending.sequence() > sequence);
        });
    }

    /// The newest removal that is on its way to the log; 0 = none is.
    pub(super) fn newest_removal(&self) -> u64 {
        let mut newest = 0;
        self.each(|shard| {
            for pending in shard.pending.values() {
                if let Pending::Remove { sequence, .. } = pending {
                    newest = newest.max(*sequence);
                }
            }
        });
        newest
    }
}

/// Seconds for [`Shard::insert`]: the first whole second at which `stale_until_ms` is over.
pub(super) fn deadline(stale_until_ms: u64) -> u32 {
    u32::try_from(stale_until_ms.div_ceil(1000)).unwrap_or(u32::MAX)
}

impl Shard {
    /// Where the newest record is, unless its life is over.
    pub(super) fn find(&self, hash: u64, now_ms: u64) -> Option<Place> {
        let slot = self.table.get(self.table.find(hash)?);
        (!slot.is_over(now_ms)).then(|| slot.place())
    }

    /// The same, and notes that it was read.
    pub(super) fn touch(&mut self, hash: u64, now_ms: u64) -> Option<Place> {
        let at = self.table.find(hash)?;
        let slot = self.table.get_mut(at);
        if slot.is_over(now_ms) {
            return None;
        }
        slot.len |= READ;
        Some(slot.place())
    }

    /// Is this very record the newest one of its key?
    pub(super) fn is_at(&self, hash: u64, place: Place) -> bool {
        self.table.find(hash).is_some_and(|at| self.table.get(at).place() == place)
    }

    pub(super) fn insert(&mut self, hash: u64, place: Place, deadline: u32) {
        debug_assert!(place.len > 0 && place.len.is_multiple_of(8) && place.offset.is_multiple_of(8));
        let slot =
            Slot { hash, segment: place.segment, offset: (place.offset / 8) as u32, len: (place.len / 8) as u32, deadline };
        self.table.insert(slot);
    }

    /// Points to the copy of a record, if the original is still the newest one of its key. The copy begins unread.
    pub(super) fn move_to(&mut self, hash: u64, from: Place, to: Place) -> bool {
        let Some(at) = self.table.find(hash) else { return false };
        let slot = self.table.get_mut(at);
        if slot.place() != from {
            return false;
        }
        (slot.segment, slot.offset, slot.len) = (to.segment, (to.offset / 8) as u32, (to.len / 8) as u32);
        true
    }

    /// Forgets the newest record; says whether there was one.
    pub(super) fn remove(&mut self, hash: u64) -> bool {
        self.table.find(hash).is_some_and(|at| {
            self.table.remove(at);
            true
        })
    }

    /// Drops what is past its time; how many.
    pub(super) fn expire(&mut self, now_ms: u64) -> u64 {
        self.table.retain(|slot| !slot.is_over(now_ms))
    }

    /// Drops what is in segments up to `last`; how many.
    pub(super) fn drop_segments(&mut self, last: u32) -> u64 {
        self.table.retain(|slot| slot.segment > last)
    }

    /// The oldest segment that an entry is in.
    pub(super) fn oldest_segment(&self) -> Option<u32> {
        self.table.iter().map(|slot| slot.segment).min()
    }

    /// Hash and place of what was read in `segment` since it was written there.
    pub(super) fn read_in(&self, segment: u32, out: &mut Vec<(u64, Place)>) {
        let read = self.table.iter().filter(|slot| slot.len & READ != 0 && slot.segment == segment);
        out.extend(read.map(|slot| (slot.hash, slot.place())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(n: u64) -> Place {
        Place { segment: (n % 7) as u32, offset: n * 8, len: 64 }
    }

    #[test]
    fn the_table_agrees_with_a_map_under_inserts_and_removals() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut shard, mut model) = (Shard::default(), HashMap::new());
        for step in 0..50_000 {
            // Few high bits: long runs of neighbours.
            let hash = (rng.u64(0..600) << 50) | rng.u64(0..2);
            if rng.u8(0..3) == 0 {
                assert_eq!(shard.remove(hash), model.remove(&hash).is_some());
            } else {
                shard.insert(hash, place(step), u32::MAX);
                model.insert(hash, place(step));
            }
            if step % 5000 == 0 {
                shard.drop_segments(1);
                model.retain(|_, place| place.segment > 1);
            }
            assert_eq!(shard.find(hash, 0), model.get(&hash).copied());
        }
        assert_eq!(shard.table.len, model.len());
        for (hash, place) in model {
            assert_eq!(shard.find(hash, 0), Some(place));
        }
    }

    #[test]
    fn an_entry_is_gone_when_its_time_is_over() {
        let mut shard = Shard::default();
        shard.insert(1, place(1), deadline(4_500));
        assert!(shard.find(1, 4_999).is_some());
        assert!(shard.find(1, 5_000).is_none());
        assert_eq!(shard.expire(5_000), 1);
    }

    #[test]
    fn a_copy_takes_the_place_only_of_the_record_it_was_made_of() {
        let mut shard = Shard::default();
        shard.insert(1, place(1), u32::MAX);
        assert!(!shard.move_to(1, place(2), place(3)));
        assert!(shard.move_to(1, place(1), place(3)));
        assert_eq!(shard.find(1, 0), Some(place(3)));
    }

    #[test]
    fn an_entry_costs_at_most_36_bytes() {
        for loaded in [false, true] {
            let (index, mut rng, mut hashes) = (Index::new(), fastrand::Rng::with_seed(1), Vec::new());
            if loaded {
                index.load();
            }
            for n in 0..120_000 {
                let hash = rng.u64(..);
                index.shard(hash).insert(hash, place(n), u32::MAX);
                hashes.push(hash);
            }
            if loaded {
                index.settle();
            }
            assert!(index.memory() <= 36 * index.len(), "{}", index.memory() / index.len());
            for (n, hash) in hashes.into_iter().enumerate() {
                assert_eq!(index.shard(hash).find(hash, 0), Some(place(n as u64)));
            }
        }
    }
}
