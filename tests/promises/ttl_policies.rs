//! The six lives, decided at the read, enforced by maintenance, prolonged by nothing.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::time::Duration;

use crate::support::redis::RedisServer;
use crate::support::{self, millis, put, read, secs, settings, until};
use aurum_cache::{Cache, Clock, ErrorKind, Namespace, Tier, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

#[test]
fn the_six_policies_have_their_published_times() {
    let lives = TtlPolicy::NAMED.map(|policy| (policy.to_string(), policy.ttl().as_secs(), policy.lands_on_disk()));
    let table = [
        ("ultra_short", 30, false),
        ("short", 300, false),
        ("medium", 1_800, false),
        ("long", 14_400, false),
        ("extended", 86_400, true),
        ("persistent", 604_800, true),
    ];
    assert_eq!(lives, table.map(|(name, ttl, disk)| (name.to_owned(), ttl, disk)));
}

async fn each_policy_ends_on_time(cache: &Cache, clock: &Clock) {
    let custom = TtlPolicy::Custom(secs(7));
    for policy in TtlPolicy::NAMED.into_iter().chain([custom]) {
        put(cache, NS, "k", "v", policy).await;
        let info = cache.describe(NS, "k").await.unwrap();
        assert_eq!((info.policy, info.expires_in, info.age), (policy, policy.ttl(), Duration::ZERO));

        clock.advance(policy.ttl() - millis(1));
        let hit = cache.get::<str>(NS, "k").await.unwrap_or_else(|| panic!("{policy} ended early"));
        assert_eq!((hit.age(), hit.expires_in()), (policy.ttl() - millis(1), millis(1)), "{policy}");

        clock.advance(millis(1));
        assert!(cache.get::<str>(NS, "k").await.is_none(), "{policy} is served past its time");
        assert!(cache.get_resident::<str>(NS, "k").is_none(), "{policy}");
        assert!(cache.with_resident::<str, ()>(NS, "k", |_| ()).is_none(), "{policy}");
        assert!(cache.get_many::<str>(NS, &["k"]).await[0].is_none(), "{policy}");
        assert!(!cache.contains(NS, "k").await, "{policy}");
        assert!(cache.describe(NS, "k").await.is_none(), "{policy}");
    }
}

#[tokio::test]
async fn each_policy_ends_at_its_millisecond_in_memory() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    each_policy_ends_on_time(&cache, &clock).await;
}

#[tokio::test]
async fn each_policy_ends_at_its_millisecond_with_all_tiers() {
    let (clock, redis, folder) = (Clock::manual(), RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    each_policy_ends_on_time(&builder.clock(clock.clone()).open().await.unwrap(), &clock).await;
}

#[tokio::test]
async fn reading_prolongs_no_life() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::UltraShort).await;
    for _ in 0..29 {
        clock.advance(secs(1));
        assert!(read(&cache, NS, "k").await.is_some());
    }
    clock.advance(secs(1));
    assert!(read(&cache, NS, "k").await.is_none());
}

#[tokio::test]
async fn writing_again_begins_a_new_life() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    put(&cache, NS, "k", "old", TtlPolicy::UltraShort).await;
    clock.advance(secs(29));
    put(&cache, NS, "k", "new", TtlPolicy::Short).await;
    clock.advance(secs(299));
    assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("new"));
    clock.advance(secs(1));
    assert!(read(&cache, NS, "k").await.is_none());
}

#[tokio::test]
async fn a_shorter_life_replaces_a_longer_one_in_every_tier() {
    let (clock, redis, folder) = (Clock::manual(), RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.clock(clock.clone()).open().await.unwrap();
    put(&cache, NS, "k", "long", TtlPolicy::Persistent).await;
    put(&cache, NS, "k", "short", TtlPolicy::UltraShort).await;
    assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("short"));
    clock.advance(secs(30));
    assert!(read(&cache, NS, "k").await.is_none(), "the older value of the longer life must not show through");
}

#[tokio::test]
async fn moving_between_tiers_keeps_the_remaining_life() {
    let (clock, redis, folder) = (Clock::manual(), RedisServer::start(), tempfile::tempdir().unwrap());
    let all = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = all.clock(clock.clone()).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Extended).await;
    cache.close().await.unwrap();
    clock.advance(secs(23 * 3_600));

    let disk = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).clock(clock.clone()).open().await.unwrap();
    let remote = Cache::builder().memory(8 << 20).redis(redis.url()).clock(clock.clone()).open().await.unwrap();
    for cache in [&disk, &remote] {
        for _ in 0..2 {
            let hit = cache.get::<str>(NS, "k").await.expect("one hour is left");
            assert_eq!((hit.age(), hit.expires_in()), (secs(23 * 3_600), secs(3_600)), "from {}", hit.tier());
        }
    }
    clock.advance(secs(3_600));
    for cache in [&disk, &remote] {
        assert!(read(cache, NS, "k").await.is_none());
    }
}

#[tokio::test]
async fn redis_itself_lets_go_of_an_entry_when_its_life_is_over() {
    let redis = RedisServer::start();
    let cache = Cache::builder().memory(8 << 20).redis(redis.url()).open().await.unwrap();
    let before = redis.keys();
    put(&cache, NS, "brief", "v", TtlPolicy::Custom(millis(300))).await;
    assert!(support::tiers(&cache, NS, "brief").await.contains(&Tier::Redis) || redis.keys() > before);
    until("the server has dropped it", async || {
        redis.ask(&["SCAN", "0", "MATCH", "*brief*", "COUNT", "1000"]).matches("brief").count() == 0
    })
    .await;
}

#[tokio::test]
async fn a_custom_life_may_be_nothing_or_endless() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    let _ = cache.set(NS, "nothing", "v", TtlPolicy::Custom(Duration::ZERO)).await;
    assert!(read(&cache, NS, "nothing").await.is_none());
    put(&cache, NS, "endless", "v", TtlPolicy::Custom(Duration::MAX)).await;
    clock.advance(secs(50 * 365 * 86_400));
    assert!(read(&cache, NS, "endless").await.is_some());
}

/// Lives at both ends, in every tier and over a restart: what is over before it began is never read, what is endless does not overflow.
#[tokio::test]
async fn the_shortest_and_the_longest_custom_lives_hold_in_every_tier() {
    let (clock, redis, folder) = (Clock::manual(), RedisServer::start(), tempfile::tempdir().unwrap());
    let open = async || {
        let builder = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
        builder.clock(clock.clone()).open().await.unwrap()
    };
    let cache = open().await;
    let lives = [Duration::ZERO, Duration::from_nanos(1), millis(1), secs(600), secs(86_400), Duration::MAX];
    for (i, life) in lives.into_iter().enumerate() {
        // A longer life was there before: it must not show through either.
        put(&cache, NS, &i.to_string(), "older", TtlPolicy::Persistent).await;
        put(&cache, NS, &i.to_string(), "v", TtlPolicy::Custom(life)).await;
    }
    let alive = async |cache: &Cache| {
        let mut alive = Vec::new();
        for i in 0..lives.len() {
            if let Some(value) = read(cache, NS, &i.to_string()).await {
                assert_eq!(value, "v");
                alive.push(i);
            }
            assert_eq!(cache.contains(NS, &i.to_string()).await, alive.last() == Some(&i));
        }
        alive
    };
    assert_eq!(alive(&cache).await, [2, 3, 4, 5]);
    clock.advance(millis(1));
    assert_eq!(alive(&cache).await, [3, 4, 5]);
    cache.close().await.unwrap();
    let cache = open().await;
    assert_eq!(alive(&cache).await, [3, 4, 5]);
    clock.advance(secs(86_400) - millis(2));
    assert_eq!(alive(&cache).await, [4, 5], "one millisecond is left");
    clock.advance(millis(1));
    assert_eq!(alive(&cache).await, [5]);
    clock.advance(secs(99 * 365 * 86_400));
    assert_eq!(alive(&cache).await, [5]);
    clock.advance(secs(365 * 86_400));
    assert_eq!(alive(&cache).await, Vec::<usize>::new(), "a hundred years are the longest life");
}

#[tokio::test]
async fn governance_refuses_a_longer_policy_or_shortens_it() {
    let clock = Clock::manual();
    let config = settings("[namespaces.curves]\nmax_ttl = \"4h\"\n[namespaces.prices]\nmax_ttl = \"5m\"\nenforce = \"clamp\"");
    let cache = Cache::builder().config(config).memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    let error = cache.set(NS, "k", "v", TtlPolicy::Extended).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PolicyRefused);
    assert!(error.to_string().contains("curves"), "{error}");
    assert!(read(&cache, NS, "k").await.is_none());
    put(&cache, NS, "k", "v", TtlPolicy::Long).await;

    const PRICES: Namespace = Namespace::new("prices");
    put(&cache, PRICES, "k", "v", TtlPolicy::Persistent).await;
    assert!(cache.describe(PRICES, "k").await.unwrap().expires_in <= secs(300));
    clock.advance(secs(300));
    assert!(read(&cache, PRICES, "k").await.is_none());
}

#[tokio::test]
async fn a_wall_clock_that_jumps_changes_no_life_here() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Short).await;
    for jump in [-3_600_000, 7_200_000] {
        clock.jump_wall(jump);
        let hit = cache.get::<str>(NS, "k").await.expect("steady time did not move");
        assert_eq!(hit.age(), Duration::ZERO);
    }
    clock.jump_wall(-100_000_000);
    clock.advance(secs(300));
    assert!(read(&cache, NS, "k").await.is_none());
}

/// Automatic enforcement: nobody reads, and the expired entries leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_enforces_the_policies_without_a_read() {
    let clock = Clock::manual();
    let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await.unwrap();
    for i in 0..500 {
        put(&cache, NS, &format!("brief/{i}"), "v", TtlPolicy::UltraShort).await;
        put(&cache, NS, &format!("lasting/{i}"), "v", TtlPolicy::Long).await;
    }
    clock.advance(secs(31));
    until("500 expired entries have left", async || cache.analytics().tier(Tier::Memory).entries == 500).await;
    assert_eq!(cache.analytics().tier(Tier::Memory).expirations, 500);
    for i in 0..500 {
        assert!(cache.contains(NS, &format!("lasting/{i}")).await);
    }
}
