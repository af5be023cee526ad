//! What is to be done next: which jobs go out together, and when repairs do.

use std::time::Duration;

use crate::tier::remote::message::Message;
use crate::tier::remote::repair::Ticket;
use crate::tier::remote::shared::{Core, Job, State};
use crate::tier::remote::work::Work;

/// The most jobs and bytes, out and about in, of one exchange.
const BATCH_JOBS: usize = 256;
const BATCH_BYTES: usize = 2 << 20;

impl Core {
    /// What to do now: repairs first where they may run, then as many jobs as go into one exchange.
    pub(in crate::tier::remote) fn take(&self) -> Next {
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
        let jobs = state.gather(BATCH_JOBS, |_| true);
        match jobs.is_empty() {
            false => Next::Jobs(jobs),
            true if state.is_closed => Next::Closed,
            true => Next::Nothing(wait),
        }
    }

    /// The reads in front of the queue, as many as go into one exchange and at most so many of what waits. None while there are repairs, which
    /// come first.
    pub(in crate::tier::remote) fn take_reads(&self, most: impl Fn(usize) -> usize) -> Vec<Job> {
        let mut state = self.state.lock();
        let most = most(state.queue.len());
        if state.repairs.len() > 0 { Vec::new() } else { state.gather(most, Work::is_read) }
    }

    /// Jobs that wait.
    pub(in crate::tier::remote) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// About how many bytes these reads bring.
    pub(in crate::tier::remote) fn comes_back(&self, jobs: &[Job]) -> usize {
        jobs.iter().map(|job| job.work.places().len()).sum::<usize>() * self.state.lock().mean_read
    }
}

impl State {
    /// Jobs from the front of the queue while they are wanted, as many as go into one exchange.
    fn gather(&mut self, most: usize, is_wanted: impl Fn(&Work) -> bool) -> Vec<Job> {
        let most = most.min(BATCH_JOBS);
        let (mut jobs, mut bytes) = (Vec::with_capacity(most.min(self.queue.len())), 0);
        while jobs.len() < most
            && let Some(job) = self.queue.front()
            && is_wanted(&job.work)
        {
            let comes_back = job.work.places().len() * self.mean_read;
            let weight = job.work.weight();
            if !jobs.is_empty() && bytes + weight + comes_back > BATCH_BYTES {
                break;
            }
            bytes += weight + comes_back;
            self.bytes -= weight;
            let Some(job) = self.queue.pop_front() else { break };
            if !(job.work.is_question() && job.reply.is_closed()) {
                jobs.push(job);
            }
        }
        jobs
    }
}

/// What there is to do.
pub(in crate::tier::remote) enum Next {
    Jobs(Vec<Job>),
    Repairs(Vec<(Ticket, Message)>),
    /// Until woken, or until a pause is over.
    Nothing(Option<Duration>),
    Closed,
}
