//! Single flight: one loader per key, however many callers.
//!
//! A flight belongs to the cache, not to whoever asked first: it runs in a task of its own, and a caller that goes away
//! stops nothing. The table holds the flights that new callers may join. An invalidation *detaches* the flights it
//! covers: who asks afterwards starts a new one, who asked before still gets the old answer, and that
//! answer does not land (its fill token is marked). A flight that outlives the hard timeout is detached
//! too, so that a stuck loader cannot hold its key.
//!
//! A loader may ask for other keys, and so wait for other flights. Who waits for whom is kept while it waits, and a wait that
//! would close a circle is refused: `a` asking for `b` whose loader asks for `a` is an error, not a deadlock, also when the two
//! flights were begun by different callers.
//!
//! The pilot's task holds a [`Pilot`], whose drop ends the flight with [`Outcome::Lost`] if nothing else did: no caller
//! waits for a task that panicked or was dropped with its runtime.

use std::any::Any;
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::entry::Entry;
use crate::error::Error;
use crate::namespace::NamespaceId;

/// How a flight ended. Shared with every caller that waited.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// The loader's value; `true` if it could be kept.
    Loaded(Entry),
    /// The loader's error, of a type that only the callers know (`Arc<E>`).
    Failed(Arc<dyn Any + Send + Sync>),
    /// The loader panicked with this message.
    Panicked(String),
    /// The value could not be taken: too large, not archivable.
    Rejected(Error),
    /// The loader was still at it when the namespace's hard timeout was over, and was dropped.
    TimedOut,
    /// The flight ended without an outcome: its runtime went away.
    Lost,
}

/// The flights under way.
#[derive(Default)]
pub(crate) struct Flights {
    table: Mutex<HashMap<(NamespaceId, Box<str>), Flight>>,
    /// Length of the table, so that a write pays one load while nothing flies.
    count: AtomicUsize,
    /// By the number of a flight, the flights that its loader waits for. Never locked together with `table`.
    waits: Mutex<HashMap<u64, Vec<u64>>>,
    next: AtomicU64,
}

struct Flight {
    id: u64,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// Who asks for a key's flight.
pub(crate) enum Ticket {
    /// The first: it must send the pilot off.
    First(Pilot, Seat),
    /// There is one already.
    Joined(Seat),
}

/// A place among those who wait for the outcome.
#[derive(Clone)]
pub(crate) struct Seat {
    id: u64,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// The duty to end a flight.
pub(crate) struct Pilot {
    id: u64,
    key: (NamespaceId, Box<str>),
    table: Arc<Flights>,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flights {
    /// Joins the flight of this key, or starts one.
    pub(crate) fn join(self: &Arc<Self>, namespace: NamespaceId, key: &str) -> Ticket {
        let mut table = self.table.lock();
        let flights = table.len();
        match table.entry((namespace, key.into())) {
            Slot::Occupied(flight) => Ticket::Joined(Seat { id: flight.get().id, outcome: flight.get().outcome.clone() }),
            Slot::Vacant(free) => {
                let id = self.next.fetch_add(1, Ordering::Relaxed);
                let (sender, receiver) = watch::channel(None);
                let key = free.key().clone();
                free.insert(Flight { id, outcome: receiver.clone() });
                // Before the loader's fill begins: a write that does not see it has passed its gate before that.
                self.count.store(flights + 1, Ordering::SeqCst);
                let pilot = Pilot { id, key, table: self.clone(), outcome: sender };
                Ticket::First(pilot, Seat { id, outcome: receiver })
            }
        }
    }

    /// Is a flight of this key under way?
    #[cfg(test)]
    pub(crate) fn is_under_way(&self, namespace: NamespaceId, key: &str) -> bool {
        self.table.lock().contains_key(&(namespace, Box::from(key)))
    }

    /// Nobody joins these flights any more; those who wait still get the answer.
    pub(crate) fn detach(&self, covers: impl Fn(NamespaceId, &str) -> bool) {
        let mut table = self.table.lock();
        if !table.is_empty() {
            table.retain(|(namespace, key), _| !covers(*namespace, key));
            self.count.store(table.len(), Ordering::SeqCst);
        }
    }

    /// Detaches the flight of this key.
    #[inline]
    pub(crate) fn detach_key(&self, namespace: NamespaceId, key: &str) {
        if self.count.load(Ordering::SeqCst) != 0 {
            self.detach_this(namespace, key);
        }
    }

    #[cold]
    fn detach_this(&self, namespace: NamespaceId, key: &str) {
        let mut table = self.table.lock();
        table.remove(&(namespace, Box::from(key)));
        self.count.store(table.len(), Ordering::SeqCst);
    }

    /// Detaches one flight, unless another has taken its place.
    pub(crate) fn abandon(&self, namespace: NamespaceId, key: &str, seat: &Seat) -> bool {
        self.remove(&(namespace, key.into()), seat.id)
    }

    /// Notes that the loader of flight `waiter` is going to wait for `seat`; `None` if that would close a circle. A caller that runs inside of
    /// no loader (`waiter` is `None`) can close none.
    pub(crate) fn wait(self: &Arc<Self>, waiter: Option<u64>, seat: &Seat) -> Option<Waiting> {
        let Some(waiter) = waiter else { return Some(Waiting(None)) };
        let mut waits = self.waits.lock();
        let (mut reached, mut seen) = (vec![seat.id], HashSet::new());
        while let Some(flight) = reached.pop() {
            if flight == waiter {
                return None;
            }
            if seen.insert(flight) {
                reached.extend(waits.get(&flight).into_iter().flatten());
            }
        }
        waits.entry(waiter).or_default().push(seat.id);
        Some(Waiting(Some(Edge { waiter, target: seat.id, flights: self.clone() })))
    }

    fn remove(&self, key: &(NamespaceId, Box<str>), id: u64) -> bool {
        let mut table = self.table.lock();
        let is_ours = table.get(key).is_some_and(|flight| flight.id == id);
        if is_ours {
            table.remove(key);
            self.count.store(table.len(), Ordering::SeqCst);
        }
        is_ours
    }
}

impl Seat {
    /// Waits for the outcome. Cancel safe: whoever stops waiting stops nothing.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Outcome::Lost),
            Err(_) => Outcome::Lost,
        }
    }
}

/// A wait that is noted, until it is dropped.
pub(crate) struct Waiting(#[allow(dead_code, reason = "held for its drop")] Option<Edge>);

struct Edge {
    waiter: u64,
    target: u64,
    flights: Arc<Flights>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let mut waits = self.flights.waits.lock();
        let Some(targets) = waits.get_mut(&self.waiter) else { return };
        if let Some(at) = targets.iter().position(|target| *target == self.target) {
            targets.swap_remove(at);
        }
        if targets.is_empty() {
            waits.remove(&self.waiter);
        }
    }
}

impl Pilot {
    /// The number of the flight, for [`Flights::wait`].
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Ends the flight.
    pub(crate) fn land(self, outcome: Outcome) {
        self.table.remove(&self.key, self.id);
        self.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        self.table.remove(&self.key, self.id);
        self.outcome.send_if_modified(|outcome| {
            let lost = outcome.is_none();
            if lost {
                *outcome = Some(Outcome::Lost);
            }
            lost
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Namespace;

    fn first(flights: &Arc<Flights>, key: &str) -> (Pilot, Seat) {
        match flights.join(Namespace::CURVES.id().unwrap(), key) {
            Ticket::First(pilot, seat) => (pilot, seat),
            Ticket::Joined(_) => panic!("somebody flies already"),
        }
    }

    #[tokio::test]
    async fn a_second_caller_joins_and_both_get_the_outcome() {
        let flights = Arc::new(Flights::default());
        let (pilot, mut seat) = first(&flights, "k");
        let Ticket::Joined(mut other) = flights.join(Namespace::CURVES.id().unwrap(), "k") else { panic!("not joined") };
        pilot.land(Outcome::Panicked("p".into()));
        assert!(matches!(seat.outcome().await, Outcome::Panicked(_)));
        assert!(matches!(other.outcome().await, Outcome::Panicked(_)));
        assert!(!flights.is_under_way(Namespace::CURVES.id().unwrap(), "k"));
    }

    #[tokio::test]
    async fn a_dropped_pilot_leaves_nobody_waiting() {
        let flights = Arc::new(Flights::default());
        let (pilot, mut seat) = first(&flights, "k");
        drop(pilot);
        assert!(matches!(seat.outcome().await, Outcome::Lost));
        first(&flights, "k");
    }

    #[tokio::test]
    async fn a_detached_flight_answers_those_who_wait_and_nobody_else() {
        let flights = Arc::new(Flights::default());
        let (old, mut seat) = first(&flights, "k");
        flights.detach(|_, key| key == "k");
        let (new, _) = first(&flights, "k");
        old.land(Outcome::Lost);
        assert!(matches!(seat.outcome().await, Outcome::Lost));
        assert!(flights.is_under_way(Namespace::CURVES.id().unwrap(), "k"), "the old flight did not remove the new one");
        drop(new);
    }

    #[test]
    fn a_wait_that_closes_a_circle_is_refused_and_one_that_is_over_does_not_count() {
        let flights = Arc::new(Flights::default());
        let ((a, seat_a), (b, seat_b), (c, seat_c)) = (first(&flights, "a"), first(&flights, "b"), first(&flights, "c"));
        assert!(flights.wait(None, &seat_a).is_some(), "a plain caller closes no circle");
        assert!(flights.wait(Some(a.id()), &seat_a).is_none(), "its own key");
        let ab = flights.wait(Some(a.id()), &seat_b).unwrap();
        let _bc = flights.wait(Some(b.id()), &seat_c).unwrap();
        let _ac = flights.wait(Some(a.id()), &seat_c).expect("two ways to one flight are no circle");
        assert!(flights.wait(Some(c.id()), &seat_a).is_none());
        assert!(flights.wait(Some(c.id()), &seat_b).is_none());
        drop((ab, _ac));
        assert!(flights.wait(Some(c.id()), &seat_a).is_some());
        drop((_bc, a, b, c));
        assert!(flights.waits.lock().is_empty(), "nothing is left behind");
    }
}
