//! The recipe of `get_or_fetch`: one loader per key, stale on error, time limits, refresh before expiry.
//!
//! ```text
//! find ── hit ──> past `refresh_ahead`? one refresh in the background ──> serve
//!   └─ miss ──> recently failed and a stale value is at hand? serve it
//!                 └─> join the key's flight or start one ──> wait
//!                        loaded ──> serve          soft timeout and a stale value ──> serve it, the flight goes on
//!                        failed ──> stale value within `stale_if_error`? serve it : error
//!                        hard timeout ──> the same; the loader is dropped and the next caller starts anew
//! ```
//!
//! The flight takes its fill token before the loader runs, so a value that was loaded before an invalidation
//! does not land; who waited still gets it.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::engine::read::Read;
use crate::engine::state::{Engine, Found, OwnedKey, Verdict, Want};
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, shown};
use crate::flight::{Outcome, Pilot, Seat, Ticket};
use crate::key::Key;
use crate::metrics::FetchOutcome;
use crate::namespace::NamespaceId;
use crate::policy::TtlPolicy;
use crate::tier::Tier;
use crate::tier::remote::Lease;

/// A loader's error, of a type that only the caller knows: an `Arc<E>`.
pub(crate) type LoadError = Arc<dyn Any + Send + Sync>;

/// Turns the loaded value into an entry, with the engine's idea of its head.
pub(crate) type Make = Box<dyn FnOnce(&mut dyn FnMut(&[u8]) -> Entry) -> Result<Entry, Error> + Send>;

/// The loader, not begun.
pub(crate) type Load = Pin<Box<dyn Future<Output = Result<Make, LoadError>> + Send>>;

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
    /// The keys whose loaders this task runs inside of: a loader that asks for its own key would wait for itself.
    static LOADING: Vec<(NamespaceId, Box<str>)>;
}

impl Engine {
    /// Gets the value, or lets `load` make it. `fits` says whether an error is of the caller's type.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        key: &Key<'_>,
        want: Want,
        policy: TtlPolicy,
        load: Load,
        fits: fn(&LoadError) -> bool,
    ) -> Fetched {
        let life = match self.check_open().and_then(|()| self.govern(key, policy)) {
            Ok(life) => life,
            Err(error) => return Fetched::Rejected(error),
        };
        let (cause, stale, lease) = match self.find(key, want).await {
            Read::Hit(found) => {
                self.recorder.hit(found.tier, key.id);
                self.refresh_ahead(key, &found, policy, life, want, load);
                return Fetched::Served(found);
            }
            Read::Miss { cause, stale, lease } => (cause, stale, lease),
        };
        self.recorder.miss(key.id, cause);
        if let (Some(found), true) = (&stale, self.is_throttled(key)) {
            return self.serve_stale(key, found.clone());
        }
        self.load(key, want, policy, life, load, fits, stale, lease).await
    }

    /// Joins the flight of the key, or sends `load` off, and waits. A `stale` value may stand in.
    #[allow(clippy::too_many_arguments)] // what a flight needs, once
    pub(crate) async fn load(
        self: &Arc<Self>,
        key: &Key<'_>,
        want: Want,
        policy: TtlPolicy,
        life: Duration,
        load: Load,
        fits: fn(&LoadError) -> bool,
        stale: Option<Found>,
        mut lease: Option<Lease>,
    ) -> Fetched {
        if is_loading(key) {
            let advice = "is being loaded by a loader that asks for it itself; load it under another key";
            return Fetched::Rejected(Error::new(ErrorKind::InvalidKey, format!("key {}", shown(key.text)), advice));
        }
        let mut load = Some(load);
        loop {
            let mut seat = match self.flights.join(key.id, key.text) {
                Ticket::First(pilot, seat) => {
                    let Some(load) = load.take() else { return Fetched::TimedOut };
                    self.fly(pilot, key, policy, life, want, load, FetchOutcome::Ok, lease.take());
                    seat
                }
                Ticket::Joined(seat) => {
                    self.recorder.fetch(FetchOutcome::Joined);
                    seat
                }
            };
            let outcome = match self.wait(key, &mut seat, stale.as_ref()).await {
                Waited::Ended(outcome) => outcome,
                Waited::Stale(found) => return self.serve_stale(key, found),
            };
            // A flight of somebody who loads another type under this key, or one that was lost: try with our own loader.
            let retry = load.is_some()
                && match &outcome {
                    Outcome::Loaded(entry) => (want.check)(entry, want.fingerprint) != Verdict::Yes,
                    Outcome::Failed(error) => !fits(error),
                    Outcome::Lost => true,
                    Outcome::Panicked(_) | Outcome::Rejected(_) | Outcome::TimedOut => false,
                };
            if !retry {
                return self.end(key, want, outcome, stale, fits);
            }
        }
    }

    fn end(&self, key: &Key<'_>, want: Want, outcome: Outcome, stale: Option<Found>, fits: fn(&LoadError) -> bool) -> Fetched {
        let failed = match outcome {
            Outcome::Loaded(entry) if (want.check)(&entry, want.fingerprint) == Verdict::Yes => {
                return Fetched::Served(Found { entry, tier: Tier::Memory });
            }
            Outcome::Failed(error) if fits(&error) => Fetched::Failed(error),
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

    /// Sends the loader off in a task of its own.
    #[allow(clippy::too_many_arguments)] // what a flight needs, once
    fn fly(
        self: &Arc<Self>,
        pilot: Pilot,
        key: &Key<'_>,
        policy: TtlPolicy,
        life: Duration,
        want: Want,
        load: Load,
        kind: FetchOutcome,
        lease: Option<Lease>,
    ) {
        let (engine, key) = (self.clone(), OwnedKey::from(key));
        let mut chain = LOADING.try_with(Clone::clone).unwrap_or_default();
        chain.push((key.key().id, key.key().text.into()));
        tokio::spawn(LOADING.scope(chain, async move {
            let key = key.key();
            let governance = engine.governance.of(key.id);
            let Ok(_permit) = governance.permits.acquire().await else { return };
            // Before the loader reads anything: what is written from here on keeps its value from landing.
            let fill = engine.begin_fill(&key);
            let lease = engine.lease(&key, lease).await;
            let loaded = match governance.hard_timeout {
                Some(limit) => tokio::time::timeout(limit, contain(load)).await,
                None => Ok(contain(load).await),
            };
            let outcome = match loaded {
                Ok(Ok(Ok(make))) => {
                    let meta = engine.meta(&key, policy, life, want.fingerprint, fill.stamp.stamp);
                    let mut size = Ok(());
                    let made = make(&mut |payload| {
                        size = engine.check_size(&key, payload.len());
                        Entry::new(&key, &meta, if size.is_ok() { payload } else { &[] })
                    });
                    match made.and_then(|entry| size.map(|()| entry)) {
                        Ok(entry) => {
                            engine.land(&key, &entry, &fill, lease).await;
                            engine.throttled.lock().remove(&key.hash);
                            Outcome::Loaded(entry)
                        }
                        Err(error) => Outcome::Rejected(error),
                    }
                }
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
            pilot.land(outcome);
        }));
    }

    /// Redis' leave to fill the key: the one that came with the miss, or one asked for now.
    async fn lease(&self, key: &Key<'_>, lease: Option<Lease>) -> Option<Lease> {
        match (&self.remote, lease) {
            (Some(remote), None) => remote.get(key, self.rules.now()).await.1,
            (_, lease) => lease,
        }
    }

    /// Past its share of life, a hit sends one refresh off.
    fn refresh_ahead(self: &Arc<Self>, key: &Key<'_>, found: &Found, policy: TtlPolicy, life: Duration, want: Want, load: Load) {
        let Some(share) = self.governance.of(key.id).refresh_ahead else { return };
        let (created, expires) = (found.entry.created(), found.entry.expires());
        let due = created.saturating_add((expires.saturating_sub(created) as f64 * share) as u64);
        if self.clock.is_before(due) || is_loading(key) || self.is_throttled(key) {
            return;
        }
        if let Ticket::First(pilot, _) = self.flights.join(key.id, key.text) {
            self.fly(pilot, key, policy, life, want, load, FetchOutcome::Refreshed, None);
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

enum Waited {
    Ended(Outcome),
    Stale(Found),
}

fn is_loading(key: &Key<'_>) -> bool {
    LOADING.try_with(|chain| chain.iter().any(|(id, text)| *id == key.id && **text == *key.text)).unwrap_or(false)
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
