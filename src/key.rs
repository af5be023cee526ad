//! A key on its way through the tiers: checked once, hashed once.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};

use crate::error::{Error, ErrorKind, shown};
use crate::namespace::{Namespace, NamespaceId};

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 4096;

/// A checked key in a namespace, with its hash. Every tier compares namespace and text in full; the hash only says where to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) id: NamespaceId,
    pub(crate) text: &'a str,
    /// Keyed and random per process: users' keys cannot be chosen to flood a shard.
    pub(crate) hash: u64,
}

impl Key<'_> {
    /// The namespace the key is in.
    pub(crate) fn namespace(&self) -> Namespace {
        self.id.namespace()
    }
}

/// Makes [`Key`]s: holds the secret of the hash.
#[derive(Clone)]
pub(crate) struct KeyHasher {
    seed: u64,
    /// Odd. Sets namespaces apart: their numbers are small and known, so they do not go into the seed as they are.
    spread: u64,
    shared: &'static SharedSeed,
}

impl KeyHasher {
    /// A hasher with a secret of its own.
    pub(crate) fn random() -> Self {
        let random = SeedableRandomState::random();
        Self { seed: random.hash_one(0), spread: random.hash_one(1) | 1, shared: SharedSeed::global_random() }
    }

    /// A hasher whose secret is this one: what was found with it once is found again.
    #[cfg(fuzzing)]
    pub(crate) fn seeded(secret: u64) -> Self {
        Self { seed: secret, spread: secret.rotate_left(32) | 1, shared: SharedSeed::global_fixed() }
    }

    /// Checks and hashes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidKey`] on an empty or too long key, [`ErrorKind::InvalidNamespace`] on one namespace too many.
    #[inline]
    pub(crate) fn key<'a>(&self, namespace: Namespace, text: &'a str) -> Result<Key<'a>, Error> {
        let id = Self::check(namespace, text)?;
        Ok(self.keyed(id, text))
    }

    /// Checks.
    ///
    /// # Errors
    ///
    /// As [`key`](Self::key).
    #[inline(always)]
    pub(crate) fn check(namespace: Namespace, text: &str) -> Result<NamespaceId, Error> {
        if text.is_empty() || text.len() > MAX_KEY_BYTES {
            return Err(refuse(text));
        }
        namespace.id()
    }

    /// Hashes a key that was checked. Apart from the check for the sake of a hit: a key that is unpacked from a `Result` is written in pieces and loaded
    /// as a whole, which waits for the pieces and costs a tenth of it.
    #[inline(always)]
    pub(crate) fn keyed<'a>(&self, id: NamespaceId, text: &'a str) -> Key<'a> {
        Key { id, text, hash: self.hash(id, text) }
    }

    /// The hash of a key that was checked before.
    #[inline(always)]
    pub(crate) fn hash(&self, id: NamespaceId, text: &str) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed ^ u64::from(id.0).wrapping_mul(self.spread), self.shared);
        hasher.write(text.as_bytes());
        hasher.finish()
    }
}

#[cold]
fn refuse(text: &str) -> Error {
    let advice = if text.is_empty() {
        "is empty; give it at least one byte".to_owned()
    } else {
        format!("is {} bytes long; the limit is {MAX_KEY_BYTES}, so hash or shorten it", text.len())
    };
    Error::new(ErrorKind::InvalidKey, format!("key {}", shown(text)), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_from_one_byte_to_the_limit() {
        let hasher = KeyHasher::random();
        assert!(hasher.key(Namespace::CURVES, "k").is_ok());
        assert!(hasher.key(Namespace::CURVES, &"k".repeat(MAX_KEY_BYTES)).is_ok());
        for bad in ["", &"k".repeat(MAX_KEY_BYTES + 1)] {
            assert_eq!(hasher.key(Namespace::CURVES, bad).unwrap_err().kind(), ErrorKind::InvalidKey);
        }
    }

    #[test]
    fn the_hash_depends_on_the_namespace_and_on_the_process() {
        let (one, two) = (KeyHasher::random(), KeyHasher::random());
        let hash = |hasher: &KeyHasher, ns| hasher.key(ns, "k").unwrap().hash;
        assert_eq!(hash(&one, Namespace::CURVES), hash(&one, Namespace::CURVES));
        assert_ne!(hash(&one, Namespace::CURVES), hash(&one, Namespace::GENERAL));
        assert_ne!(hash(&one, Namespace::CURVES), hash(&two, Namespace::CURVES));
    }
}
