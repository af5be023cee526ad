//! A `redis-server` of our own, on a free loopback port and without persistence.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio, exit};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// It ends with this.
pub struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Started, and ready for connections. Where there is no `redis-server` the program ends, and says what to install.
    pub fn start() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn();
        let server = match process {
            Ok(process) => Self { process, port },
            Err(error) => {
                eprintln!("redis-server: {error}; install it so that it is on the PATH (Debian: apt-get install redis-server)");
                exit(2)
            }
        };
        for _ in 0..500 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server did not take connections on port {port} within five seconds");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on it takes bytes and answers nothing (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("a signal to our own redis-server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
