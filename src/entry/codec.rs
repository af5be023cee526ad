//! An entry's bytes in memory, and the cast from bytes to a typed view. All `unsafe` of the entry is in this file.
//!
//! One allocation an entry, immutable once built:
//!
//! ```text
//! | Head (64 bytes) | key | padding to 16 | payload |
//! ```
//!
//! so that the payload, a rkyv archive, is 16-aligned wherever it came from (sled's and Redis' buffers are not). The
//! allocation is shared by a reference count; tiers, queues and readers hold the same bytes.
//!
//! **From bytes to a view.** [`Entry::claim`] compares the type's fingerprint and then asks whether these bytes were validated
//! as this very Rust type before; if not, it validates them now, once, and notes the type's mark in the head. A later hit
//! is two compares with constants. A fingerprint that differs is [`Claim::Foreign`]: a miss, not a misread.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::TypeId;
use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{NonNull, copy_nonoverlapping};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, fence};
use std::time::Duration;

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize, rancor};

use crate::clock::{Clock, LATEST_MS};
use crate::entry::Header;
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::namespace::{Namespace, NamespaceId};
use crate::policy::TtlPolicy;

/// Alignment of every payload.
const ALIGN: usize = 16;

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
struct Head {
    references: AtomicU32,
    payload_len: u32,
    fingerprint: u64,
    created: u64,
    expires: u64,
    stamp: u64,
    /// `stale_until - expires` in milliseconds, saturating at 49 days.
    stale_for: u32,
    /// Mark of the Rust type these bytes were validated as; 0 = not yet.
    checked_as: AtomicU32,
    namespace: NamespaceId,
    key_len: u16,
    policy: u8,
    /// Saturating access count, 0 to 7; only the memory tier's policy writes it.
    hits: AtomicU8,
    /// Free for the tier that holds the entry; the memory tier keeps queue bookkeeping here, under its shard lock.
    place: AtomicU32,
}

/// A cached value with its key and head: shared, immutable bytes. Cloning counts a reference.
#[repr(transparent)]
pub(crate) struct Entry {
    head: NonNull<Head>,
}

// SAFETY: all fields are immutable after `build`, but for atomics; the bytes are freed by whoever drops the last reference.
unsafe impl Send for Entry {}
// SAFETY: as above; `&Entry` gives only shared reads and atomic updates.
unsafe impl Sync for Entry {}

impl Entry {
    /// An entry with a copy of `payload`.
    pub(crate) fn new(key: &Key<'_>, meta: &Meta, payload: &[u8]) -> Self {
        debug_assert!(payload.len() <= crate::entry::header::MAX_PAYLOAD_BYTES && key.text.len() <= crate::key::MAX_KEY_BYTES);
        let (layout, payload_at) = layout(key.text.len(), payload.len());
        // SAFETY: the layout is never of size zero: it holds a `Head`.
        let raw = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(raw) else { handle_alloc_error(layout) };
        let head = start.cast::<Head>();
        let stale_for = meta.stale_until.saturating_sub(meta.expires);
        // SAFETY: `layout` put room for a `Head`, the key and the payload into this fresh, 16-aligned allocation; nothing overlaps.
        unsafe {
            head.write(Head {
                references: AtomicU32::new(1),
                payload_len: payload.len() as u32,
                fingerprint: meta.fingerprint,
                created: meta.created,
                expires: meta.expires,
                stamp: meta.stamp,
                stale_for: u32::try_from(stale_for).unwrap_or(u32::MAX),
                checked_as: AtomicU32::new(0),
                namespace: key.id,
                key_len: key.text.len() as u16,
                policy: meta.policy.tag(),
                hits: AtomicU8::new(0),
                place: AtomicU32::new(0),
            });
            copy_nonoverlapping(key.text.as_ptr(), raw.add(size_of::<Head>()), key.text.len());
            copy_nonoverlapping(payload.as_ptr(), raw.add(payload_at), payload.len());
        }
        Self { head }
    }

    /// An entry from bytes that came from outside, checked against `key`: header, lengths and checksum. Wall times become steady
    /// ones by `clock`; an entry from the future is as old as now, and no life is longer than its header says. `stamp` replaces
    /// the header's (which is another node's where the bytes come from Redis).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] with what is wrong.
    pub(crate) fn decode(
        key: &Key<'_>,
        header: &[u8; Header::LEN],
        payload: &[u8],
        clock: &Clock,
        stamp: Option<u64>,
    ) -> Result<Self, Error> {
        let header = Header::parse(header)?;
        header.verify(key.namespace().name(), key.text, payload)?;
        let life = header.expires - header.created;
        let policy = TtlPolicy::from_tag(header.policy, Duration::from_millis(life))
            .ok_or_else(|| Error::corrupt("entry header", "has a policy that this build does not know"))?;
        let (now, offset) = (clock.steady(), clock.wall_offset());
        let created = header.created.saturating_sub_signed(offset).min(now);
        let expires = header.expires.saturating_sub_signed(offset).min(now.saturating_add(life));
        let stale_until = expires.saturating_add(header.stale_until - header.expires);
        let meta =
            Meta { policy, fingerprint: header.fingerprint, created, expires, stale_until, stamp: stamp.unwrap_or(header.stamp) };
        Ok(Self::new(key, &meta, payload))
    }

    /// The 64 bytes that go before the payload outside this process, with wall times and checksum.
    pub(crate) fn header(&self, clock: &Clock) -> [u8; Header::LEN] {
        let (head, offset) = (self.head(), clock.wall_offset());
        let wall = |steady: u64| steady.saturating_add_signed(offset).min(LATEST_MS + u64::from(u32::MAX));
        let expires = wall(head.expires);
        let (namespace, key, payload) = (self.namespace().name(), self.key(), self.payload());
        Header {
            flags: 0,
            policy: head.policy,
            namespace_len: namespace.len() as u8,
            key_len: head.key_len,
            payload_len: head.payload_len,
            fingerprint: head.fingerprint,
            created: wall(head.created).min(expires),
            expires,
            stale_until: expires + u64::from(head.stale_for),
            stamp: head.stamp,
            checksum: 0,
        }
        .sealed(namespace, key, payload)
        .to_bytes()
    }

    /// These bytes as a value of form `F`, if they are one; validated the first time.
    #[inline]
    pub(crate) fn claim<F: Form>(self, fingerprint: u64) -> Claim<F> {
        match self.check::<F>(fingerprint) {
            Checked::Yes => Claim::Typed(Typed { entry: self, form: PhantomData }),
            Checked::Foreign => Claim::Foreign,
            Checked::Damaged => Claim::Damaged,
        }
    }

    /// The view of form `F` of these bytes, if they are of that form and were validated as it before.
    #[inline]
    pub(crate) fn view<F: Form>(&self, fingerprint: u64) -> Option<&F::View> {
        match self.check::<F>(fingerprint) {
            // SAFETY: `check` said that this payload was validated as `F`; it is immutable and 16-aligned.
            Checked::Yes => Some(unsafe { F::cast(self.payload()) }),
            Checked::Foreign | Checked::Damaged => None,
        }
    }

    /// Says that this payload was made by `F::encode` in this process, so that no hit needs to validate it.
    pub(crate) fn vouch<F: Form>(&self) {
        if cfg!(debug_assertions) {
            assert!(F::check(self.payload()), "an encoded value does not validate");
        }
        self.head().checked_as.store(mark::<F>(), Ordering::Release);
    }

    #[inline]
    fn check<F: Form>(&self, fingerprint: u64) -> Checked {
        let head = self.head();
        if head.fingerprint != fingerprint {
            return Checked::Foreign;
        }
        if head.checked_as.load(Ordering::Acquire) == mark::<F>() { Checked::Yes } else { self.check_now::<F>() }
    }

    #[cold]
    fn check_now<F: Form>(&self) -> Checked {
        if F::check(self.payload()) {
            self.head().checked_as.store(mark::<F>(), Ordering::Release);
            Checked::Yes
        } else {
            Checked::Damaged
        }
    }

    pub(crate) fn namespace_id(&self) -> NamespaceId {
        self.head().namespace
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.head().namespace.namespace()
    }

    /// Is this the entry of `key`? Compares the whole key, not its hash.
    #[inline]
    pub(crate) fn is_of(&self, key: &Key<'_>) -> bool {
        self.head().namespace == key.id && self.key_bytes() == key.text.as_bytes()
    }

    pub(crate) fn key(&self) -> &str {
        // SAFETY: `new` copied these bytes from a `str`.
        unsafe { std::str::from_utf8_unchecked(self.key_bytes()) }
    }

    #[inline]
    fn key_bytes(&self) -> &[u8] {
        // SAFETY: `new` wrote `key_len` bytes behind the head, and nobody writes them again.
        unsafe {
            let start = self.head.as_ptr().cast::<u8>().add(size_of::<Head>());
            std::slice::from_raw_parts(start, usize::from(self.head().key_len))
        }
    }

    /// The archive; 16-aligned.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        let (key_len, payload_len) = (usize::from(self.head().key_len), self.head().payload_len as usize);
        // SAFETY: `new` wrote `payload_len` bytes at this place of the same layout, and nobody writes them again.
        unsafe {
            let start = self.head.as_ptr().cast::<u8>().add(payload_at(key_len));
            std::slice::from_raw_parts(start, payload_len)
        }
    }

    pub(crate) fn meta(&self) -> Meta {
        let head = self.head();
        let life = Duration::from_millis(head.expires.saturating_sub(head.created));
        Meta {
            policy: TtlPolicy::from_tag(head.policy, life).unwrap_or(TtlPolicy::Custom(life)),
            fingerprint: head.fingerprint,
            created: head.created,
            expires: head.expires,
            stale_until: self.stale_until(),
            stamp: head.stamp,
        }
    }

    #[inline]
    pub(crate) fn created(&self) -> u64 {
        self.head().created
    }

    /// From this steady millisecond on it is no longer fresh.
    #[inline]
    pub(crate) fn expires(&self) -> u64 {
        self.head().expires
    }

    /// From this steady millisecond on it may not be served at all.
    #[inline]
    pub(crate) fn stale_until(&self) -> u64 {
        self.head().expires.saturating_add(u64::from(self.head().stale_for))
    }

    /// The local sequence number at which its fill began; a rule with a higher one covers it.
    #[inline]
    pub(crate) fn stamp(&self) -> u64 {
        self.head().stamp
    }

    /// Bytes of its allocation, as requested.
    pub(crate) fn footprint(&self) -> usize {
        layout(usize::from(self.head().key_len), self.head().payload_len as usize).0.size()
    }

    /// Does anybody else hold these bytes? Only a hint: the answer may have changed already.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        self.head().references.load(Ordering::Relaxed) > 1
    }

    /// The saturating access counter of the memory tier's policy.
    #[inline]
    pub(crate) fn hits(&self) -> &AtomicU8 {
        &self.head().hits
    }

    /// Bookkeeping of the tier that holds the entry.
    #[inline]
    pub(crate) fn place(&self) -> &AtomicU32 {
        &self.head().place
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: the allocation lives as long as any `Entry` that refers to it.
        unsafe { self.head.as_ref() }
    }
}

/// The bridge for `tier/memory/table.rs`, which keeps entries as tagged words.
impl Entry {
    /// Gives up this reference without dropping it; the address is 16-aligned and below 2^48.
    pub(crate) fn into_raw(self) -> NonNull<u8> {
        let raw = self.head.cast();
        std::mem::forget(self);
        raw
    }

    /// Takes a reference back.
    ///
    /// # Safety
    ///
    /// `raw` is from [`into_raw`](Self::into_raw), and each such reference is taken back at most once.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn from_raw(raw: NonNull<u8>) -> Self {
        Self { head: raw.cast() }
    }
}

impl Clone for Entry {
    #[inline]
    fn clone(&self) -> Self {
        let before = self.head().references.fetch_add(1, Ordering::Relaxed);
        if before > u32::MAX / 2 {
            // Two billion clones can only be a leak in a loop; the count must not wrap into a use after free.
            std::process::abort();
        }
        Self { head: self.head }
    }
}

impl Drop for Entry {
    #[inline]
    fn drop(&mut self) {
        if self.head().references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let layout = layout(usize::from(self.head().key_len), self.head().payload_len as usize).0;
            // SAFETY: this was the last reference; the layout is computed from the same lengths as in `new`. `Head` needs no drop.
            unsafe { dealloc(self.head.as_ptr().cast(), layout) };
        }
    }
}

impl fmt::Debug for Entry {
    /// Without the value: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("namespace", &self.namespace())
            .field("bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

#[inline]
const fn payload_at(key_len: usize) -> usize {
    (size_of::<Head>() + key_len).next_multiple_of(ALIGN)
}

/// Layout of an entry, and where its payload begins. Lengths are bounded by `MAX_KEY_BYTES` and `MAX_PAYLOAD_BYTES`, so nothing overflows.
#[inline]
fn layout(key_len: usize, payload_len: usize) -> (Layout, usize) {
    let at = payload_at(key_len);
    // SAFETY: the alignment is a power of two, and the bounded lengths stay far below `isize::MAX`.
    (unsafe { Layout::from_size_align_unchecked(at + payload_len, ALIGN) }, at)
}

enum Checked {
    Yes,
    Foreign,
    Damaged,
}

/// What became of a claim.
pub(crate) enum Claim<F: Form> {
    /// It is a value of that form.
    Typed(Typed<F>),
    /// It was written as another type, or by another version of the type.
    Foreign,
    /// It says it is that type, but it does not validate.
    Damaged,
}

/// An entry that was checked to be of form `F`.
pub(crate) struct Typed<F: Form> {
    entry: Entry,
    form: PhantomData<fn() -> F>,
}

impl<F: Form> Typed<F> {
    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl<F: Form> Clone for Typed<F> {
    fn clone(&self) -> Self {
        Self { entry: self.entry.clone(), form: PhantomData }
    }
}

impl<F: Form> Deref for Typed<F> {
    type Target = F::View;

    #[inline]
    fn deref(&self) -> &F::View {
        // SAFETY: only `Entry::claim` makes a `Typed`, after the payload was validated as `F`; it is immutable and 16-aligned.
        unsafe { F::cast(self.entry.payload()) }
    }
}

/// How one kind of value becomes bytes and is seen in them. Implemented here and nowhere else.
pub trait Form: 'static {
    /// What is written.
    type Value: ?Sized;
    /// What a reader sees.
    type View: ?Sized;

    /// Hands the bytes of `value` to `take`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidValue`] if it cannot be archived.
    #[doc(hidden)]
    fn encode<R>(value: &Self::Value, take: impl FnOnce(&[u8]) -> R) -> Result<R, Error>;

    /// Are these bytes such a value?
    #[doc(hidden)]
    fn check(bytes: &[u8]) -> bool;

    /// The view of these bytes.
    ///
    /// # Safety
    ///
    /// `check` has accepted exactly these bytes at this 16-aligned address.
    #[doc(hidden)]
    #[allow(unsafe_code)]
    unsafe fn cast(bytes: &[u8]) -> &Self::View;
}

/// A sized rkyv type.
pub struct Archived<T>(PhantomData<fn() -> T>);

impl<T> Form for Archived<T>
where
    T: Archive + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>> + 'static,
    T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static,
{
    type Value = T;
    type View = T::Archived;

    fn encode<R>(value: &T, take: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        const { assert!(align_of::<T::Archived>() <= ALIGN, "a type with an alignment above 16 cannot be cached") };
        thread_local! {
            /// Reused, so that a `set` allocates once, for the entry itself.
            static SCRATCH: RefCell<AlignedVec> = RefCell::new(AlignedVec::new());
        }
        /// A buffer that grew beyond this is not kept.
        const KEEP: usize = 1 << 20;
        let mut buffer =
            SCRATCH.with(|scratch| scratch.try_borrow_mut().map(|mut kept| std::mem::take(&mut *kept)).unwrap_or_default());
        buffer.clear();
        let buffer = rkyv::api::high::to_bytes_in::<_, rancor::Error>(value, buffer).map_err(|cause| {
            Error::caused(ErrorKind::InvalidValue, std::any::type_name::<T>(), "could not be archived", cause)
        })?;
        let taken = take(&buffer);
        if buffer.capacity() <= KEEP {
            SCRATCH.with(|scratch| scratch.try_borrow_mut().map(|mut kept| *kept = buffer)).ok();
        }
        Ok(taken)
    }

    fn check(bytes: &[u8]) -> bool {
        rkyv::access::<T::Archived, rancor::Error>(bytes).is_ok()
    }

    #[inline]
    #[allow(unsafe_code)]
    unsafe fn cast(bytes: &[u8]) -> &T::Archived {
        // SAFETY: the caller says that `check` accepted these bytes here.
        unsafe { rkyv::access_unchecked::<T::Archived>(bytes) }
    }
}

/// Plain bytes.
pub struct Bytes;

impl Form for Bytes {
    type Value = [u8];
    type View = [u8];

    fn encode<R>(value: &[u8], take: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        Ok(take(value))
    }

    fn check(_: &[u8]) -> bool {
        true
    }

    #[inline]
    #[allow(unsafe_code)]
    unsafe fn cast(bytes: &[u8]) -> &[u8] {
        bytes
    }
}

/// Plain text.
pub struct Text;

impl Form for Text {
    type Value = str;
    type View = str;

    fn encode<R>(value: &str, take: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        Ok(take(value.as_bytes()))
    }

    fn check(bytes: &[u8]) -> bool {
        std::str::from_utf8(bytes).is_ok()
    }

    #[inline]
    #[allow(unsafe_code)]
    unsafe fn cast(bytes: &[u8]) -> &str {
        // SAFETY: the caller says that `check` accepted these bytes.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }
}

/// A number for the Rust type `F` in this process, never 0. It stands beside the 64-bit fingerprint, so that two types
/// with one fingerprint (a `Schema` written by hand) are not taken for each other. A constant after optimisation.
#[inline]
fn mark<F: Form>() -> u32 {
    #[derive(Default)]
    struct Low(u64);
    impl Hasher for Low {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }
        fn write_u64(&mut self, word: u64) {
            self.0 ^= word;
        }
    }
    let mut low = Low::default();
    TypeId::of::<F>().hash(&mut low);
    (low.finish() as u32) | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyHasher;

    fn meta(fingerprint: u64) -> Meta {
        Meta { policy: TtlPolicy::Short, fingerprint, created: 1_000, expires: 301_000, stale_until: 302_000, stamp: 7 }
    }

    #[test]
    fn an_entry_is_what_was_put_into_it() {
        let key = KeyHasher::random().key(Namespace::CURVES, "pjm").unwrap();
        for len in [0, 1, 15, 16, 17, 1000] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let entry = Entry::new(&key, &meta(1), &payload);
            assert_eq!((entry.key(), entry.payload(), entry.meta()), ("pjm", &payload[..], meta(1)));
            assert_eq!(entry.payload().as_ptr() as usize % ALIGN, 0);
            assert!(entry.is_of(&key));
        }
    }

    #[test]
    fn a_claim_as_another_type_is_foreign_and_a_bad_archive_damaged() {
        let key = KeyHasher::random().key(Namespace::CURVES, "k").unwrap();
        let entry = Entry::new(&key, &meta(1), &[0xff, 0xfe]);
        assert!(matches!(entry.clone().claim::<Text>(2), Claim::Foreign));
        assert!(matches!(entry.clone().claim::<Text>(1), Claim::Damaged));
        assert!(matches!(entry.claim::<Bytes>(1), Claim::Typed(bytes) if *bytes == [0xff, 0xfe]));
    }

    #[test]
    fn one_fingerprint_does_not_make_two_types_one() {
        let key = KeyHasher::random().key(Namespace::CURVES, "k").unwrap();
        let entry = Entry::new(&key, &meta(1), &[0xff]);
        assert!(entry.view::<Bytes>(1).is_some());
        assert!(entry.view::<Text>(1).is_none(), "validated as bytes, then read as text");
    }

    #[test]
    fn what_leaves_and_comes_back_keeps_its_remaining_life() {
        let clock = Clock::manual();
        let key = KeyHasher::random().key(Namespace::CURVES, "k").unwrap();
        let now = clock.steady();
        let meta = Meta { created: now, expires: now + 300_000, stale_until: now + 301_000, ..meta(1) };
        let entry = Entry::new(&key, &meta, b"payload");
        clock.advance(Duration::from_secs(100));
        clock.jump_wall(3_600_000);
        let header = entry.header(&clock);
        let back = Entry::decode(&key, &header, b"payload", &clock, None).unwrap();
        assert_eq!(back.meta(), meta);
        // The wall clock goes back while the entry is outside: it lives longer by no more than the jump, and never beyond its TTL.
        clock.jump_wall(-7_200_000);
        let back = Entry::decode(&key, &header, b"payload", &clock, None).unwrap();
        assert!(back.expires() <= clock.steady() + 300_000);
        assert!(back.created() <= clock.steady());
    }
}
