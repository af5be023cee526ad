//! Seeing: analytics, health, and what is known of one key. Moves nothing and counts as no read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::engine::state::{CoherenceState, Engine, Want};
use crate::entry::{Entry, Verdict};
use crate::health::{Health, TierHealth};
use crate::key::Key;
use crate::metrics::{Analytics, LogAnalytics, RefillAnalytics, share};
use crate::policy::TtlPolicy;
use crate::tier::{Lookup, Tier, TierState};

/// What is known of one entry.
///
/// From [`Cache::describe`](crate::Cache::describe); looking moves nothing and counts as no hit.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EntryInfo {
    /// The tiers that hold it, fastest first.
    pub tiers: Vec<Tier>,
    /// Bytes of its payload.
    pub bytes: u64,
    /// How long ago it was written.
    pub age: Duration,
    /// How much of its life is left.
    pub expires_in: Duration,
    /// The policy it was written with.
    pub policy: TtlPolicy,
}

impl Engine {
    /// The tiers that hold a live entry of this key.
    pub(crate) async fn describe(&self, key: &Key<'_>) -> Option<EntryInfo> {
        let mut info: Option<EntryInfo> = None;
        let live = |entry: &Entry| self.is_servable(entry, key);
        if let Some(entry) = self.memory.peek(key).filter(live) {
            self.add(&mut info, Tier::Memory, &entry);
        }
        if let Some(disk) = &self.disk
            && let Lookup::Hit(entry) = disk.get(key).await
            && live(&entry)
        {
            self.add(&mut info, Tier::Disk, &entry);
        }
        if let Some(remote) = &self.remote {
            let stamp = self.rules.now();
            if self.may_ask_redis(key)
                && let Lookup::Hit(entry) = remote.get(key, stamp, Clock::stopwatch()).await
                && live(&entry)
            {
                self.add(&mut info, Tier::Redis, &entry);
            }
        }
        info
    }

    fn add(&self, info: &mut Option<EntryInfo>, tier: Tier, entry: &Entry) {
        let now = self.clock.steady();
        let info = info.get_or_insert_with(|| EntryInfo {
            tiers: Vec::new(),
            bytes: entry.payload().len() as u64,
            age: Duration::from_millis(now.saturating_sub(entry.created())),
            expires_in: Duration::from_millis(entry.expires().saturating_sub(now)),
            policy: entry.meta().policy,
        });
        info.tiers.push(tier);
    }

    /// Does any tier hold a live entry of this key, and one that `want` could read?
    pub(crate) async fn contains(&self, key: &Key<'_>, want: Option<Want>) -> bool {
        let fits = |entry: &Entry| want.is_none_or(|want| (want.check)(entry, want.fingerprint) == Verdict::Yes);
        let live = |entry: &Entry| self.is_servable(entry, key) && fits(entry);
        if self.memory.peek(key).is_some_and(|entry| live(&entry)) {
            return true;
        }
        if let Some(disk) = &self.disk
            && matches!(disk.get(key).await, Lookup::Hit(entry) if live(&entry))
        {
            return true;
        }
        match &self.remote {
            Some(remote) if self.may_ask_redis(key) => {
                matches!(remote.get(key, self.rules.now(), Clock::stopwatch()).await, Lookup::Hit(entry) if live(&entry))
            }
            _ => false,
        }
    }

    /// A snapshot of all counters.
    pub(crate) fn analytics(&self) -> Analytics {
        let usage = [
            Some(self.memory.usage()),
            self.disk.as_ref().map(crate::tier::disk::Disk::usage),
            self.remote.as_ref().map(|_| crate::tier::Usage::default()),
        ];
        let redis_memory = self.remote.as_ref().and_then(|remote| remote.cached_memory());
        let mut all = self.recorder.snapshot(usage, redis_memory);
        all.coherence_lag = self.coherence.lock().map(|state| match state {
            CoherenceState::Current(lag) => lag,
            CoherenceState::Blind(since) => since.elapsed(),
        });
        all.disk_log = self.disk.as_ref().map(|disk| disk.counts()).map_or_else(LogAnalytics::default, |counts| LogAnalytics {
            bytes_written: counts.bytes_written,
            value_bytes_written: counts.payload_bytes_written,
            write_amplification: share(counts.bytes_written, counts.payload_bytes_written),
            carried: counts.carried,
            demotions_refused: counts.refused,
            demotions_not_admitted: counts.not_admitted,
            page_cache_reads: counts.inline_reads,
            device_reads: counts.device_reads,
            damaged: counts.damaged,
            segments: counts.segments,
        });
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        all.refill = RefillAnalytics {
            finished: self.refill.finished.load(Ordering::Acquire),
            planned: count(&self.refill.planned),
            done: count(&self.refill.done),
            skipped: count(&self.refill.skipped),
        };
        all
    }

    /// Hands the numbers to the `metrics` facade, where the build has it.
    pub(crate) fn export(&self) {
        self.exporter.export(|| (self.analytics(), self.tiers().into_iter().map(|tier| (tier.tier, tier.state)).collect()));
    }

    /// How the cache and its tiers are doing, asked now.
    pub(crate) async fn health(&self) -> Health {
        if let Some(remote) = &self.remote {
            remote.probe().await;
            let _ = remote.memory().await;
        }
        Health::judge(self.tiers(), self.recorder.error_rate_last_minute())
    }

    /// How the tiers are doing, as far as it is known without asking.
    fn tiers(&self) -> Vec<TierHealth> {
        let closed = self.closed.load(std::sync::atomic::Ordering::Acquire);
        let memory = if closed {
            TierHealth::new(Tier::Memory, TierState::Down, Some("the cache is closed".into()))
        } else {
            TierHealth::new(Tier::Memory, TierState::Up, None)
        };
        let disk = match &self.disk {
            Some(disk) => {
                let (report, counts) = (disk.report(), disk.counts());
                let lost = counts.damaged + counts.distrusted;
                let reason = report.reason.or_else(|| {
                    (lost > 0).then(|| format!("{lost} damaged records were left out since open; the rest is whole"))
                });
                TierHealth::new(Tier::Disk, report.state, reason)
            }
            None => TierHealth::new(Tier::Disk, TierState::Off, None),
        };
        let redis = match &self.remote {
            Some(remote) => {
                let report = remote.report();
                let blind = matches!(*self.coherence.lock(), Some(CoherenceState::Blind(_)));
                if blind && report.state == TierState::Up {
                    let reason = "the log between nodes is not read yet: invalidations of other nodes are not known here";
                    TierHealth::new(Tier::Redis, TierState::Degraded, Some(reason.into()))
                } else {
                    TierHealth::new(Tier::Redis, report.state, report.reason)
                }
            }
            None => TierHealth::new(Tier::Redis, TierState::Off, None),
        };
        vec![memory, disk, redis]
    }
}
