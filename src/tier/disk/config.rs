//! What the disk tier is told, and the sizes that follow from it.
//!
//! `capacity` bounds everything in the folder. A share of it is set aside for what is not the log (catalogue, ledger,
//! notes); the rest is the log's, cut into segments small enough that dropping one is a small step.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::policy::placement::Admission;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The least that a folder can work with.
pub(crate) const MIN_CAPACITY: u64 = 4 * MIB;

/// The least capacity at which a catalogue pays: below, a scan of the whole log takes a few milliseconds.
const MIN_CATALOGUED: u64 = 64 * MIB;

/// Settings of the tier.
#[derive(Clone, Debug)]
pub(crate) struct DiskConfig {
    pub(crate) path: PathBuf,
    /// Bytes, everything in the folder together.
    pub(crate) capacity: u64,
    /// How long what was written may stay unsynced: the loss of a power cut.
    pub(crate) flush_interval: Duration,
    /// How long a read waits for the device.
    pub(crate) timeout: Duration,
    /// Bytes that may wait for the writer before `room` makes callers wait and `offer` refuses.
    pub(crate) queue_bytes: u64,
    /// Which demotions are worth a write.
    pub(crate) admission: Admission,
    /// Size of a segment, for tests; by default it follows from the capacity.
    pub(crate) segment_bytes: Option<u64>,
}

impl DiskConfig {
    /// The defaults for a folder and its capacity.
    #[cfg(test)]
    pub(crate) fn new(path: impl Into<PathBuf>, capacity: u64) -> Self {
        Self {
            path: path.into(),
            capacity,
            flush_interval: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            queue_bytes: 16 * MIB,
            admission: Admission::Reused,
            segment_bytes: None,
        }
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), named by the setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.capacity < MIN_CAPACITY {
            return Err(Error::config("disk.capacity", "must be at least 4 MiB; raise it or leave the disk tier out"));
        }
        if self.segment() < 4 * KIB || self.segment() > self.capacity / 8 {
            return Err(Error::config("disk.segment_bytes", "must be from 4 KiB to an eighth of disk.capacity"));
        }
        if self.segment() > MAX_SEGMENT {
            return Err(Error::config("disk.segment_bytes", "must be at most 2 GiB"));
        }
        Ok(())
    }

    /// The largest a segment file gets.
    pub(super) fn segment(&self) -> u64 {
        self.segment_bytes.unwrap_or((self.capacity / 32).clamp(128 * KIB, 64 * MIB))
    }

    /// What the segments may take together.
    pub(super) fn log_budget(&self) -> u64 {
        self.capacity - self.aside()
    }

    /// What the segments may take before a carry-over and a new segment's head and seal.
    pub(super) fn write_budget(&self) -> u64 {
        self.log_budget() - self.carry() - 1024
    }

    /// What may be carried over at once when old segments go.
    pub(super) fn carry(&self) -> u64 {
        self.segment() / 8
    }

    /// What everything but the segments may take.
    pub(super) fn aside(&self) -> u64 {
        self.capacity / 8
    }

    /// What the catalogue may take before it is thrown away and made anew; 0 = no catalogue.
    pub(super) fn catalogue_budget(&self) -> u64 {
        if self.capacity < MIN_CATALOGUED { 0 } else { self.aside() / 2 }
    }

    /// What ledger and notes may take, temporary files included.
    pub(super) fn notes_budget(&self) -> u64 {
        self.aside() - self.catalogue_budget()
    }
}

const MAX_SEGMENT: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_capacity_is_refused_by_name() {
        let error = DiskConfig::new("x", 1000).check().unwrap_err();
        assert_eq!((error.kind(), error.subject()), (crate::ErrorKind::Config, "disk.capacity"));
        DiskConfig::new("x", MIN_CAPACITY).check().unwrap();
        DiskConfig::new("x", 1 << 50).check().unwrap();
    }
}
