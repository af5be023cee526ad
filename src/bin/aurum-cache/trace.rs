//! Request logs: who asked for which key, in which order.
//!
//! Four formats, told apart by extension and, where that says nothing, by content: text (`key` or `key size` a line), ARC's
//! `.lis` (`first count ..`: a run of consecutive blocks), libCacheSim's oracleGeneral (24-byte little-endian records:
//! u32 time, u64 key, u32 size, i64 next) and libCacheSim's CSV. Each may be compressed with zstd, which is seen by its magic
//! number, not by its name.
//!
//! A trace is held as eight bytes a request; each distinct key is kept once, in one long text. Nothing is guessed from damage:
//! a file that stops making sense is refused with its name and line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::keys::Keys;
use crate::report::{self, Failure, Outcome};

/// One request.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    /// Which key, counted from 0 in the order of first appearance.
    pub(crate) key: u32,
    /// Bytes of its value; 0 if the trace does not say.
    pub(crate) size: u32,
}

/// A trace in memory.
pub(crate) struct Trace {
    /// Where it came from, for reports.
    pub(crate) name: String,
    pub(crate) requests: Vec<Request>,
    keys: Keys,
}

/// A run of `.lis` longer than this is damage, not a request.
const LONGEST_RUN: u64 = 1 << 20;

/// More requests than this do not fit the memory of an ordinary machine.
const MOST_REQUESTS: u64 = 500_000_000;

/// A line longer than this is damage.
const LONGEST_LINE: usize = 64 << 10;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const RECORD: usize = 24;

impl Trace {
    /// Reads the file, or draws a Zipf trace where there is none.
    pub(crate) fn open(path: Option<&Path>, limit: Option<u64>) -> Outcome<Self> {
        match path {
            Some(path) => Self::read(path, limit),
            None => Ok(Self::zipf(limit.unwrap_or(500_000).min(MOST_REQUESTS), 50_000, 0.9)),
        }
    }

    /// Reads at most `limit` requests of a file.
    pub(crate) fn read(path: &Path, limit: Option<u64>) -> Outcome<Self> {
        let shown = path.display().to_string();
        let broken = |cause: io::Error| Failure::said(format!("trace {shown}: cannot be read ({cause})"));
        if path.is_dir() {
            return Err(Failure::said(format!("trace {shown}: is a folder; name a file")));
        }
        let file = File::open(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => Failure::said(format!("trace {shown}: does not exist; correct the path")),
            _ => broken(cause),
        })?;
        let mut plain = BufReader::with_capacity(1 << 20, file);
        let packed = plain.fill_buf().map_err(broken)?.starts_with(&ZSTD_MAGIC);
        let mut source: Box<dyn BufRead> = if packed {
            Box::new(BufReader::with_capacity(1 << 20, zstd::stream::read::Decoder::with_buffer(plain).map_err(broken)?))
        } else {
            Box::new(plain)
        };
        let damaged = |cause| Failure::said(format!("trace {shown}, line 1: damaged ({cause})"));
        let head = source.fill_buf().map_err(damaged)?;
        let format = Format::of(path, head);
        let mut reading = Reading {
            shown,
            limit: limit.unwrap_or(u64::MAX),
            bounded: limit.is_some(),
            requests: Vec::new(),
            keys: Keys::new(),
        };
        match format {
            Format::Oracle => reading.oracle(&mut *source)?,
            Format::Text | Format::Lis | Format::Csv => reading.lines(&mut *source, format)?,
        }
        if reading.requests.is_empty() {
            return Err(Failure::said(format!("trace {}: holds no request", reading.shown)));
        }
        Ok(Self { name: reading.shown, requests: reading.requests, keys: reading.keys })
    }

    /// `length` requests over `keys` keys, where the k-th most popular is asked for in proportion to `k^-skew`. The same each time.
    pub(crate) fn zipf(length: u64, keys: u32, skew: f64) -> Self {
        let mut cumulative = Vec::with_capacity(keys as usize);
        let mut sum = 0.0;
        for rank in 1..=keys {
            sum += f64::from(rank).powf(-skew);
            cumulative.push(sum);
        }
        let mut random = fastrand::Rng::with_seed(0x5eed);
        let mut names = Keys::new();
        let mut requests = Vec::with_capacity(length as usize);
        for _ in 0..length {
            let drawn = random.f64() * sum;
            let rank = cumulative.partition_point(|&upto| upto < drawn);
            if let Some(key) = names.intern(&format!("item:{rank}")) {
                requests.push(Request { key, size: 0 });
            }
        }
        Self { name: format!("zipf {skew} over {} keys", report::count(u64::from(keys))), requests, keys: names }
    }

    /// How many of the requests from `from` to before `to` ask for a key that was not asked for before: nobody can have those.
    pub(crate) fn first_requests(&self, from: usize, to: usize) -> u64 {
        // Keys are numbered by first appearance, so a new one is the one that comes next.
        let (mut seen, mut first) = (0, 0);
        for (at, request) in self.requests.iter().enumerate().take(to) {
            if request.key == seen {
                seen += 1;
                first += u64::from(at >= from);
            }
        }
        first
    }

    /// The text of a key.
    pub(crate) fn key(&self, key: u32) -> &str {
        self.keys.text(key)
    }

    /// How many distinct keys.
    pub(crate) fn unique(&self) -> u64 {
        self.keys.len() as u64
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Lis,
    Csv,
    Oracle,
}

impl Format {
    /// By extension where it is telling, else by what the first bytes look like.
    fn of(path: &Path, head: &[u8]) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
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
    shown: String,
    limit: u64,
    /// The user said where to stop.
    bounded: bool,
    requests: Vec<Request>,
    keys: Keys,
}

impl Reading {
    fn is_full(&self) -> bool {
        self.requests.len() as u64 >= self.limit
    }

    fn broken(&self, place: &str, advice: &str) -> Failure {
        Failure::said(format!("trace {}, {place}: {advice}", self.shown))
    }

    fn push(&mut self, key: &str, size: u32, place: impl FnOnce() -> String) -> Outcome {
        if self.requests.len() as u64 >= MOST_REQUESTS && !self.bounded {
            return Err(self.broken(&place(), "more requests than memory should hold; use --limit"));
        }
        match self.keys.intern(key) {
            Some(key) => self.requests.push(Request { key, size }),
            None => return Err(self.broken(&place(), "more distinct keys than can be counted; use --limit")),
        }
        Ok(())
    }

    fn lines(&mut self, source: &mut dyn BufRead, format: Format) -> Outcome {
        let mut columns = None;
        let mut line = Vec::new();
        let mut number = 0u64;
        while !self.is_full() {
            number += 1;
            line.clear();
            let place = || format!("line {number}");
            let read = source.take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line);
            match read.map_err(|cause| self.broken(&place(), &format!("damaged ({cause})")))? {
                0 => return Ok(()),
                length if length > LONGEST_LINE => return Err(self.broken(&place(), "longer than 64 KiB; this is no trace")),
                _ => {}
            }
            let text = std::str::from_utf8(&line).map_err(|_| self.broken(&place(), "not UTF-8; this is no trace"))?.trim();
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
    fn pair(&mut self, line: &str, place: &dyn Fn() -> String) -> Outcome {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), size, None) = (words.next(), words.next(), words.next()) else {
            return Err(self.broken(&place(), "more than two words; a line is `key` or `key size`"));
        };
        let size = match size.map(str::parse) {
            None => 0,
            Some(Ok(size)) => size,
            Some(Err(_)) => {
                return Err(self.broken(&place(), "the second word is no size in bytes; a line is `key` or `key size`"));
            }
        };
        self.push(key, size, place)
    }

    /// `first count ignored number`: a run of blocks.
    fn run(&mut self, line: &str, place: &dyn Fn() -> String) -> Outcome {
        let mut words = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(length))) = (words.next(), words.next()) else {
            return Err(self.broken(&place(), "does not begin with two numbers, the first block and how many"));
        };
        if length > LONGEST_RUN || first.checked_add(length).is_none() {
            return Err(self.broken(&place(), "a run of more blocks than can be; the file is damaged"));
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
    fn row(&mut self, line: &str, columns: &mut Option<Columns>, place: &dyn Fn() -> String) -> Outcome {
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
            return Err(self.broken(&place(), &format!("no key in column {}", known.key + 1)));
        };
        let size = match known.size {
            None => 0,
            Some(at) => match fields.get(at).and_then(|size| size.parse::<u32>().ok()) {
                Some(size) => size,
                None => return Err(self.broken(&place(), &format!("no size in bytes in column {}", at + 1))),
            },
        };
        let key = (*key).to_owned();
        self.push(&key, size, place)
    }

    fn oracle(&mut self, source: &mut dyn Read) -> Outcome {
        let mut record = [0u8; RECORD];
        let mut number = 0u64;
        while !self.is_full() {
            number += 1;
            let place = || format!("record {number}");
            match fill(source, &mut record) {
                Ok(0) => return Ok(()),
                Ok(RECORD) => {}
                Ok(_) => {
                    return Err(self.broken(&place(), "ends within its 24 bytes; the file is cut off or no oracleGeneral trace"));
                }
                Err(cause) => return Err(self.broken(&place(), &format!("damaged ({cause})"))),
            }
            let [_, _, _, _, k0, k1, k2, k3, k4, k5, k6, k7, s0, s1, s2, s3, ..] = record;
            let key = u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]);
            self.push(&key.to_string(), u32::from_le_bytes([s0, s1, s2, s3]), place)?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8]) -> Result<Trace, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        Trace::read(&path, None).map_err(|failure| match failure {
            Failure::Said(sentence) => sentence,
            _ => "another failure".to_owned(),
        })
    }

    fn requests(trace: &Trace) -> Vec<(&str, u32)> {
        trace.requests.iter().map(|request| (trace.key(request.key), request.size)).collect()
    }

    #[test]
    fn text_is_read_plain_and_compressed() {
        let text = b"a 10\nb\n\n# a remark\na 10\n";
        for (name, content) in [("t.txt", text.to_vec()), ("t.tr.zst", zstd::encode_all(&text[..], 1).expect("compressed"))] {
            let trace = read(name, &content).expect("a trace");
            assert_eq!(requests(&trace), [("a", 10), ("b", 0), ("a", 10)]);
            assert_eq!(trace.unique(), 2);
        }
    }

    #[test]
    fn a_run_of_lis_is_its_blocks() {
        let trace = read("t.lis", b"7 3 0 1\n1 1 0 2\n").expect("a trace");
        assert_eq!(requests(&trace), [("7", 0), ("8", 0), ("9", 0), ("1", 0)]);
    }

    #[test]
    fn csv_is_read_by_the_names_of_its_header_or_by_place() {
        let named = read("t.csv", b"version,time,op,size,lbn\n1,33898,2a,512,42\n").expect("a trace");
        assert_eq!(requests(&named), [("42", 512)]);
        let placed = read("t.csv", b"1,42,512\n2,43,100\n").expect("a trace");
        assert_eq!(requests(&placed), [("42", 512), ("43", 100)]);
    }

    #[test]
    fn records_of_oracle_general_are_24_bytes() {
        let mut record = Vec::new();
        record.extend(1u32.to_le_bytes());
        record.extend(99u64.to_le_bytes());
        record.extend(512u32.to_le_bytes());
        record.extend((-1i64).to_le_bytes());
        let trace = read("t.bin", &record).expect("a trace");
        assert_eq!(requests(&trace), [("99", 512)]);
        record.truncate(20);
        assert!(read("t.bin", &record).err().is_some_and(|told| told.contains("record 1")));
    }

    #[test]
    fn damage_is_named_with_its_line() {
        for (name, content, expected) in [
            ("a.txt", &b"ok\na b c\n"[..], "line 2"),
            ("b.txt", b"ok\nkey big\n", "line 2"),
            ("c.lis", b"1 2\nx\n", "line 2"),
            ("d.lis", b"1 99999999999\n", "line 1"),
            ("e.csv", b"key,size\n1,2\n1,x\n", "line 3"),
            ("f.txt", b"", "no request"),
            ("g.txt", b"a\n\xff\xff\n", "line 2"),
        ] {
            let told = read(name, content).err().unwrap_or_default();
            assert!(told.contains(name) && told.contains(expected), "{name}: {told}");
        }
        let mut packed = zstd::encode_all(&b"a\nb\nc\n".repeat(10_000)[..], 1).expect("compressed");
        packed.truncate(packed.len() - 5);
        assert!(read("h.zst", &packed).err().is_some_and(|told| told.contains("line ")));
    }

    #[test]
    fn a_drawn_trace_is_the_same_each_time_and_skewed() {
        let (one, two) = (Trace::zipf(5_000, 1_000, 0.9), Trace::zipf(5_000, 1_000, 0.9));
        assert_eq!(requests(&one), requests(&two));
        let most = one.requests.iter().filter(|request| one.key(request.key) == "item:0").count();
        assert!(most > 100 && one.unique() > 300, "{most} {}", one.unique());
    }
}
