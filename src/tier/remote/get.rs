//! Reading: one key or many, with a lease for whoever will fill what is missing.

use tokio::time::{timeout, timeout_at};

use super::link::Answer;
use super::present::{Remote, received};
use super::repair::Stage;
use super::work::Work;
use super::{Lease, keys::Place};
use crate::clock::Stopwatch;
use crate::entry::{Entry, Header};
use crate::error::{Error, ErrorKind, shown};
use crate::key::Key;
use crate::tier::Lookup;

/// The most keys one job reads; more are several jobs, one after the other.
const KEYS_A_JOB: usize = 512;

impl Remote {
    /// Reads a key. `stamp` becomes the entry's; the timeout runs since `asked`.
    pub(crate) async fn get(&self, key: &Key<'_>, stamp: u64, asked: Stopwatch) -> Lookup {
        if self.core.is_down() {
            return Lookup::Down(self.core.down_error());
        }
        // Small futures: this one is made for every read that comes so far.
        let late = asked.plus(self.core.timeout).into();
        match timeout_at(late, self.core.submit(Work::Read(self.place(key)))).await {
            Ok(Ok(Ok(answers))) => self.judge(key, answers.first(), stamp),
            Ok(Ok(Err(error))) => Lookup::Down(error),
            Ok(Err(_)) => Lookup::Down(Error::closed()),
            Err(_) => Lookup::Down(self.core.late()),
        }
    }

    /// Reads keys, in order, in one round trip.
    pub(crate) async fn get_many(&self, keys: &[Key<'_>], stamp: u64) -> Vec<Lookup> {
        if self.core.is_down() {
            let error = self.core.down_error();
            return keys.iter().map(|_| Lookup::Down(error.clone())).collect();
        }
        let mut found = Vec::with_capacity(keys.len());
        let ask = |keys: &[Key<'_>]| self.core.submit(Work::ReadMany(keys.iter().map(|key| self.place(key)).collect()));
        let jobs: Vec<_> = keys.chunks(KEYS_A_JOB).map(|keys| (keys, ask(keys))).collect();
        let reading = timeout(self.core.timeout, async {
            for (keys, job) in jobs {
                let answers = received(job.await)?;
                found.extend(keys.iter().zip(&*answers).map(|(key, answer)| self.judge(key, Some(answer), stamp)));
            }
            Ok(())
        });
        if let Err(error) = reading.await.unwrap_or_else(|_| Err(self.core.late())) {
            found.resize_with(keys.len(), || Lookup::Down(error.clone()));
        }
        found
    }

    /// Reads a key for somebody who will [fill](Self::fill) it if it is a miss. A hit has a lease, too, for it may be of another type.
    pub(crate) async fn get_leased(&self, key: &Key<'_>, stamp: u64) -> (Lookup, Option<Lease>) {
        if self.core.is_down() {
            return (Lookup::Down(self.core.down_error()), None);
        }
        let job = self.core.submit(Work::ReadLeased(self.place(key)));
        let reading = timeout(self.core.timeout, async {
            let answers = received(job.await)?;
            let (value, marks) = answers.split_last().unwrap_or((&Answer::Nil, &[]));
            let lease = match marks {
                [slot, wide] => Lease::of(slot, wide),
                [slot] => Lease::of_slot(slot),
                _ => None,
            };
            Ok(match (self.judge(key, Some(value), stamp), lease) {
                // The first miss in a slot for a long time: it has no mark yet.
                (Lookup::Miss, None) => (Lookup::Miss, self.mark(key).await),
                (lookup @ (Lookup::Hit(_) | Lookup::Miss), lease) => (lookup, lease),
                (lookup, _) => (lookup, None),
            })
        });
        reading.await.unwrap_or_else(|_| Err(self.core.late())).unwrap_or_else(|error| (Lookup::Down(error), None))
    }

    /// Gives the key's slot a mark if it has none.
    async fn mark(&self, key: &Key<'_>) -> Option<Lease> {
        let job = self.core.submit(Work::Lease(self.place(key)));
        match &*received(job.await).ok()? {
            [_, _, slot, wide] => Lease::from(slot, wide),
            [_, slot] => Lease::of_slot(slot),
            _ => None,
        }
    }

    fn place(&self, key: &Key<'_>) -> Place {
        self.core.place(key.namespace(), key.text)
    }

    /// What the answer says of a key.
    fn judge(&self, key: &Key<'_>, answer: Option<&Answer>, stamp: u64) -> Lookup {
        // Asked after the answer is here: a write that failed before this read was answered is known by now.
        match self.core.covers(key.namespace(), key.text) {
            Some(Stage::Waiting) => {
                let advice =
                    "may be out of date in redis, which could not be told of a change; it is repaired when redis is back";
                return Lookup::Down(Error::new(ErrorKind::TierDown, format!("key {}", shown(key.text)), advice));
            }
            Some(Stage::Running) => return Lookup::Miss,
            None => {}
        }
        match answer {
            Some(Answer::Nil) => Lookup::Miss,
            Some(Answer::Bytes(bytes)) if bytes.is_empty() => Lookup::Miss,
            Some(Answer::Bytes(bytes)) => match self.decode(key, bytes, stamp) {
                Ok(entry) => Lookup::Hit(entry),
                Err(error) => self.scrub(key, error, &bytes[..bytes.len().min(Header::LEN)]),
            },
            Some(Answer::Refused(code, _)) if code == "WRONGTYPE" => {
                self.scrub(key, Error::corrupt("entry", "is no string in redis"), &[])
            }
            Some(Answer::Refused(code, text)) => Lookup::Down(self.core.error(&format!("refuses: {code} {text}"))),
            Some(Answer::Int(_) | Answer::List(_) | Answer::Mark(_)) => {
                Lookup::Damaged(Error::corrupt("entry", "is no string in redis"))
            }
            None => Lookup::Down(self.core.late()),
        }
    }

    /// A damaged entry goes, if it still begins with these bytes.
    fn scrub(&self, key: &Key<'_>, error: Error, head: &[u8]) -> Lookup {
        drop(self.core.submit(Work::Scrub(self.place(key).entry().to_owned(), head.to_vec())));
        Lookup::Damaged(error)
    }

    fn decode(&self, key: &Key<'_>, bytes: &[u8], stamp: u64) -> Result<Entry, Error> {
        let (header, payload) = bytes.split_first_chunk().ok_or_else(|| Error::corrupt("entry", "is shorter than a header"))?;
        if payload.len() as u64 > self.core.max_value {
            return Err(Error::corrupt("entry", "is larger than a value may be"));
        }
        Entry::decode(key, header, payload, &self.core.clock, Some(stamp))
    }
}
