//! Leases close the race between a fill on one node and an invalidation on another.
//!
//! A read that misses takes with it the marks of its key as they stood *before* the value was looked for: the slot's own, and those of the
//! log's incarnation, of the namespace and of everything. Whoever changes the key moves a mark. A [fill](super::Remote::fill)
//! stores only if none has moved, which the server checks and does in one piece. So no value
//! that was fetched before an invalidation lands after it.
//!
//! Marks are ids of the log or random, never counters that could come back: a mark that Redis lost (evicted, flushed, expired) refuses
//! the fill, and a new one is equal to none before.

use std::sync::Arc;

use crate::tier::remote::link::Answer;

/// The marks of a key at the time of a read; the right to fill it while they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(super) slot: Vec<u8>,
    /// `incarnation/namespace/everything`, as the fill script puts them together; empty in a Cluster.
    pub(super) wide: Arc<[u8]>,
}

impl Lease {
    /// From the answer to `GET slot` in a Cluster, where a wide invalidation deletes the marks of the slots it covers.
    pub(super) fn of_slot(slot: &Answer) -> Option<Self> {
        Some(Self { slot: slot.bytes()?.to_vec(), wide: Arc::default() })
    }

    /// From the marks of a slot and the wide ones, [joined](Self::joined). `None` if there is no mark that could move.
    pub(super) fn of(slot: &Answer, wide: &Answer) -> Option<Self> {
        let Answer::Mark(wide) = wide else { return None };
        Some(Self { wide: wide.clone(), ..Self::of_slot(slot)? })
    }

    /// From the answers to `GET slot` and `HMGET epoch id n:NAMESPACE *`.
    pub(super) fn from(slot: &Answer, wide: &Answer) -> Option<Self> {
        let [id, namespace, all] = wide.list() else { return None };
        Self::of(slot, &Self::joined(id, namespace, all))
    }

    /// `incarnation/namespace/everything`, or nothing if the log has no incarnation.
    pub(super) fn joined(id: &Answer, namespace: &Answer, all: &Answer) -> Answer {
        let Some(id) = id.bytes() else { return Answer::Nil };
        Answer::Mark([id, namespace.bytes().unwrap_or(b""), all.bytes().unwrap_or(b"")].join(&b'/').into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_mark_there_is_no_lease() {
        let bytes = |text: &str| Answer::Bytes(text.into());
        let wide = |id: Answer| Answer::List(vec![id, Answer::Nil, bytes("7-0")]);
        assert_eq!(Lease::from(&Answer::Nil, &wide(bytes("id"))), None);
        assert_eq!(Lease::from(&bytes("1-0"), &wide(Answer::Nil)), None);
        assert_eq!(Lease::from(&bytes("1-0"), &Answer::Nil), None);
        let lease = Lease::from(&bytes("1-0"), &wide(bytes("id"))).unwrap();
        assert_eq!((lease.slot.as_slice(), &*lease.wide), (&b"1-0"[..], &b"id//7-0"[..]));
    }
}
