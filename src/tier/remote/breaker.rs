//! When to stop asking a server that does not answer, and when to try again.
//!
//! Closed: work goes through. Five failures in a row open it: then nobody waits for the server any more, every answer is "down" at
//! once, and one task alone tries to connect, each time after a random pause that grows. The pauses are random, so
//! that a fleet that lost its server together does not come back together.

use std::time::Duration;

use crate::clock::{Clock, Stopwatch};

/// Failures in a row that open it.
const FAILURES: u32 = 5;

/// The shortest and the longest pause between attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Counts failures in a row. The pure part: who connects, and what is refused, is the queue's matter.
pub(super) struct Breaker {
    failures: u32,
    /// Since the last failure, and how long to wait from then; `None` while closed.
    open: Option<(Stopwatch, Duration)>,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { failures: 0, open: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Something worked: closed.
    pub(super) fn success(&mut self) {
        *self = Self::new();
    }

    /// Something failed. True if that opened it.
    pub(super) fn failure(&mut self) -> bool {
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.open = Some((Clock::stopwatch(), pause(self.failures - FAILURES)));
        }
        self.is_open() && !was_open
    }

    /// How long until the next attempt may be made; zero if at once.
    pub(super) fn wait(&self) -> Duration {
        self.open.map_or(Duration::ZERO, |(since, pause)| pause.saturating_sub(since.elapsed()))
    }
}

/// A random pause, the longer the more attempts failed.
pub(super) fn pause(attempt: u32) -> Duration {
    let (shortest, longest) = PAUSE;
    let most = (shortest * 2).saturating_mul(1 << attempt.min(10)).min(longest);
    shortest + (most - shortest).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::new();
        for _ in 0..FAILURES - 1 {
            assert!(!breaker.failure());
        }
        breaker.success();
        for _ in 0..FAILURES - 1 {
            assert!(!breaker.failure());
        }
        assert_eq!(breaker.wait(), Duration::ZERO);
        assert!(breaker.failure());
        assert!(!breaker.failure(), "it was open already");
        assert!(breaker.is_open() && breaker.wait() > Duration::ZERO);
        breaker.success();
        assert!(!breaker.is_open());
    }

    #[test]
    fn pauses_grow_stay_in_bounds_and_differ_between_nodes() {
        for attempt in [0, 1, 5, 40, u32::MAX] {
            for _ in 0..100 {
                let pause = pause(attempt);
                assert!((PAUSE.0..=PAUSE.1).contains(&pause));
            }
        }
        // Fifty nodes that lost the server together: no 10 ms hold more than a fifth of their next attempts.
        let mut buckets = std::collections::HashMap::new();
        for _ in 0..50 {
            *buckets.entry(pause(3).as_millis() / 10).or_insert(0) += 1;
        }
        assert!(buckets.values().all(|&n| n <= 10), "{buckets:?}");
    }
}
