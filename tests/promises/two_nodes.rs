//! Two nodes over one Redis, a network that breaks, restarts: and not one stale read.
//!
//! Seeded stories of writes, invalidations, cuts, silences, restarts and crashes of the server, judged by a list of numbers. Every operation has
//! the next number, and a value is the number of its `set`. A node never reads a value older than its own last change of the key; when
//! both are connected again and have read the log, neither reads one older than anybody's last change.
//!
//! `AURUM_STORIES=200 cargo test --release --all-features --test promises two_nodes` tells more of them.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::collections::HashMap;

use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::{self, put, read, until};
use aurum_cache::{Cache, Namespace, Tier, TierState, TtlPolicy};

const NAMESPACES: [Namespace; 2] = [Namespace::CURVES, Namespace::SCENARIOS];
const MARKS: Namespace = Namespace::GENERAL;
const KEYS: [&str; 6] = ["pjm:1", "pjm:2", "pjm:3", "miso:1", "miso:2", "ercot"];
const PATTERNS: [(&str, &str); 3] = [("pjm:*", "pjm:"), ("miso:*", "miso:"), ("*:*", ":")];
const POLICIES: [TtlPolicy; 3] = [TtlPolicy::Short, TtlPolicy::Long, TtlPolicy::Persistent];

type Place = (Namespace, &'static str);

fn places() -> impl Iterator<Item = Place> {
    NAMESPACES.into_iter().flat_map(|ns| KEYS.into_iter().map(move |key| (ns, key)))
}

struct Node {
    folder: tempfile::TempDir,
    proxy: Proxy,
    cache: Option<Cache>,
    /// The number of this node's last change of a key.
    own: HashMap<Place, u64>,
}

impl Node {
    async fn new(redis: &RedisServer) -> Self {
        let (folder, proxy) = (tempfile::tempdir().expect("a folder"), Proxy::to(redis.port()));
        let mut node = Self { folder, proxy, cache: None, own: HashMap::new() };
        node.open().await;
        node
    }

    fn cache(&self) -> &Cache {
        self.cache.as_ref().expect("the node is open")
    }

    async fn open(&mut self) {
        // Whatever is slow here is a change to be made good later or a miss, and both are part of the story.
        let settings = support::settings("[redis]\ntimeout = \"200ms\"");
        let open = async || {
            let builder = Cache::builder().config(settings.clone()).memory(1 << 20).disk(self.folder.path(), 32 << 20);
            builder.redis(self.proxy.url()).open().await
        };
        let mut opened = open().await;
        // A cache that was dropped without being closed lets go of its folder when its tasks have ended.
        until("the folder is free", async || {
            if opened.is_err() {
                opened = open().await;
            }
            opened.is_ok()
        })
        .await;
        self.cache = opened.ok();
    }
}

struct Story {
    random: fastrand::Rng,
    redis: RedisServer,
    nodes: [Node; 2],
    number: u64,
    /// The number of anybody's last change of a key.
    last: HashMap<Place, u64>,
    /// Values that were read and judged.
    hits: u64,
    /// What happened, for whoever has to find out why.
    told: Vec<String>,
}

impl Story {
    async fn new(seed: u64) -> Self {
        let redis = RedisServer::start();
        let nodes = [Node::new(&redis).await, Node::new(&redis).await];
        Self { random: fastrand::Rng::with_seed(seed), redis, nodes, number: 0, last: HashMap::new(), hits: 0, told: Vec::new() }
    }

    fn changed(&mut self, at: usize, covered: impl Fn(Place) -> bool) {
        for place in places().filter(|place| covered(*place)) {
            self.nodes[at].own.insert(place, self.number);
            self.last.insert(place, self.number);
        }
    }

    fn any_place(&mut self) -> Place {
        (NAMESPACES[self.random.usize(..2)], KEYS[self.random.usize(..KEYS.len())])
    }

    async fn step(&mut self) {
        self.number += 1;
        let at = self.random.usize(..2);
        let number = self.number;
        let (namespace, key) = self.any_place();
        let cache = self.nodes[at].cache().clone();
        let told = match self.random.u32(..100) {
            0..40 => {
                put(&cache, namespace, key, &number.to_string(), POLICIES[self.random.usize(..3)]).await;
                self.changed(at, |place| place == (namespace, key));
                format!("set {namespace} {key}")
            }
            40..70 => {
                self.judge(at, (namespace, key), false).await;
                format!("read {namespace} {key}")
            }
            70..80 => {
                cache.invalidate(namespace, key).await.expect("the invalidation");
                self.changed(at, |place| place == (namespace, key));
                format!("invalidate {namespace} {key}")
            }
            80..84 => {
                let (pattern, part) = PATTERNS[self.random.usize(..3)];
                cache.invalidate_pattern(namespace, pattern).await.expect("the invalidation");
                self.changed(at, |(ns, key)| ns == namespace && key.contains(part));
                format!("invalidate {namespace} {pattern}")
            }
            84..86 => {
                cache.invalidate_namespace(namespace).await.expect("the invalidation");
                self.changed(at, |(ns, _)| ns == namespace);
                format!("invalidate {namespace}")
            }
            86 => {
                cache.invalidate_all().await.expect("the invalidation");
                self.changed(at, |_| true);
                "invalidate all".to_owned()
            }
            87..92 => {
                let silently = self.random.bool();
                let proxy = &self.nodes[at].proxy;
                if silently {
                    proxy.swallow()
                } else {
                    proxy.cut()
                }
                format!("its network {}", if silently { "swallows" } else { "is cut" })
            }
            92..96 => {
                self.nodes[at].proxy.heal();
                "its network heals".to_owned()
            }
            96..99 => {
                let is_clean = self.random.bool();
                let gone = self.nodes[at].cache.take().expect("the node is open");
                if is_clean {
                    gone.close().await.expect("the node closes");
                }
                drop((gone, cache));
                self.nodes[at].open().await;
                format!("restarts, {}", if is_clean { "closed" } else { "dropped" })
            }
            _ => {
                self.redis.restart();
                "the server restarts, empty".to_owned()
            }
        };
        self.told.push(format!("{number}: node {at}: {told}"));
    }

    /// A node's read, against what it must know.
    async fn judge(&mut self, at: usize, place: Place, is_settled: bool) {
        let Some(text) = read(self.nodes[at].cache(), place.0, place.1).await else { return };
        self.hits += 1;
        let found: u64 = text.parse().expect("a value is a number");
        let known = if is_settled { &self.last } else { &self.nodes[at].own };
        let least = known.get(&place).copied().unwrap_or(0);
        let when = if is_settled { "after all was settled" } else { "after its own change" };
        let story = self.told.join("\n");
        assert!(found >= least, "{story}\nnode {at} reads {found} of {place:?}, {when} {least}");
    }

    /// Both connected, nothing to be made good, and each has read what the other wrote last.
    async fn settle(&mut self) {
        for node in &self.nodes {
            node.proxy.heal();
        }
        self.number += 1;
        let mark = self.number.to_string();
        for (here, there) in [(0, 1), (1, 0)] {
            let (here, there) = (self.nodes[here].cache(), self.nodes[there].cache());
            until("nothing is left to be made good", async || {
                support::tier_of(&here.health().await, Tier::Redis).state == TierState::Up
            })
            .await;
            until("the other node has read the log", async || {
                // Again and again: a write that came late for Redis is taken back, and the next one is not.
                put(here, MARKS, "mark", &mark, TtlPolicy::Persistent).await;
                support::tier_of(&here.health().await, Tier::Redis).state == TierState::Up
                    && read(there, MARKS, "mark").await.as_deref() == Some(&mark)
            })
            .await;
            put(here, MARKS, "mark", "none", TtlPolicy::Persistent).await;
            until("the other node has read the log", async || read(there, MARKS, "mark").await.as_deref() != Some(&mark)).await;
        }
        self.told.push("settled".to_owned());
        for at in 0..2 {
            for place in places().collect::<Vec<_>>() {
                self.judge(at, place, true).await;
            }
        }
    }

    async fn run(seed: u64) {
        let mut story = Self::new(seed).await;
        story.told.push(format!("story {seed}"));
        for _ in 0..3 {
            for _ in 0..40 {
                story.step().await;
            }
            story.settle().await;
        }
        for node in &story.nodes {
            node.cache().close().await.expect("the node closes");
        }
        assert!(story.hits > 0, "a cache that is always empty is never stale:\n{}", story.told.join("\n"));
    }
}

#[test]
fn two_nodes_a_partition_a_restart_and_not_one_stale_read() {
    let stories: u64 = std::env::var("AURUM_STORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for first in (0..stories).step_by(4) {
        std::thread::scope(|scope| {
            for seed in first..stories.min(first + 4) {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                    runtime.expect("a runtime").block_on(Story::run(seed));
                });
            }
        });
    }
}
