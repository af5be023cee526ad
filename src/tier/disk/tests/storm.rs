//! Every call on a file fails once, and each way of failing has its turn: nothing panics, nothing wrong is read, nothing that was removed
//! comes back, not even in a process that opens the folder after this one was killed in the middle of it; health says why, and the tier comes back
//! when the fault is gone.

use std::collections::BTreeMap;

use super::debt::killed_at_rest;
use super::*;

/// What each key may be: its last value, or nothing.
type Model = BTreeMap<String, Option<Vec<u8>>>;

fn set(bench: &Bench, disk: &Disk, model: &mut Model, key: &str, payload: Vec<u8>) {
    bench.put(disk, key, &payload);
    model.insert(key.into(), Some(payload));
}

async fn invalidate(bench: &Bench, disk: &Disk, model: &mut Model, key: &str) {
    let removal = bench.remove(disk, key);
    model.insert(key.into(), None);
    let _ = disk.settled(removal.ticket).await;
}

/// Nothing is read but the last value; how many are.
async fn judge(bench: &Bench, disk: &Disk, model: &Model, when: &str) -> usize {
    let mut there = 0;
    for (key, expected) in model {
        if let Lookup::Hit(entry) = disk.get(&bench.hasher.key(Namespace::CURVES, key).unwrap()).await {
            assert_eq!(Some(entry.payload()), expected.as_deref(), "{when}: {key}");
            there += 1;
        }
    }
    let report = disk.report();
    assert_eq!(report.state == TierState::Down, report.reason.is_some(), "{when}: {report:?}");
    there
}

/// Sets, overwrites, invalidations one by one and by prefix, rolls, a dropped segment, notes and events.
async fn work(bench: &Bench, disk: &Disk, model: &mut Model, round: u8) {
    for n in 0..12 {
        set(bench, disk, model, &format!("k{n}"), vec![round; 100 + 300 * n]);
    }
    let _ = disk.flush().await;
    judge(bench, disk, model, "after the first sets").await;
    for n in 0..3 {
        invalidate(bench, disk, model, &format!("k{n}")).await;
        set(bench, disk, model, &format!("k{}", n + 3), vec![round + 1; 2000]);
    }
    judge(bench, disk, model, "after invalidations").await;
    for n in 0..4 {
        set(bench, disk, model, &format!("swept{n}"), vec![round; 50]);
    }
    let _ = disk.remove_matching(None, None, "swept", disk.position()).await;
    for n in 0..4 {
        model.insert(format!("swept{n}"), None);
    }
    let _ = disk.append_event(1, vec![round; 20]).await;
    let _ = disk.write_note("note", vec![round; 20]).await;
    disk.maintain().await;
    let _ = disk.flush().await;
    judge(bench, disk, model, "after a sweep").await;
}

/// Waits until the tier is up and has written all it was given: a call that failed while there was a fault may be told of a little later.
async fn writes(disk: &Disk) {
    loop {
        up(disk).await;
        if disk.flush().await.is_ok() {
            return;
        }
    }
}

/// What became of the script.
struct Run {
    /// Values that were there in the end.
    there: usize,
    /// Values that were there after a kill in the middle, if that could be judged.
    survived: Option<usize>,
    /// Calls that there were.
    calls: u64,
}

/// The whole script with the calls from `call` on failing.
async fn run(call: u64, count: u64, fault: Fault) -> Run {
    let when = format!("{fault:?}, {count} calls from {call} on");
    let bench = Bench::new();
    let mut model = Model::new();
    bench.faults.between(call, count, fault);
    let disk = bench.open();
    work(&bench, &disk, &mut model, 1).await;
    let mut survived = None;
    if let Some(after) = killed_at_rest(&bench, &disk).await {
        let disk = after.open();
        survived = Some(judge(&after, &disk, &model, &format!("{when}, killed")).await);
    }
    // A fault that outlives the process may keep it from taking back what it removed or replaced, and the close says so.
    let outlived = disk.close().await.is_err();
    drop(disk);
    let disk = bench.open();
    if outlived {
        bench.faults.heal();
        writes(&disk).await;
        for n in 0..12 {
            invalidate(&bench, &disk, &mut model, &format!("k{n}")).await;
        }
        disk.remove_matching(None, None, "swept", disk.position()).await.unwrap();
    }
    judge(&bench, &disk, &model, &format!("{when}, reopened")).await;
    work(&bench, &disk, &mut model, 3).await;
    bench.faults.heal();
    writes(&disk).await;
    let (calls, note) = (bench.faults.calls(), disk.read_note("note").await.unwrap());
    assert!(note.is_none_or(|note| note == [1; 20] || note == [3; 20]), "{when}");
    set(&bench, &disk, &mut model, "after", b"works".to_vec());
    disk.flush().await.unwrap();
    disk.close().await.unwrap();
    drop(disk);
    let disk = bench.open();
    let there = judge(&bench, &disk, &model, &format!("{when}, in the end")).await;
    assert!(bench.get(&disk, "after").await.is_some(), "{when}");
    Run { there, survived, calls }
}

#[tokio::test]
async fn each_call_on_a_file_may_fail_once_or_for_long_in_each_way() {
    let Run { there, survived, calls } = run(u64::MAX / 2, 1, Fault::Broken).await;
    assert_eq!((there, survived), (10, Some(9)), "without a fault all are there");
    assert!(calls > 60, "{calls}");
    let (mut kept, mut killed) = (0, Vec::new());
    for call in 0..calls {
        let once = run(call, 1, Fault::Broken).await;
        kept += once.there;
        killed.push(once.survived);
        // For longer, from every third call on, each way in turn.
        let fault = [Fault::Broken, Fault::Full, Fault::Short, Fault::NoDescriptor][call as usize / 3 % 4];
        if call % 3 == 0 {
            killed.push(run(call, [9, u64::MAX / 2][call as usize / 12 % 2], fault).await.survived);
        }
        if call % 3 == 1 {
            killed.push(run(call, 1, Fault::Short).await.survived);
        }
    }
    assert!(kept > calls as usize * 5, "one fault costs too much: {kept} of {} were kept", calls * 10);
    let (all, judged) = (killed.len(), killed.iter().flatten().count());
    assert!(judged > all * 3 / 4, "{judged} of {all} kills left a folder that could be judged");
}
