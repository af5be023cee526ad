//! The server away, slow, full, forgetful, hostile; and foreign bytes under our keys.

use std::io::{Read, Write};

use super::proxy::{Mode, Proxy};
use super::*;
use crate::tier::TierState;
use crate::tier::remote::link::Answer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_nobody_more_than_the_timeout_and_comes_back_by_itself() {
    let mut server = Server::start();
    let node = Node::new(&server, "one");
    node.set("k", "v").await;
    server.kill();
    let since = Clock::stopwatch();
    until("the breaker opens", async || {
        node.value("k").await;
        !node.remote.is_up()
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(20));
    assert_eq!(node.remote.report().state, TierState::Down);

    let key = node.key("k");
    let since = Clock::stopwatch();
    for _ in 0..1_000 {
        assert!(matches!(node.remote.get(&key, 11, Clock::stopwatch()).await, Lookup::Down(_)));
    }
    assert!(since.elapsed() < Duration::from_secs(10), "an open breaker answers at once: {:?} for 1000", since.elapsed());

    server.run();
    let took = until("the tier is up again", async || node.remote.is_up()).await;
    assert!(took < Duration::from_secs(30), "{took:?}");
    node.set("k", "w").await;
    assert_eq!(node.value("k").await.as_deref(), Some("w"));
}

#[tokio::test]
async fn a_server_that_restarted_while_nobody_asked_is_not_noticed() {
    let mut server = Server::start();
    let node = Node::new(&server, "one");
    node.set("k", "v").await;
    server.kill();
    server.run();
    node.set("k", "w").await;
    assert_eq!(node.value("k").await.as_deref(), Some("w"));
}

#[tokio::test]
async fn open_does_not_need_the_server() {
    let mut server = Server::start();
    server.kill();
    let node = Node::new(&server, "one");
    assert!(node.value("k").await.is_none());
    server.run();
    until("the tier is up", async || node.remote.is_up() && node.remote.report().state == TierState::Up).await;
    node.set("k", "v").await;
}

#[tokio::test]
async fn a_write_that_failed_leaves_no_old_value_to_be_read() {
    let server = Server::start();
    let (one, two) = (Node::with(&server, "one", Duration::from_millis(60)), Node::new(&server, "two"));
    until("one is connected", async || one.remote.report().state == TierState::Up).await;
    one.set("set", "old").await;
    one.set("removed", "old").await;
    one.set("swept:1", "old").await;
    server.pause();
    assert!(one.remote.set(&one.entry("set", "new")).await.is_err());
    assert!(one.remote.remove(&one.key("removed"), &Note::default()).await.is_err());
    assert!(one.remote.remove_matching(Some(NS), Some("swept:*"), &Note::default()).await.is_err());
    assert_eq!(one.remote.pending().len(), 3);
    server.resume();
    until("all is made good", async || {
        for text in ["set", "removed", "swept:1"] {
            assert_ne!(one.value(text).await.as_deref(), Some("old"), "{text}");
        }
        one.remote.pending().is_empty() && one.remote.report().state == TierState::Up
    })
    .await;
    for text in ["set", "removed", "swept:1"] {
        assert_ne!(two.value(text).await.as_deref(), Some("old"), "{text}");
    }
}

#[tokio::test]
async fn what_was_pending_is_made_good_by_the_next_life_of_the_node() {
    let mut server = Server::start();
    let one = Node::new(&server, "one");
    one.set("k", "v").await;
    server.kill();
    until("down", async || {
        one.value("k").await;
        !one.remote.is_up()
    })
    .await;
    assert!(one.remote.remove(&one.key("k"), &Note::default()).await.is_err());
    let left = one.remote.pending();
    assert_eq!(left.len(), 1);
    one.remote.close().await;
    server.run();
    // The data survived at the server, the invalidation did not arrive.
    let other = Node::new(&server, "other");
    other.set("k", "v").await;
    let again = Node::new(&server, "one");
    again.remote.add_pending(left);
    assert_eq!(again.value("k").await, None);
    until("made good", async || again.remote.pending().is_empty()).await;
    assert_eq!(other.value("k").await, None);
}

#[tokio::test]
async fn a_write_that_timed_out_does_not_land_after_a_later_one() {
    let server = Server::start();
    let one = Node::with(&server, "one", Duration::from_millis(40));
    until("connected", async || one.remote.report().state == TierState::Up).await;
    one.set("k", "0").await;
    for round in 0..3 {
        server.pause();
        until("down", async || {
            drop(one.remote.set(&one.entry("k", "late")));
            one.value("k").await;
            !one.remote.is_up()
        })
        .await;
        server.resume();
        until("up and repaired", async || one.remote.is_up() && one.remote.pending().is_empty()).await;
        let text = format!("round {round}");
        until("written", async || one.remote.set(&one.entry("k", &text)).await.is_ok()).await;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            // A read that is late is a miss; an older value is the fault.
            assert!(one.value("k").await.is_none_or(|found| found == text));
        }
        until("read", async || one.value("k").await.as_deref() == Some(text.as_str())).await;
    }
}

#[tokio::test]
async fn what_was_held_back_on_a_dropped_connection_never_arrives() {
    let server = Server::start();
    let proxy = Proxy::before(&server);
    let node = Node::at(vec![proxy.url()], "one", Duration::from_secs(1));
    until("connected", async || node.remote.report().state == TierState::Up).await;
    node.set("k", "0").await;
    proxy.set(Mode::HoldRequests);
    assert!(node.remote.set(&node.entry("k", "late")).await.is_err());
    // Three timeouts in a row and there is a new connection, which is not held.
    let mut attempt = 0;
    until("written anew", async || {
        attempt += 1;
        node.remote.set(&node.entry("k", &attempt.to_string())).await.is_ok()
    })
    .await;
    proxy.set(Mode::Pass);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        // A read that is late is a miss; what was held back is the fault.
        assert!(node.value("k").await.is_none_or(|found| found == attempt.to_string()));
    }
    until("read", async || node.value("k").await == Some(attempt.to_string())).await;
}

#[tokio::test]
async fn what_a_repair_covers_is_not_read_until_it_is_made_good() {
    use crate::tier::remote::repair::Stage;
    use crate::tier::remote::{Message, Origin};
    let server = Server::start();
    let node = Node::new(&server, "one");
    node.set("pjm:1", "old").await;
    node.set("miso:1", "kept").await;
    let message = Message::Pattern { namespace: NS, pattern: "pjm:*".into(), origin: Origin::default() };
    let ticket = node.remote.core.add_repair(message, Stage::Running);
    assert!(
        matches!(node.remote.get(&node.key("pjm:1"), 11, Clock::stopwatch()).await, Lookup::Miss),
        "while a sweep runs it counts as gone"
    );
    node.remote.core.repair_failed(ticket);
    let lookup = node.remote.get(&node.key("pjm:1"), 11, Clock::stopwatch()).await;
    assert!(matches!(lookup, Lookup::Down(_)), "the sweep failed: {lookup:?}");
    assert_eq!(node.value("miso:1").await.as_deref(), Some("kept"));
    until("it was swept", async || node.remote.pending().is_empty()).await;
    assert!(matches!(node.remote.get(&node.key("pjm:1"), 11, Clock::stopwatch()).await, Lookup::Miss));
}

#[tokio::test]
async fn a_paused_server_gets_a_new_connection() {
    let server = Server::start();
    let node = Node::with(&server, "one", Duration::from_millis(40));
    until("connected", async || node.remote.report().state == TierState::Up).await;
    let clients = async || match server.say("CLIENT", &["LIST"]).await {
        Answer::Bytes(list) => {
            let list = String::from_utf8(list).unwrap();
            let ours = list.lines().filter(|line| line.contains("name=aurum-") && !line.contains("cmd=client"));
            ours.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let before = clients().await;
    server.pause();
    until("down", async || {
        node.value("k").await;
        !node.remote.is_up()
    })
    .await;
    server.resume();
    until("up", async || node.remote.is_up()).await;
    until("the old connection is gone", async || {
        let now = clients().await;
        !now.is_empty() && now.iter().all(|id| !before.contains(id))
    })
    .await;
}

#[tokio::test]
async fn a_full_server_refuses_writes_and_serves_nothing_outdated() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    node.set("k", "old").await;
    node.set("other", "kept").await;
    server.say("CONFIG", &["SET", "maxmemory", "1"]).await;
    let error = node.remote.set(&node.entry("k", "new")).await.unwrap_err();
    assert!(error.to_string().contains("OOM"), "{error}");
    assert_ne!(node.value("k").await.as_deref(), Some("old"));
    assert_eq!(node.value("other").await.as_deref(), Some("kept"), "reads go on");
    until("made good, for what is full can still delete", async || node.remote.pending().is_empty()).await;
    assert!(node.remove("other").await);
    let report = node.remote.report();
    assert_eq!(report.state, TierState::Degraded, "nothing can be stored");
    assert!(report.reason.unwrap().contains("OOM"));
    server.say("CONFIG", &["SET", "maxmemory", "0"]).await;
    node.set("k", "new").await;
    assert_eq!(node.value("k").await.as_deref(), Some("new"));
    assert_eq!(node.remote.report().state, TierState::Up);
}

#[tokio::test]
async fn a_server_that_is_busy_with_a_script_refuses_and_keeps_its_connection() {
    let server = Arc::new(Server::start());
    let node = Node::new(&server, "one");
    node.set("k", "v").await;
    server.say("CONFIG", &["SET", "busy-reply-threshold", "1"]).await;
    let client = async || match server.say("CLIENT", &["LIST"]).await {
        Answer::Bytes(list) => {
            let list = String::from_utf8(list).unwrap();
            list.lines().find(|line| line.contains("name=aurum-")).and_then(|line| Some(line.split_once(' ')?.0.to_owned()))
        }
        other => panic!("{other:?}"),
    };
    let before = client().await;
    let busy = server.clone();
    let script = tokio::spawn(async move { busy.say("EVAL", &["while true do end", "0"]).await });
    until("it is busy", async || matches!(server.say("PING", &[]).await, Answer::Refused(code, _) if code == "BUSY")).await;
    let lookup = node.remote.get(&node.key("k"), 11, Clock::stopwatch()).await;
    assert!(matches!(&lookup, Lookup::Down(error) if error.to_string().contains("BUSY")), "{lookup:?}");
    let report = node.remote.report();
    assert_eq!(report.state, TierState::Degraded);
    assert!(report.reason.unwrap().contains("BUSY"));
    server.say("SCRIPT", &["KILL"]).await;
    script.await.unwrap();
    assert_eq!(node.value("k").await.as_deref(), Some("v"));
    assert_eq!(node.remote.report().state, TierState::Up);
    assert_eq!(client().await, before);
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_is_told_them_again() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    node.set("k", "old").await;
    server.say("SCRIPT", &["FLUSH"]).await;
    let set = node.remote.set(&node.entry("k", "new"));
    assert_eq!(node.value("k").await.as_deref(), Some("new"));
    set.await.unwrap();
}

#[tokio::test]
async fn foreign_and_damaged_values_are_misses_and_go() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    let name = node.remote.core.place(NS, "k").entry().to_owned();
    node.set("k", "good").await;
    let Answer::Bytes(good) = server.say("GET", &[&name]).await else { panic!("no value") };
    node.set("another", "good").await;
    let another = node.remote.core.place(NS, "another").entry().to_owned();

    type Damage<'a> = (&'a str, Vec<Vec<&'a str>>);
    let damages: Vec<Damage<'_>> = vec![
        ("random", vec![vec!["SET", &name, "random bytes"]]),
        ("cut", vec![vec!["SETRANGE", &name, "64", ""], vec!["APPEND", &name, "x"]]),
        ("a flipped byte", vec![vec!["SETRANGE", &name, "66", "X"]]),
        ("of another key", vec![vec!["COPY", &another, &name, "REPLACE"]]),
        ("a list", vec![vec!["DEL", &name], vec!["RPUSH", &name, "x"]]),
        ("huge", vec![vec!["SETRANGE", &name, "30000000", "x"]]),
    ];
    for (what, commands) in damages {
        node.set("k", "good").await;
        for command in commands {
            let answer = server.say(command[0], &command[1..]).await;
            assert!(!matches!(answer, Answer::Refused(..)), "{what}: {answer:?}");
        }
        let lookup = node.remote.get(&node.key("k"), 11, Clock::stopwatch()).await;
        assert!(matches!(lookup, Lookup::Damaged(_)), "{what}: {lookup:?}");
        until("it is gone", async || server.say("EXISTS", &[&name]).await == Answer::Int(0)).await;
    }
    // A value that was replaced since it was read stays.
    node.set("k", "good").await;
    let scrub = crate::tier::remote::work::Work::Scrub(name.clone(), vec![0; 64]);
    node.remote.core.submit(scrub).await.unwrap().unwrap();
    assert_eq!(server.say("STRLEN", &[&name]).await, Answer::Int(good.len() as i64));
}

#[tokio::test]
async fn an_entry_that_is_over_is_not_stored() {
    let server = Server::start();
    let node = Node::new(&server, "one");
    node.set("k", "old").await;
    let entry = node.entry("k", "over");
    node.clock.advance(Duration::from_secs(91));
    node.remote.set(&entry).await.unwrap();
    assert_eq!(node.value("k").await, None);
}

/// A server that says `reply` to whatever it is told.
fn liar(reply: &'static [u8]) -> (crate::tier::remote::RedisUrl, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let connections = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                    if stream.write_all(reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (crate::tier::remote::RedisUrl::parse(&url).unwrap(), count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_server_is_a_tier_that_is_down() {
    let replies: [&'static [u8]; 9] = [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\x00\xff garbage",
        b"*9223372036854775807\r\n",
        b"$536870912\r\nx",
        b"$-1\r\n$-1\r\n$-1\r\n",
        b":1\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOAUTH Authentication required.\r\n",
    ];
    for reply in replies {
        let (url, connections) = liar(reply);
        let timeout = Duration::from_millis(30);
        let config = RemoteConfig { urls: vec![url], key_prefix: "t".into(), timeout, max_value: 1 << 20, ca: None };
        let hasher = KeyHasher::random();
        let remote = Remote::open(config, "one".into(), Clock::manual(), hasher.clone()).unwrap();
        let key = hasher.key(NS, "k").unwrap();
        let since = Clock::stopwatch();
        while since.elapsed() < Duration::from_millis(600) {
            let one = Clock::stopwatch();
            let lookup = remote.get(&key, 1, Clock::stopwatch()).await;
            assert!(!matches!(lookup, Lookup::Hit(_)), "{reply:?}");
            assert!(one.elapsed() < timeout + Duration::from_secs(10), "{reply:?} took {:?}", one.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Not more attempts than five and the probes that fit into the time.
        let made = connections.load(std::sync::atomic::Ordering::Relaxed);
        assert!(made <= 15, "{made} connections after {reply:?}");
    }
}
