//! Limits of a pattern, and its literal head.
//!
//! There is no compiled form: the text is the program of [`matcher`](super::matcher). What the matcher relies on is checked here,
//! once, with the matcher's own reading of a class.

use super::matcher::{self, Member};
use super::{MAX_PATTERN_BYTES, MAX_STARS};
use crate::error::{Error, ErrorKind, shown};

/// Is `text` within the limits?
pub(super) fn check(text: &str) -> Result<(), Error> {
    let refuse = |advice: String| Err(Error::new(ErrorKind::InvalidPattern, format!("pattern {}", shown(text)), advice));
    if text.is_empty() {
        return refuse("is empty; use `*` for every key".to_owned());
    }
    if text.len() > MAX_PATTERN_BYTES {
        return refuse(format!(
            "has {} bytes; shorten it to {MAX_PATTERN_BYTES}, for example by a `*` in place of its end",
            text.len()
        ));
    }
    let pattern = text.as_bytes();
    let (mut at, mut stars) = (0, 0);
    while at < pattern.len() {
        match pattern[at] {
            b'*' => (at, stars) = (at + 1, stars + 1),
            b'\\' => at += 2,
            b'[' => {
                let mut class = matcher::Class::at(pattern, at + 1);
                for member in &mut class {
                    if let Member::Range(low, high) = member
                        && !high.max(low).is_ascii()
                    {
                        return refuse(
                            "has a range with a character outside ASCII, which Redis reads differently from machine to machine; \
                             invalidate with one pattern for each character, or with `*`"
                                .to_owned(),
                        );
                    }
                }
                at = class.end();
            }
            _ => at += 1,
        }
    }
    if stars > MAX_STARS {
        return refuse(format!("has {stars} `*`; use at most {MAX_STARS}, and `\\*` for a star that is part of the key"));
    }
    Ok(())
}

/// The literal head of a pattern, without escapes, and how many bytes of the pattern say it.
pub(super) fn head(text: &str) -> (String, usize) {
    let mut literal = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '*' | '?' | '[' => return (literal, at),
            '\\' => literal.push(chars.next().map_or('\\', |(_, escaped)| escaped)),
            _ => literal.push(char),
        }
    }
    (literal, text.len())
}
