//! The public face of the numbers: plain data, taken at one moment.
//!
//! A snapshot is not atomic over all of its counters: work goes on while it is read, so that sums which belong together
//! may differ by what happened in those microseconds. Each counter by itself is exact and never goes back.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use crate::metrics::log::{LogAnalytics, RefillAnalytics};
#[cfg(feature = "serde")]
use crate::metrics::nanos;
use crate::namespace::Namespace;
use crate::tier::Tier;

/// What the cache did since it was opened, and what its tiers hold now.
///
/// A snapshot: it does not move after it was taken. It prints as a table, and serializes with durations in whole
/// nanoseconds (`p50_ns`, `uptime_ns`).
///
/// **Reads.** Each typed read is one hit or one miss, however many tiers were asked on the way, so `hits + misses` is
/// how often the cache was asked. A value served past its time is counted in `stale` in addition.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct Analytics {
    /// Reads that were answered by any tier.
    pub hits: u64,
    /// Reads that no tier could answer.
    pub misses: u64,
    /// `hits / (hits + misses)`; 0 before the first read.
    pub hit_rate: f64,
    /// Reads that were answered with a value past its time, within `stale_if_error`.
    pub stale: u64,
    /// Values written by the caller or by a loader.
    pub sets: u64,
    /// What went wrong in any tier: refused, timed out, damaged. None of it failed a read.
    pub errors: u64,
    /// `errors / (hits + misses + sets)`, at most 1; 0 before the first operation.
    pub error_rate: f64,
    /// What became of the loaders of `get_or_fetch`.
    pub fetches: FetchAnalytics,
    /// Invalidations that were called for, whether or not they found anything.
    pub invalidation_events: u64,
    /// Distinct keys that they removed.
    pub invalidated_entries: u64,
    /// Why the misses were misses; the causes add up to `misses`.
    pub miss_causes: MissCauses,
    /// Bytes the Redis server says it uses, for all its users; `None` without Redis or before it has answered.
    pub redis_memory: Option<u64>,
    /// How far this node is behind the log between nodes: how long the oldest of the records it read last had lain there, by the
    /// clock of the Redis server, or, while it cannot read the log, for how long; `None` without Redis.
    #[cfg_attr(feature = "serde", serde(rename = "coherence_lag_ns", with = "nanos::maybe"))]
    pub coherence_lag: Option<Duration>,
    /// The memory tier.
    pub memory: TierAnalytics,
    /// The disk tier; all zero when it is off.
    pub disk: TierAnalytics,
    /// The Redis tier; all zero when it is off.
    pub redis: TierAnalytics,
    /// What only the disk tier counts; all zero when it is off.
    pub disk_log: LogAnalytics,
    /// How far memory is filled again after a restart.
    pub refill: RefillAnalytics,
    /// Every namespace that was used, by name.
    pub namespaces: Vec<NamespaceAnalytics>,
    /// Since the cache was opened, by the steady clock.
    #[cfg_attr(feature = "serde", serde(rename = "uptime_ns", with = "nanos"))]
    pub uptime: Duration,
}

impl Analytics {
    /// The numbers of one tier.
    pub fn tier(&self, tier: Tier) -> &TierAnalytics {
        match tier {
            Tier::Memory => &self.memory,
            Tier::Disk => &self.disk,
            Tier::Redis => &self.redis,
        }
    }

    /// The numbers of one namespace; `None` if it was not used yet.
    pub fn namespace(&self, namespace: Namespace) -> Option<&NamespaceAnalytics> {
        self.namespaces.iter().find(|known| known.name == namespace.name())
    }
}

/// What one tier did since open, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct TierAnalytics {
    /// Reads that this tier answered.
    pub hits: u64,
    /// Reads that asked this tier and found nothing to serve.
    pub misses: u64,
    /// What went wrong in this tier.
    pub errors: u64,
    /// Entries held now; 0 for Redis, which is not counted.
    pub entries: u64,
    /// Bytes held now, all overhead counted.
    pub bytes: u64,
    /// Bytes it may hold; 0 where the tier is off or does not bound itself (Redis).
    pub capacity: u64,
    /// Entries that left this tier upward: found here by a read, and kept in a faster tier as well.
    pub promotions: u64,
    /// Entries that left this tier downward: put out here for room, and kept in a slower tier.
    pub demotions: u64,
    /// Entries dropped for room.
    pub evictions: u64,
    /// Entries that left because their life was over.
    pub expirations: u64,
    /// How long its reads took.
    pub get: Latency,
    /// How long its writes took.
    pub set: Latency,
}

/// What one namespace was asked for since open.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct NamespaceAnalytics {
    /// The namespace's name.
    pub name: String,
    /// Reads that were answered by any tier.
    pub hits: u64,
    /// Of them, by memory.
    pub memory_hits: u64,
    /// Of them, by disk.
    pub disk_hits: u64,
    /// Of them, by Redis.
    pub redis_hits: u64,
    /// Reads that no tier could answer.
    pub misses: u64,
    /// `hits / (hits + misses)`; 0 before the first read.
    pub hit_rate: f64,
    /// Reads that were answered with a value past its time.
    pub stale: u64,
    /// Values written.
    pub sets: u64,
    /// Why the misses were misses; the causes add up to `misses`.
    pub miss_causes: MissCauses,
}

/// What became of the loaders of `get_or_fetch`, and of the callers who waited for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct FetchAnalytics {
    /// Loaders that brought a value.
    pub ok: u64,
    /// Loaders that returned an error.
    pub failed: u64,
    /// Callers who did not start a loader because one was running for their key.
    pub joined: u64,
    /// Callers who waited for a loader to the end of their hard timeout.
    pub timed_out: u64,
    /// Values renewed in the background before their time was over.
    pub refreshed: u64,
    /// Loaders that panicked.
    pub panicked: u64,
    /// Loaders that were stuck past the hard timeout, and given up for a new one.
    pub replaced: u64,
}

/// Why reads missed: one cause for each miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct MissCauses {
    /// Not known to any tier.
    pub absent: u64,
    /// It was there, past its time.
    pub expired: u64,
    /// It was there, and had been declared dead.
    pub invalidated: u64,
    /// It was there not long ago, and had to make room.
    pub evicted: u64,
    /// It was there as another type, or as an earlier version of this one.
    pub schema: u64,
    /// It was there, and did not pass the checks.
    pub corrupt: u64,
    /// A tier that might have had it could not answer.
    pub tier_down: u64,
}

impl MissCauses {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }

    /// Each cause with its name.
    pub(crate) fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("absent", self.absent),
            ("expired", self.expired),
            ("invalidated", self.invalidated),
            ("evicted", self.evicted),
            ("schema", self.schema),
            ("corrupt", self.corrupt),
            ("tier_down", self.tier_down),
        ]
    }
}

/// How long an operation of one tier took, in percentiles since open: from a histogram of two significant digits
/// between 1 ns and 60 s. All zero while nothing was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct Latency {
    /// For how many the measured ones stand. One in 64 is measured in memory and stands for itself; one in eight of the disk's reads from the page
    /// cache, which stands for eight; and all others of disk and Redis.
    pub count: u64,
    /// Half took no longer.
    #[cfg_attr(feature = "serde", serde(rename = "p50_ns", with = "nanos"))]
    pub p50: Duration,
    /// 90 % took no longer.
    #[cfg_attr(feature = "serde", serde(rename = "p90_ns", with = "nanos"))]
    pub p90: Duration,
    /// 99 % took no longer.
    #[cfg_attr(feature = "serde", serde(rename = "p99_ns", with = "nanos"))]
    pub p99: Duration,
    /// 99.9 % took no longer.
    #[cfg_attr(feature = "serde", serde(rename = "p999_ns", with = "nanos"))]
    pub p999: Duration,
    /// The longest that was measured.
    #[cfg_attr(feature = "serde", serde(rename = "max_ns", with = "nanos"))]
    pub max: Duration,
}

/// `part / whole`, and 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl fmt::Display for Analytics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads = self.hits + self.misses;
        writeln!(f, "reads     {reads}: {} hits ({:.1} %), {} misses", self.hits, self.hit_rate * 100.0, self.misses)?;
        writeln!(f, "writes    {}", self.sets)?;
        writeln!(f, "stale     {}", self.stale)?;
        writeln!(f, "errors    {} ({:.2} % of operations)", self.errors, self.error_rate * 100.0)?;
        writeln!(f, "fetches   {}", self.fetches)?;
        writeln!(f, "misses    {}", self.miss_causes)?;
        writeln!(f, "dead      {} entries by {} invalidations", self.invalidated_entries, self.invalidation_events)?;
        let redis = self.redis_memory.map_or_else(|| "-".to_owned(), bytes);
        writeln!(f, "memory    {} here, {redis} in the Redis server", bytes(self.memory.bytes))?;
        if let Some(lag) = self.coherence_lag {
            writeln!(f, "log       {} behind", short(lag))?;
        }
        if self.disk.capacity > 0 {
            writeln!(f, "disk log  {}", self.disk_log)?;
            writeln!(f, "refill    {}", self.refill)?;
        }
        f.write_str("\n")?;
        self.tier_table().fmt(f)?;
        if !self.namespaces.is_empty() {
            f.write_str("\n")?;
            self.namespace_table().fmt(f)?;
        }
        Ok(())
    }
}

impl Analytics {
    fn tier_table(&self) -> Table {
        let head = ["tier", "hits", "misses", "errors", "entries", "bytes", "capacity", "up", "down", "evicted", "expired"];
        let times = ["get p50", "get p99", "get max", "set p50", "set p99"];
        let mut table = Table::new(head.iter().chain(&times));
        for tier in Tier::ALL {
            let t = self.tier(tier);
            let mut row = vec![tier.to_string()];
            row.extend([t.hits, t.misses, t.errors, t.entries].map(|n| n.to_string()));
            row.extend([bytes(t.bytes), if t.capacity == 0 { "-".to_owned() } else { bytes(t.capacity) }]);
            row.extend([t.promotions, t.demotions, t.evictions, t.expirations].map(|n| n.to_string()));
            let measured = |latency: &Latency, time| if latency.count == 0 { "-".to_owned() } else { short(time) };
            row.extend([t.get.p50, t.get.p99, t.get.max].map(|time| measured(&t.get, time)));
            row.extend([t.set.p50, t.set.p99].map(|time| measured(&t.set, time)));
            table.rows.push(row);
        }
        table
    }

    fn namespace_table(&self) -> Table {
        let mut table = Table::new(["namespace", "hits", "misses", "hit rate", "stale", "writes"].iter());
        for n in &self.namespaces {
            let rate = format!("{:.1} %", n.hit_rate * 100.0);
            let row = [n.name.clone(), n.hits.to_string(), n.misses.to_string(), rate, n.stale.to_string(), n.sets.to_string()];
            table.rows.push(row.into());
        }
        table
    }
}

#[cfg(feature = "metrics")]
impl FetchAnalytics {
    /// Each outcome with its name.
    pub(crate) fn named(&self) -> [(&'static str, u64); 7] {
        let Self { ok, failed, joined, timed_out, refreshed, panicked, replaced } = *self;
        [
            ("ok", ok),
            ("failed", failed),
            ("joined", joined),
            ("timed_out", timed_out),
            ("refreshed", refreshed),
            ("panicked", panicked),
            ("replaced", replaced),
        ]
    }
}

impl fmt::Display for FetchAnalytics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ok, failed, joined, timed_out, refreshed, panicked, replaced } = self;
        write!(f, "{ok} ok, {failed} failed, {joined} joined, {timed_out} timed out, {refreshed} refreshed, ")?;
        write!(f, "{panicked} panicked, {replaced} replaced")
    }
}

impl fmt::Display for MissCauses {
    /// The causes that occurred, `-` if none did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> =
            self.named().into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
        f.write_str(if told.is_empty() { "-".to_owned() } else { told.join(", ") }.as_str())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, p999, max] = [self.p50, self.p90, self.p99, self.p999, self.max].map(short);
        write!(f, "{} measured: p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}", self.count)
    }
}

/// Columns as wide as their widest cell; the first flush left, the others flush right.
struct Table {
    head: Vec<String>,
    /// Each as long as `head`.
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new<'a>(head: impl Iterator<Item = &'a &'a str>) -> Self {
        Self { head: head.map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).map(|column| width(column).unwrap_or(0)).collect();
        for line in lines() {
            for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// `1.5 MiB`.
pub(super) fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec().to_string()
}

/// Three digits and a unit: `640 ns`, `1.36 us`, `50.0 ms`.
fn short(time: Duration) -> String {
    let ns = time.as_nanos() as f64;
    let (value, unit) = match ns {
        _ if ns < 1e3 => return format!("{ns:.0} ns"),
        _ if ns < 1e6 => (ns / 1e3, "us"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_three_digits() {
        let told = [640, 1_360, 50_000_000, 123_400, 60_000_000_000].map(|ns| short(Duration::from_nanos(ns)));
        assert_eq!(told, ["640 ns", "1.36 us", "50.0 ms", "123 us", "60.0 s"]);
    }

    #[test]
    fn a_table_is_aligned_and_names_every_tier_and_namespace() {
        let curves = NamespaceAnalytics { name: "curves".into(), hits: 12_345, ..Default::default() };
        let all = Analytics { hits: 12_345, hit_rate: 1.0, namespaces: vec![curves], ..Default::default() };
        let text = all.to_string();
        for word in ["memory", "disk", "redis", "curves", "12345", "100.0 %"] {
            assert!(text.contains(word), "{word} in\n{text}");
        }
        let widths: Vec<usize> =
            text.lines().filter(|line| line.contains("hits  ") || line.starts_with("disk")).map(str::len).collect();
        assert_eq!(widths[0], widths[1], "{text}");
    }

    #[test]
    #[cfg(feature = "serde")]
    fn a_snapshot_survives_json_with_times_in_nanoseconds() {
        let get = Latency { count: 1, p50: Duration::from_nanos(640), ..Default::default() };
        let memory = TierAnalytics { hits: 3, get, ..Default::default() };
        let all =
            Analytics { memory, redis_memory: Some(5), coherence_lag: Some(Duration::from_micros(3)), ..Default::default() };
        let json = serde_json::to_string(&all).unwrap();
        assert!(json.contains("\"p50_ns\":640"), "{json}");
        assert_eq!(serde_json::from_str::<Analytics>(&json).unwrap(), all);
    }
}
