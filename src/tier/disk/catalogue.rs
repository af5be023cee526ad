//! The catalogue: the sorted key [`directory`] of each sealed segment, kept in sled ([`keeper`], the only file that knows it) as small
//! checksummed blocks ([`block`]).
//!
//! It is derived from the log and never trusted further than its checksums: what is missing, damaged or behind is read from
//! the segment instead. From it an open fills the index without reading the log, and a pattern finds its keys in a short range.
//!
//! Blocks are of about 2 KiB, so that sled stores small values only: large ones leak files, whole values bloat, and
//! big `Batch`es take gigabytes (measured). sled lives on one thread of ours behind a bounded queue. A panic in it, an error or
//! a call that takes too long switches the catalogue off and costs nothing but the time to scan. A half-written snapshot, which
//! bricks sled 0.34, is removed before it is opened; a log that is shorter than it was, which makes it panic, is not opened at all. A program that is
//! built with `panic = "abort"` has no catalogue: of 300 stores with up to 40 flipped bits each five made sled panic. Its opens read the log.

mod block;
mod directory;
mod keeper;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use self::block::parse_block;
pub(super) use self::directory::{Directory, Word};
use self::keeper::Keeper;
use super::segment::Segment;

/// Requests that may wait; a directory that comes when it is full is not kept.
const QUEUE: usize = 64;
/// How long an answer may take before the log is read instead.
const PATIENCE: Duration = Duration::from_secs(5);

/// The catalogue, or none.
pub(super) struct Catalogue {
    requests: OnceLock<SyncSender<Request>>,
    /// Bytes of its files, as of the last change.
    bytes: Arc<AtomicU64>,
    /// Something went wrong: not asked any more until the tier is opened again.
    off: Arc<AtomicBool>,
}

enum Request {
    Add {
        directory: Directory,
        salt: u64,
        len: u64,
    },
    Forget(u32),
    /// Blocks of a segment that may hold keys of a namespace under a prefix; `None` = all. Answers `None` if they are not all there.
    Read {
        segment: u32,
        salt: u64,
        len: u64,
        under: Option<(Box<str>, Box<str>)>,
        answer: SyncSender<Option<Vec<Vec<u8>>>>,
    },
    /// Forgets all other segments.
    Retain(Vec<u32>, SyncSender<()>),
    Close(SyncSender<()>),
}

impl Catalogue {
    /// No catalogue: everything is read from the log.
    pub(super) fn new() -> Self {
        Self { requests: OnceLock::new(), bytes: Arc::default(), off: Arc::new(AtomicBool::new(true)) }
    }

    /// Opens, or makes, the catalogue below the tier's folder; none if that cannot be. Once it is open: does nothing.
    pub(super) fn open(&self, folder: &Path, budget: u64) {
        if self.requests.get().is_some() {
            return;
        }
        let (requests, inbox) = sync_channel(QUEUE);
        let keeper = Keeper { folder: folder.to_owned(), budget, bytes: self.bytes.clone(), off: self.off.clone() };
        self.off.store(false, Ordering::Release);
        match std::thread::Builder::new().name("aurum-disk-catalogue".into()).spawn(move || keeper.run(&inbox)) {
            Ok(_) => drop(self.requests.set(requests)),
            Err(_) => self.off.store(true, Ordering::Release),
        }
    }

    /// Keeps the directory of a sealed segment.
    pub(super) fn add(&self, segment: &Segment, directory: Directory) {
        self.tell(Request::Add { directory, salt: segment.salt, len: segment.len() });
    }

    /// Lets a directory go.
    pub(super) fn forget(&self, segment: u32) {
        self.tell(Request::Forget(segment));
    }

    /// Lets go of all directories but these.
    pub(super) fn retain(&self, segments: Vec<u32>) {
        self.ask(|answer| Request::Retain(segments, answer));
    }

    /// Shows all last words of a segment; the highest sequence, or `None` if the catalogue does not know them all.
    pub(super) fn load(&self, segment: &Segment, visit: &mut dyn FnMut(&str, &str, &Word)) -> Option<u64> {
        let mut highest = 0;
        self.read(segment, None, &mut |name, key, word| {
            highest = highest.max(word.sequence);
            visit(name, key, word);
        })
        .then_some(highest)
    }

    /// Shows what a segment has under a namespace (or all) and a prefix; `false` = not known here.
    pub(super) fn under(
        &self,
        segment: &Segment,
        namespace: Option<&str>,
        prefix: &str,
        visit: &mut dyn FnMut(&str, &str, &Word),
    ) -> bool {
        let under = namespace.map(|namespace| (namespace.into(), prefix.into()));
        self.read(segment, under, &mut |name, key, word| {
            if namespace.is_none_or(|namespace| namespace == name) && key.starts_with(prefix) {
                visit(name, key, word);
            }
        })
    }

    fn read(&self, segment: &Segment, under: Option<(Box<str>, Box<str>)>, visit: &mut dyn FnMut(&str, &str, &Word)) -> bool {
        let (id, salt, len) = (segment.id, segment.salt, segment.len());
        let blocks = self.ask(|answer| Request::Read { segment: id, salt, len, under, answer }).flatten();
        blocks.is_some_and(|blocks| blocks.iter().all(|block| parse_block(block, id, len, visit).is_some()))
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes down what it has, and ends.
    pub(super) fn close(&self) {
        self.ask(Request::Close);
    }

    /// Without an answer; dropped when the catalogue is busy or off.
    fn tell(&self, request: Request) {
        if let Some(requests) = self.requests.get().filter(|_| !self.off.load(Ordering::Acquire)) {
            let _ = requests.try_send(request);
        }
    }

    /// With an answer, within bounded time.
    fn ask<T>(&self, request: impl FnOnce(SyncSender<T>) -> Request) -> Option<T> {
        let requests = self.requests.get().filter(|_| !self.off.load(Ordering::Acquire))?;
        let (answer, answered) = sync_channel(1);
        requests.try_send(request(answer)).ok()?;
        let got = answered.recv_timeout(PATIENCE).ok();
        if got.is_none() {
            self.off.store(true, Ordering::Release);
        }
        got
    }
}
