//! The numbers of [`Analytics`] through the `metrics` facade, under the names of [`NAMES`].
//!
//! Nothing is exported where it is counted: once a round of maintenance, and once more at `close`, the merged counters are handed over as
//! absolute values, so a hit costs the same with the feature and without. Whoever installs a recorder later than the cache was
//! opened hears of everything too, descriptions included, a minute later at most.
//!
//! Labels are `tier`, `cause`, `outcome`, `op`, `quantile` and `namespace`, all of few values; no key ever is one. Where the settings name
//! this node (`node`), each metric has that as a label as well: two caches in one process need two names, or one counts over the
//! other. A tier that is off has no metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::{KeyName, Label, Unit};

use crate::metrics::{Analytics, Latency};
use crate::tier::{Tier, TierState};

/// How often the descriptions are told again, in rounds.
const DESCRIBE_EVERY: u64 = 60;

/// What a metric is: its name, its unit, whether it only grows, and what it says.
type Name = (&'static str, Unit, Kind, &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// Every metric. The README shows this table.
#[rustfmt::skip]
static NAMES: [Name; 28] = [
    ("aurum_cache_hits_total", Unit::Count, Kind::Counter, "Reads that this tier answered"),
    ("aurum_cache_misses_total", Unit::Count, Kind::Counter, "Reads that no tier could answer, by cause"),
    ("aurum_cache_tier_misses_total", Unit::Count, Kind::Counter, "Reads that asked this tier and found nothing to serve"),
    ("aurum_cache_stale_total", Unit::Count, Kind::Counter, "Reads that were answered with a value past its time"),
    ("aurum_cache_sets_total", Unit::Count, Kind::Counter, "Values written by the caller or by a loader"),
    ("aurum_cache_errors_total", Unit::Count, Kind::Counter, "What went wrong in this tier; none of it failed a read"),
    ("aurum_cache_entries", Unit::Count, Kind::Gauge, "Entries held now; not told for redis"),
    ("aurum_cache_bytes", Unit::Bytes, Kind::Gauge, "Bytes held now, all overhead counted; not told for redis"),
    ("aurum_cache_capacity_bytes", Unit::Bytes, Kind::Gauge, "Bytes this tier may hold; not told for redis"),
    ("aurum_cache_promotions_total", Unit::Count, Kind::Counter, "Entries of this tier that went to a faster one as well"),
    ("aurum_cache_demotions_total", Unit::Count, Kind::Counter, "Entries of this tier that had to leave it and went to a slower one"),
    ("aurum_cache_evictions_total", Unit::Count, Kind::Counter, "Entries dropped for room"),
    ("aurum_cache_expirations_total", Unit::Count, Kind::Counter, "Entries that left because their life was over"),
    ("aurum_cache_latency_seconds", Unit::Seconds, Kind::Gauge, "How long this tier's reads and writes took since open, by quantile"),
    ("aurum_cache_latency_measured_total", Unit::Count, Kind::Counter, "Operations that the measured ones stand for: of memory one in 64"),
    ("aurum_cache_fetches_total", Unit::Count, Kind::Counter, "Loaders, and callers that waited for one, by outcome"),
    ("aurum_cache_invalidations_total", Unit::Count, Kind::Counter, "Invalidations that were called for"),
    ("aurum_cache_invalidated_entries_total", Unit::Count, Kind::Counter, "Distinct keys that they removed"),
    ("aurum_cache_redis_memory_bytes", Unit::Bytes, Kind::Gauge, "Bytes the Redis server says it uses, for all its users"),
    ("aurum_cache_tier_up", Unit::Count, Kind::Gauge, "1 where this tier works, 0.5 where it is degraded, 0 where it is down (the breaker is open)"),
    ("aurum_cache_coherence_lag_seconds", Unit::Seconds, Kind::Gauge, "How far this node is behind the log between nodes"),
    ("aurum_cache_disk_written_bytes_total", Unit::Bytes, Kind::Counter, "Bytes appended to the disk's log"),
    ("aurum_cache_disk_value_bytes_total", Unit::Bytes, Kind::Counter, "Bytes of values among them; the ratio is the write amplification"),
    ("aurum_cache_demotions_refused_total", Unit::Count, Kind::Counter, "Values that memory let go and the disk did not take, by cause"),
    ("aurum_cache_refill_left", Unit::Count, Kind::Gauge, "Keys that were hot before the restart and wait to be brought back to memory"),
    ("aurum_cache_namespace_hits_total", Unit::Count, Kind::Counter, "Reads of this namespace that this tier answered"),
    ("aurum_cache_namespace_misses_total", Unit::Count, Kind::Counter, "Reads of this namespace that no tier could answer"),
    ("aurum_cache_namespace_sets_total", Unit::Count, Kind::Counter, "Values written to this namespace"),
];

/// Hands the numbers of one cache to whichever recorder the process has.
pub(crate) struct Exporter {
    /// The value of the label `node`, where the settings give one.
    node: Option<String>,
    /// Rounds so far.
    rounds: AtomicU64,
}

impl Exporter {
    pub(crate) fn new(node: Option<String>) -> Self {
        Self { node, rounds: AtomicU64::new(0) }
    }

    /// One round: all numbers, and how each tier is doing. Takes microseconds; without a recorder it goes nowhere.
    pub(crate) fn export(&self, numbers: impl FnOnce() -> (Analytics, Vec<(Tier, TierState)>)) {
        if self.rounds.fetch_add(1, Ordering::Relaxed).is_multiple_of(DESCRIBE_EVERY) {
            describe();
        }
        let (all, tiers) = numbers();
        for (tier, state) in tiers.into_iter().filter(|(_, state)| *state != TierState::Off) {
            self.tier(&all, tier, state);
        }
        for (cause, count) in all.miss_causes.named() {
            self.count("aurum_cache_misses_total", &[("cause", cause)], count);
        }
        for (outcome, count) in all.fetches.named() {
            self.count("aurum_cache_fetches_total", &[("outcome", outcome)], count);
        }
        self.count("aurum_cache_stale_total", &[], all.stale);
        self.count("aurum_cache_sets_total", &[], all.sets);
        self.count("aurum_cache_invalidations_total", &[], all.invalidation_events);
        self.count("aurum_cache_invalidated_entries_total", &[], all.invalidated_entries);
        if let Some(bytes) = all.redis_memory {
            self.gauge("aurum_cache_redis_memory_bytes", &[], bytes as f64);
        }
        if let Some(lag) = all.coherence_lag {
            self.gauge("aurum_cache_coherence_lag_seconds", &[], lag.as_secs_f64());
        }
        if all.disk.capacity > 0 {
            self.count("aurum_cache_disk_written_bytes_total", &[], all.disk_log.bytes_written);
            self.count("aurum_cache_disk_value_bytes_total", &[], all.disk_log.value_bytes_written);
            let (full, worthless) = (all.disk_log.demotions_refused, all.disk_log.demotions_not_admitted);
            self.count("aurum_cache_demotions_refused_total", &[("cause", "queue_full")], full);
            self.count("aurum_cache_demotions_refused_total", &[("cause", "not_admitted")], worthless);
            let left = all.refill.planned.saturating_sub(all.refill.done + all.refill.skipped);
            self.gauge("aurum_cache_refill_left", &[], left as f64);
        }
        for namespace in &all.namespaces {
            let name = ("namespace", namespace.name.as_str());
            for (tier, hits) in
                [("memory", namespace.memory_hits), ("disk", namespace.disk_hits), ("redis", namespace.redis_hits)]
            {
                self.count("aurum_cache_namespace_hits_total", &[name, ("tier", tier)], hits);
            }
            self.count("aurum_cache_namespace_misses_total", &[name], namespace.misses);
            self.count("aurum_cache_namespace_sets_total", &[name], namespace.sets);
        }
    }

    fn tier(&self, all: &Analytics, tier: Tier, state: TierState) {
        let (numbers, name) = (all.tier(tier), tier.to_string());
        let label = ("tier", name.as_str());
        for (metric, count) in [
            ("aurum_cache_hits_total", numbers.hits),
            ("aurum_cache_tier_misses_total", numbers.misses),
            ("aurum_cache_errors_total", numbers.errors),
            ("aurum_cache_promotions_total", numbers.promotions),
            ("aurum_cache_demotions_total", numbers.demotions),
            ("aurum_cache_evictions_total", numbers.evictions),
            ("aurum_cache_expirations_total", numbers.expirations),
        ] {
            self.count(metric, &[label], count);
        }
        // Redis is shared and not counted: a zero would be a lie.
        if tier != Tier::Redis {
            self.gauge("aurum_cache_entries", &[label], numbers.entries as f64);
            self.gauge("aurum_cache_bytes", &[label], numbers.bytes as f64);
            self.gauge("aurum_cache_capacity_bytes", &[label], numbers.capacity as f64);
        }
        let up = match state {
            TierState::Up => 1.0,
            TierState::Degraded => 0.5,
            TierState::Down | TierState::Off => 0.0,
        };
        self.gauge("aurum_cache_tier_up", &[label], up);
        self.latency(label, "get", &numbers.get);
        self.latency(label, "set", &numbers.set);
    }

    fn latency(&self, tier: (&'static str, &str), op: &'static str, latency: &Latency) {
        self.count("aurum_cache_latency_measured_total", &[tier, ("op", op)], latency.count);
        if latency.count == 0 {
            return; // nothing was measured, which is not the same as no time
        }
        let Latency { p50, p90, p99, p999, max, .. } = latency;
        for (quantile, time) in [("0.5", p50), ("0.9", p90), ("0.99", p99), ("0.999", p999), ("1", max)] {
            let labels = [tier, ("op", op), ("quantile", quantile)];
            self.gauge("aurum_cache_latency_seconds", &labels, time.as_secs_f64());
        }
    }

    fn count(&self, name: &'static str, labels: &[(&'static str, &str)], value: u64) {
        ::metrics::counter!(name, self.labels(labels)).absolute(value);
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        ::metrics::gauge!(name, self.labels(labels)).set(value);
    }

    fn labels(&self, labels: &[(&'static str, &str)]) -> Vec<Label> {
        let node = self.node.as_ref().map(|node| Label::new("node", node.clone()));
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).chain(node).collect()
    }
}

fn describe() {
    for (name, unit, kind, text) in NAMES {
        let name = KeyName::from_const_str(name);
        ::metrics::with_recorder(|recorder| match kind {
            Kind::Counter => recorder.describe_counter(name, Some(unit), text.into()),
            Kind::Gauge => recorder.describe_gauge(name, Some(unit), text.into()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_every_name_and_no_other() {
        let readme = include_str!("../../README.md");
        for (name, _, kind, _) in NAMES {
            assert!(readme.contains(&format!("`{name}`")), "README.md does not show {name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        }
        let shown = readme.split('`').filter(|word| word.starts_with("aurum_cache_") && *word != "aurum_cache_");
        for word in shown {
            assert!(NAMES.iter().any(|(name, ..)| *name == word), "README.md shows {word}, which is not exported");
        }
    }
}
