//! A look into the folder of a disk tier that no cache has open, for tools. Nothing in the folder is changed.
//!
//! The disk tier reads its own files; this room gives what it finds the public words, keeps to a namespace and a pattern, and
//! decodes the event log.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::LATEST_MS;
use crate::error::Error;
use crate::invalidation::event::InvalidationEvent;
use crate::namespace::Namespace;
use crate::pattern::Pattern;
use crate::tier::disk;

/// One entry of a closed folder: the newest of its key, and within its time or still kept as stale.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StoredEntry<'a> {
    /// The name of its namespace.
    pub namespace: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Bytes of its record: value, key and header.
    pub bytes: u64,
    /// When it was set.
    pub created: SystemTime,
    /// When its life ends or ended.
    pub expires: SystemTime,
}

/// What a look at a closed folder found beside the entries.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// Segment files of the log.
    pub segments: u64,
    /// Bytes of all files in the folder.
    pub file_bytes: u64,
    /// Bytes of the records of live entries, in all namespaces.
    pub live_bytes: u64,
    /// Damaged places. What stood there is a miss, what stands around them is not touched by it.
    pub damaged: u64,
    /// The event log, oldest first.
    pub events: Vec<InvalidationEvent>,
}

/// Shows every live entry of a closed folder to `visit`, oldest first: all of them, or those of one namespace, or those whose
/// key matches a glob pattern. Memory grows with the number of keys in the folder.
///
/// # Errors
///
/// [`ErrorKind::Locked`](crate::ErrorKind::Locked) if a cache has the folder open, [`ErrorKind::Io`](crate::ErrorKind::Io) if it
/// cannot be read, [`ErrorKind::Config`](crate::ErrorKind::Config) without the feature `disk`, and
/// [`ErrorKind::InvalidPattern`](crate::ErrorKind::InvalidPattern).
pub fn inspect(
    folder: impl AsRef<Path>,
    namespace: Option<Namespace>,
    pattern: Option<&str>,
    mut visit: impl FnMut(StoredEntry<'_>),
) -> Result<Inspection, Error> {
    let pattern = pattern.map(Pattern::parse).transpose()?;
    let found = disk::inspect(folder.as_ref(), &mut |entry| {
        let is_wanted = entry.live
            && namespace.is_none_or(|wanted| wanted.name() == entry.namespace)
            && pattern.as_ref().is_none_or(|pattern| pattern.matches(entry.key));
        if is_wanted {
            let (created, expires) = (wall(entry.created_ms), wall(entry.expires_ms));
            visit(StoredEntry { namespace: entry.namespace, key: entry.key, bytes: entry.bytes, created, expires });
        }
    })?;
    let events = found.events.iter().filter_map(|(_, bytes)| InvalidationEvent::from_bytes(bytes)).collect();
    let (segments, file_bytes, live_bytes) = (found.segments, found.file_bytes, found.live_bytes);
    Ok(Inspection { segments, file_bytes, live_bytes, damaged: found.damaged, events })
}

/// Milliseconds since the Unix epoch as they stand in a file, which may hold anything.
fn wall(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.min(LATEST_MS))
}
