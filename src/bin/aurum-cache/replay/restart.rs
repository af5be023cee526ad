//! What a restart cost: the requests on both sides of it, and, if asked for, the same requests in a cache that went on.

use std::time::Duration;

use serde_json::{Value, json};

use super::phase::Phase;
use crate::report::{self, Outcome, Output};

/// What happened in the middle.
pub(super) struct Restart {
    pub(super) at: usize,
    pub(super) close: Duration,
    pub(super) open: Duration,
    pub(super) wiped_disk: bool,
    /// Requests of the window before for keys that were never asked for before: misses in any cache.
    pub(super) first_before: u64,
    /// The same of the window after.
    pub(super) first_after: u64,
    /// The hit ratio of the window after in the cache that was not restarted.
    pub(super) control: Option<f64>,
}

impl Restart {
    /// How many requests are compared, their hit ratio before and after.
    fn compare(phases: &[Phase]) -> (usize, f64, f64) {
        let [before, after] = phases else { return (0, 0.0, 0.0) };
        let window = before.last.len().min(after.first.len());
        let hits = |hits: &mut dyn Iterator<Item = &bool>| hits.filter(|is_hit| **is_hit).count() as u64;
        let before = hits(&mut before.last.iter().rev().take(window));
        let after = hits(&mut after.first.iter().take(window));
        (window, report::ratio(before, window as u64), report::ratio(after, window as u64))
    }

    pub(super) fn show(&self, phases: &[Phase], out: &Output) -> Outcome {
        let (window, before, after) = Self::compare(phases);
        out.text(format_args!(
            "restart after {} requests{}: closed in {}, opened in {}\nhit ratio of the {} requests before {}, of the {} after {}\n\
             first requests for a key, which no cache can have: {} before, {} after\n",
            report::count(self.at as u64),
            if self.wiped_disk { ", disk folder deleted" } else { "" },
            report::time(self.close),
            report::time(self.open),
            report::count(window as u64),
            report::percent(before),
            report::count(window as u64),
            report::percent(after),
            report::count(self.first_before),
            report::count(self.first_after),
        ))?;
        let Some(control) = self.control else { return Ok(()) };
        out.text(format_args!(
            "without the restart the same {} requests have a hit ratio of {}: it cost {:+.2} points\n",
            report::count(window as u64),
            report::percent(control),
            (control - after) * 100.0,
        ))
    }

    pub(super) fn object(&self, phases: &[Phase]) -> Value {
        let (window, before, after) = Self::compare(phases);
        json!({
            "at": self.at,
            "close_ms": self.close.as_secs_f64() * 1e3,
            "open_ms": self.open.as_secs_f64() * 1e3,
            "wiped_disk": self.wiped_disk,
            "window": window,
            "before": before,
            "after": after,
            "difference": after - before,
            "first_requests_before": self.first_before,
            "first_requests_after": self.first_after,
            "control": self.control,
            "recovered_share": if before > 0.0 { after / before } else { 1.0 },
        })
    }
}
