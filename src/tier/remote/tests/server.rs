//! A real server for one test: on a free loopback port, in a folder of its own, gone when dropped.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::Clock;
use crate::tier::remote::RedisUrl;
use crate::tier::remote::link::{Answer, Batch, Endpoint};

pub(super) struct Server {
    port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
    is_cluster: bool,
}

impl Server {
    /// Starts one. Panics if there is no `redis-server`: a test that cannot test fails.
    pub(super) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { port, dir: tempfile::tempdir().unwrap(), child: None, is_cluster: false };
        server.run();
        server
    }

    /// One that is a Cluster by itself: it has all slots.
    pub(super) async fn start_cluster() -> Self {
        let mut server = Self::start();
        server.kill();
        server.is_cluster = true;
        server.run();
        assert_ne!(server.say("CLUSTER", &["ADDSLOTSRANGE", "0", "16383"]).await, Answer::Nil);
        let is_ok = async || matches!(server.say("CLUSTER", &["INFO"]).await, Answer::Bytes(info) if info.starts_with(b"cluster_state:ok"));
        super::until("the cluster is ready", is_ok).await;
        server
    }

    /// Starts it again after [`kill`](Self::kill), empty.
    pub(super) fn run(&mut self) {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &self.port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--daemonize",
                "no",
            ])
            .arg("--dir")
            .arg(self.dir.path())
            .args(self.cluster_arguments())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need a redis-server");
        self.child = Some(child);
        let since = Clock::stopwatch();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "redis-server does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn cluster_arguments(&self) -> Vec<String> {
        if !self.is_cluster {
            return Vec::new();
        }
        let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        ["--cluster-enabled", "yes", "--cluster-port", &bus].map(str::to_owned).to_vec()
    }

    /// What a node is told: its URL, twice if it is a Cluster.
    pub(super) fn urls(&self) -> Vec<RedisUrl> {
        vec![self.url(); if self.is_cluster { 2 } else { 1 }]
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        kill_process(pid, signal).unwrap();
    }

    pub(super) fn url(&self) -> RedisUrl {
        RedisUrl::parse(&format!("redis://127.0.0.1:{}", self.port)).unwrap()
    }

    /// Sends one command on a connection of its own.
    pub(super) async fn say(&self, name: &str, args: &[&str]) -> Answer {
        let endpoint = Endpoint::new(&[self.url()], None).unwrap();
        let mut link = endpoint.bare_link(Duration::from_secs(5)).await.unwrap();
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let mut batch = Batch::default();
        batch.add(name, &args);
        endpoint.run(&mut link, batch, Duration::from_secs(5)).await.unwrap().remove(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
