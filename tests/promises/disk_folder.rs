//! The folder: whose it is, what may stand in its place, and what happens when somebody takes it away.

#![cfg(feature = "disk")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::child::{Child, can_unshare, given, linger, role, say};
use crate::support::{put, read, text, tier_of, until};
use aurum_cache::{Cache, Error, ErrorKind, Namespace, Tier, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

async fn open(folder: &Path) -> Result<Cache, Error> {
    Cache::builder().memory(8 << 20).disk(folder, 64 << 20).open().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    let Some(role) = role() else { return };
    let opened = open(Path::new(&given("FOLDER"))).await;
    match role.as_str() {
        "holder" => {
            let cache = opened.unwrap();
            put(&cache, NS, "k", "v", TtlPolicy::Persistent).await;
            cache.flush().await.unwrap();
            say(&std::process::id().to_string());
            linger().await;
        }
        _ => {
            let error = opened.expect_err("a read-only folder cannot be opened");
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains("read-only"), "{error}");
            say("told");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_and_files_are_their_owners_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not/there/yet");
    let cache = open(&path).await.unwrap();
    for i in 0..100 {
        put(&cache, NS, &i.to_string(), &text("v", 50_000), TtlPolicy::Persistent).await;
    }
    cache.invalidate_pattern(NS, "1*").await.unwrap();
    cache.close().await.unwrap();
    let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let expected = if file.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&file), expected, "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_is_told_who_has_the_folder_and_gets_it_when_that_one_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let child = Child::play(module_path!(), "holder", &[("FOLDER", folder.path().to_str().unwrap())]);
    let holder = child.hear();
    let error = open(folder.path()).await.expect_err("it is open in the child");
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains(&format!("is open in another cache of process {holder};")), "{error}");
    child.kill();
    let mut cache = None;
    until("the folder is free", async || {
        cache = open(folder.path()).await.ok();
        cache.is_some()
    })
    .await;
    assert_eq!(read(&cache.unwrap(), NS, "k").await.as_deref(), Some("v"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symlink_is_not_followed_wherever_it_is_planted() {
    let folder = tempfile::tempdir().unwrap();
    let (elsewhere, link) = (folder.path().join("elsewhere"), folder.path().join("link"));
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("precious.tmp"), "kept").unwrap();
    symlink(&elsewhere, &link).unwrap();
    for path in [link.clone(), folder.path().join("link/")] {
        let error = open(&path).await.expect_err("a symlink is no folder of ours");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("symlink"), "{error}");
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1, "nothing was made there");

    // In place of each file of a folder in use: what it leads to is neither read as ours nor written.
    let (real, victim) = (folder.path().join("real"), folder.path().join("victim"));
    for name in [
        "lock",
        "ledger",
        "sequence.note",
        "hot.note",
        "0000000001.seg",
        "catalogue",
        "log.settled",
        "log.owing",
        "hot.note.tmp",
        "probe.tmp",
    ] {
        let cache = open(&real).await.unwrap();
        put(&cache, NS, "k", "v", TtlPolicy::Persistent).await;
        cache.close().await.unwrap();
        drop(cache);
        std::fs::write(&victim, "kept").unwrap();
        let _ = std::fs::remove_dir_all(real.join(name)).or_else(|_| std::fs::remove_file(real.join(name)));
        symlink(&victim, real.join(name)).unwrap();
        if let Ok(cache) = open(&real).await {
            put(&cache, NS, "k", "new", TtlPolicy::Persistent).await;
            let _ = cache.invalidate_pattern(NS, "nothing*").await;
            assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("new"), "{name}");
            let _ = cache.close().await;
        } else {
            assert_eq!(name, "lock", "only without its lock it cannot be opened");
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept", "{name}");
        let _ = std::fs::remove_dir_all(&real);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_in_the_folder_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let strangers = ["report.tmp", "notes.txt", "1.seg", "snap.1.generating"];
    for name in strangers {
        std::fs::write(folder.path().join(name), "kept").unwrap();
    }
    for _ in 0..2 {
        let cache = open(folder.path()).await.unwrap();
        put(&cache, NS, "k", "v", TtlPolicy::Persistent).await;
        cache.close().await.unwrap();
    }
    for name in strangers {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), "kept", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_removed_while_it_is_used_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let cache = open(&path).await.unwrap();
    put(&cache, NS, "before", "v", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    until("the disk is seen to be gone", async || {
        cache.run_maintenance().await;
        tier_of(&cache.health().await, Tier::Disk).state == TierState::Down
    })
    .await;
    until("it is back", async || {
        cache.run_maintenance().await;
        tier_of(&cache.health().await, Tier::Disk).state == TierState::Up
    })
    .await;
    put(&cache, NS, "after", "v", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    cache.close().await.unwrap();
    drop(cache);
    let cache = open(&path).await.unwrap();
    assert_eq!(read(&cache, NS, "after").await.as_deref(), Some("v"));
}

/// Somebody else's cache is put in its place while ours runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_replaced_by_another_caches_gives_nothing_of_that_one() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
    let cache = open(&other).await.unwrap();
    put(&cache, NS, "k", "theirs", TtlPolicy::Persistent).await;
    cache.close().await.unwrap();
    drop(cache);
    let cache = open(&ours).await.unwrap();
    put(&cache, NS, "k", "ours", TtlPolicy::Persistent).await;
    cache.flush().await.unwrap();
    std::fs::rename(&ours, folder.path().join("aside")).unwrap();
    std::fs::rename(&other, &ours).unwrap();
    let mut written = 0;
    until("the tier is down", async || {
        put(&cache, NS, &written.to_string(), &text("v", 400_000), TtlPolicy::Persistent).await;
        written += 1;
        tier_of(&cache.health().await, Tier::Disk).state == TierState::Down
    })
    .await;
    until("it is back", async || {
        cache.run_maintenance().await;
        tier_of(&cache.health().await, Tier::Disk).state == TierState::Up
    })
    .await;
    assert_ne!(read(&cache, NS, "k").await.as_deref(), Some("theirs"));
    cache.close().await.unwrap();
    drop(cache);
    let cache = open(&ours).await.unwrap();
    assert_ne!(read(&cache, NS, "k").await.as_deref(), Some("theirs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_folder_is_an_error_that_says_so_and_costs_nothing() {
    if !can_unshare() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let cache = open(folder.path()).await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Persistent).await;
    cache.close().await.unwrap();
    drop(cache);
    let mount = "mount --bind \"$FOLDER\" \"$FOLDER\" && mount -o remount,bind,ro \"$FOLDER\"";
    let child = Child::play_unshared(module_path!(), "read-only", &[("FOLDER", path)], mount);
    assert_eq!(child.finish(), ["told"]);
    assert_eq!(read(&open(folder.path()).await.unwrap(), NS, "k").await.as_deref(), Some("v"));
}
