//! What becomes of the answers: callers get them, a write that was refused becomes a repair, and health hears of it.

use std::sync::atomic::Ordering;

use crate::tier::remote::link::Answer;
use crate::tier::remote::shared::{Core, Job};
use crate::tier::remote::work::{Answers, Work};

impl Core {
    /// Hands out the answers. A write that was refused becomes a repair, before anybody hears of it.
    pub(in crate::tier::remote) fn answer(&self, jobs: Vec<Job>, answers: Vec<Answer>, ends: &[usize]) {
        let mut answers = answers.into_iter();
        let mut start = 0;
        // Entries are dropped outside of the lock.
        let mut spent = Vec::new();
        let mut state = self.state.lock();
        for (job, end) in jobs.into_iter().zip(ends) {
            let mine = Answers::take(&mut answers, end - start);
            start = *end;
            if job.work.is_read() {
                let bytes: usize = mine.iter().filter_map(Answer::bytes).map(<[u8]>::len).sum();
                state.mean_read = (state.mean_read * 7 + bytes / job.work.places().len().max(1)) / 8;
                // A list under one of our names is a damaged entry, not a server that refuses.
                let is_refused = |answer: &&Answer| !answer.is_refused_with("WRONGTYPE") && !answer.is_of_nobody();
                state.unread = mine.iter().filter(is_refused).find_map(refusal_of);
                let _ = job.reply.send(Ok(mine));
                continue;
            }
            let refusal = mine.iter().find_map(refusal_of);
            if let Some(reason) = refusal {
                let error = self.error(&reason);
                if !job.work.is_question() && !mine.iter().any(Answer::is_of_nobody) {
                    let is_of_removal = matches!(job.work, Work::Remove(_) | Work::Scrub(..));
                    state.refusal = Some(Refusal { reason, is_of_removal });
                }
                self.fail(&mut state, vec![job], &error);
                continue;
            }
            match &job.work {
                Work::Set(entry) => {
                    Refusal::is_over(&mut state.refusal, false);
                    state.repairs.superseded(entry.namespace(), entry.key(), job.seq);
                }
                Work::Remove(message) => {
                    Refusal::is_over(&mut state.refusal, true);
                    if let Some((namespace, key)) = message.key() {
                        state.repairs.superseded(namespace, key, job.seq);
                    }
                }
                Work::Lease(_) => Refusal::is_over(&mut state.refusal, false),
                Work::Fill(..) if mine.first() == Some(&Answer::Int(1)) => Refusal::is_over(&mut state.refusal, false),
                _ => {}
            }
            let _ = job.reply.send(Ok(mine));
            spent.push(job.work);
        }
        self.repairs.store(state.repairs.len(), Ordering::Release);
    }
}

/// A write that the server did not take.
pub(super) struct Refusal {
    pub(super) reason: String,
    /// It would have deleted something: a server without room takes that all the same, which tells nothing of other writes.
    pub(super) is_of_removal: bool,
}

impl Refusal {
    /// A write worked: that ends the refusal, unless a removal is all that did.
    pub(super) fn is_over(refusal: &mut Option<Self>, by_removal: bool) {
        if !by_removal || refusal.as_ref().is_some_and(|refusal| refusal.is_of_removal) {
            *refusal = None;
        }
    }
}

fn refusal_of(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Refused(code, text) => Some(format!("refuses: {code} {text}")),
        _ => None,
    }
}
