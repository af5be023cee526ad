//! The distinct keys of a trace, each once, numbered in the order of their first appearance.
//!
//! All texts stand in one long string and are found by a hash of their own; keys with the same hash are chained and compared, so
//! that a hash never stands for a key. About 50 bytes a key besides its text.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Distinct texts in the order of their first appearance, all in one.
pub(crate) struct Keys {
    text: String,
    /// Where each key ends in `text`.
    ends: Vec<usize>,
    /// Hash of a key to the newest key with that hash.
    newest: HashMap<u64, u32>,
    /// For each key the one before it with the same hash, or itself.
    before: Vec<u32>,
    hasher: RandomState,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { text: String::new(), ends: Vec::new(), newest: HashMap::new(), before: Vec::new(), hasher: RandomState::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn text(&self, key: u32) -> &str {
        let key = key as usize;
        let start = if key == 0 { 0 } else { self.ends[key - 1] };
        &self.text[start..self.ends[key]]
    }

    /// The number of a text; nothing if there are no numbers left.
    pub(crate) fn intern(&mut self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        let newest = self.newest.get(&hash).copied();
        let mut candidate = newest;
        while let Some(key) = candidate {
            if self.text(key) == text {
                return Some(key);
            }
            candidate = Some(self.before[key as usize]).filter(|&before| before != key);
        }
        let key = u32::try_from(self.ends.len()).ok()?;
        self.text.push_str(text);
        self.ends.push(self.text.len());
        self.before.push(newest.unwrap_or(key));
        self.newest.insert(hash, key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_number_and_its_text() {
        let mut keys = Keys::new();
        let texts = ["a", "", "b", "ab"];
        let numbers: Vec<_> = texts.iter().map(|text| keys.intern(text)).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2), Some(3)]);
        for (text, number) in texts.iter().zip(0..) {
            assert_eq!((keys.intern(text), keys.text(number)), (Some(number), *text));
        }
        assert_eq!(keys.len(), 4);
    }
}
