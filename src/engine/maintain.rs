//! Background maintenance: what happens without traffic.
//!
//! Every interval: expired entries leave memory in bounded steps, the disk keeps its budget and drops what is
//! over, Redis is asked whether it lives, and the numbers are exported. Every thirtieth time the list of the hottest keys is
//! written down, so that a killed process comes back warm too.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Clock;
use crate::coherence::{Event, Follower};
use crate::engine::state::{CoherenceState, Engine};
use crate::tier::Tier;

/// The stream cursor is kept on disk under this name.
pub(crate) const CURSOR_NOTE: &str = "cursor";

/// Entries that one round of expiry looks at.
const EXPIRE_STEP: usize = 4_096;
/// Rounds between two hot lists.
const HOT_LIST_EVERY: u64 = 30;

impl Engine {
    /// One round of maintenance.
    pub(crate) async fn maintain(self: &Arc<Self>) {
        self.recorder.tick();
        loop {
            let expired = self.memory.expire(self.clock.steady(), EXPIRE_STEP);
            if expired == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(disk) = &self.disk {
            disk.maintain().await;
        }
        if self.inherit(true).await {
            self.start_refill().await;
        }
        if let Some(remote) = &self.remote {
            remote.probe().await;
            if remote.is_up() {
                remote.memory().await;
            } else {
                self.recorder.error(Tier::Redis);
            }
            self.keep_repairs().await;
        }
        self.export();
    }

    /// The maintenance task: ends when the cache is closed or its last handle is gone.
    pub(crate) async fn maintain_forever(engine: Weak<Engine>, every: Duration) {
        let mut round: u64 = 0;
        loop {
            tokio::time::sleep(every).await;
            let Some(engine) = engine.upgrade() else { return };
            round += 1;
            engine.maintain().await;
            if round.is_multiple_of(HOT_LIST_EVERY) {
                engine.write_hot_list().await;
            }
        }
    }

    /// Follows the log between nodes and applies what others declared.
    pub(crate) async fn follow(engine: Weak<Engine>, mut follower: Follower) {
        loop {
            let event = follower.next().await;
            let Some(engine) = engine.upgrade() else { return };
            engine.hear(event).await;
        }
    }

    /// Applies one event of the log.
    pub(crate) async fn hear(self: &Arc<Self>, event: Event) {
        let cursor = match event {
            Event::Batch(messages, cursor, lag) => {
                for message in &messages {
                    self.apply(message).await;
                }
                if let Some(CoherenceState::Current(last)) = &mut *self.coherence.lock() {
                    *last = lag;
                }
                cursor
            }
            Event::Gap(cursor) => {
                // What was invalidated meanwhile is not known: no local copy can be trusted.
                tracing::warn!("the log between nodes has a gap; local copies are dropped");
                self.forget_all().await;
                cursor
            }
            Event::CaughtUp(cursor) => {
                *self.coherence.lock() = Some(CoherenceState::Current(Duration::ZERO));
                cursor
            }
            Event::Lost(error) => {
                tracing::warn!(%error, "the log between nodes cannot be read");
                *self.coherence.lock() = Some(CoherenceState::Blind(Clock::stopwatch()));
                return;
            }
        };
        // Behind the tombstones in the same log: a crash in between repeats messages, it skips none.
        if let Some(disk) = &self.disk {
            self.noted(Tier::Disk, disk.write_note(CURSOR_NOTE, cursor.to_bytes()).await);
        }
    }
}
