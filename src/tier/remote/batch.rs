//! The queue between callers and the server, and the one task that drains it.
//!
//! Work is queued in the order of the calls and carried out in that order, so a read sees what was written before it. While one
//! exchange is on its way, what arrives is gathered and goes out as the next: concurrent gets share round trips without waiting
//! for each other on purpose. The queue is bounded by jobs and by bytes; when it is full, work is refused, and a refused write
//! becomes a [repair](super::repair).
//!
//! The task owns the link. It drops it when it broke (work in flight is repeated once: all of it may be) or timed out three
//! times in a row, makes a new one under the rules of the [breaker](super::breaker), and carries out the repairs.

use std::sync::Arc;
use std::time::Duration;

use crate::tier::remote::link::{Answer, Batch, Fault, Fences, Link, unfit};
use crate::tier::remote::message::Message;
use crate::tier::remote::repair::Ticket;
use crate::tier::remote::shared::{Core, Job, Next};
use crate::tier::remote::together::deal;
use crate::tier::remote::work::Work;

/// Timeouts in a row after which a link is dropped.
const TIMEOUTS: u32 = 3;

/// The task. Ends when the core is closed and the queue is empty, or the server is away.
pub(super) async fn drain(core: Arc<Core>, sweep: impl Fn(Ticket, Message)) {
    let mut line = Line { core: core.clone(), link: None, fences: Fences::new(), timeouts: 0, gathers: false };
    loop {
        if line.link.is_none() {
            let (wait, is_closed) = core.next_attempt();
            if wait.is_zero() {
                let connected = line.connect().await;
                if !connected && is_closed {
                    break;
                }
            } else if is_closed {
                break;
            } else {
                tokio::select! { () = tokio::time::sleep(wait) => {}, () = core.woken() => {} }
            }
            continue;
        }
        if line.gathers {
            // Many ask at the same time: those that were answered just now get their turn first, and ask again in one exchange.
            tokio::task::yield_now().await;
        }
        match core.take() {
            Next::Jobs(jobs) => line.serve(jobs).await,
            Next::Repairs(due) => line.repair(due, &sweep).await,
            Next::Nothing(None) => core.woken().await,
            Next::Nothing(Some(wait)) => {
                tokio::select! { () = tokio::time::sleep(wait) => {}, () = core.woken() => {} }
            }
            Next::Closed => break,
        }
    }
    core.end();
}

/// The task's end of the link.
struct Line {
    core: Arc<Core>,
    link: Option<Link>,
    /// Of the last link.
    fences: Fences,
    /// Timeouts in a row.
    timeouts: u32,
    /// The last exchange was not of one job alone.
    gathers: bool,
}

impl Line {
    async fn connect(&mut self) -> bool {
        let within = self.core.timeout.max(Duration::from_millis(100));
        match self.core.endpoint.connect(within, &self.fences).await {
            Ok(link) => {
                self.fences = link.fences();
                self.core.ailing(link.ailing());
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
        if let Some(link) = self.link.take() {
            self.fences = link.fences();
        }
        self.core.connected(false);
    }

    /// One exchange, with what follows for the link.
    async fn exchange(&mut self, batch: &Batch, within: Duration) -> Result<Vec<Answer>, Fault> {
        let Some(link) = &mut self.link else { return Err(Fault::Broken("is not connected".to_owned())) };
        let result = self.core.endpoint.run(link, batch, within).await;
        self.core.ailing(link.ailing());
        match &result {
            Ok(answers) => {
                self.timeouts = 0;
                // The link to a Cluster deals with each of its servers by itself.
                let fault = if self.core.endpoint.is_cluster() { None } else { answers.iter().find_map(unfit) };
                match fault {
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
        self.gathers = jobs.len() > 1;
        let mut second_try = false;
        while !jobs.is_empty() {
            let mut batch = Batch::default();
            let parts = self.core.encode_all(&jobs, &mut batch);
            let expected: usize = jobs.iter().map(|job| job.work.places().len()).sum();
            let comes_back = expected * self.core.mean_read();
            let within = self.core.allowance(batch.bytes() + comes_back);
            let mut result = self.exchange(&batch, within).await.map(|answers| deal(&parts, answers));
            if result.as_ref().is_ok_and(|(answers, ends)| !self.fit(&jobs, answers, ends)) {
                let fault = Fault::Broken("answers something else than it was asked".to_owned());
                self.core.failed(&fault);
                self.hang_up();
                result = Err(fault);
            }
            match result {
                Ok((answers, ends)) => {
                    // The server forgot the scripts, or a Cluster changed: from the first job that met this on, all is done again, in order.
                    let again = |answer: &Answer| self.link.as_ref().is_some_and(|link| link.is_worth_another_try(answer));
                    let forgot = answers.iter().position(again);
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
                        && let Err(fault) = self.core.endpoint.recover(link, self.core.timeout).await
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
                    self.core.fail_jobs(std::mem::take(&mut jobs), &error);
                }
            }
        }
    }

    fn fit(&self, jobs: &[Job], answers: &[Answer], ends: &[usize]) -> bool {
        let is_cluster = self.core.endpoint.is_cluster();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let mut parts = jobs.iter().zip(starts.zip(ends));
        parts.all(|(job, (start, end))| job.work.fits(answers.get(start..*end).unwrap_or_default(), is_cluster))
    }

    async fn repair(&mut self, due: Vec<(Ticket, Message)>, sweep: &impl Fn(Ticket, Message)) {
        let mut batch = Batch::default();
        let (mut tickets, mut ends) = (Vec::with_capacity(due.len()), Vec::with_capacity(due.len()));
        for (ticket, message) in due {
            if message.key().is_some() {
                self.core.encode(&Work::Remove(message), &mut batch);
                tickets.push(ticket);
                ends.push(batch.len());
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
        let mut start = 0;
        let mut is_done = |end: usize| {
            let mine = answers.get(std::mem::replace(&mut start, end)..end).unwrap_or_default();
            matches!(mine.first(), Some(Answer::Int(_))) && !mine.iter().any(|answer| matches!(answer, Answer::Refused(..)))
        };
        self.core.repaired(tickets.into_iter().zip(ends).map(|(ticket, end)| (ticket, is_done(end))));
        if forgot {
            // A new link loads the scripts.
            self.hang_up();
        }
    }
}
