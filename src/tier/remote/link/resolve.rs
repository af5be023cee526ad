//! The addresses of a host. The system's resolver waits, and tokio's pool for what waits panics when the system gives it no thread; so each question has
//! a thread of its own, and an error when there is none.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use redis::RedisFuture;
use redis::io::AsyncDNSResolver;
use tokio::sync::oneshot;

/// Questions of this process that may wait for an answer at once: a resolver may take minutes, and who asks gives up before.
const MOST_WAITING: usize = 16;

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// A question that waits for its answer.
struct Waiting;

impl Waiting {
    fn begin() -> Option<Self> {
        let one_more = |waiting: usize| (waiting < MOST_WAITING).then_some(waiting + 1);
        WAITING.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok().map(|_| Self)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) struct Resolver;

impl AsyncDNSResolver for Resolver {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move { Ok(Box::new(addresses(host, port).await?.into_iter()) as Box<_>) })
    }
}

async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let Some(waiting) = Waiting::begin() else {
        return Err(io::Error::other("the system's resolver does not answer: too many questions wait already"));
    };
    let (answer, answered) = oneshot::channel();
    let host = host.to_owned();
    let ask = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        drop(waiting);
        // Who asked may have given up.
        drop(answer.send(found));
    };
    let started = thread::Builder::new().name("aurum-resolve".into()).spawn(ask);
    // In other words: as the system says it ("try again") it would count as a timeout.
    started.map_err(|error| io::Error::other(format!("no thread to look the host up with ({error})")))?;
    answered.await.unwrap_or_else(|_| Err(io::Error::other("the resolver ended unexpectedly")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_has_addresses_and_an_address_is_one() {
        let named = addresses("localhost", 7).await.unwrap();
        assert!(!named.is_empty() && named.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{named:?}");
        for text in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(addresses(text, 7).await.unwrap(), [SocketAddr::new(text.parse().unwrap(), 7)]);
        }
        assert!(addresses("no.such.host.invalid", 7).await.is_err());
    }
}
