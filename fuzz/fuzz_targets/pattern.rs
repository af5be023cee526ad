//! Does the matcher answer as Redis' own algorithm, naively written, for every pattern that is accepted?
//!
//! The input is the pattern, a newline, and the key.
//!
//! `cargo +nightly fuzz run pattern fuzz/seeds/pattern -- -max_total_time=30`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    if let Some((pattern, key)) = input.split_once('\n') {
        aurum_cache::fuzz_bridge::pattern(pattern, key);
    }
});
