//! The old interface: one flat store of keys. It compiles, warns, and shares the cache.
//!
//! Every call forwards to [`Namespace::GENERAL`] with [`TtlPolicy::Medium`], so that old and new callers see each
//! other's values, and a service can move call by call.

#![allow(deprecated)] // the old interface talks about itself

use crate::cache::Cache;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::payload::Payload;
use crate::policy::TtlPolicy;
use crate::tier::{Tier, TierState};
use crate::view::Cached;

/// Which store the old interface asked for.
#[deprecated(since = "0.1.0", note = "tiers follow from the TtlPolicy; use aurum_cache::Cache")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheBackend {
    /// This process's memory.
    Memory,
    /// Redis, where the process-wide cache has it configured.
    Redis,
}

/// The old handle. Forwards to the [process-wide cache](Cache::global).
///
/// ```
/// # #![allow(deprecated)]
/// use aurum_cache::legacy::{AsyncCache, CacheBackend};
/// use aurum_cache::{Cache, Namespace};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// Cache::install_global(Cache::builder().memory(8 << 20).open().await?)?;
/// let old = AsyncCache::new(CacheBackend::Memory).await?;
/// old.set("key", "value").await?;
/// let new = Cache::global().await?; // the same values
/// assert_eq!(new.get::<str>(Namespace::GENERAL, "key").await.as_deref(), Some("value"));
/// assert!(old.delete("key").await?);
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
#[deprecated(since = "0.1.0", note = "use aurum_cache::Cache with a Namespace and a TtlPolicy")]
#[derive(Clone, Debug)]
pub struct AsyncCache {
    cache: Cache,
}

impl AsyncCache {
    /// The process-wide cache through the old interface.
    ///
    /// # Errors
    ///
    /// As [`Cache::global`]. Which tiers there are follows from its settings: [`CacheBackend::Redis`] where none is configured is
    /// a warning in the log, and a Redis that is away is no error.
    pub async fn new(backend: CacheBackend) -> Result<Self, Error> {
        let cache = Cache::global().await?.clone();
        if backend == CacheBackend::Redis {
            let health = cache.health().await;
            if health.tiers.iter().any(|tier| tier.tier == Tier::Redis && tier.state == TierState::Off) {
                tracing::warn!("CacheBackend::Redis was asked for, but redis.url is not set; the values stay in this process");
            }
        }
        Ok(Self { cache })
    }

    /// [`Cache::set`] in `GENERAL` with `Medium`.
    ///
    /// # Errors
    ///
    /// As [`Cache::set`].
    pub async fn set<T: Payload + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.cache.set(Namespace::GENERAL, key, value, TtlPolicy::Medium).await
    }

    /// [`Cache::get`] in `GENERAL`.
    pub async fn get<T: Payload + ?Sized>(&self, key: &str) -> Option<Cached<T>> {
        self.cache.get::<T>(Namespace::GENERAL, key).await
    }

    /// [`Cache::invalidate`] in `GENERAL`; `true` if the key was there.
    ///
    /// # Errors
    ///
    /// As [`Cache::invalidate`].
    pub async fn delete(&self, key: &str) -> Result<bool, Error> {
        let event = self.cache.invalidate(Namespace::GENERAL, key).reason("delete").triggered_by("legacy interface").await?;
        Ok(event.count != 0)
    }
}
