//! What do metrics cost? Operations in memory with metrics, over the same without.
//!
//! `cargo run --release --bin metrics`. Where the entries of a cache happen to lie makes a difference as great as the one that is looked for. So
//! several caches of each kind take turns, and the figure is the median over the rounds of the sum of the ones over the sum of the others.

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

    fn row(&self, name: &str, bar: Option<Bar>, feed: impl FnMut() -> Vec<Key>, lane: impl Fn(&Arc<Aurum>) -> Lane) -> Row {
        say(name);
        let lanes: Vec<Lane> = self.caches.iter().map(lane).collect();
        let results = race::throughput(&lanes, self.course, feed);
        let (with, without) = (sums(&results, 0), sums(&results, 1));
        let figure = race::median(with.iter().zip(&without).map(|(with, without)| with / without).collect());
        let [with, without] = [with, without].map(|sums| race::median(sums) / PAIRS as f64);
        Row {
            name: format!("{name}, {}k keys", self.keys / 1_000),
            figure,
            bar,
            columns: vec![format!("{with:.1}"), format!("{without:.1}")],
            data: json!({ "with_ns": with, "without_ns": without }),
        }
    }

    fn rows(&self, rows: &mut Vec<Row>) {
        let keys = self.keys as u64;
        let (mut zipf, mut random, course) = (Zipf::new(self.keys, SKEW, 7), fastrand::Rng::with_seed(3), self.course);
        let bar = || (keys == 100_000).then_some(Bar::at_most(1.03, 1.01));
        let mut hits = || zipf.keys(course.keys());
        rows.push(self.row("get_resident, hit", bar(), &mut hits, Lane::get));
        rows.push(self.row("with_resident, hit", bar(), &mut hits, |cache| {
            let cache = cache.clone();
            Lane::new("view", move |keys| keys.iter().map(|key| cache.view(key).unwrap_or(0)).sum())
        }));
        rows.push(self.row("async get, hit", bar(), &mut hits, |cache| {
            let cache = cache.clone();
            Lane::new("fetch", move |keys| at_once(cache.fetch_all(keys)))
        }));
        rows.push(self.row("set, overwrite", None, &mut hits, |cache| Lane::put(cache, &value(VALUE, 1))));
        let misses = || (0..course.keys()).map(|_| Key::new(Kind::Absent, random.u64(..keys))).collect();
        rows.push(self.row("get_resident, miss", None, misses, Lane::get));
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
        (false, true) => Course { rounds: 25, operations: 10_000 },
        (false, false) => Course { rounds: 101, operations: 10_000 },
    };
    let output: Output = given.output();
    given.rest();
    let mut rows = Vec::new();
    for keys in [10_000, 100_000] {
        say(&format!("filling {} caches with {keys} keys", PAIRS * 2));
        Pairs::filled(keys, course).rows(&mut rows);
    }
    let title = format!("Metrics, values of {VALUE} bytes: time with over time without, median of {} turns", course.rounds);
    output.print(&title, &["with, ns", "without, ns"], &rows);
}
