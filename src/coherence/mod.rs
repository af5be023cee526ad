//! Coherence between nodes: what others changed, in the order in which it was changed.
//!
//! Every write and invalidation that reaches Redis stands in one stream, appended in the same script that changed the data. A
//! [`Follower`] reads it from a [`Cursor`] on and tells when it could not know everything ([`Event::Gap`]); the engine then drops
//! its copies of what is shared. Order comes from the stream, never from the clocks of nodes.

mod stream;

#[allow(unused_imports)]
pub(crate) use crate::tier::remote::{Message, Origin};
#[allow(unused_imports)]
pub(crate) use stream::{Cursor, Event, Follower, follow};
