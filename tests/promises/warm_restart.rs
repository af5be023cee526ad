//! A warm cache survives a restart, a clean one and a kill -9, and nothing lives longer for it.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::path::Path;

use crate::support::child::{Child, given, linger, role, say};
use crate::support::{self, put, read, secs, text, tiers, until};
use aurum_cache::{Cache, Clock, Namespace, Tier, TtlPolicy, cacheable};

const NS: Namespace = Namespace::CURVES;

#[cacheable]
#[derive(Debug, Clone, PartialEq)]
struct Curve {
    hub: String,
    prices: Vec<f64>,
}

async fn open(folder: &Path) -> Cache {
    Cache::builder().memory(8 << 20).disk(folder, 128 << 20).open().await.expect("the cache opens")
}

async fn open_at(folder: &Path, clock: &Clock) -> Cache {
    let builder = Cache::builder().memory(8 << 20).disk(folder, 128 << 20);
    builder.clock(clock.clone()).open().await.expect("the cache opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    let Some(role) = role() else { return };
    let cache = open(Path::new(&given("FOLDER"))).await;
    match role.as_str() {
        "write" => {
            for i in 0..2_000 {
                let key = format!("flushed/{i}");
                put(&cache, NS, &key, &text(&key, 500), TtlPolicy::Extended).await;
            }
            cache.flush().await.unwrap();
            say("flushed");
            // Says so once some of it is in the log, and stops long before the disk is full and lets go of what was flushed.
            let mut is_said = false;
            for i in 0..30_000 {
                let key = format!("later/{i}");
                put(&cache, NS, &key, &text(&key, 500), TtlPolicy::Persistent).await;
                if !is_said && i % 100 == 0 && cache.analytics().tier(Tier::Disk).entries > 2_100 {
                    say("writing");
                    is_said = true;
                }
            }
            linger().await;
        }
        "brief" => {
            put(&cache, NS, "brief", "v", TtlPolicy::Custom(secs(2))).await;
            put(&cache, NS, "lasting", "v", TtlPolicy::Extended).await;
            cache.flush().await.unwrap();
            say("flushed");
            linger().await;
        }
        "opening" => {
            say("open");
            linger().await;
        }
        other => panic!("no role {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_clean_close_everything_that_may_live_on_disk_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path()).await;
    let curve = Curve { hub: "pjm".into(), prices: vec![1.0, 2.0] };
    cache.set(NS, "curve", &curve, TtlPolicy::Persistent).await.unwrap();
    for policy in TtlPolicy::NAMED {
        for i in 0..200 {
            let key = format!("{policy}/{i}");
            put(&cache, NS, &key, &text(&key, 300), policy).await;
        }
    }
    cache.close().await.unwrap();
    drop(cache);

    let cache = open(folder.path()).await;
    assert_eq!(cache.get::<Curve>(NS, "curve").await.expect("the curve").to_value(), curve);
    for policy in TtlPolicy::NAMED {
        let stays = policy.ttl() >= TtlPolicy::Medium.ttl();
        for i in 0..200 {
            let key = format!("{policy}/{i}");
            let expected = stays.then(|| text(&key, 300));
            assert_eq!(read(&cache, NS, &key).await, expected, "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_filled_again_without_a_read() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path()).await;
    for i in 0..500 {
        let key = format!("hot/{i}");
        put(&cache, NS, &key, &text(&key, 500), TtlPolicy::Long).await;
        read(&cache, NS, &key).await.unwrap();
    }
    cache.close().await.unwrap();
    drop(cache);
    let cache = open(folder.path()).await;
    until("the hot set is in memory", async || (0..500).all(|i| cache.get_resident::<str>(NS, &format!("hot/{i}")).is_some()))
        .await;
    assert_eq!(&*cache.get_resident::<str>(NS, "hot/7").unwrap(), text("hot/7", 500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hottest_come_back_first_and_the_progress_reaches_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path()).await;
    for i in 0..4_000 {
        put(&cache, NS, &format!("k/{i}"), &text(&format!("k/{i}"), 1_000), TtlPolicy::Long).await;
    }
    // Not the last ones, nor the first.
    let hot: Vec<_> = (1_000..1_200).map(|i| format!("k/{i}")).collect();
    for _ in 0..5 {
        for key in &hot {
            read(&cache, NS, key).await.unwrap();
        }
    }
    cache.close().await.unwrap();
    drop(cache);

    // A fifth of what was resident has room now.
    let cache = Cache::builder().memory(1 << 20).disk(folder.path(), 128 << 20).open().await.unwrap();
    until("the refill is over", async || cache.analytics().refill.finished).await;
    let refill = cache.analytics().refill;
    assert_eq!(refill.done + refill.skipped, refill.planned, "{refill}");
    assert!(refill.planned > 2_000 && (200..2_000).contains(&refill.done), "{refill}");
    for key in &hot {
        assert!(cache.get_resident::<str>(NS, key).is_some(), "{key} was hot; {refill}");
    }
    cache.close().await.unwrap();
    drop(cache);
    let empty = tempfile::tempdir().unwrap();
    let refill = open(empty.path()).await.analytics().refill;
    assert!(refill.finished && refill.planned == 0, "nothing to do is done at once: {refill}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_remaining_life_is_kept_and_time_while_down_counts() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
    let cache = open_at(folder.path(), &clock).await;
    put(&cache, NS, "long", "v", TtlPolicy::Long).await;
    put(&cache, NS, "extended", "v", TtlPolicy::Extended).await;
    clock.advance(secs(3_600));
    cache.close().await.unwrap();
    drop(cache);

    clock.advance(secs(3_600));
    let cache = open_at(folder.path(), &clock).await;
    for (key, policy) in [("long", TtlPolicy::Long), ("extended", TtlPolicy::Extended)] {
        let hit = cache.get::<str>(NS, key).await.unwrap_or_else(|| panic!("{key} is gone"));
        assert_eq!((hit.age(), hit.expires_in()), (secs(7_200), policy.ttl() - secs(7_200)), "{key}");
        assert_eq!(cache.describe(NS, key).await.unwrap().policy, policy);
    }
    cache.close().await.unwrap();
    drop(cache);

    clock.advance(secs(2 * 3_600)); // `long` ends while the process is down
    let cache = open_at(folder.path(), &clock).await;
    assert!(read(&cache, NS, "long").await.is_none(), "expired while down");
    assert!(tiers(&cache, NS, "long").await.is_empty());
    assert_eq!(read(&cache, NS, "extended").await.as_deref(), Some("v"));
    clock.advance(secs(20 * 3_600));
    assert!(read(&cache, NS, "extended").await.is_none(), "four restarts have not prolonged it");
}

/// The wall clock is set back while the process is down: nothing lives longer than its policy from now on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_set_back_while_down_makes_no_age_negative() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual());
    let cache = open_at(folder.path(), &clock).await;
    put(&cache, NS, "k", "v", TtlPolicy::Extended).await;
    cache.close().await.unwrap();
    drop(cache);
    clock.jump_wall(-3_600_000);
    let cache = open_at(folder.path(), &clock).await;
    if let Some(hit) = cache.get::<str>(NS, "k").await {
        assert_eq!(hit.age(), std::time::Duration::ZERO);
        assert!(hit.expires_in() <= TtlPolicy::Extended.ttl() + secs(3_600));
    }
    clock.advance(secs(25 * 3_600));
    assert!(read(&cache, NS, "k").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_everything_flushed_is_there_and_the_rest_is_right_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let child = Child::play(module_path!(), "write", &[("FOLDER", path)]);
    assert_eq!(child.hear(), "flushed");
    assert_eq!(child.hear(), "writing");
    child.kill();

    let cache = open(folder.path()).await;
    for i in 0..2_000 {
        let key = format!("flushed/{i}");
        assert_eq!(read(&cache, NS, &key).await, Some(text(&key, 500)), "{key} was flushed");
    }
    let mut found = 0;
    for i in 0..30_000 {
        let key = format!("later/{i}");
        if let Some(value) = read(&cache, NS, &key).await {
            assert_eq!(value, text(&key, 500));
            found += 1;
        }
    }
    assert!(found > 0, "not one of the unflushed writes that were in the log was found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_while_a_killed_process_is_down_stays_down() {
    let folder = tempfile::tempdir().unwrap();
    let config = support::settings("[placement.ultra_short]\ndisk = \"on_set\"\nredis = true");
    // `brief` lives two seconds; whether it was on disk or in memory alone, it is over.
    let child = Child::play(module_path!(), "brief", &[("FOLDER", folder.path().to_str().unwrap())]);
    assert_eq!(child.hear(), "flushed");
    child.kill();
    let clock = Clock::manual();
    clock.advance(secs(3));
    let builder = Cache::builder().config(config).memory(8 << 20).disk(folder.path(), 128 << 20);
    let cache = builder.clock(clock).open().await.unwrap();
    assert!(read(&cache, NS, "brief").await.is_none());
    assert_eq!(read(&cache, NS, "lasting").await.as_deref(), Some("v"));
}

/// A crash loop: killed right after open, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loop_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let cache = open(folder.path()).await;
    for i in 0..1_000 {
        let key = format!("k/{i}");
        put(&cache, NS, &key, &text(&key, 500), TtlPolicy::Persistent).await;
    }
    cache.close().await.unwrap();
    drop(cache);
    for round in 0..8 {
        let child = Child::play(module_path!(), "opening", &[("FOLDER", path)]);
        if round % 2 == 0 {
            child.hear();
        }
        child.kill();
    }
    let cache = open(folder.path()).await;
    for i in 0..1_000 {
        let key = format!("k/{i}");
        assert_eq!(read(&cache, NS, &key).await, Some(text(&key, 500)), "{key}");
    }
    assert_eq!(cache.analytics().tier(Tier::Disk).errors, 0);
}
