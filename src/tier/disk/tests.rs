//! The tier as a whole, against a naive map, with reopening among the operations.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::entry::{Entry, Meta};
use crate::error::ErrorKind;
use crate::key::KeyHasher;
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;
use crate::tier::{Lookup, TierState};

const MIB: u64 = 1 << 20;

struct Bench {
    folder: TempDir,
    clock: Clock,
    hasher: KeyHasher,
    config: DiskConfig,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = DiskConfig { segment_bytes: Some(16 << 10), ..DiskConfig::new(folder.path().join("disk"), 4 * MIB) };
        Self { folder, clock: Clock::manual(), hasher: KeyHasher::random(), config }
    }

    fn path(&self) -> &Path {
        &self.config.path
    }

    fn open(&self) -> Disk {
        Disk::open(self.config.clone(), self.clock.clone(), self.hasher.clone()).unwrap()
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
async fn a_second_opener_is_told_so() {
    let bench = Bench::new();
    let disk = bench.open();
    let error = Disk::open(bench.config.clone(), bench.clock.clone(), bench.hasher.clone()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Locked);
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
            assert!(inspect::bytes_below(bench.path()).unwrap() <= bench.config.capacity);
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
    disk.shared().faults.after(0);
    bench.put(&disk, "a", b"new");
    let removal = bench.remove(&disk, "b");
    assert_eq!(disk.settled(removal.ticket).await.unwrap_err().kind(), ErrorKind::TierDown);
    assert_eq!(disk.report().state, TierState::Down);
    assert!(!disk.offer(&bench.entry("d", b"x", 1000)));
    bench.put(&disk, "c", b"new");
    disk.shared().faults.after(-1);
    disk.maintain().await;
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
    let inline = disk.counts().inline_reads;
    disk.shared().cached.refuse();
    assert!(bench.get(&disk, "k").await.is_some());
    let counts = disk.counts();
    assert_eq!((counts.inline_reads, counts.device_reads > 0), (inline, true));
}

#[tokio::test]
async fn a_sweep_reaches_what_stands_before_a_damaged_place() {
    let bench = filled().await;
    let disk = bench.open();
    let segment = disk.shared().segments.all()[2].path.clone();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8000..8200].fill(0xee);
    std::fs::write(&segment, bytes).unwrap();
    disk.remove_matching(None, None, "", disk.position()).await.unwrap();
    assert_eq!(readable(&bench, &disk).await, 0);
    disk.close().await.unwrap();
    assert_eq!(readable(&bench, &bench.open()).await, 0);
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

#[tokio::test]
async fn sealed_segments_are_known_from_the_catalogue() {
    let bench = filled().await;
    let disk = bench.open();
    let counts = disk.counts();
    assert!(counts.segments > 10, "{counts:?}");
    assert_eq!(counts.catalogued, counts.segments - 1, "{counts:?}");
    assert_eq!(readable(&bench, &disk).await, 400);
    let removed = disk.remove_matching(Some(Namespace::CURVES), None, "k1", disk.position()).await.unwrap();
    assert_eq!(removed.len(), 111);
    assert_eq!(readable(&bench, &disk).await, 289);
}

#[tokio::test]
async fn a_damaged_missing_or_bricked_catalogue_costs_nothing_but_time() {
    let bench = filled().await;
    let catalogue = bench.path().join("catalogue");
    let log = catalogue.join("db");
    let full = std::fs::read(&log).unwrap();
    let faults: [(&str, &dyn Fn()); 6] = [
        ("planted snapshot", &|| std::fs::write(catalogue.join("snap.00000000FFFFFFFF.generating"), b"half").unwrap()),
        ("half a log", &|| std::fs::write(&log, &full[..full.len() / 2]).unwrap()),
        ("empty log", &|| std::fs::write(&log, b"").unwrap()),
        ("random log", &|| std::fs::write(&log, full.iter().map(|_| fastrand::u8(..)).collect::<Vec<_>>()).unwrap()),
        ("a file in its place", &|| {
            std::fs::remove_dir_all(&catalogue).unwrap();
            std::fs::write(&catalogue, b"?").unwrap();
        }),
        ("nothing", &|| drop(std::fs::remove_dir_all(&catalogue))),
    ];
    for (name, fault) in faults {
        fault();
        let disk = bench.open();
        assert_eq!(readable(&bench, &disk).await, 400, "{name}");
        disk.close().await.unwrap();
        let disk = bench.open();
        assert_eq!(disk.counts().catalogued, disk.counts().segments - 1, "{name}: made anew");
        disk.close().await.unwrap();
    }
}

#[tokio::test]
async fn flipped_bits_never_show_a_wrong_or_removed_value() {
    let bench = filled().await;
    let mut rng = fastrand::Rng::with_seed(11);
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for file in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    let mut total = 0;
    for round in 0..60 {
        let mut victim = Bench::new();
        victim.config.capacity = bench.config.capacity;
        (victim.clock, victim.hasher) = (bench.clock.clone(), bench.hasher.clone());
        copy(bench.path(), victim.path());
        // With the catalogue: damage is met at the reads; without: at the open.
        if round % 2 == 0 {
            copy(&bench.path().join("catalogue"), &victim.path().join("catalogue"));
        }
        let mut files: Vec<_> = std::fs::read_dir(victim.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "seg"));
        files.sort();
        for _ in 0..=round / 10 {
            let path = &files[rng.usize(0..files.len())];
            let mut bytes = std::fs::read(path).unwrap();
            let at = rng.usize(0..bytes.len());
            bytes[at] ^= 1 << rng.u8(0..8);
            std::fs::write(path, bytes).unwrap();
        }
        for _ in 0..2 {
            let disk = victim.open();
            total += readable(&victim, &disk).await;
            disk.close().await.unwrap();
        }
    }
    assert!(total > 60 * 400, "{total}: damage costs too much");
}

#[tokio::test]
async fn cut_missing_and_foreign_segments_cost_entries_and_never_an_open() {
    for fault in 0..6 {
        let bench = filled().await;
        let mut files: Vec<_> = std::fs::read_dir(bench.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "seg"));
        files.sort();
        let (middle, newest) = (&files[files.len() / 2], &files[files.len() - 1]);
        let cut = |path: &Path, len: u64| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
        match fault {
            0 => cut(middle, 5000),
            1 => std::fs::remove_file(middle).unwrap(),
            2 => std::fs::write(middle, b"foreign").unwrap(),
            3 => drop(std::fs::copy(&files[0], middle).unwrap()),
            4 => cut(newest, std::fs::metadata(newest).unwrap().len() - 3),
            _ => {
                std::fs::remove_file(middle).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", middle).unwrap();
            }
        }
        let disk = bench.open();
        let there = readable(&bench, &disk).await;
        assert!(fault != 4 || there == 400, "a torn tail costs only itself");
        bench.put(&disk, "after", b"works");
        disk.close().await.unwrap();
        let disk = bench.open();
        assert!(bench.get(&disk, "after").await.is_some());
        assert_eq!(readable(&bench, &disk).await, there, "fault {fault}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    PutShort(u8),
    Remove(u8),
    Get(u8),
    Sweep(u8),
    Advance,
    Settle,
    Reopen,
    Fail(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..40u8, 0..2000u16).prop_map(|(key, len)| Step::Put(key, len)),
        2 => (0..40u8).prop_map(Step::PutShort),
        4 => (0..40u8).prop_map(Step::Remove),
        6 => (0..40u8).prop_map(Step::Get),
        1 => (0..4u8).prop_map(Step::Sweep),
        1 => Just(Step::Advance),
        2 => Just(Step::Settle),
        1 => Just(Step::Reopen),
        1 => (0..6u8).prop_map(Step::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Nothing is ever read but the last value put. `exact`: without faults and evictions, it is also never missed.
    #[test]
    fn the_tier_agrees_with_a_map(steps in proptest::collection::vec(step(), 1..300), faults in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, faults));
    }
}

async fn run(steps: Vec<Step>, faults: bool) {
    let bench = Bench::new();
    let mut disk = bench.open();
    // Value and the steady time of its end.
    let mut model: HashMap<u8, (Vec<u8>, u64)> = HashMap::new();
    let name = |key: u8| format!("{}:{key}", key % 4);
    for (n, step) in steps.into_iter().enumerate() {
        let now = bench.clock.steady();
        match step {
            Step::Put(key, len) => {
                let payload = vec![n as u8; usize::from(len)];
                bench.put(&disk, &name(key), &payload);
                model.insert(key, (payload, now + 3_600_000));
            }
            Step::PutShort(key) => {
                disk.put(&bench.entry(&name(key), &[n as u8], 10_000));
                model.insert(key, (vec![n as u8], now + 10_000));
            }
            Step::Remove(key) => {
                let existed = bench.remove(&disk, &name(key)).existed;
                let had = model.remove(&key).is_some_and(|(_, end)| end > now);
                // The index rounds ends up to seconds.
                assert!(existed == had || faults || !had, "{key}");
            }
            Step::Get(key) => match disk.get(&bench.hasher.key(Namespace::CURVES, &name(key)).unwrap()).await {
                Lookup::Hit(entry) => {
                    assert_eq!(Some(entry.payload()), model.get(&key).filter(|(_, end)| *end > now).map(|(value, _)| &value[..]))
                }
                Lookup::Miss => assert!(faults || model.get(&key).is_none_or(|(_, end)| *end <= now), "{key} is missed"),
                Lookup::Down(_) => assert!(faults),
                Lookup::Damaged(error) => panic!("{error}"),
            },
            Step::Sweep(group) => {
                let swept = disk.remove_matching(None, None, &format!("{group}:"), disk.position()).await;
                assert!(faults || swept.is_ok());
                if swept.is_ok() {
                    model.retain(|key, _| key % 4 != group);
                }
            }
            Step::Advance => {
                bench.clock.advance(Duration::from_secs(6));
                disk.maintain().await;
            }
            Step::Settle => drop(disk.settled(disk.position() - 1).await),
            Step::Reopen => {
                if faults {
                    // Killed while it is down it may lose removals; so it comes up first.
                    disk.shared().faults.after(-1);
                    while disk.report().state != TierState::Up || disk.settled(disk.position() - 1).await.is_err() {
                        disk.maintain().await;
                        tokio::task::yield_now().await;
                    }
                }
                disk.close().await.unwrap();
                drop(disk);
                disk = bench.open();
            }
            Step::Fail(calls) => {
                if faults {
                    disk.shared().faults.after(i64::from(calls) - 1);
                }
            }
        }
    }
}
