//! [`inspect`]: what does the folder of a closed cache hold? Read-only.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "serde")]
use serde::Serialize;

use crate::clock::LATEST_MS;
use crate::error::Error;
use crate::invalidation::event::InvalidationEvent;
use crate::namespace::Namespace;
use crate::pattern::Pattern;
use crate::tier::disk;

/// What a disk folder holds.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct FolderReport {
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Bytes of records that are still an entry.
    pub live_bytes: u64,
    /// Places that are damaged. One more is a log that did not take all that was removed before its process was killed: nothing of it is believed.
    pub damaged: u64,
    /// Live entries, in the order of the log.
    pub entries: Vec<FolderEntry>,
    /// The event log, oldest first.
    pub events: Vec<InvalidationEvent>,
}

impl FolderReport {
    /// Keeps the entries of one namespace, and those whose key matches a glob (Redis' syntax).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`](crate::ErrorKind::InvalidPattern) with what is wrong with the pattern.
    pub fn only(mut self, namespace: Option<Namespace>, pattern: Option<&str>) -> Result<Self, Error> {
        let pattern = pattern.map(Pattern::parse).transpose()?;
        self.entries.retain(|entry| {
            namespace.is_none_or(|namespace| namespace.name() == entry.namespace)
                && pattern.as_ref().is_none_or(|pattern| pattern.matches(&entry.key))
        });
        Ok(self)
    }
}

/// One live entry of a disk folder.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct FolderEntry {
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub key: String,
    /// Bytes of its record.
    pub bytes: u64,
    /// When it was written, wall time.
    pub created: SystemTime,
    /// When its life is over, wall time.
    pub expires: SystemTime,
}

/// Looks at the folder of a closed cache and changes nothing in it. Blocks; memory grows with the number of entries.
///
/// ```
/// use aurum_cache::{Cache, Namespace, TtlPolicy};
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).open().await?;
/// cache.set(Namespace::CURVES, "pjm:2026-11", "prices", TtlPolicy::Extended).await?;
/// cache.close().await?;
/// let found = aurum_cache::inspect(folder.path())?.only(Some(Namespace::CURVES), Some("pjm:*"))?;
/// assert_eq!((found.entries[0].key.as_str(), found.damaged), ("pjm:2026-11", 0));
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`ErrorKind::Locked`](crate::ErrorKind::Locked) while a cache has it open, [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be
/// read or is no such folder. Damage is no error: it is counted.
pub fn inspect(folder: impl AsRef<Path>) -> Result<FolderReport, Error> {
    let mut entries = Vec::new();
    let time = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms.min(LATEST_MS));
    let found = disk::inspect(folder.as_ref(), &mut |entry| {
        if entry.live {
            let (namespace, key) = (entry.namespace.to_owned(), entry.key.to_owned());
            let (created, expires) = (time(entry.created_ms), time(entry.expires_ms));
            entries.push(FolderEntry { namespace, key, bytes: entry.bytes, created, expires });
        }
    })?;
    let events: Vec<_> = found.events.iter().filter_map(|(_, bytes)| InvalidationEvent::from_bytes(bytes)).collect();
    Ok(FolderReport {
        segments: found.segments,
        file_bytes: found.file_bytes,
        live_bytes: found.live_bytes,
        damaged: found.damaged + (found.events.len() - events.len()) as u64,
        entries,
        events,
    })
}
