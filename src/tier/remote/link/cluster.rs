//! A Redis Cluster: one connection to each primary, and which slots each of them has.
//!
//! The commands of a batch go where their keys are, one pipeline a primary and all at once; those that must come after the others
//! ([`Batch::then`]) go out when those were answered. What a primary that is away would have had to answer is refused
//! with [`AWAY`], so the rest goes on. A connection that broke or timed out three times in a row is dropped.
//!
//! While a primary is away, or the slots were found to have moved, a task in the background asks the nodes again where the slots are
//! and connects to who is missing, after pauses that grow; nobody waits for it. An exchange that finds a
//! connection broken or a slot moved is tried once more, after such a look that is waited for ([`Cluster::recover`]).
//!
//! A slot on its way from one primary to another (`ASK`) is refused until it has arrived.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ConnectionAddr, Pipeline};
use tokio::task::JoinHandle;

use super::endpoint::{Endpoint, Wire};
use super::{Answer, Batch, Fault, Fences, all, unfit};
use crate::clock::{Clock, Stopwatch};
use crate::tier::remote::breaker::pause;

/// The code of what a primary did not answer because it is away.
pub(super) const AWAY: &str = "AWAY";
/// The code of what it did not answer because the connection broke just now.
pub(super) const BROKE: &str = "BROKE";

/// Timeouts in a row after which a connection is dropped.
const TIMEOUTS: u32 = 3;

/// Slots of a Cluster.
const SLOTS: u16 = 16_384;

/// Host and port.
pub(super) type Address = (String, u16);

/// First slot, last slot, and who has them.
pub(super) type Ranges = Vec<(u16, u16, Address)>;

pub(in crate::tier::remote) struct Cluster {
    endpoint: Arc<Endpoint>,
    nodes: Vec<Node>,
    ranges: Ranges,
    /// The slots are known to be elsewhere.
    is_stale: bool,
    /// Looks where the slots are and connects to who is missing.
    mending: Option<JoinHandle<Result<Survey, Fault>>>,
    /// Since when to wait for the next look, and how long.
    rest: (Stopwatch, Duration),
    /// Looks in a row after which somebody was still missing.
    failures: u32,
}

/// A primary.
struct Node {
    address: Address,
    wire: Option<Wire>,
    /// Client id of its last connection.
    fence: Option<i64>,
    /// Timeouts in a row.
    timeouts: u32,
    /// Why it is away.
    reason: String,
}

/// What a look brought.
struct Survey {
    ranges: Ranges,
    /// Those that had no connection.
    made: Vec<(Address, Result<Wire, Fault>)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(task) = &self.mending {
            task.abort();
        }
    }
}

impl Cluster {
    /// Connects to all primaries.
    ///
    /// # Errors
    ///
    /// Nobody says where the slots are, or no primary can be reached.
    pub(super) async fn connect(endpoint: &Arc<Endpoint>, within: Duration, fences: &Fences) -> Result<Self, Fault> {
        let survey = look(endpoint.clone(), Vec::new(), Vec::new(), fences.clone(), within).await?;
        let rest = (Clock::stopwatch(), Duration::ZERO);
        let (endpoint, nodes, ranges) = (endpoint.clone(), Vec::new(), Vec::new());
        let mut new = Self { endpoint, nodes, ranges, is_stale: false, mending: None, rest, failures: 0 };
        new.take_in(Ok(survey));
        if new.nodes.iter().all(|node| node.wire.is_none()) { Err(new.down()) } else { Ok(new) }
    }

    pub(super) async fn run(&mut self, batch: Batch, within: Duration) -> Result<Vec<Answer>, Fault> {
        self.tend(within).await;
        if self.nodes.iter().all(|node| node.wire.is_none()) {
            return Err(self.down());
        }
        let mut answers = vec![Answer::Nil; batch.len];
        for is_late in [false, true] {
            let mut parts = Parts::new(self.nodes.len());
            for (at, command) in batch.pipe.cmd_iter().enumerate().filter(|(at, _)| batch.late.contains(at) == is_late) {
                match key_of(command) {
                    None => {
                        answers[at] = Answer::List(Vec::new());
                        (0..self.nodes.len()).filter(|n| self.nodes[*n].wire.is_some()).for_each(|n| parts.add(n, at, command));
                    }
                    Some(key) => {
                        let owner = owner(&self.ranges, key);
                        match owner.and_then(|owner| self.nodes.iter().position(|node| node.address == *owner)) {
                            Some(n) if self.nodes[n].wire.is_some() => parts.add(n, at, command),
                            Some(n) => answers[at] = Answer::Refused(AWAY.to_owned(), self.nodes[n].told()),
                            None => {
                                answers[at] = Answer::Refused(AWAY.to_owned(), "no primary has this slot".to_owned());
                                self.is_stale = true;
                            }
                        }
                    }
                }
            }
            self.send(parts, within, &mut answers).await;
        }
        self.is_stale |= answers.iter().any(|answer| answer.is_refused_with("MOVED"));
        Ok(answers)
    }

    async fn send(&mut self, parts: Parts, within: Duration, answers: &mut [Answer]) {
        let endpoint = &self.endpoint;
        let asked = self.nodes.iter_mut().zip(parts.0).filter(|(_, (_, places))| !places.is_empty());
        let asked = asked.map(|(node, (pipe, places))| async move {
            let result = node.exchange(endpoint, pipe, places.len(), within).await;
            (places, result, node.told())
        });
        for (places, result, told) in all(asked.collect()).await {
            let mut result = match result {
                Ok(list) => Ok(list.into_iter()),
                Err(Fault::TimedOut) => Err(Answer::Refused(AWAY.to_owned(), told)),
                Err(Fault::Broken(_)) => Err(Answer::Refused(BROKE.to_owned(), told)),
            };
            for at in places {
                let answer = match &mut result {
                    Ok(list) => list.next().unwrap_or(Answer::Nil),
                    Err(refused) => refused.clone(),
                };
                match &mut answers[at] {
                    // A command for all of them.
                    Answer::List(list) => list.push(answer),
                    place => *place = answer,
                }
            }
        }
    }

    pub(super) async fn run_on(&mut self, primary: usize, batch: Batch, within: Duration) -> Result<Vec<Answer>, Fault> {
        let Some(node) = self.nodes.get_mut(primary) else { return Err(self.down()) };
        node.exchange(&self.endpoint, batch.pipe, batch.len, within).await
    }

    pub(super) async fn recover(&mut self, within: Duration) -> Result<(), Fault> {
        if self.is_stale || self.nodes.iter().any(|node| node.wire.is_none()) {
            let survey = self.survey(within);
            let survey = tokio::time::timeout(within, survey).await.unwrap_or(Err(Fault::TimedOut));
            self.take_in(survey);
        }
        let endpoint = &self.endpoint;
        let wires = self.nodes.iter_mut().filter_map(|node| node.wire.as_mut());
        let loaded = all(wires.map(|wire| endpoint.load_scripts(wire, within)).collect()).await;
        if loaded.iter().any(Result::is_ok) { Ok(()) } else { Err(self.down()) }
    }

    /// Takes in what a look in the background brought, and begins the next one where one is due.
    async fn tend(&mut self, within: Duration) {
        if let Some(task) = self.mending.take_if(|task| task.is_finished()) {
            let survey = task.await.unwrap_or(Err(Fault::TimedOut));
            self.take_in(survey);
        }
        let is_due = self.is_stale || self.nodes.iter().any(|node| node.wire.is_none());
        if is_due && self.mending.is_none() && self.rest.0.elapsed() >= self.rest.1 {
            self.mending = Some(tokio::spawn(self.survey(within.max(Duration::from_millis(100)))));
        }
    }

    /// A look: who has the slots now, and connections to those that have none.
    fn survey(&self, within: Duration) -> impl Future<Output = Result<Survey, Fault>> + Send + use<> {
        let connected = self.nodes.iter().filter_map(|node| Some((node.address.clone(), node.wire.as_ref()?.connection.clone())));
        let (have, asked) = connected.unzip();
        look(self.endpoint.clone(), asked, have, self.fences(), within)
    }

    fn take_in(&mut self, survey: Result<Survey, Fault>) {
        let mut is_whole = false;
        if let Ok(Survey { ranges, made }) = survey {
            let mut old = std::mem::take(&mut self.nodes);
            for (_, _, address) in &ranges {
                if self.nodes.iter().any(|node| node.address == *address) {
                    continue;
                }
                self.nodes.push(match old.iter().position(|node| node.address == *address) {
                    Some(at) => old.swap_remove(at),
                    None => Node { address: address.clone(), wire: None, fence: None, timeouts: 0, reason: String::new() },
                });
            }
            for (address, result) in made {
                let Some(node) = self.nodes.iter_mut().find(|node| node.address == address) else { continue };
                match result {
                    Ok(wire) => {
                        node.fence = wire.id;
                        (node.wire, node.timeouts) = (Some(wire), 0);
                    }
                    Err(fault) => node.reason = fault.text().to_owned(),
                }
            }
            (self.ranges, self.is_stale) = (ranges, false);
            is_whole = self.nodes.iter().all(|node| node.wire.is_some());
        }
        self.failures = if is_whole { 0 } else { self.failures.saturating_add(1) };
        self.rest = (Clock::stopwatch(), if is_whole { Duration::ZERO } else { pause(self.failures) });
    }

    pub(super) fn fences(&self) -> Fences {
        self.nodes.iter().filter_map(|node| Some((shown(&node.address), node.fence?))).collect()
    }

    pub(super) fn primaries(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn ailing(&self) -> Option<String> {
        let away: Vec<String> = self.nodes.iter().filter(|node| node.wire.is_none()).map(Node::told).collect();
        (!away.is_empty()).then(|| format!("{} of {} primaries are away: {}", away.len(), self.nodes.len(), away.join("; ")))
    }

    fn down(&self) -> Fault {
        Fault::Broken(self.ailing().unwrap_or_else(|| "names no primary".to_owned()))
    }
}

impl Node {
    async fn exchange(
        &mut self,
        endpoint: &Endpoint,
        pipe: Pipeline,
        len: usize,
        within: Duration,
    ) -> Result<Vec<Answer>, Fault> {
        let Some(wire) = &mut self.wire else { return Err(Fault::Broken(self.told())) };
        let result = endpoint.exchange(wire, pipe, len, within).await;
        let fault = match &result {
            // Only the slot is elsewhere; the server is well.
            Ok(answers) => answers.iter().filter(|a| !a.is_refused_with("MOVED") && !a.is_refused_with("ASK")).find_map(unfit),
            Err(fault) => Some(fault.clone()),
        };
        self.timeouts = if matches!(fault, Some(Fault::TimedOut)) { self.timeouts + 1 } else { 0 };
        if let Some(fault) = fault {
            self.reason = fault.text().to_owned();
            if self.timeouts == 0 || self.timeouts >= TIMEOUTS {
                self.wire = None;
            }
        }
        result
    }

    fn told(&self) -> String {
        format!("{} {}", shown(&self.address), self.reason)
    }
}

/// What goes to each node, and where its answers belong.
struct Parts(Vec<(Pipeline, Vec<usize>)>);

impl Parts {
    fn new(nodes: usize) -> Self {
        Self(std::iter::repeat_with(|| (Pipeline::new(), Vec::new())).take(nodes).collect())
    }

    fn add(&mut self, node: usize, at: usize, command: &Cmd) {
        let (pipe, places) = &mut self.0[node];
        pipe.add_command(command.clone());
        places.push(at);
    }
}

fn shown(address: &Address) -> String {
    format!("{}:{}", address.0, address.1)
}

/// Asks `asked`, then the nodes of the settings, where the slots are; connects to all primaries but those of `have`.
async fn look(
    endpoint: Arc<Endpoint>,
    asked: Vec<MultiplexedConnection>,
    have: Vec<Address>,
    fences: Fences,
    within: Duration,
) -> Result<Survey, Fault> {
    let ranges = ranges(&endpoint, asked, within).await?;
    let mut missing: Vec<Address> = ranges.iter().map(|(_, _, address)| address.clone()).collect();
    missing.sort_unstable();
    missing.dedup();
    missing.retain(|address| !have.contains(address));
    let endpoint = &endpoint;
    let making = missing.into_iter().map(|address| {
        let fence = fences.iter().find(|(of, _)| *of == shown(&address)).map(|(_, id)| *id);
        async move {
            let wire = endpoint.wire(&endpoint.at(&address.0, address.1), within, fence).await;
            (address, wire)
        }
    });
    let made = all(making.collect()).await;
    Ok(Survey { ranges, made })
}

/// Who has which slots, from the first that tells.
pub(super) async fn ranges(endpoint: &Endpoint, asked: Vec<MultiplexedConnection>, within: Duration) -> Result<Ranges, Fault> {
    let mut last = Fault::Broken("names no node".to_owned());
    for mut connection in asked {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        if let Ok(Ok(value)) = tokio::time::timeout(within, connection.req_packed_command(&command)).await {
            // A connection that we have is to a node that has told its address.
            let ranges = read(&Answer::from(value), None);
            if !ranges.is_empty() {
                return Ok(ranges);
            }
        }
    }
    for server in endpoint.servers() {
        let tried = async {
            let mut wire = endpoint.bare(server, within).await?;
            let mut pipe = Pipeline::new();
            pipe.cmd("CLUSTER").arg("SLOTS");
            endpoint.exchange(&mut wire, pipe, 1, within).await
        };
        let host = match server.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => Some(host.as_str()),
            _ => None,
        };
        match tried.await.map(|mut answers| answers.pop()) {
            Ok(Some(Answer::Refused(code, text))) => last = Fault::Broken(format!("refuses: {code} {text}")),
            Ok(answer) => match read(&answer.unwrap_or(Answer::Nil), host) {
                ranges if ranges.is_empty() => last = Fault::Broken("has given its slots to nobody".to_owned()),
                ranges => return Ok(ranges),
            },
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

/// What `CLUSTER SLOTS` says; `host` is who said it, for a node that does not know its own name.
fn read(answer: &Answer, host: Option<&str>) -> Ranges {
    let range = |answer: &Answer| {
        let [Answer::Int(first), Answer::Int(last), Answer::List(primary), ..] = answer.list() else { return None };
        let slot = |n: &i64| u16::try_from(*n).ok().filter(|n| *n < SLOTS);
        let named = primary.first().and_then(Answer::bytes).and_then(|name| std::str::from_utf8(name).ok());
        let name = named.filter(|name| !name.is_empty() && *name != "?").or(host)?;
        let Some(Answer::Int(port)) = primary.get(1) else { return None };
        Some((slot(first)?, slot(last)?, (name.to_owned(), u16::try_from(*port).ok()?)))
    };
    answer.list().iter().filter_map(range).collect()
}

/// Who has the slot of a key.
pub(super) fn owner<'a>(ranges: &'a Ranges, key: &[u8]) -> Option<&'a Address> {
    let slot = slot_of(key);
    ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, address)| address)
}

/// The first key of a command; `None` if it is for all.
fn key_of(command: &Cmd) -> Option<&[u8]> {
    let argument = |at: usize| match command.args_iter().nth(at) {
        Some(redis::Arg::Simple(argument)) => Some(argument),
        _ => None,
    };
    match argument(0)? {
        b"PING" | b"INFO" => None,
        b"EVALSHA" => argument(3),
        _ => argument(1),
    }
}

/// The slot of a key: CRC16 of what stands in its first braces, or of all of it.
fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|b| *b == b'}')?;
        (close > 0).then_some(&rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, bit by bit: what is hashed is short.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let crc = crc ^ u16::from(*byte) << 8;
        (0..8).fold(crc, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_that_of_the_servers() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT` of redis-server 7.0 says.
        for (key, slot) in [("foo", 12_182), ("{user1000}.following", 3_443), ("foo{}{bar}", 8_363), ("foo{{bar}}zap", 4_015)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"aurum:v1:{curves:21f}:a"), slot_of(b"aurum:v1:{curves:21f}"));
    }

    #[test]
    fn an_impossible_answer_gives_no_range() {
        let bytes = |text: &str| Answer::Bytes(text.into());
        let range = |first, last, primary| Answer::List(vec![Answer::List(vec![Answer::Int(first), Answer::Int(last), primary])]);
        let primary = |host, port| Answer::List(vec![host, Answer::Int(port)]);
        assert_eq!(read(&range(0, 5, primary(bytes("h"), 1)), None), [(0, 5, ("h".to_owned(), 1))]);
        assert_eq!(read(&range(0, 5, primary(bytes(""), 1)), Some("me")), [(0, 5, ("me".to_owned(), 1))]);
        for bad in [
            Answer::Nil,
            Answer::List(vec![Answer::Nil]),
            range(-1, 5, primary(bytes("h"), 1)),
            range(0, 16_384, primary(bytes("h"), 1)),
            range(0, 5, primary(bytes("h"), 65_536)),
            range(0, 5, primary(Answer::Nil, 1)),
            range(0, 5, Answer::Nil),
        ] {
            assert_eq!(read(&bad, None), [], "{bad:?}");
        }
    }
}
