//! The queue between callers and the server, and the one task that drains it.
//!
//! Work is queued in the order of the calls and carried out in that order, so a read sees what was written before it. While one
//! exchange is on its way, what arrives is gathered and goes out as the next: concurrent gets share round trips without waiting
//! for each other on purpose. The queue is bounded by jobs and by bytes; when it is full, work is refused, and a refused write
//! becomes a [repair](super::repair).
//!
//! The task owns the link. It drops it when it broke (work in flight is repeated once: all of it may be) or timed out three
//! times in a row, makes a new one under the rules of the [breaker](super::breaker), and carries out the repairs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clock::{Clock, Stopwatch};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::namespace::Namespace;
use crate::tier::remote::breaker::{Breaker, pause};
use crate::tier::remote::keys::Layout;
use crate::tier::remote::lease::Lease;
use crate::tier::remote::link::{Answer, Batch, Endpoint, Fault, Link, Script};
use crate::tier::remote::message::{Message, Origin};
use crate::tier::remote::repair::{Repairs, Stage};

/// The most jobs that wait, and the most bytes they may hold.
const QUEUE_JOBS: usize = 8_192;
const QUEUE_BYTES: usize = 64 << 20;

/// The most jobs and bytes, out and about in, of one exchange.
const BATCH_JOBS: usize = 256;
const BATCH_BYTES: usize = 2 << 20;

/// What a big exchange is granted beyond the timeout: its bytes at this many a second.
const SLOW_BYTES_A_SECOND: f64 = 32.0 * 1024.0 * 1024.0;

/// How long a slot's mark lives without a write; far longer than any fetch.
const SLOT_LIFE_MS: &str = "3600000";

/// Timeouts in a row after which a link is dropped.
const TIMEOUTS: u32 = 3;

/// Where a key is in Redis.
pub(super) struct Place {
    pub(super) entry: String,
    pub(super) slot: String,
    /// Of the epoch hash.
    pub(super) field: String,
}

/// What is to be done. The comment says what is answered.
pub(super) enum Work {
    /// Three answers a key: slot mark, wide marks, the entry's bytes.
    Read(Vec<Place>),
    /// Makes the marks of a key if there are none. Four answers; the last two are slot mark and wide marks.
    Lease(Place),
    /// Nothing of interest.
    Set(Entry),
    /// 1 if stored.
    Fill(Entry, Lease),
    /// 1 if there was one. The message is of one key.
    Remove(Message),
    /// Nothing of interest. The message is of many keys.
    Mark(Message),
    /// Nothing of interest: deletes the entry of this name if it still begins with these bytes (is still no string, if empty).
    Scrub(String, Vec<u8>),
    Ping,
    /// The text of `INFO memory`.
    Memory,
}

impl Work {
    /// Is it pointless when nobody waits for the answer?
    fn is_question(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Lease(_) | Self::Ping | Self::Memory)
    }

    /// Bytes it keeps in memory and sends.
    fn weight(&self) -> usize {
        256 + match self {
            Self::Read(places) => places.iter().map(|place| place.entry.len() * 3).sum(),
            Self::Set(entry) | Self::Fill(entry, _) => entry.footprint(),
            _ => 0,
        }
    }
}

pub(super) type Reply = Result<Vec<Answer>, Error>;

struct Job {
    /// Its number, counted from 1 in the order of the calls.
    seq: u64,
    work: Work,
    reply: oneshot::Sender<Reply>,
}

/// What callers and the task share. Short locks only.
pub(super) struct Core {
    pub(super) endpoint: Endpoint,
    pub(super) layout: Layout,
    pub(super) clock: Clock,
    pub(super) timeout: Duration,
    /// The largest payload in bytes.
    pub(super) max_value: u64,
    pub(super) node: String,
    /// Random: tells our own records in the log from those of any other, also of an earlier life of this node.
    pub(super) instance: String,
    state: Mutex<State>,
    wake: Notify,
    /// The breaker is open or the tier is closed; a hint that saves the lock.
    down: AtomicBool,
    /// Repairs in the list; a hint that saves the lock.
    repairs: AtomicUsize,
    /// `used_memory` of the server in bytes, as last told; 0 = never.
    pub(super) memory: AtomicU64,
    /// One sweep at a time.
    pub(super) sweeping: tokio::sync::Mutex<()>,
}

struct State {
    queue: VecDeque<Job>,
    /// Weight of the queue.
    bytes: usize,
    /// Number of the last job that was queued.
    seq: u64,
    repairs: Repairs,
    /// No repair before this pause is over, because the last one failed; and how often in a row.
    repair_pause: Option<(Stopwatch, Duration)>,
    repair_failures: u32,
    breaker: Breaker,
    is_connected: bool,
    is_closed: bool,
    /// Why the server was last found wanting.
    reason: String,
    /// The last refusal of a write, until one works.
    refusal: Option<String>,
    /// Running mean of the bytes a key read brings.
    mean_read: usize,
}

impl Core {
    #[allow(clippy::too_many_arguments)] // a plain record of what it needs
    pub(super) fn new(endpoint: Endpoint, layout: Layout, clock: Clock, timeout: Duration, max_value: u64, node: String) -> Self {
        Self {
            endpoint,
            layout,
            clock,
            timeout,
            max_value,
            node,
            instance: format!("{:016x}", fastrand::u64(..)),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                seq: 0,
                repairs: Repairs::default(),
                repair_pause: None,
                repair_failures: 0,
                breaker: Breaker::new(),
                is_connected: false,
                is_closed: false,
                reason: "has not answered yet".to_owned(),
                refusal: None,
                mean_read: 1024,
            }),
            wake: Notify::new(),
            down: AtomicBool::new(false),
            repairs: AtomicUsize::new(0),
            memory: AtomicU64::new(0),
            sweeping: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn place(&self, namespace: Namespace, text: &str) -> Place {
        let namespace = namespace.name();
        Place {
            entry: self.layout.entry(namespace, text),
            slot: self.layout.slot(namespace, text),
            field: Layout::field(Some(namespace)),
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn down_error(&self) -> Error {
        self.error(&self.state.lock().reason)
    }

    fn error(&self, reason: &str) -> Error {
        Error::new(ErrorKind::TierDown, self.endpoint.to_string(), reason)
    }

    pub(super) fn late(&self) -> Error {
        Error::new(ErrorKind::Timeout, self.endpoint.to_string(), format!("did not answer within {:?}", self.timeout))
    }

    /// Queues work in the order of the calls. A write that cannot be queued becomes a repair.
    pub(super) fn submit(&self, work: Work) -> oneshot::Receiver<Reply> {
        let (reply, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        let refusal = if state.is_closed {
            Some(Error::closed())
        } else if state.breaker.is_open() {
            Some(self.error(&state.reason))
        } else if state.queue.len() >= QUEUE_JOBS || state.bytes + work.weight() > QUEUE_BYTES {
            Some(self.error("is too slow: too much work waits for it"))
        } else {
            None
        };
        if let Some(error) = refusal {
            if let Some(message) = self.repair_of(&work) {
                let after = state.seq;
                self.note(&mut state, message, after, Stage::Waiting);
            }
            drop(state);
            let _ = reply.send(Err(error));
            return receiver;
        }
        state.seq += 1;
        state.bytes += work.weight();
        let job = Job { seq: state.seq, work, reply };
        state.queue.push_back(job);
        drop(state);
        self.wake.notify_one();
        receiver
    }

    /// What must be made good if this work fails.
    fn repair_of(&self, work: &Work) -> Option<Message> {
        match work {
            Work::Set(entry) => Some(self.set_message(entry)),
            Work::Remove(message) => Some(message.clone()),
            // The list has the sweep of a mark as running already; a fill that fails is no harm.
            _ => None,
        }
    }

    pub(super) fn set_message(&self, entry: &Entry) -> Message {
        let origin = Origin { node: self.node.clone(), reason: None, actor: None, at_ms: self.clock.wall_ms() };
        Message::Set { namespace: entry.namespace(), key: entry.key().to_owned(), origin }
    }

    fn note(&self, state: &mut State, message: Message, after: u64, stage: Stage) -> (u64, u64) {
        let ticket = state.repairs.add(message, after, stage);
        self.repairs.store(state.repairs.len(), Ordering::Release);
        ticket
    }

    /// Adds a repair from outside: a sweep that begins, or what was left over at the last close.
    pub(super) fn add_repair(&self, message: Message, stage: Stage) -> (u64, u64) {
        let mut state = self.state.lock();
        let after = state.seq;
        let ticket = self.note(&mut state, message, after, stage);
        drop(state);
        self.wake.notify_one();
        ticket
    }

    pub(super) fn repair_done(&self, ticket: (u64, u64)) {
        let mut state = self.state.lock();
        state.repairs.done(ticket);
        state.repair_failures = 0;
        self.repairs.store(state.repairs.len(), Ordering::Release);
    }

    pub(super) fn repair_failed(&self, ticket: (u64, u64)) {
        let mut state = self.state.lock();
        state.repairs.failed(ticket);
        Self::pause_repairs(&mut state);
        drop(state);
        self.wake.notify_one();
    }

    fn pause_repairs(state: &mut State) {
        state.repair_pause = Some((Clock::stopwatch(), pause(state.repair_failures)));
        state.repair_failures = state.repair_failures.saturating_add(1);
    }

    /// Is the key covered by a repair?
    pub(super) fn covers(&self, namespace: Namespace, text: &str) -> Option<Stage> {
        if self.repairs.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.state.lock().repairs.covers(namespace, text)
    }

    pub(super) fn pending(&self) -> Vec<Message> {
        self.state.lock().repairs.messages()
    }

    /// Up; or not quite; or not at all: and why.
    pub(super) fn report(&self) -> (crate::tier::TierState, Option<String>) {
        use crate::tier::TierState::{Degraded, Down, Up};
        let state = self.state.lock();
        if state.is_closed {
            (Down, Some("is closed".to_owned()))
        } else if state.breaker.is_open() {
            (Down, Some(state.reason.clone()))
        } else if !state.is_connected {
            (Degraded, Some(state.reason.clone()))
        } else if let Some(refusal) = &state.refusal {
            (Degraded, Some(refusal.clone()))
        } else if state.repairs.len() > 0 {
            (Degraded, Some(format!("{} changes are still to be made good", state.repairs.len())))
        } else {
            (Up, None)
        }
    }

    /// No new work from now on; the task ends when the queue is empty.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.down.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// An exchange or a connection failed. If that opens the breaker, what waits fails at once.
    fn failed(&self, fault: &Fault) {
        let mut state = self.state.lock();
        state.reason = fault.text().to_owned();
        let opened = state.breaker.failure();
        if state.breaker.is_open() {
            self.down.store(true, Ordering::Relaxed);
            let jobs: Vec<Job> = state.queue.drain(..).collect();
            state.bytes = 0;
            let error = self.error(&state.reason);
            self.fail(&mut state, jobs, &error);
            drop(state);
        } else {
            drop(state);
        }
        if opened {
            tracing::warn!(server = %self.endpoint, reason = fault.text(), "redis is down; the cache goes on without it");
        }
    }

    fn fail(&self, state: &mut State, jobs: Vec<Job>, error: &Error) {
        for job in jobs {
            if let Some(message) = self.repair_of(&job.work) {
                self.note(state, message, job.seq, Stage::Waiting);
            }
            let _ = job.reply.send(Err(error.clone()));
        }
    }

    fn worked(&self) {
        let mut state = self.state.lock();
        let was_open = state.breaker.is_open();
        state.breaker.success();
        if !state.is_closed {
            self.down.store(false, Ordering::Relaxed);
        }
        drop(state);
        if was_open {
            tracing::info!(server = %self.endpoint, "redis is back");
        }
    }

    fn connected(&self, is_connected: bool) {
        let mut state = self.state.lock();
        state.is_connected = is_connected;
        if is_connected {
            state.repair_pause = None;
        }
    }

    fn take(&self) -> Next {
        let mut state = self.state.lock();
        let state = &mut *state;
        let before = state.queue.front().map_or(u64::MAX, |job| job.seq);
        let mut wait = None;
        if state.repairs.len() > 0 && !state.is_closed {
            wait = state.repair_pause.map(|(since, pause)| pause.saturating_sub(since.elapsed())).filter(|left| !left.is_zero());
            if wait.is_none() {
                let due = state.repairs.due(before, BATCH_JOBS);
                if !due.is_empty() {
                    return Next::Repairs(due);
                }
            }
        }
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < BATCH_JOBS
            && let Some(job) = state.queue.front()
        {
            let comes_back = if let Work::Read(places) = &job.work { places.len() * state.mean_read } else { 0 };
            let weight = job.work.weight();
            if !jobs.is_empty() && bytes + weight + comes_back > BATCH_BYTES {
                break;
            }
            bytes += weight + comes_back;
            state.bytes -= weight;
            let Some(job) = state.queue.pop_front() else { break };
            if !(job.work.is_question() && job.reply.is_closed()) {
                jobs.push(job);
            }
        }
        match jobs.is_empty() {
            false => Next::Jobs(jobs),
            true if state.is_closed => Next::Closed,
            true => Next::Nothing(wait),
        }
    }

    /// The commands of one job.
    fn encode(&self, work: &Work, batch: &mut Batch) {
        let layout = &self.layout;
        match work {
            Work::Read(places) => {
                // One byte more than is allowed tells what is too large.
                let last = (self.max_value + crate::entry::Header::LEN as u64).to_string();
                for place in places {
                    // The marks first: whatever changes between them and the value makes the lease void, not the value old.
                    batch.add("GET", &[place.slot.as_bytes()]);
                    batch.add("HMGET", &[layout.epoch().as_bytes(), b"id", place.field.as_bytes(), b"*"]);
                    batch.add("GETRANGE", &[place.entry.as_bytes(), b"0", last.as_bytes()]);
                }
            }
            Work::Lease(place) => {
                let fresh = format!("{}{:016x}", self.instance, fastrand::u64(..));
                batch.call(Script::Birth, &[layout.log(), layout.epoch()], &[fresh.as_bytes()]);
                batch.add("SET", &[place.slot.as_bytes(), fresh.as_bytes(), b"PX", SLOT_LIFE_MS.as_bytes(), b"NX"]);
                batch.add("GET", &[place.slot.as_bytes()]);
                batch.add("HMGET", &[layout.epoch().as_bytes(), b"id", place.field.as_bytes(), b"*"]);
            }
            Work::Set(entry) => {
                let message = self.set_message(entry);
                let left = entry.stale_until().saturating_sub(self.clock.steady());
                if left == 0 || entry.payload().len() as u64 > self.max_value {
                    return self.encode(&Work::Remove(message), batch);
                }
                let place = self.place(entry.namespace(), entry.key());
                let keys = [place.entry.as_str(), &place.slot, layout.log()];
                let (value, left, message) = (self.value_of(entry), left.to_string(), message.encode());
                let args = [&value, left.as_bytes(), SLOT_LIFE_MS.as_bytes(), self.instance.as_bytes(), &message];
                batch.call(Script::Set, &keys, &args);
            }
            Work::Fill(entry, lease) => {
                let place = self.place(entry.namespace(), entry.key());
                let left = entry.stale_until().saturating_sub(self.clock.steady()).max(1).to_string();
                let keys = [place.entry.as_str(), &place.slot, layout.epoch()];
                let args = [&self.value_of(entry), left.as_bytes(), &lease.slot, place.field.as_bytes(), &lease.wide];
                batch.call(Script::Fill, &keys, &args);
            }
            Work::Remove(message) => {
                let Some((namespace, key)) = message.key() else { return };
                let place = self.place(namespace, key);
                let keys = [place.entry.as_str(), &place.slot, layout.log()];
                batch.call(Script::Remove, &keys, &[SLOT_LIFE_MS.as_bytes(), self.instance.as_bytes(), &message.encode()]);
            }
            Work::Mark(message) => {
                let field = Layout::field(message.namespace().map(Namespace::name));
                let args = [field.as_bytes(), self.instance.as_bytes(), &message.encode()];
                batch.call(Script::Mark, &[layout.log(), layout.epoch()], &args);
            }
            Work::Scrub(entry, head) => batch.call(Script::Scrub, &[entry], &[head]),
            Work::Ping => batch.add("PING", &[]),
            Work::Memory => batch.add("INFO", &[b"memory"]),
        }
    }

    fn value_of(&self, entry: &Entry) -> Vec<u8> {
        let header = entry.header(&self.clock);
        let mut value = Vec::with_capacity(header.len() + entry.payload().len());
        value.extend_from_slice(&header);
        value.extend_from_slice(entry.payload());
        value
    }

    fn allowance(&self, bytes: usize) -> Duration {
        self.timeout + Duration::from_secs_f64(bytes as f64 / SLOW_BYTES_A_SECOND)
    }
}

enum Next {
    Jobs(Vec<Job>),
    Repairs(Vec<((u64, u64), Message)>),
    /// Until woken, or until a pause is over.
    Nothing(Option<Duration>),
    Closed,
}

/// The task. Ends when the core is closed and the queue is empty, or the server is away.
pub(super) async fn drain(core: Arc<Core>, sweep: impl Fn((u64, u64), Message)) {
    let mut line = Line { core: core.clone(), link: None, fence: None, timeouts: 0 };
    loop {
        if line.link.is_none() {
            let (wait, is_closed) = {
                let state = core.state.lock();
                (state.breaker.wait(), state.is_closed)
            };
            if wait.is_zero() {
                let connected = line.connect().await;
                if !connected && is_closed {
                    break;
                }
            } else if is_closed {
                break;
            } else {
                tokio::select! { () = tokio::time::sleep(wait) => {}, () = core.wake.notified() => {} }
            }
            continue;
        }
        match core.take() {
            Next::Jobs(jobs) => line.serve(jobs).await,
            Next::Repairs(due) => line.repair(due, &sweep).await,
            Next::Nothing(None) => core.wake.notified().await,
            Next::Nothing(Some(wait)) => {
                tokio::select! { () = tokio::time::sleep(wait) => {}, () = core.wake.notified() => {} }
            }
            Next::Closed => break,
        }
    }
    let mut state = core.state.lock();
    let left: Vec<Job> = state.queue.drain(..).collect();
    core.fail(&mut state, left, &Error::closed());
    state.is_connected = false;
}

/// The task's end of the link.
struct Line {
    core: Arc<Core>,
    link: Option<Link>,
    /// Client id of the last link that was dropped.
    fence: Option<i64>,
    /// Timeouts in a row.
    timeouts: u32,
}

impl Line {
    async fn connect(&mut self) -> bool {
        let within = self.core.timeout.max(Duration::from_millis(100));
        match self.core.endpoint.connect(within, self.fence).await {
            Ok(link) => {
                self.fence = link.id();
                self.link = Some(link);
                self.timeouts = 0;
                self.core.connected(true);
                self.core.worked();
                true
            }
            Err(fault) => {
                self.core.failed(&fault);
                false
            }
        }
    }

    fn hang_up(&mut self) {
        self.link = None;
        self.core.connected(false);
    }

    /// One exchange, with what follows for the link. Scripts that the server forgot are loaded again.
    async fn exchange(&mut self, batch: &Batch, within: Duration) -> Result<Vec<Answer>, Fault> {
        let Some(link) = &mut self.link else { return Err(Fault::Broken("is not connected".to_owned())) };
        let result = self.core.endpoint.run(link, batch, within).await;
        match &result {
            Ok(answers) => {
                self.timeouts = 0;
                match answers.iter().find_map(unfit) {
                    Some(fault) => {
                        self.core.failed(&fault);
                        self.hang_up();
                    }
                    None => self.core.worked(),
                }
            }
            Err(fault) => {
                self.core.failed(fault);
                self.timeouts += 1;
                if self.timeouts >= TIMEOUTS || matches!(fault, Fault::Broken(_)) || self.core.is_down() {
                    self.hang_up();
                }
            }
        }
        result
    }

    async fn serve(&mut self, mut jobs: Vec<Job>) {
        let mut second_try = false;
        while !jobs.is_empty() {
            let mut batch = Batch::default();
            let mut ends = Vec::with_capacity(jobs.len());
            let mut expected = 0;
            for job in &jobs {
                self.core.encode(&job.work, &mut batch);
                ends.push(batch.len());
                if let Work::Read(places) = &job.work {
                    expected += places.len();
                }
            }
            let comes_back = expected * self.core.state.lock().mean_read;
            let within = self.core.allowance(batch.bytes() + comes_back);
            match self.exchange(&batch, within).await {
                Ok(answers) => {
                    // The server forgot the scripts: from the first job that met this on, all is done again, in order.
                    let forgot = answers.iter().position(|answer| answer.is_refused_with("NOSCRIPT"));
                    let good = match forgot {
                        Some(at) if !second_try => ends.iter().take_while(|end| **end <= at).count(),
                        _ => jobs.len(),
                    };
                    let again = jobs.split_off(good);
                    self.core.answer(jobs, answers, &ends);
                    jobs = again;
                    second_try = true;
                    if !jobs.is_empty()
                        && let Some(link) = &mut self.link
                        && let Err(fault) = self.core.endpoint.load_scripts(link, self.core.timeout).await
                    {
                        self.core.failed(&fault);
                        self.hang_up();
                    }
                }
                Err(Fault::Broken(_)) if !second_try && !self.core.is_down() && self.connect().await => second_try = true,
                Err(fault) => {
                    let error = match fault {
                        Fault::TimedOut => self.core.late(),
                        Fault::Broken(text) => self.core.error(&text),
                    };
                    self.core.fail(&mut self.core.state.lock(), std::mem::take(&mut jobs), &error);
                }
            }
        }
    }

    async fn repair(&mut self, due: Vec<((u64, u64), Message)>, sweep: &impl Fn((u64, u64), Message)) {
        let mut batch = Batch::default();
        let mut tickets = Vec::with_capacity(due.len());
        for (ticket, message) in due {
            if message.key().is_some() {
                self.core.encode(&Work::Remove(message), &mut batch);
                tickets.push(ticket);
            } else {
                sweep(ticket, message);
            }
        }
        if tickets.is_empty() {
            return;
        }
        let within = self.core.allowance(batch.bytes());
        let answers = self.exchange(&batch, within).await.unwrap_or_default();
        let forgot = answers.iter().any(|answer| answer.is_refused_with("NOSCRIPT"));
        let mut state = self.core.state.lock();
        let mut all = true;
        for (at, ticket) in tickets.into_iter().enumerate() {
            match answers.get(at) {
                Some(Answer::Int(_)) => state.repairs.done(ticket),
                _ => all = false,
            }
        }
        self.core.repairs.store(state.repairs.len(), Ordering::Release);
        if all {
            state.repair_failures = 0;
        } else {
            Core::pause_repairs(&mut state);
        }
        drop(state);
        if forgot {
            // A new link loads the scripts.
            self.hang_up();
        }
    }
}

impl Core {
    /// Hands out the answers. A write that was refused becomes a repair, before anybody hears of it.
    fn answer(&self, jobs: Vec<Job>, answers: Vec<Answer>, ends: &[usize]) {
        let mut answers = answers.into_iter();
        let mut start = 0;
        let mut state = self.state.lock();
        for (job, end) in jobs.into_iter().zip(ends) {
            let mine: Vec<Answer> = answers.by_ref().take(end - start).collect();
            start = *end;
            if let Work::Read(places) = &job.work {
                let bytes: usize = mine.iter().filter_map(Answer::bytes).map(<[u8]>::len).sum();
                state.mean_read = (state.mean_read * 7 + bytes / places.len().max(1)) / 8;
                let _ = job.reply.send(Ok(mine));
                continue;
            }
            let refusal = mine.iter().find_map(|answer| match answer {
                Answer::Refused(code, text) => Some(format!("refuses: {code} {text}")),
                _ => None,
            });
            if let Some(reason) = refusal {
                let error = self.error(&reason);
                if !job.work.is_question() {
                    state.refusal = Some(reason);
                }
                self.fail(&mut state, vec![job], &error);
                continue;
            }
            let written = match &job.work {
                Work::Set(entry) => Some((entry.namespace(), entry.key())),
                Work::Remove(message) => message.key(),
                _ => None,
            };
            if let Some((namespace, key)) = written {
                state.refusal = None;
                state.repairs.superseded(namespace, key, job.seq);
            }
            let _ = job.reply.send(Ok(mine));
        }
        self.repairs.store(state.repairs.len(), Ordering::Release);
    }
}

/// Does this answer say that the server as a whole is of no use now?
fn unfit(answer: &Answer) -> Option<Fault> {
    match answer {
        Answer::Refused(code, text)
            if matches!(code.as_str(), "READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH" | "CLUSTERDOWN" | "MOVED" | "ASK") =>
        {
            Some(Fault::Broken(format!("refuses: {code} {text}")))
        }
        Answer::List(list) => list.iter().find_map(unfit),
        _ => None,
    }
}
