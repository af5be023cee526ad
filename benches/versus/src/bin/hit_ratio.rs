//! How often is the answer there? Real traces through the real caches, all of one capacity, beside Belady's optimum.
//!
//! `cargo run --release --bin hit_ratio FOLDER`. Each trace of the folder (the program's four formats, zstd or not) is replayed at 0.1, 1, 5, 10
//! and 25 % of its distinct keys, or of their bytes where it knows sizes: a request is a read, and a miss is followed by a write. Peers have one
//! shard each, and moka does its pending work after each write, so that everybody is at their best.
//!
//! **Equal capacity.** Peers count entries (or the trace's bytes); ours counts real bytes, all overhead included. So for each
//! point ours gets the bytes in which it holds as many entries as the peers may: found with keys of the same length in trial caches, and
//! rounded down. It has as many shards as those bytes give it. For a trace with sizes it gets the trace's bytes, and the overhead of as many entries
//! of the mean size as they hold.
//!
//! *Bar*: the best of the seven peers, chosen anew at each point. Points of less than 50 entries, or than the MiB that our budget must have, are
//! left out.

#![allow(dead_code, unreachable_pub, reason = "the reader is the program's own, which uses more of it")]

#[path = "../../../../src/bin/aurum-cache/keys.rs"]
mod keys;
#[path = "../../../../src/bin/aurum-cache/trace/read.rs"]
mod read;

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
use foyer_memory::{CacheBuilder, EvictionConfig, LfuConfig, LruConfig, S3FifoConfig, SieveConfig};
use read::{Format, Request};
use serde_json::json;
use tokio::runtime::Runtime;
use versus::arguments::{Options, complain};
use versus::contenders::at_once;
use versus::report::{Bar, Row, say};

const HELP: &str = "\
hit_ratio FOLDER: traces against the optimum and the best of seven peers, in percentage points

  --traces TEXT     only files whose name contains this
  --limit N         at most so many requests of each [5000000]
  --shares LIST     capacities in percent of the distinct keys [0.1,1,5,10,25]
  --ours            no peers: ours and the optimum alone";

const PEERS: [&str; 7] = ["moka", "quick_cache", "tinyufo", "foyer lru", "foyer lfu", "foyer s3fifo", "foyer sieve"];
/// Points with less entries are left out.
const FEWEST: u64 = 50;

struct Trace {
    name: String,
    requests: Vec<Request>,
    keys: usize,
    /// Bytes of the distinct keys' values; 0 if the trace knows no sizes.
    bytes: u64,
}

impl Trace {
    fn read(path: &Path, limit: u64) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut plain = BufReader::new(File::open(path).expect("a readable trace"));
        let packed = plain.fill_buf().expect("a readable trace").starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let mut source: Box<dyn BufRead> = if packed {
            Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(plain).expect("zstd")))
        } else {
            Box::new(plain)
        };
        let format = Format::of(&name, source.fill_buf().expect("a readable trace"));
        let (requests, keys) = read::read(&mut *source, format, Some(limit)).unwrap_or_else(|told| panic!("{name}: {told}"));
        let mut sizes = vec![0u32; keys.len()];
        requests.iter().for_each(|request| sizes[request.key as usize] = request.size);
        let bytes = sizes.iter().map(|&size| u64::from(size)).sum();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        Self { name, requests, keys: keys.len(), bytes }
    }

    fn is_sized(&self) -> bool {
        self.bytes > 0
    }

    /// Entries, or bytes.
    fn capacity(&self, percent: f64) -> u64 {
        let whole = if self.is_sized() { self.bytes } else { self.keys as u64 };
        (whole as f64 * percent / 100.0) as u64
    }

    fn weight(&self, request: Request) -> u32 {
        if self.is_sized() { request.size.max(1) } else { 1 }
    }

    /// Share of the requests that hit, in percent.
    fn replay(&self, mut hits: impl FnMut(Request) -> bool) -> f64 {
        let hit = self.requests.iter().filter(|&&request| hits(request)).count();
        hit as f64 * 100.0 / self.requests.len().max(1) as f64
    }
}

/// The optimum: what is used latest goes first, the newcomer itself if that is it. For sized values a good guess.
fn belady(trace: &Trace, capacity: u64) -> f64 {
    let mut next = vec![u32::MAX; trace.requests.len()];
    let mut last = vec![u32::MAX; trace.keys];
    for (at, request) in trace.requests.iter().enumerate().rev() {
        next[at] = std::mem::replace(&mut last[request.key as usize], at as u32);
    }
    // The next use of a resident, and what it weighs; 0 where it is not resident.
    let (mut due, mut weights) = (vec![0u32; trace.keys], vec![0u32; trace.keys]);
    let (mut queue, mut used, mut at) = (BinaryHeap::new(), 0, 0);
    trace.replay(|request| {
        let (key, then) = (request.key as usize, next[at]);
        at += 1;
        let hit = weights[key] > 0;
        if then == u32::MAX {
            used -= u64::from(std::mem::take(&mut weights[key]));
            return hit;
        }
        if !hit {
            weights[key] = trace.weight(request);
            used += u64::from(weights[key]);
        }
        due[key] = then;
        queue.push((then, request.key));
        while used > capacity {
            let Some((when, victim)) = queue.pop() else { break };
            if weights[victim as usize] > 0 && due[victim as usize] == when {
                used -= u64::from(std::mem::take(&mut weights[victim as usize]));
            }
        }
        hit
    })
}

fn peer(name: &str, trace: &Trace, capacity: u64) -> f64 {
    let mean = trace.bytes as usize / trace.keys.max(1);
    let expected = if trace.is_sized() { capacity as usize / mean.max(1) } else { capacity as usize };
    let foyer = |config: EvictionConfig| {
        let cache: foyer_memory::Cache<u32, u32> = CacheBuilder::new(capacity as usize)
            .with_shards(1)
            .with_eviction_config(config)
            .with_weighter(|_: &u32, weight: &u32| *weight as usize)
            .build();
        trace.replay(|request| {
            let hit = cache.get(&request.key).is_some();
            if !hit {
                cache.insert(request.key, trace.weight(request));
            }
            hit
        })
    };
    match name {
        "moka" => {
            let cache = moka::sync::Cache::builder().max_capacity(capacity).weigher(|_: &u32, weight: &u32| *weight).build();
            trace.replay(|request| {
                let hit = cache.get(&request.key).is_some();
                if !hit {
                    cache.insert(request.key, trace.weight(request));
                    cache.run_pending_tasks();
                }
                hit
            })
        }
        "quick_cache" => {
            #[derive(Clone)]
            struct Weight;
            impl quick_cache::Weighter<u32, u32> for Weight {
                fn weight(&self, _: &u32, weight: &u32) -> u64 {
                    u64::from(*weight)
                }
            }
            let options = quick_cache::OptionsBuilder::new()
                .shards(1)
                .estimated_items_capacity(expected)
                .weight_capacity(capacity)
                .build()
                .expect("all is said");
            let lifecycle = quick_cache::sync::DefaultLifecycle::default();
            let cache =
                quick_cache::sync::Cache::with_options(options, Weight, foldhash::fast::RandomState::default(), lifecycle);
            trace.replay(|request| {
                let hit = cache.get(&request.key).is_some();
                if !hit {
                    cache.insert(request.key, trace.weight(request));
                }
                hit
            })
        }
        "tinyufo" => {
            // Its weights have 16 bits.
            let unit = if trace.is_sized() { 1024 } else { 1 };
            let cache = tinyufo::TinyUfo::new((capacity / unit) as usize, expected);
            trace.replay(|request| {
                let hit = cache.get(&request.key).is_some();
                if !hit {
                    let weight = u64::from(trace.weight(request)).div_ceil(unit);
                    cache.put(request.key, (), u16::try_from(weight).unwrap_or(u16::MAX));
                }
                hit
            })
        }
        "foyer lru" => foyer(LruConfig::default().into()),
        "foyer lfu" => foyer(LfuConfig::default().into()),
        "foyer s3fifo" => foyer(S3FifoConfig::default().into()),
        _ => foyer(SieveConfig.into()),
    }
}

/// Ours, through the public API.
struct Ours {
    cache: Cache,
    runtime: Runtime,
    value: Vec<u8>,
}

/// The least budget a cache may have.
const LEAST: u64 = 1 << 20;

impl Ours {
    fn new(budget: u64, value: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let cache = runtime.block_on(Cache::builder().memory(budget.max(LEAST)).open()).expect("a cache");
        Self { cache, runtime, value: vec![7; value] }
    }

    /// All keys are of the same length, so that all entries weigh the same.
    fn key(buffer: &mut String, key: u64) -> &str {
        use std::fmt::Write;
        buffer.clear();
        write!(buffer, "{key:010}").expect("text");
        buffer
    }

    fn put(&self, key: &str, size: usize) {
        at_once(self.cache.set(Namespace::GENERAL, key, &self.value[..size], TtlPolicy::Persistent)).expect("a write");
    }

    /// Entries it holds once it is full.
    fn holds(&self, wanted: u64) -> u64 {
        let mut buffer = String::new();
        (0..2 * wanted + 100).for_each(|key| self.put(Self::key(&mut buffer, key), self.value.len()));
        self.cache.analytics().tier(Tier::Memory).entries
    }

    /// With room for exactly, or just less than, so many entries. Returns how many that is.
    fn with_entries(entries: u64) -> (Self, u64) {
        // In a small cache values are larger, for it may not have less than a MiB.
        let value = (2 * LEAST / entries) as usize;
        let mut budget = entries * (value as u64 + 96);
        let mut held = 0;
        for _ in 0..6 {
            held = Self::new(budget, value).holds(entries);
            if held <= entries && held * 1000 >= entries * 998 {
                break;
            }
            let wanted = if held > entries { entries - entries / 1000 } else { entries };
            budget = (budget as f64 * wanted as f64 / held.max(1) as f64) as u64;
        }
        (Self::new(budget, value), held)
    }

    /// For a trace with sizes.
    fn with_bytes(trace: &Trace, capacity: u64) -> Self {
        let largest = trace.requests.iter().map(|request| request.size).max().unwrap_or(0) as usize;
        let mean = (trace.bytes / trace.keys.max(1) as u64).max(1);
        Self::new(capacity + capacity / mean * 90, largest)
    }

    fn replay(&self, trace: &Trace) -> f64 {
        let mut buffer = String::new();
        trace.replay(|request| {
            let key = Self::key(&mut buffer, u64::from(request.key));
            let hit = self.cache.with_resident::<[u8], _>(Namespace::GENERAL, key, |_| ()).is_some();
            if !hit {
                self.put(key, if trace.is_sized() { request.size as usize } else { self.value.len() });
            }
            hit
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.cache.close());
    }
}

fn traces(folder: &str, part: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|cause| complain(&format!("{folder}: {cause}")))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file() && path.extension().is_none_or(|extension| extension != "md"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)))
        .collect();
    files.sort();
    files
}

fn main() {
    let mut given = Options::given(HELP);
    let (part, limit) = (given.value::<String>("--traces").unwrap_or_default(), given.value("--limit").unwrap_or(5_000_000));
    let shares = given.list("--shares").unwrap_or_else(|| vec![0.1, 1.0, 5.0, 10.0, 25.0]);
    let (test, alone, output) = (given.has("--test"), given.has("--ours"), given.output());
    let folder = given.rest().into_iter().next().unwrap_or_else(|| complain(&"which folder? see --help"));
    let limit = if test { 20_000 } else { limit };
    let (mut rows, mut below) = (Vec::new(), Vec::new());
    for path in traces(&folder, &part) {
        let trace = Trace::read(&path, limit);
        let is_short_loop = trace.requests.len() < 10_000;
        for &share in &shares {
            let capacity = trace.capacity(share);
            if capacity < if trace.is_sized() { LEAST } else { FEWEST } {
                continue;
            }
            say(&format!("{} at {share} %", trace.name));
            let (ours, held) =
                if trace.is_sized() { (Ours::with_bytes(&trace, capacity), capacity) } else { Ours::with_entries(capacity) };
            let ours = ours.replay(&trace);
            let optimum = belady(&trace, capacity);
            let peers: Vec<(&str, f64)> =
                if alone { vec![] } else { PEERS.map(|name| (name, peer(name, &trace, capacity))).to_vec() };
            let (best, bar) = peers.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("optimum", optimum));
            if !trace.is_sized() && !is_short_loop {
                below.push(bar - ours);
            }
            let mut columns =
                vec![format!("{ours:.2}"), format!("{bar:.2} {best}"), format!("{optimum:.2}"), format!("{held} of {capacity}")];
            columns.extend(peers.iter().map(|(_, ratio)| format!("{ratio:.2}")));
            rows.push(Row {
                name: format!("{} {share} %", trace.name),
                figure: bar - ours,
                bar: (!is_short_loop).then_some(Bar::at_most(4.0, 2.0)),
                columns,
                data: json!({ "ours": ours, "best": best, "bar": bar, "optimum": optimum, "held": held, "capacity": capacity, "sized": trace.is_sized(),
                    "peers": peers.iter().map(|(name, ratio)| json!([name, ratio])).collect::<Vec<_>>() }),
            });
        }
    }
    let mean = below.iter().sum::<f64>() / below.len().max(1) as f64;
    rows.push(Row {
        name: format!("mean of {} points without sizes", below.len()),
        figure: mean,
        bar: Some(Bar::at_most(0.3, 0.0)),
        columns: Vec::new(),
        data: json!({ "points": below.len() }),
    });
    let headings: Vec<&str> = ["ours, %", "bar", "optimum", "entries held"]
        .into_iter()
        .chain(if alone { &[][..] } else { &PEERS[..] }.iter().copied())
        .collect();
    output.print("Hit ratio: percentage points below the best of seven peers, chosen anew at each point", &headings, &rows);
}
