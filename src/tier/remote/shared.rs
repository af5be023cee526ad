//! What callers and the queue's task share: the queue, the breaker, the repairs, under one short lock.
//!
//! Everything that decides about order is decided here, under that lock: the number of a job, what a repair waits for, what
//! fails when the breaker opens.

mod answer;
mod take;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use answer::Refusal;
pub(super) use take::Next;

use crate::clock::{Clock, Stopwatch};
use crate::entry::Header;
use crate::error::{Error, ErrorKind};
use crate::namespace::Namespace;
use crate::tier::remote::breaker::{Breaker, pause};
use crate::tier::remote::keys::Layout;
use crate::tier::remote::link::{Endpoint, Fault};
use crate::tier::remote::message::Message;
use crate::tier::remote::repair::{Repairs, Stage, Ticket};
use crate::tier::remote::work::{Reply, Work};

/// The most jobs that wait, and the most bytes they may hold.
const QUEUE_JOBS: usize = 8_192;
const QUEUE_BYTES: usize = 64 << 20;

/// What a big exchange is granted beyond the timeout: its bytes at this many a second.
const SLOW_BYTES_A_SECOND: f64 = 32.0 * 1024.0 * 1024.0;

/// Work with its number and whoever waits for it.
pub(super) struct Job {
    /// Its number, counted from 1 in the order of the calls.
    seq: u64,
    pub(super) work: Work,
    reply: oneshot::Sender<Reply>,
}

/// What callers and the task share. Short locks only.
pub(super) struct Core {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) layout: Layout,
    pub(super) clock: Clock,
    pub(super) timeout: Duration,
    /// The largest payload in bytes.
    pub(super) max_value: u64,
    /// The number of the last byte that is asked for of an entry: one more than it may have, which tells what is too large.
    pub(super) last_byte: String,
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
    /// The last refusal of a write, until one like it works.
    refusal: Option<Refusal>,
    /// How the last read was refused, if it was.
    unread: Option<String>,
    /// Which primaries of a Cluster are away, and why.
    ailing: Option<String>,
    /// Running mean of the bytes a key read brings.
    mean_read: usize,
}

impl Core {
    pub(super) fn new(endpoint: Endpoint, layout: Layout, clock: Clock, timeout: Duration, max_value: u64, node: String) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            layout,
            clock,
            timeout,
            max_value,
            last_byte: (max_value + Header::LEN as u64).to_string(),
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
                unread: None,
                ailing: None,
                mean_read: 1024,
            }),
            wake: Notify::new(),
            down: AtomicBool::new(false),
            repairs: AtomicUsize::new(0),
            memory: AtomicU64::new(0),
            sweeping: tokio::sync::Mutex::new(()),
        }
    }

    /// How long an exchange of so many bytes may take.
    pub(super) fn allowance(&self, bytes: usize) -> Duration {
        self.timeout + Duration::from_secs_f64(bytes as f64 / SLOW_BYTES_A_SECOND)
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn down_error(&self) -> Error {
        let state = self.state.lock();
        if state.is_closed { Error::closed() } else { self.error(&state.reason) }
    }

    pub(super) fn error(&self, reason: &str) -> Error {
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
            Work::Remove(message) => Some((**message).clone()),
            // The list has the sweep of a mark as running already; a fill that fails is no harm.
            _ => None,
        }
    }

    fn note(&self, state: &mut State, message: Message, after: u64, stage: Stage) -> Ticket {
        let ticket = state.repairs.add(message, after, stage);
        self.repairs.store(state.repairs.len(), Ordering::Release);
        ticket
    }

    /// Adds a repair from outside: a sweep that begins, or what was left over at the last close.
    pub(super) fn add_repair(&self, message: Message, stage: Stage) -> Ticket {
        let mut state = self.state.lock();
        let after = state.seq;
        let ticket = self.note(&mut state, message, after, stage);
        drop(state);
        self.wake.notify_one();
        ticket
    }

    pub(super) fn repair_done(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        state.repairs.done(ticket);
        state.repair_failures = 0;
        self.repairs.store(state.repairs.len(), Ordering::Release);
    }

    pub(super) fn repair_failed(&self, ticket: Ticket) {
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

    /// Is there any repair?
    pub(super) fn owes(&self) -> bool {
        self.repairs.load(Ordering::Acquire) > 0
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
        } else if let Some(ailing) = &state.ailing {
            (Degraded, Some(ailing.clone()))
        } else if let Some(reason) = state.refusal.as_ref().map(|refusal| &refusal.reason).or(state.unread.as_ref()) {
            (Degraded, Some(reason.clone()))
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
    pub(super) fn failed(&self, fault: &Fault) {
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

    pub(super) fn worked(&self) {
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

    pub(super) fn connected(&self, is_connected: bool) {
        let mut state = self.state.lock();
        state.is_connected = is_connected;
        if is_connected {
            state.repair_pause = None;
        }
    }

    /// Was a write refused, and none like it taken since?
    pub(super) fn is_refused(&self) -> bool {
        self.state.lock().refusal.is_some()
    }

    /// Which primaries of a Cluster are away, if any.
    pub(super) fn ailing(&self, ailing: Option<String>) {
        self.state.lock().ailing = ailing;
    }

    /// How long until the next attempt to connect, and whether the tier is closed.
    pub(super) fn next_attempt(&self) -> (Duration, bool) {
        let state = self.state.lock();
        (state.breaker.wait(), state.is_closed)
    }

    /// Resolves when there may be something new to do.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The task ends: what is left fails.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        let left: Vec<Job> = state.queue.drain(..).collect();
        state.bytes = 0;
        self.fail(&mut state, left, &Error::closed());
        state.is_connected = false;
    }

    pub(super) fn fail_jobs(&self, jobs: Vec<Job>, error: &Error) {
        self.fail(&mut self.state.lock(), jobs, error);
    }

    /// Repairs of single keys were tried; each with whether it worked.
    pub(super) fn repaired(&self, tried: impl Iterator<Item = (Ticket, bool)>) {
        let mut state = self.state.lock();
        let mut all = true;
        for (ticket, is_done) in tried {
            if is_done {
                state.repairs.done(ticket);
            }
            all &= is_done;
        }
        self.repairs.store(state.repairs.len(), Ordering::Release);
        if all {
            state.repair_failures = 0;
            Refusal::is_over(&mut state.refusal, true);
        } else {
            Self::pause_repairs(&mut state);
        }
    }
}
