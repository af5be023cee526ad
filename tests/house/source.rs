//! Source files as tokens: words and signs, without comments, strings, characters and, on request, without test code.
//!
//! Knows as much of Rust's lexical rules as it takes not to be fooled by them: nested comments, raw strings, a brace in a
//! character, a lifetime that is none. It does not parse.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file; `name` is its path from the package's root, with `/`.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// All `.rs` files under a folder of the package, in order. None if there is no such folder.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut found): (Vec<PathBuf>, Vec<Source>) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix(root).expect("found under the root");
                let name = inside.components().map(|step| step.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
                found.push(Source { name, text: fs::read_to_string(&path).expect("a source is UTF-8") });
            }
        }
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    found
}

/// A word, `::`, or one sign of punctuation, and the line it stands on.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Leaves out every item under `#[cfg(test)]` (also `cfg(all(test, ..))`, not `cfg(not(test))`).
pub(crate) fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let (mut kept, mut rest) = (Vec::new(), tokens.into_iter().peekable());
    while let Some(token) = rest.next() {
        if token.text != "#" || rest.peek().is_none_or(|next| next.text != "[") {
            kept.push(token);
            continue;
        }
        let attribute = group(&mut rest);
        let says = |word: &str| attribute.iter().any(|token| token.text == word);
        if !(says("cfg") && says("test") && !says("not")) {
            kept.push(token);
            kept.extend(attribute);
            continue;
        }
        // The item ends with its `;` or with its braces.
        while let Some(next) = rest.peek() {
            match next.text.as_str() {
                "{" => {
                    group(&mut rest);
                    break;
                }
                "(" | "[" => drop(group(&mut rest)),
                _ => {
                    if rest.next().is_some_and(|token| token.text == ";") {
                        break;
                    }
                }
            }
        }
    }
    kept
}

/// Takes a bracketed group, brackets included.
fn group(tokens: &mut impl Iterator<Item = Token>) -> Vec<Token> {
    let (mut taken, mut open) = (Vec::new(), 0_usize);
    for token in tokens {
        match token.text.as_str() {
            "(" | "[" | "{" => open += 1,
            ")" | "]" | "}" => open -= 1,
            _ => {}
        }
        taken.push(token);
        if open == 0 {
            break;
        }
    }
    taken
}

/// The words and signs of a source text, without comments, strings and characters.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let (mut index, mut line, mut found) = (0, 1, Vec::new());
    while index < chars.len() {
        let start = index;
        match at(index) {
            '/' if at(index + 1) == '/' => index += chars[index..].iter().take_while(|c| **c != '\n').count(),
            '/' if at(index + 1) == '*' => index = end_of_comment(&chars, index),
            '"' => index = end_of_string(&chars, index),
            '\'' if at(index + 1) == '\\' => {
                index += 3; // the quote, the backslash and what it escapes, which may be a quote
                index += chars[index.min(chars.len())..].iter().take_while(|c| **c != '\'').count() + 1;
            }
            '\'' if at(index + 2) == '\'' => index += 3,
            ':' if at(index + 1) == ':' => {
                found.push(Token { text: "::".to_owned(), line });
                index += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                index += chars[index..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                let word: String = chars[start..index].iter().collect();
                let hashes = chars[index..].iter().take_while(|c| **c == '#').count();
                if matches!(word.as_str(), "r" | "br" | "cr") && at(index + hashes) == '"' {
                    index = end_of_raw_string(&chars, index + hashes + 1, hashes);
                } else if word == "r" && hashes == 1 {
                    index += 1; // r#type: the word comes next
                } else {
                    found.push(Token { text: word, line });
                }
            }
            c => {
                index += 1;
                if !c.is_whitespace() {
                    found.push(Token { text: c.to_string(), line });
                }
            }
        }
        index = index.min(chars.len());
        line += chars[start..index].iter().filter(|c| **c == '\n').count();
    }
    found
}

fn end_of_comment(chars: &[char], mut index: usize) -> usize {
    let mut open = 0_usize;
    while index < chars.len() {
        match (chars[index], chars.get(index + 1)) {
            ('/', Some('*')) => (open, index) = (open + 1, index + 2),
            ('*', Some('/')) => (open, index) = (open - 1, index + 2),
            _ => index += 1,
        }
        if open == 0 {
            break;
        }
    }
    index
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut index = start + 1;
    while index < chars.len() && chars[index] != '"' {
        index += if chars[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

fn end_of_raw_string(chars: &[char], mut index: usize, hashes: usize) -> usize {
    while index < chars.len() {
        let closes = chars[index] == '"' && chars[index + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        index += 1;
        if closes {
            break;
        }
    }
    index + hashes
}
