//! What a cache of another size would have done with a trace: LRU exactly, and the memory tier's kind of policy in miniature.
//!
//! Both follow a sample of the keys, chosen by hash, with the capacity scaled to match: a key is either followed in all its
//! requests or in none, so that the distances between its uses keep their shape (SHARDS, Waldspurger et al., FAST 2015; the
//! miniature caches are theirs too, ATC 2017). The sample never has exactly its share of the requests; what is missing or too
//! much is counted as the hottest hits, which removes most of the error (their "adjusted" variant).
//!
//! LRU needs one pass for all sizes: the bytes used since a key's last use, from a Fenwick tree over time. The policy of the
//! memory tier is adaptive and not simulated here in full; S3-FIFO (Yang et al., SOSP 2023), from which it descends, stands
//! for it and is on most traces a little worse, so that a recommendation made from it is on the safe side.

use std::collections::VecDeque;

use crate::trace::Trace;

/// What an entry costs besides its key and value, in bytes.
const OVERHEAD: u64 = 64;

/// One capacity and what it would have brought.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// Share of requests that hit under LRU, 0..=1.
    pub(crate) lru: f64,
    /// Share of requests that hit under S3-FIFO, 0..=1.
    pub(crate) cache: f64,
}

/// The followed part of a trace.
pub(crate) struct Sample {
    /// Requests: position in `weights`.
    requests: Vec<u32>,
    /// Bytes of each followed key with its overhead; the size at its first request.
    weights: Vec<u64>,
    /// Share of the keys that are followed, 0..=1.
    pub(crate) share: f64,
    /// Requests that the sample stands for, scaled by the share.
    expected: f64,
    /// Bytes of all keys of the trace, estimated.
    pub(crate) footprint: u64,
}

impl Sample {
    /// Follows about `most` keys of the trace.
    pub(crate) fn of(trace: &Trace, most: u64, value_bytes: u64) -> Self {
        let share = (most as f64 / trace.unique() as f64).min(1.0);
        let threshold = if share < 1.0 { (share * u64::MAX as f64) as u64 } else { u64::MAX };
        let mut numbers = vec![u32::MAX; usize::try_from(trace.unique()).unwrap_or(0)];
        let (mut requests, mut weights) = (Vec::new(), Vec::new());
        for request in &trace.requests {
            if mix(u64::from(request.key)) > threshold {
                continue;
            }
            let number = &mut numbers[request.key as usize];
            if *number == u32::MAX {
                *number = weights.len() as u32;
                let value = if request.size == 0 { value_bytes } else { u64::from(request.size) };
                weights.push(value + trace.key(request.key).len() as u64 + OVERHEAD);
            }
            requests.push(*number);
        }
        let footprint = (weights.iter().sum::<u64>() as f64 / share) as u64;
        Self { requests, weights, share, expected: trace.requests.len() as f64 * share, footprint }
    }

    /// Both policies at `points` capacities from a thousandth of the footprint to all of it. `step` is called once a capacity.
    pub(crate) fn curve(&self, points: u32, mut step: impl FnMut()) -> Vec<Point> {
        let distances = self.lru_distances();
        let mean = (self.weights.iter().sum::<u64>() / (self.weights.len() as u64).max(1)).max(1);
        let least = (self.footprint / 1000).max(mean * 8).min(self.footprint.max(1));
        let growth = (self.footprint.max(1) as f64 / least as f64).powf(1.0 / f64::from(points.max(2) - 1));
        let mut curve = Vec::new();
        for at in 0..points {
            let bytes = (least as f64 * growth.powi(at as i32)).round() as u64;
            let scaled = ((bytes as f64 * self.share) as u64).max(1);
            let lru = self.ratio(distances.partition_point(|&distance| distance <= scaled) as u64);
            let cache = self.ratio(self.s3_fifo(scaled));
            curve.push(Point { bytes, entries: bytes / mean, lru, cache });
            step();
        }
        curve.dedup_by_key(|point| point.bytes);
        curve
    }

    /// The hit ratio of a cache that never forgets.
    pub(crate) fn highest(&self) -> f64 {
        self.ratio((self.requests.len() - self.weights.len()) as u64)
    }

    /// Hits of the sample as a share of the whole, with the sample's surplus or lack counted as hits.
    fn ratio(&self, hits: u64) -> f64 {
        let lacking = self.expected - self.requests.len() as f64;
        ((hits as f64 + lacking) / self.expected.max(1.0)).clamp(0.0, 1.0)
    }

    /// For each request of a key seen before: the capacity from which LRU has it. Sorted.
    fn lru_distances(&self) -> Vec<u64> {
        let mut tree = Fenwick::new(self.requests.len());
        let mut last = vec![usize::MAX; self.weights.len()];
        let mut distances = Vec::with_capacity(self.requests.len());
        for (now, &key) in self.requests.iter().enumerate() {
            let (key, weight) = (key as usize, self.weights[key as usize]);
            if last[key] != usize::MAX {
                // All that was used at or after the last use, each once at its newest place: this key itself included.
                distances.push(tree.total - tree.before(last[key]));
                tree.take(last[key], weight);
            }
            tree.add(now, weight);
            last[key] = now;
        }
        distances.sort_unstable();
        distances
    }

    /// Hits of S3-FIFO with `capacity` bytes: a tenth for newcomers, the rest for what was used twice, ghosts of the dropped.
    fn s3_fifo(&self, capacity: u64) -> u64 {
        let mut state = vec![Slot { place: Place::Out, hits: 0 }; self.weights.len()];
        let (mut small, mut main, mut ghosts) = (Queue::default(), Queue::default(), Queue::default());
        let share = capacity / 10;
        let mut hits = 0;
        for &key in &self.requests {
            let weight = self.weights[key as usize];
            let slot = &mut state[key as usize];
            if matches!(slot.place, Place::Small | Place::Main) {
                slot.hits = (slot.hits + 1).min(3);
                hits += 1;
                continue;
            }
            if weight > capacity {
                continue;
            }
            let returns = slot.place == Place::Ghost;
            while small.bytes + main.bytes + weight > capacity {
                if small.bytes > share || main.bytes == 0 {
                    let Some(oldest) = small.pop(&self.weights) else { break };
                    let slot = &mut state[oldest as usize];
                    if slot.hits > 1 {
                        *slot = Slot { place: Place::Main, hits: 0 };
                        main.push(oldest, &self.weights);
                    } else {
                        slot.place = Place::Ghost;
                        ghosts.push(oldest, &self.weights);
                        while ghosts.bytes > capacity - share {
                            let Some(forgotten) = ghosts.pop(&self.weights) else { break };
                            if state[forgotten as usize].place == Place::Ghost {
                                state[forgotten as usize].place = Place::Out;
                            }
                        }
                    }
                } else {
                    let Some(oldest) = main.pop(&self.weights) else { break };
                    let slot = &mut state[oldest as usize];
                    if slot.hits > 0 {
                        slot.hits -= 1;
                        main.push(oldest, &self.weights);
                    } else {
                        slot.place = Place::Out;
                    }
                }
            }
            let place = if returns { Place::Main } else { Place::Small };
            state[key as usize] = Slot { place, hits: 0 };
            if returns { main.push(key, &self.weights) } else { small.push(key, &self.weights) }
        }
        hits
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Out,
    Small,
    Main,
    Ghost,
}

#[derive(Clone, Copy)]
struct Slot {
    place: Place,
    /// Uses since it came, 0..=3.
    hits: u8,
}

/// Keys in the order they came, and their bytes.
#[derive(Default)]
struct Queue {
    keys: VecDeque<u32>,
    bytes: u64,
}

impl Queue {
    fn push(&mut self, key: u32, weights: &[u64]) {
        self.bytes += weights[key as usize];
        self.keys.push_back(key);
    }

    fn pop(&mut self, weights: &[u64]) -> Option<u32> {
        let key = self.keys.pop_front()?;
        self.bytes -= weights[key as usize];
        Some(key)
    }
}

/// Sums over a range of time in logarithmic steps.
struct Fenwick {
    sums: Vec<u64>,
    total: u64,
}

impl Fenwick {
    fn new(length: usize) -> Self {
        Self { sums: vec![0; length + 1], total: 0 }
    }

    fn add(&mut self, at: usize, weight: u64) {
        self.total += weight;
        self.each(at, |sum| *sum += weight);
    }

    fn take(&mut self, at: usize, weight: u64) {
        self.total -= weight;
        self.each(at, |sum| *sum -= weight);
    }

    fn each(&mut self, at: usize, change: impl Fn(&mut u64)) {
        let mut node = at + 1;
        while node < self.sums.len() {
            change(&mut self.sums[node]);
            node += node & node.wrapping_neg();
        }
    }

    /// The sum of all places before `at`.
    fn before(&self, at: usize) -> u64 {
        let (mut node, mut sum) = (at, 0);
        while node > 0 {
            sum += self.sums[node];
            node &= node - 1;
        }
        sum
    }
}

/// SplitMix64's finisher: neighbours land far apart.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judge: a list of keys, newest last.
    fn naive_lru(sample: &Sample, capacity: u64) -> u64 {
        let (mut list, mut hits) = (Vec::<u32>::new(), 0);
        for &key in &sample.requests {
            if let Some(at) = list.iter().position(|&held| held == key) {
                let newer: u64 = list[at..].iter().map(|&held| sample.weights[held as usize]).sum();
                hits += u64::from(newer <= capacity);
                list.remove(at);
            }
            list.push(key);
        }
        hits
    }

    #[test]
    fn lru_distances_agree_with_a_naive_list() {
        let sample = Sample::of(&Trace::zipf(4_000, 300, 0.8), u64::MAX, 100);
        let distances = sample.lru_distances();
        for capacity in [500, 5_000, 20_000, 40_000, 1 << 30] {
            let counted = distances.partition_point(|&distance| distance <= capacity) as u64;
            assert_eq!(counted, naive_lru(&sample, capacity), "{capacity}");
        }
    }

    #[test]
    fn a_cache_as_large_as_everything_misses_each_key_once() {
        let trace = Trace::zipf(4_000, 300, 0.8);
        let sample = Sample::of(&trace, u64::MAX, 100);
        assert_eq!(sample.s3_fifo(u64::MAX / 4), 4_000 - trace.unique());
        let curve = sample.curve(5, || ());
        assert!(curve.last().is_some_and(|point| (point.cache - sample.highest()).abs() < 1e-9));
    }

    #[test]
    fn a_sample_is_close_to_the_whole() {
        let trace = Trace::zipf(200_000, 20_000, 0.9);
        let whole = Sample::of(&trace, u64::MAX, 1000).curve(6, || ());
        let part = Sample::of(&trace, 4_000, 1000).curve(6, || ());
        for (whole, part) in whole.iter().zip(&part).skip(2) {
            assert!((whole.lru - part.lru).abs() < 0.03, "{} against {}", whole.lru, part.lru);
            assert!((whole.cache - part.cache).abs() < 0.04, "{} against {}", whole.cache, part.cache);
        }
    }
}
