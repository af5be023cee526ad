//! Putting into a table, and when its arrays become larger or smaller.
//!
//! An array is full at three quarters. Then one is [drafted](Growth::Drafting) that is a quarter larger, a piece a put, and when it is written it
//! [follows](Growth::Following): each put takes some words over, which mostly needs no look at their entries ([`word`](super::word)), so that no put waits for all
//! of them. One array of a table grows at a time, so that little memory is held twice and few reads have two places to look at; another that is full waits, and
//! becomes a little fuller. Where a word finds no place near enough, which is rare, and where an array becomes smaller, all is done [at once](Edit::rebuild). Where
//! nothing is put any more, maintenance goes on.
//!
//! Rejected: a new array filled at once (one put in two hundred took ten microseconds and more); words that tell nothing (each entry was asked for its hash,
//! which made the puts of a filling cache take half as long again); smaller steps (too many arrays wait, and become too full).

use super::sync::{FEWEST, PIECE};
use super::table::{Edit, Gap, Held, page};
use super::words::Draft;
use crate::entry::Entry;

/// What of the growth of a table is under way, and for which array.
pub(super) enum Growth {
    No,
    /// A larger one is written.
    Drafting(usize, Draft),
    /// It is published, and its words are taken over.
    Following(usize),
}

/// Homes after one growth: the load goes from 3/4 to 3/5.
pub(super) fn grown(homes: usize) -> usize {
    homes + (homes / 4).max(1)
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
        } else if self.grows() {
            self.go_on(&hash_of);
        }
        held
    }

    #[cold]
    fn place_anew(&mut self, hash: u64, held: &Held, hash_of: &impl Fn(&Entry) -> u64) {
        let homes = self.words(hash).homes();
        if self.counts.len(hash) * 4 > homes * 3 && !self.grows() {
            *self.growth = Growth::Drafting(page(hash), Draft::after(self.words(hash), grown(homes)));
        }
        self.go_on(hash_of);
        while !self.words(hash).place(self.words(hash).scale().spot(hash), held.raw()) {
            self.rebuild(page(hash), grown(self.words(hash).homes()), hash_of);
        }
    }

    /// Is there an array that grows?
    #[inline]
    pub(super) fn grows(&self) -> bool {
        !matches!(self.growth, Growth::No)
    }

    /// Goes on with the array that grows, if one does. Is more to be done?
    #[cold]
    pub(super) fn go_on(&mut self, hash_of: &impl Fn(&Entry) -> u64) -> bool {
        match self.growth {
            Growth::No => {}
            Growth::Drafting(_, draft) => {
                if draft.write(PIECE)
                    && let Growth::Drafting(number, draft) = std::mem::replace(self.growth, Growth::No)
                {
                    self.follow(number, draft.finish());
                }
            }
            Growth::Following(number) => {
                let number = *number;
                if !self.bring(hash_of) {
                    self.rebuild(number, grown(self.array(number).homes()), hash_of);
                }
            }
        }
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
}
