//! Named groups of keys, and the small numbers that stand for them inside.
//!
//! A [`Namespace`] is a name with its code, made at compile time. Inside, entries carry a
//! [`NamespaceId`] of two bytes: the code itself for those that are given, and for others what the register hands out, one table
//! per process, append-only, read without a lock. An id never leaves the process: disk and Redis hold names.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use crate::bytes::are_equal;
use crate::error::{Error, ErrorKind};

/// The longest name of a namespace, in bytes.
pub const MAX_NAMESPACE_BYTES: usize = 64;

/// How many namespaces one process can use. A bound, so that names taken from data cannot grow without end.
pub const MAX_NAMESPACES: usize = 1024;

/// A named group of keys: a key in one namespace is never seen in another, in any tier.
///
/// Eight are given; services add their own as constants. Two namespaces are the same if their names are.
///
/// ```
/// use aurum_cache::Namespace;
///
/// const PRICES: Namespace = Namespace::new("prices");
/// assert_eq!(PRICES.name(), "prices");
/// assert_ne!(PRICES, Namespace::CURVES);
/// ```
///
/// A bad name does not compile:
///
/// ```compile_fail
/// const BAD: aurum_cache::Namespace = aurum_cache::Namespace::new("no spaces, please");
/// ```
#[derive(Clone, Copy)]
pub struct Namespace {
    name: &'static str,
    /// Of those that are given their number. Of others FNV-1a of the name, where the search in the register begins; this never stands for the name.
    code: u32,
}

/// The names of those that are given, by number.
const NAMES: [&str; 8] =
    ["curves", "scenarios", "metadata", "eia_data", "external_data", "user_data", "system_config", "general"];
/// How many can be registered besides.
const OTHERS: usize = MAX_NAMESPACES - NAMES.len();

impl Namespace {
    /// Forward curves.
    pub const CURVES: Self = Self::new("curves");
    /// Scenarios.
    pub const SCENARIOS: Self = Self::new("scenarios");
    /// Data about data.
    pub const METADATA: Self = Self::new("metadata");
    /// Data of the U.S. Energy Information Administration.
    pub const EIA_DATA: Self = Self::new("eia_data");
    /// Data of other outside sources.
    pub const EXTERNAL_DATA: Self = Self::new("external_data");
    /// What belongs to a user.
    pub const USER_DATA: Self = Self::new("user_data");
    /// Settings of the service.
    pub const SYSTEM_CONFIG: Self = Self::new("system_config");
    /// Everything else; where the old interface keeps its keys.
    pub const GENERAL: Self = Self::new("general");

    /// The eight given namespaces.
    pub const GIVEN: [Self; 8] = [
        Self::CURVES,
        Self::SCENARIOS,
        Self::METADATA,
        Self::EIA_DATA,
        Self::EXTERNAL_DATA,
        Self::USER_DATA,
        Self::SYSTEM_CONFIG,
        Self::GENERAL,
    ];

    /// A namespace of your own: 1 to [`MAX_NAMESPACE_BYTES`] bytes of `a-z`, `0-9`, `_`, `-` and `.`.
    ///
    /// # Panics
    ///
    /// On any other name; in a constant, where it belongs, that is a compile error. A name that is
    /// only known at run time goes through [`Namespace::parse`].
    pub const fn new(name: &'static str) -> Self {
        assert!(is_valid(name), "a namespace is named with 1 to 64 bytes of a-z, 0-9, '_', '-' and '.'");
        Self { name, code: code(name) }
    }

    /// A namespace from a name that comes from outside (an argument, a setting). The name is kept for the life of the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidNamespace`] if the name is not allowed, or if the process uses [`MAX_NAMESPACES`] already, of which eight are given.
    ///
    /// ```standalone_crate
    /// use aurum_cache::{MAX_NAMESPACES, Namespace};
    ///
    /// for number in Namespace::GIVEN.len()..MAX_NAMESPACES {
    ///     Namespace::parse(&format!("tenant-{number}")).expect("there is room");
    /// }
    /// let error = Namespace::parse("one-more").unwrap_err();
    /// assert!(error.to_string().contains("a process can use 1024 namespaces"), "{error}");
    /// assert!(Namespace::parse("tenant-8").is_ok() && Namespace::parse("curves").is_ok()); // those that there are stay
    /// ```
    pub fn parse(name: &str) -> Result<Self, Error> {
        if !is_valid(name) {
            let advice = "is no namespace; use 1 to 64 bytes of a-z, 0-9, '_', '-' and '.'";
            return Err(Error::new(ErrorKind::InvalidNamespace, format!("namespace {}", crate::error::shown(name)), advice));
        }
        Ok(intern(name, |name| Box::leak(name.to_owned().into_boxed_str()))?.namespace())
    }

    /// Its name: `"curves"`, `"eia_data"`, ...
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Its number in this process.
    #[inline(always)]
    pub(crate) fn id(self) -> Result<NamespaceId, Error> {
        if self.is_given() { Ok(NamespaceId(self.code as u16)) } else { self.registered() }
    }

    #[inline(never)]
    fn registered(self) -> Result<NamespaceId, Error> {
        let index = self.code as usize % OTHERS;
        match REGISTER[index].get() {
            // As a rule it is the first there. The same text may be at another address: each part of a program has its own copy of a constant.
            Some(known) if are_equal(known.name.as_bytes(), self.name.as_bytes()) => Ok(NamespaceId::of(index)),
            _ => search(self.name, self.code),
        }
    }

    #[inline]
    const fn is_given(self) -> bool {
        self.code < NAMES.len() as u32
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Namespace {}

impl Hash for Namespace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.name)
    }
}

/// A namespace's number in this process, 0 to [`MAX_NAMESPACES`] - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamespaceId(pub(crate) u16);

impl NamespaceId {
    /// That of a slot of the register.
    #[inline]
    const fn of(index: usize) -> Self {
        Self((NAMES.len() + index) as u16)
    }

    /// The namespace it stands for.
    pub(crate) fn namespace(self) -> Namespace {
        let id = usize::from(self.0);
        // Ids are handed out by `intern` alone, after the slot was filled.
        let known = match id.checked_sub(NAMES.len()) {
            None => Namespace::GIVEN.get(id),
            Some(index) => REGISTER.get(index).and_then(OnceLock::get),
        };
        known.copied().unwrap_or(Namespace::GENERAL)
    }
}

/// Open addressing with linear search. Slots are filled once and never emptied.
static REGISTER: [OnceLock<Namespace>; OTHERS] = [const { OnceLock::new() }; OTHERS];

enum Slot {
    Taken(NamespaceId),
    Free,
}

fn find(name: &str, code: u32) -> Slot {
    for step in 0..OTHERS {
        let index = (code as usize + step) % OTHERS;
        match REGISTER[index].get() {
            Some(known) if known.code == code && known.name == name => return Slot::Taken(NamespaceId::of(index)),
            Some(_) => {}
            None => return Slot::Free,
        }
    }
    Slot::Free
}

/// The number of a name that is known at compile time and not given, given now if it has none.
#[inline(never)]
fn search(name: &'static str, code: u32) -> Result<NamespaceId, Error> {
    match find(name, code) {
        Slot::Taken(id) => Ok(id),
        Slot::Free => intern(name, |_| name),
    }
}

#[cold]
fn intern(name: &str, keep: impl FnOnce(&str) -> &'static str) -> Result<NamespaceId, Error> {
    let code = code(name);
    if (code as usize) < NAMES.len() {
        return Ok(NamespaceId(code as u16));
    }
    if let Slot::Taken(id) = find(name, code) {
        return Ok(id);
    }
    let one_too_many = || {
        let advice =
            format!("is one too many; a process can use {MAX_NAMESPACES} namespaces, of which {} are given", NAMES.len());
        Err(Error::new(ErrorKind::InvalidNamespace, format!("namespace \"{name}\""), advice))
    };
    // Before the name is kept: names may come from outside without end, and what is kept is never freed.
    if REGISTER.iter().all(|slot| slot.get().is_some()) {
        return one_too_many();
    }
    let namespace = Namespace { name: keep(name), code };
    for step in 0..OTHERS {
        let index = (code as usize + step) % OTHERS;
        // Two threads may race for a slot: whoever loses looks at the winner's name.
        if *REGISTER[index].get_or_init(|| namespace) == namespace {
            return Ok(NamespaceId::of(index));
        }
    }
    one_too_many()
}

/// The number of a name that is given; of others a number beyond these.
const fn code(name: &str) -> u32 {
    let given = NAMES.len() as u32;
    let mut number = 0;
    while number < given {
        if is_same(NAMES[number as usize].as_bytes(), name.as_bytes()) {
            return number;
        }
        number += 1;
    }
    let hash = fnv(name);
    if hash < given { hash + given } else { hash }
}

const fn is_same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut i = 0;
    while i < left.len() {
        if left[i] != right[i] {
            return false;
        }
        i += 1;
    }
    true
}

const fn is_valid(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_NAMESPACE_BYTES {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        if !matches!(bytes[i], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.') {
            return false;
        }
        i += 1;
    }
    true
}

const fn fnv(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eight_names_are_what_the_old_service_called_them() {
        let names: Vec<_> = Namespace::GIVEN.iter().map(|ns| ns.name()).collect();
        assert_eq!(
            names,
            ["curves", "scenarios", "metadata", "eia_data", "external_data", "user_data", "system_config", "general"]
        );
    }

    #[test]
    fn a_name_has_one_id_however_it_was_made() {
        let at_compile_time = const { Namespace::new("one-id") };
        let at_run_time = Namespace::parse(&String::from("one-id")).unwrap();
        assert_eq!(at_compile_time.id().unwrap(), at_run_time.id().unwrap());
        assert_eq!(at_compile_time.id().unwrap().namespace(), at_run_time);
        assert_ne!(at_compile_time.id().unwrap(), Namespace::CURVES.id().unwrap());
    }

    #[test]
    fn what_is_given_has_its_number_however_it_was_made() {
        // The same texts at another address.
        let elsewhere = "curves scenarios metadata eia_data external_data user_data system_config general".split(' ');
        for (number, (given, name)) in Namespace::GIVEN.into_iter().zip(elsewhere).enumerate() {
            for ns in [given, Namespace::new(name), Namespace::parse(name).unwrap()] {
                assert_eq!(ns.id().unwrap(), NamespaceId(number as u16), "{ns}");
            }
            assert_eq!(NamespaceId(number as u16).namespace(), given);
        }
    }

    #[test]
    fn a_copy_of_a_name_is_the_same_namespace() {
        let copies: Vec<Namespace> = "copied copied copied".split(' ').map(Namespace::new).collect();
        let id = copies[0].id().unwrap();
        assert!(usize::from(id.0) >= NAMES.len(), "not given");
        assert!(copies.iter().all(|copy| copy.id().unwrap() == id));
        assert_ne!(Namespace::new("copies").id().unwrap(), id);
    }

    #[test]
    fn a_bad_name_is_refused_with_its_name_in_the_text() {
        for bad in ["", "UPPER", "a b", "ü", &"x".repeat(65)] {
            let error = Namespace::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidNamespace);
        }
    }
}
