//! Invalidation: a key, a pattern, a namespace, everything; here, or as another node declared it.
//!
//! A key passes its gate like a write. Many keys at once are a rule (see [`crate::invalidation::rule`]): in force as soon as it
//! is declared, then memory, disk and Redis are swept behind it. When the call returns, the tombstones are in the disk's
//! log, so that no restart brings anything back. A Redis that is away does not fail the call: its tier bars what was
//! invalidated and repairs itself when the link is back; health says so until then.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::coherence::Message;
use crate::engine::state::Engine;
use crate::error::{Error, ErrorKind};
use crate::invalidation::event::{InvalidationEvent, Scope};
use crate::invalidation::rule::Rule;
use crate::key::Key;
use crate::metrics::MissCause;
use crate::namespace::Namespace;
use crate::pattern::Pattern;
use crate::tier::Tier;
use crate::tier::remote::Note;

/// The sequence number is kept on disk under this name.
pub(crate) const SEQUENCE_NOTE: &str = "sequence";

/// Why, and by whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Because {
    pub(crate) reason: Option<String>,
    pub(crate) triggered_by: Option<String>,
}

/// How many keys left each tier, and how many distinct ones in all.
struct Tally {
    memory: u64,
    disk: u64,
    redis: u64,
    count: u64,
    /// Why the tombstones are not in the disk's log yet, if they are not.
    durable: Result<(), Error>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { memory: 0, disk: 0, redis: 0, count: 0, durable: Ok(()) }
    }
}

impl Engine {
    /// Invalidates one key in every tier.
    pub(crate) async fn invalidate_key(&self, key: &Key<'_>, because: Because) -> Result<InvalidationEvent, Error> {
        self.check_open()?;
        let took = Clock::stopwatch();
        let (memory, removal, redis) = {
            let _gate = self.gates.write(key.hash);
            let memory = self.memory.remove(key).is_some();
            let removal = self.disk.as_ref().map(|disk| disk.remove(key));
            let redis = self.remote.as_ref().map(|remote| remote.remove(key, &self.note(&because)));
            (memory, removal, redis)
        };
        self.flights.detach_key(key.id, key.text);
        let mut tally = Tally { memory: memory.into(), ..Tally::default() };
        if let (Some(disk), Some(removal)) = (&self.disk, removal) {
            tally.disk = removal.existed.into();
            tally.durable = self.durable(disk.settled(removal.ticket).await.map(drop));
        }
        if let Some(redis) = redis {
            tally.redis = self.noted(Tier::Redis, redis.await).unwrap_or(false).into();
        }
        tally.count = (tally.memory + tally.disk + tally.redis).min(1);
        if tally.count != 0 {
            self.departed.note(key.hash, MissCause::Invalidated);
        }
        let scope = Scope::Key(key.text.to_owned());
        self.record(scope, Some(key.namespace()), because, tally, took.elapsed()).await
    }

    /// Invalidates what a pattern matches in a namespace, a whole namespace, or everything.
    pub(crate) async fn invalidate_many(
        &self,
        namespace: Option<Namespace>,
        pattern: Option<Pattern>,
        because: Because,
    ) -> Result<InvalidationEvent, Error> {
        self.check_open()?;
        let took = Clock::stopwatch();
        let id = namespace.map(Namespace::id).transpose()?;
        let rule = self.rules.declare(id, pattern.clone(), self.remote.is_some());
        let mut dead = HashSet::new();
        let mut tally = self.sweep_local(&rule, namespace, pattern.as_ref(), &mut dead).await;
        if let Some(remote) = &self.remote {
            let text = pattern.as_ref().map(Pattern::as_str);
            let gone = remote.remove_matching(namespace, text, &self.note(&because)).await;
            // Whether it worked or not: if not, the tier bars these keys itself until it has made up for it.
            rule.redis_done();
            let gone = self.noted(Tier::Redis, gone).unwrap_or_default();
            tally.redis = gone.len() as u64;
            dead.extend(gone);
        }
        self.rules.swept(&rule);
        tally.count = dead.len() as u64;
        for hash in dead {
            self.departed.note(hash, MissCause::Invalidated);
        }
        let scope = match (&pattern, namespace) {
            (Some(pattern), _) => Scope::Pattern(pattern.as_str().to_owned()),
            (None, Some(_)) => Scope::Namespace,
            (None, None) => Scope::All,
        };
        self.record(scope, namespace, because, tally, took.elapsed()).await
    }

    /// Removes from memory and disk what the rule covers; the rule is in force already.
    async fn sweep_local(
        &self,
        rule: &Arc<Rule>,
        namespace: Option<Namespace>,
        pattern: Option<&Pattern>,
        dead: &mut HashSet<u64>,
    ) -> Tally {
        let position = self.disk.as_ref().map(crate::tier::disk::Disk::position);
        self.flights.detach(|id, key| rule.matches(id, key));
        let covers = |id, key: &str, stamp| stamp < rule.sequence && rule.matches(id, key);
        let removed = self.memory.remove_matching(&mut |entry| covers(entry.namespace_id(), entry.key(), entry.stamp()));
        let mut tally = Tally { memory: removed.len() as u64, ..Tally::default() };
        dead.extend(removed.iter().map(|entry| self.hasher.hash(entry.namespace_id(), entry.key())));
        drop(removed);
        if let (Some(disk), Some(position)) = (&self.disk, position) {
            let sequence = self.rules.now().to_le_bytes().to_vec();
            self.noted(Tier::Disk, disk.write_note(SEQUENCE_NOTE, sequence).await);
            let matches = pattern.map(|pattern| {
                let pattern = pattern.clone();
                move |key: &str| pattern.matches(key)
            });
            let matches = matches.as_ref().map(|matches| matches as &(dyn Fn(&str) -> bool + Send + Sync));
            let prefix = pattern.map_or("", Pattern::literal_prefix);
            let gone = disk.remove_matching(namespace, matches, prefix, position).await;
            let gone = gone.unwrap_or_else(|error| {
                tally.durable = self.durable(Err(error));
                Vec::new()
            });
            tally.disk = gone.len() as u64;
            dead.extend(gone);
        }
        tally
    }

    /// Applies what another node declared: its data in Redis is changed already, only our own copies must go.
    pub(crate) async fn apply(&self, message: &Message) {
        let took = Clock::stopwatch();
        let (scope, namespace, tally) = match message {
            Message::Set { namespace, key, .. } => {
                if let Ok(key) = self.hasher.key(*namespace, key) {
                    self.forget(&key).await;
                }
                return; // an overwrite is no invalidation
            }
            Message::Key { namespace, key, .. } => {
                let Ok(key) = self.hasher.key(*namespace, key) else { return };
                (Scope::Key(key.text.to_owned()), Some(*namespace), self.forget(&key).await)
            }
            Message::Pattern { namespace, pattern, .. } => match Pattern::parse(pattern) {
                Ok(parsed) => {
                    (Scope::Pattern(pattern.clone()), Some(*namespace), self.forget_many(Some(*namespace), Some(parsed)).await)
                }
                // Another version's idea of a pattern: what it meant is not known, so the whole namespace goes.
                Err(_) => (Scope::Namespace, Some(*namespace), self.forget_many(Some(*namespace), None).await),
            },
            Message::Namespace { namespace, .. } => {
                (Scope::Namespace, Some(*namespace), self.forget_many(Some(*namespace), None).await)
            }
            Message::All { .. } => (Scope::All, None, self.forget_many(None, None).await),
        };
        let origin = message.origin();
        let because = Because { reason: origin.reason.clone(), triggered_by: origin.actor.clone() };
        let event = Self::event(self.clock.now(), origin.node.clone(), scope, namespace, because, &tally, took.elapsed());
        self.keep(event).await;
    }

    /// Drops the local copies of a key.
    async fn forget(&self, key: &Key<'_>) -> Tally {
        let (memory, removal) = {
            let _gate = self.gates.write(key.hash);
            (self.memory.remove(key).is_some(), self.disk.as_ref().map(|disk| disk.remove(key)))
        };
        let mut tally = Tally { memory: memory.into(), ..Tally::default() };
        self.flights.detach_key(key.id, key.text);
        if let (Some(disk), Some(removal)) = (&self.disk, removal) {
            tally.disk = removal.existed.into();
            self.noted(Tier::Disk, disk.settled(removal.ticket).await);
        }
        tally.count = (tally.memory + tally.disk).min(1);
        if tally.count != 0 {
            self.departed.note(key.hash, MissCause::Invalidated);
        }
        tally
    }

    /// Drops the local copies of many keys.
    async fn forget_many(&self, namespace: Option<Namespace>, pattern: Option<Pattern>) -> Tally {
        let Ok(id) = namespace.map(Namespace::id).transpose() else { return Tally::default() };
        let rule = self.rules.declare(id, pattern.clone(), false);
        let mut dead = HashSet::new();
        let mut tally = self.sweep_local(&rule, namespace, pattern.as_ref(), &mut dead).await;
        self.rules.swept(&rule);
        tally.count = dead.len() as u64;
        for hash in dead {
            self.departed.note(hash, MissCause::Invalidated);
        }
        tally
    }

    /// Drops all local copies: what was invalidated elsewhere is not known.
    pub(crate) async fn forget_all(&self) {
        self.forget_many(None, None).await;
    }

    /// Writes the event into the ledger, in memory and on disk.
    async fn record(
        &self,
        scope: Scope,
        namespace: Option<Namespace>,
        because: Because,
        tally: Tally,
        took: Duration,
    ) -> Result<InvalidationEvent, Error> {
        let event = Self::event(self.clock.now(), self.node.clone(), scope, namespace, because, &tally, took);
        self.recorder.invalidated(event.count);
        self.keep(event.clone()).await;
        self.keep_owed(namespace).await;
        tally.durable.map(|()| event)
    }

    /// What a disk that did not take its tombstones means to the caller.
    fn durable(&self, settled: Result<(), Error>) -> Result<(), Error> {
        settled.map_err(|error| {
            tracing::warn!(%error, "the disk did not take the tombstones of an invalidation");
            self.recorder.error(Tier::Disk);
            let advice = "is in force in this process, but the disk did not take it: a process killed now could serve the values again if the device takes no change at all; repair the disk and repeat it";
            Error::caused(ErrorKind::TierDown, "invalidation", advice, error)
        })
    }

    fn event(
        at: SystemTime,
        node: String,
        scope: Scope,
        namespace: Option<Namespace>,
        because: Because,
        tally: &Tally,
        took: Duration,
    ) -> InvalidationEvent {
        let Because { reason, triggered_by } = because;
        let namespace = namespace.map(|namespace| namespace.name().to_owned());
        let Tally { memory, disk, redis, count, .. } = *tally;
        InvalidationEvent { at, scope, namespace, reason, triggered_by, node, count, memory, disk, redis, took }
    }

    /// Keeps an event in memory and on disk.
    async fn keep(&self, event: InvalidationEvent) {
        if let Some(disk) = &self.disk {
            self.noted(Tier::Disk, disk.append_event(self.clock.wall_ms(), event.to_bytes()).await);
        }
        self.ledger.append(event);
    }

    /// What goes with an invalidation into the log between nodes.
    fn note(&self, because: &Because) -> Note {
        Note { reason: because.reason.clone(), actor: because.triggered_by.clone(), at_ms: self.clock.wall_ms() }
    }

    /// The result of a tier's work; its failure is counted and logged, and does not stop the others.
    pub(crate) fn noted<T>(&self, tier: Tier, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(%tier, %error, "a tier failed");
                self.recorder.error(tier);
                None
            }
        }
    }
}
