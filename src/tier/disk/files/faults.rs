//! Faults of the device, for tests: which calls on the files of a folder fail, and how.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::device::Device;

/// A call on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tier::disk) enum Call {
    /// Open, make, list, look.
    Open,
    Read,
    Write,
    Sync,
    Remove,
    Rename,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tier::disk) enum Fault {
    /// The device does not answer.
    Broken,
    /// The device is full: what needs space fails.
    Full,
    /// The device is full in the middle of a write.
    Short,
    /// No file descriptor is left: no file can be opened.
    NoDescriptor,
}

impl Fault {
    fn hits(self, call: Call) -> bool {
        match self {
            Self::Broken => true,
            Self::Full | Self::Short => matches!(call, Call::Write | Call::Sync),
            Self::NoDescriptor => call == Call::Open,
        }
    }

    fn error(self) -> io::Error {
        let errno = match self {
            Self::Broken => Errno::IO,
            Self::Full | Self::Short => Errno::NOSPC,
            Self::NoDescriptor => Errno::MFILE,
        };
        errno.into()
    }
}

#[derive(Default)]
struct State {
    /// Calls seen.
    calls: u64,
    /// The same, by kind.
    seen: [u64; 6],
    /// From which call on they fail, and up to which.
    failing: Option<(Fault, u64, u64)>,
    /// The only kind of call that fails; `None` = all that the fault hits.
    only: Option<Call>,
    /// Calls of this kind wait.
    hung: Option<Call>,
    /// What the device has, if that is recorded.
    device: Option<Device>,
}

/// The faults of one folder.
#[derive(Default)]
pub(in crate::tier::disk) struct Faults {
    state: Mutex<State>,
    released: Condvar,
}

static FOLDERS: Mutex<Vec<(PathBuf, Weak<Faults>)>> = Mutex::new(Vec::new());

impl Faults {
    /// The faults of a folder and all below, as long as this is held.
    pub(in crate::tier::disk) fn of_folder(path: &Path) -> Arc<Self> {
        let faults = Arc::<Self>::default();
        let mut folders = FOLDERS.lock();
        folders.retain(|(_, faults)| faults.strong_count() > 0);
        folders.push((path.to_owned(), Arc::downgrade(&faults)));
        faults
    }

    /// After `calls` more calls, all fail.
    pub(in crate::tier::disk) fn after(&self, calls: u64, fault: Fault) {
        self.between(calls, u64::MAX, fault);
    }

    /// After `calls` more calls, `count` fail.
    pub(in crate::tier::disk) fn between(&self, calls: u64, count: u64, fault: Fault) {
        let mut state = self.state.lock();
        let from = state.calls + calls;
        (state.failing, state.only) = (Some((fault, from, from.saturating_add(count))), None);
    }

    /// All calls of one kind fail.
    pub(in crate::tier::disk) fn only(&self, call: Call, fault: Fault) {
        self.after(0, fault);
        self.state.lock().only = Some(call);
    }

    /// Nothing fails any more.
    pub(in crate::tier::disk) fn heal(&self) {
        self.state.lock().failing = None;
    }

    /// Calls of this kind do not come back; `None`: they do.
    pub(in crate::tier::disk) fn hang(&self, call: Option<Call>) {
        self.state.lock().hung = call;
        self.released.notify_all();
    }

    /// Calls so far.
    pub(in crate::tier::disk) fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Calls of a kind so far.
    pub(in crate::tier::disk) fn seen(&self, call: Call) -> u64 {
        self.state.lock().seen[call as usize]
    }

    /// From now on, and the folder is empty: what is certain of it is recorded.
    pub(in crate::tier::disk) fn record(&self) {
        self.state.lock().device = Some(Device::default());
    }

    /// Lets somebody look at what is recorded, or add to it.
    pub(in crate::tier::disk) fn tell<R>(&self, what: impl FnOnce(&mut Device) -> R) -> Option<R> {
        self.state.lock().device.as_mut().map(what)
    }

    pub(super) fn is_short(&self) -> bool {
        matches!(self.state.lock().failing, Some((Fault::Short, ..)))
    }

    pub(super) fn check(&self, call: Call) -> io::Result<()> {
        let mut state = self.state.lock();
        while state.hung == Some(call) {
            self.released.wait(&mut state);
        }
        let number = state.calls;
        state.calls += 1;
        state.seen[call as usize] += 1;
        match state.failing {
            Some((fault, from, to)) if (from..to).contains(&number) && state.only.unwrap_or(call) == call && fault.hits(call) => {
                Err(fault.error())
            }
            _ => Ok(()),
        }
    }
}

/// The faults of what a path lies in.
pub(super) fn of(path: &Path) -> Option<Arc<Faults>> {
    FOLDERS.lock().iter().find(|(folder, _)| path.starts_with(folder)).and_then(|(_, faults)| faults.upgrade())
}

pub(super) fn tell(path: &Path, what: impl FnOnce(&mut Device)) {
    of(path).and_then(|faults| faults.tell(what));
}

pub(super) fn check(path: &Path, call: Call) -> io::Result<()> {
    of(path).map_or(Ok(()), |faults| faults.check(call))
}
