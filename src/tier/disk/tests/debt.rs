//! A process that is killed while the log owes something: the next one serves nothing that was taken back, and where nothing was owed loses nothing.

use std::sync::atomic::Ordering;

use super::super::files::faults::Call;
use super::*;

/// The folder as a process that is killed now would leave it, in a bench of its own.
pub(super) fn killed(bench: &Bench) -> Bench {
    let after = Bench { clock: bench.clock.clone(), hasher: bench.hasher.clone(), ..Bench::new() };
    std::fs::create_dir(after.path()).unwrap();
    // A folder that was never made has none; a file may be gone again, as after a kill.
    for file in std::fs::read_dir(bench.path()).into_iter().flatten().flatten().filter(|file| file.path().is_file()) {
        let _ = std::fs::copy(file.path(), after.path().join(file.file_name()));
    }
    after
}

/// What a process that is killed now leaves behind, once nothing is under way. `None` if something is owed and the device has taken no mark of it.
pub(super) async fn killed_at_rest(bench: &Bench, disk: &Disk) -> Option<Bench> {
    let shared = disk.shared();
    let owes = || {
        let queue = shared.queue.lock();
        queue.let_go || shared.written.load(Ordering::Acquire) < queue.last
    };
    loop {
        shared.wait(|| (!owes() || shared.is_down() && shared.queue.lock().is_mark_tried).then_some(())).await;
        let calls = bench.faults.calls();
        let is_told = !owes() || shared.debt.is_marked();
        let after = killed(bench);
        // Nothing was done to the files while they were copied.
        if bench.faults.calls() == calls {
            return is_told.then_some(after);
        }
    }
}

/// Waits until it was tried to mark the folder.
async fn marked(disk: &Disk) {
    disk.shared().wait(|| disk.shared().queue.lock().is_mark_tried.then_some(())).await;
}

#[tokio::test]
async fn a_process_killed_while_the_tier_is_down_leaves_nothing_behind_that_was_taken_back() {
    for how in ["removed", "replaced", "swept", "not to be swept"] {
        let bench = Bench::new();
        let disk = bench.open();
        bench.put(&disk, "k", b"old");
        for n in 0..12 {
            bench.put(&disk, &format!("n{n}"), &[0; 3000]);
        }
        appended(&disk).await;
        bench.faults.after(0, Fault::Full);
        match how {
            "removed" => drop(bench.remove(&disk, "k")),
            "replaced" => bench.put(&disk, "k", b"new"),
            "swept" => drop(disk.remove_matching(None, None, "", u64::MAX).await),
            _ => {
                // What the segment says cannot be read, and the writer has nothing else to do.
                bench.faults.only(Call::Read, Fault::Broken);
                disk.remove_matching(None, None, "", u64::MAX).await.unwrap_err();
            }
        }
        let _ = disk.settled(disk.position() - 1).await;
        marked(&disk).await;
        let after = killed(&bench);
        let inspection = inspect(after.path(), &mut |entry| assert!(!entry.live, "{how}: {}", entry.key)).unwrap();
        assert!(inspection.damaged > 0, "{how}: a look says that something is amiss");
        let disk = after.open();
        assert_eq!(after.get(&disk, "k").await, None, "{how}");
        assert!(disk.counts().distrusted > 1, "nobody knows what else was taken back");
        after.put(&disk, "later", b"v");
        disk.close().await.unwrap();
        drop(disk);
        assert!(after.get(&after.open(), "later").await.is_some(), "it is let go once");
    }
}

#[tokio::test]
async fn what_is_removed_after_the_tier_went_down_is_marked_too_and_what_was_paid_costs_nothing() {
    let bench = Bench::new();
    let disk = bench.open();
    for key in ["kept", "removed"] {
        bench.put(&disk, key, b"old");
    }
    appended(&disk).await;
    // It goes down over a sync, with nothing owed: a process killed now loses nothing.
    bench.faults.after(0, Fault::Full);
    disk.flush().await.unwrap_err();
    let after = killed(&bench);
    assert!(after.get(&after.open(), "kept").await.is_some());

    bench.remove(&disk, "removed");
    marked(&disk).await;
    let after = killed(&bench);
    let afterwards = after.open();
    for key in ["kept", "removed"] {
        assert_eq!(after.get(&afterwards, key).await, None, "nobody knows which of them was taken back");
    }

    bench.faults.heal();
    up(&disk).await;
    appended(&disk).await;
    disk.shared().wait(|| (!disk.shared().debt.is_marked()).then_some(())).await;
    let after = killed(&bench);
    let afterwards = after.open();
    assert!(after.get(&afterwards, "kept").await.is_some());
    assert_eq!(after.get(&afterwards, "removed").await, None);
}

#[tokio::test]
async fn a_mark_of_the_process_before_is_heeded_even_if_the_first_look_at_the_folder_fails() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"old");
    appended(&disk).await;
    bench.faults.after(0, Fault::Full);
    bench.remove(&disk, "k");
    marked(&disk).await;
    let mut downs = 0;
    for calls in 0..20 {
        let after = killed(&bench);
        after.faults.between(calls, 1, Fault::NoDescriptor);
        let disk = after.open();
        downs += u32::from(disk.report().state == TierState::Down);
        // Now this process owes something, too, and the mark that it finds is not its own.
        after.remove(&disk, "other");
        if disk.report().state == TierState::Down {
            marked(&disk).await;
        }
        up(&disk).await;
        assert_eq!(after.get(&disk, "k").await, None, "after {calls} calls");
    }
    assert!(downs > 3, "{downs}");
}

#[tokio::test]
async fn a_device_that_takes_no_mark_is_asked_again() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"old");
    appended(&disk).await;
    bench.faults.after(0, Fault::Broken);
    let removal = bench.remove(&disk, "k");
    disk.settled(removal.ticket).await.unwrap_err();
    assert!(!disk.shared().debt.is_marked());
    bench.faults.heal();
    bench.faults.after(0, Fault::Full);
    disk.maintain().await;
    disk.shared().wait(|| disk.shared().debt.is_marked().then_some(())).await;
    let after = killed(&bench);
    assert_eq!(after.get(&after.open(), "k").await, None);
}
