//! THE READ PATH: memory, disk, Redis, in this order; what a lower tier has goes up.
//!
//! The front door looks into memory itself, without a future ([`Engine::resident`]); only a miss there comes to
//! [`Engine::read`]. Whatever is found must pass four questions before it is served: is it in time, is no live rule against
//! it, is it of the reader's type, and did it check? The answer to a *no* is a miss with a cause, never an error.

use crate::engine::state::{Engine, Found, Want};
use crate::entry::{Entry, Verdict};
use crate::invalidation::gate::FillToken;
use crate::invalidation::rule::FillStamp;
use crate::key::Key;
use crate::metrics::{MissCause, Verb};
use crate::tier::remote::Lease;
use crate::tier::{Lookup, Tier};

/// What a read came to.
pub(crate) enum Read {
    Hit(Found),
    /// Nothing fresh. The most telling cause, and a value past its life that may stand in if a fetch fails.
    Miss {
        cause: MissCause,
        stale: Option<Found>,
        lease: Option<Lease>,
    },
}

/// What a reader does where nobody has the value.
#[derive(Clone, Copy)]
pub(crate) enum OnMiss {
    Nothing,
    /// Makes it, and needs Redis' leave to share it.
    Load,
}

/// What memory alone says of a key.
pub(crate) enum Resident<R> {
    Hit(R),
    /// There, but not to be served, or not as what the reader wants.
    Refused,
    Absent,
}

impl<R> Resident<R> {
    pub(crate) fn hit(self) -> Option<R> {
        match self {
            Self::Hit(result) => Some(result),
            Self::Refused | Self::Absent => None,
        }
    }
}

/// A fill under way: its place in the sequence and its claim on the key. Taken before anything is read below memory.
pub(crate) struct Fill {
    pub(crate) token: FillToken,
    pub(crate) stamp: FillStamp,
}

impl Engine {
    /// Looks into memory alone. `read` runs on a fresh entry that no rule covers, without a lock or a reference count.
    #[inline]
    pub(crate) fn resident<R>(&self, key: &Key<'_>, read: impl FnOnce(&Entry) -> Option<R>) -> Resident<R> {
        match self.memory.with(key, |entry| if self.is_servable(entry, key) { read(entry) } else { None }) {
            Some(Some(result)) => Resident::Hit(result),
            Some(None) => Resident::Refused,
            None => Resident::Absent,
        }
    }

    /// Is it in time, and does no live rule cover it?
    #[inline]
    pub(crate) fn is_servable(&self, entry: &Entry, key: &Key<'_>) -> bool {
        // With no rule, which is nearly always, the stamp is not put together.
        self.clock.is_before(entry.expires()) && (self.rules.are_none() || !self.rules.covers(entry.stamp(), key.id, key.text))
    }

    /// Why a key is in no tier, as far as that is remembered.
    pub(crate) fn why_absent(&self, key: &Key<'_>) -> MissCause {
        self.departed.cause(key.hash).unwrap_or(MissCause::Absent)
    }

    /// Why memory refused to serve a key as this type.
    pub(crate) fn why_refused(&self, key: &Key<'_>, fingerprint: u64) -> MissCause {
        let Some(entry) = self.memory.peek(key) else { return self.why_absent(key) };
        if self.rules.covers(entry.stamp(), key.id, key.text) {
            MissCause::Invalidated
        } else if entry.meta().fingerprint != fingerprint {
            MissCause::Schema
        } else if !self.clock.is_before(entry.expires()) {
            MissCause::Expired
        } else {
            // Landed since the look that missed, or it does not validate, which a read through all tiers finds out.
            MissCause::Absent
        }
    }

    /// What memory does not hold, read from the disk without a future: a record in the page cache, or a key that no tier knows. `None` is everything
    /// else, which [`read`](Self::read) then does from the start; nothing was counted in that case.
    pub(crate) fn read_now(&self, key: &Key<'_>, want: Want) -> Option<Option<Found>> {
        let disk = self.disk.as_ref()?;
        let took = self.recorder.sample_cached();
        // Before anything is read: whatever is written or declared from here on keeps what we read from landing.
        let (moment, stamp) = (self.gates.moment(), self.rules.now());
        match disk.get_now(key)? {
            Lookup::Hit(entry) if self.is_servable(&entry, key) && (want.check)(&entry, want.fingerprint) == Verdict::Yes => {
                if let Some((took, reads)) = took {
                    self.recorder.timed_for(Tier::Disk, Verb::Get, took.elapsed(), reads);
                }
                self.recorder.tier_miss(Tier::Memory, key.id);
                self.promote_now(key, &entry, moment, stamp);
                self.recorder.hit(Tier::Disk, key.id);
                Some(Some(Found { entry, tier: Tier::Disk }))
            }
            Lookup::Miss if self.remote.is_none() => {
                self.recorder.tier_miss(Tier::Memory, key.id);
                self.recorder.tier_miss(Tier::Disk, key.id);
                self.recorder.miss(key.id, self.why_absent(key));
                Some(None)
            }
            _ => None,
        }
    }

    /// Reads through all tiers and counts the hit or the miss.
    pub(crate) async fn read(&self, key: &Key<'_>, want: Want) -> Option<Found> {
        match self.find(key, want, OnMiss::Nothing).await {
            Read::Hit(found) => {
                self.recorder.hit(found.tier, key.id);
                Some(found)
            }
            Read::Miss { cause, .. } => {
                self.recorder.miss(key.id, cause);
                None
            }
        }
    }

    /// Reads through all tiers: the first that has the value, fresh and whole, answers.
    pub(crate) async fn find(&self, key: &Key<'_>, want: Want, on_miss: OnMiss) -> Read {
        let mut miss = Missing::new();
        if let Some(found) = self.find_in_memory(key, want, &mut miss) {
            return Read::Hit(found);
        }
        if !self.is_memory_only() {
            // Before anything is read: whatever is written from here on keeps what we read from landing.
            let fill = self.begin_fill(key);
            if let Some(found) = self.find_on_disk(key, want, &fill, &mut miss).await {
                return Read::Hit(found);
            }
            if let Some(found) = self.find_in_redis(key, want, on_miss, &fill, &mut miss).await {
                return Read::Hit(found);
            }
        }
        miss.into_read(self, key)
    }

    /// Again, because the front door's look may have been long ago, and to learn why it was a miss.
    pub(crate) fn find_in_memory(&self, key: &Key<'_>, want: Want, miss: &mut Missing) -> Option<Found> {
        let found = self.memory.get(key).and_then(|entry| self.judge(key, want, entry, Tier::Memory, miss));
        if found.is_none() {
            self.recorder.tier_miss(Tier::Memory, key.id);
        }
        found
    }

    /// Asks the disk, and promotes what it has.
    pub(crate) async fn find_on_disk(&self, key: &Key<'_>, want: Want, fill: &Fill, miss: &mut Missing) -> Option<Found> {
        let entry = self.read_disk(key, miss).await?;
        let found = self.judge(key, want, entry, Tier::Disk, miss)?;
        self.promote(key, &found, fill);
        Some(found)
    }

    /// Asks Redis, and promotes what it has.
    async fn find_in_redis(&self, key: &Key<'_>, want: Want, on_miss: OnMiss, fill: &Fill, miss: &mut Missing) -> Option<Found> {
        let entry = self.read_remote(key, on_miss, fill, miss).await?;
        let found = self.judge(key, want, entry, Tier::Redis, miss)?;
        self.promote(key, &found, fill);
        Some(found)
    }

    /// Is there no tier below memory?
    #[inline]
    pub(crate) fn is_memory_only(&self) -> bool {
        self.disk.is_none() && self.remote.is_none()
    }

    /// Takes the token of a fill.
    pub(crate) fn begin_fill(&self, key: &Key<'_>) -> Fill {
        // The stamp first: a rule declared between the two then covers the fill, instead of missing it.
        let stamp = self.rules.begin();
        Fill { token: self.gates.fill(key.hash), stamp }
    }

    async fn read_disk(&self, key: &Key<'_>, miss: &mut Missing) -> Option<Entry> {
        let disk = self.disk.as_ref()?;
        let took = crate::clock::Clock::stopwatch();
        let lookup = disk.get(key).await;
        self.recorder.timed(Tier::Disk, Verb::Get, took.elapsed());
        self.take(key, lookup, Tier::Disk, miss)
    }

    async fn read_remote(&self, key: &Key<'_>, on_miss: OnMiss, fill: &Fill, miss: &mut Missing) -> Option<Entry> {
        let remote = self.remote.as_ref()?;
        if !self.may_ask_redis(key) {
            miss.because(MissCause::Invalidated);
            return None;
        }
        let took = crate::clock::Clock::stopwatch();
        let lookup = match on_miss {
            OnMiss::Nothing => remote.get(key, fill.stamp.stamp, took).await,
            OnMiss::Load => {
                // Apart, so that the future of a read that needs no lease is small.
                let (lookup, lease) = Box::pin(remote.get_leased(key, fill.stamp.stamp)).await;
                miss.lease = lease;
                lookup
            }
        };
        self.recorder.timed(Tier::Redis, Verb::Get, took.elapsed());
        self.take(key, lookup, Tier::Redis, miss)
    }

    /// The entry of a lookup; anything else is counted.
    pub(crate) fn take(&self, key: &Key<'_>, lookup: Lookup, tier: Tier, miss: &mut Missing) -> Option<Entry> {
        match lookup {
            Lookup::Hit(entry) => return Some(entry),
            Lookup::Miss => {}
            Lookup::Damaged(error) => {
                tracing::warn!(%tier, %error, "damaged entry treated as a miss");
                self.recorder.error(tier);
                miss.because(MissCause::Corrupt);
            }
            Lookup::Down(error) => {
                tracing::debug!(%tier, %error, "tier could not answer");
                self.recorder.error(tier);
                miss.because(MissCause::TierDown);
            }
        }
        self.recorder.tier_miss(tier, key.id);
        None
    }

    /// Asks the four questions of an entry that `tier` gave.
    pub(crate) fn judge(&self, key: &Key<'_>, want: Want, entry: Entry, tier: Tier, miss: &mut Missing) -> Option<Found> {
        if self.rules.covers(entry.stamp(), key.id, key.text) {
            miss.because(MissCause::Invalidated);
            return None;
        }
        match (want.check)(&entry, want.fingerprint) {
            Verdict::Yes => {}
            Verdict::Foreign => {
                miss.because(MissCause::Schema);
                return None;
            }
            Verdict::Damaged => {
                self.recorder.error(tier);
                miss.because(MissCause::Corrupt);
                return None;
            }
        }
        if self.clock.is_before(entry.expires()) {
            return Some(Found { entry, tier });
        }
        if tier != Tier::Memory {
            self.recorder.tier_miss(tier, key.id);
        }
        miss.because(MissCause::Expired);
        if self.clock.is_before(entry.stale_until()) {
            miss.stale.get_or_insert(Found { entry, tier });
        }
        None
    }
}

/// What is learned on the way to a miss.
pub(crate) struct Missing {
    cause: Option<MissCause>,
    stale: Option<Found>,
    /// Redis' leave to fill the key, given when it was asked.
    lease: Option<Lease>,
}

impl Missing {
    pub(crate) fn new() -> Self {
        Self { cause: None, stale: None, lease: None }
    }

    /// The first cause is the one nearest to the reader; a tier that is down only explains what nothing else does.
    fn because(&mut self, cause: MissCause) {
        if self.cause.is_none() || self.cause == Some(MissCause::TierDown) {
            self.cause = Some(cause);
        }
    }

    /// The miss, with what is remembered of keys that left.
    pub(crate) fn into_read(self, engine: &Engine, key: &Key<'_>) -> Read {
        let cause = self.cause.unwrap_or_else(|| engine.why_absent(key));
        Read::Miss { cause, stale: self.stale, lease: self.lease }
    }
}
