//! The three tiers, which do not know each other, and the few words they share.

pub(crate) mod disk;
pub(crate) mod memory;
pub(crate) mod remote;

use std::fmt;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::error::Error;

/// Where an entry is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Tier {
    /// This process's memory.
    Memory,
    /// The local disk.
    Disk,
    /// The shared Redis.
    Redis,
}

impl Tier {
    /// All three, fastest first.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Redis];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Redis => "redis",
        })
    }
}

/// How a tier is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum TierState {
    /// Works.
    Up,
    /// Works in part or slowly; the reason says how.
    Degraded,
    /// Does not work; the cache goes on without it and tries again.
    Down,
    /// Not configured.
    Off,
}

/// What a tier says of itself.
#[derive(Clone, Debug)]
pub(crate) struct TierReport {
    pub(crate) state: TierState,
    /// Why, where the state is not `Up`. Holds no secret.
    pub(crate) reason: Option<String>,
}

/// What a lower tier answers to a read.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// Here it is; its life has not been judged yet.
    Hit(Entry),
    /// It is not here.
    Miss,
    /// Something is here, but it did not pass the checks. The tier has dropped it or will.
    Damaged(Error),
    /// The tier could not answer: down, too slow, broken.
    Down(Error),
}

/// What a tier holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) entries: u64,
    /// All overhead counted.
    pub(crate) bytes: u64,
    /// What was configured; 0 where the tier does not bound itself (Redis).
    pub(crate) capacity: u64,
    /// Entries dropped for room since open.
    pub(crate) evictions: u64,
    /// Entries that left because their life was over, since open.
    pub(crate) expirations: u64,
}
