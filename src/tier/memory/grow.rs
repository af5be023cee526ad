//! Putting into a table, and when its arrays become larger or smaller.
//!
//! An array is full at three quarters. Then one is [drafted](Growth::Drafting) that is a quarter larger, a piece a put, and when it is written it
//! [follows](Growth::Following): each put takes some words over, which mostly needs no look at their entries ([`word`](super::word)), so that no put waits for all
//! of them. One array of a table grows at a time, so that little memory is held twice and few reads have two places to look at; another that is full waits, and
//! becomes a little fuller. Where a word finds no place near enough, which is rare, and where an array becomes smaller, all is done [at once](Edit::rebuild). Where
//! nothing is put any more, maintenance goes on.
//!
//! **One thing a put.** It writes a piece, publishes, takes words over, frees an array that was given up, or flushes for one; so the slowest puts are those that
//! find nothing in the processor's caches. For them, a step fetches what the next one reads, and who begins a put fetches it again, by its
//! [address](Ahead): the step may have been long ago.
//!
//! Rejected: a new array filled at once (one put in two hundred took ten microseconds and more); words that tell nothing (each entry was asked for its hash,
//! which made the puts of a filling cache take half as long again); two things a put (the slowest puts in a thousand took a third longer).

use super::edit::Gap;
#[cfg(any(test, fuzzing))]
use super::sync::PAGES;
use super::sync::{FEWEST, PIECE, SOME, WORK};
use super::table::{Edit, Held, expect_head, page, prefetch};
use super::words::{Draft, Words};
use crate::entry::Entry;

/// What of the growth of a table is under way, and for which array.
pub(super) enum Growth {
    No,
    /// A larger one is written.
    Drafting(usize, Draft),
    /// It is published, and nobody has looked yet at what is to be taken over.
    Published(usize),
    /// Its words are taken over; what the next step looks at first.
    Following(usize, Ahead),
}

/// Addresses at which the next step of growth begins, not to be followed.
#[derive(Clone, Copy)]
pub(super) struct Ahead([usize; 4]);

impl Growth {
    /// The array that follows another.
    #[inline]
    pub(super) fn following(&self) -> Option<usize> {
        match *self {
            Self::Published(number) | Self::Following(number, _) => Some(number),
            Self::No | Self::Drafting(..) => None,
        }
    }
}

/// Homes after one growth: the load goes from 3/4 to 3/5. The smallest arrays become larger than that, so that there are enough puts for the steps of their growth.
fn grown(homes: usize) -> usize {
    homes + if homes < 4 * FEWEST { 2 * FEWEST } else { homes / 4 }
}

impl Edit<'_> {
    /// Takes in an entry whose key is not here; `gap` is what the [search](Self::search) for it has found, and since when other keys may have been
    /// taken out. `hash_of` is asked for the hashes of entries, some at a time, while an array grows.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, entry: Entry, gap: &Gap, hash_of: impl Fn(&Entry) -> u64) -> Held {
        let held = Held::new(entry);
        let (words, len) = (self.words(hash), self.counts.len(hash));
        self.counts.set_len(hash, len + 1);
        // What was taken out may have left a gap before this one, and would have changed the number.
        let is_there = gap.len == len && (len + 1) * 4 <= words.homes() * 3;
        if !(is_there && words.fill(gap.slot, hash, held.raw())) {
            self.place_anew(hash, &held, &hash_of);
        } else if self.grows() && !self.has_arrays_to_free() {
            self.go_on(&hash_of);
        }
        held
    }

    #[cold]
    fn place_anew(&mut self, hash: u64, held: &Held, hash_of: &impl Fn(&Entry) -> u64) {
        let homes = self.words(hash).homes();
        if self.has_arrays_to_free() {
            // That is enough for one put, and so is to ask the allocator for an array.
        } else if self.counts.len(hash) * 4 > homes * 3 && !self.grows() {
            self.draft(page(hash), grown(homes));
        } else {
            self.go_on(hash_of);
        }
        while !self.words(hash).place(self.words(hash).scale().spot(hash), held.raw()) {
            self.rebuild(page(hash), grown(self.words(hash).homes()), hash_of);
        }
    }

    /// Begins to write an array of so many homes that is to follow the one of this number. It counts from now on: whoever puts makes room for it, and who goes on
    /// where nobody puts need not.
    fn draft(&mut self, number: usize, homes: usize) {
        let draft = Draft::after(self.array(number), homes);
        self.counts.add(draft.len());
        *self.growth = Growth::Drafting(number, draft);
        self.has_grown = true;
    }

    /// Is there an array that grows?
    #[inline]
    pub(super) fn grows(&self) -> bool {
        !matches!(self.growth, Growth::No)
    }

    /// Goes on with the array that grows, if one does. Is more to be done?
    #[cold]
    pub(super) fn go_on(&mut self, hash_of: &impl Fn(&Entry) -> u64) -> bool {
        self.has_grown = true;
        *self.growth = match std::mem::replace(self.growth, Growth::No) {
            Growth::No => Growth::No,
            Growth::Drafting(number, mut draft) if !draft.is_written() => {
                draft.write(PIECE);
                Growth::Drafting(number, draft)
            }
            Growth::Drafting(number, draft) => {
                self.follow(number, draft.finish());
                Growth::Published(number)
            }
            Growth::Published(number) => match self.followed(number) {
                Some(older) => Growth::Following(number, self.expect_homes(older, 0, self.array(number))),
                None => Growth::No,
            },
            Growth::Following(number, _) => self.bring(number, hash_of).unwrap_or_else(|| {
                self.rebuild(number, grown(self.array(number).homes()), hash_of);
                Growth::No
            }),
        };
        self.grows()
    }

    /// Makes the array of this hash smaller when it is mostly empty.
    #[inline]
    pub(super) fn shrink(&mut self, hash: u64, hash_of: impl Fn(&Entry) -> u64) {
        let (len, homes) = (self.counts.len(hash), self.words(hash).homes());
        if homes > FEWEST && len * 8 < homes {
            self.rebuild(page(hash), (len * 2).max(FEWEST), &hash_of);
        }
    }

    /// Takes some words over into an array that follows another, or gives that one up when it has them all: what is to be done then. Nothing if one finds
    /// no place near enough.
    fn bring(&mut self, number: usize, hash_of: &impl Fn(&Entry) -> u64) -> Option<Growth> {
        let words = self.array(number);
        let Some(older) = self.followed(number) else { return Some(Growth::No) };
        let (mut from, homes, mut work) = (words.done(), older.homes(), 0);
        if from == homes {
            self.give_up_older(number);
            return Some(Growth::No);
        }
        while from < homes && work < WORK {
            let to = homes.min(from + SOME);
            work += self.carry(older, from..to, words, false, hash_of)?;
            words.set_done(to);
            from = to;
        }
        Some(Growth::Following(number, self.expect_homes(older, from, words)))
    }

    /// Puts an array of at least so many homes with the same words into the place of one and of the one that it follows.
    #[cold]
    fn rebuild(&mut self, number: usize, mut homes: usize, hash_of: &impl Fn(&Entry) -> u64) {
        let (words, older) = (self.array(number), self.followed(number));
        let new = loop {
            let new = Draft::after(words, homes).finish();
            // Where taking over has ended half-way through some homes, their words are in both.
            let rest = || older.is_none_or(|older| self.carry(older, words.done()..older.homes(), &new, true, hash_of).is_some());
            if self.carry(words, 0..words.homes(), &new, false, hash_of).is_some() && rest() {
                break new;
            }
            homes = grown(homes);
        };
        self.supersede(number, new);
        match &*self.growth {
            Growth::Drafting(at, draft) if *at == number => {
                self.counts.subtract(draft.len());
                *self.growth = Growth::No;
            }
            Growth::Published(at) | Growth::Following(at, _) if *at == number => *self.growth = Growth::No,
            _ => (),
        }
    }

    /// The words of some homes from one on are going to be put into another array: where that begins.
    fn expect_homes(&self, from: &Words, home: usize, to: &Words) -> Ahead {
        let there = home * to.homes() / from.homes();
        for more in (0..2 * WORK).step_by(8) {
            prefetch(from.address(home + more), 0);
            prefetch(to.address(there + more), 0);
        }
        if to.scale().is_finer_than(from.scale()) {
            from.of_homes(home..from.homes().min(home + SOME)).for_each(|(_, word)| expect_head(word));
        }
        Ahead([
            std::ptr::from_ref(from).addr(),
            std::ptr::from_ref(to).addr(),
            from.address(home).addr(),
            to.address(there).addr(),
        ])
    }

    /// Something is going to be put: fetches what a step of growth reads first.
    #[inline]
    pub(super) fn expect_step(&self) {
        if let Growth::Following(_, Ahead([from, to, here, there])) = *self.growth {
            for address in [from, to, here, there, here + 64, there + 64, here + 128, there + 128] {
                prefetch(std::ptr::without_provenance_mut(address), 0);
            }
        }
    }

    /// Panics if the words of all arrays, with one that is written, are not those that are counted.
    #[cfg(any(test, fuzzing))]
    pub(super) fn validate(&self) {
        let published = |number| self.array(number).len() + self.followed(number).map_or(0, Words::len);
        let drafted = if let Growth::Drafting(_, draft) = &*self.growth { draft.len() } else { 0 };
        let words = (0..PAGES).map(published).sum::<usize>() + drafted;
        assert_eq!(self.counts.bytes(), (words * size_of::<*mut u8>()) as u64, "the words of all arrays are counted");
    }
}
