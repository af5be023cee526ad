//! An embedded tiered cache engine.
#![allow(dead_code)] // skeleton: removed when the engine uses all rooms
extern crate self as aurum_cache;

mod clock;
mod entry;
mod error;
#[cfg(fuzzing)]
pub mod fuzz_bridge;
mod key;
mod namespace;
mod pattern;
mod policy;
mod schema;
mod tier;

pub use aurum_cache_derive::{Schema, cacheable};
pub use clock::Clock;
pub use error::{Error, ErrorKind};
pub use key::MAX_KEY_BYTES;
pub use namespace::{MAX_NAMESPACE_BYTES, MAX_NAMESPACES, Namespace};
pub use policy::TtlPolicy;
pub use rkyv;
#[doc(hidden)]
pub use schema::__private;
pub use schema::Schema;
pub use tier::{Tier, TierState};
