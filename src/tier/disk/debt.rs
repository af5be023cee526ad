//! A mark that the log owes something, for the next process: a file's name, which takes no space.
//!
//! While the tier is down, what was removed or replaced waits in memory ([`down`](super::down)). A process that is killed then would serve it again at
//! its next open. So an empty file beside the log changes its name from `log.settled` to `log.owing`: a full device takes no byte more, but it takes that. A log
//! that owes is not believed by the process that opens it next: all of it is let go. When all that was owed is in the log, the name is changed back.
//!
//! Where not even a name can be changed, because the device is read-only or gone, the next process is not told; it is tried again with each maintenance.
//! Who marks and unmarks is the thread that has the folder, the writer's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Shared;
use super::files::{self, How};
use super::queue::Queue;
use super::recovery::segment_files;

/// The name while all that was said is in the log, or on its way to it.
const SETTLED: &str = "log.settled";
/// The name while the log does not say all that it should.
const OWING: &str = "log.owing";

/// What this process did about its folder's mark.
#[derive(Default)]
pub(super) struct Debt {
    is_marked: AtomicBool,
    /// It could not be, and that was said.
    is_said: AtomicBool,
}

impl Debt {
    /// Has this process marked its folder?
    pub(super) fn is_marked(&self) -> bool {
        self.is_marked.load(Ordering::Acquire)
    }

    fn is_settled(&self) {
        self.is_marked.store(false, Ordering::Release);
        self.is_said.store(false, Ordering::Relaxed);
    }
}

/// Is this folder marked?
pub(super) fn is_marked(folder: &Path) -> io::Result<bool> {
    match files::look(&folder.join(OWING)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Queue {
    /// Something is owed, if the tier is down, and it was not tried yet to tell the folder.
    pub(super) fn wants_mark(&self) -> bool {
        !self.is_mark_tried && (self.let_go || !self.ops.is_empty())
    }
}

impl Shared {
    /// Marks the folder as one whose log owes something, if it can be.
    pub(super) fn mark_debt(&self) {
        if let Err(error) = self.try_mark()
            && !self.debt.is_said.swap(true, Ordering::Relaxed)
        {
            let subject = self.subject();
            tracing::warn!(%error, "{subject} takes no mark that it owes something; a process killed now may serve what was taken back");
        }
        self.queue.lock().is_mark_tried = true;
        self.changed();
    }

    fn try_mark(&self) -> io::Result<()> {
        if self.debt.is_marked() {
            return Ok(());
        }
        if !self.folder_is_ours()? {
            return Err(io::Error::other("the folder is not ours now"));
        }
        // A mark that an earlier process left, and that was not looked at yet, stays that one's: the log is to be let go.
        if !is_marked(&self.config.path)? {
            let (settled, owing) = (self.name(SETTLED), self.name(OWING));
            files::rename(&settled, &owing).or_else(|_| files::open(&owing, How::Keep).map(drop))?;
            self.debt.is_marked.store(true, Ordering::Release);
        }
        // For a power cut; a killed process needs it not.
        let _ = files::sync_folder(&self.config.path);
        Ok(())
    }

    /// All that was owed is in the log: takes the mark back. If that fails, it stays, and the next process begins with an empty log.
    pub(super) fn unmark_debt(&self) -> io::Result<()> {
        if self.folder_is_ours()? {
            files::rename(&self.name(OWING), &self.name(SETTLED))?;
        }
        self.forget_mark();
        Ok(())
    }

    /// The folder has no mark any more, or was made anew.
    pub(super) fn forget_mark(&self) {
        self.debt.is_settled();
        self.queue.lock().is_mark_tried = false;
    }

    /// Lets the log go if an earlier process has left it owing.
    ///
    /// # Errors
    ///
    /// What the system says. The mark is there until nothing of the log is.
    pub(super) fn heed_mark(&self) -> io::Result<()> {
        if self.debt.is_marked() {
            // What it speaks of is in our queue.
            return Ok(());
        }
        if !is_marked(&self.config.path)? {
            // Where the device is full already, the mark will have to be made without it.
            let _ = files::open(&self.name(SETTLED), How::Keep);
            return Ok(());
        }
        let segments = segment_files(&self.config.path)?;
        if !segments.is_empty() {
            let subject = self.subject();
            tracing::warn!(
                "{subject} begins empty: the process before ended while it was down, and could not write down what it removed"
            );
        }
        for path in segments.values() {
            files::remove_all(path)?;
            self.counts.distrusted.fetch_add(1, Ordering::Relaxed);
        }
        files::sync_folder(&self.config.path)?;
        files::rename(&self.name(OWING), &self.name(SETTLED))
    }

    fn name(&self, name: &str) -> PathBuf {
        self.config.path.join(name)
    }
}
