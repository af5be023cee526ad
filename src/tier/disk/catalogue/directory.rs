//! What a segment says of its keys, while it is written or read.
//!
//! A word after the other in pieces of 32 KiB, 33 bytes and the key each in `curves`: the open segment's directory is always in memory, and pieces
//! of one size leave no holes in it. (A tree of keys was rejected: it took several small allocations a word among the blocks of the index.)
//! Order, and which word is a key's last, is found out when somebody asks: once when the segment is sealed, and by sweeps.

use super::super::index::Place;

/// Bytes of a piece.
const PIECE: usize = 32 << 10;

/// What a segment says last of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Word {
    pub(in super::super) sequence: u64,
    /// Where its value is, and until when it may be served (wall time, ms); `None` = removed.
    pub(in super::super) value: Option<(Place, u64)>,
}

/// A namespace, a key in it, and what is said of them.
pub(in super::super) type Said<'d> = (&'d str, &'d str, Word);

/// The words of a segment on its keys.
pub(in super::super) struct Directory {
    pub(in super::super) segment: u32,
    /// In the order of the log: `namespace length u8 | namespace | key length u16 | key | sequence u64 | offset / 8 u32 | length / 8 u32 | stale
    /// until u64`; a length of 0 is a removal.
    pieces: Vec<Vec<u8>>,
}

impl Directory {
    pub(in super::super) fn new(segment: u32) -> Self {
        Self { segment, pieces: Vec::new() }
    }

    pub(in super::super) fn value(&mut self, namespace: &str, key: &str, place: Place, stale_until: u64, sequence: u64) {
        self.push(namespace, key, sequence, (place.offset / 8) as u32, (place.len / 8) as u32, stale_until);
    }

    pub(in super::super) fn removal(&mut self, namespace: &str, key: &str, sequence: u64) {
        self.push(namespace, key, sequence, 0, 0, 0);
    }

    /// Forgets what was said.
    pub(in super::super) fn clear(&mut self) {
        self.pieces.clear();
    }

    fn push(&mut self, namespace: &str, key: &str, sequence: u64, offset: u32, len: u32, stale_until: u64) {
        let need = 1 + namespace.len() + 2 + key.len() + 24;
        if self.pieces.last().is_none_or(|piece| piece.capacity() - piece.len() < need) {
            self.pieces.push(Vec::with_capacity(need.max(PIECE)));
        }
        let Some(piece) = self.pieces.last_mut() else { return };
        piece.push(namespace.len() as u8);
        piece.extend_from_slice(namespace.as_bytes());
        piece.extend_from_slice(&(key.len() as u16).to_le_bytes());
        piece.extend_from_slice(key.as_bytes());
        piece.extend_from_slice(&sequence.to_le_bytes());
        piece.extend_from_slice(&offset.to_le_bytes());
        piece.extend_from_slice(&len.to_le_bytes());
        piece.extend_from_slice(&stale_until.to_le_bytes());
    }

    /// The word at a place: piece, and offset in it.
    fn at(&self, (piece, offset): (u32, u32)) -> Option<Said<'_>> {
        take_word(&mut self.pieces.get(piece as usize)?.get(offset as usize..)?, self.segment)
    }

    /// Where each word begins, in the order of the log.
    fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        self.pieces.iter().zip(0..).flat_map(move |(piece, number)| {
            let mut rest = &piece[..];
            std::iter::from_fn(move || {
                let offset = piece.len() - rest.len();
                take_word(&mut rest, self.segment).map(|_| (number, offset as u32))
            })
        })
    }

    /// The last word on each key of a namespace (or all) that begins with the prefix, in order. Eight bytes a word are needed for it.
    pub(in super::super) fn last_words(&self, namespace: Option<&str>, prefix: &str) -> impl Iterator<Item = Said<'_>> {
        let key_at = |place| self.at(place).map(|(name, key, _)| (name, key));
        let wanted = |place: &(u32, u32)| {
            key_at(*place)
                .is_some_and(|(name, key)| namespace.is_none_or(|namespace| namespace == name) && key.starts_with(prefix))
        };
        let mut places: Vec<_> = self.places().filter(wanted).collect();
        // What was said last of a key comes first of it, and the others are left out.
        places.sort_unstable_by(|one, other| key_at(*one).cmp(&key_at(*other)).then(other.cmp(one)));
        places.dedup_by(|later, earlier| key_at(*later) == key_at(*earlier));
        places.into_iter().filter_map(|place| self.at(place))
    }

    /// Shows what stands under a namespace (or all) and a prefix, in order.
    pub(in super::super) fn under(&self, namespace: Option<&str>, prefix: &str, visit: &mut dyn FnMut(&str, &str, &Word)) {
        self.last_words(namespace, prefix).for_each(|(name, key, word)| visit(name, key, &word));
    }
}

/// Takes the first word off; `None` at the end.
fn take_word<'d>(rest: &mut &'d [u8], segment: u32) -> Option<Said<'d>> {
    let (name_len, after) = rest.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(*name_len))?;
    let (key_len, after) = after.split_first_chunk()?;
    let (key, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*key_len)))?;
    let (sequence, after) = after.split_first_chunk()?;
    let (offset, after) = after.split_first_chunk()?;
    let (len, after) = after.split_first_chunk()?;
    let (stale_until, after) = after.split_first_chunk()?;
    *rest = after;
    let units = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes)) * 8;
    let place = Place { segment, offset: units(offset), len: units(len) };
    let value = (place.len > 0).then(|| (place, u64::from_le_bytes(*stale_until)));
    Some((str::from_utf8(name).ok()?, str::from_utf8(key).ok()?, Word { sequence: u64::from_le_bytes(*sequence), value }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_last_word_on_each_key_counts_as_in_a_map() {
        let mut rng = fastrand::Rng::with_seed(5);
        let (mut directory, mut model) = (Directory::new(3), BTreeMap::new());
        for sequence in 1..20_000 {
            let (name, key) =
                (["curves", "general"][rng.usize(..2)], format!("{}{:0width$}", rng.u8(..9), 7, width = rng.usize(..90)));
            let value = rng.bool().then(|| (Place { segment: 3, offset: sequence * 8, len: 64 }, rng.u64(..)));
            match value {
                Some((place, stale_until)) => directory.value(name, &key, place, stale_until, sequence),
                None => directory.removal(name, &key, sequence),
            }
            model.insert((name, key), Word { sequence, value });
        }
        for (namespace, prefix) in [(None, ""), (Some("curves"), ""), (None, "70"), (Some("general"), "7000")] {
            let mut seen = Vec::new();
            directory.under(namespace, prefix, &mut |name, key, word| seen.push((name.to_owned(), key.to_owned(), *word)));
            let expected =
                model.iter().filter(|((name, key), _)| namespace.is_none_or(|wanted| wanted == *name) && key.starts_with(prefix));
            let expected: Vec<_> = expected.map(|((name, key), word)| ((*name).to_owned(), key.clone(), *word)).collect();
            assert_eq!(seen, expected, "{namespace:?} {prefix}");
        }
        directory.clear();
        assert!(directory.last_words(None, "").next().is_none());
    }

    #[test]
    fn a_key_larger_than_a_piece_has_one_of_its_own() {
        let (mut directory, long) = (Directory::new(1), "k".repeat(60_000));
        directory.removal("curves", "a", 1);
        directory.removal("curves", &long, 2);
        directory.removal("curves", "b", 3);
        let keys: Vec<_> = directory.last_words(None, "").map(|(_, key, word)| (key.len(), word.sequence)).collect();
        assert_eq!(keys, [(1, 1), (1, 3), (60_000, 2)]);
    }
}
