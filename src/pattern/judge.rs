//! The naive judge: Redis' matcher as a recursive definition, slow and plain. For tests and fuzzing only.

/// Does `pattern` cover `text`, as Redis' `KEYS` and `SCAN` have it?
pub(crate) fn redis(pattern: &[u8], text: &[u8]) -> bool {
    pattern == b"*" || pattern.is_empty() && text.is_empty() || !text.is_empty() && walk(pattern, text)
}

fn walk(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| walk(rest, &text[taken..])),
        (_, []) => pattern.is_empty(),
        ([b'?', rest @ ..], [_, text @ ..]) => walk(rest, text),
        ([b'[', b'^', rest @ ..], [byte, text @ ..]) => {
            let (found, rest) = class(rest, *byte, false);
            !found && walk(rest, text)
        }
        ([b'[', rest @ ..], [byte, text @ ..]) => {
            let (found, rest) = class(rest, *byte, false);
            found && walk(rest, text)
        }
        ([b'\\', own, rest @ ..] | [own, rest @ ..], [byte, text @ ..]) => own == byte && walk(rest, text),
        ([], _) => false,
    }
}

/// Is `byte` in the class that begins here, and what follows the class?
fn class(pattern: &[u8], byte: u8, found: bool) -> (bool, &[u8]) {
    match pattern {
        [] => (found, &[]),
        [b'\\', own, rest @ ..] => class(rest, byte, found || *own == byte),
        [b']', rest @ ..] => (found, rest),
        [low, b'-', high, rest @ ..] => {
            class(rest, byte, found || low <= &byte && &byte <= high || high <= &byte && &byte <= low)
        }
        [own, rest @ ..] => class(rest, byte, found || *own == byte),
    }
}
