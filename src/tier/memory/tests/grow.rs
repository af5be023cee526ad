//! A table while one of its arrays follows another: every step of it.

use super::super::few::Few;
use super::super::grow::Growth;
use super::super::pin::pin;
use super::super::sync::PAGES;
use super::super::table::{Edit, Freed, Held, Table, page};
use super::super::words::Draft;
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
        edit.validate();
        let (mut freed, mut arrays) = (Freed::new(), Few::new());
        edit.leftovers(&mut freed, &mut arrays);
        result
    }

    /// Puts in the next number.
    fn insert(&self) -> u32 {
        self.edit(|edit, held| {
            let number = held.len() as u32;
            let text = number.to_string();
            let gap =
                edit.search(&Key { id: NamespaceId(0), text: &text, hash: hash(number) }, 0).err().expect("it is not there");
            held.push(Some(edit.insert(hash(number), entry(number, b"old"), &gap, hash_of)));
            number
        })
    }

    /// Puts in numbers until an array follows another, of whose homes some are done and some are not.
    fn insert_until_half_way(&self, at_least: u32) {
        while !(self.insert() >= at_least && self.is_half_way()) {}
    }

    fn is_half_way(&self) -> bool {
        self.edit(|edit, _| matches!(edit.growth, Growth::Following(..)) && edit.words(0).done() > 0)
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
        let by_writer = self.edit(|edit, _| edit.search(&key, 0).ok().map(|seen| seen.payload().to_vec()));
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

#[test]
fn a_put_goes_on_with_growth_or_frees_an_array_and_never_both() {
    // Another test may be pinned for a while: then nothing is freed.
    assert!((0..1_000).any(|_| arrays_freed_while_another_grew() > 10));
}

/// Fills all arrays of a table.
fn arrays_freed_while_another_grew() -> u32 {
    let spread = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (table, mut held, mut while_growing) = (Table::new(()), Vec::new(), 0);
    for number in 0..20_000 {
        let mut locked = table.lock();
        let mut edit = locked.parts().0;
        let key = Key { id: NamespaceId(0), text: &number.to_string(), hash: spread(number) };
        let gap = edit.search(&key, 0).err().expect("it is not there");
        let is_due = edit.has_arrays_to_free();
        let hash_of = |entry: &Entry| spread(entry.key().parse().expect("a number"));
        held.push(edit.insert(spread(number), entry(number as u32, b"old"), &gap, hash_of));
        let (mut freed, mut arrays, mut count) = (Freed::new(), Few::new(), 0);
        let flush = edit.leftovers(&mut freed, &mut arrays);
        arrays.take_each(|_| count += 1);
        assert!(!edit.has_grown || count == 0 && !flush, "put {number} did more than one thing");
        assert!(!is_due || count > 0 || flush, "put {number} left to others what was due");
        assert!(edit.heads.len() <= PAGES);
        while_growing += if edit.grows() { count } else { 0 };
        drop(locked);
        if flush {
            pin().flush();
        }
    }
    let mut locked = table.lock();
    (0..).zip(held).for_each(|(number, held)| locked.parts().0.remove(spread(number), held));
    while_growing
}

#[test]
fn heads_of_freed_arrays_are_kept_for_the_next_ones_and_go_when_entries_leave() {
    let bench = Bench::new();
    let heads = || bench.edit(|edit, _| edit.heads.len());
    (0..300).for_each(|_| {
        bench.insert();
    });
    bench.finish();
    bench.edit(|edit, _| edit.close_batch());
    // Another test may be pinned for a while.
    while heads() == 0 {
        pin().flush();
    }
    assert!(heads() <= PAGES);
    (0..64).for_each(|number| bench.remove(number));
    assert_eq!(heads(), 0);
}

#[test]
fn words_that_are_carried_twice_are_there_once() {
    let bench = Bench::new();
    let numbers: Vec<u32> = (0..2_000).map(|_| bench.insert()).collect();
    bench.finish();
    bench.edit(|edit, held| {
        let from = edit.array(0);
        let here: Vec<u32> = numbers.iter().copied().filter(|number| page(hash(*number)) == 0).collect();
        for homes in [from.homes(), from.homes() + from.homes() / 4, from.homes() * 2] {
            let to = Draft::after(from, homes).finish();
            // Some in another order.
            for number in here.iter().rev().step_by(2) {
                let held = held[*number as usize].as_ref().expect("it is there");
                assert!(to.place(to.scale().spot(hash(*number)), held.raw()));
            }
            for _ in 0..2 {
                edit.carry(from, 0..from.homes(), &to, true, &hash_of).expect("there is place");
                assert_eq!(to.of_homes(0..homes).count(), here.len(), "{homes} homes");
                for number in &here {
                    let held = held[*number as usize].as_ref().expect("it is there");
                    assert!(to.position(hash(*number), held.raw()).is_some(), "{number} in {homes} homes");
                }
            }
        }
    });
}
