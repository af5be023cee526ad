//! Settings: plain data, the same whether they come from a file, from the environment or from code.
//!
//! [`load`] reads them, [`units`] and [`secret`] are how single values are written, and [`CacheConfig::validate`] is the only judge of ranges: what passes it can
//! be opened, unless the world (a folder, a server) says no.

mod load;
mod secret;
mod units;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use secret::{SecretUrl, Urls};
pub use units::Size;

use crate::error::Error;
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;
use crate::policy::placement::{Admission, Placement};
use crate::policy::ttl::MAX_TTL;
use units::{duration, policy};

/// All settings of a cache. Everything has a default; the default is a cache of 256 MiB of memory alone.
///
/// ```
/// use aurum_cache::CacheConfig;
///
/// let config = CacheConfig::from_toml_str("[memory]\ncapacity = \"64MiB\"")?;
/// assert_eq!(u64::from(config.memory.capacity), 64 << 20);
/// let error = CacheConfig::from_toml_str("[memory]\nsize = \"64MiB\"").unwrap_err();
/// assert!(error.to_string().starts_with("memory.size: "));
/// # Ok::<(), aurum_cache::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheConfig {
    /// Folded into every type's fingerprint: a new number leaves all stored values behind.
    pub schema: u32,
    /// This node's name in events and in the log between nodes, unique among them; random if none is given.
    pub node: Option<String>,
    /// How much is trusted while the other nodes cannot be heard.
    pub coherence: Coherence,
    /// The memory tier.
    pub memory: MemoryConfig,
    /// The disk tier; off without a path.
    pub disk: DiskSettings,
    /// The Redis tier; off without a URL.
    pub redis: RedisSettings,
    /// Bounds on what is stored.
    pub limits: Limits,
    /// The work that goes on without traffic.
    pub maintenance: Maintenance,
    /// Where entries of a named policy live, by the policy's name, where that is not as the policy says.
    pub placement: BTreeMap<String, Placement>,
    /// What is laid down for single namespaces, by name.
    pub namespaces: BTreeMap<String, NamespaceConfig>,
}

/// How much is trusted while Redis, and with it the log between nodes, cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Coherence {
    /// The cache opens, serves what it has, and says so in health.
    #[default]
    Lenient,
    /// The cache does not open.
    Strict,
}

/// The memory tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// All overhead counted; at least 1 MiB.
    pub capacity: Size,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { capacity: Size::mib(256) }
    }
}

/// The disk tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DiskSettings {
    /// Its folder, made if it is missing; without one there is no disk tier.
    pub path: Option<PathBuf>,
    /// For all its files; at least 16 MiB. 1 GiB unless set.
    pub capacity: Size,
    /// What a power cut may cost; 1 ms to 1 h. 500 ms unless set.
    #[serde(with = "duration")]
    pub flush_interval: Duration,
    /// How long a read waits for the device before it is a miss; 1 ms to 1 min. Opening, flushing, closing and notes have twenty times as long. A writer
    /// that gets nothing written for that takes the tier down until it does. 500 ms unless set.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Bytes that may wait to be written, at least 64 KiB; a full queue makes a write wait. 8 MiB unless set.
    pub queue: Size,
    /// Which of the values that memory lets go are written. What a `set` of a disk policy brings always is.
    pub admission: Admission,
}

impl Default for DiskSettings {
    fn default() -> Self {
        let (flush_interval, timeout) = (Duration::from_millis(500), Duration::from_millis(500));
        let (capacity, queue) = (Size::mib(1024), Size::mib(8));
        Self { path: None, capacity, flush_interval, timeout, queue, admission: Admission::default() }
    }
}

/// The Redis tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisSettings {
    /// Where it is: one URL, several (of nodes of the same Cluster) for Redis Cluster, none for no Redis. May be written `urls`.
    #[serde(alias = "urls")]
    pub url: Urls,
    /// For `rediss`: a file in PEM with the authorities to trust, instead of the usual public ones.
    pub ca_file: Option<PathBuf>,
    /// What every key begins with; 1 to 64 bytes without blanks, braces and the signs of patterns.
    pub key_prefix: String,
    /// The longest a call may take; at most 60 s.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl RedisSettings {
    /// The URLs, none if there is no Redis tier.
    pub fn urls(&self) -> &[SecretUrl] {
        self.url.as_slice()
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self { url: Urls::default(), ca_file: None, key_prefix: "aurum".into(), timeout: Duration::from_millis(50) }
    }
}

/// Bounds on what is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// A larger value is refused by `set`; 1 KiB to 512 MiB. 16 MiB unless set.
    pub max_value: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_value: Size::mib(16) }
    }
}

/// The work that goes on without traffic: expired entries leave, health is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Maintenance {
    /// Between two rounds; 10 ms to 1 h. 1 s unless set.
    #[serde(with = "duration")]
    pub interval: Duration,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1) }
    }
}

/// What happens to a policy longer than `max_ttl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Enforce {
    /// The write is refused.
    #[default]
    Refuse,
    /// The entry lives as long as allowed.
    Clamp,
}

/// What is laid down for one namespace. What is left out is not limited, or as the crate does it.
///
/// ```
/// use aurum_cache::{NamespaceConfig, TtlPolicy};
/// use std::time::Duration;
///
/// let prices = NamespaceConfig::default().policy(TtlPolicy::Short).max_ttl(Duration::from_secs(3600)).refresh_ahead(0.8);
/// assert_eq!(prices.refresh_ahead, Some(0.8));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NamespaceConfig {
    /// The default policy.
    #[serde(with = "policy")]
    pub policy: Option<TtlPolicy>,
    /// No entry may live longer.
    #[serde(with = "duration::maybe")]
    pub max_ttl: Option<Duration>,
    /// What happens to a longer policy.
    pub enforce: Enforce,
    /// How long past its life a value may stand in for a failed fetch.
    #[serde(with = "duration::maybe")]
    pub stale_if_error: Option<Duration>,
    /// Share of the life after which a read renews the value in the background; above 0, below 1.
    pub refresh_ahead: Option<f64>,
    /// After this a stale value, if there is one, is served while the fetch goes on.
    #[serde(with = "duration::maybe")]
    pub soft_timeout: Option<Duration>,
    /// After this a fetch has failed.
    #[serde(with = "duration::maybe")]
    pub hard_timeout: Option<Duration>,
    /// Fetches under way at once, 1 to 65 536; 256 unless set. What a loader itself fetches is not counted: it runs in the place of its loader.
    pub concurrent_fetches: Option<usize>,
    /// Lives are shortened by a random share of up to this, 0 to 0.5, so that what was set together does not expire together.
    pub jitter: Option<f64>,
}

impl NamespaceConfig {
    /// Sets the default policy.
    pub fn policy(mut self, policy: TtlPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets the longest life.
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = Some(ttl);
        self
    }

    /// Sets what happens to a longer policy.
    pub fn enforce(mut self, enforce: Enforce) -> Self {
        self.enforce = enforce;
        self
    }

    /// Shortens a policy that is longer than the longest life, instead of refusing it.
    pub fn clamp(self) -> Self {
        self.enforce(Enforce::Clamp)
    }

    /// Sets how long past its life a value may stand in for a failed fetch.
    pub fn stale_if_error(mut self, time: Duration) -> Self {
        self.stale_if_error = Some(time);
        self
    }

    /// Sets the share of the life after which a read renews the value in the background.
    pub fn refresh_ahead(mut self, share: f64) -> Self {
        self.refresh_ahead = Some(share);
        self
    }

    /// Sets the time after which a stale value is served while the fetch goes on.
    pub fn soft_timeout(mut self, time: Duration) -> Self {
        self.soft_timeout = Some(time);
        self
    }

    /// Sets the time after which a fetch has failed.
    pub fn hard_timeout(mut self, time: Duration) -> Self {
        self.hard_timeout = Some(time);
        self
    }

    /// Sets how many fetches may be under way at once.
    pub fn concurrent_fetches(mut self, count: usize) -> Self {
        self.concurrent_fetches = Some(count);
        self
    }

    /// Sets by how large a share lives are shortened at random.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = Some(share);
        self
    }

    pub(crate) fn is_clamped(&self) -> bool {
        self.enforce == Enforce::Clamp
    }

    fn validate(&self, name: &str) -> Result<(), Error> {
        let key = |field: &str| format!("namespaces.{name}.{field}");
        for (field, time) in [("max_ttl", self.max_ttl), ("soft_timeout", self.soft_timeout), ("hard_timeout", self.hard_timeout)]
        {
            demand(time != Some(Duration::ZERO), || key(field), "is zero; give it some time, or leave it out")?;
        }
        for (field, time) in [("max_ttl", self.max_ttl), ("stale_if_error", self.stale_if_error)] {
            demand(time.is_none_or(|time| time <= MAX_TTL), || key(field), "is over 100 years; give it less, or leave it out")?;
        }
        let is_ordered = self.soft_timeout.zip(self.hard_timeout).is_none_or(|(soft, hard)| soft <= hard);
        demand(is_ordered, || key("soft_timeout"), "is longer than hard_timeout; lower it")?;
        let is_share = self.refresh_ahead.is_none_or(|share| share > 0.0 && share < 1.0);
        demand(is_share, || key("refresh_ahead"), "must be above 0 and below 1; 0.8 renews in the last fifth of a life")?;
        let is_jitter = self.jitter.is_none_or(|share| (0.0..=0.5).contains(&share));
        demand(is_jitter, || key("jitter"), "must be from 0 to 0.5; 0.1 shortens lives by up to a tenth")?;
        let is_count = self.concurrent_fetches.is_none_or(|count| (1..=65_536).contains(&count));
        demand(is_count, || key("concurrent_fetches"), "must be from 1 to 65536")?;
        let is_allowed = match (self.policy, self.max_ttl) {
            (Some(policy), Some(max)) => policy.ttl() <= max || self.is_clamped(),
            _ => true,
        };
        demand(is_allowed, || key("policy"), "is longer than max_ttl; shorten it, or set enforce = \"clamp\"")
    }
}

impl CacheConfig {
    /// Is every value within its range, and do they agree with each other? Called by every way to read settings, and by
    /// [`Builder::open`](crate::Builder::open).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming the first setting that is not.
    pub fn validate(&self) -> Result<(), Error> {
        let is_in = |size: Size, low: u64, high: u64| (low..=high).contains(&u64::from(size));
        let at = |key: &'static str| move || key.to_owned();
        demand(is_in(self.memory.capacity, 1 << 20, 1 << 50), at("memory.capacity"), "must be at least 1 MiB; raise it")?;
        demand(is_in(self.disk.capacity, 16 << 20, 1 << 60), at("disk.capacity"), "must be at least 16 MiB; raise it")?;
        demand(is_in(self.disk.queue, 64 << 10, 1 << 40), at("disk.queue"), "must be at least 64 KiB; raise it")?;
        let is_value = is_in(self.limits.max_value, 1 << 10, 512 << 20);
        demand(is_value, at("limits.max_value"), "must be from 1 KiB to 512 MiB, as Redis takes no larger values")?;
        let (flush, hour) = (self.disk.flush_interval, Duration::from_secs(3_600));
        let is_flush = (Duration::from_millis(1)..=hour).contains(&flush);
        demand(is_flush, at("disk.flush_interval"), "must be from 1ms to 1h")?;
        let is_timeout = (Duration::from_millis(1)..=Duration::from_secs(60)).contains(&self.disk.timeout);
        demand(is_timeout, at("disk.timeout"), "must be from 1ms to 1m; 500ms is usual")?;
        let is_round = (Duration::from_millis(10)..=hour).contains(&self.maintenance.interval);
        demand(is_round, at("maintenance.interval"), "must be from 10ms to 1h")?;
        let is_path = self.disk.path.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
        demand(is_path, at("disk.path"), "is empty; name a folder, or leave it out")?;
        let is_node = |node: &String| (1..=64).contains(&node.len()) && node.chars().all(|c| c.is_ascii_graphic());
        demand(self.node.as_ref().is_none_or(is_node), at("node"), "must be 1 to 64 visible ASCII characters")?;
        self.validate_redis()?;
        for name in self.placement.keys() {
            let is_named = TtlPolicy::NAMED.iter().any(|policy| policy.to_string() == *name);
            let advice = "is no named policy; use ultra_short, short, medium, long, extended or persistent";
            demand(is_named, || format!("placement.{name}"), advice)?;
        }
        for (name, settings) in &self.namespaces {
            if let Err(error) = Namespace::parse(name) {
                return Err(Error::config(format!("namespaces.{name}"), error.to_string()));
            }
            settings.validate(name)?;
        }
        Ok(())
    }

    fn validate_redis(&self) -> Result<(), Error> {
        let at = |key: &'static str| move || key.to_owned();
        let is_timeout = self.redis.timeout > Duration::ZERO && self.redis.timeout <= Duration::from_secs(60);
        demand(is_timeout, at("redis.timeout"), "must be above zero and at most 60s; 50ms is usual")?;
        let is_sign = |c: char| c.is_whitespace() || c.is_control() || "{}*?[]\\".contains(c);
        let prefix = &self.redis.key_prefix;
        let is_prefix = (1..=64).contains(&prefix.len()) && !prefix.contains(is_sign);
        demand(is_prefix, at("redis.key_prefix"), "must be 1 to 64 bytes without blanks and {}*?[]\\")?;
        let is_path = self.redis.ca_file.as_ref().is_none_or(|path| !path.as_os_str().is_empty());
        demand(is_path, at("redis.ca_file"), "is empty; name a file, or leave it out")?;
        for url in self.redis.urls() {
            let is_redis = url.expose().starts_with("redis") && url.expose().contains("://");
            demand(is_redis, at("redis.url"), "is no Redis URL; write redis://host:port or rediss://host:port")?;
            let is_verified = !url.expose().contains("#insecure");
            demand(is_verified, at("redis.url"), "asks for TLS without verification; drop #insecure and trust the certificate")?;
        }
        Ok(())
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.coherence == Coherence::Strict
    }
}

fn demand(holds: bool, key: impl FnOnce() -> String, advice: &str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::config(key(), advice)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_serialization() {
        let config = CacheConfig::default();
        config.validate().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains("\"256MiB\"") && json.contains("\"50ms\""), "{json}");
        assert_eq!(serde_json::from_str::<CacheConfig>(&json).unwrap(), config);
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let cases = [
            ("[memory]\ncapacity = 1000", "memory.capacity"),
            ("[disk]\ncapacity = \"1MiB\"", "disk.capacity"),
            ("[disk]\ntimeout = \"2m\"", "disk.timeout"),
            ("[redis]\ntimeout = \"0s\"", "redis.timeout"),
            ("[redis]\nkey_prefix = \"a{b\"", "redis.key_prefix"),
            ("[redis]\nurl = \"http://x\"", "redis.url"),
            ("[redis]\nurl = \"rediss://x/#insecure\"", "redis.url"),
            ("[namespaces.curves]\nrefresh_ahead = 1.0", "namespaces.curves.refresh_ahead"),
            ("[namespaces.curves]\njitter = nan", "namespaces.curves.jitter"),
            ("[namespaces.curves]\nsoft_timeout = \"2s\"\nhard_timeout = \"1s\"", "namespaces.curves.soft_timeout"),
            ("[namespaces.curves]\npolicy = \"long\"\nmax_ttl = \"1h\"", "namespaces.curves.policy"),
            ("[namespaces.\"No Name\"]\n", "namespaces.No Name"),
            ("[placement.90s]\ndisk = \"never\"\nredis = true", "placement.90s"),
            ("node = \"\"", "node"),
        ];
        for (text, key) in cases {
            let error = CacheConfig::from_toml_str(text).unwrap_err();
            assert_eq!(error.subject(), key, "{error}");
        }
    }
}
