//! An embedded tiered cache engine: memory, local disk and Redis behind one handle.
//!
//! A service sets values with a policy that says how long they live; the policy decides which tiers hold them. A read finds them in the
//! nearest tier that has them and brings them nearer. A restart keeps what the disk holds, a Redis that is away costs
//! nothing, and nothing stale comes back: what was invalidated or expired stays so, on every node and after every restart.
//!
//! ```no_run
//! use aurum_cache::{Cache, Namespace, TtlPolicy, cacheable};
//!
//! #[cacheable] // derives what rkyv needs, and the type's fingerprint
//! struct Curve {
//!     hub: String,
//!     prices: Vec<f64>,
//! }
//!
//! # async fn load_curve() -> Result<Curve, std::io::Error> { Ok(Curve { hub: String::new(), prices: vec![] }) }
//! # async fn tour(curve: Curve) -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::builder()
//!     .memory(256 << 20) // bytes, all overhead counted
//!     .disk("cache-data", 4 << 30) // folder, bytes
//!     .redis("redis://127.0.0.1:6379") // optional; without it the cache is embedded and complete
//!     .open()
//!     .await?;
//!
//! cache.set(Namespace::CURVES, "pjm:2026-11", &curve, TtlPolicy::Extended).await?;
//!
//! if let Some(hit) = cache.get::<Curve>(Namespace::CURVES, "pjm:2026-11").await {
//!     let first = hit.prices[0]; // a view into the cached bytes: nothing was decoded
//! }
//!
//! let curve =
//!     cache.get_or_fetch(Namespace::CURVES, "pjm:2026-11", TtlPolicy::Short, || async { load_curve().await }).await?;
//!
//! let event = cache
//!     .invalidate_pattern(Namespace::CURVES, "pjm:*")
//!     .reason("data_update")
//!     .triggered_by("curve_service")
//!     .await?;
//! println!("{} entries gone", event.count);
//! # Ok(()) }
//! ```
//!
//! # What holds
//!
//! - **Read your writes.** After `set` returns, a read that begins later sees that value or a newer one, in whichever tier it is,
//!   unless it was evicted, expired or invalidated.
//! - **No resurrection.** After an invalidation returns, no later read returns a value that was read, fetched, promoted,
//!   demoted or written before it: not here, not after a crash, and not on another node once the log has reached it.
//! - **Never past its time.** Freshness is decided at the read; past its life a value is served only as declared stale.
//! - **Nothing unchecked.** Bytes from disk and Redis pass a checksum bound to their key, a type fingerprint and validation,
//!   or they are a counted miss.
//! - **Budgets are kept**, and a lower tier never fails a read.
//!
//! # Features
//!
//! `disk` and `redis` (default), `tls` for `rediss://`, `serde` (policies, events, analytics, health and reports implement
//! serde's traits; settings do so always), `metrics` (what `analytics()` says, through the `metrics` facade), `cli` (the program
//! `aurum-cache`).

// Without a lower tier nothing leaves the process, and the words for that are unused.
#![cfg_attr(not(all(feature = "disk", feature = "redis")), allow(dead_code))]
#![cfg_attr(test, allow(clippy::duplicate_mod, reason = "tier/memory/model.rs reads the table a second time"))]

// The macros name this crate from outside; here it is itself.
extern crate self as aurum_cache;

mod builder;
mod bytes;
mod cache;
mod clock;
mod coherence;
mod config;
mod engine;
mod entry;
mod error;
mod fetch_error;
mod flight;
mod health;
#[cfg(feature = "disk")]
mod inspect;
mod invalidate;
mod invalidation;
mod key;
pub mod legacy;
mod metrics;
mod namespace;
mod pattern;
mod payload;
mod policy;
mod schema;
mod tier;
mod view;
mod warming;

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz_bridge;

pub use aurum_cache_derive::{Schema, cacheable};
pub use rkyv;

pub use builder::Builder;
pub use cache::Cache;
pub use clock::Clock;
pub use config::{
    CacheConfig, Coherence, DiskSettings, Enforce, Limits, Maintenance, MemoryConfig, NamespaceConfig, RedisSettings, SecretUrl,
    Size, Urls,
};
pub use engine::see::EntryInfo;
pub use error::{Error, ErrorKind};
pub use fetch_error::FetchError;
pub use health::{Health, TierHealth};
#[cfg(feature = "disk")]
pub use inspect::{FolderEntry, FolderReport, inspect};
pub use invalidate::Invalidate;
pub use invalidation::event::{InvalidationEvent, Scope};
pub use key::MAX_KEY_BYTES;
pub use metrics::{
    Analytics, FetchAnalytics, Latency, LogAnalytics, MissCauses, NamespaceAnalytics, RefillAnalytics, TierAnalytics,
};
pub use namespace::{MAX_NAMESPACE_BYTES, MAX_NAMESPACES, Namespace};
pub use payload::Payload;
pub use policy::TtlPolicy;
pub use policy::placement::{Admission, DiskPlacement, Placement};
#[doc(hidden)]
pub use schema::__private;
pub use schema::Schema;
pub use tier::{Tier, TierState};
pub use view::Cached;
pub use warming::{Warming, WarmingReport};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
