//! Turns: every lane gets the same keys, one after the other, in an order that changes each round.
//!
//! A turn begins with a quarter of its keys untimed, so that a lane finds its own data in the processor's caches and not that of the
//! lane before it.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::contenders::Contender;
use crate::workload::Key;

/// What a lane does to a run of keys.
type Work = Box<dyn Fn(&[Key]) -> u64 + Send + Sync>;

/// One contender doing one thing to a run of keys. Returns something made of all it read.
pub struct Lane {
    /// As it stands in tables.
    pub name: String,
    work: Work,
}

impl Lane {
    /// A lane that does `work`.
    pub fn new(name: impl Into<String>, work: impl Fn(&[Key]) -> u64 + Send + Sync + 'static) -> Self {
        Self { name: name.into(), work: Box::new(work) }
    }

    /// Reads each key.
    pub fn get<C: Contender>(contender: &Arc<C>) -> Self {
        let cache = contender.clone();
        Self::new(cache.name(), move |keys| keys.iter().map(|key| cache.get(key).unwrap_or(0)).sum())
    }

    /// Stores each key.
    pub fn put<C: Contender>(contender: &Arc<C>, value: &[u8]) -> Self {
        let (cache, value) = (contender.clone(), value.to_vec());
        Self::new(cache.name(), move |keys| {
            keys.iter().for_each(|key| cache.put(key, &value));
            0
        })
    }

    /// Stores every twentieth key and reads the others.
    pub fn mixed<C: Contender>(contender: &Arc<C>, value: &[u8]) -> Self {
        let (cache, value) = (contender.clone(), value.to_vec());
        Self::new(cache.name(), move |keys| {
            let mut sum = 0;
            for (at, key) in keys.iter().enumerate() {
                if at % 20 == 19 {
                    cache.put(key, &value);
                } else {
                    sum += cache.get(key).unwrap_or(0);
                }
            }
            sum
        })
    }

    fn timed(&self, keys: &[Key]) -> Duration {
        let began = Instant::now();
        black_box((self.work)(black_box(keys)));
        began.elapsed()
    }
}

/// How long a race is.
#[derive(Clone, Copy)]
pub struct Course {
    /// Turns of each lane.
    pub rounds: usize,
    /// Timed operations in a turn.
    pub operations: usize,
}

impl Course {
    /// Keys that a turn needs: those that are not timed come first.
    pub fn keys(self) -> usize {
        self.operations + self.operations / 4
    }
}

/// What a race was like: for each lane, in the order given, a figure per round.
pub struct Results {
    /// Names of the lanes.
    pub names: Vec<String>,
    /// `figures[lane][round]`, in nanoseconds.
    pub figures: Vec<Vec<f64>>,
}

/// Nanoseconds an operation, one thread.
pub fn throughput(lanes: &[Lane], course: Course, feed: impl FnMut() -> Vec<Key>) -> Results {
    rounds(lanes, course, feed, |lane, warm, keys| {
        black_box((lane.work)(warm));
        lane.timed(keys).as_nanos() as f64 / keys.len() as f64
    })
}

/// Nanoseconds an operation, two threads at once, each with half of the keys.
pub fn two_threads(lanes: &[Lane], course: Course, feed: impl FnMut() -> Vec<Key>) -> Results {
    rounds(lanes, course, feed, |lane, warm, keys| {
        let barrier = Barrier::new(2);
        let run = |keys: &[Key]| {
            black_box((lane.work)(warm));
            barrier.wait();
            let began = Instant::now();
            black_box((lane.work)(keys));
            (began, Instant::now())
        };
        let (left, right) = keys.split_at(keys.len() / 2);
        let spans = std::thread::scope(|scope| {
            let other = scope.spawn(|| run(right));
            [run(left), other.join().expect("a thread that ends")]
        });
        let began = spans.iter().map(|span| span.0).min().expect("two");
        let ended = spans.iter().map(|span| span.1).max().expect("two");
        (ended - began).as_nanos() as f64 / keys.len() as f64
    })
}

/// Nanoseconds that `share` of the operations take at most, each timed by itself.
pub fn tail(lanes: &[Lane], course: Course, share: f64, feed: impl FnMut() -> Vec<Key>) -> Results {
    rounds(lanes, course, feed, |lane, warm, keys| {
        black_box((lane.work)(warm));
        quantile(&mut keys.chunks(1).map(|key| lane.timed(key)).collect::<Vec<_>>(), share)
    })
}

/// The same of all operations of a lane together, whichever turn they were in, and without any that is not timed; that of one race after the other, each
/// with lanes of its own.
pub fn tail_of_all(races: usize, course: Course, share: f64, mut lanes: impl FnMut() -> (Vec<Lane>, Vec<Key>)) -> Results {
    let mut results = Results { names: Vec::new(), figures: Vec::new() };
    let mut random = fastrand::Rng::with_seed(0x7a11);
    for _ in 0..races {
        let (lanes, keys) = lanes();
        let mut times = vec![Vec::with_capacity(keys.len()); lanes.len()];
        let mut order: Vec<usize> = (0..lanes.len()).collect();
        for turn in keys.chunks(course.operations) {
            random.shuffle(&mut order);
            for &lane in &order {
                times[lane].extend(turn.chunks(1).map(|key| lanes[lane].timed(key)));
            }
        }
        results.names = lanes.iter().map(|lane| lane.name.clone()).collect();
        results.figures.resize(lanes.len(), Vec::new());
        results.figures.iter_mut().zip(&mut times).for_each(|(figures, times)| figures.push(quantile(times, share)));
    }
    results
}

fn rounds(
    lanes: &[Lane],
    course: Course,
    mut feed: impl FnMut() -> Vec<Key>,
    turn: impl Fn(&Lane, &[Key], &[Key]) -> f64,
) -> Results {
    let mut figures = vec![Vec::with_capacity(course.rounds); lanes.len()];
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    let mut random = fastrand::Rng::with_seed(0x7a11);
    for _ in 0..course.rounds {
        let keys = feed();
        let (warm, timed) = keys.split_at(course.keys() - course.operations);
        random.shuffle(&mut order);
        for &lane in &order {
            figures[lane].push(turn(&lanes[lane], warm, timed));
        }
    }
    Results { names: lanes.iter().map(|lane| lane.name.clone()).collect(), figures }
}

impl Results {
    fn lane(&self, name: &str) -> &[f64] {
        let at = self.names.iter().position(|lane| lane == name).unwrap_or_else(|| panic!("no lane {name}"));
        &self.figures[at]
    }

    /// The median of a lane.
    pub fn figure(&self, name: &str) -> f64 {
        median(self.lane(name).to_vec())
    }

    /// The median over the rounds of one lane's figure over another's.
    pub fn ratio(&self, over: &str, under: &str) -> f64 {
        median(self.lane(over).iter().zip(self.lane(under)).map(|(over, under)| over / under).collect())
    }
}

/// Nanoseconds that `share` of the times do not exceed.
///
/// # Panics
///
/// If there is none.
pub fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() as f64 * share) as usize).min(times.len() - 1)].as_nanos() as f64
}

/// The middle one.
///
/// # Panics
///
/// If there is none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
