//! The small durable things: named notes, and the ledger of events.
//!
//! A note is one file, `NAME.note`: a checksum and the bytes, written beside, synced and renamed, so that it is the old one or the
//! new one. The ledger is one file of checksummed records, appended and synced; when it holds twice what must be kept it is
//! rewritten with the newest half. What is damaged is as if it had not been written.
//!
//! ```text
//! note:    "AUNO" | bytes u32 | xxh3 of name and bytes u64 | bytes
//! ledger:  per event: "AUEV" | bytes u32 | at, ms u64 | xxh3 of the 16 bytes before and the bytes, u64 | bytes
//! ```

use std::io;
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::files::{self, How, read_whole, sync_folder};

const NOTE_MAGIC: [u8; 4] = *b"AUNO";
const EVENT_MAGIC: [u8; 4] = *b"AUEV";
const NOTE_HEAD: usize = 16;
const EVENT_HEAD: usize = 24;
const LEDGER: &str = "ledger";

/// At least so many of the newest events are kept, where the budget allows.
const EVENTS_KEPT: usize = 10_000;

fn note_sum(name: &str, bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(name.as_bytes());
    hash.update(&[0]);
    hash.update(bytes);
    hash.digest()
}

/// Replaces a file by these parts, durably and whole.
fn replace(folder: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    let written = (|| {
        let file = files::open(&temporary, How::Fresh)?;
        file.write_all_at(&parts.concat(), 0)?;
        file.sync_data()?;
        files::rename(&temporary, &folder.join(name))
    })();
    if written.is_err() {
        let _ = files::remove(&temporary);
    }
    written.and_then(|()| sync_folder(folder))
}

/// Writes a note; the last one of a name wins.
pub(super) fn write_note(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut head = [0; NOTE_HEAD];
    head[..4].copy_from_slice(&NOTE_MAGIC);
    head[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[8..].copy_from_slice(&note_sum(name, bytes).to_le_bytes());
    replace(folder, &format!("{name}.note"), &[&head, bytes])
}

/// Reads a note; a damaged one is none, and is said to be so by the flag.
pub(super) fn read_note(folder: &Path, name: &str, limit: u64) -> io::Result<(Option<Vec<u8>>, bool)> {
    let Some(mut file) = read_whole(&folder.join(format!("{name}.note")), limit)? else { return Ok((None, false)) };
    let good = file.first_chunk::<NOTE_HEAD>().is_some_and(|head| {
        let bytes = &file[NOTE_HEAD..];
        head[..4] == NOTE_MAGIC
            && head[4..8] == (bytes.len() as u32).to_le_bytes()
            && head[8..] == note_sum(name, bytes).to_le_bytes()
    });
    Ok(if good { (Some(file.split_off(NOTE_HEAD)), false) } else { (None, true) })
}

/// The ledger, and how many events are in its file.
pub(super) struct Ledger {
    events: usize,
    bytes: u64,
}

fn event_head(at_ms: u64, bytes: &[u8]) -> [u8; EVENT_HEAD] {
    let mut head = [0; EVENT_HEAD];
    head[..4].copy_from_slice(&EVENT_MAGIC);
    head[4..8].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    head[8..16].copy_from_slice(&at_ms.to_le_bytes());
    let mut hash = Xxh3::new();
    hash.update(&head[..16]);
    hash.update(bytes);
    head[16..].copy_from_slice(&hash.digest().to_le_bytes());
    head
}

/// The events in these bytes, and where the last whole one ends. What is damaged in the middle is stepped over.
fn parse_events(bytes: &[u8]) -> (Vec<(u64, Vec<u8>)>, usize) {
    let (mut events, mut at, mut end) = (Vec::new(), 0, 0);
    while let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<EVENT_HEAD>()) {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let body = bytes.get(at + EVENT_HEAD..).and_then(|rest| rest.get(..len));
        let at_ms = u64::from_le_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]]);
        match body.filter(|body| head[..4] == EVENT_MAGIC && event_head(at_ms, body) == *head) {
            Some(body) => {
                events.push((at_ms, body.to_vec()));
                at += EVENT_HEAD + len;
                end = at;
            }
            None => at += 1,
        }
    }
    (events, end)
}

/// All events of a folder, oldest first.
pub(super) fn events(folder: &Path, limit: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
    Ok(parse_events(&read_whole(&folder.join(LEDGER), limit)?.unwrap_or_default()).0)
}

impl Ledger {
    /// Looks at the ledger of a folder and cuts a torn tail off.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        let path = folder.join(LEDGER);
        let Some(bytes) = read_whole(&path, limit)? else { return Ok(Self { events: 0, bytes: 0 }) };
        let (events, end) = parse_events(&bytes);
        files::open(&path, How::Edit)?.set_len(end as u64)?;
        Ok(Self { events: events.len(), bytes: end as u64 })
    }

    /// Bytes of its file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A ledger without a file.
    pub(super) fn empty() -> Self {
        Self { events: 0, bytes: 0 }
    }

    /// Appends an event; durable when it returns.
    pub(super) fn append(&mut self, folder: &Path, at_ms: u64, bytes: &[u8], budget: u64) -> io::Result<()> {
        let head = event_head(at_ms, bytes);
        let len = (head.len() + bytes.len()) as u64;
        if len > budget / 6 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the event is over its share of disk.capacity"));
        }
        // The rewritten ledger stands beside the old one for a moment: each may take a third.
        if self.events >= 2 * EVENTS_KEPT || self.bytes + len > budget / 3 {
            self.shorten(folder, budget)?;
        }
        let path = folder.join(LEDGER);
        let fresh = self.bytes == 0;
        let file = files::open(&path, How::Keep)?;
        let end = file.len()?;
        let appended = file.write_all_at(&[&head, bytes].concat(), end).and_then(|()| file.sync_data());
        if let Err(error) = appended {
            let _ = file.set_len(end);
            return Err(error);
        }
        (self.events, self.bytes) = (self.events + 1, self.bytes + len);
        if fresh { sync_folder(folder) } else { Ok(()) }
    }

    /// Keeps the newest events, as many as must be kept and half of the budget takes.
    fn shorten(&mut self, folder: &Path, budget: u64) -> io::Result<()> {
        let events = events(folder, budget)?;
        let (mut from, mut bytes) = (events.len(), 0);
        while from > events.len().saturating_sub(EVENTS_KEPT) {
            let len = (EVENT_HEAD + events[from - 1].1.len()) as u64;
            if bytes + len > budget / 6 {
                break;
            }
            (from, bytes) = (from - 1, bytes + len);
        }
        let kept: Vec<u8> =
            events[from..].iter().flat_map(|(at, bytes)| [&event_head(*at, bytes), &bytes[..]].concat()).collect();
        replace(folder, LEDGER, &[&kept])?;
        *self = Self { events: events.len() - from, bytes };
        Ok(())
    }
}
