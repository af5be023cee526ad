//! A device that does not answer keeps nobody waiting for ever, and is trusted again when it does.

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
    assert!(error.to_string().contains("4 reads are overdue"), "{error}");
    assert_eq!(disk.counts().device_reads, asked, "no fifth thread waits for it");
    let report = disk.report();
    assert_eq!((report.state, report.reason.is_some()), (TierState::Degraded, true));
    assert!(matches!(look(&bench, &disk, 99).await, Lookup::Miss), "what is absent needs no device");

    drop(hung);
    while disk.report().state != TierState::Up {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
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
    let error = disk.settled(removal.ticket).await.unwrap_err();
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
    assert_eq!(disk.close().await.unwrap_err().kind(), ErrorKind::TierDown);
    drop(hung);
    // The thread ends when the device lets it, and with it the lock on the folder.
    let shared = disk.shared().clone();
    drop(disk);
    while !shared.queue.lock().ended {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let disk = bench.open();
    assert!([None, Some(b"newer".to_vec())].contains(&bench.get(&disk, "k0").await));
    assert_eq!(bench.get(&disk, "k3").await.as_deref(), Some(&b"value"[..]));
}
