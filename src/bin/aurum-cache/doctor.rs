//! `doctor`: would a cache with these settings work here? And if not, what is to be done?
//!
//! Looks, and leaves nothing behind: a folder that does not exist is not made, a configured disk tier is not opened (that
//! would repair it), and what is written into Redis to try it is taken out again. Secrets in the settings are never shown.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aurum_cache::{Cache, CacheConfig, Clock, Namespace, Tier, TierState, TtlPolicy};
use serde_json::json;

use crate::args::Doctor;
use crate::report::{self, Failure, Outcome, Output};

/// The variable that names the settings file, and what it is without one.
const SETTINGS: (&str, &str) = ("AURUM_CACHE_CONFIG", "aurum-cache.toml");

/// 2025-01-01: no clock that is set stands before it.
const EARLIEST: Duration = Duration::from_secs(1_735_689_600);

pub(crate) async fn run(ask: &Doctor, out: &Output) -> Outcome {
    let mut checks = vec![];
    let config = match &ask.config {
        Some(path) => named_settings(path, &mut checks)?,
        None => settings(&mut checks),
    };
    if let Some(config) = config {
        memory(u64::from(config.memory.capacity), &mut checks);
        match &config.disk.path {
            Some(path) => folder(path, u64::from(config.disk.capacity), &mut checks),
            None => checks.push(Check::ok("folder", "no disk tier is configured; a restart begins cold")),
        }
        redis(config.clone(), &mut checks).await;
        clock(config.disk.path.as_deref(), &mut checks);
    } else {
        clock(None, &mut checks);
    }
    show(&checks, out)?;
    if checks.iter().any(|check| check.state == State::Wrong) { Err(Failure::Found) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Works, but not as it was probably meant.
    Warning,
    Wrong,
}

struct Check {
    name: &'static str,
    state: State,
    found: String,
    /// What to do; empty where all is well.
    fix: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), fix: String::new() }
    }

    fn warning(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Warning, found: found.into(), fix: fix.into() }
    }

    fn wrong(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, state: State::Wrong, found: found.into(), fix: fix.into() }
    }
}

/// The settings of one file, whatever the environment says.
fn named_settings(path: &Path, checks: &mut Vec<Check>) -> Outcome<Option<CacheConfig>> {
    if !path.is_file() {
        let what = if path.exists() { "is no file" } else { "does not exist" };
        return Err(Failure::said(format!("settings {}: {what}; correct the path", path.display())));
    }
    match CacheConfig::from_file(path) {
        Ok(config) => {
            checks.push(Check::ok("settings", path.display().to_string()));
            Ok(Some(config))
        }
        Err(error) => {
            checks.push(Check::wrong("settings", error.to_string(), "correct it there"));
            Ok(None)
        }
    }
}

/// The settings that a service in this folder and this environment would have.
fn settings(checks: &mut Vec<Check>) -> Option<CacheConfig> {
    let named = std::env::var_os(SETTINGS.0);
    let path = PathBuf::from(named.as_deref().unwrap_or(OsStr::new(SETTINGS.1)));
    let (shown, exists) = (path.display(), path.is_file());
    match CacheConfig::from_settings() {
        Ok(config) => {
            let found =
                if exists { format!("{shown} and the environment") } else { format!("no {shown}: defaults and the environment") };
            checks.push(Check::ok("settings", found));
            Some(config)
        }
        Err(error) => {
            checks.push(Check::wrong(
                "settings",
                error.to_string(),
                format!("correct it in {shown} or in the environment (AURUM_CACHE_...)"),
            ));
            None
        }
    }
}

fn memory(capacity: u64, checks: &mut Vec<Check>) {
    let wanted = format!("{} for the memory tier", report::bytes(capacity));
    let (Some(total), Some(free)) = (meminfo("MemTotal:"), meminfo("MemAvailable:")) else {
        return checks.push(Check::ok("memory", format!("{wanted}; this system does not say how much there is")));
    };
    let found = format!("{wanted}; this machine has {}, {} free", report::bytes(total), report::bytes(free));
    let fix = "lower memory.capacity; what does not fit is swapped out or the process is killed";
    checks.push(match () {
        () if capacity > total => Check::wrong("memory", found, fix),
        () if capacity > free => Check::warning("memory", found, fix),
        () => Check::ok("memory", found),
    });
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn folder(path: &Path, capacity: u64, checks: &mut Vec<Check>) {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => None,
        Err(cause) => {
            return checks.push(Check::wrong(
                "folder",
                format!("{shown}: {cause}"),
                "give this user access, or change disk.path",
            ));
        }
    };
    if metadata.as_ref().is_some_and(|metadata| !metadata.is_dir()) {
        return checks.push(Check::wrong("folder", format!("{shown} is a file"), "move it away, or change disk.path"));
    }
    let exists = metadata.is_some();
    let Some(near) =
        path.ancestors().map(|near| if near.as_os_str().is_empty() { Path::new(".") } else { near }).find(|near| near.is_dir())
    else {
        return checks.push(Check::wrong("folder", format!("{shown}: no folder above it exists"), "change disk.path"));
    };
    // A file without a name of its own, gone when it is dropped.
    if let Err(cause) = tempfile::tempfile_in(near) {
        let fix = "give this user write access, or change disk.path";
        return checks.push(Check::wrong("folder", format!("{}: cannot be written ({cause})", near.display()), fix));
    }
    let how = if exists { "can be written" } else { "will be made" };
    checks.push(Check::ok("folder", format!("{shown} {how}")));
    let free = match rustix::fs::statvfs(near) {
        Ok(system) => system.f_bavail.saturating_mul(system.f_frsize),
        Err(cause) => {
            return checks.push(Check::warning("space", format!("{shown}: free space is unknown ({cause})"), "see with df"));
        }
    };
    let used = if exists { bytes_in(path) } else { 0 };
    let found = format!(
        "{} for the disk tier; {} in use there, {} free",
        report::bytes(capacity),
        report::bytes(used),
        report::bytes(free)
    );
    checks.push(if capacity.saturating_sub(used) > free {
        Check::wrong("space", found, "free some space, or lower disk.capacity")
    } else {
        Check::ok("space", found)
    });
}

/// All files below a folder; what cannot be read counts nothing.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// Opens a cache without the disk tier under a prefix of its own, and sends one entry there and back.
async fn redis(mut config: CacheConfig, checks: &mut Vec<Check>) {
    const NAMESPACE: Namespace = Namespace::new("doctor");
    const KEY: &str = "probe";
    config.disk.path = None;
    let fix = "start it, correct redis.url, or raise redis.timeout";
    let prefix = format!("aurum-doctor-{:012x}", fastrand::u64(..) >> 16);
    let cache = match Cache::builder().config(config).key_prefix(prefix).open().await {
        Ok(cache) => cache,
        Err(error) => return checks.push(Check::wrong("redis", error.to_string(), fix)),
    };
    let set = cache.set(NAMESPACE, KEY, "is it there?", TtlPolicy::UltraShort).await;
    let health = cache.health().await;
    let tier = health.tiers.iter().find(|known| known.tier == Tier::Redis);
    let state = tier.map_or(TierState::Off, |tier| tier.state);
    let reason = tier.and_then(|tier| tier.reason.clone()).unwrap_or_default();
    if state == TierState::Off {
        checks.push(Check::ok("redis", "not configured; the cache is embedded"));
    } else if state == TierState::Down {
        checks.push(Check::wrong("redis", format!("does not answer: {reason}"), fix));
    } else {
        let arrived = cache.describe(NAMESPACE, KEY).await.is_some_and(|entry| entry.tiers.contains(&Tier::Redis));
        let _ = cache.invalidate(NAMESPACE, KEY).reason("probe").triggered_by("aurum-cache doctor").await;
        let trouble = set.err().map(|error| error.to_string()).unwrap_or(reason);
        checks.push(match (arrived, state) {
            (true, TierState::Up) => Check::ok("redis", "answers, and takes an entry there and back"),
            (true, _) => Check::warning("redis", format!("works in part: {trouble}"), fix),
            (false, _) => {
                let fix = "see its maxmemory and maxmemory-policy, and whether this user may write";
                Check::wrong("redis", format!("answers, but an entry does not arrive; {trouble}"), fix)
            }
        });
    }
    let _ = cache.close().await;
}

fn clock(folder: Option<&Path>, checks: &mut Vec<Check>) {
    let now = Clock::system().now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let shown = humantime::format_rfc3339_seconds(now);
    if since < EARLIEST {
        let fix = "set the clock; entries on disk and in Redis are judged by it";
        return checks.push(Check::wrong("clock", format!("stands at {shown}"), fix));
    }
    let newest = folder.and_then(newest_in);
    checks.push(match newest.and_then(|newest| newest.duration_since(now).ok()).filter(|ahead| ahead.as_secs() > 60) {
        Some(ahead) => {
            let found = format!("stands at {shown}, {} before the newest file of the disk tier", report::span(ahead));
            Check::warning("clock", found, "set the clock; after a step back entries live longer by that much")
        }
        None => Check::ok("clock", shown.to_string()),
    });
}

fn newest_in(folder: &Path) -> Option<SystemTime> {
    std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

fn show(checks: &[Check], out: &Output) -> Outcome {
    let word = |state: State| match state {
        State::Ok => "ok",
        State::Warning => "warning",
        State::Wrong => "wrong",
    };
    let mut table = report::text_table(["check", "state", "found", "what to do"]);
    for check in checks {
        table.add_row([check.name, word(check.state), &check.found, &check.fix]);
    }
    let wrong = checks.iter().filter(|check| check.state == State::Wrong).count();
    let last = if wrong == 0 { "nothing is wrong".to_owned() } else { format!("{wrong} to fix") };
    out.text(format_args!("{table}\n{last}"))?;
    let check =
        |check: &Check| json!({ "check": check.name, "state": word(check.state), "found": check.found, "fix": check.fix });
    out.object(&json!({ "ok": wrong == 0, "checks": checks.iter().map(check).collect::<Vec<_>>() }))
}
