//! aurum-cache beside its peers, in one run on one machine.
//!
//! A time says little about a cache and much about the machine. So nothing here is judged by its time: every contender gets the same
//! requests, in turns of a millisecond or two, and what counts is the ratio of two of them within a turn, taken at the median over
//! all turns. What disturbs the machine for longer than a turn disturbs all alike.
//!
//! The programs (`src/bin`): `memory` (nanoseconds an operation), `footprint` (bytes an entry, resident set over budget), `hit_ratio`
//! (traces against the optimum and the best of seven), `metrics` (what counting costs) and, with the feature of its name, `disk` (values on disk: reads,
//! writes, size, opening) and `redis` (values in Redis, and what becomes of reads when it does not answer).
//! Each has `--help`, `--json`, `--markdown`, and `--test`, which only shows that it runs.
//!
//! - [`arguments`]: what a program was asked.
//! - [`workload`]: keys, values and the order in which they are asked for; seeded, the same each time.
//! - [`contenders`]: one trait over the caches in memory, and one small adapter each.
//! - [`race`]: the turns.
//! - [`process`]: memory as the system counts it, and child processes.
//! - `stores`: one trait over what keeps values on disk, and one small adapter each (feature `disk`).
//! - `server`: a `redis-server` of our own (feature `redis`).
//! - [`report`]: rows, the bar they are held against, and how they are printed.

pub mod arguments;
pub mod contenders;
pub mod process;
pub mod race;
pub mod report;
#[cfg(feature = "redis")]
pub mod server;
#[cfg(feature = "disk")]
pub mod stores;
pub mod workload;
