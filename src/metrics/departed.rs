//! Why did this key leave? A small memory of departures, so that a later miss has a cause.
//!
//! A direct-mapped table of 8 192 words: thirty bits of a key's hash and a cause. Newer departures overwrite older ones; a miss whose key is
//! not found here is `absent`, and one in a billion is taken for another. It serves analytics only, nothing depends on it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::metrics::MissCause;

const SLOTS: usize = 8_192;
/// Bits of a word that are the cause.
const CAUSE: u32 = 3;

/// What of a hash stands in a word.
fn word(hash: u64) -> u32 {
    hash as u32 & !CAUSE
}

pub(crate) struct Departed {
    slots: Box<[AtomicU32]>,
}

impl Departed {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect() }
    }

    /// A key with this hash left for `cause`.
    #[inline]
    pub(crate) fn note(&self, hash: u64, cause: MissCause) {
        let code = match cause {
            MissCause::Evicted => 1,
            MissCause::Invalidated => 2,
            MissCause::Expired => 3,
            MissCause::Absent | MissCause::Schema | MissCause::Corrupt | MissCause::TierDown => return,
        };
        self.slot(hash).store(word(hash) | code, Ordering::Relaxed);
    }

    /// Why the key with this hash left, if that is remembered.
    pub(crate) fn cause(&self, hash: u64) -> Option<MissCause> {
        let left = self.slot(hash).load(Ordering::Relaxed);
        match (left & !CAUSE == word(hash), left & CAUSE) {
            (true, 1) => Some(MissCause::Evicted),
            (true, 2) => Some(MissCause::Invalidated),
            (true, 3) => Some(MissCause::Expired),
            _ => None,
        }
    }

    fn slot(&self, hash: u64) -> &AtomicU32 {
        &self.slots[(hash >> 40) as usize % SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_departure_is_remembered_until_another_takes_its_place() {
        let departed = Departed::new();
        let hash = 0x1234_5678_9abc_def0;
        assert_eq!(departed.cause(hash), None);
        departed.note(hash, MissCause::Evicted);
        assert_eq!(departed.cause(hash), Some(MissCause::Evicted));
        departed.note(hash, MissCause::Invalidated);
        assert_eq!(departed.cause(hash), Some(MissCause::Invalidated));
        assert_eq!(departed.cause(hash ^ 0x100), None);
    }
}
