//! A device that does not answer keeps nobody waiting for ever, and is trusted again when it does.

use std::sync::atomic::Ordering;

use super::super::files::faults::Call;
use super::*;

/// A device that does not come back from calls of one kind; it does when this is dropped, also by a failed assertion.
struct Hung(Arc<Faults>);

impl Hung {
    fn on(bench: &Bench, call: Call) -> Self {
        bench.faults.hang(Some(call));
        Self(bench.faults.clone())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.0.hang(None);
    }
}

/// A bench that waits for the device so long, with some keys of which nothing can be asked of the page cache.
async fn filled(timeout: Duration) -> (Bench, Disk) {
    let mut bench = Bench::new();
    bench.config.timeout = timeout;
    let disk = bench.open();
    for n in 0..9 {
        bench.put(&disk, &format!("k{n}"), b"value");
    }
    appended(&disk).await;
    assert!(disk.shared().cached.heed(Err(rustix::io::Errno::NOSYS), 1).is_none());
    (bench, disk)
}

async fn look(bench: &Bench, disk: &Disk, n: u32) -> Lookup {
    disk.get(&bench.hasher.key(Namespace::CURVES, &format!("k{n}")).unwrap()).await
}

/// A call that would hang for ever fails the test instead; no machine is that slow.
async fn in_time<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), call).await.expect("the call ends")
}

/// Drops the handle. The thread ends when the device lets it, and with it the lock on the folder.
async fn let_go(disk: Disk) {
    let shared = disk.shared().clone();
    drop(disk);
    while !shared.queue.lock().ended {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Until the device answers in time: a busy machine may be late as well.
async fn found(bench: &Bench, disk: &Disk, n: u32) {
    while !matches!(look(bench, disk, n).await, Lookup::Hit(_)) {}
}

#[tokio::test]
async fn a_read_that_the_device_keeps_ends_in_time_and_further_ones_are_refused_at_once() {
    let (bench, disk) = filled(Duration::from_millis(100)).await;
    found(&bench, &disk, 0).await;
    let hung = Hung::on(&bench, Call::Read);
    for n in 0..4 {
        let Lookup::Down(error) = look(&bench, &disk, n).await else { panic!("k{n} was read from a device that hangs") };
        assert!(error.to_string().contains("disk.timeout"), "{error}");
    }
    let asked = disk.counts().device_reads;
    let Lookup::Down(error) = look(&bench, &disk, 4).await else { panic!("k4 was read from a device that hangs") };
    assert!(error.to_string().contains("overdue reads: 4"), "{error}");
    assert_eq!(disk.counts().device_reads, asked, "no fifth thread waits for it");
    let report = disk.report();
    assert_eq!((report.state, report.reason.is_some()), (TierState::Degraded, true));
    assert!(matches!(look(&bench, &disk, 99).await, Lookup::Miss), "what is absent needs no device");

    drop(hung);
    up_by_itself(&disk).await;
    for n in 0..9 {
        found(&bench, &disk, n).await;
    }
}

#[tokio::test]
async fn a_writer_that_the_device_keeps_takes_the_tier_down_and_nothing_old_comes_back_with_it() {
    let (bench, disk) = filled(Duration::from_millis(100)).await;
    let hung = Hung::on(&bench, Call::Write);
    bench.put(&disk, "k0", b"newer");
    let removal = bench.remove(&disk, "k1");
    let error = in_time(disk.settled(removal.ticket)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TierDown);
    let report = disk.report();
    assert_eq!(report.state, TierState::Down);
    assert!(report.reason.as_deref().is_some_and(|reason| reason.contains("has taken no write")), "{report:?}");
    // Neither waits: the tier is known to be down.
    disk.room().await;
    bench.put(&disk, "k2", b"while down");

    drop(hung);
    up(&disk).await;
    disk.flush().await.unwrap();
    disk.close().await.unwrap();
    drop(disk);
    let disk = bench.open();
    assert!([None, Some(b"newer".to_vec())].contains(&bench.get(&disk, "k0").await));
    assert_eq!(bench.get(&disk, "k1").await, None, "it was removed");
    assert_eq!(bench.get(&disk, "k2").await, None, "what replaced it was not kept");
    assert_eq!(bench.get(&disk, "k3").await.as_deref(), Some(&b"value"[..]));
}

#[tokio::test]
async fn a_close_does_not_wait_for_a_device_that_does_not_answer() {
    let (bench, disk) = filled(Duration::from_millis(100)).await;
    let hung = Hung::on(&bench, Call::Write);
    bench.put(&disk, "k0", b"newer");
    assert_eq!(in_time(disk.close()).await.unwrap_err().kind(), ErrorKind::TierDown);
    drop(hung);
    let_go(disk).await;
    let disk = bench.open();
    assert!([None, Some(b"newer".to_vec())].contains(&bench.get(&disk, "k0").await));
    assert_eq!(bench.get(&disk, "k3").await.as_deref(), Some(&b"value"[..]));
}

#[tokio::test]
async fn reads_whose_callers_gave_up_count_as_overdue_too() {
    let (bench, disk) = filled(Duration::from_millis(100)).await;
    let hung = Hung::on(&bench, Call::Read);
    for n in 0..4 {
        let given_up = tokio::time::timeout(Duration::from_millis(1), look(&bench, &disk, n)).await;
        assert!(given_up.is_err(), "k{n} was read from a device that hangs");
    }
    while disk.report().state == TierState::Up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let asked = disk.counts().device_reads;
    assert!(matches!(look(&bench, &disk, 4).await, Lookup::Down(_)));
    assert_eq!(disk.counts().device_reads, asked, "no fifth thread waits for it");
    drop(hung);
    up_by_itself(&disk).await;
    found(&bench, &disk, 4).await;
}

#[tokio::test]
async fn a_flush_does_not_wait_for_ever_and_says_what_is_not_known() {
    let (bench, disk) = filled(Duration::from_millis(100)).await;
    let hung = Hung::on(&bench, Call::Sync);
    bench.put(&disk, "k0", b"newer");
    let error = in_time(disk.flush()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TierDown);
    assert!(error.to_string().contains("has not synced"), "{error}");
    // The sync began after the flush, and is overdue as much later. Nothing is wrong with what is in the log as far as anybody knows.
    while disk.report().state == TierState::Up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = disk.report();
    assert_eq!(report.state, TierState::Degraded, "{report:?}");
    assert!(report.reason.is_some_and(|reason| reason.contains("has not synced")));
    let syncs = bench.faults.seen(Call::Sync);
    assert_eq!(in_time(disk.flush()).await.unwrap_err().kind(), ErrorKind::TierDown, "at once: it is known");
    assert_eq!(bench.faults.seen(Call::Sync), syncs);

    drop(hung);
    while disk.flush().await.is_err() {}
    assert_eq!(disk.report().state, TierState::Up);
    found(&bench, &disk, 0).await;
}

#[tokio::test]
async fn a_close_does_not_wait_for_ever_for_a_sync() {
    let (bench, disk) = filled(Duration::from_millis(100)).await;
    let hung = Hung::on(&bench, Call::Sync);
    assert_eq!(in_time(disk.close()).await.unwrap_err().kind(), ErrorKind::TierDown);
    drop(hung);
    let_go(disk).await;
    assert_eq!(bench.get(&bench.open(), "k3").await.as_deref(), Some(&b"value"[..]));
}

/// Opens as the cache does: it does not wait for ever.
async fn open(bench: &Bench) -> Disk {
    in_time(Disk::open(bench.config.clone(), bench.clock.clone(), bench.hasher.clone())).await.unwrap()
}

/// A filled folder, closed.
async fn closed(timeout: Duration) -> Bench {
    let (mut bench, disk) = filled(Duration::from_millis(500)).await;
    disk.close().await.unwrap();
    bench.config.timeout = timeout;
    bench
}

/// By itself, without maintenance.
async fn up_by_itself(disk: &Disk) {
    while disk.report().state != TierState::Up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_folder_that_the_device_does_not_show_keeps_no_cache_from_opening_and_loses_nothing() {
    let bench = closed(Duration::from_millis(5)).await;
    let hung = Hung::on(&bench, Call::Open);
    let disk = open(&bench).await;
    let report = disk.report();
    assert_eq!(report.state, TierState::Down);
    assert!(report.reason.as_deref().is_some_and(|reason| reason.contains("has not shown the folder")), "{report:?}");
    assert!(matches!(look(&bench, &disk, 0).await, Lookup::Down(_)));
    // What is said meanwhile is owed to the log.
    bench.remove(&disk, "k1");
    bench.put(&disk, "k2", b"newer");

    drop(hung);
    up_by_itself(&disk).await;
    let shared = disk.shared().clone();
    assert_eq!((shared.index.len(), shared.counts.damaged.load(Ordering::Relaxed)), (7, 0));
    for n in [1, 2] {
        assert!(matches!(look(&bench, &disk, n).await, Lookup::Miss), "k{n}");
    }
    found(&bench, &disk, 3).await;
}

#[tokio::test]
async fn a_folder_that_takes_long_to_read_is_read_while_the_cache_serves_and_nothing_old_comes_up() {
    let bench = closed(Duration::from_millis(500)).await;
    let hung = Hung::on(&bench, Call::Read);
    let disk = open(&bench).await;
    let report = disk.report();
    assert_eq!(report.state, TierState::Degraded);
    assert!(report.reason.as_deref().is_some_and(|reason| reason.contains("still being read")), "{report:?}");
    let Lookup::Down(_) = look(&bench, &disk, 0).await else { panic!("nobody knows yet what is in the folder") };
    let key = bench.hasher.key(Namespace::CURVES, "k0").unwrap();
    assert!(!disk.contains(&key) && disk.may_hold(&key), "nobody can say that it is not there");
    disk.put(&bench.entry("k2", b"newer", 3_600_000));
    assert_eq!(bench.get(&disk, "k2").await.as_deref(), Some(&b"newer"[..]), "what was put since is here");
    let removal = bench.remove(&disk, "k1");
    assert!(tokio::time::timeout(Duration::from_millis(20), disk.settled(removal.ticket)).await.is_err(), "not in the log yet");
    disk.append_event(1, b"event".to_vec()).await.unwrap();
    let matching = |key: &str| key == "k3" || key == "k4";
    let mut sweep = Box::pin(disk.remove_matching(Some(Namespace::CURVES), Some(&matching), "k", u64::MAX));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut sweep).await.is_err(), "a pattern waits for what it may mean");

    drop(hung);
    assert_eq!(in_time(&mut sweep).await.unwrap().len(), 2);
    drop(sweep);
    in_time(disk.settled(removal.ticket)).await.unwrap();
    up_by_itself(&disk).await;
    let judge = async |disk: &Disk| {
        for (n, expected) in [(0, Some("value")), (1, None), (2, Some("newer")), (3, None), (4, None), (5, Some("value"))] {
            let found = bench.get(disk, &format!("k{n}")).await.map(|value| String::from_utf8(value).unwrap());
            assert_eq!(found.as_deref(), expected, "k{n}");
        }
    };
    judge(&disk).await;
    assert_eq!(disk.shared().index.len(), 6);
    disk.close().await.unwrap();
    drop(disk);
    let disk = bench.open();
    judge(&disk).await;
    assert_eq!(disk.events().await.unwrap(), [(1, b"event".to_vec())]);
}

#[tokio::test]
async fn a_cache_that_is_closed_while_its_folder_is_still_being_read_does_not_wait_for_that() {
    let bench = closed(Duration::from_millis(5)).await;
    let hung = Hung::on(&bench, Call::Read);
    let disk = open(&bench).await;
    assert_eq!(in_time(disk.close()).await.unwrap_err().kind(), ErrorKind::TierDown);
    drop(hung);
    let_go(disk).await;
    assert_eq!(bench.get(&bench.open(), "k3").await.as_deref(), Some(&b"value"[..]));
}

#[tokio::test]
async fn dropping_the_last_handle_does_not_wait_for_ever() {
    let bench = closed(Duration::from_millis(5)).await;
    let hung = Hung::on(&bench, Call::Read);
    let disk = open(&bench).await;
    let dropped = tokio::task::spawn_blocking(move || drop(disk));
    in_time(dropped).await.unwrap();
    drop(hung);
}

#[tokio::test]
async fn a_note_that_the_device_keeps_is_an_error_in_time_and_further_ones_are_refused_at_once() {
    let (bench, disk) = filled(Duration::from_millis(100)).await;
    let hung = Hung::on(&bench, Call::Write);
    let error = in_time(disk.write_note("hot", b"list".to_vec())).await.unwrap_err();
    assert!(error.to_string().contains("disk.timeout"), "{error}");
    let error = disk.append_event(1, b"event".to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("overdue notes: 1"), "{error}");
    drop(hung);
    while disk.append_event(1, b"event".to_vec()).await.is_err() {}
    assert!(disk.events().await.unwrap().contains(&(1, b"event".to_vec())));
}
