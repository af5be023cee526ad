//! [`Invalidate`]: an invalidation that is about to happen.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use crate::cache::Cache;
use crate::engine::invalidate::Because;
use crate::error::Error;
use crate::invalidation::event::InvalidationEvent;
use crate::namespace::Namespace;
use crate::pattern::Pattern;

/// An invalidation; happens when it is awaited.
///
/// When it returns, no later read returns what was there before, in any tier, nor after a restart; and on no other node, once the log has reached it. What
/// is written after the call survives.
///
/// On disk its tombstones are in the log when it returns, so that a process killed right then brings nothing back. A power cut may undo what is
/// younger than the last [`flush`](crate::Cache::flush) and `disk.flush_interval`.
///
/// # Errors
///
/// [`InvalidKey`](crate::ErrorKind::InvalidKey), [`InvalidPattern`](crate::ErrorKind::InvalidPattern) and [`Closed`](crate::ErrorKind::Closed): nothing
/// was changed. [`TierDown`](crate::ErrorKind::TierDown): the disk did not take the tombstones; the invalidation is in force in this process, and the
/// disk makes up for it when it is back, but not if the process is killed before. A Redis that is away is no error: it is told later, and bars
/// until then what was invalidated.
///
/// # Cancel safety
///
/// Dropped before it was polled, it does nothing. Dropped halfway, it is in force for this process's reads and may be partly swept; repeat it to
/// be sure of the others.
///
/// ```
/// use aurum_cache::{Cache, Namespace, TtlPolicy};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).open().await?;
/// cache.set(Namespace::CURVES, "pjm:2026-11", "old", TtlPolicy::Medium).await?;
/// let event = cache
///     .invalidate_pattern(Namespace::CURVES, "pjm:*")
///     .reason("data_update")
///     .triggered_by("curve_service")
///     .await?;
/// assert_eq!(event.count, 1);
/// assert!(cache.get::<str>(Namespace::CURVES, "pjm:2026-11").await.is_none());
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
#[must_use = "an invalidation does nothing unless it is awaited"]
pub struct Invalidate<'a> {
    cache: &'a Cache,
    scope: Target,
    because: Because,
}

enum Target {
    Key(Namespace, String),
    Pattern(Namespace, String),
    Namespace(Namespace),
    All,
}

impl<'a> Invalidate<'a> {
    pub(crate) fn key(cache: &'a Cache, ns: Namespace, key: &str) -> Self {
        Self::new(cache, Target::Key(ns, key.to_owned()))
    }

    pub(crate) fn pattern(cache: &'a Cache, ns: Namespace, pattern: &str) -> Self {
        Self::new(cache, Target::Pattern(ns, pattern.to_owned()))
    }

    pub(crate) fn namespace(cache: &'a Cache, ns: Namespace) -> Self {
        Self::new(cache, Target::Namespace(ns))
    }

    pub(crate) fn all(cache: &'a Cache) -> Self {
        Self::new(cache, Target::All)
    }

    fn new(cache: &'a Cache, scope: Target) -> Self {
        Self { cache, scope, because: Because::default() }
    }

    /// Why; stands in the event log. At most 1 024 bytes are kept.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.because.reason = Some(bounded(reason.into()));
        self
    }

    /// Who or what caused it; stands in the event log. At most 1 024 bytes are kept.
    pub fn triggered_by(mut self, actor: impl Into<String>) -> Self {
        self.because.triggered_by = Some(bounded(actor.into()));
        self
    }

    async fn run(self) -> Result<InvalidationEvent, Error> {
        let engine = &self.cache.engine;
        match self.scope {
            Target::Key(ns, key) => {
                let key = engine.hasher.key(ns, &key)?;
                engine.invalidate_key(&key, self.because).await
            }
            Target::Pattern(ns, pattern) => engine.invalidate_many(Some(ns), Some(Pattern::parse(&pattern)?), self.because).await,
            Target::Namespace(ns) => engine.invalidate_many(Some(ns), None, self.because).await,
            Target::All => engine.invalidate_many(None, None, self.because).await,
        }
    }
}

impl std::fmt::Debug for Invalidate<'_> {
    /// Without key or pattern: they may be a user's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scope, namespace) = match &self.scope {
            Target::Key(ns, _) => ("key", Some(ns)),
            Target::Pattern(ns, _) => ("pattern", Some(ns)),
            Target::Namespace(ns) => ("namespace", Some(ns)),
            Target::All => ("all", None),
        };
        f.debug_struct("Invalidate").field("scope", &scope).field("namespace", &namespace).finish_non_exhaustive()
    }
}

impl<'a> IntoFuture for Invalidate<'a> {
    type Output = Result<InvalidationEvent, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

fn bounded(mut text: String) -> String {
    const LIMIT: usize = 1_024;
    if text.len() > LIMIT {
        text.truncate(text.floor_char_boundary(LIMIT));
    }
    text
}
