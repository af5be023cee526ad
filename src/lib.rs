//! An embedded tiered cache engine.
#![allow(dead_code)] // skeleton: removed when the engine uses all rooms
extern crate self as aurum_cache;

mod clock;
mod coherence;
mod entry;
mod error;
mod key;
mod namespace;
mod policy;
mod tier;

pub use clock::Clock;
pub use error::{Error, ErrorKind};
pub use key::MAX_KEY_BYTES;
pub use namespace::{MAX_NAMESPACE_BYTES, MAX_NAMESPACES, Namespace};
pub use policy::TtlPolicy;
pub use tier::{Tier, TierState};
