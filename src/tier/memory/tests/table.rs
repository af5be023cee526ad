//! What a stress test reaches too rarely: gaps, moves, and what a pinned reader saw.

use super::super::few::Few;
use super::super::pin::pin;
use super::super::table::{Edit, Freed, Held, Table};
use crate::entry::{Entry, Meta};
use crate::key::Key;
use crate::namespace::NamespaceId;
use crate::policy::TtlPolicy;

fn key(text: &str, hash: u64) -> Key<'_> {
    Key { id: NamespaceId(0), text, hash }
}

fn entry(key: &Key<'_>) -> Entry {
    let meta = Meta { policy: TtlPolicy::Medium, fingerprint: 1, created: 0, expires: 1, stale_until: 1, stamp: 0 };
    Entry::new(key, &meta, b"v")
}

fn insert(edit: &mut Edit<'_>, key: &Key<'_>) -> Held {
    let gap = edit.search(key, 0).err().expect("it is not there");
    edit.insert(key.hash, entry(key), &gap, hash_of)
}

fn hash_of(entry: &Entry) -> u64 {
    entry.key().parse().unwrap_or(0)
}

#[test]
fn a_word_that_moves_into_a_gap_is_still_found_and_its_move_is_announced() {
    let (table, pin) = (Table::new(()), pin());
    // All of one home, and of one tag: only the key tells them apart.
    let keys = ["a", "b", "c"].map(|text| key(text, 0));
    let mut locked = table.lock();
    let (mut edit, ()) = locked.parts();
    let [a, b, c] = keys.each_ref().map(|key| insert(&mut edit, key));
    let moves = || table.words(0, &pin).moves();
    edit.remove(0, c);
    assert_eq!(moves(), 0, "nothing stood behind the last");
    edit.remove(0, a);
    assert_eq!(moves(), 2, "one word moved, and readers that missed are told");
    assert!(table.find(&keys[1], &pin).is_some());
    assert!(table.find(&keys[0], &pin).is_none() && table.find(&keys[2], &pin).is_none());
    edit.remove(0, b);
    assert!(table.find(&keys[1], &pin).is_none() && edit.counts.total() == 0);
}

#[test]
fn a_gap_is_not_filled_with_a_word_that_is_at_home() {
    let (table, pin) = (Table::new(()), pin());
    let mut locked = table.lock();
    let (mut edit, ()) = locked.parts();
    // Homes are the top of the lower 32 bits: 8 of them, so 1 << 29 is the second.
    let (first, next, late) = (key("1", 1), key("536870912", 1 << 29), key("2", 2));
    let held = insert(&mut edit, &first);
    let at_home = insert(&mut edit, &next);
    let displaced = insert(&mut edit, &late);
    edit.remove(first.hash, held);
    assert!(table.find(&next, &pin).is_some() && table.find(&late, &pin).is_some());
    edit.remove(next.hash, at_home);
    edit.remove(late.hash, displaced);
}

#[test]
fn a_place_that_a_search_has_found_is_not_used_once_there_is_a_nearer_one() {
    let (table, pin) = (Table::new(()), pin());
    let (first, late) = (key("1", 1), key("2", 2));
    let mut locked = table.lock();
    let (mut edit, ()) = locked.parts();
    let held = insert(&mut edit, &first);
    let behind = edit.search(&late, 0).err().expect("it is not there");
    edit.remove(first.hash, held);
    let held = edit.insert(late.hash, entry(&late), &behind, hash_of);
    assert!(table.find(&late, &pin).is_some(), "it stands behind a gap");
    edit.remove(late.hash, held);
}

#[test]
fn what_was_seen_stays_readable_after_it_was_replaced_and_removed() {
    let (table, pin) = (Table::new(()), pin());
    let key = key("7", 7);
    let mut locked = table.lock();
    let (mut edit, ()) = locked.parts();
    let held = insert(&mut edit, &key);
    let seen = table.find(&key, &pin).unwrap();
    let held = edit.replace(7, held, entry(&key));
    assert!(!held.is(&seen));
    edit.remove(7, held);
    pin.flush();
    assert_eq!((seen.key(), seen.payload()), ("7", &b"v"[..]));
}

#[test]
fn what_somebody_else_in_the_process_has_pinned_holds_back_nothing() {
    let elsewhere = crossbeam_epoch::pin();
    let (table, key) = (Table::new(()), key("7", 7));
    let mut locked = table.lock();
    let (mut edit, ()) = locked.parts();
    let held = insert(&mut edit, &key);
    let kept = Entry::clone(&held);
    edit.remove(7, held);
    edit.close_batch();
    drop(locked);
    // Other tests may be inside for a moment.
    let freed = (0..1_000_000).any(|_| {
        pin().flush();
        let mut freed = Freed::new();
        table.lock().parts().0.leftovers(&mut freed, &mut Few::new());
        freed.take_each(drop);
        std::thread::yield_now();
        !kept.is_shared()
    });
    assert!(freed, "the table still holds what was taken out");
    drop(elsewhere);
}
