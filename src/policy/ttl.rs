//! The six TTL policies, and lives of any length.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, ErrorKind, shown};

/// The longest life: 100 years. A longer `Custom` is shortened to it, so that no arithmetic on deadlines can overflow.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How long an entry lives, and with it which tiers hold it.
///
/// | policy | life | written to disk |
/// |---|---|---|
/// | `UltraShort` | 30 s | never |
/// | `Short` | 5 min | never |
/// | `Medium` | 30 min | when memory evicts it |
/// | `Long` | 4 h | when memory evicts it |
/// | `Extended` | 24 h | on `set` |
/// | `Persistent` | 7 d | on `set` |
/// | `Custom(d)` | `d` | as the named policy of the same length or the next shorter one |
///
/// A life is counted from the write and never prolonged by a read, a promotion or a restart. A `Custom`
/// of zero is expired at once; one beyond 100 years lives 100 years.
///
/// Reads and prints as `ultra_short`, ..., `persistent`, or as a duration (`90s`, `2h 30m`):
///
/// ```
/// use aurum_cache::TtlPolicy;
/// use std::time::Duration;
///
/// assert_eq!("extended".parse::<TtlPolicy>()?, TtlPolicy::Extended);
/// assert_eq!("90s".parse::<TtlPolicy>()?, TtlPolicy::Custom(Duration::from_secs(90)));
/// assert_eq!(TtlPolicy::UltraShort.to_string(), "ultra_short");
/// assert!(TtlPolicy::Persistent.lands_on_disk());
/// # Ok::<(), aurum_cache::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TtlPolicy {
    /// 30 seconds.
    UltraShort,
    /// 5 minutes.
    Short,
    /// 30 minutes.
    Medium,
    /// 4 hours.
    Long,
    /// 24 hours; lands on disk.
    Extended,
    /// 7 days; lands on disk.
    Persistent,
    /// Any life.
    Custom(Duration),
}

impl TtlPolicy {
    /// The six named policies, shortest first.
    pub const NAMED: [Self; 6] = [Self::UltraShort, Self::Short, Self::Medium, Self::Long, Self::Extended, Self::Persistent];

    /// How long an entry of this policy lives from its write on.
    #[inline]
    pub fn ttl(self) -> Duration {
        match self {
            Self::UltraShort => Duration::from_secs(30),
            Self::Short => Duration::from_secs(5 * 60),
            Self::Medium => Duration::from_secs(30 * 60),
            Self::Long => Duration::from_secs(4 * 3_600),
            Self::Extended => Duration::from_secs(24 * 3_600),
            Self::Persistent => Duration::from_secs(7 * 86_400),
            Self::Custom(ttl) => ttl.min(MAX_TTL),
        }
    }

    /// The same in milliseconds, rounded down.
    #[inline]
    pub(crate) fn ttl_ms(self) -> u64 {
        bounded_ms(self.ttl())
    }

    /// Is an entry of this policy written to disk on `set`, where nothing else is configured?
    pub fn lands_on_disk(self) -> bool {
        matches!(self.class(), Self::Extended | Self::Persistent)
    }

    /// The named policy whose row of the placement table applies: itself, or for a custom life the
    /// longest named one that is not longer (`UltraShort` below that).
    pub fn class(self) -> Self {
        match self {
            Self::Custom(ttl) => Self::NAMED.into_iter().rev().find(|named| named.ttl() <= ttl).unwrap_or(Self::UltraShort),
            named => named,
        }
    }

    /// Its number in the header of an entry: 0 to 5 for the named policies, 6 for a custom life.
    #[inline]
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::UltraShort => 0,
            Self::Short => 1,
            Self::Medium => 2,
            Self::Long => 3,
            Self::Extended => 4,
            Self::Persistent => 5,
            Self::Custom(_) => 6,
        }
    }

    /// The policy of a header: a custom life is what lies between `created` and `expires`.
    pub(crate) fn from_tag(tag: u8, life: Duration) -> Option<Self> {
        match tag {
            0..=5 => Some(Self::NAMED[usize::from(tag)]),
            6 => Some(Self::Custom(life)),
            _ => None,
        }
    }
}

/// A time in milliseconds, rounded down; at most that of [`MAX_TTL`].
#[inline]
pub(crate) fn bounded_ms(time: Duration) -> u64 {
    // In 64 bits: a division of 128 takes longer than the rest of a write's arithmetic.
    let time = time.min(MAX_TTL);
    time.as_secs() * 1_000 + u64::from(time.subsec_millis())
}

impl fmt::Display for TtlPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UltraShort => f.pad("ultra_short"),
            Self::Short => f.pad("short"),
            Self::Medium => f.pad("medium"),
            Self::Long => f.pad("long"),
            Self::Extended => f.pad("extended"),
            Self::Persistent => f.pad("persistent"),
            Self::Custom(ttl) => f.pad(&humantime::format_duration(*ttl).to_string()),
        }
    }
}

impl FromStr for TtlPolicy {
    type Err = Error;

    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the text is neither a policy's name nor a duration.
    fn from_str(text: &str) -> Result<Self, Error> {
        let plain = text.trim().to_ascii_lowercase().replace('-', "_");
        if let Some(named) = Self::NAMED.into_iter().find(|named| named.to_string() == plain) {
            return Ok(named);
        }
        match plain.as_str() {
            "ultrashort" => Ok(Self::UltraShort),
            _ => humantime::parse_duration(text.trim()).map(Self::Custom).map_err(|_| {
                let advice =
                    "is no policy; use ultra_short, short, medium, long, extended, persistent, or a duration such as \"90s\"";
                Error::new(ErrorKind::Config, format!("policy {}", shown(text)), advice)
            }),
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for TtlPolicy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for TtlPolicy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_six_lives_are_as_published() {
        let seconds: Vec<u64> = TtlPolicy::NAMED.iter().map(|policy| policy.ttl().as_secs()).collect();
        assert_eq!(seconds, [30, 300, 1_800, 14_400, 86_400, 604_800]);
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let custom = TtlPolicy::Custom(Duration::from_millis(90_500));
        for policy in TtlPolicy::NAMED.into_iter().chain([custom]) {
            assert_eq!(policy.to_string().parse::<TtlPolicy>().unwrap(), policy);
        }
        assert!("soon".parse::<TtlPolicy>().unwrap_err().to_string().contains("\"soon\""));
    }

    #[test]
    fn a_custom_life_is_placed_like_the_next_shorter_policy() {
        let class = |seconds| TtlPolicy::Custom(Duration::from_secs(seconds)).class();
        assert_eq!(class(1), TtlPolicy::UltraShort);
        assert_eq!(class(299), TtlPolicy::UltraShort);
        assert_eq!(class(300), TtlPolicy::Short);
        assert_eq!(class(86_400), TtlPolicy::Extended);
        assert_eq!(class(u64::MAX), TtlPolicy::Persistent);
    }
}
