//! What does an operation in memory cost, over what it costs the best peer?
//!
//! `cargo run --release --bin memory`. Every row is a race of all contenders in turns; the figure is the median over the turns of
//! our time over that of the peer with the lowest median. Keys of 24 bytes, Zipf 0.99, values touched. A hit row checks that
//! everything is resident; an insert row gives every peer room for as many entries as ours holds.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde_json::json;
use versus::arguments::Options;
use versus::contenders::{Aurum, Contender, Foyer, Moka, MokaFuture, Quick, Ufo, at_once};
use versus::race::{self, Course, Lane, Results};
use versus::report::{Bar, Output, Row, say};
use versus::workload::{Key, Kind, Zipf, shuffled, touch, value};

const HELP: &str = "\
memory: nanoseconds an operation in memory, ours over the best peer's

  --rows TEXT       only groups of rows whose name contains this: hit, miss, threads, mixed, overwrite and tail,
                    each with its size (\"hit 100k\", \"miss 1M\"), insert, \"tail insert\", first, growth
  --value BYTES     of a value [128]
  --quick           fewer turns";

/// What is asked for.
struct Ask {
    rows: String,
    value: usize,
    quick: bool,
    test: bool,
    output: Output,
}

impl Ask {
    fn given() -> Self {
        let mut given = Options::given(HELP);
        let ask = Self {
            rows: given.value("--rows").unwrap_or_default(),
            value: given.value("--value").unwrap_or(128),
            quick: given.has("--quick"),
            test: given.has("--test"),
            output: given.output(),
        };
        given.rest();
        ask
    }

    fn course(&self) -> Course {
        match () {
            () if self.test => Course { rounds: 1, operations: 1_000 },
            () if self.quick => Course { rounds: 25, operations: 10_000 },
            () => Course { rounds: 101, operations: 10_000 },
        }
    }

    /// Percentiles and threads need more of it.
    fn long_course(&self) -> Course {
        let course = self.course();
        Course { operations: course.operations * 2, ..course }
    }

    fn wants(&self, group: &str) -> bool {
        group.contains(&self.rows)
    }

    fn keys(&self, keys: usize) -> usize {
        if self.test { keys.min(10_000) } else { keys }
    }
}

const SKEW: f64 = 0.99;
/// Keys that one contender stores before the next does.
const FILL: usize = 1_000;

const VIEW: &str = "aurum with_resident";
const FETCH: &str = "aurum async get";
const OURS: &str = "aurum";
const FUTURE: &str = "moka future";
const MAP: &str = "HashMap by reference";

/// All contenders, alike in room.
struct Field {
    ours: Arc<Aurum>,
    /// The same again for each other way of reading it: who reads what another lane has just read finds it in the processor's caches.
    view: Arc<Aurum>,
    fetch: Arc<Aurum>,
    quick: Arc<Quick>,
    moka: Arc<Moka>,
    future: Arc<MokaFuture>,
    foyer: Arc<Foyer>,
    ufo: Arc<Ufo>,
}

impl Field {
    /// Everybody holds all of `keys`.
    fn resident(keys: &[Key], value: &[u8]) -> Self {
        let room = keys.len() * 2;
        let field = Self::with_room(room, (room * (24 + value.len() + 160)) as u64 + (4 << 20));
        // A part of the keys in turn: who is filled first gets the scattered pages that the system had left, and pays for it with each read.
        for part in keys.chunks(FILL) {
            field.each(|contender| part.iter().for_each(|key| contender.put(key, value)));
        }
        field.each(|contender| {
            contender.settle();
            let held = keys.iter().filter(|key| contender.get(key).is_some()).count();
            assert!(held * 1000 >= keys.len() * 999, "{} holds {held} of {} keys", contender.name(), keys.len());
        });
        field
    }

    /// Everybody is full, and holds about as many as ours does in `bytes`.
    fn full(bytes: u64, value: &[u8]) -> (Self, u64) {
        let scout = Aurum::new(bytes);
        let mut next = filling(bytes, value);
        put_all(&scout, 0..next, value);
        let field = Self::with_room(scout.entries() as usize, bytes);
        drop(scout);
        let upto = next + filling(bytes, value);
        while next < upto {
            field.each(|contender| put_all(contender, next..next + FILL as u64, value));
            next += FILL as u64;
        }
        field.each(Contender::settle);
        (field, next)
    }

    fn with_room(entries: usize, bytes: u64) -> Self {
        Self {
            ours: Arc::new(Aurum::new(bytes)),
            view: Arc::new(Aurum::new(bytes)),
            fetch: Arc::new(Aurum::new(bytes)),
            quick: Arc::new(Quick::new(entries)),
            moka: Arc::new(Moka::new(entries)),
            future: Arc::new(MokaFuture::new(entries)),
            foyer: Arc::new(Foyer::new(entries)),
            ufo: Arc::new(Ufo::new(entries)),
        }
    }

    fn each(&self, act: impl FnMut(&dyn Contender)) {
        let ours: [&dyn Contender; 3] = [&*self.ours, &*self.view, &*self.fetch];
        let peers: [&dyn Contender; 5] = [&*self.quick, &*self.moka, &*self.future, &*self.foyer, &*self.ufo];
        ours.into_iter().chain(peers).for_each(act);
    }

    fn gets(&self) -> Vec<Lane> {
        let (view, fetch) = (self.view.clone(), self.fetch.clone());
        vec![
            Lane::get(&self.ours),
            Lane::get(&self.quick),
            Lane::get(&self.moka),
            Lane::get(&self.foyer),
            Lane::get(&self.ufo),
            Lane::get(&self.future),
            Lane::new(VIEW, move |keys| keys.iter().map(|key| view.view(key).unwrap_or(0)).sum()),
            // One task that awaits read after read, as a service's does: each future is polled where it was made.
            Lane::new(FETCH, move |keys| at_once(fetch.fetch_all(keys))),
        ]
    }

    fn puts(&self, value: &[u8]) -> Vec<Lane> {
        vec![
            Lane::put(&self.ours, value),
            Lane::put(&self.quick, value),
            Lane::put(&self.moka, value),
            Lane::put(&self.foyer, value),
            Lane::put(&self.ufo, value),
        ]
    }

    fn mixes(&self, value: &[u8]) -> Vec<Lane> {
        vec![
            Lane::mixed(&self.ours, value),
            Lane::mixed(&self.quick, value),
            Lane::mixed(&self.moka, value),
            Lane::mixed(&self.foyer, value),
            Lane::mixed(&self.ufo, value),
        ]
    }
}

/// Three times the entries that `bytes` hold.
fn filling(bytes: u64, value: &[u8]) -> u64 {
    3 * bytes / (24 + value.len() as u64 + 48)
}

fn put_all(contender: &dyn Contender, numbers: Range<u64>, value: &[u8]) {
    numbers.for_each(|number| contender.put(&Key::new(Kind::Stored, number), value));
}

/// The floor: what a map costs that nobody else may change.
fn map(keys: &[Key], value: &[u8]) -> Lane {
    let mut map: HashMap<Box<str>, Box<[u8]>, RandomState> = HashMap::default();
    map.extend(keys.iter().map(|key| (key.as_str().into(), value.into())));
    Lane::new(MAP, move |keys| keys.iter().filter_map(|key| map.get(key.as_str())).map(|value| touch(value)).sum())
}

const PEERS: [&str; 4] = ["quick_cache", "moka", "foyer", "tinyufo"];

/// Ours over the best of the peers that ran.
fn against_best(name: &str, ours: &str, results: &Results, bar: Option<Bar>) -> Row {
    let best = PEERS.iter().copied().min_by(|a, b| results.figure(a).total_cmp(&results.figure(b))).expect("peers");
    against(name, ours, best, results, bar)
}

/// Ours over a certain lane.
fn against(name: &str, ours: &str, best: &str, results: &Results, bar: Option<Bar>) -> Row {
    let figure = results.ratio(ours, best);
    let quick = results.ratio(ours, "quick_cache");
    let mut times: Vec<(&str, f64)> = results.names.iter().map(|name| (name.as_str(), results.figure(name))).collect();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    let others: Vec<String> =
        times.iter().filter(|(name, _)| *name != ours).map(|(name, ns)| format!("{name} {ns:.0}")).collect();
    Row {
        name: name.to_owned(),
        figure,
        bar,
        columns: vec![format!("{:.0}", results.figure(ours)), best.to_owned(), format!("{quick:.2}"), others.join(", ")],
        data: json!({ "ours": ours, "against": best, "over_quick_cache": quick, "ns": times.into_iter().collect::<BTreeMap<_, _>>() }),
    }
}

/// Everybody with the same keys resident, and who asks for them.
struct Set {
    size: &'static str,
    field: Field,
    keys: Vec<Key>,
    value: Vec<u8>,
}

impl Set {
    fn new(ask: &Ask, size: &'static str, keys: usize) -> Self {
        say(&format!("filling {size} keys"));
        let (keys, value) = (shuffled(ask.keys(keys)), value(ask.value, 1));
        Self { size, field: Field::resident(&keys, &value), keys, value }
    }

    fn zipf(&self) -> Zipf {
        Zipf::new(self.keys.len(), SKEW, 7)
    }

    fn hit(&self, ask: &Ask, rows: &mut Vec<Row>) {
        let mut lanes = self.field.gets();
        lanes.push(map(&self.keys, &self.value));
        let (mut zipf, course, size) = (self.zipf(), ask.course(), self.size);
        let results = race::throughput(&lanes, course, || zipf.keys(course.keys()));
        let (get, view) = match size {
            "1M" => (Some(Bar::at_most(0.85, 0.7)), None),
            "100k" => (Some(Bar::at_most(0.9, 0.75)), Some(Bar::at_most(0.8, 0.68))),
            _ => (None, None),
        };
        rows.push(against_best(&format!("get hit, {size} keys"), OURS, &results, get));
        rows.push(against_best(&format!("with_resident, {size} keys"), VIEW, &results, view));
        let fetch = Some(Bar::at_most(1.1, 1.03));
        rows.push(against(&format!("async get over get_resident, {size} keys"), FETCH, OURS, &results, fetch));
        rows.push(against(&format!("moka future over moka, {size} keys"), FUTURE, "moka", &results, None));
        rows.push(against(&format!("floor: HashMap over quick_cache, {size} keys"), MAP, "quick_cache", &results, None));
    }

    fn miss(&self, ask: &Ask, rows: &mut Vec<Row>) {
        let mut random = fastrand::Rng::with_seed(3);
        let course = ask.course();
        let results = race::throughput(&self.field.gets(), course, || {
            (0..course.keys()).map(|_| Key::new(Kind::Absent, random.u64(..))).collect()
        });
        let bar = (self.size == "100k").then_some(Bar::at_most(0.85, 0.7));
        rows.push(against_best(&format!("get miss, {} keys", self.size), OURS, &results, bar));
    }

    fn tail(&self, ask: &Ask, rows: &mut Vec<Row>) {
        let (mut zipf, course) = (self.zipf(), ask.long_course());
        let results = race::tail(&self.field.gets(), course, 0.999, || zipf.keys(course.keys()));
        rows.push(against_best(&format!("get p99.9, {} keys", self.size), OURS, &results, Some(Bar::at_most(1.0, 0.95))));
    }

    fn two_threads(&self, ask: &Ask, rows: &mut Vec<Row>) {
        let (mut zipf, course) = (self.zipf(), ask.long_course());
        let results = race::two_threads(&self.field.gets(), course, || zipf.keys(course.keys()));
        rows.push(against_best(
            &format!("get hit, 2 threads, {} keys", self.size),
            OURS,
            &results,
            Some(Bar::at_most(0.85, 0.65)),
        ));
    }

    fn mixed(&self, ask: &Ask, rows: &mut Vec<Row>) {
        let (mut zipf, course) = (self.zipf(), ask.course());
        let results = race::throughput(&self.field.mixes(&self.value), course, || zipf.keys(course.keys()));
        rows.push(against_best(&format!("mixed 95/5, {} keys", self.size), OURS, &results, Some(Bar::at_most(1.0, 0.85))));
    }

    fn overwrite(&self, ask: &Ask, rows: &mut Vec<Row>) {
        let (mut zipf, course) = (self.zipf(), ask.course());
        let results = race::throughput(&self.field.puts(&self.value), course, || zipf.keys(course.keys()));
        rows.push(against_best(&format!("overwrite, {} keys", self.size), OURS, &results, None));
    }
}

/// A group of rows: what it is called, the size it is run with, and the race.
type Group = (&'static str, &'static str, fn(&Set, &Ask, &mut Vec<Row>));

const GROUPS: [Group; 10] = [
    ("hit 10k", "10k", Set::hit),
    ("miss 10k", "10k", Set::miss),
    ("hit 100k", "100k", Set::hit),
    ("miss 100k", "100k", Set::miss),
    ("threads 100k", "100k", Set::two_threads),
    ("mixed 100k", "100k", Set::mixed),
    ("overwrite 100k", "100k", Set::overwrite),
    ("tail 100k", "100k", Set::tail),
    ("hit 1M", "1M", Set::hit),
    ("miss 1M", "1M", Set::miss),
];

fn resident(ask: &Ask, rows: &mut Vec<Row>) {
    for (size, keys) in [("10k", 10_000), ("100k", 100_000), ("1M", 1_000_000)] {
        let set = LazyCell::new(|| Set::new(ask, size, keys));
        for (name, _, run) in GROUPS.iter().filter(|(name, of, _)| *of == size && ask.wants(name)) {
            let set = &*set;
            say(name);
            run(set, ask, rows);
        }
    }
}

fn inserts(ask: &Ask, rows: &mut Vec<Row>) {
    if !ask.wants("insert") && !ask.wants("tail insert") {
        return;
    }
    say("filling for inserts");
    let value = value(ask.value, 1);
    let (field, mut next) = Field::full((ask.keys(100_000) * (24 + value.len() + 56)) as u64 + (1 << 20), &value);
    let mut fresh = |count: usize| -> Vec<Key> {
        let from = next;
        next += count as u64;
        (from..next).map(|number| Key::new(Kind::Stored, number)).collect()
    };
    let lanes = field.puts(&value);
    if ask.wants("insert") {
        say("insert");
        let course = ask.course();
        let results = race::throughput(&lanes, course, || fresh(course.keys()));
        rows.push(against_best("insert with eviction, about 100k entries", OURS, &results, Some(Bar::at_most(1.0, 0.85))));
    }
    if ask.wants("tail insert") {
        say("tail insert");
        let course = ask.long_course();
        let results = race::tail(&lanes, course, 0.999, || fresh(course.keys()));
        rows.push(against_best("insert p99.9, about 100k entries", OURS, &results, Some(Bar::at_most(1.0, 0.95))));
    }
    let mut held = Vec::new();
    field.each(|contender| held.push(format!("{} {}", contender.name(), contender.entries())));
    say(&format!("entries held: {}", held.join(", ")));
}

/// New keys into caches that have room for all of them, and were empty before: what growth costs the puts that meet it.
fn growth(ask: &Ask, rows: &mut Vec<Row>) {
    if !ask.wants("growth") {
        return;
    }
    say("growth");
    let (value, mut course) = (value(ask.value, 1), ask.long_course());
    course.rounds = course.rounds.min(25);
    let keys = course.rounds * course.keys();
    let field = Field::with_room(keys * 2, (keys * 2 * (24 + value.len() + 160)) as u64 + (4 << 20));
    let mut next = 0;
    let mut fresh = || -> Vec<Key> {
        let from = next;
        next += course.keys() as u64;
        (from..next).map(|number| Key::new(Kind::Stored, number)).collect()
    };
    let lanes = field.puts(&value);
    for (name, share) in [("put p99.9 while growing", 0.999), ("slowest put of 20k while growing", 1.0)] {
        let course = Course { rounds: course.rounds / 2 + 1, ..course };
        let results = race::tail(&lanes, course, share, &mut fresh);
        rows.push(against_best(name, OURS, &results, None));
    }
}

/// New keys into empty caches until each has put out four times what it holds: the puts of a cache's first minutes, all of them together.
fn first_minutes(ask: &Ask, rows: &mut Vec<Row>) {
    if !ask.wants("first") {
        return;
    }
    say("first");
    let value = value(ask.value, 1);
    let room = ask.keys(100_000);
    let bytes = (room * (24 + value.len() + 56)) as u64 + (1 << 20);
    let races = match () {
        () if ask.test => 1,
        () if ask.quick => 3,
        () => 7,
    };
    let results = race::tail_of_all(races, ask.long_course(), 0.999, || {
        let scout = Aurum::new(bytes);
        put_all(&scout, 0..filling(bytes, &value), &value);
        let keys = scout.entries() as u64 * 5;
        let field = Field::with_room(scout.entries() as usize, bytes);
        (field.puts(&value), (0..keys).map(|number| Key::new(Kind::Stored, number)).collect())
    });
    rows.push(against_best("insert p99.9, from nothing to five times 100k", OURS, &results, Some(Bar::at_most(1.0, 0.95))));
}

fn main() {
    let ask = Ask::given();
    let mut rows = Vec::new();
    resident(&ask, &mut rows);
    inserts(&ask, &mut rows);
    first_minutes(&ask, &mut rows);
    growth(&ask, &mut rows);
    let title = format!(
        "Memory tier, values of {} bytes: time of ours over the best peer's, median of {} turns",
        ask.value,
        ask.course().rounds
    );
    ask.output.print(&title, &["ours, ns", "against", "over quick_cache", "the others, ns"], &rows);
}
