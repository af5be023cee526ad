//! `inspect`: what does the folder of a disk tier hold?
//!
//! Reads a closed folder and changes nothing in it: entries, bytes, ages and lives per namespace, the event log, and what is
//! damaged. With `--pattern` the keys themselves. What the folder's bytes mean is the library's business: `look` asks it and is
//! the one place that knows its words; the rest sums up and shows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aurum_cache::{Clock, FolderEntry, FolderReport, InvalidationEvent, Namespace};
use serde_json::{Value, json};

use crate::args::Inspect;
use crate::report::{self, Failure, Outcome, Output};

/// Keys and events shown in a table, the newest events first; `--json` has all of them.
const SHOWN: usize = 200;

pub(crate) fn run(ask: &Inspect, out: &Output) -> Outcome {
    refuse_what_is_no_folder(&ask.dir)?;
    report::say("reading the folder");
    let contents = Contents::look(ask)?;
    show(ask, &contents, out)?;
    out.object(&object(ask, &contents))
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

/// What a folder holds, as far as it was asked for, and its sums.
struct Contents {
    now: SystemTime,
    all: Row,
    namespaces: BTreeMap<String, Row>,
    folder: FolderReport,
}

impl Contents {
    fn look(ask: &Inspect) -> Outcome<Self> {
        let namespace = ask.namespace.as_deref().map(Namespace::parse).transpose()?;
        let folder = aurum_cache::inspect(&ask.dir)?;
        if folder.segments == 0 && folder.damaged == 0 && folder.events.is_empty() {
            let told = "holds no segment of a disk tier; name the folder that was given as disk.path";
            return Err(Failure::said(format!("disk folder {}: {told}", ask.dir.display())));
        }
        let folder = folder.only(namespace, ask.pattern.as_deref())?;
        let now = Clock::system().now();
        let (mut all, mut namespaces) = (Row::default(), BTreeMap::<String, Row>::new());
        for entry in &folder.entries {
            all.add(entry, now);
            match namespaces.get_mut(&entry.namespace) {
                Some(row) => row.add(entry, now),
                None => namespaces.entry(entry.namespace.clone()).or_default().add(entry, now),
            }
        }
        Ok(Self { now, all, namespaces, folder })
    }

    /// Which part of the files are live records.
    fn live_share(&self) -> f64 {
        report::ratio(self.folder.live_bytes, self.folder.file_bytes).min(1.0)
    }
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
    fn add(&mut self, held: &FolderEntry, now: SystemTime) {
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

fn show(ask: &Inspect, contents: &Contents, out: &Output) -> Outcome {
    if out.is_json() {
        return Ok(());
    }
    let mut table = report::table(["namespace", "entries", "bytes", "expired", "ages", "lives"]);
    for (name, row) in &contents.namespaces {
        table.add_row(row.cells(name));
    }
    table.add_row(contents.all.cells("all"));
    out.text(format_args!(
        "{}: {} in {} segments, {} of it live\n{table}",
        ask.dir.display(),
        report::bytes(contents.folder.file_bytes),
        report::count(contents.folder.segments),
        report::percent(contents.live_share()),
    ))?;
    if ask.pattern.is_some() {
        show_keys(&contents.folder.entries, contents.now, out)?;
    }
    show_events(&contents.folder.events, out)?;
    match contents.folder.damaged {
        0 => out.text("no damage found"),
        found => out.text(format_args!("{} damaged places; what stood there is a miss, the rest is whole", report::count(found))),
    }
}

fn show_keys(keys: &[FolderEntry], now: SystemTime, out: &Output) -> Outcome {
    let mut table = report::table(["key", "namespace", "bytes", "age", "lives for"]);
    for held in keys.iter().take(SHOWN) {
        let life = match held.expires.duration_since(now) {
            Ok(life) => report::span(life),
            Err(_) => "expired".to_owned(),
        };
        let age = report::span(now.duration_since(held.created).unwrap_or_default());
        table.add_row([held.key.escape_debug().to_string(), held.namespace.clone(), report::bytes(held.bytes), age, life]);
    }
    out.text(table)?;
    match keys.len().saturating_sub(SHOWN) {
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

fn object(ask: &Inspect, contents: &Contents) -> Value {
    let ms = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let key = |held: &FolderEntry| {
        let (created, expires) = (ms(held.created), ms(held.expires));
        json!({ "key": held.key, "namespace": held.namespace, "bytes": held.bytes, "created_ms": created, "expires_ms": expires })
    };
    json!({
        "dir": ask.dir.display().to_string(),
        "file_bytes": contents.folder.file_bytes,
        "live_bytes": contents.folder.live_bytes,
        "live_share": contents.live_share(),
        "segments": contents.folder.segments,
        "all": contents.all.object("all"),
        "namespaces": contents.namespaces.iter().map(|(name, row)| row.object(name)).collect::<Vec<_>>(),
        "keys": ask.pattern.as_ref().map(|_| contents.folder.entries.iter().map(key).collect::<Vec<_>>()),
        "events": serde_json::to_value(&contents.folder.events).unwrap_or(Value::Null),
        "damaged": contents.folder.damaged,
    })
}
