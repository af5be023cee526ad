//! A Redis Cluster of three primaries: the same promises as with one server, over all of them, and with one of them away.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use std::sync::Arc;

use tokio::sync::Notify;

use crate::support::redis::RedisCluster;
use crate::support::{self, patient, put, read, settings, tier_of, tiers, until};
use aurum_cache::{Cache, ErrorKind, Namespace, Tier, TierHealth, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

async fn node(cluster: &RedisCluster, name: &str) -> Cache {
    patient().memory(8 << 20).redis(cluster.url()).node(name).open().await.expect("the node opens")
}

async fn redis_health(cache: &Cache) -> TierHealth {
    tier_of(&cache.health().await, Tier::Redis)
}

fn keys(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}:{n}")).collect()
}

/// The keys' values as another node finds them in Redis, `None` where it does not.
async fn found_by(cache: &Cache, keys: &[String]) -> Vec<Option<String>> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found = cache.get_many::<str>(NS, &keys).await;
    found.into_iter().map(|hit| hit.map(|hit| (*hit).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_does_three_do_together() {
    let cluster = RedisCluster::start();
    let (a, b) = (node(&cluster, "a").await, node(&cluster, "b").await);
    let pjm = keys("pjm", 200);
    for key in &pjm {
        put(&a, NS, key, key, TtlPolicy::Long).await;
    }
    put(&a, NS, "ercot:1", "spared", TtlPolicy::Long).await;
    assert!(cluster.nodes.iter().all(|node| node.keys() > 20), "each primary has its share");
    assert_eq!(found_by(&b, &pjm).await, pjm.iter().cloned().map(Some).collect::<Vec<_>>(), "in order");
    assert_eq!(b.analytics().redis.hits, 200);

    // A write and an invalidation of one node reach the other's memory.
    put(&b, NS, "pjm:0", "new", TtlPolicy::Long).await;
    until("the other node sees the write", async || read(&a, NS, "pjm:0").await.as_deref() == Some("new")).await;
    assert_eq!(a.invalidate(NS, "pjm:0").await.unwrap().redis, 1);
    until("the other node sees the invalidation", async || read(&b, NS, "pjm:0").await.is_none()).await;
    assert_eq!(a.invalidate_pattern(NS, "pjm:*").await.unwrap().redis, 199);
    until("the other node sees that of a pattern", async || found_by(&b, &pjm).await.iter().all(Option::is_none)).await;
    assert_eq!(read(&b, NS, "ercot:1").await.as_deref(), Some("spared"));

    // What a loader brings is filled in under its lease, unless something that covers it was invalidated meanwhile.
    let load = |text: &'static str| move || async move { Ok::<_, std::io::Error>(text.to_owned()) };
    b.get_or_fetch(NS, "loaded", TtlPolicy::Long, load("fresh")).await.unwrap();
    until("it is filled in", async || tiers(&b, NS, "loaded").await.contains(&Tier::Redis)).await;
    for scope in ["key", "pattern", "namespace", "all"] {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = tokio::spawn({
            let (b, begun, go) = (b.clone(), begun.clone(), go.clone());
            async move {
                let load = move || async move {
                    begun.notify_one();
                    go.notified().await;
                    Ok::<_, std::io::Error>("old".to_owned())
                };
                b.get_or_fetch(NS, "slow", TtlPolicy::Long, load).await.map(|hit| hit.to_value())
            }
        });
        tokio::time::timeout(support::PATIENCE, begun.notified()).await.expect("the loader begins");
        let invalidate = match scope {
            "key" => a.invalidate(NS, "slow"),
            "pattern" => a.invalidate_pattern(NS, "s*"),
            "namespace" => a.invalidate_namespace(NS),
            _ => a.invalidate_all(),
        };
        invalidate.await.unwrap();
        go.notify_one();
        assert_eq!(slow.await.unwrap().unwrap(), "old");
        assert!(a.get::<String>(NS, "slow").await.is_none(), "{scope}: it landed in Redis");
        until("nor does the other keep it", async || b.get::<String>(NS, "slow").await.is_none()).await;
    }
    let health = redis_health(&a).await;
    assert_eq!(health.state, TierState::Up, "{health:?}");
    let memory = a.analytics().redis_memory.expect("the servers tell how much they use");
    assert!(memory > 3 * 500_000, "{memory} is not that of all three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moved_is_found_where_it_is() {
    let cluster = RedisCluster::start();
    let cache = node(&cluster, "a").await;
    put(&cache, NS, "wanderer", "old", TtlPolicy::Long).await;
    let answers = || cluster.nodes.iter().map(|node| node.ask(&["KEYS", "*wanderer"]));
    let from = answers().position(|answer| answer.contains("wanderer")).expect("it is somewhere");
    let answer = answers().nth(from).unwrap();
    let name = answer.lines().find(|line| line.ends_with("wanderer")).unwrap().trim();
    let slot = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", name]).trim().trim_start_matches(':').to_owned();
    let mark = name.strip_suffix(":wanderer").unwrap();
    cluster.nodes[from].ask(&["DEL", name, mark]);
    let to = (from + 1) % 3;
    let id = cluster.nodes[to].ask(&["CLUSTER", "MYID"]);
    let id = id.lines().nth(1).unwrap().trim();
    for node in [to, from, (from + 2) % 3] {
        let answer = cluster.nodes[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", id]);
        assert!(answer.starts_with("+OK"), "{answer}");
    }
    put(&cache, NS, "wanderer", "new", TtlPolicy::Long).await;
    assert!(
        cluster.nodes[to].ask(&["EXISTS", name]).starts_with(":1"),
        "it went to the new place, and not into the list of repairs"
    );
    assert_eq!(read(&node(&cluster, "b").await, NS, "wanderer").await.as_deref(), Some("new"));
    assert_eq!(redis_health(&cache).await.state, TierState::Up);

    // One URL alone is no Cluster, and health says what to do.
    let alone = patient().memory(8 << 20).redis(cluster.nodes[0].url()).open().await.unwrap();
    put(&alone, NS, "k", "v", TtlPolicy::Long).await;
    assert_eq!(read(&alone, NS, "k").await.as_deref(), Some("v"));
    let reason = redis_health(&alone).await.reason.unwrap_or_default();
    assert!(reason.contains("must name several of its nodes"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_takes_its_share_and_no_more_and_comes_back_by_itself() {
    let mut cluster = RedisCluster::start();
    let (a, b) = (node(&cluster, "a").await, node(&cluster, "b").await);
    let keys = keys("k", 100);
    for key in &keys {
        put(&a, NS, key, "v", TtlPolicy::Long).await;
    }
    let log = cluster.owner("aurum:{aurum:log}");
    let dead = (log + 1) % 3;
    let lost = cluster.nodes[dead].keys();
    assert!(lost > 0);
    let port = cluster.nodes[dead].port().to_string();
    cluster.nodes[dead].kill();

    // Of a node that has nothing in memory the others' share is found, and only the dead one's is not.
    let found = found_by(&b, &keys).await.iter().flatten().count();
    assert!(found > 20 && found < keys.len(), "{found} of {} were found", keys.len());
    until("health says who is away", async || {
        let health = redis_health(&b).await;
        let says = health.reason.as_deref().is_some_and(|reason| reason.contains("1 of 3 primaries") && reason.contains(&port));
        says && health.state == TierState::Degraded
    })
    .await;
    for key in &keys {
        put(&a, NS, key, "while away", TtlPolicy::Long).await;
        assert_eq!(read(&a, NS, key).await.as_deref(), Some("while away"));
    }
    let pattern = a.invalidate_pattern(NS, "k:9*").await;
    assert!(pattern.is_ok_and(|event| event.memory == 11), "an invalidation holds here, and is made good there");
    assert!(read(&a, NS, "k:9").await.is_none());

    cluster.nodes[dead].restart();
    for cache in [&a, &b] {
        until("it is back", async || redis_health(cache).await.state == TierState::Up).await;
    }
    for key in &keys {
        put(&a, NS, key, "after", TtlPolicy::Long).await;
    }
    let fresh = node(&cluster, "c").await;
    assert_eq!(found_by(&fresh, &keys).await.iter().flatten().filter(|text| *text == "after").count(), keys.len());

    // Without the log nobody can be told: both go on with what they have, and drop it when the log is back without its past.
    cluster.nodes[log].kill();
    until("health says that the log is away", async || redis_health(&b).await.state != TierState::Up).await;
    put(&b, NS, "k:0", "here", TtlPolicy::Long).await;
    assert_eq!(read(&b, NS, "k:0").await.as_deref(), Some("here"));
    cluster.nodes[log].restart();
    for cache in [&a, &b] {
        until("it is back", async || redis_health(cache).await.state == TierState::Up).await;
    }
    put(&a, NS, "k:0", "last", TtlPolicy::Long).await;
    until("they hear each other again", async || read(&b, NS, "k:0").await.as_deref() == Some("last")).await;
}

#[tokio::test]
async fn urls_that_are_no_cluster_are_refused() {
    for urls in ["redis://a, rediss://b", "redis://:one@a, redis://:two@b", "redis://a/1, redis://b/1"] {
        let Err(error) = Cache::builder().memory(8 << 20).redis(urls).open().await else { panic!("{urls} opened") };
        assert_eq!((error.kind(), error.subject()), (ErrorKind::Config, "redis.url"), "{error}");
        assert!(!error.to_string().contains("one") || !error.to_string().contains(":one"), "{error}");
    }
    let listed = settings("[redis]\nurls = [\"redis://a\", \"redis://b\"]");
    assert_eq!(listed.redis.urls().len(), 2);
}
