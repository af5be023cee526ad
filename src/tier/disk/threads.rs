//! Threads that may wait for the device.
//!
//! tokio's blocking pool panics when it has no thread and the system gives it none. These are asked for, and who asks is told when there is none to
//! be had. They are made when they are needed and end after a while without work, all but one: that one is made at open, so that a process which
//! reaches its limit of threads afterwards goes on with it.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// How long a thread waits for work.
const IDLE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(10) };

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one tier, as many as have something to do. Dropping this ends them after what they were given.
#[derive(Default)]
pub(super) struct Threads(Arc<Crew>);

#[derive(Default)]
struct Crew {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    alive: usize,
    /// Those that wait for work; some may have been woken for a job that is still in the queue.
    idle: usize,
    is_closing: bool,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.state.lock().is_closing = true;
        self.0.work.notify_all();
    }
}

impl Threads {
    /// Has work done on one of them; the answer comes unless the work panics.
    ///
    /// # Errors
    ///
    /// What the system says if there is no thread and none can be made.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<oneshot::Receiver<T>> {
        let (answer, answered) = oneshot::channel();
        // Who does not wait any more needs no answer.
        self.0.take(Box::new(move || drop(answer.send(work()))))?;
        Ok(answered)
    }

    /// Makes one if there is none.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn keep_one(&self) -> io::Result<()> {
        let mut state = self.0.state.lock();
        if state.alive == 0 { self.0.grow(&mut state) } else { Ok(()) }
    }

    #[cfg(test)]
    pub(super) fn has_some(&self) -> bool {
        self.0.state.lock().alive > 0
    }
}

impl Crew {
    fn take(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.idle > state.jobs.len() {
            state.jobs.push_back(job);
            drop(state);
            self.work.notify_one();
            return Ok(());
        }
        match self.grow(&mut state) {
            Err(error) if state.alive == 0 => return Err(error),
            // Without another one, who is done first takes it.
            Ok(()) | Err(_) => state.jobs.push_back(job),
        }
        Ok(())
    }

    fn grow(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let crew = self.clone();
        thread::Builder::new().name("aurum-disk-device".into()).spawn(move || crew.serve())?;
        state.alive += 1;
        Ok(())
    }

    /// The body of a thread.
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // A panic is told by the answer that does not come.
                let _ = MutexGuard::unlocked(&mut state, || catch_unwind(AssertUnwindSafe(job)));
                continue;
            }
            if state.is_closing {
                break;
            }
            state.idle += 1;
            let is_late = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if is_late && state.jobs.is_empty() && state.alive > 1 {
                break;
            }
        }
        state.alive -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_waits_holds_nobody_up() {
        let threads = Threads::default();
        let (go, gate) = channel::<()>();
        let waiting = threads.run(move || gate.recv().is_ok()).unwrap();
        let others: Vec<_> = (0..20).map(|n| threads.run(move || n).unwrap()).collect();
        for (n, other) in others.into_iter().enumerate() {
            assert_eq!(other.blocking_recv(), Ok(n));
        }
        go.send(()).unwrap();
        assert_eq!(waiting.blocking_recv(), Ok(true));
    }

    #[test]
    fn those_without_work_end_but_for_one() {
        let threads = Threads::default();
        let (gates, answers): (Vec<_>, Vec<_>) = (0..5)
            .map(|_| {
                let (go, gate) = channel::<()>();
                (go, threads.run(move || gate.recv().is_err()).unwrap())
            })
            .unzip();
        assert_eq!(threads.0.state.lock().alive, 5);
        drop(gates);
        assert!(answers.into_iter().all(|answer| answer.blocking_recv() == Ok(true)));
        while threads.0.state.lock().alive > 1 {
            thread::sleep(IDLE);
        }
        thread::sleep(5 * IDLE);
        assert_eq!(threads.0.state.lock().alive, 1);
    }

    #[test]
    fn a_panic_costs_its_own_answer_only() {
        let threads = Threads::default();
        threads.keep_one().unwrap();
        let failing = threads.run(|| assert_eq!(1, 2, "as the test wants it")).unwrap();
        assert!(failing.blocking_recv().is_err());
        assert_eq!(threads.run(|| 7).unwrap().blocking_recv(), Ok(7));
    }

    #[test]
    fn what_was_given_is_done_after_the_end() {
        let threads = Threads::default();
        let (go, gate) = channel::<()>();
        let answers: Vec<_> = [threads.run(move || gate.recv().is_ok()).unwrap(), threads.run(|| true).unwrap()].into();
        drop(threads);
        go.send(()).unwrap();
        for answer in answers {
            assert_eq!(answer.blocking_recv(), Ok(true));
        }
    }
}
