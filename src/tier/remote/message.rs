//! What nodes tell each other through the log: which keys are not what they were.
//!
//! One form of bytes, in the stream and in the list of pending repairs that a node keeps over a restart: a version, a kind, the
//! time, and five strings with their lengths. What comes in is foreign: it is bounded and checked, and a record that cannot be read
//! stands for [`Message::All`], because what it declared dead cannot be known.

use crate::error::{Error, shown};
use crate::key::MAX_KEY_BYTES;
use crate::namespace::{MAX_NAMESPACE_BYTES, Namespace};

const VERSION: u8 = 1;

/// The longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 4096;

/// The longest node name, reason or actor that travels, in bytes; more is cut.
const MAX_WORD_BYTES: usize = 512;

/// Who said it, when and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) node: String,
    pub(crate) reason: Option<String>,
    pub(crate) actor: Option<String>,
    /// Wall time of that node. For people: order comes from the log.
    pub(crate) at_ms: u64,
}

/// A change that other nodes must know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The key was overwritten.
    Set { namespace: Namespace, key: String, origin: Origin },
    /// The key was invalidated.
    Key { namespace: Namespace, key: String, origin: Origin },
    /// All keys of the namespace that match were invalidated.
    Pattern { namespace: Namespace, pattern: String, origin: Origin },
    /// The whole namespace was invalidated.
    Namespace { namespace: Namespace, origin: Origin },
    /// Everything was invalidated.
    All { origin: Origin },
}

impl Message {
    pub(crate) fn origin(&self) -> &Origin {
        match self {
            Self::Set { origin, .. }
            | Self::Key { origin, .. }
            | Self::Pattern { origin, .. }
            | Self::Namespace { origin, .. }
            | Self::All { origin } => origin,
        }
    }

    /// The one key it speaks of, if it is one.
    pub(crate) fn key(&self) -> Option<(Namespace, &str)> {
        match self {
            Self::Set { namespace, key, .. } | Self::Key { namespace, key, .. } => Some((*namespace, key)),
            _ => None,
        }
    }

    /// The namespace of what it covers; `None` is all of them.
    pub(crate) fn namespace(&self) -> Option<Namespace> {
        match self {
            Self::Set { namespace, .. }
            | Self::Key { namespace, .. }
            | Self::Pattern { namespace, .. }
            | Self::Namespace { namespace, .. } => Some(*namespace),
            Self::All { .. } => None,
        }
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, text) = match self {
            Self::Set { key, .. } => (b's', key.as_str()),
            Self::Key { key, .. } => (b'k', key.as_str()),
            Self::Pattern { pattern, .. } => (b'p', pattern.as_str()),
            Self::Namespace { .. } => (b'n', ""),
            Self::All { .. } => (b'a', ""),
        };
        let origin = self.origin();
        let mut out = vec![VERSION, kind];
        out.extend_from_slice(&origin.at_ms.to_le_bytes());
        let mut put = |text: &str, limit: usize| {
            let text = &text[..text.floor_char_boundary(limit)];
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        put(self.namespace().map_or("", Namespace::name), MAX_NAMESPACE_BYTES);
        put(text, MAX_KEY_BYTES.max(MAX_PATTERN_BYTES));
        put(&origin.node, MAX_WORD_BYTES);
        put(origin.reason.as_deref().unwrap_or(""), MAX_WORD_BYTES);
        put(origin.actor.as_deref().unwrap_or(""), MAX_WORD_BYTES);
        out
    }

    /// Reads foreign bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), or [`ErrorKind::InvalidNamespace`](crate::ErrorKind::InvalidNamespace)
    /// if it speaks of a namespace more than this process can have.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let refuse = |what: &str| Error::corrupt("record of the log", what);
        let (head, mut rest) = bytes.split_first_chunk::<10>().ok_or_else(|| refuse("is too short"))?;
        if head[0] != VERSION {
            return Err(refuse("has a version that this build does not read"));
        }
        let mut at_ms = [0; 8];
        at_ms.copy_from_slice(&head[2..]);
        let mut take = |limit: usize| {
            let (len, more) = rest.split_first_chunk::<2>().ok_or_else(|| refuse("is too short"))?;
            let len = usize::from(u16::from_le_bytes(*len));
            if len > limit || len > more.len() {
                return Err(refuse("has an impossible length"));
            }
            let (text, more) = more.split_at(len);
            rest = more;
            std::str::from_utf8(text).map_err(|_| refuse("is not text"))
        };
        let namespace = take(MAX_NAMESPACE_BYTES)?;
        let text = take(MAX_KEY_BYTES.max(MAX_PATTERN_BYTES))?;
        let (node, reason, actor) = (take(MAX_WORD_BYTES)?, take(MAX_WORD_BYTES)?, take(MAX_WORD_BYTES)?);
        if !rest.is_empty() {
            return Err(refuse("is longer than it says"));
        }
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let origin = Origin { node: node.to_owned(), reason: some(reason), actor: some(actor), at_ms: u64::from_le_bytes(at_ms) };
        let needed = || if text.is_empty() { Err(refuse("names no key")) } else { Ok(text.to_owned()) };
        Ok(match head[1] {
            b's' => Self::Set { key: needed()?, namespace: Namespace::parse(namespace)?, origin },
            b'k' => Self::Key { key: needed()?, namespace: Namespace::parse(namespace)?, origin },
            b'p' => Self::Pattern { pattern: needed()?, namespace: Namespace::parse(namespace)?, origin },
            b'n' => Self::Namespace { namespace: Namespace::parse(namespace)?, origin },
            b'a' => Self::All { origin },
            _ => return Err(refuse("is of a kind that this build does not know")),
        })
    }
}

impl std::fmt::Display for Message {
    /// For logs; without the whole key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Set { namespace, key, .. } => write!(f, "write of {namespace} {}", shown(key)),
            Self::Key { namespace, key, .. } => write!(f, "invalidation of {namespace} {}", shown(key)),
            Self::Pattern { namespace, pattern, .. } => write!(f, "invalidation of {namespace} keys like {}", shown(pattern)),
            Self::Namespace { namespace, .. } => write!(f, "invalidation of {namespace}"),
            Self::All { .. } => f.write_str("invalidation of everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Message> {
        let origin = Origin { node: "n1".into(), reason: Some("data_update".into()), actor: None, at_ms: 1_700_000_000_000 };
        let namespace = Namespace::CURVES;
        vec![
            Message::Set { namespace, key: "pjm".into(), origin: origin.clone() },
            Message::Key { namespace, key: "ü}:".into(), origin: origin.clone() },
            Message::Pattern { namespace, pattern: "pjm:*".into(), origin: origin.clone() },
            Message::Namespace { namespace, origin: origin.clone() },
            Message::All { origin },
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        for message in all_kinds() {
            assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn no_cut_or_stretched_record_passes() {
        for message in all_kinds() {
            let bytes = message.encode();
            for cut in 0..bytes.len() {
                assert!(Message::decode(&bytes[..cut]).is_err(), "{message} cut at {cut}");
            }
            assert!(Message::decode(&[bytes.as_slice(), b"x"].concat()).is_err());
        }
    }

    #[test]
    fn a_long_word_is_cut_between_characters() {
        let origin = Origin { node: "ü".repeat(400), ..Origin::default() };
        let back = Message::decode(&Message::All { origin }.encode()).unwrap();
        assert_eq!(back.origin().node, "ü".repeat(256));
    }
}
