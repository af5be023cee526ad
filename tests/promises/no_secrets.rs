//! What a cache says of itself (debug texts, errors, log lines) holds no password, no value, and no key beyond the one an error is about.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use crate::support::redis::RedisServer;
use crate::support::{millis, tier_of, until};
use aurum_cache::{Cache, FetchError, Namespace, NamespaceConfig, Tier, TierState, TtlPolicy, Warming};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const NS: Namespace = Namespace::USER_DATA;
const PASSWORD: &str = "s3cr3t-pass";
const KEY: &str = "alice@example.org";
const VALUE: &str = "4111-1111-1111-1111";

/// Everything that is logged, at every level, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for &Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0.lock().unwrap(), "{field}={value:?} ");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("aurum_cache")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut &*self);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut &*self);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut &*self);
        self.0.lock().unwrap().push('\n');
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A day on which much goes wrong: a wrong password, damaged files, a loader that fails and one that panics, a server that is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_day_is_told_without_a_password_a_key_or_a_value() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let (mut redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    redis.ask(&["CONFIG", "SET", "requirepass", "the-right-one"]);
    let url = format!("redis://bob:{PASSWORD}@127.0.0.1:{}", redis.port());
    let builder = || {
        let governance = NamespaceConfig::default().hard_timeout(millis(100));
        Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).redis(url.clone()).namespace(NS, governance)
    };
    let mut said = format!("{:?}\n", builder());

    let cache = builder().open().await.unwrap();
    cache.set(NS, KEY, VALUE, TtlPolicy::Extended).await.unwrap();
    let hit = cache.get::<str>(NS, KEY).await.unwrap();
    said += &format!("{hit:?}\n{:?}\n{:?}\n", cache, cache.describe(NS, KEY).await);
    said += &format!("{:?}\n{:?}\n", cache.invalidate(NS, KEY), cache.invalidate_pattern(NS, KEY));
    let fetch = cache.get_or_fetch(NS, "other", TtlPolicy::Short, || async { Err::<u64, _>("no source".to_owned()) });
    assert!(matches!(fetch.await, Err(FetchError::Fetch(_))));
    for fault in ["fails", "panics", "hangs"] {
        let warming =
            Warming::<String>::new(NS, TtlPolicy::Short).keys([format!("{KEY}/{fault}")]).fetcher(move |_| async move {
                match fault {
                    "fails" => Err(VALUE.to_owned()),
                    "panics" => panic!("{VALUE}"),
                    _ => std::future::pending().await,
                }
            });
        said += &format!("{warming:?}\n");
        assert_eq!(cache.warm(warming).await.failed, 1);
    }
    until("health says that the password is refused", async || {
        tier_of(&cache.health().await, Tier::Redis).state != TierState::Up
    })
    .await;
    redis.kill();
    cache.set(NS, KEY, VALUE, TtlPolicy::Extended).await.unwrap();
    let health = cache.health().await;
    said += &format!("{health:?}\n{health}\n{:?}\n{}\n", cache.analytics(), cache.analytics());
    cache.close().await.unwrap();

    // Every copy of the value damaged, in whichever file it stands.
    let mut damaged = 0;
    for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
        let Ok(mut bytes) = std::fs::read(file.path()) else { continue };
        let is_copy = |at: &usize| bytes[*at..].starts_with(VALUE.as_bytes());
        let copies: Vec<usize> = (0..bytes.len()).filter(is_copy).collect();
        copies.iter().for_each(|at| bytes[*at] ^= 1);
        damaged += copies.len();
        std::fs::write(file.path(), bytes).unwrap();
    }
    assert!(damaged > 0, "the value was not found on disk");
    let cache = builder().open().await.unwrap();
    assert!(cache.get::<str>(NS, KEY).await.is_none(), "damaged");
    let analytics = cache.analytics();
    said += &format!("{:?}\n{analytics:?}\n", cache.health().await);
    cache.close().await.unwrap();

    let logged = log.0.lock().unwrap().clone();
    assert!(logged.contains("could not be warmed") && logged.contains("redis is down"), "the log was not heard:\n{logged}");
    for secret in [PASSWORD, KEY, VALUE] {
        for text in [&said, &logged] {
            assert!(!text.contains(secret), "{secret} in:\n{}", text.lines().find(|line| line.contains(secret)).unwrap_or(text));
        }
    }
}

/// An error is about one key, and names it: escaped, and cut, so that a key can neither forge a line of the log nor fill it.
#[tokio::test]
async fn an_error_names_its_key_escaped_and_cut() {
    let cache = Cache::builder().memory(8 << 20).open().await.unwrap();
    let key = format!("a\r\nINFO all is well\u{1b}[2J{}", "x".repeat(5_000));
    let error = cache.set(NS, &key, "v", TtlPolicy::Short).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("a\\r\\nINFO") && !text.contains(['\n', '\u{1b}']), "{text}");
    assert!(text.len() < 500, "{text}");
}
