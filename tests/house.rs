//! The rules of the house that a program can check: who may import whom, how long a file may be, and which words stand where.
//!
//! The sources are read as tokens, with comments and strings left out, so that a story may name what the code may not. Test code
//! (`#[cfg(test)]` items, files named `tests.rs`) may import what it likes. Macros are not expanded, and a name that was imported
//! by an allowed line is not followed further; what is checked is what the lines say.

#[path = "house/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{Token, sources, tokens, without_tests};

/// The floors of `ARCHITECTURE.md`, lowest first. A room imports its own floor and those below it.
const FLOORS: [&[&str]; 6] = [
    &["error", "bytes", "clock", "key", "namespace", "schema"],
    // `tier` is the words that the tiers share (tier/mod.rs); the tiers themselves are one floor up.
    &["entry", "pattern", "policy", "invalidation", "metrics", "tier"],
    &["tier::memory", "tier::disk", "tier::remote"],
    &["config", "flight", "coherence", "health"],
    &["engine"],
    &["cache", "builder", "payload", "view", "legacy", "invalidate", "inspect", "warming", "fetch_error", "fuzz_bridge"],
];

/// From this floor on rooms may know each other both ways (`Cache::builder()` and `Builder::open()`).
const FRONT_DOOR: usize = 5;

/// Three rooms that must not know each other.
const TIERS: [&str; 3] = ["memory", "disk", "remote"];

/// The longest file, in lines.
const MAX_LINES: usize = 450;

/// The only places where `unsafe` stands; the third is a test, which stands in for crossbeam's epoch.
const UNSAFE: [&str; 3] = ["src/entry/codec.rs", "src/tier/memory/table.rs", "src/tier/memory/model/sync.rs"];

/// Folders of one machine or one person. In pieces, so that this file does not hold them.
const MACHINE_PATHS: [&str; 5] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/tm", "p/"), concat!("/Us", "ers/")];

#[test]
fn imports_go_down_the_floors() {
    let mut faults = Vec::new();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources("src").iter().filter(|file| has_floor(&file.name)) {
        for import in imports(&file.name, &file.text) {
            match judge(&file.name, &import) {
                Ok(Some((from, to))) => {
                    edges.entry(from).or_default().insert(to);
                }
                Ok(None) => {}
                Err(fault) => faults.push(fault),
            }
        }
    }
    assert!(!edges.is_empty(), "no import was found at all: the reader of the sources is broken");
    faults.extend(circle(&edges).map(|path| format!("rooms import each other in a circle: {}", path.join(" -> "))));
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn only_their_own_files_say_sled_and_redis() {
    let mut faults = Vec::new();
    for file in sources("src") {
        let tokens = without_tests(tokens(&file.text));
        for (at, token) in tokens.iter().enumerate() {
            let path_start = tokens.get(at + 1).is_some_and(|next| next.text == "::");
            let stranger = match token.text.as_str() {
                "sled" => file.name != "src/tier/disk/catalogue/keeper.rs",
                "redis" => path_start && !file.name.starts_with("src/tier/remote/link"),
                _ => false,
            };
            if stranger {
                faults.push(format!("{}:{}: says `{}`", file.name, token.line, token.text));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// One door to the file system, so that a test can make each of its calls fail.
#[test]
fn only_one_file_of_the_disk_tier_touches_files() {
    let mut faults = Vec::new();
    for file in sources("src/tier/disk").iter().filter(|file| file.name != "src/tier/disk/files.rs" && !is_test(&file.name)) {
        let tokens = without_tests(tokens(&file.text));
        let strangers = tokens.iter().filter(|token| matches!(token.text.as_str(), "fs" | "File" | "OpenOptions"));
        faults.extend(strangers.map(|token| format!("{}:{}: says `{}`", file.name, token.line, token.text)));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn files_are_short() {
    let faults: Vec<String> = sources("src")
        .into_iter()
        .map(|file| (file.text.lines().count(), file.name))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, name)| format!("{name} has {lines} lines, {MAX_LINES} are allowed; split it by verb"))
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn each_file_begins_with_its_story() {
    let faults: Vec<String> = sources("src")
        .into_iter()
        .filter(|file| !is_test(&file.name) && !file.text.starts_with("//!"))
        .map(|file| file.name)
        .collect();
    assert!(faults.is_empty(), "these files do not begin with `//!`:\n{}\n", faults.join("\n"));
}

#[test]
fn unsafe_stands_in_two_files_only() {
    let files = sources("src").into_iter().chain(sources("derive/src"));
    let faults: Vec<String> = files
        .filter(|file| !UNSAFE.contains(&file.name.as_str()))
        .flat_map(|file| {
            let lines: Vec<_> =
                tokens(&file.text).into_iter().filter(|token| token.text == "unsafe").map(|token| token.line).collect();
            lines.into_iter().map(move |line| format!("{}:{line}: unsafe", file.name))
        })
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn nothing_is_left_undone_and_nothing_names_a_machine() {
    let mut faults = Vec::new();
    for folder in ["src", "derive/src", "tests", "benches", "fuzz/fuzz_targets"] {
        for file in sources(folder) {
            let (name, tokens) = (&file.name, tokens(&file.text));
            for pair in tokens.windows(2) {
                if matches!(pair[0].text.as_str(), "todo" | "unimplemented" | "dbg") && pair[1].text == "!" {
                    faults.push(format!("{name}:{}: {}!", pair[0].line, pair[0].text));
                }
            }
            for (number, line) in file.text.lines().enumerate() {
                faults.extend(machine_path(line).map(|path| format!("{name}:{}: path {path}", number + 1)));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_papers_say_what_the_code_says() {
    let readme = include_str!("../README.md");
    for limit in [aurum_cache::MAX_KEY_BYTES, aurum_cache::MAX_NAMESPACE_BYTES] {
        assert!(readme.contains(&format!("{limit} bytes")), "README.md does not name the limit of {limit} bytes");
    }
    let settings =
        readme.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("README.md shows the settings");
    let read = aurum_cache::CacheConfig::from_toml_str(settings);
    assert!(read.is_ok(), "the settings of README.md are not read: {read:?}");
    let stated = format!("Rust {}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(readme.contains(&stated), "README.md does not say {stated}");
    let architecture = include_str!("../ARCHITECTURE.md");
    for (floor, rooms) in FLOORS.iter().enumerate() {
        let line = architecture.lines().find(|line| line.starts_with(&format!("{floor} "))).unwrap_or_default();
        for room in *rooms {
            let shown = room.replace("::", "/");
            assert!(line.contains(&shown), "ARCHITECTURE.md does not show `{shown}` on floor {floor}: {line:?}");
        }
    }
}

#[test]
fn each_invariant_names_a_test_that_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows: Vec<&str> = include_str!("../ARCHITECTURE.md").lines().filter(|line| line.contains("| **")).collect();
    assert!(rows.len() >= 11, "the table of invariants was not found");
    for row in rows {
        let held_by = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
        let named: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing holds {row}");
        let mut code = String::new();
        for file in named.iter().filter(|name| name.ends_with(".rs")) {
            code += &std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("{file} is not there: {row}"));
        }
        for test in named.iter().filter(|name| !name.contains(['.', '/']) && **name != "await_holding_lock") {
            assert!(code.contains(&format!("fn {test}(")), "no test {test} in the files named with it: {row}");
        }
    }
}

// The judge is judged.

#[test]
fn an_upward_import_is_found_in_each_of_its_forms() {
    let faults = |name: &str, text: &str| -> Vec<String> {
        imports(name, text).iter().filter_map(|import| judge(name, import).err()).collect()
    };
    for (name, text) in [
        ("src/error.rs", "use crate::engine::Engine;"),
        ("src/policy/ttl.rs", "use crate::{error::Error, cache::{Cache}, policy::{self, ttl::{A, B}}};"),
        ("src/policy/ttl.rs", "use super::super::engine::state::Engine;"),
        ("src/policy/mod.rs", "use super::tier::disk::Log;"),
        ("src/tier/memory/mod.rs", "fn f() -> crate::tier::disk::Disk { x }"),
        ("src/tier/memory/shard.rs", "use super::super::remote::Link;"),
        ("src/tier/mod.rs", "use self::memory::Memory;"),
        ("src/engine/read.rs", "mod inner { use super::super::super::view::Cached; }"),
        ("src/engine/read.rs", "use crate::Cache;"),
        ("src/engine/read.rs", "use aurum_cache::Cache;"),
        ("src/engine/read.rs", "use crate::attic::Thing;"),
        ("src/key.rs", "#[cfg(not(test))] use crate::view::Cached;"),
    ] {
        assert_eq!(faults(name, text).len(), 1, "{name}: {text}: {:?}", faults(name, text));
    }
    for (name, text) in [
        ("src/engine/read.rs", "use crate::tier::memory::Memory; use super::state::Engine;"),
        ("src/tier/memory/mod.rs", "use crate::tier::{Tier, Usage}; pub(in crate::tier) fn f() {}"),
        ("src/tier/memory/shard.rs", "use super::table::Table; use crate::entry::Entry;"),
        ("src/error.rs", "// use crate::engine::Engine;\n/* use crate::view; /* */ */ const A: &str = r#\"crate::view::X\"#;"),
        ("src/error.rs", "#[cfg(test)]\nmod tests { use super::*; use crate::cache::Cache; fn f() { let c = '}'; } }"),
        ("src/error.rs", "#[cfg(test)] use crate::cache::Cache;\npub(crate) struct S<'a>(&'a str);"),
        ("src/cache.rs", "use crate::builder::Builder;"),
    ] {
        assert_eq!(faults(name, text), Vec::<String>::new(), "{name}: {text}");
    }
}

#[test]
fn a_circle_of_rooms_is_found() {
    let edges = |pairs: &[(&str, &str)]| -> BTreeMap<String, BTreeSet<String>> {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            edges.entry((*from).into()).or_default().insert((*to).into());
        }
        edges
    };
    assert_eq!(circle(&edges(&[("entry", "policy"), ("policy", "error"), ("metrics", "policy")])), None);
    let found = circle(&edges(&[("entry", "policy"), ("policy", "pattern"), ("pattern", "entry")])).unwrap();
    assert_eq!(found.first(), found.last());
    assert_eq!(found.len(), 4);
}

#[test]
fn a_machine_path_is_found_and_a_slash_is_not() {
    for path in MACHINE_PATHS {
        assert_eq!(machine_path(&format!("let folder = \"{path}x\";")), Some(path));
    }
    assert_eq!(machine_path("//! src/tier and https://example.org/tmpl"), None);
}

/// One import: the line it stands on, and the module or item it names, from the crate's root.
#[derive(Debug)]
struct Import {
    line: usize,
    path: Vec<String>,
}

/// `Ok(Some((from, to)))` for an import between two rooms below the front door, `Ok(None)` for one that needs no further look,
/// `Err` for one that is not allowed.
fn judge(name: &str, import: &Import) -> Result<Option<(String, String)>, String> {
    let fault = |what: String| Err(format!("{name}:{}: {} {what}", import.line, import.path.join("::")));
    let from = room(&module_of(name));
    let to = room(&import.path);
    let Some(own) = floor(&from) else {
        return Err(format!("{name}: room `{from}` is not in the floor table of tests/house.rs and ARCHITECTURE.md"));
    };
    let Some(other) = floor(&to) else {
        return fault(format!("names no room of the floor table (`{to}`); import from the room that defines it"));
    };
    let tier = |room: &str| room.starts_with("tier::");
    if from == to {
        Ok(None)
    } else if other > own {
        fault(format!("is an upward import: `{from}` is on floor {own}, `{to}` on floor {other}"))
    } else if tier(&from) && tier(&to) {
        fault(format!("lets one tier know another: `{from}` and `{to}`"))
    } else if own >= FRONT_DOOR {
        Ok(None)
    } else {
        Ok(Some((from, to)))
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The room of a path from the crate's root: its first step, or the first two inside a tier.
fn room(path: &[String]) -> String {
    match path {
        [first, second, ..] if first == "tier" && TIERS.contains(&second.as_str()) => format!("tier::{second}"),
        [first, ..] => first.clone(),
        [] => "the crate's root".to_owned(),
    }
}

/// Test code in a file of its own: no floor, no story.
fn is_test(name: &str) -> bool {
    name.ends_with("/tests.rs") || name.contains("/tests/")
}

/// lib.rs only re-exports, and the program is a guest that sees the public face alone; the compiler guards both.
fn has_floor(name: &str) -> bool {
    name != "src/lib.rs" && !name.starts_with("src/bin/") && !is_test(name)
}

/// `src/tier/memory/shard.rs` is `tier::memory::shard`, `src/tier/memory/mod.rs` is `tier::memory`.
fn module_of(name: &str) -> Vec<String> {
    let path = name.strip_prefix("src/").unwrap_or(name).trim_end_matches(".rs");
    path.split('/').filter(|step| *step != "mod").map(str::to_owned).collect()
}

/// All paths in a file that begin at `crate`, `super`, `self` or the crate's own name, and every `tier::x` however it was reached.
fn imports(name: &str, text: &str) -> Vec<Import> {
    let tokens = without_tests(tokens(text));
    let word = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut module = module_of(name);
    let (mut open, mut inline) = (0_usize, Vec::new());
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        match word(at) {
            "{" => {
                open += 1;
                if at >= 2 && word(at - 2) == "mod" {
                    module.push(word(at - 1).to_owned());
                    inline.push(open);
                }
            }
            "}" => {
                if inline.last() == Some(&open) {
                    inline.pop();
                    module.pop();
                }
                open = open.saturating_sub(1);
            }
            start @ ("crate" | "super" | "self" | "aurum_cache") if word(at + 1) == "::" => {
                let inside = at > 0 && word(at - 1) == "::";
                let visibility = at > 1 && word(at - 1) == "in" && word(at - 2) == "(";
                if inside || visibility {
                    continue;
                }
                let base = match start {
                    "crate" | "aurum_cache" => Vec::new(),
                    "self" => module.clone(),
                    _ => module[..module.len().saturating_sub(1)].to_vec(),
                };
                let mut paths = Vec::new();
                tree(&tokens, at + 2, base, &mut paths);
                found.extend(paths.into_iter().map(|path| Import { line: tokens[at].line, path }));
            }
            "tier" if word(at + 1) == "::" && TIERS.contains(&word(at + 2)) && (at == 0 || word(at - 1) != "::") => {
                found.push(Import { line: tokens[at].line, path: vec!["tier".to_owned(), word(at + 2).to_owned()] });
            }
            _ => {}
        }
    }
    found
}

/// Reads one path, or the tree of a `use`, from `at` on; returns where it ends.
fn tree(tokens: &[Token], mut at: usize, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    loop {
        match tokens.get(at).map(|token| token.text.as_str()) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.text != "}") {
                    let end = tree(tokens, at, path.clone(), found);
                    let skips = |token: &Token| token.text != "," && token.text != "}";
                    at = end + tokens[end.min(tokens.len())..].iter().take_while(|token| skips(token)).count();
                    at += usize::from(tokens.get(at).is_some_and(|token| token.text == ","));
                }
                return at + 1;
            }
            Some("super") => {
                path.pop();
            }
            Some("self") => {}
            Some(step) if step.starts_with(|first: char| first.is_alphanumeric() || first == '_') => path.push(step.to_owned()),
            _ => break,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
    }
    found.push(path);
    at
}

/// One circle in the graph of rooms, if there is any.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn walk<'a>(
        room: &'a str,
        edges: &'a BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| *seen == room) {
            return Some(path[start..].iter().chain([&room]).map(|room| (*room).to_owned()).collect());
        }
        if !done.insert(room) {
            return None;
        }
        path.push(room);
        let found = edges.get(room).into_iter().flatten().find_map(|next| walk(next, edges, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|room| walk(room, edges, &mut Vec::new(), &mut done))
}

fn machine_path(line: &str) -> Option<&'static str> {
    MACHINE_PATHS.into_iter().find(|path| line.contains(path))
}
