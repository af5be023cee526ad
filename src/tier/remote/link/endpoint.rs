//! Where to connect, and how: the URLs, TLS, the greeting, one round trip.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline};

use super::cluster::{self, Cluster};
use super::resolve::Resolver;
use super::script::{DIGESTS, SCRIPTS};
use super::{Answer, Batch, Exchange, Fault, Fences, Link, OF_A_CLUSTER, redacted, unfit};
use crate::error::{Error, ErrorKind};
use crate::tier::remote::config::RedisUrl;

/// The server, or several nodes of a Cluster, as the settings name them.
pub(in crate::tier::remote) struct Endpoint {
    servers: Vec<ConnectionInfo>,
    urls: Vec<RedisUrl>,
    /// How this tier's connections are named at the server.
    name: String,
}

impl Endpoint {
    /// Checks the URLs once more, with the crate's own eyes. `ca`, in PEM, is whom to trust with `rediss`; without it the usual authorities are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`], without the password.
    pub(in crate::tier::remote) fn new(urls: &[RedisUrl], ca: Option<&[u8]>) -> Result<Self, Error> {
        let servers = urls.iter().map(|url| server(url, urls, ca)).collect::<Result<_, _>>()?;
        Ok(Self { servers, urls: urls.to_vec(), name: format!("aurum-{:016x}", fastrand::u64(..)) })
    }

    pub(in crate::tier::remote) fn is_cluster(&self) -> bool {
        self.servers.len() > 1
    }

    /// A new link with the scripts loaded, within `within` a server. `fences` are of the one it replaces.
    pub(in crate::tier::remote) async fn connect(self: &Arc<Self>, within: Duration, fences: &Fences) -> Result<Link, Fault> {
        if self.is_cluster() {
            return Ok(Link::Cluster(Box::new(Cluster::connect(self, within, fences).await?)));
        }
        let Some(server) = self.servers.first() else { return Err(Fault::Broken("has no address".to_owned())) };
        Ok(Link::One(self.wire(server, within, fences.first().map(|(_, id)| *id)).await?))
    }

    /// A link to the one server that has this key.
    pub(in crate::tier::remote) async fn connect_to(self: &Arc<Self>, key: &str, within: Duration) -> Result<Link, Fault> {
        if !self.is_cluster() {
            return self.connect(within, &Fences::new()).await;
        }
        let ranges = cluster::ranges(self, Vec::new(), within).await?;
        let owner = cluster::owner(&ranges, key.as_bytes());
        let Some((host, port)) = owner else { return Err(Fault::Broken("has no primary for the log".to_owned())) };
        Ok(Link::One(self.wire(&self.at(host, *port), within, None).await?))
    }

    /// One round trip a server: sends the commands, waits for all answers.
    pub(in crate::tier::remote) async fn run(
        &self,
        link: &mut Link,
        batch: Batch,
        within: Duration,
    ) -> Result<Vec<Answer>, Fault> {
        match link {
            _ if batch.len == 0 => Ok(Vec::new()),
            Link::One(wire) => self.exchange(wire, batch.pipe, batch.len, within).await,
            Link::Cluster(cluster) => cluster.run(batch, within).await,
        }
    }

    /// The same, going on by itself, so that others can be sent meanwhile; they are carried out in the order in which they were polled first.
    /// `None` with a Cluster.
    pub(in crate::tier::remote) fn send(self: &Arc<Self>, link: &Link, batch: Batch, within: Duration) -> Option<Exchange> {
        let Link::One(wire) = link else { return None };
        let (endpoint, mut wire) = (self.clone(), wire.clone());
        Some(Box::pin(async move { endpoint.exchange(&mut wire, batch.pipe, batch.len, within).await }))
    }

    /// The same with one of the primaries, whatever the keys are.
    pub(in crate::tier::remote) async fn run_on(
        &self,
        link: &mut Link,
        primary: usize,
        batch: Batch,
        within: Duration,
    ) -> Result<Vec<Answer>, Fault> {
        match link {
            _ if batch.len == 0 => Ok(Vec::new()),
            Link::One(wire) => self.exchange(wire, batch.pipe, batch.len, within).await,
            Link::Cluster(cluster) => cluster.run_on(primary, batch, within).await,
        }
    }

    /// After an answer that is [worth another try](Link::is_worth_another_try): loads the scripts again, looks where the slots are now.
    pub(in crate::tier::remote) async fn recover(&self, link: &mut Link, within: Duration) -> Result<(), Fault> {
        match link {
            Link::One(wire) => self.load_scripts(wire, within).await,
            Link::Cluster(cluster) => cluster.recover(within).await,
        }
    }

    /// A new connection to one server: greeted, the old one fenced off, the scripts loaded.
    pub(super) async fn wire(&self, server: &ConnectionInfo, within: Duration, fence: Option<i64>) -> Result<Wire, Fault> {
        let mut wire = self.bare(server, within).await?;
        let mut hello = Batch::default();
        hello.add("CLIENT", &[b"SETNAME", self.name.as_bytes()]);
        hello.add("CLIENT", &[b"ID"]);
        hello.add("ROLE", &[]);
        hello.add("CLUSTER", &[b"INFO"]);
        if let Some(old) = fence {
            hello.add("CLIENT", &[b"LIST", b"ID", old.to_string().as_bytes()]);
        }
        let answers = self.exchange(&mut wire, hello.pipe, hello.len, within).await?;
        if let Some(fault) = answers.iter().find_map(|answer| self.of_no_use(answer)) {
            return Err(fault);
        }
        if let Some(Answer::Int(id)) = answers.get(1) {
            wire.id = Some(*id);
        }
        // The id may be another's on another server: only a connection with our own random name is ours.
        let ours = |list: &[u8]| String::from_utf8_lossy(list).contains(&format!("name={} ", self.name));
        if let (Some(old), Some(Answer::Bytes(list))) = (fence, answers.last())
            && ours(list)
        {
            let mut kill = Batch::default();
            kill.add("CLIENT", &[b"KILL", b"ID", old.to_string().as_bytes()]);
            self.exchange(&mut wire, kill.pipe, kill.len, within).await?;
        }
        self.load_scripts(&mut wire, within).await?;
        Ok(wire)
    }

    /// A link that nothing was said on yet, also to a server that is of no use to a cache.
    #[cfg(test)]
    pub(in crate::tier::remote) async fn bare_link(&self, within: Duration) -> Result<Link, Fault> {
        Ok(Link::One(self.bare(&self.servers[0], within).await?))
    }

    /// A connection that nothing was said on yet.
    pub(super) async fn bare(&self, server: &ConnectionInfo, within: Duration) -> Result<Wire, Fault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(within))
            .set_response_timeout(None)
            .set_dns_resolver(Resolver);
        let client = redis::Client::open(server.clone()).map_err(|error| Fault::Broken(self.text_of(&error)))?;
        match tokio::time::timeout(within, client.get_multiplexed_async_connection_with_config(&config)).await {
            Ok(Ok(connection)) => Ok(Wire { connection, id: None }),
            Ok(Err(error)) if error.is_timeout() => Err(Fault::TimedOut),
            Ok(Err(error)) => Err(Fault::Broken(self.text_of(&error))),
            Err(_) => Err(Fault::TimedOut),
        }
    }

    /// Makes a server know the scripts (again).
    pub(super) async fn load_scripts(&self, wire: &mut Wire, within: Duration) -> Result<(), Fault> {
        let mut load = Batch::default();
        for (_, text) in SCRIPTS {
            load.add("SCRIPT", &[b"LOAD", text.as_bytes()]);
        }
        for (answer, digest) in self.exchange(wire, load.pipe, load.len, within).await?.into_iter().zip(DIGESTS.iter()) {
            match answer {
                Answer::Bytes(named) if named == digest.as_bytes() => {}
                Answer::Refused(code, text) => {
                    let text = redacted(&format!("{code} {text}"), &self.urls);
                    return Err(Fault::Broken(format!("refuses our scripts: {text}")));
                }
                _ => return Err(Fault::amiss()),
            }
        }
        Ok(())
    }

    /// One round trip with one server. Last comes a question that only this trip has: were there an answer too many or too few in the stream, all that
    /// follow would be another's.
    pub(super) async fn exchange(
        &self,
        wire: &mut Wire,
        mut pipe: Pipeline,
        len: usize,
        within: Duration,
    ) -> Result<Vec<Answer>, Fault> {
        // A transaction is one answer of its own shape.
        let seal = (!pipe.is_transaction()).then(|| format!("{:016x}", fastrand::u64(..)));
        let (offset, count) = match &seal {
            None => (len + 1, 1),
            Some(seal) => {
                pipe.cmd("PING").arg(seal);
                (0, len + 1)
            }
        };
        match tokio::time::timeout(within, wire.connection.req_packed_commands(&pipe, offset, count)).await {
            Ok(Ok(values)) if values.len() == count => {
                let mut answers: Vec<Answer> = values.into_iter().map(Answer::from).collect();
                let is_sealed = seal.is_none_or(|seal| answers.pop().is_some_and(|answer| answer.is_sealed(&seal)));
                if is_sealed { Ok(answers) } else { Err(Fault::amiss()) }
            }
            Ok(Ok(_)) => Err(Fault::amiss()),
            Ok(Err(error)) if error.is_timeout() => Err(Fault::TimedOut),
            Ok(Err(error)) => Err(Fault::Broken(self.text_of(&error))),
            Err(_) => Err(Fault::TimedOut),
        }
    }

    /// The nodes that the settings name.
    pub(super) fn servers(&self) -> &[ConnectionInfo] {
        &self.servers
    }

    /// A node of the Cluster: as the first one that the settings name, elsewhere.
    pub(super) fn at(&self, host: &str, port: u16) -> ConnectionInfo {
        let first = self.servers[0].clone();
        let addr = match first.addr() {
            ConnectionAddr::TcpTls { tls_params, .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        first.set_addr(addr)
    }

    /// Does an answer to the greeting say that this server cannot take part? Being refused one of its questions says nothing.
    fn of_no_use(&self, answer: &Answer) -> Option<Fault> {
        let broken = |text: &str| Some(Fault::Broken(text.to_owned()));
        match answer {
            Answer::List(role) if role.first().and_then(Answer::bytes) == Some(b"slave") => {
                broken("is a replica, which takes no writes; redis.url must name the primary")
            }
            Answer::Bytes(info) if info.starts_with(b"cluster_") && !self.is_cluster() => broken(OF_A_CLUSTER),
            Answer::Bytes(info) if info.starts_with(b"cluster_") && !info.starts_with(b"cluster_state:ok") => {
                broken("refuses: CLUSTERDOWN the state of the cluster is not ok")
            }
            Answer::Refused(..) => unfit(answer),
            _ => None,
        }
    }

    fn text_of(&self, error: &redis::RedisError) -> String {
        let text = redacted(&error.to_string(), &self.urls);
        let advice = match text.as_str() {
            _ if !self.urls.iter().any(RedisUrl::is_tls) => "",
            text if text.contains("UnknownIssuer") => "; set redis.ca_file to the authority that signed the server's certificate",
            text if text.contains("not valid for name") => "; the URL must name the server as its certificate does",
            text if text.contains("corrupt message") || text.contains("InvalidContentType") => "; the server speaks no TLS there",
            _ => "",
        };
        text + advice
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_cluster() { "redis cluster" } else { "redis" })?;
        self.urls.iter().enumerate().try_for_each(|(at, url)| write!(f, "{} {url}", if at == 0 { "" } else { "," }))
    }
}

/// A connection to one server. Dropping all of its clones closes it.
#[derive(Clone)]
pub(in crate::tier::remote) struct Wire {
    pub(super) connection: MultiplexedConnection,
    /// Its client id at the server, for the fence.
    pub(super) id: Option<i64>,
}

/// What the crate makes of a URL.
fn server(url: &RedisUrl, urls: &[RedisUrl], ca: Option<&[u8]>) -> Result<ConnectionInfo, Error> {
    let refuse = |error: redis::RedisError| {
        let advice = format!("is refused: {}", redacted(&error.to_string(), urls));
        Error::new(ErrorKind::Config, "redis.url", advice)
    };
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(1));
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(Duration::from_secs(4));
    let info = url.secret().into_connection_info().map_err(refuse)?.set_tcp_settings(tcp);
    if url.is_tls() { trusting(info, ca) } else { redis::Client::open(info.clone()).map_err(refuse).map(|_| info) }
}

/// With TLS, trusting these authorities, or the usual ones.
#[cfg(feature = "tls")]
fn trusting(info: ConnectionInfo, ca: Option<&[u8]>) -> Result<ConnectionInfo, Error> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    // Fails if the host installed a provider of its own, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let refuse = |why: String| Error::config("redis.ca_file", format!("{why}; it must hold certificates in PEM"));
    if let Some(ca) = ca {
        match CertificateDer::pem_slice_iter(ca).collect::<Result<Vec<_>, _>>() {
            Ok(found) if found.is_empty() => return Err(refuse("holds no certificate".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(refuse(format!("cannot be read ({error})"))),
        }
    }
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: ca.map(<[u8]>::to_vec) };
    let client = redis::Client::build_with_tls(info, certificates).map_err(|error| refuse(format!("is refused ({error})")))?;
    Ok(client.get_connection_info().clone())
}

#[cfg(not(feature = "tls"))]
fn trusting(_info: ConnectionInfo, _ca: Option<&[u8]>) -> Result<ConnectionInfo, Error> {
    Err(Error::config("redis.url", "asks for TLS, which this build does not have; switch on the feature `tls`"))
}
