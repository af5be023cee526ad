//! A real `redis-server` of its own for a test: on a free port of this machine, without
//! persistence, in a folder that goes away with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, now};

/// A running server; killed when dropped.
pub struct RedisServer {
    port: u16,
    folder: tempfile::TempDir,
    /// What it is started with beyond the usual.
    arguments: Vec<String>,
    /// None after `kill`.
    process: Option<Child>,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    ///
    /// Where there is no `redis-server`: these tests are about a real one, and skipping them would look like passing.
    pub fn start() -> Self {
        Self::start_with(Vec::new)
    }

    /// The same with more arguments, made anew for each attempt because there may be a port in them.
    pub fn start_with(arguments: impl Fn() -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder for redis-server");
        let mut server = Self { port: 0, folder, arguments: Vec::new(), process: None };
        for _ in 0..10 {
            server.port = free_port();
            server.arguments = arguments();
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server did not start on any of ten free ports");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server as a crash does: SIGKILL, no goodbye. What it held is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a killed server again on the same port, empty.
    pub fn restart(&mut self) {
        self.kill();
        let end = now() + PATIENCE;
        while !self.launch() {
            assert!(now() < end, "redis-server does not come back on port {}", self.port);
        }
    }

    /// Stops it without closing a connection (SIGSTOP): it takes bytes and never answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// One command over a fresh connection, as text: for a look past the cache.
    pub fn ask(&self, words: &[&str]) -> String {
        ask(self.port, words).unwrap_or_else(|e| panic!("redis-server on port {}: {e}", self.port))
    }

    /// How many keys the server holds.
    pub fn keys(&self) -> u64 {
        let answer = self.ask(&["DBSIZE"]);
        answer.trim().trim_start_matches(':').parse().unwrap_or_else(|_| panic!("DBSIZE answered {answer:?}"))
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            kill_process(Pid::from_child(process), signal).expect("a signal to our own redis-server");
        }
    }

    /// Starts the process; false if it ended again, as it does when its port is taken.
    fn launch(&mut self) -> bool {
        let log = std::fs::File::create(self.folder.path().join("log")).expect("the log of redis-server");
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.folder.path()).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(e) => panic!(
                "these tests need a real `redis-server` on the PATH and there is none ({e}); \
                 install it (Debian, Ubuntu: apt-get install redis-server) or run the test command of the README"
            ),
        };
        let end = now() + PATIENCE;
        while !ask(self.port, &["PING"]).is_ok_and(|answer| answer.starts_with("+PONG")) {
            let ended = process.try_wait().ok().flatten().is_some();
            if ended || now() > end {
                let _ = process.kill();
                let _ = process.wait();
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.process = Some(process);
        true
    }
}

/// A port that is free when we ask; another process may take it before the server does.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port on 127.0.0.1").port()
}

/// Three primaries of one Cluster, without replicas; what is left of it serves while one is away.
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the servers, gives each a third of the slots, and waits until all agree.
    pub fn start() -> Self {
        let arguments = || {
            let bus = free_port().to_string();
            let settings = [
                ("--cluster-enabled", "yes"),
                ("--cluster-config-file", "nodes.conf"),
                ("--cluster-require-full-coverage", "no"),
                ("--cluster-port", bus.as_str()),
            ];
            settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
        };
        let cluster = Self { nodes: (0..3).map(|_| RedisServer::start_with(arguments)).collect() };
        for (node, (first, last)) in cluster.nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            assert!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]).starts_with("+OK"));
            let bus = node.arguments.last().expect("the port of the bus");
            cluster.nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus]);
        }
        let end = now() + PATIENCE;
        let is_whole = |node: &RedisServer| {
            let info = node.ask(&["CLUSTER", "INFO"]);
            ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3"].iter().all(|fact| info.contains(fact))
        };
        while !cluster.nodes.iter().all(is_whole) {
            assert!(now() < end, "the cluster does not come together");
            std::thread::sleep(Duration::from_millis(10));
        }
        cluster
    }

    /// The URLs of two nodes; they know the third.
    pub fn url(&self) -> String {
        format!("{}, {}", self.nodes[0].url(), self.nodes[1].url())
    }

    /// Which node has the slot of a key.
    pub fn owner(&self, name: &str) -> usize {
        let slot: usize =
            self.nodes[0].ask(&["CLUSTER", "KEYSLOT", name]).trim().trim_start_matches(':').parse().expect("a slot");
        slot / 5461
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.resume(); // a stopped process also dies of SIGKILL, but its log closes properly
        self.kill();
    }
}

fn ask(port: u16, words: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(command.as_bytes())?;
    let mut answer = vec![0; 64 << 10];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
