//! The caches of a replay: opening them as asked, and leaving nothing behind that the user did not name.

use std::path::Path;
use std::time::Duration;

use aurum_cache::{Cache, CacheConfig, Tier, TierState};

use super::NAMESPACE;
use crate::args::Replay;
use crate::report::{Failure, Outcome};

pub(super) async fn open(ask: &Replay, folder: Option<&Path>, prefix: &str) -> Outcome<Cache> {
    let mut config = CacheConfig::default();
    // A replay asks how warm Redis keeps a cache, not how soon this machine gives up on it: waits show in the latencies, not as misses.
    config.redis.timeout = Duration::from_secs(10);
    config.disk.admission = ask.admission;
    let mut builder = Cache::builder().config(config).memory(ask.memory).key_prefix(prefix);
    if let Some(folder) = folder {
        builder = builder.disk(folder, ask.disk_capacity);
    }
    if let Some(url) = &ask.redis {
        builder = builder.redis(url);
    }
    Ok(builder.open().await?)
}

/// A cache does without a Redis that is away; a replay that was to show it should not.
pub(super) async fn refuse_a_silent_redis(ask: &Replay, cache: &Cache) -> Outcome {
    if ask.redis.is_none() {
        return Ok(());
    }
    let health = cache.health().await;
    match health.tiers.into_iter().find(|known| known.tier == Tier::Redis) {
        Some(redis) if redis.state == TierState::Up => Ok(()),
        redis => {
            let reason = redis.and_then(|redis| redis.reason).unwrap_or_else(|| "no answer".to_owned());
            Err(Failure::said(format!("redis: {reason}; start it, correct the URL, or leave --redis out")))
        }
    }
}

/// `--wipe-disk` deletes; it must only ever delete what this run wrote.
pub(super) fn refuse_to_wipe_foreign(folder: Option<&Path>) -> Outcome {
    let Some(folder) = folder else { return Ok(()) };
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let advice = "holds files already; --wipe-disk deletes only what this run wrote, so name an empty or new folder";
            Err(Failure::said(format!("disk folder {}: {advice}", folder.display())))
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Failure::said(format!("disk folder {}: cannot be read ({cause})", folder.display()))),
    }
}

pub(super) fn wipe(folder: Option<&Path>) -> Outcome {
    let Some(folder) = folder else { return Ok(()) };
    std::fs::remove_dir_all(folder)
        .map_err(|cause| Failure::said(format!("disk folder {}: cannot be deleted ({cause})", folder.display())))
}

/// Takes this run's keys out of Redis again, by a cache without the folder, which stays as it is.
pub(super) async fn empty_redis(ask: &Replay, prefix: &str) -> Outcome {
    let Some(url) = &ask.redis else { return Ok(()) };
    let cache = Cache::builder().memory(ask.memory).redis(url).key_prefix(prefix).open().await?;
    cache.invalidate_namespace(NAMESPACE).reason("the replay is over").triggered_by("aurum-cache replay").await?;
    Ok(cache.close().await?)
}

/// The key prefix of one run: what an earlier run left in Redis must not answer for this one.
pub(super) fn prefix() -> String {
    format!("aurum-replay-{:012x}", fastrand::u64(..) >> 16)
}

/// A folder beside the one that was named, on the same device, for the time of the run.
pub(super) fn beside(folder: Option<&Path>) -> Outcome<Option<tempfile::TempDir>> {
    let Some(folder) = folder else { return Ok(None) };
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix("aurum-control-").tempdir_in(parent);
    let advice = "--control needs room for a second folder beside it";
    made.map(Some).map_err(|cause| Failure::said(format!("disk folder {}: {advice} ({cause})", folder.display())))
}
