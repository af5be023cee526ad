//! The tier as a whole: what it promises, fault by fault.

mod damage;
mod debt;
mod faults;
mod model;
mod patience;
mod power;
mod recall;
mod storm;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::files::faults::{Fault, Faults};
use super::opening::Opening;
use super::*;
use crate::clock::Clock;
use crate::entry::{Entry, Meta};
use crate::error::{Error, ErrorKind};
use crate::key::KeyHasher;
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;
use crate::tier::{Lookup, TierState};

const MIB: u64 = 1 << 20;

struct Bench {
    /// Which calls on its files fail.
    faults: Arc<Faults>,
    folder: TempDir,
    clock: Clock,
    hasher: KeyHasher,
    config: DiskConfig,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = DiskConfig { segment_bytes: Some(16 << 10), ..DiskConfig::new(folder.path().join("disk"), 4 * MIB) };
        Self { faults: Faults::of_folder(&config.path), folder, clock: Clock::manual(), hasher: KeyHasher::random(), config }
    }

    fn path(&self) -> &Path {
        &self.config.path
    }

    fn begin(&self) -> Disk {
        Disk::begin(self.config.clone(), self.clock.clone(), self.hasher.clone()).unwrap()
    }

    /// Opens, and waits for as long as that takes.
    fn try_open(&self) -> Result<Disk, Error> {
        let disk = self.begin();
        let mut queue = disk.shared.queue.lock();
        disk.shared.ended.wait_while(&mut queue, |queue| matches!(queue.opening, Opening::UnderWay | Opening::Taken));
        drop(queue);
        disk.shared.opened(true).unwrap().map(|()| disk)
    }

    fn open(&self) -> Disk {
        self.try_open().unwrap()
    }

    fn entry(&self, key: &str, payload: &[u8], life_ms: u64) -> Entry {
        let now = self.clock.steady();
        let meta = Meta {
            policy: TtlPolicy::Persistent,
            fingerprint: 1,
            created: now,
            expires: now + life_ms,
            stale_until: now + life_ms,
            stamp: 0,
        };
        Entry::new(&self.hasher.key(Namespace::CURVES, key).unwrap(), &meta, payload)
    }

    fn put(&self, disk: &Disk, key: &str, payload: &[u8]) {
        disk.put(&self.entry(key, payload, 3_600_000));
    }

    async fn get(&self, disk: &Disk, key: &str) -> Option<Vec<u8>> {
        match disk.get(&self.hasher.key(Namespace::CURVES, key).unwrap()).await {
            Lookup::Hit(entry) => Some(entry.payload().to_vec()),
            Lookup::Miss => None,
            other => panic!("{key}: {other:?}"),
        }
    }

    fn remove(&self, disk: &Disk, key: &str) -> Removal {
        disk.remove(&self.hasher.key(Namespace::CURVES, key).unwrap())
    }
}

/// Tries until the tier is up.
async fn up(disk: &Disk) {
    while disk.report().state != TierState::Up {
        disk.maintain().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The segment files, oldest first.
fn segment_paths(bench: &Bench) -> Vec<std::path::PathBuf> {
    recovery::segment_files(bench.path()).unwrap().into_values().collect()
}

async fn appended(disk: &Disk) {
    disk.settled(disk.position() - 1).await.unwrap();
}

#[tokio::test]
async fn what_is_put_is_read_at_once_and_after_a_reopening() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    assert_eq!(bench.get(&disk, "k").await.as_deref(), Some(&b"one"[..]));
    appended(&disk).await;
    assert_eq!(bench.get(&disk, "k").await.as_deref(), Some(&b"one"[..]));
    disk.close().await.unwrap();
    disk.close().await.unwrap();
    let disk = bench.open();
    assert_eq!(bench.get(&disk, "k").await.as_deref(), Some(&b"one"[..]));
    assert_eq!(bench.get(&disk, "absent").await, None);
}

#[tokio::test]
async fn a_removed_key_stays_removed_after_a_reopening() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    bench.put(&disk, "k", b"two");
    let removal = bench.remove(&disk, "k");
    assert!(removal.existed);
    assert_eq!(bench.get(&disk, "k").await, None);
    disk.settled(removal.ticket).await.unwrap();
    assert_eq!(bench.remove(&disk, "k"), Removal { existed: false, ticket: 0 });
    disk.close().await.unwrap();
    let disk = bench.open();
    assert_eq!(bench.get(&disk, "k").await, None);
}

#[tokio::test]
async fn what_replaced_a_value_hides_it_even_when_it_has_expired() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"long");
    disk.put(&bench.entry("k", b"short", 1_000));
    appended(&disk).await;
    bench.clock.advance(Duration::from_secs(2));
    disk.maintain().await;
    assert_eq!(bench.get(&disk, "k").await, None);
    disk.close().await.unwrap();
    assert_eq!(bench.get(&bench.open(), "k").await, None);
}

#[tokio::test]
async fn a_thread_that_may_wait_for_the_device_is_there_from_the_beginning() {
    let bench = Bench::new();
    assert!(bench.open().shared.threads.has_some());
}

#[tokio::test]
async fn a_second_opener_is_told_so() {
    let bench = Bench::new();
    let disk = bench.open();
    let error = bench.try_open().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("is open in another cache of this process;"), "{error}");
    assert_eq!(inspect(bench.path(), &mut |_| {}).unwrap_err().kind(), ErrorKind::Locked);
    drop(disk);
    bench.open();
}

#[tokio::test]
async fn the_files_keep_to_the_capacity_and_the_newest_entries_stay() {
    let bench = Bench::new();
    let disk = bench.open();
    let payload = vec![7; 3000];
    for n in 0..4000 {
        disk.room().await;
        bench.put(&disk, &format!("k{n}"), &payload);
        if n % 100 == 0 {
            appended(&disk).await;
            assert!(files::bytes_below(bench.path()).unwrap() <= bench.config.capacity);
        }
    }
    appended(&disk).await;
    assert_eq!(bench.get(&disk, "k0").await, None);
    assert_eq!(bench.get(&disk, "k3999").await, Some(payload));
    assert!(disk.usage().evictions > 0);
}

#[tokio::test]
async fn what_is_read_again_and_again_survives_the_drop_of_its_segment() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "hot", b"hot");
    for n in 0..3000 {
        disk.room().await;
        bench.put(&disk, &format!("k{n}"), &[7; 3000]);
        if n % 50 == 0 {
            appended(&disk).await;
            assert!(bench.get(&disk, "hot").await.is_some());
        }
    }
    assert!(disk.counts().carried > 0);
    disk.close().await.unwrap();
    assert!(bench.get(&bench.open(), "hot").await.is_some());
}

#[tokio::test]
async fn a_sweep_removes_what_matches_and_was_put_before_it() {
    let bench = Bench::new();
    let disk = bench.open();
    for n in 0..500 {
        bench.put(&disk, &format!("pjm:{n}"), &[1; 100]);
        bench.put(&disk, &format!("ercot:{n}"), &[1; 100]);
    }
    let before = disk.position();
    bench.put(&disk, "pjm:7", b"newer");
    let even = |key: &str| key.ends_with(['0', '2', '4', '6', '8']);
    let removed = disk.remove_matching(Some(Namespace::CURVES), Some(&even), "pjm:", before).await.unwrap();
    assert_eq!(removed.len(), 250);
    assert_eq!(bench.get(&disk, "pjm:8").await, None);
    assert!(bench.get(&disk, "ercot:8").await.is_some());
    let removed = disk.remove_matching(None, None, "pjm:", before).await.unwrap();
    assert_eq!(removed.len(), 249);
    assert_eq!(bench.get(&disk, "pjm:7").await.as_deref(), Some(&b"newer"[..]));
    disk.close().await.unwrap();
    let disk = bench.open();
    assert_eq!(disk.usage().entries, 501);
    let removed = disk.remove_matching(None, None, "", disk.position()).await.unwrap();
    assert_eq!((removed.len(), disk.usage().entries), (501, 0));
}

#[tokio::test]
async fn a_value_over_half_a_segment_is_refused_and_takes_its_predecessor_away() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"small");
    bench.put(&disk, "k", &[0; 9000]);
    assert_eq!(bench.get(&disk, "k").await, None);
    assert_eq!(disk.counts().too_large, 1);
}

#[tokio::test]
async fn a_failing_device_takes_the_tier_down_and_nothing_old_comes_back_with_it() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "a", b"old");
    bench.put(&disk, "b", b"old");
    bench.put(&disk, "c", b"old");
    appended(&disk).await;
    bench.faults.after(0, Fault::Broken);
    bench.put(&disk, "a", b"new");
    let removal = bench.remove(&disk, "b");
    assert_eq!(disk.settled(removal.ticket).await.unwrap_err().kind(), ErrorKind::TierDown);
    assert_eq!(disk.report().state, TierState::Down);
    assert!(!disk.offer(&bench.entry("d", b"x", 1000), true));
    bench.put(&disk, "c", b"new");
    bench.faults.heal();
    up(&disk).await;
    disk.settled(removal.ticket).await.unwrap();
    appended(&disk).await;
    for key in ["a", "b", "c"] {
        assert_eq!(bench.get(&disk, key).await, None, "{key}");
    }
    disk.close().await.unwrap();
    let disk = bench.open();
    for key in ["a", "b", "c"] {
        assert_eq!(bench.get(&disk, key).await, None, "{key}");
    }
}

#[tokio::test]
async fn a_folder_that_was_removed_is_made_anew() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    appended(&disk).await;
    std::fs::remove_dir_all(bench.path()).unwrap();
    // The next segment cannot be made.
    for n in 0..20 {
        bench.put(&disk, &format!("n{n}"), &[0; 3000]);
    }
    let _ = disk.settled(disk.position() - 1).await;
    assert_eq!(disk.report().state, TierState::Down);
    disk.maintain().await;
    disk.settled(disk.position() - 1).await.ok();
    disk.shared().wait(|| disk.shared().trouble().is_none().then_some(())).await;
    assert_eq!(bench.get(&disk, "k").await, None);
    bench.put(&disk, "k", b"two");
    disk.close().await.unwrap();
    assert!(bench.get(&bench.open(), "k").await.is_some());
}

#[tokio::test]
async fn notes_and_events_outlive_the_process() {
    let bench = Bench::new();
    let disk = bench.open();
    disk.write_note("hot", b"first".to_vec()).await.unwrap();
    disk.write_note("hot", b"second".to_vec()).await.unwrap();
    for n in 0..30 {
        disk.append_event(n, format!("event {n}").into_bytes()).await.unwrap();
    }
    disk.close().await.unwrap();
    let disk = bench.open();
    assert_eq!(disk.read_note("hot").await.unwrap().as_deref(), Some(&b"second"[..]));
    assert_eq!(disk.read_note("none").await.unwrap(), None);
    let events = disk.events().await.unwrap();
    assert_eq!((events.len(), &events[29]), (30, &(29, b"event 29".to_vec())));
}

#[tokio::test]
async fn a_closed_folder_can_be_looked_at() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "a", b"one");
    bench.put(&disk, "b", b"one");
    bench.put(&disk, "b", b"two");
    bench.remove(&disk, "a");
    disk.append_event(5, b"event".to_vec()).await.unwrap();
    disk.close().await.unwrap();
    let mut seen = Vec::new();
    let inspection = inspect(bench.path(), &mut |entry| seen.push((entry.key.to_owned(), entry.live))).unwrap();
    assert_eq!(seen, [("a".into(), false), ("b".into(), false), ("b".into(), true)]);
    assert_eq!((inspection.segments, inspection.damaged, inspection.events.len()), (1, 0, 1));
}

#[tokio::test]
async fn the_folder_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let disk = bench.open();
    disk.write_note("n", vec![1]).await.unwrap();
    disk.append_event(1, vec![1]).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(bench.path()), 0o700);
    for file in std::fs::read_dir(bench.path()).unwrap() {
        let path = file.unwrap().path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    drop(bench.folder);
}

#[tokio::test]
async fn where_the_page_cache_cannot_be_asked_reads_go_elsewhere() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    appended(&disk).await;
    assert!(bench.get(&disk, "k").await.is_some());
    let before = disk.counts();
    assert!(disk.shared().cached.heed(Err(rustix::io::Errno::NOSYS), 1).is_none());
    assert!(disk.get_now(&bench.hasher.key(Namespace::CURVES, "k").unwrap()).is_none(), "only who may wait can read it");
    assert!(bench.get(&disk, "k").await.is_some());
    let counts = disk.counts();
    assert_eq!((counts.inline_reads, counts.device_reads), (before.inline_reads, before.device_reads + 1));
}

#[tokio::test]
async fn an_absent_key_is_answered_without_a_read() {
    let bench = Bench::new();
    let disk = bench.open();
    bench.put(&disk, "k", b"one");
    appended(&disk).await;
    assert!(matches!(disk.get_now(&bench.hasher.key(Namespace::CURVES, "absent").unwrap()), Some(Lookup::Miss)));
    let counts = disk.counts();
    assert_eq!((counts.inline_reads, counts.device_reads), (0, 0));
}

/// A bench whose capacity is worth a catalogue, filled with 400 keys over several segments, then closed.
async fn filled() -> Bench {
    let mut bench = Bench::new();
    bench.config.capacity = 64 * MIB;
    let disk = bench.open();
    for round in 0..3 {
        for n in 0..400 {
            bench.put(&disk, &format!("k{n}"), format!("{n}:{round}").repeat(20).as_bytes());
        }
        for n in 0..20 {
            bench.put(&disk, &format!("gone{n}"), b"must not be seen again");
        }
    }
    for n in 0..20 {
        bench.remove(&disk, &format!("gone{n}"));
    }
    for n in 0..400 {
        bench.put(&disk, &format!("late{n}"), &[0; 100]);
    }
    appended(&disk).await;
    disk.close().await.unwrap();
    bench
}

/// How many of the 400 are there; each is the newest, and nothing removed is.
async fn readable(bench: &Bench, disk: &Disk) -> usize {
    let mut there = 0;
    for n in 0..20 {
        let lookup = disk.get(&bench.hasher.key(Namespace::CURVES, &format!("gone{n}")).unwrap()).await;
        assert!(!matches!(lookup, Lookup::Hit(_)), "gone{n} came back");
    }
    for n in 0..400 {
        match disk.get(&bench.hasher.key(Namespace::CURVES, &format!("k{n}")).unwrap()).await {
            Lookup::Hit(entry) => {
                assert_eq!(entry.payload(), format!("{n}:2").repeat(20).as_bytes());
                there += 1;
            }
            Lookup::Miss | Lookup::Damaged(_) => {}
            Lookup::Down(error) => panic!("{error}"),
        }
    }
    there
}
