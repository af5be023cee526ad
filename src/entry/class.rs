//! Classes: what many entries have in common, kept once for the process.
//!
//! Namespace, type fingerprint, policy and grace are the same for thousands of entries. A [`Class`] is one such combination; its
//! number is two bytes of an entry's head where the fields would be twenty. A hit reads the class of its entry, which
//! is in the first-level cache because the other hits read it too.
//!
//! Classes are found by open addressing over their numbers and never go away: there are as many as the program has
//! combinations of namespace, type, policy and configured grace, tens as a rule. A process can have [`MAX_CLASSES`];
//! what would be one more is refused with an error, so that bytes from outside cannot make this grow without end.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};
use crate::namespace::NamespaceId;

/// How many classes a process can have.
pub(crate) const MAX_CLASSES: usize = 1 << 14;

/// What an entry shares with many others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// What type it was written as, mixed with schema and format.
    pub(crate) fingerprint: u64,
    /// Mark of the Rust type the bytes were validated as; 0 = not yet.
    pub(crate) mark: u32,
    /// How long past its life it may be served as stale, in milliseconds.
    pub(crate) grace_ms: u32,
    pub(crate) namespace: NamespaceId,
    /// [`TtlPolicy::tag`](crate::policy::TtlPolicy).
    pub(crate) policy: u8,
}

/// The number of a class, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassId(pub(super) u16);

/// A row is written once, before its number stands in [`NUMBERS`]; all zero until then.
struct Row {
    fingerprint: AtomicU64,
    mark: AtomicU32,
    grace_ms: AtomicU32,
    /// Namespace in the lower half, policy above it.
    rest: AtomicU32,
}

static ROWS: [Row; MAX_CLASSES] = [const {
    Row { fingerprint: AtomicU64::new(0), mark: AtomicU32::new(0), grace_ms: AtomicU32::new(0), rest: AtomicU32::new(0) }
}; MAX_CLASSES];

/// Twice as many places as classes; 0 is a free place.
static NUMBERS: [AtomicU16; 2 * MAX_CLASSES] = [const { AtomicU16::new(0) }; 2 * MAX_CLASSES];

/// The number that was given last.
static LAST: Mutex<u16> = Mutex::new(0);

impl Class {
    /// The number of this class, given now if it has none. Takes no lock for a class that is known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidValue`] if it is one class too many.
    #[inline]
    pub(crate) fn id(&self) -> Result<ClassId, Error> {
        match self.search() {
            Ok(id) => Ok(id),
            Err(_) => self.register(),
        }
    }

    /// The number, or the free place where it would stand.
    #[inline]
    fn search(&self) -> Result<ClassId, usize> {
        let mut at = self.home();
        loop {
            match NUMBERS[at].load(Ordering::Acquire) {
                0 => return Err(at),
                number if ClassId(number).class() == *self => return Ok(ClassId(number)),
                _ => at = (at + 1) % NUMBERS.len(),
            }
        }
    }

    #[cold]
    fn register(&self) -> Result<ClassId, Error> {
        let mut last = LAST.lock();
        let place = match self.search() {
            Ok(id) => return Ok(id),
            Err(place) => place,
        };
        let number = *last + 1;
        if usize::from(number) >= MAX_CLASSES {
            let advice = format!(
                "is one combination of namespace, type, policy and grace too many; a process can use {MAX_CLASSES}, so make fewer namespaces or types"
            );
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("a value in namespace {}", self.namespace.namespace()),
                advice,
            ));
        }
        let row = &ROWS[usize::from(number)];
        row.fingerprint.store(self.fingerprint, Ordering::Relaxed);
        row.mark.store(self.mark, Ordering::Relaxed);
        row.grace_ms.store(self.grace_ms, Ordering::Relaxed);
        row.rest.store(u32::from(self.namespace.0) | u32::from(self.policy) << 16, Ordering::Relaxed);
        NUMBERS[place].store(number, Ordering::Release);
        *last = number;
        Ok(ClassId(number))
    }

    #[inline]
    fn home(&self) -> usize {
        let rest = u64::from(self.namespace.0) | u64::from(self.policy) << 16 | u64::from(self.grace_ms) << 24;
        let mixed = (self.fingerprint ^ rest.rotate_left(40) ^ u64::from(self.mark) << 17).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 40) as usize % NUMBERS.len()
    }
}

/// Whoever has a `ClassId` got it, directly or through an entry, from a thread that saw the finished row; so relaxed loads do.
impl ClassId {
    #[inline]
    pub(crate) fn class(self) -> Class {
        let row = self.row();
        let rest = row.rest.load(Ordering::Relaxed);
        Class {
            fingerprint: row.fingerprint.load(Ordering::Relaxed),
            mark: row.mark.load(Ordering::Relaxed),
            grace_ms: row.grace_ms.load(Ordering::Relaxed),
            namespace: NamespaceId(rest as u16),
            policy: (rest >> 16) as u8,
        }
    }

    #[inline]
    pub(crate) fn fingerprint(self) -> u64 {
        self.row().fingerprint.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn mark(self) -> u32 {
        self.row().mark.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn grace_ms(self) -> u32 {
        self.row().grace_ms.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn namespace(self) -> NamespaceId {
        NamespaceId(self.row().rest.load(Ordering::Relaxed) as u16)
    }

    #[inline]
    fn row(self) -> &'static Row {
        &ROWS[usize::from(self.0) % MAX_CLASSES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Namespace;

    fn class(fingerprint: u64) -> Class {
        Class { fingerprint, mark: 7, grace_ms: 600_000, namespace: Namespace::CURVES.id().unwrap(), policy: 3 }
    }

    #[test]
    fn a_class_has_one_number_and_is_what_was_registered() {
        let one = class(11);
        let id = one.id().unwrap();
        assert_eq!(id.class(), one);
        assert_eq!(one.id().unwrap(), id);
        assert_eq!((id.fingerprint(), id.mark(), id.grace_ms()), (11, 7, 600_000));
        for other in [class(12), Class { mark: 8, ..one }, Class { grace_ms: 1, ..one }, Class { policy: 4, ..one }] {
            assert_ne!(other.id().unwrap(), id);
        }
    }

    #[test]
    fn threads_that_register_at_once_agree() {
        let ids: Vec<Vec<u16>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (100..200).map(|n| class(n).id().unwrap().0).collect())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
