//! What was declared dead, and how a value that was on its way when that happened is kept from landing.
//!
//! Three parts. [`gate`] orders the writes of one key and tells a fill whether its key was written since the fill began.
//! [`rule`] is the same for many keys at once: a pattern, a namespace, everything. [`event`] and [`ledger`] say who
//! invalidated what, when and why.

pub(crate) mod event;
pub(crate) mod gate;
pub(crate) mod ledger;
pub(crate) mod rule;
