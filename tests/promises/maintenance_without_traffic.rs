//! What happens when nobody calls: expired entries leave, space comes back, tiers are looked after.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::path::Path;

use crate::support::redis::RedisServer;
use crate::support::{self, put, secs, text, until};
use aurum_cache::{Cache, Clock, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

/// What the files of a folder take on the device, in bytes.
fn space(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => space(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_entries_leave_memory_and_their_bytes_come_back() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(16 << 20).clock(clock.clone()).open().await.unwrap();
    let empty = cache.analytics().tier(Tier::Memory).bytes;
    for i in 0..2_000 {
        put(&cache, NS, &i.to_string(), &text("v", 2_000), TtlPolicy::Short).await;
    }
    let full = cache.analytics().tier(Tier::Memory).bytes;
    assert!(full > empty + 2_000 * 2_000);
    clock.advance(secs(301));
    until("memory is empty again", async || {
        let analytics = cache.analytics();
        let memory = analytics.tier(Tier::Memory);
        memory.entries == 0 && memory.bytes < empty + (full - empty) / 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_entries_leave_the_disk_and_space_comes_back_to_the_file_system() {
    let (clock, folder) = (Clock::manual(), tempfile::tempdir().unwrap());
    let builder = Cache::builder().memory(8 << 20).disk(folder.path(), 256 << 20);
    let cache = builder.clock(clock.clone()).open().await.unwrap();
    let value = text("v", 100_000);
    for i in 0..600 {
        put(&cache, NS, &i.to_string(), &value, TtlPolicy::Extended).await;
    }
    cache.flush().await.unwrap();
    let full = space(folder.path());
    assert!(full > 55_000_000, "60 MB were written, the folder holds {full}");
    clock.advance(secs(25 * 3_600));
    until("most of the space is back", async || space(folder.path()) < full / 2).await;
    until("the entries are gone", async || cache.analytics().tier(Tier::Disk).entries == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalidated_entries_give_their_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(8 << 20).disk(folder.path(), 256 << 20).open().await.unwrap();
    let value = text("v", 100_000);
    for i in 0..600 {
        put(&cache, NS, &i.to_string(), &value, TtlPolicy::Extended).await;
    }
    cache.flush().await.unwrap();
    let full = space(folder.path());
    cache.invalidate_namespace(NS).await.unwrap();
    until("most of the space is back", async || space(folder.path()) < full / 2).await;
}

/// 64 MiB of values through a disk of 32 MiB: the folder never holds more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_keeps_its_budget_while_it_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(4 << 20).disk(folder.path(), 32 << 20).open().await.unwrap();
    let value = text("v", 64_000);
    let mut most = 0;
    for i in 0..1_000 {
        put(&cache, NS, &i.to_string(), &value, TtlPolicy::Extended).await;
        if i % 20 == 0 {
            most = most.max(space(folder.path()));
        }
    }
    cache.flush().await.unwrap();
    most = most.max(space(folder.path()));
    assert!(most <= 32 << 20, "{most} bytes in a disk tier of {}", 32 << 20);
    assert!(cache.analytics().tier(Tier::Disk).evictions > 300);
    assert!(cache.contains(NS, "999").await && !cache.contains(NS, "0").await, "the oldest went first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_watched_although_nobody_calls() {
    let mut redis = RedisServer::start();
    let cache = support::patient().memory(8 << 20).redis(redis.url()).open().await.unwrap();
    redis.restart();
    // Nobody calls the cache: it has to find the new server by itself.
    until("its connection is back", async || redis.ask(&["CLIENT", "LIST"]).matches("addr=").count() > 2).await;
    until("health says so", async || support::tier_of(&cache.health().await, Tier::Redis).state == aurum_cache::TierState::Up)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_cache_ends_its_tasks_and_frees_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let cache = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await;
        let cache = cache.unwrap_or_else(|e| panic!("round {round}: {e}"));
        put(&cache, NS, &round.to_string(), "v", TtlPolicy::Extended).await;
        cache.flush().await.unwrap();
        drop(cache); // without close
        until("the folder is free again", async || {
            match Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await {
                Ok(again) => {
                    assert!(again.contains(NS, &round.to_string()).await);
                    again.close().await.unwrap();
                    true
                }
                Err(_) => false,
            }
        })
        .await;
    }
}
