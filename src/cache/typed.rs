//! Where types end: between the typed face of [`Cache`] and an engine that knows bytes alone.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use super::Cache;
use crate::engine::fetch::{Build, Fetched, Load, LoadError, Make, Wanted};
use crate::engine::read::Resident;
use crate::engine::state::{Found, Want};
use crate::engine::write::Shared;
use crate::entry::{Claim, Entry, Form, Shape};
use crate::error::Error;
use crate::fetch_error::FetchError;
use crate::key::{Key, KeyHasher};
use crate::namespace::Namespace;
use crate::payload::Payload;
use crate::policy::TtlPolicy;
use crate::tier::Tier;
use crate::view::Cached;

/// A read must ask the tiers below memory, and may have to wait for them.
pub(super) struct Below;

/// Why a [look](Cache::look) found nothing to serve.
pub(super) enum Missed<'k> {
    /// The key or the namespace is not allowed.
    NotAKey,
    Absent(Key<'k>),
    /// There, but not to be served, or not as this type.
    Refused(Key<'k>),
}

impl Cache {
    /// Could a read of this type find the key in some tier? Counts as no read and moves nothing.
    pub(crate) async fn holds<T: Payload>(&self, ns: Namespace, key: &str) -> bool {
        match self.engine.hasher.key(ns, key) {
            Ok(key) => self.engine.contains(&key, Some(self.want::<T>())).await,
            Err(_) => false,
        }
    }

    /// Loads the value unless a flight of its key is under way, and waits for it; for warming, which counts as no read.
    pub(crate) async fn load<T: Payload, E: Send + Sync + 'static>(
        &self,
        ns: Namespace,
        key: &str,
        policy: TtlPolicy,
        load: Load,
    ) -> Result<Cached<T>, FetchError<E>> {
        let key = self.engine.hasher.key(ns, key).map_err(FetchError::Rejected)?;
        let wanted = self.wanted::<T, E>(&key, policy).map_err(FetchError::Rejected)?;
        self.fetched(self.engine.load(&key, wanted, load, None, None).await)
    }

    /// What the engine has to know of a fetch.
    pub(super) fn wanted<T: Payload, E: Send + Sync + 'static>(&self, key: &Key<'_>, policy: TtlPolicy) -> Result<Wanted, Error> {
        self.engine.wanted(key, self.want::<T>(), policy, |error| error.is::<E>())
    }

    /// A read of what memory does not have, as far as it waits for nothing; [`Below`] if the tiers below must be asked. Out of line, so that what is
    /// left is small enough to become a part of the caller's future.
    #[inline(never)]
    pub(super) fn get_absent<T: Payload + ?Sized>(&self, key: &Key<'_>) -> Result<Option<Cached<T>>, Below> {
        if self.engine.is_memory_only() {
            self.engine.recorder.resident_miss(key.id, self.engine.why_absent(key));
            return Ok(None);
        }
        match self.engine.read_now(key, self.want::<T>()) {
            Some(found) => Ok(found.and_then(|found| self.cached(found))),
            None => Err(Below),
        }
    }

    pub(super) async fn get_below<T: Payload + ?Sized>(&self, ns: Namespace, key: &str) -> Option<Cached<T>> {
        let key = self.engine.hasher.key(ns, key).ok()?;
        let found = self.engine.read(&key, self.want::<T>()).await?;
        self.cached(found)
    }

    /// THE FIRST LOOK of every read that returns a value: memory alone, without a future. Out of line, so that a hit comes back in two registers
    /// and a caller's future holds no more of it than a call.
    #[inline(never)]
    pub(super) fn look<'k, T: Payload + ?Sized>(
        &self,
        ns: &Namespace,
        key: &'k str,
        missed: &mut Missed<'k>,
    ) -> Option<Cached<T>> {
        let key = self.engine.hasher.keyed(KeyHasher::check(*ns, key).ok()?, key);
        self.engine.memory.expect(&key);
        let counted = self.engine.recorder.resident_hit(self.engine.places, key.id);
        let fingerprint = self.fingerprint::<T>();
        match self.engine.resident(&key, |entry| entry.typed::<T::Form>(fingerprint)) {
            Resident::Hit(bytes) => {
                counted.count(&self.engine.recorder);
                return Some(Cached::new(bytes, Tier::Memory, self.engine.clock.watch()));
            }
            Resident::Refused => *missed = Missed::Refused(key),
            Resident::Absent => *missed = Missed::Absent(key),
        }
        None
    }

    /// A read that asks memory alone was not answered.
    #[inline(never)]
    pub(super) fn count_missed(&self, missed: &Missed<'_>, fingerprint: u64) {
        let (key, cause) = match missed {
            Missed::NotAKey => return,
            Missed::Absent(key) => (key, self.engine.why_absent(key)),
            Missed::Refused(key) => (key, self.engine.why_refused(key, fingerprint)),
        };
        self.engine.recorder.resident_miss(key.id, cause);
    }

    #[inline]
    pub(super) fn write<T: Payload + ?Sized>(
        &self,
        key: &Key<'_>,
        value: &T,
        policy: TtlPolicy,
    ) -> Result<Option<Shared>, Error> {
        let fingerprint = self.fingerprint::<T>();
        let granted = self.engine.prepare(key, policy)?;
        T::Form::encode(value, |payload| self.engine.write(key, payload, granted, fingerprint, Shape::of::<T::Form>()))?
    }

    pub(super) fn fetched<T: Payload, E: Send + Sync + 'static>(&self, fetched: Fetched) -> Result<Cached<T>, FetchError<E>> {
        match fetched {
            Fetched::Served(found) => {
                self.cached(found).ok_or_else(|| FetchError::Rejected(Error::corrupt("value", "does not validate")))
            }
            Fetched::Failed(error) => match error.downcast::<E>() {
                Ok(error) => Err(FetchError::Fetch(error)),
                Err(_) => Err(FetchError::TimedOut),
            },
            Fetched::TimedOut => Err(FetchError::TimedOut),
            Fetched::Panicked(message) => Err(FetchError::Panicked(message)),
            Fetched::Rejected(error) => Err(FetchError::Rejected(error)),
        }
    }

    #[inline]
    pub(super) fn cached<T: Payload + ?Sized>(&self, found: Found) -> Option<Cached<T>> {
        match found.entry.claim::<T::Form>(self.fingerprint::<T>()) {
            Claim::Typed(bytes) => Some(Cached::new(bytes, found.tier, self.engine.clock.watch())),
            Claim::Foreign | Claim::Damaged => None,
        }
    }

    #[inline]
    pub(super) fn fingerprint<T: Payload + ?Sized>(&self) -> u64 {
        T::FINGERPRINT ^ self.engine.salt
    }

    pub(super) fn want<T: Payload + ?Sized>(&self) -> Want {
        Want { fingerprint: self.fingerprint::<T>(), check: Entry::check::<T::Form> }
    }
}

/// The user's loader with its types taken off.
pub(crate) fn loader<T, F, Fut, E>(fetch: F) -> Load
where
    T: Payload,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    Box::pin(async move {
        let value = fetch().await.map_err(|error| Arc::new(error) as Arc<dyn Any + Send + Sync> as LoadError)?;
        Ok(Box::new(move |build: &mut Build<'_>| T::Form::encode(&value, |payload| build(payload, Shape::of::<T::Form>()))?)
            as Make)
    })
}
