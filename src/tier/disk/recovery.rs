//! Opening: from whatever lies in the folder to an index that tells the truth.
//!
//! Segments are read oldest first, so that a later word on a key replaces an earlier one. Damage never fails an open, but it
//! may have been a removal or a newer value, so that what it could have spoken of is not believed any more:
//!
//! - a torn tail of the newest segment is what a killed writer leaves: nothing that was acknowledged, cut off;
//! - a value with a readable key and damaged bytes counts as a removal of that key;
//! - bytes in the middle that say nothing, a sealed segment without its seal, a missing number: all
//!   that is *older* is let go, for nobody knows which of it was replaced or removed there.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use super::catalogue::{Directory, Word};
use super::index::{Place, deadline};
use super::log::{make_segment, open_private};
use super::segment::{FILE_HEAD, Found, Segment, id_of, parse_file_head, scan};
use super::writer::Writer;
use crate::error::Error;
use crate::namespace::{Namespace, NamespaceId};

/// The segment files of a folder by number.
///
/// # Errors
///
/// If the folder cannot be listed.
pub(super) fn segment_files(folder: &Path) -> io::Result<BTreeMap<u32, std::path::PathBuf>> {
    let mut files = BTreeMap::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if let Some(id) = file.file_name().to_str().and_then(id_of) {
            files.insert(id, file.path());
        }
    }
    Ok(files)
}

/// Opens a segment file, if it is one and its head is whole.
pub(super) fn open_segment(id: u32, path: &Path, write: bool) -> io::Result<Option<Arc<Segment>>> {
    let file = open_private(path, OpenOptions::new().read(true).write(write))?;
    let len = file.metadata()?.len();
    let mut head = [0; FILE_HEAD];
    if len < FILE_HEAD as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    let Some(salt) = parse_file_head(&head, id) else { return Ok(None) };
    Ok(Some(Arc::new(Segment { id, salt, path: path.to_owned(), file, len: AtomicU64::new(len), synced: AtomicU64::new(0) })))
}

/// What a scan of one segment says.
pub(super) struct Scanned {
    pub(super) directory: Directory,
    pub(super) end: super::segment::End,
    /// Something in it could not be read, so that nothing older is to be believed.
    pub(super) distrust: bool,
    /// Damaged places.
    pub(super) damaged: u64,
}

/// Reads a segment from end to end. `last`: the newest one, whose tail may be torn.
pub(super) fn scan_segment(segment: &Segment, last: bool) -> io::Result<Scanned> {
    let mut directory = Directory::new(segment.id);
    let (mut distrust, mut damaged) = (false, 0);
    let end = scan(&segment.file, segment.salt, segment.len(), &mut |found| match found {
        Found::Value { place, sequence, namespace, key, header, intact: true } => {
            directory.value(
                namespace,
                key,
                Place { segment: segment.id, offset: place.0, len: place.1 },
                header.stale_until,
                sequence,
            );
        }
        Found::Value { sequence, namespace, key, .. } => {
            damaged += 1;
            directory.removal(namespace, key, sequence);
        }
        Found::Removal { sequence, namespace, key } => directory.removal(namespace, key, sequence),
        Found::Damage => {
            damaged += 1;
            distrust = true;
            directory.words.clear();
        }
    })?;
    if !last && !end.sealed {
        damaged += 1;
        distrust = true;
        directory.words.clear();
    }
    Ok(Scanned { directory, end, distrust, damaged })
}

/// The last words of a segment as far as they can be read: what a sweep wants, whatever is damaged between them.
pub(super) fn list_segment(segment: &Segment) -> io::Result<Directory> {
    let mut directory = Directory::new(segment.id);
    scan(&segment.file, segment.salt, segment.len(), &mut |found| match found {
        Found::Value { place: (offset, len), sequence, namespace, key, header, .. } => {
            let place = Place { segment: segment.id, offset, len };
            directory.value(namespace, key, place, header.stale_until, sequence);
        }
        Found::Removal { sequence, namespace, key } => directory.removal(namespace, key, sequence),
        Found::Damage => {}
    })?;
    Ok(directory)
}

impl Shared {
    /// Brings the index to what the folder says, and gives the writer its place.
    pub(super) fn recover(self: &Arc<Self>) -> Result<Writer, Error> {
        let folder = &self.config.path;
        let fail = |error| Error::io(self.subject(), error);
        self.tidy().map_err(fail)?;
        let files = segment_files(folder).map_err(fail)?;
        let newest = files.last_key_value().map(|(id, _)| *id);
        let mut open: Option<(Arc<Segment>, u64, bool)> = None;
        let (mut sequence, mut expected) = (0, None);
        for (id, path) in &files {
            let last = Some(*id) == newest;
            if expected.is_some_and(|expected| expected != *id) {
                self.distrust();
            }
            expected = id.checked_add(1);
            let segment = match open_segment(*id, path, true) {
                Ok(Some(segment)) => segment,
                // Not a segment (any more): what it said is not known. A file of the newest number without a whole head is one
                // whose making was cut short.
                Ok(None) | Err(_) => {
                    if !last || path.metadata().map_or(true, |file| file.len() > FILE_HEAD as u64) {
                        self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                        self.distrust();
                    }
                    remove(path);
                    continue;
                }
            };
            let mut apply = Apply::new(self);
            let known =
                if last { None } else { self.catalogue.load(&segment, &mut |name, key, word| apply.word(name, key, word)) };
            let (directory, end) = match known {
                Some(highest) => {
                    sequence = sequence.max(highest);
                    self.counts.catalogued.fetch_add(1, Ordering::Relaxed);
                    (Directory::new(*id), None)
                }
                None => {
                    let scanned = match scan_segment(&segment, last) {
                        Ok(scanned) => scanned,
                        Err(_) => {
                            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                            self.distrust();
                            remove(path);
                            continue;
                        }
                    };
                    self.counts.damaged.fetch_add(scanned.damaged, Ordering::Relaxed);
                    if scanned.distrust {
                        self.distrust();
                    }
                    sequence = sequence.max(scanned.end.sequence);
                    (scanned.directory, Some((scanned.end, scanned.distrust)))
                }
            };
            directory.under(None, "", &mut |name, key, word| apply.word(name, key, word));
            self.segments.insert(segment.clone());
            if last {
                let (at, records, sealed) = end.map_or((segment.len(), 0, true), |(end, _)| (end.at, end.records, end.sealed));
                segment.file.set_len(at).map_err(fail)?;
                segment.len.store(at, Ordering::Release);
                *self.directory.lock() = directory;
                open = Some((segment, records, sealed));
            } else if end.is_some_and(|(end, distrust)| end.sealed && !distrust) {
                self.sealed(&segment, directory);
            }
        }
        let (open, records, sealed) = match open {
            Some(open) => open,
            None => {
                let segment = make_segment(folder, newest.map_or(1, |newest| newest.saturating_add(1))).map_err(fail)?;
                *self.directory.lock() = Directory::new(segment.id);
                self.segments.insert(segment.clone());
                (segment, 0, false)
            }
        };
        self.catalogue.retain(self.segments.all().iter().map(|segment| segment.id).collect());
        self.queue.lock().last = sequence;
        self.written.store(sequence, Ordering::Release);
        let log_bytes = self.segments.bytes();
        let mut writer = Writer { shared: self.clone(), open, records, log_bytes, torn: false, sealed };
        writer.keep_budget().map_err(fail)?;
        Ok(writer)
    }

    /// What is in the index and the files so far may have been replaced or removed by something unreadable.
    fn distrust(&self) {
        self.index.clear();
        for segment in self.segments.all() {
            let _ = self.segments.drop_segment(segment.id);
            self.catalogue.forget(segment.id);
            self.counts.distrusted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Clears away what a killed process may have left half made.
    fn tidy(&self) -> io::Result<()> {
        for file in std::fs::read_dir(&self.config.path)? {
            let file = file?;
            if file.file_name().to_str().is_some_and(|name| name.ends_with(".tmp")) {
                remove(&file.path());
            }
        }
        Ok(())
    }
}

/// Enters last words into the index, oldest segment first.
struct Apply<'a> {
    shared: &'a Shared,
    now: u64,
    offset: i64,
    /// The namespace of the word before.
    namespace: (String, Option<NamespaceId>),
}

impl<'a> Apply<'a> {
    fn new(shared: &'a Shared) -> Self {
        let (now, offset) = (shared.clock.steady(), shared.clock.wall_offset());
        Self { shared, now, offset, namespace: (String::new(), None) }
    }

    fn word(&mut self, name: &str, key: &str, word: &Word) {
        if self.namespace.0 != name {
            self.namespace = (name.to_owned(), Namespace::parse(name).and_then(Namespace::id).ok());
        }
        let Some(id) = self.namespace.1 else { return };
        let hash = self.shared.hasher.hash(id, key);
        let mut shard = self.shared.index.shard(hash);
        let value = word.value.map(|(place, until)| (place, until.saturating_add_signed(-self.offset)));
        match value {
            Some((place, until)) if until > self.now => shard.insert(hash, place, deadline(until)),
            // Removed, or past its time: gone, and so is what it replaced.
            _ => {
                shard.remove(hash);
            }
        }
    }
}

/// Takes a name of ours away, whatever stands there.
fn remove(path: &Path) {
    if std::fs::remove_file(path).is_err() && path.symlink_metadata().is_ok_and(|file| file.is_dir()) {
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::file_head;
    use super::*;

    #[test]
    fn a_file_head_belongs_to_one_number() {
        let head = file_head(7, 99);
        assert_eq!(parse_file_head(&head, 7), Some(99));
        assert_eq!(parse_file_head(&head, 8), None);
    }
}
