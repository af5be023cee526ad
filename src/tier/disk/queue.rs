//! What waits for the writer.

use std::collections::VecDeque;
use std::sync::Arc;

use super::opening::Opening;
use super::segment::{removal_len, value_len};
use crate::entry::Entry;
use crate::namespace::NamespaceId;

/// Something to append.
pub(super) struct Op {
    pub(super) sequence: u64,
    pub(super) hash: u64,
    pub(super) what: What,
}

pub(super) enum What {
    Put(Entry),
    Remove(NamespaceId, Arc<str>),
}

impl Op {
    pub(super) fn names(&self) -> (&'static str, &str) {
        match &self.what {
            What::Put(entry) => (entry.namespace().name(), entry.key()),
            What::Remove(id, key) => (id.namespace().name(), key),
        }
    }

    /// Bytes of its record.
    pub(super) fn len(&self) -> u64 {
        let (namespace, key) = self.names();
        match &self.what {
            What::Put(entry) => value_len(namespace, key, entry.payload().len()),
            What::Remove(..) => removal_len(namespace, key),
        }
    }
}

/// What waits for the writer. Sequences in `ops` rise.
pub(super) struct Queue {
    pub(super) ops: VecDeque<Op>,
    /// Bytes of what waits, and of what the writer is writing.
    pub(super) bytes: u64,
    /// The last sequence that was given out.
    pub(super) last: u64,
    /// Nothing more comes: write what is here, then end.
    pub(super) closing: bool,
    /// The tier is down and should try again.
    pub(super) retry: bool,
    /// The tier is down, and before it comes back everything in the log goes. Nothing is queued meanwhile.
    pub(super) let_go: bool,
    /// It was tried to [mark](super::debt) the folder, since something is owed.
    pub(super) is_mark_tried: bool,
    /// Segments that hold nothing any more may be dropped.
    pub(super) tidy: bool,
    /// The writer has ended.
    pub(super) ended: bool,
    pub(super) opening: Opening,
    /// Somebody waits for the opening.
    pub(super) is_awaited: bool,
}

impl Default for Queue {
    fn default() -> Self {
        let (ops, opening) = (VecDeque::new(), Opening::UnderWay);
        let (closing, retry, let_go, is_mark_tried, tidy, ended) = (false, false, false, false, false, false);
        Self { ops, bytes: 0, last: 0, closing, retry, let_go, is_mark_tried, tidy, ended, opening, is_awaited: true }
    }
}
