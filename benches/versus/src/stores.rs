//! One trait over what keeps values on disk, and one small adapter each.
//!
//! Everybody gets the same memory for caching, keys of 24 bytes and values that no compression shrinks; otherwise it is as its documentation
//! recommends. redb writes transactions of 1 000 values, every hundredth of them durable. foyer is paced: it drops
//! silently what comes faster than it writes, so the writer waits for it every 4 MiB. Nobody checks an expiry; ours always does.

use std::path::Path;

use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use foyer::{BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy};
use redb::{Durability, ReadableDatabase, TableDefinition};
use tokio::runtime::Runtime;

use crate::workload::{Key, touch};

/// What is asked of every store.
#[derive(Clone, Copy)]
pub struct Size {
    /// Entries that it must hold.
    pub entries: u64,
    /// Bytes of a value.
    pub value: usize,
    /// Bytes of memory for caching.
    pub memory: usize,
}

impl Size {
    /// Bytes of all values.
    pub fn payload(self) -> u64 {
        self.entries * self.value as u64
    }
}

/// Makes the values: parts of a pool of random bytes that begin with the key's number.
pub struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    /// Values of so many bytes, at least 8.
    pub fn new(bytes: usize) -> Self {
        Self { pool: crate::workload::value((1 << 20) + bytes, 11), bytes }
    }

    /// The value of a number, written over `out`.
    pub fn write(&self, number: u64, out: &mut Vec<u8>) {
        let from = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as usize;
        out.clear();
        out.extend_from_slice(&self.pool[from..from + self.bytes]);
        out[..8].copy_from_slice(&number.to_le_bytes());
    }
}

/// What a read brought: which number the value begins with, and its touched bytes.
pub type Seen = Option<(u64, u64)>;

fn seen(value: &[u8]) -> (u64, u64) {
    (value.first_chunk().map_or(u64::MAX, |first| u64::from_le_bytes(*first)), touch(value))
}

/// A store on disk.
pub trait Store {
    /// Writes the values of these numbers, and waits until it has taken all of them: none dropped, none left in a queue of the process.
    fn fill(&mut self, numbers: &[u64], values: &Values);
    /// Reads keys one after the other; `each` runs after every one.
    fn read(&mut self, keys: &[Key], each: &mut dyn FnMut(usize, Seen));
    /// Makes all of it durable.
    fn sync(&mut self);
    /// Ends properly.
    fn close(self: Box<Self>);
}

/// All by name, ours first.
pub const STORES: [&str; 5] = ["aurum", "redb", "fjall", "foyer", "sled"];

/// Opens a store in a folder that exists.
///
/// # Panics
///
/// If it cannot be opened, or on a name that is not in [`STORES`].
pub fn open(name: &str, folder: &Path, size: Size) -> Box<dyn Store> {
    match name {
        "aurum" => Box::new(Ours::open(folder, size)),
        "redb" => Box::new(Redb::open(folder, size)),
        "fjall" => Box::new(Fjall::open(folder, size)),
        "foyer" => Box::new(Foyer::open(folder, size)),
        "sled" => Box::new(Sled::open(folder, size)),
        other => panic!("{other}: no such store; there are {STORES:?}"),
    }
}

fn key(number: u64) -> Key {
    Key::new(crate::workload::Kind::Stored, number)
}

/// One worker, as the program itself uses the other processor.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

const NAMESPACE: Namespace = Namespace::CURVES;

struct Ours {
    cache: Cache,
    runtime: Runtime,
    held: u64,
}

impl Ours {
    fn open(folder: &Path, size: Size) -> Self {
        let (runtime, capacity) = (runtime(), (size.payload() * 2).max(64 << 20));
        let cache = runtime.block_on(Cache::builder().memory(size.memory as u64).disk(folder, capacity).open()).expect("a cache");
        Self { cache, runtime, held: 0 }
    }
}

impl Store for Ours {
    fn fill(&mut self, numbers: &[u64], values: &Values) {
        self.held += numbers.len() as u64;
        let (cache, held) = (&self.cache, self.held);
        self.runtime.block_on(async {
            let mut value = Vec::new();
            for &number in numbers {
                values.write(number, &mut value);
                cache.set(NAMESPACE, key(number).as_str(), &value[..], TtlPolicy::Extended).await.expect("a write");
            }
            // Appended to the log, as the analytics tell it.
            while cache.analytics().tier(Tier::Disk).entries < held {
                tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            }
        });
    }

    fn read(&mut self, keys: &[Key], each: &mut dyn FnMut(usize, Seen)) {
        self.runtime.block_on(async {
            for (at, key) in keys.iter().enumerate() {
                let found = self.cache.get::<[u8]>(NAMESPACE, key.as_str()).await;
                each(at, found.map(|value| seen(&value)));
            }
        });
    }

    fn sync(&mut self) {
        self.runtime.block_on(self.cache.flush()).expect("a flush");
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.cache.close()).expect("a clean end");
    }
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");

struct Redb(redb::Database);

impl Redb {
    fn open(folder: &Path, size: Size) -> Self {
        let file = folder.join("values.redb");
        Self(redb::Database::builder().set_cache_size(size.memory).create(file).expect("a database"))
    }

    fn commit(&self, durability: Durability, fill: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>)) {
        let mut transaction = self.0.begin_write().expect("a transaction");
        transaction.set_durability(durability).expect("a durability");
        fill(&mut transaction.open_table(TABLE).expect("a table"));
        transaction.commit().expect("a commit");
    }
}

impl Store for Redb {
    fn fill(&mut self, numbers: &[u64], values: &Values) {
        let mut value = Vec::new();
        let chunks = numbers.chunks(1_000);
        let last = chunks.len().saturating_sub(1);
        for (at, chunk) in chunks.enumerate() {
            let durable = at % 100 == 99 || at == last;
            self.commit(if durable { Durability::Immediate } else { Durability::None }, |table| {
                for &number in chunk {
                    values.write(number, &mut value);
                    table.insert(key(number).as_str().as_bytes(), &value[..]).expect("a write");
                }
            });
        }
    }

    fn read(&mut self, keys: &[Key], each: &mut dyn FnMut(usize, Seen)) {
        for (at, key) in keys.iter().enumerate() {
            // A transaction of its own for each: one that is kept open does not see what was written since.
            let table = self.0.begin_read().expect("a transaction").open_table(TABLE).expect("a table");
            let found = table.get(key.as_str().as_bytes()).expect("a read");
            each(at, found.map(|value| seen(value.value())));
        }
    }

    fn sync(&mut self) {
        self.commit(Durability::Immediate, |_| ());
    }

    fn close(self: Box<Self>) {}
}

struct Fjall {
    database: Database,
    values: Keyspace,
}

impl Fjall {
    fn open(folder: &Path, size: Size) -> Self {
        let database = Database::builder(folder).cache_size(size.memory as u64).open().expect("a database");
        let values = database.keyspace("values", KeyspaceCreateOptions::default).expect("a keyspace");
        Self { database, values }
    }
}

impl Store for Fjall {
    fn fill(&mut self, numbers: &[u64], values: &Values) {
        let mut value = Vec::new();
        for &number in numbers {
            values.write(number, &mut value);
            self.values.insert(key(number).as_str(), &value[..]).expect("a write");
        }
        self.database.persist(PersistMode::Buffer).expect("a flush");
    }

    fn read(&mut self, keys: &[Key], each: &mut dyn FnMut(usize, Seen)) {
        for (at, key) in keys.iter().enumerate() {
            let found = self.values.get(key.as_str()).expect("a read");
            each(at, found.map(|value| seen(&value)));
        }
    }

    fn sync(&mut self) {
        self.database.persist(PersistMode::SyncAll).expect("a sync");
    }

    fn close(self: Box<Self>) {
        self.database.persist(PersistMode::SyncAll).expect("a sync");
    }
}

struct Foyer {
    cache: HybridCache<String, Vec<u8>>,
    runtime: Runtime,
}

/// Bytes after which foyer is waited for.
const PACE: usize = 4 << 20;

impl Foyer {
    fn open(folder: &Path, size: Size) -> Self {
        let runtime = runtime();
        // Each entry takes whole pages of 4 KiB.
        let pages = (size.value + 200).next_multiple_of(4096) as u64;
        let capacity = (size.entries * pages * 5 / 4).max(256 << 20) as usize;
        let cache = runtime.block_on(async {
            let device = FsDeviceBuilder::new(folder).with_capacity(capacity).build().expect("a device");
            HybridCacheBuilder::new()
                .with_policy(HybridCachePolicy::WriteOnInsertion)
                .memory(size.memory)
                .with_weighter(|key: &String, value: &Vec<u8>| key.len() + value.len())
                .storage()
                .with_engine_config(BlockEngineConfig::new(device))
                .build()
                .await
                .expect("a cache")
        });
        Self { cache, runtime }
    }
}

impl Store for Foyer {
    fn fill(&mut self, numbers: &[u64], values: &Values) {
        let cache = &self.cache;
        self.runtime.block_on(async {
            let (mut value, mut unsettled) = (Vec::new(), 0);
            for &number in numbers {
                values.write(number, &mut value);
                cache.insert(key(number).as_str().to_owned(), value.clone());
                unsettled += value.len();
                if unsettled >= PACE {
                    cache.storage().wait().await;
                    unsettled = 0;
                }
            }
            cache.storage().wait().await;
        });
    }

    fn read(&mut self, keys: &[Key], each: &mut dyn FnMut(usize, Seen)) {
        let cache = &self.cache;
        self.runtime.block_on(async {
            for (at, key) in keys.iter().enumerate() {
                let found = cache.get(key.as_str()).await.expect("a read");
                each(at, found.map(|entry| seen(entry.value())));
            }
        });
    }

    /// It has no sync of its own.
    fn sync(&mut self) {
        self.runtime.block_on(self.cache.storage().wait());
    }

    fn close(self: Box<Self>) {
        self.runtime.block_on(self.cache.close()).expect("a clean end");
    }
}

struct Sled(sled::Db);

impl Sled {
    fn open(folder: &Path, size: Size) -> Self {
        Self(sled::Config::new().path(folder).cache_capacity(size.memory as u64).open().expect("a database"))
    }
}

impl Store for Sled {
    fn fill(&mut self, numbers: &[u64], values: &Values) {
        let mut value = Vec::new();
        for &number in numbers {
            values.write(number, &mut value);
            self.0.insert(key(number).as_str(), &value[..]).expect("a write");
        }
        self.0.flush().expect("a flush");
    }

    fn read(&mut self, keys: &[Key], each: &mut dyn FnMut(usize, Seen)) {
        for (at, key) in keys.iter().enumerate() {
            let found = self.0.get(key.as_str()).expect("a read");
            each(at, found.map(|value| seen(&value)));
        }
    }

    fn sync(&mut self) {
        self.0.flush().expect("a flush");
    }

    fn close(self: Box<Self>) {
        self.0.flush().expect("a flush");
    }
}
