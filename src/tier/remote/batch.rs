//! The queue between callers and the server, and the one task that drains it.
//!
//! Work is queued in the order of the calls and carried out in that order, so a read sees what was written before it. While an
//! exchange is on its way, what arrives is gathered and goes out as the next: concurrent gets share round trips without waiting
//! for each other on purpose. Exchanges of reads alone [overlap](super::overlap). The queue is bounded by jobs and by bytes; when it
//! is full, work is refused, and a refused write becomes a [repair](super::repair).
//!
//! The task owns the link. It drops it when it broke (work in flight is repeated once: all of it may be) or timed out three
//! times in a row, makes a new one under the rules of the [breaker](super::breaker), and carries out the repairs.

use std::sync::Arc;
use std::time::Duration;

use crate::tier::remote::link::{Answer, Batch, Exchange, Fault, Fences, Link, unfit};
use crate::tier::remote::message::Message;
use crate::tier::remote::repair::Ticket;
use crate::tier::remote::shared::{Core, Job, Next};
use crate::tier::remote::together::{Part, deal};
use crate::tier::remote::work::Work;

/// Timeouts in a row after which a link is dropped.
const TIMEOUTS: u32 = 3;

/// The task. Ends when the core is closed and the queue is empty, or the server is away.
pub(super) async fn drain(core: Arc<Core>, sweep: impl Fn(Ticket, Message)) {
    let mut line = Line::new(core.clone());
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
        line.gather().await;
        match core.take() {
            Next::Jobs(jobs) if line.overlap(&jobs) => line.read(jobs).await,
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
pub(super) struct Line {
    pub(super) core: Arc<Core>,
    link: Option<Link>,
    /// Of the last link.
    fences: Fences,
    /// Exchanges so far.
    exchanges: u64,
    /// Timeouts in a row; of exchanges that were under way together, one.
    timeouts: u32,
    /// How many exchanges there had been when one failed last.
    troubled: u64,
    /// Jobs that were answered just now.
    pub(super) answered: usize,
}

impl Line {
    fn new(core: Arc<Core>) -> Self {
        Self { core, link: None, fences: Fences::new(), exchanges: 0, timeouts: 0, troubled: 0, answered: 0 }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Where many ask at the same time: those that were answered just now get their turn first, and ask again in one exchange.
    pub(super) async fn gather(&self) {
        let (mut more, mut queued) = (self.answered > 1, 0);
        while more {
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut queued, self.core.queued());
            more = before < queued && queued < self.answered;
        }
    }

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
    async fn exchange(&mut self, batch: Batch, within: Duration) -> Result<Vec<Answer>, Fault> {
        let number = self.number();
        let Some(link) = &mut self.link else { return Err(Fault::Broken("is not connected".to_owned())) };
        let result = self.core.endpoint.run(link, batch, within).await;
        self.note(&result, number);
        result
    }

    /// An exchange that goes on while others are sent.
    pub(super) fn send(&self, batch: Batch, within: Duration) -> Option<Exchange> {
        self.core.endpoint.send(self.link.as_ref()?, batch, within)
    }

    /// The number of the next exchange.
    pub(super) fn number(&mut self) -> u64 {
        self.exchanges += 1;
        self.exchanges
    }

    /// What follows from an exchange for the link.
    pub(super) fn note(&mut self, result: &Result<Vec<Answer>, Fault>, number: u64) {
        self.core.ailing(self.link.as_ref().and_then(Link::ailing));
        let unfit = match result {
            // The link to a Cluster deals with each of its servers by itself.
            Ok(answers) if !self.core.endpoint.is_cluster() => answers.iter().find_map(unfit),
            _ => None,
        };
        let Some(fault) = unfit.as_ref().or(result.as_ref().err()) else {
            self.timeouts = 0;
            return self.core.worked();
        };
        let is_broken = matches!(result, Err(Fault::Broken(_)));
        if number <= self.troubled && !is_broken {
            // It was under way when the last one failed: that is the same trouble.
            return;
        }
        self.troubled = self.exchanges;
        self.core.failed(fault);
        self.timeouts += u32::from(result.is_err());
        if self.timeouts >= TIMEOUTS || is_broken || unfit.is_some() || self.core.is_down() {
            self.hang_up();
        }
    }

    async fn serve(&mut self, jobs: Vec<Job>) {
        self.answered = jobs.len();
        self.attempt(jobs, false).await;
    }

    /// After the link broke: with a new one, and only once.
    pub(super) async fn once_more(&mut self, jobs: Vec<Job>, why: &str) {
        if !self.core.is_down() && self.connect().await {
            self.attempt(jobs, true).await;
        } else {
            self.core.fail_jobs(jobs, &self.core.error(why));
        }
    }

    async fn attempt(&mut self, mut jobs: Vec<Job>, mut second_try: bool) {
        while !jobs.is_empty() {
            let mut batch = Batch::default();
            let parts = self.core.encode_all(&jobs, &mut batch);
            let within = self.core.allowance(batch.bytes() + self.core.comes_back(&jobs));
            let result = self.exchange(batch, within).await;
            match self.dealt(&jobs, &parts, result) {
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

    /// The answers of each job, and where they end. A server that says something else than it was asked is hung up on.
    pub(super) fn dealt(
        &mut self,
        jobs: &[Job],
        parts: &[Part],
        result: Result<Vec<Answer>, Fault>,
    ) -> Result<(Vec<Answer>, Vec<usize>), Fault> {
        let (answers, ends) = deal(parts, result?);
        if self.fit(jobs, &answers, &ends) {
            return Ok((answers, ends));
        }
        let fault = Fault::amiss();
        self.core.failed(&fault);
        self.hang_up();
        Err(fault)
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
                self.core.encode(&Work::Remove(Box::new(message)), &mut batch);
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
        let answers = self.exchange(batch, within).await.unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::tier::remote::RedisUrl;
    use crate::tier::remote::keys::Layout;
    use crate::tier::remote::link::Endpoint;

    #[test]
    fn what_was_under_way_together_fails_once() {
        let endpoint = Endpoint::new(&[RedisUrl::parse("redis://127.0.0.1:1").unwrap()], None).unwrap();
        let layout = Layout::new("test");
        let core = Core::new(endpoint, layout, Clock::manual(), Duration::from_secs(1), 1, "one".to_owned());
        let mut line = Line::new(Arc::new(core));
        let mut numbers: Vec<u64> = (0..3).map(|_| line.number()).collect();
        for number in numbers.drain(..2) {
            line.note(&Err(Fault::TimedOut), number);
        }
        assert_eq!(line.timeouts, 1);
        numbers.push(line.number());
        line.note(&Err(Fault::TimedOut), numbers[0]);
        assert_eq!(line.timeouts, 1, "the third was under way, too");
        line.note(&Err(Fault::TimedOut), numbers[1]);
        assert_eq!(line.timeouts, 2, "the fourth was sent afterwards");
        let refused = Answer::Refused("LOADING".into(), "not yet".into());
        let (five, six) = (line.number(), line.number());
        line.note(&Ok(vec![refused.clone()]), five);
        line.note(&Ok(vec![refused]), six);
        assert!(!line.core.is_down(), "three of five failures");
        line.note(&Ok(vec![Answer::Nil]), six);
        assert_eq!(line.timeouts, 0);
    }
}
