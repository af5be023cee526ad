//! The catalogue: the sorted key directory of each sealed segment, kept in sled. The only file that knows sled.
//!
//! It is derived from the log and never trusted further than its checksums: what is missing, damaged or behind is read from
//! the segment instead. From it an open fills the index without reading the log, and a pattern finds its keys in a short range.
//!
//! ```text
//! tree "blocks":   segment u32 BE | namespace | 0 | first key   ->  block | xxh3 of block and salt, u64
//! tree "segments": segment u32 BE  ->  salt u64 | length u64 | blocks u32 | highest sequence u64 | xxh3 of these u64
//! block:  namespace length u8 | namespace | words
//! word:   shared u16 | rest length u16 | rest of the key | sequence | offset / 8 | length / 8 | stale until
//!         (the four as LEB128; the first two bytes count how much of the key before is shared; length 0 = removed, and then
//!         there is no "stale until")
//! ```
//!
//! Blocks are of about 2 KiB, so that sled stores small values only: large ones leak files, whole values bloat, and
//! big `Batch`es take gigabytes (measured). sled lives on one thread of ours behind a bounded queue. A panic in it, an error or
//! a call that takes too long switches the catalogue off and costs nothing but the time to scan. A half-written snapshot, which
//! bricks sled 0.34, is removed before it is opened; a log that is shorter than it was, which makes it panic, is not opened at all.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::files::{self, bytes_below, make_folder};
use super::index::Place;
use super::notes;
use super::segment::Segment;

/// Where a block is full.
const BLOCK_BYTES: usize = 2 << 10;
/// sled's own cache, a hint to it: it holds a multiple.
const SLED_CACHE: u64 = 8 << 20;
/// Requests that may wait; a directory that comes when it is full is not kept.
const QUEUE: usize = 64;
/// How long an answer may take before the log is read instead.
const PATIENCE: Duration = Duration::from_secs(5);
/// The note that says how long sled's log was.
const SIZE_NOTE: &str = "catalogue-size";
const FOLDER: &str = "catalogue";

/// The last word of a segment on each of its keys, in order.
pub(super) struct Directory {
    pub(super) segment: u32,
    pub(super) words: BTreeMap<(Box<str>, Box<str>), Word>,
}

/// What a segment says last of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) sequence: u64,
    /// Where its value is, and until when it may be served (wall time, ms); `None` = removed.
    pub(super) value: Option<(Place, u64)>,
}

impl Directory {
    pub(super) fn new(segment: u32) -> Self {
        Self { segment, words: BTreeMap::new() }
    }

    pub(super) fn value(&mut self, namespace: &str, key: &str, place: Place, stale_until: u64, sequence: u64) {
        self.words.insert((namespace.into(), key.into()), Word { sequence, value: Some((place, stale_until)) });
    }

    pub(super) fn removal(&mut self, namespace: &str, key: &str, sequence: u64) {
        self.words.insert((namespace.into(), key.into()), Word { sequence, value: None });
    }

    /// Shows what stands under a namespace (or all) and a prefix, in order.
    pub(super) fn under(&self, namespace: Option<&str>, prefix: &str, visit: &mut dyn FnMut(&str, &str, &Word)) {
        match namespace {
            Some(namespace) => {
                let from: (Box<str>, Box<str>) = (namespace.into(), prefix.into());
                let range = self.words.range(from..);
                let within = range.take_while(|((name, key), _)| &**name == namespace && key.starts_with(prefix));
                within.for_each(|((name, key), word)| visit(name, key, word));
            }
            None => {
                let all = self.words.iter().filter(|((_, key), _)| key.starts_with(prefix));
                all.for_each(|((name, key), word)| visit(name, key, word));
            }
        }
    }

    /// The highest sequence in it.
    pub(super) fn highest(&self) -> u64 {
        self.words.values().map(|word| word.sequence).max().unwrap_or(0)
    }
}

/// The catalogue, or none.
pub(super) struct Catalogue {
    requests: Option<SyncSender<Request>>,
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
    pub(super) fn none() -> Self {
        Self { requests: None, bytes: Arc::default(), off: Arc::new(AtomicBool::new(true)) }
    }

    /// Opens, or makes, the catalogue below the tier's folder; none if that cannot be.
    pub(super) fn open(folder: &Path, budget: u64) -> Self {
        let (requests, inbox) = sync_channel(QUEUE);
        let catalogue = Self { requests: Some(requests), bytes: Arc::default(), off: Arc::default() };
        let (bytes, off) = (catalogue.bytes.clone(), catalogue.off.clone());
        let keeper = Keeper { folder: folder.to_owned(), budget, bytes, off };
        match std::thread::Builder::new().name("aurum-disk-catalogue".into()).spawn(move || keeper.run(&inbox)) {
            Ok(_) => catalogue,
            Err(_) => Self::none(),
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
        if let Some(requests) = self.requests.as_ref().filter(|_| !self.off.load(Ordering::Acquire)) {
            let _ = requests.try_send(request);
        }
    }

    /// With an answer, within bounded time.
    fn ask<T>(&self, request: impl FnOnce(SyncSender<T>) -> Request) -> Option<T> {
        let requests = self.requests.as_ref().filter(|_| !self.off.load(Ordering::Acquire))?;
        let (answer, answered) = sync_channel(1);
        requests.try_send(request(answer)).ok()?;
        let got = answered.recv_timeout(PATIENCE).ok();
        if got.is_none() {
            self.off.store(true, Ordering::Release);
        }
        got
    }
}

/// The thread that holds sled.
struct Keeper {
    folder: PathBuf,
    budget: u64,
    bytes: Arc<AtomicU64>,
    off: Arc<AtomicBool>,
}

struct Store {
    db: sled::Db,
    blocks: sled::Tree,
    segments: sled::Tree,
}

impl Keeper {
    fn run(self, inbox: &Receiver<Request>) {
        let mut store = self.open_store();
        self.measure();
        while let Ok(request) = inbox.recv() {
            let Some(open) = &mut store else { break };
            if let Request::Close(answer) = request {
                let flushed = catch_unwind(AssertUnwindSafe(|| open.db.flush())).is_ok_and(|flushed| flushed.is_ok());
                let _ = catch_unwind(AssertUnwindSafe(|| drop(store.take())));
                if flushed {
                    self.measure();
                }
                // Only now may somebody else open it.
                let _ = answer.send(());
                break;
            }
            // A request that panics or fails drops its answer, so whoever asked reads the log.
            let done = catch_unwind(AssertUnwindSafe(|| self.serve(open, request)));
            if !matches!(done, Ok(Ok(()))) {
                tracing::warn!("catalogue of the disk tier failed; it will be rebuilt when the tier is opened again");
                self.off.store(true, Ordering::Release);
                let _ = catch_unwind(AssertUnwindSafe(|| drop(store.take())));
                discard(&self.folder);
            }
        }
        self.off.store(true, Ordering::Release);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(store)));
    }

    /// sled as it lies in the folder, or a new one.
    fn open_store(&self) -> Option<Store> {
        let bytes = bytes_below(&self.folder.join(FOLDER)).unwrap_or(0);
        if self.is_cut() || bytes > self.budget {
            discard(&self.folder);
        }
        for _ in 0..2 {
            remove_half_written(&self.folder.join(FOLDER));
            if let Ok(Ok(store)) = catch_unwind(AssertUnwindSafe(|| open_sled(&self.folder.join(FOLDER)))) {
                return Some(store);
            }
            discard(&self.folder);
        }
        None
    }

    /// Is sled's log shorter than it was when it was last looked at, or not known to be whole?
    fn is_cut(&self) -> bool {
        let Ok(log) = files::look(&self.folder.join(FOLDER).join("db")) else { return true };
        let note = notes::read_note(&self.folder, SIZE_NOTE, 1024).ok().and_then(|(note, _)| note);
        let known = note.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        !log.is_file() || known.is_none_or(|known| log.len() < known)
    }

    /// Counts its bytes and notes how long its log is.
    fn measure(&self) {
        let bytes = bytes_below(&self.folder.join(FOLDER)).unwrap_or(0);
        self.bytes.store(bytes, Ordering::Relaxed);
        if let Ok(log) = files::look(&self.folder.join(FOLDER).join("db")) {
            let _ = notes::write_note(&self.folder, SIZE_NOTE, &log.len().to_le_bytes());
        }
    }

    fn serve(&self, store: &mut Store, request: Request) -> sled::Result<()> {
        match request {
            Request::Add { directory, salt, len } => self.add(store, &directory, salt, len),
            Request::Forget(segment) => store.forget(segment),
            Request::Read { segment, salt, len, under, answer } => {
                let _ = answer.send(store.read(segment, salt, len, under)?);
                Ok(())
            }
            Request::Retain(segments, answer) => {
                let known: Vec<_> = store.segments.iter().keys().collect::<sled::Result<_>>()?;
                for id in known.iter().filter_map(|key| Some(u32::from_be_bytes(*key.first_chunk()?))) {
                    if !segments.contains(&id) {
                        store.forget(id)?;
                    }
                }
                let _ = answer.send(());
                Ok(())
            }
            Request::Close(_) => Ok(()),
        }
    }

    fn add(&self, store: &mut Store, directory: &Directory, salt: u64, len: u64) -> sled::Result<()> {
        let blocks = blocks_of(directory);
        let size: usize = blocks.iter().map(|(key, block)| key.len() + block.len()).sum();
        // sled takes a multiple, and more in whole segments of its own; its files never shrink.
        if self.bytes.load(Ordering::Relaxed) + 4 * size as u64 + (2 << 20) > self.budget {
            return Err(sled::Error::Unsupported("the catalogue is over its budget".into()));
        }
        store.segments.remove(directory.segment.to_be_bytes())?;
        let count = blocks.len();
        for (key, mut block) in blocks {
            let sum = block_sum(&block, salt);
            block.extend_from_slice(&sum.to_le_bytes());
            store.blocks.insert(key, block)?;
        }
        let summary = summary(salt, len, count as u32, directory.highest());
        store.segments.insert(directory.segment.to_be_bytes(), &summary[..])?;
        store.db.flush()?;
        self.measure();
        Ok(())
    }
}

impl Store {
    fn forget(&self, segment: u32) -> sled::Result<()> {
        self.segments.remove(segment.to_be_bytes())?;
        for key in self.blocks.scan_prefix(segment.to_be_bytes()).keys() {
            self.blocks.remove(key?)?;
        }
        Ok(())
    }

    fn read(&self, segment: u32, salt: u64, len: u64, under: Option<(Box<str>, Box<str>)>) -> sled::Result<Option<Vec<Vec<u8>>>> {
        let Some(known) = self.segments.get(segment.to_be_bytes())? else { return Ok(None) };
        let (Some(count), Some(sequence)) = (u32_at(&known, 16), u64_at(&known, 20)) else { return Ok(None) };
        if known != summary(salt, len, count, sequence)[..] {
            return Ok(None);
        }
        let mut blocks = Vec::new();
        let all = under.is_none();
        let range = match under {
            None => self.blocks.scan_prefix(segment.to_be_bytes()),
            Some((namespace, prefix)) => {
                let from = block_key(segment, &namespace, &prefix);
                // The block before may hold the first of the keys.
                let start = match self.blocks.get_lt(&from)? {
                    Some((key, _)) if key.starts_with(&segment.to_be_bytes()) => key.to_vec(),
                    _ => from.clone(),
                };
                let end = after_prefix(&from);
                self.blocks.range(start..end)
            }
        };
        for item in range {
            let (_, block) = item?;
            let Some((body, sum)) = block.split_last_chunk::<8>() else { return Ok(None) };
            if u64::from_le_bytes(*sum) != block_sum(body, salt) {
                return Ok(None);
            }
            blocks.push(body.to_vec());
        }
        Ok((!all || blocks.len() == count as usize).then_some(blocks))
    }
}

fn open_sled(path: &Path) -> sled::Result<Store> {
    make_folder(path)?;
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(SLED_CACHE)
        .flush_every_ms(Some(1000))
        .print_profile_on_drop(false)
        .open()?;
    let (blocks, segments) = (db.open_tree("blocks")?, db.open_tree("segments")?);
    Ok(Store { db, blocks, segments })
}

/// A snapshot whose writing was cut short makes sled refuse its whole store.
fn remove_half_written(path: &Path) {
    for (name, path) in files::list(path).unwrap_or_default() {
        if name.to_string_lossy().ends_with(".generating") {
            let _ = files::remove_all(&path);
        }
    }
}

/// Throws sled's files away.
fn discard(folder: &Path) {
    let _ = files::remove_all(&folder.join(FOLDER));
}

fn block_key(segment: u32, namespace: &str, key: &str) -> Vec<u8> {
    [&segment.to_be_bytes(), namespace.as_bytes(), &[0], key.as_bytes()].concat()
}

/// The first key behind all that begin with `prefix`; the prefix begins with a number below `u32::MAX`.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn block_sum(block: &[u8], salt: u64) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(block);
    hash.update(&salt.to_le_bytes());
    hash.digest()
}

fn summary(salt: u64, len: u64, blocks: u32, sequence: u64) -> Vec<u8> {
    let mut bytes = [&salt.to_le_bytes()[..], &len.to_le_bytes(), &blocks.to_le_bytes(), &sequence.to_le_bytes()].concat();
    let sum = block_sum(&bytes, salt);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// A directory cut into blocks, each with its key.
fn blocks_of(directory: &Directory) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut blocks: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut before: Option<(&str, &str)> = None;
    for ((namespace, key), word) in &directory.words {
        let goes_on = before.is_some_and(|(name, _)| name == &**namespace)
            && blocks.last().is_some_and(|(_, block)| block.len() < BLOCK_BYTES);
        if !goes_on {
            let mut block = vec![namespace.len() as u8];
            block.extend_from_slice(namespace.as_bytes());
            blocks.push((block_key(directory.segment, namespace, key), block));
            before = None;
        }
        let shared = before.map_or(0, |(_, before)| before.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count());
        if let Some((_, block)) = blocks.last_mut() {
            block.extend_from_slice(&(shared as u16).to_le_bytes());
            block.extend_from_slice(&((key.len() - shared) as u16).to_le_bytes());
            block.extend_from_slice(&key.as_bytes()[shared..]);
            push_number(block, word.sequence);
            let (place, stale_until) = word.value.unwrap_or((Place { segment: 0, offset: 0, len: 0 }, 0));
            push_number(block, place.offset / 8);
            push_number(block, place.len / 8);
            if word.value.is_some() {
                push_number(block, stale_until);
            }
        }
        before = Some((namespace, key));
    }
    blocks
}

/// Shows the words of a block; `None` if it is not one of a segment of this length.
fn parse_block(block: &[u8], segment: u32, len: u64, visit: &mut dyn FnMut(&str, &str, &Word)) -> Option<()> {
    let (namespace_len, rest) = block.split_first()?;
    let (namespace, mut rest) = rest.split_at_checked(usize::from(*namespace_len))?;
    let namespace = str::from_utf8(namespace).ok()?;
    let mut key = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_first_chunk::<4>()?;
        let (shared, own) = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let (suffix, after) = after.split_at_checked(usize::from(own))?;
        if usize::from(shared) > key.len() {
            return None;
        }
        key.truncate(usize::from(shared));
        key.extend_from_slice(suffix);
        rest = after;
        let sequence = take_number(&mut rest)?;
        let (offset, size) = (take_number(&mut rest)?.checked_mul(8)?, take_number(&mut rest)?.checked_mul(8)?);
        let value = if size == 0 {
            None
        } else if offset.checked_add(size)? <= len {
            Some((Place { segment, offset, len: size }, take_number(&mut rest)?))
        } else {
            return None;
        };
        visit(namespace, str::from_utf8(&key).ok()?, &Word { sequence, value });
    }
    Some(())
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_say_what_the_directory_said() {
        let mut directory = Directory::new(3);
        for n in 0..1000_u64 {
            let place = Place { segment: 3, offset: n * 8, len: 64 };
            directory.value(if n % 3 == 0 { "curves" } else { "general" }, &format!("pjm:{n:05}"), place, 1 << 40, n);
            directory.removal("metadata", &format!("gone:{n}"), n);
        }
        let mut seen = BTreeMap::new();
        let blocks = blocks_of(&directory);
        assert!(blocks.is_sorted_by_key(|(key, _)| key.clone()));
        for (_, block) in &blocks {
            parse_block(block, 3, 1 << 20, &mut |name, key, word| {
                seen.insert((name.into(), key.into()), *word);
            })
            .unwrap();
        }
        assert_eq!(seen, directory.words);
    }

    #[test]
    fn no_bytes_make_the_parser_panic() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.usize(0..60)).map(|_| rng.u8(..) >> rng.u8(0..8)).collect();
            let _ = parse_block(&bytes, 1, 1000, &mut |_, _, _| {});
        }
    }
}
