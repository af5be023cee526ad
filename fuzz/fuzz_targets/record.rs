//! Do bytes from the log between nodes, from the ledger or from a kept cursor ever become a panic, or a record that does not survive its way
//! out and in?
//!
//! `cargo +nightly fuzz run record fuzz/seeds/record -- -max_total_time=30`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| aurum_cache::fuzz_bridge::record(input));
