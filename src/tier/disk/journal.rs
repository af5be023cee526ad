//! What the engine writes down beside the entries: notes and events, on a thread that may wait for the device.

use std::io;
use std::sync::atomic::Ordering;

use super::{Disk, Shared, notes};
use crate::error::Error;

impl Disk {
    /// Writes a small named record, durable when this returns; the last one wins.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if it could not be written or is over its budget.
    pub(crate) async fn write_note(&self, name: &'static str, bytes: Vec<u8>) -> Result<(), Error> {
        self.blocking(move |shared| {
            // Old and new stand side by side for a moment; the ledger has a third of this budget, and its copy another.
            if bytes.len() as u64 > shared.config.notes_budget() / 8 {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the note is over its share of disk.capacity"));
            }
            let _alone = shared.notes.lock();
            notes::write_note(&shared.config.path, name, &bytes)
        })
        .await
    }

    /// Reads a named record; a damaged one is counted and is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if it could not be read.
    pub(crate) async fn read_note(&self, name: &'static str) -> Result<Option<Vec<u8>>, Error> {
        self.blocking(move |shared| {
            let (note, damaged) = notes::read_note(&shared.config.path, name, shared.config.notes_budget())?;
            shared.counts.damaged.fetch_add(u64::from(damaged), Ordering::Relaxed);
            Ok(note)
        })
        .await
    }

    /// Appends to the ledger, durable when this returns. At least the newest 10 000 events are kept where the capacity allows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if it could not be written.
    pub(crate) async fn append_event(&self, at_ms: u64, bytes: Vec<u8>) -> Result<(), Error> {
        self.blocking(move |shared| {
            let mut ledger = shared.ledger.lock();
            let appended = ledger.append(&shared.config.path, at_ms, &bytes, shared.config.notes_budget());
            shared.ledger_is(&ledger);
            appended
        })
        .await
    }

    /// The ledger, oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] if it could not be read.
    pub(crate) async fn events(&self) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        self.blocking(|shared| {
            let _ledger = shared.ledger.lock();
            notes::events(&shared.config.path, shared.config.notes_budget())
        })
        .await
    }

    /// Runs file work where waiting is allowed, for a bounded time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        if let Some(error) = self.shared.trouble() {
            return Err(error);
        }
        let shared = self.shared.clone();
        self.shared.patience.notes.ask(&self.shared.threads, move || work(&shared)).await?.map_err(|error| {
            self.shared.counts.io_errors.fetch_add(1, Ordering::Relaxed);
            Error::io(self.shared.subject(), error)
        })
    }
}
