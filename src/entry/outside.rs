//! Between an entry in memory and its bytes outside this process: who checks them, and in which time its life is told.
//!
//! Inside, times are steady; outside, they are wall times, which other processes and later runs understand. Only
//! here the two meet.

use std::time::Duration;

use crate::clock::{Clock, LATEST_MS};
use crate::entry::{Entry, Header, Meta, Shape};
use crate::error::Error;
use crate::key::Key;
use crate::policy::TtlPolicy;

impl Entry {
    /// An entry from bytes that came from outside, checked against `key`: header, lengths and checksum. Wall times become steady
    /// ones by `clock`; an entry from the future is as old as now, and no life is longer than its header says. `stamp` replaces
    /// the header's (which is another node's where the bytes come from Redis).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with what is wrong; otherwise as [`build`](Self::build).
    pub(crate) fn decode(
        key: &Key<'_>,
        header: &[u8; Header::LEN],
        payload: &[u8],
        clock: &Clock,
        stamp: Option<u64>,
    ) -> Result<Self, Error> {
        let header = Header::parse(header)?;
        header.verify(key.namespace().name(), key.text, payload)?;
        Self::revive(key, &header, payload, clock, stamp)
    }

    /// The entry of a header and a payload that belong to each other and to `key`, as the checksum said; otherwise as [`decode`](Self::decode).
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) fn revive(
        key: &Key<'_>,
        header: &Header,
        payload: &[u8],
        clock: &Clock,
        stamp: Option<u64>,
    ) -> Result<Self, Error> {
        let life = header.expires - header.created;
        let policy = TtlPolicy::from_tag(header.policy, Duration::from_millis(life))
            .ok_or_else(|| Error::corrupt("entry header", "has a policy that this build does not know"))?;
        let offset = clock.recent_wall_offset();
        let mut created = header.created.saturating_sub_signed(offset);
        let mut expires = header.expires.saturating_sub_signed(offset);
        // Only what seems to be from the future asks for the exact time.
        if created > clock.recent() {
            let now = clock.steady();
            (created, expires) = (created.min(now), expires.min(now.saturating_add(life)));
        }
        let stale_until = expires.saturating_add(header.stale_until - header.expires);
        let meta =
            Meta { policy, fingerprint: header.fingerprint, created, expires, stale_until, stamp: stamp.unwrap_or(header.stamp) };
        Self::build(key, &meta, payload, Shape::UNKNOWN)
    }

    /// The 64 bytes that go before the payload outside this process, with wall times and checksum.
    pub(crate) fn header(&self, clock: &Clock) -> [u8; Header::LEN] {
        let (meta, offset) = (self.meta(), clock.wall_offset());
        let wall = |steady: u64| steady.saturating_add_signed(offset).min(LATEST_MS + u64::from(u32::MAX));
        let expires = wall(meta.expires);
        let (namespace, key, payload) = (self.namespace().name(), self.key(), self.payload());
        Header {
            flags: 0,
            policy: meta.policy.tag(),
            namespace_len: namespace.len() as u8,
            key_len: key.len() as u16,
            payload_len: payload.len() as u32,
            fingerprint: meta.fingerprint,
            created: wall(meta.created).min(expires),
            expires,
            stale_until: expires + (meta.stale_until - meta.expires),
            stamp: meta.stamp,
            checksum: 0,
        }
        .sealed(namespace, key, payload)
        .to_bytes()
    }
}
