//! The table of `ARCHITECTURE.md`, "Where an entry lives": which tiers hold an entry of which policy.

use serde::{Deserialize, Serialize};

use crate::policy::TtlPolicy;

/// When an entry goes to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiskPlacement {
    /// Not at all.
    Never,
    /// When memory evicts it and enough of its life remains.
    OnEviction,
    /// On `set`, and when a Redis hit brings it.
    OnSet,
}

/// Which of the values that memory lets go are worth a write to disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Admission {
    /// Those that were hit while memory held them; the others only while the disk has room to spare, so that what is asked for once wears no
    /// device.
    #[default]
    Reused,
    /// All of them.
    All,
}

/// Where entries of one policy live. Memory holds all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// When it goes to disk.
    pub disk: DiskPlacement,
    /// Is it shared through Redis on `set`?
    pub redis: bool,
}

/// Placement of each of the six policies; a custom life follows [`TtlPolicy::class`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacementTable([Placement; 6]);

impl PlacementTable {
    /// Where an entry of this policy lives.
    pub(crate) fn of(&self, policy: TtlPolicy) -> Placement {
        self.0[usize::from(policy.class().tag())]
    }

    /// Changes the row of one policy.
    pub(crate) fn set(&mut self, policy: TtlPolicy, placement: Placement) {
        self.0[usize::from(policy.class().tag())] = placement;
    }
}

impl Default for PlacementTable {
    fn default() -> Self {
        let row = |disk| Placement { disk, redis: true };
        let (never, evicted, set) = (row(DiskPlacement::Never), row(DiskPlacement::OnEviction), row(DiskPlacement::OnSet));
        Self([never, never, evicted, evicted, set, set])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_table_lands_on_disk_what_the_policies_say() {
        let table = PlacementTable::default();
        for policy in TtlPolicy::NAMED {
            assert_eq!(table.of(policy).disk == DiskPlacement::OnSet, policy.lands_on_disk(), "{policy}");
            assert!(table.of(policy).redis);
        }
        assert_eq!(table.of(TtlPolicy::Long).disk, DiskPlacement::OnEviction);
        assert_eq!(table.of(TtlPolicy::Short).disk, DiskPlacement::Never);
    }
}
