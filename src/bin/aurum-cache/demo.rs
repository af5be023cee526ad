//! `demo`: the tour. One embedded cache in a folder of its own goes through its whole life, and each step shows what it
//! claims: if a step sees something else, it says so and the program fails.

use std::path::Path;

use aurum_cache::{Cache, InvalidationEvent, Namespace, Tier, TtlPolicy, cacheable};
use serde_json::{Value, json};

use crate::args::Demo;
use crate::report::{self, Failure, Outcome, Output, Stopwatch};

/// What the tour caches: a forward curve of a power market hub.
#[cacheable]
struct Curve {
    hub: String,
    prices: Vec<f64>,
}

const MEMORY: u64 = 8 << 20;
const DISK: u64 = 256 << 20;
const HUBS: [&str; 4] = ["pjm", "ercot", "miso", "caiso"];
const CURVES: usize = 400;
/// Enough scenarios to fill the memory four times.
const SCENARIOS: usize = 4_000;
const SCENARIO_BYTES: usize = 8 << 10;
/// Scenarios written at a time. A service does not write as fast as a loop can, and the disk's queue is bounded: what is
/// demoted while it is full is dropped.
const BURST: usize = 250;

pub(crate) async fn run(ask: &Demo, out: &Output) -> Outcome {
    let temporary = match &ask.disk {
        Some(_) => None,
        None => {
            Some(tempfile::tempdir().map_err(|cause| Failure::said(format!("no temporary folder ({cause}); use --disk DIR")))?)
        }
    };
    let folder = match (&ask.disk, &temporary) {
        (Some(folder), _) => folder.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => return Err(Failure::said("no folder; use --disk DIR")),
    };
    let whole = Stopwatch::start();
    let mut tour = Tour { out, steps: Vec::new() };
    let cache = open(folder).await?;
    writes(&mut tour, &cache).await?;
    reads(&mut tour, &cache).await?;
    fetches_once(&mut tour, &cache).await?;
    demotes(&mut tour, &cache).await?;
    let cache = restarts(&mut tour, cache, folder).await?;
    let event = invalidates(&mut tour, &cache).await?;
    let cache = stays_gone(&mut tour, cache, folder, &event).await?;
    let analytics = cache.analytics();
    let events = cache.invalidation_events(std::time::SystemTime::UNIX_EPOCH);
    cache.close().await?;

    out.text(format_args!("\nanalytics since the last restart\n{analytics}"))?;
    let ok = tour.steps.iter().all(|step| step.ok);
    out.text(format_args!("the tour took {}", report::time(whole.elapsed())))?;
    out.object(&json!({
        "ok": ok,
        "took_ms": whole.elapsed().as_secs_f64() * 1e3,
        "steps": tour.steps.iter().map(|step| json!({ "step": step.name, "ok": step.ok, "shown": step.shown })).collect::<Vec<_>>(),
        "events": serde_json::to_value(&events).unwrap_or(Value::Null),
        "analytics": serde_json::to_value(&analytics).unwrap_or(Value::Null),
    }))?;
    match tour.steps.iter().find(|step| !step.ok) {
        None => Ok(()),
        Some(step) => Err(Failure::said(format!("step \"{}\" did not see what it should", step.name))),
    }
}

async fn open(folder: &Path) -> Outcome<Cache> {
    Ok(Cache::builder().memory(MEMORY).disk(folder, DISK).open().await?)
}

/// The steps so far.
struct Tour<'a> {
    out: &'a Output,
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    ok: bool,
    shown: Vec<String>,
}

impl Tour<'_> {
    fn step(&mut self, name: &'static str, ok: bool, shown: Vec<String>) -> Outcome {
        let number = self.steps.len() + 1;
        self.out.text(format_args!("{number}. {name}{}", if ok { "" } else { "  <- NOT AS IT SHOULD BE" }))?;
        for line in &shown {
            self.out.text(format_args!("   {line}"))?;
        }
        self.steps.push(Step { name, ok, shown });
        Ok(())
    }
}

/// `pjm:2026-07`, ...: a hundred to each hub.
fn curve_key(number: usize) -> String {
    let (hub, month) = (HUBS[number % HUBS.len()], number / HUBS.len());
    format!("{hub}:{}-{:02}", 2026 + month / 12, month % 12 + 1)
}

fn curve(number: usize) -> Curve {
    let base = 30.0 + number as f64 / 10.0;
    Curve { hub: HUBS[number % HUBS.len()].to_owned(), prices: (0..24).map(|hour| base + f64::from(hour)).collect() }
}

fn scenario(number: usize) -> Vec<u8> {
    vec![number as u8; SCENARIO_BYTES]
}

async fn writes(tour: &mut Tour<'_>, cache: &Cache) -> Outcome {
    report::say("writing");
    let clock = Stopwatch::start();
    for number in 0..CURVES {
        cache.set(Namespace::CURVES, &curve_key(number), &curve(number), TtlPolicy::Extended).await?;
    }
    cache.set(Namespace::METADATA, "hubs", HUBS.join(", ").as_str(), TtlPolicy::Long).await?;
    let took = clock.elapsed();
    cache.flush().await?;
    let shown = vec![
        format!(
            "{CURVES} curves with policy extended (24 h, memory and disk) and one text with policy long, in {}",
            report::time(took)
        ),
        "flushed: the curves would survive a power cut".to_owned(),
    ];
    tour.step("writes", true, shown)
}

async fn reads(tour: &mut Tour<'_>, cache: &Cache) -> Outcome {
    let clock = Stopwatch::start();
    let mut good = 0;
    for number in 0..CURVES {
        if let Some(hit) = cache.get::<Curve>(Namespace::CURVES, &curve_key(number)).await {
            let is_right = hit.hub == HUBS[number % HUBS.len()] && hit.prices[0] == 30.0 + number as f64 / 10.0;
            good += usize::from(is_right && hit.tier() == Tier::Memory);
        }
    }
    let each = clock.elapsed() / CURVES as u32;
    let expires = cache.get::<Curve>(Namespace::CURVES, "pjm:2026-01").await.map(|hit| hit.expires_in());
    let shown = vec![
        format!(
            "{good} of {CURVES} from memory, {} each with its check: a view into the cached bytes, nothing is decoded",
            report::time(each)
        ),
        format!("pjm:2026-01 lives for another {}", report::span(expires.unwrap_or_default())),
    ];
    tour.step("reads from memory", good == CURVES, shown)
}

async fn fetches_once(tour: &mut Tour<'_>, cache: &Cache) -> Outcome {
    let loads = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (cache, loads) = (cache.clone(), loads.clone());
        callers.spawn(async move {
            let load = || async move {
                loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                Ok::<u64, std::convert::Infallible>(42)
            };
            cache.get_or_fetch(Namespace::EIA_DATA, "stocks", TtlPolicy::Short, load).await.is_ok_and(|found| *found == 42)
        });
    }
    let served = callers.join_all().await.into_iter().filter(|served| *served).count();
    let loads = loads.load(std::sync::atomic::Ordering::Relaxed);
    let shown = vec![format!("{served} callers asked at once for a missing key, {loads} went to the source")];
    tour.step("fetches once", served == 100 && loads == 1, shown)
}

async fn demotes(tour: &mut Tour<'_>, cache: &Cache) -> Outcome {
    report::say("filling the memory");
    for number in 0..SCENARIOS {
        cache.set(Namespace::SCENARIOS, &format!("run:{number}"), &scenario(number)[..], TtlPolicy::Long).await?;
        if number % BURST == BURST - 1 {
            cache.flush().await?;
        }
    }
    let (mut memory, mut disk, mut wrong) = (0, 0, 0);
    for number in (0..SCENARIOS).rev() {
        if let Some(hit) = cache.get::<[u8]>(Namespace::SCENARIOS, &format!("run:{number}")).await {
            match hit.tier() {
                Tier::Memory => memory += 1,
                Tier::Disk => disk += 1,
                Tier::Redis => {}
            }
            wrong += usize::from(*hit != scenario(number)[..]);
        }
    }
    let analytics = cache.analytics();
    let shown = vec![
        format!(
            "{SCENARIOS} scenarios, {} in all, into {} of memory",
            report::bytes((SCENARIOS * SCENARIO_BYTES) as u64),
            report::bytes(MEMORY)
        ),
        format!("{} moved down to disk when memory was full", report::count(analytics.tier(Tier::Memory).demotions)),
        format!("reading all of them: {memory} from memory, {disk} from disk, {} gone, {wrong} wrong", SCENARIOS - memory - disk),
    ];
    tour.step("demotes to disk", disk > 0 && wrong == 0, shown)
}

async fn restarts(tour: &mut Tour<'_>, cache: Cache, folder: &Path) -> Outcome<Cache> {
    report::say("restarting");
    let clock = Stopwatch::start();
    cache.close().await?;
    drop(cache);
    let closed = clock.elapsed();
    let clock = Stopwatch::start();
    let cache = open(folder).await?;
    let opened = clock.elapsed();
    let warm = count_curves(&cache, |_| true).await;
    let shown = vec![
        format!("closed in {}, opened in {}", report::time(closed), report::time(opened)),
        format!("{warm} of {CURVES} curves are still there"),
    ];
    tour.step("a restart keeps it warm", warm == CURVES, shown)?;
    Ok(cache)
}

/// How many of the curves whose hub is wanted can be read.
async fn count_curves(cache: &Cache, wanted: impl Fn(&str) -> bool) -> usize {
    let mut found = 0;
    for number in (0..CURVES).filter(|number| wanted(HUBS[number % HUBS.len()])) {
        found += usize::from(cache.get::<Curve>(Namespace::CURVES, &curve_key(number)).await.is_some());
    }
    found
}

async fn invalidates(tour: &mut Tour<'_>, cache: &Cache) -> Outcome<InvalidationEvent> {
    let event = cache.invalidate_pattern(Namespace::CURVES, "pjm:*").reason("data_update").triggered_by("curve_service").await?;
    let (gone, others) = (count_curves(cache, |hub| hub == "pjm").await, count_curves(cache, |hub| hub != "pjm").await);
    let mut shown = vec![
        format!("pattern pjm:*: {} keys in {}", event.count, report::time(event.took)),
        format!("readable afterwards: {gone} of pjm, {others} of the other hubs"),
    ];
    shown.extend(event_log(cache));
    let ok = gone == 0 && others == CURVES / HUBS.len() * (HUBS.len() - 1) && event.count == (CURVES / HUBS.len()) as u64;
    tour.step("invalidates by pattern", ok, shown)?;
    Ok(event)
}

fn event_log(cache: &Cache) -> Vec<String> {
    let events = cache.invalidation_events(std::time::SystemTime::UNIX_EPOCH);
    let line = |event: &InvalidationEvent| {
        format!(
            "event log: {} {:?} in {}: reason {}, triggered by {}, {} keys",
            humantime::format_rfc3339_seconds(event.at),
            event.scope,
            event.namespace.as_deref().unwrap_or("all namespaces"),
            event.reason.as_deref().unwrap_or("-"),
            event.triggered_by.as_deref().unwrap_or("-"),
            event.count,
        )
    };
    events.iter().map(line).collect()
}

async fn stays_gone(tour: &mut Tour<'_>, cache: Cache, folder: &Path, event: &InvalidationEvent) -> Outcome<Cache> {
    report::say("restarting again");
    cache.close().await?;
    drop(cache);
    let cache = open(folder).await?;
    let (gone, others) = (count_curves(&cache, |hub| hub == "pjm").await, count_curves(&cache, |hub| hub != "pjm").await);
    let log = event_log(&cache);
    let remembers = cache.invalidation_events(std::time::SystemTime::UNIX_EPOCH).iter().any(|known| known.reason == event.reason);
    let mut shown = vec![format!("readable after the restart: {gone} of pjm, {others} of the other hubs")];
    shown.extend(log);
    tour.step("a restart does not bring it back", gone == 0 && others > 0 && remembers, shown)?;
    Ok(cache)
}
