//! What nodes share while the server is well.

use super::*;
use crate::tier::remote::link::Answer;

#[tokio::test]
async fn what_one_node_sets_another_reads_with_its_remaining_life() {
    let server = Server::start();
    let (one, two) = (Node::new(&server, "one"), Node::new(&server, "two"));
    one.set("pjm", "42").await;
    let Lookup::Hit(entry) = two.remote.get(&two.key("pjm"), 11, Clock::stopwatch()).await else { panic!("no hit") };
    assert_eq!((entry.payload(), entry.stamp(), entry.meta().fingerprint), (&b"42"[..], 11, 7));
    assert!(entry.expires() <= two.clock.steady() + 60_000);
    let Answer::Int(left) = server.say("PTTL", &[two.remote.core.place(NS, "pjm").entry()]).await else { panic!("no life") };
    assert!((80_000..=90_000).contains(&left), "stale time counts: {left}");
}

#[tokio::test]
async fn a_read_sees_what_was_queued_before_it_also_unawaited() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    for n in 0..200 {
        drop(node.remote.set(&node.entry("k", &n.to_string())));
        assert_eq!(node.value("k").await, Some(n.to_string()));
        drop(node.remote.remove(&node.key("k"), &Note::default()));
        assert_eq!(node.value("k").await, None);
    }
}

#[tokio::test]
async fn a_fill_lands_only_if_nothing_changed_since_its_read() {
    fill_after_changes(Server::start()).await;
}

#[tokio::test]
async fn a_fill_lands_only_if_nothing_changed_since_its_read_in_a_cluster_too() {
    fill_after_changes(Server::start_cluster().await).await;
}

async fn fill_after_changes(server: Server) {
    let (one, two) = (Node::new(&server, "one"), Node::new(&server, "two"));
    let lease = one.miss("k").await;
    assert!(one.remote.fill(&one.entry("k", "fresh"), lease.clone()).await.unwrap());
    assert_eq!(two.value("k").await.as_deref(), Some("fresh"));

    // Another node removes it, sets it, or invalidates around it: the old lease is void each time.
    assert!(two.remove("k").await);
    assert!(!one.remote.fill(&one.entry("k", "old"), lease).await.unwrap());
    let lease = one.miss("k").await;
    two.set("k", "new").await;
    assert!(!one.remote.fill(&one.entry("k", "old"), lease).await.unwrap());
    assert_eq!(one.value("k").await.as_deref(), Some("new"));
    for wide in [(Some(NS), Some("k*")), (Some(NS), None), (None, None)] {
        two.remove("k").await;
        let lease = one.miss("k").await;
        two.remote.remove_matching(wide.0, wide.1, &Note::default()).await.unwrap();
        assert!(!one.remote.fill(&one.entry("k", "old"), lease).await.unwrap(), "{wide:?}");
        assert_eq!(one.value("k").await, None);
    }
    // Nor does one survive that Redis forgets everything.
    let lease = one.miss("k").await;
    server.say("FLUSHALL", &[]).await;
    assert!(!one.remote.fill(&one.entry("k", "old"), lease).await.unwrap());
    let lease = one.miss("k").await;
    assert!(one.remote.fill(&one.entry("k", "fresh"), lease).await.unwrap(), "and life goes on");
}

#[tokio::test]
async fn a_lease_that_nobody_waits_for_any_more_is_made_all_the_same() {
    use crate::tier::remote::work::Work;
    let server = Server::start();
    let node = Node::new(&server, "one");
    node.remote.probe().await;
    let place = || node.remote.core.place(NS, "k");
    drop(node.remote.core.submit(Work::Lease(place())));
    node.remote.probe().await;
    assert_eq!(server.say("EXISTS", &[place().slot()]).await, Answer::Int(1));
}

#[tokio::test]
async fn an_invalidation_of_another_namespace_voids_no_lease() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    let lease = node.miss("k").await;
    node.remote.remove_matching(Some(Namespace::GENERAL), None, &Note::default()).await.unwrap();
    assert!(node.remote.fill(&node.entry("k", "v"), lease).await.unwrap());
}

#[tokio::test]
async fn misses_that_travel_together_have_leases_that_hold_until_what_they_cover_changes() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    // So that there are marks of every width.
    let note = Note::default();
    node.remote.remove_matching(Some(NS), None, &note).await.unwrap();
    node.remote.remove_matching(None, None, &note).await.unwrap();
    let (a, b, c) = tokio::join!(node.miss("a"), node.miss("b"), node.miss("c"));
    assert!(node.remote.fill(&node.entry("a", "v"), a).await.unwrap());
    node.set("b", "newer").await;
    assert!(!node.remote.fill(&node.entry("b", "older"), b).await.unwrap());
    node.remote.remove_matching(Some(NS), None, &note).await.unwrap();
    assert!(!node.remote.fill(&node.entry("c", "older"), c).await.unwrap());
    let (a, b) = tokio::join!(node.miss("a"), node.miss("b"));
    assert!(node.remote.fill(&node.entry("a", "v"), a).await.unwrap());
    node.remote.remove_matching(None, None, &note).await.unwrap();
    assert!(!node.remote.fill(&node.entry("b", "older"), b).await.unwrap());
}

#[tokio::test]
async fn marks_are_read_before_the_values_that_they_vouch_for() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    // Now there are marks.
    tokio::join!(node.miss("a"), node.miss("b"));
    server.say("CONFIG", &["SET", "slowlog-log-slower-than", "0"]).await;
    tokio::join!(node.miss("a"), node.miss("b"));
    let Answer::List(log) = server.say("SLOWLOG", &["GET", "100"]).await else { panic!("no log") };
    let name = |record: &Answer| Some(String::from_utf8_lossy(record.list().get(3)?.list().first()?.bytes()?).into_owned());
    // The newest come first.
    let names: Vec<String> = log.iter().rev().filter_map(name).filter(|name| name.contains("GET")).collect();
    let mut exchanges = names.join(" ");
    for values in ["GETRANGE GETRANGE", "GETRANGE"] {
        exchanges = exchanges.replace(&format!("MGET HMGET {values}"), "");
    }
    assert!(names.len() >= 4 && exchanges.trim().is_empty(), "{names:?}");
}

#[tokio::test]
async fn a_removal_tells_whether_there_was_something() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    node.set("k", "v").await;
    assert!(node.remove("k").await);
    assert!(!node.remove("k").await);
}

#[tokio::test]
async fn many_keys_come_in_order() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    let texts: Vec<String> = (0..1_300).map(|n| format!("k{n}")).collect();
    for text in texts.iter().step_by(2) {
        drop(node.remote.set(&node.entry(text, text)));
    }
    let keys: Vec<Key<'_>> = texts.iter().map(|text| node.key(text)).collect();
    let found = node.remote.get_many(&keys[..1_000], 11).await;
    assert_eq!(found.len(), 1_000);
    for (n, lookup) in found.into_iter().enumerate() {
        match lookup {
            Lookup::Hit(entry) => assert!(n % 2 == 0 && entry.payload() == texts[n].as_bytes()),
            Lookup::Miss => assert!(n % 2 == 1),
            other => panic!("{other:?}"),
        }
    }
    assert!(node.remote.get_many(&[], 11).await.is_empty());
}

#[tokio::test]
async fn a_pattern_takes_what_matches_and_nothing_else() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    server.say("SET", &["test:v1:{curves:000}:pjm:foreign", "x"]).await;
    server.say("SET", &["other:v1:{curves:000}:pjm:1", "x"]).await;
    for text in ["pjm:1", "pjm:2", "miso:1", "x}:pjm:1"] {
        node.set(text, "v").await;
    }
    let gone = node.remote.remove_matching(Some(NS), Some("pjm:*"), &Note::default()).await.unwrap();
    let mut expected = vec![node.key("pjm:1").hash, node.key("pjm:2").hash];
    expected.sort_unstable();
    let mut gone = gone;
    gone.sort_unstable();
    assert_eq!(gone, expected);
    assert_eq!(node.value("pjm:1").await, None);
    assert!(node.value("miso:1").await.is_some());
    assert!(node.value("x}:pjm:1").await.is_some(), "the slot's question marks do not reach into a key");
    assert_eq!(node.remote.remove_matching(None, None, &Note::default()).await.unwrap().len(), 2);
    assert_eq!(server.say("EXISTS", &["other:v1:{curves:000}:pjm:1", "test:v1:{curves:000}:pjm:foreign"]).await, Answer::Int(2));
}

#[tokio::test]
async fn a_pattern_over_many_keys_takes_them_all() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    for n in 0..5_000 {
        drop(node.remote.set(&node.entry(&format!("k{n}"), "v")));
    }
    node.set("last", "v").await;
    let gone = node.remote.remove_matching(Some(NS), Some("k*"), &Note::default()).await.unwrap();
    assert_eq!(gone.len(), 5_000);
    assert!(node.value("last").await.is_some());
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_and_takes_the_old_one_with_it() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    node.set("k", "small").await;
    let error = node.remote.set(&node.entry("k", &"x".repeat((1 << 20) + 1))).await.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::InvalidValue);
    assert_eq!(node.value("k").await, None);
    node.set("k", &"x".repeat(1 << 20)).await;
    assert_eq!(node.value("k").await.unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn the_memory_of_the_server_is_told() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    assert_eq!(node.remote.cached_memory(), None);
    assert!(node.remote.memory().await.unwrap() > 100_000);
    assert!(node.remote.cached_memory().is_some());
}

#[tokio::test]
async fn close_finishes_what_was_queued_and_refuses_what_comes_later() {
    let server = Server::start();
    let (one, two) = (Node::new(&server, "one"), Node::new(&server, "two"));
    one.miss("k").await;
    let set = one.remote.set(&one.entry("k", "v"));
    one.remote.close().await;
    one.remote.close().await;
    set.await.unwrap();
    assert_eq!(two.value("k").await.as_deref(), Some("v"));
    assert_eq!(one.remote.set(&one.entry("k", "late")).await.unwrap_err().kind(), crate::ErrorKind::Closed);
}
