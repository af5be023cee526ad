//! The time that work took which is shorter than two looks at the system's clock.
//!
//! Such a look takes some 25 ns and waits until everything is done that the processor has under way; with one in front and one behind, a hit runs
//! alone. The processor's own counter of ticks is read at the begin of a lap without waiting for
//! anything, and at its end once the lap is done (`rdtscp`): the time of a read contains its waits for memory, and may contain
//! the rest of those of the read before. How long a tick is, is found out by the system's clock when somebody wants to know.
//!
//! The counter is used where Linux says that it may be (it counts at one rate, the same on all cores); elsewhere a tick is a nanosecond of the
//! system's clock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After so long a run, the length of a tick is known to a millionth, and found out no more.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// A moment at which a lap began.
#[derive(Clone, Copy)]
pub(crate) struct Lap(u64);

/// How long a lap took, by the counter that measured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(pub(crate) u64);

/// Nanoseconds of one tick.
#[derive(Clone, Copy)]
pub(crate) struct Scale(f64);

/// What counts the ticks of this process.
pub(crate) struct Counter {
    of_processor: bool,
    /// The same moment, by the system's clock and by the counter.
    origin: (Instant, u64),
    /// The [scale](Scale), as bits; zero while it is not known well.
    scale: AtomicU64,
}

impl Counter {
    pub(crate) fn of_process() -> &'static Self {
        static COUNTER: OnceLock<Counter> = OnceLock::new();
        COUNTER.get_or_init(|| Self::new(processor::counts_well()))
    }

    fn new(of_processor: bool) -> Self {
        Self { of_processor, origin: same_moment(of_processor), scale: AtomicU64::new(0) }
    }

    /// A lap begins now.
    #[inline]
    pub(crate) fn begin(&self) -> Lap {
        Lap(if self.of_processor { processor::begin() } else { self.nanos() })
    }

    /// A lap ends: everything that was begun in it is done.
    #[inline]
    pub(crate) fn end(&self, lap: Lap) -> Ticks {
        let now = if self.of_processor { processor::end() } else { self.nanos() };
        // A counter that another core is ahead of, or that began anew with the machine, took no time.
        Ticks(now.saturating_sub(lap.0))
    }

    /// How long a tick is, as far as it is known.
    pub(crate) fn scale(&self) -> Scale {
        if !self.of_processor {
            return Scale(1.0);
        }
        match self.scale.load(Ordering::Relaxed) {
            0 => self.find_scale(),
            known => Scale(f64::from_bits(known)),
        }
    }

    #[cold]
    fn find_scale(&self) -> Scale {
        let (now, ticks) = same_moment(true);
        let time = now.duration_since(self.origin.0);
        let ticks = ticks.saturating_sub(self.origin.1).max(1);
        let scale = time.as_nanos() as f64 / ticks as f64;
        if time >= LONG_ENOUGH {
            self.scale.store(scale.to_bits(), Ordering::Relaxed);
        }
        Scale(scale)
    }

    fn nanos(&self) -> u64 {
        #[allow(clippy::disallowed_methods)] // a room of the file that reads clocks
        u64::try_from(self.origin.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Scale {
    /// In nanoseconds, as near as the scale is known.
    #[inline]
    pub(crate) fn nanos(self, ticks: Ticks) -> u64 {
        (ticks.0 as f64 * self.0) as u64
    }
}

/// The present moment by the system's clock and by the processor's counter: the nearest of some looks, between which a thread may lose its core.
#[allow(clippy::disallowed_methods)] // a room of the file that reads clocks
fn same_moment(of_processor: bool) -> (Instant, u64) {
    let looks = (0..4).map(|_| {
        let (before, ticks, after) = (Instant::now(), if of_processor { processor::end() } else { 0 }, Instant::now());
        (after.duration_since(before), before, ticks)
    });
    let (_, time, ticks) = looks.min_by_key(|look| look.0).expect("four looks");
    (time, ticks)
}

/// The counter of x86-64, which runs at one rate from switching on.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod processor {
    /// Is it one that Linux would tell the time by, and can its end of a lap be read?
    pub(super) fn counts_well() -> bool {
        /// Of the extended features, `rdtscp`.
        const READ_WHEN_DONE: u32 = 1 << 27;
        let sources = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/available_clocksource");
        sources.is_ok_and(|sources| sources.split_whitespace().any(|source| source == "tsc"))
            && std::arch::x86_64::__cpuid(0x8000_0000).eax > 0x8000_0000
            && std::arch::x86_64::__cpuid(0x8000_0001).edx & READ_WHEN_DONE != 0
    }

    #[inline]
    pub(super) fn begin() -> u64 {
        safe_arch::read_timestamp_counter()
    }

    #[inline]
    pub(super) fn end() -> u64 {
        safe_arch::read_timestamp_counter_p(&mut 0)
    }
}

/// None that is known to count well.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod processor {
    pub(super) fn counts_well() -> bool {
        false
    }

    pub(super) fn begin() -> u64 {
        0
    }

    pub(super) fn end() -> u64 {
        0
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a room of the file that reads clocks
mod tests {
    use super::*;

    /// Both, if the processor's counts well.
    fn counters() -> impl Iterator<Item = Counter> {
        [false, true].into_iter().filter(|of_processor| !of_processor || processor::counts_well()).map(Counter::new)
    }

    #[test]
    fn a_lap_takes_as_long_as_the_system_clock_says() {
        for counter in counters() {
            let near = |_| {
                let (before, lap, after) = (Instant::now(), counter.begin(), Instant::now());
                while after.elapsed() < Duration::from_millis(20) {}
                let least = after.elapsed();
                let ticks = counter.end(lap);
                let most = before.elapsed();
                let took = Duration::from_nanos(counter.scale().nanos(ticks));
                took.mul_f64(1.01) > least && took < most.mul_f64(1.01)
            };
            // A thread that loses its core in the wrong moment measures what nobody meant.
            assert!((0..50).any(near), "by the processor: {}", counter.of_processor);
        }
    }

    #[test]
    fn a_scale_that_was_found_out_over_a_long_run_stays() {
        for counter in counters() {
            while counter.origin.0.elapsed() < LONG_ENOUGH {}
            let first = counter.scale().0;
            assert_eq!(first.to_bits(), counter.scale().0.to_bits());
        }
    }

    #[test]
    fn a_lap_that_ends_before_it_began_took_no_time() {
        for counter in counters() {
            assert_eq!(counter.end(Lap(u64::MAX)), Ticks(0));
            assert_eq!(counter.scale().nanos(Ticks(0)), 0);
        }
    }
}
