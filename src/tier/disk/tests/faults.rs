//! A device that fails, fills, or has no descriptor left: the tier goes down, says why, loses nothing that it could keep, and comes back.

use super::super::files::faults::Call;
use super::*;

#[tokio::test]
async fn while_the_tier_is_down_the_queue_holds_one_removal_a_key() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"old");
    appended(&disk).await;
    bench.faults.after(0, Fault::Broken);
    for _ in 0..1000 {
        bench.put(&disk, "k", b"new");
        bench.remove(&disk, "k");
        let _ = disk.settled(disk.position() - 1).await;
    }
    assert_eq!(disk.report().state, TierState::Down);
    assert!(disk.counts().queued_bytes < 200, "{}", disk.counts().queued_bytes);
    bench.faults.heal();
    up(&disk).await;
    disk.close().await.unwrap();
    drop(disk);
    assert_eq!(bench.get(&bench.open(), "k").await, None);
}

#[tokio::test]
async fn owing_more_than_the_queue_may_hold_lets_the_log_go() {
    let mut bench = Bench::new();
    bench.config.queue_bytes = 16 << 10;
    let disk = bench.open();
    for n in 0..1000 {
        bench.put(&disk, &format!("k{n}"), b"old");
    }
    appended(&disk).await;
    bench.faults.after(0, Fault::Broken);
    let mut last = Removal { existed: false, ticket: 0 };
    for n in 0..1000 {
        last = bench.remove(&disk, &format!("k{n}"));
        let _ = disk.settled(last.ticket).await;
        assert!(disk.counts().queued_bytes <= bench.config.queue_bytes, "{n}: {}", disk.counts().queued_bytes);
    }
    assert!(disk.settled(last.ticket).await.is_err());
    bench.faults.heal();
    up(&disk).await;
    disk.settled(last.ticket).await.unwrap();
    bench.put(&disk, "after", b"works");
    disk.close().await.unwrap();
    drop(disk);
    let disk = bench.open();
    for n in 0..1000 {
        assert_eq!(bench.get(&disk, &format!("k{n}")).await, None, "k{n}");
    }
    assert!(bench.get(&disk, "after").await.is_some());
}

#[tokio::test]
async fn too_few_descriptors_or_no_answer_at_open_lose_nothing() {
    let bench = filled().await;
    let before = bench.faults.calls();
    bench.open().close().await.unwrap();
    let calls = bench.faults.calls() - before;
    for (round, fault) in [Fault::NoDescriptor, Fault::Broken, Fault::Full].into_iter().enumerate() {
        for call in (round as u64..calls).step_by(7) {
            bench.faults.after(call, fault);
            let disk = bench.open();
            let is_down = disk.report().state == TierState::Down;
            let (spared, doomed) = (format!("late{}", call % 400), format!("gone{}", call % 20));
            let removal = bench.remove(&disk, &doomed);
            assert!(!is_down || disk.settled(removal.ticket).await.is_err(), "{call}: nobody knows yet what to remove");
            bench.faults.heal();
            up(&disk).await;
            disk.settled(removal.ticket).await.unwrap();
            assert_eq!(readable(&bench, &disk).await, 400, "{fault:?} from call {call} on");
            assert!(bench.get(&disk, &spared).await.is_some());
            disk.close().await.unwrap();
        }
    }
    assert_eq!(readable(&bench, &bench.open()).await, 400);
}

/// Whoever asks a tier that could not read its log yet must not be told that there is nothing to remove.
#[tokio::test]
async fn what_is_removed_before_the_log_could_be_read_stays_removed() {
    let bench = filled().await;
    bench.faults.after(0, Fault::NoDescriptor);
    let disk = bench.open();
    assert_eq!(disk.report().state, TierState::Down);
    assert!(disk.report().reason.unwrap().contains("Too many open files"));
    bench.remove(&disk, "k7");
    bench.put(&disk, "k8", b"is not taken while down, but what it replaces is over");
    bench.faults.heal();
    up(&disk).await;
    for key in ["k7", "k8"] {
        assert_eq!(bench.get(&disk, key).await, None, "{key}");
    }
    assert!(bench.get(&disk, "k9").await.is_some());
    disk.close().await.unwrap();
    drop(disk);
    let disk = bench.open();
    for key in ["k7", "k8"] {
        assert_eq!(bench.get(&disk, key).await, None, "{key} after a reopening");
    }
    assert!(bench.get(&disk, "k9").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_does_not_wait_for_a_ledger_that_waits_for_the_device() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.faults.hang(Some(Call::Sync));
    let writing = tokio::spawn({
        let disk = disk.clone();
        async move { disk.append_event(1, b"event".to_vec()).await }
    });
    while disk.shared().ledger.try_lock().is_some() {
        tokio::task::yield_now().await;
    }
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send((disk.usage().bytes, disk.counts().segments, disk.report().state)));
    let answer = told.recv_timeout(Duration::from_secs(30));
    bench.faults.hang(None);
    assert!(answer.is_ok(), "it waited");
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_segment_whose_making_was_cut_short_costs_nothing_at_any_later_opening() {
    let bench = filled().await;
    for bytes in [0, 10, 32] {
        let disk = bench.open();
        let segments = disk.counts().segments;
        while disk.counts().segments == segments {
            bench.put(&disk, "filler", &[0; 3000]);
            appended(&disk).await;
        }
        disk.close().await.unwrap();
        drop(disk);
        std::fs::write(segment_paths(&bench).pop().unwrap(), vec![0; bytes]).unwrap();
        for opening in 0..3 {
            let disk = bench.open();
            assert_eq!(readable(&bench, &disk).await, 400, "{bytes} bytes, opening {opening}");
            assert_eq!(disk.counts().damaged, 0);
            disk.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_counts_as_synced_before_it_was_written_again() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    disk.flush().await.unwrap();
    bench.put(&disk, "k", b"two");
    appended(&disk).await;
    bench.faults.only(Call::Sync, Fault::Broken);
    assert!(disk.flush().await.is_err());
    assert_eq!(disk.report().state, TierState::Down);
    bench.faults.heal();
    assert!(disk.flush().await.is_err(), "a sync that succeeds now says nothing of what the failed one left out");
    let open = disk.shared().segments.all().pop().unwrap();
    assert!(open.sync().is_err());
    let writes = bench.faults.seen(Call::Write);
    up(&disk).await;
    // The record and the probe.
    assert!(bench.faults.seen(Call::Write) >= writes + 2);
    disk.flush().await.unwrap();
    assert_eq!(bench.get(&disk, "k").await.as_deref(), Some(&b"two"[..]));
}

#[tokio::test]
async fn what_a_failed_sync_has_lost_is_let_go_and_never_misread() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    bench.put(&disk, "other", b"one");
    disk.flush().await.unwrap();
    let synced = disk.shared().segments.bytes();
    bench.remove(&disk, "k");
    appended(&disk).await;
    bench.faults.only(Call::Sync, Fault::Broken);
    assert!(disk.flush().await.is_err());
    // The system lets go of the page: what it reads now is what the device has.
    let path = segment_paths(&bench).pop().unwrap();
    let lost = vec![0; (disk.shared().segments.bytes() - synced) as usize];
    std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(&lost, synced).unwrap();
    bench.faults.heal();
    up(&disk).await;
    assert_eq!(bench.get(&disk, "k").await, None);
    bench.put(&disk, "after", b"works");
    disk.close().await.unwrap();
    drop(disk);
    let disk = bench.open();
    assert_eq!(bench.get(&disk, "k").await, None, "its removal was lost, so all that it could have meant is");
    assert!(bench.get(&disk, "after").await.is_some());
    assert_eq!(disk.counts().damaged, 0, "what was lost was not written again as if it were whole");
}

/// Replaced and removed while down, then closed before it could come back by itself.
#[tokio::test]
async fn a_close_while_down_leaves_nothing_behind_that_was_taken_back() {
    for is_healed in [true, false] {
        let bench = Bench::new();
        let disk = bench.open();
        bench.put(&disk, "removed", b"old");
        bench.put(&disk, "replaced", b"old");
        appended(&disk).await;
        bench.faults.after(0, Fault::Full);
        bench.remove(&disk, "removed");
        bench.put(&disk, "replaced", b"new");
        let _ = disk.settled(disk.position() - 1).await;
        if is_healed {
            bench.faults.heal();
        }
        assert_eq!(disk.close().await.is_ok(), is_healed);
        drop(disk);
        bench.faults.heal();
        let disk = bench.open();
        for key in ["removed", "replaced"] {
            assert_eq!(bench.get(&disk, key).await, None, "{key}");
        }
    }
}
