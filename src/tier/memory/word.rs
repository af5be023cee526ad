//! One word of a [`table`](super::table): the address of an entry, where it stands, and a few bits of its hash.
//!
//! A word is null, or an entry's address with twenty bits that an address does not use:
//!
//! ```text
//! | distance from home + 1 (8) | lower bits of the hash (8) | address of the entry (44) | upper bits of the hash (4) |
//! ```
//!
//! **Home** is the lower half of the hash, taken as a fraction, times the homes of the array. So all arrays have the same order, whatever their size.
//!
//! **The bits of the hash** are twelve in a row of that half; which ones, the [`Scale`] of the array says. They begin above those that the home
//! leaves open, so home and bits together tell where in the half an entry stands, to a hundredth of a home or better. When the array
//! grows, that tells its new home, and the same bits still do for it: a word is taken over without a look at its entry, which is a cache miss,
//! but one in some hundred, which stands too near to the border of two homes. After some doublings the bits are too coarse, and that growth asks all entries for
//! their hash. (Bits that have nothing to do with the home are as good for a search, but need that look at each growth.)

use std::ptr::NonNull;

/// Where the address is. An entry is 16-aligned.
pub(super) const ADDRESS: usize = 0x0000_FFFF_FFFF_FFF0;
/// One step further from home.
pub(super) const STEP: usize = 1 << 56;
/// The bits of the hash.
const TAG: u64 = 0xFFF;
/// Parts of a home that the bits tell apart: at most, so that they mean one place (less than half of [`TAG`]), and at least.
const FINEST: u64 = 2048;
const COARSEST: u64 = 128;

/// The address in a word.
#[inline]
pub(super) fn bare(word: *mut u8) -> *mut u8 {
    word.map_addr(|address| address & ADDRESS)
}

/// Does the address leave room for the other bits? One that did not would be cut; no supported system hands such a one out unasked.
#[inline]
pub(super) fn fits(entry: NonNull<u8>) -> bool {
    entry.addr().get() & !ADDRESS == 0
}

/// How far from its home a word stands that is not null.
#[inline]
pub(super) fn distance(word: *mut u8) -> usize {
    (word.addr() >> 56) - 1
}

/// At which of so many homes the walk for this hash begins.
#[inline]
pub(super) fn home(homes: usize, hash: u64) -> usize {
    (((hash & 0xFFFF_FFFF) * homes as u64) >> 32) as usize
}

/// A place to begin at, and what a word has besides its address if it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) home: usize,
    pub(super) bits: usize,
}

/// Which bits of a hash tell home and tag in one array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    homes: u32,
    /// The first bit of the tag.
    shift: u32,
}

impl Scale {
    /// For so many homes, with the finest bits.
    pub(super) fn of(homes: usize) -> Self {
        let homes = u32::try_from(homes).unwrap_or(u32::MAX).max(1);
        Self { homes, shift: (32 - FINEST.ilog2()).saturating_sub(homes.ilog2()) }
    }

    /// For other homes, if possible with the same bits.
    pub(super) fn rescaled(self, homes: usize) -> Self {
        let (finest, parts) = (Self::of(homes), (1 << (32 - self.shift)) / homes.max(1) as u64);
        if (COARSEST..=FINEST).contains(&parts) { Self { shift: self.shift, ..finest } } else { finest }
    }

    #[inline]
    pub(super) fn homes(self) -> usize {
        self.homes as usize
    }

    #[inline]
    pub(super) fn home(self, hash: u64) -> usize {
        home(self.homes(), hash)
    }

    /// The upper sixteen bits of a word at home, which are enough for who searches.
    #[inline]
    pub(super) fn upper(self, hash: u64) -> usize {
        (((hash & 0xFFFF_FFFF) >> self.shift) & 0xFF) as usize | STEP >> 48
    }

    #[inline]
    pub(super) fn spot(self, hash: u64) -> Spot {
        Spot { home: self.home(hash), bits: bits((hash & 0xFFFF_FFFF) >> self.shift) }
    }

    /// Must all entries that come from an array of this scale be asked for their hash?
    pub(super) fn is_finer_than(self, older: Self) -> bool {
        self.shift < older.shift
    }

    /// The way of words here from an array of scale `older`; none if all their entries must be asked for their hash.
    #[inline]
    pub(super) fn way_from(self, older: Self) -> Option<Way> {
        (!self.is_finer_than(older)).then(|| Way { older, newer: self, width: u64::MAX / u64::from(older.homes) })
    }
}

/// From one array into another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    older: Scale,
    newer: Scale,
    /// The hashes of one home of the older array, by their lower half, times 2^32, rounded down: one division for all words instead of one for each.
    width: u64,
}

impl Way {
    /// The spot of a word that has this home in the older array, if that tells it.
    #[inline]
    pub(super) fn spot(self, home: usize, word: *mut u8) -> Option<Spot> {
        // Where the home begins, or a little before, which does as well: it has less than half of the parts that the bits tell apart.
        let lowest = (home as u64 * self.width) >> 32 >> self.older.shift;
        let part = lowest + (tag(word).wrapping_sub(lowest) & TAG);
        let (first, last) = (part << self.older.shift, ((part + 1) << self.older.shift) - 1);
        let home = self.newer.home(first);
        (home == self.newer.home(last)).then(|| Spot { home, bits: bits(part >> (self.newer.shift - self.older.shift)) })
    }
}

/// The lowest bits of `part` as those of a word, at home.
#[inline]
fn bits(part: u64) -> usize {
    STEP | (part as usize & 0xFF) << 48 | part as usize >> 8 & 0xF
}

/// The bits of the hash in a word.
#[inline]
fn tag(word: *mut u8) -> u64 {
    (word.addr() >> 48 & 0xFF | (word.addr() & 0xF) << 8) as u64
}
