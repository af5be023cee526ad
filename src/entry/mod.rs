//! The one form of a value.
//!
//! A value is archived once, on `set`, and from then on it is bytes: a [`Header`] that says what they are and how
//! long they live, the key, and a payload that is read in place. [`Entry`] is those bytes in memory, shared and
//! immutable. Outside (disk, Redis) the same payload follows the 64 bytes of the header; see [`header`].
//!
//! Bytes from outside become an `Entry` only through [`Entry::decode`], which checks lengths, magic, version and a checksum
//! bound to namespace and key. They become a typed view only through [`codec`], which compares the type's fingerprint
//! and validates the archive once. Anything else is a miss with a cause.

mod class;
#[allow(unsafe_code)] // one of the two files that may; see its head
pub(crate) mod codec;
mod head;
pub(crate) mod header;
mod life;
mod outside;
mod shape;

pub(crate) use codec::{Claim, Entry, Form, Typed, Verdict};
pub(crate) use head::Meta;
pub(crate) use header::Header;
pub(crate) use shape::Shape;
