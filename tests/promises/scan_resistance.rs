//! A flood of keys that are asked for once must not wash the hot set out of memory, nor fill it beyond its budget, nor bring all of the disk through it.

use crate::support;
use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::EXTERNAL_DATA;
const HOT: u64 = 1_000;

/// A read-through request; `true` if it was a hit.
async fn request(cache: &Cache, key: &str, value: &str) -> bool {
    let hit = cache.get::<str>(NS, key).await.is_some();
    if !hit {
        support::put(cache, NS, key, value, TtlPolicy::Medium).await;
    }
    hit
}

#[tokio::test]
async fn a_flood_of_one_hit_keys_leaves_the_hot_set_in_memory() {
    let cache = Cache::builder().memory(4 << 20).open().await.unwrap();
    let value = support::text("v", 500);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20 * HOT {
        request(&cache, &format!("hot/{}", random.u64(..HOT)), &value).await;
    }
    let mut hits = 0_u64;
    for _ in 0..20 * HOT {
        hits += u64::from(request(&cache, &format!("hot/{}", random.u64(..HOT)), &value).await);
    }
    let before = hits as f64 / (20 * HOT) as f64;
    let (mut hits, flood) = (0_u64, 100_000);
    for one in 0..flood {
        request(&cache, &format!("once/{one}"), &value).await;
        hits += u64::from(request(&cache, &format!("hot/{}", random.u64(..HOT)), &value).await);
    }
    let during = hits as f64 / flood as f64;
    assert!(before > 0.99, "the hot set fits: {before}");
    assert!(during > before - 0.05, "hit ratio of the hot set {before} before the flood, {during} in it");
    let analytics = cache.analytics();
    let memory = analytics.tier(Tier::Memory);
    assert!(memory.bytes <= memory.capacity, "{} of {}", memory.bytes, memory.capacity);
    assert!(memory.evictions > flood / 2, "the flood was larger than memory");
}

/// That something does not exist costs memory too, and is bound by the same budget.
#[tokio::test]
async fn a_flood_of_absent_keys_is_bound_by_the_budget() {
    let cache = Cache::builder().memory(1 << 20).open().await.unwrap();
    for one in 0..30_000 {
        let key = format!("absent/{one}");
        let absent = cache.get_or_fetch(NS, &key, TtlPolicy::UltraShort, || async { Ok::<Option<u64>, String>(None) });
        assert_eq!(absent.await.unwrap().to_value(), None);
    }
    let analytics = cache.analytics();
    let memory = analytics.tier(Tier::Memory);
    assert!(memory.bytes <= memory.capacity && memory.entries < 20_000, "{} entries in {} bytes", memory.entries, memory.bytes);
}

/// Only what is read a second time is worth a place in memory, when many more keys are read from the disk than memory holds, and all of them alike.
#[cfg(feature = "disk")]
#[tokio::test]
async fn a_scan_of_the_disk_does_not_go_through_memory() {
    const KEYS: u64 = 8_000;
    let (folder, value) = (tempfile::tempdir().unwrap(), support::text("v", 1_000));
    let cache = Cache::builder().memory(1 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    for one in 0..KEYS {
        support::put(&cache, NS, &format!("on disk/{one}"), &value, TtlPolicy::Extended).await;
    }
    cache.flush().await.unwrap();
    let scan = async || {
        let before = cache.analytics();
        for one in 0..KEYS {
            assert!(cache.get::<str>(NS, &format!("on disk/{one}")).await.is_some());
        }
        let after = cache.analytics();
        (after.disk.promotions - before.disk.promotions, after.disk_log.page_cache_reads - before.disk_log.page_cache_reads)
    };
    let (first, _) = scan().await;
    assert!(first > 500, "{first} promotions: at first it is not known what they are worth");
    let (second, from_page_cache) = scan().await;
    if from_page_cache < KEYS / 2 {
        println!(
            "NOT TESTED: this file system does not tell what is in the page cache, and what comes from the device is always promoted"
        );
        return;
    }
    assert!(second < KEYS / 20, "{second} promotions in a scan of {KEYS}");
    // A key that is asked for again is promoted all the same.
    for tier in [Tier::Disk, Tier::Disk, Tier::Memory] {
        assert_eq!(cache.get::<str>(NS, "on disk/7").await.unwrap().tier(), tier);
    }
}
