//! From the file and the environment to settings, and from figment's errors to ours.

use std::path::Path;

use figment::Figment;
use figment::error::{Actual, Kind, OneOf};
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;

use crate::config::CacheConfig;
use crate::error::{Error, shown};

/// What the names of our variables begin with.
const PREFIX: &str = "AURUM_CACHE_";
/// The variable that names the file.
const FILE_VARIABLE: &str = "AURUM_CACHE_CONFIG";
/// The file where the variable names none.
const DEFAULT_FILE: &str = "aurum-cache.toml";
/// Settings that are text even if they look like a number.
const TEXTS: [&str; 6] = ["node", "disk.path", "redis.url", "redis.urls", "redis.ca_file", "redis.key_prefix"];

/// A text of settings and where it is from.
struct Source {
    label: String,
    text: String,
}

impl CacheConfig {
    /// The settings of this process: the file named by `AURUM_CACHE_CONFIG` (`aurum-cache.toml` in the working directory if
    /// it names none, which may then be missing), and over it the environment: `AURUM_CACHE_MEMORY__CAPACITY=256MiB` is
    /// `memory.capacity`, two underscores for each dot.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an unknown setting or a bad value, which names it and where it stands, and for a named file
    /// that cannot be read.
    pub fn from_settings() -> Result<Self, Error> {
        let source = match std::env::var_os(FILE_VARIABLE).filter(|name| !name.is_empty()) {
            Some(named) => Some(read(Path::new(&named))?),
            None if Path::new(DEFAULT_FILE).exists() => Some(read(Path::new(DEFAULT_FILE))?),
            None => None,
        };
        let mut variables = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && *name != FILE_VARIABLE) else { continue };
            let value = value.to_str().ok_or_else(|| Error::config(name, "is not UTF-8; write it as text"))?;
            variables.push((name.to_owned(), value.to_owned()));
        }
        layered(source, &variables)
    }

    /// Settings from a TOML file alone.
    ///
    /// # Errors
    ///
    /// As [`from_settings`](Self::from_settings).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        layered(Some(read(path.as_ref())?), &[])
    }

    /// Settings from TOML text.
    ///
    /// # Errors
    ///
    /// As [`from_settings`](Self::from_settings).
    pub fn from_toml_str(text: &str) -> Result<Self, Error> {
        layered(Some(Source { label: "the given text".into(), text: text.into() }), &[])
    }
}

fn read(path: &Path) -> Result<Source, Error> {
    let label = format!("file {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Source { label, text }),
        Err(error) => {
            let advice = format!("cannot be read ({error}); correct the path, or unset {FILE_VARIABLE}");
            Err(Error::config(format!("settings {label}"), advice))
        }
    }
}

/// The file, then the variables, then the judgement.
fn layered(source: Option<Source>, variables: &[(String, String)]) -> Result<CacheConfig, Error> {
    let mut layers = Figment::new();
    let label = match source {
        Some(Source { label, text }) => {
            layers = layers.merge(Toml::string(&text));
            label
        }
        None => "the environment".into(),
    };
    for (name, value) in variables {
        let key = key_of(name);
        let value = match value.parse::<Value>() {
            Ok(parsed) if !TEXTS.contains(&key.as_str()) => parsed,
            _ => Value::from(value.as_str()),
        };
        layers = layers.merge(Serialized::default(&key, value));
    }
    let place = |key: &str| {
        let of = |name: &str| key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        match variables.iter().find(|(name, _)| of(&key_of(name))) {
            Some((name, _)) => format!("variable {name}"),
            None => label.clone(),
        }
    };
    let config: CacheConfig = layers.extract().map_err(|error| explained(&error, place))?;
    match config.validate() {
        Ok(()) => Ok(config),
        Err(error) => {
            let (key, text) = (error.subject(), error.to_string());
            let advice = text.strip_prefix(key).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
            Err(Error::config(key, format!("{advice} (in {})", place(key))))
        }
    }
}

/// The setting that a variable stands for.
fn key_of(variable: &str) -> String {
    variable.strip_prefix(PREFIX).unwrap_or(variable).to_ascii_lowercase().replace("__", ".")
}

/// A part of a key as it stands in a file: quoted if it is more than a bare word, or less.
fn written(part: &str) -> String {
    let is_bare = !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if is_bare { part.to_owned() } else { shown(part) }
}

/// Says which setting, what is wrong with it, and where it stands. Values of Redis settings are never repeated.
fn explained(error: &figment::Error, place: impl Fn(&str) -> String) -> Error {
    let mut path = error.path.clone();
    if let Kind::UnknownField(name, _) = &error.kind {
        // figment may or may not have added the name already.
        if path.last() != Some(name) {
            path.push(name.clone());
        }
    }
    let is_secret = path.first().is_some_and(|first| first == "redis");
    let found = |actual: &Actual| match actual {
        Actual::Str(_) if is_secret => "a text".to_owned(),
        Actual::Str(text) => shown(text),
        other => other.to_string(),
    };
    let advice = match &error.kind {
        Kind::UnknownField(_, known) => format!("is no setting; known here: {}", OneOf(known)),
        Kind::MissingField(name) => format!("lacks `{name}`; add it"),
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("is {}; write {expected}", found(actual))
        }
        Kind::UnknownVariant(name, known) => format!("is {}; write one of {}", shown(name), OneOf(known)),
        Kind::Message(text) => without_excerpt(text),
        other => other.to_string(),
    };
    let key =
        if path.is_empty() { "settings".to_owned() } else { path.iter().map(|part| written(part)).collect::<Vec<_>>().join(".") };
    let advice = format!("{} (in {})", redacted(&advice), place(&key));
    Error::config(redacted(&key), advice)
}

/// A TOML error without the line it quotes, which may hold a password.
fn without_excerpt(text: &str) -> String {
    let is_excerpt =
        |line: &&str| line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().starts_with('|');
    text.lines().filter(|line| !is_excerpt(line)).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}

/// Hides what stands between a scheme and the last `@` behind it.
fn redacted(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}://***{}", &text[..scheme], &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::policy::TtlPolicy;
    use std::time::Duration;

    fn with(text: &str, variables: &[(&str, &str)]) -> Result<CacheConfig, Error> {
        let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        layered(Some(Source { label: "file a.toml".into(), text: text.into() }), &variables)
    }

    #[test]
    fn the_published_example_is_read_in_full() {
        let config = CacheConfig::from_toml_str(
            r#"
            schema = 3
            [memory]
            capacity = "256MiB"
            [disk]
            path = "cache-data"
            capacity = "4GiB"
            [redis]
            url = "redis://127.0.0.1:6379"
            key_prefix = "aurum"
            timeout = "50ms"
            [placement.medium]
            disk = "on_set"
            redis = false
            [namespaces.curves]
            policy = "short"
            max_ttl = "4h"
            enforce = "clamp"
            stale_if_error = "10m"
            refresh_ahead = 0.8
            soft_timeout = "100ms"
            hard_timeout = "2s"
            "#,
        )
        .unwrap();
        assert_eq!((config.schema, u64::from(config.memory.capacity), u64::from(config.disk.capacity)), (3, 256 << 20, 4 << 30));
        assert_eq!(config.redis.urls()[0].expose(), "redis://127.0.0.1:6379");
        assert!(!config.placement["medium"].redis);
        let curves = &config.namespaces["curves"];
        assert_eq!((curves.policy, curves.max_ttl), (Some(TtlPolicy::Short), Some(Duration::from_secs(4 * 3_600))));
        assert_eq!((curves.is_clamped(), curves.refresh_ahead), (true, Some(0.8)));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = "[memory]\ncapacity = \"2MiB\"\n[redis]\ntimeout = \"70ms\"";
        let variables = [
            ("AURUM_CACHE_MEMORY__CAPACITY", "64MiB"),
            ("AURUM_CACHE_NODE", "007"),
            ("AURUM_CACHE_REDIS__URL", "redis://a,redis://b"),
            ("AURUM_CACHE_NAMESPACES__CURVES__MAX_TTL", "1h"),
        ];
        let config = with(text, &variables).unwrap();
        assert_eq!(u64::from(config.memory.capacity), 64 << 20);
        assert_eq!((config.node.as_deref(), config.redis.urls().len()), (Some("007"), 2));
        assert_eq!(config.redis.timeout, Duration::from_millis(70));
        assert_eq!(config.namespaces["curves"].max_ttl, Some(Duration::from_secs(3_600)));
    }

    /// Every setting of the README, one variable each, is the same as its block of TOML.
    #[test]
    fn every_setting_of_the_readme_can_be_given_by_the_environment() {
        fn flatten(prefix: &str, value: Value, variables: &mut Vec<(String, String)>) {
            match value {
                Value::Dict(_, dict) => {
                    for (key, value) in dict {
                        flatten(&format!("{prefix}__{}", key.to_ascii_uppercase()), value, variables);
                    }
                }
                Value::String(_, text) => variables.push((prefix.to_owned(), text)),
                Value::Num(_, number) => {
                    let whole = number.to_u128().map(|n| n.to_string()).or(number.to_i128().map(|n| n.to_string()));
                    variables.push((prefix.to_owned(), whole.or(number.to_f64().map(|n| n.to_string())).unwrap()));
                }
                Value::Bool(_, is) => variables.push((prefix.to_owned(), is.to_string())),
                other => panic!("no kind of value that the README shows: {other:?}"),
            }
        }
        let readme = include_str!("../../README.md");
        let block = readme.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let tree: Value = Figment::from(Toml::string(block)).extract().unwrap();
        let mut variables = Vec::new();
        flatten("AURUM_CACHE", tree, &mut variables);
        let variables: Vec<_> =
            variables.into_iter().map(|(name, value)| (name.replacen("AURUM_CACHE__", PREFIX, 1), value)).collect();
        assert!(variables.len() > 20, "{variables:?}");
        let from_variables = layered(None, &variables).unwrap();
        assert_eq!(from_variables, with(block, &[]).unwrap());
    }

    #[test]
    fn an_error_names_the_setting_and_where_it_stands() {
        #[allow(clippy::type_complexity)] // a table of cases
        let cases: [(&str, &[(&str, &str)], &str, &str); 9] = [
            ("[memory]\ncapacity = 9", &[], "memory.capacity", "file a.toml"),
            ("", &[("AURUM_CACHE_MEMORY__CAPACITY", "9")], "memory.capacity", "variable AURUM_CACHE_MEMORY__CAPACITY"),
            ("[memory]\nsize = 1", &[], "memory.size", "file a.toml"),
            ("colour = 1", &[], "colour", "file a.toml"),
            ("[memory]\ncapacity = \"lots\"", &[], "memory.capacity", "\"lots\""),
            ("[redis]\ntimeout = 50", &[], "redis.timeout", "50ms"),
            ("", &[("AURUM_CACHE_MEMORY__CAPACITY", "lots")], "memory.capacity", "variable AURUM_CACHE_MEMORY__CAPACITY"),
            ("", &[("AURUM_CACHE_COLOUR", "red")], "colour", "variable AURUM_CACHE_COLOUR"),
            ("[namespaces.curves]\nenforce = \"maybe\"", &[], "namespaces.curves.enforce", "clamp"),
        ];
        for (text, variables, key, part) in cases {
            let error = with(text, variables).unwrap_err();
            assert_eq!((error.kind(), error.subject()), (ErrorKind::Config, key), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn a_named_file_that_is_absent_is_an_error_that_names_it() {
        let error = CacheConfig::from_file("no-such-folder/none.toml").unwrap_err();
        assert!(error.to_string().contains("no-such-folder/none.toml"), "{error}");
    }

    #[test]
    fn no_error_shows_a_password() {
        let url = "redis://:hunter2@host";
        let texts = [
            format!("redis = \"{url}\""),
            format!("[redis]\nurl = {{ a = \"{url}\" }}"),
            format!("[redis]\nurl = \"{url}"),
            format!("[redis]\ntimeout = \"{url}\""),
            format!("[redis]\nurl = [\"{url}\", 5]"),
            format!("[redis]\nurl = \"{url}\"\n[memory]\ncapacity = 1"),
            "[redis]\nurl = \"hunter2\"".to_owned(),
            format!("[memory]\ncapacity = \"{url}\""),
        ];
        for text in texts {
            let error = with(&text, &[]).unwrap_err();
            let seen = format!("{error} {error:?}");
            assert!(!seen.contains("hunter2"), "{seen}");
        }
        let error = with("", &[("AURUM_CACHE_REDIS", url)]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
