//! What the cache promises, one file a promise.
//!
//! One test program for all of them: a program for each file would link the whole library twenty times. What runs alone is
//! named by its file, `cargo test --test promises warm_restart`.

mod support;

mod analytics_and_health;
mod bad_input;
mod coherence;
mod disk_admission;
mod disk_budget;
mod disk_damage;
mod disk_descriptors;
mod disk_folder;
mod disk_full;
mod disk_threads;
mod fetch;
mod fetch_under_stress;
mod kill_storm;
mod legacy;
mod lifecycle;
mod maintenance_without_traffic;
mod memory_only;
mod metrics_export;
mod namespaces_are_kept_apart;
mod no_resurrection;
mod no_secrets;
mod pattern_invalidation;
mod placement;
mod program;
mod redis_cluster;
mod redis_fallback;
mod redis_tls;
mod scan_resistance;
mod schema_evolution;
mod serde_feature;
mod settings;
mod tiers_agree;
mod ttl_policies;
mod two_nodes;
mod unified_interface;
mod warm_restart;
mod warming;
