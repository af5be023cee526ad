//! Several exchanges of reads under way at the same time.

use tokio::task::JoinHandle;

use super::proxy::{Mode, Proxy};
use super::*;
use crate::tier::remote::link::Answer;

/// So long that no test gets there.
const LONG: Duration = Duration::from_secs(120);

/// A node behind a proxy, with `count` values that it can read in Redis: `k0`, `k1` and so on, each its own name.
async fn behind_a_proxy(server: &Server, count: usize) -> (Arc<Node>, Proxy) {
    let (other, proxy) = (Node::new(server, "other"), Proxy::before(server));
    for n in 0..count {
        let text = format!("k{n}");
        other.set(&text, &text).await;
    }
    let node = Node::at(vec![proxy.url()], "one", LONG);
    until("connected", async || node.remote.report().state == crate::tier::TierState::Up).await;
    (Arc::new(node), proxy)
}

/// Each key in a task of its own; what comes of it is whether it was found as it should be.
fn read(node: &Arc<Node>, keys: std::ops::Range<usize>) -> Vec<JoinHandle<bool>> {
    let tasks = keys.map(|n| {
        let node = node.clone();
        tokio::spawn(async move {
            let text = format!("k{n}");
            node.value(&text).await == Some(text)
        })
    });
    tasks.collect()
}

/// Reads of 30 keys: four, whose answers are kept back, and then the others, of which some are with the server too.
async fn under_way(server: &Server, node: &Arc<Node>, proxy: &Proxy) -> Vec<JoinHandle<bool>> {
    proxy.set(Mode::HoldAnswers);
    let mut reads = read(node, 0..4);
    until("the first are with the server", async || asked(server).await == 4).await;
    reads.extend(read(node, 4..30));
    until("more are", async || asked(server).await > 4).await;
    reads
}

async fn all_found(tasks: Vec<JoinHandle<bool>>) -> bool {
    let mut all = true;
    for task in tasks {
        all &= task.await.unwrap();
    }
    all
}

/// Values that the server was asked for so far.
async fn asked(server: &Server) -> u64 {
    let Answer::Bytes(stats) = server.say("INFO", &["commandstats"]).await else { panic!("no statistics") };
    let stats = String::from_utf8(stats).unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_getrange:calls=")?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

#[tokio::test]
async fn a_read_does_not_wait_for_the_answers_to_those_before_it() {
    let server = Server::start();
    let (node, proxy) = behind_a_proxy(&server, 30).await;
    let reads = under_way(&server, &node, &proxy).await;
    assert!(!reads.iter().any(JoinHandle::is_finished), "nobody was answered yet");
    proxy.set(Mode::Pass);
    assert!(all_found(reads).await);
}

#[tokio::test]
async fn what_is_under_way_when_the_connection_breaks_is_done_again() {
    let server = Server::start();
    let (node, proxy) = behind_a_proxy(&server, 30).await;
    let reads = under_way(&server, &node, &proxy).await;
    proxy.set(Mode::Cut);
    assert!(all_found(reads).await);
    assert_eq!(node.value("k0").await.as_deref(), Some("k0"), "and it goes on");
}

#[tokio::test]
async fn reads_around_a_write_find_what_was_there_before_and_after() {
    let server = Server::start();
    let node = Arc::new(Node::new(&server, "one"));
    for round in 0..50 {
        node.set("k", &format!("{round}")).await;
        let readers = |count: usize| {
            let tasks = (0..count).map(|_| {
                let node = node.clone();
                tokio::spawn(async move { node.value("k").await })
            });
            tasks.collect::<Vec<_>>()
        };
        // One runtime of one thread: they ask in this order.
        let before = readers(40);
        let writer = node.clone();
        let write = tokio::spawn(async move { writer.set("k", "new").await });
        let after = readers(40);
        for task in before {
            assert_eq!(task.await.unwrap(), Some(format!("{round}")));
        }
        write.await.unwrap();
        for task in after {
            assert_eq!(task.await.unwrap().as_deref(), Some("new"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_many_readers_and_writers_each_finds_his_own() {
    let server = Server::start();
    let node = Arc::new(Node::with(&server, "one", LONG));
    // Without a log there are no leases.
    node.miss("absent").await;
    let tasks = (0..40).map(|task| {
        let node = node.clone();
        tokio::spawn(async move {
            let key = format!("k{task}");
            for round in 0..50 {
                let value = format!("{key} in round {round}");
                node.set(&key, &value).await;
                for _ in 0..4 {
                    assert_eq!(node.value(&key).await.as_ref(), Some(&value));
                }
                let lease = node.remote.get_leased(&node.key(&key), 11).await.1;
                assert!(lease.is_some(), "the write made a mark");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
