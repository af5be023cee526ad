//! Short texts, compared where they stand.

/// Are these the same bytes? As `==`, which is a call; this is none for 4 to 32 bytes, which keys and names of namespaces have as a rule.
#[inline(always)]
pub(crate) fn are_equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    match left.len() {
        16..=32 => have_equal_ends::<16>(left, right),
        8..16 => have_equal_ends::<8>(left, right),
        4..8 => have_equal_ends::<4>(left, right),
        _ => left == right,
    }
}

/// The first `N` and the last, which may overlap: all there is of `N` to `2 N` bytes.
#[inline(always)]
fn have_equal_ends<const N: usize>(left: &[u8], right: &[u8]) -> bool {
    left.first_chunk::<N>() == right.first_chunk::<N>() && left.last_chunk::<N>() == right.last_chunk::<N>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_comparison_byte_by_byte_says() {
        for len in 0..=80 {
            let left: Vec<u8> = (0..len).collect();
            assert!(are_equal(&left, &left.clone()));
            assert!(!are_equal(&left, &[&left[..], &[7]].concat()));
            for at in 0..left.len() {
                let mut right = left.clone();
                right[at] ^= 0x40;
                assert!(!are_equal(&left, &right), "{len} bytes, of which number {at} differs");
                assert!(!are_equal(&left, &left[..at]));
            }
        }
    }
}
