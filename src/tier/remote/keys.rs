//! Where things are in Redis.
//!
//! ```text
//! prefix:v1:{namespace:slot}:key     an entry: header and payload
//! prefix:v1:{namespace:slot}         the slot's mark: moves with every write and invalidation of a key in it
//! prefix:{prefix:log}                the stream of changes
//! prefix:{prefix:log}:epoch          a hash: `id`, the log's incarnation; `n:NAMESPACE` and `*`, marks of wide invalidations
//! ```
//!
//! `slot` is a stable hash of the key, three hexadecimal digits, `000` to `3ff`. It has always three, so that a pattern's
//! `???` cannot reach over it into a key that holds `}:` itself. The braces are a Cluster's hash tag: an entry and its
//! slot's mark are on one server, and so are the log and its marks.

use xxhash_rust::xxh3::xxh3_64;

/// Slots a namespace; a lease is refused when any key of its slot was changed, so many slots make that rare.
const SLOTS: u64 = 1024;

/// The names of all our keys.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `prefix:v1:{`
    entries: String,
    log: String,
    epoch: String,
}

/// Where a key is in Redis.
pub(super) struct Place {
    entry: String,
    slot_len: usize,
    namespace: &'static str,
}

impl Place {
    /// The name of the entry.
    pub(super) fn entry(&self) -> &str {
        &self.entry
    }

    /// The name of the slot's mark.
    pub(super) fn slot(&self) -> &str {
        &self.entry[..self.slot_len]
    }

    /// Of the epoch hash, where the wide mark of the namespace is.
    pub(super) fn field(&self) -> String {
        Layout::field(Some(self.namespace))
    }

    pub(super) fn namespace(&self) -> &'static str {
        self.namespace
    }
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        let log = format!("{prefix}:{{{prefix}:log}}");
        Self { entries: format!("{prefix}:v1:{{"), epoch: format!("{log}:epoch"), log }
    }

    /// The entry of a key, and the mark of its slot, whose name the entry's begins with.
    pub(super) fn place(&self, namespace: &'static str, text: &str) -> Place {
        let mut entry = String::with_capacity(self.entries.len() + namespace.len() + text.len() + 6);
        entry.push_str(&self.entries);
        entry.push_str(namespace);
        entry.push(':');
        let slot = slot_of(text) as u32;
        // Three digits, always.
        entry.extend([slot >> 8, slot >> 4 & 15, slot & 15].into_iter().filter_map(|digit| char::from_digit(digit, 16)));
        entry.push('}');
        let slot_len = entry.len();
        entry.push(':');
        entry.push_str(text);
        Place { entry, slot_len, namespace }
    }

    pub(super) fn log(&self) -> &str {
        &self.log
    }

    pub(super) fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The field of the epoch hash that a wide invalidation moves.
    pub(super) fn field(namespace: Option<&str>) -> String {
        namespace.map_or_else(|| "*".to_owned(), |namespace| format!("n:{namespace}"))
    }

    /// The glob that finds the entries of a namespace (of all) that match `pattern` (all).
    pub(super) fn matching(&self, namespace: Option<&str>, pattern: Option<&str>) -> String {
        let namespace = namespace.unwrap_or("*");
        format!("{}{namespace}:???}}:{}", escape(&self.entries), pattern.unwrap_or("*"))
    }

    /// The glob that finds the marks of the slots of a namespace (of all).
    pub(super) fn marks(&self, namespace: Option<&str>) -> String {
        format!("{}{}:???}}", escape(&self.entries), namespace.unwrap_or("*"))
    }

    /// Is this the name of a slot's mark?
    pub(super) fn is_mark(&self, name: &[u8]) -> bool {
        let rest = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(&self.entries)?.strip_suffix('}'));
        rest.and_then(|rest| rest.split_once(':'))
            .is_some_and(|(_, slot)| slot.len() == 3 && u64::from_str_radix(slot, 16).is_ok())
    }

    /// Namespace and key of an entry's name; `None` if it is not one of ours.
    pub(super) fn parse<'a>(&self, name: &'a [u8]) -> Option<(&'a str, &'a str)> {
        let rest = std::str::from_utf8(name).ok()?.strip_prefix(&self.entries)?;
        let (namespace, rest) = rest.split_once(':')?;
        let (slot, text) = rest.split_once("}:")?;
        (slot.len() == 3 && u64::from_str_radix(slot, 16) == Ok(slot_of(text))).then_some((namespace, text))
    }
}

fn slot_of(text: &str) -> u64 {
    xxh3_64(text.as_bytes()) % SLOTS
}

/// Literal text as a glob.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_pinned_because_all_nodes_must_agree() {
        let layout = Layout::new("aurum");
        let place = layout.place("curves", "a");
        assert_eq!((place.entry(), place.slot()), ("aurum:v1:{curves:21f}:a", "aurum:v1:{curves:21f}"));
        assert_eq!(place.field(), "n:curves");
        // With a nought in front.
        let name = |text: &str| layout.place("curves", text).entry;
        let low = (0..).map(|n| format!("k{n}")).find(|text| slot_of(text) < 16).unwrap();
        assert_eq!(name(&low), format!("aurum:v1:{{curves:{:03x}}}:{low}", slot_of(&low)));
        assert_eq!(layout.log(), "aurum:{aurum:log}");
        assert_eq!(layout.epoch(), "aurum:{aurum:log}:epoch");
    }

    #[test]
    fn a_name_is_read_back_and_a_foreign_one_is_not() {
        let layout = Layout::new("aurum");
        for text in ["a", "}:", "pjm:{x}:1", "ü"] {
            assert_eq!(layout.parse(layout.place("curves", text).entry().as_bytes()), Some(("curves", text)));
        }
        for foreign in ["aurum:v1:{curves:000}:a", "aurum:v1:{curves:21f}", "aurum:log", "other:v1:{curves:2a3}:a", ""] {
            assert_eq!(layout.parse(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn a_prefix_is_literal_in_a_glob() {
        assert_eq!(Layout::new("a*[b").matching(Some("curves"), Some("pjm:*")), "a\\*\\[b:v1:{curves:???}:pjm:*");
        assert_eq!(Layout::new("a").matching(None, None), "a:v1:{*:???}:*");
        assert_eq!(Layout::new("a").marks(Some("curves")), "a:v1:{curves:???}");
    }

    #[test]
    fn a_mark_is_told_from_an_entry() {
        let layout = Layout::new("aurum");
        assert!(layout.is_mark(layout.place("curves", "a").slot().as_bytes()));
        let entries = ["a", "a:000}"].map(|text| layout.place("curves", text).entry);
        for other in entries.into_iter().chain([layout.log().into(), layout.epoch().into()]) {
            assert!(!layout.is_mark(other.as_bytes()), "{other}");
        }
    }
}
