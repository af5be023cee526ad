//! Values that are known to be right: the pseudo-random bytes of their own key, at any length.
//!
//! Whoever reads one makes it again and compares, so a wrong, torn or foreign value is seen at once and nothing has to be kept
//! to check against.

use crate::report::{self, Failure, Outcome};
use crate::simulate::mix;

/// The first word of a key's values: FNV-1a of the key.
fn seed(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The words of a key's values, however long they are.
fn words(key: &str) -> impl Iterator<Item = [u8; 8]> {
    let seed = seed(key);
    (0u64..).map(move |at| mix(seed.wrapping_add(at)).to_le_bytes())
}

/// Makes the value of a key in `buffer`.
pub(crate) fn fill(buffer: &mut Vec<u8>, key: &str, bytes: u64) -> Outcome {
    let too_large = || Failure::said(format!("a value of {} is more than this machine can address", report::bytes(bytes)));
    let bytes = usize::try_from(bytes).map_err(|_| too_large())?;
    buffer.clear();
    buffer.try_reserve(bytes.saturating_add(8)).map_err(|_| too_large())?;
    for word in words(key) {
        if buffer.len() >= bytes {
            break;
        }
        buffer.extend_from_slice(&word);
    }
    buffer.truncate(bytes);
    Ok(())
}

/// Are these bytes what `fill` makes for this key?
pub(crate) fn is_value_of(key: &str, bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut words = words(key);
    chunks.iter().all(|chunk| words.next().is_some_and(|word| word == *chunk))
        && words.next().is_some_and(|word| word.starts_with(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_recognised_at_any_length_and_a_flipped_bit_is_not() {
        let mut value = Vec::new();
        for bytes in [1, 7, 8, 9, 1000] {
            assert!(fill(&mut value, "key", bytes).is_ok());
            assert_eq!(value.len() as u64, bytes);
            assert!(is_value_of("key", &value));
            assert!(!is_value_of("yek", &value));
            let last = value.len() - 1;
            value[last] ^= 1;
            assert!(!is_value_of("key", &value));
        }
    }
}
