//! Reads do not wait for the exchange before them.
//!
//! While the server looks up what one exchange asks for, the callers that were answered by the one before go on and ask again. With one
//! exchange at a time each side waits for the other in turn; with some under way both work. Only reads overlap: they change nothing, so that
//! any of them may be done again. Whatever is no read stands in the queue until they have landed.
//!
//! Exchanges that are sent together come back together, and the sides wait for each other again. So nobody sends more than his part of all
//! that is asked, and what has landed is answered, and asked again, before the next that has landed is looked at. Where few ask, a
//! trip of their own each costs more than waiting, and they travel together.
//!
//! A Cluster's exchanges go one at a time, for they are one to each primary already.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::tier::remote::batch::Line;
use crate::tier::remote::link::{Answer, Batch, Exchange, Fault};
use crate::tier::remote::shared::Job;
use crate::tier::remote::together::Part;

/// Exchanges under way at the same time, at most.
const FLIGHTS: usize = 3;

/// Fewer jobs than this travel together.
const FEW: usize = 8;

/// The exchanges under way, in the order in which they were sent and land.
#[derive(Default)]
struct Flights(VecDeque<Flight>);

struct Flight {
    jobs: Vec<Job>,
    parts: Vec<Part>,
    /// About how large it is, both ways, in bytes.
    bytes: usize,
    /// Which one it is, counted from 1.
    number: u64,
    exchange: Exchange,
    landed: Option<Result<Vec<Answer>, Fault>>,
}

impl Line {
    /// May these be carried out by [`read`](Self::read)?
    pub(super) fn overlap(&self, jobs: &[Job]) -> bool {
        !self.core.endpoint.is_cluster() && jobs.iter().all(|job| job.work.is_read())
    }

    /// Carries out these reads, and those that come meanwhile, until none is left or something else stands before them.
    pub(super) async fn read(&mut self, mut jobs: Vec<Job>) {
        let mut flights = Flights::default();
        let part = part_of(jobs.len());
        while !jobs.is_empty() {
            let rest = jobs.split_off(part.min(jobs.len()));
            self.take_off(std::mem::replace(&mut jobs, rest), &mut flights).await;
        }
        while !flights.0.is_empty() {
            tokio::select! {
                biased;
                () = flights.landing() => self.land(&mut flights).await,
                () = self.core.woken(), if flights.0.len() < FLIGHTS => {}
            }
            self.gather().await;
            while flights.0.len() < FLIGHTS && self.is_connected() {
                let under_way = flights.jobs();
                let jobs = self.core.take_reads(|waiting| part_of(waiting + under_way));
                if jobs.is_empty() {
                    break;
                }
                self.take_off(jobs, &mut flights).await;
            }
        }
    }

    /// Sends an exchange.
    async fn take_off(&mut self, jobs: Vec<Job>, flights: &mut Flights) {
        let mut batch = Batch::default();
        let parts = self.core.encode_all(&jobs, &mut batch);
        let bytes = batch.bytes() + self.core.comes_back(&jobs);
        // What is under way comes first.
        let within = self.core.allowance(bytes + flights.0.iter().map(|flight| flight.bytes).sum::<usize>());
        let number = self.number();
        let Some(exchange) = self.send(batch, within) else {
            return self.core.fail_jobs(jobs, &self.core.error("is not connected"));
        };
        flights.0.push_back(Flight { jobs, parts, bytes, number, exchange, landed: None });
        // It is sent when it is polled first.
        poll_fn(|context| {
            flights.go_on(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Hands out what came back: of one exchange, and of others that landed if only few are under way.
    async fn land(&mut self, flights: &mut Flights) {
        self.answered = 0;
        while let Some((flight, result)) = flights.landed() {
            self.answered += flight.jobs.len();
            self.hand_out(flight, result, flights).await;
            if self.answered + flights.jobs() >= FEW {
                break;
            }
        }
    }

    /// If the link broke, all that is under way is done again.
    async fn hand_out(&mut self, flight: Flight, result: Result<Vec<Answer>, Fault>, others: &mut Flights) {
        let Flight { mut jobs, parts, number, .. } = flight;
        self.note(&result, number);
        match self.dealt(&jobs, &parts, result) {
            Ok((answers, ends)) => self.core.answer(jobs, answers, &ends),
            Err(Fault::TimedOut) => self.core.fail_jobs(jobs, &self.core.late()),
            Err(Fault::Broken(text)) => {
                jobs.extend(others.0.drain(..).flat_map(|flight| flight.jobs));
                self.once_more(jobs, &text).await;
            }
        }
    }
}

/// How many of so many reads go out in one exchange.
fn part_of(all: usize) -> usize {
    if all < FEW { all } else { all.div_ceil(FLIGHTS) }
}

impl Flights {
    fn jobs(&self) -> usize {
        self.0.iter().map(|flight| flight.jobs.len()).sum()
    }

    fn go_on(&mut self, context: &mut Context<'_>) {
        for flight in self.0.iter_mut().filter(|flight| flight.landed.is_none()) {
            if let Poll::Ready(result) = flight.exchange.as_mut().poll(context) {
                flight.landed = Some(result);
            }
        }
    }

    /// Resolves when the one in front has landed. Cancel safe.
    async fn landing(&mut self) {
        poll_fn(|context| {
            self.go_on(context);
            if self.0.front().is_some_and(|flight| flight.landed.is_some()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await
    }

    /// The one in front, if it has landed, and how it ended.
    fn landed(&mut self) -> Option<(Flight, Result<Vec<Answer>, Fault>)> {
        let result = self.0.front_mut()?.landed.take()?;
        Some((self.0.pop_front()?, result))
    }
}
