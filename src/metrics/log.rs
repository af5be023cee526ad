//! The numbers that only the disk tier has, and how far memory is filled again after a restart.

use std::fmt;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use super::snapshot::bytes;

/// What the disk tier's log did since open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct LogAnalytics {
    /// Bytes appended: values with their heads, removals, and what was carried over. The catalogue is not among them.
    pub bytes_written: u64,
    /// Bytes of values among them that somebody set or memory let go.
    pub value_bytes_written: u64,
    /// `bytes_written / value_bytes_written`; 0 before the first value.
    pub write_amplification: f64,
    /// Entries carried over from a segment that was dropped, because they were read there.
    pub carried: u64,
    /// Values that memory let go and the disk did not take because its queue was full or it was down.
    pub demotions_refused: u64,
    /// Values that memory let go and the disk did not take because they were never hit in memory; see `disk.admission`.
    pub demotions_not_admitted: u64,
    /// Reads answered from the page cache, on the caller's own thread.
    pub page_cache_reads: u64,
    /// Reads that waited on a thread of the blocking pool: not in the page cache, or the system could not tell.
    pub device_reads: u64,
    /// Damaged records, notes and files met.
    pub damaged: u64,
    /// Files of the log now.
    pub segments: u64,
}

impl fmt::Display for LogAnalytics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, values) = (bytes(self.bytes_written), bytes(self.value_bytes_written));
        write!(f, "{written} written for {values} of values (x {:.2}), ", self.write_amplification)?;
        write!(f, "{} carried over, {} not admitted, ", self.carried, self.demotions_not_admitted)?;
        write!(f, "{} refused; {} reads cached, {} waited", self.demotions_refused, self.page_cache_reads, self.device_reads)
    }
}

/// How far memory is filled again with what was hot before the restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub struct RefillAnalytics {
    /// Keys on the hot list of the last run.
    pub planned: u64,
    /// Of them, brought back.
    pub done: u64,
    /// Of them, not: gone or over, in memory already, or there was no room left.
    pub skipped: u64,
    /// Is it over? Also where there was nothing to do.
    pub finished: bool,
}

impl fmt::Display for RefillAnalytics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { planned, done, skipped, finished } = self;
        write!(f, "{done} of {planned} hot keys, {skipped} skipped, {}", if *finished { "finished" } else { "under way" })
    }
}
