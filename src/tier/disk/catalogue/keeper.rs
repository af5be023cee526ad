//! The thread that holds sled. The only file that knows sled.
//!
//! A panic in it or an error ends the catalogue until the tier is opened again, and its files are thrown away: they are derived. So is what
//! sled must not be shown: a log that was cut, more files than the budget allows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;

use parking_lot::Mutex;

use super::super::files::{self, bytes_below, make_folder};
use super::super::notes;
use super::block::{after_prefix, block_key, block_sum, blocks_of, summary, u32_at, u64_at};
use super::{Directory, Request};

/// sled's own cache, a hint to it: it holds a multiple.
const SLED_CACHE: u64 = 8 << 20;
/// Threads that sled makes: at open, and for its pool at its first use. If the pool gets none then, all that it is asked for waits for ever.
const SLED_THREADS: usize = 9;
/// The note that says how long sled's log was.
const SIZE_NOTE: &str = "catalogue-size";
const FOLDER: &str = "catalogue";

/// What the thread works with.
pub(super) struct Keeper {
    pub(super) folder: PathBuf,
    /// Bytes that its files may take.
    pub(super) budget: u64,
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) off: Arc<AtomicBool>,
}

struct Store {
    db: sled::Db,
    blocks: sled::Tree,
    segments: sled::Tree,
}

impl Keeper {
    /// Serves until it is told to close, or nobody can ask any more.
    pub(super) fn run(self, inbox: &Receiver<Request>) {
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
        if !has_threads(SLED_THREADS) {
            tracing::warn!("too few threads for the catalogue of the disk tier; the log is read instead");
            return None;
        }
        let bytes = bytes_below(&self.folder.join(FOLDER)).unwrap_or(0);
        if self.is_cut() || bytes > self.budget {
            discard(&self.folder);
        }
        for _ in 0..2 {
            remove_half_written(&self.folder.join(FOLDER));
            if let Ok(Ok(store)) = catch_unwind(AssertUnwindSafe(|| open_sled(&self.folder.join(FOLDER), self.budget))) {
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
                // Whatever lies there, this uses sled's pool, now that there are threads for it.
                store.db.insert("opened", &segments.len().to_le_bytes())?;
                store.db.flush()?;
                Ok(())
            }
            Request::Close(_) => Ok(()),
        }
    }

    fn add(&self, store: &mut Store, directory: &Directory, salt: u64, len: u64) -> sled::Result<()> {
        let (id, mut size) = (directory.segment, 0);
        blocks_of(id, directory.last_words(None, ""), |key, block| {
            size += key.len() + block.len();
            Ok::<_, sled::Error>(())
        })?;
        // sled takes a multiple, and more in whole segments of its own; its files never shrink.
        if self.bytes.load(Ordering::Relaxed) + 4 * size as u64 + 4 * sled_segment(self.budget) > self.budget {
            return Err(sled::Error::Unsupported("the catalogue is over its budget".into()));
        }
        store.segments.remove(id.to_be_bytes())?;
        let (mut count, mut highest) = (0, 0);
        let words = directory.last_words(None, "").inspect(|(_, _, word)| highest = highest.max(word.sequence));
        blocks_of(id, words, |key, block| {
            count += 1;
            let sum = block_sum(block, salt);
            block.extend_from_slice(&sum.to_le_bytes());
            store.blocks.insert(key, &block[..]).map(|_| ())
        })?;
        store.segments.insert(id.to_be_bytes(), &summary(salt, len, count, highest)[..])?;
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

/// sled's unit of writing, for a catalogue of so many bytes at most; its default, or four times that. Each buffer of this size is allocated anew
/// and aligned, which the holes that others left seldom are: with 500 000 entries the default left 25 MiB more of them than this.
/// Sixteen blocks with their keys must fit in, or sled makes files of its own for them. sled refuses files of another unit: a capacity that
/// was changed across the bound costs one open that reads the log.
fn sled_segment(budget: u64) -> u64 {
    if budget < 32 << 20 { 512 << 10 } else { 2 << 20 }
}

fn open_sled(path: &Path, budget: u64) -> sled::Result<Store> {
    make_folder(path)?;
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(SLED_CACHE)
        .segment_size(sled_segment(budget) as usize)
        .flush_every_ms(Some(1000))
        .print_profile_on_drop(false)
        .open()?;
    let (blocks, segments) = (db.open_tree("blocks")?, db.open_tree("segments")?);
    Ok(Store { db, blocks, segments })
}

/// Does the system give so many threads?
fn has_threads(count: usize) -> bool {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let waiting = || {
        let gate = gate.clone();
        thread::Builder::new().spawn(move || drop(gate.lock())).ok()
    };
    let threads: Vec<_> = (0..count).map_while(|_| waiting()).collect();
    drop(closed);
    let given = threads.len();
    // They do nothing that could fail.
    threads.into_iter().for_each(|thread| drop(thread.join()));
    given == count
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
