//! The gate of a key: one order for all tiers, and the token that keeps an old value from landing.
//!
//! A *write* (a `set`, an invalidation) passes the gate of its key's stripe with the lock held, and while it
//! holds the lock it changes memory and queues its change for disk and Redis. So all tiers see the writes of a key in one
//! order, without a lock across an await.
//!
//! A *fill* brings a value that was read elsewhere: fetched, promoted, refilled. It takes a [`FillToken`] before it
//! reads. A write of the same key marks the token; a marked token does not land. Between the check and the
//! change the lock is held, so nothing can come between. A *demotion* carries a value that memory gave up;
//! it was resident until then, so only writes since the moment of its eviction matter. Each stripe remembers
//! its last few writes for that; when it cannot remember far enough, the demotion is refused, which costs a
//! later miss and never a stale read. A read of the disk that never waits lands in the same way, without a token.
//!
//! Hashes stand for keys here. Two keys with one 64-bit hash would refuse each other's fills: a lost
//! promotion, nothing worse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// Where writes are remembered, which the keys of a stripe share. A power of two.
const STRIPES: usize = 512;
/// Where only those who write at the same moment share one. A power of two.
const FEW_STRIPES: usize = 128;
/// Writes a stripe remembers.
const REMEMBERED: usize = 8;

/// All stripes of one cache.
pub(crate) struct Gates {
    stripes: Box<[Mutex<Stripe>]>,
    /// Counts ended writes of all keys; its value orders evictions and reads of the disk against writes.
    writes: AtomicU64,
    /// Is there anything to be demoted to? If not, no write is remembered.
    remembers: bool,
}

pub(crate) struct Stripe {
    /// The last writes: hash of the key and the count when its write ended. A ring; empty if none is remembered.
    recent: Box<[(u64, u64)]>,
    next: usize,
    /// Fills under way.
    fills: Vec<Fill>,
}

struct Fill {
    id: u64,
    hash: u64,
    /// The key was written since the fill began.
    marked: bool,
}

/// A point in the count of writes, taken before an insert that may evict.
#[derive(Clone, Copy)]
pub(crate) struct Moment(u64);

impl Gates {
    pub(crate) fn new(remembers: bool) -> Arc<Self> {
        let recent = || if remembers { Box::from([(0, 0); REMEMBERED]) } else { Box::default() };
        let stripes = if remembers { STRIPES } else { FEW_STRIPES };
        let stripes = (0..stripes).map(|_| Mutex::new(Stripe { recent: recent(), next: 0, fills: Vec::new() })).collect();
        Arc::new(Self { stripes, writes: AtomicU64::new(1), remembers })
    }

    /// Passes the gate for a write of the key with this hash. All tiers are changed while the guard lives.
    #[inline]
    pub(crate) fn write(&self, hash: u64) -> Passage<'_> {
        let mut stripe = self.stripe(hash).lock();
        for fill in &mut stripe.fills {
            fill.marked |= fill.hash == hash;
        }
        Passage { writes: self.remembers.then_some(&self.writes), stripe, hash }
    }

    /// Now, for [`demote`](Self::demote).
    #[inline]
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.writes.load(Ordering::SeqCst))
    }

    /// Passes the gate for a demotion of an entry that was evicted after `since`; `None` if its key was (or may have been) written since.
    pub(crate) fn demote(&self, hash: u64, since: Moment) -> Option<MutexGuard<'_, Stripe>> {
        if !self.remembers {
            return None;
        }
        let stripe = self.stripe(hash).lock();
        let oldest = stripe.recent[stripe.next].1;
        let written = stripe.recent.iter().any(|&(other, at)| other == hash && at > since.0);
        (!written && oldest <= since.0).then_some(stripe)
    }

    /// Passes the gate for the landing of what was read after `since`, by a reader that never waited in between and so took no token; `None` as for
    /// [`demote`](Self::demote).
    pub(crate) fn land(&self, hash: u64, since: Moment) -> Option<MutexGuard<'_, Stripe>> {
        self.demote(hash, since)
    }

    /// Begins a fill of the key with this hash.
    pub(crate) fn fill(self: &Arc<Self>, hash: u64) -> FillToken {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        self.stripe(hash).lock().fills.push(Fill { id, hash, marked: false });
        FillToken { gates: self.clone(), id, hash }
    }

    #[inline]
    fn stripe(&self, hash: u64) -> &Mutex<Stripe> {
        &self.stripes[(hash >> 32) as usize & (self.stripes.len() - 1)]
    }
}

/// A write under way. It is counted when it ends, still under the lock: a [`Moment`] that was taken while it ran, and may stand for a look at
/// what it had not changed yet, is before it.
pub(crate) struct Passage<'a> {
    /// `None` where nothing is remembered.
    writes: Option<&'a AtomicU64>,
    stripe: MutexGuard<'a, Stripe>,
    hash: u64,
}

impl Drop for Passage<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(writes) = self.writes else { return };
        let at = writes.fetch_add(1, Ordering::SeqCst) + 1;
        let next = self.stripe.next;
        self.stripe.recent[next] = (self.hash, at);
        self.stripe.next = (next + 1) % REMEMBERED;
    }
}

/// The right to land what was read, unless the key is written first. Dropped without landing, it leaves nothing behind.
pub(crate) struct FillToken {
    gates: Arc<Gates>,
    id: u64,
    hash: u64,
}

impl FillToken {
    /// Passes the gate for the landing, or `None` if the key was written since the token was taken.
    pub(crate) fn land(&self) -> Option<MutexGuard<'_, Stripe>> {
        let stripe = self.gates.stripe(self.hash).lock();
        let marked = stripe.fills.iter().any(|fill| fill.id == self.id && fill.marked);
        (!marked).then_some(stripe)
    }
}

impl Drop for FillToken {
    fn drop(&mut self) {
        let mut stripe = self.gates.stripe(self.hash).lock();
        if let Some(at) = stripe.fills.iter().position(|fill| fill.id == self.id) {
            stripe.fills.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_lands_unless_its_key_was_written_meanwhile() {
        let gates = Gates::new(true);
        let (token, other) = (gates.fill(1), gates.fill(2));
        drop(gates.write(1));
        assert!(token.land().is_none());
        assert!(other.land().is_some());
        assert!(gates.fill(1).land().is_some(), "a token taken after the write is good");
    }

    #[test]
    fn without_a_memory_of_writes_fills_are_marked_and_nothing_is_demoted() {
        let gates = Gates::new(false);
        let token = gates.fill(1);
        drop(gates.write(1));
        assert!(token.land().is_none());
        assert!(gates.demote(2, gates.moment()).is_none());
    }

    #[test]
    fn a_dropped_token_leaves_nothing() {
        let gates = Gates::new(true);
        drop(gates.fill(7));
        assert!(gates.stripe(7).lock().fills.is_empty());
    }

    #[test]
    fn a_demotion_is_refused_if_its_key_was_written_or_nobody_knows() {
        let gates = Gates::new(true);
        let moment = gates.moment();
        assert!(gates.demote(1, moment).is_some());
        drop(gates.write(2));
        assert!(gates.demote(1, moment).is_some(), "another key of the stripe does not matter");
        drop(gates.write(1));
        assert!(gates.demote(1, moment).is_none());
        let moment = gates.moment();
        for _ in 0..=REMEMBERED {
            drop(gates.write(3));
        }
        assert!(gates.demote(1, moment).is_none(), "too many writes to remember");
        assert!(gates.demote(1, gates.moment()).is_some());
    }

    #[test]
    fn a_write_that_was_under_way_at_the_moment_counts_as_later() {
        let gates = Gates::new(true);
        let write = gates.write(1);
        let moment = gates.moment();
        drop(write);
        assert!(gates.demote(1, moment).is_none(), "what was evicted then may be what the write replaced");
        assert!(gates.demote(1, gates.moment()).is_some());
    }
}
