//! What does an operation cost in each tier, through the public API with metrics on?
//!
//! `cargo bench --bench tiers`; a plain `HashMap` stands beside the hit as the floor. Redis is measured if `redis-server` is
//! found, on a free loopback port. Absolute times belong to one machine: compare within one run.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aurum_cache::{Cache, Namespace, Tier, TtlPolicy};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const NS: Namespace = Namespace::CURVES;
const KEYS: u64 = 100_000;
const VALUE: [u8; 128] = [7; 128];

fn key(i: u64) -> String {
    format!("hub:{i:020}")
}

/// Keys in an order that no prefetcher guesses.
struct Walk(u64);

impl Walk {
    fn next(&mut self, keys: &[String]) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % keys.len()
    }
}

fn filled(runtime: &Runtime, builder: aurum_cache::Builder, keys: &[String], policy: TtlPolicy) -> Cache {
    runtime.block_on(async {
        let cache = builder.open().await.expect("a cache");
        for (i, key) in keys.iter().enumerate() {
            cache.set(NS, key, &VALUE[..], policy).await.expect("a write");
            if i % 4_096 == 0 {
                cache.flush().await.expect("a flush");
            }
        }
        cache.flush().await.expect("a flush");
        cache
    })
}

fn memory(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let cache = filled(&runtime, Cache::builder().memory(256 << 20), &keys, TtlPolicy::Long);
    let map: HashMap<&str, [u8; 128]> = keys.iter().map(|key| (key.as_str(), VALUE)).collect();
    let mut walk = Walk(1);
    let mut group = c.benchmark_group("memory");
    group.throughput(Throughput::Elements(1));
    group.bench_function("hit/hash_map", |b| b.iter(|| map[keys[walk.next(&keys)].as_str()][0]));
    group.bench_function("hit/with_resident", |b| {
        b.iter(|| cache.with_resident::<[u8], _>(NS, &keys[walk.next(&keys)], |value| value[0]).expect("a hit"));
    });
    group.bench_function("hit/get_resident", |b| {
        b.iter(|| cache.get_resident::<[u8]>(NS, &keys[walk.next(&keys)]).expect("a hit")[0]);
    });
    group.bench_function("hit/get", |b| {
        b.iter(|| runtime.block_on(async { cache.get::<[u8]>(NS, &keys[walk.next(&keys)]).await.expect("a hit")[0] }));
    });
    group.bench_function("miss/get_resident", |b| {
        b.iter(|| assert!(cache.get_resident::<[u8]>(Namespace::GENERAL, &keys[walk.next(&keys)]).is_none()));
    });
    group.bench_function("set", |b| {
        b.iter(|| {
            let key = &keys[walk.next(&keys)];
            runtime.block_on(async { cache.set(NS, key, &VALUE[..], TtlPolicy::Long).await.expect("a write") });
        });
    });
    let small = runtime.block_on(Cache::builder().memory(8 << 20).open()).expect("a cache");
    let mut next = 0;
    group.bench_function("set_with_eviction", |b| {
        b.iter_batched(
            || {
                next += 1;
                key(next)
            },
            |key| runtime.block_on(async { small.set(NS, &key, &VALUE[..], TtlPolicy::Long).await.expect("a write") }),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn disk(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let folder = tempfile::tempdir().expect("a folder");
    // So little memory that nearly every read goes to the disk.
    let cache = filled(&runtime, Cache::builder().memory(1 << 20).disk(folder.path(), 256 << 20), &keys, TtlPolicy::Extended);
    let mut walk = Walk(2);
    let mut group = c.benchmark_group("disk");
    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |b| {
        b.iter(|| runtime.block_on(async { cache.get::<[u8]>(NS, &keys[walk.next(&keys)]).await.expect("a hit")[0] }));
    });
    group.bench_function("absent", |b| {
        b.iter(|| runtime.block_on(async { assert!(cache.get::<[u8]>(Namespace::GENERAL, "absent").await.is_none()) }));
    });
    group.finish();
    assert!(cache.analytics().tier(Tier::Disk).hits > 0, "nothing came from the disk");
    runtime.block_on(cache.close()).expect("a clean end");
}

/// A server of our own, gone when dropped.
struct Server(Child, u16);

impl Server {
    fn start() -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self(child, port);
        for _ in 0..200 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis(c: &mut Criterion) {
    let Some(server) = Server::start() else {
        eprintln!("redis-server was not found: its tier is not measured");
        return;
    };
    let runtime = Runtime::new().expect("a runtime");
    let keys: Vec<String> = (0..10_000).map(key).collect();
    let builder = Cache::builder().memory(1 << 20).redis(format!("redis://127.0.0.1:{}", server.1));
    let cache = filled(&runtime, builder, &keys, TtlPolicy::Short);
    let mut walk = Walk(3);
    let mut group = c.benchmark_group("redis");
    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |b| {
        b.iter(|| runtime.block_on(async { cache.get::<[u8]>(NS, &keys[walk.next(&keys)]).await.is_some() }));
    });
    group.finish();
}

criterion_group!(benches, memory, disk, redis);
criterion_main!(benches);
