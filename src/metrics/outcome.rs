//! The words for what is counted: why a read missed, what became of a loader, which act was timed.

/// Why a read missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MissCause {
    /// Not known to any tier.
    Absent,
    /// There, past its time.
    Expired,
    /// There, declared dead.
    Invalidated,
    /// There not long ago, put out for room.
    Evicted,
    /// There as another type.
    Schema,
    /// There, damaged.
    Corrupt,
    /// A tier that might have had it did not answer.
    TierDown,
}

impl MissCause {
    pub(crate) const COUNT: usize = 7;
}

/// What became of a loader, or of a caller who waited for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FetchOutcome {
    /// The loader brought a value.
    Ok,
    /// The loader returned an error.
    Failed,
    /// A caller waits for a loader that was running already.
    Joined,
    /// A caller gave up at its hard timeout.
    TimedOut,
    /// A background refresh brought a value.
    Refreshed,
    /// The loader panicked.
    Panicked,
    /// A stuck loader was given up for a new one.
    Replaced,
}

impl FetchOutcome {
    pub(crate) const COUNT: usize = 7;
}

/// Which act of a tier was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    /// A read.
    Get,
    /// A write.
    Set,
}
