//! Request logs: who asked for which key, in which order.
//!
//! Four formats (`trace/read.rs`), told apart by extension and, where that says nothing, by content. Each may be compressed with zstd, which is
//! seen by its magic number, not by its name.
//!
//! A trace is held as eight bytes a request; each distinct key is kept once, in one long text. Nothing is guessed from damage:
//! a file that stops making sense is refused with its name and line.

mod read;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::keys::Keys;
use crate::report::{self, Failure, Outcome};
pub(crate) use read::Request;
use read::{Format, MOST_REQUESTS};

/// A trace in memory.
pub(crate) struct Trace {
    /// Where it came from, for reports.
    pub(crate) name: String,
    pub(crate) requests: Vec<Request>,
    keys: Keys,
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

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
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let format = Format::of(&name, head);
        let found = read::read(&mut *source, format, limit);
        let (requests, keys) = found.map_err(|told| Failure::said(format!("trace {shown}, {told}")))?;
        if requests.is_empty() {
            return Err(Failure::said(format!("trace {shown}: holds no request")));
        }
        Ok(Self { name: shown, requests, keys })
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
