//! Health: the verdict an operator or a load balancer asks for.

use std::fmt;

#[cfg(feature = "serde")]
use serde::Serialize;

use crate::tier::{Tier, TierState};

/// Share of failed tier operations in the last minute above which a cache is not healthy.
const TOO_MANY_ERRORS: f64 = 0.05;

/// How a cache is doing, from [`Cache::health`](crate::Cache::health).
///
/// Healthy means: memory works, no configured tier is [`Down`](TierState::Down), and at most 5 % of the operations of the last
/// minute failed in some tier. An unhealthy cache still answers: with Redis away it is memory and disk.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct Health {
    /// The verdict.
    pub is_healthy: bool,
    /// Share of the last minute's operations that failed in some tier, 0 to 1.
    pub error_rate: f64,
    /// Each tier, fastest first.
    pub tiers: Vec<TierHealth>,
}

/// How one tier is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct TierHealth {
    /// Which tier.
    pub tier: Tier,
    /// Its state.
    pub state: TierState,
    /// Why, where it is not `Up`.
    pub reason: Option<String>,
}

impl TierHealth {
    pub(crate) fn new(tier: Tier, state: TierState, reason: Option<String>) -> Self {
        Self { tier, state, reason }
    }
}

impl Health {
    /// The verdict over these tiers.
    pub(crate) fn judge(tiers: Vec<TierHealth>, error_rate: f64) -> Self {
        let is_healthy = error_rate <= TOO_MANY_ERRORS && tiers.iter().all(|tier| tier.state != TierState::Down);
        Self { is_healthy, error_rate, tiers }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_healthy { "healthy" } else { "not healthy" };
        write!(f, "{verdict}, {:.1} % errors in the last minute", self.error_rate * 100.0)?;
        for tier in &self.tiers {
            write!(f, "\n{:<8}{:?}", tier.tier, tier.state)?;
            if let Some(reason) = &tier.reason {
                write!(f, ": {reason}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_is_down_or_many_errors_make_it_unhealthy() {
        let tier = |state| vec![TierHealth::new(Tier::Redis, state, None)];
        assert!(Health::judge(tier(TierState::Up), 0.05).is_healthy);
        assert!(Health::judge(tier(TierState::Off), 0.0).is_healthy);
        assert!(Health::judge(tier(TierState::Degraded), 0.0).is_healthy);
        assert!(!Health::judge(tier(TierState::Down), 0.0).is_healthy);
        assert!(!Health::judge(tier(TierState::Up), 0.06).is_healthy);
    }
}
