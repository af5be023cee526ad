//! One connection to the server; the only file that says `redis`.
//!
//! A [`Link`] is made, used and thrown away: it never repairs itself. The crate's own `ConnectionManager` is not used, because
//! while it reconnects every caller waits on it outside of any deadline, and because it keeps a connection that only times out for ever.
//! Here each exchange is one pipeline with a deadline of its own, and whoever owns the link drops it when it misbehaves.
//!
//! **Fences.** When a link is dropped with requests unanswered, a paused server may still carry them out later, after what
//! the next link sent. So a new link first kills the old one at the server, by its client id and random name.
//!
//! **Scripts** are loaded when a link is made and called by their digest.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, IntoConnectionInfo, Value};

use crate::error::{Error, ErrorKind};
use crate::tier::remote::config::RedisUrl;

/// What the server runs in one piece.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    /// KEYS entry, slot, log; ARGV value, life ms, slot life ms, instance, message. Stores, moves the slot's mark, tells the log.
    Set,
    /// KEYS entry, slot, epoch; ARGV value, life ms, slot mark, field, wide marks. Stores if no mark has moved. 1 if it did.
    Fill,
    /// KEYS entry, slot, log; ARGV slot life ms, instance, message. Deletes, moves the mark, tells the log. 1 if there was one.
    Remove,
    /// KEYS log, epoch; ARGV field, instance, message. Moves a wide mark and tells the log.
    Mark,
    /// KEYS entry; ARGV first bytes as read, or "" for a value that is no string. Deletes what is still the same.
    Scrub,
    /// KEYS log, epoch; ARGV a random id. Gives the log a new incarnation if it has none or its records are gone.
    Birth,
}

const SCRIPTS: [(Script, &str); 6] = [
    (
        Script::Set,
        "local id = redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*', 'b', ARGV[4], 'm', ARGV[5])
redis.call('SET', KEYS[2], id, 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
    ),
    (
        Script::Fill,
        "if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
local m = redis.call('HMGET', KEYS[3], 'id', ARGV[4], '*')
if not m[1] or m[1] .. '/' .. (m[2] or '') .. '/' .. (m[3] or '') ~= ARGV[5] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
    ),
    (
        Script::Remove,
        "local n = redis.call('UNLINK', KEYS[1])
local id = redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*', 'b', ARGV[2], 'm', ARGV[3])
redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
return n",
    ),
    (
        Script::Mark,
        "local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'b', ARGV[2], 'm', ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], id)
return 1",
    ),
    (
        Script::Scrub,
        "local string = redis.call('TYPE', KEYS[1]).ok == 'string'
if ARGV[1] == '' then
  if string then return 0 end
elseif not string or redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
  return 0
end
return redis.call('UNLINK', KEYS[1])",
    ),
    (
        Script::Birth,
        "if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HEXISTS', KEYS[2], 'id') == 1 then return 0 end
redis.call('HSET', KEYS[2], 'id', ARGV[1])
redis.call('XADD', KEYS[1], '*', 'b', '', 'm', '')
return 1",
    ),
];

/// The scripts' digests, in the order of [`SCRIPTS`].
static DIGESTS: LazyLock<Vec<String>> =
    LazyLock::new(|| SCRIPTS.iter().map(|(_, text)| redis::Script::new(text).get_hash().to_owned()).collect());

/// What the server said to one command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Nil,
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Answer>),
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

    pub(super) fn add(&mut self, name: &str, args: &[&[u8]]) {
        let mut command = redis::cmd(name);
        for arg in args {
            command.arg(*arg);
            self.bytes += arg.len() + 16;
        }
        self.pipe.add_command(command);
        self.len += 1;
    }

    /// Calls a script.
    pub(super) fn call(&mut self, script: Script, keys: &[&str], args: &[&[u8]]) {
        let digest = DIGESTS[script as usize].as_bytes();
        let count = keys.len().to_string();
        let keys = keys.iter().map(|key| key.as_bytes());
        let all: Vec<&[u8]> = [digest, count.as_bytes()].into_iter().chain(keys).chain(args.iter().copied()).collect();
        self.add("EVALSHA", &all);
    }

    /// Makes the server run it in one piece. [`Link::run`] then gives one answer, the list of the answers.
    pub(super) fn atomic(&mut self) {
        self.pipe.atomic();
    }
}

/// Where to connect.
pub(super) struct Endpoint {
    client: redis::Client,
    url: RedisUrl,
    /// How this tier's connections are named at the server.
    name: String,
}

impl Endpoint {
    /// Checks the URL once more, with the crate's own eyes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], without the password.
    pub(super) fn new(url: &RedisUrl) -> Result<Self, Error> {
        #[cfg(feature = "tls")]
        if url.is_tls() {
            // Fails if the host installed a provider of its own, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let refuse = |error: redis::RedisError| {
            let advice = format!("is refused: {}", redacted(&error.to_string(), url));
            Error::new(ErrorKind::Config, "redis.url", advice)
        };
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(1));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(4));
        let info = url.secret().into_connection_info().map_err(refuse)?.set_tcp_settings(tcp);
        let client = redis::Client::open(info).map_err(refuse)?;
        Ok(Self { client, url: url.clone(), name: format!("aurum-{:016x}", fastrand::u64(..)) })
    }

    /// A new connection with the scripts loaded, within `within`. `fence` is the one it replaces.
    pub(super) async fn connect(&self, within: Duration, fence: Option<i64>) -> Result<Link, Fault> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(within)).set_response_timeout(None);
        let making = self.client.get_multiplexed_async_connection_with_config(&config);
        let connection = match tokio::time::timeout(within, making).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) if error.is_timeout() => return Err(Fault::TimedOut),
            Ok(Err(error)) => return Err(Fault::Broken(self.text_of(&error))),
            Err(_) => return Err(Fault::TimedOut),
        };
        let mut link = Link { connection, id: None };
        let mut hello = Batch::default();
        hello.add("CLIENT", &[b"SETNAME", self.name.as_bytes()]);
        hello.add("CLIENT", &[b"ID"]);
        if let Some(old) = fence {
            hello.add("CLIENT", &[b"LIST", b"ID", old.to_string().as_bytes()]);
        }
        let answers = self.run(&mut link, &hello, within).await?;
        if let Some(Answer::Int(id)) = answers.get(1) {
            link.id = Some(*id);
        }
        // The id may be another's on another server: only a connection with our own random name is ours.
        let ours = |list: &[u8]| String::from_utf8_lossy(list).contains(&format!("name={} ", self.name));
        if let (Some(old), Some(Answer::Bytes(list))) = (fence, answers.get(2))
            && ours(list)
        {
            let mut kill = Batch::default();
            kill.add("CLIENT", &[b"KILL", b"ID", old.to_string().as_bytes()]);
            self.run(&mut link, &kill, within).await?;
        }
        self.load_scripts(&mut link, within).await?;
        Ok(link)
    }

    /// Makes the server know the scripts (again).
    pub(super) async fn load_scripts(&self, link: &mut Link, within: Duration) -> Result<(), Fault> {
        let mut load = Batch::default();
        for (_, text) in SCRIPTS {
            load.add("SCRIPT", &[b"LOAD", text.as_bytes()]);
        }
        for answer in self.run(link, &load, within).await? {
            if let Answer::Refused(code, text) = answer {
                return Err(Fault::Broken(format!("refuses our scripts: {}", redacted(&format!("{code} {text}"), &self.url))));
            }
        }
        Ok(())
    }

    /// One round trip: sends the commands, waits for all answers.
    pub(super) async fn run(&self, link: &mut Link, batch: &Batch, within: Duration) -> Result<Vec<Answer>, Fault> {
        if batch.len == 0 {
            return Ok(Vec::new());
        }
        let (offset, count) = if batch.pipe.is_transaction() { (batch.len + 1, 1) } else { (0, batch.len) };
        match tokio::time::timeout(within, link.connection.req_packed_commands(&batch.pipe, offset, count)).await {
            Ok(Ok(values)) if values.len() == count => Ok(values.into_iter().map(Answer::from).collect()),
            Ok(Ok(_)) => Err(Fault::Broken("answers something else than it was asked".to_owned())),
            Ok(Err(error)) if error.is_timeout() => Err(Fault::TimedOut),
            Ok(Err(error)) => Err(Fault::Broken(self.text_of(&error))),
            Err(_) => Err(Fault::TimedOut),
        }
    }

    fn text_of(&self, error: &redis::RedisError) -> String {
        redacted(&error.to_string(), &self.url)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "redis {}", self.url)
    }
}

/// A connection. Dropping it closes it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Its client id at the server, for the fence.
    id: Option<i64>,
}

impl Link {
    pub(super) fn id(&self) -> Option<i64> {
        self.id
    }
}

/// A foreign text without our password.
fn redacted(text: &str, url: &RedisUrl) -> String {
    let mut text: String = text.chars().take(200).collect();
    if !url.password().is_empty() {
        text = text.replace(url.password(), "***");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_stands_at_its_place() {
        for (at, (script, _)) in SCRIPTS.into_iter().enumerate() {
            assert_eq!(script as usize, at, "{script:?}");
        }
    }

    #[test]
    fn a_foreign_text_loses_our_password() {
        let url = RedisUrl::parse("redis://:s3cr3t@h").unwrap();
        assert_eq!(redacted("WRONGPASS s3cr3t is not it", &url), "WRONGPASS *** is not it");
    }
}
