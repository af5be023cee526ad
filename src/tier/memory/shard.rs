//! One shard under its writer's lock: puts, removals and evictions, and what they cost.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::Evicted;
use super::edit::Gap;
use super::evict::Foreseen;
use super::few::Few;
use super::ghost::{Ghosts, Side};
use super::pin::Pin;
use super::policy::Policy;
use super::queue::{Item, Queue, Seconds};
use super::sync::SOME;
use super::table::{Edit, Held, Seen};
use crate::clock::Clock;
use crate::entry::Entry;
use crate::key::{Key, KeyHasher};

/// Bytes of tables an entry is charged with: a word at the lowest load after a growth (12.8), its place (8.4), its ghosts (9), rounded up.
const PER_ENTRY: u64 = 31;
/// Bytes a shard costs before it holds anything, besides its tables.
pub(super) const FIXED: u64 = 1280;
/// A value may be this part of its shard.
const LARGEST: u64 = 4;
/// Places looked at in one hold of the lock.
pub(super) const LOOKS: usize = 256;

/// What all shards know.
pub(super) struct Common {
    pub(super) clock: Clock,
    pub(super) hasher: KeyHasher,
    pub(super) seconds: Seconds,
    /// Does anybody want what is evicted? Otherwise only its hash is told.
    pub(super) returns: bool,
}

impl Common {
    #[inline]
    pub(super) fn hash(&self, entry: &Entry) -> u64 {
        self.hasher.hash(entry.namespace_id(), entry.key())
    }
}

/// What an entry costs the budget: its allocation, and its part of the tables.
#[inline]
pub(super) fn cost(entry: &Entry) -> u64 {
    allocated(entry) + PER_ENTRY
}

/// Its allocation as the allocator rounds it (glibc's rule; large ones are whole pages): what is left of its cost once it left the tables.
#[inline]
fn allocated(entry: &Entry) -> u64 {
    let bytes = entry.footprint() as u64;
    if bytes < 128 << 10 { (bytes + 8).next_multiple_of(16) } else { (bytes + 16).next_multiple_of(4096) }
}

/// What the lock of a shard guards.
pub(super) struct State {
    /// Bytes this shard may use; changed by `resize`.
    pub(super) capacity: u64,
    pub(super) small: Queue,
    pub(super) main: Queue,
    pub(super) policy: Policy,
    pub(super) ghosts: Ghosts,
    /// Entries that left while a reader held them, and what they cost.
    lingering: VecDeque<Entry>,
    lingering_bytes: u64,
    /// Who is evicted next, most likely. Whatever leaves otherwise makes this `None`, so the address is that of a resident entry.
    pub(super) foreseen: Option<Foreseen>,
    /// Lingering entries that were let go, to be dropped outside the lock.
    released: Vec<Entry>,
    pub(super) evictions: u64,
    pub(super) expirations: u64,
}

impl State {
    pub(super) fn new(capacity: u64, seconds: Seconds) -> Self {
        Self {
            capacity,
            small: Queue::new(Side::Small, seconds),
            main: Queue::new(Side::Main, seconds),
            policy: Policy::new(capacity),
            ghosts: Ghosts::default(),
            lingering: VecDeque::new(),
            lingering_bytes: 0,
            foreseen: None,
            released: Vec::new(),
            evictions: 0,
            expirations: 0,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes + self.main.bytes
    }

    #[inline]
    pub(super) fn queue(&mut self, side: Side) -> &mut Queue {
        match side {
            Side::Small => &mut self.small,
            Side::Main => &mut self.main,
        }
    }

    /// What is to be dropped once the lock is released.
    #[inline]
    pub(super) fn leftovers(&mut self, freed: &mut Few<Entry>) {
        if !self.released.is_empty() {
            self.released.drain(..).for_each(|entry| freed.push(entry));
        }
    }
}

/// A locked shard.
pub(super) struct Shard<'a> {
    pub(super) edit: Edit<'a>,
    pub(super) state: &'a mut State,
    pub(super) common: &'a Common,
}

impl Shard<'_> {
    /// Bytes used now, all included.
    pub(super) fn used(&self) -> u64 {
        self.state.bytes() + self.state.lingering_bytes + FIXED + self.surplus()
    }

    /// Tables beyond what their entries are charged with: small shards, and those that held more entries once.
    #[inline]
    fn surplus(&self) -> u64 {
        let state = &self.state;
        let tables = self.edit.counts.bytes() + state.ghosts.bytes() + state.small.footprint() + state.main.footprint();
        tables.saturating_sub(state.len() as u64 * PER_ENTRY)
    }

    /// What entries may cost now. What readers hold counts up to half of the budget, so that a hoarder does not empty the tier.
    #[inline]
    pub(super) fn cap(&self) -> u64 {
        let lingering = self.state.lingering_bytes.min(self.state.capacity / 2);
        self.state.capacity.saturating_sub(FIXED + self.surplus() + lingering)
    }

    /// Bytes for which nothing has to leave.
    pub(super) fn spare(&self) -> u64 {
        self.cap().saturating_sub(self.state.bytes())
    }

    /// Holds an entry, unless it is too big; what has to leave is added to `evicted`. Sooner done if the key was looked for, or expected.
    #[inline]
    pub(super) fn put(&mut self, key: &Key<'_>, entry: Entry, evicted: &mut Evicted) -> bool {
        self.edit.expect_step();
        self.state.ghosts.expect(key.hash);
        let usual = self.state.policy.usual();
        self.state.queue(usual).expect();
        self.release();
        let (weight, cap) = (cost(&entry), self.cap());
        let old = self.edit.search(key, entry.footprint()).map(|old| self.locate(&old));
        if weight > cap / LARGEST {
            if let Ok(Some((side, number))) = old {
                self.take_at(side, number, key.hash);
            }
            return false;
        }
        match old {
            Ok(Some((side, number))) => self.overwrite(side, number, key.hash, entry),
            // There is no entry of the table that is in no queue.
            Ok(None) => return false,
            Err(gap) => self.insert(key.hash, entry, &gap, weight, cap, evicted),
        }
        // What grew: the entry, or a table.
        let cap = self.cap();
        self.make_room(0, cap, Some(key), evicted);
        true
    }

    #[inline]
    fn insert(&mut self, hash: u64, entry: Entry, gap: &Gap, weight: u64, cap: u64, evicted: &mut Evicted) {
        let cap = self.make_room(weight, cap, None, evicted);
        let ghost = self.state.ghosts.take(hash);
        let main_bytes = self.state.main.bytes;
        let (side, trial) = self.state.policy.place(ghost, weight, cap, main_bytes);
        entry.hits().store(0, Ordering::Relaxed);
        let held = self.edit.insert(hash, entry, gap, |entry| self.common.hash(entry));
        let queue = self.state.queue(side);
        queue.bytes += weight;
        queue.push(Item { held, trial });
    }

    /// Puts an entry into the place of an older one of the same key; it keeps its hits.
    fn overwrite(&mut self, side: Side, number: u64, hash: u64, entry: Entry) {
        let Some(Item { held, trial, .. }) = self.state.queue(side).take_at(number) else { return };
        self.state.foreseen = None;
        entry.hits().store(held.hits().load(Ordering::Relaxed), Ordering::Relaxed);
        let (before, after) = (cost(&held), cost(&entry));
        self.note_retired(&held);
        let held = self.edit.replace(hash, held, entry);
        let queue = self.state.queue(side);
        queue.put_back(number, Item { held, trial });
        queue.bytes = queue.bytes - before + after;
    }

    /// Takes an entry out: no ghost, no vote.
    pub(super) fn remove(&mut self, entry: &Entry, hash: u64) -> Option<Entry> {
        let (side, number) = self.locate(entry)?;
        self.take_at(side, number, hash).then(|| Entry::clone(entry))
    }

    /// Where an entry of this shard stands.
    fn locate(&self, entry: &Entry) -> Option<(Side, u64)> {
        let of = |side, queue: &Queue| queue.number(entry).map(|number| (side, number));
        // The wrong queue would search all of itself before it says no.
        let main_first = entry.place().load(Ordering::Relaxed) >> 31 == 1;
        if main_first {
            of(Side::Main, &self.state.main).or_else(|| of(Side::Small, &self.state.small))
        } else {
            of(Side::Small, &self.state.small).or_else(|| of(Side::Main, &self.state.main))
        }
    }

    fn take_at(&mut self, side: Side, number: u64, hash: u64) -> bool {
        let taken = self.take_quietly(side, number, hash);
        self.state.queue(side).close_holes();
        taken
    }

    /// Takes an entry out without moving any other in its queue.
    fn take_quietly(&mut self, side: Side, number: u64, hash: u64) -> bool {
        let queue = self.state.queue(side);
        let Some(Item { held, .. }) = queue.take_at(number) else { return false };
        self.state.foreseen = None;
        let queue = self.state.queue(side);
        queue.bytes -= cost(&held);
        self.retire(held, hash);
        if self.state.len() == 0 {
            self.state.policy.cleared();
        }
        self.edit.shrink(hash, |entry| self.common.hash(entry));
        true
    }

    pub(super) fn retire(&mut self, held: Held, hash: u64) {
        self.note_retired(&held);
        self.edit.remove(hash, held);
    }

    #[inline]
    pub(super) fn note_retired(&mut self, held: &Held) {
        if held.is_shared() {
            self.state.lingering.push_back(Entry::clone(held));
            self.state.lingering_bytes += allocated(held);
        }
    }

    /// Lets go of entries that no reader holds any more; looks at two.
    #[inline]
    fn release(&mut self) {
        if !self.state.lingering.is_empty() {
            self.release_two();
        }
    }

    #[cold]
    fn release_two(&mut self) {
        for _ in 0..2 {
            let Some(entry) = self.state.lingering.pop_front() else { return };
            if entry.is_shared() {
                self.state.lingering.push_back(entry);
            } else {
                self.state.lingering_bytes -= allocated(&entry);
                self.state.released.push(entry);
            }
        }
    }

    /// Idle shards have no put that would go on with the growth of a table. Is more to be done?
    pub(super) fn settle(&mut self) -> bool {
        (0..LOOKS / SOME).all(|_| self.edit.go_on(&|entry: &Entry| self.common.hash(entry)))
    }

    /// Lets go of all entries that no reader holds any more.
    pub(super) fn release_all(&mut self) {
        for _ in 0..self.state.lingering.len().div_ceil(2).min(LOOKS) {
            self.release();
        }
    }

    /// After a change of the budget: positions count in other units now, so what the ghosts know is forgotten.
    pub(super) fn recap(&mut self, capacity: u64) {
        self.state.capacity = capacity;
        self.state.policy = Policy::new(capacity);
        self.state.ghosts.clear();
    }

    /// Takes out entries whose life is over at `now`, from a place on; looks at a bounded number. Returns how many went, and where to go on.
    pub(super) fn expire(&mut self, now: u64, limit: usize, side: Side, from: u64) -> (usize, Option<u64>) {
        let (second, mut gone, mut next) = (self.common.seconds.of(now), 0, from);
        self.release_all();
        for _ in 0..LOOKS {
            if gone == limit {
                return (gone, Some(next));
            }
            let Some(number) = self.state.queue(side).next_ending(next, second) else { return (gone, None) };
            next = number + 1;
            let Some(held) = self.state.queue(side).get(number) else { continue };
            if held.stale_until() <= now {
                let hash = self.common.hash(held);
                // Nothing moves back past the place where this goes on; `tidy` closes the holes.
                gone += usize::from(self.take_quietly(side, number, hash));
            }
        }
        (gone, Some(next))
    }

    /// Closes the holes that so many expired entries have left.
    pub(super) fn tidy(&mut self, side: Side, gone: usize) {
        for _ in 0..gone {
            self.state.queue(side).close_holes();
        }
    }

    /// Up to twice [`LOOKS`] places of one queue from a place on, and where to go on.
    pub(super) fn look<'p>(&mut self, side: Side, from: u64, pin: &'p Pin, seen: &mut Vec<Seen<'p>>) -> Option<u64> {
        let queue = self.state.queue(side);
        let range = queue.range();
        let start = from.max(range.start);
        let end = range.end.min(start + 2 * LOOKS as u64);
        seen.extend((start..end).filter_map(|number| queue.get(number)).map(|held| held.seen(pin)));
        (end < range.end).then_some(end)
    }

    /// Gives everything back, when nobody can read any more.
    pub(super) fn dismantle(&mut self) {
        while let Some(item) = self.state.small.pop().or_else(|| self.state.main.pop()) {
            let hash = self.common.hash(&item.held);
            self.edit.remove(hash, item.held);
        }
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, fuzzing))]
    pub(super) fn validate(&mut self) {
        self.edit.validate();
        let mut foreseen = self.state.foreseen.as_ref();
        for queue in [&self.state.small, &self.state.main] {
            queue.validate();
            let mut bytes = 0;
            for held in queue.range().filter_map(|number| queue.get(number)) {
                bytes += cost(held);
                foreseen = foreseen.filter(|next| (next.address, next.hash) != (held.address(), self.common.hash(held)));
                let key = Key { id: held.namespace_id(), text: held.key(), hash: self.common.hash(held) };
                let found = self.edit.search(&key, 0).ok().expect("every queued entry is in the table");
                assert!(held.is(&found), "the table has the queued entry of a key");
                assert!(held.hits().load(Ordering::Relaxed) <= super::policy::TOP);
            }
            assert_eq!(queue.bytes, bytes);
        }
        assert!(foreseen.is_none(), "the next victim is a resident entry");
        assert_eq!(self.edit.counts.total(), self.state.len(), "the table has no entry that is not queued");
        assert_eq!(self.state.lingering_bytes, self.state.lingering.iter().map(allocated).sum::<u64>());
        let (state, cap) = (&self.state, self.cap());
        assert!(
            state.bytes() <= cap || state.len() <= 1,
            "the budget is kept: {} entries of {} bytes where {cap} may be used of {}; lingering {}, words {}, ghosts {}, places {} and {}",
            state.len(),
            state.bytes(),
            state.capacity,
            state.lingering_bytes,
            self.edit.counts.bytes(),
            state.ghosts.bytes(),
            state.small.footprint(),
            state.main.footprint(),
        );
    }
}
