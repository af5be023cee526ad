//! What Redis has not been told yet: writes and invalidations that failed while the server was away.
//!
//! Until such a change is made good, Redis may hold an old value of what it covers. So reads that it covers are not
//! answered from Redis; when the link is back, the repair deletes the key (or sweeps the pattern), moves the marks and tells the log. A
//! repair that comes late only loses a value; one that comes before an older write still in the queue would be undone by it, so each
//! remembers [after](Repair::after) which job it may run.
//!
//! The list is bounded: beyond [`MAX_REPAIRS`] it becomes one repair of the whole prefix.

use std::collections::{BTreeMap, HashMap};

use crate::namespace::Namespace;
use crate::tier::remote::message::{Message, Origin};

/// The most repairs that are kept apart.
pub(super) const MAX_REPAIRS: usize = 10_000;

/// Where a repair stands in the list: by `after`, then by age.
pub(super) type Ticket = (u64, u64);

/// Is somebody at it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Failed; to be done when the server can be reached.
    Waiting,
    /// A sweep is on its way; what it covers counts as gone.
    Running,
}

struct Repair {
    message: Message,
    stage: Stage,
}

/// The list. The owner's lock guards it.
#[derive(Default)]
pub(super) struct Repairs {
    /// Keyed by the number of the job it may run after, and its own number.
    list: BTreeMap<Ticket, Repair>,
    /// The newest repair of each single key.
    keys: HashMap<Namespace, HashMap<String, Ticket>>,
    /// Those that cover more than one key.
    wide: Vec<Ticket>,
    next: u64,
}

impl Repairs {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Notes that `message` was not carried out; it may be once job number `after` is done.
    pub(super) fn add(&mut self, message: Message, after: u64, stage: Stage) -> Ticket {
        if self.list.len() >= MAX_REPAIRS {
            self.collapse(message.origin().node.clone(), after);
            // Part of the one repair now: a ticket of its own that is in no list.
            self.next += 1;
            return (after, self.next);
        }
        self.next += 1;
        // A repair that stands for several failures of a key waits for the last of them.
        let older = message.key().and_then(|(namespace, key)| self.keys.get(&namespace)?.get(key).copied());
        let ticket = (older.map_or(after, |older| older.0.max(after)), self.next);
        match message.key() {
            Some((namespace, key)) => {
                self.keys.entry(namespace).or_default().insert(key.to_owned(), ticket);
                older.and_then(|older| self.list.remove(&older));
            }
            None => self.wide.push(ticket),
        }
        self.list.insert(ticket, Repair { message, stage });
        ticket
    }

    /// Too many: one repair of everything in their place.
    fn collapse(&mut self, node: String, after: u64) {
        let after = self.list.last_key_value().map_or(after, |(last, _)| last.0.max(after));
        let at_ms = self.list.values().map(|repair| repair.message.origin().at_ms).max().unwrap_or(0);
        *self = Self { next: self.next, ..Self::default() };
        let reason = Some("more changes than could be kept while redis was away".to_owned());
        self.add(Message::All { origin: Origin { node, reason, actor: None, at_ms } }, after, Stage::Waiting);
    }

    /// Is a key covered, and how far is its repair?
    pub(super) fn covers(&self, namespace: Namespace, text: &str) -> Option<Stage> {
        let single = self.keys.get(&namespace).and_then(|keys| keys.get(text));
        let wide = self.wide.iter().filter(|ticket| {
            self.list.get(ticket).is_some_and(|repair| match &repair.message {
                Message::All { .. } => true,
                Message::Namespace { namespace: of, .. } => *of == namespace,
                Message::Pattern { namespace: of, pattern, .. } => *of == namespace && may_match(pattern, text),
                Message::Set { .. } | Message::Key { .. } => false,
            })
        });
        let stages = wide.chain(single).filter_map(|ticket| self.list.get(ticket)).map(|repair| repair.stage);
        stages.fold(None, |worst, stage| if worst == Some(Stage::Waiting) { worst } else { Some(stage) })
    }

    /// Carried out.
    pub(super) fn done(&mut self, ticket: Ticket) {
        let Some(repair) = self.list.remove(&ticket) else { return };
        match repair.message.key() {
            Some((namespace, key)) => self.forget(namespace, key, ticket),
            None => self.wide.retain(|wide| *wide != ticket),
        }
    }

    /// A newer write of the key, job number `seq`, came through: its repair is void.
    pub(super) fn superseded(&mut self, namespace: Namespace, text: &str, seq: u64) {
        if let Some(&ticket) = self.keys.get(&namespace).and_then(|keys| keys.get(text))
            && ticket.0 < seq
        {
            self.done(ticket);
        }
    }

    fn forget(&mut self, namespace: Namespace, key: &str, ticket: Ticket) {
        if let Some(keys) = self.keys.get_mut(&namespace) {
            if keys.get(key) == Some(&ticket) {
                keys.remove(key);
            }
            if keys.is_empty() {
                self.keys.remove(&namespace);
            }
        }
    }

    /// A sweep ended without being done.
    pub(super) fn failed(&mut self, ticket: Ticket) {
        if let Some(repair) = self.list.get_mut(&ticket) {
            repair.stage = Stage::Waiting;
        }
    }

    /// Repairs that may run now that all jobs before number `before` are done, oldest first, at most `limit`. Wide ones
    /// are marked as running; there is at most one of them, at the end.
    pub(super) fn due(&mut self, before: u64, limit: usize) -> Vec<(Ticket, Message)> {
        let mut due = Vec::new();
        for (ticket, repair) in self.list.range_mut(..(before, 0)) {
            if repair.stage == Stage::Running {
                continue;
            }
            due.push((*ticket, repair.message.clone()));
            if repair.message.key().is_none() {
                repair.stage = Stage::Running;
                break;
            }
            if due.len() == limit {
                break;
            }
        }
        due
    }

    /// All of them, oldest first.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.list.values().map(|repair| repair.message.clone()).collect()
    }
}

/// Could `pattern` match `text`? Compares what stands before the first special character; never says no wrongly.
fn may_match(pattern: &str, text: &str) -> bool {
    let literal = pattern.find(['*', '?', '[', '\\']).map_or(pattern, |at| &pattern[..at]);
    text.starts_with(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: Namespace = Namespace::CURVES;

    fn key(text: &str) -> Message {
        Message::Key { namespace: NS, key: text.into(), origin: Origin::default() }
    }

    fn pattern(text: &str) -> Message {
        Message::Pattern { namespace: NS, pattern: text.into(), origin: Origin::default() }
    }

    #[test]
    fn a_key_is_covered_until_its_newest_repair_is_done() {
        let mut repairs = Repairs::default();
        let old = repairs.add(key("a"), 1, Stage::Waiting);
        let new = repairs.add(key("a"), 5, Stage::Waiting);
        repairs.done(old);
        assert_eq!(repairs.covers(NS, "a"), Some(Stage::Waiting));
        assert_eq!(repairs.covers(NS, "b"), None);
        assert_eq!(repairs.covers(Namespace::GENERAL, "a"), None);
        repairs.done(new);
        assert_eq!((repairs.covers(NS, "a"), repairs.len()), (None, 0));
    }

    #[test]
    fn a_repair_waits_for_the_jobs_before_it_and_a_later_write_voids_it() {
        let mut repairs = Repairs::default();
        repairs.add(key("a"), 5, Stage::Waiting);
        assert!(repairs.due(5, 10).is_empty());
        assert_eq!(repairs.due(6, 10).len(), 1);
        repairs.superseded(NS, "a", 5);
        assert_eq!(repairs.len(), 1);
        repairs.superseded(NS, "a", 6);
        assert_eq!(repairs.len(), 0);
    }

    #[test]
    fn a_pattern_covers_what_it_could_match_and_waiting_weighs_more_than_running() {
        let mut repairs = Repairs::default();
        let running = repairs.add(pattern("pjm:*"), 1, Stage::Running);
        assert_eq!(repairs.covers(NS, "pjm:1"), Some(Stage::Running));
        assert_eq!(repairs.covers(NS, "miso:1"), None);
        repairs.add(pattern("pjm:?"), 1, Stage::Waiting);
        assert_eq!(repairs.covers(NS, "pjm:1"), Some(Stage::Waiting));
        repairs.failed(running);
        assert_eq!(repairs.due(2, 10).len(), 1, "one wide repair at a time");
        assert_eq!(repairs.due(2, 10).len(), 1);
        assert!(repairs.due(2, 10).is_empty());
    }

    #[test]
    fn more_than_the_list_holds_becomes_one_repair_of_everything() {
        let mut repairs = Repairs::default();
        for n in 0..MAX_REPAIRS {
            repairs.add(key(&n.to_string()), n as u64, Stage::Waiting);
        }
        let last = repairs.add(pattern("*"), MAX_REPAIRS as u64, Stage::Running);
        repairs.done(last);
        assert_eq!(repairs.len(), 1);
        assert_eq!(repairs.covers(Namespace::GENERAL, "x"), Some(Stage::Waiting));
        assert!(repairs.due(MAX_REPAIRS as u64, 10).is_empty(), "not before the newest of them could");
        assert_eq!(repairs.due(MAX_REPAIRS as u64 + 1, 10).len(), 1);
    }
}
