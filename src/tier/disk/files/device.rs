//! What a device has of a folder's files when the power is cut, for tests: what was synced, and of the rest as much as it likes.
//!
//! Bytes are certain once their file is synced, names once the folder is. Of what was changed since, a device in order has kept a
//! beginning; one that is not has kept some pages and not others. Names were changed in order in any case, as journals do.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;

const PAGE: usize = 4096;

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone)]
enum Naming {
    Made(String, usize),
    Removed(String),
    Renamed(String, String),
}

/// Bytes of a file: those that are certain, and what came since.
#[derive(Default)]
struct Node {
    synced: Vec<u8>,
    since: Vec<Change>,
}

/// The device under one folder, from an empty folder on.
#[derive(Default)]
pub(in crate::tier::disk) struct Device {
    nodes: Vec<Node>,
    /// Names as they are, and as they are for certain; by number of the node.
    names: BTreeMap<String, usize>,
    certain: BTreeMap<String, usize>,
    since: Vec<Naming>,
}

/// The device keeps a beginning of what was not synced, or any of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tier::disk) enum Order {
    Kept,
    Lost,
}

fn name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}

fn rename(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming {
        Naming::Made(name, node) => drop(names.insert(name.clone(), *node)),
        Naming::Removed(name) => drop(names.remove(name)),
        Naming::Renamed(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, new) => {
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[*at..at + new.len()].copy_from_slice(new);
        }
        Change::Len(len) => bytes.resize(*len, 0),
    }
}

impl Device {
    fn name(&mut self, naming: Naming) {
        rename(&mut self.names, &naming);
        self.since.push(naming);
    }

    fn note(&mut self, path: &Path, change: Change) {
        if let Some(node) = self.names.get(&name(path)) {
            self.nodes[*node].since.push(change);
        }
    }

    /// A file was opened for writing.
    pub(super) fn opened(&mut self, path: &Path, is_emptied: bool) {
        if !self.names.contains_key(&name(path)) {
            self.nodes.push(Node::default());
            self.name(Naming::Made(name(path), self.nodes.len() - 1));
        } else if is_emptied {
            self.note(path, Change::Len(0));
        }
    }

    pub(super) fn wrote(&mut self, path: &Path, bytes: &[u8], at: u64) {
        self.note(path, Change::Write(at as usize, bytes.to_vec()));
    }

    pub(super) fn cut(&mut self, path: &Path, len: u64) {
        self.note(path, Change::Len(len as usize));
    }

    pub(super) fn synced(&mut self, path: &Path) {
        if let Some(node) = self.names.get(&name(path)) {
            let Node { synced, since } = &mut self.nodes[*node];
            since.drain(..).for_each(|new| change(synced, &new));
        }
    }

    pub(super) fn removed(&mut self, path: &Path) {
        self.name(Naming::Removed(name(path)));
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        self.name(Naming::Renamed(name(from), name(to)));
    }

    pub(super) fn folder_synced(&mut self) {
        (self.certain, self.since) = (self.names.clone(), Vec::new());
    }

    /// The files, by name, and their bytes that are left when the power is cut now.
    pub(in crate::tier::disk) fn power_cut(&self, order: Order, rng: &mut Rng) -> Vec<(String, Vec<u8>)> {
        let mut names = self.certain.clone();
        self.since[..rng.usize(..=self.since.len())].iter().for_each(|naming| rename(&mut names, naming));
        names.into_iter().map(|(name, node)| (name, self.nodes[node].left(order, rng))).collect()
    }
}

impl Node {
    fn left(&self, order: Order, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        if order == Order::Kept {
            let whole = rng.usize(..=self.since.len());
            self.since[..whole].iter().for_each(|new| change(&mut bytes, new));
            if let Some(Change::Write(at, new)) = self.since.get(whole) {
                change(&mut bytes, &Change::Write(*at, new[..rng.usize(..=new.len())].to_vec()));
            }
            return bytes;
        }
        for new in &self.since {
            match new {
                Change::Len(_) if rng.bool() => change(&mut bytes, new),
                Change::Len(_) => {}
                Change::Write(at, new) => {
                    // Cut at the file's pages.
                    let (mut at, mut rest) = (*at, &new[..]);
                    while !rest.is_empty() {
                        let (page, after) = rest.split_at(rest.len().min(PAGE - at % PAGE));
                        if rng.bool() {
                            change(&mut bytes, &Change::Write(at, page.to_vec()));
                        }
                        (at, rest) = (at + page.len(), after);
                    }
                }
            }
        }
        bytes
    }
}
