//! A process that has no file descriptor left when it opens its cache: the disk begins down, says why, and loses nothing.

#![cfg(feature = "disk")]

use std::path::Path;

use crate::support::child::{Child, given, role, say};
use crate::support::{put, read, text, tier_of, until};
use aurum_cache::{Cache, ErrorKind, Namespace, Tier, TierState, TtlPolicy};
use rustix::process::{Resource, Rlimit, setrlimit};

const NS: Namespace = Namespace::CURVES;

async fn open(folder: &Path) -> Cache {
    Cache::builder().memory(8 << 20).disk(folder, 64 << 20).open().await.expect("the cache opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    if role().is_none() {
        return;
    }
    let folder = given("FOLDER");
    let folder = Path::new(&folder);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(taken.len() > 10);
    // With none at all, and with a few: the lock, the log, the catalogue cannot be opened.
    let mut doomed = Vec::new();
    for left in [0, 1, 2, 3, 5, 8] {
        taken.truncate(taken.len() - left);
        let cache = open(folder).await;
        let disk = tier_of(&cache.health().await, Tier::Disk);
        let is_down = disk.state == TierState::Down;
        assert!(left > 0 || is_down, "with {left} descriptors: {disk:?}");
        assert!(
            !is_down || disk.reason.is_some_and(|why| why.contains("Too many open files")),
            "with {left}: health says nothing"
        );
        put(&cache, NS, "here", "v", TtlPolicy::Short).await;
        assert_eq!(read(&cache, NS, "here").await.as_deref(), Some("v"), "memory goes on");
        let invalidated = cache.invalidate(NS, &format!("k{left}")).await;
        doomed.push(left);
        assert!(!is_down || invalidated.is_err_and(|error| error.kind() == ErrorKind::TierDown), "with {left}");

        taken.clear();
        until("the disk is up", async || {
            cache.run_maintenance().await;
            tier_of(&cache.health().await, Tier::Disk).state == TierState::Up
        })
        .await;
        for i in 0..100 {
            let key = format!("k{i}");
            let expected = (!doomed.contains(&i)).then(|| text(&key, 5_000));
            assert_eq!(read(&cache, NS, &key).await, expected, "with {left}: {key}");
        }
        cache.close().await.unwrap();
        taken.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
    }
    say("done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_descriptor_the_disk_begins_down_and_comes_up_with_all_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path()).await;
    for i in 0..100 {
        let key = format!("k{i}");
        put(&cache, NS, &key, &text(&key, 5_000), TtlPolicy::Persistent).await;
    }
    cache.close().await.unwrap();
    drop(cache);
    let child = Child::play(module_path!(), "poor", &[("FOLDER", folder.path().to_str().unwrap())]);
    assert_eq!(child.finish(), ["done"]);
}
