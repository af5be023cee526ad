//! Time as a value: the only place that reads a clock.
//!
//! Two times are told apart. **Steady** time never jumps and never runs backwards; every life,
//! deadline and age is counted in it. **Wall** time is what other processes understand; it stands in
//! the bytes that leave this process (entry header, ledger, stream) and nowhere else. Steady time is
//! given in milliseconds since the Unix epoch *as the wall clock stood when the clock was made*, so
//! that the two are equal until somebody sets the system's clock, and [`Clock::wall_offset`] is by
//! how much they differ since.
//!
//! A read of the system's clock costs about 20-40 ns, a third of a memory hit. So hits look at
//! [`Clock::coarse`], one relaxed load of a value that a ticker thread renews every 100 ms, and
//! only an entry whose deadline is within [`COARSE_SLACK_MS`] of it asks for the exact time. Expiry is
//! therefore exact to the millisecond, unless the ticker thread is starved for more than
//! 900 ms; it is then late by that surplus.
//!
//! On Linux steady time counts the time the machine was suspended (`CLOCK_BOOTTIME`), so that an
//! entry does not survive its TTL in a sleeping laptop.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

pub(crate) mod lap;

/// How far ahead of the coarse time a deadline must be for the coarse time to decide, in milliseconds:
/// ten times the period of the ticker.
pub(crate) const COARSE_SLACK_MS: u64 = 1_000;

/// The coarse time where there is no ticker: later than every deadline, also when compared with a sign.
const NO_TICKER: u64 = i64::MAX as u64;
/// How often the ticker renews the coarse time.
const TICK: Duration = Duration::from_millis(100);

/// Where a cache reads the time: the system's, or one that a test moves by hand.
///
/// Cheap to clone; clones show the same time. Give a manual clock to
/// [`Builder::clock`](crate::Builder::clock) to test how a service behaves when entries expire,
/// without sleeping.
///
/// ```
/// use aurum_cache::Clock;
/// use std::time::Duration;
///
/// let clock = Clock::manual();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(clock.now().duration_since(before).unwrap(), Duration::from_secs(30));
/// ```
#[derive(Clone)]
pub struct Clock {
    inner: Arc<Inner>,
}

struct Inner {
    /// Steady milliseconds: of the last tick, or of the last `advance` for a manual clock.
    coarse: AtomicU64,
    /// Wall time minus steady time at the last tick, in milliseconds; a manual clock has its own.
    coarse_offset: AtomicI64,
    watch: Watch,
    source: Source,
}

enum Source {
    System {
        /// Steady time at `origin`, in milliseconds since the Unix epoch.
        origin_ms: u64,
        /// The monotonic clock when this clock was made.
        origin: Duration,
    },
    Manual {
        /// Wall time minus steady time, in milliseconds.
        wall_offset: AtomicI64,
    },
}

impl Clock {
    /// The system's clock; what a cache uses unless told otherwise.
    pub fn system() -> Self {
        let clock = the_system().clone();
        ensure_ticker(&clock.inner);
        clock
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it. Starts at the present wall time. Its hundred bytes are never freed.
    pub fn manual() -> Self {
        let source = Source::Manual { wall_offset: AtomicI64::new(0) };
        let mut all = MANUAL.lock();
        // More than that many would not fit into memory.
        let watch = Watch(u32::try_from(all.len() + 1).expect("fewer than 2^32 manual clocks"));
        let clock = Self {
            inner: Arc::new(Inner { coarse: AtomicU64::new(wall_now_ms()), coarse_offset: AtomicI64::new(0), watch, source }),
        };
        all.push(clock.clone());
        clock
    }

    /// Moves a manual clock forward. A part of a millisecond counts as a whole one, so that no advance is lost.
    /// Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { .. } = self.inner.source {
            let ms = u64::try_from(by.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            let add = |now: u64| Some(now.saturating_add(ms).min(LATEST_MS));
            let _ = self.inner.coarse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        }
    }

    /// Sets the wall clock of a manual clock forward or back by whole milliseconds, as an operator or a time server does,
    /// while steady time goes on. Does nothing to the system's clock.
    pub fn jump_wall(&self, by_ms: i64) {
        if let Source::Manual { wall_offset } = &self.inner.source {
            let add = |offset: i64| Some(offset.saturating_add(by_ms));
            let _ = wall_offset.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        }
    }

    /// The wall time.
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.wall_ms())
    }

    /// Steady milliseconds, exact.
    pub(crate) fn steady(&self) -> u64 {
        match &self.inner.source {
            Source::System { origin_ms, origin } => {
                let elapsed = monotonic().saturating_sub(*origin);
                origin_ms.saturating_add(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Manual { .. } => self.inner.coarse.load(Ordering::SeqCst),
        }
    }

    /// Steady milliseconds, at most one tick old; one relaxed load.
    #[inline]
    pub(crate) fn coarse(&self) -> u64 {
        self.inner.coarse.load(Ordering::Relaxed)
    }

    /// Steady milliseconds, a tick old at most unless the ticker is starved; exact where there is no ticker.
    #[inline]
    pub(crate) fn recent(&self) -> u64 {
        match self.coarse() {
            NO_TICKER => self.steady(),
            coarse => coarse,
        }
    }

    /// Is `deadline` (steady milliseconds) in the future? Exact, and nearly always one load and one compare.
    #[inline]
    pub(crate) fn is_before(&self, deadline: u64) -> bool {
        (self.coarse() as i64) < deadline.wrapping_sub(COARSE_SLACK_MS) as i64 || self.is_before_exactly(deadline)
    }

    #[cold]
    fn is_before_exactly(&self, deadline: u64) -> bool {
        self.steady() < deadline
    }

    /// Wall time in milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        match &self.inner.source {
            Source::System { .. } => wall_now_ms(),
            Source::Manual { wall_offset } => {
                self.inner.coarse.load(Ordering::SeqCst).saturating_add_signed(wall_offset.load(Ordering::SeqCst)).min(LATEST_MS)
            }
        }
    }

    /// Wall time minus steady time, in milliseconds: zero until the system's clock is set. Add it to a steady time that
    /// leaves the process, subtract it from a wall time that comes in.
    pub(crate) fn wall_offset(&self) -> i64 {
        match &self.inner.source {
            Source::System { .. } => (wall_now_ms() as i64).saturating_sub(self.steady() as i64),
            Source::Manual { wall_offset } => wall_offset.load(Ordering::SeqCst),
        }
    }

    /// The same as it was a tick ago at most, for a reader of bytes that were written with the exact one: who reads in the very moment after the
    /// system's clock was set is wrong by as much as it was set.
    #[inline]
    pub(crate) fn recent_wall_offset(&self) -> i64 {
        match &self.inner.source {
            Source::System { .. } if self.coarse() == NO_TICKER => self.wall_offset(),
            Source::System { .. } => self.inner.coarse_offset.load(Ordering::Relaxed),
            Source::Manual { wall_offset } => wall_offset.load(Ordering::SeqCst),
        }
    }

    /// The same time for a value that is handed out, in a word that counts no reference.
    #[inline]
    pub(crate) fn watch(&self) -> Watch {
        self.inner.watch
    }

    /// A stopwatch for measuring how long work took. Always real time, also with a manual clock.
    pub(crate) fn stopwatch() -> Stopwatch {
        #[allow(clippy::disallowed_methods)] // this file is the one that reads clocks
        Stopwatch(std::time::Instant::now())
    }
}

/// Tells the exact steady time of a clock, and keeps no ticker running. See [`Clock::watch`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watch(u32);

/// Every manual clock there ever was, for the values that were handed out by its time. They are few and small, and a [`Watch`] need
/// not count them.
static MANUAL: Mutex<Vec<Clock>> = Mutex::new(Vec::new());

impl Watch {
    const SYSTEM: Self = Self(0);

    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The one that had this number.
    pub(crate) fn numbered(number: u32) -> Self {
        Self(number)
    }

    /// Steady milliseconds, exact.
    pub(crate) fn steady(self) -> u64 {
        match self {
            Self::SYSTEM => the_system().steady(),
            Self(number) => MANUAL.lock()[number as usize - 1].steady(),
        }
    }
}

/// The system's clock, whether its ticker runs or not.
fn the_system() -> &'static Clock {
    static SYSTEM: OnceLock<Clock> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let origin_ms = wall_now_ms();
        let source = Source::System { origin_ms, origin: monotonic() };
        Clock {
            inner: Arc::new(Inner {
                coarse: AtomicU64::new(origin_ms),
                coarse_offset: AtomicI64::new(0),
                watch: Watch::SYSTEM,
                source,
            }),
        }
    })
}

/// The latest time the clock tells: the year 9999. Later ones cannot be shown as a date.
pub(crate) const LATEST_MS: u64 = 253_402_300_799_000;

/// Real time since it was made.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// So long after it was made. Timeouts are bounded by the settings, and far from what a clock cannot tell.
    pub(crate) fn plus(self, timeout: Duration) -> std::time::Instant {
        self.0 + timeout
    }

    pub(crate) fn elapsed(self) -> Duration {
        #[allow(clippy::disallowed_methods)] // this file is the one that reads clocks
        self.0.elapsed()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner.source {
            Source::System { .. } => f.write_str("Clock(system)"),
            Source::Manual { .. } => write!(f, "Clock(manual, {} ms)", self.coarse()),
        }
    }
}

#[allow(clippy::disallowed_methods)] // this file is the one that reads clocks
fn wall_now_ms() -> u64 {
    // A clock before 1970 reads as 1970: everything is then from the future, and its age is zero.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(LATEST_MS).min(LATEST_MS)
}

/// A clock that nobody can set.
#[cfg(target_os = "linux")]
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A clock that nobody can set.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::disallowed_methods)] // this file is the one that reads clocks
fn monotonic() -> Duration {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// Starts the ticker of the system clock if it is not running. The thread ends by itself once only
/// it and the static hold the clock, so a process without caches has no thread of ours.
fn ensure_ticker(clock: &Arc<Inner>) {
    static RUNNING: Mutex<bool> = Mutex::new(false);
    let mut running = RUNNING.lock();
    refresh(clock);
    if *running {
        return;
    }
    let weak: Weak<Inner> = Arc::downgrade(clock);
    let ticker = move || {
        loop {
            std::thread::sleep(TICK);
            let mut running = RUNNING.lock();
            match weak.upgrade() {
                // This upgrade and the static hold one each.
                Some(clock) if Arc::strong_count(&clock) > 2 => refresh(&clock),
                _ => {
                    *running = false;
                    return;
                }
            }
        }
    };
    // No thread to be had: with the coarse time at its maximum every question is answered exactly.
    match std::thread::Builder::new().name("aurum-clock".into()).spawn(ticker) {
        Ok(_) => *running = true,
        Err(_) => clock.coarse.store(NO_TICKER, Ordering::Relaxed),
    }
}

/// Renews the coarse time.
fn refresh(clock: &Arc<Inner>) {
    let exact = Clock { inner: clock.clone() };
    clock.coarse_offset.store(exact.wall_offset(), Ordering::Relaxed);
    clock.coarse.store(exact.steady(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual();
        let (steady, wall) = (clock.steady(), clock.wall_ms());
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.steady(), steady + 1500);
        clock.jump_wall(-3_600_000);
        assert_eq!(clock.steady(), steady + 1500);
        assert_eq!(clock.wall_ms(), wall + 1500 - 3_600_000);
        assert_eq!(clock.wall_offset(), -3_600_000);
    }

    #[test]
    fn a_watch_tells_the_time_of_its_own_clock_also_after_it() {
        let (one, other) = (Clock::manual(), Clock::manual());
        one.advance(Duration::from_secs(100));
        let (now, watches) = (one.steady(), [one.watch(), other.watch(), the_system().watch()]);
        drop(one);
        let [of_one, of_other, of_system] = watches.map(Watch::steady);
        assert_eq!((of_one, of_other), (now, other.steady()));
        assert!(now - of_other > 99_000 && now - of_system > 90_000);
    }

    #[test]
    fn a_deadline_is_judged_exactly_near_and_far() {
        let clock = Clock::manual();
        let now = clock.steady();
        assert!(clock.is_before(now + 1));
        assert!(clock.is_before(now + COARSE_SLACK_MS + 1));
        assert!(!clock.is_before(now));
        assert!(!clock.is_before(0));
    }

    #[test]
    fn the_system_clock_ticks_and_agrees_with_itself() {
        let clock = Clock::system();
        let (first, coarse) = (clock.steady(), clock.coarse());
        assert!(coarse <= first);
        assert!(clock.steady() >= first);
        assert!(clock.wall_offset().abs() < 10_000);
        assert!((clock.recent_wall_offset() - clock.wall_offset()).abs() < 10_000);
    }

    #[test]
    fn no_advance_overflows() {
        let clock = Clock::manual();
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        clock.jump_wall(i64::MAX);
        let _ = clock.now();
        clock.jump_wall(i64::MIN);
        let _ = clock.now();
    }
}
