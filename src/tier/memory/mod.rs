//! The memory tier: the hot set, by bytes.
//!
//! Shards, each a map behind a mutex, with first-in-first-out eviction by bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::entry::Entry;
use crate::key::{Key, KeyHasher};
use crate::tier::Usage;

/// Map and queue, per entry, on top of the entry's own allocation.
const OVERHEAD: u64 = 64;
/// What an entry is assumed to weigh when shards are counted.
const EXPECTED_ENTRY: u64 = 1024;
const MOST_SHARDS: u64 = 16;

/// What became of a [`Memory::put`].
#[derive(Debug)]
pub(crate) struct Put {
    /// Is it held now? Not if it is too big a part of a shard.
    pub(crate) admitted: bool,
    /// The older entry of the same key.
    pub(crate) replaced: Option<Entry>,
    /// What had to leave for it; the caller decides whether it goes to disk.
    pub(crate) evicted: Vec<Entry>,
}

/// The entries of this process, in shards.
pub(crate) struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: KeyHasher,
}

#[derive(Default)]
struct Shard {
    capacity: u64,
    bytes: u64,
    evictions: u64,
    expirations: u64,
    map: HashMap<u64, Vec<Entry>>,
    queue: VecDeque<u64>,
}

fn cost(entry: &Entry) -> u64 {
    entry.footprint() as u64 + OVERHEAD
}

impl Memory {
    /// An empty tier of `capacity` bytes.
    pub(crate) fn new(capacity: u64, _clock: Clock, hasher: KeyHasher) -> Self {
        let shards = (capacity / (256 * EXPECTED_ENTRY)).clamp(1, MOST_SHARDS);
        let shards = 1 << shards.ilog2();
        let shard = || Mutex::new(Shard { capacity: capacity / shards, ..Shard::default() });
        Self { shards: (0..shards).map(|_| shard()).collect(), hasher }
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        &self.shards[(hash >> 48) as usize & (self.shards.len() - 1)]
    }

    /// Reads the entry of `key` in place; a touch. Does not judge its life.
    pub(crate) fn with<R>(&self, key: &Key<'_>, read: impl FnOnce(&Entry) -> R) -> Option<R> {
        self.get(key).map(|entry| read(&entry))
    }

    /// The entry of `key`; a touch. Does not judge its life.
    pub(crate) fn get(&self, key: &Key<'_>) -> Option<Entry> {
        let entry = self.peek(key)?;
        let hits = entry.hits().load(Ordering::Relaxed);
        if hits < 7 {
            entry.hits().store(hits + 1, Ordering::Relaxed);
        }
        Some(entry)
    }

    /// The entry of `key`, untouched.
    pub(crate) fn peek(&self, key: &Key<'_>) -> Option<Entry> {
        self.shard(key.hash).lock().map.get(&key.hash)?.iter().find(|entry| entry.is_of(key)).cloned()
    }

    /// Holds `entry` for `key`, unless it is too big.
    pub(crate) fn put(&self, key: &Key<'_>, entry: Entry) -> Put {
        let mut shard = self.shard(key.hash).lock();
        let replaced = shard.take(key.hash, |old| old.is_of(key));
        let mut evicted = Vec::new();
        if cost(&entry) > shard.capacity / 4 {
            return Put { admitted: false, replaced, evicted };
        }
        shard.bytes += cost(&entry);
        shard.map.entry(key.hash).or_default().push(entry);
        shard.queue.push_back(key.hash);
        shard.shrink(&mut evicted);
        Put { admitted: true, replaced, evicted }
    }

    /// Takes the entry of `key` out.
    pub(crate) fn remove(&self, key: &Key<'_>) -> Option<Entry> {
        self.remove_if(key, |_| true)
    }

    /// Takes the entry of `key` out if `dead` says so.
    pub(crate) fn remove_if(&self, key: &Key<'_>, dead: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let mut shard = self.shard(key.hash).lock();
        let found = shard.map.get(&key.hash)?.iter().find(|entry| entry.is_of(key))?;
        if dead(found) { shard.take(key.hash, |old| old.is_of(key)) } else { None }
    }

    /// Takes out all entries of which `dead` says so.
    pub(crate) fn remove_matching(&self, dead: &mut dyn FnMut(&Entry) -> bool) -> Vec<Entry> {
        let mut gone = Vec::new();
        for shard in &self.shards {
            let entries: Vec<Entry> = shard.lock().map.values().flatten().cloned().collect();
            for entry in entries.into_iter().filter(|entry| dead(entry)) {
                gone.extend(self.take_same(shard, &entry));
            }
        }
        gone
    }

    /// Takes out entries that may not be served any more, even as stale, at `now` (steady milliseconds); at most `limit`.
    pub(crate) fn expire(&self, now: u64, limit: usize) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            let dead = |entry: &&Entry| entry.stale_until() <= now;
            let entries: Vec<Entry> = shard.lock().map.values().flatten().filter(dead).take(limit - count).cloned().collect();
            for entry in entries {
                if self.take_same(shard, &entry).is_some() {
                    shard.lock().expirations += 1;
                    count += 1;
                }
            }
        }
        count
    }

    fn take_same(&self, shard: &Mutex<Shard>, entry: &Entry) -> Option<Entry> {
        let hash = self.hasher.hash(entry.namespace_id(), entry.key());
        shard.lock().take(hash, |old| std::ptr::eq(old.payload(), entry.payload()))
    }

    /// Up to `limit` entries, the most often read first.
    pub(crate) fn hottest(&self, limit: usize) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().map.values().flatten().cloned());
        }
        all.sort_by_key(|entry| std::cmp::Reverse(entry.hits().load(Ordering::Relaxed)));
        all.truncate(limit);
        all
    }

    /// Changes the budget; returns what had to leave.
    pub(crate) fn resize(&self, capacity: u64) -> Vec<Entry> {
        let mut evicted = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.capacity = capacity / self.shards.len() as u64;
            shard.shrink(&mut evicted);
        }
        evicted
    }

    /// What it holds.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for shard in &self.shards {
            let shard = shard.lock();
            usage.entries += shard.queue.len() as u64;
            usage.bytes += shard.bytes;
            usage.capacity += shard.capacity;
            usage.evictions += shard.evictions;
            usage.expirations += shard.expirations;
        }
        usage
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn validate(&self) {
        for shard in &self.shards {
            let shard = shard.lock();
            assert_eq!(shard.bytes, shard.map.values().flatten().map(cost).sum::<u64>());
            assert_eq!(shard.queue.len(), shard.map.values().map(Vec::len).sum::<usize>());
            assert!(shard.bytes <= shard.capacity);
        }
    }
}

impl Shard {
    fn take(&mut self, hash: u64, same: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let list = self.map.get_mut(&hash)?;
        let at = list.iter().position(same)?;
        let entry = list.swap_remove(at);
        if list.is_empty() {
            self.map.remove(&hash);
        }
        if let Some(at) = self.queue.iter().position(|queued| *queued == hash) {
            self.queue.remove(at);
        }
        self.bytes -= cost(&entry);
        Some(entry)
    }

    fn shrink(&mut self, evicted: &mut Vec<Entry>) {
        while self.bytes > self.capacity {
            let Some(&hash) = self.queue.front() else { return };
            let Some(entry) = self.take(hash, |_| true) else { return };
            self.evictions += 1;
            evicted.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Meta;
    use crate::namespace::Namespace;
    use crate::policy::TtlPolicy;

    fn entry(key: &Key<'_>, stale_until: u64) -> Entry {
        let meta = Meta { policy: TtlPolicy::Medium, fingerprint: 1, created: 0, expires: stale_until, stale_until, stamp: 0 };
        Entry::new(key, &meta, &[7; 100])
    }

    #[test]
    fn what_is_put_is_found_until_it_is_evicted_removed_or_expired() {
        let hasher = KeyHasher::random();
        let memory = Memory::new(10_000, Clock::manual(), hasher.clone());
        let mut evicted = 0;
        for n in 0..100 {
            let text = format!("k{n}");
            let key = hasher.key(Namespace::CURVES, &text).unwrap();
            let put = memory.put(&key, entry(&key, 100 + n));
            assert!(put.admitted && put.replaced.is_none());
            evicted += put.evicted.len() as u64;
            assert!(memory.with(&key, |found| found.is_of(&key)).unwrap());
            memory.validate();
        }
        assert_eq!(memory.usage().evictions, evicted);
        assert_eq!(memory.usage().entries + evicted, 100);
        let key = hasher.key(Namespace::CURVES, "k99").unwrap();
        assert!(memory.remove(&key).is_some() && memory.peek(&key).is_none());
        assert_eq!(memory.expire(198, 1_000) as u64, 99 - evicted);
        assert_eq!(memory.usage().entries, 0);
    }
}
