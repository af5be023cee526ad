//! Patterns: which keys does an invalidation mean?
//!
//! The syntax is that of Redis' `KEYS` and `SCAN MATCH`, to the letter, because one pattern is applied by the memory tier, by the disk
//! tier and by Redis itself, and all three must mean the same keys. It works on bytes, is case-sensitive, and must cover the whole key.
//!
//! ```text
//! pattern = item+                  1 to 1024 bytes, at most 32 `*`
//! item    = `*`                    any bytes, or none
//!         | `?`                    one byte, of any value (`é` is two)
//!         | `[` `^`? member* `]`   one byte that is a member; with `^`, one that is none. The end of the pattern closes, too
//!         | `\` byte               that byte; a `\` at the very end is a backslash
//!         | byte                   that byte; `]`, `^`, `-` and `!` are ordinary here
//! member  = `\` byte               that byte; a `\` at the very end is a backslash
//!         | byte `-` byte          a range, ends included, in either order; the second byte is taken whatever it is, even `]` or `\`
//!         | byte                   that byte; anything but `]`, which closes even as the first
//! ```
//!
//! Consequences that surprise: `[]` is never matched and `[^]` by any byte; `[a-]` is the range from `]` to `a` and still open; `[a-` is
//! `a` or `-`. The empty key, which the cache does not have, is matched by `*` alone.
//!
//! **What Redis takes and this refuses.** A range with a byte from 0x80 on: Redis compares such bytes as signed or unsigned by the
//! machine it was compiled for, so tiers could disagree. And what is over the limits: Redis has had exponential time and, with more than
//! a thousand stars, wrong answers. [`matcher`] takes at most `pattern x key` steps.

#[cfg(any(test, fuzzing))]
pub(crate) mod judge;
mod matcher;
mod parse;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::error::Error;

/// The longest pattern, in bytes.
pub(crate) const MAX_PATTERN_BYTES: usize = 1024;

/// The most `*` in a pattern.
pub(crate) const MAX_STARS: usize = 32;

/// A pattern within the limits. Cloning counts references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// As it was written, and as Redis gets it.
    text: Arc<str>,
    /// What every matching key begins with, without escapes.
    prefix: Arc<str>,
    /// How many bytes of `text` say `prefix`.
    head: usize,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidPattern`](crate::ErrorKind::InvalidPattern), with the pattern and what to change: empty, over a limit, or a
    /// range with a byte from 0x80 on.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        parse::check(text)?;
        let (prefix, head) = parse::head(text);
        Ok(Self { text: text.into(), prefix: prefix.into(), head })
    }

    /// Does it cover the whole of `text`?
    #[inline]
    pub(crate) fn matches(&self, text: &str) -> bool {
        if text.is_empty() {
            return &*self.text == "*"; // Redis does not ask its matcher about a lone `*`, and that one never matches the empty key
        }
        match text.as_bytes().strip_prefix(self.prefix.as_bytes()) {
            Some(rest) => matcher::covers(&self.text.as_bytes()[self.head..], rest),
            None => false,
        }
    }

    /// What every matching key begins with, for range scans. Empty where the pattern begins with a wildcard.
    pub(crate) fn literal_prefix(&self) -> &str {
        &self.prefix
    }

    /// The pattern as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// A pattern that matches `text` and nothing else (if it is not too long when escaped).
    #[cfg(any(test, fuzzing))]
    pub(crate) fn literal(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for char in text.chars() {
            if matches!(char, '*' | '?' | '[' | '\\') {
                out.push('\\');
            }
            out.push(char);
        }
        out
    }
}
