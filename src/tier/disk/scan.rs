//! Walking over the records of a segment file, whatever it holds.

use std::io;

use super::files::Handle;
use super::segment::{FILE_HEAD, Kind, RECORD_HEAD, RecordHead, key_hash, parse_removal, parse_value};
use crate::entry::Header;

/// What a scan comes across, in the order of the log.
pub(super) enum Found<'a> {
    /// A value. `intact` says whether its checksum holds; if not, namespace and key are still right.
    Value {
        place: (u64, u64),
        sequence: u64,
        namespace: &'a str,
        key: &'a str,
        header: Header,
        intact: bool,
    },
    Removal {
        sequence: u64,
        namespace: &'a str,
        key: &'a str,
    },
    /// Bytes in the middle that say nothing, not even whose record it was.
    Damage,
}

/// How a segment ends.
pub(super) struct End {
    /// Where the last whole record ends: what follows, if anything, is torn.
    pub(super) at: u64,
    pub(super) sealed: bool,
    /// What follows cannot be the torn end of an append: a killed writer leaves the beginning of a record, and a power cut
    /// nothing but zeros. So it was damaged, and may have been anything.
    pub(super) is_tail_damaged: bool,
    /// Highest sequence seen.
    pub(super) sequence: u64,
    pub(super) records: u64,
}

/// Walks over the records of a file, whatever it holds.
///
/// # Errors
///
/// Only what the system says on reading; damage is [`Found::Damage`].
pub(super) fn scan(file: &Handle, salt: u64, len: u64, visit: &mut dyn FnMut(Found<'_>)) -> io::Result<End> {
    let mut window = Window::new(file, len);
    let mut end = End { at: FILE_HEAD as u64, sealed: false, is_tail_damaged: false, sequence: 0, records: 0 };
    let mut at = FILE_HEAD as u64;
    while at + RECORD_HEAD as u64 <= len {
        let parsed = RecordHead::parse(window.get(at, RECORD_HEAD)?, salt, at);
        let Some(head) = parsed.filter(|head| at + u64::from(head.len) <= len) else {
            // Is there anything after it? If so, what stood here is unknown; if not, it is the end, and mostly a torn one.
            match resync(&mut window, salt, at + 8, len)? {
                Some(next) => {
                    visit(Found::Damage);
                    at = next;
                    continue;
                }
                None => {
                    end.is_tail_damaged = parsed.is_none() && !is_zero(&mut window, at, len)?;
                    break;
                }
            }
        };
        let record = window.get(at, head.len as usize)?;
        let body = &record[RECORD_HEAD..];
        end.sequence = end.sequence.max(head.sequence);
        end.records += 1;
        end.sealed = false;
        match head.kind {
            Kind::Value => match parse_value(body).filter(|value| key_hash(value.namespace, value.key) == head.key_hash) {
                Some(value) => {
                    // `parse_value` parsed this header before.
                    if let Ok(header) = Header::parse(value.header) {
                        let intact = header.verify(value.namespace, value.key, value.payload).is_ok();
                        let (namespace, key, sequence) = (value.namespace, value.key, head.sequence);
                        visit(Found::Value { place: (at, u64::from(head.len)), sequence, namespace, key, header, intact });
                    }
                }
                None => visit(Found::Damage),
            },
            Kind::Removal => match parse_removal(body, head.key_hash) {
                Some((namespace, key)) => visit(Found::Removal { sequence: head.sequence, namespace, key }),
                None => visit(Found::Damage),
            },
            Kind::Seal => {
                end.records -= 1;
                end.sealed = true;
            }
        }
        at += u64::from(head.len);
        end.at = at;
    }
    Ok(end)
}

/// The next place from `at` on where a record head stands.
fn resync(window: &mut Window<'_>, salt: u64, mut at: u64, len: u64) -> io::Result<Option<u64>> {
    while at + RECORD_HEAD as u64 <= len {
        let head = RecordHead::parse(window.get(at, RECORD_HEAD)?, salt, at);
        if head.is_some_and(|head| at + u64::from(head.len) <= len) {
            return Ok(Some(at));
        }
        at += 8;
    }
    Ok(None)
}

/// Is there nothing but zeros from `at` on?
fn is_zero(window: &mut Window<'_>, mut at: u64, len: u64) -> io::Result<bool> {
    while at < len {
        let step = (len - at).min(STEP as u64);
        if window.get(at, step as usize)?.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += step;
    }
    Ok(true)
}

/// A moving view of a file, so that a scan reads in large steps.
struct Window<'a> {
    file: &'a Handle,
    len: u64,
    bytes: Vec<u8>,
    start: u64,
}

/// How far a scan reads ahead.
pub(super) const STEP: usize = 1 << 20;

impl<'a> Window<'a> {
    fn new(file: &'a Handle, len: u64) -> Self {
        Self { file, len, bytes: Vec::new(), start: 0 }
    }

    /// `len` bytes at `at`; the caller has checked that they are within the file.
    fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        if at < self.start || at + len as u64 > self.start + self.bytes.len() as u64 {
            let want = (len.max(STEP) as u64).min(self.len.saturating_sub(at)) as usize;
            self.bytes.resize(want, 0);
            self.start = at;
            self.file.read_exact_at(&mut self.bytes, at).inspect_err(|_| self.bytes.clear())?;
        }
        let from = (at - self.start) as usize;
        self.bytes.get(from..from + len).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
