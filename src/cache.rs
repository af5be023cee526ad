//! [`Cache`]: the handle. Types end here; below everything is bytes.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::OnceCell;

use crate::builder::Builder;
use crate::config::CacheConfig;
use crate::engine::fetch::{Fetched, Load, LoadError, Make};
use crate::engine::see::EntryInfo;
use crate::engine::state::{Engine, Found, Verdict, Want};
use crate::entry::{Claim, Entry, Form};
use crate::error::{Error, ErrorKind};
use crate::fetch_error::FetchError;
use crate::health::Health;
use crate::invalidate::Invalidate;
use crate::invalidation::event::InvalidationEvent;
use crate::key::Key;
use crate::metrics::{Analytics, MissCause, Verb};
use crate::namespace::Namespace;
use crate::payload::Payload;
use crate::policy::TtlPolicy;
use crate::tier::Tier;
use crate::view::Cached;

/// One cache over memory, disk and Redis. Cheap to clone; clones share everything.
///
/// A read cannot fail, it can only miss: what goes wrong below is counted and shown in [`health`](Self::health). When the last handle is
/// dropped without [`close`](Self::close), everything that was set to land on disk is there, but memory's warm set is as old as the
/// last hot list (30 rounds of maintenance).
#[derive(Clone)]
pub struct Cache {
    pub(crate) engine: Arc<Engine>,
}

static GLOBAL: OnceCell<Cache> = OnceCell::const_new();

impl Cache {
    /// Starts a description of a cache; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens a cache from settings.
    ///
    /// # Errors
    ///
    /// As [`Builder::open`].
    pub async fn open(config: CacheConfig) -> Result<Self, Error> {
        Self::builder().config(config).open().await
    }

    /// The process-wide cache: the [installed](Self::install_global) one, else one opened from [`CacheConfig::from_settings`] on first use.
    ///
    /// # Errors
    ///
    /// As [`CacheConfig::from_settings`] and [`Builder::open`]; a later call tries again.
    pub async fn global() -> Result<&'static Self, Error> {
        GLOBAL.get_or_try_init(|| async { Self::open(CacheConfig::from_settings()?).await }).await
    }

    /// Makes `cache` the process-wide one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyInstalled`] if there is one, installed or opened by [`global`](Self::global).
    pub fn install_global(cache: Self) -> Result<(), Error> {
        GLOBAL.set(cache).map_err(|_| {
            let advice = "is installed already; install yours before the first call of Cache::global";
            Error::new(ErrorKind::AlreadyInstalled, "the process-wide cache", advice)
        })
    }

    /// Finds a value in memory, on disk or in Redis. `None` if no tier has it fresh, whole and of type `T`, or if the key is not allowed.
    ///
    /// A resident value costs one look into memory and one reference count. Cancel safe.
    pub async fn get<T: Payload + ?Sized>(&self, ns: Namespace, key: &str) -> Option<Cached<T>> {
        let key = self.engine.hasher.key(ns, key).ok()?;
        match self.resident::<T>(&key) {
            Some(hit) => Some(hit),
            None => Box::pin(self.get_below::<T>(&key)).await,
        }
    }

    /// Finds a value in memory only; never waits. A value that lies below is a miss here.
    pub fn get_resident<T: Payload + ?Sized>(&self, ns: Namespace, key: &str) -> Option<Cached<T>> {
        let key = self.engine.hasher.key(ns, key).ok()?;
        let hit = self.resident::<T>(&key);
        if hit.is_none() {
            self.count_resident_miss(&key);
        }
        hit
    }

    /// Runs `read` on a value in memory, without a reference count: the fastest read there is. `None` as [`get_resident`](Self::get_resident).
    ///
    /// Keep `read` short: removed entries are not freed while it runs.
    pub fn with_resident<T: Payload + ?Sized, R>(&self, ns: Namespace, key: &str, read: impl FnOnce(&T::View) -> R) -> Option<R> {
        let key = self.engine.hasher.key(ns, key).ok()?;
        let took = self.engine.recorder.sample();
        let fingerprint = self.fingerprint::<T>();
        let result = self.engine.resident(&key, |entry| entry.view::<T::Form>(fingerprint).map(read));
        if result.is_some() {
            self.count_resident_hit(&key, took);
        } else {
            self.count_resident_miss(&key);
        }
        result
    }

    /// Finds many values of one namespace, in the order of `keys`; one round trip to Redis for all that are not nearer.
    pub async fn get_many<T: Payload + ?Sized>(&self, ns: Namespace, keys: &[&str]) -> Vec<Option<Cached<T>>> {
        let keys: Vec<_> = keys.iter().map(|key| self.engine.hasher.key(ns, key).ok()).collect();
        let found = Box::pin(self.engine.read_many(&keys, self.want::<T>())).await;
        found.into_iter().map(|found| found.and_then(|found| self.cached(found))).collect()
    }

    /// Does any tier hold a live value of this key, of whatever type? Counts as no hit and moves nothing.
    pub async fn contains(&self, ns: Namespace, key: &str) -> bool {
        match self.engine.hasher.key(ns, key) {
            Ok(key) => self.engine.contains(&key).await,
            Err(_) => false,
        }
    }

    /// What is known of an entry, and which tiers hold it. Counts as no hit and moves nothing.
    pub async fn describe(&self, ns: Namespace, key: &str) -> Option<EntryInfo> {
        let key = self.engine.hasher.key(ns, key).ok()?;
        self.engine.describe(&key).await
    }

    /// Writes a value to every tier of its policy. When it returns, a later read here sees this value or a newer one.
    ///
    /// With a disk policy the value is readable at once and in the log within milliseconds; [`flush`](Self::flush) says when it survives a
    /// power cut. A value that is larger than a share of memory and than half a segment of the disk is held by Redis alone, or by nothing, and counted. A Redis that does not answer fails nothing: it is counted, and its old copy is barred until it is replaced.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`], [`ErrorKind::InvalidValue`] above the limit, [`ErrorKind::PolicyRefused`] by the namespace's
    /// `max_ttl`, [`ErrorKind::Closed`]. Nothing was changed then.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, the value is in all tiers of its policy or in none; the wait for Redis' answer can be cut short.
    pub async fn set<T: Payload + ?Sized>(&self, ns: Namespace, key: &str, value: &T, policy: TtlPolicy) -> Result<(), Error> {
        let key = self.engine.hasher.key(ns, key)?;
        let shared = self.write(&key, value, policy).await?;
        self.engine.share(shared).await;
        Ok(())
    }

    /// Writes many values of one namespace; Redis gets them in one go.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set). A bad key or policy is found before anything is written; otherwise those before the failing one are written.
    pub async fn set_many<T: Payload + ?Sized>(
        &self,
        ns: Namespace,
        entries: &[(&str, &T)],
        policy: TtlPolicy,
    ) -> Result<(), Error> {
        let mut keys = Vec::with_capacity(entries.len());
        for (key, _) in entries {
            let key = self.engine.hasher.key(ns, key)?;
            self.engine.govern(&key, policy)?;
            keys.push(key);
        }
        let mut answers = Vec::new();
        for (key, (_, value)) in keys.iter().zip(entries) {
            answers.push(self.write(key, *value, policy).await?);
        }
        for answer in answers {
            self.engine.share(answer).await;
        }
        Ok(())
    }

    /// Gets the value, or lets `fetch` make it: one loader per key however many callers.
    ///
    /// The loader runs in a task of the cache; a caller that goes away stops nothing. What a namespace's settings say of
    /// `soft_timeout`, `hard_timeout`, `stale_if_error` and `refresh_ahead` holds. A value whose key was written or
    /// invalidated while it was loaded is returned to those who waited, but not kept.
    ///
    /// # Errors
    ///
    /// [`FetchError::Fetch`] with the loader's error, unless a stale value may stand in; `TimedOut`, `Panicked`; `Rejected` for a bad key, a refused
    /// policy, a value over the limit, or a loader that asks for its own key.
    ///
    /// # Cancel safety
    ///
    /// Safe; the loader goes on and its value lands.
    pub async fn get_or_fetch<T, F, Fut, E>(
        &self,
        ns: Namespace,
        key: &str,
        policy: TtlPolicy,
        fetch: F,
    ) -> Result<Cached<T>, FetchError<E>>
    where
        T: Payload,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let key = self.engine.hasher.key(ns, key).map_err(FetchError::Rejected)?;
        // A hit that needs no refresh costs what a `get` costs.
        if self.engine.governance.of(key.id).refresh_ahead.is_none()
            && let Some(hit) = self.resident::<T>(&key)
        {
            return Ok(hit);
        }
        let load = loader::<T, F, Fut, E>(fetch);
        let fetched = Box::pin(self.engine.fetch(&key, self.want::<T>(), policy, load, |error| error.is::<E>())).await;
        self.fetched(fetched)
    }

    /// Loads the value unless a flight of its key is under way, and waits for it; for warming, which counts as no read.
    pub(crate) async fn load<T, F, Fut, E>(
        &self,
        ns: Namespace,
        key: &str,
        policy: TtlPolicy,
        fetch: F,
    ) -> Result<Cached<T>, FetchError<E>>
    where
        T: Payload,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let key = self.engine.hasher.key(ns, key).map_err(FetchError::Rejected)?;
        let life = self.engine.govern(&key, policy).map_err(FetchError::Rejected)?;
        let load = loader::<T, F, Fut, E>(fetch);
        let fetched = self.engine.load(&key, self.want::<T>(), policy, life, load, |error| error.is::<E>(), None, None).await;
        self.fetched(fetched)
    }

    /// Invalidates one key in every tier and on every node. Await the returned builder.
    pub fn invalidate(&self, ns: Namespace, key: &str) -> Invalidate<'_> {
        Invalidate::key(self, ns, key)
    }

    /// Invalidates what a glob matches in a namespace, in every tier and on every node; Redis' syntax (`*`, `?`, `[a-c]`, `\`).
    pub fn invalidate_pattern(&self, ns: Namespace, pattern: &str) -> Invalidate<'_> {
        Invalidate::pattern(self, ns, pattern)
    }

    /// Invalidates a whole namespace.
    pub fn invalidate_namespace(&self, ns: Namespace) -> Invalidate<'_> {
        Invalidate::namespace(self, ns)
    }

    /// Invalidates everything.
    pub fn invalidate_all(&self) -> Invalidate<'_> {
        Invalidate::all(self)
    }

    /// The invalidations of this node since a moment, oldest first; those of earlier runs too, where there is a disk. The newest 10 000 are kept.
    pub fn invalidation_events(&self, since: SystemTime) -> Vec<InvalidationEvent> {
        self.engine.ledger.since(since)
    }

    /// A snapshot of all counters since open.
    pub fn analytics(&self) -> Analytics {
        self.engine.analytics()
    }

    /// How the cache and its tiers are doing; asks Redis.
    pub async fn health(&self) -> Health {
        self.engine.health().await
    }

    /// When it returns `Ok`, every earlier [`set`](Self::set) that lands on disk survives a power cut (`fdatasync` of the log). Without a disk it does nothing.
    ///
    /// # Errors
    ///
    /// What the disk says; [`ErrorKind::Closed`].
    pub async fn flush(&self) -> Result<(), Error> {
        self.engine.flush().await
    }

    /// Stops the tasks, keeps the warm set for the next open, closes the tiers. Idempotent. Afterwards every read misses and every write fails with [`ErrorKind::Closed`].
    ///
    /// # Errors
    ///
    /// What the disk says of the last writes.
    pub async fn close(&self) -> Result<(), Error> {
        self.engine.close().await
    }

    /// Changes memory's budget, in bytes, while the cache runs. What no longer fits is evicted, and goes to disk where its policy says so.
    pub fn set_memory_capacity(&self, bytes: u64) {
        let moment = self.engine.gates.moment();
        let evicted = self.engine.memory.resize(bytes);
        self.engine.demote(evicted, moment);
    }

    /// One round of maintenance now, instead of waiting for the next; for tests with a manual [`Clock`](crate::Clock).
    pub async fn run_maintenance(&self) {
        self.engine.maintain().await;
    }

    async fn get_below<T: Payload + ?Sized>(&self, key: &Key<'_>) -> Option<Cached<T>> {
        let found = self.engine.read(key, self.want::<T>()).await?;
        self.cached(found)
    }

    #[inline]
    fn resident<T: Payload + ?Sized>(&self, key: &Key<'_>) -> Option<Cached<T>> {
        let took = self.engine.recorder.sample();
        let fingerprint = self.fingerprint::<T>();
        let entry = self.engine.resident(key, |entry| entry.view::<T::Form>(fingerprint).is_some().then(|| entry.clone()))?;
        self.count_resident_hit(key, took);
        self.cached(Found { entry, tier: Tier::Memory })
    }

    #[inline]
    fn count_resident_hit(&self, key: &Key<'_>, took: Option<crate::clock::Stopwatch>) {
        self.engine.recorder.hit(Tier::Memory, key.id);
        if let Some(took) = took {
            self.engine.recorder.timed(Tier::Memory, Verb::Get, took.elapsed());
        }
    }

    #[cold]
    fn count_resident_miss(&self, key: &Key<'_>) {
        self.engine.recorder.tier_miss(Tier::Memory);
        let cause = self.engine.departed.cause(key.hash).unwrap_or(MissCause::Absent);
        self.engine.recorder.miss(key.id, cause);
    }

    async fn write<T: Payload + ?Sized>(
        &self,
        key: &Key<'_>,
        value: &T,
        policy: TtlPolicy,
    ) -> Result<Option<crate::engine::write::Shared>, Error> {
        let fingerprint = self.fingerprint::<T>();
        let write = self.engine.prepare(key, policy).await?;
        T::Form::encode(value, |payload| self.engine.write(key, payload, write, fingerprint, Entry::vouch::<T::Form>))?
    }

    fn fetched<T: Payload, E: Send + Sync + 'static>(&self, fetched: Fetched) -> Result<Cached<T>, FetchError<E>> {
        match fetched {
            Fetched::Served(found) => {
                self.cached(found).ok_or_else(|| FetchError::Rejected(Error::corrupt("value", "does not validate")))
            }
            Fetched::Failed(error) => match error.downcast::<E>() {
                Ok(error) => Err(FetchError::Fetch(error)),
                Err(_) => Err(FetchError::TimedOut),
            },
            Fetched::TimedOut => Err(FetchError::TimedOut),
            Fetched::Panicked(message) => Err(FetchError::Panicked(message)),
            Fetched::Rejected(error) => Err(FetchError::Rejected(error)),
        }
    }

    #[inline]
    fn cached<T: Payload + ?Sized>(&self, found: Found) -> Option<Cached<T>> {
        match found.entry.claim::<T::Form>(self.fingerprint::<T>()) {
            Claim::Typed(bytes) => Some(Cached::new(bytes, found.tier, &self.engine.clock)),
            Claim::Foreign | Claim::Damaged => None,
        }
    }

    #[inline]
    fn fingerprint<T: Payload + ?Sized>(&self) -> u64 {
        T::FINGERPRINT ^ self.engine.salt
    }

    fn want<T: Payload + ?Sized>(&self) -> Want {
        let check = |entry: &Entry, fingerprint| match entry.clone().claim::<T::Form>(fingerprint) {
            Claim::Typed(_) => Verdict::Yes,
            Claim::Foreign => Verdict::Foreign,
            Claim::Damaged => Verdict::Damaged,
        };
        Want { fingerprint: self.fingerprint::<T>(), check }
    }
}

/// The user's loader with its types taken off.
fn loader<T, F, Fut, E>(fetch: F) -> Load
where
    T: Payload,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    Box::pin(async move {
        let value = fetch().await.map_err(|error| Arc::new(error) as Arc<dyn Any + Send + Sync> as LoadError)?;
        Ok(Box::new(move |build: &mut dyn FnMut(&[u8]) -> Entry| {
            let entry = T::Form::encode(&value, build)?;
            entry.vouch::<T::Form>();
            Ok(entry)
        }) as Make)
    })
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("node", &self.engine.node)
            .field("memory", &self.engine.memory.usage())
            .finish_non_exhaustive()
    }
}
