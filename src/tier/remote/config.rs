//! What the Redis tier is told: where the server is, under which prefix it lives, how long it may take.
//!
//! A URL is checked here, before anything connects, so that a mistake is an error at `open` and not a tier that is
//! silently down. Its password is in no text that leaves this file but [`RedisUrl::secret`], which only the link reads.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

/// The longest key prefix, in bytes.
const MAX_PREFIX_BYTES: usize = 128;

/// Settings of the tier.
#[derive(Clone, Debug)]
pub(crate) struct RemoteConfig {
    /// One server, or several nodes of one Cluster.
    pub(crate) urls: Vec<RedisUrl>,
    /// What every key of ours begins with.
    pub(crate) key_prefix: String,
    /// The longest a read may take; also the deadline of one exchange with the server, to which big values add.
    pub(crate) timeout: Duration,
    /// The largest payload that is read or written, in bytes.
    pub(crate) max_value: u64,
    /// Whom to trust with `rediss`: certificates in PEM. Without it the usual authorities.
    pub(crate) ca: Option<Vec<u8>>,
}

impl RemoteConfig {
    /// The URLs, at least one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) on settings that cannot work.
    pub(super) fn check(&self) -> Result<&[RedisUrl], Error> {
        let Some((first, others)) = self.urls.split_first() else {
            return Err(Error::config("redis.url", "names no server; give one redis:// or rediss:// URL"));
        };
        // Other nodes of a Cluster tell their address and nothing else.
        if !others.iter().all(|url| url.user_info == first.user_info && url.is_tls == first.is_tls) {
            let advice = "names nodes of a Cluster that differ in scheme, user or password; give them the same";
            return Err(Error::config("redis.url", advice));
        }
        if !others.is_empty() && self.urls.iter().any(|url| !matches!(url.database.as_str(), "" | "0")) {
            return Err(Error::config("redis.url", "names a database of a Cluster, which has only one; leave the number out"));
        }
        if self.ca.is_some() && !first.is_tls {
            let advice = "says whom to trust, but redis.url is not encrypted; write rediss://, or leave the file out";
            return Err(Error::config("redis.ca_file", advice));
        }
        let prefix = &self.key_prefix;
        if prefix.is_empty()
            || prefix.len() > MAX_PREFIX_BYTES
            || !prefix.bytes().all(|b| b.is_ascii_graphic() && !b"{}".contains(&b))
        {
            let advice = "is not usable; use 1 to 128 visible ASCII characters without '{' and '}'";
            return Err(Error::config("redis.key_prefix", advice));
        }
        if self.timeout.is_zero() {
            return Err(Error::config("redis.timeout", "is zero; 50ms is a good start"));
        }
        Ok(&self.urls)
    }
}

/// The address of a Redis server, checked. Shows itself without its password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    /// With the password.
    full: String,
    /// What stands before the `@`, password included.
    user_info: String,
    /// The number after the host, or nothing.
    database: String,
    /// The part between `:` and `@`, still percent-encoded; empty where there is none.
    password: String,
    /// Without it.
    shown: String,
    is_tls: bool,
}

impl RedisUrl {
    /// Checks `redis://[user][:password@]host[:port][/database]` and the same with `rediss`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) naming `redis.url`, never the password.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |advice: &str| Err(Error::config("redis.url", advice));
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("is no URL; write redis://host:6379 or rediss://host:6379");
        };
        let is_tls = match scheme {
            "redis" => false,
            "rediss" if cfg!(feature = "tls") => true,
            "rediss" => return refuse("asks for TLS, which this build does not have; switch on the feature `tls`"),
            _ => return refuse("has another scheme than redis:// or rediss://"),
        };
        if rest.contains('#') {
            return refuse("has a fragment; `#insecure` and the like are not accepted, and a '#' in a password is written %23");
        }
        if rest.contains('?') {
            return refuse("has a query; leave out what follows the '?'");
        }
        if !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse("has blanks or other characters that a URL writes as %XX");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() && path.parse::<u16>().is_err() {
            return refuse("has a path that is no database number; write redis://host:6379/0");
        }
        let (user_info, address) = match authority.rsplit_once('@') {
            Some((user_info, address)) => (Some(user_info), address),
            None => (None, authority),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !address.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
            return refuse("names no host; write redis://host:6379 (an IPv6 address stands in brackets)");
        }
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return refuse("has a port that is no number from 1 to 65535");
        }
        let (user, password) = match user_info {
            Some(info) => info.split_once(':').unwrap_or((info, "")),
            None => ("", ""),
        };
        let mut shown = format!("{scheme}://");
        if user_info.is_some() {
            shown.push_str(user);
            shown.push_str(if password.is_empty() { "@" } else { ":***@" });
        }
        shown.push_str(address);
        if !path.is_empty() {
            shown.push('/');
            shown.push_str(path);
        }
        let (user_info, database) = (user_info.unwrap_or("").to_owned(), path.to_owned());
        Ok(Self { full: text.to_owned(), user_info, database, password: password.to_owned(), shown, is_tls })
    }

    /// The whole URL, for the link alone.
    pub(super) fn secret(&self) -> &str {
        &self.full
    }

    /// The password, for the link to take out of foreign error texts.
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// Is the connection encrypted?
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_never_shows_its_password() {
        let url = RedisUrl::parse("redis://app:s3cr3t@cache.local:6380/2").unwrap();
        assert_eq!(url.to_string(), "redis://app:***@cache.local:6380/2");
        assert!(!format!("{url:?}").contains("s3cr3t"));
        assert_eq!(RedisUrl::parse("redis://:s3cr3t@h").unwrap().to_string(), "redis://:***@h");
    }

    #[test]
    fn a_bad_url_is_an_error_that_names_the_setting_and_no_secret() {
        for bad in [
            "localhost:6379",
            "http://:s3cr3t@h",
            "redis://",
            "redis://:s3cr3t@",
            "redis://:s3cr3t@h:0",
            "redis://:s3cr3t@h:99999",
            "redis://:s3cr3t@h/name",
            "redis://:s3cr3t@::1",
            "redis://:s3cr3t@h#insecure",
            "redis://:s3cr3t@h?protocol=resp3",
            "redis://:s3 cr3t@h",
        ] {
            let error = RedisUrl::parse(bad).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Config, "{bad}");
            assert_eq!(error.subject(), "redis.url");
            assert!(!error.to_string().contains("cr3t"), "{error}");
        }
        assert!(RedisUrl::parse("redis://[::1]:6379/0").is_ok());
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn tls_without_the_feature_is_an_error_that_says_so() {
        assert!(RedisUrl::parse("rediss://h").unwrap_err().to_string().contains("feature `tls`"));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let url = RedisUrl::parse("redis://h").unwrap();
        let good = RemoteConfig {
            urls: vec![url.clone()],
            key_prefix: "aurum".into(),
            timeout: Duration::from_millis(50),
            max_value: 1 << 20,
            ca: None,
        };
        good.check().unwrap();
        let subject = |config: RemoteConfig| config.check().unwrap_err().subject().to_owned();
        assert_eq!(subject(RemoteConfig { urls: vec![], ..good.clone() }), "redis.url");
        let cluster = |second: &str| RemoteConfig { urls: vec![url.clone(), RedisUrl::parse(second).unwrap()], ..good.clone() };
        assert_eq!(cluster("redis://i:7000/0").check().unwrap().len(), 2);
        for other in ["redis://:password@i", "redis://user@i", "redis://i/1"] {
            assert_eq!(subject(cluster(other)), "redis.url");
        }
        assert_eq!(subject(RemoteConfig { ca: Some(Vec::new()), ..good.clone() }), "redis.ca_file");
        assert_eq!(subject(RemoteConfig { key_prefix: "a{b}".into(), ..good.clone() }), "redis.key_prefix");
        assert_eq!(subject(RemoteConfig { key_prefix: String::new(), ..good.clone() }), "redis.key_prefix");
        assert_eq!(subject(RemoteConfig { timeout: Duration::ZERO, ..good }), "redis.timeout");
    }
}
