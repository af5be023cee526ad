//! A device that fills: the cache goes on in memory, health says why, and the disk comes back with what it held when there is room again. A process
//! that is killed before loses what its disk held rather than serve what it could not write down that it took back.
//!
//! A small file system is mounted in a namespace of its own, which needs `unshare`; where that is not allowed the test says so.

#![cfg(feature = "disk")]

use std::path::Path;

use crate::support::child::{Child, can_unshare, given, linger, role, say};
use crate::support::{put, read, text, tier_of, until};
use aurum_cache::{Cache, Health, Namespace, Tier, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

async fn open(folder: &Path) -> Cache {
    Cache::builder().memory(8 << 20).disk(folder.join("cache"), 64 << 20).open().await.expect("the cache opens")
}

fn is_full(health: &Health) -> bool {
    let disk = tier_of(health, Tier::Disk);
    disk.state == TierState::Down && disk.reason.is_some_and(|reason| reason.contains("the device is full"))
}

/// Takes all the room there is.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for step in [1 << 20, 4 << 10, 1] {
        while file.write_all(&vec![1; step]).is_ok() {}
    }
}

/// Takes all the room, and writes until the cache has noticed. Memory goes on.
async fn fills_up(cache: &Cache, ballast: &Path, name: &str) {
    fill(ballast);
    let mut written = 0;
    until("health says that the device is full", async || {
        let key = format!("{name}/{written}");
        put(cache, NS, &key, &text(&key, 100_000), TtlPolicy::Persistent).await;
        assert!(read(cache, NS, &key).await.is_some(), "memory goes on");
        written += 1;
        is_full(&cache.health().await)
    })
    .await;
}

async fn comes_back(cache: &Cache) {
    until("the disk is up again", async || {
        cache.run_maintenance().await;
        tier_of(&cache.health().await, Tier::Disk).state == TierState::Up
    })
    .await;
}

async fn is_there(cache: &Cache, when: &str) {
    for i in 0..100 {
        let key = format!("early/{i}");
        assert_eq!(read(cache, NS, &key).await, Some(text(&key, 10_000)), "{key}, {when}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    match role().as_deref() {
        Some("full") => fills(Path::new(&given("FOLDER"))).await,
        Some("killed") => owes(Path::new(&given("FOLDER"))).await,
        _ => {}
    }
}

/// Takes something back while the device is full, and waits to be killed.
async fn owes(folder: &Path) {
    let cache = open(folder).await;
    put(&cache, NS, "doomed", "old", TtlPolicy::Persistent).await;
    put(&cache, NS, "replaced", "old", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    fills_up(&cache, &folder.join("ballast"), "late").await;
    assert!(cache.invalidate(NS, "doomed").await.is_err(), "its tombstone is not in the log");
    put(&cache, NS, "replaced", "new", TtlPolicy::Persistent).await;
    until("the folder is marked", async || folder.join("cache/log.owing").exists()).await;
    say("owes");
    linger().await
}

async fn fills(folder: &Path) {
    let ballast = folder.join("ballast");
    let cache = open(folder).await;
    for i in 0..100 {
        let key = format!("early/{i}");
        put(&cache, NS, &key, &text(&key, 10_000), TtlPolicy::Persistent).await;
    }
    put(&cache, NS, "doomed", "old", TtlPolicy::Persistent).await;
    put(&cache, NS, "replaced", "old", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();

    // It fills while it is written to.
    fills_up(&cache, &ballast, "late").await;
    assert!(cache.invalidate(NS, "doomed").await.is_err(), "its tombstone is not in the log");
    put(&cache, NS, "replaced", "new", TtlPolicy::Persistent).await;
    cache.run_maintenance().await;
    assert!(is_full(&cache.health().await), "it does not come back before there is room");
    assert!(cache.flush().await.is_err());

    std::fs::remove_file(&ballast).unwrap();
    comes_back(&cache).await;
    is_there(&cache, "when there was room again").await;
    assert_eq!(read(&cache, NS, "doomed").await, None);
    put(&cache, NS, "after", "v", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    cache.close().await.unwrap();

    // It is full when it is opened.
    fill(&ballast);
    let cache = open(folder).await;
    is_there(&cache, "opened on a full device").await;
    assert_eq!(read(&cache, NS, "after").await.as_deref(), Some("v"));
    assert_eq!(read(&cache, NS, "doomed").await, None, "after a reopening");
    assert_ne!(read(&cache, NS, "replaced").await.as_deref(), Some("old"), "after a reopening");
    fills_up(&cache, &ballast, "later").await;
    std::fs::remove_file(&ballast).unwrap();
    comes_back(&cache).await;
    is_there(&cache, "after the second time").await;

    // Full to the end: the close says so, and nothing that was taken back stands up.
    put(&cache, NS, "doomed too", "old", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    fills_up(&cache, &ballast, "last").await;
    let _ = cache.invalidate(NS, "doomed too").await;
    assert!(cache.close().await.is_err());
    drop(cache);
    std::fs::remove_file(&ballast).unwrap();
    let cache = open(folder).await;
    assert_eq!(read(&cache, NS, "doomed too").await, None);
    put(&cache, NS, "again", "v", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    cache.close().await.unwrap();
    drop(cache);

    // Killed while it is full, and opened when there is room: that costs the entries, and what was taken back does not stand up.
    let child = Child::play(module_path!(), "killed", &[("FOLDER", folder.to_str().unwrap())]);
    assert_eq!(child.hear(), "owes");
    child.kill();
    std::fs::remove_file(&ballast).unwrap();
    let cache = open(folder).await;
    assert_eq!(read(&cache, NS, "doomed").await, None, "after a kill");
    assert_eq!(read(&cache, NS, "replaced").await, None, "after a kill");
    put(&cache, NS, "alive", "v", TtlPolicy::Persistent).await;
    cache.close().await.unwrap();
    let cache = open(folder).await;
    assert_eq!(read(&cache, NS, "alive").await.as_deref(), Some("v"), "the log is let go once");
    say("done");
}

#[test]
fn a_full_device_costs_the_disk_tier_until_there_is_room_and_nothing_else() {
    if !can_unshare() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=24m,mode=700 tmpfs \"$FOLDER\"";
    let child = Child::play_unshared(module_path!(), "full", &[("FOLDER", folder.path().to_str().unwrap())], mount);
    assert_eq!(child.finish(), ["done"]);
}
