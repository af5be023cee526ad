//! The disk tier: what survives a restart.
//!
//! Values go to an append-only log of segment files ([`segment`], [`log`]); where each key's newest record is stands in a compact
//! index in memory ([`index`]); one thread appends ([`writer`]), another syncs ([`care`]); the sorted key directories of sealed segments are kept in a
//! [`catalogue`], from which an open rebuilds the index without reading the log ([`recovery`]).
//!
//! **What holds.** A value is readable as soon as `put` returns, from the queue if need be. Of the words on a key the last call
//! wins, now and after any crash; the log is in the order of the calls. What was appended survives the death of the process; what
//! was there before a `flush`, or a flush interval ago, survives a power cut. The files never exceed the capacity. Every byte
//! from disk is checked before it is believed, and damage costs entries, never an open.
//!
//! **What it does not do.** It does not judge freshness, keep order among nodes, or promote: that is the engine's.

#[cfg(not(feature = "disk"))]
mod absent;
#[cfg(not(feature = "disk"))]
pub(crate) use absent::Disk;

mod config;
pub(crate) use config::DiskConfig;

#[cfg(feature = "disk")]
mod budget;
#[cfg(feature = "disk")]
mod care;
#[cfg(feature = "disk")]
mod catalogue;
#[cfg(feature = "disk")]
mod debt;
#[cfg(feature = "disk")]
mod down;
#[cfg(feature = "disk")]
mod face;
#[cfg(feature = "disk")]
mod files;
#[cfg(feature = "disk")]
mod index;
#[cfg(feature = "disk")]
mod inspect;
#[cfg(feature = "disk")]
mod journal;
#[cfg(feature = "disk")]
mod log;
#[cfg(feature = "disk")]
mod notes;
#[cfg(feature = "disk")]
mod opening;
#[cfg(feature = "disk")]
mod patience;
#[cfg(feature = "disk")]
mod queue;
#[cfg(feature = "disk")]
mod read;
#[cfg(feature = "disk")]
mod recovery;
#[cfg(feature = "disk")]
mod scan;
#[cfg(feature = "disk")]
mod segment;
#[cfg(feature = "disk")]
mod shared;
#[cfg(feature = "disk")]
mod sweep;
#[cfg(all(test, feature = "disk"))]
mod tests;
#[cfg(feature = "disk")]
mod threads;
#[cfg(feature = "disk")]
mod writer;

#[cfg(feature = "disk")]
pub(crate) use face::Disk;
#[cfg(feature = "disk")]
pub(crate) use inspect::inspect;
#[cfg(feature = "disk")]
use shared::Shared;

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Was there an entry?
    pub(crate) existed: bool,
    /// For `settled`: when this is in the log, the removal outlives the process. 0 = nothing to wait for.
    pub(crate) ticket: u64,
}

/// Counters since open, exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(dead_code)] // each is read by a test of the tier, some by health
pub(crate) struct DiskCounts {
    /// Demotions refused because the queue was full or the tier down.
    pub(crate) refused: u64,
    /// Demotions refused because they were not worth a write.
    pub(crate) not_admitted: u64,
    /// Values refused because they are larger than half a segment.
    pub(crate) too_large: u64,
    /// Damaged records, notes and files met.
    pub(crate) damaged: u64,
    /// Segments let go at open because something newer was unreadable.
    pub(crate) distrusted: u64,
    /// Bytes appended to the log.
    pub(crate) bytes_written: u64,
    /// Bytes of values among them; the ratio is the write amplification.
    pub(crate) payload_bytes_written: u64,
    /// Entries carried over from a segment that was dropped.
    pub(crate) carried: u64,
    /// Reads answered inline, from the page cache.
    pub(crate) inline_reads: u64,
    /// Reads that went to the blocking pool.
    pub(crate) device_reads: u64,
    /// Reads and writes that the system refused.
    pub(crate) io_errors: u64,
    /// Segments whose keys were known from the catalogue at open, without reading them.
    pub(crate) catalogued: u64,
    /// Segment files now.
    pub(crate) segments: u64,
    /// Bytes waiting for the writer now.
    pub(crate) queued_bytes: u64,
}

/// One entry of a closed folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InspectedEntry<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) key: &'a str,
    /// Bytes of its record.
    pub(crate) bytes: u64,
    /// Wall time, ms since the Unix epoch.
    pub(crate) created_ms: u64,
    /// Wall time, ms since the Unix epoch.
    pub(crate) expires_ms: u64,
    /// Is it the newest of its key and within its time?
    pub(crate) live: bool,
}

/// What a look at a closed folder found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inspection {
    pub(crate) segments: u64,
    /// Bytes of all files in the folder.
    pub(crate) file_bytes: u64,
    /// Bytes of live records.
    pub(crate) live_bytes: u64,
    /// Damaged places.
    pub(crate) damaged: u64,
    /// The ledger, oldest first.
    pub(crate) events: Vec<(u64, Vec<u8>)>,
}
