//! Removals and sweeps: in the log when they return, whoever found the key first, and however fast others write.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::files::faults::Call;
use super::super::sweep::Sweep;
use super::*;

const A_WHILE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_second_removal_waits_for_the_first_to_be_in_the_log() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    appended(&disk).await;
    bench.faults.hang(Some(Call::Write));
    let first = bench.remove(&disk, "k");
    let second = bench.remove(&disk, "k");
    assert_eq!((first.existed, second.existed), (true, false));
    assert!(tokio::time::timeout(A_WHILE, disk.settled(second.ticket)).await.is_err(), "the tombstone is not in the log");
    let sweep = disk.remove_matching(None, None, "", disk.position());
    assert!(tokio::time::timeout(A_WHILE, sweep).await.is_err(), "nor for the sweep");
    bench.faults.hang(None);
    disk.settled(second.ticket).await.unwrap();
    assert!(disk.remove_matching(None, None, "", disk.position()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_does_not_follow_the_segments_that_are_born_while_it_is_under_way() {
    let bench = Bench::new();
    let disk = bench.open();
    for n in 0..40 {
        bench.put(&disk, &format!("old{n}"), &[1; 3000]);
    }
    appended(&disk).await;
    let (segments, reads, born) = (disk.counts().segments, bench.faults.seen(Call::Read), AtomicU64::new(0));
    // For each key that the sweep asks about, a whole new segment is written.
    let asked = |_: &str| {
        for _ in 0..5 {
            bench.put(&disk, &format!("new{}", born.fetch_add(1, Ordering::Relaxed)), &[2; 3000]);
        }
        while disk.shared().written.load(Ordering::Acquire) + 1 < disk.position() {
            std::thread::yield_now();
        }
        true
    };
    let removed = disk.remove_matching(None, Some(&asked), "", disk.position()).await.unwrap();
    assert_eq!(removed.len(), 40);
    assert!(disk.counts().segments > 3 * segments, "{}", disk.counts().segments);
    let read = bench.faults.seen(Call::Read) - reads;
    assert!(read <= segments, "{read} segments were read, there were {segments} when the sweep began");
}

#[tokio::test]
async fn what_is_carried_over_while_a_sweep_is_under_way_is_swept_too() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "hot", b"hot");
    appended(&disk).await;
    let mut sweep = Sweep::new(disk.shared().clone(), None, "hot", disk.position());
    sweep.take_pending(None);
    let newest = disk.shared().segments.newest();
    let mut n = 0;
    while disk.counts().carried == 0 {
        assert!(bench.get(&disk, "hot").await.is_some());
        bench.put(&disk, &format!("k{n}"), &[7; 3000]);
        appended(&disk).await;
        n += 1;
    }
    assert!(disk.shared().segments.all().iter().all(|segment| Some(segment.id) > newest), "the original is gone");
    sweep.take_carried(None);
    assert_eq!(sweep.removed.len(), 1);
    assert!(bench.get(&disk, "hot").await.is_none());
    disk.close().await.unwrap();
    drop(sweep);
    drop(disk);
    assert!(bench.get(&bench.open(), "hot").await.is_none());
}

/// A pattern that is invalidated while the tier is down means what is in the log then, too.
#[tokio::test]
async fn what_a_sweep_meant_while_the_tier_was_down_does_not_come_back_with_it() {
    let faults =
        [("it can be read", Call::Write, Fault::Full, true), ("it cannot even be read", Call::Read, Fault::Broken, false)];
    for (name, call, fault, survives) in faults {
        let bench = Bench::new();
        let disk = bench.open();
        bench.put(&disk, "pjm:1", b"old");
        bench.put(&disk, "ercot:1", b"spared");
        for n in 0..30 {
            bench.put(&disk, &format!("x{n}"), &[7; 3000]);
        }
        appended(&disk).await;
        bench.faults.only(Call::Write, Fault::Full);
        bench.put(&disk, "n", b"no room");
        let _ = disk.settled(disk.position() - 1).await;
        assert_eq!(disk.report().state, TierState::Down);
        bench.faults.only(call, fault);
        let swept = disk.remove_matching(None, None, "pjm:", disk.position()).await;
        assert!(swept.is_err(), "{name}: it is not in the log");
        bench.faults.heal();
        up(&disk).await;
        assert_eq!(bench.get(&disk, "pjm:1").await, None, "{name}");
        // Where nobody could tell which keys were meant, all had to go.
        assert_eq!(bench.get(&disk, "ercot:1").await.is_some(), survives, "{name}");
        bench.put(&disk, "after", b"works");
        disk.close().await.unwrap();
        drop(disk);
        let disk = bench.open();
        assert_eq!(bench.get(&disk, "pjm:1").await, None, "{name}, after a reopening");
        assert!(bench.get(&disk, "after").await.is_some(), "{name}");
    }
}
