//! `bench`: what this machine makes of each tier, one caller, no contention.
//!
//! Nanoseconds per operation come from a loop without clock reads around each call; percentiles from a second loop with them.
//! A read from a lower tier moves the entry up, so each of those is timed on its own and counts only if it was answered by the
//! tier in question; its price includes the move.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use aurum_cache::{Cache, Cached, Namespace, Tier, TtlPolicy};
use serde_json::json;

use crate::args::Bench;
use crate::report::{self, Failure, Outcome, Output, Stopwatch, Times};
use crate::value::fill;

const NAMESPACE: Namespace = Namespace::new("bench");

/// Timed calls for the percentiles.
const TIMED: usize = 20_000;

/// Memory of the caches whose lower tier is measured: small, so that it answers little.
const SMALL: u64 = 4 << 20;

/// Redis is asked this often; each is a round trip.
const ROUND_TRIPS: u64 = 5_000;

pub(crate) async fn run(ask: &Bench, out: &Output) -> Outcome {
    let temporary = tempfile::tempdir().map_err(|cause| Failure::said(format!("no temporary folder ({cause}); set TMPDIR")))?;
    let folder = match &ask.disk {
        Some(base) => tempfile::tempdir_in(base),
        None => tempfile::tempdir_in(temporary.path()),
    };
    let folder = folder.map_err(|cause| {
        let base = ask.disk.as_deref().unwrap_or(temporary.path());
        Failure::said(format!("folder {}: a folder inside cannot be made ({cause})", base.display()))
    })?;
    let keys: Vec<String> = (0..ask.entries).map(|number| format!("bench:{number:08}")).collect();
    let mut value = Vec::new();
    fill(&mut value, "bench", ask.value_size)?;
    let mut rows = Vec::new();
    report::say("measuring memory");
    memory(&keys, &value, &mut rows).await?;
    report::say("measuring disk");
    disk(folder.path(), &keys, &value, &mut rows).await?;
    if let Some(url) = &ask.redis {
        report::say("measuring redis");
        redis(url, &keys[..keys.len().min(ROUND_TRIPS as usize)], &value, &mut rows).await?;
    }
    show(ask, &rows, out)
}

/// One line of the answer.
struct Row {
    tier: Tier,
    operation: &'static str,
    /// Mean of a loop without clock reads; for lower tiers the mean of the timed calls.
    each: Duration,
    times: Times,
}

async fn memory(keys: &[String], value: &[u8], rows: &mut Vec<Row>) -> Outcome {
    // Twice the room, so that nothing is evicted.
    let room = (keys.len() as u64).saturating_mul(value.len() as u64 + 256).saturating_mul(2).max(64 << 20);
    let cache = Cache::builder().memory(room).open().await?;
    let mut times = Times::new();
    let clock = Stopwatch::start();
    for key in keys {
        cache.set(NAMESPACE, key, value, TtlPolicy::Long).await?;
    }
    let each = clock.elapsed() / keys.len() as u32;
    for at in 0..TIMED {
        let clock = Stopwatch::start();
        cache.set(NAMESPACE, &keys[at % keys.len()], value, TtlPolicy::Long).await?;
        times.record(clock.elapsed());
    }
    let set = Row { tier: Tier::Memory, operation: "set", each, times };

    let order = shuffled(keys);
    let view = |key: &str| cache.with_resident::<[u8], u8>(NAMESPACE, key, |bytes| bytes.first().copied().unwrap_or(0));
    rows.push(measure("with_resident, hit", &order, |key| _ = black_box(view(key))));
    rows.push(measure("get_resident, hit", &order, |key| _ = black_box(cache.get_resident::<[u8]>(NAMESPACE, key))));
    let absent: Vec<String> = (0..keys.len().min(TIMED)).map(|number| format!("absent:{number:08}")).collect();
    let absent: Vec<&str> = absent.iter().map(String::as_str).collect();
    rows.push(measure("get_resident, miss", &absent, |key| _ = black_box(cache.get_resident::<[u8]>(NAMESPACE, key))));

    let clock = Stopwatch::start();
    for key in &order {
        black_box(cache.get::<[u8]>(NAMESPACE, key).await);
    }
    let each = clock.elapsed() / order.len() as u32;
    let mut times = Times::new();
    for at in 0..TIMED {
        let clock = Stopwatch::start();
        black_box(cache.get::<[u8]>(NAMESPACE, order[at % order.len()]).await);
        times.record(clock.elapsed());
    }
    rows.push(Row { tier: Tier::Memory, operation: "get, hit", each, times });
    rows.push(set);
    Ok(cache.close().await?)
}

/// A call that does not wait, over all keys without clock reads and then with them.
fn measure(operation: &'static str, keys: &[&str], call: impl Fn(&str)) -> Row {
    keys.iter().for_each(|key| call(key));
    let clock = Stopwatch::start();
    keys.iter().for_each(|key| call(key));
    let each = clock.elapsed() / keys.len().max(1) as u32;
    let mut times = Times::new();
    for at in 0..TIMED {
        let clock = Stopwatch::start();
        call(keys[at % keys.len()]);
        times.record(clock.elapsed());
    }
    Row { tier: Tier::Memory, operation, each, times }
}

async fn disk(folder: &Path, keys: &[String], value: &[u8], rows: &mut Vec<Row>) -> Outcome {
    let room = (keys.len() as u64).saturating_mul(value.len() as u64 + 256).saturating_mul(3).max(256 << 20);
    let open = async || -> Outcome<Cache> { Ok(Cache::builder().memory(SMALL).disk(folder, room).open().await?) };
    let cache = open().await?;
    let mut times = Times::new();
    for key in keys {
        let clock = Stopwatch::start();
        cache.set(NAMESPACE, key, value, TtlPolicy::Persistent).await?;
        times.record(clock.elapsed());
    }
    cache.flush().await?;
    let set = Row { tier: Tier::Disk, operation: "set (extended, persistent)", each: times.mean(), times };
    cache.close().await?;
    drop(cache);
    let cache = open().await?;
    rows.push(lower(&cache, Tier::Disk, "get, hit", &shuffled(keys)).await);
    let absent: Vec<String> = (0..TIMED).map(|number| format!("absent:{number:08}")).collect();
    let mut times = Times::new();
    for key in &absent {
        let clock = Stopwatch::start();
        black_box(cache.get::<[u8]>(NAMESPACE, key).await);
        times.record(clock.elapsed());
    }
    rows.push(Row { tier: Tier::Disk, operation: "get, miss", each: times.mean(), times });
    rows.push(set);
    Ok(cache.close().await?)
}

async fn redis(url: &str, keys: &[String], value: &[u8], rows: &mut Vec<Row>) -> Outcome {
    let prefix = format!("aurum-bench-{:012x}", fastrand::u64(..) >> 16);
    let open = async || -> Outcome<Cache> { Ok(Cache::builder().memory(SMALL).redis(url).key_prefix(&prefix).open().await?) };
    let cache = open().await?;
    let mut times = Times::new();
    for key in keys {
        let clock = Stopwatch::start();
        cache.set(NAMESPACE, key, value, TtlPolicy::Short).await?;
        times.record(clock.elapsed());
    }
    let set = Row { tier: Tier::Redis, operation: "set", each: times.mean(), times };
    cache.close().await?;
    drop(cache);
    let cache = open().await?;
    let read = lower(&cache, Tier::Redis, "get, hit", &shuffled(keys)).await;
    let errors = cache.analytics().tier(Tier::Redis).errors;
    cache.invalidate_namespace(NAMESPACE).reason("the bench is over").triggered_by("aurum-cache bench").await?;
    cache.close().await?;
    if read.times.count() == 0 {
        let advice = "answered nothing; is it running, and may this user write there? Try the verb doctor";
        return Err(Failure::said(format!("redis: {advice} ({errors} errors)")));
    }
    rows.extend([read, set]);
    Ok(())
}

/// Reads each key once; counts those that this tier answered.
async fn lower(cache: &Cache, tier: Tier, operation: &'static str, keys: &[&str]) -> Row {
    let mut times = Times::new();
    for key in keys {
        let clock = Stopwatch::start();
        let hit: Option<Cached<[u8]>> = cache.get(NAMESPACE, key).await;
        let took = clock.elapsed();
        if hit.is_some_and(|hit| hit.tier() == tier) {
            times.record(took);
        }
    }
    Row { tier, operation, each: times.mean(), times }
}

/// The keys in an order that is neither theirs nor sorted, the same each time.
fn shuffled(keys: &[String]) -> Vec<&str> {
    let mut order: Vec<&str> = keys.iter().map(String::as_str).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut order);
    order
}

fn show(ask: &Bench, rows: &[Row], out: &Output) -> Outcome {
    let mut table = report::table(["tier, operation", "each", "p50", "p90", "p99", "p99.9", "max"]);
    for row in rows {
        let mut cells = vec![format!("{}: {}", row.tier, row.operation), report::time(row.each)];
        cells.extend(row.times.columns());
        table.add_row(cells);
    }
    let size = report::bytes(ask.value_size);
    let build =
        if cfg!(debug_assertions) { " This is a debug build; use --release for figures that mean something." } else { "" };
    out.text(format_args!("{} entries of {size}, one caller.{build}\n{table}", report::count(ask.entries)))?;
    let row = |row: &Row| {
        let (tier, each) = (row.tier.to_string(), row.each.as_nanos() as u64);
        json!({ "tier": tier, "operation": row.operation, "ns_per_op": each, "latency": row.times.object() })
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    out.object(&json!({ "entries": ask.entries, "value_bytes": ask.value_size, "rows": rows }))
}
