//! Does a pattern cover a key?
//!
//! Every item but `*` takes exactly one byte of the key, so a mismatch after a star can only be mended by giving the star one byte more; and
//! only the last star need be mended, because what an earlier one could do differently, the last can do as well. Hence one
//! back-track point, no stack, and at most `pattern x key` steps. This is also why it answers like Redis' recursive matcher
//! (`stringmatchlen` in its util.c), which is written down naively in `judge` for the tests.

/// Does `pattern`, from the start of an item, cover all of `text`?
pub(super) fn covers(pattern: &[u8], text: &[u8]) -> bool {
    let (mut item, mut at) = (0, 0);
    // Behind the last star, and the first byte of the key that it has not taken.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        if pattern.get(item) == Some(&b'*') {
            item += 1;
            if item == pattern.len() {
                return true;
            }
            star = Some((item, at));
        } else if let Some(next) = take(pattern, item, text[at]) {
            (item, at) = (next, at + 1);
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            (item, at) = (behind, from + 1);
        } else {
            return false;
        }
    }
    pattern[item..].iter().all(|byte| *byte == b'*')
}

/// Where the next item begins, if the one at `item` (not a star) takes `byte`.
#[inline]
fn take(pattern: &[u8], item: usize, byte: u8) -> Option<usize> {
    let (takes, next) = match *pattern.get(item)? {
        b'?' => (true, item + 1),
        b'[' => {
            let mut class = Class::at(pattern, item + 1);
            let mut found = false;
            for member in &mut class {
                found |= member.is(byte);
            }
            (found != class.negated, class.end())
        }
        b'\\' if item + 1 < pattern.len() => (pattern[item + 1] == byte, item + 2),
        literal => (literal == byte, item + 1),
    };
    takes.then_some(next)
}

/// One member of a class.
#[derive(Clone, Copy, Debug)]
pub(super) enum Member {
    /// This byte.
    Byte(u8),
    /// From the lower of the two to the higher.
    Range(u8, u8),
}

impl Member {
    fn is(self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => own == byte,
            Self::Range(one, other) => (one.min(other)..=one.max(other)).contains(&byte),
        }
    }
}

/// Reads the members of a class, in order.
pub(super) struct Class<'a> {
    pattern: &'a [u8],
    /// The next byte to be read.
    at: usize,
    negated: bool,
}

impl<'a> Class<'a> {
    /// The class whose `[` stands before `at`.
    pub(super) fn at(pattern: &'a [u8], at: usize) -> Self {
        let negated = pattern.get(at) == Some(&b'^');
        Self { pattern, at: at + usize::from(negated), negated }
    }

    /// Where the next item begins; to be asked after the last member.
    pub(super) fn end(&self) -> usize {
        (self.at + 1).min(self.pattern.len())
    }
}

impl Iterator for Class<'_> {
    type Item = Member;

    #[inline]
    fn next(&mut self) -> Option<Member> {
        let (member, width) = match self.pattern.get(self.at..)? {
            [b'\\', byte, ..] => (Member::Byte(*byte), 2),
            [] | [b']', ..] => return None,
            [one, b'-', other, ..] => (Member::Range(*one, *other), 3),
            [byte, ..] => (Member::Byte(*byte), 1),
        };
        self.at += width;
        Some(member)
    }
}
