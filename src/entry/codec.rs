//! An entry's bytes in memory, and the cast from bytes to a typed view. All `unsafe` of the entry is in this file.
//!
//! One allocation an entry, immutable once built:
//!
//! ```text
//! | Head (32 bytes) | key | padding to 16 | payload |
//! ```
//!
//! so that the payload, a rkyv archive, is 16-aligned wherever it came from (sled's and Redis' buffers are not). Bytes and text need
//! no padding and get none. The allocation is shared by a reference count; tiers, queues and readers hold the same bytes. What an entry
//! has in common with many others is its [`Class`], of which the head has the number.
//!
//! **From bytes to a view.** [`Entry::claim`] compares the type's fingerprint and then asks whether these bytes were validated
//! as this very Rust type before; if not, it validates them now, once, and moves the entry to the class that says so. A later hit
//! is two compares with constants. A fingerprint that differs is [`Claim::Foreign`]: a miss, not a misread.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::TypeId;
use std::cell::RefCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{NonNull, copy_nonoverlapping};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering, fence};
use std::time::Duration;

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize, rancor};

use crate::bytes::are_equal;
use crate::entry::class::{Class, ClassId};
use crate::entry::life;
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

/// How the payload of a value lies in memory, and what it is known to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Of the Rust type it was made from by `Form::encode`; 0 where it came from outside and is not validated yet.
    mark: u32,
    /// [`IS_ALIGNED`] and [`IS_REVIVED`].
    flags: u16,
}

impl Shape {
    /// Bytes from outside: aligned for any type, validated as none.
    pub(crate) const UNKNOWN: Self = Self { mark: 0, flags: IS_ALIGNED | IS_REVIVED };

    /// What `F::encode` makes in this process, so that no hit needs to validate it.
    pub(crate) fn of<F: Form>() -> Self {
        Self { mark: mark::<F>(), flags: if F::IS_PLAIN { 0 } else { IS_ALIGNED } }
    }
}

/// What stands before the key. `repr(C)` only fixes the order for whoever reads a core dump.
#[repr(C)]
struct Head {
    references: AtomicU32,
    /// Free for the tier that holds the entry; the memory tier keeps queue bookkeeping here, under its shard lock.
    place: AtomicU32,
    payload_len: u32,
    /// Lower 13 bits: length of the key. Above them [`IS_ALIGNED`] and [`IS_REVIVED`].
    key_len: u16,
    /// Number of the [`Class`]. Changes once, when the payload is validated.
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
const IS_ALIGNED: u16 = 1 << KEY_LEN_BITS;
/// The bytes came from a lower tier.
const IS_REVIVED: u16 = IS_ALIGNED << 1;

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
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidValue`] if the process has too many classes.
    #[inline]
    pub(crate) fn build(key: &Key<'_>, meta: &Meta, payload: &[u8], shape: Shape) -> Result<Self, Error> {
        debug_assert!(payload.len() <= crate::entry::header::MAX_PAYLOAD_BYTES && key.text.len() <= crate::key::MAX_KEY_BYTES);
        let grace = meta.stale_until.saturating_sub(meta.expires);
        let class = Class {
            fingerprint: meta.fingerprint,
            mark: shape.mark,
            grace_ms: u32::try_from(grace).unwrap_or(u32::MAX),
            namespace: key.id,
            policy: meta.policy.tag(),
        }
        .id()?;
        let expires = meta.expires.min((1 << 48) - 1);
        let stamp = meta.stamp.min((1 << 40) - 1);
        let (layout, payload_at) = layout(key.text.len(), payload.len(), shape.flags & IS_ALIGNED != 0);
        // SAFETY: the layout is never of size zero: it holds a `Head`.
        let raw = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(raw) else { handle_alloc_error(layout) };
        let head = start.cast::<Head>();
        // SAFETY: `layout` put room for a `Head`, the key and the payload into this fresh, 16-aligned allocation; nothing overlaps.
        unsafe {
            head.write(Head {
                references: AtomicU32::new(1),
                place: AtomicU32::new(0),
                payload_len: payload.len() as u32,
                key_len: key.text.len() as u16 | shape.flags,
                class: AtomicU16::new(class.0),
                expires_low: expires as u32,
                life: life::pack(expires.saturating_sub(meta.created)),
                stamp_low: stamp as u32,
                expires_high: (expires >> 32) as u16,
                stamp_high: (stamp >> 32) as u8,
                hits: AtomicU8::new(0),
            });
            copy_nonoverlapping(key.text.as_ptr(), raw.add(size_of::<Head>()), key.text.len());
            copy_nonoverlapping(payload.as_ptr(), raw.add(payload_at), payload.len());
        }
        Ok(Self { head })
    }

    /// For tests: an entry of no known type.
    #[cfg(test)]
    pub(crate) fn new(key: &Key<'_>, meta: &Meta, payload: &[u8]) -> Self {
        Self::build(key, meta, payload, Shape::UNKNOWN).expect("few classes")
    }

    /// These bytes as a value of form `F`, if they are one; validated the first time.
    #[inline]
    pub(crate) fn claim<F: Form>(self, fingerprint: u64) -> Claim<F> {
        match self.check::<F>(fingerprint) {
            Verdict::Yes => Claim::Typed(Typed { entry: self, form: PhantomData }),
            Verdict::Foreign => Claim::Foreign,
            Verdict::Damaged => Claim::Damaged,
        }
    }

    /// As [`claim`](Self::claim), counting a reference only if the answer is yes.
    #[inline]
    pub(crate) fn typed<F: Form>(&self, fingerprint: u64) -> Option<Typed<F>> {
        match self.check::<F>(fingerprint) {
            Verdict::Yes => Some(Typed { entry: self.clone(), form: PhantomData }),
            Verdict::Foreign | Verdict::Damaged => None,
        }
    }

    /// The view of form `F` of these bytes, if they are of that form and were validated as it before.
    #[inline]
    pub(crate) fn view<F: Form>(&self, fingerprint: u64) -> Option<&F::View> {
        match self.check::<F>(fingerprint) {
            // SAFETY: `check` said that this payload was validated as `F`; it is immutable and 16-aligned.
            Verdict::Yes => Some(unsafe { F::cast(self.payload()) }),
            Verdict::Foreign | Verdict::Damaged => None,
        }
    }

    #[inline]
    pub(crate) fn check<F: Form>(&self, fingerprint: u64) -> Verdict {
        let class = self.class();
        if class.fingerprint() != fingerprint {
            return Verdict::Foreign;
        }
        if class.mark() == mark::<F>() { Verdict::Yes } else { self.check_now::<F>() }
    }

    #[cold]
    fn check_now<F: Form>(&self) -> Verdict {
        if !F::check(self.payload()) {
            return Verdict::Damaged;
        }
        // With no class to be had it is validated again by the next reader.
        if let Ok(class) = (Class { mark: mark::<F>(), ..self.class().class() }).id() {
            self.head().class.store(class.0, Ordering::Release);
        }
        Verdict::Yes
    }

    /// Acquires what the thread that validated the payload has registered.
    #[inline]
    fn class(&self) -> ClassId {
        ClassId(self.head().class.load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn namespace_id(&self) -> NamespaceId {
        self.class().namespace()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.namespace_id().namespace()
    }

    /// Is this the entry of `key`? Compares the whole key, not its hash.
    #[inline]
    pub(crate) fn is_of(&self, key: &Key<'_>) -> bool {
        are_equal(self.key_bytes(), key.text.as_bytes()) && self.namespace_id() == key.id
    }

    pub(crate) fn key(&self) -> &str {
        // SAFETY: `build` copied these bytes from a `str`.
        unsafe { std::str::from_utf8_unchecked(self.key_bytes()) }
    }

    #[inline]
    fn key_bytes(&self) -> &[u8] {
        // SAFETY: `build` wrote so many bytes behind the head, and nobody writes them again.
        unsafe {
            let start = self.head.as_ptr().cast::<u8>().add(size_of::<Head>());
            std::slice::from_raw_parts(start, self.key_len())
        }
    }

    #[inline]
    fn key_len(&self) -> usize {
        usize::from(self.head().key_len & ((1 << KEY_LEN_BITS) - 1))
    }

    #[inline]
    fn is_aligned(&self) -> bool {
        self.head().key_len & IS_ALIGNED != 0
    }

    /// Did it come to this process' memory from a lower tier?
    pub(crate) fn is_revived(&self) -> bool {
        self.head().key_len & IS_REVIVED != 0
    }

    /// The archive, 16-aligned; or plain bytes.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        let payload_len = self.head().payload_len as usize;
        // SAFETY: `build` wrote `payload_len` bytes at this place of the same layout, and nobody writes them again.
        unsafe {
            let start = self.head.as_ptr().cast::<u8>().add(payload_at(self.key_len(), self.is_aligned()));
            std::slice::from_raw_parts(start, payload_len)
        }
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
        Duration::from_millis(life::unpack(self.head().life))
    }

    #[inline]
    pub(crate) fn created(&self) -> u64 {
        self.expires().saturating_sub(life::unpack(self.head().life))
    }

    /// From this steady millisecond on it is no longer fresh.
    #[inline]
    pub(crate) fn expires(&self) -> u64 {
        let head = self.head();
        u64::from(head.expires_low) | u64::from(head.expires_high) << 32
    }

    /// From this steady millisecond on it may not be served at all.
    #[inline]
    pub(crate) fn stale_until(&self) -> u64 {
        self.expires() + u64::from(self.class().grace_ms())
    }

    /// The local sequence number at which its fill began; a rule with a higher one covers it.
    #[inline]
    pub(crate) fn stamp(&self) -> u64 {
        let head = self.head();
        u64::from(head.stamp_low) | u64::from(head.stamp_high) << 32
    }

    /// Bytes of its allocation, as requested.
    #[inline]
    pub(crate) fn footprint(&self) -> usize {
        self.layout().size()
    }

    #[inline]
    fn layout(&self) -> Layout {
        layout(self.key_len(), self.head().payload_len as usize, self.is_aligned()).0
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
        // Nobody can clone what only one refers to, so the last one need not count down.
        let references = &self.head().references;
        if references.load(Ordering::Acquire) == 1 || references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let layout = self.layout();
            // SAFETY: this was the last reference; the layout is computed from the same lengths as in `build`. `Head` needs no drop.
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
const fn payload_at(key_len: usize, is_aligned: bool) -> usize {
    let at = size_of::<Head>() + key_len;
    if is_aligned { at.next_multiple_of(ALIGN) } else { at }
}

/// Layout of an entry, and where its payload begins. Lengths are bounded by `MAX_KEY_BYTES` and `MAX_PAYLOAD_BYTES`, so nothing overflows.
#[inline]
fn layout(key_len: usize, payload_len: usize, is_aligned: bool) -> (Layout, usize) {
    let at = payload_at(key_len, is_aligned);
    // SAFETY: the alignment is a power of two, and the bounded lengths stay far below `isize::MAX`.
    (unsafe { Layout::from_size_align_unchecked(at + payload_len, ALIGN) }, at)
}

/// What a look at an entry says of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is a value of that form.
    Yes,
    /// It was written as another type, or by another version of the type.
    Foreign,
    /// It says it is that type, but it does not validate.
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
    /// May it lie at any address?
    #[doc(hidden)]
    const IS_PLAIN: bool;

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
    // The root says nothing of the alignment of what it points to, so every archive gets the largest.
    const IS_PLAIN: bool = false;

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
        debug_assert!(Self::check(&buffer), "an encoded value does not validate");
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
    const IS_PLAIN: bool = true;

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
    const IS_PLAIN: bool = true;

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
mod tests;
