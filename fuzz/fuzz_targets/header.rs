//! Do bytes from outside ever become an entry that is not what its header says, or a panic?
//!
//! The input is a header of 64 bytes and a payload. It is decoded as it is, and again with lengths and checksum put right, so that the
//! fuzzer gets past them to the times and the policy.
//!
//! `cargo +nightly fuzz run header fuzz/seeds/header -- -max_total_time=30`
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| aurum_cache::fuzz_bridge::header(input));
