//! The program does what its help says: each verb answers, in tables and as one JSON object, and what is wrong with the
//! arguments or the files is one clear sentence and a status that is not zero.
#![cfg(feature = "cli")]

use crate::support;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The program in a folder of its own, with nothing of our environment that would be a setting.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aurum-cache"));
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AURUM_CACHE") {
            command.env_remove(name);
        }
    }
    command
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    program(folder.path()).args(arguments).output().expect("the program starts")
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// It went well, and stdout is one JSON object.
fn object(output: &Output) -> Value {
    assert!(output.status.success(), "{}\n{}", stdout(output), stderr(output));
    let value: Value = serde_json::from_str(&stdout(output)).unwrap_or_else(|cause| panic!("{cause}: {}", stdout(output)));
    assert!(value.is_object(), "{value}");
    value
}

/// It failed with one sentence that holds `expected`, said nothing on stdout, and neither panicked nor was killed.
fn complains(output: &Output, expected: &str) {
    let told = stderr(output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?} {told}", output.status);
    assert!(told.contains(expected), "no {expected:?} in {told:?}");
    assert!(!told.contains("panicked") && !told.contains("backtrace"), "{told}");
    assert_eq!(told.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{told}");
    assert_eq!(stdout(output), "");
}

/// 3 000 requests over 300 keys, the low ones much more often.
fn trace(folder: &TempDir) -> String {
    let mut state = 1u64;
    let mut text = String::new();
    for _ in 0..3_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = (state >> 33) % 300;
        text.push_str(&format!("key:{}\n", drawn * drawn / 300));
    }
    std::fs::write(folder.path().join("trace.txt"), text).expect("a trace");
    "trace.txt".to_owned()
}

#[test]
fn every_verb_has_help_on_stdout() {
    let folder = folder();
    for verb in ["demo", "replay", "tune", "inspect", "bench", "doctor"] {
        let output = run(&folder, &[verb, "--help"]);
        assert!(output.status.success());
        assert!(stdout(&output).contains("--json") && stdout(&output).contains("Usage: aurum-cache"), "{}", stdout(&output));
        assert_eq!(stderr(&output), "");
    }
    let version = run(&folder, &["--version"]);
    assert!(stdout(&version).starts_with("aurum-cache "));
    assert_eq!(run(&folder, &[]).status.code(), Some(2));
}

#[test]
fn wrong_arguments_are_one_sentence_and_status_two() {
    let folder = folder();
    for (arguments, expected) in [
        (&["replay", "x", "--memory", "lots"][..], "--memory"),
        (&["replay", "x", "--memory", "0"], "more than nothing"),
        (&["replay", "x", "--restart-at", "150%"], "--restart-at"),
        (&["replay", "x", "--restart-at", "nan"], "--restart-at"),
        (&["replay", "x", "--policy", "forever"], "--policy"),
        (&["replay", "x", "--limit", "0"], "--limit"),
        (&["replay", "x", "--wipe-disk"], "--restart-at"),
        (&["tune", "x", "--target-hit-ratio", "2"], "--target-hit-ratio"),
        (&["inspect"], "<DIR>"),
        (&["bench", "--entries", "1"], "--entries"),
        (&["dance"], "dance"),
    ] {
        let output = run(&folder, arguments);
        complains(&output, expected);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn a_missing_or_damaged_trace_is_named_with_its_line() {
    let folder = folder();
    std::fs::write(folder.path().join("bad.txt"), "a 1\nb 2\nc much\n").expect("a file");
    std::fs::write(folder.path().join("bad.lis"), "1 2\nfive\n").expect("a file");
    std::fs::write(folder.path().join("bad.oracleGeneral"), [7u8; 30]).expect("a file");
    std::fs::write(folder.path().join("empty.txt"), "").expect("a file");
    let mut packed = zstd::encode_all(&b"one\ntwo\n".repeat(5_000)[..], 1).expect("compressed");
    packed.truncate(packed.len() - 3);
    std::fs::write(folder.path().join("cut.tr.zst"), packed).expect("a file");
    for verb in ["replay", "tune"] {
        for (file, expected) in [
            ("absent.txt", "absent.txt: does not exist"),
            (".", "is a folder"),
            ("bad.txt", "bad.txt, line 3"),
            ("bad.lis", "bad.lis, line 2"),
            ("bad.oracleGeneral", "bad.oracleGeneral, record 2"),
            ("empty.txt", "empty.txt: holds no request"),
            ("cut.tr.zst", "cut.tr.zst, line "),
        ] {
            complains(&run(&folder, &[verb, file]), expected);
        }
    }
}

#[test]
fn the_demo_shows_each_step_as_it_should_be() {
    let folder = folder();
    let answer = object(&run(&folder, &["demo", "--json"]));
    assert_eq!(answer["ok"], true);
    let steps = answer["steps"].as_array().expect("steps");
    assert!(steps.len() >= 6 && steps.iter().all(|step| step["ok"] == true), "{steps:?}");
    assert!(answer["events"].as_array().is_some_and(|events| events.len() == 1), "{}", answer["events"]);
    assert_eq!(answer["events"][0]["reason"], "data_update");
    assert!(answer["analytics"]["hits"].as_u64().is_some_and(|hits| hits > 0));
}

#[test]
fn the_demo_in_words_ends_with_the_analytics() {
    let output = run(&folder(), &["demo"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for expected in ["1. writes", "reads from memory", "demotes to disk", "restart", "data_update", "curve_service", "analytics"]
    {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
}

#[test]
fn a_replay_counts_every_request_once_and_survives_its_restart() {
    let folder = folder();
    let trace = trace(&folder);
    let arguments =
        ["replay", &trace, "--memory", "4MiB", "--disk", "data", "--disk-capacity", "64MiB", "--restart-at", "50%", "--json"];
    let answer = object(&run(&folder, &arguments));
    assert_eq!(answer["requests"], 3_000);
    let phases = answer["phases"].as_array().expect("phases");
    assert_eq!(phases.len(), 2);
    for phase in phases {
        assert_eq!(phase["requests"], 1_500);
        let (hits, misses) = (phase["hits"].as_u64().unwrap_or(0), phase["misses"].as_u64().unwrap_or(0));
        assert_eq!(hits + misses, 1_500);
        assert_eq!(phase["wrong_values"], 0);
        assert_eq!(phase["refused"], 0);
    }
    assert_eq!(phases[0]["misses"], keys_in(&folder, 1_500), "without a restart each key is missed once");
    assert!(answer["restart"]["recovered_share"].as_f64().is_some_and(|share| share > 0.98), "{}", answer["restart"]);
}

/// How many distinct keys the first requests ask for.
fn keys_in(folder: &TempDir, requests: usize) -> usize {
    let text = std::fs::read_to_string(folder.path().join("trace.txt")).expect("the trace");
    text.lines().take(requests).collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn a_replay_without_disk_is_cold_after_the_restart() {
    let folder = folder();
    let trace = trace(&folder);
    let answer = object(&run(&folder, &["replay", &trace, "--restart-at", "50%", "--limit", "2000", "--json"]));
    assert_eq!(answer["requests"], 2_000);
    assert_eq!(answer["disk_bytes"], Value::Null);
    let text = std::fs::read_to_string(folder.path().join("trace.txt")).expect("the trace");
    let second: std::collections::HashSet<_> = text.lines().take(2_000).skip(1_000).collect();
    assert_eq!(answer["phases"][1]["misses"], second.len(), "each key is missed once more");
}

#[test]
fn the_control_of_a_replay_is_not_restarted() {
    let folder = folder();
    let trace = trace(&folder);
    let answer = object(&run(&folder, &["replay", &trace, "--restart-at", "50%", "--limit", "2000", "--control", "--json"]));
    let first_requests = keys_in(&folder, 2_000) - keys_in(&folder, 1_000);
    assert_eq!(answer["restart"]["control"], 1.0 - first_requests as f64 / 1_000.0, "only first requests are misses");
    let missed =
        answer["restart"]["after"].as_f64().is_some_and(|after| after < answer["restart"]["control"].as_f64().unwrap_or(0.0));
    assert!(missed, "without a disk the restart costs: {}", answer["restart"]);
}

#[test]
fn a_replay_is_warm_from_redis_when_the_folder_is_gone() {
    let folder = folder();
    let (trace, server) = (trace(&folder), support::redis::RedisServer::start());
    let url = server.url();
    let disk = ["--memory", "4MiB", "--disk", "data", "--disk-capacity", "64MiB"];
    let arguments = [&["replay", &trace, "--redis", &url, "--restart-at", "50%", "--wipe-disk", "--json"][..], &disk].concat();
    let answer = object(&run(&folder, &arguments));
    let (before, after) = (&answer["phases"][0], &answer["phases"][1]);
    assert_eq!(before["misses"], keys_in(&folder, 1_500));
    assert_eq!(after["misses"], answer["restart"]["first_requests_after"], "only keys never asked for before are missed");
    assert!(after["tiers"][2]["hits"].as_u64().is_some_and(|hits| hits > 0), "{after}");
    assert_eq!(answer["restart"]["wiped_disk"], true);
}

#[test]
fn a_replay_that_was_to_use_redis_does_not_go_on_without_it() {
    let folder = folder();
    let trace = trace(&folder);
    let output = run(&folder, &["replay", &trace, "--redis", "redis://:hunter2@127.0.0.1:1"]);
    complains(&output, "redis");
    assert!(!stderr(&output).contains("hunter2"));
}

#[test]
fn a_replay_wipes_no_folder_that_it_did_not_write() {
    let folder = folder();
    let trace = trace(&folder);
    std::fs::create_dir(folder.path().join("mine")).expect("a folder");
    std::fs::write(folder.path().join("mine/letter"), "dear").expect("a file");
    let output = run(&folder, &["replay", &trace, "--disk", "mine", "--restart-at", "0.5", "--wipe-disk"]);
    complains(&output, "holds files already");
    assert_eq!(std::fs::read_to_string(folder.path().join("mine/letter")).expect("still there"), "dear");
}

#[test]
fn tune_recommends_tiers_and_writes_its_page() {
    let folder = folder();
    let trace = trace(&folder);
    let answer = object(&run(&folder, &["tune", &trace, "--target-hit-ratio", "80%", "--report", "page.html", "--json"]));
    let highest = answer["highest_hit_ratio"].as_f64().expect("a ratio");
    assert!((highest - (1.0 - keys_in(&folder, 3_000) as f64 / 3_000.0)).abs() < 1e-9, "{highest}");
    assert_eq!(answer["reachable"], true);
    assert!(answer["recommendation"]["total_hit_ratio"].as_f64().is_some_and(|ratio| ratio >= 0.8));
    let curve = answer["curve"].as_array().expect("a curve");
    assert!(curve.windows(2).all(|pair| pair[0]["lru_hit_ratio"].as_f64() <= pair[1]["lru_hit_ratio"].as_f64()));
    let page = std::fs::read_to_string(folder.path().join("page.html")).expect("the page");
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.trim_end().ends_with("</html>"));
}

#[test]
fn a_page_that_cannot_be_written_is_named() {
    let folder = folder();
    let trace = trace(&folder);
    complains(&run(&folder, &["tune", &trace, "--report", "no/such/page.html"]), "no/such/page.html");
}

#[test]
fn inspect_sees_what_a_replay_left_and_refuses_what_is_no_disk_tier() {
    let folder = folder();
    let trace = trace(&folder);
    let fill = ["replay", &trace, "--disk", "data", "--policy", "persistent", "--json"];
    let keys = object(&run(&folder, &fill))["unique_keys"].as_u64().expect("keys");
    let answer = object(&run(&folder, &["inspect", "data", "--json"]));
    assert_eq!(answer["all"]["entries"], keys);
    assert_eq!(answer["namespaces"][0]["namespace"], "replay");
    assert_eq!(answer["damaged"], 0);
    let listed = object(&run(&folder, &["inspect", "data", "--namespace", "replay", "--pattern", "key:1?", "--json"]));
    let listed = listed["keys"].as_array().expect("keys");
    assert!(!listed.is_empty() && listed.len() <= 10, "{listed:?}");
    assert!(run(&folder, &["inspect", "data"]).status.success());

    complains(&run(&folder, &["inspect", "absent"]), "absent: does not exist");
    complains(&run(&folder, &["inspect", "trace.txt"]), "is a file");
    complains(&run(&folder, &["inspect", "data", "--namespace", "No Such Name"]), "namespace");
    std::fs::create_dir(folder.path().join("other")).expect("a folder");
    std::fs::write(folder.path().join("other/letter"), "dear").expect("a file");
    complains(&run(&folder, &["inspect", "other"]), "other");
}

#[test]
fn bench_measures_memory_and_disk() {
    let answer = object(&run(&folder(), &["bench", "--entries", "8000", "--json"]));
    let rows = answer["rows"].as_array().expect("rows");
    for tier in ["memory", "disk"] {
        assert!(rows.iter().any(|row| row["tier"] == tier), "{rows:?}");
    }
    for row in rows {
        assert!(
            row["ns_per_op"].as_u64().is_some_and(|ns| ns > 0) && row["latency"]["count"].as_u64().is_some_and(|n| n > 0),
            "{row}"
        );
    }
}

#[test]
fn the_doctor_is_content_with_an_embedded_cache_and_leaves_nothing_behind() {
    let folder = folder();
    std::fs::write(
        folder.path().join("good.toml"),
        "[memory]\ncapacity = \"16MiB\"\n[disk]\npath = \"data\"\ncapacity = \"64MiB\"\n",
    )
    .expect("settings");
    let answer = object(&run(&folder, &["doctor", "good.toml", "--json"]));
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(!folder.path().join("data").exists());
    assert!(run(&folder, &["doctor"]).status.success());
}

#[test]
fn the_doctor_names_what_is_wrong_and_fails() {
    let folder = folder();
    complains(&run(&folder, &["doctor", "absent.toml"]), "absent.toml: does not exist");
    let settings = [
        ("unknown.toml", "[memory]\ncapcity = \"16MiB\"\n", "capcity"),
        ("file.toml", "[disk]\npath = \"file.toml\"\ncapacity = \"64MiB\"\n", "is a file"),
        ("redis.toml", "[redis]\nurl = \"redis://:hunter2@127.0.0.1:1\"\n", "redis"),
    ];
    for (name, text, expected) in settings {
        std::fs::write(folder.path().join(name), text).expect("settings");
        let output = run(&folder, &["doctor", name, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", stderr(&output));
        let answer: Value = serde_json::from_str(&stdout(&output)).expect("one object");
        let wrong: Vec<&Value> =
            answer["checks"].as_array().into_iter().flatten().filter(|check| check["state"] == "wrong").collect();
        assert!(wrong.iter().any(|check| check.to_string().contains(expected)), "{name}: {answer}");
        assert!(wrong.iter().all(|check| check["fix"].as_str().is_some_and(|fix| !fix.is_empty())), "{name}: {answer}");
        assert!(!stdout(&output).contains("hunter2") && !stderr(&output).contains("hunter2"));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    for arguments in [&["tune", "--limit", "5000"][..], &["replay", "--help"]] {
        let mut child = program(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success() && !stderr(&output).contains("panicked"), "{:?} {}", output.status, stderr(&output));
    }
}
