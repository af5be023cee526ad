//! Killed at any moment, a cache comes back as it was a moment before: what is lost is the end of what was written and nothing in between,
//! nothing is wrong, and nothing that was invalidated returns.
//!
//! Eight writers own twenty keys each and do the same things in the same order in every run, so that the parent can do them
//! too. A writer says how far it is when something is in the log for certain. After the kill its keys must be as they were
//! after one of its steps, that one or a later one: the log holds a beginning of what was done, whole.
//!
//! `AURUM_KILLS` says how many kills; the short loop of every run has 15.

#![cfg(feature = "disk")] // what comes back is on disk

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::child::{Child, given, role, say};
use crate::support::{millis, read};
use aurum_cache::{Cache, Namespace, TtlPolicy};

const NS: Namespace = Namespace::CURVES;
const WRITERS: usize = 8;
const KEYS: u64 = 20;

async fn open(folder: &Path) -> Cache {
    Cache::builder().memory(4 << 20).disk(folder, 64 << 20).open().await.expect("the cache opens")
}

/// A value says which key and version it is, at both ends.
fn value(key: &str, version: u64) -> String {
    let tail = "x".repeat((version as usize * 37) % 600);
    format!("{key}|{version}|{tail}|{version}|{key}")
}

/// The version of a value, if the value is whole and of this key.
fn version(key: &str, text: &str) -> Option<u64> {
    let version = text.split('|').nth(1)?.parse().ok()?;
    (value(key, version) == text).then_some(version)
}

/// What a writer does in a step, after it has set key `step % 20` to version `step`.
enum Act {
    Nothing,
    /// Invalidates the key it has just set.
    Key,
    /// Invalidates those of its keys that end in 7.
    Sevens,
    Flush,
}

fn act(step: u64) -> Act {
    match step % 53 {
        13 | 27 => Act::Key,
        41 => Act::Sevens,
        49 => Act::Flush,
        _ => Act::Nothing,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    if role().is_none() {
        return;
    }
    let first: u64 = given("FIRST").parse().unwrap();
    let cache = open(Path::new(&given("FOLDER"))).await;
    say("running");
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(cache.clone(), writer, first))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn write(cache: Cache, writer: usize, first: u64) {
    for step in first.. {
        let key = format!("{writer}/{}", step % KEYS);
        cache.set(NS, &key, value(&key, step).as_str(), TtlPolicy::Persistent).await.unwrap();
        match act(step) {
            Act::Nothing => continue,
            Act::Key => drop(cache.invalidate(NS, &key).await.unwrap()),
            Act::Sevens => drop(cache.invalidate_pattern(NS, &format!("{writer}/*7")).await.unwrap()),
            Act::Flush => cache.flush().await.unwrap(),
        }
        // A tombstone that is in the log has all that this writer wrote before it in front of it.
        say(&format!("{writer} {step}"));
    }
}

/// A writer's keys: their versions.
type Keys = BTreeMap<u64, u64>;

/// Finds the step after which `writer` had just these keys, at `certain` or later. `before`: its keys when it began with step `first`.
fn explain(before: &Keys, found: &Keys, first: u64, certain: u64) -> Result<u64, String> {
    let newest = found.values().copied().max().unwrap_or(0).max(certain).max(first);
    let mut keys = before.clone();
    if certain == 0 && keys == *found {
        return Ok(first);
    }
    for step in first..=newest + 4 * KEYS {
        keys.insert(step % KEYS, step);
        if step > certain && keys == *found {
            return Ok(step);
        }
        match act(step) {
            Act::Key => drop(keys.remove(&(step % KEYS))),
            Act::Sevens => {
                // One key after the other, in whatever order: killed in the middle, some are gone.
                let (of, others): (Keys, Keys) = keys.iter().partition(|(key, _)| *key % 10 == 7);
                let (found_of, found_others): (Keys, Keys) = found.iter().partition(|(key, _)| *key % 10 == 7);
                if step > certain && others == found_others && found_of.iter().all(|(key, found)| of.get(key) == Some(found)) {
                    return Ok(step);
                }
                keys = others;
            }
            Act::Nothing | Act::Flush => {}
        }
        if step >= certain && keys == *found {
            return Ok(step);
        }
    }
    Err(format!("{found:?} was never so, from {before:?} at step {first} on, with {certain} in the log"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_at_any_moment_the_log_holds_a_beginning_of_what_was_done() {
    let kills: u64 = std::env::var("AURUM_KILLS").map_or(15, |kills| kills.parse().expect("AURUM_KILLS is a number"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut keys = vec![Keys::new(); WRITERS];
    let (mut steps, mut lost_at_most, mut acknowledged) = (0, 0, 0);
    let mut rng = fastrand::Rng::with_seed(0x9e37_79b9);
    for kill in 0..kills {
        let first = 1 + kill * 1_000_000;
        let child = Child::play(module_path!(), "storm", &[("FOLDER", path), ("FIRST", &first.to_string())]);
        // Every fifth one is killed while it starts or opens.
        if kill % 5 == 4 {
            tokio::time::sleep(millis(rng.u64(0..60))).await;
        } else {
            assert_eq!(child.hear(), "running");
            tokio::time::sleep(millis(rng.u64(0..200))).await;
        }
        let mut certain = [0; WRITERS];
        for line in child.kill() {
            if let Some((writer, step)) = line.split_once(' ') {
                certain[writer.parse::<usize>().unwrap()] = step.parse().unwrap();
                acknowledged += 1;
            }
        }

        let cache = open(folder.path()).await;
        for (writer, before) in keys.iter_mut().enumerate() {
            let mut found = Keys::new();
            for n in 0..KEYS {
                let key = format!("{writer}/{n}");
                if let Some(text) = read(&cache, NS, &key).await {
                    let version = version(&key, &text).unwrap_or_else(|| panic!("kill {kill}: {key} is torn: {text:?}"));
                    found.insert(n, version);
                }
            }
            let step =
                explain(before, &found, first, certain[writer]).unwrap_or_else(|e| panic!("kill {kill}, writer {writer}: {e}"));
            steps += step - first;
            lost_at_most = lost_at_most.max(certain[writer].saturating_sub(step));
            *before = found;
        }
        cache.close().await.unwrap();
    }
    println!("{kills} kills, {steps} steps found again, {acknowledged} acknowledged, nothing of them lost");
    assert_eq!(lost_at_most, 0);
    assert!(acknowledged > kills * 10, "the storm was a breeze: {acknowledged} acknowledgements in {kills} kills");
}

#[test]
fn the_judge_finds_a_lost_step_and_a_return() {
    let keys = |pairs: &[(u64, u64)]| pairs.iter().copied().collect::<Keys>();
    let none = Keys::new();
    // Steps 1..=3 set keys 1..=3.
    assert_eq!(explain(&none, &keys(&[(1, 1), (2, 2), (3, 3)]), 1, 0), Ok(3));
    assert_eq!(explain(&none, &keys(&[(1, 1), (2, 2)]), 1, 2), Ok(2));
    assert!(explain(&none, &keys(&[(1, 1), (3, 3)]), 1, 0).is_err(), "one in between is missing");
    assert!(explain(&none, &keys(&[(1, 1), (2, 2)]), 1, 3).is_err(), "an acknowledged one is missing");
    // Step 13 sets key 13 and invalidates it.
    let all: Keys = (1..=13).map(|n| (n, n)).collect();
    assert_eq!(explain(&none, &all, 1, 0), Ok(13));
    assert!(explain(&none, &all, 1, 13).is_err(), "it came back");
    assert!(explain(&all, &none, 1, 0).is_err(), "what was there before is gone");
}
