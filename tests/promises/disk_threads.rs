//! A process at its limit of threads (`RLIMIT_NPROC`): whatever cannot get one goes on without it and says why, and nothing panics.

#![cfg(feature = "disk")]

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use crate::support::child::{Child, given, role, say};
use crate::support::{put, read, text, tier_of, until};
use aurum_cache::{Cache, ErrorKind, Namespace, Tier, TierState, TtlPolicy};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const NS: Namespace = Namespace::CURVES;
/// Root is exempt from the limit: the child becomes this user. "nobody", who has no other processes that would count.
const NOBODY: u32 = 65_534;

async fn open(folder: &Path) -> Cache {
    Cache::builder().memory(1 << 20).disk(folder, 64 << 20).open().await.expect("the cache opens")
}

async fn fill(cache: &Cache, keys: std::ops::Range<u32>) {
    for i in keys {
        let key = format!("k{i}");
        put(cache, NS, &key, &text(&key, 5_000), TtlPolicy::Persistent).await;
    }
    cache.flush().await.expect("all is on the device");
}

const WORKERS: usize = 2;
const TOKIO: &str = "tokio";

/// How many threads tokio has, with those of its blocking pool, which would hide for a while that it can get no other.
fn tokios() -> usize {
    let names = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.trim() == TOKIO).count()
}

/// May this process make a thread?
fn can_spawn() -> bool {
    std::thread::Builder::new().spawn(|| {}).is_ok_and(|thread| thread.join().is_ok())
}

/// No thread can be made while this is held.
struct Limited(Rlimit);

impl Limited {
    fn now() -> Self {
        let before = getrlimit(Resource::Nproc);
        setrlimit(Resource::Nproc, Rlimit { current: Some(1), ..before }).expect("a lower limit");
        assert!(!can_spawn(), "the limit holds for this user");
        Self(before)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        setrlimit(Resource::Nproc, self.0).expect("the limit as it was");
    }
}

/// Takes what is on the device out of the page cache, where the file system lets itself be told.
fn forget_pages(folder: &Path) {
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let file = std::fs::File::open(file).unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// Memory goes on, threads that are there go on, and nothing of what is on disk is lost.
async fn crowded(folder: &Path) {
    let cache = open(folder).await;
    fill(&cache, 0..200).await;
    forget_pages(folder);
    until("tokio has its workers only", async || tokios() == WORKERS).await;

    // The limit is reached while the cache is open: the threads that it has go on.
    let limited = Limited::now();
    for i in 0..200 {
        let key = format!("k{i}");
        assert_eq!(read(&cache, NS, &key).await, Some(text(&key, 5_000)), "{key}");
    }
    put(&cache, NS, "k0", "newer", TtlPolicy::Persistent).await;
    cache.invalidate(NS, "k1").await.expect("the removal is in the log");
    cache.invalidate_pattern(NS, "k19*").await.expect("the pattern is swept");
    cache.flush().await.expect("the caretaker syncs");
    cache.run_maintenance().await;
    cache.close().await.expect("the writer ends");
    drop(cache);

    // Reached before it is opened: memory goes on, and health says what is missing.
    let cache = open(folder).await;
    let disk = tier_of(&cache.health().await, Tier::Disk);
    assert_eq!(disk.state, TierState::Down);
    assert!(disk.reason.as_deref().is_some_and(|why| why.contains("RLIMIT_NPROC")), "{disk:?}");
    put(&cache, NS, "here", "v", TtlPolicy::Short).await;
    // Of a policy that does not land on disk, where an older one is.
    put(&cache, NS, "k3", "newer", TtlPolicy::Short).await;
    assert_eq!(read(&cache, NS, "here").await.as_deref(), Some("v"));
    assert_eq!(cache.invalidate(NS, "k2").await.map_err(|error| error.kind()), Err(ErrorKind::TierDown));
    assert!(cache.flush().await.is_err());
    cache.run_maintenance().await;
    assert_eq!(tier_of(&cache.health().await, Tier::Disk).state, TierState::Down);

    // A host that has to be looked up, which takes a thread.
    #[cfg(feature = "redis")]
    {
        let far = Cache::builder().redis("redis://localhost:1").open().await.expect("the cache opens");
        let reason = async || tier_of(&far.health().await, Tier::Redis).reason;
        until("Redis is found to be out of reach", async || reason().await.is_some_and(|why| why.contains("no thread"))).await;
        far.close().await.expect("nothing waits");
    }

    // And closed again without ever having had its threads.
    let never = tempfile::tempdir_in(folder.parent().unwrap()).unwrap();
    let other = open(never.path()).await;
    let _ = other.close().await;
    drop(other);

    drop(limited);
    until("the disk is up", async || {
        cache.run_maintenance().await;
        tier_of(&cache.health().await, Tier::Disk).state == TierState::Up
    })
    .await;
    until("memory is warm again", async || cache.analytics().refill.finished).await;
    assert!(cache.analytics().refill.planned > 0, "the hot list was read late");
    for i in 0..2_000 {
        put(&cache, NS, &format!("filler{i}"), &text("f", 2_000), TtlPolicy::Short).await;
    }
    let overwritten = read(&cache, NS, "k3").await;
    assert!(overwritten.as_deref().is_none_or(|found| found == "newer"), "what was overwritten came back: {overwritten:?}");
    for i in (0..190).filter(|i| *i != 3) {
        let key = format!("k{i}");
        let expected = match i {
            0 => Some("newer".to_owned()),
            1 | 2 | 19 => None,
            _ => Some(text(&key, 5_000)),
        };
        assert_eq!(read(&cache, NS, &key).await, expected, "{key}");
    }
    cache.close().await.unwrap();
}

/// The disk knows what an earlier run could not tell Redis, and is down.
#[cfg(feature = "redis")]
async fn heir(folder: &Path) {
    let server = format!("redis://127.0.0.1:{}", given("PORT"));
    let open = async |redis: &str| {
        let settings = crate::support::settings("maintenance.interval = \"1h\"");
        let builder = Cache::builder().config(settings).memory(1 << 20).disk(folder, 64 << 20);
        builder.redis(redis).open().await.expect("the cache opens")
    };
    let proxy = crate::support::proxy::Proxy::to(given("PORT").parse().unwrap());
    let before = open(&proxy.url()).await;
    put(&before, NS, "k", "old", TtlPolicy::Short).await;
    put(&before, NS, "other", "right", TtlPolicy::Short).await;
    proxy.cut();
    put(&before, NS, "k", "new", TtlPolicy::Short).await;
    before.close().await.unwrap();
    drop(before);

    let limited = Limited::now();
    let cache = open(&server).await;
    assert_eq!(tier_of(&cache.health().await, Tier::Disk).state, TierState::Down);
    until("Redis is up", async || tier_of(&cache.health().await, Tier::Redis).state == TierState::Up).await;
    for _ in 0..20 {
        assert_eq!(read(&cache, NS, "k").await, None, "what Redis still has came back");
        let many = cache.get_many::<String>(NS, &["k"]).await;
        assert!(many.iter().all(Option::is_none), "what Redis still has came back");
        assert!(!cache.contains(NS, "k").await);
    }
    drop(limited);
    until("Redis is asked again", async || {
        cache.run_maintenance().await;
        read(&cache, NS, "other").await.as_deref() == Some("right")
    })
    .await;
    for _ in 0..20 {
        assert_eq!(read(&cache, NS, "k").await, None, "what Redis still has came back");
    }
    cache.close().await.unwrap();
}

#[test]
#[ignore = "the body of a child process; does nothing without its role"]
fn child() {
    let Some(role) = role() else { return };
    // A panic of any thread, also of one that nobody waits for.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    // Before there is another thread: in Linux a user is a thread's.
    if rustix::process::getuid().is_root() {
        let nobody = rustix::process::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("another user");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(WORKERS).thread_name(TOKIO).thread_keep_alive(Duration::from_millis(1));
    let runtime = runtime.enable_all().build().unwrap();
    let folder = given("FOLDER");
    runtime.block_on(async {
        match &*role {
            "crowded" => crowded(Path::new(&folder)).await,
            #[cfg(feature = "redis")]
            "heir" => heir(Path::new(&folder)).await,
            _ => panic!("no role {role}"),
        }
    });
    say("done");
}

/// A folder for the user that the child becomes; `None`, said loudly, if there can be none.
fn home() -> Option<(tempfile::TempDir, String)> {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if rustix::process::getuid().is_root() && chown(&home, Some(NOBODY), None).is_err() {
        let mut out = std::io::stderr().lock();
        let _ =
            writeln!(out, "\n!!! NOT TESTED: root may not give a folder to another user here, and is exempt from RLIMIT_NPROC\n");
        return None;
    }
    let path = home.join("cache").to_str().unwrap().to_owned();
    Some((folder, path))
}

#[test]
fn without_a_thread_the_cache_goes_on_and_comes_back_with_all_it_holds() {
    let Some((_folder, path)) = home() else { return };
    let child = Child::play(module_path!(), "crowded", &[("FOLDER", &path)]);
    assert_eq!(child.finish(), ["done"]);
}

/// Nor is Redis believed before the disk has said what an earlier run could not tell it.
#[cfg(feature = "redis")]
#[test]
fn redis_is_not_asked_while_the_disk_cannot_say_what_it_was_not_told() {
    let Some((_folder, path)) = home() else { return };
    let redis = crate::support::redis::RedisServer::start();
    let child = Child::play(module_path!(), "heir", &[("FOLDER", &path), ("PORT", &redis.port().to_string())]);
    assert_eq!(child.finish(), ["done"]);
}
