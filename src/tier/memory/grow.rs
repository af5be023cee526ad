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

use super::sync::{FEWEST, PIECE, SOME, WORK};
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
fn grown(homes: usize) -> usize {
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
            // It is asked of the allocator, which is enough for one put.
            *self.growth = Growth::Drafting(page(hash), Draft::after(self.words(hash), grown(homes)));
        } else {
            self.go_on(hash_of);
        }
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
                    *self.growth = Growth::Following(number);
                }
            }
            Growth::Following(number) => {
                let number = *number;
                if !self.bring(number, hash_of) {
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

    /// Takes some words over into an array that follows another, and gives that one up when it has them all. False if one finds no place near enough.
    fn bring(&mut self, number: usize, hash_of: &impl Fn(&Entry) -> u64) -> bool {
        let words = self.array(number);
        let Some(older) = self.followed(number) else { return true };
        let (mut from, homes, mut work) = (words.done(), older.homes(), 0);
        if from == homes {
            self.give_up_older(number);
            *self.growth = Growth::No;
            return true;
        }
        while from < homes && work < WORK {
            let to = homes.min(from + SOME);
            let Some(more) = self.carry(older, from..to, words, hash_of) else { return false };
            words.set_done(to);
            (from, work) = (to, work + more);
        }
        self.expect_homes(older, from, words);
        true
    }

    /// Puts an array of at least so many homes with the same words into the place of one and of the one that it follows.
    #[cold]
    fn rebuild(&mut self, number: usize, mut homes: usize, hash_of: &impl Fn(&Entry) -> u64) {
        let (words, older) = (self.array(number), self.followed(number));
        let new = loop {
            let new = Draft::after(words, homes).finish();
            let rest = || older.is_none_or(|older| self.carry(older, words.done()..older.homes(), &new, hash_of).is_some());
            // Some of the homes that are being taken over may be in both.
            if self.carry(words, 0..words.homes(), &new, hash_of).is_some() && rest() {
                break new;
            }
            homes = grown(homes);
        };
        self.supersede(number, new);
        if matches!(*self.growth, Growth::Drafting(at, _) | Growth::Following(at) if at == number) {
            *self.growth = Growth::No;
        }
    }
}
