//! What was evicted lately: four bytes a key, nothing but a guess.
//!
//! Buckets of eight slots, half a cache line. A slot is 16 bits of the hash and the 16-bit position of its queue's eviction stream when
//! the key left. Slots 0 to 5 of a bucket are a queue of what left the small queue, 6 and 7 of what left the main one; the oldest falls out.
//! Nothing is swept: age does it. A wrong match costs one misplaced entry.

use super::table::expect;

/// Slots an expected resident entry. (Three were as good in the mean over 88 points of real traces, and cost four bytes an entry more.)
const SLOTS_PER_ENTRY: usize = 2;
/// Slots of a bucket that belong to the small queue.
const OF_SMALL: usize = 6;

/// Which queue an entry left, or is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Small,
    Main,
}

#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Bucket([u32; 8]);

/// The ghosts of one shard. Empty until the first eviction.
#[derive(Default)]
pub(super) struct Ghosts {
    buckets: Box<[Bucket]>,
    /// The resident entries it was made for.
    made_for: usize,
}

impl Ghosts {
    /// Makes room for so many resident entries; most of what is known is kept.
    #[inline]
    pub(super) fn fit(&mut self, residents: usize) {
        if residents > self.made_for || self.made_for > residents * 4 + 64 {
            self.remake(residents);
        }
    }

    #[cold]
    fn remake(&mut self, residents: usize) {
        self.made_for = residents + residents / 8 + 8;
        let len = (self.made_for * SLOTS_PER_ENTRY).div_ceil(8);
        let old = std::mem::take(&mut self.buckets);
        // A bucket covers a range of hashes; the new one takes over that in which its range begins.
        self.buckets = (0..len).map(|at| old.get(at * old.len() / len).copied().unwrap_or_default()).collect();
    }

    /// This hash is going to be asked for.
    #[inline]
    pub(super) fn expect(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.address(hash).0) {
            expect(bucket);
        }
    }

    #[inline]
    pub(super) fn put(&mut self, hash: u64, from: Side, position: u16) {
        if self.buckets.is_empty() {
            return;
        }
        let (at, tag) = self.address(hash);
        let slots = &mut self.buckets[at].0;
        let slot = tag | u32::from(position);
        // In lengths that are known here, so that they are moves between registers.
        match from {
            Side::Small => {
                slots.copy_within(..OF_SMALL - 1, 1);
                slots[0] = slot;
            }
            Side::Main => {
                slots.copy_within(OF_SMALL..7, OF_SMALL + 1);
                slots[OF_SMALL] = slot;
            }
        }
    }

    /// Takes a key out: the queue it left, and the position then.
    #[inline]
    pub(super) fn take(&mut self, hash: u64) -> Option<(Side, u16)> {
        if self.buckets.is_empty() {
            return None;
        }
        let (at, tag) = self.address(hash);
        let slots = &mut self.buckets[at].0;
        let found = slots.iter().position(|slot| slot & 0xFFFF_0000 == tag)?;
        let position = std::mem::take(&mut slots[found]) as u16;
        Some((if found < OF_SMALL { Side::Small } else { Side::Main }, position))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        size_of_val(&*self.buckets) as u64
    }

    /// The bucket, and the upper half of the slot, which is never zero.
    #[inline]
    fn address(&self, hash: u64) -> (usize, u32) {
        let at = ((hash >> 8 & 0xFFFF_FFFF) * self.buckets.len() as u64) >> 32;
        (at as usize, ((hash >> 42) as u32 & 0xFFFF).max(1) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ghost_is_found_once_and_the_oldest_falls_out() {
        let mut ghosts = Ghosts::default();
        ghosts.fit(1);
        let hash = |n: u64| n << 42;
        for n in 1..=7 {
            ghosts.put(hash(n), Side::Small, n as u16);
        }
        ghosts.put(hash(9), Side::Main, 90);
        assert_eq!(ghosts.take(hash(1)), None);
        assert_eq!(ghosts.take(hash(2)), Some((Side::Small, 2)));
        assert_eq!(ghosts.take(hash(2)), None);
        assert_eq!(ghosts.take(hash(9)), Some((Side::Main, 90)));
    }

    #[test]
    fn growth_forgets_little() {
        let mut ghosts = Ghosts::default();
        ghosts.fit(1_000);
        let hash = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for n in 0..1_000 {
            ghosts.put(hash(n), Side::Small, 0);
        }
        ghosts.fit(1_500);
        let kept = (0..1_000).filter(|n| ghosts.take(hash(*n)).is_some()).count();
        assert!(kept > 600, "{kept}");
    }
}
