//! The table of what Redis answers, the judge on everything small, and hostile patterns.

use super::*;
use crate::error::ErrorKind;

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::parse(pattern).unwrap().matches(text)
}

/// Pattern, keys it matches, keys it does not.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("*", &["", "a", "é", "\0\n"], &[]),
    ("**", &["a"], &[""]),
    ("a*", &["a", "ab", "a*"], &["", "ba", "A"]),
    ("a**", &["a", "ab"], &["b"]),
    ("*a*b", &["ab", "xaxb", "aabb"], &["ba", "abx"]),
    ("?", &["a", "\0", "\n"], &["", "é", "ab"]),
    ("??", &["é", "ab"], &["a"]),
    (r"\*", &["*"], &["a", r"\*"]),
    (r"\", &[r"\"], &["", "a"]),
    (r"a\", &[r"a\"], &["a"]),
    ("[abc]", &["a", "c"], &["d", "", "ab"]),
    ("[^abc]", &["d", "^"], &["a", ""]),
    ("[!a]", &["!", "a"], &["b"]),
    ("[]", &[], &["", "]", "a", "[]"]),
    ("[]]", &[], &["]", "a]", "]]"]),
    ("[^]", &["a", "]"], &["", "ab"]),
    (r"[\]]", &["]"], &[r"\", "a"]),
    (r"[\^]", &["^"], &["a"]),
    ("[-a]", &["-", "a"], &["b"]),
    (r"[a\-z]", &["a", "-", "z"], &["b"]),
    ("[a-c]", &["a", "b", "c"], &["d", "-"]),
    ("[c-a]", &["a", "b", "c"], &["d", "-"]),
    ("[a-]", &["a", "]", "_"], &["-", "b"]),
    (r"[a-\]]", &["a]", r"\]", "]]"], &["a", "b]"]),
    ("[abc", &["c"], &["d"]),
    ("[", &[], &["[", "a"]),
    ("[^", &["a", "^"], &["", "ab"]),
    ("[a-", &["a", "-"], &["b"]),
    (r"[a\", &["a", r"\"], &["b"]),
    ("a[", &[], &["a", "a["]),
    ("[x]*", &["x", "xy"], &["y"]),
    ("pjm:*:[0-9]?", &["pjm:x:42", "pjm::1a"], &["pjm:x:a2", "pjm:x:4"]),
];

#[test]
fn the_table_of_redis_holds() {
    for (pattern, yes, no) in TABLE {
        for text in *yes {
            assert!(matches(pattern, text), "{pattern:?} matches {text:?}");
            assert!(judge::redis(pattern.as_bytes(), text.as_bytes()), "judge: {pattern:?} matches {text:?}");
        }
        for text in *no {
            assert!(!matches(pattern, text), "{pattern:?} does not match {text:?}");
            assert!(!judge::redis(pattern.as_bytes(), text.as_bytes()), "judge: {pattern:?} does not match {text:?}");
        }
    }
}

/// Every word of up to `longest` letters.
fn words(letters: &[char], longest: usize) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut from = 0;
    for _ in 0..longest {
        let until = words.len();
        for at in from..until {
            words.extend(letters.iter().map(|letter| format!("{}{letter}", words[at])).collect::<Vec<_>>());
        }
        from = until;
    }
    words
}

fn agree_on_all(patterns: &[String], texts: &[String]) {
    for pattern in patterns.iter().filter(|pattern| !pattern.is_empty()) {
        let parsed = Pattern::parse(pattern).unwrap();
        for text in texts {
            let expected = judge::redis(pattern.as_bytes(), text.as_bytes());
            assert_eq!(parsed.matches(text), expected, "{pattern:?} on {text:?}");
            assert!(!expected || text.starts_with(parsed.literal_prefix()), "{pattern:?} on {text:?}: prefix");
        }
    }
}

#[test]
fn it_agrees_with_the_judge_on_every_short_pattern() {
    let letters = ['a', 'b', ']', '[', '^', '-', '\\', '*', '?'];
    agree_on_all(&words(&letters, 4), &words(&letters, 3));
}

#[test]
fn it_agrees_with_the_judge_on_longer_runs_of_stars() {
    agree_on_all(&words(&['a', 'b', '*', '?'], 6), &words(&['a', 'b'], 6));
}

#[test]
fn the_prefix_is_the_literal_head_without_escapes() {
    for (pattern, prefix) in [
        ("pjm:*", "pjm:"),
        ("*", ""),
        (r"a\*b*", "a*b"),
        (r"a\", r"a\"),
        ("é?", "é"),
        (r"\é[", "é"),
        ("[a]b", ""),
        ("abc", "abc"),
    ] {
        assert_eq!(Pattern::parse(pattern).unwrap().literal_prefix(), prefix, "{pattern:?}");
    }
}

#[test]
fn a_literal_matches_itself_and_nothing_else() {
    let texts = words(&['a', ']', '[', '^', '-', '\\', '*', '?', 'é'], 3);
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let pattern = Pattern::parse(&Pattern::literal(text)).unwrap();
        assert_eq!(pattern.literal_prefix(), text);
        assert!(texts.iter().all(|other| pattern.matches(other) == (other == text)), "{text:?}");
    }
}

#[test]
fn what_is_over_a_limit_is_refused_with_advice() {
    for (pattern, advice) in [
        (String::new(), "pattern \"\": is empty; use `*`"),
        ("x".repeat(1025), "has 1025 bytes; shorten it to 1024"),
        ("a*".repeat(33), "has 33 `*`; use at most 32"),
        ("[a-é]".to_owned(), "pattern \"[a-é]\": has a range with a character outside ASCII"),
        ("x[\u{80}-z]".to_owned(), "outside ASCII"),
        ("[^\\]é-a]".to_owned(), "outside ASCII"),
    ] {
        let error = Pattern::parse(&pattern).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidPattern);
        assert!(error.to_string().contains(advice), "{error}");
    }
    Pattern::parse(&"x".repeat(1024)).unwrap();
    Pattern::parse(&"a*".repeat(32)).unwrap();
    Pattern::parse(&format!("{}[{}]", r"\*".repeat(100), "*".repeat(100))).unwrap();
    Pattern::parse(r"é-z[é][\é][éa-z][é").unwrap();
}

#[test]
fn a_hostile_pattern_takes_no_more_than_pattern_times_key_steps() {
    // Exponential in a naive matcher, which would not return within the life of the machine.
    let text = "a".repeat(65_536);
    assert!(!matches(&format!("{}b", "a*".repeat(32)), &text));
    assert!(!matches(&format!("{}b", "*?".repeat(32)), &text));
    assert!(!matches(&format!("*{}b", "[^b]".repeat(32)), &text));
    assert!(matches(&format!("{}a", "*a".repeat(31)), &text));
}

#[test]
fn every_text_is_a_pattern_or_an_error_and_never_a_panic() {
    let letters: Vec<char> = "ab*?[]^-\\é\0".chars().collect();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let pattern: String = (0..random.usize(0..40)).map(|_| *random.choice(&letters).unwrap()).collect();
        let text: String = (0..random.usize(0..12)).map(|_| *random.choice(&letters).unwrap()).collect();
        if pattern.matches('*').count() <= 4
            && let Ok(parsed) = Pattern::parse(&pattern)
        {
            assert_eq!(parsed.matches(&text), judge::redis(pattern.as_bytes(), text.as_bytes()), "{pattern:?} on {text:?}");
        }
    }
}
