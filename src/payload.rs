//! What can be cached.

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Portable, Serialize, rancor};

use crate::entry::Form;
use crate::entry::codec::{Archived, Bytes, Text};
use crate::schema::Schema;

/// What can be cached: every sized rkyv type with a [`Schema`], `[u8]` and `str`.
///
/// Not implemented by hand: [`#[cacheable]`](macro@crate::cacheable) derives what a struct or enum needs. A value is archived
/// once, when it is set; a reader gets its [`View`](Payload::View) in the cached bytes, and nothing is decoded.
///
/// ```
/// use aurum_cache::{Payload, cacheable};
///
/// #[cacheable]
/// struct Curve { hub: String, prices: Vec<f64> }
///
/// fn cached<T: Payload + ?Sized>() {}
/// cached::<Curve>();
/// cached::<Vec<Option<f64>>>();
/// cached::<str>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "not a payload",
    note = "put `#[aurum_cache::cacheable]` on the type; it derives rkyv's traits and `Schema`"
)]
pub trait Payload: Schema + Send + Sync + 'static {
    /// What a reader sees: rkyv's archived type, or `[u8]` and `str` themselves.
    type View: ?Sized;

    /// How it becomes bytes.
    #[doc(hidden)]
    type Form: Form<Value = Self, View = Self::View>;
}

impl<T> Payload for T
where
    T: Schema + Archive + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>> + Send + Sync + 'static,
    T::Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>> + 'static,
{
    type View = T::Archived;
    type Form = Archived<T>;
}

impl Payload for [u8] {
    type View = [u8];
    type Form = Bytes;
}

impl Payload for str {
    type View = str;
    type Form = Text;
}
