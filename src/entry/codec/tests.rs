//! An entry is what was put in, is claimed as its own type only, and keeps its remaining life outside.

use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::key::KeyHasher;
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;

fn meta(fingerprint: u64) -> Meta {
    Meta { policy: TtlPolicy::Short, fingerprint, created: 1_000, expires: 301_000, stale_until: 302_000, stamp: 7 }
}

#[test]
fn an_entry_is_what_was_put_into_it() {
    let key = KeyHasher::random().key(Namespace::CURVES, "pjm").unwrap();
    for len in [0, 1, 15, 16, 17, 1000] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let entry = Entry::new(&key, &meta(1), &payload);
        assert_eq!((entry.key(), entry.payload(), entry.meta()), ("pjm", &payload[..], meta(1)));
        assert_eq!(entry.payload().as_ptr() as usize % ALIGN, 0);
        assert!(entry.is_of(&key));
    }
}

#[test]
fn plain_bytes_follow_their_key_without_padding() {
    let key = KeyHasher::random().key(Namespace::CURVES, "pjm").unwrap();
    let entry = Entry::build(&key, &meta(1), b"seven", Shape::of::<Bytes>()).unwrap();
    assert_eq!((entry.payload(), entry.footprint()), (&b"seven"[..], 32 + 3 + 5));
    assert!(matches!(entry.claim::<Bytes>(1), Claim::Typed(bytes) if *bytes == *b"seven"));
}

#[test]
fn however_long_its_life_no_entry_is_from_the_future() {
    // Found by the fuzz target `header`: a life rounded down put the creation behind now.
    let clock = Clock::manual();
    let key = KeyHasher::random().key(Namespace::CURVES, "k").unwrap();
    let now = clock.steady();
    for life in [134_217_729, 604_800_001, (1 << 40) + 1] {
        let entry = Entry::new(&key, &Meta { created: now, expires: now + life, stale_until: now + life, ..meta(1) }, b"payload");
        let back = Entry::decode(&key, &entry.header(&clock), b"payload", &clock, None).unwrap();
        for entry in [entry, back] {
            assert!(entry.created() <= now, "a life of {life} ms");
            assert_eq!(entry.expires(), now + life);
        }
    }
}

#[test]
fn a_claim_as_another_type_is_foreign_and_a_bad_archive_damaged() {
    let key = KeyHasher::random().key(Namespace::CURVES, "k").unwrap();
    let entry = Entry::new(&key, &meta(1), &[0xff, 0xfe]);
    assert!(matches!(entry.clone().claim::<Text>(2), Claim::Foreign));
    assert!(matches!(entry.clone().claim::<Text>(1), Claim::Damaged));
    assert!(matches!(entry.claim::<Bytes>(1), Claim::Typed(bytes) if *bytes == [0xff, 0xfe]));
}

#[test]
fn one_fingerprint_does_not_make_two_types_one() {
    let key = KeyHasher::random().key(Namespace::CURVES, "k").unwrap();
    let entry = Entry::new(&key, &meta(1), &[0xff]);
    assert!(entry.view::<Bytes>(1).is_some());
    assert!(entry.view::<Text>(1).is_none(), "validated as bytes, then read as text");
}

#[test]
fn what_leaves_and_comes_back_keeps_its_remaining_life() {
    let clock = Clock::manual();
    let key = KeyHasher::random().key(Namespace::CURVES, "k").unwrap();
    let now = clock.steady();
    let meta = Meta { created: now, expires: now + 300_000, stale_until: now + 301_000, ..meta(1) };
    let entry = Entry::new(&key, &meta, b"payload");
    clock.advance(Duration::from_secs(100));
    clock.jump_wall(3_600_000);
    let header = entry.header(&clock);
    let back = Entry::decode(&key, &header, b"payload", &clock, None).unwrap();
    assert_eq!(back.meta(), meta);
    // The wall clock goes back while the entry is outside: it lives longer by no more than the jump, and never beyond its TTL.
    clock.jump_wall(-7_200_000);
    let back = Entry::decode(&key, &header, b"payload", &clock, None).unwrap();
    assert!(back.expires() <= clock.steady() + 300_000);
    assert!(back.created() <= clock.steady());
}
