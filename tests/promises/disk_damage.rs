//! Damage to the files of a closed cache: it costs entries, never an open, and never shows a value that is not the newest of its key.

#![cfg(feature = "disk")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::{put, read, text, tier_of};
use aurum_cache::{Cache, Namespace, Tier, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;
const KEYS: usize = 120;

async fn open(folder: &Path, capacity: u64) -> Cache {
    Cache::builder().memory(1 << 20).disk(folder, capacity).open().await.expect("damage does not fail an open")
}

/// A closed folder: each key with an older and a newest value, some of them removed, over several segments.
async fn filled(capacity: u64, bytes: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path(), capacity).await;
    for version in 0..2 {
        for i in 0..KEYS {
            put(&cache, NS, &format!("k{i}"), &text(&format!("k{i}|{version}"), bytes), TtlPolicy::Persistent).await;
        }
    }
    for i in (0..KEYS).step_by(10) {
        cache.invalidate(NS, &format!("k{i}")).await.unwrap();
    }
    cache.close().await.unwrap();
    folder
}

/// How many keys are there. Each is the newest, and none that was removed.
async fn judge(cache: &Cache, bytes: usize, what: &str) -> usize {
    let mut there = 0;
    for i in 0..KEYS {
        let key = format!("k{i}");
        if let Some(found) = read(cache, NS, &key).await {
            assert!(i % 10 != 0, "{what}: {key} was removed and came back");
            assert_eq!(found, text(&format!("{key}|1"), bytes), "{what}: {key}");
            there += 1;
        }
    }
    there
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    files(folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).collect()
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, &target).unwrap();
    }
}

/// Flips `flips` single bits, anywhere in all files of copies of a folder, `at_once` in each copy. How many keys were there in all.
async fn flip(folder: &Path, capacity: u64, bytes: usize, flips: usize, at_once: usize, rng: &mut fastrand::Rng) -> usize {
    let mut there = 0;
    for round in 0..flips / at_once {
        let victim = tempfile::tempdir().unwrap();
        copy(folder, victim.path());
        let mut places = Vec::new();
        let all: Vec<_> = files(victim.path()).into_iter().map(|path| (path.metadata().unwrap().len(), path)).collect();
        let total: u64 = all.iter().map(|(len, _)| len).sum();
        for _ in 0..at_once {
            let mut at = rng.u64(0..total);
            let (_, path) = all
                .iter()
                .find(|(len, _)| {
                    if at < *len {
                        true
                    } else {
                        at -= len;
                        false
                    }
                })
                .unwrap();
            let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
            let (mut byte, bit) = ([0], rng.u8(0..8));
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            places.push(format!("{}@{at}.{bit}", path.strip_prefix(victim.path()).unwrap().display()));
        }
        let cache = open(victim.path(), capacity).await;
        assert_eq!(tier_of(&cache.health().await, Tier::Disk).state, TierState::Up, "{places:?}");
        there += judge(&cache, bytes, &format!("{places:?}")).await;
        if round % 4 == 0 {
            // What was cut off or let go must not stand up at the next opening.
            cache.close().await.unwrap();
            judge(&open(victim.path(), capacity).await, bytes, &format!("{places:?}, opened again")).await;
        }
    }
    there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_flipped_bits_show_no_wrong_value() {
    let mut rng = fastrand::Rng::with_seed(5);
    // Without a catalogue, all is read at open; one segment, most of which is values.
    let small = filled(16 << 20, 300).await;
    let there = flip(small.path(), 16 << 20, 300, 900, 6, &mut rng).await;
    // Most flips hit a value and cost its key alone; in a head or a removal they may cost all that is older.
    assert!(there > 150 * KEYS / 3, "damage costs too much: {there} of {}", 150 * KEYS);
    // With one: damage to values is met at the reads.
    let large = filled(64 << 20, 20_000).await;
    assert!(segments(large.path()).len() > 2);
    let there = flip(large.path(), 64 << 20, 20_000, 100, 20, &mut rng).await;
    assert!(there > 5 * KEYS / 3, "damage costs too much: {there} of {}", 5 * KEYS);
}

/// What is done, whether it may cost anything, and the deed.
type Fault<'a> = (&'a str, bool, &'a dyn Fn(&Path));

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_cut_swapped_foreign_or_planted_cost_entries_at_most() {
    let (capacity, bytes) = (64 << 20, 20_000);
    let original = filled(capacity, bytes).await;
    let whole = KEYS - KEYS / 10;
    let cut = |path: &Path, len: u64| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
    let faults: [Fault<'_>; 12] = [
        ("half a snapshot is planted", false, &|folder| {
            std::fs::write(folder.join("catalogue/snap.00000000FFFFFFFF.generating"), b"half").unwrap();
        }),
        ("an empty snapshot is planted", false, &|folder| {
            std::fs::write(folder.join("catalogue/snap.00000000FFFFFFFF.generating"), b"").unwrap();
        }),
        ("the catalogue is cut", false, &|folder| cut(&folder.join("catalogue/db"), 1000)),
        ("the catalogue's log is a folder", false, &|folder| {
            std::fs::remove_file(folder.join("catalogue/db")).unwrap();
            std::fs::create_dir(folder.join("catalogue/db")).unwrap();
        }),
        ("the notes and the ledger are noise", false, &|folder| {
            for file in files(folder).iter().filter(|path| !segments(folder).contains(path)) {
                std::fs::write(file, b"noise, and nothing else").unwrap();
            }
        }),
        ("an oldest segment is cut", true, &|folder| cut(&segments(folder)[0], 5000)),
        ("a middle segment is empty", true, &|folder| cut(&segments(folder)[1], 0)),
        ("two segments are swapped", true, &|folder| {
            let (all, aside) = (segments(folder), folder.join("aside"));
            std::fs::rename(&all[0], &aside).unwrap();
            std::fs::rename(&all[1], &all[0]).unwrap();
            std::fs::rename(&aside, &all[1]).unwrap();
        }),
        ("a segment is missing", true, &|folder| std::fs::remove_file(&segments(folder)[1]).unwrap()),
        ("a segment is noise", true, &|folder| {
            let noise: Vec<u8> = (0..100_000).map(|_| fastrand::u8(..)).collect();
            std::fs::write(&segments(folder)[0], noise).unwrap();
        }),
        ("a segment is a folder", true, &|folder| {
            std::fs::remove_file(&segments(folder)[1]).unwrap();
            std::fs::create_dir(&segments(folder)[1])
                .unwrap_or_else(|_| std::fs::create_dir(folder.join("0000000002.seg")).unwrap());
        }),
        ("a foreign segment has the highest number", true, &|folder| {
            std::fs::write(folder.join("4294967295.seg"), [7; 5000]).unwrap();
        }),
    ];
    for (what, costs, fault) in faults {
        let folder = tempfile::tempdir().unwrap();
        copy(original.path(), folder.path());
        fault(folder.path());
        let mut before = None;
        for opening in 0..2 {
            let cache = open(folder.path(), capacity).await;
            let there = judge(&cache, bytes, &format!("{what}, opening {opening}")).await;
            assert!(costs || there == whole, "{what}: {there} of {whole}, opening {opening}");
            assert!(before.is_none_or(|before| before == there), "{what}: {there} keys at opening {opening}, {before:?} before");
            before = Some(there);
            let disk = tier_of(&cache.health().await, Tier::Disk);
            assert_eq!(disk.state, TierState::Up, "{what}");
            assert!(
                opening > 0 || !costs || disk.reason.is_some_and(|why| why.contains("damaged")),
                "{what}: health says nothing"
            );
            put(&cache, NS, "after", "works", TtlPolicy::Persistent).await;
            cache.flush().await.unwrap();
            assert_eq!(read(&cache, NS, "after").await.as_deref(), Some("works"), "{what}");
            cache.close().await.unwrap();
        }
    }
}
