//! What the cache saw of itself: counted where it happens, read when somebody asks.
//!
//! [`recorder`] counts, at a cost that the hit path does not feel; [`snapshot`] is what a caller gets to see. Nothing in
//! here reacts to a number: who decides by them asks.

pub(crate) mod departed;
pub(crate) mod recorder;
pub(crate) mod snapshot;

pub(crate) use departed::Departed;
pub(crate) use recorder::{FetchOutcome, MissCause, Recorder, Verb};
pub use snapshot::{Analytics, FetchAnalytics, Latency, MissCauses, NamespaceAnalytics, TierAnalytics};
