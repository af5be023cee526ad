//! The disk tier of a build without the feature `disk`: it cannot be opened, holds nothing, and answers so.

use super::{DiskConfig, DiskCounts, Removal};
use crate::clock::Clock;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind};
use crate::key::{Key, KeyHasher};
use crate::namespace::Namespace;
use crate::tier::{Lookup, TierReport, TierState, Usage};

/// A tier that is not there.
#[derive(Clone)]
pub(crate) struct Disk(());

fn left_out() -> Error {
    Error::new(ErrorKind::Config, "disk", "is left out of this build; enable the feature `disk`")
}

#[allow(clippy::unused_async, clippy::unused_self)] // the face is that of the real tier
impl Disk {
    pub(crate) async fn open(_: DiskConfig, _: Clock, _: KeyHasher) -> Result<Self, Error> {
        Err(left_out())
    }

    pub(crate) async fn get(&self, _: &Key<'_>) -> Lookup {
        Lookup::Miss
    }

    pub(crate) fn get_now(&self, _: &Key<'_>) -> Option<Lookup> {
        Some(Lookup::Miss)
    }

    pub(crate) fn contains(&self, _: &Key<'_>) -> bool {
        false
    }

    pub(crate) fn may_hold(&self, _: &Key<'_>) -> bool {
        false
    }

    pub(crate) fn has_room(&self) -> bool {
        true
    }

    pub(crate) async fn room(&self) {}

    pub(crate) fn put(&self, _: &Entry) {}

    pub(crate) fn offer(&self, _: &Entry, _: bool) -> bool {
        false
    }

    pub(crate) fn remove(&self, _: &Key<'_>) -> Removal {
        Removal { existed: false, ticket: 0 }
    }

    pub(crate) async fn settled(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn position(&self) -> u64 {
        0
    }

    pub(crate) async fn remove_matching(
        &self,
        _: Option<Namespace>,
        _: Option<&(dyn Fn(&str) -> bool + Send + Sync)>,
        _: &str,
        _: u64,
    ) -> Result<Vec<u64>, Error> {
        Ok(Vec::new())
    }

    pub(crate) async fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) async fn maintain(&self) {}

    pub(crate) fn is_being_read(&self) -> bool {
        false
    }

    pub(crate) fn report(&self) -> TierReport {
        TierReport { state: TierState::Off, reason: None }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::default()
    }

    pub(crate) fn counts(&self) -> DiskCounts {
        DiskCounts::default()
    }

    pub(crate) async fn write_note(&self, _: &'static str, _: Vec<u8>) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) async fn read_note(&self, _: &'static str) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }

    pub(crate) async fn append_event(&self, _: u64, _: Vec<u8>) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) async fn events(&self) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        Ok(Vec::new())
    }
}
