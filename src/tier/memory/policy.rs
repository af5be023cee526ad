//! Twin-ghost: which entry goes in where, and how the two queues share the room.
//!
//! S3-FIFO (Yang et al., SOSP 2023) with three changes, all on the miss path, so that a hit only bumps a counter of three bits:
//! the share of the small queue follows what two ghosts report (after ARC, Megiddo and Modha, FAST 2003, but with distances measured in
//! each queue's own eviction stream, which keeps a long ghost list from passing off far misses as near ones); a ghost hit
//! goes to the main queue only while such promotions pay for the victims they make (the doubt of a newcomer that
//! TinyLFU has, Einziger et al., ACM TOS 2017, without its sketch); and the first fill goes to the main queue.
//!
//! Rejected, by simulation over 26 traces (distance to the best of seven peers chosen anew at each point, in percentage points, less is
//! better; this policy 0.03): plain S3-FIFO 1.79, W-TinyLFU with a climbing window 1.53, ARC 2.68, LRU 5.03; admission by a sketch;
//! and ghost hits of the main queue straight back into it (0.4 worse).
//!
//! This file decides; the queues and ghosts themselves are moved by [`super::shard`].

use super::ghost::Side;

/// Counter of an entry: its top value.
pub(super) const TOP: u8 = 7;
/// Hits that promote from the small queue.
const PROMOTED_AT: u8 = 2;
/// Entries looked at in one eviction before the next is taken as it is.
pub(super) const WALK: u32 = 64;
/// Memory of the two averages, in evictions from main.
const MEMORY: f32 = 256.0;

/// The policy's state of one shard.
pub(super) struct Policy {
    /// Bytes the small queue may have.
    share: u64,
    /// Bytes ever evicted from small and main.
    gone: [u64; 2],
    /// A position counts in units of `1 << grain` bytes, about a thousandth of the capacity.
    grain: u32,
    /// Moving average: share of the promoted ghosts that were hit before main's hand came back.
    paid: f32,
    /// Moving average: share of main's victims that came back soon.
    back: f32,
    /// Was anything evicted yet?
    full: bool,
    dice: fastrand::Rng,
}

impl Policy {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            share: capacity / 20,
            gone: [0; 2],
            grain: (capacity / 1024).max(1).ilog2(),
            paid: 1.0,
            back: 0.0,
            full: false,
            dice: fastrand::Rng::new(),
        }
    }

    /// For an emptied shard: what it learned stays, but the next fill is a first fill.
    pub(super) fn cleared(&mut self) {
        self.full = false;
    }

    /// What the small queue may have of `cap` bytes.
    #[inline]
    pub(super) fn share(&self, cap: u64) -> u64 {
        self.share.clamp(cap / 100, cap / 10 * 9)
    }

    /// Is an entry of the small queue worth a place in main?
    #[inline]
    pub(super) fn promotes(hits: u8) -> bool {
        hits >= PROMOTED_AT
    }

    /// Too big for so many hits: more than four times the mean resident size for each.
    #[inline]
    pub(super) fn too_big(weight: u64, hits: u8, resident: u64, count: u64) -> bool {
        u128::from(weight) * u128::from(count) > 4 * u128::from(resident) * u128::from(hits)
    }

    /// An entry of so many bytes is evicted; the position for its ghost.
    #[inline]
    pub(super) fn evicted(&mut self, from: Side, weight: u64) -> u16 {
        let position = self.position(from);
        self.gone[from as usize] += weight;
        self.full = true;
        position
    }

    /// A promoted ghost was hit before main's hand came back, or was not.
    #[inline]
    pub(super) fn trial(&mut self, was_hit: bool) {
        let target = if was_hit { 1.0 } else { 0.0 };
        self.paid += (target - self.paid) / MEMORY;
    }

    /// Main has lost an entry.
    #[inline]
    pub(super) fn main_evicted(&mut self) {
        self.back -= self.back / MEMORY;
    }

    /// Where most new entries go.
    #[inline]
    pub(super) fn usual(&self) -> Side {
        if self.full { Side::Small } else { Side::Main }
    }

    /// Where a new entry goes, and whether it is on trial. `ghost` is what its key left behind.
    #[inline]
    pub(super) fn place(&mut self, ghost: Option<(Side, u16)>, weight: u64, cap: u64, main_bytes: u64) -> (Side, bool) {
        if ghost.is_none() && self.full {
            return (Side::Small, false);
        }
        let share = self.share(cap);
        let near = cap / 10;
        match ghost.map(|(from, then)| (from, self.distance(from, then))) {
            Some((Side::Small, far)) if far <= cap * 2 => {
                if far <= near {
                    self.share = (share + weight).min(cap / 10 * 9);
                }
                if self.paid >= self.back || self.dice.u8(..) < 64 { (Side::Main, true) } else { (Side::Small, false) }
            }
            Some((Side::Main, far)) if far <= cap / 10 * 3 => {
                self.back += 1.0 / MEMORY;
                if far <= near {
                    self.share = share.saturating_sub(weight).max(cap / 100);
                }
                (Side::Small, false)
            }
            _ if !self.full && main_bytes < cap - share => (Side::Main, false),
            _ => (Side::Small, false),
        }
    }

    #[inline]
    fn position(&self, of: Side) -> u16 {
        (self.gone[of as usize] >> self.grain) as u16
    }

    /// Bytes evicted from that queue since; right for 32 capacities and more.
    fn distance(&self, of: Side, then: u16) -> u64 {
        u64::from(self.position(of).wrapping_sub(then)) << self.grain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: u64 = 1 << 20;

    #[test]
    fn the_first_fill_goes_to_main_and_what_comes_later_to_small() {
        let mut policy = Policy::new(CAP);
        assert_eq!(policy.place(None, 100, CAP, 0), (Side::Main, false));
        assert_eq!(policy.place(None, 100, CAP, CAP), (Side::Small, false));
        policy.evicted(Side::Main, 100);
        assert_eq!(policy.place(None, 100, CAP, 0), (Side::Small, false));
        policy.cleared();
        assert_eq!(policy.place(None, 100, CAP, 0), (Side::Main, false));
    }

    #[test]
    fn near_misses_of_a_queue_vote_for_it_and_far_ones_do_not() {
        let mut policy = Policy::new(CAP);
        let start = policy.share(CAP);
        let then = policy.evicted(Side::Small, 5_000);
        assert_eq!(policy.place(Some((Side::Small, then)), 5_000, CAP, CAP), (Side::Main, true));
        assert_eq!(policy.share(CAP), start + 5_000);
        let then = policy.evicted(Side::Main, 5_000);
        assert_eq!(policy.place(Some((Side::Main, then)), 7_000, CAP, CAP), (Side::Small, false));
        assert_eq!(policy.share(CAP), start - 2_000);
        policy.evicted(Side::Main, CAP);
        policy.place(Some((Side::Main, then)), 7_000, CAP, CAP);
        assert_eq!(policy.share(CAP), start - 2_000);
    }

    #[test]
    fn promotions_stop_when_victims_come_back_more_than_promotions_pay() {
        let mut policy = Policy::new(CAP);
        for _ in 0..2_000 {
            policy.trial(false);
            let then = policy.evicted(Side::Main, 10);
            policy.place(Some((Side::Main, then)), 0, CAP, CAP);
        }
        let then = policy.evicted(Side::Small, 10);
        let promoted = (0..1_000).filter(|_| policy.place(Some((Side::Small, then)), 0, CAP, CAP).0 == Side::Main).count();
        assert!((150..350).contains(&promoted), "{promoted}");
    }
}
