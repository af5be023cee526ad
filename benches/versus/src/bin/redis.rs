//! What does a value in Redis cost, beside the client library alone? And what, when Redis does not answer?
//!
//! `cargo run --release --features redis --bin redis`; it starts a `redis-server` of its own. Ours and the library's connection take turns on one
//! runtime with one worker. What ours reads was written by another node, and each key is read once, so that none comes from memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::runtime::Runtime;
use versus::arguments::Options;
use versus::race::{median, quantile};
use versus::report::{Bar, Output, Row, say};
use versus::server::Server;
use versus::workload::{touch, value};

const HELP: &str = "\
redis: values in Redis, ours beside the library `redis` alone

  --quick   a tenth of it";

const NS: Namespace = Namespace::CURVES;
const VALUE: usize = 128;
/// Tasks that read at the same time.
const TASKS: usize = 64;
/// Gets of a turn, by one task; and by each of [`TASKS`].
const ALONE: usize = 500;
const EACH: usize = 40;
/// The longest a read waits for Redis, as it is by default.
const TIMEOUT: Duration = Duration::from_millis(50);

/// How much of everything.
struct Size {
    turns: usize,
    outages: usize,
    invalidations: usize,
}

fn main() {
    let mut given = Options::given(HELP);
    let size = match (given.has("--test"), given.has("--quick")) {
        (true, _) => Size { turns: 2, outages: 1, invalidations: 10 },
        (false, true) => Size { turns: 10, outages: 2, invalidations: 100 },
        (false, false) => Size { turns: 51, outages: 5, invalidations: 1_000 },
    };
    let output: Output = given.output();
    given.rest();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let server = Server::start();
    let mut rows = Vec::new();
    one_at_a_time(&runtime, &server, &size, &mut rows);
    many_at_once(&runtime, &server, &size, &mut rows);
    invalidated_elsewhere(&runtime, &server, &size, &mut rows);
    without_an_answer(&runtime, &server, &size, &mut rows);
    let title = format!("Redis on this machine, values of {VALUE} bytes, {} turns", size.turns);
    output.print(&title, &["detail"], &rows);
}

fn open(runtime: &Runtime, server: &Server) -> Cache {
    runtime.block_on(Cache::builder().memory(64 << 20).redis(server.url()).open()).expect("a cache")
}

fn name(kind: &str, number: usize) -> String {
    format!("{kind}:{number:018}")
}

/// Writes values that the reader has not seen: by another node of ours, and under the same names for the library.
fn write(runtime: &Runtime, server: &Server, kind: &str, count: usize) {
    let writer = open(runtime, server);
    let client = redis::Client::open(server.url()).expect("a client");
    let bytes = value(VALUE, 1);
    runtime.block_on(async {
        // As large as ours are on the wire.
        let stored = [bytes.as_slice(), &[0; 64]].concat();
        let raw = client.get_multiplexed_async_connection().await.expect("a connection");
        for first in (0..count).step_by(TASKS) {
            let tasks: Vec<_> = (first..count.min(first + TASKS))
                .map(|number| {
                    let (writer, mut raw, bytes, stored) = (writer.clone(), raw.clone(), bytes.clone(), stored.clone());
                    let key = name(kind, number);
                    tokio::spawn(async move {
                        writer.set(NS, &key, bytes.as_slice(), TtlPolicy::Long).await.expect("a write");
                        let () = raw.set(&key, stored.as_slice()).await.expect("a write");
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic");
            }
        }
        writer.close().await.expect("a clean end");
    });
}

/// The two that are compared: a node that has read nothing yet, and a connection.
struct Pair {
    ours: Cache,
    raw: MultiplexedConnection,
}

impl Pair {
    fn connect(runtime: &Runtime, server: &Server) -> Self {
        let client = redis::Client::open(server.url()).expect("a client");
        let raw = runtime.block_on(client.get_multiplexed_async_connection()).expect("a connection");
        Self { ours: open(runtime, server), raw }
    }

    async fn by_ours(ours: &Cache, key: &str) -> u64 {
        let hit = ours.get::<[u8]>(NS, key).await.expect("a hit");
        assert_eq!(hit.tier(), Tier::Redis, "{key} did not come from Redis");
        touch(&hit)
    }

    async fn by_raw(raw: &mut MultiplexedConnection, key: &str) -> u64 {
        let bytes: Vec<u8> = raw.get(key).await.expect("an answer");
        touch(&bytes)
    }
}

/// The median over the turns of ours over the library's.
fn compared(name: String, bar: Bar, unit: &str, ours: Vec<f64>, raw: Vec<f64>) -> Row {
    let figure = median(ours.iter().zip(&raw).map(|(ours, raw)| ours / raw).collect());
    let (ours, raw) = (median(ours), median(raw));
    Row {
        name,
        figure,
        bar: Some(bar),
        columns: vec![format!("{ours:.1} {unit}, library {raw:.1} {unit}")],
        data: json!({ "ours": ours, "library": raw, "unit": unit }),
    }
}

/// One get after the other.
fn one_at_a_time(runtime: &Runtime, server: &Server, size: &Size, rows: &mut Vec<Row>) {
    say("one get at a time");
    write(runtime, server, "one", size.turns * ALONE);
    let Pair { ours, mut raw } = Pair::connect(runtime, server);
    let turns = size.turns;
    let task = runtime.spawn(async move {
        let mut medians = (Vec::new(), Vec::new());
        for turn in 0..turns {
            let keys: Vec<String> = (turn * ALONE..(turn + 1) * ALONE).map(|number| name("one", number)).collect();
            for is_ours in [turn % 2 == 0, turn % 2 == 1] {
                let mut times = Vec::with_capacity(ALONE);
                for key in &keys {
                    let began = Instant::now();
                    let read = if is_ours { Pair::by_ours(&ours, key).await } else { Pair::by_raw(&mut raw, key).await };
                    std::hint::black_box(read);
                    times.push(began.elapsed());
                }
                let medians = if is_ours { &mut medians.0 } else { &mut medians.1 };
                medians.push(quantile(&mut times, 0.5) / 1e3);
            }
        }
        medians
    });
    let (ours, raw) = runtime.block_on(task).expect("no panic");
    rows.push(compared("one get at a time, p50 over the library's".into(), Bar::at_most(1.10, 1.03), "us", ours, raw));
}

/// Many tasks, each with one get after the other, over one connection.
fn many_at_once(runtime: &Runtime, server: &Server, size: &Size, rows: &mut Vec<Row>) {
    say("64 gets at a time");
    write(runtime, server, "many", size.turns * TASKS * EACH);
    let Pair { ours, raw } = Pair::connect(runtime, server);
    let turns = size.turns;
    let task = runtime.spawn(async move {
        let ours = Arc::new(ours);
        let mut rates = (Vec::new(), Vec::new());
        for turn in 0..turns {
            for is_ours in [turn % 2 == 0, turn % 2 == 1] {
                let keys = |task| (0..EACH).map(move |number| name("many", (turn * TASKS + task) * EACH + number));
                let keys: Vec<Vec<String>> = (0..TASKS).map(|task| keys(task).collect()).collect();
                let began = Instant::now();
                let tasks: Vec<_> = keys
                    .into_iter()
                    .map(|keys| {
                        let (ours, mut raw) = (ours.clone(), raw.clone());
                        tokio::spawn(async move {
                            let mut sum = 0;
                            for key in keys {
                                sum +=
                                    if is_ours { Pair::by_ours(&ours, &key).await } else { Pair::by_raw(&mut raw, &key).await };
                            }
                            sum
                        })
                    })
                    .collect();
                for task in tasks {
                    std::hint::black_box(task.await.expect("no panic"));
                }
                let rates = if is_ours { &mut rates.0 } else { &mut rates.1 };
                rates.push((TASKS * EACH) as f64 / began.elapsed().as_secs_f64() / 1e3);
            }
        }
        rates
    });
    let (ours, raw) = runtime.block_on(task).expect("no panic");
    rows.push(compared(
        format!("{TASKS} gets at a time, gets a second over the library's"),
        Bar::at_least(1.3, 2.0),
        "k/s",
        ours,
        raw,
    ));
}

/// From the call on one node to the first read on another that misses.
fn invalidated_elsewhere(runtime: &Runtime, server: &Server, size: &Size, rows: &mut Vec<Row>) {
    say("invalidations that reach another node");
    let (here, there) = (open(runtime, server), open(runtime, server));
    let bytes = value(VALUE, 1);
    let mut times = Vec::new();
    for number in 0..size.invalidations {
        let key = name("gone", number);
        runtime.block_on(async {
            here.set(NS, &key, bytes.as_slice(), TtlPolicy::Long).await.expect("a write");
            // The news of the `set` may come after the first read, and take that away again.
            while there.get_resident::<[u8]>(NS, &key).is_none() {
                there.get::<[u8]>(NS, &key).await.expect("a hit");
            }
        });
        let began = Instant::now();
        let (node, gone) = (here.clone(), key.clone());
        let call = runtime.spawn(async move { node.invalidate(NS, &gone).await });
        while there.get_resident::<[u8]>(NS, &key).is_some() {
            assert!(began.elapsed() < Duration::from_secs(10), "the invalidation of {key} was lost");
            std::thread::sleep(Duration::from_micros(20));
        }
        times.push(began.elapsed());
        runtime.block_on(call).expect("no panic").expect("an invalidation");
    }
    let (p50, p99) = (quantile(&mut times, 0.5) / 1e6, quantile(&mut times, 0.99) / 1e6);
    rows.push(Row {
        name: "an invalidation reaches another node, p99, ms".into(),
        figure: p99,
        bar: Some(Bar::at_most(20.0, 5.0)),
        columns: vec![format!("p50 {p50:.2} ms, {} of them", size.invalidations)],
        data: json!({ "p50_ms": p50, "p99_ms": p99 }),
    });
}

/// Redis is stopped: it takes what is sent, and says nothing.
fn without_an_answer(runtime: &Runtime, server: &Server, size: &Size, rows: &mut Vec<Row>) {
    say("Redis stopped");
    let bytes = value(VALUE, 1);
    let (mut ratios, mut first, mut free) = (Vec::new(), Vec::new(), Vec::new());
    for outage in 0..size.outages {
        let cache = open(runtime, server);
        runtime.block_on(async { cache.set(NS, "held", bytes.as_slice(), TtlPolicy::Long).await.expect("a write") });
        let before = hits(runtime, &cache);
        server.pause();
        let reader = cache.clone();
        let times = runtime.block_on(async move {
            let task = tokio::spawn(async move {
                let mut times = Vec::new();
                for number in 0..1_000 {
                    let began = Instant::now();
                    assert!(reader.get::<[u8]>(NS, &name("absent", outage * 1_000 + number)).await.is_none());
                    times.push(began.elapsed());
                }
                times
            });
            task.await.expect("no panic")
        });
        ratios.push(hits(runtime, &cache) / before);
        server.resume();
        let waited = times.iter().filter(|time| **time > TIMEOUT / 10).count();
        first.push((times.iter().max().expect("some").as_secs_f64() / TIMEOUT.as_secs_f64(), waited));
        free.push(quantile(&mut times[waited..].to_vec(), 0.99) / 1e3);
        runtime.block_on(cache.close()).expect("a clean end");
    }
    let figure = median(ratios);
    rows.push(Row {
        name: "a hit in memory while Redis is stopped, over before".into(),
        figure,
        bar: Some(Bar::at_most(1.10, 1.03)),
        columns: vec![format!("{} outages", size.outages)],
        data: json!({ "over_before": figure }),
    });
    let (slowest, waits) = first.iter().fold((0.0_f64, 0), |(slow, waits), (time, waited)| (slow.max(*time), waits.max(*waited)));
    let free = median(free);
    rows.push(Row {
        name: format!("the slowest miss while Redis is stopped, over the timeout of {} ms", TIMEOUT.as_millis()),
        figure: slowest,
        bar: Some(Bar::at_most(1.10, 1.03)),
        columns: vec![format!("{waits} of 1000 waited, p99 of the others {free:.1} us")],
        data: json!({ "slowest_over_timeout": slowest, "waited": waits, "p99_us_of_others": free }),
    });
}

/// Nanoseconds of a hit in memory: the median of a hundred thousand, timed in hundreds.
fn hits(runtime: &Runtime, cache: &Cache) -> f64 {
    runtime.block_on(async {
        let mut times = Vec::new();
        for _ in 0..1_000 {
            let began = Instant::now();
            for _ in 0..100 {
                std::hint::black_box(touch(&cache.get::<[u8]>(NS, "held").await.expect("a hit")));
            }
            times.push(began.elapsed());
        }
        quantile(&mut times, 0.5) / 100.0
    })
}
