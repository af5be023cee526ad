//! Connections to the server; this file and its folder are the only ones that say `redis`.
//!
//! * [`endpoint`] makes a connection, [`cluster`] is what is used of a Cluster: one to each primary, [`script`] is what the server runs,
//!   [`resolve`] finds addresses.
//!
//! A [`Link`] is made, used and thrown away: it never repairs itself (but for the single primaries of a Cluster). The crate's own
//! `ConnectionManager` and `ClusterConnection` are not used: while they reconnect or retry, every caller waits for them outside of any
//! deadline; the one keeps a connection that only times out for ever, the other takes pipelines of one slot only.
//! Here each exchange is one pipeline a server with a deadline of its own, and whoever owns the link drops it when it misbehaves.
//!
//! **Fences.** When a link is dropped with requests unanswered, a paused server may still carry them out later, after what
//! the next link sent. So a new link first kills the old one at the server, by its client id and random name.

mod cluster;
mod endpoint;
mod resolve;
mod script;

use std::pin::Pin;
use std::sync::Arc;

use redis::Value;

use cluster::Cluster;
pub(super) use endpoint::Endpoint;
use endpoint::Wire;
pub(super) use script::Script;

use crate::tier::remote::config::RedisUrl;
use script::DIGESTS;

/// What the server said to one command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Nil,
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Answer>),
    /// Wide marks, which many keys have in common; never said by the server.
    Mark(Arc<[u8]>),
    /// An error: its code (`OOM`, `READONLY`, ...) and text.
    Refused(String, String),
}

impl Answer {
    fn from(value: Value) -> Self {
        match value {
            Value::Int(n) => Self::Int(n),
            Value::Boolean(yes) => Self::Int(i64::from(yes)),
            Value::BulkString(bytes) => Self::Bytes(bytes),
            Value::SimpleString(text) => Self::Bytes(text.into_bytes()),
            Value::VerbatimString { text, .. } => Self::Bytes(text.into_bytes()),
            Value::Okay => Self::Bytes(b"OK".to_vec()),
            Value::Array(list) | Value::Set(list) => Self::List(list.into_iter().map(Self::from).collect()),
            Value::Map(pairs) => Self::List(pairs.into_iter().flat_map(|(k, v)| [Self::from(k), Self::from(v)]).collect()),
            Value::ServerError(error) => Self::Refused(error.code().to_owned(), error.details().unwrap_or("").to_owned()),
            _ => Self::Nil,
        }
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }

    /// Was it a primary of a Cluster that is away? The link tells of it as long as it is.
    pub(super) fn is_of_nobody(&self) -> bool {
        self.is_refused_with(cluster::AWAY) || self.is_refused_with(cluster::BROKE)
    }

    /// Is this the answer to the question that ends an exchange? Any question is refused by a server that is [not up to it](REFUSALS).
    fn is_sealed(&self, seal: &str) -> bool {
        self.bytes() == Some(seal.as_bytes()) || REFUSALS.iter().any(|code| self.is_refused_with(code))
    }

    pub(super) fn is_refused_with(&self, code: &str) -> bool {
        matches!(self, Self::Refused(is, _) if is == code)
    }
}

/// Why an exchange failed as a whole.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    TimedOut,
    /// The connection cannot be used any more, or could not be made. Holds no secret.
    Broken(String),
}

impl Fault {
    /// What came back is not what was asked for.
    pub(super) fn amiss() -> Self {
        Self::Broken("answers something else than it was asked".to_owned())
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::TimedOut => "does not answer in time",
            Self::Broken(text) => text,
        }
    }
}

/// Commands that go out together.
#[derive(Default)]
pub(super) struct Batch {
    pipe: redis::Pipeline,
    /// Which of them go out only when all others were answered, where they may be on other servers.
    late: Vec<usize>,
    /// Commands in it.
    len: usize,
    /// About how large it is, in bytes.
    bytes: usize,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// About how large it is, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// In a Cluster a command goes where its first key is; one without a key goes to all primaries, and the list of their answers is
    /// its answer.
    pub(super) fn add(&mut self, name: &str, args: &[&[u8]]) {
        let bytes = name.len() + args.iter().map(|arg| arg.len()).sum::<usize>();
        let mut command = redis::Cmd::with_capacity(args.len() + 1, bytes);
        command.arg(name);
        for arg in args {
            command.arg(*arg);
            self.bytes += arg.len() + 16;
        }
        self.pipe.add_command(command);
        self.len += 1;
    }

    /// As [`add`](Self::add), for a command that must not be carried out before the others, wherever they are.
    pub(super) fn then(&mut self, name: &str, args: &[&[u8]]) {
        self.late.push(self.len);
        self.add(name, args);
    }

    /// Calls a script.
    pub(super) fn call(&mut self, script: Script, keys: &[&str], args: &[&[u8]]) {
        let digest = DIGESTS[script as usize].as_bytes();
        let count = keys.len().to_string();
        let keys = keys.iter().map(|key| key.as_bytes());
        let all: Vec<&[u8]> = [digest, count.as_bytes()].into_iter().chain(keys).chain(args.iter().copied()).collect();
        self.add("EVALSHA", &all);
    }

    /// Makes the server run it in one piece; of a single server only. [`Endpoint::run`] then gives one answer, the list of the answers.
    pub(super) fn atomic(&mut self) {
        self.pipe.atomic();
    }
}

/// A round trip under way, which ends by itself in time. The connection stays open as long as it.
pub(super) type Exchange = Pin<Box<dyn Future<Output = Result<Vec<Answer>, Fault>> + Send>>;

/// The connections of an earlier link, by server: its address and the client id there.
pub(super) type Fences = Vec<(String, i64)>;

/// A connection, or one to each primary of a Cluster. Dropping it closes it.
pub(super) enum Link {
    One(Wire),
    Cluster(Box<Cluster>),
}

impl Link {
    /// What the next link has to fence off.
    pub(super) fn fences(&self) -> Fences {
        match self {
            Self::One(wire) => wire.id.map(|id| (String::new(), id)).into_iter().collect(),
            Self::Cluster(cluster) => cluster.fences(),
        }
    }

    /// Servers that hold a part of the data each.
    pub(super) fn primaries(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Cluster(cluster) => cluster.primaries(),
        }
    }

    /// Which of the primaries of a Cluster are away, and why.
    pub(super) fn ailing(&self) -> Option<String> {
        match self {
            Self::One(_) => None,
            Self::Cluster(cluster) => cluster.ailing(),
        }
    }

    /// Would this answer be another one after [`Endpoint::recover`]?
    pub(super) fn is_worth_another_try(&self, answer: &Answer) -> bool {
        answer.is_refused_with("NOSCRIPT")
            || matches!(self, Self::Cluster(_)) && ["MOVED", cluster::BROKE].iter().any(|code| answer.is_refused_with(code))
    }
}

/// A foreign text without our password.
fn redacted(text: &str, urls: &[RedisUrl]) -> String {
    let mut text: String = text.chars().take(200).collect();
    for url in urls.iter().filter(|url| !url.password().is_empty()) {
        text = text.replace(url.password(), "***");
    }
    text
}

/// All of them at once.
async fn all<T>(futures: Vec<impl Future<Output = T> + Send>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, result) in running.iter_mut().filter(|(_, result)| result.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *result = Some(value),
                std::task::Poll::Pending => is_done = false,
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}

/// What a server says that refuses even to be pinged: that we may not, or that it is busy or not there yet.
const REFUSALS: [&str; 5] = ["NOPERM", "NOAUTH", "BUSY", "LOADING", "MASTERDOWN"];

/// What is said of a server that one URL names alone.
const OF_A_CLUSTER: &str = "is part of a Redis Cluster; redis.url must name several of its nodes";

/// Does this answer say that the server as a whole is of no use now?
pub(super) fn unfit(answer: &Answer) -> Option<Fault> {
    match answer {
        Answer::Refused(code, _) if code == "MOVED" || code == "ASK" => Some(Fault::Broken(OF_A_CLUSTER.to_owned())),
        Answer::Refused(code, text)
            if matches!(code.as_str(), "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "CLUSTERDOWN" | "NOREPLICAS") =>
        {
            Some(Fault::Broken(format!("refuses: {code} {text}")))
        }
        Answer::List(list) => list.iter().find_map(unfit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_ends_with_its_seal_or_with_the_refusal_of_any_question() {
        let bytes = |text: &str| Answer::Bytes(text.into());
        let refused = |code: &str| Answer::Refused(code.into(), "no".into());
        for good in [bytes("5ea1"), refused("NOPERM"), refused("BUSY")] {
            assert!(good.is_sealed("5ea1"), "{good:?}");
        }
        let list = Answer::List(vec![bytes("5ea1")]);
        for other in [bytes("value"), bytes(""), Answer::Nil, Answer::Int(1), list, refused("WRONGTYPE"), refused("OOM")] {
            assert!(!other.is_sealed("5ea1"), "{other:?}");
        }
    }

    #[test]
    fn a_foreign_text_loses_our_password() {
        let urls = [RedisUrl::parse("redis://h").unwrap(), RedisUrl::parse("redis://:s3cr3t@h").unwrap()];
        assert_eq!(redacted("WRONGPASS s3cr3t is not it", &urls), "WRONGPASS *** is not it");
    }
}
