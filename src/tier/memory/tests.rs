//! The tier against its promises, a naive model, and threads.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::entry::Meta;
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;

mod budget;
mod grow;
mod table;
mod word;
mod yard;

struct Bench {
    memory: Memory,
    hasher: KeyHasher,
    clock: Clock,
}

impl Bench {
    fn new(capacity: u64) -> Self {
        let (hasher, clock) = (KeyHasher::random(), Clock::manual());
        Self { memory: Memory::new(capacity, clock.clone(), hasher.clone(), true), hasher, clock }
    }

    fn key<'a>(&self, text: &'a str) -> Key<'a> {
        self.hasher.key(Namespace::CURVES, text).unwrap()
    }

    fn entry(&self, text: &str, payload: &[u8], life: u64) -> Entry {
        let now = self.clock.steady();
        // Some grace, of few lengths: each makes a class.
        let (stale_until, grace) = (now + life, (life / 2 + 1).next_power_of_two() / 2);
        let expires = stale_until - grace;
        let meta = Meta { policy: TtlPolicy::Medium, fingerprint: 1, created: now, expires, stale_until, stamp: 0 };
        Entry::new(&self.key(text), &meta, payload)
    }

    fn put(&self, text: &str, payload: &[u8]) -> Put {
        self.memory.put(&self.key(text), self.entry(text, payload, 1_000_000))
    }

    fn holds(&self, text: &str) -> bool {
        self.memory.peek(&self.key(text)).is_some()
    }
}

fn texts(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(Entry::key).collect()
}

#[test]
fn what_is_put_is_found_until_it_is_removed() {
    let bench = Bench::new(1 << 20);
    for n in 0..500 {
        assert!(bench.put(&format!("k{n}"), &[7; 100]).evicted.is_empty());
    }
    for n in 0..500 {
        assert!(bench.holds(&format!("k{n}")), "k{n}");
    }
    for n in (0..500).step_by(2) {
        assert!(bench.memory.remove(&bench.key(&format!("k{n}"))).is_some());
        assert!(bench.memory.remove(&bench.key(&format!("k{n}"))).is_none());
    }
    for n in 0..500 {
        assert_eq!(bench.holds(&format!("k{n}")), n % 2 == 1, "k{n}");
    }
    bench.memory.validate();
}

#[test]
fn what_is_hit_outlives_what_is_not() {
    let bench = Bench::new(64 << 10);
    bench.put("hot", &[1; 100]);
    for n in 0..5_000 {
        assert!(bench.memory.with(&bench.key("hot"), |_| ()).is_some(), "after {n}");
        bench.put(&format!("k{n}"), &[7; 100]);
    }
}

#[test]
fn an_overwrite_keeps_its_hits() {
    let bench = Bench::new(64 << 10);
    bench.put("k", b"old");
    for _ in 0..3 {
        bench.memory.get(&bench.key("k"));
    }
    bench.put("k", b"new");
    let now = bench.memory.peek(&bench.key("k")).unwrap();
    assert_eq!((now.payload(), now.hits().load(Ordering::Relaxed)), (&b"new"[..], 3));
    assert_eq!(bench.memory.usage().entries, 1);
    bench.memory.validate();
}

#[test]
fn a_value_too_big_for_its_shard_is_not_admitted_and_takes_the_older_one_away() {
    let bench = Bench::new(64 << 10);
    bench.put("k", b"old");
    let put = bench.put("k", &[0; 20 << 10]);
    assert!(!put.admitted && put.evicted.is_empty());
    assert!(!bench.holds("k"));
    assert!(!bench.holds("k"));
    let none = Bench::new(0);
    assert!(!none.put("k", b"").admitted);
}

#[test]
fn an_entry_leaves_when_it_may_not_even_be_served_stale() {
    let bench = Bench::new(64 << 10);
    for (text, life) in [("a", 5_000), ("b", 5_001), ("c", 90_000_000), ("d", 5_000)] {
        bench.memory.put(&bench.key(text), bench.entry(text, b"v", life));
    }
    let expire = |ms, limit| {
        bench.clock.advance(Duration::from_millis(ms));
        bench.memory.expire(bench.clock.steady(), limit)
    };
    assert_eq!(expire(4_999, 10), 0);
    assert_eq!(expire(1, 1), 1);
    assert_eq!(expire(0, 10), 1);
    assert!(!bench.holds("a") && !bench.holds("d") && bench.holds("b"));
    assert_eq!(expire(1, 10), 1);
    assert!(bench.holds("c"));
    assert_eq!(expire(100_000_000, 10), 1);
    assert_eq!((bench.memory.usage().expirations, bench.memory.usage().evictions), (4, 0));
    bench.memory.validate();
}

#[test]
fn expiry_finds_each_of_many_among_those_that_stay() {
    let bench = Bench::new(8 << 20);
    for n in 0..10_000 {
        let text = format!("k{n}");
        let life = if n % 3 == 0 { 1_000_000 } else { 10_000 + n };
        bench.memory.put(&bench.key(&text), bench.entry(&text, b"v", life));
    }
    bench.clock.advance(Duration::from_millis(30_000));
    assert_eq!(bench.memory.expire(bench.clock.steady(), usize::MAX), 6_666);
    bench.memory.validate();
    assert_eq!(bench.memory.usage().entries, 3_334);
}

#[test]
fn a_sweep_takes_out_all_that_match_and_nothing_else() {
    let bench = Bench::new(8 << 20);
    for n in 0..10_000 {
        bench.put(&format!("k{n}"), b"v");
    }
    let gone = bench.memory.remove_matching(&mut |entry| entry.key().ends_with('7'));
    assert_eq!(gone.len(), 1_000);
    assert!(texts(&gone).iter().all(|text| text.ends_with('7')));
    assert_eq!(bench.memory.usage().entries, 9_000);
    bench.memory.validate();
    assert_eq!(bench.memory.remove_matching(&mut |_| true).len(), 9_000);
    bench.memory.validate();
    assert_eq!(bench.memory.usage().entries, 0);
}

#[test]
fn the_hottest_come_first() {
    let bench = Bench::new(64 << 10);
    for (text, hits) in [("cold", 0), ("hot", 9), ("warm", 3)] {
        bench.put(text, b"v");
        for _ in 0..hits {
            bench.memory.get(&bench.key(text));
        }
    }
    assert_eq!(texts(&bench.memory.hottest(2)), ["hot", "warm"]);
    assert_eq!(texts(&bench.memory.hottest(9)), ["hot", "warm", "cold"]);
}

#[test]
fn a_value_still_held_by_a_reader_counts_until_it_is_let_go() {
    let bench = Bench::new(1 << 20);
    bench.put("k", b"makes the queue's first block");
    bench.memory.remove(&bench.key("k"));
    let empty = bench.memory.usage().bytes;
    bench.put("k", &[7; 50_000]);
    let held = bench.memory.get(&bench.key("k")).unwrap();
    drop(bench.memory.remove(&bench.key("k")));
    assert!(bench.memory.usage().bytes >= empty + 50_000);
    assert_eq!(held.payload(), [7; 50_000]);
    drop(held);
    // The table's own reference goes when other tests' threads have left the epoch.
    while bench.memory.usage().bytes > empty {
        bench.memory.expire(0, 0);
        std::thread::yield_now();
    }
}

#[test]
fn removing_what_readers_hold_from_a_full_tier_keeps_the_budget() {
    // Found by the fuzz target `memory`: what was held was charged for its place in the tables after it had left them.
    let bench = Bench::new(64 << 10);
    let keys: Vec<_> = (0..2_000).map(|n| format!("k{n}")).collect();
    keys.iter().for_each(|text| drop(bench.put(text, &[7; 10])));
    let held: Vec<_> = keys.iter().filter_map(|text| bench.memory.get(&bench.key(text))).take(100).collect();
    for entry in &held {
        drop(bench.memory.remove(&bench.key(entry.key())));
        bench.memory.validate();
    }
    assert_eq!(held.len(), 100);
}

#[test]
fn a_resident_key_is_never_missed_while_its_neighbours_come_and_go() {
    // One shard, filled just up to where its table would grow: long walks, and words that move a lot.
    let bench = Bench::new(768 << 10);
    let names = |of, count| -> Vec<String> { (0..count).map(|n| format!("{of}{n}")).collect() };
    let (stay, go) = (names("stay", 600), names("go", 1_900));
    for text in stay.iter().chain(&go) {
        assert!(bench.put(text, b"").evicted.is_empty());
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut missed = 0;
            while !done.load(Ordering::Relaxed) {
                for text in &stay {
                    missed += u32::from(bench.memory.with(&bench.key(text), |_| ()).is_none());
                }
            }
            missed
        });
        for _ in 0..50 {
            for text in &go {
                let entry = bench.memory.remove(&bench.key(text)).unwrap();
                bench.memory.put(&bench.key(text), entry);
            }
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(reader.join().unwrap(), 0);
    });
    bench.memory.validate();
}

/// A value that says which key it is of, so that a torn, freed or foreign one is seen.
fn telling(text: &str, version: u64) -> Vec<u8> {
    let seed = text.bytes().fold(version, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut payload = version.to_le_bytes().to_vec();
    payload.extend((0..seed % 200).map(|at| (seed.wrapping_add(at) & 0xFF) as u8));
    payload
}

fn check(entry: &Entry, text: &str) {
    let version = u64::from_le_bytes(entry.payload()[..8].try_into().unwrap());
    assert_eq!((entry.key(), entry.payload()), (text, &telling(text, version)[..]));
}

#[test]
fn two_writers_and_readers_see_only_whole_values_of_the_right_key() {
    let bench = Bench::new(96 << 10);
    let done = AtomicBool::new(false);
    let names: Vec<String> = (0..2_000).map(|n| format!("key{n}")).collect();
    std::thread::scope(|scope| {
        let write = |seed: u64| {
            let mut dice = fastrand::Rng::with_seed(seed);
            for version in 0..60_000 {
                let text = &names[(dice.usize(..2_000) * dice.usize(..2_000)) / 2_000];
                let key = bench.key(text);
                match dice.u32(..1_000) {
                    0 => drop(bench.memory.remove_matching(&mut |entry| entry.key().ends_with("33"))),
                    1 => drop(bench.memory.resize(64 << 10 | dice.u64(..64 << 10))),
                    2 => drop(bench.memory.expire(bench.clock.steady(), 100)),
                    3 => bench.memory.hottest(20).iter().for_each(|entry| check(entry, entry.key())),
                    4..100 => drop(bench.memory.remove(&key)),
                    _ => {
                        let life = 1 + dice.u64(..5_000);
                        let put = bench.memory.put(&key, bench.entry(text, &telling(text, version), life));
                        put.evicted.iter().filter_map(|gone| gone.entry.as_ref()).for_each(|entry| check(entry, entry.key()));
                    }
                }
                if version % 50 == 0 {
                    bench.clock.advance(Duration::from_millis(1));
                }
            }
        };
        let writers = [scope.spawn(move || write(1)), scope.spawn(move || write(2))];
        for seed in 3..5 {
            let (bench, done, names) = (&bench, &done, &names);
            scope.spawn(move || {
                let mut dice = fastrand::Rng::with_seed(seed);
                let mut kept = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let text = &names[(dice.usize(..2_000) * dice.usize(..2_000)) / 2_000];
                    bench.memory.with(&bench.key(text), |entry| check(entry, text));
                    if kept.len() < 50 {
                        kept.extend(bench.memory.get(&bench.key(text)));
                    } else {
                        kept.drain(..).for_each(|entry: Entry| check(&entry, entry.key()));
                    }
                }
            });
        }
        let ends: Vec<bool> = writers.into_iter().map(|writer| writer.join().is_ok()).collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(ends, [true, true]);
    });
    bench.memory.validate();
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, len: u16, life: u16 },
    Get(u8),
    Remove(u8),
    RemoveIf(u8, bool),
    Matching(u8),
    Expire { after: u16, limit: u8 },
    Resize(u32),
    Hold(u8),
    LetGo,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<u8>(), 0_u16..2_000, 1_u16..20_000).prop_map(|(key, len, life)| Step::Put { key, len, life }),
        6 => any::<u8>().prop_map(Step::Get),
        2 => any::<u8>().prop_map(Step::Remove),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(key, dead)| Step::RemoveIf(key, dead)),
        1 => (0_u8..10).prop_map(Step::Matching),
        1 => (0_u16..3_000, 0_u8..20).prop_map(|(after, limit)| Step::Expire { after, limit }),
        1 => (4_000_u32..80_000).prop_map(Step::Resize),
        1 => any::<u8>().prop_map(Step::Hold),
        1 => Just(Step::LetGo),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model: a map that is told what left. It must agree after each step.
    #[test]
    fn it_agrees_with_a_map_that_is_told_what_left(steps in proptest::collection::vec(step(), 1..400)) {
        let bench = Bench::new(40_000);
        let (memory, clock) = (&bench.memory, &bench.clock);
        let mut model: HashMap<String, (Vec<u8>, u64)> = HashMap::new();
        let mut kept: Vec<(Entry, Vec<u8>)> = Vec::new();
        let mut version = 0;
        let name = |key: u8| format!("key {key}");
        for step in steps {
            let now = clock.steady();
            match step {
                Step::Put { key, len, life } => {
                    version += 1;
                    let text = name(key);
                    let mut payload = vec![0; usize::from(len)];
                    payload.extend(u64::to_le_bytes(version));
                    let put = memory.put(&bench.key(&text), bench.entry(&text, &payload, u64::from(life)));
                    model.remove(&text);
                    if put.admitted {
                        model.insert(text.clone(), (payload, now + u64::from(life)));
                        prop_assert!(memory.peek(&bench.key(&text)).is_some());
                    }
                    for entry in put.evicted.iter().filter_map(|gone| gone.entry.as_ref()) {
                        let (payload, _) = model.remove(entry.key()).expect("it was here");
                        prop_assert_eq!(entry.payload(), payload);
                    }
                    // Only what is over may leave unannounced.
                    model.retain(|text, (_, until)| *until > now || memory.peek(&bench.key(text)).is_some());
                }
                Step::Get(key) => {
                    let found = memory.with(&bench.key(&name(key)), |entry| entry.payload().to_vec());
                    prop_assert_eq!(found.as_ref(), model.get(&name(key)).map(|(payload, _)| payload));
                }
                Step::Remove(key) => {
                    let removed = memory.remove(&bench.key(&name(key))).map(|entry| entry.payload().to_vec());
                    prop_assert_eq!(removed, model.remove(&name(key)).map(|(payload, _)| payload));
                }
                Step::RemoveIf(key, dead) => {
                    let removed = memory.remove_if(&bench.key(&name(key)), |_| dead);
                    let expected = if dead { model.remove(&name(key)) } else { None };
                    prop_assert_eq!(removed.is_some(), expected.is_some());
                }
                Step::Matching(digit) => {
                    let digit = digit.to_string();
                    let mut removed: Vec<String> =
                        memory.remove_matching(&mut |entry| entry.key().ends_with(&digit)).iter().map(|entry| entry.key().to_owned()).collect();
                    let mut expected: Vec<String> = model.keys().filter(|text| text.ends_with(&digit)).cloned().collect();
                    removed.sort();
                    expected.sort();
                    prop_assert_eq!(removed, expected);
                    model.retain(|text, _| !text.ends_with(&digit));
                }
                Step::Expire { after, limit } => {
                    clock.advance(Duration::from_millis(u64::from(after)));
                    let now = clock.steady();
                    let over = model.values().filter(|(_, until)| *until <= now).count();
                    prop_assert_eq!(memory.expire(now, usize::from(limit)), over.min(usize::from(limit)));
                    model.retain(|text, (_, until)| *until > now || memory.peek(&bench.key(text)).is_some());
                }
                Step::Resize(capacity) => {
                    for entry in memory.resize(u64::from(capacity)).iter() {
                        prop_assert!(model.remove(entry.entry.as_ref().expect("returned").key()).is_some());
                    }
                    model.retain(|text, (_, until)| *until > now || memory.peek(&bench.key(text)).is_some());
                }
                Step::Hold(key) => {
                    kept.extend(memory.get(&bench.key(&name(key))).map(|entry| (entry.clone(), entry.payload().to_vec())));
                }
                Step::LetGo => {
                    for (entry, payload) in kept.drain(..) {
                        prop_assert_eq!(entry.payload(), payload);
                    }
                }
            }
            memory.validate();
            prop_assert_eq!(memory.usage().entries as usize, model.len());
            for (text, (payload, _)) in &model {
                let found = memory.peek(&bench.key(text));
                prop_assert_eq!(found.as_ref().map(Entry::payload), Some(&payload[..]));
            }
        }
        prop_assert_eq!(memory.hottest(usize::MAX).len(), model.len());
    }
}
