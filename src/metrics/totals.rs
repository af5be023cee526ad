//! The sums of what all threads counted, made when somebody asks.

use crate::metrics::outcome::MissCause;
use crate::metrics::slot::{Slot, Slots};
use crate::metrics::snapshot::{MissCauses, NamespaceAnalytics, share};
use crate::namespace::{MAX_NAMESPACES, NamespaceId};

/// The sums over all threads and namespaces.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) hits: [u64; 3],
    pub(crate) tier_misses: [u64; 3],
    pub(crate) misses: [u64; MissCause::COUNT],
    pub(crate) stale: u64,
    pub(crate) sets: u64,
    /// By name.
    pub(crate) namespaces: Vec<NamespaceAnalytics>,
}

impl Totals {
    /// Adds up what all threads counted.
    pub(crate) fn of(slots: &Slots) -> Self {
        let slots: Vec<_> = slots.used().collect();
        let mut totals = Self::default();
        for id in 0..MAX_NAMESPACES {
            let one = NamespaceTotals::of(&slots, id);
            for (sum, count) in totals.tier_misses.iter_mut().zip(one.tier_misses) {
                *sum += count;
            }
            if !one.is_idle() {
                totals.add(NamespaceId(id as u16), &one);
            }
        }
        totals.namespaces.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        totals
    }

    fn add(&mut self, id: NamespaceId, one: &NamespaceTotals) {
        for (sum, count) in self.hits.iter_mut().zip(one.hits) {
            *sum += count;
        }
        for (sum, count) in self.misses.iter_mut().zip(one.misses) {
            *sum += count;
        }
        self.stale += one.stale;
        self.sets += one.sets;
        let (hits, misses): (u64, u64) = (one.hits.iter().sum(), one.misses.iter().sum());
        let [memory_hits, disk_hits, redis_hits] = one.hits;
        self.namespaces.push(NamespaceAnalytics {
            name: id.namespace().name().to_owned(),
            hits,
            memory_hits,
            disk_hits,
            redis_hits,
            misses,
            hit_rate: share(hits, hits + misses),
            stale: one.stale,
            sets: one.sets,
            miss_causes: causes(&one.misses),
        });
    }

    /// Reads and writes.
    pub(crate) fn operations(&self) -> u64 {
        self.hits.iter().chain(&self.misses).sum::<u64>() + self.sets
    }
}

/// The sums of one namespace over all threads.
#[derive(Default)]
struct NamespaceTotals {
    hits: [u64; 3],
    tier_misses: [u64; 3],
    misses: [u64; MissCause::COUNT],
    stale: u64,
    sets: u64,
}

impl NamespaceTotals {
    fn of(slots: &[&Slot], id: usize) -> Self {
        let mut one = Self::default();
        for cells in slots.iter().filter_map(|slot| slot.found(id)) {
            for (sum, cell) in one.hits.iter_mut().zip(&cells.hits) {
                *sum += cell.read();
            }
            for (sum, cell) in one.tier_misses.iter_mut().zip(&cells.tier_misses) {
                *sum += cell.read();
            }
            for (sum, cell) in one.misses.iter_mut().zip(&cells.misses) {
                *sum += cell.read();
            }
            one.stale += cells.stale.read();
            one.sets += cells.sets.read();
        }
        one
    }

    /// Nothing to tell of yet: not even of a read that is still on its way from tier to tier.
    fn is_idle(&self) -> bool {
        self.hits.iter().chain(&self.misses).all(|count| *count == 0) && self.stale == 0 && self.sets == 0
    }
}

pub(crate) fn causes(counts: &[u64; MissCause::COUNT]) -> MissCauses {
    let [absent, expired, invalidated, evicted, schema, corrupt, tier_down] = *counts;
    MissCauses { absent, expired, invalidated, evicted, schema, corrupt, tier_down }
}
