//! Does a trace that is damaged ever become a panic, or more requests and keys than were asked for?
//!
//! The first byte picks the extension of the file, the rest is its content. The reader is the program's own, included as it stands.
//!
//! `cargo +nightly fuzz run trace fuzz/seeds/trace -- -max_total_time=30`
#![no_main]
#![allow(dead_code, unreachable_pub)] // the program uses more of it

#[path = "../../src/bin/aurum-cache/keys.rs"]
mod keys;
#[path = "../../src/bin/aurum-cache/trace/read.rs"]
mod read;

use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 10_000;

fuzz_target!(|input: &[u8]| {
    let Some((pick, mut content)) = input.split_first() else { return };
    let name = ["t.txt", "t.lis", "t.csv", "t.oracleGeneral.bin", "t.zst"][usize::from(*pick) % 5];
    let format = read::Format::of(name, content);
    match read::read(&mut content, format, Some(LIMIT)) {
        Ok((requests, keys)) => {
            assert!(requests.len() as u64 <= LIMIT && keys.len() <= requests.len());
            let mut seen = 0;
            for request in &requests {
                assert!(request.key <= seen, "keys are numbered by their first appearance");
                seen += u32::from(request.key == seen);
                assert!(!keys.text(request.key).is_empty());
            }
            assert_eq!(seen as usize, keys.len());
        }
        Err(told) => assert!(told.starts_with("line ") || told.starts_with("record "), "{told}"),
    }
});
