//! Bad input: an error that names the thing and what to do; nothing is lost, nothing panics.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::path::Path;

use crate::support::child::{Child, given, linger, role, say};
use crate::support::{self, put, read, settings, text, tier_of};
use aurum_cache::{Cache, Error, ErrorKind, MAX_KEY_BYTES, Namespace, Tier, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

/// Kind and words of an error; every word has to be there.
#[track_caller]
fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "no {word:?} in: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    let Some(role) = role() else { return };
    let folder = given("FOLDER");
    let opened = Cache::builder().memory(8 << 20).disk(Path::new(&folder), 64 << 20).open().await;
    match (role.as_str(), opened) {
        ("holder", Ok(_cache)) => {
            say("open");
            linger().await;
        }
        ("read-only", Ok(cache)) => {
            // A cache without its disk is allowed, if it says so.
            put(&cache, NS, "k", "v", TtlPolicy::Extended).await;
            assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("v"));
            let disk = tier_of(&cache.health().await, Tier::Disk);
            say(&format!("without {:?} {}", disk.state, disk.reason.unwrap_or_default()));
        }
        (_, Err(error)) => say(&format!("refused {:?} {error}", error.kind())),
        (role, _) => panic!("no role {role}"),
    }
}

#[tokio::test]
async fn a_key_is_never_empty_nor_over_its_limit() {
    let cache = Cache::builder().memory(16 << 20).open().await.unwrap();
    put(&cache, NS, "good", "v", TtlPolicy::Medium).await;
    let longest = "k".repeat(MAX_KEY_BYTES);
    put(&cache, NS, &longest, "v", TtlPolicy::Medium).await;
    assert!(read(&cache, NS, &longest).await.is_some());
    let too_long = "k".repeat(MAX_KEY_BYTES + 1);
    for (key, words) in [("", ["\"\"", "empty"]), (&too_long, ["4097", "4096"])] {
        let set = cache.set(NS, key, "v", TtlPolicy::Medium).await.unwrap_err();
        says(&set, ErrorKind::InvalidKey, &words);
        let many = cache.set_many(NS, &[("fine", "v"), (key, "v")], TtlPolicy::Medium).await.unwrap_err();
        says(&many, ErrorKind::InvalidKey, &words);
        says(&cache.invalidate(NS, key).await.unwrap_err(), ErrorKind::InvalidKey, &words);
        assert!(set.to_string().len() < 300, "the text of an error is for a person");
        // A read cannot fail, it can only miss.
        assert!(read(&cache, NS, key).await.is_none());
        assert!(cache.get_resident::<str>(NS, key).is_none());
        assert!(!cache.contains(NS, key).await);
        assert!(cache.describe(NS, key).await.is_none());
        let found = cache.get_many::<str>(NS, &["good", key]).await;
        assert!(found[0].is_some() && found[1].is_none());
    }
    assert!(!cache.contains(NS, "fine").await, "a bulk with a bad key writes nothing");
    assert!(read(&cache, NS, "good").await.is_some());
}

#[tokio::test]
async fn keys_may_hold_anything_that_is_text() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ["\0", "\r\n", "a\r\nDEL b", " ", "*", "[", "\\", "{x}", "ü/词/🦀", "..", "/etc/passwd", "\u{202e}"];
    for _ in 0..2 {
        let cache = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
        for key in keys {
            put(&cache, NS, key, key, TtlPolicy::Extended).await;
        }
        for key in keys {
            assert_eq!(read(&cache, NS, key).await.as_deref(), Some(key));
        }
        cache.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_and_the_old_one_stays() {
    let config = settings("[limits]\nmax_value = \"1MiB\"");
    let cache = Cache::builder().config(config).memory(64 << 20).open().await.unwrap();
    put(&cache, NS, "k", "old", TtlPolicy::Medium).await;
    let error = cache.set(NS, "k", text("big", (1 << 20) + 1).as_str(), TtlPolicy::Medium).await.unwrap_err();
    says(&error, ErrorKind::InvalidValue, &["\"k\"", "1048577"]);
    assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("old"));
    put(&cache, NS, "k", &text("big", 1 << 20), TtlPolicy::Medium).await;
    let fetch = cache.get_or_fetch(NS, "fetched", TtlPolicy::Short, || async { Ok::<_, String>(text("big", 2 << 20)) });
    assert!(fetch.await.is_err());
}

#[tokio::test]
async fn a_bad_pattern_is_named_and_touches_nothing() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Medium).await;
    says(&cache.invalidate_pattern(NS, "").await.unwrap_err(), ErrorKind::InvalidPattern, &["pattern", "empty"]);
    for bad in ["*".repeat(1_000_000), "x".repeat(10 << 20), "a*".repeat(5_000)] {
        let error = cache.invalidate_pattern(NS, &bad).await.unwrap_err();
        says(&error, ErrorKind::InvalidPattern, &["pattern"]);
        assert!(error.to_string().len() < 300);
    }
    assert!(read(&cache, NS, "k").await.is_some());
}

#[tokio::test]
async fn a_bad_redis_url_is_named_and_its_password_is_not_shown() {
    let secret = "s3cr3t-pass";
    for url in
        ["http://user:s3cr3t-pass@host", "redis://:s3cr3t-pass@host:notaport", "s3cr3t-pass", "redis://u:s3cr3t-pass@:6379"]
    {
        let error = match Cache::builder().memory(8 << 20).redis(url.to_owned()).open().await {
            Ok(_) => panic!("{url} was taken for a URL of Redis"),
            Err(error) => error,
        };
        says(&error, ErrorKind::Config, &["redis.url"]);
        assert!(!format!("{error} {error:?}").contains(secret), "{error}");
    }
}

/// A wrong password is found out at run time; it must not show in health either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_password_is_told_without_being_shown() {
    let redis = support::redis::RedisServer::start();
    redis.ask(&["CONFIG", "SET", "requirepass", "the-right-one"]);
    let url = format!("redis://:s3cr3t-pass@127.0.0.1:{}", redis.port());
    let shown = match Cache::builder().memory(8 << 20).redis(url).open().await {
        Ok(cache) => {
            put(&cache, NS, "k", "v", TtlPolicy::Medium).await;
            support::until("health says so", async || tier_of(&cache.health().await, Tier::Redis).state != TierState::Up).await;
            format!("{:?} {:?}", cache.health().await, cache.analytics())
        }
        Err(error) => format!("{error} {error:?}"),
    };
    assert!(!shown.contains("s3cr3t-pass"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_opener_of_a_folder_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await;
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let first = open().await.unwrap();
    put(&first, NS, "k", "v", TtlPolicy::Extended).await;
    says(&open().await.map(drop).unwrap_err(), ErrorKind::Locked, &[name]);
    assert_eq!(read(&first, NS, "k").await.as_deref(), Some("v"));
    first.flush().await.unwrap();
    first.close().await.unwrap();
    let next = open().await.expect("after close the folder is free");
    assert_eq!(read(&next, NS, "k").await.as_deref(), Some("v"));
    next.close().await.unwrap();

    let child = Child::play(module_path!(), "holder", &[("FOLDER", folder.path().to_str().unwrap())]);
    assert_eq!(child.hear(), "open");
    says(&open().await.map(drop).unwrap_err(), ErrorKind::Locked, &[name]);
    child.kill();
    let last = open().await.expect("a killed process holds no folder");
    assert_eq!(read(&last, NS, "k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_is_refused_and_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("not-a-folder");
    std::fs::write(&file, "somebody's data").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Cache::builder().memory(8 << 20).disk(&path, 64 << 20).open().await.map(drop).unwrap_err();
        says(&error, ErrorKind::Io, &["not-a-folder"]);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "somebody's data");
}

/// Rights do not bind root, so the folder lies on a file system that is mounted read-only for a child.
#[test]
fn a_read_only_folder_is_an_error_or_a_cache_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let works = std::process::Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("NOT TESTED: `unshare -rm` does not work here, so no read-only file system could be mounted");
        return;
    }
    let before = "mount --bind \"$FOLDER\" \"$FOLDER\" && mount -o remount,bind,ro \"$FOLDER\"";
    let child = Child::play_unshared(module_path!(), "read-only", &[("FOLDER", folder.path().to_str().unwrap())], before);
    let said = child.hear();
    assert!(said.contains("read-only"), "{said}");
    assert!(said.starts_with("refused Io") || said.starts_with("without Down"), "{said}");
}

#[tokio::test]
async fn a_namespace_from_outside_is_checked() {
    for bad in ["", "two words", "ÜBER", &"x".repeat(65)] {
        says(&Namespace::parse(bad).unwrap_err(), ErrorKind::InvalidNamespace, &["namespace", "a-z"]);
    }
}

#[tokio::test]
async fn capacities_that_cannot_work_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Cache::builder().memory(0).open().await.map(drop).unwrap_err();
    says(&memory, ErrorKind::Config, &["memory.capacity"]);
    let disk = Cache::builder().memory(8 << 20).disk(folder.path(), 0).open().await.map(drop).unwrap_err();
    says(&disk, ErrorKind::Config, &["disk.capacity"]);
}

#[tokio::test]
async fn a_key_prefix_that_would_break_the_keys_is_refused() {
    for bad in ["", "a{b", "a}b", "a\nb"] {
        let builder = Cache::builder().memory(8 << 20).redis("redis://127.0.0.1:1").key_prefix(bad);
        let error = match builder.open().await {
            Ok(_) => panic!("{bad:?} was taken for a prefix"),
            Err(error) => error,
        };
        says(&error, ErrorKind::Config, &["key_prefix"]);
    }
}
