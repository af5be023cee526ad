//! Damage: flipped bits, cut, missing and foreign files. It costs entries, never an open, and never shows what is not so.

use std::path::Path;

use super::*;

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

/// A killed writer leaves the beginning of a record, and nothing of it was acknowledged. A whole record that cannot be read was.
#[tokio::test]
async fn a_damaged_last_record_is_not_taken_for_a_torn_one() {
    for bit in [0, 40, 100, 150, 255] {
        let bench = Bench::new();
        let disk = bench.open();
        bench.put(&disk, "k", b"old");
        bench.remove(&disk, "k");
        disk.close().await.unwrap();
        drop(disk);
        let path = segment_paths(&bench).pop().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let head = bytes.len() - super::segment::removal_len("curves", "k") as usize;
        bytes[head + bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bytes).unwrap();
        for opening in 0..2 {
            let disk = bench.open();
            assert_eq!(bench.get(&disk, "k").await, None, "bit {bit}, opening {opening}");
            assert!(opening > 0 || disk.counts().damaged > 0);
            disk.close().await.unwrap();
        }
    }
}
