//! What the cache saw of itself: counted where it happens, read when somebody asks.
//!
//! [`recorder`] counts, at a cost that the hit path does not feel: in [`cells`] that a thread finds by its [`slot`] and [`totals`] adds
//! up; times wait as [`pending`] and become a [`latency`]; errors are told by [`minute`]. [`snapshot`] (and [`log`]) is what a caller gets to see, and [`export`] hands to the `metrics` facade (feature `metrics`). Nothing in
//! here reacts to a number: who decides by them asks.

#[cfg(not(feature = "metrics"))]
#[path = "absent.rs"]
mod export;
#[cfg(feature = "metrics")]
mod export;

mod cells;
pub(crate) mod departed;
mod latency;
mod log;
mod minute;
#[cfg(feature = "serde")]
mod nanos;
mod outcome;
mod pending;
pub(crate) mod recorder;
mod slot;
pub(crate) mod snapshot;
mod totals;

pub(crate) use departed::Departed;
pub(crate) use export::Exporter;
pub use log::{LogAnalytics, RefillAnalytics};
pub(crate) use outcome::{FetchOutcome, MissCause, Verb};
pub(crate) use recorder::Recorder;
pub(crate) use slot::Places;
pub(crate) use snapshot::share;
pub use snapshot::{Analytics, FetchAnalytics, Latency, MissCauses, NamespaceAnalytics, TierAnalytics};
