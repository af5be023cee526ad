//! Does the memory tier hold what was put last, say what leaves, and keep its invariants, whatever is done in whatever order?
//!
//! The input is operations of four bytes: put (with sizes, lives and grace), get, hold, let go, remove, wait and expire, change the
//! budget, sweep. Each is judged against a map, and `validate` runs after each.
//!
//! `cargo +nightly fuzz run memory fuzz/seeds/memory -- -max_total_time=30`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| aurum_cache::fuzz_bridge::memory(input));
