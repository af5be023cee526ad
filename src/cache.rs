//! [`Cache`]: the handle, one method an act of a user. Types end in [`typed`]; below everything is bytes.

pub(crate) mod typed;

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::OnceCell;

use self::typed::Missed;
use crate::builder::Builder;
use crate::config::CacheConfig;
use crate::engine::read::Resident;
use crate::engine::see::EntryInfo;
use crate::engine::state::Engine;
use crate::error::{Error, ErrorKind};
use crate::fetch_error::FetchError;
use crate::health::Health;
use crate::invalidate::Invalidate;
use crate::invalidation::event::InvalidationEvent;
use crate::key::KeyHasher;
use crate::metrics::Analytics;
use crate::namespace::Namespace;
use crate::payload::Payload;
use crate::policy::TtlPolicy;
use crate::view::Cached;

/// One cache over memory, disk and Redis. Cheap to clone; clones share everything.
///
/// A read cannot fail, it can only miss: what goes wrong below is counted and shown in [`health`](Self::health). When the last handle is
/// dropped without [`close`](Self::close), everything that was set to land on disk is there, but memory's warm set is as old as the
/// last hot list (30 rounds of maintenance).
///
/// ```
/// use aurum_cache::{Cache, Namespace, TtlPolicy};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).open().await?;
/// cache.set(Namespace::GENERAL, "greeting", "good morning", TtlPolicy::Medium).await?;
/// assert_eq!(cache.get::<str>(Namespace::GENERAL, "greeting").await.as_deref(), Some("good morning"));
/// assert_eq!(cache.invalidate(Namespace::GENERAL, "greeting").await?.count, 1);
/// assert!(cache.get::<str>(Namespace::GENERAL, "greeting").await.is_none());
/// cache.close().await?;
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
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
    /// A resident value costs one look into memory and one reference count. What a lower tier has is promoted on the way.
    ///
    /// # Cancel safety
    ///
    /// Safe at any await. Dropped while a lower tier is asked, it counts as neither hit nor miss.
    ///
    /// ```
    /// use aurum_cache::{Cache, Namespace, TtlPolicy, cacheable};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # #[cacheable] struct Curve { hub: String, prices: Vec<f64> }
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// let curve = Curve { hub: "pjm".into(), prices: vec![31.5, 29.75] };
    /// cache.set(Namespace::CURVES, "pjm:2026-11", &curve, TtlPolicy::Extended).await?;
    /// let hit = cache.get::<Curve>(Namespace::CURVES, "pjm:2026-11").await.expect("just set");
    /// assert_eq!((&*hit.hub, hit.prices[0].to_native()), ("pjm", 31.5)); // a view: nothing was decoded
    /// assert!(cache.get::<str>(Namespace::CURVES, "pjm:2026-11").await.is_none()); // it is no text
    /// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
    /// ```
    pub async fn get<T: Payload + ?Sized>(&self, ns: Namespace, key: &str) -> Option<Cached<T>> {
        {
            // Nothing of this lives across the await, so that none of it has to lie in the future.
            let mut missed = Missed::NotAKey;
            if let hit @ Some(_) = self.look::<T>(&ns, key, &mut missed) {
                return hit;
            }
            match missed {
                Missed::NotAKey => return None,
                Missed::Refused(_) => {}
                Missed::Absent(key) => {
                    if let Ok(found) = self.get_absent(&key) {
                        return found;
                    }
                }
            }
        }
        Box::pin(self.get_below::<T>(ns, key)).await
    }

    /// Finds a value in memory only; never waits and needs no runtime. A value that lies below is a miss here.
    pub fn get_resident<T: Payload + ?Sized>(&self, ns: Namespace, key: &str) -> Option<Cached<T>> {
        let mut missed = Missed::NotAKey;
        let hit = self.look::<T>(&ns, key, &mut missed);
        if hit.is_none() {
            self.count_missed(&missed, self.fingerprint::<T>());
        }
        hit
    }

    /// Runs `read` on a value in memory, without a reference count: the fastest read there is. `None` as [`get_resident`](Self::get_resident).
    ///
    /// Keep `read` short: removed entries are not freed while it runs. It may use the cache itself. A panic in it passes through and harms nothing.
    ///
    /// ```
    /// use aurum_cache::{Cache, Namespace, TtlPolicy};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// cache.set(Namespace::GENERAL, "text", "words", TtlPolicy::Long).await?;
    /// assert_eq!(cache.with_resident::<str, _>(Namespace::GENERAL, "text", |text| text.len()), Some(5));
    /// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
    /// ```
    pub fn with_resident<T: Payload + ?Sized, R>(&self, ns: Namespace, key: &str, read: impl FnOnce(&T::View) -> R) -> Option<R> {
        let key = self.engine.hasher.keyed(KeyHasher::check(ns, key).ok()?, key);
        self.engine.memory.expect(&key);
        let counted = self.engine.recorder.resident_hit(self.engine.places, key.id);
        let fingerprint = self.fingerprint::<T>();
        let missed = match self.engine.resident(&key, |entry| entry.view::<T::Form>(fingerprint).map(read)) {
            Resident::Hit(result) => {
                counted.count(&self.engine.recorder);
                return Some(result);
            }
            Resident::Refused => Missed::Refused(key),
            Resident::Absent => Missed::Absent(key),
        };
        self.count_missed(&missed, fingerprint);
        None
    }

    /// Finds many values of one namespace, in the order of `keys`; one round trip to Redis for all that are not nearer. A key that is asked for
    /// twice is answered twice, one that is not allowed with `None`. No keys, no answers.
    ///
    /// # Cancel safety
    ///
    /// As [`get`](Self::get).
    pub async fn get_many<T: Payload + ?Sized>(&self, ns: Namespace, keys: &[&str]) -> Vec<Option<Cached<T>>> {
        let keys: Vec<_> = keys.iter().map(|key| self.engine.hasher.key(ns, key).ok()).collect();
        let found = Box::pin(self.engine.read_many(&keys, self.want::<T>())).await;
        found.into_iter().map(|found| found.and_then(|found| self.cached(found))).collect()
    }

    /// Does any tier hold a live value of this key, of whatever type? Counts as no hit and moves nothing. `false` if the tier that holds it is
    /// down, and for a key that is not allowed.
    pub async fn contains(&self, ns: Namespace, key: &str) -> bool {
        match self.engine.hasher.key(ns, key) {
            Ok(key) => self.engine.contains(&key, None).await,
            Err(_) => false,
        }
    }

    /// What is known of an entry, and which tiers hold it. Counts as no hit and moves nothing. `None` where [`contains`](Self::contains) is `false`.
    ///
    /// ```
    /// use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// cache.set(Namespace::GENERAL, "text", "words", TtlPolicy::Long).await?;
    /// let info = cache.describe(Namespace::GENERAL, "text").await.expect("just set");
    /// assert_eq!((info.tiers, info.bytes, info.policy), (vec![Tier::Memory], 5, TtlPolicy::Long));
    /// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
    /// ```
    pub async fn describe(&self, ns: Namespace, key: &str) -> Option<EntryInfo> {
        let key = self.engine.hasher.key(ns, key).ok()?;
        self.engine.describe(&key).await
    }

    /// Writes a value to every tier of its policy. When it returns, a later read here sees this value or a newer one.
    ///
    /// With a disk policy the value is readable at once and within milliseconds in the log, where it survives a process that is killed. A power cut it
    /// survives from the next [`flush`](Self::flush) or `disk.flush_interval` on. While the disk's queue is full, a `set` of a disk policy waits.
    /// While the disk is down, the value is not written there, and an older one of the key that is there does not come back. A process that is killed
    /// before the disk is up again leaves a mark, and the next one lets go of all the disk held; only a device that takes not even a file's new name
    /// (read-only, or gone) has none, and the older value may come back then.
    ///
    /// A value that is larger than a share of memory and than half a segment of the disk is held by Redis alone, or by nothing, and counted. A Redis
    /// that does not answer fails nothing: it is counted, and its old copy is barred until it is replaced.
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
        // What waits is boxed, so that the future is small where nothing does.
        if let Some(disk) = self.engine.must_wait(policy) {
            Box::pin(disk.room()).await;
        }
        let shared = self.write(&self.engine.hasher.keyed(KeyHasher::check(ns, key)?, key), value, policy)?;
        if shared.is_some() {
            Box::pin(self.engine.share(shared, ns)).await;
        }
        Ok(())
    }

    /// Writes many values of one namespace; Redis gets them in one go.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set). A bad key or policy is found before anything is written; otherwise those before the failing one are written.
    ///
    /// # Cancel safety
    ///
    /// Each value is in all tiers of its policy or in none; those that come later in `entries` may be missing.
    ///
    /// ```
    /// use aurum_cache::{Cache, Namespace, TtlPolicy};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// cache.set_many(Namespace::GENERAL, &[("a", "one"), ("b", "two")], TtlPolicy::Short).await?;
    /// let found = cache.get_many::<str>(Namespace::GENERAL, &["b", "absent", "a"]).await;
    /// assert_eq!(found.iter().map(|hit| hit.as_deref()).collect::<Vec<_>>(), [Some("two"), None, Some("one")]);
    /// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
    /// ```
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
            if let Some(disk) = self.engine.must_wait(policy) {
                Box::pin(disk.room()).await;
            }
            answers.push(self.write(key, *value, policy)?);
        }
        for answer in answers {
            self.engine.share(answer, ns).await;
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
    /// policy, a value over the limit, a closed cache, or a loader that would wait for itself: one that asks for its own key, or `a` for `b` and `b` for
    /// `a`. That is known of what a loader asks in its own task; of what it spawns, only `hard_timeout` ends a circle.
    ///
    /// # Cancel safety
    ///
    /// Safe; the loader goes on and its value lands.
    ///
    /// ```
    /// use aurum_cache::{Cache, Namespace, TtlPolicy};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// let load = || async { Ok::<_, std::io::Error>(vec![31.5, 29.75]) }; // asks a slow source
    /// let prices = cache.get_or_fetch(Namespace::CURVES, "pjm", TtlPolicy::Short, load).await.expect("the source answered");
    /// assert_eq!(prices.len(), 2);
    /// // That there is nothing is a value as well, and spares the source:
    /// let nothing = || async { Ok::<Option<f64>, std::io::Error>(None) };
    /// let price = cache.get_or_fetch(Namespace::CURVES, "no-such-hub", TtlPolicy::UltraShort, nothing).await.expect("answered");
    /// assert!(price.is_none());
    /// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
    /// ```
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
        let id = KeyHasher::check(ns, key).map_err(FetchError::Rejected)?;
        // A hit that needs no refresh costs what a `get` costs.
        if self.engine.governance.of(id).refresh_ahead.is_none()
            && let Some(hit) = self.look::<T>(&ns, key, &mut Missed::NotAKey)
        {
            return Ok(hit);
        }
        let key = self.engine.hasher.keyed(id, key);
        let wanted = self.wanted::<T, E>(&key, policy).map_err(FetchError::Rejected)?;
        let load = typed::loader::<T, F, Fut, E>(fetch);
        let fetched = Box::pin(self.engine.fetch(&key, wanted, load)).await;
        self.fetched(fetched)
    }

    /// Invalidates one key in every tier and on every node. Await the returned builder; [`Invalidate`] says what holds then.
    pub fn invalidate(&self, ns: Namespace, key: &str) -> Invalidate<'_> {
        Invalidate::key(self, ns, key)
    }

    /// Invalidates what a glob matches in a namespace, in every tier and on every node; Redis' syntax (`*`, `?`, `[a-c]`, `\`). Put a `\` before a sign
    /// that is meant as it is, where the text comes from a user.
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
    ///
    /// ```
    /// use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// cache.set(Namespace::GENERAL, "k", "v", TtlPolicy::Short).await?;
    /// cache.get::<str>(Namespace::GENERAL, "k").await;
    /// cache.get::<str>(Namespace::GENERAL, "absent").await;
    /// let analytics = cache.analytics();
    /// assert_eq!((analytics.hits, analytics.misses, analytics.miss_causes.absent), (1, 1, 1));
    /// assert_eq!(analytics.tier(Tier::Memory).entries, 1);
    /// println!("{analytics}"); // a table
    /// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
    /// ```
    pub fn analytics(&self) -> Analytics {
        self.engine.analytics()
    }

    /// How the cache and its tiers are doing; asks Redis, for no longer than its timeout.
    ///
    /// ```
    /// use aurum_cache::{Cache};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// let health = cache.health().await;
    /// assert!(health.is_healthy, "{health}");
    /// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
    /// ```
    pub async fn health(&self) -> Health {
        self.engine.health().await
    }

    /// When it returns `Ok`, every earlier [`set`](Self::set) that lands on disk and every earlier invalidation survives a power cut (`fdatasync` of the
    /// log). Without a disk it does nothing.
    ///
    /// # Errors
    ///
    /// What the disk says, or [`ErrorKind::TierDown`] if it says nothing for twenty times `disk.timeout`; [`ErrorKind::Closed`]. After a sync that
    /// failed, none succeeds before what it may have lost was written again. What was set while the disk was down is not there, whatever a later `flush` returns.
    ///
    /// # Cancel safety
    ///
    /// Safe; the sync goes on, but nobody learns how it ended.
    pub async fn flush(&self) -> Result<(), Error> {
        self.engine.flush().await
    }

    /// Stops the tasks, keeps the warm set for the next open, closes the tiers. Afterwards every read misses and every write fails with
    /// [`ErrorKind::Closed`]; a loader that is under way answers those who wait for it, and is not kept. Idempotent: a second call waits for the
    /// first and returns the same.
    ///
    /// When it returns `Ok`, all that landed on disk survives a power cut, with what memory held of policies that may live there.
    ///
    /// # Errors
    ///
    /// What the disk says of the last writes. One that says nothing for twenty times `disk.timeout` is not waited for; its thread ends when it answers,
    /// and with it the lock on the folder. A disk that is down is tried once more; if it still takes nothing, and something in its log was
    /// invalidated or replaced meanwhile, the log is deleted, for the next open would serve what it says. Where even that fails, the next
    /// open may do so.
    ///
    /// # Cancel safety
    ///
    /// Dropped halfway, the cache is closed to its users; call it again to finish.
    pub async fn close(&self) -> Result<(), Error> {
        self.engine.close().await
    }

    /// Changes memory's budget, in bytes, while the cache runs. What no longer fits is evicted, and goes to disk where its policy says so.
    pub fn set_memory_capacity(&self, bytes: u64) {
        let moment = self.engine.gates.moment();
        let mut evicted = self.engine.memory.resize(bytes);
        self.engine.demote(&mut evicted, moment);
    }

    /// One round of maintenance now, instead of waiting for the next; for tests with a manual [`Clock`](crate::Clock).
    pub async fn run_maintenance(&self) {
        self.engine.maintain().await;
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("node", &self.engine.node)
            .field("memory", &self.engine.memory.usage())
            .finish_non_exhaustive()
    }
}
