//! [`FetchError`]: why `get_or_fetch` has no value.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;

/// Why [`get_or_fetch`](crate::Cache::get_or_fetch) has no value. All callers that waited for one loader share its error.
///
/// ```
/// use aurum_cache::{Cache, FetchError, Namespace, TtlPolicy};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).open().await?;
/// let fails = || async { Err::<u64, _>("the source is away".to_owned()) };
/// match cache.get_or_fetch(Namespace::CURVES, "pjm", TtlPolicy::Short, fails).await {
///     Ok(price) => println!("{}", *price),
///     Err(FetchError::Fetch(cause)) => assert_eq!(*cause, "the source is away"), // the loader's own error
///     Err(other) => println!("{other}"), // too slow, panicked, or refused by the cache
/// }
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
#[non_exhaustive]
pub enum FetchError<E> {
    /// The loader failed, and no stale value may stand in.
    Fetch(Arc<E>),
    /// The loader took longer than the namespace's `hard_timeout`.
    TimedOut,
    /// The loader panicked, with this message.
    Panicked(String),
    /// The cache would not take it: a bad key, a refused policy, a value over the limit, a closed cache.
    Rejected(Error),
}

impl<E> Clone for FetchError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Fetch(error) => Self::Fetch(error.clone()),
            Self::TimedOut => Self::TimedOut,
            Self::Panicked(message) => Self::Panicked(message.clone()),
            Self::Rejected(error) => Self::Rejected(error.clone()),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for FetchError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => f.debug_tuple("Fetch").field(error).finish(),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::Panicked(message) => f.debug_tuple("Panicked").field(message).finish(),
            Self::Rejected(error) => f.debug_tuple("Rejected").field(error).finish(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for FetchError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => write!(f, "fetch failed: {error}"),
            Self::TimedOut => {
                f.write_str("fetch took longer than the namespace's hard_timeout; raise it or make the loader faster")
            }
            Self::Panicked(message) => write!(f, "fetch panicked: {message}"),
            Self::Rejected(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for FetchError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fetch(error) => Some(&**error),
            Self::Rejected(error) => Some(error),
            Self::TimedOut | Self::Panicked(_) => None,
        }
    }
}
