//! What earlier runs wrote down beside the entries: numbers, events, what Redis still has to be told. Taken over at open or, where the disk is down
//! then, when it is up. Until then Redis is not asked: what it holds may be what an earlier run could not take back.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::invalidate::SEQUENCE_NOTE;
use crate::engine::state::Engine;
use crate::error::{Error, ErrorKind};
use crate::invalidation::event::InvalidationEvent;
use crate::key::Key;
use crate::tier::Tier;
use crate::tier::disk::Disk;

/// Numbers left free between the last known sequence and the first of a new run: stamps that were on their way to the log when the process died.
const SEQUENCE_GAP: u64 = 1 << 20;

/// Have the notes been taken over?
#[derive(Default)]
pub(crate) struct Heritage {
    is_taken: AtomicBool,
    /// Held by who takes them over.
    taking: tokio::sync::Mutex<()>,
}

/// Must what was asked for be asked for again, when the disk is up?
pub(crate) fn is_for_later<T>(result: &Result<T, Error>) -> bool {
    result.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::TierDown | ErrorKind::Closed))
}

impl Engine {
    /// The sequence to go on from: behind everything a disk may hold.
    pub(crate) async fn last_sequence(disk: Option<&Disk>) -> u64 {
        let Some(disk) = disk else { return 0 };
        let note = disk.read_note(SEQUENCE_NOTE).await.ok().flatten();
        let last = note.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let next = last.saturating_add(SEQUENCE_GAP);
        if let Err(error) = disk.write_note(SEQUENCE_NOTE, next.to_le_bytes().to_vec()).await {
            tracing::warn!(%error, "the sequence could not be written down");
        }
        next
    }

    /// May Redis be asked for a key? Not while it may hold what was declared dead.
    pub(crate) fn may_ask_redis(&self, key: &Key<'_>) -> bool {
        self.has_inherited() && !self.rules.bar_redis(key.id, key.text)
    }

    /// Is all known that earlier runs wrote down?
    pub(crate) fn has_inherited(&self) -> bool {
        self.disk.is_none() || self.heritage.is_taken.load(Ordering::Acquire)
    }

    /// Takes over what earlier runs wrote down, once; `false` if the disk is down, and it has to be tried again.
    pub(crate) async fn inherit(&self, is_late: bool) -> bool {
        let Some(disk) = self.disk.as_ref().filter(|_| !self.has_inherited()) else { return true };
        let _alone = self.heritage.taking.lock().await;
        if self.has_inherited() {
            return true;
        }
        let events = disk.events().await;
        if is_for_later(&events) || !self.inherit_repairs().await {
            return false;
        }
        if is_late {
            self.rules.go_on_from(Self::last_sequence(Some(disk)).await);
        }
        let events = self.noted(Tier::Disk, events).unwrap_or_default();
        self.ledger.inherit(events.iter().filter_map(|(_, bytes)| InvalidationEvent::from_bytes(bytes)).collect());
        self.heritage.is_taken.store(true, Ordering::Release);
        true
    }
}
