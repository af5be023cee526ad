//! A table while one of its arrays follows another: every step of it.

use super::super::few::Few;
use super::super::grow::Growth;
use super::super::pin::pin;
use super::super::table::{Edit, Freed, Held, Table};
use crate::entry::{Entry, Meta};
use crate::key::Key;
use crate::namespace::NamespaceId;
use crate::policy::TtlPolicy;

/// All of one array of the table: the bits that choose it are the same.
fn hash(number: u32) -> u64 {
    u64::from(number.wrapping_mul(0x9E37_79B9))
}

fn hash_of(entry: &Entry) -> u64 {
    hash(entry.key().parse().expect("a number"))
}

fn entry(number: u32, payload: &[u8]) -> Entry {
    let meta = Meta { policy: TtlPolicy::Medium, fingerprint: 1, created: 0, expires: 1, stale_until: 1, stamp: 0 };
    Entry::new(&Key { id: NamespaceId(0), text: &number.to_string(), hash: hash(number) }, &meta, payload)
}

/// A table and what must be in it.
struct Bench {
    table: Table<Vec<Option<Held>>>,
}

impl Bench {
    fn new() -> Self {
        Self { table: Table::new(Vec::new()) }
    }

    fn edit<R>(&self, work: impl FnOnce(&mut Edit<'_>, &mut Vec<Option<Held>>) -> R) -> R {
        let mut locked = self.table.lock();
        let (mut edit, held) = locked.parts();
        let result = work(&mut edit, held);
        let (mut freed, mut arrays) = (Freed::new(), Few::new());
        edit.leftovers(&mut freed, &mut arrays);
        result
    }

    /// Puts in the next number.
    fn insert(&self) -> u32 {
        self.edit(|edit, held| {
            let number = held.len() as u32;
            let text = number.to_string();
            let gap = edit.search(&Key { id: NamespaceId(0), text: &text, hash: hash(number) }).err().expect("it is not there");
            held.push(Some(edit.insert(hash(number), entry(number, b"old"), &gap, hash_of)));
            number
        })
    }

    /// Puts in numbers until an array follows another, of whose homes some are done and some are not.
    fn insert_until_half_way(&self, at_least: u32) {
        while !(self.insert() >= at_least && self.is_half_way()) {}
    }

    fn is_half_way(&self) -> bool {
        self.edit(|edit, _| matches!(edit.growth, Growth::Following(_)) && edit.words(0).done() > 0)
    }

    fn remove(&self, number: u32) {
        self.edit(|edit, held| {
            let held = held[number as usize].take().expect("it is there");
            edit.remove(hash(number), held);
        });
    }

    fn replace(&self, number: u32) {
        self.edit(|edit, held| {
            let old = held[number as usize].take().expect("it is there");
            held[number as usize] = Some(edit.replace(hash(number), old, entry(number, b"new")));
        });
    }

    fn finish(&self) {
        while self.edit(|edit, _| edit.go_on(&hash_of)) {}
    }

    /// What a reader finds, and a writer.
    fn find(&self, number: u32) -> Option<Vec<u8>> {
        let (text, pin) = (number.to_string(), pin());
        let key = Key { id: NamespaceId(0), text: &text, hash: hash(number) };
        let found = self.table.find(&key, &pin).map(|seen| seen.payload().to_vec());
        let by_writer = self.edit(|edit, _| edit.search(&key).ok().map(|seen| seen.payload().to_vec()));
        assert_eq!(found, by_writer, "{number}");
        assert_eq!(found, self.edit(|edit, _| edit.find(&key, &pin).map(|seen| seen.payload().to_vec())), "{number}");
        found
    }

    fn total(&self) -> usize {
        self.edit(|edit, _| edit.counts.total())
    }
}

impl Drop for Bench {
    /// A table frees what was taken out of it, and no more: the rest would be a leak, which a sanitizer tells.
    fn drop(&mut self) {
        self.edit(|edit, held| {
            for (number, held) in (0..).zip(held) {
                held.take().into_iter().for_each(|held| edit.remove(hash(number), held));
            }
        });
    }
}

#[test]
fn everything_is_found_after_every_single_step() {
    let bench = Bench::new();
    let mut half_ways = 0;
    for _ in 0..700 {
        let last = bench.insert();
        half_ways += u32::from(bench.is_half_way());
        assert!((0..=last).all(|number| bench.find(number).as_deref() == Some(b"old")));
        assert!(bench.find(last + 1).is_none());
    }
    assert!(half_ways > 100, "looked at half-way {half_ways} times only");
    assert_eq!(bench.total(), 700);
}

#[test]
fn what_is_removed_half_way_is_gone_and_stays_away() {
    let bench = Bench::new();
    bench.insert_until_half_way(300);
    // From both arrays, and among them neighbours of those that stay.
    for number in (0..=300).step_by(2) {
        bench.remove(number);
        assert!(bench.find(number).is_none());
    }
    assert!(bench.is_half_way());
    let check = |bench: &Bench| {
        for number in 0..=300 {
            assert_eq!(bench.find(number).is_some(), number % 2 == 1, "{number}");
        }
    };
    check(&bench);
    bench.finish();
    check(&bench);
}

#[test]
fn what_is_replaced_half_way_is_the_new_one_for_good() {
    let bench = Bench::new();
    bench.insert_until_half_way(300);
    (0..=300).for_each(|number| bench.replace(number));
    assert!(bench.is_half_way());
    assert!((0..=300).all(|number| bench.find(number).as_deref() == Some(b"new")));
    bench.finish();
    assert!((0..=300).all(|number| bench.find(number).as_deref() == Some(b"new")));
}

#[test]
fn a_table_that_becomes_empty_half_way_is_empty() {
    let bench = Bench::new();
    bench.insert_until_half_way(300);
    let count = bench.total() as u32;
    for number in 0..count {
        bench.remove(number);
        bench.edit(|edit, _| edit.shrink(hash(number), hash_of));
    }
    assert!((0..count).all(|number| bench.find(number).is_none()));
    bench.finish();
    assert_eq!(bench.total(), 0);
    let bytes = bench.edit(|edit, _| edit.counts.bytes());
    assert_eq!(bytes, Bench::new().edit(|edit, _| edit.counts.bytes()), "as small as a new one");
}

#[test]
fn arrays_that_were_given_up_go_with_the_entries_that_leave() {
    let bench = Bench::new();
    (0..300).for_each(|_| {
        bench.insert();
    });
    // Another test may be pinned for a while.
    let comes_out = || {
        let (mut freed, mut arrays) = (Freed::new(), Few::new());
        let mut locked = bench.table.lock();
        locked.parts().0.leftovers(&mut freed, &mut arrays);
        drop(locked);
        pin().flush();
        let mut count = 0;
        arrays.take_each(|_| count += 1);
        count
    };
    assert!((0..1_000).all(|_| comes_out() == 0), "they wait for company");
    (0..64).for_each(|number| bench.remove(number));
    assert!((0..1_000_000).any(|_| comes_out() > 0));
}

#[test]
fn both_arrays_are_counted_while_there_are_two() {
    let bench = Bench::new();
    bench.insert_until_half_way(300);
    let during = bench.edit(|edit, _| edit.counts.bytes());
    bench.finish();
    let after = bench.edit(|edit, _| edit.counts.bytes());
    assert!(during > after + 300 * 8, "{during} and then {after}");
}
