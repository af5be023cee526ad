//! The ordered directory of each sealed segment.
use std::collections::BTreeMap;

use super::index::Place;
use super::segment::Segment;

/// The last word of a segment on each of its keys, in order.
pub(super) struct Directory {
    pub(super) segment: u32,
    pub(super) words: BTreeMap<(Box<str>, Box<str>), Word>,
}

/// What a segment says last of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) sequence: u64,
    /// Where its value is, and until when it may be served (wall time, ms); `None` = removed.
    pub(super) value: Option<(Place, u64)>,
}

impl Directory {
    pub(super) fn new(segment: u32) -> Self {
        Self { segment, words: BTreeMap::new() }
    }

    pub(super) fn value(&mut self, namespace: &str, key: &str, place: Place, stale_until: u64, sequence: u64) {
        self.words.insert((namespace.into(), key.into()), Word { sequence, value: Some((place, stale_until)) });
    }

    pub(super) fn removal(&mut self, namespace: &str, key: &str, sequence: u64) {
        self.words.insert((namespace.into(), key.into()), Word { sequence, value: None });
    }

    /// Shows what stands under a namespace (or all) and a prefix, in order.
    pub(super) fn under(&self, namespace: Option<&str>, prefix: &str, visit: &mut dyn FnMut(&str, &str, &Word)) {
        match namespace {
            Some(namespace) => {
                let from: (Box<str>, Box<str>) = (namespace.into(), prefix.into());
                let range = self.words.range(from..);
                let within = range.take_while(|((name, key), _)| &**name == namespace && key.starts_with(prefix));
                within.for_each(|((name, key), word)| visit(name, key, word));
            }
            None => {
                let all = self.words.iter().filter(|((_, key), _)| key.starts_with(prefix));
                all.for_each(|((name, key), word)| visit(name, key, word));
            }
        }
    }

    /// The highest sequence in it.
    pub(super) fn highest(&self) -> u64 {
        self.words.values().map(|word| word.sequence).max().unwrap_or(0)
    }
}

/// The catalogue.
pub(super) struct Catalogue;

impl Catalogue {
    pub(super) fn none() -> Self {
        Self
    }

    /// Keeps a directory.
    pub(super) fn add(&self, _segment: &Segment, _directory: Directory) {}

    /// Lets a directory go.
    pub(super) fn forget(&self, _segment: u32) {}

    /// The directory of a segment, if it is there and whole.
    pub(super) fn load(&self, _segment: &Segment) -> Option<Directory> {
        None
    }

    /// Shows what a segment has under a namespace and a prefix; `false` = not known here.
    pub(super) fn under(
        &self,
        _segment: &Segment,
        _namespace: Option<&str>,
        _prefix: &str,
        _visit: &mut dyn FnMut(&str, &str, &Word),
    ) -> bool {
        false
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        0
    }

    pub(super) fn close(&self) {}
}
