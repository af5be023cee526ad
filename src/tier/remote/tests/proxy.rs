//! Stands before the server, and does to the first connection what a network may do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::server::Server;
use crate::tier::remote::RedisUrl;

/// What becomes of the first connection. All later ones pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// What is sent is kept back.
    HoldRequests,
    /// What is answered is kept back.
    HoldAnswers,
    /// The connection breaks, and what was kept back is lost.
    Cut,
}

/// Its threads end with the connections.
pub(super) struct Proxy {
    url: RedisUrl,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    pub(super) fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = RedisUrl::parse(&format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port())).unwrap();
        let mode = Arc::new(AtomicU8::new(Mode::Pass as u8));
        let (shared, target) = (mode.clone(), server.url().to_string().replace("redis://", ""));
        std::thread::spawn(move || {
            for (n, client) in listener.incoming().enumerate() {
                let (Ok(client), Ok(upstream)) = (client, TcpStream::connect(&target)) else { return };
                let mode = if n == 0 { shared.clone() } else { Arc::default() };
                let way = |from: &TcpStream, to: &TcpStream, held: Mode| {
                    let (from, to, mode) = (from.try_clone().unwrap(), to.try_clone().unwrap(), mode.clone());
                    std::thread::spawn(move || forward(from, to, held as u8, &mode));
                };
                way(&client, &upstream, Mode::HoldRequests);
                way(&upstream, &client, Mode::HoldAnswers);
            }
        });
        Self { url, mode }
    }

    pub(super) fn url(&self) -> RedisUrl {
        self.url.clone()
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, held: u8, mode: &AtomicU8) {
    let mode = || mode.load(Ordering::SeqCst);
    let mut buffer = [0; 65_536];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        while mode() == held {
            std::thread::sleep(Duration::from_millis(1));
        }
        if mode() == Mode::Cut as u8 || to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
