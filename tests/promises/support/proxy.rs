//! A network between a cache and its Redis that a test can spoil: slow, silent, cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A TCP proxy on 127.0.0.1. Ends with the test process; when dropped it cuts what it carries.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    target: u16,
    /// How long each piece of an answer is held back, in milliseconds.
    delay_ms: AtomicU64,
    /// Takes every byte and passes none on, without closing anything.
    swallow: AtomicBool,
    /// Put before the next piece of an answer, once.
    slip: Mutex<Vec<u8>>,
    /// Refuses new connections.
    cut: AtomicBool,
    /// Bytes that went either way.
    carried: AtomicU64,
    /// Both ends of what is connected now.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        let port = listener.local_addr().expect("the address of the proxy").port();
        let state = Arc::new(State {
            target,
            delay_ms: AtomicU64::new(0),
            swallow: AtomicBool::new(false),
            slip: Mutex::new(Vec::new()),
            cut: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.clone().carry(client);
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Holds back every piece of an answer for so long.
    pub fn delay(&self, by: Duration) {
        self.state.delay_ms.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// From now on every byte disappears, and no connection is closed.
    pub fn swallow(&self) {
        self.state.swallow.store(true, Ordering::SeqCst);
    }

    /// Puts these bytes before the next piece of an answer, as a server that loses count.
    pub fn slip(&self, bytes: &[u8]) {
        *self.state.slip.lock().expect("the proxy's bytes") = bytes.to_vec();
    }

    /// Closes every connection and accepts none.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        self.state.hang_up();
    }

    /// All is well again. What was swallowed stays lost, so those connections are closed.
    pub fn heal(&self) {
        self.state.delay_ms.store(0, Ordering::SeqCst);
        let swallowed = self.state.swallow.swap(false, Ordering::SeqCst);
        self.state.cut.store(false, Ordering::SeqCst);
        if swallowed {
            self.state.hang_up();
        }
    }

    /// Bytes that went through, both ways.
    pub fn carried(&self) -> u64 {
        self.state.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl State {
    fn carry(self: Arc<Self>, client: TcpStream) {
        if self.cut.load(Ordering::SeqCst) {
            return; // dropped: the client sees a closed connection
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { return };
        if let (Ok(a), Ok(b)) = (client.try_clone(), server.try_clone()) {
            self.open.lock().expect("the proxy's list").extend([a, b]);
        }
        let (up, down) = (self.clone(), self);
        std::thread::spawn(move || up.pump(client, server2, false));
        std::thread::spawn(move || down.pump(server, client2, true));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let delay = self.delay_ms.load(Ordering::SeqCst);
            if answers && delay > 0 {
                std::thread::sleep(Duration::from_millis(delay));
            }
            if self.swallow.load(Ordering::SeqCst) {
                continue;
            }
            let slip = if answers { std::mem::take(&mut *self.slip.lock().expect("the proxy's bytes")) } else { Vec::new() };
            if to.write_all(&slip).and_then(|()| to.write_all(&buffer[..length])).is_err() {
                break;
            }
            self.carried.fetch_add(length as u64, Ordering::SeqCst);
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    fn hang_up(&self) {
        for stream in self.open.lock().expect("the proxy's list").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
