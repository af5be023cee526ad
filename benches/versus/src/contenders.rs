//! One trait over the caches in memory, and one small adapter each.
//!
//! Each peer has what it is best with: keys it owns are `Box<str>` and are looked up by `&str`, values are `Arc<[u8]>`, as they
//! are handed out by `Clone`; where the hasher can be chosen it is foldhash, which
//! was made for short keys. TinyUFO keeps no key at all, only 64 bits of hash, and so can return another key's value: it does less
//! than the others. No peer checks an expiry; ours always does.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
use foldhash::fast::RandomState;
use tokio::runtime::Runtime;

use crate::workload::{Key, touch};

/// A cache in memory.
pub trait Contender: Send + Sync + 'static {
    /// As it stands in tables.
    fn name(&self) -> &'static str;
    /// Reads the value and touches it.
    fn get(&self, key: &Key) -> Option<u64>;
    /// Stores a copy of the value.
    fn put(&self, key: &Key, value: &[u8]);
    /// How many entries it holds.
    fn entries(&self) -> u64;
    /// Does now what it would do later.
    fn settle(&self) {}
}

/// All peers with room for `entries` entries.
pub fn peers(entries: usize) -> Vec<Box<dyn Contender>> {
    vec![Box::new(Quick::new(entries)), Box::new(Moka::new(entries)), Box::new(Foyer::new(entries)), Box::new(Ufo::new(entries))]
}

/// The result of a future that has it at once: what awaiting it costs inside a task that is running anyway.
///
/// # Panics
///
/// If the future must wait.
pub fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a memory-only operation had to wait"),
    }
}

/// Ours, through the public API: namespace, expiry, typed view and metrics included.
pub struct Aurum {
    /// The cache itself.
    pub cache: Cache,
    /// Its maintenance runs here, on a thread of its own, as in a service.
    _runtime: Runtime,
}

/// Where ours keeps the keys.
pub const NAMESPACE: Namespace = Namespace::CURVES;

impl Aurum {
    /// With this budget in bytes, all overhead counted.
    pub fn new(bytes: u64) -> Self {
        Self::of(Cache::builder().memory(bytes))
    }

    /// The same without metrics.
    pub fn uncounted(bytes: u64) -> Self {
        Self::of(Cache::builder().memory(bytes).uncounted())
    }

    fn of(builder: aurum_cache::Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let cache = runtime.block_on(builder.open()).expect("a cache");
        Self { cache, _runtime: runtime }
    }

    /// Reads through a closure, without a reference count.
    pub fn view(&self, key: &Key) -> Option<u64> {
        self.cache.with_resident::<[u8], _>(NAMESPACE, key.as_str(), touch)
    }

    /// Reads as a service does that does not know in which tier the values are.
    pub async fn fetch_all(&self, keys: &[Key]) -> u64 {
        let mut sum = 0;
        for key in keys {
            sum += self.cache.get::<[u8]>(NAMESPACE, key.as_str()).await.map_or(0, |value| touch(&value));
        }
        sum
    }
}

impl Contender for Aurum {
    fn name(&self) -> &'static str {
        "aurum"
    }

    fn get(&self, key: &Key) -> Option<u64> {
        self.cache.get_resident::<[u8]>(NAMESPACE, key.as_str()).map(|value| touch(&value))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        at_once(self.cache.set(NAMESPACE, key.as_str(), value, TtlPolicy::Long)).expect("a write to memory");
    }

    fn entries(&self) -> u64 {
        self.cache.analytics().tier(Tier::Memory).entries
    }
}

/// quick_cache.
pub struct Quick(quick_cache::sync::Cache<Box<str>, Arc<[u8]>>);

impl Quick {
    /// With room for so many entries.
    pub fn new(entries: usize) -> Self {
        Self(quick_cache::sync::Cache::new(entries))
    }
}

impl Contender for Quick {
    fn name(&self) -> &'static str {
        "quick_cache"
    }

    fn get(&self, key: &Key) -> Option<u64> {
        self.0.get(key.as_str()).map(|value| touch(&value))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.0.insert(key.as_str().into(), value.into());
    }

    fn entries(&self) -> u64 {
        self.0.len() as u64
    }
}

/// moka, the cache for threads.
pub struct Moka(moka::sync::Cache<Box<str>, Arc<[u8]>, RandomState>);

impl Moka {
    /// With room for so many entries.
    pub fn new(entries: usize) -> Self {
        Self(moka::sync::Cache::builder().max_capacity(entries as u64).build_with_hasher(RandomState::default()))
    }
}

impl Contender for Moka {
    fn name(&self) -> &'static str {
        "moka"
    }

    fn get(&self, key: &Key) -> Option<u64> {
        self.0.get(key.as_str()).map(|value| touch(&value))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.0.insert(key.as_str().into(), value.into());
    }

    fn entries(&self) -> u64 {
        self.0.entry_count()
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

/// moka, the cache for tasks.
pub struct MokaFuture(moka::future::Cache<Box<str>, Arc<[u8]>, RandomState>);

impl MokaFuture {
    /// With room for so many entries.
    pub fn new(entries: usize) -> Self {
        Self(moka::future::Cache::builder().max_capacity(entries as u64).build_with_hasher(RandomState::default()))
    }
}

impl Contender for MokaFuture {
    fn name(&self) -> &'static str {
        "moka future"
    }

    fn get(&self, key: &Key) -> Option<u64> {
        at_once(self.0.get(key.as_str())).map(|value| touch(&value))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        at_once(self.0.insert(key.as_str().into(), value.into()));
    }

    fn entries(&self) -> u64 {
        self.0.entry_count()
    }

    fn settle(&self) {
        at_once(self.0.run_pending_tasks());
    }
}

/// The memory part of foyer, with its own choice of policy and shards.
pub struct Foyer(foyer_memory::Cache<Box<str>, Arc<[u8]>, RandomState>);

impl Foyer {
    /// With room for so many entries.
    pub fn new(entries: usize) -> Self {
        Self(foyer_memory::CacheBuilder::new(entries).with_hash_builder(RandomState::default()).build())
    }
}

impl Contender for Foyer {
    fn name(&self) -> &'static str {
        "foyer"
    }

    fn get(&self, key: &Key) -> Option<u64> {
        self.0.get(key.as_str()).map(|entry| touch(entry.value()))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.0.insert(key.as_str().into(), value.into());
    }

    fn entries(&self) -> u64 {
        self.0.entries() as u64
    }
}

/// TinyUFO.
pub struct Ufo {
    cache: tinyufo::TinyUfo<Key, Arc<[u8]>>,
    /// It does not tell how many it holds; this is how many fit.
    room: u64,
}

impl Ufo {
    /// With room for so many entries.
    pub fn new(entries: usize) -> Self {
        Self { cache: tinyufo::TinyUfo::new(entries, entries), room: entries as u64 }
    }
}

impl Contender for Ufo {
    fn name(&self) -> &'static str {
        "tinyufo"
    }

    fn get(&self, key: &Key) -> Option<u64> {
        self.cache.get(key).map(|value| touch(&value))
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.cache.put(*key, value.into(), 1);
    }

    fn entries(&self) -> u64 {
        self.room
    }
}
