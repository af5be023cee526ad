//! How long an entry lives, in 32 bits.

/// Bits of a packed life that are its number; the five above them say by how many bits it is shifted.
const LIFE_BITS: u32 = 27;

/// Milliseconds in 32 bits, rounded up where they need more than 27 bits: who subtracts it from the end finds no creation in the future.
#[inline]
pub(super) fn pack(ms: u64) -> u32 {
    if ms < 1 << LIFE_BITS {
        return ms as u32;
    }
    let ms = ms.min(1 << 57);
    let bits = |ms: u64| (u64::BITS - ms.leading_zeros()).saturating_sub(LIFE_BITS);
    // Rounded up first, for that may take one bit more.
    let step = (1 << bits(ms)) - 1;
    let ms = (ms + step) & !step;
    let shift = bits(ms);
    (ms >> shift) as u32 | shift << LIFE_BITS
}

/// The milliseconds again; what was rounded up stays so.
#[inline]
pub(super) fn unpack(packed: u32) -> u64 {
    u64::from(packed & ((1 << LIFE_BITS) - 1)) << (packed >> LIFE_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_exact_to_37_hours_and_nearly_so_beyond() {
        let century = crate::policy::ttl::MAX_TTL.as_millis() as u64;
        for ms in [0, 1, 29_999, 86_400_000, 134_217_727, 604_800_000] {
            assert_eq!(unpack(pack(ms)), ms);
        }
        for ms in [134_217_729, 604_800_001, century, 1 << 56] {
            let kept = unpack(pack(ms));
            assert!(kept >= ms && kept - ms <= ms >> 26, "{ms} became {kept}");
        }
        assert_eq!(unpack(pack(u64::MAX)), 1 << 57);
    }
}
