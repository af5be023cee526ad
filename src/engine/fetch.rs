//! The recipe of `get_or_fetch`: one loader per key, stale on error, time limits, refresh before expiry.
//!
//! ```text
//! find ── hit ──> past `refresh_ahead`? one refresh in the background ──> serve
//!   └─ miss ──> recently failed and a stale value is at hand? serve it
//!                 └─> join the key's flight or start one (unless its value has just landed) ──> wait
//!                        loaded ──> serve          soft timeout and a stale value ──> serve it, the flight goes on
//!                        failed ──> stale value within `stale_if_error`? serve it : error
//!                        hard timeout ──> the same; the loader is dropped and the next caller starts anew
//! ```
//!
//! The flight takes its fill token before the loader runs, so a value that was loaded before an invalidation
//! does not land; who waited still gets it.
//!
//! A loader may ask for other keys. One that would wait for itself, over however many keys and callers, gets an error instead;
//! and what a loader loads counts against no namespace's bound, for it holds a place already. Both are known by the loader's task: what
//! a loader spawns is a stranger to it, and only the hard timeout ends such a circle.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use crate::engine::read::{Fill, OnMiss, Read};
use crate::engine::state::{Engine, Found, OwnedKey, Want};
use crate::engine::write::Granted;
use crate::entry::{Entry, Shape, Verdict};
use crate::error::{Error, ErrorKind, shown};
use crate::flight::{Outcome, Pilot, Seat, Ticket};
use crate::key::Key;
use crate::metrics::FetchOutcome;
use crate::policy::TtlPolicy;
use crate::tier::Tier;
use crate::tier::remote::Lease;

/// A loader's error, of a type that only the caller knows: an `Arc<E>`.
pub(crate) type LoadError = Arc<dyn Any + Send + Sync>;

/// Makes an entry of a value's bytes, with the engine's idea of its head.
pub(crate) type Build<'b> = dyn FnMut(&[u8], Shape) -> Result<Entry, Error> + 'b;

/// Turns the loaded value into an entry.
pub(crate) type Make = Box<dyn FnOnce(&mut Build<'_>) -> Result<Entry, Error> + Send>;

/// The loader, not begun.
pub(crate) type Load = Pin<Box<dyn Future<Output = Result<Make, LoadError>> + Send>>;

/// What a caller wants fetched.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    want: Want,
    granted: Granted,
    /// Is an error of the caller's type?
    fits: fn(&LoadError) -> bool,
}

/// How a fetch ended for one caller.
pub(crate) enum Fetched {
    Served(Found),
    Failed(LoadError),
    TimedOut,
    Panicked(String),
    Rejected(Error),
}

/// A failed fetch is not tried again for this long while a stale value stands in.
const THROTTLE_MS: u64 = 1_000;
/// Keys whose throttling is remembered.
const THROTTLED_KEYS: usize = 10_000;

tokio::task_local! {
    /// The flight whose loader this task runs.
    static INSIDE: u64;
}

impl Engine {
    /// May this be fetched? Asked before a loader runs.
    ///
    /// # Errors
    ///
    /// `Closed`, and `PolicyRefused` by the namespace's governance.
    pub(crate) fn wanted(
        &self,
        key: &Key<'_>,
        want: Want,
        policy: TtlPolicy,
        fits: fn(&LoadError) -> bool,
    ) -> Result<Wanted, Error> {
        self.check_open()?;
        Ok(Wanted { want, granted: self.govern(key, policy)?, fits })
    }

    /// Gets the value, or lets `load` make it.
    pub(crate) async fn fetch(self: &Arc<Self>, key: &Key<'_>, wanted: Wanted, load: Load) -> Fetched {
        let (cause, stale, lease) = match self.find(key, wanted.want, OnMiss::Load).await {
            Read::Hit(found) => {
                self.recorder.hit(found.tier, key.id);
                self.refresh_ahead(key, &found, wanted, load);
                return Fetched::Served(found);
            }
            Read::Miss { cause, stale, lease } => (cause, stale, lease),
        };
        self.recorder.miss(key.id, cause);
        if let (Some(found), true) = (&stale, self.is_throttled(key)) {
            return self.serve_stale(key, found.clone());
        }
        self.load(key, wanted, load, stale, lease).await
    }

    /// Joins the flight of the key, or sends `load` off, and waits. A `stale` value may stand in.
    pub(crate) async fn load(
        self: &Arc<Self>,
        key: &Key<'_>,
        wanted: Wanted,
        load: Load,
        stale: Option<Found>,
        mut lease: Option<Lease>,
    ) -> Fetched {
        let mut load = Some(load);
        loop {
            let (mut seat, pilot) = match self.flights.join(key.id, key.text) {
                Ticket::First(pilot, seat) => (seat, Some(pilot)),
                Ticket::Joined(seat) => (seat, None),
            };
            let Some(_waiting) = self.flights.wait(inside(), &seat) else {
                let advice = "is being loaded by a loader that waits for this one; load it under another key, or before";
                return Fetched::Rejected(Error::new(ErrorKind::InvalidKey, format!("key {}", shown(key.text)), advice));
            };
            match pilot {
                Some(pilot) => {
                    let Some(load) = load.take() else { return Fetched::TimedOut };
                    // A flight may have ended between our miss and here: its value is no reason for a second loader.
                    if let Some(entry) = self.landed(key, wanted) {
                        self.recorder.fetch(FetchOutcome::Joined);
                        pilot.land(Outcome::Loaded(entry));
                    } else {
                        self.fly(pilot, key, wanted, load, FetchOutcome::Ok, lease.take());
                    }
                }
                None => self.recorder.fetch(FetchOutcome::Joined),
            }
            let outcome = match self.wait(key, &mut seat, stale.as_ref()).await {
                Waited::Ended(outcome) => outcome,
                Waited::Stale(found) => return self.serve_stale(key, found),
            };
            // A flight of somebody who loads another type under this key, or one that was lost: try with our own loader.
            let retry = load.is_some()
                && match &outcome {
                    Outcome::Loaded(entry) => !wanted.is_read_from(entry),
                    Outcome::Failed(error) => !(wanted.fits)(error),
                    Outcome::Lost => true,
                    Outcome::Panicked(_) | Outcome::Rejected(_) | Outcome::TimedOut => false,
                };
            if !retry {
                return self.end(key, wanted, outcome, stale);
            }
        }
    }

    fn end(&self, key: &Key<'_>, wanted: Wanted, outcome: Outcome, stale: Option<Found>) -> Fetched {
        let failed = match outcome {
            Outcome::Loaded(entry) if wanted.is_read_from(&entry) => {
                return Fetched::Served(Found { entry, tier: Tier::Memory });
            }
            Outcome::Failed(error) if (wanted.fits)(&error) => Fetched::Failed(error),
            Outcome::Loaded(_) | Outcome::Failed(_) => {
                let advice = "is loaded as two types at once; use one type per key";
                Fetched::Rejected(Error::new(ErrorKind::InvalidValue, format!("key {}", shown(key.text)), advice))
            }
            Outcome::Panicked(message) => Fetched::Panicked(message),
            Outcome::Rejected(error) => return Fetched::Rejected(error),
            Outcome::TimedOut => Fetched::TimedOut,
            Outcome::Lost => Fetched::Rejected(Error::closed()),
        };
        match stale.filter(|found| self.clock.is_before(found.entry.stale_until())) {
            Some(found) => {
                self.throttle(key);
                self.serve_stale(key, found)
            }
            None => failed,
        }
    }

    /// Waits for the flight: no longer than the soft timeout if a stale value is at hand, than the hard one in any case.
    async fn wait(&self, key: &Key<'_>, seat: &mut Seat, stale: Option<&Found>) -> Waited {
        let governance = self.governance.of(key.id);
        let mut left = governance.hard_timeout;
        if let (Some(soft), Some(found)) = (governance.soft_timeout, stale) {
            match tokio::time::timeout(soft, seat.outcome()).await {
                Ok(outcome) => return Waited::Ended(outcome),
                Err(_) => return Waited::Stale(found.clone()),
            }
        }
        // The flight keeps the hard timeout itself; a caller gives it a little more before it judges it stuck.
        left = left.map(|hard| hard.saturating_add(Duration::from_millis(50)));
        match left {
            None => Waited::Ended(seat.outcome().await),
            Some(limit) => match tokio::time::timeout(limit, seat.outcome()).await {
                Ok(outcome) => Waited::Ended(outcome),
                Err(_) => {
                    if self.flights.abandon(key.id, key.text, seat) {
                        self.recorder.fetch(FetchOutcome::Replaced);
                    }
                    Waited::Ended(Outcome::TimedOut)
                }
            },
        }
    }

    /// A fresh value that memory holds by now.
    fn landed(&self, key: &Key<'_>, wanted: Wanted) -> Option<Entry> {
        self.resident(key, |entry| wanted.is_read_from(entry).then(|| entry.clone())).hit()
    }

    /// Sends the loader off in a task of its own. While it runs, the task holds no cache: a handle that is dropped meanwhile
    /// frees its folder.
    fn fly(self: &Arc<Self>, pilot: Pilot, key: &Key<'_>, wanted: Wanted, load: Load, kind: FetchOutcome, lease: Option<Lease>) {
        let (weak, key) = (Arc::downgrade(self), OwnedKey::from(key));
        let governance = self.governance.of(key.key().id);
        let (permits, hard_timeout) = (governance.permits.clone(), governance.hard_timeout);
        let is_nested = inside().is_some();
        tokio::spawn(INSIDE.scope(pilot.id(), async move {
            let key = key.key();
            // A loader inside of another waits for no place: the outer one holds one, and would hold it for ever.
            let _place = if is_nested { None } else { permits.acquire_owned().await.ok() };
            // Before the loader reads anything: what is written from here on keeps its value from landing.
            let Some((fill, lease)) = Self::begin_flight(&weak, &key, lease).await else { return };
            let loaded = match hard_timeout {
                Some(limit) => tokio::time::timeout(limit, contain(load)).await,
                None => Ok(contain(load).await),
            };
            let Some(engine) = weak.upgrade() else { return };
            let outcome = match loaded {
                Ok(Ok(Ok(make))) => engine.take_in(&key, wanted, make, &fill, lease).await,
                Ok(Ok(Err(error))) => Outcome::Failed(error),
                Ok(Err(message)) => Outcome::Panicked(message),
                Err(_) => Outcome::TimedOut,
            };
            engine.recorder.fetch(match &outcome {
                Outcome::Loaded(_) => kind,
                Outcome::Panicked(_) => FetchOutcome::Panicked,
                Outcome::TimedOut => FetchOutcome::TimedOut,
                Outcome::Failed(_) | Outcome::Rejected(_) | Outcome::Lost => FetchOutcome::Failed,
            });
            if kind == FetchOutcome::Refreshed && !matches!(outcome, Outcome::Loaded(_)) {
                // Nobody waits for a refresh, so nobody else keeps the next hit from trying again at once.
                engine.throttle(&key);
            }
            pilot.land(outcome);
        }));
    }

    /// The token of the fill and Redis' leave; `None` if the cache is gone.
    async fn begin_flight(weak: &Weak<Self>, key: &Key<'_>, lease: Option<Lease>) -> Option<(Fill, Option<Lease>)> {
        let engine = weak.upgrade()?;
        let fill = engine.begin_fill(key);
        let lease = engine.lease(key, lease).await;
        Some((fill, lease))
    }

    /// Makes an entry of what the loader brought, and lands it.
    async fn take_in(&self, key: &Key<'_>, wanted: Wanted, make: Make, fill: &Fill, lease: Option<Lease>) -> Outcome {
        let meta = self.meta(key, wanted.granted, wanted.want.fingerprint, fill.stamp.stamp);
        let made = make(&mut |payload, shape| {
            self.check_size(key, payload.len())?;
            Entry::build(key, &meta, payload, shape)
        });
        match made {
            Ok(entry) => {
                self.land(key, &entry, fill, lease).await;
                self.throttled.lock().remove(&key.hash);
                Outcome::Loaded(entry)
            }
            Err(error) => Outcome::Rejected(error),
        }
    }

    /// Redis' leave to fill the key: the one that came with the miss, or one asked for now.
    async fn lease(&self, key: &Key<'_>, lease: Option<Lease>) -> Option<Lease> {
        match (&self.remote, lease) {
            (Some(remote), None) => remote.get_leased(key, self.rules.now()).await.1,
            (_, lease) => lease,
        }
    }

    /// Past its share of life, a hit sends one refresh off.
    fn refresh_ahead(self: &Arc<Self>, key: &Key<'_>, found: &Found, wanted: Wanted, load: Load) {
        let Some(share) = self.governance.of(key.id).refresh_ahead else { return };
        let (created, expires) = (found.entry.created(), found.entry.expires());
        let due = created.saturating_add((expires.saturating_sub(created) as f64 * share) as u64);
        if self.clock.is_before(due) || self.is_throttled(key) {
            return;
        }
        if let Ticket::First(pilot, _) = self.flights.join(key.id, key.text) {
            self.fly(pilot, key, wanted, load, FetchOutcome::Refreshed, None);
        }
    }

    fn serve_stale(&self, key: &Key<'_>, found: Found) -> Fetched {
        self.recorder.stale(key.id);
        Fetched::Served(found)
    }

    fn is_throttled(&self, key: &Key<'_>) -> bool {
        self.throttled.lock().get(&key.hash).is_some_and(|until| self.clock.is_before(*until))
    }

    fn throttle(&self, key: &Key<'_>) {
        let now = self.clock.steady();
        let mut throttled = self.throttled.lock();
        if throttled.len() >= THROTTLED_KEYS {
            throttled.retain(|_, until| *until > now);
        }
        if throttled.len() < THROTTLED_KEYS {
            throttled.insert(key.hash, now + THROTTLE_MS);
        }
    }
}

impl Wanted {
    /// Could the caller read this entry?
    fn is_read_from(&self, entry: &Entry) -> bool {
        (self.want.check)(entry, self.want.fingerprint) == Verdict::Yes
    }
}

enum Waited {
    Ended(Outcome),
    Stale(Found),
}

/// The flight whose loader asks.
fn inside() -> Option<u64> {
    INSIDE.try_with(|flight| *flight).ok()
}

/// Runs a loader so that its panic is an outcome, not the end of the task.
async fn contain(mut load: Load) -> Result<Result<Make, LoadError>, String> {
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| load.as_mut().poll(context))) {
        Ok(Poll::Ready(loaded)) => Poll::Ready(Ok(loaded)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => {
            let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
            Poll::Ready(Err(message.unwrap_or_else(|| "with something that is not text".to_owned())))
        }
    })
    .await
}
