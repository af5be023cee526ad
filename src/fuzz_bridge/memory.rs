//! The memory tier against a map that is told what left.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Clock;
use crate::entry::{Entry, Meta, Shape};
use crate::key::KeyHasher;
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;
use crate::tier::memory::{Gone, Memory};

/// Keys that are played with; few, so that they meet.
const KEYS: u8 = 48;

/// What a key must be found with, and until when.
struct Known {
    payload: Vec<u8>,
    stale_until: u64,
}

/// Plays the input as operations of four bytes and judges each of them: what is resident is what was put last, what left was said to
/// leave or is past its life, a value that a reader holds does not change, and every invariant of the tier holds.
///
/// # Panics
///
/// If not.
pub fn memory(input: &[u8]) {
    // The same input does the same again: neither the secret of the hash nor the policy's dice may differ.
    let seed = input.iter().fold(0, |sum: u64, byte| sum.rotate_left(7) ^ u64::from(*byte));
    fastrand::seed(seed);
    let (clock, hasher) = (Clock::manual(), KeyHasher::seeded(seed));
    let memory = Memory::new(64 << 10, clock.clone(), hasher.clone(), true);
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut held: Vec<(Entry, Vec<u8>)> = Vec::new();
    let texts: Vec<String> = (0..KEYS).flat_map(|n| (1..=7).map(move |width| format!("key-{n:0width$}"))).collect();
    let turns = input.len() / 4;
    for (turn, operation) in input.chunks_exact(4).enumerate() {
        let [verb, which, low, high] = *operation else { return };
        let text = format!("key-{:0width$}", which % KEYS, width = usize::from(which % 7) + 1);
        let Ok(key) = hasher.key(Namespace::CURVES, &text) else { return };
        let number = u16::from_le_bytes([low, high]);
        let now = clock.steady();
        match verb % 12 {
            0..=3 => {
                let payload = vec![turn as u8 ^ which; usize::from(number) % 5_000];
                let expires = now + u64::from(high) * 100;
                let stale_until = expires + u64::from(low % 3) * 1_000;
                let meta = Meta { policy: TtlPolicy::Medium, fingerprint: 1, created: now, expires, stale_until, stamp: 0 };
                let Ok(entry) = Entry::build(&key, &meta, &payload, Shape::UNKNOWN) else { return };
                let put = memory.put(&key, entry);
                known.remove(&text);
                put.evicted.iter().for_each(|gone| forget(&mut known, gone));
                if put.admitted {
                    known.insert(text.clone(), Known { payload, stale_until });
                }
            }
            4 | 5 => held.extend(memory.get(&key).map(|entry| {
                let bytes = entry.payload().to_vec();
                (entry, bytes)
            })),
            6 => {
                let _ = memory.with(&key, |entry| assert_eq!(entry.key(), text));
            }
            7 => {
                memory.remove(&key);
                known.remove(&text);
            }
            8 => {
                clock.advance(Duration::from_millis(u64::from(number)));
                memory.expire(clock.steady(), usize::from(which));
            }
            9 => memory.resize(u64::from(number) * 8).iter().for_each(|gone| forget(&mut known, gone)),
            10 => {
                let tail = char::from(b'0' + which % 10);
                memory.remove_matching(&mut |entry| entry.key().ends_with(tail));
                known.retain(|text, _| !text.ends_with(tail));
            }
            _ => held.truncate(usize::from(which) % 8),
        }
        memory.validate();
        let now = clock.steady();
        for (text, known) in &known {
            let Ok(key) = hasher.key(Namespace::CURVES, text) else { return };
            match memory.peek(&key) {
                Some(found) => assert_eq!(found.payload(), known.payload, "{text} is not what was put last"),
                None => assert!(known.stale_until <= now, "{text} left without a word"),
            }
        }
        // Now and then, for it is most of the time, and what came back stays.
        let looked_for = if turn % 16 == 15 || turn + 1 == turns { &texts[..] } else { &[] };
        for text in looked_for.iter().filter(|text| !known.contains_key(*text)) {
            let Ok(key) = hasher.key(Namespace::CURVES, text) else { return };
            assert!(memory.peek(&key).is_none(), "{text} is there, but was removed, evicted or never put");
        }
        assert!(held.iter().all(|(entry, bytes)| entry.payload() == bytes), "a held value changed");
    }
}

/// An entry left; unless another of its key came since, the map forgets the key.
fn forget(known: &mut HashMap<String, Known>, gone: &Gone) {
    let Some(gone) = &gone.entry else { return };
    if known.get(gone.key()).is_some_and(|known| known.payload == gone.payload()) {
        known.remove(gone.key());
    }
}
