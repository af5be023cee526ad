//! The last minute: how many errors, and how many operations before it began.

/// What "the last minute" is, in milliseconds.
const MINUTE_MS: u64 = 60_000;
/// How far apart the marks of the last minute are at least, in milliseconds.
const MARK_MS: u64 = 1_000;

/// The last minute in seconds: exact for errors, as fine as the ticks for operations.
pub(crate) struct Minute {
    /// Errors by second of steady time modulo the length, with that second. Two more than a minute has, so that the
    /// oldest that counts is not the one being overwritten.
    errors: [(u64, u64); 62],
    /// When a mark was made and how many operations there had been; oldest first, evenly grown, at most 64.
    marks: std::collections::VecDeque<(u64, u64)>,
}

impl Minute {
    pub(crate) fn new(opened: u64) -> Self {
        Self { errors: [(0, 0); 62], marks: [(opened, 0)].into() }
    }

    pub(crate) fn error(&mut self, now: u64) {
        let second = now / 1_000;
        let bucket = &mut self.errors[(second % 62) as usize];
        if bucket.0 != second {
            *bucket = (second, 0);
        }
        bucket.1 += 1;
    }

    pub(crate) fn wants_mark(&self, now: u64) -> bool {
        self.marks.back().is_none_or(|(at, _)| now >= at.saturating_add(MARK_MS))
    }

    pub(crate) fn mark(&mut self, now: u64, operations: u64) {
        if !self.wants_mark(now) {
            return; // another thread was faster
        }
        self.marks.push_back((now, operations));
        // Only the newest mark beyond the minute is of use.
        while self.marks.len() > 1 && (self.marks[1].0.saturating_add(MINUTE_MS) <= now || self.marks.len() > 64) {
            self.marks.pop_front();
        }
    }

    /// Errors of the last minute, and how many operations there had been at its beginning.
    pub(crate) fn since_a_minute_ago(&self, now: u64) -> (u64, u64) {
        let second = now / 1_000;
        let errors = self.errors.iter().filter(|(at, _)| *at + 60 > second && *at <= second).map(|(_, count)| count).sum();
        let begin = |(at, _): &&(u64, u64)| at.saturating_add(MINUTE_MS) <= now;
        let before = self.marks.iter().rev().find(begin).or(self.marks.front()).map_or(0, |(_, operations)| *operations);
        (errors, before)
    }
}
