//! [`InvalidationEvent`]: who invalidated what, when, why, and with what effect. And its bytes for the ledger on disk.
//!
//! ```text
//! | version 1 | scope | at ms 8 | count, memory, disk, redis 8 each | took ns 8 | 5 texts: length 2, UTF-8 |
//! ```
//!
//! The texts are the scope's, the namespace, the reason, the actor, the node; a length of `u16::MAX` stands for none.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
/// Longest text kept, in bytes.
const MAX_TEXT: usize = 8 << 10;

/// What was invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Scope {
    /// One key.
    Key(String),
    /// What a glob matches in a namespace.
    Pattern(String),
    /// A whole namespace.
    Namespace,
    /// Everything.
    All,
}

/// One invalidation, as the ledger keeps it. Awaiting an [`Invalidate`](crate::Invalidate) gives one,
/// [`invalidation_events`](crate::Cache::invalidation_events) gives those since a moment. It prints as a line.
///
/// ```
/// use aurum_cache::{Cache, Namespace, Scope, TtlPolicy};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).node("a").open().await?;
/// cache.set(Namespace::CURVES, "pjm", "old", TtlPolicy::Medium).await?;
/// let before = std::time::UNIX_EPOCH;
/// cache.invalidate(Namespace::CURVES, "pjm").reason("data_update").triggered_by("curve_service").await?;
/// let event = &cache.invalidation_events(before)[0];
/// assert_eq!(event.scope, Scope::Key("pjm".into()));
/// assert_eq!(
///     event.to_string(),
///     "key curves/pjm: 1 key (memory 1, disk 0, redis 0), reason data_update, by curve_service, on a"
/// );
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct InvalidationEvent {
    /// When it was done, wall time.
    pub at: SystemTime,
    /// What was invalidated.
    pub scope: Scope,
    /// In which namespace; `None` for everything.
    pub namespace: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Who or what caused it.
    pub triggered_by: Option<String>,
    /// The node that did it.
    pub node: String,
    /// Distinct keys that were removed from at least one tier.
    pub count: u64,
    /// Keys removed from this node's memory.
    pub memory: u64,
    /// Keys removed from this node's disk.
    pub disk: u64,
    /// Keys removed from Redis; 0 while Redis is away, which makes up for it later.
    pub redis: u64,
    /// How long it took.
    pub took: Duration,
}

impl InvalidationEvent {
    /// Its bytes in the ledger.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (scope, text) = match &self.scope {
            Scope::Key(text) => (0, Some(text)),
            Scope::Pattern(text) => (1, Some(text)),
            Scope::Namespace => (2, None),
            Scope::All => (3, None),
        };
        let mut bytes = vec![VERSION, scope];
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let took = u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX);
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        for number in [at, self.count, self.memory, self.disk, self.redis, took] {
            bytes.extend(number.to_le_bytes());
        }
        for text in [text, self.namespace.as_ref(), self.reason.as_ref(), self.triggered_by.as_ref(), Some(&self.node)] {
            match text {
                None => bytes.extend(u16::MAX.to_le_bytes()),
                Some(text) => {
                    let kept = &text[..text.floor_char_boundary(MAX_TEXT)];
                    bytes.extend((kept.len() as u16).to_le_bytes());
                    bytes.extend(kept.as_bytes());
                }
            }
        }
        bytes
    }

    /// The event of these bytes; `None` if they are not one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([version, scope], rest) = bytes.split_first_chunk::<2>()?;
        if *version != VERSION {
            return None;
        }
        let mut rest = rest;
        let mut number = || {
            let (word, behind) = rest.split_first_chunk::<8>()?;
            rest = behind;
            Some(u64::from_le_bytes(*word))
        };
        let (at, count, memory, disk, redis, took) = (number()?, number()?, number()?, number()?, number()?, number()?);
        let mut text = || {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let length = u16::from_le_bytes(*length);
            if length == u16::MAX {
                rest = behind;
                return Some(None);
            }
            let (text, behind) = behind.split_at_checked(usize::from(length))?;
            rest = behind;
            Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
        };
        let (scope_text, namespace, reason, triggered_by, node) = (text()?, text()?, text()?, text()?, text()?);
        let scope = match (scope, scope_text) {
            (0, Some(text)) => Scope::Key(text),
            (1, Some(text)) => Scope::Pattern(text),
            (2, None) => Scope::Namespace,
            (3, None) => Scope::All,
            _ => return None,
        };
        let at = UNIX_EPOCH + Duration::from_millis(at.min(crate::clock::LATEST_MS));
        let took = Duration::from_nanos(took);
        Some(Self { at, scope, namespace, reason, triggered_by, node: node?, count, memory, disk, redis, took })
    }
}

impl fmt::Display for InvalidationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_deref().unwrap_or("*");
        match &self.scope {
            Scope::Key(key) => write!(f, "key {namespace}/{}", key.escape_debug())?,
            Scope::Pattern(pattern) => write!(f, "pattern {namespace}/{}", pattern.escape_debug())?,
            Scope::Namespace => write!(f, "namespace {namespace}")?,
            Scope::All => write!(f, "everything")?,
        }
        let keys = if self.count == 1 { "key" } else { "keys" };
        write!(f, ": {} {keys} (memory {}, disk {}, redis {})", self.count, self.memory, self.disk, self.redis)?;
        if let Some(reason) = &self.reason {
            write!(f, ", reason {reason}")?;
        }
        if let Some(actor) = &self.triggered_by {
            write!(f, ", by {actor}")?;
        }
        write!(f, ", on {}", self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> InvalidationEvent {
        InvalidationEvent {
            at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            scope: Scope::Pattern("pjm:*".into()),
            namespace: Some("curves".into()),
            reason: None,
            triggered_by: Some("curve_service".into()),
            node: "a".into(),
            count: 3,
            memory: 1,
            disk: 2,
            redis: 3,
            took: Duration::from_micros(7),
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_a_cut_event_is_none() {
        let bytes = event().to_bytes();
        assert_eq!(InvalidationEvent::from_bytes(&bytes), Some(event()));
        for length in 0..bytes.len() {
            assert_eq!(InvalidationEvent::from_bytes(&bytes[..length]), None);
        }
    }

    #[test]
    fn it_reads_as_a_line() {
        assert_eq!(event().to_string(), "pattern curves/pjm:*: 3 keys (memory 1, disk 2, redis 3), by curve_service, on a");
    }
}
