//! Fingerprints: is what lies there of the form this build expects?
//!
//! A [`Schema`] is one number per type, known at compile time. It is stored with every value, and a value whose number is not
//! the reader's is a miss: after a deployment that changed a type, the old values are left behind instead of misread. `#[derive(Schema)]`
//! folds a user's type from the names, order and types of its parts; this file folds std's.
//!
//! The base of every fold is the form in which this build of rkyv writes numbers (byte order, alignment, width of
//! pointers). Those are features that some other crate in the final program can switch; a program in which they differ
//! has other fingerprints, and so it misses instead of misreading.
//!
//! The fold mixes 64-bit words with the finisher of MurmurHash3. It guards against accidents, not against malice: who can write
//! into the store can also write the right fingerprint, and the archive is validated on its way in regardless.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{
    NonZeroI8, NonZeroI16, NonZeroI32, NonZeroI64, NonZeroI128, NonZeroIsize, NonZeroU8, NonZeroU16, NonZeroU32, NonZeroU64,
    NonZeroU128, NonZeroUsize,
};
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::__private::Fold;

/// A type whose stored form has a number.
///
/// `#[cacheable]` derives it along with rkyv's traits, `#[derive(Schema)]` alone; std's types have it. Two types of different form have
/// different fingerprints; the same form has the same one in every build.
///
/// # Examples
///
/// ```
/// use aurum_cache::{Schema, cacheable};
///
/// mod yesterday {
///     #[aurum_cache::cacheable]
///     pub struct Price { cents: i64 }
/// }
/// #[cacheable]
/// struct Price { cents: i64, currency: String }
///
/// assert_ne!(yesterday::Price::FINGERPRINT, Price::FINGERPRINT);
/// assert_ne!(<Vec<u8>>::FINGERPRINT, <Vec<i8>>::FINGERPRINT);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached: it has no `Schema`",
    label = "put `#[cacheable]` on this type",
    note = "for a type of another crate that is stored through `#[rkyv(with = ..)]`, name one of the same stored form: `#[schema(as = u64)]`"
)]
pub trait Schema {
    /// The number of this form. Written by hand it may be any number that changes whenever the stored form changes.
    const FINGERPRINT: u64;
}

/// What the derived code calls. Not part of the interface.
#[doc(hidden)]
pub mod __private {
    use std::marker::PhantomData;

    use rkyv::rend;

    /// A fingerprint in the making. Each call is one step, and the steps do not run together: a text is folded with its length.
    #[derive(Clone, Copy)]
    pub struct Fold(u64);

    impl Fold {
        /// Begins with the form of this build's archives and the name of what is folded.
        pub const fn new(name: &str) -> Self {
            Self(super::FORMAT).text(name)
        }

        /// Folds a number, or the fingerprint of a part.
        pub const fn word(self, word: u64) -> Self {
            Self(mix(self.0.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word))
        }

        /// Folds a text.
        pub const fn text(self, text: &str) -> Self {
            let bytes = text.as_bytes();
            let mut fold = self.word(bytes.len() as u64);
            let mut at = 0;
            while at < bytes.len() {
                let mut word = 0;
                let mut taken = 0;
                while taken < 8 && at < bytes.len() {
                    word |= (bytes[at] as u64) << (8 * taken);
                    (at, taken) = (at + 1, taken + 1);
                }
                fold = fold.word(word);
            }
            fold
        }

        /// The fingerprint.
        pub const fn end(self) -> u64 {
            self.0
        }
    }

    /// The finisher of MurmurHash3: every bit of the input reaches every bit of the output.
    const fn mix(mut word: u64) -> u64 {
        word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        word ^ (word >> 33)
    }

    /// Stands for the type that is being derived, inside itself; `A` is a tuple of its type arguments there.
    pub struct Recursive<A>(PhantomData<A>);

    impl<A: super::Schema> super::Schema for Recursive<A> {
        const FINGERPRINT: u64 = Fold::new("recursive").word(A::FINGERPRINT).end();
    }

    /// How rkyv writes a `u32` in this build.
    pub(super) trait Written {
        const AS: u64;
    }
    impl Written for rend::u32_le {
        const AS: u64 = 1;
    }
    impl Written for rend::u32_be {
        const AS: u64 = 2;
    }
    impl Written for rend::unaligned::u32_ule {
        const AS: u64 = 3;
    }
    impl Written for rend::unaligned::u32_ube {
        const AS: u64 = 4;
    }
}

/// Byte order, alignment and pointer width of this build's archives.
const FORMAT: u64 =
    <rkyv::Archived<u32> as __private::Written>::AS | (size_of::<rkyv::Archived<usize>>() as u64) << 8 | 0x6175_7275_6d00_0000;

/// Types without parameters: their name is their form.
macro_rules! named {
    ($($type:ty)*) => {
        $(impl Schema for $type {
            const FINGERPRINT: u64 = Fold::new(stringify!($type)).end();
        })*
    };
}

named! {
    u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char str String
    NonZeroU8 NonZeroU16 NonZeroU32 NonZeroU64 NonZeroU128 NonZeroUsize
    NonZeroI8 NonZeroI16 NonZeroI32 NonZeroI64 NonZeroI128 NonZeroIsize
    Duration RangeFull IpAddr Ipv4Addr Ipv6Addr SocketAddr SocketAddrV4 SocketAddrV6
}

/// Types around others that need not be sized.
macro_rules! around {
    ($($name:literal $type:ty;)*) => {
        $(impl<T: Schema + ?Sized> Schema for $type {
            const FINGERPRINT: u64 = Fold::new($name).word(T::FINGERPRINT).end();
        })*
    };
}

around! {
    "Box" Box<T>;
    "Rc" Rc<T>;
    "Arc" Arc<T>;
    "PhantomData" PhantomData<T>;
}

/// The same where the parts are sized.
macro_rules! around_sized {
    ($($name:literal $type:ty: $($inner:ident)+;)*) => {
        $(impl<$($inner: Schema,)+> Schema for $type {
            const FINGERPRINT: u64 = Fold::new($name)$(.word($inner::FINGERPRINT))+.end();
        })*
    };
}

around_sized! {
    "slice" [T]: T;
    "Vec" Vec<T>: T;
    "VecDeque" VecDeque<T>: T;
    "Option" Option<T>: T;
    "Result" Result<T, E>: T E;
    "BTreeMap" BTreeMap<K, V>: K V;
    "BTreeSet" BTreeSet<T>: T;
    "Range" Range<T>: T;
    "RangeInclusive" RangeInclusive<T>: T;
    "RangeFrom" RangeFrom<T>: T;
    "RangeTo" RangeTo<T>: T;
    "RangeToInclusive" RangeToInclusive<T>: T;
    "Bound" Bound<T>: T;
}

impl<K: Schema, V: Schema, S> Schema for HashMap<K, V, S> {
    const FINGERPRINT: u64 = Fold::new("HashMap").word(K::FINGERPRINT).word(V::FINGERPRINT).end();
}

impl<T: Schema, S> Schema for HashSet<T, S> {
    const FINGERPRINT: u64 = Fold::new("HashSet").word(T::FINGERPRINT).end();
}

impl<T: Schema, const N: usize> Schema for [T; N] {
    const FINGERPRINT: u64 = Fold::new("array").word(N as u64).word(T::FINGERPRINT).end();
}

macro_rules! tuples {
    ($($count:literal: $($part:ident)*;)*) => {
        $(impl<$($part: Schema),*> Schema for ($($part,)*) {
            const FINGERPRINT: u64 = Fold::new("tuple").word($count)$(.word($part::FINGERPRINT))*.end();
        })*
    };
}

tuples! {
    0: ;
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D E;
    6: A B C D E F;
    7: A B C D E F G;
    8: A B C D E F G H;
    9: A B C D E F G H I;
    10: A B C D E F G H I J;
    11: A B C D E F G H I J K;
    12: A B C D E F G H I J K L;
}

#[cfg(test)]
mod tests;

/// What a cache adds to every fingerprint: its `schema` number.
pub(crate) fn salt(schema: u32) -> u64 {
    Fold::new("schema").word(schema as u64).end()
}
