//! Follows the log: pages while there are some, then waits; tells once when the link is lost.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::tier::remote::{Message, Page, Remote, Tail};

/// The longest incarnation and id of a record that a kept cursor may have, in bytes.
const MAX_WORD_BYTES: usize = 128;

/// A position in the log: which log, and the last record of it that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) epoch: String,
    pub(crate) last_id: String,
}

impl Cursor {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        format!("{} {}", self.epoch, self.last_id).into_bytes()
    }

    /// Reads back what was kept; `None` if it is damaged, which is as good as no cursor.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (epoch, last_id) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        let is_id = last_id.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let is_fit = |word: &str| !word.is_empty() && word.len() <= MAX_WORD_BYTES;
        (is_fit(epoch) && is_fit(last_id) && is_id).then(|| Self { epoch: epoch.to_owned(), last_id: last_id.to_owned() })
    }
}

/// What a follower learned.
#[derive(Debug)]
pub(crate) enum Event {
    /// What other nodes did, oldest first (nothing, if all of it was our own), and how long the oldest of it had lain in the log;
    /// nothing before the cursor is missing.
    Batch(Vec<Message>, Cursor, Duration),
    /// Records may have been missed: local copies of what is shared must be dropped. Goes on from the cursor.
    Gap(Cursor),
    /// The link is down. Said once; the next event says how it goes on.
    Lost(Error),
    /// Everything that was in the log is known. Said after each time that it was not.
    CaughtUp(Cursor),
}

/// Reads on from `cursor`. Without one the first event is a gap: nothing is known of what local copies there are.
pub(crate) fn follow(remote: &Arc<Remote>, cursor: Option<Cursor>) -> Follower {
    Follower { tail: Tail::new(remote), cursor, is_caught_up: false, failures: 0 }
}

/// The reader of the log.
pub(crate) struct Follower {
    tail: Tail,
    cursor: Option<Cursor>,
    is_caught_up: bool,
    /// Attempts that failed in a row.
    failures: u32,
}

impl Follower {
    /// The next event; waits for it without end.
    ///
    /// # Cancel safety
    ///
    /// No event is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if self.failures > 0 {
                tokio::time::sleep(pause(self.failures)).await;
            }
            match self.step().await {
                Ok(event) => {
                    self.failures = 0;
                    if let Some(event) = event {
                        return event;
                    }
                }
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    self.is_caught_up = false;
                    if self.failures == 1 {
                        return Event::Lost(error);
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Event>, Error> {
        let (epoch, last_id) = self.cursor.as_ref().map_or(("", ""), |cursor| (&cursor.epoch, &cursor.last_id));
        match self.tail.page(epoch, last_id).await? {
            Page::Records(messages, last_id, lag) => {
                let cursor = Cursor { epoch: epoch.to_owned(), last_id };
                self.cursor = Some(cursor.clone());
                Ok(Some(Event::Batch(messages, cursor, lag)))
            }
            Page::Gap(epoch, last_id) => {
                let cursor = Cursor { epoch, last_id };
                self.cursor = Some(cursor.clone());
                self.is_caught_up = false;
                Ok(Some(Event::Gap(cursor)))
            }
            Page::End => match &self.cursor {
                Some(cursor) if !self.is_caught_up => {
                    self.is_caught_up = true;
                    Ok(Some(Event::CaughtUp(cursor.clone())))
                }
                _ => {
                    self.tail.wait(last_id).await?;
                    Ok(None)
                }
            },
        }
    }
}

/// Random, so that nodes do not come back together.
fn pause(failures: u32) -> Duration {
    let most = 200_u64 << failures.min(4);
    Duration::from_millis(50 + fastrand::u64(..most.min(2_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_a_damaged_one_is_none() {
        let cursor = Cursor { epoch: "e0123".into(), last_id: "1700000000000-7".into() };
        assert_eq!(Cursor::from_bytes(&cursor.to_bytes()), Some(cursor));
        for bad in ["", " ", "e", "e ", " 1-0", "e 1-0 x", "e *"] {
            assert_eq!(Cursor::from_bytes(bad.as_bytes()), None, "{bad}");
        }
    }
}
