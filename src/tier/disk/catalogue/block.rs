//! Directories as bytes.
//!
//! ```text
//! tree "blocks":   segment u32 BE | namespace | 0 | first key   ->  block | xxh3 of block and salt, u64
//! tree "segments": segment u32 BE  ->  salt u64 | length u64 | blocks u32 | highest sequence u64 | xxh3 of these u64
//! block:  namespace length u8 | namespace | words
//! word:   shared u16 | rest length u16 | rest of the key | sequence | offset / 8 | length / 8 | stale until
//!         (the four as LEB128; the first two bytes count how much of the key before is shared; length 0 = removed, and then
//!         there is no "stale until")
//! ```

use xxhash_rust::xxh3::Xxh3;

use super::super::index::Place;
use super::Word;
use super::directory::Said;

/// Where a block is full.
const BLOCK_BYTES: usize = 2 << 10;

pub(super) fn block_key(segment: u32, namespace: &str, key: &str) -> Vec<u8> {
    [&segment.to_be_bytes(), namespace.as_bytes(), &[0], key.as_bytes()].concat()
}

/// The first key behind all that begin with `prefix`; the prefix begins with a number below `u32::MAX`.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

pub(super) fn block_sum(block: &[u8], salt: u64) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(block);
    hash.update(&salt.to_le_bytes());
    hash.digest()
}

pub(super) fn summary(salt: u64, len: u64, blocks: u32, sequence: u64) -> Vec<u8> {
    let mut bytes = [&salt.to_le_bytes()[..], &len.to_le_bytes(), &blocks.to_le_bytes(), &sequence.to_le_bytes()].concat();
    let sum = block_sum(&bytes, salt);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Cuts the last words of a segment into blocks, and shows each with its key. The block is what stands there, and may be changed.
///
/// # Errors
///
/// What `visit` says; then nothing more is shown.
pub(super) fn blocks_of<'d, E>(
    segment: u32,
    words: impl Iterator<Item = Said<'d>>,
    mut visit: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let (mut first, mut block, mut before) = (Vec::new(), Vec::with_capacity(2 * BLOCK_BYTES), None::<(&str, &str)>);
    for (namespace, key, word) in words {
        if before.is_none_or(|(name, _)| name != namespace) || block.len() >= BLOCK_BYTES {
            if before.is_some() {
                visit(&first, &mut block)?;
            }
            first = block_key(segment, namespace, key);
            block.clear();
            block.push(namespace.len() as u8);
            block.extend_from_slice(namespace.as_bytes());
            before = None;
        }
        let shared = before.map_or(0, |(_, before)| before.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count());
        block.extend_from_slice(&(shared as u16).to_le_bytes());
        block.extend_from_slice(&((key.len() - shared) as u16).to_le_bytes());
        block.extend_from_slice(&key.as_bytes()[shared..]);
        push_number(&mut block, word.sequence);
        let (place, stale_until) = word.value.unwrap_or((Place { segment: 0, offset: 0, len: 0 }, 0));
        push_number(&mut block, place.offset / 8);
        push_number(&mut block, place.len / 8);
        if word.value.is_some() {
            push_number(&mut block, stale_until);
        }
        before = Some((namespace, key));
    }
    if before.is_some() { visit(&first, &mut block) } else { Ok(()) }
}

/// Shows the words of a block; `None` if it is not one of a segment of this length.
pub(super) fn parse_block(block: &[u8], segment: u32, len: u64, visit: &mut dyn FnMut(&str, &str, &Word)) -> Option<()> {
    let (namespace_len, rest) = block.split_first()?;
    let (namespace, mut rest) = rest.split_at_checked(usize::from(*namespace_len))?;
    let namespace = str::from_utf8(namespace).ok()?;
    let mut key = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_first_chunk::<4>()?;
        let (shared, own) = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let (suffix, after) = after.split_at_checked(usize::from(own))?;
        if usize::from(shared) > key.len() {
            return None;
        }
        key.truncate(usize::from(shared));
        key.extend_from_slice(suffix);
        rest = after;
        let sequence = take_number(&mut rest)?;
        let (offset, size) = (take_number(&mut rest)?.checked_mul(8)?, take_number(&mut rest)?.checked_mul(8)?);
        let value = if size == 0 {
            None
        } else if offset.checked_add(size)? <= len {
            Some((Place { segment, offset, len: size }, take_number(&mut rest)?))
        } else {
            return None;
        };
        visit(namespace, str::from_utf8(&key).ok()?, &Word { sequence, value });
    }
    Some(())
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::super::Directory;
    use super::*;

    #[test]
    fn blocks_say_what_the_directory_said() {
        let mut directory = Directory::new(3);
        for n in 0..1000_u64 {
            let place = Place { segment: 3, offset: n * 8, len: 64 };
            directory.value(if n % 3 == 0 { "curves" } else { "general" }, &format!("pjm:{n:05}"), place, 1 << 40, n);
            directory.removal("metadata", &format!("gone:{n}"), n);
        }
        let (mut seen, mut blocks) = (Vec::new(), Vec::new());
        let keep = |key: &[u8], block: &mut Vec<u8>| {
            blocks.push((key.to_vec(), block.clone()));
            Ok::<(), ()>(())
        };
        blocks_of(3, directory.last_words(None, ""), keep).unwrap();
        assert!(blocks.is_sorted_by_key(|(key, _)| key.clone()));
        for (_, block) in &blocks {
            parse_block(block, 3, 1 << 20, &mut |name, key, word| {
                seen.push((name.to_owned(), key.to_owned(), *word));
            })
            .unwrap();
        }
        let words = directory.last_words(None, "").map(|(name, key, word)| (name.to_owned(), key.to_owned(), word));
        let words: Vec<_> = words.collect();
        assert_eq!(seen, words);
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.usize(0..60)).map(|_| rng.u8(..) >> rng.u8(0..8)).collect();
            let _ = parse_block(&bytes, 1, 1000, &mut |_, _, _| {});
        }
    }
}
