//! Being inside: what a reader has seen is not freed while it is pinned.

use super::sync::Guard;

/// A pinned epoch, of the tier's own collector.
pub(super) struct Pin(Guard);

/// Pins the epoch.
#[inline(always)]
pub(super) fn pin() -> Pin {
    Pin(super::sync::pin())
}

impl Pin {
    /// Hands over what this thread has left for later, and does some of what is due. Not to be called under a lock.
    pub(super) fn flush(&self) {
        self.0.flush();
    }

    /// Has `work` done when all have left that are pinned now.
    pub(super) fn later(&self, work: impl FnOnce() + Send + 'static) {
        self.0.defer(work);
    }

    #[inline]
    pub(super) fn guard(&self) -> &Guard {
        &self.0
    }
}
