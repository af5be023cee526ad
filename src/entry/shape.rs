//! Which Rust type the bytes of a value are of, and how they lie in memory.

use std::any::TypeId;
use std::hash::{Hash, Hasher};

use crate::entry::codec::Form;
use crate::entry::head::{IS_ALIGNED, IS_REVIVED};

/// How the payload of a value lies in memory, and what it is known to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Of the Rust type it was made from by `Form::encode`; 0 where it came from outside and is not validated yet.
    pub(super) mark: u32,
    /// [`IS_ALIGNED`] and [`IS_REVIVED`].
    pub(super) flags: u16,
}

impl Shape {
    /// Bytes from outside: aligned for any type, validated as none.
    pub(crate) const UNKNOWN: Self = Self { mark: 0, flags: IS_ALIGNED | IS_REVIVED };

    /// What `F::encode` makes in this process, so that no hit needs to validate it.
    pub(crate) fn of<F: Form>() -> Self {
        Self { mark: mark::<F>(), flags: if F::IS_PLAIN { 0 } else { IS_ALIGNED } }
    }
}

/// A number for the Rust type `F` in this process, never 0. It stands beside the 64-bit fingerprint, so that two types
/// with one fingerprint (a `Schema` written by hand) are not taken for each other. A constant after optimisation.
#[inline]
pub(super) fn mark<F: Form>() -> u32 {
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
