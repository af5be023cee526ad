//! Removing all that matches: first what is on its way, then the segments, oldest first.
//!
//! Nothing slips through: an entry moves from the queue to the open segment, which is looked at last, or is carried over from the
//! oldest segment, which the writer tells the sweeps that are under way. Segments that were begun after the sweep hold nothing else of
//! what it means, so that a sweep ends however fast others write. What was put after it began has a higher sequence and stays.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

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

/// What was carried over while a sweep was under way.
pub(super) type Carried = Mutex<Vec<Listed>>;

pub(super) struct Sweep {
    shared: Arc<Shared>,
    carried: Arc<Carried>,
    namespace: Option<Namespace>,
    prefix: Box<str>,
    before: u64,
    /// Hashes of the removed keys.
    pub(super) removed: Vec<u64>,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.shared.sweeps.lock().retain(|carried| !Arc::ptr_eq(carried, &self.carried));
    }
}

impl Shared {
    /// A record was carried over; said before the index points to the copy, so that a sweep that finds the original gone has heard of it.
    pub(super) fn tell_sweeps(&self, namespace: &str, key: &str, place: Place) {
        for carried in self.sweeps.lock().iter() {
            if let Ok(id) = Namespace::parse(namespace).and_then(Namespace::id) {
                carried.lock().push(Listed { id, key: key.into(), place });
            }
        }
    }
}

impl Sweep {
    pub(super) fn new(shared: Arc<Shared>, namespace: Option<Namespace>, prefix: &str, before: u64) -> Self {
        let carried = Arc::<Carried>::default();
        shared.sweeps.lock().push(carried.clone());
        Self { shared, carried, namespace, prefix: prefix.into(), before, removed: Vec::new() }
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

    /// What went to another segment meanwhile.
    pub(super) fn take_carried(&mut self, matches: Matches<'_>) {
        let carried = std::mem::take(&mut *self.carried.lock());
        let namespace = self.namespace.map(Namespace::id).transpose();
        let meant = |listed: &Listed| namespace.as_ref().is_ok_and(|namespace| namespace.is_none_or(|id| id == listed.id));
        let carried: Vec<_> = carried.into_iter().filter(meant).collect();
        self.take(&carried, matches);
    }

    fn wants(&self, key: &str, matches: Matches<'_>) -> bool {
        key.starts_with(&*self.prefix) && matches.is_none_or(|matches| matches(key))
    }

    fn note(&mut self, hash: u64, taken: Option<(bool, u64)>) {
        if taken.is_some_and(|(existed, _)| existed) {
            self.removed.push(hash);
        }
    }
}
