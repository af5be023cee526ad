//! The shared tier: Redis, which every node of a fleet may read and write, and which may be gone at any time.
//!
//! * [`keys`] says where things are, [`link`] is a connection, [`breaker`] says when to make one,
//! * [`work`] is what can be asked, [`shared`] queues it in the order of the calls, [`batch`] carries it out, many jobs a round trip, [`together`] reads
//!   with each other, [`overlap`] while others are read,
//! * [`lease`] lets a fill land only if nothing was invalidated since its read,
//! * [`repair`] remembers what Redis could not be told, and keeps reads away from it until it was,
//! * [`sweep`] deletes by pattern, [`message`] is what other nodes are told.
//!
//! A read never waits longer than the configured timeout, and not at all while the server is known to be away. What
//! comes from Redis is foreign: bounded, checked against its key, and deleted if it is damaged.
//!
//! Without the feature `redis` the same face stands here and nothing behind it ([`absent`]).

#[cfg(feature = "redis")]
mod batch;
#[cfg(feature = "redis")]
mod breaker;
mod config;
#[cfg(feature = "redis")]
mod get;
#[cfg(feature = "redis")]
mod keys;
#[cfg(feature = "redis")]
mod lease;
#[cfg(feature = "redis")]
mod link;
mod message;
#[cfg(feature = "redis")]
mod overlap;
#[cfg(feature = "redis")]
mod repair;
#[cfg(feature = "redis")]
mod shared;
#[cfg(feature = "redis")]
mod sweep;
#[cfg(feature = "redis")]
mod tail;
#[cfg(feature = "redis")]
mod together;
#[cfg(feature = "redis")]
mod work;

#[cfg(not(feature = "redis"))]
mod absent;
#[cfg(all(test, feature = "redis"))]
mod tests;

#[cfg(not(feature = "redis"))]
#[allow(unused_imports)] // `Lease` is named only by whoever keeps one
pub(crate) use absent::{Lease, Remote, Tail};
#[allow(unused_imports)] // named by the settings alone
pub(crate) use config::{RedisUrl, RemoteConfig};
#[cfg(feature = "redis")]
#[allow(unused_imports)]
pub(crate) use lease::Lease;
pub(crate) use message::{Message, Origin};
#[cfg(feature = "redis")]
pub(crate) use tail::Tail;

use std::time::Duration;

/// Why an invalidation happens, and when: for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    pub(crate) reason: Option<String>,
    pub(crate) actor: Option<String>,
    /// Wall time.
    pub(crate) at_ms: u64,
}

/// What the log has since a position.
#[derive(Debug)]
pub(crate) enum Page {
    /// The records of other nodes, oldest first, the id of the last record, and how long the oldest had lain there. Nothing is missing.
    Records(Vec<Message>, String, Duration),
    /// Nothing new.
    End,
    /// The log does not go back to the position: it was trimmed or lost. It goes on from this incarnation and id.
    Gap(String, String),
}

#[cfg(feature = "redis")]
pub(crate) use present::Remote;

#[cfg(feature = "redis")]
mod present {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use parking_lot::Mutex;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::batch::drain;
    use super::keys::Layout;
    use super::link::{Answer, Endpoint};
    use super::repair::Stage;
    use super::shared::Core;
    use super::work::{Reply, Work};
    use super::{Lease, Message, Note, Origin, RemoteConfig, sweep};
    use crate::clock::Clock;
    use crate::entry::Entry;
    use crate::error::{Error, ErrorKind, shown};
    use crate::key::{Key, KeyHasher};
    use crate::namespace::Namespace;
    use crate::tier::TierReport;

    /// The tier. Used behind an `Arc`; dropping it ends its task.
    pub(crate) struct Remote {
        pub(super) core: Arc<Core>,
        hasher: KeyHasher,
        task: Mutex<Option<JoinHandle<()>>>,
    }

    impl Remote {
        /// Checks the settings and starts to connect in the background. Called inside a tokio runtime. Never
        /// fails because the server is away.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::Config`] on settings that cannot work.
        pub(crate) fn open(config: RemoteConfig, node: String, clock: Clock, hasher: KeyHasher) -> Result<Self, Error> {
            let endpoint = Endpoint::new(config.check()?, config.ca.as_deref())?;
            let layout = Layout::new(&config.key_prefix);
            let core = Arc::new(Core::new(endpoint, layout, clock, config.timeout, config.max_value, node));
            let (for_sweeps, with) = (core.clone(), hasher.clone());
            let sweeper = move |ticket, message| drop(sweep::start(for_sweeps.clone(), with.clone(), ticket, message));
            let task = tokio::spawn(drain(core.clone(), sweeper));
            Ok(Self { core, hasher, task: Mutex::new(Some(task)) })
        }

        /// Stores an entry for all nodes and tells them that it changed. Queued in the order of the calls before this returns; the
        /// future may be dropped. An entry whose life is over, or that is too large, is removed instead.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::TierDown`], [`ErrorKind::Timeout`], [`ErrorKind::Closed`]: not known to be stored; until this was made
        /// good nobody on this node reads an older value from Redis. [`ErrorKind::InvalidValue`]: too large.
        pub(crate) fn set(&self, entry: &Entry) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
            let is_too_large = entry.payload().len() as u64 > self.core.max_value;
            let (subject, limit) = (is_too_large.then(|| format!("key {}", shown(entry.key()))), self.core.max_value);
            let job = self.core.submit(Work::Set(entry.clone()));
            async move {
                received(job.await)?;
                match subject {
                    None => Ok(()),
                    Some(key) => {
                        let advice = format!("has a value of more than {limit} bytes, which redis is not given");
                        Err(Error::new(ErrorKind::InvalidValue, key, advice))
                    }
                }
            }
        }

        /// Stores an entry if nothing that covers it changed since the lease was given. True if it did.
        ///
        /// # Errors
        ///
        /// As [`set`](Self::set); nothing needs to be made good.
        pub(crate) fn fill(
            &self,
            entry: &Entry,
            lease: Lease,
        ) -> impl Future<Output = Result<bool, Error>> + Send + 'static + use<> {
            let is_fit = entry.payload().len() as u64 <= self.core.max_value && entry.stale_until() > self.core.clock.steady();
            let job = is_fit.then(|| self.core.submit(Work::Fill(entry.clone(), lease)));
            async move {
                match job {
                    Some(job) => Ok(received(job.await)?.first() == Some(&Answer::Int(1))),
                    None => Ok(false),
                }
            }
        }

        /// Deletes a key for all nodes and tells them. Queued in the order of the calls before this returns. True if
        /// Redis held it.
        ///
        /// # Errors
        ///
        /// As [`set`](Self::set).
        pub(crate) fn remove(
            &self,
            key: &Key<'_>,
            note: &Note,
        ) -> impl Future<Output = Result<bool, Error>> + Send + 'static + use<> {
            let message = Message::Key { namespace: key.namespace(), key: key.text.to_owned(), origin: self.origin(note) };
            let job = self.core.submit(Work::Remove(Box::new(message)));
            async move { Ok(received(job.await)?.first() == Some(&Answer::Int(1))) }
        }

        /// Deletes what matches (all of a namespace without a pattern, everything without a namespace) and tells all nodes, before
        /// and again after, so that what they read meanwhile goes too. While it runs, this node reads nothing that it
        /// covers. A value that is written meanwhile may be deleted as well. Goes on when the future is dropped.
        /// Gives the process's hashes of the distinct keys that were deleted.
        ///
        /// # Errors
        ///
        /// As [`set`](Self::set).
        pub(crate) async fn remove_matching(
            &self,
            namespace: Option<Namespace>,
            pattern: Option<&str>,
            note: &Note,
        ) -> Result<Vec<u64>, Error> {
            let origin = self.origin(note);
            let message = match (namespace, pattern) {
                (Some(namespace), Some(pattern)) => Message::Pattern { namespace, pattern: pattern.to_owned(), origin },
                (Some(namespace), None) => Message::Namespace { namespace, origin },
                (None, None) => Message::All { origin },
                (None, Some(_)) => {
                    let advice = "is given without a namespace; name the namespace whose keys it means";
                    return Err(Error::new(ErrorKind::InvalidPattern, "pattern", advice));
                }
            };
            let ticket = self.core.add_repair(message.clone(), Stage::Running);
            let sweep = sweep::start(self.core.clone(), self.hasher.clone(), ticket, message);
            sweep.await.unwrap_or_else(|_| Err(self.core.late()))
        }

        fn origin(&self, note: &Note) -> Origin {
            Origin {
                node: self.core.node.clone(),
                reason: note.reason.clone(),
                actor: note.actor.clone(),
                at_ms: if note.at_ms == 0 { self.core.clock.wall_ms() } else { note.at_ms },
            }
        }

        /// How the tier is doing.
        pub(crate) fn report(&self) -> TierReport {
            let (state, reason) = self.core.report();
            TierReport { state, reason }
        }

        /// Is the server believed to answer?
        pub(crate) fn is_up(&self) -> bool {
            !self.core.is_down()
        }

        /// Bytes the server uses, asked now; as last told if it does not answer.
        pub(crate) async fn memory(&self) -> Option<u64> {
            let job = self.core.submit(Work::Memory);
            if let Ok(Ok(Ok(answers))) = tokio::time::timeout(self.core.timeout, job).await
                && let Some(used) = answers.first().and_then(used_memory)
            {
                self.core.memory.store(used, Ordering::Relaxed);
            }
            self.cached_memory()
        }

        /// Bytes the server uses, as last told.
        pub(crate) fn cached_memory(&self) -> Option<u64> {
            Some(self.core.memory.load(Ordering::Relaxed)).filter(|used| *used > 0)
        }

        /// Asks the server for a sign of life, so that an idle link that broke is found and replaced; and where it refused a write, whether it still would.
        pub(crate) async fn probe(&self) {
            let work =
                if self.core.is_refused() { Work::Lease(self.core.place(Namespace::GENERAL, "probe")) } else { Work::Ping };
            let _ = tokio::time::timeout(self.core.timeout, self.core.submit(work)).await;
        }

        /// Is there a change that Redis has not been told of?
        pub(crate) fn owes(&self) -> bool {
            self.core.owes()
        }

        /// Changes that Redis has not been told of, oldest first; to be kept over a restart.
        pub(crate) fn pending(&self) -> Vec<Message> {
            self.core.pending()
        }

        /// Takes over what an earlier life of this node left [pending](Self::pending), before the first read.
        pub(crate) fn add_pending(&self, messages: Vec<Message>) {
            for message in messages {
                self.core.add_repair(message, Stage::Waiting);
            }
        }

        /// Refuses new work, waits until what is queued is done or the server proves to be away. Idempotent.
        pub(crate) async fn close(&self) {
            self.core.close();
            let task = self.task.lock().take();
            if let Some(task) = task {
                let _ = task.await;
            }
        }
    }

    impl Drop for Remote {
        fn drop(&mut self) {
            self.core.close();
        }
    }

    /// A job's answers. Its sender is dropped only when the runtime goes down.
    pub(super) fn received(reply: Result<Reply, oneshot::error::RecvError>) -> Reply {
        reply.unwrap_or_else(|_| Err(Error::closed()))
    }

    /// Of a server, or of all that answered together.
    fn used_memory(answer: &Answer) -> Option<u64> {
        let Answer::Bytes(info) = answer else { return answer.list().iter().filter_map(used_memory).reduce(|a, b| a + b) };
        let info = std::str::from_utf8(info).ok()?;
        info.lines().find_map(|line| line.strip_prefix("used_memory:"))?.trim().parse().ok()
    }
}
