//! What is asked for once wears no device: which of the values that memory lets go the disk takes.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::path::Path;

use crate::support::{put, read, settings, text, tiers};
use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

/// Little memory, and a disk that is soon full.
async fn open(folder: &Path, admission: &str) -> Cache {
    let config = settings(&format!("[disk]\nadmission = \"{admission}\""));
    Cache::builder().config(config).memory(1 << 20).disk(folder, 16 << 20).open().await.expect("the cache opens")
}

/// Sets so many values of 8 KB that nobody ever asks for.
async fn wonders(cache: &Cache, kind: &str, count: usize) {
    for i in 0..count {
        let key = format!("{kind}/{i}");
        put(cache, NS, &key, &text(&key, 8_000), TtlPolicy::Long).await;
        if i % 100 == 99 {
            cache.flush().await.unwrap(); // else the queue is what refuses
        }
    }
    cache.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_asked_for_again_is_written_only_while_there_is_room_to_spare() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), "reused").await;
    wonders(&cache, "early", 1_000).await;
    assert_eq!(cache.analytics().disk_log.demotions_not_admitted, 0, "there was room");
    wonders(&cache, "late", 3_000).await;
    let all = cache.analytics();
    assert!(all.disk_log.demotions_not_admitted > 1_000, "{}", all.disk_log);
    assert_eq!(all.disk.evictions, 0, "nothing had to go for what nobody asked for");
    for i in 0..500 {
        let key = format!("early/{i}");
        assert!(!tiers(&cache, NS, &key).await.is_empty(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_hit_in_memory_or_set_with_a_disk_policy_is_written_to_a_full_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), "reused").await;
    wonders(&cache, "wonder", 3_000).await;
    let before = cache.analytics();
    for i in 0..200 {
        let key = format!("hit/{i}");
        put(&cache, NS, &key, &text(&key, 8_000), TtlPolicy::Long).await;
        assert!(read(&cache, NS, &key).await.is_some());
    }
    for i in 0..50 {
        let key = format!("set/{i}");
        put(&cache, NS, &key, &text(&key, 8_000), TtlPolicy::Extended).await;
    }
    wonders(&cache, "after", 300).await;
    cache.flush().await.unwrap();
    for i in 0..50 {
        let key = format!("set/{i}");
        assert!(tiers(&cache, NS, &key).await.contains(&Tier::Disk), "{key}");
    }
    let mut down = 0;
    for i in 0..200 {
        down += usize::from(tiers(&cache, NS, &format!("hit/{i}")).await == [Tier::Disk]);
    }
    assert!(down > 50, "{down} of 200 that were hit are on disk");
    assert!(cache.analytics().memory.demotions - before.memory.demotions >= down as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_admission_all_everything_that_memory_lets_go_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), "all").await;
    wonders(&cache, "wonder", 3_000).await;
    let all = cache.analytics();
    assert_eq!(all.disk_log.demotions_not_admitted, 0);
    assert!(all.disk.evictions > 0, "the oldest had to go");
    assert!(all.disk_log.bytes_written > all.disk_log.value_bytes_written, "{}", all.disk_log);
    let ratio = all.disk_log.bytes_written as f64 / all.disk_log.value_bytes_written as f64;
    assert_eq!(all.disk_log.write_amplification, ratio);
    assert!(all.to_string().contains("disk log"), "{all}");
}
