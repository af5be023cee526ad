//! What does an entry cost besides its key and value, and does the process keep to the budget?
//!
//! `cargo run --release --bin footprint`. Each cache is measured in a process of its own, filled with three times what it holds.
//! *Bytes an entry*: what the allocator was asked for and has not been given back, over the entries held, less key and value; beside
//! it the same from the resident set, which includes the allocator's own rounding. *Resident set*: growth of the process since before the
//! cache was opened, over the configured budget.

use std::alloc::System;

use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use versus::arguments::Options;
use versus::contenders::{Aurum, Contender, peers};
use versus::process::{child, resident};
use versus::report::{Bar, Row, say};
use versus::workload::{KEY_BYTES, Key, Kind, value};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HELP: &str = "footprint: bytes an entry over key and value, and the resident set over the budget";

const VALUE: usize = 128;
const BUDGET: u64 = 64 << 20;

fn main() {
    let mut given = Options::given(HELP);
    // One contender, measured in this process: its name, entries or budget in bytes, smallest and largest value.
    if let Some(child) = given.list::<String>("--child") {
        let number = |at: usize| child[at].parse().expect("a number");
        println!("{}", measure(&child[0], number(1), number(2), number(3)));
        return;
    }
    let (test, output) = (given.has("--test"), given.output());
    given.rest();
    let mut rows = Vec::new();
    for entries in if test { vec![10_000] } else { vec![100_000, 1_000_000] } {
        entry_rows(entries, &mut rows);
    }
    for (name, least, most) in [("128 B", 128, 128), ("1 KiB", 1024, 1024), ("4 KiB", 4096, 4096), ("128 B to 4 KiB", 128, 4096)]
    {
        budget_row(if test { BUDGET / 8 } else { BUDGET }, name, least, most, &mut rows);
    }
    output.print("Footprint", &["held", "detail"], &rows);
}

/// Bytes an entry, all caches.
fn entry_rows(entries: usize, rows: &mut Vec<Row>) {
    let budget = (entries * (KEY_BYTES + VALUE + 56)).max(1 << 20).to_string();
    let entries = entries.to_string();
    let sized = |name: &'static str| (name, if name == "aurum" { budget.clone() } else { entries.clone() });
    for (name, size) in ["aurum", "quick_cache", "moka", "foyer", "tinyufo"].map(sized) {
        say(&format!("{name}, {entries} entries"));
        let told = child(&["--child", &format!("{name},{size},{VALUE},{VALUE}")]);
        let held = told["entries"].as_f64().expect("entries");
        let over = |field: &str| told[field].as_f64().expect("bytes") / held - (KEY_BYTES + VALUE) as f64;
        rows.push(Row {
            name: format!("bytes an entry, {entries} entries: {name}"),
            figure: over("live"),
            bar: (name == "aurum").then_some(Bar::at_most(64.0, 52.0)),
            columns: vec![format!("{held}"), format!("{:.0} by resident set", over("grown"))],
            data: told,
        });
    }
}

/// The resident set over the budget, ours.
fn budget_row(budget: u64, name: &str, least: usize, most: usize, rows: &mut Vec<Row>) {
    say(&format!("resident set, values of {name}"));
    let told = child(&["--child", &format!("aurum,{budget},{least},{most}")]);
    let over = |field: &str| told[field].as_f64().expect("bytes") / budget as f64;
    rows.push(Row {
        name: format!("resident set over {} MiB, values of {name}", budget >> 20),
        figure: over("grown"),
        bar: Some(Bar::at_most(1.1, 1.05)),
        columns: vec![told["entries"].to_string(), format!("peak {:.3}, allocated {:.3}", over("peak"), over("live"))],
        data: told,
    });
}

/// In the child: fills the cache and weighs the process.
fn measure(name: &str, size: usize, least: usize, most: usize) -> Value {
    let value = value(most, 1);
    let mut random = fastrand::Rng::with_seed(5);
    let mean = (least + most) / 2;
    let fill = if name == "aurum" { 3 * size / (KEY_BYTES + mean) } else { 3 * size };
    let allocated = || {
        let stats = ALLOCATOR.stats();
        stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
    };
    let (live, (before, _)) = (allocated(), resident());
    let contender: Box<dyn Contender> = if name == "aurum" {
        Box::new(Aurum::new(size as u64))
    } else {
        peers(size).into_iter().find(|peer| peer.name() == name).expect("a peer of that name")
    };
    for number in 0..fill as u64 {
        contender.put(&Key::new(Kind::Stored, number), &value[..random.usize(least..=most)]);
    }
    contender.settle();
    let (after, peak) = resident();
    json!({
        "entries": contender.entries(),
        "live": allocated() - live,
        "grown": after - before,
        "peak": peak - before,
    })
}
