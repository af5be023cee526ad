//! Redis with memory fallback: the server dies, hangs or is cut off, and the cache goes on.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use crate::support::proxy::Proxy;
use crate::support::redis::RedisServer;
use crate::support::{self, patient, put, read, secs, tier_of, tiers, timed, until};
use aurum_cache::{Cache, Namespace, Tier, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

async fn redis_state(cache: &Cache) -> TierState {
    tier_of(&cache.health().await, Tier::Redis).state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_killed_mid_run_and_the_cache_goes_on_and_recovers_by_itself() {
    let (mut redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let builder = patient().memory(8 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    put(&cache, NS, "before", "v", TtlPolicy::Extended).await;
    assert!(cache.health().await.is_healthy);
    assert_eq!(redis_state(&cache).await, TierState::Up);

    redis.kill();
    for i in 0..200 {
        let key = format!("during/{i}");
        put(&cache, NS, &key, &key, TtlPolicy::Medium).await;
        assert_eq!(read(&cache, NS, &key).await, Some(key), "a write without Redis is read back");
        assert_eq!(read(&cache, NS, "before").await.as_deref(), Some("v"));
        assert!(read(&cache, NS, &format!("absent/{i}")).await.is_none());
    }
    let fetched = cache.get_or_fetch(NS, "fetched", TtlPolicy::Short, || async { Ok::<_, std::io::Error>(7u64) }).await;
    assert_eq!(fetched.unwrap().to_value(), 7);
    until("health says that Redis is down", async || redis_state(&cache).await == TierState::Down).await;
    let health = cache.health().await;
    let reason = tier_of(&health, Tier::Redis).reason;
    assert!(reason.is_some_and(|text| !text.is_empty()), "health says why");
    assert_eq!(tier_of(&health, Tier::Memory).state, TierState::Up);
    assert_eq!(tier_of(&health, Tier::Disk).state, TierState::Up);
    assert!(cache.analytics().tier(Tier::Redis).errors > 0);
    assert!(cache.analytics().errors > 0);

    redis.restart();
    until("health says that Redis is up again", async || redis_state(&cache).await == TierState::Up).await;
    until("a write reaches Redis again", async || {
        put(&cache, NS, "after", "v", TtlPolicy::Medium).await;
        tiers(&cache, NS, "after").await.contains(&Tier::Redis)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_while_redis_is_down_holds_here_and_reaches_redis_later() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port());
    let cache = Cache::builder().memory(8 << 20).redis(proxy.url()).node("a").open().await.unwrap();
    for key in ["one", "two/a", "two/b", "stays"] {
        put(&cache, NS, key, "old", TtlPolicy::Long).await;
    }
    proxy.cut();
    // Whether it is told as an error or not: from here on this node does not serve them.
    let _ = cache.invalidate(NS, "one").await;
    let _ = cache.invalidate_pattern(NS, "two/*").await;
    for key in ["one", "two/a", "two/b"] {
        assert!(read(&cache, NS, key).await.is_none(), "{key} while cut off");
    }
    proxy.heal();
    until("Redis is up again", async || redis_state(&cache).await == TierState::Up).await;
    for _ in 0..50 {
        for key in ["one", "two/a", "two/b"] {
            assert!(read(&cache, NS, key).await.is_none(), "{key} came back from Redis");
        }
    }
    until("another node does not find them either", async || {
        let other = patient().memory(8 << 20).redis(redis.url()).node("b").open().await.unwrap();
        assert_eq!(read(&other, NS, "stays").await.as_deref(), Some("old"));
        let found = other.get_many::<str>(NS, &["one", "two/a", "two/b"]).await.iter().flatten().count();
        other.close().await.unwrap();
        found == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_slows_no_hit_and_no_miss_beyond_its_timeout() {
    let (redis, folder) = (RedisServer::start(), tempfile::tempdir().unwrap());
    let config = support::settings("[redis]\ntimeout = \"300ms\"");
    let builder = Cache::builder().config(config).memory(4 << 20).disk(folder.path(), 64 << 20).redis(redis.url());
    let cache = builder.open().await.unwrap();
    for i in 0..4_000 {
        let key = format!("{i}");
        put(&cache, NS, &key, &support::text(&key, 2_000), TtlPolicy::Extended).await;
    }
    redis.pause();
    let asked = cache.analytics().redis.get.count;
    let (mut memory, mut disk) = (0, 0);
    for i in (0..4_000).rev() {
        match cache.get::<str>(NS, &i.to_string()).await.expect("memory or disk holds it").tier() {
            Tier::Memory => memory += 1,
            Tier::Disk => disk += 1,
            Tier::Redis => panic!("a paused server answered"),
        }
    }
    assert!(memory > 100 && disk > 100, "{memory} from memory, {disk} from disk");
    assert_eq!(cache.analytics().redis.get.count, asked, "a hit does not ask Redis");

    // The server is paused for ever: that a miss and a set return at all says that they do not wait for it.
    let misses = async |count: usize| {
        for i in 0..count {
            assert!(read(&cache, NS, &format!("absent/{i}")).await.is_none());
        }
    };
    tokio::time::timeout(support::PATIENCE, misses(1)).await.expect("a miss does not wait for the server");
    until("the breaker is open", async || {
        redis_state(&cache).await == TierState::Down || {
            let _ = read(&cache, NS, "absent too").await;
            false
        }
    })
    .await;
    // With the breaker open they are free: a thousand timeouts would be five minutes, more than the patience with all of them.
    tokio::time::timeout(support::PATIENCE, misses(1_000)).await.expect("a miss is free");
    assert_eq!(redis_state(&cache).await, TierState::Down);
    let set = tokio::time::timeout(support::PATIENCE, cache.set(NS, "set", "v", TtlPolicy::Short)).await;
    set.expect("nor does a set wait for it").unwrap();

    redis.resume();
    until("it recovers", async || redis_state(&cache).await == TierState::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_is_noticed_and_healed() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port());
    let cache = Cache::builder().memory(8 << 20).redis(proxy.url()).open().await.unwrap();
    put(&cache, NS, "k", "v", TtlPolicy::Long).await;
    proxy.swallow();
    until("health notices", async || {
        tokio::time::timeout(support::PATIENCE, read(&cache, NS, "absent")).await.expect("a miss does not wait for the network");
        redis_state(&cache).await != TierState::Up
    })
    .await;
    assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("v"));
    proxy.heal();
    until("it recovers", async || redis_state(&cache).await == TierState::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_opens_without_its_server_and_finds_it_later() {
    let mut redis = RedisServer::start();
    redis.kill();
    let (cache, took) = timed(Cache::builder().memory(8 << 20).redis(redis.url()).open()).await;
    let cache = cache.expect("a cache without Redis is memory");
    assert!(took < support::PATIENCE);
    put(&cache, NS, "k", "v", TtlPolicy::Long).await;
    assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("v"));
    assert_ne!(redis_state(&cache).await, TierState::Up);
    redis.restart();
    until("it is found", async || redis_state(&cache).await == TierState::Up).await;
}

/// Foreign and broken values under our keys are misses, and never decoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_writes_under_our_key_is_a_counted_miss() {
    let redis = RedisServer::start();
    let writer = patient().memory(8 << 20).redis(redis.url()).node("writer").open().await.unwrap();
    put(&writer, NS, "donor", "another key's value", TtlPolicy::Long).await;
    for key in ["garbage", "swapped", "listed", "empty"] {
        put(&writer, NS, key, "right", TtlPolicy::Long).await;
    }
    let name = |key: &str| {
        let answer = redis.ask(&["KEYS", &format!("*{key}")]);
        answer.lines().find(|line| line.ends_with(key)).unwrap_or_else(|| panic!("{key}: {answer}")).trim().to_owned()
    };
    redis.ask(&["SET", &name("garbage"), "not an entry"]);
    redis.ask(&["SET", &name("empty"), ""]);
    redis.ask(&["COPY", &name("donor"), &name("swapped"), "REPLACE"]);
    let listed = name("listed");
    redis.ask(&["DEL", &listed]);
    redis.ask(&["RPUSH", &listed, "a", "list"]);

    let reader = patient().memory(8 << 20).redis(redis.url()).node("reader").open().await.unwrap();
    for key in ["garbage", "swapped", "listed", "empty"] {
        assert_eq!(read(&reader, NS, key).await, None, "{key}");
    }
    assert_eq!(read(&reader, NS, "donor").await.as_deref(), Some("another key's value"));
    let analytics = reader.analytics();
    assert!(analytics.miss_causes.corrupt >= 3, "{:?}", analytics.miss_causes);
    put(&reader, NS, "garbage", "healed", TtlPolicy::Long).await;
    let third = patient().memory(8 << 20).redis(redis.url()).node("third").open().await.unwrap();
    assert_eq!(read(&third, NS, "garbage").await.as_deref(), Some("healed"));
}

/// What the server refuses is said in health by its name, costs no answer, and is forgotten when it is granted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_refuses_is_said_in_health() {
    let redis = RedisServer::start();
    let cache = patient().memory(8 << 20).redis(redis.url()).open().await.unwrap();
    put(&cache, NS, "before", "v", TtlPolicy::Long).await;
    type Words = &'static [&'static str];
    let refusals: [(&str, Words, Words); 4] = [
        ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        ("NOPERM", &["ACL", "SETUSER", "default", "-evalsha"], &["ACL", "SETUSER", "default", "+@all"]),
        ("NOPERM", &["ACL", "SETUSER", "default", "-getrange"], &["ACL", "SETUSER", "default", "+@all"]),
        ("replica", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
    ];
    for (round, (says, refuse, grant)) in refusals.into_iter().enumerate() {
        assert!(redis.ask(refuse).starts_with("+OK"));
        let mut turn = 0;
        until(&format!("health says {says}"), async || {
            turn += 1;
            let key = format!("{round}/{turn}");
            put(&cache, NS, &key, "v", TtlPolicy::Long).await;
            assert_eq!(read(&cache, NS, &key).await.as_deref(), Some("v"));
            assert_eq!(read(&cache, NS, "before").await.as_deref(), Some("v"));
            assert!(read(&cache, NS, &format!("absent/{key}")).await.is_none());
            let health = tier_of(&cache.health().await, Tier::Redis);
            health.state != TierState::Up && health.reason.is_some_and(|reason| reason.contains(says))
        })
        .await;
        assert!(redis.ask(grant).starts_with("+OK"));
        until("it is granted again", async || {
            let _ = read(&cache, NS, "absent").await;
            redis_state(&cache).await == TierState::Up
        })
        .await;
    }
    let wrong = redis.url().replace("redis://", "redis://somebody:hunter2@");
    let cache = patient().memory(8 << 20).redis(wrong).open().await.unwrap();
    until("health says that the password is wrong", async || {
        let reason = tier_of(&cache.health().await, Tier::Redis).reason.unwrap_or_default();
        assert!(!reason.contains("hunter2"), "{reason}");
        reason.contains("WRONGPASS") || reason.contains("AuthenticationFailed") || reason.contains("authentication")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_and_goes_costs_hits_and_no_answer() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(redis.port());
    let cache = Cache::builder().memory(8 << 20).redis(proxy.url()).open().await.unwrap();
    for round in 0..5 {
        if round % 2 == 0 {
            proxy.cut()
        } else {
            proxy.delay(secs(1))
        }
        for i in 0..20 {
            let key = format!("{round}/{i}");
            put(&cache, NS, &key, &key, TtlPolicy::Long).await;
            assert_eq!(read(&cache, NS, &key).await, Some(key), "a write is read back, whatever the network does");
            assert!(read(&cache, NS, "absent").await.is_none());
        }
        proxy.heal();
        until("it recovers", async || redis_state(&cache).await == TierState::Up).await;
    }
    let other = patient().memory(8 << 20).redis(redis.url()).open().await.unwrap();
    for key in (0..5).flat_map(|round| (0..20).map(move |i| format!("{round}/{i}"))) {
        // What Redis could not be told is gone there; what is there is right.
        let found = read(&other, NS, &key).await;
        assert!(found.is_none() || found == Some(key));
    }
}

/// One answer too many, and those that follow are another's: it is noticed, asked again, and nobody gets what he did not ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_too_many_is_noticed_and_no_key_gets_anothers_value() {
    let redis = RedisServer::start();
    let writer = patient().memory(8 << 20).redis(redis.url()).node("writer").open().await.unwrap();
    for i in 0..120 {
        put(&writer, NS, &format!("k{i}"), &format!("value of k{i}"), TtlPolicy::Long).await;
    }
    let proxy = Proxy::to(redis.port());
    let reader = patient().memory(8 << 20).redis(proxy.url()).node("reader").open().await.unwrap();
    let mut fresh = 0..120;
    for slip in ["$-1\r\n", ":1\r\n", "$3\r\nfoo\r\n", "*0\r\n", "+OK\r\n", "$0\r\n\r\n"] {
        proxy.slip(slip.as_bytes());
        for i in fresh.by_ref().take(10) {
            assert_eq!(read(&reader, NS, &format!("k{i}")).await, Some(format!("value of k{i}")), "{slip:?}");
        }
        proxy.slip(slip.as_bytes());
        let many: Vec<String> = fresh.by_ref().take(10).map(|i| format!("k{i}")).collect();
        let found = reader.get_many::<str>(NS, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for (key, found) in many.iter().zip(found) {
            assert_eq!(found.as_deref(), Some(format!("value of {key}").as_str()), "{slip:?}");
        }
    }
}
