//! What can be asked of the program: its verbs and their options.
//!
//! Sizes are written as `64MiB`, lives as a policy's name or a duration, shares as `50%` or `0.5`. What cannot be meant
//! (no memory at all, a share over one) is refused here, before any work.

use std::path::PathBuf;

use aurum_cache::{Admission, TtlPolicy};
use bytesize::ByteSize;
use clap::{Parser, Subcommand};

/// See an embedded tiered cache at work, feed it real traffic, size it, and look into its folder.
#[derive(Parser, Debug)]
#[command(name = "aurum-cache", version, arg_required_else_help = true, max_term_width = 110)]
pub(crate) struct Args {
    /// Print one JSON object instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// The tour, embedded: writes, reads, demotes, restarts, invalidates, and shows each step
    Demo(Demo),
    /// Requests of a trace as read-through traffic: hit ratio and latency per tier, before and after a restart
    Replay(Replay),
    /// The miss-ratio curve of a trace, tier sizes and a recommendation
    Tune(Tune),
    /// What the folder of a disk tier holds: entries, bytes, ages, lives; the event log; damage
    Inspect(Inspect),
    /// This machine: nanoseconds per operation and percentiles of each tier
    Bench(Bench),
    /// Checks settings, folder, rights, Redis and clock, and says what to fix
    Doctor(Doctor),
}

const TRACES: &str = "TRACE is read by its extension and its content: text with `key` or `key size` a line (plain or zstd), \
ARC .lis, libCacheSim's oracleGeneral (24-byte records) and CSV (columns by the names in its header, else \
`key`, `key,size` or `time,key,size`). Without TRACE, keys are drawn from a Zipf distribution.";

#[derive(clap::Args, Debug)]
#[command(after_help = "JSON: {ok, took_ms, steps: [{step, ok, shown: [text]}], events: [invalidation event], analytics: {..}}")]
pub(crate) struct Demo {
    /// Keep the disk tier in this folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    pub(crate) disk: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
#[command(
    after_long_help = format!("{TRACES}\n\nEvery value is derived from its key and checked on every hit.\n\nJSON: {{trace, requests, unique_keys, memory_bytes, \
disk_bytes, value_bytes, phases: [{{name, requests, hits, misses, hit_ratio, tiers: [{{tier, hits, share, latency}}], miss_latency, set_latency, \
refused, wrong_values, seconds}}], restart: {{at, close_ms, open_ms, wiped_disk, window, before, after, difference, first_requests_before, first_requests_after, control, recovered_share}} or null, \
tiers: [{{tier, entries, bytes, capacity, evictions, demotions, promotions, errors}}]}}; latency is {{count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns}}")
)]
pub(crate) struct Replay {
    /// The trace; see below for the formats
    pub(crate) trace: Option<PathBuf>,
    /// Capacity of the memory tier
    #[arg(long, default_value = "64MiB", value_parser = size)]
    pub(crate) memory: u64,
    /// Folder of the disk tier; what it holds already is used
    #[arg(long, value_name = "DIR")]
    pub(crate) disk: Option<PathBuf>,
    /// Capacity of the disk tier
    #[arg(long, default_value = "1GiB", value_parser = size, requires = "disk")]
    pub(crate) disk_capacity: u64,
    /// Which of the values that memory lets go the disk takes: reused (unless it has room to spare) or all
    #[arg(long, default_value = "reused", value_parser = admission, requires = "disk")]
    pub(crate) admission: Admission,
    /// A Redis as third tier, under a key prefix of this run; its entries are deleted at the end
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Size of a value where the trace gives none
    #[arg(long, default_value = "1KiB", value_parser = size)]
    pub(crate) value_size: u64,
    /// Policy of every entry: ultra_short, short, medium, long, extended, persistent, or a duration
    #[arg(long, default_value = "long", value_parser = policy)]
    pub(crate) policy: TtlPolicy,
    /// Close the cache and open it again after this share of the requests
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) restart_at: Option<f64>,
    /// Delete the disk folder at the restart: what Redis alone brings back
    #[arg(long, requires_all = ["restart_at", "disk"])]
    pub(crate) wipe_disk: bool,
    /// Play it again without the restart, in a folder of its own, and compare the same requests
    #[arg(long, requires = "restart_at")]
    pub(crate) control: bool,
    /// Stop after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

#[derive(clap::Args, Debug)]
#[command(
    after_long_help = format!("{TRACES}\n\nJSON: {{trace, requests, unique_keys, unique_bytes, sampled_share, highest_hit_ratio, target_hit_ratio, \
reachable, curve: [{{bytes, entries, lru_hit_ratio, cache_hit_ratio}}], recommendation: {{memory_bytes, memory_hit_ratio, disk_bytes, \
total_hit_ratio, why}}, report}}")
)]
pub(crate) struct Tune {
    /// The trace; see below for the formats
    pub(crate) trace: Option<PathBuf>,
    /// The share of requests that should be hits, in whichever tier
    #[arg(long, default_value = "0.9", value_parser = share, value_name = "SHARE")]
    pub(crate) target_hit_ratio: f64,
    /// Write a page with the curves as SVG
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Size of a value where the trace gives none
    #[arg(long, default_value = "1KiB", value_parser = size)]
    pub(crate) value_size: u64,
    /// Follow about this many keys, chosen by their hash; more is slower and closer
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub(crate) sample: u64,
    /// Stop after this many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

#[derive(clap::Args, Debug)]
#[command(
    after_help = "JSON: {dir, file_bytes, live_bytes, live_share, segments, all, namespaces: [{namespace, entries, bytes, expired, youngest_ms, \
oldest_ms, shortest_life_ms, longest_life_ms}], keys: [{key, namespace, bytes, created_ms, expires_ms}] or null, events: [invalidation event], \
damaged}"
)]
pub(crate) struct Inspect {
    /// The folder of a closed disk tier; it is only read
    pub(crate) dir: PathBuf,
    /// Only this namespace
    #[arg(long, value_name = "N")]
    pub(crate) namespace: Option<String>,
    /// List the keys that match this pattern (glob, Redis syntax)
    #[arg(long, value_name = "P")]
    pub(crate) pattern: Option<String>,
}

#[derive(clap::Args, Debug)]
#[command(
    after_help = "JSON: {entries, value_bytes, rows: [{tier, operation, ns_per_op, latency: {count, p50_ns, p90_ns, p99_ns, p999_ns, max_ns}}]}; \
the percentiles include about 40 ns of reading the clock twice, ns_per_op does not"
)]
pub(crate) struct Bench {
    /// Folder for the disk tier instead of a temporary one; to measure that device
    #[arg(long, value_name = "DIR")]
    pub(crate) disk: Option<PathBuf>,
    /// A Redis to measure as well
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// How many entries
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(crate) entries: u64,
    /// Size of a value
    #[arg(long, default_value = "1KiB", value_parser = size)]
    pub(crate) value_size: u64,
}

#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit status 1 if something is wrong.\n\nJSON: {ok, checks: [{check, state: ok | warning | wrong, found, fix}]}"
)]
pub(crate) struct Doctor {
    /// The settings file; otherwise the one named by AURUM_CACHE_CONFIG, or aurum-cache.toml
    pub(crate) config: Option<PathBuf>,
}

/// `64MiB`, `1GB`, `4096`.
fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("must be more than nothing".to_owned()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err("is no size; write it as 64MiB, 1GB or 4096".to_owned()),
    }
}

/// `50%` or `0.5`, between nothing and all.
fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text.trim(), 1.0),
    };
    match number.trim().parse::<f64>().map(|number| number / scale) {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("is no share; write it as 50% or 0.5, more than 0 and less than 1".to_owned()),
    }
}

fn admission(text: &str) -> Result<Admission, String> {
    match text {
        "reused" => Ok(Admission::Reused),
        "all" => Ok(Admission::All),
        _ => Err("is neither reused nor all".to_owned()),
    }
}

fn policy(text: &str) -> Result<TtlPolicy, String> {
    text.parse().map_err(|error: aurum_cache::Error| error.to_string())
}
