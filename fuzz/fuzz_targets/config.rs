//! Do settings ever panic, pass without being valid, or change on their way out and in? Is an error always about a setting?
//!
//! The input is the text of a settings file.
//!
//! `cargo +nightly fuzz run config fuzz/seeds/config -- -max_total_time=30`
#![no_main]

use aurum_cache::{CacheConfig, ErrorKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match CacheConfig::from_toml_str(text) {
    Ok(config) => {
        assert!(config.validate().is_ok(), "read, but not valid: {config:?}");
        // A URL is written without its password, so settings with one are compared by what they show.
        let json = serde_json::to_string(&config).expect("settings are plain data");
        let again: CacheConfig = serde_json::from_str(&json).expect("what was written is read");
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }
    Err(error) => {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(!error.subject().is_empty(), "{error}");
    }
});
