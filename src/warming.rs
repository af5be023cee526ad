//! Warming: values are loaded before anybody asks for them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "serde")]
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::cache::typed::loader;
use crate::clock::Clock;
use crate::fetch_error::FetchError;
use crate::namespace::Namespace;
use crate::payload::Payload;
use crate::policy::TtlPolicy;

/// A fetcher with its types taken off; a failure is only counted.
type Fetcher<T> = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<T, ()>> + Send>> + Send + Sync>;

/// What to load, how, and how often.
///
/// ```
/// use aurum_cache::{Cache, Namespace, TtlPolicy, Warming};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).open().await?;
/// let report = cache
///     .warm(
///         Warming::new(Namespace::METADATA, TtlPolicy::Long)
///             .keys(["hubs", "units"])
///             .concurrency(2)
///             .fetcher(|key: String| async move { Ok::<_, std::io::Error>(key.len() as u64) }),
///     )
///     .await;
/// assert_eq!((report.loaded, report.failed), (2, 0));
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
pub struct Warming<T> {
    namespace: Namespace,
    policy: TtlPolicy,
    keys: Vec<String>,
    concurrency: usize,
    every: Option<Duration>,
    enabled: bool,
    fetcher: Option<Fetcher<T>>,
}

impl<T> Warming<T> {
    /// Nothing yet: five loads at once, once, enabled.
    pub fn new(namespace: Namespace, policy: TtlPolicy) -> Self {
        Self { namespace, policy, keys: Vec::new(), concurrency: 5, every: None, enabled: true, fetcher: None }
    }

    /// The keys to load, in this order.
    pub fn keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.keys = keys.into_iter().map(Into::into).collect();
        self
    }

    /// How many loads may run at once; 0 counts as 1.
    pub fn concurrency(mut self, loads: usize) -> Self {
        self.concurrency = loads.max(1);
        self
    }

    /// How long after the end of one round the next begins. Without it, there is one.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    /// Switched off, it loads nothing and reports nothing.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// What loads a key. Without it nothing is loaded, and every key that is not warm counts as failed.
    pub fn fetcher<F, Fut, E>(mut self, fetcher: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let fetcher = Arc::new(fetcher);
        self.fetcher = Some(Arc::new(move |key| {
            let fetcher = fetcher.clone();
            Box::pin(async move { fetcher(key).await.map_err(drop) })
        }));
        self
    }
}

impl<T> Clone for Warming<T> {
    fn clone(&self) -> Self {
        Self { keys: self.keys.clone(), fetcher: self.fetcher.clone(), ..*self }
    }
}

impl<T> fmt::Debug for Warming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warming")
            .field("namespace", &self.namespace)
            .field("policy", &self.policy)
            .field("keys", &self.keys.len())
            .field("concurrency", &self.concurrency)
            .field("every", &self.every)
            .field("enabled", &self.enabled)
            .finish_non_exhaustive()
    }
}

/// What one round of warming did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct WarmingReport {
    /// Keys that were loaded and kept.
    pub loaded: u64,
    /// Keys that some tier held already, as this type.
    pub already_warm: u64,
    /// Keys whose fetcher failed or panicked, or that are not allowed.
    pub failed: u64,
    /// How long it took.
    pub took: Duration,
}

enum Warmed {
    Loaded,
    Already,
    Failed,
}

impl Cache {
    /// Warms once, and reports. Keys that a tier holds already are left alone (bytes of another type, or of an earlier version of it, are not
    /// held); a failing key does not stop the others. Counts as no read. On a closed cache every key fails.
    ///
    /// # Cancel safety
    ///
    /// Dropped halfway, the loads under way go on and land, the rest is not begun.
    pub async fn warm<T: Payload>(&self, warming: Warming<T>) -> WarmingReport {
        let started = Clock::stopwatch();
        let mut report = WarmingReport::default();
        if !warming.enabled {
            return report;
        }
        let places = Arc::new(Semaphore::new(warming.concurrency));
        let mut round = JoinSet::new();
        for key in warming.keys {
            let (cache, places, fetcher) = (self.clone(), places.clone(), warming.fetcher.clone());
            let (namespace, policy) = (warming.namespace, warming.policy);
            round.spawn(async move {
                let Ok(_place) = places.acquire_owned().await else { return Warmed::Failed };
                cache.warm_one(namespace, policy, key, fetcher).await
            });
        }
        while let Some(warmed) = round.join_next().await {
            match warmed.unwrap_or(Warmed::Failed) {
                Warmed::Loaded => report.loaded += 1,
                Warmed::Already => report.already_warm += 1,
                Warmed::Failed => report.failed += 1,
            }
        }
        report.took = started.elapsed();
        report
    }

    /// Warms now and again [every](Warming::every) so often, in the background, until the cache is closed or its last handle is dropped. What a
    /// round did is logged at level `info`. Does nothing if the warming is switched off or the cache is closed.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, which its task needs.
    ///
    /// ```
    /// use aurum_cache::{Cache, Namespace, TtlPolicy, Warming};
    /// use std::time::Duration;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let cache = Cache::builder().memory(8 << 20).open().await?;
    /// let hubs = Warming::new(Namespace::METADATA, TtlPolicy::Long)
    ///     .keys(["hubs"])
    ///     .every(Duration::from_secs(3600))
    ///     .fetcher(|_| async { Ok::<u64, std::io::Error>(42) });
    /// cache.configure_warming(hubs);
    /// while cache.get_resident::<u64>(Namespace::METADATA, "hubs").is_none() {
    ///     tokio::task::yield_now().await; // it loads in the background
    /// }
    /// cache.close().await
    /// # }).unwrap();
    /// ```
    pub fn configure_warming<T: Payload>(&self, warming: Warming<T>) {
        if !warming.enabled || self.engine.check_open().is_err() {
            return;
        }
        let weak = Arc::downgrade(&self.engine);
        let task = tokio::spawn(async move {
            loop {
                let Some(engine) = weak.upgrade() else { return };
                let cache = Self { engine };
                let report = cache.warm(warming.clone()).await;
                drop(cache);
                let WarmingReport { loaded, already_warm, failed, took } = report;
                tracing::info!(namespace = %warming.namespace, loaded, already_warm, failed, ?took, "warmed");
                match warming.every {
                    Some(interval) => tokio::time::sleep(interval).await,
                    None => return,
                }
            }
        });
        self.engine.tasks.lock().push(task);
    }

    async fn warm_one<T: Payload>(
        &self,
        namespace: Namespace,
        policy: TtlPolicy,
        key: String,
        fetcher: Option<Fetcher<T>>,
    ) -> Warmed {
        if self.holds::<T>(namespace, &key).await {
            return Warmed::Already;
        }
        let Some(fetcher) = fetcher else { return Warmed::Failed };
        let asked = key.clone();
        match self.load::<T, ()>(namespace, &key, policy, loader(move || fetcher(asked))).await {
            Ok(_) => Warmed::Loaded,
            Err(error) => {
                // Without the error's text: it may hold the key, and a panic's message anything.
                let why = match error {
                    FetchError::Fetch(_) => "the fetcher failed".to_owned(),
                    FetchError::TimedOut => "it took longer than hard_timeout".to_owned(),
                    FetchError::Panicked(_) => "the fetcher panicked".to_owned(),
                    FetchError::Rejected(error) => format!("the cache refused it: {:?}", error.kind()),
                };
                tracing::warn!(%namespace, why, "a key could not be warmed");
                Warmed::Failed
            }
        }
    }
}
