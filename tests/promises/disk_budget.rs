//! The capacity is kept at every moment, whatever the sizes of the values: looked at again and again while it is written over.

#![cfg(feature = "disk")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::{put, text};
use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;
const CAPACITY: u64 = 64 << 20;

/// Bytes of all files below a folder. Segments are looked at newest first: between two looks the newest may grow and the oldest go, and what
/// is added up must have been there at one moment.
fn space(folder: &Path) -> u64 {
    let mut paths: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    paths.sort_by(|a, b| b.cmp(a));
    let size = |path: &std::path::PathBuf| match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => space(path),
        Ok(meta) => meta.len(),
        Err(_) => 0, // gone meanwhile
    };
    paths.iter().map(size).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_of_four_times_the_capacity_never_exceeds_it() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(4 << 20).disk(folder.path(), CAPACITY).open().await.unwrap();
    let (done, most, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let watcher = std::thread::spawn({
        let (done, most, looks, folder) = (done.clone(), most.clone(), looks.clone(), folder.path().to_owned());
        move || {
            while !done.load(Ordering::Acquire) {
                most.fetch_max(space(&folder), Ordering::AcqRel);
                looks.fetch_add(1, Ordering::AcqRel);
                std::thread::yield_now();
            }
        }
    });
    let mut rng = fastrand::Rng::with_seed(3);
    // From 1 B to 1 MiB, each size as likely as its double.
    let big = text("v", 1 << 20);
    let (mut written, mut n) = (0, 0_u64);
    while written < 4 * CAPACITY {
        let bytes = (2_f64.powf(rng.f64() * 20.0) as usize).clamp(1, 1 << 20);
        put(&cache, NS, &format!("k{}", rng.u32(0..5_000)), &big[..bytes], TtlPolicy::Persistent).await;
        written += bytes as u64;
        n += 1;
        if n.is_multiple_of(500) {
            cache.invalidate_pattern(NS, &format!("k{}*", rng.u32(1..10))).await.unwrap();
            cache.run_maintenance().await;
        }
    }
    cache.flush().await.unwrap();
    let counted = cache.analytics().tier(Tier::Disk).bytes;
    assert!(counted <= CAPACITY, "{counted} bytes are counted");
    cache.close().await.unwrap();
    done.store(true, Ordering::Release);
    watcher.join().unwrap();
    let (most, looks) = (most.load(Ordering::Acquire).max(space(folder.path())), looks.load(Ordering::Acquire));
    assert!(most <= CAPACITY, "{most} bytes in a disk tier of {CAPACITY}");
    assert!(most > CAPACITY / 2, "it was not filled: {most}");
    assert!(looks > 20, "only {looks} looks");
}
