//! The head of an entry: what is known of it besides its key and its value, in 32 bytes.
//!
//! [`codec`](super::codec) trusts what a head says of lengths, to read and to free by them: it says the same from [`Head::new`] to its end.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use crate::entry::class::ClassId;
use crate::entry::life;
use crate::namespace::{Namespace, NamespaceId};
use crate::policy::TtlPolicy;

/// Alignment of every entry, and of every payload that needs one.
pub(super) const ALIGN: usize = 16;

/// What is known of an entry besides its bytes. Times are steady milliseconds (see [`crate::clock`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) policy: TtlPolicy,
    pub(crate) fingerprint: u64,
    pub(crate) created: u64,
    pub(crate) expires: u64,
    /// Until when it may be served as declared stale; equal to `expires` where staleness is not allowed.
    pub(crate) stale_until: u64,
    /// Position in the invalidation log known when the fill began; 0 without a log.
    pub(crate) stamp: u64,
}

/// What stands before the key. `repr(C)` only fixes the order for whoever reads a core dump.
#[repr(C)]
pub(crate) struct Head {
    pub(super) references: AtomicU32,
    /// Free for the tier that holds the entry; the memory tier keeps queue bookkeeping here, under its shard lock.
    place: AtomicU32,
    payload_len: u32,
    /// Lower 13 bits: length of the key. Above them [`IS_ALIGNED`] and [`IS_REVIVED`].
    key_len: u16,
    /// Number of the [`Class`](crate::entry::class::Class). Changes once, when the payload is validated.
    class: AtomicU16,
    /// Steady milliseconds, 48 bits with `expires_high`: beyond the year 9999.
    expires_low: u32,
    /// `expires - created`; see [`life`].
    life: u32,
    /// The local sequence number at which its fill began, 40 bits with `stamp_high`. A larger one counts as the largest, which rules cover rather
    /// too often than too seldom.
    stamp_low: u32,
    expires_high: u16,
    stamp_high: u8,
    /// Saturating access count, 0 to 7; only the memory tier's policy writes it.
    hits: AtomicU8,
}

const _: () = assert!(size_of::<Head>() == 32, "the head is what an entry costs over its key and value");

/// Bits of `key_len` that are the length.
const KEY_LEN_BITS: u32 = 13;
const _: () = assert!(crate::key::MAX_KEY_BYTES < 1 << KEY_LEN_BITS);
/// The payload begins at a multiple of [`ALIGN`].
pub(super) const IS_ALIGNED: u16 = 1 << KEY_LEN_BITS;
/// The bytes came from a lower tier.
pub(super) const IS_REVIVED: u16 = IS_ALIGNED << 1;

impl Head {
    /// Of an entry with one reference. The lengths are within the limits of keys and payloads.
    #[inline]
    pub(super) fn new(class: ClassId, meta: &Meta, key_len: usize, payload_len: usize, flags: u16) -> Self {
        let expires = meta.expires.min((1 << 48) - 1);
        let stamp = meta.stamp.min((1 << 40) - 1);
        Self {
            references: AtomicU32::new(1),
            place: AtomicU32::new(0),
            payload_len: payload_len as u32,
            key_len: key_len as u16 | flags,
            class: AtomicU16::new(class.0),
            expires_low: expires as u32,
            life: life::pack(expires.saturating_sub(meta.created)),
            stamp_low: stamp as u32,
            expires_high: (expires >> 32) as u16,
            stamp_high: (stamp >> 32) as u8,
            hits: AtomicU8::new(0),
        }
    }

    /// Acquires what the thread that validated the payload has registered.
    #[inline]
    pub(super) fn class(&self) -> ClassId {
        ClassId(self.class.load(Ordering::Acquire))
    }

    /// The payload was validated: the class that says so.
    pub(super) fn set_class(&self, class: ClassId) {
        self.class.store(class.0, Ordering::Release);
    }

    #[inline]
    pub(crate) fn namespace_id(&self) -> NamespaceId {
        self.class().namespace()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.namespace_id().namespace()
    }

    #[inline]
    pub(super) fn key_len(&self) -> usize {
        usize::from(self.key_len & ((1 << KEY_LEN_BITS) - 1))
    }

    #[inline]
    pub(super) fn payload_len(&self) -> usize {
        self.payload_len as usize
    }

    /// Where the payload begins, in bytes from here.
    #[inline]
    pub(super) fn payload_at(&self) -> usize {
        payload_at(self.key_len(), self.key_len & IS_ALIGNED)
    }

    /// Bytes of the entry's allocation, as requested.
    #[inline]
    pub(crate) fn footprint(&self) -> usize {
        self.payload_at() + self.payload_len()
    }

    /// Did it come to this process' memory from a lower tier?
    pub(crate) fn is_revived(&self) -> bool {
        self.key_len & IS_REVIVED != 0
    }

    pub(crate) fn meta(&self) -> Meta {
        let class = self.class().class();
        let life = self.life();
        Meta {
            policy: TtlPolicy::from_tag(class.policy, life).unwrap_or(TtlPolicy::Custom(life)),
            fingerprint: class.fingerprint,
            created: self.created(),
            expires: self.expires(),
            stale_until: self.stale_until(),
            stamp: self.stamp(),
        }
    }

    /// What lies between its creation and its end: exact to the millisecond up to 37 hours, to a part in 100 million beyond.
    fn life(&self) -> Duration {
        Duration::from_millis(life::unpack(self.life))
    }

    #[inline]
    pub(crate) fn created(&self) -> u64 {
        self.expires().saturating_sub(life::unpack(self.life))
    }

    /// From this steady millisecond on it is no longer fresh.
    #[inline]
    pub(crate) fn expires(&self) -> u64 {
        u64::from(self.expires_low) | u64::from(self.expires_high) << 32
    }

    /// From this steady millisecond on it may not be served at all.
    #[inline]
    pub(crate) fn stale_until(&self) -> u64 {
        self.expires() + u64::from(self.class().grace_ms())
    }

    /// The local sequence number at which its fill began; a rule with a higher one covers it.
    #[inline]
    pub(crate) fn stamp(&self) -> u64 {
        u64::from(self.stamp_low) | u64::from(self.stamp_high) << 32
    }

    /// Does anybody else hold these bytes? Only a hint: the answer may have changed already.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.references.load(Ordering::Relaxed) > 1
    }

    /// The saturating access counter of the memory tier's policy.
    #[inline]
    pub(crate) fn hits(&self) -> &AtomicU8 {
        &self.hits
    }

    /// Bookkeeping of the tier that holds the entry.
    #[inline]
    pub(crate) fn place(&self) -> &AtomicU32 {
        &self.place
    }
}

/// Where the payload of an entry begins, whose flags are these or those and more.
#[inline]
pub(super) const fn payload_at(key_len: usize, flags: u16) -> usize {
    let padding = ((flags & IS_ALIGNED) >> KEY_LEN_BITS) as usize * (ALIGN - 1);
    // Without a branch: up to a multiple of sixteen, or of one.
    (size_of::<Head>() + key_len + padding) & !padding
}
