//! Child processes that can be killed: the test program starts itself again with a role.
//!
//! A file that needs children has one test, `child`, which returns at once unless a role is
//! set, and then plays it. Parent and child speak in lines: what the child says with [`say`] the
//! parent reads with [`Child::hear`]. A line that was said is heard even if the child is killed
//! right after.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::PATIENCE;

const ROLE: &str = "AURUM_TEST_ROLE";
const MARK: &str = "@@ ";

/// The role of this process, if it is a child.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// What the parent passed under `name`.
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the parent did not pass {name}"))
}

/// Says a line to the parent.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone; then nobody needs to hear.
    let _ = writeln!(out, "\n{MARK}{line}").and_then(|()| out.flush());
}

/// Waits to be killed.
pub async fn linger() -> ! {
    loop {
        tokio::time::sleep(PATIENCE).await;
    }
}

/// May this machine's user have a mount namespace of his own? Says loudly if not.
pub fn can_unshare() -> bool {
    let can = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !can {
        let mut out = std::io::stderr().lock();
        let _ =
            writeln!(out, "\n!!! NOT TESTED: `unshare -rm` is not allowed here, so no file system can be mounted for a test\n");
    }
    can
}

/// The name of the test `child` of a file, as the test program knows it: the module's path without the program's own name.
fn test_of(module: &str) -> String {
    let (_, path) = module.split_once("::").expect("a module of the test program");
    format!("{path}::child")
}

/// A running child; killed when dropped.
pub struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
}

impl Child {
    /// Starts this test program again in `role` of the test file `module`, with `given` in its environment.
    pub fn play(module: &str, role: &str, given: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the path of this test"));
        command.args([&test_of(module), "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
        Self::start(command, role, given)
    }

    /// The same inside a mount namespace of its own, in which the child may mount what it likes.
    pub fn play_unshared(module: &str, role: &str, given: &[(&str, &str)], before: &str) -> Self {
        let exe = std::env::current_exe().expect("the path of this test");
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c"]);
        command.arg(format!("{before} && exec \"$0\" \"$1\" --exact --include-ignored --nocapture --test-threads=1"));
        command.arg(exe).arg(test_of(module));
        Self::start(command, role, given)
    }

    fn start(mut command: Command, role: &str, given: &[(&str, &str)]) -> Self {
        command.env(ROLE, role).envs(given.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().unwrap_or_else(|e| panic!("child {role}: {e}"));
        let out = process.stdout.take().expect("a piped stdout");
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if let Some(said) = line.strip_prefix(MARK) {
                    let _ = tell.send(said.to_owned());
                }
            }
        });
        Self { process, lines }
    }

    /// The next line the child says. Fails if it ends, or says nothing for a long time.
    pub fn hear(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("the child said nothing more: {e}"))
    }

    /// SIGKILL, as in a crash; returns what it had said and nobody had heard.
    pub fn kill(mut self) -> Vec<String> {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.lines.iter().collect()
    }

    /// Waits until it ends by itself; returns what it said. Fails unless it succeeded.
    pub fn finish(mut self) -> Vec<String> {
        let said: Vec<String> = self.lines.iter().collect();
        let status = self.process.wait().expect("the child's end");
        assert!(status.success(), "the child failed ({status}); it said {said:?}");
        said
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
