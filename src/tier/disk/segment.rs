//! A segment file and its records, byte by byte.
//!
//! ```text
//! file head, 32 bytes                      record head, 32 bytes
//!  0  "AUSG"                                0  "AUR", kind: 1 value, 2 removal, 3 seal
//!  4  format version (1)          u32       4  bytes of the record, multiple of 8     u32
//!  8  number of the segment       u32       8  sequence: order of the calls           u64
//! 12  zero                        u32      16  xxh3 of namespace length, namespace    u64
//! 16  salt                        u64          and key (seal: number of records)
//! 24  xxh3 of bytes 0..24         u64      24  xxh3 of bytes 0..24, salt and offset   u64
//!
//! value:    record head | entry header, 64 bytes | namespace | key | payload | zeros to 8
//! removal:  record head | namespace length u8, zero u8, key length u16 | namespace | key | zeros to 8
//! seal:     record head; the last record of a full segment
//! ```
//!
//! Little-endian. The order of records in the log is the order of the calls; a later one on the same key wins. The sequence of
//! a carried-over record stays what it was. Salt and offset in the head's checksum keep a record from being believed anywhere
//! but where it was written; the key's hash says, when only the body is damaged, whose older records must not come back. The
//! entry's own checksum covers namespace, key and payload. A golden file pins the version for ever (`tests/golden`).

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::files::Handle;
use super::scan::{Found, STEP, scan};
use crate::entry::Header;
use crate::key::MAX_KEY_BYTES;
use crate::namespace::MAX_NAMESPACE_BYTES;

const FILE_MAGIC: [u8; 4] = *b"AUSG";
const FORMAT: u32 = 1;
const RECORD_MAGIC: [u8; 3] = *b"AUR";

/// Bytes of a file head, and where the first record begins.
pub(super) const FILE_HEAD: usize = 32;
/// Bytes of a record head.
pub(super) const RECORD_HEAD: usize = 32;
/// What stands before namespace and key in a removal.
const REMOVAL_HEAD: usize = 4;

/// An open segment file. Only the writer appends to it; readers need no lock.
pub(super) struct Segment {
    pub(super) id: u32,
    pub(super) salt: u64,
    pub(super) path: PathBuf,
    pub(super) file: Handle,
    /// Bytes that are appended; whole records.
    pub(super) len: AtomicU64,
    /// Bytes that are known to be on the device.
    synced: AtomicU64,
    /// A sync failed. The system may have let go of what was not on the device and says so once only, so that a later sync that
    /// succeeds means nothing, until all of it was written again.
    is_in_doubt: AtomicBool,
    /// Held while the device is waited for: a failure is said to one caller only, and the next must know.
    syncing: Mutex<()>,
}

impl Segment {
    /// A segment whose file has `len` bytes of whole records, none of which is known to be on the device.
    pub(super) fn new(id: u32, salt: u64, path: PathBuf, file: Handle, len: u64) -> Self {
        let (len, synced) = (AtomicU64::new(len), AtomicU64::new(0));
        Self { id, salt, path, file, len, synced, is_in_doubt: AtomicBool::new(false), syncing: Mutex::new(()) }
    }

    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Waits for the device until all that is appended is on it.
    ///
    /// # Errors
    ///
    /// What the system says; from then on always, until [`write_again`](Self::write_again).
    pub(super) fn sync(&self) -> io::Result<()> {
        let _alone = self.syncing.lock();
        if self.is_in_doubt() {
            return Err(io::Error::other("an earlier sync failed, and what it left out was not written again yet"));
        }
        let len = self.len();
        if self.synced.load(Ordering::Acquire) < len {
            self.file.sync_data().inspect_err(|_| self.is_in_doubt.store(true, Ordering::Release))?;
            self.synced.fetch_max(len, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Did a sync fail, and was nothing done about it yet?
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is_in_doubt.load(Ordering::Acquire)
    }

    /// After a failed sync: writes once more what was not on the device then, and syncs it. Only the writer calls this. `false` if the system
    /// has not all of it any more.
    pub(super) fn write_again(&self) -> io::Result<bool> {
        let _alone = self.syncing.lock();
        let len = self.len();
        let mut is_whole = true;
        let mut head = [0; FILE_HEAD];
        self.file.read_exact_at(&mut head, 0)?;
        let end = scan(&self.file, self.salt, len, &mut |found| {
            is_whole &= !matches!(found, Found::Damage | Found::Value { intact: false, .. });
        })?;
        if !is_whole || end.at != len || parse_file_head(&head, self.id) != Some(self.salt) {
            return Ok(false);
        }
        let mut at = self.synced.load(Ordering::Acquire);
        while at < len {
            let mut bytes = vec![0; (len - at).min(STEP as u64) as usize];
            self.file.read_exact_at(&mut bytes, at)?;
            self.file.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        self.file.sync_data()?;
        self.synced.store(len, Ordering::Release);
        self.is_in_doubt.store(false, Ordering::Release);
        Ok(true)
    }
}

/// The name of a segment's file.
pub(super) fn file_name(id: u32) -> String {
    format!("{id:010}.seg")
}

/// The number in a name, if it is one of [`file_name`].
pub(super) fn id_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 10).then(|| digits.parse().ok()).flatten()
}

/// The head of a new file.
pub(super) fn file_head(id: u32, salt: u64) -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..4].copy_from_slice(&FILE_MAGIC);
    head[4..8].copy_from_slice(&FORMAT.to_le_bytes());
    head[8..12].copy_from_slice(&id.to_le_bytes());
    head[16..24].copy_from_slice(&salt.to_le_bytes());
    let check = xxh3_64(&head[..24]);
    head[24..].copy_from_slice(&check.to_le_bytes());
    head
}

/// The salt of a file with this head, if it is the head of segment `id`.
pub(super) fn parse_file_head(head: &[u8; FILE_HEAD], id: u32) -> Option<u64> {
    let salt = u64_at(head, 16)?;
    (*head == file_head(id, salt)).then_some(salt)
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Value = 1,
    Removal = 2,
    Seal = 3,
}

/// What stands before each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) kind: Kind,
    pub(super) len: u32,
    pub(super) sequence: u64,
    /// Of namespace and key; see the head of this file.
    pub(super) key_hash: u64,
}

impl RecordHead {
    /// Its bytes at `offset` of the segment with `salt`.
    fn to_bytes(self, salt: u64, offset: u64) -> [u8; RECORD_HEAD] {
        let mut head = [0; RECORD_HEAD];
        head[..3].copy_from_slice(&RECORD_MAGIC);
        head[3] = self.kind as u8;
        head[4..8].copy_from_slice(&self.len.to_le_bytes());
        head[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        head[16..24].copy_from_slice(&self.key_hash.to_le_bytes());
        let check = head_check(&head, salt, offset);
        head[24..].copy_from_slice(&check.to_le_bytes());
        head
    }

    /// A head from bytes that may be anything, if it was written at this place.
    pub(super) fn parse(bytes: &[u8], salt: u64, offset: u64) -> Option<Self> {
        let head: &[u8; RECORD_HEAD] = bytes.first_chunk()?;
        if head[..3] != RECORD_MAGIC {
            return None;
        }
        let kind = match head[3] {
            1 => Kind::Value,
            2 => Kind::Removal,
            3 => Kind::Seal,
            _ => return None,
        };
        let parsed = Self { kind, len: u32_at(head, 4)?, sequence: u64_at(head, 8)?, key_hash: u64_at(head, 16)? };
        let fits = parsed.len as usize >= RECORD_HEAD && parsed.len.is_multiple_of(8);
        (fits && head_check(head, salt, offset) == u64_at(head, 24)?).then_some(parsed)
    }
}

fn head_check(head: &[u8; RECORD_HEAD], salt: u64, offset: u64) -> u64 {
    let mut checked = [0; 40];
    checked[..24].copy_from_slice(&head[..24]);
    checked[24..32].copy_from_slice(&salt.to_le_bytes());
    checked[32..].copy_from_slice(&offset.to_le_bytes());
    xxh3_64(&checked)
}

/// The hash in a record head. Not keyed: it only tells which older records a damaged one stood for.
pub(super) fn key_hash(namespace: &str, key: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&[namespace.len() as u8]);
    hash.update(namespace.as_bytes());
    hash.update(key.as_bytes());
    hash.digest()
}

/// Bytes of a value record.
pub(super) fn value_len(namespace: &str, key: &str, payload: usize) -> u64 {
    padded(RECORD_HEAD + Header::LEN + namespace.len() + key.len() + payload)
}

/// Bytes of a removal record.
pub(super) fn removal_len(namespace: &str, key: &str) -> u64 {
    padded(RECORD_HEAD + REMOVAL_HEAD + namespace.len() + key.len())
}

/// Bytes of a seal.
pub(super) const SEAL_LEN: u64 = RECORD_HEAD as u64;

fn padded(len: usize) -> u64 {
    (len as u64).next_multiple_of(8)
}

/// Where records are gathered before they are appended.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    salt: u64,
    /// Where in the segment the first byte goes.
    pub(super) start: u64,
}

impl Batch {
    pub(super) fn new(salt: u64, start: u64) -> Self {
        Self::in_buffer(Vec::new(), salt, start)
    }

    /// The same, gathered in a buffer that was used before.
    pub(super) fn in_buffer(mut bytes: Vec<u8>, salt: u64, start: u64) -> Self {
        bytes.clear();
        Self { bytes, salt, start }
    }

    /// Where the next record goes.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Appends a value; its length.
    pub(super) fn value(&mut self, sequence: u64, namespace: &str, key: &str, header: &[u8; Header::LEN], payload: &[u8]) -> u64 {
        let len = value_len(namespace, key, payload.len());
        self.head(Kind::Value, len, sequence, key_hash(namespace, key));
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(namespace.as_bytes());
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        len
    }

    /// Appends a removal; its length.
    pub(super) fn removal(&mut self, sequence: u64, namespace: &str, key: &str) -> u64 {
        let len = removal_len(namespace, key);
        self.head(Kind::Removal, len, sequence, key_hash(namespace, key));
        self.bytes.extend_from_slice(&[namespace.len() as u8, 0]);
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(namespace.as_bytes());
        self.bytes.extend_from_slice(key.as_bytes());
        self.pad();
        len
    }

    /// Appends the last record of a segment.
    pub(super) fn seal(&mut self, sequence: u64, records: u64) {
        self.head(Kind::Seal, SEAL_LEN, sequence, records);
    }

    fn head(&mut self, kind: Kind, len: u64, sequence: u64, key_hash: u64) {
        let head = RecordHead { kind, len: len as u32, sequence, key_hash };
        let bytes = head.to_bytes(self.salt, self.end());
        self.bytes.extend_from_slice(&bytes);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

/// A value record, taken apart. Nothing but lengths is checked; the entry's checksum is.
pub(super) struct Value<'a> {
    pub(super) header: &'a [u8; Header::LEN],
    pub(super) namespace: &'a str,
    pub(super) key: &'a str,
    pub(super) payload: &'a [u8],
}

/// Takes the body of a value record apart.
pub(super) fn parse_value(body: &[u8]) -> Option<Value<'_>> {
    let (header, rest) = body.split_first_chunk::<{ Header::LEN }>()?;
    let parsed = Header::parse(header).ok()?;
    let (namespace, rest) = rest.split_at_checked(usize::from(parsed.namespace_len))?;
    let (key, rest) = rest.split_at_checked(usize::from(parsed.key_len))?;
    let (payload, padding) = rest.split_at_checked(parsed.payload_len as usize)?;
    if padding.len() >= 8 {
        return None;
    }
    Some(Value { header, namespace: str::from_utf8(namespace).ok()?, key: str::from_utf8(key).ok()?, payload })
}

/// Namespace and key of a removal, if they are those of its head.
pub(super) fn parse_removal(body: &[u8], hash: u64) -> Option<(&str, &str)> {
    let (head, rest) = body.split_first_chunk::<REMOVAL_HEAD>()?;
    let (namespace_len, key_len) = (usize::from(head[0]), usize::from(u16::from_le_bytes([head[2], head[3]])));
    if namespace_len > MAX_NAMESPACE_BYTES || key_len > MAX_KEY_BYTES {
        return None;
    }
    let (namespace, rest) = rest.split_at_checked(namespace_len)?;
    let (key, _) = rest.split_at_checked(key_len)?;
    let (namespace, key) = (str::from_utf8(namespace).ok()?, str::from_utf8(key).ok()?);
    (key_hash(namespace, key) == hash).then_some((namespace, key))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::super::recovery::open_segment;
    use super::*;

    /// A whole segment of version 1.
    fn segment() -> Vec<u8> {
        let (salt, mut batch) = (0x0102_0304_0506_0708, Batch::new(0x0102_0304_0506_0708, FILE_HEAD as u64));
        batch.value(5, "curves", "pjm", include_bytes!("../../../tests/golden/entry-v1.bin"), b"bytes");
        batch.removal(6, "curves", "pjm");
        batch.seal(7, 2);
        [&file_head(7, salt)[..], &batch.bytes].concat()
    }

    #[test]
    fn version_one_is_these_bytes_for_ever() {
        // Folders in the field hold such segments. If this fails, the change needs a new format version and a reader of this one.
        let golden = include_bytes!("../../../tests/golden/segment-v1.bin");
        assert_eq!(segment(), golden);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0000000007.seg");
        std::fs::write(&path, golden).unwrap();
        let segment = open_segment(7, &path, false).unwrap().expect("a segment");
        let mut found = Vec::new();
        let end = scan(&segment.file, segment.salt, segment.len(), &mut |record| {
            found.push(match record {
                Found::Value { sequence, namespace, key, intact, .. } => format!("{sequence} {namespace} {key} {intact}"),
                Found::Removal { sequence, namespace, key } => format!("{sequence} {namespace} {key} removed"),
                Found::Damage => "damage".to_owned(),
            });
        });
        assert_eq!(found, ["5 curves pjm true", "6 curves pjm removed"]);
        assert!(end.unwrap().sealed);
        assert!(open_segment(8, &path, false).unwrap().is_none(), "another number's");
        let mut newer = golden.to_vec();
        newer[4] = 2;
        std::fs::write(&path, newer).unwrap();
        assert!(open_segment(7, &path, false).unwrap().is_none(), "another version is not read as this one");
    }

    #[test]
    fn a_head_is_believed_only_where_it_was_written() {
        let mut batch = Batch::new(9, 32);
        batch.removal(5, "curves", "pjm");
        assert!(RecordHead::parse(&batch.bytes, 9, 32).is_some());
        assert!(RecordHead::parse(&batch.bytes, 9, 40).is_none());
        assert!(RecordHead::parse(&batch.bytes, 8, 32).is_none());
        for bit in 0..RECORD_HEAD * 8 {
            let mut bad = batch.bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHead::parse(&bad, 9, 32).is_none(), "bit {bit}");
        }
    }
}
