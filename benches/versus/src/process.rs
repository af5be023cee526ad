//! This process as the system sees it, and copies of it that are measured by themselves.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Resident bytes now, and the most there ever were.
pub fn resident() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc/self/status");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") * 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Runs this program again with other arguments, and returns the JSON it prints: memory is then its own, and clean at the start.
///
/// # Panics
///
/// If the child fails.
pub fn child(arguments: &[&str]) -> Value {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output().expect("a child process");
    assert!(output.status.success(), "{arguments:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("the child prints JSON")
}
