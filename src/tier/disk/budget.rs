//! Keeping to the capacity, and saying how much of it is used.

use std::io;
use std::sync::atomic::Ordering;

use super::writer::Writer;
use super::{DiskCounts, Shared};
use crate::error::Error;
use crate::tier::{TierReport, TierState, Usage};

impl Writer {
    /// At open: the capacity may be smaller than it was.
    pub(super) fn keep_budget(&mut self) -> io::Result<()> {
        self.make_room(0)
    }
}

impl Shared {
    /// Drops what is past its time from the index; the space goes with its segment.
    pub(super) fn expire(&self) {
        let (now, mut gone) = (self.clock.steady(), 0);
        self.index.each(|shard| gone += shard.expire(now));
        self.counts.expirations.fetch_add(gone, Ordering::Relaxed);
    }

    /// May a demotion come in?
    pub(super) fn has_room(&self) -> bool {
        self.queue.lock().bytes < self.config.queue_bytes
    }

    /// May it also take what is not worth much? While what waits and the next segments still fit without dropping one. (That the queue be less
    /// than half full as well was tried: in a burst it cost 1.5 points of hit ratio while half of the disk stood empty.)
    pub(super) fn has_room_to_spare(&self) -> bool {
        self.segments.bytes() + self.queue.lock().bytes + 2 * self.config.segment() < self.config.log_budget()
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            entries: self.index.len(),
            bytes: self.segments.bytes() + self.catalogue.bytes() + self.ledger_bytes.load(Ordering::Relaxed),
            capacity: self.config.capacity,
            evictions: self.counts.evictions.load(Ordering::Relaxed),
            expirations: self.counts.expirations.load(Ordering::Relaxed),
        }
    }

    pub(super) fn report(&self) -> TierReport {
        match self.trouble() {
            None => match self.short_of() {
                None => TierReport { state: TierState::Up, reason: None },
                Some(error) => TierReport { state: TierState::Degraded, reason: Some(error.to_string()) },
            },
            Some(error) => TierReport { state: TierState::Down, reason: Some(error.to_string()) },
        }
    }

    /// What it does not have or get while it is up: what is in the folder, an answer of the device, a thread.
    fn short_of(&self) -> Option<Error> {
        let reading = self.is_unread().then(|| self.reading());
        reading.or_else(|| self.patience.refusal()).or_else(|| self.overdue_round()).or_else(|| self.crew.lock().missing.clone())
    }

    pub(super) fn counted(&self) -> DiskCounts {
        let counts = &self.counts;
        DiskCounts {
            refused: counts.refused.load(Ordering::Relaxed),
            not_admitted: counts.not_admitted.load(Ordering::Relaxed),
            too_large: counts.too_large.load(Ordering::Relaxed),
            damaged: counts.damaged.load(Ordering::Relaxed),
            distrusted: counts.distrusted.load(Ordering::Relaxed),
            bytes_written: counts.bytes_written.load(Ordering::Relaxed),
            payload_bytes_written: counts.payload_bytes_written.load(Ordering::Relaxed),
            carried: counts.carried.load(Ordering::Relaxed),
            inline_reads: counts.inline_reads.load(Ordering::Relaxed),
            device_reads: counts.device_reads.load(Ordering::Relaxed),
            io_errors: counts.io_errors.load(Ordering::Relaxed),
            catalogued: counts.catalogued.load(Ordering::Relaxed),
            segments: self.segments.count(),
            queued_bytes: self.queue.lock().bytes,
        }
    }
}
