//! What do metrics cost? Operations in memory with metrics, over the same without.
//!
//! `cargo run --release --bin metrics`. Where the entries of a cache happen to lie makes a difference as great as the one that is looked for. So
//! several caches of each kind take turns, are filled anew several times, and the figure is the median over the rounds of the sum of the ones over the
//! sum of the others.

use std::sync::Arc;

use serde_json::json;
use versus::arguments::Options;
use versus::contenders::{Aurum, Contender, at_once};
use versus::race::{self, Course, Lane, Results};
use versus::report::{Bar, Output, Row, say};
use versus::workload::{Key, Kind, Zipf, shuffled, value};

const HELP: &str = "\
metrics: time of operations in memory with metrics, over the same without

  --quick   fewer turns";

const SKEW: f64 = 0.99;
/// Caches with metrics, and as many without.
const PAIRS: usize = 4;
/// How often they are made and filled.
const FILLINGS: usize = 3;
/// Keys that one cache stores before the next does, so that none has better memory.
const FILL: usize = 1_000;
const VALUE: usize = 128;

/// Caches with and without metrics in turn, which all hold the same.
struct Pairs {
    caches: Vec<Arc<Aurum>>,
    keys: usize,
    course: Course,
}

impl Pairs {
    fn filled(keys: usize, course: Course) -> Self {
        let bytes = (keys * 2 * (24 + VALUE + 160)) as u64 + (4 << 20);
        let caches: Vec<_> =
            (0..PAIRS * 2).map(|at| Arc::new(if at % 2 == 0 { Aurum::new(bytes) } else { Aurum::uncounted(bytes) })).collect();
        let value = value(VALUE, 1);
        for part in shuffled(keys).chunks(FILL) {
            caches.iter().for_each(|cache| part.iter().for_each(|key| cache.put(key, &value)));
        }
        Self { caches, keys, course }
    }

    fn measure(&self, row: &mut Measured, feed: impl FnMut() -> Vec<Key>, lane: impl Fn(&Arc<Aurum>) -> Lane) {
        say(row.name);
        let lanes: Vec<Lane> = self.caches.iter().map(lane).collect();
        let results = race::throughput(&lanes, self.course, feed);
        row.with.extend(sums(&results, 0));
        row.without.extend(sums(&results, 1));
    }

    fn measure_all(&self, rows: &mut [Measured; 5], seed: u64) {
        let keys = self.keys as u64;
        let (mut zipf, mut random, course) = (Zipf::new(self.keys, SKEW, seed), fastrand::Rng::with_seed(seed), self.course);
        let mut hits = || zipf.keys(course.keys());
        let misses = || (0..course.keys()).map(|_| Key::new(Kind::Absent, random.u64(..keys))).collect();
        let [get, view, fetch, set, miss] = rows;
        self.measure(get, &mut hits, Lane::get);
        self.measure(view, &mut hits, |cache| {
            let cache = cache.clone();
            Lane::new("view", move |keys| keys.iter().map(|key| cache.view(key).unwrap_or(0)).sum())
        });
        self.measure(fetch, &mut hits, |cache| {
            let cache = cache.clone();
            Lane::new("fetch", move |keys| at_once(cache.fetch_all(keys)))
        });
        self.measure(set, &mut hits, |cache| Lane::put(cache, &value(VALUE, 1)));
        self.measure(miss, misses, Lane::get);
    }
}

/// Times of all caches of a kind together, by round.
struct Measured {
    name: &'static str,
    /// Is there a bar for it?
    judged: bool,
    with: Vec<f64>,
    without: Vec<f64>,
}

impl Measured {
    fn nothing(name: &'static str, judged: bool) -> Self {
        Self { name, judged, with: Vec::new(), without: Vec::new() }
    }

    fn row(self, keys: usize) -> Row {
        let figure = race::median(self.with.iter().zip(&self.without).map(|(with, without)| with / without).collect());
        let [with, without] = [self.with, self.without].map(|sums| race::median(sums) / PAIRS as f64);
        Row {
            name: format!("{}, {}k keys", self.name, keys / 1_000),
            figure,
            bar: self.judged.then_some(Bar::at_most(1.03, 1.01)),
            columns: vec![format!("{with:.1}"), format!("{without:.1}")],
            data: json!({ "with_ns": with, "without_ns": without }),
        }
    }
}

/// For each round, the sum over the caches with metrics (0) or without (1).
fn sums(results: &Results, which: usize) -> Vec<f64> {
    let lanes: Vec<_> = results.figures.iter().skip(which).step_by(2).collect();
    (0..lanes[0].len()).map(|round| lanes.iter().map(|figures| figures[round]).sum()).collect()
}

fn main() {
    let mut given = Options::given(HELP);
    let course = match (given.has("--test"), given.has("--quick")) {
        (true, _) => Course { rounds: 1, operations: 1_000 },
        (false, true) => Course { rounds: 9, operations: 10_000 },
        (false, false) => Course { rounds: 67, operations: 10_000 },
    };
    let output: Output = given.output();
    given.rest();
    let mut table = Vec::new();
    for keys in [10_000, 100_000] {
        // What the bar says of hits is said of as many keys as the other rows of the memory tier have.
        let hit = |name| Measured::nothing(name, keys == 100_000);
        let other = |name| Measured::nothing(name, false);
        let mut rows = [
            hit("get_resident, hit"),
            hit("with_resident, hit"),
            hit("async get, hit"),
            other("set, overwrite"),
            other("get_resident, miss"),
        ];
        for filling in 1..=FILLINGS {
            say(&format!("filling {} caches with {keys} keys, {filling} of {FILLINGS}", PAIRS * 2));
            Pairs::filled(keys, course).measure_all(&mut rows, filling as u64);
        }
        table.extend(rows.map(|row| row.row(keys)));
    }
    let title =
        format!("Metrics, values of {VALUE} bytes: time with over time without, median of {} turns", course.rounds * FILLINGS);
    output.print(&title, &["with, ns", "without, ns"], &table);
}
