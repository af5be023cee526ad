//! Redis over TLS: a private authority is trusted where the settings name it, nobody else is, and what is wrong is said.

#![cfg(all(feature = "disk", feature = "redis", feature = "tls"))]

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::redis::{RedisServer, free_port};
use crate::support::{patient, put, read, settings, tier_of, tiers, until};
use aurum_cache::{Builder, Cache, ErrorKind, Namespace, Tier, TierState, TtlPolicy};

const NS: Namespace = Namespace::CURVES;

/// A server that speaks TLS on one port and plain on another, with a certificate of an authority of its own.
struct TlsServer {
    plain: RedisServer,
    /// The port with TLS.
    port: u16,
    /// The authority's certificate.
    ca: PathBuf,
    _folder: tempfile::TempDir,
}

impl TlsServer {
    /// Its certificate is for `name`, made by `shape`.
    fn start(name: &str, shape: impl FnOnce(&mut CertificateParams)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(path("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let authority = Issuer::new(params, key);
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        shape(&mut params);
        let key = KeyPair::generate().unwrap();
        std::fs::write(path("server.pem"), params.signed_by(&key, &authority).unwrap().pem()).unwrap();
        std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
        let port = std::cell::Cell::new(0);
        let plain = RedisServer::start_with(|| {
            port.set(free_port());
            let file = |file: &str| path(file).display().to_string();
            let arguments = [
                ("--tls-port", port.get().to_string()),
                ("--tls-cert-file", file("server.pem")),
                ("--tls-key-file", file("server.key")),
                ("--tls-ca-cert-file", file("ca.pem")),
                ("--tls-auth-clients", "no".to_owned()),
            ];
            arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
        });
        Self { plain, port: port.get(), ca: path("ca.pem"), _folder: folder }
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }
}

/// A cache whose Redis tier cannot come up works without it; gives the reason that health states, once `says` is in it.
async fn reason(builder: Builder, says: &str) -> String {
    let cache = builder.memory(8 << 20).open().await.expect("a cache without Redis is memory");
    put(&cache, NS, "k", "v", TtlPolicy::Long).await;
    assert_eq!(read(&cache, NS, "k").await.as_deref(), Some("v"));
    let mut reason = String::new();
    until(&format!("health says {says:?}"), async || {
        let health = tier_of(&cache.health().await, Tier::Redis);
        assert_ne!(health.state, TierState::Up);
        reason = health.reason.expect("why");
        reason.contains(says)
    })
    .await;
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_authority_in_the_settings_it_is_a_tier_like_any() {
    let server = TlsServer::start("127.0.0.1", |_| ());
    let open = async |name: &str| {
        let builder = patient().memory(8 << 20).redis(server.url()).redis_ca_file(&server.ca).node(name);
        builder.open().await.unwrap()
    };
    let (a, b) = (open("a").await, open("b").await);
    put(&a, NS, "k", "v", TtlPolicy::Long).await;
    assert!(tiers(&b, NS, "k").await.contains(&Tier::Redis));
    assert_eq!(read(&b, NS, "k").await.as_deref(), Some("v"));
    assert_eq!(a.invalidate_pattern(NS, "k*").await.unwrap().redis, 1);
    until("the other node hears of it", async || read(&b, NS, "k").await.is_none()).await;
    assert_eq!(tier_of(&a.health().await, Tier::Redis).state, TierState::Up);
    assert!(server.plain.keys() > 0, "it was this server");

    let text = format!("[redis]\nurl = \"{}\"\nca_file = \"{}\"\ntimeout = \"20s\"", server.url(), server.ca.display());
    let from_settings = Cache::open(settings(&text)).await.unwrap();
    put(&from_settings, NS, "k", "v", TtlPolicy::Long).await;
    assert!(tiers(&a, NS, "k").await.contains(&Tier::Redis));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_trusted_is_said_and_nothing_is_sent() {
    let server = TlsServer::start("127.0.0.1", |_| ());
    let with_password = server.url().replace("rediss://", "rediss://:hunter2@");
    let told = reason(patient().redis(with_password), "UnknownIssuer").await;
    assert!(told.contains("redis.ca_file") && !told.contains("hunter2"), "{told}");
    let stranger = TlsServer::start("127.0.0.1", |_| ());
    reason(patient().redis(server.url()).redis_ca_file(&stranger.ca), "invalid peer certificate").await;
    let elsewhere = TlsServer::start("cache.example", |_| ());
    let told = reason(patient().redis(elsewhere.url()).redis_ca_file(&elsewhere.ca), "not valid for name").await;
    assert!(told.contains("the URL must name the server"), "{told}");
    let over = TlsServer::start("127.0.0.1", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    reason(patient().redis(over.url()).redis_ca_file(&over.ca), "expired").await;
    for server in [server, elsewhere, over] {
        assert_eq!(server.plain.keys(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_way_around_encryption() {
    let server = TlsServer::start("127.0.0.1", |_| ());
    let quick = || Cache::builder().config(settings("[redis]\ntimeout = \"500ms\""));
    // TLS to a port that speaks none, and none to a port that wants it.
    let plain = server.plain.url().replace("redis://", "rediss://");
    reason(quick().redis(plain).redis_ca_file(&server.ca), "").await;
    reason(quick().redis(server.url().replace("rediss://", "redis://")), "").await;
    assert_eq!(server.plain.keys(), 0);
    let insecure = patient().redis(format!("{}/#insecure", server.url())).open().await;
    assert_eq!(insecure.err().map(|error| error.kind()), Some(ErrorKind::Config));
}

#[tokio::test]
async fn a_file_of_authorities_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let refused = async |url: &str, path: &Path| {
        let Err(error) = Cache::builder().redis(url).redis_ca_file(path).open().await else { panic!("{path:?} was taken") };
        assert_eq!((error.kind(), error.subject()), (ErrorKind::Config, "redis.ca_file"), "{error}");
        error.to_string()
    };
    let url = "rediss://127.0.0.1:1";
    assert!(refused(url, &folder.path().join("missing.pem")).await.contains("missing.pem"));
    refused(url, folder.path()).await;
    refused(url, &file("empty.pem", b"")).await;
    refused(url, &file("text.pem", b"no certificate")).await;
    let bad = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    refused(url, &file("bad.pem", bad)).await;
    refused(url, &file("cut.pem", b"-----BEGIN CERTIFICATE-----\nMIIB")).await;
    refused(url, &file("huge.pem", &vec![b'x'; (1 << 20) + 1])).await;
    refused("redis://127.0.0.1:1", &file("unused.pem", b"")).await;
}
