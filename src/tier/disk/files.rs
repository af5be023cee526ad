//! The door to the file system: no other file of the tier opens, writes, reads, syncs, renames or removes.
//!
//! Files are private (0600, folders 0700) and never reached through a symlink. One door makes one place for faults: a test tells a
//! folder which of its calls fail, and how ([`faults`]). Without `cfg(test)` there is no trace of that.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

#[cfg(test)]
pub(super) mod device;
#[cfg(test)]
pub(super) mod faults;

/// What a file is opened for.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// To be read.
    Read,
    /// To be read and changed; it is there.
    Edit,
    /// To be read and changed; made if it is not there.
    Keep,
    /// Made, or emptied.
    Fresh,
    /// Made; an error if something is there.
    New,
}

/// An open file.
pub(super) struct Handle {
    file: File,
    #[cfg(test)]
    faults: Option<std::sync::Arc<faults::Faults>>,
    #[cfg(test)]
    path: PathBuf,
}

/// Opens a regular file of ours, and never through a symlink.
pub(super) fn open(path: &Path, how: How) -> io::Result<Handle> {
    #[cfg(test)]
    faults::check(path, faults::Call::Open)?;
    let mut options = OpenOptions::new();
    match how {
        How::Read => options.read(true),
        How::Edit => options.read(true).write(true),
        How::Keep => options.read(true).write(true).create(true).truncate(false),
        How::Fresh => options.write(true).create(true).truncate(true),
        How::New => options.read(true).write(true).create_new(true),
    };
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options.mode(0o600).custom_flags(nofollow.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    #[cfg(test)]
    if !matches!(how, How::Read) {
        faults::tell(path, |device| device.opened(path, matches!(how, How::Fresh)));
    }
    Ok(Handle {
        file,
        #[cfg(test)]
        path: path.to_owned(),
        #[cfg(test)]
        faults: faults::of(path),
    })
}

/// Makes a folder that only this user can look into, if it is not there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::check(path, faults::Call::Open)?;
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Names and paths of what is in a folder.
pub(super) fn list(path: &Path) -> io::Result<Vec<(OsString, PathBuf)>> {
    #[cfg(test)]
    faults::check(path, faults::Call::Open)?;
    std::fs::read_dir(path)?.map(|file| file.map(|file| (file.file_name(), file.path()))).collect()
}

/// What stands under a name; a symlink is itself.
pub(super) fn look(path: &Path) -> io::Result<Metadata> {
    #[cfg(test)]
    faults::check(path, faults::Call::Open)?;
    std::fs::symlink_metadata(path)
}

/// Takes a file's name away.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::check(path, faults::Call::Remove)?;
    std::fs::remove_file(path)?;
    #[cfg(test)]
    faults::tell(path, |device| device.removed(path));
    Ok(())
}

/// Takes a name away, whatever stands there, if anything does; a symlink is not followed.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::check(path, faults::Call::Remove)?;
    let removed = std::fs::symlink_metadata(path).and_then(|there| match there.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    });
    match removed {
        // Gone already, or between the two calls.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => {
            #[cfg(test)]
            faults::tell(path, |device| device.removed(path));
            removed
        }
    }
}

/// Gives a file another name, which then is no other file's.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::check(to, faults::Call::Rename)?;
    std::fs::rename(from, to)?;
    #[cfg(test)]
    faults::tell(to, |device| device.renamed(from, to));
    Ok(())
}

/// Makes names durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(test)]
    faults::check(folder, faults::Call::Sync)?;
    File::open(folder)?.sync_all()?;
    #[cfg(test)]
    faults::tell(folder, |device| device.folder_synced());
    Ok(())
}

/// A whole file of ours, if it is there; no more than `limit` bytes of it.
pub(super) fn read_whole(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let handle = match open(path, How::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    #[cfg(test)]
    handle.check(faults::Call::Read)?;
    let mut bytes = Vec::new();
    handle.file.take(limit).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Bytes of all files in a folder and below.
pub(super) fn bytes_below(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for (_, path) in list(path)? {
        match look(&path) {
            Ok(meta) if meta.is_dir() => bytes += bytes_below(&path)?,
            Ok(meta) => bytes += meta.len(),
            // Gone between the two looks.
            Err(_) => {}
        }
    }
    Ok(bytes)
}

impl Handle {
    #[cfg(test)]
    fn check(&self, call: faults::Call) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.check(call))
    }

    #[cfg(test)]
    fn tell(&self, what: impl FnOnce(&mut device::Device)) {
        if let Some(faults) = &self.faults {
            faults.tell(what);
        }
    }

    /// Fills `bytes` from `at` on, or fails.
    pub(super) fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.check(faults::Call::Read)?;
        self.file.read_exact_at(bytes, at)
    }

    /// Writes all of `bytes` at `at`, or fails after some of them.
    pub(super) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Err(error) = self.check(faults::Call::Write) {
            if self.faults.as_ref().is_some_and(|faults| faults.is_short()) {
                self.file.write_all_at(&bytes[..bytes.len() / 2], at)?;
            }
            return Err(error);
        }
        self.file.write_all_at(bytes, at)?;
        #[cfg(test)]
        self.tell(|device| device.wrote(&self.path, bytes, at));
        Ok(())
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.check(faults::Call::Write)?;
        self.file.set_len(len)?;
        #[cfg(test)]
        self.tell(|device| device.cut(&self.path, len));
        Ok(())
    }

    /// Waits for the device.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        self.check(faults::Call::Sync)?;
        self.file.sync_data()?;
        #[cfg(test)]
        self.tell(|device| device.synced(&self.path));
        Ok(())
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        #[cfg(test)]
        self.check(faults::Call::Open)?;
        self.file.metadata().map(|meta| meta.len())
    }

    /// Is this the file that stands under `path` now?
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let name = |meta: Metadata| (meta.dev(), meta.ino());
        match look(path) {
            Ok(there) => Ok(name(there) == name(self.file.metadata()?)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Locks the file for this handle alone.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody else has a lock.
    pub(super) fn lock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive)?)
    }

    /// Locks the file as others who only look may too.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody has the lock for himself.
    pub(super) fn lock_to_look(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockShared)?)
    }

    /// Lets the lock go, even if a child process that is just being forked still has the descriptor.
    pub(super) fn unlock(&self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Does this failure pass by itself, so that it says nothing of what is in the folder?
pub(super) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const PASSING: [Errno; 7] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::DQUOT, Errno::AGAIN, Errno::INTR];
    error.raw_os_error().is_some_and(|code| PASSING.iter().any(|errno| errno.raw_os_error() == code))
}

/// Does it say that what stands under the name is no file of ours: a symlink, a folder, nothing?
pub(super) fn is_foreign(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, NotFound};
    matches!(error.kind(), InvalidInput | IsADirectory | NotFound)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
}
