//! The narrow door for the fuzz targets; it exists only under `cfg(fuzzing)`.
//!
//! Each function takes raw input and panics if a property does not hold. Nothing of the inside leaves the crate.

mod memory;

pub use memory::memory;

use crate::clock::Clock;
use crate::coherence::{Cursor, Message};
use crate::entry::{Entry, Header};
use crate::invalidation::event::InvalidationEvent;
use crate::key::KeyHasher;
use crate::namespace::Namespace;
use crate::pattern::{Pattern, judge};

/// The matcher answers as the judge, and the literal prefix is one.
///
/// # Panics
///
/// If not.
pub fn pattern(pattern: &str, key: &str) {
    let Ok(parsed) = Pattern::parse(pattern) else { return };
    let found = parsed.matches(key);
    // The judge is exponential in the stars.
    if pattern.matches('*').count() <= 4 && key.len() <= 64 {
        assert_eq!(found, judge::redis(pattern.as_bytes(), key.as_bytes()), "{pattern:?} on {key:?}");
    }
    assert!(!found || key.starts_with(parsed.literal_prefix()), "{pattern:?} on {key:?}: prefix");
    if let Ok(literal) = Pattern::parse(&Pattern::literal(key)) {
        assert!(literal.matches(key) && literal.literal_prefix() == key, "literal of {key:?}");
    }
}

/// Foreign bytes become an entry or an error; an entry lives no longer than its header says and survives the way out and in.
///
/// # Panics
///
/// If not.
pub fn header(input: &[u8]) {
    let Some((header, payload)) = input.split_first_chunk::<{ Header::LEN }>() else { return };
    let Ok(key) = KeyHasher::random().key(Namespace::CURVES, "k") else { return };
    let clock = Clock::manual();
    let decode = |header: &[u8; Header::LEN]| {
        let Ok(entry) = Entry::decode(&key, header, payload, &clock, None) else { return };
        let Ok(read) = Header::parse(header) else { panic!("decoded what does not parse") };
        assert!(entry.is_of(&key) && entry.payload() == payload && entry.meta().fingerprint == read.fingerprint);
        assert!(entry.created() <= clock.steady(), "older than now");
        assert!(entry.expires() <= clock.steady().saturating_add(read.expires - read.created), "longer than its life");
        assert!(entry.stale_until() >= entry.expires(), "stale before expired");
        let again = Entry::decode(&key, &entry.header(&clock), payload, &clock, None);
        assert!(again.is_ok_and(|again| again.payload() == payload), "what went out does not come back");
    };
    decode(header);
    let mut helped = *header;
    helped[..5].copy_from_slice(b"AUCE\x01");
    helped[5] = 0;
    helped[7] = key.namespace().name().len() as u8;
    helped[8..10].copy_from_slice(&(key.text.len() as u16).to_le_bytes());
    helped[10..12].fill(0);
    helped[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    if let Ok(parsed) = Header::parse(&helped) {
        decode(&parsed.sealed(key.namespace().name(), key.text, payload).to_bytes());
    }
}

/// What comes from the log between nodes, from the ledger and from the cursor's note becomes a record or nothing; a record survives the way out and
/// in, and can be told to a person.
///
/// # Panics
///
/// If not.
pub fn record(input: &[u8]) {
    if let Ok(message) = Message::decode(input) {
        assert!(Message::decode(&message.encode()).is_ok_and(|again| again == message), "{message}");
        assert!(message.key().is_none_or(|(_, key)| !key.is_empty()), "a key of nothing");
    }
    if let Some(event) = InvalidationEvent::from_bytes(input) {
        assert_eq!(InvalidationEvent::from_bytes(&event.to_bytes()).map(|again| again.to_string()), Some(event.to_string()));
    }
    if let Some(cursor) = Cursor::from_bytes(input) {
        assert_eq!(Cursor::from_bytes(&cursor.to_bytes()), Some(cursor));
    }
}
