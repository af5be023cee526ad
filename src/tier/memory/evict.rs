//! Eviction: who has to leave, and what is remembered of it.

use std::sync::atomic::Ordering;

use super::ghost::Side;
use super::policy::{Policy, WALK};
use super::queue::Item;
use super::shard::{LOOKS, Shard, cost};
use super::table::Held;
use super::{Evicted, Gone};
use crate::entry::Entry;
use crate::key::Key;

/// An entry whose words in table and ghosts are on their way into the cache.
pub(super) struct Foreseen {
    pub(super) address: usize,
    pub(super) hash: u64,
}

impl Shard<'_> {
    /// Evicts until there is room for `weight`, but not the entry of `keep`. `cap` is what entries may cost now; what they may cost then.
    #[inline]
    pub(super) fn make_room(&mut self, weight: u64, mut cap: u64, keep: Option<&Key<'_>>, evicted: &mut Evicted) -> u64 {
        while self.state.bytes() + weight > cap && self.evict(cap, keep, evicted) {
            cap = self.cap();
        }
        cap
    }

    /// After a change of the budget: evicts a bounded number of entries. Is more to be done?
    pub(super) fn fit(&mut self, evicted: &mut Evicted) -> bool {
        for _ in 0..LOOKS {
            let cap = self.cap();
            if self.state.bytes() <= cap || !self.evict(cap, None, evicted) {
                return false;
            }
        }
        true
    }

    /// Evicts one entry, where entries may cost `cap`. False if there is none.
    fn evict(&mut self, cap: u64, keep: Option<&Key<'_>>, evicted: &mut Evicted) -> bool {
        let Some((from, item, weight)) = self.choose(cap, keep) else { return false };
        let hash = match self.state.foreseen.take() {
            Some(Foreseen { address, hash }) if address == item.held.address() => hash,
            _ => self.common.hash(&item.held),
        };
        debug_assert_eq!(hash, self.common.hash(&item.held), "the foreseen entry is the one that was looked at");
        self.foresee(from);
        if item.held.stale_until() <= self.common.clock.coarse() {
            // Its life was over: no ghost, no vote, nothing to demote.
            self.state.expirations += 1;
            self.retire(item.held, hash);
            return true;
        }
        if from == Side::Main {
            if item.trial {
                self.state.policy.trial(false);
            }
            self.state.policy.main_evicted();
        }
        let residents = self.state.len() + 1;
        self.state.evictions += 1;
        self.note_retired(&item.held);
        let entry = self.common.returns.then(|| Entry::clone(&item.held));
        evicted.push(Gone { hash, entry });
        self.edit.remove(hash, item.held);
        self.edit.shrink(hash, |entry| self.common.hash(entry));
        self.state.ghosts.fit(residents);
        let position = self.state.policy.evicted(from, weight);
        self.state.ghosts.put(hash, from, position);
        true
    }

    /// The words of the next victim are far away: they come while other things are done.
    #[inline]
    fn foresee(&mut self, side: Side) {
        if let Some(next) = self.state.queue(side).oldest() {
            let (address, hash) = (next.address(), self.common.hash(next));
            self.state.ghosts.expect(hash);
            self.edit.expect(hash);
            self.state.foreseen = Some(Foreseen { address, hash });
        }
    }

    /// Takes the victim out of its queue, moving on those that have earned it; and what it costs.
    #[inline]
    fn choose(&mut self, cap: u64, keep: Option<&Key<'_>>) -> Option<(Side, Item, u64)> {
        let share = self.state.policy.share(cap);
        let (resident, count) = (self.state.bytes(), self.state.len() as u64);
        let kept = |held: &Held| keep.is_some_and(|key| held.is_of(key));
        let mut walked = 0;
        while self.state.small.bytes > share || self.state.main.is_empty() {
            let Some(item) = self.state.small.pop() else { break };
            let (weight, hits) = (cost(&item.held), item.held.hits().load(Ordering::Relaxed));
            self.state.small.bytes -= weight;
            let earned = Policy::promotes(hits) && walked < WALK && !Policy::too_big(weight, hits, resident, count);
            if !earned && !kept(&item.held) {
                return Some((Side::Small, item, weight));
            }
            walked += 1;
            item.held.hits().store(0, Ordering::Relaxed);
            self.push_main(Item { trial: false, ..item }, weight);
            if self.state.main.bytes > cap.saturating_sub(share) {
                break;
            }
        }
        walked = 0;
        // Only the kept entry can be met twice without being taken.
        for _ in 0..WALK + 2 {
            let mut item = self.state.main.pop()?;
            let (weight, hits) = (cost(&item.held), item.held.hits().load(Ordering::Relaxed));
            self.state.main.bytes -= weight;
            let earned = hits > 0 && walked < WALK && !Policy::too_big(weight, hits + 1, resident, count);
            if earned {
                if std::mem::take(&mut item.trial) {
                    self.state.policy.trial(true);
                }
                item.held.hits().store(hits - 1, Ordering::Relaxed);
            } else if !kept(&item.held) {
                return Some((Side::Main, item, weight));
            }
            walked += 1;
            self.push_main(item, weight);
        }
        // All of main is the kept entry: then small must give, though it is within its share.
        let item = self.state.small.pop()?;
        let weight = cost(&item.held);
        self.state.small.bytes -= weight;
        Some((Side::Small, item, weight))
    }

    #[inline]
    fn push_main(&mut self, item: Item, weight: u64) {
        self.state.main.bytes += weight;
        self.state.main.push(item);
    }
}
