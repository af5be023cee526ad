//! What a pattern covers dies, and nothing else; who said so, why, when and how much is known.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::collections::BTreeMap;

use crate::support::redis::RedisServer;
use crate::support::{self, put, read, secs, tiers, until};
use aurum_cache::{Cache, Clock, ErrorKind, Namespace, Scope, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

/// The judge: Redis' glob in its plainest recursive form, over characters.
fn matches(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => matches(rest, text) || (!text.is_empty() && matches(pattern, &text[1..])),
        (['?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
        (['[', rest @ ..], [c, tail @ ..]) => {
            let end = rest.iter().position(|c| *c == ']').expect("the judge knows closed classes only");
            let (class, rest) = (&rest[..end], &rest[end + 1..]);
            let (negated, class) = match class {
                ['^', class @ ..] => (true, class),
                class => (false, class),
            };
            let mut inside = false;
            let mut i = 0;
            while i < class.len() {
                if i + 2 < class.len() && class[i + 1] == '-' {
                    inside |= (class[i]..=class[i + 2]).contains(c);
                    i += 3;
                } else {
                    inside |= class[i] == *c;
                    i += 1;
                }
            }
            inside != negated && matches(rest, tail)
        }
        (['\\', p, rest @ ..], [c, tail @ ..]) if p == c => matches(rest, tail),
        ([p, rest @ ..], [c, tail @ ..]) if p == c && *p != '\\' => matches(rest, tail),
        _ => false,
    }
}

fn judge(pattern: &str, text: &str) -> bool {
    matches(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

const PATTERNS: [&str; 14] = [
    "pjm:*",
    "*:2026-11",
    "pjm:2026-1?",
    "pjm:2026-1[0-1]",
    "pjm:2026-[^1]*",
    "ercot:*-0[1-35]",
    "*",
    "pjm:2026-11",
    "miso",
    "p*m:*6-*",
    "a\\*b*",
    "[pe]*",
    "*no such key*",
    "???????????",
];

fn keys() -> Vec<String> {
    let mut keys: Vec<String> = ["miso", "a*b", "aXb", "a*bc", "?", "[x]"].map(str::to_owned).to_vec();
    for hub in ["pjm", "ercot", "miso", "pm"] {
        for month in 1..=12 {
            keys.push(format!("{hub}:2026-{month:02}"));
        }
    }
    keys
}

/// Each pattern over a full cache, judged by the naive model: who dies, who lives, and the counts.
async fn every_pattern_hits_what_the_judge_says(cache: &Cache) {
    let policies = [TtlPolicy::Short, TtlPolicy::Long, TtlPolicy::Extended];
    for pattern in PATTERNS {
        let mut model = BTreeMap::new();
        for (i, key) in keys().into_iter().enumerate() {
            put(cache, NS, &key, &key, policies[i % 3]).await;
            put(cache, Namespace::SCENARIOS, &key, &key, policies[i % 3]).await;
            model.insert(key, policies[i % 3]);
        }
        let doomed: Vec<_> = model.keys().filter(|key| judge(pattern, key)).cloned().collect();
        let on_disk = doomed.iter().filter(|key| model[*key].lands_on_disk()).count();
        let health = cache.health().await;
        // Redis may be Degraded here (its log is not read yet) and still count what it removes.
        let has = |tier: Tier| support::tier_of(&health, tier).state != aurum_cache::TierState::Off;

        let event = cache.invalidate_pattern(NS, pattern).await.unwrap();

        assert_eq!(event.count, doomed.len() as u64, "{pattern}: distinct keys");
        assert_eq!(event.memory, doomed.len() as u64, "{pattern}: in memory");
        assert_eq!(event.disk, if has(Tier::Disk) { on_disk as u64 } else { 0 }, "{pattern}: on disk");
        let (in_redis, after) = (if has(Tier::Redis) { doomed.len() as u64 } else { 0 }, cache.health().await);
        assert_eq!(event.redis, in_redis, "{pattern}: in Redis; {:?}, then {:?}", health.tiers, after.tiers);
        for key in model.keys() {
            let expected = (!doomed.contains(key)).then(|| key.clone());
            assert_eq!(read(cache, NS, key).await, expected, "{pattern} and {key:?}");
            assert!(read(cache, Namespace::SCENARIOS, key).await.is_some(), "{pattern} reached another namespace");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory() {
    every_pattern_hits_what_the_judge_says(&Cache::builder().memory(8 << 20).open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_and_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20);
    every_pattern_hits_what_the_judge_says(&builder.open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_all_three_tiers() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = support::patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    every_pattern_hits_what_the_judge_says(&builder.open().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_only_a_lower_tier_holds_die_and_are_counted_once() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let open = async |memory: u64| {
        let builder = support::patient().memory(memory).disk(folder.path(), 128 << 20).redis(redis.url());
        builder.node("a").open().await.unwrap()
    };
    let cache = open(4 << 20).await;
    for i in 0..4_000 {
        let key = format!("{}/{i}", ["dies", "lives"][i % 2]);
        put(&cache, NS, &key, &support::text(&key, 2_000), TtlPolicy::Extended).await;
    }
    assert!(cache.analytics().tier(Tier::Memory).entries < 3_000);
    let event = cache.invalidate_pattern(NS, "dies/*").await.unwrap();
    assert_eq!((event.count, event.disk, event.redis), (2_000, 2_000, 2_000));
    assert!(event.memory < 1_500);
    for i in 0..4_000 {
        let key = format!("{}/{i}", ["dies", "lives"][i % 2]);
        assert_eq!(tiers(&cache, NS, &key).await.is_empty(), i % 2 == 0, "{key}");
    }
}

#[tokio::test]
async fn the_event_says_what_why_who_and_when() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).node("node-7").open().await.unwrap();
    put(&cache, NS, "pjm:1", "v", TtlPolicy::Long).await;
    let start = clock.now();
    assert!(cache.invalidation_events(start).is_empty());

    clock.advance(secs(10));
    let event = cache.invalidate_pattern(NS, "pjm:*").reason("data_update").triggered_by("curve_service").await.unwrap();
    assert_eq!(event.reason.as_deref(), Some("data_update"));
    assert_eq!(event.triggered_by.as_deref(), Some("curve_service"));
    assert_eq!(event.namespace.as_deref(), Some("curves"));
    assert_eq!(event.node, "node-7");
    assert_eq!(event.at, start + secs(10));
    assert!(matches!(&event.scope, Scope::Pattern(text) if text == "pjm:*"));

    clock.advance(secs(10));
    let bare = cache.invalidate(NS, "k").await.unwrap();
    assert_eq!((&bare.reason, &bare.triggered_by, bare.count), (&None, &None, 0));
    clock.advance(secs(10));
    cache.invalidate_namespace(NS).await.unwrap();
    clock.advance(secs(10));
    let all = cache.invalidate_all().reason(String::from("deploy")).await.unwrap();
    assert!(matches!(all.scope, Scope::All));
    assert_eq!(all.namespace, None);

    let ages = |since: u64| -> Vec<u64> {
        let events = cache.invalidation_events(start + secs(since));
        events.iter().map(|e| e.at.duration_since(start).unwrap().as_secs()).collect()
    };
    assert_eq!(ages(0), [10, 20, 30, 40], "oldest first");
    assert_eq!(ages(20), [20, 30, 40], "from that time on");
    assert_eq!(ages(21), [30, 40]);
    assert!(ages(41).is_empty());
    let scopes: Vec<_> = cache.invalidation_events(start).into_iter().map(|event| event.scope).collect();
    assert!(matches!(&scopes[..], [Scope::Pattern(_), Scope::Key(_), Scope::Namespace, Scope::All]), "{scopes:?}");
}

/// Awaiting the builder is what does it; making one does nothing.
#[tokio::test]
async fn an_invalidation_that_is_not_awaited_does_nothing() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Long).await;
    drop(cache.invalidate_pattern(NS, "*").reason("never awaited"));
    assert!(read(&cache, NS, "k").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_written_after_it_survive() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = support::patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    for round in 0..20 {
        for i in 0..50 {
            put(&cache, NS, &format!("pjm:{i}"), &format!("{round}"), TtlPolicy::Extended).await;
        }
        let event = cache.invalidate_pattern(NS, "pjm:*").await.unwrap();
        assert_eq!(event.count, 50, "round {round}");
        // At once, without giving any sweep time to end.
        for i in 0..50 {
            put(&cache, NS, &format!("pjm:{i}"), &format!("after {round}"), TtlPolicy::Extended).await;
        }
        for i in 0..50 {
            assert_eq!(read(&cache, NS, &format!("pjm:{i}")).await, Some(format!("after {round}")));
        }
    }
    cache.flush().await.unwrap();
    until("they are in every tier", async || tiers(&cache, NS, "pjm:49").await.len() == 3).await;
}

/// Writers and a pattern at the same time: no value whose write had ended before it was called is read after it returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_concurrent_writes_nothing_older_is_read_afterwards() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    const KEYS: usize = 150;
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::builder().memory(4 << 20).disk(folder.path(), 64 << 20).open().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // The last version of each key whose write has ended.
    let ended: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (cache, ended, stop) = (cache.clone(), ended.clone(), stop.clone());
            tokio::spawn(async move {
                for version in 1.. {
                    for i in (writer * KEYS / 3)..((writer + 1) * KEYS / 3) {
                        put(&cache, NS, &format!("pjm:{i}"), &version.to_string(), TtlPolicy::Extended).await;
                        ended[i].store(version, Ordering::SeqCst);
                    }
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let before: Vec<u64> = ended.iter().map(|version| version.load(Ordering::SeqCst)).collect();
        let sweep = cache.invalidate_pattern(NS, "pjm:*").into_future();
        tokio::time::timeout(support::PATIENCE, sweep).await.expect("a pattern ends although writers go on").unwrap();
        for (i, dead) in before.into_iter().enumerate() {
            if let Some(found) = read(&cache, NS, &format!("pjm:{i}")).await {
                assert!(found.parse::<u64>().unwrap() > dead, "pjm:{i} holds {found}, {dead} was invalidated");
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_pattern_that_is_none_is_refused_by_name() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Long).await;
    let error = cache.invalidate_pattern(NS, "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidPattern);
    assert!(read(&cache, NS, "k").await.is_some());
    assert!(cache.invalidation_events(std::time::SystemTime::UNIX_EPOCH).is_empty(), "nothing happened, nothing is told");
}

/// The event log of an earlier run is there after a restart, clean or not, by time and with all it said.
#[tokio::test]
async fn the_events_survive_a_restart() {
    let (clock, folder) = (Clock::manual(), tempfile::tempdir().unwrap());
    let open = async || {
        let builder = || Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).node("a").clock(clock.clone());
        let mut opened = None;
        // A cache that was dropped and not closed gives its folder back a moment later.
        until("the folder is free", async || {
            opened = builder().open().await.ok();
            opened.is_some()
        })
        .await;
        opened.unwrap()
    };
    let start = clock.now();
    let mut told = Vec::new();
    for run in 0..3u64 {
        let cache = open().await;
        assert_eq!(cache.invalidation_events(start), told, "run {run}");
        for i in 0..5 {
            put(&cache, Namespace::CURVES, &format!("pjm:{i}"), "v", TtlPolicy::Extended).await;
        }
        let one =
            cache.invalidate_pattern(Namespace::CURVES, "pjm:*").reason(format!("run {run}")).triggered_by("test").await.unwrap();
        assert_eq!((one.count, one.memory, one.disk), (5, 5, 5), "five keys, each in two tiers");
        clock.advance(secs(60));
        let all = cache.invalidate_all().await.unwrap();
        told.extend([one, all]);
        assert_eq!(cache.invalidation_events(clock.now()), told[told.len() - 1..], "at or after, not before");
        clock.advance(secs(60));
        if run == 0 {
            cache.close().await.unwrap();
        }
        drop(cache);
    }
    let cache = open().await;
    assert_eq!(cache.invalidation_events(start), told);
    assert_eq!(cache.invalidation_events(start + secs(120)), told[2..]);
}
