//! What does the disk tier cost, through the public API with metrics on?
//!
//! `cargo bench --bench disk`: writes, reads from the page cache with percentiles, absent keys, and opening after a close and after
//! a kill -9. `AURUM_BENCH_ENTRIES=500000` for another size than 100 000; `-- --test` runs it small, once. Absolute times belong to one machine; beside
//! other stores, in one run, it is `benches/versus`, program `disk`.

#![allow(clippy::disallowed_methods)] // a bench measures real time

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
use hdrhistogram::Histogram;
use tokio::runtime::Runtime;

const NS: Namespace = Namespace::CURVES;
const VALUE: usize = 1024;
/// So little that nearly every read goes to the disk.
const MEMORY: u64 = 1 << 20;

const FILL: &str = "AURUM_BENCH_FILL";
const ENTRIES: &str = "AURUM_BENCH_ENTRIES";

fn main() {
    let entries: u64 = match std::env::var(ENTRIES) {
        Ok(entries) => entries.parse().expect("a number of entries"),
        Err(_) if std::env::args().any(|argument| argument == "--test") => 2_000,
        Err(_) => 100_000,
    };
    let runtime = Runtime::new().expect("a runtime");
    if let Ok(folder) = std::env::var(FILL) {
        // In a child: fill the folder, say so, and be killed.
        let cache = runtime.block_on(open(Path::new(&folder), entries));
        runtime.block_on(fill(&cache, entries));
        println!("filled");
        std::thread::sleep(Duration::from_secs(3600));
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let cache = runtime.block_on(open(folder.path(), entries));
    let clock = Instant::now();
    runtime.block_on(fill(&cache, entries));
    say("writes", format!("{:.0} a second", entries as f64 / clock.elapsed().as_secs_f64()));
    runtime.block_on(reads(&cache, entries));
    runtime.block_on(absent(&cache, entries));
    println!("{}", cache.analytics().disk_log);
    runtime.block_on(cache.close()).expect("a clean end");
    drop(cache);
    reopen("open after close", &runtime, folder.path(), entries);
    let killed = tempfile::tempdir().expect("a folder");
    killed_child(killed.path(), entries);
    reopen("open after kill -9", &runtime, killed.path(), entries);
}

fn say(what: &str, figure: String) {
    println!("{what:<20} {figure}");
}

fn key(number: u64) -> String {
    format!("hub:{number:020}")
}

async fn open(folder: &Path, entries: u64) -> Cache {
    let capacity = (2 * entries * VALUE as u64).max(64 << 20);
    Cache::builder().memory(MEMORY).disk(folder, capacity).open().await.expect("a cache")
}

/// Writes all values, and waits until they are in the log.
async fn fill(cache: &Cache, entries: u64) {
    let value = [7; VALUE];
    for number in 0..entries {
        cache.set(NS, &key(number), &value[..], TtlPolicy::Extended).await.expect("a write");
    }
    while cache.analytics().tier(Tier::Disk).entries < entries {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Reads at random, each timed by itself.
async fn reads(cache: &Cache, entries: u64) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
    for round in 0..2 {
        times.reset(); // the first round is for the page cache
        for _ in 0..entries {
            let key = key(random.u64(0..entries));
            let clock = Instant::now();
            let value = cache.get::<[u8]>(NS, &key).await.expect("a hit");
            times.saturating_record(clock.elapsed().as_nanos() as u64);
            assert_eq!((value.len(), value[VALUE - 1]), (VALUE, 7), "in round {round}");
        }
    }
    let us = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    say("warm read", format!("p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us", us(0.5), us(0.99), us(0.999)));
}

async fn absent(cache: &Cache, entries: u64) {
    let keys: Vec<String> = (0..entries).map(|number| format!("gap:{number:020}")).collect();
    let clock = Instant::now();
    for key in &keys {
        assert!(cache.get::<[u8]>(NS, key).await.is_none());
    }
    say("absent key", format!("{:.0} ns", clock.elapsed().as_nanos() as f64 / entries as f64));
}

fn killed_child(folder: &Path, entries: u64) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .env(FILL, folder)
        .env(ENTRIES, entries.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child process");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut said).expect("a line");
    child.kill().and_then(|()| child.wait()).expect("the end of the child");
    assert_eq!(said.trim(), "filled");
}

/// Until the first value is read; then all are, and none may be missing.
fn reopen(what: &str, runtime: &Runtime, folder: &Path, entries: u64) {
    runtime.block_on(async {
        let clock = Instant::now();
        let cache = open(folder, entries).await;
        assert!(cache.get::<[u8]>(NS, &key(entries / 2)).await.is_some());
        let answered = clock.elapsed();
        for number in 0..entries {
            assert!(cache.get::<[u8]>(NS, &key(number)).await.is_some(), "{what}: {number} is gone");
        }
        say(what, format!("{:.1} ms to the first answer, all {entries} values there", answered.as_secs_f64() * 1e3));
        cache.close().await.expect("a clean end");
    });
}
