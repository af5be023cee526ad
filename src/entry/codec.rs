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
//! has in common with many others is its [`Class`], of which the [`Head`] has the number.
//!
//! **From bytes to a view.** [`Entry::claim`] compares the type's fingerprint and then asks whether these bytes were validated
//! as this very Rust type before; if not, it validates them now, once, and moves the entry to the class that says so. A later hit
//! is two compares with constants. A fingerprint that differs is [`Claim::Foreign`]: a miss, not a misread.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{NonNull, copy_nonoverlapping};
use std::sync::atomic::{Ordering, fence};

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize, rancor};

use crate::bytes::are_equal;
use crate::entry::class::Class;
use crate::entry::head::{ALIGN, Head, Meta, payload_at};
use crate::entry::shape::{Shape, mark};
use crate::error::{Error, ErrorKind};
use crate::key::Key;

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
        let payload_at = payload_at(key.text.len(), shape.flags);
        let layout = layout(payload_at + payload.len());
        // SAFETY: the layout is never of size zero: it holds a `Head`.
        let raw = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(raw) else { handle_alloc_error(layout) };
        let head = start.cast::<Head>();
        // SAFETY: `layout` put room for a `Head`, the key and the payload into this fresh, 16-aligned allocation; nothing overlaps.
        unsafe {
            head.write(Head::new(class, meta, key.text.len(), payload.len(), shape.flags));
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
            self.set_class(class);
        }
        Verdict::Yes
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

    /// The archive, 16-aligned; or plain bytes.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        // SAFETY: `build` wrote so many bytes at this place of the same layout, and nobody writes them again.
        unsafe {
            let start = self.head.as_ptr().cast::<u8>().add(self.payload_at());
            std::slice::from_raw_parts(start, self.payload_len())
        }
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

impl Deref for Entry {
    type Target = Head;

    #[inline]
    fn deref(&self) -> &Head {
        // SAFETY: the allocation lives as long as any `Entry` that refers to it.
        unsafe { self.head.as_ref() }
    }
}

impl Clone for Entry {
    #[inline]
    fn clone(&self) -> Self {
        let before = self.references.fetch_add(1, Ordering::Relaxed);
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
        let references = &self.references;
        if references.load(Ordering::Acquire) == 1 || references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let layout = layout(self.footprint());
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

/// Layout of an entry of so many bytes. Lengths are bounded by `MAX_KEY_BYTES` and `MAX_PAYLOAD_BYTES`, so nothing overflows.
#[inline]
fn layout(bytes: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and the bounded lengths stay far below `isize::MAX`.
    unsafe { Layout::from_size_align_unchecked(bytes, ALIGN) }
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

#[cfg(test)]
mod tests;
