//! What nodes hear of each other.

use super::*;
use crate::coherence::{Cursor, Event, Follower, follow};
use crate::tier::remote::Message;

/// The next event, soon.
async fn next(follower: &mut Follower) -> Event {
    tokio::time::timeout(Duration::from_secs(60), follower.next()).await.expect("an event")
}

/// Reads until caught up; what was heard, and where that is.
async fn hear(follower: &mut Follower) -> (Vec<Message>, Cursor) {
    let mut heard = Vec::new();
    loop {
        match next(follower).await {
            Event::Batch(messages, ..) => heard.extend(messages),
            Event::CaughtUp(cursor) => return (heard, cursor),
            other => panic!("{other:?}"),
        }
    }
}

/// A follower that knows where the log is.
async fn started(node: &Node) -> (Follower, Cursor) {
    let mut follower = follow(&node.remote, None);
    assert!(matches!(next(&mut follower).await, Event::Gap(_)), "without a cursor nothing is known");
    let (heard, cursor) = hear(&mut follower).await;
    assert!(heard.is_empty());
    (follower, cursor)
}

#[tokio::test]
async fn a_node_hears_what_others_did_in_order_and_not_what_it_did_itself() {
    let server = Server::start();
    let (one, two) = (Node::new(&server, "one"), Node::new(&server, "two"));
    let (mut follower, _) = started(&two).await;
    let note = Note { reason: Some("data_update".into()), actor: Some("tester".into()), at_ms: 5 };
    one.set("a", "v").await;
    two.set("own", "v").await;
    one.remote.remove(&one.key("a"), &note).await.unwrap();
    one.remote.remove_matching(Some(NS), Some("z*"), &note).await.unwrap();
    one.remote.remove_matching(Some(NS), None, &note).await.unwrap();
    one.remote.remove_matching(None, None, &note).await.unwrap();
    let mut heard = Vec::new();
    while !matches!(heard.last(), Some(Message::All { .. })) {
        match next(&mut follower).await {
            Event::Batch(messages, ..) => heard.extend(messages),
            Event::CaughtUp(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let said: Vec<String> = heard.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "write of curves \"a\"",
            "invalidation of curves \"a\"",
            "invalidation of curves keys like \"z*\"",
            // It deleted two's own key, so it is said twice.
            "invalidation of curves",
            "invalidation of curves",
            "invalidation of everything",
        ]
    );
    assert_eq!((heard[1].origin().node.as_str(), heard[1].origin().reason.as_deref()), ("one", Some("data_update")));
}

#[tokio::test]
async fn a_node_that_was_away_reads_on_from_its_cursor() {
    let server = Server::start();
    let (one, two) = (Node::new(&server, "one"), Node::new(&server, "two"));
    let (follower, cursor) = started(&two).await;
    drop(follower);
    for n in 0..1_200 {
        drop(one.remote.set(&one.entry(&format!("k{n}"), "v")));
    }
    one.set("last", "v").await;
    let kept = Cursor::from_bytes(&cursor.to_bytes());
    let (heard, _) = hear(&mut follow(&two.remote, kept)).await;
    assert_eq!(heard.len(), 1_201);
    assert_eq!(heard[1_200].key(), Some((NS, "last")));
}

#[tokio::test]
async fn what_the_log_lost_is_a_gap_and_then_progress() {
    let server = Server::start();
    let (one, two) = (Node::new(&server, "one"), Node::new(&server, "two"));
    type Loss = (&'static str, &'static [&'static str]);
    let losses: [Loss; 4] = [
        ("XTRIM", &["test:{test:log}", "MAXLEN", "0"]),
        ("DEL", &["test:{test:log}"]),
        ("DEL", &["test:{test:log}:epoch"]),
        ("FLUSHALL", &[]),
    ];
    for (command, args) in losses {
        let (mut follower, cursor) = started(&two).await;
        one.set("missed", "v").await;
        server.say(command, args).await;
        one.set("missed too", "v").await;
        for follower in [&mut follower, &mut follow(&two.remote, Some(cursor))] {
            let gap = loop {
                match next(follower).await {
                    Event::Gap(cursor) => break cursor,
                    // It may have been faster than the loss.
                    Event::Batch(..) | Event::CaughtUp(_) => {}
                    other => panic!("{command}: {other:?}"),
                }
            };
            assert!(!gap.epoch.is_empty());
            hear(follower).await;
        }
        one.set("heard", "v").await;
        let Event::Batch(heard, ..) = next(&mut follower).await else { panic!("{command}: nothing heard") };
        assert_eq!(heard[0].key(), Some((NS, "heard")));
    }
}

#[tokio::test]
async fn a_lost_link_is_said_once_and_nothing_is_missed_when_it_is_back() {
    let server = Server::start();
    let (one, two) = (Node::new(&server, "one"), Node::new(&server, "two"));
    let (mut follower, _) = started(&two).await;
    server.say("CLIENT", &["KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    assert!(matches!(next(&mut follower).await, Event::Lost(_)));
    one.set("k", "v").await;
    let (heard, _) = hear(&mut follower).await;
    assert_eq!(heard.len(), 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_stands_for_everything() {
    let server = Server::start();
    let two = Node::new(&server, "two");
    let (mut follower, _) = started(&two).await;
    server.say("XADD", &["test:{test:log}", "*", "b", "someone", "m", "garbage"]).await;
    server.say("XADD", &["test:{test:log}", "*", "x", "y"]).await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let Event::Batch(messages, ..) = next(&mut follower).await {
            heard.extend(messages);
        }
    }
    assert!(heard.iter().all(|message| matches!(message, Message::All { .. })));
}

#[tokio::test]
async fn another_life_of_the_same_node_is_somebody_else() {
    let server = Server::start();
    let (before, after) = (Node::new(&server, "one"), Node::new(&server, "one"));
    let (mut follower, _) = started(&after).await;
    before.set("k", "v").await;
    let Event::Batch(heard, ..) = next(&mut follower).await else { panic!("nothing heard") };
    assert_eq!(heard.len(), 1);
}
