//! Ours and the peers in Criterion groups, for whoever wants its statistics and its comparison with the run before.
//!
//! `cargo bench --bench peers`, or `-- 'hit/100k'` for some. Criterion measures one contender after the other, so what the machine does
//! meanwhile is in the difference (and a million values of 1 KiB need 2 GiB); the program `memory` lets them take turns, and holds the ratios against their bars.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use versus::contenders::{Aurum, Contender, Foyer, Moka, Quick, Ufo};
use versus::workload::{Key, Kind, Zipf, shuffled, touch, value};

const SIZES: [(&str, usize); 3] = [("10k", 10_000), ("100k", 100_000), ("1M", 1_000_000)];
const VALUES: [usize; 2] = [128, 1024];
const SKEW: f64 = 0.99;
/// Keys that are asked for in turn.
const FEED: usize = 1 << 16;

/// Makes a contender anew.
type Make = Box<dyn Fn() -> Arc<dyn Contender>>;

/// All that are compared, each made when its turn comes, with room for so many entries of so many bytes.
fn contenders(entries: usize, value: usize) -> [(&'static str, Make); 5] {
    let bytes = (entries * (24 + value + 56)) as u64 + (1 << 20);
    [
        ("aurum", Box::new(move || Arc::new(Aurum::new(bytes)))),
        ("quick_cache", Box::new(move || Arc::new(Quick::new(entries)))),
        ("moka", Box::new(move || Arc::new(Moka::new(entries)))),
        ("foyer", Box::new(move || Arc::new(Foyer::new(entries)))),
        ("tinyufo", Box::new(move || Arc::new(Ufo::new(entries)))),
    ]
}

/// What is done to a contender.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Hit,
    HitOnTwoThreads,
    Miss,
    Mixed,
    InsertWithEviction,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HitOnTwoThreads => "hit, two threads",
            Self::Miss => "miss",
            Self::Mixed => "mixed 95/5",
            Self::InsertWithEviction => "insert with eviction",
        }
    }

    /// The keys it asks for, over and over.
    fn feed(self, keys: usize) -> Vec<Key> {
        match self {
            Self::Miss => (0..FEED as u64).map(|number| Key::new(Kind::Absent, number)).collect(),
            // Four times what there is room for: each has left before it comes again.
            Self::InsertWithEviction => (0..4 * keys as u64).map(|number| Key::new(Kind::Stored, number)).collect(),
            _ => Zipf::new(keys, SKEW, 7).keys(FEED),
        }
    }

    /// Does it so many times.
    fn run(self, contender: &dyn Contender, feed: &[Key], value: &[u8], times: u64) {
        for (at, key) in (0..times).zip(feed.iter().cycle()) {
            if self == Self::InsertWithEviction || self == Self::Mixed && at % 20 == 19 {
                contender.put(key, value);
            } else {
                black_box(contender.get(key));
            }
        }
    }

    /// How long so many take.
    fn timed(self, contender: &dyn Contender, feed: &[Key], value: &[u8], times: u64) -> Duration {
        let began = Instant::now();
        if self == Self::HitOnTwoThreads {
            let (left, right) = feed.split_at(feed.len() / 2);
            std::thread::scope(|scope| {
                scope.spawn(|| self.run(contender, left, value, times / 2));
                self.run(contender, right, value, times - times / 2);
            });
        } else {
            self.run(contender, feed, value, times);
        }
        began.elapsed()
    }
}

fn peers(c: &mut Criterion) {
    for act in [Act::Hit, Act::HitOnTwoThreads, Act::Miss, Act::Mixed, Act::InsertWithEviction] {
        for (size, keys) in SIZES {
            for bytes in VALUES {
                let mut group = c.benchmark_group(format!("{}/{size}/{bytes} B", act.name()));
                group.throughput(Throughput::Elements(1));
                race(&mut group, act, keys, bytes);
                group.finish();
            }
        }
    }
}

fn race(group: &mut BenchmarkGroup<'_, WallTime>, act: Act, keys: usize, bytes: usize) {
    let (value, feed) = (value(bytes, 1), act.feed(keys));
    let room = if act == Act::InsertWithEviction { keys } else { keys * 2 };
    for (name, make) in contenders(room, bytes) {
        let mut contender = None;
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            let contender = contender.get_or_insert_with(|| {
                let contender = make();
                shuffled(keys).iter().for_each(|key| contender.put(key, &value));
                contender.settle();
                contender
            });
            b.iter_custom(|times| act.timed(&**contender, &feed, &value, times));
        });
    }
    if act == Act::Hit {
        let held = |key: Key| (Box::from(key.as_str()), Box::from(&*value));
        let map: HashMap<Box<str>, Box<[u8]>, foldhash::fast::RandomState> = shuffled(keys).into_iter().map(held).collect();
        let mut next = feed.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter("HashMap"), |b| {
            b.iter(|| next.next().and_then(|key| map.get(key.as_str())).map(|value| touch(value)));
        });
    }
}

criterion_group!(benches, peers);
criterion_main!(benches);
