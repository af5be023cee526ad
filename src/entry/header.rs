//! The header of an entry outside this process, byte by byte.
//!
//! ```text
//!  0        4    5     6      7      8       10      12       16
//!  +--------+----+-----+------+------+-------+-------+--------+
//!  | magic  | v  |flags|policy|ns len|key len| zero  | payload|   "AUCE", format version 1, lengths in bytes
//!  | 4      | 1  | 1   | 1    | 1    | 2     | 2     | len  4 |
//!  +--------+----+-----+------+------+-------+-------+--------+
//!  16 | type fingerprint                                   8  |
//!  24 | created, ms since the Unix epoch, wall time        8  |
//!  32 | expires, likewise                                  8  |
//!  40 | stale until, likewise; never before `expires`      8  |
//!  48 | stamp: position in the invalidation log that was   8  |
//!     | known when the fill of this value began; 0 = none     |
//!  56 | xxh3-64 over bytes 0..56, namespace, key, payload  8  |
//!  64 +-------------------------------------------------------+
//! ```
//!
//! Little-endian, 64 bytes. On disk namespace, key and payload follow; in Redis only the payload, because the key
//! is the key. The checksum covers namespace and key in both, so that bytes that
//! were misdirected do not pass. Golden files pin the version for ever (`tests/golden`).

use xxhash_rust::xxh3::Xxh3;
#[cfg(any(feature = "disk", test))]
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;
use crate::key::MAX_KEY_BYTES;
use crate::namespace::MAX_NAMESPACE_BYTES;

const MAGIC: [u8; 4] = *b"AUCE";

/// The format that this build writes and reads.
pub(crate) const FORMAT_VERSION: u8 = 1;

/// The largest payload the format can carry; the configured limit is lower.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// Bytes of a header that its checksum covers: all but itself.
const SUMMED: usize = 56;

/// What stands before a payload on disk and in Redis. Times are wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// No flag is defined in version 1; a reader refuses what it does not know.
    pub(crate) flags: u8,
    /// [`TtlPolicy::tag`](crate::policy::TtlPolicy).
    pub(crate) policy: u8,
    pub(crate) namespace_len: u8,
    pub(crate) key_len: u16,
    pub(crate) payload_len: u32,
    pub(crate) fingerprint: u64,
    pub(crate) created: u64,
    pub(crate) expires: u64,
    pub(crate) stale_until: u64,
    pub(crate) stamp: u64,
    pub(crate) checksum: u64,
}

impl Header {
    /// Its size in bytes; a multiple of 16, so that an aligned record has an aligned payload.
    pub(crate) const LEN: usize = 64;

    /// Reads a header and checks everything that can be checked without the payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with what is wrong.
    pub(crate) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Error> {
        let refuse = |what: &str| Err(Error::corrupt("entry header", what));
        if bytes[..4] != MAGIC {
            return refuse("does not begin with the mark of an entry");
        }
        if bytes[4] != FORMAT_VERSION {
            return refuse("has a format version that this build does not read");
        }
        let header = Self {
            flags: bytes[5],
            policy: bytes[6],
            namespace_len: bytes[7],
            key_len: u16_at(bytes, 8),
            payload_len: u32_at(bytes, 12),
            fingerprint: u64_at(bytes, 16),
            created: u64_at(bytes, 24),
            expires: u64_at(bytes, 32),
            stale_until: u64_at(bytes, 40),
            stamp: u64_at(bytes, 48),
            checksum: u64_at(bytes, 56),
        };
        if header.flags != 0 || header.policy > 6 || bytes[10..12] != [0, 0] {
            return refuse("carries flags that this build does not know");
        }
        if header.namespace_len == 0 || usize::from(header.namespace_len) > MAX_NAMESPACE_BYTES {
            return refuse("has an impossible namespace length");
        }
        if header.key_len == 0 || usize::from(header.key_len) > MAX_KEY_BYTES {
            return refuse("has an impossible key length");
        }
        if header.payload_len as usize > MAX_PAYLOAD_BYTES {
            return refuse("has an impossible payload length");
        }
        if header.created > header.expires || header.expires > header.stale_until {
            return refuse("expires before it was created");
        }
        Ok(header)
    }

    /// The bytes of this header, checksum as it stands in the field.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = FORMAT_VERSION;
        bytes[5] = self.flags;
        bytes[6] = self.policy;
        bytes[7] = self.namespace_len;
        bytes[8..10].copy_from_slice(&self.key_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.fingerprint.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.created.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.expires.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.stale_until.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.stamp.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// The header with the checksum that belongs to these parts.
    pub(crate) fn sealed(mut self, namespace: &str, key: &str, payload: &[u8]) -> Self {
        self.checksum = self.sum(namespace, key, payload);
        self
    }

    /// Do checksum and lengths belong to these parts?
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if not: damaged bytes, or bytes of another key.
    pub(crate) fn verify(&self, namespace: &str, key: &str, payload: &[u8]) -> Result<(), Error> {
        let is_long_as_said = usize::from(self.namespace_len) == namespace.len()
            && usize::from(self.key_len) == key.len()
            && self.payload_len as usize == payload.len();
        self.check(is_long_as_said, || self.sum(namespace, key, payload))
    }

    /// The same for the bytes of a whole entry as they stand in the log: header, namespace, key, payload and nothing behind it. In one go, which
    /// costs half of what the parts do; the header's place is used for that, and holds no header afterwards.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) as [`verify`](Self::verify).
    #[cfg(any(feature = "disk", test))]
    pub(crate) fn verify_whole(&self, entry: &mut [u8]) -> Result<(), Error> {
        let len = Self::LEN + usize::from(self.namespace_len) + usize::from(self.key_len) + self.payload_len as usize;
        self.check(entry.len() == len, || {
            // What is summed stands on both sides of the sum.
            entry.copy_within(..SUMMED, Self::LEN - SUMMED);
            xxh3_64(&entry[Self::LEN - SUMMED..])
        })
    }

    fn check(&self, is_long_as_said: bool, sum: impl FnOnce() -> u64) -> Result<(), Error> {
        if !is_long_as_said {
            return Err(Error::corrupt("entry", "is not as long as its header says"));
        }
        if self.checksum != sum() {
            return Err(Error::corrupt("entry", "has a checksum that does not fit its bytes and its key"));
        }
        Ok(())
    }

    fn sum(&self, namespace: &str, key: &str, payload: &[u8]) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.to_bytes()[..SUMMED]);
        hash.update(namespace.as_bytes());
        hash.update(key.as_bytes());
        hash.update(payload);
        hash.digest()
    }
}

fn u16_at(bytes: &[u8; Header::LEN], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; Header::LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; Header::LEN], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            flags: 0,
            policy: 4,
            namespace_len: 6,
            key_len: 3,
            payload_len: 5,
            fingerprint: 0x1122_3344_5566_7788,
            created: 1_000,
            expires: 2_000,
            stale_until: 3_000,
            stamp: 9,
            checksum: 0,
        }
        .sealed("curves", "pjm", b"bytes")
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Header::parse(&header().to_bytes()).unwrap(), header());
        header().verify("curves", "pjm", b"bytes").unwrap();
    }

    #[test]
    fn version_one_is_these_bytes_for_ever() {
        // Stores in the field hold such headers. If this fails, the change needs a new format version and a reader of this one.
        let golden = include_bytes!("../../tests/golden/entry-v1.bin");
        assert_eq!(header().to_bytes(), *golden);
        assert_eq!(Header::parse(golden).unwrap(), header());
        header().verify("curves", "pjm", b"bytes").unwrap();
    }

    #[test]
    fn a_whole_entry_is_judged_as_its_parts_are() {
        let good = [&header().to_bytes()[..], b"curvespjmbytes"].concat();
        header().verify_whole(&mut good.clone()).unwrap();
        assert!(header().verify_whole(&mut good[..good.len() - 1].to_vec()).is_err());
        assert!(header().verify_whole(&mut [&good[..], b"0"].concat()).is_err());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let head = Header::parse(bad.first_chunk().unwrap());
            assert!(!head.is_ok_and(|head| head.verify_whole(&mut bad).is_ok()), "bit {bit}");
        }
    }

    #[test]
    fn another_key_namespace_or_payload_does_not_pass() {
        assert!(header().verify("curve5", "pjm", b"bytes").is_err());
        assert!(header().verify("curves", "pjn", b"bytes").is_err());
        assert!(header().verify("curves", "pjm", b"Bytes").is_err());
        assert!(header().verify("curves", "pjm", b"byte").is_err());
    }

    #[test]
    fn no_flipped_bit_passes() {
        let good = header().to_bytes();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let passed = Header::parse(&bad).is_ok_and(|header| header.verify("curves", "pjm", b"bytes").is_ok());
            assert!(!passed, "bit {bit}");
        }
    }
}
