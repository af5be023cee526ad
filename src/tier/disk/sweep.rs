//! Removing all that matches: first what is on its way, then the segments, oldest first.
//!
//! In this order nothing slips through: an entry moves from the queue to the open segment, or is carried from the oldest to the
//! open one, and the open one is looked at last. What was put after the sweep began has a higher sequence and stays.

use std::io;
use std::sync::Arc;

use super::Shared;
use super::catalogue::Word;
use super::index::{Pending, Place};
use super::recovery::list_segment;
use super::segment::Segment;
use crate::namespace::{Namespace, NamespaceId};

/// A key that a segment speaks of.
pub(super) struct Listed {
    id: NamespaceId,
    key: Box<str>,
    place: Place,
}

/// A question to each key; `None` = all.
type Matches<'a> = Option<&'a (dyn Fn(&str) -> bool + Send + Sync)>;

pub(super) struct Sweep {
    shared: Arc<Shared>,
    namespace: Option<Namespace>,
    prefix: Box<str>,
    before: u64,
    /// Hashes of the removed keys.
    pub(super) removed: Vec<u64>,
    /// Of the last removal.
    pub(super) ticket: u64,
}

impl Sweep {
    pub(super) fn new(shared: Arc<Shared>, namespace: Option<Namespace>, prefix: &str, before: u64) -> Self {
        Self { shared, namespace, prefix: prefix.into(), before, removed: Vec::new(), ticket: 0 }
    }

    /// What the writer has not appended yet.
    pub(super) fn take_pending(&mut self, matches: Matches<'_>) {
        let mut found = Vec::new();
        self.shared.index.each(|shard| {
            for (hash, pending) in &shard.pending {
                match pending {
                    Pending::Put { sequence, entry } if *sequence < self.before => found.push((*hash, entry.clone())),
                    _ => {}
                }
            }
        });
        for (hash, entry) in found {
            let of_namespace = self.namespace.is_none_or(|namespace| namespace == entry.namespace());
            if of_namespace && self.wants(entry.key(), matches) {
                let before = self.before;
                let same = |shard: &super::index::Shard| match shard.pending.get(&hash) {
                    Some(Pending::Put { sequence, .. }) => *sequence < before,
                    Some(Pending::Remove { .. }) => false,
                    // Appended meanwhile, or replaced and appended: the segments will tell.
                    None => false,
                };
                self.note(hash, self.shared.take_away(hash, entry.namespace_id(), entry.key(), same));
            }
        }
    }

    /// What a segment holds under the prefix; to be run where waiting is allowed.
    pub(super) fn list(&self, segment: Arc<Segment>) -> impl FnOnce() -> io::Result<Vec<Listed>> + Send + 'static {
        let (shared, namespace, prefix, before) = (self.shared.clone(), self.namespace, self.prefix.clone(), self.before);
        move || {
            let mut listed = Vec::new();
            let mut visit = |name: &str, key: &str, word: &Word| {
                let Some((place, _)) = word.value.filter(|_| word.sequence < before) else { return };
                if let Ok(id) = Namespace::parse(name).and_then(Namespace::id) {
                    listed.push(Listed { id, key: key.into(), place });
                }
            };
            let name = namespace.map(Namespace::name);
            {
                let open = shared.directory.lock();
                if open.segment == segment.id {
                    open.under(name, &prefix, &mut visit);
                    return Ok(listed);
                }
            }
            if !shared.catalogue.under(&segment, name, &prefix, &mut visit) {
                list_segment(&segment)?.under(name, &prefix, &mut visit);
            }
            Ok(listed)
        }
    }

    /// Removes those of the listed that match and are still the newest of their keys.
    pub(super) fn take(&mut self, listed: &[Listed], matches: Matches<'_>) {
        for one in listed {
            if !self.wants(&one.key, matches) {
                continue;
            }
            let hash = self.shared.hasher.hash(one.id, &one.key);
            // With a newer word on its way the old record is covered by it.
            let same = |shard: &super::index::Shard| !shard.pending.contains_key(&hash) && shard.is_at(hash, one.place);
            self.note(hash, self.shared.take_away(hash, one.id, &one.key, same));
        }
    }

    fn wants(&self, key: &str, matches: Matches<'_>) -> bool {
        key.starts_with(&*self.prefix) && matches.is_none_or(|matches| matches(key))
    }

    fn note(&mut self, hash: u64, taken: Option<(bool, u64)>) {
        if let Some((existed, ticket)) = taken {
            self.ticket = self.ticket.max(ticket);
            if existed {
                self.removed.push(hash);
            }
        }
    }
}
