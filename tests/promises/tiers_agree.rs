//! Whatever happens to a key at once, afterwards all tiers agree on one value, and keep to it while it moves.
//!
//! Seeded stories: writes, fetches, invalidations and reads of one key at the same time on several threads; between them evictions,
//! maintenance, time that passes and restarts. Every written value is a number. The judge knows for each key which numbers may
//! still be read; the first one that is read is the only one from then on, from whichever tier.
//!
//! `AURUM_STORIES=200 cargo test --all-features --test promises tiers_agree` tells more of them.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::support::{self, put, secs, text, until};
use aurum_cache::{Cache, Clock, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;
const FLOOD: Namespace = Namespace::GENERAL;
const KEYS: usize = 8;
const POLICIES: [TtlPolicy; 4] = [TtlPolicy::UltraShort, TtlPolicy::Short, TtlPolicy::Long, TtlPolicy::Persistent];

/// What may be read of a key: numbers, and when each is over, in seconds of the story.
type May = BTreeMap<u64, Duration>;

/// What one of several at once does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Set(u64, TtlPolicy),
    Fetch(u64, TtlPolicy),
    Invalidate,
    Read,
}

struct Story {
    random: fastrand::Rng,
    clock: Clock,
    /// How far the clock was moved.
    time: Duration,
    folder: tempfile::TempDir,
    redis: Option<RedisServer>,
    cache: Option<Cache>,
    may: [May; KEYS],
    number: u64,
    /// The tiers that answered.
    answered: BTreeSet<String>,
    told: Vec<String>,
}

fn key(at: usize) -> String {
    format!("pjm:{at}")
}

/// A value that says its number first, of a size that its number decides.
fn value(number: u64) -> String {
    text(&number.to_string(), 1 + (number * 7919 % 40_000) as usize)
}

/// The number of a value that is whole.
fn number(text: &str) -> u64 {
    let number = text.split_once('|').and_then(|(number, _)| number.parse().ok()).expect("a value begins with its number");
    assert!(text == value(number), "the value of {number} is torn");
    number
}

async fn act(cache: &Cache, key: &str, act: Act) -> Option<u64> {
    match act {
        Act::Set(number, policy) => {
            put(cache, NS, key, &value(number), policy).await;
            None
        }
        Act::Fetch(made, policy) => {
            let fetch = move || async move {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(value(made))
            };
            let hit = cache.get_or_fetch(NS, key, policy, fetch).await.expect("the loader gives a value");
            Some(number(&hit.to_value()))
        }
        Act::Invalidate => {
            cache.invalidate(NS, key).await.expect("the invalidation");
            None
        }
        Act::Read => cache.get::<String>(NS, key).await.map(|hit| number(&hit.to_value())),
    }
}

impl Story {
    async fn new(seed: u64) -> Self {
        let redis = seed.is_multiple_of(2).then(RedisServer::start);
        let mut story = Self {
            random: fastrand::Rng::with_seed(seed),
            clock: Clock::manual(),
            time: Duration::ZERO,
            folder: tempfile::tempdir().expect("a folder"),
            redis,
            cache: None,
            may: Default::default(),
            number: 0,
            answered: BTreeSet::new(),
            told: vec![format!("story {seed}")],
        };
        story.open().await;
        story
    }

    fn cache(&self) -> &Cache {
        self.cache.as_ref().expect("the cache is open")
    }

    async fn open(&mut self) {
        let open = async || {
            let builder = support::patient().memory(1 << 20).disk(self.folder.path(), 64 << 20).clock(self.clock.clone());
            match &self.redis {
                Some(redis) => builder.redis(redis.url()).open().await,
                None => builder.open().await,
            }
        };
        let mut opened = open().await;
        until("the folder is free", async || {
            if opened.is_err() {
                opened = open().await;
            }
            opened.is_ok()
        })
        .await;
        self.cache = opened.ok();
    }

    /// Several things happen to one key at once.
    async fn clash(&mut self) {
        let at = self.random.usize(..KEYS);
        let acts: Vec<Act> = (0..self.random.usize(1..5))
            .map(|_| {
                self.number += 1;
                let policy = POLICIES[self.random.usize(..4)];
                match self.random.u32(..10) {
                    0..4 => Act::Set(self.number, policy),
                    4..6 => Act::Fetch(self.number, policy),
                    6 => Act::Invalidate,
                    _ => Act::Read,
                }
            })
            .collect();
        self.told.push(format!("{}: {acts:?}", key(at)));
        let tasks: Vec<_> = acts
            .iter()
            .map(|&one| {
                let cache = self.cache().clone();
                tokio::spawn(async move { act(&cache, &key(at), one).await })
            })
            .collect();
        // Whoever reads meanwhile may get what was there, or what is being written.
        let before = self.may[at].clone();
        let mut after =
            if acts.iter().any(|act| matches!(act, Act::Set(..) | Act::Invalidate)) { May::new() } else { before.clone() };
        for act in &acts {
            if let Act::Set(number, policy) | Act::Fetch(number, policy) = act {
                after.insert(*number, self.time + policy.ttl());
            }
        }
        for task in tasks {
            if let Some(read) = task.await.expect("the act") {
                assert!(before.contains_key(&read) || after.contains_key(&read), "{}\nread {read}", self.told.join("\n"));
            }
        }
        self.may[at] = after;
    }

    /// Reads a key and holds it to what it says.
    async fn judge(&mut self, at: usize) {
        let Some(hit) = self.cache().get::<String>(NS, &key(at)).await else { return };
        let found = number(&hit.to_value());
        self.answered.insert(hit.tier().to_string());
        let end = self.may[at].get(&found).copied();
        let told =
            || format!("{}\n{} in {} is {found}, not one of {:?}", self.told.join("\n"), key(at), hit.tier(), self.may[at]);
        assert!(end.is_some_and(|end| self.time < end), "{}", told());
        self.may[at].retain(|number, _| *number == found);
    }

    async fn step(&mut self) {
        match self.random.u32(..100) {
            0..50 => self.clash().await,
            50..80 => {
                let at = self.random.usize(..KEYS);
                self.told.push(format!("{}: read", key(at)));
                self.judge(at).await;
            }
            80..90 => {
                self.told.push("a flood".to_owned());
                for n in 0..60 {
                    put(self.cache(), FLOOD, &n.to_string(), &text("flood", 30_000), TtlPolicy::Short).await;
                }
            }
            90..93 => {
                let by = secs(self.random.u64(1..200));
                self.clock.advance(by);
                self.time += by;
                self.told.push(format!("{by:?} pass"));
            }
            93..96 => {
                self.told.push("maintenance".to_owned());
                self.cache().run_maintenance().await;
            }
            _ => {
                let is_clean = self.random.bool();
                self.told.push(format!("a restart, {}", if is_clean { "closed" } else { "dropped" }));
                let gone = self.cache.take().expect("the cache is open");
                if is_clean {
                    gone.close().await.expect("it closes");
                }
                drop(gone);
                self.open().await;
            }
        }
    }

    async fn run(seed: u64) -> BTreeSet<String> {
        let mut story = Self::new(seed).await;
        for _ in 0..250 {
            story.step().await;
        }
        for at in 0..KEYS {
            story.judge(at).await;
        }
        story.cache().close().await.expect("it closes");
        story.answered
    }
}

#[test]
fn whatever_happens_at_once_all_tiers_agree_afterwards() {
    let stories: u64 = std::env::var("AURUM_STORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let mut answered = BTreeSet::new();
    for seed in 0..stories {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
        answered.extend(runtime.block_on(Story::run(seed)));
    }
    for tier in Tier::ALL {
        assert!(answered.contains(&tier.to_string()), "{tier} never answered: these stories tell nothing of it");
    }
}
