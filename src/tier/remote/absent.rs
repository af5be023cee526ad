//! The face of the tier in a build without the feature `redis`: it cannot be opened.

use std::convert::Infallible;

use super::{Message, Note, Page, RemoteConfig};
use crate::clock::{Clock, Stopwatch};
use crate::entry::Entry;
use crate::error::Error;
use crate::key::{Key, KeyHasher};
use crate::namespace::Namespace;
use crate::tier::{Lookup, TierReport};

/// Never given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease(Infallible);

/// Cannot be made.
pub(crate) struct Remote(Infallible);

/// Cannot be made.
pub(crate) struct Tail(Infallible);

impl Remote {
    /// # Errors
    ///
    /// Always: [`ErrorKind::Config`](crate::ErrorKind::Config).
    pub(crate) fn open(config: RemoteConfig, _node: String, _clock: Clock, _hasher: KeyHasher) -> Result<Self, Error> {
        config.check()?;
        Err(Error::config("redis.url", "asks for redis, which this build does not have; switch on the feature `redis`"))
    }

    pub(crate) async fn get(&self, _key: &Key<'_>, _stamp: u64, _asked: Stopwatch) -> Lookup {
        match self.0 {}
    }

    pub(crate) async fn get_leased(&self, _key: &Key<'_>, _stamp: u64) -> (Lookup, Option<Lease>) {
        match self.0 {}
    }

    pub(crate) async fn get_many(&self, _keys: &[Key<'_>], _stamp: u64) -> Vec<Lookup> {
        match self.0 {}
    }

    pub(crate) fn set(&self, _entry: &Entry) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        never(self.0)
    }

    pub(crate) fn fill(
        &self,
        _entry: &Entry,
        _lease: Lease,
    ) -> impl Future<Output = Result<bool, Error>> + Send + 'static + use<> {
        never(self.0)
    }

    pub(crate) fn remove(
        &self,
        _key: &Key<'_>,
        _note: &Note,
    ) -> impl Future<Output = Result<bool, Error>> + Send + 'static + use<> {
        never(self.0)
    }

    pub(crate) async fn remove_matching(
        &self,
        _namespace: Option<Namespace>,
        _pattern: Option<&str>,
        _note: &Note,
    ) -> Result<Vec<u64>, Error> {
        match self.0 {}
    }

    pub(crate) fn report(&self) -> TierReport {
        match self.0 {}
    }

    pub(crate) fn is_up(&self) -> bool {
        match self.0 {}
    }

    pub(crate) async fn memory(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(crate) fn cached_memory(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(crate) async fn probe(&self) {
        match self.0 {}
    }

    pub(crate) fn owes(&self) -> bool {
        match self.0 {}
    }

    pub(crate) fn pending(&self) -> Vec<Message> {
        match self.0 {}
    }

    pub(crate) fn add_pending(&self, _messages: Vec<Message>) {
        match self.0 {}
    }

    pub(crate) async fn close(&self) {
        match self.0 {}
    }
}

impl Tail {
    pub(crate) fn new(remote: &Remote) -> Self {
        match remote.0 {}
    }

    pub(crate) async fn page(&mut self, _epoch: &str, _last: &str) -> Result<Page, Error> {
        match self.0 {}
    }

    pub(crate) async fn wait(&mut self, _last: &str) -> Result<(), Error> {
        match self.0 {}
    }
}

async fn never<T>(nobody: Infallible) -> T {
    match nobody {}
}
