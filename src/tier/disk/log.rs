//! The log's segments: which there are, how they are made and dropped, and how one is read without waiting.
//!
//! Segments are numbered without gaps; the highest is open, all others are sealed and never change. Only the writer thread
//! makes, appends and drops; readers look it up in a published list and read without any lock. A dropped
//! segment's name is gone at once, its space when the last reader lets go of it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use super::files::{self, Handle, How, sync_folder};
use super::segment::{FILE_HEAD, Segment, file_head, file_name};

/// The segments there are, oldest first. Readers take the list as it is at that moment; whoever changes it publishes another.
#[derive(Default)]
pub(super) struct Segments {
    list: ArcSwap<Vec<Arc<Segment>>>,
    /// Held by who changes it.
    editing: Mutex<()>,
}

/// The list at one moment, found without a lock.
pub(super) struct Listed(Guard<Arc<Vec<Arc<Segment>>>>);

impl Listed {
    pub(super) fn get(&self, id: u32) -> Option<&Arc<Segment>> {
        // Numbers have gaps only where damage made them.
        let near = id.wrapping_sub(self.0.first()?.id) as usize;
        match self.0.get(near) {
            Some(segment) if segment.id == id => Some(segment),
            _ => self.0.binary_search_by_key(&id, |segment| segment.id).ok().map(|at| &self.0[at]),
        }
    }
}

impl Segments {
    pub(super) fn listed(&self) -> Listed {
        Listed(self.list.load())
    }

    /// Adds a segment, in the place of one with its number.
    pub(super) fn insert(&self, segment: Arc<Segment>) {
        self.edit(|list| {
            let at = list.partition_point(|other| other.id < segment.id);
            if list.get(at).is_some_and(|other| other.id == segment.id) {
                list[at] = segment;
            } else {
                list.insert(at, segment);
            }
        });
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Segment>> {
        self.list.load().to_vec()
    }

    pub(super) fn oldest(&self) -> Option<Arc<Segment>> {
        self.list.load().first().cloned()
    }

    /// The highest number.
    pub(super) fn newest(&self) -> Option<u32> {
        self.list.load().last().map(|segment| segment.id)
    }

    /// The first one after `id`.
    pub(super) fn after(&self, id: Option<u32>) -> Option<Arc<Segment>> {
        self.list.load().iter().find(|segment| id.is_none_or(|id| segment.id > id)).cloned()
    }

    pub(super) fn count(&self) -> u64 {
        self.list.load().len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.list.load().iter().map(|segment| segment.len()).sum()
    }

    /// Takes a segment away, name first.
    pub(super) fn drop_segment(&self, id: u32) -> io::Result<()> {
        let Some(segment) = self.listed().get(id).cloned() else { return Ok(()) };
        match files::remove(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.edit(|list| list.retain(|segment| segment.id != id));
        Ok(())
    }

    pub(super) fn clear(&self) {
        self.edit(Vec::clear);
    }

    fn edit(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let _alone = self.editing.lock();
        let mut list = self.all();
        change(&mut list);
        self.list.store(Arc::new(list));
    }
}

/// Makes the file of segment `id`, with its head in it. Head and name are on the device before anything is appended, so that a file
/// without a whole head never held a record.
pub(super) fn make_segment(folder: &Path, id: u32) -> io::Result<Arc<Segment>> {
    let path = folder.join(file_name(id));
    match files::remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files::open(&path, How::New)?;
    let salt = fastrand::u64(..);
    let written = file.write_all_at(&file_head(id, salt), 0).and_then(|()| file.sync_data()).and_then(|()| sync_folder(folder));
    if let Err(error) = written {
        let _ = files::remove(&path);
        return Err(error);
    }
    Ok(Arc::new(Segment::new(id, salt, path, file, FILE_HEAD as u64)))
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

    /// Fills `bytes` from `at` on; `None` if they are not all there, or if the system cannot tell.
    #[cfg(target_os = "linux")]
    pub(super) fn read(&self, file: &Handle, bytes: &mut [u8], at: u64) -> Option<()> {
        if !self.offered.load(Ordering::Relaxed) {
            return None;
        }
        let wanted = bytes.len();
        self.heed(rustix::io::preadv2(file, &mut [io::IoSliceMut::new(bytes)], at, rustix::io::ReadWriteFlags::NOWAIT), wanted)
    }

    /// What the system's answer means. A kernel without the call and a file system without the flag are not asked again.
    #[cfg(target_os = "linux")]
    pub(super) fn heed(&self, answer: rustix::io::Result<usize>, wanted: usize) -> Option<()> {
        use rustix::io::Errno;

        match answer {
            Ok(read) if read == wanted => Some(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.offered.store(false, Ordering::Relaxed);
                None
            }
            // A part of it, or nothing (`AGAIN`), is in the page cache; or the device fails, which is for who may wait to find out.
            Ok(_) | Err(_) => None,
        }
    }

    /// Nothing is known to be there.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(&self, _: &Handle, _: &mut [u8], _: u64) -> Option<()> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_system_that_cannot_tell_what_is_cached_is_asked_once() {
        for lack in [Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL] {
            let cached = CachedReads::new();
            assert_eq!(cached.heed(Err(lack), 8), None);
            assert!(!cached.offered.load(Ordering::Relaxed), "{lack}");
        }
    }

    #[test]
    fn what_is_not_cached_or_fails_is_left_to_who_may_wait_and_asked_for_again() {
        let cached = CachedReads::new();
        for answer in [Err(Errno::AGAIN), Err(Errno::IO), Ok(0), Ok(7)] {
            assert_eq!(cached.heed(answer, 8), None);
        }
        assert_eq!(cached.heed(Ok(8), 8), Some(()));
    }

    #[test]
    fn what_was_just_written_is_read_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let file = files::open(&folder.path().join("file"), How::New).unwrap();
        file.write_all_at(b"written", 0).unwrap();
        let (cached, mut bytes) = (CachedReads::new(), [0; 7]);
        // A file system without the flag says so, and then nothing is read.
        assert!(cached.read(&file, &mut bytes, 0).is_none_or(|()| &bytes == b"written"));
        assert_eq!(cached.read(&file, &mut [0; 8], 0), None, "one byte more than there is");
    }
}
