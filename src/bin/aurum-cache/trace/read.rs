//! The formats of a trace, from bytes to requests: text (`key` or `key size` a line), ARC's `.lis` (`first count ..`: a run of consecutive
//! blocks), libCacheSim's oracleGeneral (24-byte little-endian records: u32 time, u64 key, u32 size, i64 next) and libCacheSim's CSV.
//!
//! Nothing is guessed from damage: bytes that stop making sense are refused with their line or record. Pure, so that a fuzz target can
//! include this file.

use std::io::{self, BufRead, Read};

use crate::keys::Keys;

/// One request.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    /// Which key, counted from 0 in the order of first appearance.
    pub(crate) key: u32,
    /// Bytes of its value; 0 if the trace does not say.
    pub(crate) size: u32,
}

/// A run of `.lis` longer than this is damage, not a request.
const LONGEST_RUN: u64 = 1 << 20;

/// More requests than this do not fit the memory of an ordinary machine.
pub(crate) const MOST_REQUESTS: u64 = 500_000_000;

/// A line longer than this is damage.
const LONGEST_LINE: usize = 64 << 10;

const RECORD: usize = 24;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Lis,
    Csv,
    Oracle,
}

impl Format {
    /// By extension where it is telling, else by what the first bytes look like.
    pub(crate) fn of(name: &str, head: &[u8]) -> Self {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(".zst").or(name.strip_suffix(".zstd")).unwrap_or(&name);
        let head = &head[..head.len().min(4096)];
        let is_binary = head.iter().any(|&byte| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r'));
        match () {
            () if is_binary || name.contains("oraclegeneral") => Self::Oracle,
            () if name.ends_with(".lis") => Self::Lis,
            () if name.ends_with(".csv") => Self::Csv,
            () if head.split(|&byte| byte == b'\n').next().is_some_and(|line| line.contains(&b',')) => Self::Csv,
            () => Self::Text,
        }
    }
}

/// A trace while it is read.
struct Reading {
    limit: u64,
    /// The user said where to stop.
    bounded: bool,
    requests: Vec<Request>,
    keys: Keys,
}

/// Reads at most `limit` requests.
///
/// # Errors
///
/// Where the bytes stop making sense, and why: `line 3: ..`.
pub(crate) fn read(source: &mut dyn BufRead, format: Format, limit: Option<u64>) -> Result<(Vec<Request>, Keys), String> {
    let bounded = limit.is_some();
    let mut reading = Reading { limit: limit.unwrap_or(u64::MAX), bounded, requests: Vec::new(), keys: Keys::new() };
    match format {
        Format::Oracle => reading.oracle(source)?,
        Format::Text | Format::Lis | Format::Csv => reading.lines(source, format)?,
    }
    Ok((reading.requests, reading.keys))
}

impl Reading {
    fn is_full(&self) -> bool {
        self.requests.len() as u64 >= self.limit
    }

    fn push(&mut self, key: &str, size: u32, place: impl FnOnce() -> String) -> Result<(), String> {
        if self.requests.len() as u64 >= MOST_REQUESTS && !self.bounded {
            return Err(broken(&place(), "more requests than memory should hold; use --limit"));
        }
        match self.keys.intern(key) {
            Some(key) => self.requests.push(Request { key, size }),
            None => return Err(broken(&place(), "more distinct keys than can be counted; use --limit")),
        }
        Ok(())
    }

    fn lines(&mut self, source: &mut dyn BufRead, format: Format) -> Result<(), String> {
        let mut columns = None;
        let mut line = Vec::new();
        let mut number = 0u64;
        while !self.is_full() {
            number += 1;
            line.clear();
            let place = || format!("line {number}");
            let read = source.take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line);
            match read.map_err(|cause| broken(&place(), &format!("damaged ({cause})")))? {
                0 => return Ok(()),
                length if length > LONGEST_LINE => return Err(broken(&place(), "longer than 64 KiB; this is no trace")),
                _ => {}
            }
            let text = std::str::from_utf8(&line).map_err(|_| broken(&place(), "not UTF-8; this is no trace"))?.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            match format {
                Format::Lis => self.run(text, &place)?,
                Format::Csv => self.row(text, &mut columns, &place)?,
                Format::Text | Format::Oracle => self.pair(text, &place)?,
            }
        }
        Ok(())
    }

    /// `key` or `key size`.
    fn pair(&mut self, line: &str, place: &dyn Fn() -> String) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), size, None) = (words.next(), words.next(), words.next()) else {
            return Err(broken(&place(), "more than two words; a line is `key` or `key size`"));
        };
        let size = match size.map(str::parse) {
            None => 0,
            Some(Ok(size)) => size,
            Some(Err(_)) => {
                return Err(broken(&place(), "the second word is no size in bytes; a line is `key` or `key size`"));
            }
        };
        self.push(key, size, place)
    }

    /// `first count ignored number`: a run of blocks.
    fn run(&mut self, line: &str, place: &dyn Fn() -> String) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(length))) = (words.next(), words.next()) else {
            return Err(broken(&place(), "does not begin with two numbers, the first block and how many"));
        };
        if length > LONGEST_RUN || first.checked_add(length).is_none() {
            return Err(broken(&place(), "a run of more blocks than can be; the file is damaged"));
        }
        for block in first..first + length {
            if self.is_full() {
                break;
            }
            self.push(&block.to_string(), 0, place)?;
        }
        Ok(())
    }

    /// A row of CSV; the first one decides where key and size stand.
    fn row(&mut self, line: &str, columns: &mut Option<Columns>, place: &dyn Fn() -> String) -> Result<(), String> {
        let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let known = match *columns {
            Some(known) => known,
            None => {
                let (known, is_header) = Columns::of(&fields);
                *columns = Some(known);
                if is_header {
                    return Ok(());
                }
                known
            }
        };
        let Some(key) = fields.get(known.key).filter(|key| !key.is_empty()) else {
            return Err(broken(&place(), &format!("no key in column {}", known.key + 1)));
        };
        let size = match known.size {
            None => 0,
            Some(at) => match fields.get(at).and_then(|size| size.parse::<u32>().ok()) {
                Some(size) => size,
                None => return Err(broken(&place(), &format!("no size in bytes in column {}", at + 1))),
            },
        };
        let key = (*key).to_owned();
        self.push(&key, size, place)
    }

    fn oracle(&mut self, source: &mut dyn Read) -> Result<(), String> {
        let mut record = [0u8; RECORD];
        let mut number = 0u64;
        while !self.is_full() {
            number += 1;
            let place = || format!("record {number}");
            match fill(source, &mut record) {
                Ok(0) => return Ok(()),
                Ok(RECORD) => {}
                Ok(_) => {
                    return Err(broken(&place(), "ends within its 24 bytes; the file is cut off or no oracleGeneral trace"));
                }
                Err(cause) => return Err(broken(&place(), &format!("damaged ({cause})"))),
            }
            let [_, _, _, _, k0, k1, k2, k3, k4, k5, k6, k7, s0, s1, s2, s3, ..] = record;
            let key = u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]);
            self.push(&key.to_string(), u32::from_le_bytes([s0, s1, s2, s3]), place)?;
        }
        Ok(())
    }
}

fn broken(place: &str, advice: &str) -> String {
    format!("{place}: {advice}")
}

/// Reads until the buffer is full or the source ends; says how much came.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(filled)
}

/// Where a CSV has its key and its size, counted from 0.
#[derive(Clone, Copy)]
struct Columns {
    key: usize,
    size: Option<usize>,
}

impl Columns {
    /// By the names of a header, else by how many there are. Also: was this a header?
    fn of(fields: &[&str]) -> (Self, bool) {
        const KEYS: [&str; 10] = ["key", "obj_id", "objid", "object_id", "object", "obj", "id", "lbn", "block", "lba"];
        const SIZES: [&str; 7] = ["size", "obj_size", "objsize", "object_size", "bytes", "length", "value_size"];
        let names: Vec<String> = fields.iter().map(|name| name.to_ascii_lowercase().replace(['-', ' '], "_")).collect();
        let find = |among: &[&str]| among.iter().find_map(|wanted| names.iter().position(|name| name == wanted));
        if let Some(key) = find(&KEYS) {
            return (Self { key, size: find(&SIZES) }, true);
        }
        let by_place = match fields.len() {
            0 | 1 => Self { key: 0, size: None },
            2 => Self { key: 0, size: Some(1) },
            _ => Self { key: 1, size: Some(2) },
        };
        let is_header = by_place.size.is_some_and(|at| fields[at].parse::<u64>().is_err());
        (by_place, is_header)
    }
}
