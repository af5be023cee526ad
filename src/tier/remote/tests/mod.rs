//! The tier against a real server: what holds between nodes, and while the server is away.

mod faults;
mod log;
mod overlap;
mod proxy;
mod server;
mod sharing;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Stopwatch};
use crate::entry::{Entry, Meta};
use crate::key::{Key, KeyHasher};
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;
use crate::tier::Lookup;
use crate::tier::remote::{Lease, Note, RedisUrl, Remote, RemoteConfig};
use server::Server;

const NS: Namespace = Namespace::CURVES;

/// Generous, because the machines that run tests are busy.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One node of a fleet.
struct Node {
    remote: Arc<Remote>,
    clock: Clock,
    hasher: KeyHasher,
}

impl Node {
    fn new(server: &Server, name: &str) -> Self {
        Self::with(server, name, TIMEOUT)
    }

    fn with(server: &Server, name: &str, timeout: Duration) -> Self {
        Self::at(server.urls(), name, timeout)
    }

    fn at(urls: Vec<RedisUrl>, name: &str, timeout: Duration) -> Self {
        let config = RemoteConfig { urls, key_prefix: "test".into(), timeout, max_value: 1 << 20, ca: None };
        let (clock, hasher) = (Clock::manual(), KeyHasher::random());
        let remote = Remote::open(config, name.into(), clock.clone(), hasher.clone()).unwrap();
        Self { remote: Arc::new(remote), clock, hasher }
    }

    fn key<'a>(&self, text: &'a str) -> Key<'a> {
        self.hasher.key(NS, text).unwrap()
    }

    fn entry(&self, text: &str, value: &str) -> Entry {
        let now = self.clock.steady();
        let (expires, stale_until) = (now + 60_000, now + 90_000);
        let meta = Meta { policy: TtlPolicy::Short, fingerprint: 7, created: now, expires, stale_until, stamp: 3 };
        Entry::new(&self.key(text), &meta, value.as_bytes())
    }

    async fn set(&self, text: &str, value: &str) {
        self.remote.set(&self.entry(text, value)).await.unwrap();
    }

    /// The value, if it is a hit.
    async fn value(&self, text: &str) -> Option<String> {
        match self.remote.get(&self.key(text), 11, Clock::stopwatch()).await {
            Lookup::Hit(entry) => Some(String::from_utf8(entry.payload().to_vec()).unwrap()),
            _ => None,
        }
    }

    /// The lease of a miss.
    async fn miss(&self, text: &str) -> Lease {
        match self.remote.get_leased(&self.key(text), 11).await {
            (Lookup::Miss, Some(lease)) => lease,
            other => panic!("no miss with a lease: {other:?}"),
        }
    }

    async fn remove(&self, text: &str) -> bool {
        self.remote.remove(&self.key(text), &Note::default()).await.unwrap()
    }
}

/// Asks again until it is so; panics after two minutes.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let since: Stopwatch = Clock::stopwatch();
    while !is_so().await {
        assert!(since.elapsed() < Duration::from_secs(120), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}
