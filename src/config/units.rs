//! Sizes and durations as people write them: `"256MiB"`, `"50ms"`.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes. Reads from an integer or from text with a unit (`"256MiB"`, `"4 GB"`); prints exactly, in the
/// largest binary unit that divides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    pub(crate) const fn mib(count: u64) -> Self {
        Self(count << 20)
    }
}

impl From<u64> for Size {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> Self {
        size.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let advice = || format!("{} is no size; write bytes or a unit, such as \"256MiB\"", crate::error::shown(text));
        text.parse::<ByteSize>().map(|size| Self(size.as_u64())).map_err(|_| advice())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match unit.into_iter().find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift) {
            Some((name, shift)) => f.pad(&format!("{}{name}", self.0 >> shift)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"256MiB\", or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom("is negative; write a size such as \"256MiB\""))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A duration as text with its unit, `"1m 30s"`. A bare number is refused: nobody knows whether it means seconds.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration with its unit, such as \"50ms\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                let advice = || format!("{} is no duration; write one such as \"50ms\" or \"4h\"", crate::error::shown(text));
                humantime::parse_duration(text).map_err(|_| E::custom(advice()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }

    /// The same where it may be left out.
    pub(crate) mod maybe {
        use super::*;

        #[derive(Deserialize)]
        struct Given(#[serde(with = "super")] Duration);

        pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<Given>::deserialize(deserializer)?.map(|given| given.0))
        }
    }
}

/// A policy that may be left out, by its name or as a duration. The type's own serde is a feature, settings are not.
pub(crate) mod policy {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::policy::TtlPolicy;

    pub(crate) fn serialize<S: Serializer>(policy: &Option<TtlPolicy>, serializer: S) -> Result<S::Ok, S::Error> {
        match policy {
            Some(policy) => serializer.collect_str(policy),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TtlPolicy>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_prints_exactly_and_reads_back() {
        for (bytes, text) in [(0, "0B"), (1, "1B"), (1 << 20, "1MiB"), (3 << 30, "3GiB"), (1_500, "1500B")] {
            assert_eq!(Size(bytes).to_string(), text);
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes));
        }
        assert!("lots".parse::<Size>().unwrap_err().contains("\"lots\""));
    }
}
