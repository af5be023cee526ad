//! The tier against a naive map, with faults, sweeps, reopenings and kills among the operations.

use std::collections::HashMap;

use proptest::prelude::*;

use super::debt::killed_at_rest;
use super::*;

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
    Kill,
    Fail(Option<Fault>, u8),
}

/// A device that fails, that is full, or that is well again.
fn fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![Just(None), Just(Some(Fault::Broken)), Just(Some(Fault::Full)), Just(Some(Fault::Short))]
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
        1 => Just(Step::Kill),
        1 => (fault(), 0..6u8).prop_map(|(fault, calls)| Step::Fail(fault, calls)),
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
    let mut bench = Bench::new();
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
                    // Closed while it is down it may lose what it holds; so it comes up first.
                    bench.faults.heal();
                    while disk.report().state != TierState::Up || disk.settled(disk.position() - 1).await.is_err() {
                        disk.maintain().await;
                        tokio::task::yield_now().await;
                    }
                }
                disk.close().await.unwrap();
                drop(disk);
                disk = bench.open();
            }
            Step::Kill => {
                // What the device takes no mark of may be lost.
                if let Some(after) = killed_at_rest(&bench, &disk).await {
                    drop(disk);
                    bench = after;
                    disk = bench.open();
                }
            }
            Step::Fail(fault, calls) if faults => match fault {
                Some(fault) => bench.faults.after(u64::from(calls), fault),
                None => bench.faults.heal(),
            },
            Step::Fail(..) => {}
        }
    }
}
