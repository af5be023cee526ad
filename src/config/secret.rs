//! URLs that may hold a password, and never show it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A Redis URL. `Debug`, `Display` and `Serialize` show it without user, password and parameters, so that settings can be
/// logged; what was serialized does not connect any more where there was a password.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The whole URL, for whoever connects.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url.trim().to_owned())
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}

impl fmt::Display for SecretUrl {
    /// What stands before the last `@` is hidden, even if it is not where a password belongs; so is what is no host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("***") };
        if !scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '+') {
            return f.write_str("***");
        }
        let (hidden, place) = match rest.rsplit_once('@') {
            Some((_, place)) => ("***@", place),
            None => ("", rest),
        };
        let (place, parameters) = match place.find(['?', '#']) {
            Some(at) => (&place[..at], "?***"),
            None => (place, ""),
        };
        match is_place(place) {
            true => write!(f, "{scheme}://{hidden}{place}{parameters}"),
            false => write!(f, "{scheme}://***"),
        }
    }
}

/// Host, port and database number: nothing in which a misplaced password could stand.
fn is_place(place: &str) -> bool {
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let bare = authority.rsplit_once(']').map_or(authority, |(_, port)| port);
    let port = bare.split_once(':').map_or("", |(_, port)| port);
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    authority.chars().all(is_host) && [port, path].iter().all(|number| number.chars().all(|c| c.is_ascii_digit()))
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One URL, or several of a Redis Cluster. Reads from text (several divided by commas) or from a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Urls(Vec<SecretUrl>);

impl Urls {
    /// Those of a text, divided by commas.
    pub(crate) fn divided(text: &str) -> Self {
        Self(divided(text).map(SecretUrl::from).collect())
    }

    pub(crate) fn as_slice(&self) -> &[SecretUrl] {
        &self.0
    }
}

impl From<Vec<SecretUrl>> for Urls {
    fn from(urls: Vec<SecretUrl>) -> Self {
        Self(urls)
    }
}

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Urls;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL such as \"redis://127.0.0.1:6379\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Urls, E> {
                Ok(Urls::divided(text))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Urls, A::Error> {
                let mut urls = Vec::new();
                while let Some(url) = list.next_element::<String>()? {
                    urls.push(url.into());
                }
                Ok(Urls(urls))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Parts at commas behind which a new URL begins: a comma within a password divides nothing.
fn divided(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text.trim());
    std::iter::from_fn(move || {
        let whole = rest.take().filter(|rest| !rest.is_empty())?;
        let begins = |at: &usize| whole[at + 1..].trim_start().starts_with("redis");
        match whole.match_indices(',').map(|(at, _)| at).find(begins) {
            Some(at) => {
                rest = Some(whole[at + 1..].trim_start());
                Some(&whole[..at])
            }
            None => Some(whole),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_a_url_shows_its_password() {
        for url in [
            "redis://user:hunter2@host:6379/0",
            "redis://:hunter2@host",
            "redis://:a/hunter2@b@host?pass=hunter2",
            "redis://:hunter2",
            "redis://host/hunter2",
            "hunter2",
            ":hunter2@host://x",
            "redis+unix:///run/redis.sock?pass=hunter2",
            "redis://hunter2:x/hunter2",
        ] {
            let secret = SecretUrl::from(url);
            let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(SecretUrl::from("redis://127.0.0.1:6379/2").to_string(), "redis://127.0.0.1:6379/2");
        assert_eq!(SecretUrl::from("redis://[::1]:6379").to_string(), "redis://[::1]:6379");
        assert_eq!(SecretUrl::from("rediss://u:p@h:1").to_string(), "rediss://***@h:1");
    }

    #[test]
    fn several_urls_are_divided_by_commas_but_a_password_is_not() {
        let parts: Vec<_> = divided("redis://:a,b@one, redis://two").collect();
        assert_eq!(parts, ["redis://:a,b@one", "redis://two"]);
    }
}
