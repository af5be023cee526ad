//! The power is cut: what was flushed is there, and nothing that was replaced or removed before a flush.

use std::collections::BTreeMap;

use super::super::files::device::Order;
use super::*;

/// What a key may be after a power cut: what it was at the last flush, and everything since.
type Allowed = BTreeMap<String, Vec<Option<Vec<u8>>>>;

/// Many puts, removals and flushes over several segments; the power is cut after each of them, and nothing wrong is read from what is left.
/// Returns how many flushed values were missed.
async fn run(seed: u64, order: Order) -> usize {
    let mut rng = fastrand::Rng::with_seed(seed);
    let bench = Bench::new();
    bench.faults.record();
    let disk = bench.open();
    let mut allowed = Allowed::new();
    let mut missed = 0;
    for step in 0..120 {
        let key = format!("k{}", rng.u8(0..12));
        let now = if rng.u8(0..4) == 0 {
            bench.remove(&disk, &key);
            None
        } else {
            let payload = vec![step as u8; rng.usize(1..6_000)];
            bench.put(&disk, &key, &payload);
            Some(payload)
        };
        // Before the first flush it may be absent, as it was then.
        allowed.entry(key).or_insert_with(|| vec![None]).push(now);
        if rng.u8(0..6) == 0 {
            disk.flush().await.unwrap();
            allowed.values_mut().for_each(|states| drop(states.drain(..states.len() - 1)));
        } else if rng.bool() {
            appended(&disk).await;
        }
        if step % 4 == 3 {
            missed += cut(&bench, &allowed, order, &mut rng).await;
        }
    }
    missed
}

/// Cuts the power now, opens what is left elsewhere, and judges it.
async fn cut(bench: &Bench, allowed: &Allowed, order: Order, rng: &mut fastrand::Rng) -> usize {
    let mut after = Bench::new();
    (after.clock, after.hasher) = (bench.clock.clone(), bench.hasher.clone());
    std::fs::create_dir(after.path()).unwrap();
    for (name, bytes) in bench.faults.tell(|device| device.power_cut(order, rng)).unwrap() {
        std::fs::write(after.path().join(name), bytes).unwrap();
    }
    let mut missed = 0;
    // Once more, as an opening changes what it finds.
    for _ in 0..2 {
        let disk = after.open();
        missed = 0;
        for (key, states) in allowed {
            let found = after.get(&disk, key).await;
            if found.is_none() && !states.contains(&None) {
                missed += 1;
            } else {
                assert!(states.contains(&found), "{order:?}: {key} came back as it was before the last flush");
            }
        }
        disk.close().await.unwrap();
    }
    missed
}

#[tokio::test]
async fn of_a_device_that_writes_in_order_all_that_was_flushed_is_there_after_a_power_cut() {
    for seed in 0..40 {
        assert_eq!(run(seed, Order::Kept).await, 0, "seed {seed}");
    }
}

#[tokio::test]
async fn a_device_that_writes_pages_in_any_order_costs_entries_and_brings_nothing_back() {
    for seed in 0..40 {
        run(seed, Order::Lost).await;
    }
}
