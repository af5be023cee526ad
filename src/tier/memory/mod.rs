//! The memory tier: the hot set, by bytes, found without a lock.
//!
//! Up to 64 shards, each with a [`table`] that readers walk lock-free and one writer at a time edits, two FIFO [`queue`]s that are also its timer,
//! the [`ghost`]s of what left, and the [`policy`] (twin-ghost; its sources and what was rejected are told there). A hit pins the
//! epoch, walks a word or two, compares the whole key and bumps a counter that stops at 7: a hot entry is only read.
//!
//! **The budget** counts, for every entry, its allocation (head, key, payload) rounded as the allocator does, and 31 bytes for table, queue
//! and ghosts; where those are larger than that (in tiny shards, or after the entries became fewer), what they really are.
//! A table that grows has the old and the new array of a sixteenth of its entries for a hundred puts or so; both are counted, the new one before it is written.
//! What the allocator wastes by fragmentation is not.
//!
//! **Values that left but are still held** by a reader (`get`) keep their memory. They are counted in [`Memory::usage`] and against
//! the budget (up to half of it) until the last holder is gone; each write to the shard and each expiry looks whether that is so.
//! An entry that nobody holds waits in its shard's [`yard`] until all readers have left that were inside when its batch of 64, or of
//! 32 KiB, was full; then the shard's next writers free it, a few each. A closure of [`Memory::with`] that takes long therefore holds
//! back the freeing for everybody.
//!
//! **Expiry** only frees space here; who reads judges. An entry that may be served stale stays until that ends too.
//! What was removed or has expired leaves no ghost and casts no vote.

mod counts;
mod edit;
mod evict;
mod few;
mod ghost;
mod grow;
mod pin;
mod policy;
mod queue;
mod shard;
mod sync;
#[allow(unsafe_code)] // one of the two files that may; see its head
mod table;
mod word;
mod words;
mod yard;

#[cfg(test)]
#[allow(unsafe_code)] // stands in for crossbeam's epoch
#[allow(dead_code, reason = "the table is read a second time; the model uses a part of it")]
mod model;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use self::few::Few;
use self::ghost::Side;
use self::pin::{Pin, pin};
use self::policy::TOP;
use self::queue::Seconds;
use self::shard::{Common, LOOKS, Shard, State, cost};
use self::table::{Freed, Seen, Table};
use crate::clock::Clock;
use crate::entry::Entry;
use crate::key::{Key, KeyHasher};
use crate::tier::Usage;

/// Bytes of a shard, where there are enough for more than one. Only writers of one shard wait for each other, so shards may be large; and
/// they must be, for the policy learns from what a shard evicts: this is 512 entries of 16 KiB. (In simulation less than 64 entries a
/// shard cost 0.4 points of hit ratio and more, 256 and above nothing.)
const SHARD_BYTES: u64 = 8 << 20;
/// Shards at most.
const MOST_SHARDS: u64 = 64;

/// What had to leave; an insert puts out one or two as a rule.
pub(crate) type Evicted = Few<Gone>;

/// An entry that was evicted.
#[derive(Debug)]
pub(crate) struct Gone {
    /// Of its key.
    pub(crate) hash: u64,
    /// The entry, if the tier was made to return it.
    pub(crate) entry: Option<Entry>,
}

/// What became of a [`Memory::put`].
#[derive(Debug)]
pub(crate) struct Put {
    /// Is it held now? Not if it is more than a quarter of its shard.
    pub(crate) admitted: bool,
    /// What had to leave for it; the caller decides whether it goes to disk. Entries whose life was over are not among them.
    pub(crate) evicted: Evicted,
}

/// Was this entry, which was evicted, asked for while it was here? What came to the main queue was, there or shortly before.
pub(crate) fn was_reused(entry: &Entry) -> bool {
    entry.hits().load(Ordering::Relaxed) > 0 || entry.place().load(Ordering::Relaxed) >> 31 == 1
}

/// The entries of this process, in shards, which stand first: see `Engine`.
#[repr(C)]
pub(crate) struct Memory {
    shards: Box<[CachePadded<Table<State>>]>,
    common: Common,
    /// What was configured, in bytes.
    capacity: AtomicU64,
    /// The shard at which the next expiry begins.
    next: AtomicUsize,
}

impl Memory {
    /// An empty tier of `capacity` bytes. Where nobody would take what is evicted, it need not be returned.
    pub(crate) fn new(capacity: u64, clock: Clock, hasher: KeyHasher, returns: bool) -> Self {
        let shards = (capacity / SHARD_BYTES).clamp(1, MOST_SHARDS);
        let shards = 1 << shards.ilog2();
        let seconds = Seconds { born: clock.steady() };
        Self {
            shards: (0..shards).map(|_| CachePadded::new(Table::new(State::new(capacity / shards, seconds)))).collect(),
            common: Common { clock, hasher, seconds, returns },
            capacity: AtomicU64::new(capacity),
            next: AtomicUsize::new(0),
        }
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Table<State> {
        // The table and the ghosts use the lower bits.
        &self.shards[(hash >> 58) as usize & (self.shards.len() - 1)]
    }

    /// Somebody is going to look for this key: fetches what that reads first. To be said as early as the hash is known.
    #[inline]
    pub(crate) fn expect(&self, key: &Key<'_>) {
        self.shard(key.hash).expect(key.hash);
    }

    /// Somebody is going to put this key.
    #[inline]
    pub(crate) fn expect_put(&self, key: &Key<'_>) {
        self.shard(key.hash).expect_put(key.hash);
    }

    /// Reads the entry of `key` in place: no lock, no count of references. A touch. Does not judge its life. Keep `read` short.
    /// Sooner done if it was [expected](Self::expect).
    #[inline]
    pub(crate) fn with<R>(&self, key: &Key<'_>, read: impl FnOnce(&Entry) -> R) -> Option<R> {
        let table = self.shard(key.hash);
        let pin = pin();
        let entry = table.find(key, &pin)?;
        let hits = entry.hits().load(Ordering::Relaxed);
        if hits < TOP {
            // Two readers may bump at once and lose one; the policy does not mind.
            entry.hits().store(hits + 1, Ordering::Relaxed);
        }
        Some(read(&entry))
    }

    /// The entry of `key`. A touch. Does not judge its life.
    #[inline]
    pub(crate) fn get(&self, key: &Key<'_>) -> Option<Entry> {
        self.expect(key);
        self.with(key, Entry::clone)
    }

    /// The entry of `key`, untouched.
    pub(crate) fn peek(&self, key: &Key<'_>) -> Option<Entry> {
        let pin = pin();
        self.shard(key.hash).find(key, &pin).map(|entry| Entry::clone(&entry))
    }

    /// Would an entry of a key with this hash find room, so that nothing has to leave? As it was a moment ago.
    pub(crate) fn has_room(&self, hash: u64, entry: &Entry) -> bool {
        self.shard(hash).side.spare.load(Ordering::Relaxed) >= cost(entry)
    }

    /// Holds `entry` for `key`, unless it is too big; then an older one of the key goes. An overwrite keeps place and hits of the older one.
    pub(crate) fn put(&self, key: &Key<'_>, entry: Entry) -> Put {
        let mut evicted = Evicted::new();
        Put { admitted: self.put_out(key, entry, &mut evicted), evicted }
    }

    /// The same, which adds what had to leave to `evicted`; is the entry held now?
    #[inline]
    pub(crate) fn put_out(&self, key: &Key<'_>, entry: Entry, evicted: &mut Evicted) -> bool {
        self.edit(self.shard(key.hash), |shard| shard.put(key, entry, evicted))
    }

    /// Takes the entry of `key` out; no ghost, no vote.
    pub(crate) fn remove(&self, key: &Key<'_>) -> Option<Entry> {
        self.remove_if(key, |_| true)
    }

    /// Takes the entry of `key` out if `dead` says so. `dead` is asked under the shard's lock, so that it judges what is removed.
    pub(crate) fn remove_if(&self, key: &Key<'_>, dead: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        let pin = pin();
        let table = self.shard(key.hash);
        table.find(key, &pin)?;
        self.edit(table, |shard| {
            let found = shard.edit.find(key, &pin)?;
            if dead(&found) { shard.remove(&found, key.hash) } else { None }
        })
    }

    /// Takes out all entries of which `dead` says so, in steps. What is put meanwhile may or may not be asked about.
    pub(crate) fn remove_matching(&self, dead: &mut dyn FnMut(&Entry) -> bool) -> Vec<Entry> {
        let mut gone = Vec::new();
        for table in &self.shards {
            let before = gone.len();
            self.sweep(table, &mut |pin, _, seen| {
                seen.retain(|entry| dead(entry));
                if seen.is_empty() {
                    return;
                }
                self.edit(table, |shard| {
                    for entry in seen.drain(..) {
                        let key = Key { id: entry.namespace_id(), text: entry.key(), hash: self.common.hash(&entry) };
                        // What was written over it meanwhile has not been judged yet.
                        let now = shard.edit.find(&key, pin).filter(|now| same(now, &entry) || dead(now));
                        gone.extend(now.and_then(|now| shard.remove(&now, key.hash)));
                    }
                });
            });
            for side in [Side::Small, Side::Main] {
                self.tidy(table, side, gone.len() - before);
            }
        }
        gone
    }

    /// Frees entries that may not be served any more, even as stale, at `now` (steady milliseconds); at most `limit`. Returns how many.
    pub(crate) fn expire(&self, now: u64, limit: usize) -> usize {
        let (mut gone, shards) = (0, self.shards.len());
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        for table in (0..shards).map(|at| &self.shards[start.wrapping_add(at) % shards]) {
            for side in [Side::Small, Side::Main] {
                let (mut next, before) = (Some(0), gone);
                while let Some(from) = next
                    && gone < limit
                {
                    let count;
                    (count, next) = self.edit(table, |shard| {
                        let (count, next) = shard.expire(now, limit - gone, side, from);
                        shard.state.expirations += count as u64;
                        (count, next)
                    });
                    gone += count;
                }
                self.tidy(table, side, gone - before);
            }
            while self.edit(table, |shard| shard.settle()) {}
            self.edit(table, |shard| shard.edit.close_batch());
        }
        // Idle services have nobody else who would free the last of what they retired.
        for _ in 0..3 {
            pin().flush();
        }
        gone
    }

    /// Up to `limit` entries, hottest first: by hits, and of equal ones first the main queue's.
    pub(crate) fn hottest(&self, limit: usize) -> Vec<Entry> {
        let mut ranks: [Vec<Entry>; 2 * (TOP as usize + 1)] = Default::default();
        for table in &self.shards {
            self.sweep(table, &mut |_, side, seen| {
                for entry in seen.drain(..) {
                    let hits = entry.hits().load(Ordering::Relaxed).min(TOP);
                    let rank = 2 * usize::from(TOP - hits) + usize::from(side == Side::Small);
                    if ranks[..=rank].iter().map(Vec::len).sum::<usize>() < limit {
                        ranks[rank].push(Entry::clone(&entry));
                    }
                }
            });
        }
        ranks.into_iter().flatten().take(limit).collect()
    }

    /// Changes the budget; returns what had to leave. The number of shards stays.
    pub(crate) fn resize(&self, capacity: u64) -> Evicted {
        self.capacity.store(capacity, Ordering::Relaxed);
        let mut evicted = Evicted::new();
        for table in &self.shards {
            self.edit(table, |shard| shard.recap(capacity / self.shards.len() as u64));
            while self.edit(table, |shard| shard.fit(&mut evicted)) {}
        }
        evicted
    }

    /// What it holds.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage { capacity: self.capacity.load(Ordering::Relaxed), ..Usage::default() };
        for table in &self.shards {
            self.edit(table, |shard| {
                shard.release_all();
                usage.entries += shard.state.len() as u64;
                usage.bytes += shard.used();
                usage.evictions += shard.state.evictions;
                usage.expirations += shard.state.expirations;
            });
        }
        usage
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn validate(&self) {
        for table in &self.shards {
            self.edit(table, |shard| shard.validate());
        }
    }

    /// Does `work` under the lock of a shard, and drops what it left behind outside of it.
    #[inline]
    fn edit<R>(&self, table: &Table<State>, work: impl FnOnce(&mut Shard<'_>) -> R) -> R {
        let mut locked = table.lock();
        let (edit, state) = locked.parts();
        let mut shard = Shard { edit, state, common: &self.common };
        let result = work(&mut shard);
        if self.common.returns {
            table.side.spare.store(shard.spare(), Ordering::Relaxed);
        }
        // Filled where it is dropped: what is moved right after it was written in pieces is waited for.
        let (mut freed, mut arrays) = (Freed::new(), Few::new());
        let flush = shard.edit.leftovers(&mut freed, &mut arrays);
        shard.state.leftovers(&mut freed);
        drop(locked);
        freed.take_each(drop);
        arrays.take_each(drop);
        if flush {
            pin().flush();
        }
        result
    }

    /// Closes what many removals have left open, in steps.
    fn tidy(&self, table: &Table<State>, side: Side, mut holes: usize) {
        while holes > 0 {
            let some = holes.min(LOOKS);
            self.edit(table, |shard| shard.tidy(side, some));
            holes -= some;
        }
    }

    /// Shows all entries of a shard to `visit`, some at a time and without the lock. An entry that moves on may be shown twice.
    fn sweep(&self, table: &Table<State>, visit: &mut dyn for<'p> FnMut(&'p Pin, Side, &mut Vec<Seen<'p>>)) {
        let _sweeping = Sweeping::new(self, table);
        // Entries move from small to main, and from the head of main to its tail: none is missed in this order.
        for side in [Side::Small, Side::Main] {
            let mut next = Some(0);
            while let Some(from) = next {
                let pin = pin();
                let mut seen = Vec::new();
                next = self.edit(table, |shard| shard.look(side, from, &pin, &mut seen));
                visit(&pin, side, &mut seen);
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for table in &self.shards {
            self.edit(table, |shard| shard.dismantle());
        }
        for _ in 0..3 {
            pin().flush();
        }
    }
}

/// While it lives, no place of the shard's queues moves towards the head.
struct Sweeping<'m> {
    memory: &'m Memory,
    table: &'m Table<State>,
}

impl<'m> Sweeping<'m> {
    fn new(memory: &'m Memory, table: &'m Table<State>) -> Self {
        let this = Self { memory, table };
        this.count(1);
        this
    }

    fn count(&self, by: i32) {
        self.memory.edit(self.table, |shard| {
            for side in [Side::Small, Side::Main] {
                let queue = shard.state.queue(side);
                queue.sweeps = queue.sweeps.saturating_add_signed(by);
            }
        });
    }
}

impl Drop for Sweeping<'_> {
    fn drop(&mut self) {
        self.count(-1);
    }
}

fn same(one: &Entry, other: &Entry) -> bool {
    std::ptr::eq(one.hits(), other.hits())
}
