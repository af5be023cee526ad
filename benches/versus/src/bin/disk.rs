//! What does a value on disk cost, beside stores and caches that keep theirs there?
//!
//! `cargo run --release --features disk --bin disk`. Every store does the same work in processes of its own: writes all values in random order,
//! reads them at random from the page cache, asks for what is absent, reads from the device after the page cache was told to let go, is closed and
//! opened, is killed (`SIGKILL`) right after a second fill and opened again. Every value read is compared with its key, and a store that has lost one
//! says so in its row. Percentiles are over single operations; an absent key is timed in hundreds, because a look at the clock costs as much.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use versus::arguments::Options;
use versus::process::{child, resident};
use versus::report::{Bar, Row, say};
use versus::stores::{STORES, Size, Store, Values, open};
use versus::workload::{Key, Kind};

const HELP: &str = "\
disk: values on disk, ours beside redb, fjall, foyer and sled

  --entries N       how many [500000]
  --value BYTES     of a value, at least 8 [1024]
  --memory BYTES    for caching [16777216]
  --reads N         reads of the warm row [200000]
  --stores A,B      only these [all]
  --dir FOLDER      where the stores make their folders [the system's temporary folder]";

/// Reads of the device row; at 100 us each, a fraction of a second.
const DEVICE_READS: usize = 3_000;
/// Absent keys timed together.
const ABSENT_STEP: usize = 100;

fn main() {
    let mut given = Options::given(HELP);
    let role: Option<String> = given.value("--role");
    let (test, output) = (given.has("--test"), given.output());
    let size = Size {
        entries: given.value("--entries").unwrap_or(if test { 5_000 } else { 500_000 }),
        value: given.value("--value").unwrap_or(1024),
        memory: given.value("--memory").unwrap_or(if test { 2 << 20 } else { 16 << 20 }),
    };
    let reads = given.value("--reads").unwrap_or(if test { 5_000 } else { 200_000 });
    let names: Vec<String> = given.list("--stores").unwrap_or_else(|| STORES.map(str::to_owned).to_vec());
    let dir = given.value::<String>("--dir").map_or_else(std::env::temp_dir, Into::into);
    given.rest();
    if let Some(role) = role {
        println!("{}", play(&role, &names[0], &dir, size, reads));
        return;
    }
    let told: Vec<(String, Value)> = names.iter().map(|name| (name.clone(), measure(name, &dir, size, reads))).collect();
    let of = |name: &str| told.iter().find(|(other, _)| other == name).map(|(_, told)| told);
    let headings: Vec<&str> = names.iter().map(String::as_str).collect();
    let title = format!("Disk: {} entries of {} bytes, {} MiB of memory", size.entries, size.value, size.memory >> 20);
    output.print(&title, &headings, &rows(&of, &told, size));
}

/// One store from its first write to its last opening.
fn measure(name: &str, dir: &Path, size: Size, reads: usize) -> Value {
    let [kept, killed] = [(); 2].map(|()| tempfile::Builder::new().prefix("versus-disk-").tempdir_in(dir).expect("a folder"));
    let (entries, value, memory, reads) =
        (size.entries.to_string(), size.value.to_string(), size.memory.to_string(), reads.to_string());
    let arguments = |role: &str, folder: &Path| -> Vec<String> {
        let folder = folder.to_str().expect("a folder in UTF-8");
        let pairs = [("--role", role), ("--stores", name), ("--dir", folder), ("--entries", &entries), ("--value", &value)];
        let more = [("--memory", memory.as_str()), ("--reads", &reads)];
        pairs.iter().chain(&more).flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect()
    };
    let run = |role: &str, folder: &Path| {
        say(&format!("{name}: {role}"));
        let arguments = arguments(role, folder);
        child(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let work = run("run", kept.path());
    let closed = run("reopen", kept.path());
    say(&format!("{name}: fill, and be killed"));
    let program = std::env::current_exe().expect("this program");
    let mut victim =
        Command::new(program).args(arguments("fill", killed.path())).stdout(Stdio::piped()).spawn().expect("a child process");
    let mut said = String::new();
    BufReader::new(victim.stdout.take().expect("its output")).read_line(&mut said).expect("a line");
    victim.kill().and_then(|()| victim.wait()).expect("the end of the child");
    assert_eq!(said.trim(), "filled", "{name} did not fill its folder");
    let killed = run("reopen", killed.path());
    json!({ "run": work, "closed": closed, "killed": killed })
}

/// In a child: one part of the work in a folder.
fn play(role: &str, name: &str, folder: &Path, size: Size, reads: usize) -> Value {
    match role {
        "run" => work(name, folder, size, reads),
        "fill" => {
            let mut store = open(name, folder, size);
            store.fill(&numbers(size), &Values::new(size.value));
            println!("filled");
            std::thread::sleep(Duration::from_secs(3600));
            Value::Null
        }
        "reopen" => reopen(name, folder, size),
        other => panic!("{other}: no such role"),
    }
}

/// All numbers, in no order.
fn numbers(size: Size) -> Vec<u64> {
    let mut numbers: Vec<u64> = (0..size.entries).collect();
    fastrand::Rng::with_seed(21).shuffle(&mut numbers);
    numbers
}

fn work(name: &str, folder: &Path, size: Size, reads: usize) -> Value {
    let (numbers, values) = (numbers(size), Values::new(size.value));
    let all: Vec<Key> = numbers.iter().map(|&number| Key::new(Kind::Stored, number)).collect();
    let (before, _) = resident();
    let mut store = open(name, folder, size);
    let clock = Instant::now();
    store.fill(&numbers, &values);
    let filled = clock.elapsed();
    let clock = Instant::now();
    store.sync();
    let synced = clock.elapsed();
    let size_full = on_disk(folder);
    // Once untimed, so that all of it is in the page cache and everything that was left over from writing is done.
    let lost = count_lost(store.as_mut(), &all, &numbers);
    let warm = timed_reads(store.as_mut(), size, reads, 1);
    let absent = absent_reads(store.as_mut(), reads);
    let (after, peak) = resident();
    forget(folder);
    let device = timed_reads(store.as_mut(), size, DEVICE_READS.min(reads), 2);
    let clock = Instant::now();
    store.close();
    let closed = clock.elapsed();
    json!({
        "writes_per_s": size.entries as f64 / filled.as_secs_f64(),
        "sync_ms": ms(synced),
        "lost": lost,
        "warm": warm,
        "absent_ns": absent,
        "device": device,
        "bytes_filled": size_full,
        "bytes_closed": on_disk(folder),
        "resident": after.saturating_sub(before),
        "resident_peak": peak.saturating_sub(before),
        "close_ms": ms(closed),
    })
}

/// Opens a folder that holds all values; how long until the first is read, and how many are there.
fn reopen(name: &str, folder: &Path, size: Size) -> Value {
    let numbers = numbers(size);
    let all: Vec<Key> = numbers.iter().map(|&number| Key::new(Kind::Stored, number)).collect();
    let clock = Instant::now();
    let mut store = open(name, folder, size);
    let opened = clock.elapsed();
    let mut first = None;
    store.read(&all[..1], &mut |_, seen| first = seen);
    let answered = clock.elapsed();
    let lost = count_lost(store.as_mut(), &all, &numbers);
    json!({
        "open_ms": ms(opened),
        "answer_ms": ms(answered),
        "first_is_there": first.is_some(),
        "readable": 1.0 - lost as f64 / size.entries as f64,
    })
}

fn count_lost(store: &mut dyn Store, all: &[Key], numbers: &[u64]) -> u64 {
    let mut lost = 0;
    store.read(all, &mut |at, seen| match seen {
        Some((number, _)) => assert_eq!(number, numbers[at], "a value of another key"),
        None => lost += 1,
    });
    lost
}

/// Reads stored keys at random, one by one.
fn timed_reads(store: &mut dyn Store, size: Size, count: usize, seed: u64) -> Value {
    let mut random = fastrand::Rng::with_seed(seed);
    let numbers: Vec<u64> = (0..count).map(|_| random.u64(0..size.entries)).collect();
    let keys: Vec<Key> = numbers.iter().map(|&number| Key::new(Kind::Stored, number)).collect();
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("a histogram");
    let mut clock = Instant::now();
    store.read(&keys, &mut |_, _| {
        let now = Instant::now();
        times.saturating_record((now - clock).as_nanos() as u64);
        clock = Instant::now();
    });
    let us = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
    json!({ "p50_us": us(0.5), "p90_us": us(0.9), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": us(1.0) })
}

/// Nanoseconds for a key that was never stored, at the median.
fn absent_reads(store: &mut dyn Store, count: usize) -> f64 {
    let keys: Vec<Key> = (0..count as u64).map(|number| Key::new(Kind::Absent, number)).collect();
    let mut times = Vec::new();
    let mut clock = Instant::now();
    store.read(&keys, &mut |at, seen| {
        assert!(seen.is_none(), "a value of a key that was never stored");
        if at % ABSENT_STEP == ABSENT_STEP - 1 {
            let now = Instant::now();
            times.push((now - clock).as_nanos() as f64 / ABSENT_STEP as f64);
            clock = Instant::now();
        }
    });
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Every file of a folder and below.
fn each_file(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for file in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = file.path();
        match path.is_dir() {
            true => each_file(&path, visit),
            false => visit(&path),
        }
    }
}

/// Bytes that the file system has given to a folder.
fn on_disk(folder: &Path) -> u64 {
    let mut bytes = 0;
    each_file(folder, &mut |path| bytes += path.metadata().map_or(0, |file| file.blocks() * 512));
    bytes
}

/// Writes everything to the device and takes it out of the page cache.
fn forget(folder: &Path) {
    each_file(folder, &mut |path| {
        let Ok(file) = File::open(path) else { return };
        file.sync_all().expect("a sync");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("posix_fadvise");
    });
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rows<'a>(of: &dyn Fn(&str) -> Option<&'a Value>, told: &'a [(String, Value)], size: Size) -> Vec<Row> {
    let field = |told: &Value, path: &str| told.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let all = |path: &str, digits: usize, unit: f64| -> Vec<String> {
        told.iter().map(|(_, told)| format!("{:.digits$}", field(told, path) * unit)).collect()
    };
    let ours = |path: &str| of("aurum").map_or(f64::NAN, |told| field(told, path));
    let peer = |name: &str, path: &str| of(name).map_or(f64::NAN, |told| field(told, path));
    let row = |name: &str, figure: f64, bar: Option<Bar>, path: &str, columns: Vec<String>| {
        let data = told.iter().map(|(name, told)| (name.clone(), told.pointer(path).cloned().unwrap_or(Value::Null)));
        Row { name: name.to_owned(), figure, bar, columns, data: Value::Object(data.collect()) }
    };
    let over = |name: &str, path: &str| ours(path) / peer(name, path);
    let (payload, mib) = (size.payload() as f64, f64::from(1 << 20));
    let writes = "/run/writes_per_s";
    let best = peer("fjall", writes).max(peer("foyer", writes));
    let tier = (ours("/run/resident") - size.memory as f64) / (size.entries as f64 * 40.0 + 32.0 * mib);
    vec![
        row(
            "warm read p50, us; over redb",
            over("redb", "/run/warm/p50_us"),
            Some(Bar::at_most(0.5, 0.3)),
            "/run/warm",
            all("/run/warm/p50_us", 2, 1.0),
        ),
        row(
            "warm read p99, us; over redb",
            over("redb", "/run/warm/p99_us"),
            Some(Bar::at_most(0.6, 0.3)),
            "/run/warm",
            all("/run/warm/p99_us", 2, 1.0),
        ),
        row(
            "read from the device p50, us; over foyer",
            over("foyer", "/run/device/p50_us"),
            Some(Bar::at_most(1.1, 1.0)),
            "/run/device",
            all("/run/device/p50_us", 1, 1.0),
        ),
        row(
            "absent key, us",
            ours("/run/absent_ns") / 1e3,
            Some(Bar::at_most(0.3, 0.1)),
            "/run/absent_ns",
            all("/run/absent_ns", 3, 1e-3),
        ),
        row(
            "writes, k/s; over the better of fjall and foyer",
            ours(writes) / best,
            Some(Bar::at_least(1.2, 2.0)),
            writes,
            all(writes, 1, 1e-3),
        ),
        row("sync after it, ms", ours("/run/sync_ms"), None, "/run/sync_ms", all("/run/sync_ms", 0, 1.0)),
        row(
            "bytes on disk over values",
            ours("/run/bytes_closed") / payload,
            Some(Bar::at_most(1.25, 1.1)),
            "/run/bytes_closed",
            all("/run/bytes_closed", 2, 1.0 / payload),
        ),
        row(
            "resident MiB less memory's; over 40 B an entry and 32 MiB",
            tier,
            Some(Bar::at_most(1.0, 0.6)),
            "/run/resident",
            told.iter().map(|(_, told)| format!("{:.0}", (field(told, "/run/resident") - size.memory as f64) / mib)).collect(),
        ),
        row(
            "closed, opened, first answer, ms",
            ours("/closed/answer_ms"),
            Some(Bar::at_most(150.0, 30.0)),
            "/closed",
            all("/closed/answer_ms", 1, 1.0),
        ),
        row(
            "killed, opened, first answer, ms",
            ours("/killed/answer_ms"),
            Some(Bar::at_most(1000.0, 300.0)),
            "/killed",
            all("/killed/answer_ms", 1, 1.0),
        ),
        row(
            "readable after close, %",
            ours("/closed/readable") * 100.0,
            Some(Bar::at_least(100.0, 100.0)),
            "/closed/readable",
            all("/closed/readable", 3, 100.0),
        ),
        row(
            "readable after kill, %",
            ours("/killed/readable") * 100.0,
            Some(Bar::at_least(100.0, 100.0)),
            "/killed/readable",
            all("/killed/readable", 3, 100.0),
        ),
        row("close, ms", ours("/run/close_ms"), None, "/run/close_ms", all("/run/close_ms", 0, 1.0)),
    ]
}
