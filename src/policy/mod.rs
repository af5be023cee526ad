//! How long an entry lives, and which tiers hold it.
//!
//! [`ttl`] is the public word for a life; [`placement`] the table of who holds what.

pub(crate) mod placement;
pub(crate) mod ttl;

pub use ttl::TtlPolicy;
