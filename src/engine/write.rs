//! `set`: a value goes to every tier of its policy, in one order per key.
//!
//! Memory and the queues of disk and Redis are changed under the key's gate, without an await; what can take time comes
//! before (room in the disk's queue) and after (Redis' answer). A Redis that does not answer fails no `set`: the
//! tier remembers that its copy is not to be trusted, and the error is counted.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Clock;
use crate::engine::state::Engine;
use crate::entry::{Entry, Meta, Shape};
use crate::error::{Error, ErrorKind, shown};
use crate::key::Key;
use crate::metrics::Verb;
use crate::namespace::Namespace;
use crate::policy::TtlPolicy;
use crate::policy::placement::DiskPlacement;
use crate::tier::Tier;
use crate::tier::disk::Disk;
use crate::tier::memory::Evicted;
use crate::tier::remote::{Lease, Note};

/// Redis' answer to a write that was queued; `false` if it was refused because the key moved on another node.
pub(crate) type Shared = Pin<Box<dyn Future<Output = Result<bool, Error>> + Send>>;

/// How a value goes to Redis.
pub(crate) enum Sharing {
    /// It replaces what is there.
    Set,
    /// It fills what was missing, unless the key moved since the lease was given. Without a lease nobody can tell, and it stays here.
    Fill(Option<Lease>),
}

/// From this life on an entry is as old as the coarse clock says: up to a tick of 100 ms older than it is.
const COARSELY_BORN_MS: u64 = 30_000;

/// What the governance of a namespace grants to a write.
#[derive(Clone, Copy)]
pub(crate) struct Granted {
    /// As asked for; a custom life if that was shortened.
    policy: TtlPolicy,
    life_ms: u64,
}

impl Engine {
    /// Everything that can refuse a write, before anything is changed.
    ///
    /// # Errors
    ///
    /// `Closed`, and `PolicyRefused` by the namespace's governance.
    #[inline]
    pub(crate) fn prepare(&self, key: &Key<'_>, policy: TtlPolicy) -> Result<Granted, Error> {
        self.check_open()?;
        self.govern(key, policy)
    }

    /// The disk, if a write of this policy has to wait until there is room in its queue.
    #[inline]
    pub(crate) fn must_wait(&self, policy: TtlPolicy) -> Option<&Disk> {
        let disk = self.disk.as_ref()?;
        // While the disk is being read, what only replaces something there is queued, too.
        let is_queued = self.placement.of(policy).disk == DiskPlacement::OnSet || disk.is_being_read();
        (is_queued && !disk.has_room()).then_some(disk)
    }

    /// Writes a value, whose bytes are of `shape`. Redis' answer is still to come.
    ///
    /// # Errors
    ///
    /// `InvalidValue` above the limit. Nothing was changed then.
    pub(crate) fn write(
        &self,
        key: &Key<'_>,
        payload: &[u8],
        granted: Granted,
        fingerprint: u64,
        shape: Shape,
    ) -> Result<Option<Shared>, Error> {
        self.check_size(key, payload.len())?;
        self.memory.expect_put(key);
        let lap = self.recorder.sample();
        let moment = self.gates.moment();
        let mut evicted = Evicted::new();
        let shared = {
            let _gate = self.gates.write(key.hash);
            let meta = self.meta(key, granted, fingerprint, self.rules.now());
            let entry = Entry::build(key, &meta, payload, shape)?;
            let stamp = entry.stamp();
            let placed = self.place(key, entry, Sharing::Set, &mut evicted);
            self.undo_if_covered(key, stamp);
            placed
        };
        self.flights.detach_key(key.id, key.text);
        self.recorder.set(key.id);
        self.demote(&mut evicted, moment);
        if let Some(lap) = lap {
            self.recorder.timed_in_memory(Verb::Set, key.id, lap);
        }
        Ok(shared)
    }

    /// Puts an entry into memory and the queues below; what memory gives up for it is added to `evicted`. The caller holds the key's gate.
    #[inline]
    pub(crate) fn place(&self, key: &Key<'_>, entry: Entry, sharing: Sharing, evicted: &mut Evicted) -> Option<Shared> {
        if self.is_memory_only() {
            self.memory.put_out(key, entry, evicted);
            return None;
        }
        self.place_in_tiers(key, entry, sharing, evicted)
    }

    fn place_in_tiers(&self, key: &Key<'_>, entry: Entry, sharing: Sharing, evicted: &mut Evicted) -> Option<Shared> {
        let placement = self.placement.of(entry.meta().policy);
        let admitted = self.memory.put_out(key, entry.clone(), evicted);
        if let Some(disk) = &self.disk {
            match placement.disk {
                DiskPlacement::OnSet => {
                    let took = Clock::stopwatch();
                    disk.put(&entry);
                    self.recorder.timed(Tier::Disk, Verb::Set, took.elapsed());
                }
                // Memory has no place for so large a value: the disk keeps it, if it may.
                DiskPlacement::OnEviction if !admitted => disk.put(&entry),
                // An older value of the key must not outlive this one.
                DiskPlacement::OnEviction | DiskPlacement::Never => {
                    if disk.may_hold(key) {
                        disk.remove(key);
                    }
                }
            }
        }
        self.remote.as_ref().and_then(|remote| match (placement.redis, sharing) {
            (true, Sharing::Set) => {
                let answer = remote.set(&entry);
                Some(Box::pin(async move { answer.await.map(|()| true) }) as Shared)
            }
            (true, Sharing::Fill(Some(lease))) => Some(Box::pin(remote.fill(&entry, lease)) as Shared),
            // Not shared by its policy; a value that an earlier policy shared must go.
            (false, Sharing::Set) => {
                let gone = remote.remove(key, &Note::default());
                Some(Box::pin(async move { gone.await.map(|_| true) }) as Shared)
            }
            (_, Sharing::Fill(_)) => None,
        })
    }

    /// Waits for Redis' answer to a `set`. If it did not take it, that is written down: its older copy must not come back after a crash.
    pub(crate) async fn share(&self, shared: Option<Shared>, namespace: Namespace) {
        if let Some(shared) = shared
            && self.answer(shared).await.is_none()
        {
            self.keep_behind(namespace).await;
        }
    }

    /// Waits for Redis' answer to a fill. `false` if Redis refused the value because its key moved.
    pub(crate) async fn share_fill(&self, shared: Option<Shared>) -> bool {
        match shared {
            Some(shared) => self.answer(shared).await.unwrap_or(true),
            None => true,
        }
    }

    /// Redis' answer to a write; `None`, and counted, if there is none.
    async fn answer(&self, shared: Shared) -> Option<bool> {
        let took = Clock::stopwatch();
        let answer = shared.await;
        self.recorder.timed(Tier::Redis, Verb::Set, took.elapsed());
        answer
            .map_err(|error| {
                tracing::debug!(%error, "redis did not take a write");
                self.recorder.error(Tier::Redis);
            })
            .ok()
    }

    /// When an entry written now was created, expires, and stops to be of any use.
    #[inline]
    pub(crate) fn meta(&self, key: &Key<'_>, granted: Granted, fingerprint: u64, stamp: u64) -> Meta {
        let governance = self.governance.of(key.id);
        let Granted { policy, life_ms } = granted;
        // Where a tick of the coarse clock is nothing beside the life, it saves the write a look at the exact one: the life ends that much early.
        let created = if life_ms >= COARSELY_BORN_MS { self.clock.recent() } else { self.clock.steady() };
        let life = if governance.jitter > 0.0 { shortened(life_ms, governance.jitter) } else { life_ms };
        let expires = created.saturating_add(life);
        Meta { policy, fingerprint, created, expires, stale_until: expires.saturating_add(governance.grace_ms), stamp }
    }

    /// The life that the namespace's governance grants.
    #[inline]
    pub(crate) fn govern(&self, key: &Key<'_>, policy: TtlPolicy) -> Result<Granted, Error> {
        match self.governance.of(key.id).max_ttl {
            Some(limit) if policy.ttl() > limit => self.shorten(key, policy, limit),
            _ => Ok(Granted { policy, life_ms: policy.ttl_ms() }),
        }
    }

    #[cold]
    fn shorten(&self, key: &Key<'_>, policy: TtlPolicy, limit: Duration) -> Result<Granted, Error> {
        if self.governance.of(key.id).clamp {
            let policy = TtlPolicy::Custom(limit);
            return Ok(Granted { policy, life_ms: policy.ttl_ms() });
        }
        let limit = humantime::format_duration(limit);
        let advice = format!(
            "is longer than max_ttl = \"{limit}\" of its namespace; use a shorter policy, raise `max_ttl`, or set enforce = \"clamp\""
        );
        let subject = format!("policy {policy} for namespace {}", key.namespace());
        Err(Error::new(ErrorKind::PolicyRefused, subject, advice))
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    #[inline]
    pub(crate) fn check_size(&self, key: &Key<'_>, bytes: usize) -> Result<(), Error> {
        if bytes <= self.max_value { Ok(()) } else { Err(self.too_large(key, bytes)) }
    }

    #[cold]
    fn too_large(&self, key: &Key<'_>, bytes: usize) -> Error {
        let advice =
            format!("is {bytes} bytes; the limit is {} (`limits.max_value`), so split it or raise the limit", self.max_value);
        Error::new(ErrorKind::InvalidValue, format!("value of key {}", shown(key.text)), advice)
    }
}

/// A life less a random share of up to `jitter`.
fn shortened(life_ms: u64, jitter: f64) -> u64 {
    (life_ms as f64 * (1.0 - jitter * fastrand::f64())) as u64
}
