//! Keys, values, and the order in which they are asked for.
//!
//! All of it is seeded: two runs ask for the same keys in the same order.

use arrayvec::ArrayString;

/// Bytes of a key.
pub const KEY_BYTES: usize = 24;

/// A key, ready to be asked for: 24 bytes of text. Those who keep a copy of their own make it from this.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(ArrayString<KEY_BYTES>);

impl Key {
    /// The `number`-th key of a kind. Kinds do not meet.
    pub fn new(kind: Kind, number: u64) -> Self {
        let mut text = *match kind {
            Kind::Stored => b"hub:00000000000000000000",
            Kind::Absent => b"gap:00000000000000000000",
        };
        let (mut left, mut at) = (number, KEY_BYTES);
        while left > 0 {
            at -= 1;
            text[at] += (left % 10) as u8;
            left /= 10;
        }
        Self(ArrayString::from_byte_string(&text).expect("digits are text"))
    }

    /// As text, without an allocation.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether anybody ever stores the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Stored.
    Stored,
    /// Never stored.
    Absent,
}

/// Draws numbers below a bound: the k-th most popular in proportion to `k^-skew`.
pub struct Zipf {
    cumulative: Vec<f64>,
    random: fastrand::Rng,
}

impl Zipf {
    /// Over `keys` numbers. The popular ones are the low ones; who stores them should do so in [`shuffled`] order.
    pub fn new(keys: usize, skew: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=keys).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Self { cumulative: cumulative.collect(), random: fastrand::Rng::with_seed(seed) }
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        let drawn = self.random.f64() * self.cumulative.last().expect("some keys");
        self.cumulative.partition_point(|&upto| upto < drawn) as u64
    }

    /// The next `count` keys.
    pub fn keys(&mut self, count: usize) -> Vec<Key> {
        (0..count).map(|_| Key::new(Kind::Stored, self.draw())).collect()
    }
}

/// The stored keys below `count`, in an order that has nothing to do with how popular they are.
pub fn shuffled(count: usize) -> Vec<Key> {
    let mut numbers: Vec<u64> = (0..count as u64).collect();
    fastrand::Rng::with_seed(0x0dd).shuffle(&mut numbers);
    numbers.into_iter().map(|number| Key::new(Kind::Stored, number)).collect()
}

/// A value of `bytes` bytes that no compression shrinks.
pub fn value(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut value = vec![0; bytes];
    random.fill(&mut value);
    value
}

/// Reads a value where it begins and where it ends.
pub fn touch(value: &[u8]) -> u64 {
    value.first().copied().map_or(0, u64::from) + value.last().copied().map_or(0, u64::from)
}
