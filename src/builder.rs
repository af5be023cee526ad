//! [`Builder`]: a cache described in code, in settings, or in both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::{CacheConfig, NamespaceConfig, Urls};
use crate::engine::inherit::Heritage;
use crate::engine::promotion::Promotions;
use crate::engine::repairs::Kept;
use crate::engine::state::{Engine, Governance, Governances, Refill};
use crate::error::Error;
use crate::flight::Flights;
use crate::invalidation::gate::Gates;
use crate::invalidation::ledger::Ledger;
use crate::invalidation::rule::Rules;
use crate::key::KeyHasher;
use crate::metrics::{Departed, Exporter, Recorder};
use crate::namespace::Namespace;
use crate::policy::placement::PlacementTable;
use crate::policy::ttl::bounded_ms;
use crate::schema;
use crate::tier::disk::{Disk, DiskConfig};
use crate::tier::memory::Memory;
use crate::tier::remote::{RedisUrl, Remote, RemoteConfig};

/// Describes a cache. Without [`disk`](Self::disk) and [`redis`](Self::redis) it is memory alone, and complete.
///
/// Says the same things as [`CacheConfig`], which [`config`](Self::config) takes as a start; later calls win.
///
/// ```
/// use aurum_cache::{Cache, Clock, Namespace, NamespaceConfig, TtlPolicy};
/// use std::time::Duration;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let clock = Clock::manual(); // a test of the service moves time by hand
/// let cache = Cache::builder().memory(8 << 20).clock(clock.clone()).open().await?;
/// cache.set(Namespace::GENERAL, "key", "value", TtlPolicy::UltraShort).await?;
/// clock.advance(Duration::from_secs(30));
/// assert!(cache.get::<str>(Namespace::GENERAL, "key").await.is_none());
/// # Ok::<(), aurum_cache::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `open` is awaited"]
pub struct Builder {
    config: CacheConfig,
    clock: Option<Clock>,
    is_uncounted: bool,
}

impl Builder {
    /// Memory's budget in bytes, all overhead counted; 256 MiB unless set, at least 1 MiB.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.config.memory.capacity = bytes.into();
        self
    }

    /// A disk tier in this folder, which is made if it is missing and must not be a symlink, with this budget in bytes for all its files.
    pub fn disk(mut self, path: impl Into<PathBuf>, bytes: u64) -> Self {
        self.config.disk.path = Some(path.into());
        self.config.disk.capacity = bytes.into();
        self
    }

    /// A shared tier in the Redis at this URL: `redis://`, or `rediss://` with feature `tls`. Several URLs, divided by commas, are nodes of
    /// one Redis Cluster, of which two or more are enough: they tell of the others. A bad URL is found by [`open`](Self::open).
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        let text = url.into();
        let urls = Urls::divided(&text);
        // An empty text is a mistake to be told, not a cache without Redis.
        self.config.redis.url = if urls.as_slice().is_empty() { vec![text.into()].into() } else { urls };
        self
    }

    /// The authority that signed the certificate of the Redis server: a file in PEM, read by [`open`](Self::open). Without it the
    /// usual public authorities are trusted, with it only those in the file.
    pub fn redis_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.redis.ca_file = Some(path.into());
        self
    }

    /// What is laid down for one namespace.
    pub fn namespace(mut self, namespace: Namespace, config: NamespaceConfig) -> Self {
        self.config.namespaces.insert(namespace.name().to_owned(), config);
        self
    }

    /// Starts over from these settings.
    pub fn config(mut self, config: CacheConfig) -> Self {
        self.config = config;
        self
    }

    /// Folded into every type's fingerprint: a new number leaves all stored values behind.
    pub fn schema(mut self, schema: u32) -> Self {
        self.config.schema = schema;
        self
    }

    /// This node's name in events and in the log between nodes; unique among those that share a Redis. Random unless set.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.config.node = Some(name.into());
        self
    }

    /// What every key in Redis begins with: caches with one prefix share their values. `aurum` unless set.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.config.redis.key_prefix = prefix.into();
        self
    }

    /// Where the cache reads the time.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// For benches: reads and writes are neither counted nor timed, and [`Cache::analytics`] knows of none. What it saves is a row of
    /// `benches/versus`; nobody should want to.
    #[doc(hidden)]
    pub fn uncounted(mut self) -> Self {
        self.is_uncounted = true;
        self
    }

    /// Opens the cache. The disk serves what survived the last run; memory refills from it in the background. What of a large folder has not been
    /// read after three seconds is read in the background, too: until then the disk answers only for what was put since, and health says so. A Redis
    /// that does not answer is no error (unless `coherence = "strict"`), the cache does without until it does.
    ///
    /// Needs a tokio runtime, whose tasks do the maintenance. Dropped halfway, nothing stays open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a bad setting, by its name; [`ErrorKind::Locked`](crate::ErrorKind::Locked) if the folder
    /// is open already; [`ErrorKind::Io`](crate::ErrorKind::Io) if it cannot be used. Damaged files are no error: what is damaged is lost, counted, and shown in health. Nor is a full device, one that does not
    /// answer within twenty times `disk.timeout`, or a process without a free file descriptor or thread: the disk begins down, and comes up with all
    /// it holds when that has passed.
    pub async fn open(self) -> Result<Cache, Error> {
        let Self { config, clock, is_uncounted } = self;
        config.validate()?;
        let (clock, hasher) = (clock.unwrap_or_default(), KeyHasher::random());
        let node = config.node.clone().unwrap_or_else(|| format!("node-{:012x}", fastrand::u64(..1 << 48)));
        let disk = open_disk(&config, &clock, &hasher).await?;
        let remote = open_remote(&config, &node, &clock, &hasher).await?;
        let rules = Rules::new(Engine::last_sequence(disk.as_ref()).await);
        let mut placement = PlacementTable::default();
        for (policy, row) in &config.placement {
            placement.set(policy.parse()?, *row);
        }
        let recorder = Recorder::new(clock.clone(), !is_uncounted);
        let engine = Arc::new(Engine {
            memory: Memory::new(config.memory.capacity.into(), clock.clone(), hasher.clone(), disk.is_some()),
            promotions: Promotions::new(config.memory.capacity.into()),
            salt: schema::salt(config.schema),
            max_value: usize::try_from(u64::from(config.limits.max_value)).unwrap_or(usize::MAX),
            governance: governances(&config)?,
            placement,
            places: recorder.places(),
            recorder,
            gates: Gates::new(disk.is_some()),
            rules,
            flights: Arc::new(Flights::default()),
            ledger: Ledger::default(),
            exporter: Exporter::new(config.node.clone()),
            departed: Departed::new(),
            throttled: Mutex::default(),
            refill: Refill::default(),
            coherence: Mutex::new(None),
            repairs_kept: AtomicBool::new(false),
            kept: Kept::default(),
            heritage: Heritage::default(),
            closed: AtomicBool::new(false),
            ended: OnceCell::new(),
            tasks: Mutex::default(),
            maintenance: config.maintenance.interval,
            clock,
            hasher,
            node,
            disk,
            remote,
        });
        engine.start(config.is_strict()).await?;
        Ok(Cache { engine })
    }
}

async fn open_disk(config: &CacheConfig, clock: &Clock, hasher: &KeyHasher) -> Result<Option<Disk>, Error> {
    let Some(path) = &config.disk.path else { return Ok(None) };
    if !cfg!(feature = "disk") {
        return Err(Error::config("disk.path", "needs the crate's feature `disk`; switch it on, or leave the setting out"));
    }
    let disk = DiskConfig {
        path: path.clone(),
        capacity: config.disk.capacity.into(),
        flush_interval: config.disk.flush_interval,
        timeout: config.disk.timeout,
        queue_bytes: config.disk.queue.into(),
        admission: config.disk.admission,
        segment_bytes: None,
    };
    Disk::open(disk, clock.clone(), hasher.clone()).await.map(Some)
}

async fn open_remote(config: &CacheConfig, node: &str, clock: &Clock, hasher: &KeyHasher) -> Result<Option<Arc<Remote>>, Error> {
    let urls = config.redis.urls();
    if urls.is_empty() {
        return Ok(None);
    }
    if !cfg!(feature = "redis") {
        return Err(Error::config("redis.url", "needs the crate's feature `redis`; switch it on, or leave the setting out"));
    }
    let remote = RemoteConfig {
        urls: urls.iter().map(|url| RedisUrl::parse(url.expose())).collect::<Result<_, _>>()?,
        key_prefix: config.redis.key_prefix.clone(),
        timeout: config.redis.timeout,
        max_value: config.limits.max_value.into(),
        ca: match &config.redis.ca_file {
            Some(path) => Some(read_ca(path.clone()).await?),
            None => None,
        },
    };
    Remote::open(remote, node.to_owned(), clock.clone(), hasher.clone()).map(|remote| Some(Arc::new(remote)))
}

/// The largest file of authorities: a full bundle has a quarter of it.
const MAX_CA_BYTES: u64 = 1 << 20;

async fn read_ca(path: PathBuf) -> Result<Vec<u8>, Error> {
    let read = move || {
        let fault = |why: String| {
            Error::config("redis.ca_file", format!("{why}: {}; name a file of certificates in PEM", path.display()))
        };
        let file = std::fs::metadata(&path).map_err(|error| fault(format!("cannot be read ({error})")))?;
        if !file.is_file() || file.len() > MAX_CA_BYTES {
            return Err(fault("is no file, or one of more than 1 MiB".to_owned()));
        }
        std::fs::read(&path).map_err(|error| fault(format!("cannot be read ({error})")))
    };
    // A thread of our own: tokio's blocking pool panics where the system gives it none.
    let (answer, answered) = tokio::sync::oneshot::channel();
    let started = std::thread::Builder::new().name("aurum-open".into()).spawn(move || drop(answer.send(read())));
    started.map_err(|error| Error::io("a thread to read redis.ca_file with", error))?;
    answered.await.unwrap_or_else(|_| Err(Error::config("redis.ca_file", "could not be read; see the log")))
}

fn governances(config: &CacheConfig) -> Result<Governances, Error> {
    let mut governances = Governances::new(governance(&NamespaceConfig::default()));
    for (name, settings) in &config.namespaces {
        governances.set(Namespace::parse(name)?.id()?, governance(settings));
    }
    Ok(governances)
}

fn governance(settings: &NamespaceConfig) -> Governance {
    Governance {
        max_ttl: settings.max_ttl,
        clamp: settings.is_clamped(),
        grace_ms: bounded_ms(settings.stale_if_error.unwrap_or_default()),
        refresh_ahead: settings.refresh_ahead,
        soft_timeout: settings.soft_timeout,
        hard_timeout: settings.hard_timeout,
        jitter: settings.jitter.unwrap_or_default().clamp(0.0, 0.5),
        permits: Arc::new(tokio::sync::Semaphore::new(settings.concurrent_fetches.unwrap_or(256))),
    }
}
