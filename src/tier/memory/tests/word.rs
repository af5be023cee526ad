//! What a word tells of its hash, judged by the hash.

use std::ptr::{NonNull, without_provenance_mut};

use proptest::prelude::*;

use super::super::word::{Scale, Spot, bare, distance};

/// A word of this hash that stands so many places from home.
fn word(scale: Scale, hash: u64, from_home: usize) -> (usize, *mut u8) {
    let Spot { home, bits } = scale.spot(hash);
    (home, without_provenance_mut(0x7000_1234_5670 | (bits + (from_home << 56))))
}

#[test]
fn a_word_keeps_the_address_and_how_far_from_home_it_stands() {
    for from_home in [0, 1, 7, 254] {
        let (_, word) = word(Scale::of(1_000), 0xDEAD_BEEF, from_home);
        assert_eq!((distance(word), bare(word).addr()), (from_home, 0x7000_1234_5670));
    }
    assert!(super::super::word::fits(NonNull::new(without_provenance_mut(0x7000_1234_5670)).unwrap()));
    for cut in [0x7000_1234_5678, 0x1_7000_1234_5670] {
        assert!(!super::super::word::fits(NonNull::new(without_provenance_mut(cut)).unwrap()), "{cut:x} would be cut");
    }
}

#[test]
fn the_bits_that_a_search_compares_are_the_upper_ones_of_a_word_at_home() {
    for (homes, hash) in [(8, 3), (151, 0x1234_5678), (4_000, 0xFFFF_FFFF), (3 << 25, 0x8000_0001)] {
        let scale = Scale::of(homes);
        assert_eq!(scale.upper(hash), word(scale, hash, 0).1.addr() >> 48);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Through any series of sizes: the word has the bits that the array before gave it.
    #[test]
    fn a_word_tells_where_it_belongs_or_that_it_does_not_know(
        hash: u64, from_home in 0_usize..200, sizes in prop::collection::vec((3_u32..28, 0_u32..1_000), 2..12),
    ) {
        let sizes = sizes.iter().map(|(exponent, part)| (1_usize << exponent) + ((*part as usize) << exponent) / 1_000);
        let mut scale: Option<Scale> = None;
        for homes in sizes {
            let next = scale.map_or_else(|| Scale::of(homes), |scale| scale.rescaled(homes));
            if let Some(scale) = scale {
                let (home, word) = word(scale, hash, from_home);
                let carried = next.way_from(scale).and_then(|way| way.spot(home, word));
                prop_assert!(carried.is_none_or(|spot| spot == next.spot(hash)), "{scale:?} to {next:?}: {carried:?}");
                prop_assert!(carried.is_none() || !next.is_finer_than(scale));
            }
            scale = Some(next);
        }
    }
}

#[test]
fn growth_asks_few_entries_for_their_hash() {
    let (mut homes, mut scale, mut asked, mut all) = (1_000, Scale::of(1_000), 0, 0);
    for _ in 0..24 {
        homes += homes / 4;
        let next = scale.rescaled(homes);
        for number in 0..1_000_u64 {
            let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
            let (home, word) = word(scale, hash, 0);
            asked += usize::from(next.way_from(scale).and_then(|way| way.spot(home, word)).is_none());
            all += 1;
        }
        scale = next;
    }
    // One growth in nine asks all of them, the others one in some hundred.
    assert!(asked * 6 < all, "{asked} of {all}");
    assert!(asked > 0, "bits are never refreshed: then they tell nothing after enough growth");
}
