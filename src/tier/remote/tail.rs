//! The reading end of the log: a connection of its own, pages of records, and whether any is missing.
//!
//! Reading a stream from an id that was trimmed gives no error, it just begins later. So each page is read in one piece with two
//! questions: is the log of the same incarnation, and is the record of the position itself still there? The oldest records go first, so if it is,
//! nothing after it is missing. The log is never empty: it is born with a record.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::tier::remote::link::{Answer, Batch, Fault, Link, Script};
use crate::tier::remote::message::{Message, Origin};
use crate::tier::remote::shared::Core;
use crate::tier::remote::{Page, Remote};

/// Records a page.
const PAGE: &[u8] = b"500";

/// How long the server is asked to wait for a record; also the heartbeat of the connection, since it answers then in any case.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What the server is granted beyond that.
const GRACE: Duration = Duration::from_secs(1);

/// A follower's connection.
pub(crate) struct Tail {
    core: Arc<Core>,
    link: Option<Link>,
}

impl Tail {
    pub(crate) fn new(remote: &Remote) -> Self {
        Self { core: remote.core.clone(), link: None }
    }

    /// What there is after record `last` of incarnation `epoch`, without waiting for more.
    ///
    /// # Errors
    ///
    /// The link is down; the next call makes a new one.
    pub(crate) async fn page(&mut self, epoch: &str, last: &str) -> Result<Page, Error> {
        // The first look may find a log without incarnation; the second one finds what was born between.
        for _ in 0..2 {
            if let Some(page) = self.look(epoch, last).await? {
                return Ok(page);
            }
            let fresh = format!("{}{:016x}", self.core.instance, fastrand::u64(..));
            let core = self.core.clone();
            let mut birth = Batch::default();
            birth.call(Script::Birth, &[core.layout.log(), core.layout.epoch()], &[fresh.as_bytes()]);
            self.run(birth, GRACE).await?;
        }
        Err(self.down("has a log that cannot be read"))
    }

    async fn look(&mut self, epoch: &str, last: &str) -> Result<Option<Page>, Error> {
        let core = self.core.clone();
        let log = core.layout.log().as_bytes();
        let from = if is_id(last) { last } else { "0-0" };
        let mut look = Batch::default();
        look.atomic();
        look.add("HGET", &[core.layout.epoch().as_bytes(), b"id"]);
        look.add("XRANGE", &[log, from.as_bytes(), from.as_bytes()]);
        look.add("XREAD", &[b"COUNT", PAGE, b"STREAMS", log, from.as_bytes()]);
        look.add("XREVRANGE", &[log, b"+", b"-", b"COUNT", b"1"]);
        look.add("TIME", &[]);
        let answers = self.run(look, GRACE).await?;
        let [is_epoch, itself, after, newest, time] = answers.first().map(Answer::list).unwrap_or_default() else {
            return Err(self.down("answers something else than it was asked"));
        };
        let (Some(is_epoch), Some(newest)) = (text(is_epoch), newest.list().first().and_then(id)) else { return Ok(None) };
        if is_epoch != epoch || itself.list().is_empty() {
            return Ok(Some(Page::Gap(is_epoch.to_owned(), newest.to_owned())));
        }
        let records = after.list().first().and_then(|stream| stream.list().get(1)).map(Answer::list).unwrap_or_default();
        let Some(last) = records.last().and_then(id) else { return Ok(Some(Page::End)) };
        let messages = records.iter().filter_map(|record| self.message(record)).collect();
        Ok(Some(Page::Records(messages, last.to_owned(), age(records.first(), time))))
    }

    /// Waits until there is something after `last`, or a heartbeat long.
    ///
    /// # Errors
    ///
    /// The link is down.
    pub(crate) async fn wait(&mut self, last: &str) -> Result<(), Error> {
        let core = self.core.clone();
        let mut wait = Batch::default();
        let block = HEARTBEAT.as_millis().to_string();
        let log = core.layout.log().as_bytes();
        wait.add("XREAD", &[b"COUNT", b"1", b"BLOCK", block.as_bytes(), b"STREAMS", log, last.as_bytes()]);
        self.run(wait, HEARTBEAT + GRACE).await.map(drop)
    }

    async fn run(&mut self, batch: Batch, within: Duration) -> Result<Vec<Answer>, Error> {
        let core = self.core.clone();
        let result = async {
            let link = match &mut self.link {
                Some(link) => link,
                none => none.insert(core.endpoint.connect_to(core.layout.log(), core.timeout.max(GRACE)).await?),
            };
            let answers = core.endpoint.run(link, batch, within).await?;
            match answers.iter().find(|answer| matches!(answer, Answer::Refused(..))) {
                Some(Answer::Refused(code, text)) => Err(Fault::Broken(format!("refuses: {code} {text}"))),
                _ => Ok(answers),
            }
        };
        let result = result.await;
        result.map_err(|fault| {
            self.link = None;
            self.down(fault.text())
        })
    }

    fn down(&self, reason: &str) -> Error {
        Error::new(ErrorKind::TierDown, self.core.endpoint.to_string(), reason)
    }

    /// What a record says; `None` if it is our own or of no concern.
    fn message(&self, record: &Answer) -> Option<Message> {
        let fields = record.list().get(1).map(Answer::list).unwrap_or_default();
        let field =
            |name: &[u8]| fields.chunks_exact(2).find(|pair| pair[0].bytes() == Some(name)).and_then(|pair| pair[1].bytes());
        if field(b"b") == Some(self.core.instance.as_bytes()) {
            return None;
        }
        match (field(b"b"), field(b"m")) {
            // The record a log is born with.
            (Some(b""), Some(b"")) => None,
            (_, bytes) => match Message::decode(bytes.unwrap_or_default()) {
                Ok(message) => Some(message),
                // More namespaces than this process can have: it holds nothing of this one.
                Err(error) if error.kind() == ErrorKind::InvalidNamespace => None,
                Err(error) => {
                    tracing::warn!(server = %self.core.endpoint, %error, "a record of the log cannot be read; all local copies go");
                    let reason = Some("a record of the log could not be read".to_owned());
                    Some(Message::All { origin: Origin { reason, ..Origin::default() } })
                }
            },
        }
    }
}

fn text(answer: &Answer) -> Option<&str> {
    std::str::from_utf8(answer.bytes()?).ok()
}

/// How long a record had lain in the log at `time`, both by the server's clock; zero if one of them is no time.
fn age(record: Option<&Answer>, time: &Answer) -> Duration {
    let [seconds, micros] = time.list() else { return Duration::ZERO };
    let number = |answer: &Answer| text(answer).and_then(|text| text.parse::<u64>().ok());
    let written = record.and_then(id).and_then(|id| id.split_once('-')).and_then(|(ms, _)| ms.parse().ok());
    match (number(seconds), number(micros), written) {
        (Some(seconds), Some(micros), Some(written)) => {
            let now = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
            now.saturating_sub(Duration::from_millis(written))
        }
        _ => Duration::ZERO,
    }
}

/// The id of a record, if it is one.
fn id(record: &Answer) -> Option<&str> {
    record.list().first().and_then(text).filter(|id| is_id(id))
}

/// `milliseconds-sequence`, of bounded length.
pub(crate) fn is_id(id: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    id.split_once('-').is_some_and(|(ms, sequence)| number(ms) && number(sequence))
}
