//! Settings: a TOML file, then the environment; what is unknown or wrong is refused by name.
//!
//! The environment of a process belongs to all its threads, so what depends on it runs in child processes.

#![cfg(all(feature = "disk", feature = "redis"))] // its promises speak of every tier

use crate::support::child::{Child, role, say};
use crate::support::{self, put, settings};
use aurum_cache::{Cache, CacheConfig, ErrorKind, Namespace, Tier, TtlPolicy};

#[tokio::test]
#[ignore = "the body of a child process; does nothing without its role"]
async fn child() {
    match role().as_deref() {
        Some("load") => match CacheConfig::from_settings() {
            Ok(config) => match Cache::open(config).await {
                Ok(cache) => say(&format!("memory {}", cache.analytics().tier(Tier::Memory).capacity)),
                Err(error) => say(&format!("refused {:?} {error}", error.kind())),
            },
            Err(error) => say(&format!("refused {:?} {error}", error.kind())),
        },
        Some("global") => {
            let first = Cache::global().await.expect("opened from the settings");
            put(first, Namespace::GENERAL, "k", "v", TtlPolicy::Medium).await;
            let second = Cache::global().await.expect("the same");
            assert!(std::ptr::eq(first, second));
            let other = Cache::builder().memory(8 << 20).open().await.expect("memory alone");
            let error = Cache::install_global(other).expect_err("there is one");
            assert_eq!(error.kind(), ErrorKind::AlreadyInstalled);
            say(&format!("memory {}", first.analytics().tier(Tier::Memory).capacity));
        }
        _ => {}
    }
}

/// Variables and their values.
type Environment<'a> = &'a [(&'a str, &'a str)];

/// What a process says that loads these settings.
fn load(toml: Option<&str>, environment: Environment, role: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    if let Some(toml) = toml {
        std::fs::write(&file, toml).unwrap();
    }
    let path = file.to_str().unwrap();
    let given: Vec<_> = environment.iter().copied().chain([("AURUM_CACHE_CONFIG", path)]).collect();
    Child::play(module_path!(), role, &given).finish().pop().expect("the child says one line")
}

#[test]
fn a_file_is_read_and_the_environment_has_the_last_word() {
    let toml = "[memory]\ncapacity = \"16MiB\"";
    assert_eq!(load(Some(toml), &[], "load"), format!("memory {}", 16 << 20));
    let environment = [("AURUM_CACHE_MEMORY__CAPACITY", "32MiB")];
    assert_eq!(load(Some(toml), &environment, "load"), format!("memory {}", 32 << 20));
    assert_eq!(load(Some(""), &environment, "load"), format!("memory {}", 32 << 20));
}

#[test]
fn a_missing_default_file_is_fine() {
    let said = Child::play(module_path!(), "load", &[]).finish();
    assert!(said[0].starts_with("memory "), "{said:?}");
}

#[test]
fn the_global_cache_opens_from_the_settings_once() {
    assert_eq!(load(Some("[memory]\ncapacity = \"16MiB\""), &[], "global"), format!("memory {}", 16 << 20));
}

#[test]
fn what_is_unknown_or_wrong_is_refused_by_name() {
    let table: [(&str, Environment, &str); 12] = [
        ("[memory]\ncapasity = \"16MiB\"", &[], "capasity"),
        ("[memry]\ncapacity = \"16MiB\"", &[], "memry"),
        ("[memory]\ncapacity = \"plenty\"", &[], "memory.capacity"),
        ("[namespaces.curves]\npolicy = \"forever\"", &[], "policy"),
        ("[namespaces.curves]\nmax_ttl = \"soon\"", &[], "max_ttl"),
        ("[namespaces.curves]\nrefresh_ahead = 1.5", &[], "refresh_ahead"),
        ("[namespaces.\"no spaces\"]\npolicy = \"short\"", &[], "no spaces"),
        // Found by the fuzz target `config`: a key of nothing was named by nothing.
        ("\"\" = 1", &[], "\"\": is no setting"),
        ("[memory]\n\"a\\u0007b\" = 1", &[], "memory.\"a\\u{7}b\""),
        ("[redis]\nurl = \"http://127.0.0.1\"", &[], "redis.url"),
        ("", &[("AURUM_CACHE_MEMORY__CAPACITY", "plenty")], "memory.capacity"),
        ("", &[("AURUM_CACHE_MEMORY__CAPASITY", "16MiB")], "capasity"),
    ];
    for (toml, environment, name) in table {
        let said = load(Some(toml), environment, "load");
        assert!(said.starts_with("refused Config"), "{toml:?} {environment:?}: {said}");
        assert!(said.to_lowercase().contains(name), "{toml:?} {environment:?}: the text does not name {name}: {said}");
    }
    let said = load(Some("[memory\n"), &[], "load");
    assert!(said.starts_with("refused Config") && said.contains("settings.toml"), "broken TOML: {said}");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error() {
    let said = load(None, &[], "load");
    assert!(said.starts_with("refused") && said.contains("settings.toml"), "{said}");
}

#[test]
fn a_password_is_shown_nowhere() {
    let secret = "s3cr3t-pass";
    let config = settings(&format!("[redis]\nurl = \"redis://user:{secret}@127.0.0.1:6379\""));
    assert!(!format!("{config:?}{config:#?}").contains(secret), "{config:?}");
    let builder = Cache::builder().redis(format!("redis://:{secret}@127.0.0.1:6379"));
    assert!(!format!("{builder:?}").contains(secret));
    for url in [format!("http://:{secret}@host"), format!("redis://:{secret}@host:port"), format!("redis://user:{secret}@")] {
        let said = load(Some(&format!("[redis]\nurl = \"{url}\"")), &[], "load");
        assert!(said.starts_with("refused") && !said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn the_builder_starts_from_settings_and_overrides_them() {
    let config = settings("[memory]\ncapacity = \"16MiB\"");
    let cache = Cache::builder().config(config.clone()).open().await.unwrap();
    assert_eq!(cache.analytics().tier(Tier::Memory).capacity, 16 << 20);
    let cache = Cache::builder().config(config).memory(32 << 20).open().await.unwrap();
    assert_eq!(cache.analytics().tier(Tier::Memory).capacity, 32 << 20);
}

#[tokio::test]
async fn another_schema_number_leaves_all_stored_values_behind() {
    let folder = tempfile::tempdir().unwrap();
    for (schema, expected) in [(3, None), (3, Some("v3")), (4, None), (4, Some("v4"))] {
        let builder = Cache::builder().memory(8 << 20).disk(folder.path(), 64 << 20).schema(schema);
        let cache = builder.open().await.unwrap();
        assert_eq!(support::read(&cache, Namespace::CURVES, "k").await.as_deref(), expected, "schema {schema}");
        put(&cache, Namespace::CURVES, "k", &format!("v{schema}"), TtlPolicy::Extended).await;
        cache.close().await.unwrap();
    }
}
