//! [`Cached`]: a value found in the cache.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::time::Duration;

use rkyv::api::high::HighDeserializer;
use rkyv::{Archive, Deserialize, rancor};

use crate::clock::Watch;
use crate::entry::Typed;
use crate::payload::Payload;
use crate::tier::Tier;

/// A value found in the cache: a shared, immutable view of its bytes.
///
/// Dereferences to the view; a clone shares the bytes. It stays readable for as long as it is held,
/// also when the entry is evicted, overwritten or invalidated meanwhile, and its bytes stay counted until then.
///
/// ```
/// use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder().memory(8 << 20).open().await?;
/// cache.set(Namespace::GENERAL, "answer", "forty-two", TtlPolicy::Short).await?;
///
/// let hit = cache.get::<str>(Namespace::GENERAL, "answer").await.expect("just set");
/// assert_eq!(&*hit, "forty-two");
/// assert_eq!(hit.tier(), Tier::Memory);
/// assert!(!hit.is_stale());
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
pub struct Cached<T: Payload + ?Sized> {
    bytes: Typed<T::Form>,
    origin: Origin,
}

const _: () = assert!(size_of::<Option<Cached<[u8]>>>() == 16, "a hit comes back in two registers");

/// Where a value was found and whose time it lives by, in one word: with the bytes it makes two, and a hit comes back in registers.
/// Three came back through memory, written in pieces that the caller read as one and waited for.
#[derive(Clone, Copy)]
struct Origin(NonZeroU64);

impl Origin {
    #[inline]
    fn new(tier: Tier, watch: Watch) -> Self {
        Self(NonZeroU64::MIN.saturating_add(tier as u64 | u64::from(watch.number()) << 2))
    }

    fn tier(self) -> Tier {
        Tier::ALL[((self.0.get() - 1) & 3) as usize]
    }

    fn watch(self) -> Watch {
        Watch::numbered(((self.0.get() - 1) >> 2) as u32)
    }
}

impl<T: Payload + ?Sized> Cached<T> {
    #[inline]
    pub(crate) fn new(bytes: Typed<T::Form>, tier: Tier, watch: Watch) -> Self {
        Self { bytes, origin: Origin::new(tier, watch) }
    }

    /// Where this read found it. A value that was just fetched is in memory.
    pub fn tier(&self) -> Tier {
        self.origin.tier()
    }

    /// How long ago the value was written, by whichever node wrote it.
    pub fn age(&self) -> Duration {
        Duration::from_millis(self.origin.watch().steady().saturating_sub(self.bytes.entry().created()))
    }

    /// How much of its life is left; zero when stale.
    pub fn expires_in(&self) -> Duration {
        Duration::from_millis(self.bytes.entry().expires().saturating_sub(self.origin.watch().steady()))
    }

    /// Is it past its life? Only [`get_or_fetch`](crate::Cache::get_or_fetch) serves such a value, when the loader failed or is
    /// slow, and no longer than the namespace's `stale_if_error`.
    pub fn is_stale(&self) -> bool {
        self.origin.watch().steady() >= self.bytes.entry().expires()
    }
}

impl<T> Cached<T>
where
    T: Payload + Archive,
    T: Payload<View = <T as Archive>::Archived>,
    T::Archived: Deserialize<T, HighDeserializer<rancor::Panic>>,
{
    /// An owned copy of the value.
    pub fn to_value(&self) -> T {
        // Deserializing a validated archive fails only where a pointer pool disagrees, which `Panic` turns into a panic;
        // a flat value has no shared pointers.
        match rkyv::api::high::deserialize::<T, rancor::Panic>(&**self) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }
}

impl<T: Payload + ?Sized> Deref for Cached<T> {
    type Target = T::View;

    #[inline]
    fn deref(&self) -> &T::View {
        &self.bytes
    }
}

impl<T: Payload + ?Sized> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), origin: self.origin }
    }
}

impl<T: Payload + ?Sized> fmt::Debug for Cached<T> {
    /// Without the value: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("tier", &self.tier())
            .field("age", &self.age())
            .field("expires_in", &self.expires_in())
            .finish_non_exhaustive()
    }
}
