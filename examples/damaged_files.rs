//! Opens disk folders with flipped bits in a program that is built with `panic = "abort"`, where nothing could catch a panic over a damaged file:
//! each attempt is a process of its own, which must end well and read nothing wrong. `tests/run` runs this.
//!
//! ```text
//! cargo run --profile abort --example damaged_files
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use aurum_cache::{Cache, Namespace, TtlPolicy};

/// Folders that are tried. With sled in them, about one in sixty ended the process.
const TRIES: u64 = 100;
const KEYS: u32 = 30_000;
const NS: Namespace = Namespace::CURVES;

fn value(key: u32) -> String {
    format!("{key}:{}", "x".repeat(700 + key as usize % 50))
}

async fn open(folder: &Path) -> Result<Cache, aurum_cache::Error> {
    Cache::builder().memory(1 << 20).disk(folder, 64 << 20).open().await
}

fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        std::fs::create_dir_all(target.parent().unwrap_or(to))?;
        std::fs::copy(&file, target)?;
    }
    Ok(())
}

/// Flips up to forty bits: of sled's files, if there should be any, else anywhere.
fn damage(folder: &Path, seed: u64) -> std::io::Result<()> {
    let catalogue = folder.join("catalogue");
    let files = files(if catalogue.is_dir() { &catalogue } else { folder })?;
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..rng.usize(1..40) {
        let file = &files[rng.usize(..files.len())];
        let mut bytes = std::fs::read(file)?;
        if !bytes.is_empty() {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
            std::fs::write(file, bytes)?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(folder) = std::env::args().nth(1) {
        let cache = open(Path::new(&folder)).await?;
        for key in 0..KEYS {
            let found = cache.get::<String>(NS, &format!("k{key}")).await;
            assert!(found.is_none_or(|found| *found == *value(key)), "k{key} is read wrong");
        }
        cache.close().await?;
        return Ok(());
    }
    if cfg!(panic = "unwind") {
        return Err("build this with --profile abort: as it is, a panic would not end it".into());
    }
    let folder = tempfile::tempdir()?;
    let whole = folder.path().join("whole");
    let cache = open(&whole).await?;
    for key in 0..KEYS {
        cache.set(NS, &format!("k{key}"), &value(key), TtlPolicy::Persistent).await?;
    }
    cache.close().await?;
    for seed in 0..TRIES {
        let damaged = folder.path().join("damaged");
        copy(&whole, &damaged)?;
        damage(&damaged, seed)?;
        let ended = Command::new(std::env::current_exe()?).arg(&damaged).status()?;
        assert!(ended.success(), "folder {seed} with flipped bits: {ended}");
        std::fs::remove_dir_all(&damaged)?;
    }
    println!("{TRIES} folders with flipped bits were opened, and none ended the program");
    Ok(())
}
