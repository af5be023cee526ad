//! Opening the tier: its threads come first, and the writer's reads the folder, so that who opens waits no longer for the device than he must.
//!
//! Nobody opens a folder that is somebody else's, so the lock on it is waited for. Reading what is in it is waited for as long as three seconds,
//! which is enough for millions of entries; the rest is read in the background. Until it has been read, the tier answers no read but of what was put
//! since, and takes what comes into its queue: values and removals are written when the log is known. Where the device does not even give the lock,
//! or the system no thread, the tier begins down, and maintenance tries again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tokio::time::timeout;

use super::face::Disk;
use super::patience::no_thread;
use super::shared::holder;
use super::writer::{self, Ended, Writer};
use super::{DiskConfig, Shared, files};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::key::KeyHasher;

/// How long who opens waits for what is in the folder. Cut shorter, a slow machine would begin cold what a moment later is warm.
const READING: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(3) };

/// How far the first look at the folder is.
#[derive(Clone, Debug, Default)]
pub(super) enum Opening {
    #[default]
    UnderWay,
    /// The folder is ours, and is being read.
    Taken,
    /// It was read, or will be when it can.
    Done,
    /// It is no folder for us.
    Refused(Error),
}

/// The threads that live as long as the tier.
#[derive(Default)]
pub(super) struct Crew {
    has_writer: bool,
    has_caretaker: bool,
    /// Why one of them is missing.
    pub(super) missing: Option<Error>,
}

impl Disk {
    /// Opens a folder. Damage costs entries and is counted, it never fails an open. Where the system is short of something (file descriptors,
    /// threads, memory, space) or the device does not answer in time, the tier begins down and loses nothing. Cancelled, it is closed again.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] on an impossible capacity, [`ErrorKind::Locked`] if the folder is open elsewhere,
    /// [`ErrorKind::Io`] if it cannot be used, as far as that is found out in time; later it is a tier that is down.
    pub(crate) async fn open(config: DiskConfig, clock: Clock, hasher: KeyHasher) -> Result<Self, Error> {
        let disk = Self::begin(config, clock, hasher)?;
        let shared = &disk.shared;
        let is_taken = timeout(shared.patience.limit, shared.wait(|| shared.opened(false))).await;
        let Ok(taken) = is_taken else {
            shared.opens_late();
            return Ok(disk);
        };
        taken?;
        match timeout(READING, shared.wait(|| shared.opened(true))).await {
            Ok(result) => result?,
            Err(_) => shared.goes_on_reading(),
        }
        Ok(disk)
    }

    /// Begins to open a folder.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] on an impossible capacity.
    pub(super) fn begin(config: DiskConfig, clock: Clock, hasher: KeyHasher) -> Result<Self, Error> {
        config.check()?;
        let disk = Self::new(Arc::new(Shared::new(config, clock, hasher)));
        // What is missing is said by the report.
        let _ = disk.shared.start_threads();
        Ok(disk)
    }
}

impl Shared {
    /// Starts the threads that are not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TierDown`] if the system gives none. Without the writer the tier is down, too.
    pub(super) fn start_threads(self: &Arc<Self>) -> Result<(), Error> {
        let mut crew = self.crew.lock();
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let theirs = self.clone();
        let writer = |crew: &mut Crew| crew.start(|crew| &mut crew.has_writer, "aurum-disk-writer", move || writer::run(&theirs));
        let theirs = self.clone();
        let caretaker =
            |crew: &mut Crew| crew.start(|crew| &mut crew.has_caretaker, "aurum-disk-sync", move || theirs.care_for_ever());
        let started = writer(&mut crew).and_then(|()| caretaker(&mut crew)).and_then(|()| self.threads.keep_one());
        let started = started.map_err(no_thread);
        crew.missing = started.as_ref().err().cloned();
        let has_writer = crew.has_writer;
        drop(crew);
        if let (Err(error), false) = (&started, has_writer) {
            self.queue.lock().is_awaited = false;
            self.go_down(error);
        }
        started
    }

    /// Ends what the writer would, if there is none.
    pub(super) fn end_without_writer(self: &Arc<Self>) {
        let is_missing = !std::mem::replace(&mut self.crew.lock().has_writer, true);
        if is_missing {
            drop(Ended(self.clone()));
        }
    }

    /// Is the folder ours, and has it been `read`, as far as who opens waits for it?
    pub(super) fn opened(&self, read: bool) -> Option<Result<(), Error>> {
        let queue = self.queue.lock();
        match &queue.opening {
            Opening::Refused(error) => Some(Err(error.clone())),
            Opening::Done => Some(Ok(())),
            Opening::Taken if !read => Some(Ok(())),
            Opening::UnderWay | Opening::Taken => (!queue.is_awaited).then_some(Ok(())),
        }
    }

    /// What is in the folder is not known yet.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Acquire)
    }

    /// Why what is in the folder cannot be told yet.
    pub(super) fn reading(&self) -> Error {
        Error::new(ErrorKind::TierDown, self.subject(), "is still being read; what it holds is there when that is done")
    }

    /// Waits while the folder is being read: until it has been, or the tier is down.
    pub(super) async fn known(&self) {
        if self.is_unread() {
            self.wait_for_writer(|| (!self.is_unread() || self.trouble().is_some()).then_some(())).await;
        }
    }

    /// Who opens does not wait any longer for a folder that is not ours yet.
    fn opens_late(&self) {
        if !self.stop_waiting() {
            return;
        }
        self.patience.stalled();
        let limit = self.patience.limit;
        self.fail(io::Error::new(io::ErrorKind::TimedOut, format!("the device has not shown the folder for {limit:?}")));
    }

    /// Nor for the rest of it.
    fn goes_on_reading(&self) {
        if self.stop_waiting() {
            tracing::info!("the disk tier is still being read; the cache is open without what it holds until then");
        }
    }

    /// `false` if there is nothing to wait for any more.
    fn stop_waiting(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.is_awaited = false;
        matches!(queue.opening, Opening::UnderWay | Opening::Taken)
    }

    /// The first look at the folder, on the writer's thread. `Ok(None)`: it cannot be read now, and says nothing of what is in it.
    ///
    /// # Errors
    ///
    /// If it is no folder for us.
    pub(super) fn open_folder(self: &Arc<Self>) -> Result<Option<Writer>, Error> {
        let opened = match self.take_and_read(true) {
            Ok(writer) => Ok(Some(writer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::new(
                ErrorKind::Locked,
                self.subject(),
                format!("is open in another cache{}; close that one or use another folder", holder(&self.config.path)),
            )),
            Err(error) if files::is_passing(&error) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                self.fail(error);
                Ok(None)
            }
            Err(error) => Err(Error::io(self.subject(), error)),
        };
        self.patience.moved();
        let mut queue = self.queue.lock();
        let is_late = !queue.is_awaited;
        queue.opening = match &opened {
            Err(error) if !is_late => Opening::Refused(error.clone()),
            _ => Opening::Done,
        };
        // Down until what was said meanwhile is in the log.
        queue.retry |= is_late;
        drop(queue);
        self.changed();
        match opened {
            Err(error) if is_late => {
                self.go_down(&error);
                Ok(None)
            }
            opened => opened,
        }
    }

    /// Takes the folder if it is not ours, and reads what it holds.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody else has it, else what the system says. It can be tried again.
    pub(super) fn take_and_read(self: &Arc<Self>, patient: bool) -> io::Result<Writer> {
        if !self.folder_is_ours()? {
            self.take_folder()?;
        }
        self.prepare()?;
        self.heed_mark()?;
        {
            let mut queue = self.queue.lock();
            if matches!(queue.opening, Opening::UnderWay) {
                queue.opening = Opening::Taken;
            }
        }
        self.changed();
        self.open_catalogue();
        self.recover(patient)
    }
}

impl Crew {
    fn start(
        &mut self,
        has: impl Fn(&mut Self) -> &mut bool,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        if !*has(self) {
            thread::Builder::new().name(name.into()).spawn(body)?;
            *has(self) = true;
        }
        Ok(())
    }
}
