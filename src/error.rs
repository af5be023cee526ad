//! What went wrong, with what, and what to do about it.
//!
//! One opaque type for the whole crate. Its kind is for programs, its text for the person who reads
//! the log at night: the text always begins with the subject (a key, a setting, a folder) and ends
//! with advice where there is any. Expected outcomes (a miss, a refused admission) are not errors.
//!
//! No error carries a secret: URLs are redacted before they get here, and keys are shortened.

use std::fmt;
use std::sync::Arc;

/// What kind of thing went wrong, for code that wants to react to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key is empty or longer than [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    InvalidKey,
    /// A value is larger than the configured limit, or could not be archived.
    InvalidValue,
    /// A glob pattern is empty or over its limits.
    InvalidPattern,
    /// A namespace name that is not allowed, or one namespace too many.
    InvalidNamespace,
    /// A policy that the namespace's governance refuses (`max_ttl`).
    PolicyRefused,
    /// A setting is unknown, malformed or contradicts another.
    Config,
    /// A folder or file cannot be used: rights, missing, not ours.
    Io,
    /// Another process (or another cache in this one) has the disk folder open.
    Locked,
    /// Stored bytes are damaged.
    Corrupt,
    /// The tier that was asked for is down or switched off.
    TierDown,
    /// The work took longer than its deadline.
    Timeout,
    /// The cache was closed.
    Closed,
    /// A process-wide cache is installed already.
    AlreadyInstalled,
}

/// An error of the cache: a kind, a subject, and what to do.
///
/// # Examples
///
/// ```
/// use aurum_cache::{Cache, ErrorKind, Namespace, TtlPolicy};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).open().await?;
/// let error = cache.set(Namespace::GENERAL, "", "value", TtlPolicy::Short).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidKey);
/// assert_eq!(error.to_string(), "key \"\": is empty; give it at least one byte");
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: ErrorKind,
    /// The thing itself, as the reader would name it: `key "pjm"`, `memory.capacity`, `disk folder cache-data`.
    subject: String,
    /// What is wrong with it and, after a semicolon, what to do.
    advice: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error about `subject`. `advice` says what is wrong and what to do.
    pub(crate) fn new(kind: ErrorKind, subject: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { inner: Arc::new(Inner { kind, subject: subject.into(), advice: advice.into(), source: None }) }
    }

    /// The same with the error that caused it.
    pub(crate) fn caused(
        kind: ErrorKind,
        subject: impl Into<String>,
        advice: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner { kind, subject: subject.into(), advice: advice.into(), source: Some(Box::new(source)) };
        Self { inner: Arc::new(inner) }
    }

    /// A bad setting: `key` is its path in the settings file.
    pub(crate) fn config(key: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, key, advice)
    }

    /// Bytes that are not what they should be.
    pub(crate) fn corrupt(subject: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, subject, advice)
    }

    /// A file or folder that the system refused.
    pub(crate) fn io(subject: impl Into<String>, source: std::io::Error) -> Self {
        let advice = match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "permission denied; give this user read and write access, or choose another folder"
            }
            std::io::ErrorKind::NotFound => "does not exist; create it or correct the path",
            std::io::ErrorKind::StorageFull => "the device is full; free some space or lower `disk.capacity`",
            std::io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; remount it or choose another folder",
            _ => "the system refused it",
        };
        Self::caused(ErrorKind::Io, subject, advice, source)
    }

    /// The cache was closed before the call.
    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "cache", "is closed; open a new one")
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The thing the error is about, as it stands at the start of the message.
    pub fn subject(&self) -> &str {
        &self.inner.subject
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.subject, self.inner.advice)?;
        match &self.inner.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}, {self})", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

/// A key as it may stand in an error or a log: quoted, escaped, and cut after 64 characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    format!("\"{out}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_the_thing_the_advice_and_the_cause() {
        let cause = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::io("disk folder cache-data", cause);
        let text = error.to_string();
        assert!(text.starts_with("disk folder cache-data: permission denied; "), "{text}");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn a_long_or_hostile_key_is_cut_and_escaped() {
        assert_eq!(shown("a\r\nb"), "\"a\\r\\nb\"");
        assert!(shown(&"x".repeat(9999)).len() < 80);
    }
}
