//! The ledger: the newest invalidations, in memory, oldest first. The disk tier keeps the same events over a restart.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::invalidation::event::InvalidationEvent;

/// Events kept.
pub(crate) const KEPT: usize = 10_000;

/// A bounded ring of events.
#[derive(Default)]
pub(crate) struct Ledger {
    events: Mutex<VecDeque<InvalidationEvent>>,
}

impl Ledger {
    /// Adds an event; the oldest goes when there are too many.
    pub(crate) fn append(&self, event: InvalidationEvent) {
        let mut events = self.events.lock();
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Puts the events of earlier runs, oldest first, before what was heard since.
    pub(crate) fn inherit(&self, older: Vec<InvalidationEvent>) {
        let mut events = self.events.lock();
        let first = events.front().map(|event| event.at);
        for event in older.into_iter().rev().filter(|event| first.is_none_or(|first| event.at < first)) {
            if events.len() == KEPT {
                break;
            }
            events.push_front(event);
        }
    }

    /// The events at or after `since`, oldest first.
    pub(crate) fn since(&self, since: SystemTime) -> Vec<InvalidationEvent> {
        self.events.lock().iter().filter(|event| event.at >= since).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalidation::event::Scope;
    use std::time::{Duration, UNIX_EPOCH};

    fn event(second: u64) -> InvalidationEvent {
        InvalidationEvent {
            at: UNIX_EPOCH + Duration::from_secs(second),
            scope: Scope::All,
            namespace: None,
            reason: None,
            triggered_by: None,
            node: "a".into(),
            count: second,
            memory: 0,
            disk: 0,
            redis: 0,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn it_keeps_the_newest_and_gives_them_by_time() {
        let ledger = Ledger::default();
        for second in 0..KEPT as u64 + 5 {
            ledger.append(event(second));
        }
        let all = ledger.since(UNIX_EPOCH);
        assert_eq!((all.len(), all[0].count), (KEPT, 5));
        let late = ledger.since(UNIX_EPOCH + Duration::from_secs(10_003));
        assert_eq!(late.iter().map(|event| event.count).collect::<Vec<_>>(), [10_003, 10_004]);
    }
}
