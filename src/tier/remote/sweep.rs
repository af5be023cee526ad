//! Deletion by pattern: tell, sweep, tell again.
//!
//! First the message goes to the log and the wide mark moves, so that no fill of an older read lands any more. Then `SCAN` and `UNLINK`
//! walk the prefix on a connection of their own, in steps that the server does not feel; never `KEYS`. In a Cluster they walk all
//! primaries, and there, instead of the wide mark, the marks of the slots are deleted, which voids every lease. If anything was
//! deleted, the message goes out again: another node may have read an old value after the first and before the sweep was there.
//!
//! The repair list has the sweep from its beginning to its end. If it fails half-way it stays there, and is done again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind};
use crate::key::KeyHasher;
use crate::namespace::Namespace;
use crate::tier::remote::link::{Answer, Batch, Fault, Link};
use crate::tier::remote::message::Message;
use crate::tier::remote::present::received;
use crate::tier::remote::repair::Ticket;
use crate::tier::remote::shared::Core;
use crate::tier::remote::work::Work;

/// How many keys the server looks at in one step.
const STEP: &[u8] = b"500";

/// Nobody reads through this connection, so it may take its time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts the sweep that the repair list has under `ticket`.
pub(super) fn start(core: Arc<Core>, hasher: KeyHasher, ticket: Ticket, message: Message) -> JoinHandle<Result<Vec<u64>, Error>> {
    tokio::spawn(async move {
        let mut guard = Guard { core, ticket, is_done: false };
        let gone = run(&guard.core, &hasher, message).await?;
        guard.is_done = true;
        Ok(gone)
    })
}

/// However the sweep ends, the list hears of it.
struct Guard {
    core: Arc<Core>,
    ticket: Ticket,
    is_done: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_done { self.core.repair_done(self.ticket) } else { self.core.repair_failed(self.ticket) }
    }
}

async fn run(core: &Core, hasher: &KeyHasher, message: Message) -> Result<Vec<u64>, Error> {
    received(core.submit(Work::Mark(Box::new(message.clone()))).await)?;
    let gone = walk(core, hasher, &message).await?;
    if !gone.is_empty() {
        received(core.submit(Work::Mark(Box::new(message))).await)?;
    }
    Ok(gone.into_iter().collect())
}

async fn walk(core: &Core, hasher: &KeyHasher, message: &Message) -> Result<HashSet<u64>, Error> {
    let _turn = core.sweeping.lock().await;
    let failed = |fault: Fault| failure(core, fault.text());
    let namespace = message.namespace().map(Namespace::name);
    let pattern = if let Message::Pattern { pattern, .. } = message { Some(pattern.as_str()) } else { None };
    let mut link = core.endpoint.connect(core.timeout.max(PATIENCE), &Vec::new()).await.map_err(failed)?;
    if let Some(reason) = link.ailing() {
        return Err(failure(core, &reason));
    }
    if core.endpoint.is_cluster() {
        // Before the entries: a fill that landed until now is found by the walk over them, and none lands later.
        clear(core, &mut link, &core.layout.marks(namespace), |name| core.layout.is_mark(name), |_| ()).await?;
    }
    let mut gone = HashSet::new();
    let entries = core.layout.matching(namespace, pattern);
    let note = |name: &[u8]| gone.extend(hash(core, hasher, name));
    clear(core, &mut link, &entries, |name| core.layout.parse(name).is_some(), note).await?;
    Ok(gone)
}

/// Deletes what a glob finds and `is_ours`, on every primary; `note` hears of each name that was there.
async fn clear(
    core: &Core,
    link: &mut Link,
    glob: &str,
    is_ours: impl Fn(&[u8]) -> bool,
    mut note: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let within = core.timeout.max(PATIENCE);
    let failed = |fault: Fault| failure(core, fault.text());
    for primary in 0..link.primaries() {
        let mut cursor = b"0".to_vec();
        loop {
            let mut step = Batch::default();
            step.add("SCAN", &[&cursor, b"MATCH", glob.as_bytes(), b"COUNT", STEP]);
            let answers = core.endpoint.run_on(link, primary, step, within).await.map_err(failed)?;
            let [Answer::List(page)] = answers.as_slice() else { return Err(refused(core, answers.first())) };
            let [Answer::Bytes(next), Answer::List(names)] = page.as_slice() else { return Err(refused(core, page.first())) };
            let ours: Vec<&[u8]> = names.iter().filter_map(Answer::bytes).filter(|name| is_ours(name)).collect();
            let mut delete = Batch::default();
            for name in &ours {
                delete.add("UNLINK", &[name]);
            }
            let deleted = core.endpoint.run_on(link, primary, delete, within).await.map_err(failed)?;
            for (name, answer) in ours.iter().zip(&deleted) {
                match answer {
                    Answer::Int(0) => {}
                    Answer::Int(_) => note(name),
                    other => return Err(refused(core, Some(other))),
                }
            }
            if next == b"0" {
                break;
            }
            cursor.clone_from(next);
        }
    }
    Ok(())
}

/// A key's hash in this process. A namespace that this process cannot have has none.
fn hash(core: &Core, hasher: &KeyHasher, name: &[u8]) -> Option<u64> {
    let (namespace, text) = core.layout.parse(name)?;
    Some(hasher.hash(Namespace::parse(namespace).ok()?.id().ok()?, text))
}

fn refused(core: &Core, answer: Option<&Answer>) -> Error {
    let advice = match answer {
        Some(Answer::Refused(code, text)) => format!("refuses: {code} {text}"),
        _ => "answers something else than it was asked".to_owned(),
    };
    failure(core, &advice)
}

fn failure(core: &Core, reason: &str) -> Error {
    Error::new(ErrorKind::TierDown, core.endpoint.to_string(), reason)
}
