//! What can be asked of the server, and the commands it comes down to.

use crate::entry::Entry;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::tier::remote::keys::{Layout, Place};
use crate::tier::remote::lease::Lease;
use crate::tier::remote::link::{Answer, Batch, Script};
use crate::tier::remote::message::{Message, Origin};
use crate::tier::remote::shared::Core;

/// How long a slot's mark lives without a write; far longer than any fetch.
const SLOT_LIFE_MS: &str = "3600000";

/// What is to be done. The comment says what is answered.
pub(super) enum Work {
    /// The entry's bytes.
    Read(Place),
    /// One answer a key: the entry's bytes.
    ReadMany(Vec<Place>),
    /// Three answers: slot mark, wide marks, the entry's bytes, as they are [dealt out](super::together); in a Cluster two, for there are no wide marks.
    ReadLeased(Place),
    /// Makes the marks of a key if there are none. The last answers are slot mark and, but for a Cluster, wide marks.
    Lease(Place),
    /// Nothing of interest.
    Set(Entry),
    /// 1 if stored.
    Fill(Entry, Lease),
    /// 1 if there was one. The message is of one key.
    Remove(Box<Message>),
    /// Nothing of interest. The message is of many keys.
    Mark(Box<Message>),
    /// Nothing of interest: deletes the entry of this name if it still begins with these bytes (is still no string, if empty).
    Scrub(String, Vec<u8>),
    Ping,
    /// The text of `INFO memory`.
    Memory,
}

impl Work {
    /// Is it pointless when nobody waits for the answer? A lease is not: the mark that it makes is there for the next reader.
    pub(super) fn is_question(&self) -> bool {
        self.is_read() || matches!(self, Self::Ping | Self::Memory)
    }

    /// Does it read entries, and change nothing?
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Read(_) | Self::ReadMany(_) | Self::ReadLeased(_))
    }

    /// Could these be the answers? If not, one too many or too few came back, and all that follow are somebody else's.
    pub(super) fn fits(&self, answers: &[Answer], is_cluster: bool) -> bool {
        let refused = |answer: &Answer| matches!(answer, Answer::Refused(..));
        let text = |answer: &Answer| refused(answer) || matches!(answer, Answer::Bytes(_));
        let mark = |answer: &Answer| text(answer) || *answer == Answer::Nil;
        match self {
            Self::Read(_) | Self::ReadMany(_) => answers.len() == self.places().len() && answers.iter().all(text),
            Self::ReadLeased(_) => match answers {
                [slot, value] if is_cluster => mark(slot) && text(value),
                [slot, wide, value] => {
                    mark(slot) && (refused(wide) || matches!(wide, Answer::Mark(_) | Answer::Nil)) && text(value)
                }
                _ => false,
            },
            Self::Set(_) | Self::Fill(..) | Self::Remove(_) | Self::Scrub(..) => {
                answers.first().is_some_and(|first| refused(first) || matches!(first, Answer::Int(_)))
            }
            Self::Lease(_) | Self::Mark(_) | Self::Ping | Self::Memory => true,
        }
    }

    /// Of the keys that are read.
    pub(super) fn places(&self) -> &[Place] {
        match self {
            Self::Read(place) | Self::ReadLeased(place) => std::slice::from_ref(place),
            Self::ReadMany(places) => places,
            _ => &[],
        }
    }

    /// Bytes it keeps in memory and sends.
    pub(super) fn weight(&self) -> usize {
        256 + match self {
            Self::Set(entry) | Self::Fill(entry, _) => entry.footprint(),
            _ => self.places().iter().map(|place| place.entry().len() * 3).sum(),
        }
    }
}

/// What the server said to a job.
#[derive(Debug)]
pub(super) enum Answers {
    /// To the one command that most jobs are.
    One(Answer),
    Many(Vec<Answer>),
}

impl Answers {
    /// The next so many of them.
    pub(super) fn take(answers: &mut impl Iterator<Item = Answer>, count: usize) -> Self {
        match answers.next() {
            Some(answer) if count == 1 => Self::One(answer),
            first => Self::Many(first.into_iter().chain(answers.take(count.saturating_sub(1))).collect()),
        }
    }
}

impl std::ops::Deref for Answers {
    type Target = [Answer];

    fn deref(&self) -> &[Answer] {
        match self {
            Self::One(answer) => std::slice::from_ref(answer),
            Self::Many(answers) => answers,
        }
    }
}

pub(super) type Reply = Result<Answers, Error>;

impl Core {
    pub(super) fn place(&self, namespace: Namespace, text: &str) -> Place {
        self.layout.place(namespace.name(), text)
    }

    pub(super) fn set_message(&self, entry: &Entry) -> Message {
        let origin = Origin { node: self.node.clone(), reason: None, actor: None, at_ms: self.clock.wall_ms() };
        Message::Set { namespace: entry.namespace(), key: entry.key().to_owned(), origin }
    }

    /// A mark that never was.
    fn fresh_mark(&self) -> String {
        format!("{}{:016x}", self.instance, fastrand::u64(..))
    }

    /// The commands of one job; of a read with a lease those in a Cluster.
    pub(super) fn encode(&self, work: &Work, batch: &mut Batch) {
        let layout = &self.layout;
        let is_cluster = self.endpoint.is_cluster();
        match work {
            Work::Read(_) | Work::ReadMany(_) => self.encode_values(work.places().iter(), batch),
            Work::ReadLeased(place) => {
                // The mark first: whatever changes between it and the value makes the lease void, not the value old.
                batch.add("GET", &[place.slot().as_bytes()]);
                self.encode_values(std::iter::once(place), batch);
            }
            Work::Lease(place) => {
                let fresh = self.fresh_mark();
                if !is_cluster {
                    batch.call(Script::Birth, &[layout.log(), layout.epoch()], &[fresh.as_bytes()]);
                }
                batch.add("SET", &[place.slot().as_bytes(), fresh.as_bytes(), b"PX", SLOT_LIFE_MS.as_bytes(), b"NX"]);
                batch.add("GET", &[place.slot().as_bytes()]);
                if !is_cluster {
                    batch.add("HMGET", &[layout.epoch().as_bytes(), b"id", place.field().as_bytes(), b"*"]);
                }
            }
            Work::Set(entry) => {
                let message = self.set_message(entry);
                let left = entry.stale_until().saturating_sub(self.clock.steady());
                if left == 0 || entry.payload().len() as u64 > self.max_value {
                    return self.encode(&Work::Remove(Box::new(message)), batch);
                }
                let place = self.place(entry.namespace(), entry.key());
                let keys = [place.entry(), place.slot(), layout.log()];
                let (value, left, message) = (self.value_of(entry), left.to_string(), message.encode());
                if is_cluster {
                    let mark = self.fresh_mark();
                    let args = [&value, left.as_bytes(), SLOT_LIFE_MS.as_bytes(), mark.as_bytes()];
                    batch.call(Script::SetHere, &keys[..2], &args);
                    return self.tell(&message, batch);
                }
                let args = [&value, left.as_bytes(), SLOT_LIFE_MS.as_bytes(), self.instance.as_bytes(), &message];
                batch.call(Script::Set, &keys, &args);
            }
            Work::Fill(entry, lease) => {
                let place = self.place(entry.namespace(), entry.key());
                let left = entry.stale_until().saturating_sub(self.clock.steady()).max(1).to_string();
                let keys = [place.entry(), place.slot(), layout.epoch()];
                if is_cluster {
                    // A wide invalidation deletes the slots' marks instead of moving one of its own.
                    let args = [&self.value_of(entry), left.as_bytes(), &lease.slot];
                    return batch.call(Script::FillHere, &keys[..2], &args);
                }
                let (value, field) = (self.value_of(entry), place.field());
                let args = [&value, left.as_bytes(), &lease.slot, field.as_bytes(), &lease.wide];
                batch.call(Script::Fill, &keys, &args);
            }
            Work::Remove(message) => {
                let Some((namespace, key)) = message.key() else { return };
                let place = self.place(namespace, key);
                let keys = [place.entry(), place.slot(), layout.log()];
                if is_cluster {
                    let mark = self.fresh_mark();
                    batch.call(Script::RemoveHere, &keys[..2], &[SLOT_LIFE_MS.as_bytes(), mark.as_bytes()]);
                    return self.tell(&message.encode(), batch);
                }
                batch.call(Script::Remove, &keys, &[SLOT_LIFE_MS.as_bytes(), self.instance.as_bytes(), &message.encode()]);
            }
            Work::Mark(message) if is_cluster => self.tell(&message.encode(), batch),
            Work::Mark(message) => {
                let field = Layout::field(message.namespace().map(Namespace::name));
                let args = [field.as_bytes(), self.instance.as_bytes(), &message.encode()];
                batch.call(Script::Mark, &[layout.log(), layout.epoch()], &args);
            }
            Work::Scrub(entry, head) => batch.call(Script::Scrub, &[entry], &[head]),
            Work::Ping => batch.add("PING", &[]),
            Work::Memory => batch.add("INFO", &[b"memory"]),
        }
    }

    /// Asks for the entries' bytes.
    pub(super) fn encode_values<'p>(&self, places: impl Iterator<Item = &'p Place>, batch: &mut Batch) {
        places.for_each(|place| batch.add("GETRANGE", &[place.entry().as_bytes(), b"0", self.last_byte.as_bytes()]));
    }

    /// Tells the log, once the data are changed: whoever hears of it then reads the new.
    fn tell(&self, message: &[u8], batch: &mut Batch) {
        let log = self.layout.log().as_bytes();
        let instance = self.instance.as_bytes();
        batch.then("XADD", &[log, b"MAXLEN", b"~", b"100000", b"*", b"b", instance, b"m", message]);
    }

    fn value_of(&self, entry: &Entry) -> Vec<u8> {
        let header = entry.header(&self.clock);
        let mut value = Vec::with_capacity(header.len() + entry.payload().len());
        value.extend_from_slice(&header);
        value.extend_from_slice(entry.payload());
        value
    }
}
