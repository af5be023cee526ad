//! The files: which segments there are, how they are made, appended to, read and dropped.
//!
//! Segments are numbered without gaps; the highest is open, all others are sealed and never change. Only the writer thread
//! makes, appends and drops; readers take a segment out of the map and read without any lock. A dropped
//! segment's name is gone at once, its space when the last reader lets go of it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::segment::{FILE_HEAD, Segment, file_head, file_name};

/// The segments there are. The writer holds the write lock for a map insert or removal only.
#[derive(Default)]
pub(super) struct Segments {
    map: RwLock<BTreeMap<u32, Arc<Segment>>>,
}

impl Segments {
    pub(super) fn get(&self, id: u32) -> Option<Arc<Segment>> {
        self.map.read().get(&id).cloned()
    }

    pub(super) fn insert(&self, segment: Arc<Segment>) {
        self.map.write().insert(segment.id, segment);
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.map.read().values().cloned().collect()
    }

    pub(super) fn oldest(&self) -> Option<Arc<Segment>> {
        self.map.read().first_key_value().map(|(_, segment)| segment.clone())
    }

    /// The first one after `id`.
    pub(super) fn after(&self, id: Option<u32>) -> Option<Arc<Segment>> {
        let map = self.map.read();
        let mut rest = map.range(id.map_or(0, |id| id.saturating_add(1))..);
        rest.next().map(|(_, segment)| segment.clone())
    }

    pub(super) fn count(&self) -> u64 {
        self.map.read().len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.map.read().values().map(|segment| segment.len()).sum()
    }

    /// Takes a segment away, name first.
    pub(super) fn drop_segment(&self, id: u32) -> io::Result<()> {
        let Some(segment) = self.get(id) else { return Ok(()) };
        match std::fs::remove_file(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.map.write().remove(&id);
        Ok(())
    }

    pub(super) fn clear(&self) {
        self.map.write().clear();
    }
}

/// Makes a folder that only this user can look into, if it is not there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file of ours: private, and never through a symlink.
pub(super) fn open_private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options.mode(0o600).custom_flags(nofollow.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    Ok(file)
}

/// Makes the file of segment `id`, with its head in it.
pub(super) fn make_segment(folder: &Path, id: u32) -> io::Result<Arc<Segment>> {
    let path = folder.join(file_name(id));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = open_private(&path, OpenOptions::new().read(true).write(true).create_new(true))?;
    let salt = fastrand::u64(..);
    let written = file.write_all_at(&file_head(id, salt), 0).and_then(|()| sync_folder(folder));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    Ok(Arc::new(Segment { id, salt, path, file, len: AtomicU64::new(FILE_HEAD as u64), synced: AtomicU64::new(0) }))
}

/// Makes names durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads what is in the page cache without waiting for the device.
pub(super) struct CachedReads {
    /// Does the system offer it? Until it says no.
    offered: AtomicBool,
}

impl CachedReads {
    /// Offered on Linux; elsewhere nobody can tell what is in the page cache.
    pub(super) fn new() -> Self {
        Self { offered: AtomicBool::new(cfg!(target_os = "linux")) }
    }

    /// As if the system did not offer it.
    #[cfg(test)]
    pub(super) fn refuse(&self) {
        self.offered.store(false, Ordering::Relaxed);
    }

    /// Fills `bytes` from `at` on; `None` if they are not all there, or if the system cannot tell.
    #[cfg(target_os = "linux")]
    pub(super) fn read(&self, file: &File, bytes: &mut [u8], at: u64) -> Option<()> {
        use rustix::io::{Errno, ReadWriteFlags};

        if !self.offered.load(Ordering::Relaxed) {
            return None;
        }
        match rustix::io::preadv2(file, &mut [io::IoSliceMut::new(bytes)], at, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == bytes.len() => Some(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.offered.store(false, Ordering::Relaxed);
                None
            }
            _ => None,
        }
    }

    /// Nothing is known to be there.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(&self, _: &File, _: &mut [u8], _: u64) -> Option<()> {
        None
    }
}
