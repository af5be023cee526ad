//! Memory tier.
