//! What the integration tests share: a real Redis server, a network that can be broken, child
//! processes that can be killed, and waiting for a fact instead of for a time.
//!
//! Two kinds of time. Where a test is about lives, it uses the manual `Clock` and never waits.
//! Where it is about servers and tasks, it asks a question again and again until the answer is yes
//! ([`until`]); the limit is generous, because a slow machine is not a failure.
#![allow(dead_code, unreachable_pub)] // each test file uses its own part of this

pub mod child;
pub mod proxy;
pub mod redis;

use std::time::{Duration, Instant};

use aurum_cache::{Cache, CacheConfig, Health, Namespace, Tier, TierHealth, TtlPolicy};
use figment::providers::{Format, Toml};

/// How long a fact may take to become true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The real time; the only place of the tests that asks for it.
#[allow(clippy::disallowed_methods)] // real servers and processes live in real time
pub fn now() -> Instant {
    Instant::now()
}

/// Asks until the answer is yes; fails with `fact` when it stays no for [`PATIENCE`].
pub async fn until(fact: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = now() + PATIENCE;
    while !holds().await {
        assert!(now() < end, "after {PATIENCE:?} it is still not true that {fact}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long `work` takes, in real time.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = now();
    let result = work.await;
    (result, now() - start)
}

/// A builder whose Redis may take its time: with the usual 50 ms a busy machine turns a call into a miss, or into a change that is made good
/// later, and a test of something else would be about that.
pub fn patient() -> aurum_cache::Builder {
    Cache::builder().config(settings("[redis]\ntimeout = \"20s\""))
}

/// Settings as they stand in a file.
pub fn settings(toml: &str) -> CacheConfig {
    figment::Figment::from(Toml::string(toml)).extract().unwrap_or_else(|e| panic!("settings of a test: {e}\n{toml}"))
}

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A text of `bytes` bytes that begins with `name`, so that a value says which one it is.
pub fn text(name: &str, bytes: usize) -> String {
    let mut out = format!("{name}|");
    while out.len() < bytes {
        out.push(char::from(b'a' + (out.len() % 26) as u8));
    }
    out
}

/// Sets a text; for tests in which a set has to succeed.
pub async fn put(cache: &Cache, namespace: Namespace, key: &str, value: &str, policy: TtlPolicy) {
    cache.set(namespace, key, value, policy).await.unwrap_or_else(|e| panic!("set {namespace} {key}: {e}"));
}

/// Reads a text as its owned form.
pub async fn read(cache: &Cache, namespace: Namespace, key: &str) -> Option<String> {
    cache.get::<str>(namespace, key).await.map(|hit| hit.to_owned_text())
}

/// The tiers that hold a key now; empty if none does.
pub async fn tiers(cache: &Cache, namespace: Namespace, key: &str) -> Vec<Tier> {
    cache.describe(namespace, key).await.map(|info| info.tiers).unwrap_or_default()
}

/// What health says of one tier.
pub fn tier_of(health: &Health, tier: Tier) -> TierHealth {
    health.tiers.iter().find(|t| t.tier == tier).cloned().unwrap_or_else(|| panic!("health does not speak of {tier}: {health:?}"))
}

/// A short way from a hit on a text to a `String`.
pub trait OwnedText {
    fn to_owned_text(&self) -> String;
}

impl OwnedText for aurum_cache::Cached<str> {
    fn to_owned_text(&self) -> String {
        let view: &str = self;
        view.to_owned()
    }
}
