//! The writer: the one thread that appends.
//!
//! Callers push to a queue under a short lock; the writer takes what is there (up to two megabytes), appends it with one `write`,
//! points the index to it and tells who waits. Nothing lingers: an idle writer writes at once. Where a record
//! is no longer the newest word on its key when it was appended, the index is left alone.
//!
//! When the system refuses, the tier goes down ([`down`](super::down)).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::Shared;
use super::catalogue::Directory;
use super::down::gone;
use super::index::{Place, deadline};
use super::log::make_segment;
use super::queue::{Op, What};
use super::segment::{Batch, Kind, RECORD_HEAD, RecordHead, SEAL_LEN, Segment, parse_value};
use crate::entry::Header;
use crate::error::{Error, ErrorKind};

/// How much is appended with one call. The kernel keeps a call's bytes in ten pieces or so, however many they are, and a read that goes over the edge
/// of two costs half as much again: of records of 1 KiB, one to three in a hundred with 1 MiB. With 4 MiB the writer keeps less in step with
/// who fills the queue, a fifth less a second.
const BATCH_BYTES: u64 = 2 << 20;
/// A larger buffer than this, which a very large value needed, is not kept.
const KEPT_BYTES: usize = 2 * BATCH_BYTES as usize;

/// A segment with this many records is full, so that its directory stays small.
const SEGMENT_RECORDS: u64 = 1 << 16;

/// The writer's own: where it appends.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) open: Arc<Segment>,
    pub(super) records: u64,
    /// Sum of the lengths of all segments.
    pub(super) log_bytes: u64,
    /// A failed write may have left something behind the last record.
    pub(super) torn: bool,
    /// The open segment has its seal already, but there is no next one yet.
    pub(super) sealed: bool,
    /// How often the tier had gone down when it was last tried.
    pub(super) falls: u64,
    /// All that is owed is in the log when what has this sequence is; `None` = not known yet.
    owed_until: Option<u64>,
    /// The tier is being closed while it is down, and was tried once more.
    pub(super) tried_last: bool,
    /// In which batches are gathered: one for all, as large ones that come and go leave holes in the heap.
    buffer: Vec<u8>,
}

/// The body of the writer's thread.
pub(super) fn run(shared: &Arc<Shared>) {
    let ended = Ended(shared.clone());
    // Who opens has been told of an error.
    if let Ok(writer) = shared.open_folder()
        && let Some(writer) = writer.or_else(|| shared.read_late())
    {
        writer.run();
    }
    shared.catalogue.close();
    drop(ended);
}

impl Writer {
    /// Appends to `open` from the record after `records` on; the log has `log_bytes`.
    pub(super) fn new(shared: Arc<Shared>, open: Arc<Segment>, records: u64, log_bytes: u64, sealed: bool) -> Self {
        // Its pages are there once they are written to.
        let buffer = Vec::with_capacity(BATCH_BYTES as usize + (64 << 10));
        Self {
            shared,
            open,
            records,
            log_bytes,
            torn: false,
            sealed,
            falls: u64::MAX,
            owed_until: None,
            tried_last: false,
            buffer,
        }
    }

    /// Runs until the queue is closed and empty, or closed and the tier down.
    fn run(mut self) {
        while let Some((ops, bytes)) = self.wait() {
            let result = self.append(ops);
            self.settle(bytes, result);
            if std::mem::take(&mut self.shared.queue.lock().tidy)
                && let Err(error) = self.tidy()
            {
                self.shared.fail(error);
            }
        }
        self.end();
    }

    /// The next operations and their bytes; `None` to end.
    fn wait(&mut self) -> Option<(VecDeque<Op>, u64)> {
        let mut queue = self.shared.queue.lock();
        loop {
            let down = self.shared.is_down();
            if down && queue.wants_mark() {
                MutexGuard::unlocked(&mut queue, || self.shared.mark_debt());
                continue;
            }
            if down && queue.closing {
                if std::mem::replace(&mut self.tried_last, true) {
                    return None;
                }
                break;
            }
            if down && queue.retry {
                (queue.retry, queue.is_mark_tried) = (false, self.shared.debt.is_marked());
                break;
            }
            if !down && (queue.tidy || !queue.ops.is_empty()) {
                break;
            }
            if queue.closing {
                return None;
            }
            self.shared.work.wait(&mut queue);
        }
        let (mut ops, mut bytes) = (VecDeque::new(), 0);
        while let Some(op) = queue.ops.pop_front() {
            bytes += op.len();
            ops.push_back(op);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Some((ops, bytes))
    }

    /// Appends all, or says what is left and why.
    fn append(&mut self, mut ops: VecDeque<Op>) -> Result<u64, (VecDeque<Op>, io::Error)> {
        let mut last = self.shared.written.load(Ordering::Acquire);
        self.falls = u64::MAX;
        if self.shared.is_down() {
            match self.come_back() {
                // Nothing is left that these could take back.
                Ok(true) => ops.clear(),
                Ok(false) => {}
                Err(error) => return Err((ops, error)),
            }
        }
        while !ops.is_empty() {
            match self.append_some(&ops) {
                Ok(done) => {
                    for op in ops.drain(..done) {
                        last = op.sequence;
                    }
                    self.shared.written.fetch_max(last, Ordering::AcqRel);
                }
                Err(error) => return Err((ops, error)),
            }
        }
        Ok(last)
    }

    /// Appends as many as fit into the open segment, at least one; how many.
    fn append_some(&mut self, ops: &VecDeque<Op>) -> io::Result<usize> {
        let first = ops.front().map_or(0, Op::len);
        self.make_room(first)?;
        let limit = self.shared.config.segment() - SEAL_LEN;
        let budget = self.shared.config.write_budget();
        let mut batch = Batch::in_buffer(std::mem::take(&mut self.buffer), self.open.salt, self.open.len());
        let mut places = Vec::new();
        for op in ops {
            let len = op.len();
            let full = batch.end() + len > limit
                || self.records + places.len() as u64 >= SEGMENT_RECORDS
                || self.log_bytes + (batch.bytes.len() as u64) + len > budget;
            if full && !places.is_empty() {
                break;
            }
            let (namespace, key) = op.names();
            let place = Place { segment: self.open.id, offset: batch.end(), len };
            match &op.what {
                What::Put(entry) => {
                    batch.value(op.sequence, namespace, key, &entry.header(&self.shared.clock), entry.payload());
                    self.shared.counts.payload_bytes_written.fetch_add(entry.payload().len() as u64, Ordering::Relaxed);
                }
                What::Remove(..) => {
                    batch.removal(op.sequence, namespace, key);
                }
            }
            places.push(place);
        }
        self.write(&batch)?;
        if batch.bytes.capacity() <= KEPT_BYTES {
            self.buffer = batch.bytes;
        }
        self.records += places.len() as u64;
        for (op, place) in ops.iter().zip(&places) {
            self.publish(op, *place);
        }
        Ok(places.len())
    }

    /// Points the index to what was appended, unless something newer was said meanwhile.
    fn publish(&self, op: &Op, place: Place) {
        let (namespace, key) = op.names();
        {
            let mut directory = self.shared.directory.lock();
            match &op.what {
                What::Put(entry) => {
                    let wall = entry.stale_until().saturating_add_signed(self.shared.clock.wall_offset());
                    directory.value(namespace, key, place, wall, op.sequence);
                }
                What::Remove(..) => directory.removal(namespace, key, op.sequence),
            }
        }
        let mut shard = self.shared.index.shard(op.hash);
        if shard.pending.get(&op.hash).is_none_or(|pending| pending.sequence() != op.sequence) {
            return;
        }
        let gone = shard.pending.remove(&op.hash);
        match &op.what {
            What::Put(entry) => shard.insert(op.hash, place, deadline(entry.stale_until())),
            // It may have been entered from the log meanwhile.
            What::Remove(..) => drop(shard.remove(op.hash)),
        }
        drop(shard);
        drop(gone);
    }

    /// Writes a batch behind the open segment's last record.
    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        self.torn = true;
        self.open.file.write_all_at(&batch.bytes, batch.start)?;
        self.torn = false;
        self.open.len.store(batch.end(), Ordering::Release);
        self.log_bytes += batch.bytes.len() as u64;
        self.shared.counts.bytes_written.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes sure that the open segment takes a record of `len` bytes and that the budget is kept.
    pub(super) fn make_room(&mut self, len: u64) -> io::Result<()> {
        let long = self.open.len() + len + SEAL_LEN > self.shared.config.segment();
        if self.sealed || long || self.records >= SEGMENT_RECORDS {
            self.roll()?;
        }
        while self.log_bytes + len > self.shared.config.write_budget() {
            let Some(oldest) = self.shared.segments.oldest().filter(|oldest| oldest.id != self.open.id) else { break };
            self.drop_segment(&oldest)?;
        }
        Ok(())
    }

    /// Seals the open segment, opens the next, and makes room for it by dropping the oldest.
    fn roll(&mut self) -> io::Result<()> {
        if !self.shared.folder_is_ours()? {
            return Err(gone());
        }
        if !self.sealed {
            let mut batch = Batch::new(self.open.salt, self.open.len());
            batch.seal(self.shared.queue.lock().last, self.records);
            self.write(&batch)?;
            self.sealed = true;
        }
        // Else a power cut could leave a younger segment behind an unfinished one, and all older ones would be distrusted.
        self.open.sync()?;
        let next = make_segment(&self.shared.config.path, self.next_id()?)?;
        self.log_bytes += next.len();
        self.shared.segments.insert(next.clone());
        let sealed = std::mem::replace(&mut self.open, next);
        (self.records, self.sealed) = (0, false);
        let directory = std::mem::replace(&mut *self.shared.directory.lock(), Directory::new(self.open.id));
        self.shared.sealed(&sealed, directory);
        self.drop_for_a_segment()
    }

    fn next_id(&self) -> io::Result<u32> {
        self.open.id.checked_add(1).ok_or_else(|| io::Error::other("the segments have used up their numbers"))
    }

    /// Drops the oldest segments until a whole new one fits; what was read in them since comes along.
    fn drop_for_a_segment(&mut self) -> io::Result<()> {
        let (budget, mut limit) = (self.shared.config.log_budget(), self.shared.config.carry());
        while self.log_bytes + self.shared.config.segment() > budget {
            let Some(oldest) = self.shared.segments.oldest().filter(|oldest| oldest.id != self.open.id) else { break };
            self.carry(&oldest, &mut limit)?;
            self.drop_segment(&oldest)?;
        }
        Ok(())
    }

    /// Gives back the space of the oldest segments that hold no entry any more; an open one with nothing alive is sealed first.
    fn tidy(&mut self) -> io::Result<()> {
        if self.shared.is_down() {
            return Ok(());
        }
        let mut alive: Option<u32> = None;
        self.shared.index.each(|shard| alive = alive.into_iter().chain(shard.oldest_segment()).min());
        let first_kept = alive.unwrap_or(u32::MAX);
        let is_worth_it = self.open.len() > self.shared.config.segment() / 8;
        if first_kept > self.open.id && is_worth_it {
            self.roll()?;
        }
        while let Some(oldest) =
            self.shared.segments.oldest().filter(|oldest| oldest.id != self.open.id && oldest.id < first_kept)
        {
            self.drop_segment(&oldest)?;
        }
        Ok(())
    }

    /// Forgets the entries first, so that no reader looks for them any more, then the file.
    fn drop_segment(&mut self, segment: &Arc<Segment>) -> io::Result<()> {
        let mut gone = 0;
        self.shared.index.each(|shard| gone += shard.drop_segments(segment.id));
        self.shared.counts.evictions.fetch_add(gone, Ordering::Relaxed);
        self.shared.segments.drop_segment(segment.id)?;
        self.log_bytes = self.log_bytes.saturating_sub(segment.len());
        self.shared.catalogue.forget(segment.id);
        Ok(())
    }

    /// Appends copies of the records in `segment` that were read since they were written and are still the newest of
    /// their keys, up to `limit` bytes.
    ///
    /// A removal or a newer value that comes after the look at the index is appended after the copy, by this very
    /// thread, so that it wins on replay as it does in the index.
    fn carry(&mut self, segment: &Arc<Segment>, limit: &mut u64) -> io::Result<()> {
        let mut places = Vec::new();
        self.shared.index.each(|shard| shard.read_in(segment.id, &mut places));
        for (hash, from) in places {
            let fits = from.len <= *limit && self.open.len() + from.len + SEAL_LEN <= self.shared.config.segment();
            if !fits || !self.shared.index.shard(hash).is_at(hash, from) {
                continue;
            }
            let mut bytes = vec![0; from.len as usize];
            if segment.file.read_exact_at(&mut bytes, from.offset).is_err() {
                continue;
            }
            let head = RecordHead::parse(&bytes, segment.salt, from.offset).filter(|head| head.kind == Kind::Value);
            let Some((head, value)) = head.zip(parse_value(&bytes[RECORD_HEAD..])) else { continue };
            let Ok(header) = Header::parse(value.header) else { continue };
            if header.verify(value.namespace, value.key, value.payload).is_err() {
                continue;
            }
            let mut batch = Batch::new(self.open.salt, self.open.len());
            let len = batch.value(head.sequence, value.namespace, value.key, value.header, value.payload);
            let to = Place { segment: self.open.id, offset: batch.start, len };
            self.write(&batch)?;
            self.records += 1;
            *limit -= len;
            self.shared.directory.lock().value(value.namespace, value.key, to, header.stale_until, head.sequence);
            self.shared.tell_sweeps(value.namespace, value.key, to);
            self.shared.index.shard(hash).move_to(hash, from, to);
            self.shared.counts.carried.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes the mark back once all that was owed is in the log. What has the sequence `said` and later is not owed: it came when the tier was up again.
    fn pay_up_to(&mut self, said: u64) {
        let until = *self.owed_until.get_or_insert(said);
        if self.shared.written.load(Ordering::Acquire) >= until && self.shared.sync().is_ok() && self.shared.unmark_debt().is_ok()
        {
            self.owed_until = None;
        }
    }

    /// Tells the waiting what became of a batch.
    fn settle(&mut self, bytes: u64, result: Result<u64, (VecDeque<Op>, io::Error)>) {
        self.shared.patience.moved();
        match result {
            Ok(last) => {
                self.shared.written.fetch_max(last, Ordering::AcqRel);
                let mut queue = self.shared.queue.lock();
                queue.bytes -= bytes;
                if queue.ops.is_empty() && !queue.let_go {
                    self.shared.written.fetch_max(queue.last, Ordering::AcqRel);
                }
                let said = queue.last;
                drop(queue);
                self.shared.come_up(self.falls);
                if self.shared.debt.is_marked() {
                    self.pay_up_to(said);
                }
            }
            Err((rest, error)) => {
                self.owed_until = None;
                let wants_mark = {
                    let queue = self.shared.queue.lock();
                    queue.wants_mark() || !rest.is_empty() && !queue.is_mark_tried
                };
                // Before anybody is told: who knows of the error may be killed the next moment.
                if wants_mark {
                    self.shared.mark_debt();
                }
                // Before what waits is owed: what comes from now on is no value.
                self.shared.fail(error);
                let kept = self.shared.owe(rest);
                let mut queue = self.shared.queue.lock();
                let waiting: VecDeque<Op> = std::mem::take(&mut queue.ops);
                drop(queue);
                let waiting = self.shared.owe(waiting);
                let mut queue = self.shared.queue.lock();
                let newer = std::mem::take(&mut queue.ops);
                queue.ops.extend(kept.into_iter().chain(waiting).chain(newer));
                queue.bytes = queue.ops.iter().map(Op::len).sum();
                if queue.let_go {
                    queue.owe_everything();
                }
            }
        }
        self.shared.changed();
    }
}

/// Tells those who wait for the writer's end, however it ends, and lets the folder go.
pub(super) struct Ended(pub(super) Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.go_down(&Error::new(ErrorKind::TierDown, "disk writer", "ended unexpectedly; please report it"));
        }
        self.0.closed.store(true, Ordering::Release);
        if let Some(file) = self.0.lock.lock().take() {
            // By name, not by closing: a child process that is just being forked may hold the descriptor for a moment longer.
            file.unlock();
        }
        self.0.queue.lock().ended = true;
        self.0.stop_caring();
        self.0.changed();
    }
}
