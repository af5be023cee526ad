//! `replay`: a trace as read-through traffic, one request after the other: `get`, and on a miss `set`.
//!
//! A value is its key's own pseudo-random bytes, made again and compared on every hit, so that a wrong, torn or foreign value
//! is seen at once. With `--restart-at` the cache is closed and opened again in the middle; the hit ratio of the last requests
//! before and the first after say what the restart cost. They are other requests, though; `--control` plays the same ones without it.

mod phase;
mod restart;
mod world;

use aurum_cache::{Analytics, Namespace, Tier};
use serde_json::{Value, json};

use crate::args::Replay;
use crate::report::{self, Failure, Outcome, Output, Stopwatch};
use crate::trace::Trace;
use phase::Phase;
use restart::Restart;

const NAMESPACE: Namespace = Namespace::new("replay");

/// How many requests on each side of the restart are compared.
const WINDOW: usize = 10_000;

pub(crate) async fn run(ask: &Replay, out: &Output) -> Outcome {
    report::say("reading the trace");
    let trace = Trace::open(ask.trace.as_deref(), ask.limit)?;
    if ask.wipe_disk {
        world::refuse_to_wipe_foreign(ask.disk.as_deref())?;
    }
    let prefix = world::prefix();
    let cut = ask
        .restart_at
        .map_or(trace.requests.len(), |share| (trace.requests.len() as f64 * share) as usize)
        .min(trace.requests.len());
    let (first, second) = trace.requests.split_at(cut);
    report::say(&format!("replaying {} requests", report::count(trace.requests.len() as u64)));
    let bar = report::progress("requests", trace.requests.len() as u64);

    let mut cache = world::open(ask, ask.disk.as_deref(), &prefix).await?;
    world::refuse_a_silent_redis(ask, &cache).await?;
    let mut phases = Vec::new();
    let name = if ask.restart_at.is_some() { "before the restart" } else { "all" };
    phases.push(Phase::play(name, &cache, ask, &trace, first, &bar).await?);
    let mut restart = None;
    let mut analytics = vec![cache.analytics()];
    if ask.restart_at.is_some() {
        let clock = Stopwatch::start();
        cache.close().await?;
        drop(cache);
        let close = clock.elapsed();
        if ask.wipe_disk {
            world::wipe(ask.disk.as_deref())?;
        }
        let clock = Stopwatch::start();
        cache = world::open(ask, ask.disk.as_deref(), &prefix).await?;
        let open = clock.elapsed();
        phases.push(Phase::play("after the restart", &cache, ask, &trace, second, &bar).await?);
        analytics.push(cache.analytics());
        let [before, after] = [0, 1].map(|at| phases.get(at).map_or(0, |phase: &Phase| phase.first.len()));
        let window = before.min(after);
        restart = Some(Restart {
            at: cut,
            close,
            open,
            wiped_disk: ask.wipe_disk,
            first_before: trace.first_requests(cut - window, cut),
            first_after: trace.first_requests(cut, cut + window),
            control: None,
        });
    }
    bar.finish_and_clear();
    cache.close().await?;
    drop(cache);
    world::empty_redis(ask, &prefix).await?;
    if let Some(restart) = restart.as_mut().filter(|_| ask.control) {
        report::say("replaying without the restart");
        restart.control = Some(control(ask, &trace, cut).await?);
    }

    for phase in &phases {
        phase.show(out)?;
    }
    if let Some(restart) = &restart {
        restart.show(&phases, out)?;
    }
    let tiers = tiers(ask, &analytics);
    show_tiers(&tiers, out)?;
    let wrong: u64 = phases.iter().map(|phase| phase.wrong).sum();
    out.object(&json!({
        "trace": trace.name,
        "requests": trace.requests.len(),
        "unique_keys": trace.unique(),
        "memory_bytes": ask.memory,
        "disk_bytes": ask.disk.as_ref().map(|_| ask.disk_capacity),
        "value_bytes": ask.value_size,
        "phases": phases.iter().map(Phase::object).collect::<Vec<_>>(),
        "restart": restart.map(|restart| restart.object(&phases)),
        "tiers": tiers,
    }))?;
    match wrong {
        0 => Ok(()),
        wrong => {
            Err(Failure::said(format!("{wrong} hits brought a value that was not the key's; keep the folder and report this")))
        }
    }
}

/// The hit ratio of the `WINDOW` requests after `cut` in a cache of its own that is not restarted there.
async fn control(ask: &Replay, trace: &Trace, cut: usize) -> Outcome<f64> {
    let folder = world::beside(ask.disk.as_deref())?;
    let prefix = world::prefix();
    let cache = world::open(ask, folder.as_ref().map(tempfile::TempDir::path), &prefix).await?;
    let end = trace.requests.len().min(cut + WINDOW);
    let bar = report::progress("requests", end as u64);
    Phase::play("control", &cache, ask, trace, &trace.requests[..cut], &bar).await?;
    let window = Phase::play("control", &cache, ask, trace, &trace.requests[cut..end], &bar).await?;
    bar.finish_and_clear();
    cache.close().await?;
    drop(cache);
    world::empty_redis(ask, &prefix).await?;
    Ok(window.ratio())
}

/// Each configured tier at the end, with what it did in both phases.
fn tiers(ask: &Replay, analytics: &[Analytics]) -> Vec<Value> {
    let configured = [true, ask.disk.is_some(), ask.redis.is_some()];
    let mut rows = Vec::new();
    for tier in Tier::ALL.into_iter().filter(|&tier| configured[place(tier)]) {
        let Some(end) = analytics.last().map(|last| last.tier(tier)) else { continue };
        let sum = |of: fn(&aurum_cache::TierAnalytics) -> u64| analytics.iter().map(|one| of(one.tier(tier))).sum::<u64>();
        rows.push(json!({
            "tier": tier.to_string(),
            "entries": end.entries,
            "bytes": end.bytes,
            "capacity": end.capacity,
            "evictions": sum(|tier| tier.evictions),
            "demotions": sum(|tier| tier.demotions),
            "promotions": sum(|tier| tier.promotions),
            "errors": sum(|tier| tier.errors),
            "written_bytes": if tier == Tier::Disk { analytics.iter().map(|one| one.disk_log.bytes_written).sum() } else { 0 },
            "not_admitted": if tier == Tier::Disk { analytics.iter().map(|one| one.disk_log.demotions_not_admitted).sum() } else { 0 },
        }));
    }
    rows
}

fn show_tiers(tiers: &[Value], out: &Output) -> Outcome {
    let mut table = report::table([
        "at the end",
        "entries",
        "bytes",
        "capacity",
        "evictions",
        "demotions",
        "promotions",
        "errors",
        "written",
        "not admitted",
    ]);
    for tier in tiers {
        let number = |name: &str| tier[name].as_u64().unwrap_or(0);
        let mut cells = vec![tier["tier"].as_str().unwrap_or("").to_owned()];
        cells.push(report::count(number("entries")));
        cells.extend(["bytes", "capacity"].map(|name| report::bytes(number(name))));
        cells.extend(["evictions", "demotions", "promotions", "errors"].map(|name| report::count(number(name))));
        cells.extend([report::bytes(number("written_bytes")), report::count(number("not_admitted"))]);
        table.add_row(cells);
    }
    out.text(table)
}

fn place(tier: Tier) -> usize {
    match tier {
        Tier::Memory => 0,
        Tier::Disk => 1,
        Tier::Redis => 2,
    }
}
