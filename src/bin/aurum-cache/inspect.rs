//! `inspect`: what does the folder of a disk tier hold?
//!
//! Reads a closed folder and changes nothing in it: entries, bytes, ages and lives per namespace, the event log, and what is
//! damaged. With `--pattern` the keys themselves. What the folder's bytes mean is the library's business: `look` asks it and is
//! the one place that knows its words; the rest sums up and shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aurum_cache::{Clock, InvalidationEvent, Namespace};
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::report::{self, Failure, Outcome, Output};

/// Keys and events shown in a table; `--json` has all of them.
const SHOWN: usize = 200;

pub(crate) async fn run(ask: &Inspect, out: &Output) -> Outcome {
    if let Some(namespace) = &ask.namespace {
        Namespace::parse(namespace)?;
    }
    refuse_what_is_no_folder(&ask.dir)?;
    report::say("reading the folder");
    let contents = look(ask)?;
    let summary = Summary::of(&contents, Clock::system().now());
    show(ask, &contents, &summary, out)?;
    out.object(&object(ask, &contents, &summary))
}

fn refuse_what_is_no_folder(dir: &Path) -> Outcome {
    let told = match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(false) => return Ok(()),
        Ok(true) => "is empty; name the folder of a disk tier".to_owned(),
        Err(cause) => match cause.kind() {
            std::io::ErrorKind::NotFound => "does not exist; correct the path".to_owned(),
            std::io::ErrorKind::NotADirectory => "is a file; name the folder it is in".to_owned(),
            _ => format!("cannot be read ({cause})"),
        },
    };
    Err(Failure::said(format!("disk folder {}: {told}", dir.display())))
}

/// What a folder holds, as far as it was asked for.
struct Contents {
    entries: Vec<Held>,
    segments: u64,
    /// Of all files.
    file_bytes: u64,
    /// Of records that are still an entry.
    live_bytes: u64,
    /// Oldest first.
    events: Vec<InvalidationEvent>,
    /// One sentence each.
    damage: Vec<String>,
}

/// One live entry.
struct Held {
    namespace: String,
    key: String,
    bytes: u64,
    created: SystemTime,
    expires: SystemTime,
}

fn look(ask: &Inspect) -> Outcome<Contents> {
    let namespace = ask.namespace.as_deref().map(Namespace::parse).transpose()?;
    let found = aurum_cache::inspect(&ask.dir)?.only(namespace, ask.pattern.as_deref())?;
    let held = |entry: aurum_cache::FolderEntry| Held {
        namespace: entry.namespace,
        key: entry.key,
        bytes: entry.bytes,
        created: entry.created,
        expires: entry.expires,
    };
    let damage = match found.damaged {
        0 => Vec::new(),
        places => vec![format!("{places} damaged places; what they held is lost, the rest is whole")],
    };
    Ok(Contents {
        entries: found.entries.into_iter().map(held).collect(),
        segments: found.segments,
        file_bytes: found.file_bytes,
        live_bytes: found.live_bytes,
        events: found.events,
        damage,
    })
}

/// One namespace, or all.
#[derive(Clone, Default)]
struct Row {
    entries: u64,
    bytes: u64,
    expired: u64,
    youngest: Option<Duration>,
    oldest: Option<Duration>,
    /// Among those that live: who dies first, who last.
    shortest: Option<Duration>,
    longest: Option<Duration>,
}

impl Row {
    fn add(&mut self, held: &Held, now: SystemTime) {
        let age = now.duration_since(held.created).unwrap_or_default();
        self.entries += 1;
        self.bytes += held.bytes;
        self.youngest = Some(self.youngest.map_or(age, |known| known.min(age)));
        self.oldest = Some(self.oldest.map_or(age, |known| known.max(age)));
        match held.expires.duration_since(now) {
            Ok(life) if !life.is_zero() => {
                self.shortest = Some(self.shortest.map_or(life, |known| known.min(life)));
                self.longest = Some(self.longest.map_or(life, |known| known.max(life)));
            }
            _ => self.expired += 1,
        }
    }

    fn cells(&self, name: &str) -> [String; 6] {
        let range = |from: Option<Duration>, to: Option<Duration>| match (from, to) {
            (Some(from), Some(to)) => format!("{} .. {}", report::span(from), report::span(to)),
            _ => "-".to_owned(),
        };
        [
            name.to_owned(),
            report::count(self.entries),
            report::bytes(self.bytes),
            report::count(self.expired),
            range(self.youngest, self.oldest),
            range(self.shortest, self.longest),
        ]
    }

    fn object(&self, name: &str) -> Value {
        let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
        json!({
            "namespace": name,
            "entries": self.entries,
            "bytes": self.bytes,
            "expired": self.expired,
            "youngest_ms": ms(self.youngest),
            "oldest_ms": ms(self.oldest),
            "shortest_life_ms": ms(self.shortest),
            "longest_life_ms": ms(self.longest),
        })
    }
}

struct Summary {
    now: SystemTime,
    all: Row,
    namespaces: BTreeMap<String, Row>,
}

impl Summary {
    fn of(contents: &Contents, now: SystemTime) -> Self {
        let mut summary = Self { now, all: Row::default(), namespaces: BTreeMap::new() };
        for held in &contents.entries {
            summary.all.add(held, now);
            summary.namespaces.entry(held.namespace.clone()).or_default().add(held, now);
        }
        summary
    }
}

fn live_share(contents: &Contents) -> f64 {
    report::ratio(contents.live_bytes, contents.file_bytes).min(1.0)
}

fn show(ask: &Inspect, contents: &Contents, summary: &Summary, out: &Output) -> Outcome {
    if out.is_json() {
        return Ok(());
    }
    let mut table = report::table(["namespace", "entries", "bytes", "expired", "ages", "lives"]);
    for (name, row) in &summary.namespaces {
        table.add_row(row.cells(name));
    }
    table.add_row(summary.all.cells("all"));
    out.text(format_args!(
        "{}: {} in {} segments, {} of it live\n{table}",
        ask.dir.display(),
        report::bytes(contents.file_bytes),
        report::count(contents.segments),
        report::percent(live_share(contents)),
    ))?;
    if ask.pattern.is_some() {
        show_keys(contents, summary.now, out)?;
    }
    show_events(&contents.events, out)?;
    match contents.damage.len() {
        0 => out.text("no damage found"),
        found => {
            out.text(format_args!("{found} damaged places; what stood there is a miss, the rest is whole:"))?;
            contents.damage.iter().take(SHOWN).try_for_each(|damage| out.text(format_args!("  {damage}")))
        }
    }
}

fn show_keys(contents: &Contents, now: SystemTime, out: &Output) -> Outcome {
    let mut table = report::table(["key", "namespace", "bytes", "age", "lives for"]);
    for held in contents.entries.iter().take(SHOWN) {
        let life = match held.expires.duration_since(now) {
            Ok(life) => report::span(life),
            Err(_) => "expired".to_owned(),
        };
        let age = report::span(now.duration_since(held.created).unwrap_or_default());
        table.add_row([held.key.escape_debug().to_string(), held.namespace.clone(), report::bytes(held.bytes), age, life]);
    }
    out.text(table)?;
    match contents.entries.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => out.text(format_args!("and {} more; --json has all of them", report::count(more as u64))),
    }
}

fn show_events(events: &[InvalidationEvent], out: &Output) -> Outcome {
    if events.is_empty() {
        return out.text("the event log is empty");
    }
    let mut table = report::text_table(["invalidated at", "what", "namespace", "reason", "triggered by", "keys"]);
    for event in events.iter().rev().take(SHOWN) {
        table.add_row([
            humantime::format_rfc3339_seconds(event.at).to_string(),
            format!("{:?}", event.scope),
            event.namespace.clone().unwrap_or_default(),
            event.reason.clone().unwrap_or_default(),
            event.triggered_by.clone().unwrap_or_default(),
            report::count(event.count),
        ]);
    }
    out.text(table)
}

fn object(ask: &Inspect, contents: &Contents, summary: &Summary) -> Value {
    let ms = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let key = |held: &Held| {
        let (created, expires) = (ms(held.created), ms(held.expires));
        json!({ "key": held.key, "namespace": held.namespace, "bytes": held.bytes, "created_ms": created, "expires_ms": expires })
    };
    json!({
        "dir": ask.dir.display().to_string(),
        "file_bytes": contents.file_bytes,
        "live_bytes": contents.live_bytes,
        "live_share": live_share(contents),
        "segments": contents.segments,
        "all": summary.all.object("all"),
        "namespaces": summary.namespaces.iter().map(|(name, row)| row.object(name)).collect::<Vec<_>>(),
        "keys": ask.pattern.as_ref().map(|_| contents.entries.iter().map(key).collect::<Vec<_>>()),
        "events": serde_json::to_value(&contents.events).unwrap_or(Value::Null),
        "damage": contents.damage,
    })
}
