//! Movement between tiers: promotion, demotion, refill. Nothing else moves an entry.
//!
//! A promotion carries a fill's token and lands only if its key was not written since. A demotion is checked against the
//! writes since the moment before the insert that evicted it. Remaining life travels with the entry; no
//! movement prolongs it.

use std::sync::atomic::Ordering;

use crate::engine::read::Fill;
use crate::engine::state::{Engine, Found};
use crate::engine::write::Sharing;
use crate::entry::Entry;
use crate::invalidation::gate::Moment;
use crate::key::Key;
use crate::metrics::MissCause;
use crate::policy::placement::DiskPlacement;
use crate::tier::Tier;
use crate::tier::memory::{Evicted, Gone, was_reused};
use crate::tier::remote::{Lease, Note};

/// An entry with less life than this is not worth a write to disk, in milliseconds.
const WORTH_DEMOTING_MS: u64 = 2_000;

impl Engine {
    /// Brings what a lower tier had into memory, and from Redis to disk where its policy says so.
    pub(crate) fn promote(&self, key: &Key<'_>, found: &Found, fill: &Fill) {
        let moment = self.gates.moment();
        let mut put = {
            let Some(_gate) = fill.token.land() else { return };
            if self.rules.covers(fill.stamp.stamp, key.id, key.text) {
                return;
            }
            if found.tier == Tier::Redis
                && self.lands_on_disk(&found.entry)
                && let Some(disk) = &self.disk
            {
                disk.offer(&found.entry, true);
            }
            let put = self.memory.put(key, found.entry.clone());
            if self.undo_if_covered(key, fill.stamp.stamp) {
                return;
            }
            put
        };
        if put.admitted {
            self.recorder.promoted(found.tier, 1);
        }
        self.demote(&mut put.evicted, moment);
    }

    /// Brings to memory what the disk had, read since `since` and `stamp` without an await. Instead of a token there is the gate's memory of writes; and
    /// any rule that was declared meanwhile keeps the entry out, as nobody waited for this fill before letting the rule go. A refusal, and one because
    /// [promotions do not pay](crate::engine::promotion), costs a later read of the disk.
    pub(crate) fn promote_now(&self, key: &Key<'_>, entry: &Entry, since: Moment, stamp: u64) {
        if !self.promotions.pays(key.hash) && !self.memory.has_room(key.hash, entry) {
            return;
        }
        let moment = self.gates.moment();
        let mut put = {
            let Some(_gate) = self.gates.land(key.hash, since) else { return };
            if self.rules.now() != stamp {
                return;
            }
            let put = self.memory.put(key, entry.clone());
            // Again: a rule that was declared in between may have swept past this place already, one declared later sweeps later.
            if self.rules.now() != stamp || self.closed.load(Ordering::SeqCst) {
                drop(self.memory.remove(key));
                return;
            }
            put
        };
        if put.admitted {
            self.recorder.promoted(Tier::Disk, 1);
        }
        self.demote(&mut put.evicted, moment);
    }

    /// Lands a value that a loader made, in all tiers of its policy. `false` if its key was written or invalidated meanwhile.
    pub(crate) async fn land(&self, key: &Key<'_>, entry: &Entry, fill: &Fill, lease: Option<Lease>) -> bool {
        let on_set = self.lands_on_disk(entry);
        if let (true, Some(disk)) = (on_set, &self.disk) {
            disk.room().await;
        }
        let moment = self.gates.moment();
        let mut evicted = Evicted::new();
        let shared = {
            let Some(_gate) = fill.token.land() else { return false };
            if self.rules.covers(fill.stamp.stamp, key.id, key.text) {
                return false;
            }
            let placed = self.place(key, entry.clone(), Sharing::Fill(lease), &mut evicted);
            if self.undo_if_covered(key, fill.stamp.stamp) {
                return false;
            }
            placed
        };
        self.recorder.set(key.id);
        self.demote(&mut evicted, moment);
        if self.share_fill(shared).await {
            return true;
        }
        // Redis knows of a write or an invalidation on another node that came after our loader began.
        let _gate = self.gates.write(key.hash);
        let is_ours = |resident: &Entry| std::ptr::eq(resident.payload(), entry.payload());
        if (self.memory.remove_if(key, is_ours).is_some() || on_set)
            && let Some(disk) = &self.disk
        {
            disk.remove(key);
        }
        false
    }

    /// Is this entry of a policy that is written to disk on `set`?
    pub(crate) fn lands_on_disk(&self, entry: &Entry) -> bool {
        self.placement.of(entry.meta().policy).disk == DiskPlacement::OnSet
    }

    /// Sends down what memory gave up, where its policy allows it and enough of its life remains.
    #[inline]
    pub(crate) fn demote(&self, evicted: &mut Evicted, since: Moment) {
        evicted.take_each(|Gone { hash, entry }| {
            if !entry.is_some_and(|entry| self.demote_one(&entry, hash, since)) {
                self.departed.note(hash, MissCause::Evicted);
            }
        });
    }

    /// `true` if the disk has it now.
    fn demote_one(&self, entry: &Entry, hash: u64, since: Moment) -> bool {
        let Some(disk) = &self.disk else { return false };
        if entry.is_revived() {
            self.promotions.left(was_reused(entry));
        }
        let key = Key { id: entry.namespace_id(), text: entry.key(), hash };
        match self.placement.of(entry.meta().policy).disk {
            DiskPlacement::Never => return false,
            DiskPlacement::OnSet | DiskPlacement::OnEviction => {}
        }
        // With the same key on disk already: either these bytes, set or promoted before, or newer ones.
        if disk.contains(&key) {
            return true;
        }
        if !self.clock.is_before(entry.expires().saturating_sub(WORTH_DEMOTING_MS)) {
            return false;
        }
        let Some(_gate) = self.gates.demote(hash, since) else { return false };
        if self.rules.covers(entry.stamp(), key.id, key.text)
            || !disk.offer(entry, was_reused(entry))
            || self.undo_if_covered(&key, entry.stamp())
        {
            return false;
        }
        self.recorder.demoted(Tier::Memory, 1);
        true
    }

    /// Takes back what was just placed if a rule was declared meanwhile: its sweep may have passed this place already. Asked after the placing,
    /// it leaves no gap: a rule that is declared later sweeps later. The caller holds the key's gate.
    #[inline]
    pub(crate) fn undo_if_covered(&self, key: &Key<'_>, stamp: u64) -> bool {
        (self.closed.load(Ordering::Acquire) || self.rules.covers(stamp, key.id, key.text)) && self.undo(key, stamp)
    }

    #[cold]
    fn undo(&self, key: &Key<'_>, stamp: u64) -> bool {
        if self.closed.load(Ordering::Acquire) {
            // The same for `close`, which empties memory once: nothing may be left for a read that comes after it.
            drop(self.memory.remove(key));
        }
        if !self.rules.covers(stamp, key.id, key.text) {
            return false;
        }
        drop(self.memory.remove(key));
        if let Some(disk) = &self.disk {
            disk.remove(key);
        }
        if let Some(remote) = &self.remote {
            // Queued in order behind the write; the answer does not matter here, a failure is repaired by the tier.
            drop(tokio::spawn(remote.remove(key, &Note::default())));
        }
        true
    }
}
