//! What Redis still has to be told, kept on disk: a process that dies while Redis is away must not forget that old values are there.
//!
//! Two notes. The *list* has every repair, and is written on each round of maintenance and by `close`. A `set` or an invalidation that Redis did not
//! hear of cannot write ten thousand repairs: it writes its namespace into the note of what the list is *behind*, and the next one in that
//! namespace need not, until the list was written again. Whoever opens after a crash repairs what the list says, and whole
//! namespaces where it was behind: that costs hits, and no old value comes back.
//!
//! Without a disk tier nothing is kept: such a process forgets all when it ends, this too.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::coherence::{Message, Origin};
use crate::engine::inherit::is_for_later;
use crate::engine::state::Engine;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::tier::Tier;

const LIST: &str = "repairs";
const BEHIND: &str = "repairs-behind";

/// How the notes stand.
#[derive(Default)]
pub(crate) struct Kept {
    /// Namespaces whose changes the note covers: a `set` need not write it again.
    covered: parking_lot::Mutex<HashSet<Namespace>>,
    /// One writer at a time; what the note of the namespaces holds on disk.
    on_disk: tokio::sync::Mutex<HashSet<Namespace>>,
}

impl Engine {
    /// Writes down what Redis has not been told of, so that a restart does not forget it.
    pub(crate) async fn keep_repairs(&self) {
        let (Some(remote), Some(disk)) = (&self.remote, &self.disk) else { return };
        if !self.inherit(true).await {
            // What an earlier run wrote down is not lost by writing over it.
            return;
        }
        let mut on_disk = self.kept.on_disk.lock().await;
        // First this, then the list: a `set` that fails from here on writes its namespace, one that failed before is in the list.
        self.kept.covered.lock().clear();
        let pending = remote.pending();
        if pending.is_empty() && !self.repairs_kept.swap(false, Ordering::AcqRel) && on_disk.is_empty() {
            return;
        }
        self.repairs_kept.store(!pending.is_empty(), Ordering::Release);
        let written = self.noted(Tier::Disk, disk.write_note(LIST, encode(pending.iter())).await);
        if written.is_some() && !on_disk.is_empty() && self.noted(Tier::Disk, disk.write_note(BEHIND, Vec::new()).await).is_some()
        {
            on_disk.clear();
        }
    }

    /// Makes sure that a crash does not forget an invalidation that Redis did not hear of: of a namespace, or of all.
    pub(crate) async fn keep_owed(&self, namespace: Option<Namespace>) {
        if self.remote.as_ref().is_some_and(|remote| remote.owes()) {
            match namespace {
                Some(namespace) => self.keep_behind(namespace).await,
                None => self.keep_repairs().await,
            }
        }
    }

    /// Makes sure that a crash does not forget a `set` that Redis did not take.
    pub(crate) async fn keep_behind(&self, namespace: Namespace) {
        let (Some(_), Some(disk)) = (&self.remote, &self.disk) else { return };
        let is_covered = || self.kept.covered.lock().contains(&namespace);
        if is_covered() || !self.inherit(true).await {
            return;
        }
        let mut on_disk = self.kept.on_disk.lock().await;
        if is_covered() {
            return;
        }
        let all: HashSet<Namespace> = on_disk.iter().copied().chain([namespace]).collect();
        let messages: Vec<_> = all.iter().map(|&namespace| whole(namespace)).collect();
        if self.noted(Tier::Disk, disk.write_note(BEHIND, encode(messages.iter())).await).is_some() {
            *on_disk = all;
            self.kept.covered.lock().insert(namespace);
        }
    }

    /// Takes over what an earlier run could not tell Redis; `false` if the disk is down, and it has to be tried again. A note that cannot be read
    /// for another reason stands for everything.
    pub(crate) async fn inherit_repairs(&self) -> bool {
        let (Some(remote), Some(disk)) = (&self.remote, &self.disk) else { return true };
        let (list, behind) = (disk.read_note(LIST).await, disk.read_note(BEHIND).await);
        if is_for_later(&list) || is_for_later(&behind) {
            return false;
        }
        let said = |note: Result<Option<Vec<u8>>, Error>| {
            self.noted(Tier::Disk, note).map_or(vec![everything()], |note| decode(&note.unwrap_or_default()))
        };
        let mut pending = said(list);
        let behind = said(behind);
        if !behind.is_empty() {
            tracing::warn!(
                namespaces = behind.len(),
                "an earlier run ended while redis was away; what it may hold of them is dropped"
            );
        }
        // Kept as they stand until the list has them.
        self.kept.on_disk.lock().await.extend(behind.iter().filter_map(|message| match message {
            Message::Namespace { namespace, .. } => Some(*namespace),
            _ => None,
        }));
        pending.extend(behind);
        self.repairs_kept.store(!pending.is_empty(), Ordering::Release);
        remote.add_pending(pending);
        true
    }
}

fn everything() -> Message {
    Message::All { origin: Origin::default() }
}

fn whole(namespace: Namespace) -> Message {
    let reason = Some("changed while redis was away, and the process ended before it could say what".to_owned());
    Message::Namespace { namespace, origin: Origin { reason, ..Origin::default() } }
}

/// Each with its length before it.
fn encode<'a>(messages: impl Iterator<Item = &'a Message>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let message = message.encode();
        bytes.extend((message.len() as u32).to_le_bytes());
        bytes.extend(message);
    }
    bytes
}

fn decode(mut rest: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let message = behind.split_at_checked(u32::from_le_bytes(*length) as usize);
        let decoded = message.and_then(|(message, behind)| Some((Message::decode(message).ok()?, behind)));
        let Some((message, behind)) = decoded else {
            messages.push(everything());
            break;
        };
        messages.push(message);
        rest = behind;
    }
    messages
}
