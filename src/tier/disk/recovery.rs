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
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::catalogue::{Directory, Word};
use super::files::{self, How};
use super::index::{Place, SHARDS, deadline, shard_of};
use super::log::make_segment;
use super::notes::Ledger;
use super::scan::{End, Found, scan};
use super::segment::{FILE_HEAD, Segment, id_of, parse_file_head};
use super::writer::Writer;
use crate::namespace::{Namespace, NamespaceId};

/// The segment files of a folder by number.
///
/// # Errors
///
/// If the folder cannot be listed.
pub(super) fn segment_files(folder: &Path) -> io::Result<BTreeMap<u32, std::path::PathBuf>> {
    let mut files = BTreeMap::new();
    for (name, path) in files::list(folder)? {
        if let Some(id) = name.to_str().and_then(id_of) {
            files.insert(id, path);
        }
    }
    Ok(files)
}

/// Opens a segment file, if it is one and its head is whole.
pub(super) fn open_segment(id: u32, path: &Path, write: bool) -> io::Result<Option<Arc<Segment>>> {
    let file = files::open(path, if write { How::Edit } else { How::Read })?;
    let len = file.len()?;
    let mut head = [0; FILE_HEAD];
    if len < FILE_HEAD as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, 0)?;
    let Some(salt) = parse_file_head(&head, id) else { return Ok(None) };
    Ok(Some(Arc::new(Segment::new(id, salt, path.to_owned(), file, len))))
}

/// What a scan of one segment says.
pub(super) struct Scanned {
    pub(super) directory: Directory,
    pub(super) end: End,
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
            directory.clear();
        }
    })?;
    if !end.sealed && (!last || end.is_tail_damaged) {
        damaged += 1;
        distrust = true;
        directory.clear();
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
    /// Makes the folder ready for notes and events: it clears away what a killed process left half made, and opens the ledger.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.tidy()?;
        let ledger = Ledger::open(&self.config.path, self.config.notes_budget()).unwrap_or_else(|_| Ledger::empty());
        self.ledger_is(&ledger);
        *self.ledger.lock() = ledger;
        Ok(())
    }

    /// Brings the index to what the folder says, and gives the writer its place. `patient`: what cannot be read now is an error, and nothing is
    /// lost by it; else it counts as damaged.
    ///
    /// # Errors
    ///
    /// What the system says. The folder can be tried again.
    pub(super) fn recover(self: &Arc<Self>, patient: bool) -> io::Result<Writer> {
        let folder = &self.config.path;
        self.index.clear();
        self.index.load();
        self.segments.clear();
        let files = segment_files(folder)?;
        let newest = files.last_key_value().map(|(id, _)| *id);
        let mut open: Option<(Arc<Segment>, u64, bool)> = None;
        let mut apply = Apply::new(self);
        let (mut sequence, mut expected) = (0, None);
        let is_fatal = |error: &io::Error| files::is_passing(error) || patient && !files::is_foreign(error);
        for (id, path) in &files {
            self.recovered.fetch_add(1, Ordering::AcqRel);
            let last = Some(*id) == newest;
            if expected.is_some_and(|expected| expected != *id) {
                self.distrust()?;
            }
            expected = id.checked_add(1);
            let segment = match open_segment(*id, path, true) {
                Ok(Some(segment)) => segment,
                Err(error) if is_fatal(&error) => return Err(error),
                // Not a segment (any more): what it said is not known. A file of the newest number without a whole head is one
                // whose making was cut short.
                Ok(None) | Err(_) => {
                    if !last || files::look(path).map_or(true, |file| !file.is_file() || file.len() > FILE_HEAD as u64) {
                        self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                        self.distrust()?;
                    }
                    files::remove_all(path)?;
                    continue;
                }
            };
            let known =
                if last { None } else { self.catalogue.load(&segment, &mut |name, key, word| apply.word(name, key, word)) };
            let (directory, end) = match known {
                Some(highest) => {
                    sequence = sequence.max(highest);
                    self.counts.catalogued.fetch_add(1, Ordering::Relaxed);
                    (Directory::new(*id), None)
                }
                None => {
                    // The segment itself says it better than a part of its catalogue.
                    apply.forget();
                    let scanned = match scan_segment(&segment, last) {
                        Ok(scanned) => scanned,
                        Err(error) if is_fatal(&error) => return Err(error),
                        Err(_) => {
                            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                            self.distrust()?;
                            files::remove_all(path)?;
                            continue;
                        }
                    };
                    self.counts.damaged.fetch_add(scanned.damaged, Ordering::Relaxed);
                    if scanned.distrust {
                        self.distrust()?;
                    }
                    sequence = sequence.max(scanned.end.sequence);
                    if last && scanned.end.is_tail_damaged && !scanned.end.sealed {
                        // Cut off it would look whole at the next opening, and what stands before would be believed again.
                        files::remove_all(path)?;
                        continue;
                    }
                    (scanned.directory, Some((scanned.end, scanned.distrust)))
                }
            };
            directory.under(None, "", &mut |name, key, word| apply.word(name, key, word));
            apply.land();
            self.segments.insert(segment.clone());
            if last {
                let (at, records, sealed) = end.map_or((segment.len(), 0, true), |(end, _)| (end.at, end.records, end.sealed));
                if at != segment.len() {
                    segment.file.set_len(at)?;
                    segment.len.store(at, Ordering::Release);
                }
                *self.directory.lock() = directory;
                open = Some((segment, records, sealed));
            } else if end.is_some_and(|(end, distrust)| end.sealed && !distrust) {
                self.sealed(&segment, directory);
            }
        }
        self.index.settle();
        let (open, records, sealed) = match open {
            Some(open) => open,
            None => {
                // Without a gap behind what was kept, or nothing of it would be believed at the next opening.
                let segment = make_segment(folder, self.segments.newest().map_or(1, |newest| newest.saturating_add(1)))?;
                *self.directory.lock() = Directory::new(segment.id);
                self.segments.insert(segment.clone());
                (segment, 0, false)
            }
        };
        self.catalogue.retain(self.segments.all().iter().map(|segment| segment.id).collect());
        {
            let mut queue = self.queue.lock();
            if queue.last == 0 {
                self.written.store(sequence, Ordering::Release);
            }
            queue.last = queue.last.max(sequence);
        }
        let (shared, log_bytes) = (self.clone(), self.segments.bytes());
        let mut writer = Writer::new(shared, open, records, log_bytes, sealed);
        writer.keep_budget()?;
        self.unread.store(false, Ordering::Release);
        Ok(writer)
    }

    /// What is in the index and the files so far may have been replaced or removed by something unreadable.
    fn distrust(&self) -> io::Result<()> {
        self.index.clear();
        for segment in self.segments.all() {
            self.segments.drop_segment(segment.id)?;
            self.catalogue.forget(segment.id);
            self.counts.distrusted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Clears away what a killed process may have left half made: files of ours only, for the folder may be somebody's by mistake.
    fn tidy(&self) -> io::Result<()> {
        let is_ours = |name: &str| name.ends_with(".note.tmp") || matches!(name, "ledger.tmp" | "probe.tmp");
        for (name, path) in files::list(&self.config.path)? {
            if name.to_str().is_some_and(is_ours) {
                files::remove_all(&path)?;
            }
        }
        Ok(())
    }
}

/// Enters last words into the index, oldest segment first. They are gathered by shard, so that one lock and a small part of the memory
/// serve many of them.
struct Apply<'a> {
    shared: &'a Shared,
    now: u64,
    offset: i64,
    /// The namespace of the word before.
    namespace: (String, Option<NamespaceId>),
    /// Of each shard.
    gathered: [Vec<Gathered>; SHARDS],
}

/// A hash, and the place and deadline of its value; `None` = removed, or past its time.
type Gathered = (u64, Option<(Place, u32)>);

impl<'a> Apply<'a> {
    fn new(shared: &'a Shared) -> Self {
        let (now, offset) = (shared.clock.steady(), shared.clock.wall_offset());
        Self { shared, now, offset, namespace: (String::new(), None), gathered: [const { Vec::new() }; SHARDS] }
    }

    fn word(&mut self, name: &str, key: &str, word: &Word) {
        if self.namespace.0 != name {
            self.namespace = (name.to_owned(), Namespace::parse(name).and_then(Namespace::id).ok());
        }
        let Some(id) = self.namespace.1 else { return };
        let hash = self.shared.hasher.hash(id, key);
        let value = word.value.map(|(place, until)| (place, until.saturating_add_signed(-self.offset)));
        let value = value.filter(|(_, until)| *until > self.now).map(|(place, until)| (place, deadline(until)));
        self.gathered[shard_of(hash)].push((hash, value));
    }

    /// Lets go of what was gathered.
    fn forget(&mut self) {
        self.gathered.iter_mut().for_each(Vec::clear);
    }

    /// Lets the gathered words hold.
    fn land(&mut self) {
        for words in self.gathered.iter_mut().filter(|words| !words.is_empty()) {
            let mut shard = self.shared.index.shard(words[0].0);
            for (hash, value) in words.drain(..) {
                match value {
                    Some((place, deadline)) => shard.insert(hash, place, deadline),
                    // What it replaced is gone, too.
                    None => drop(shard.remove(hash)),
                }
            }
        }
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
