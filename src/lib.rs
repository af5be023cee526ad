//! An embedded tiered cache engine.
#![allow(dead_code)] // skeleton: removed when the engine uses all rooms
extern crate self as aurum_cache;

mod clock;
mod config;
mod entry;
mod error;
mod key;
mod metrics;
mod namespace;
mod policy;
mod tier;

pub use clock::Clock;
pub use config::{CacheConfig, NamespaceConfig};
pub use error::{Error, ErrorKind};
pub use key::MAX_KEY_BYTES;
pub use metrics::{Analytics, FetchAnalytics, Latency, MissCauses, NamespaceAnalytics, TierAnalytics};
pub use namespace::{MAX_NAMESPACE_BYTES, MAX_NAMESPACES, Namespace};
pub use policy::TtlPolicy;
pub use tier::{Tier, TierState};
