//! The parts of the engine, and no behaviour.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinHandle;

use crate::clock::{Clock, Stopwatch};
use crate::engine::promotion::Promotions;
use crate::entry::{Entry, Verdict};
use crate::error::Error;
use crate::flight::Flights;
use crate::invalidation::gate::Gates;
use crate::invalidation::ledger::Ledger;
use crate::invalidation::rule::Rules;
use crate::key::{Key, KeyHasher};
use crate::metrics::{Departed, Exporter, Places, Recorder};
use crate::namespace::{MAX_NAMESPACES, NamespaceId};
use crate::policy::placement::PlacementTable;
use crate::tier::Tier;
use crate::tier::disk::Disk;
use crate::tier::memory::Memory;
use crate::tier::remote::Remote;

/// One cache. Shared by its handles and its tasks. In this order: what a hit in memory reads comes first, and together.
#[repr(C)]
pub(crate) struct Engine {
    pub(crate) hasher: KeyHasher,
    /// Of `recorder`.
    pub(crate) places: Places,
    pub(crate) clock: Clock,
    pub(crate) rules: Arc<Rules>,
    /// Folded into every type fingerprint: `CacheConfig::schema` and the archive format of this build.
    pub(crate) salt: u64,
    /// Begins with its shards.
    pub(crate) memory: Memory,
    /// This node's name in events and in the log.
    pub(crate) node: String,
    /// Largest payload, in bytes.
    pub(crate) max_value: usize,
    pub(crate) placement: PlacementTable,
    pub(crate) governance: Governances,
    pub(crate) disk: Option<Disk>,
    pub(crate) remote: Option<Arc<Remote>>,
    /// Whether what the page cache has is brought to memory.
    pub(crate) promotions: Promotions,
    pub(crate) gates: Arc<Gates>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) ledger: Ledger,
    pub(crate) recorder: Recorder,
    pub(crate) exporter: Exporter,
    /// Why keys left: the cause of a later miss.
    pub(crate) departed: Departed,
    /// When each failed fetch may be tried again, in steady milliseconds: set where a stale value stands in.
    pub(crate) throttled: Mutex<std::collections::HashMap<u64, u64>>,
    /// How far memory is filled again after the last restart.
    pub(crate) refill: Refill,
    /// How the log between nodes stands; `None` without Redis.
    pub(crate) coherence: Mutex<Option<CoherenceState>>,
    /// The disk holds a list of repairs that Redis still needs.
    pub(crate) repairs_kept: AtomicBool,
    pub(crate) kept: crate::engine::repairs::Kept,
    /// What earlier runs wrote down.
    pub(crate) heritage: crate::engine::inherit::Heritage,
    pub(crate) closed: AtomicBool,
    /// How `close` ended, once it has.
    pub(crate) ended: OnceCell<Result<(), Error>>,
    pub(crate) tasks: Mutex<Vec<JoinHandle<()>>>,
    /// How often maintenance runs.
    pub(crate) maintenance: Duration,
}

/// Keys of the hot list, as [`RefillAnalytics`](crate::metrics::RefillAnalytics) tells them.
#[derive(Default)]
pub(crate) struct Refill {
    pub(crate) is_started: AtomicBool,
    pub(crate) planned: AtomicU64,
    pub(crate) done: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) finished: AtomicBool,
}

/// How this node stands towards the log that nodes share.
#[derive(Clone, Copy)]
pub(crate) enum CoherenceState {
    /// Everything up to a moment ago is applied; how long the records of the last page had waited for it.
    Current(Duration),
    /// The log cannot be read: what other nodes invalidate is not known here; since when.
    Blind(Stopwatch),
}

/// What is laid down for the entries of one namespace.
#[derive(Clone)]
pub(crate) struct Governance {
    /// No entry may live longer.
    pub(crate) max_ttl: Option<Duration>,
    /// A longer policy is shortened; otherwise it is refused.
    pub(crate) clamp: bool,
    /// How long past its life a value may stand in for a failed fetch, in milliseconds.
    pub(crate) grace_ms: u64,
    /// Share of the life after which one caller refreshes in the background.
    pub(crate) refresh_ahead: Option<f64>,
    /// After this a stale value, if there is one, is served while the fetch goes on.
    pub(crate) soft_timeout: Option<Duration>,
    /// After this a fetch has failed.
    pub(crate) hard_timeout: Option<Duration>,
    /// Lives are shortened by a random share of up to this, so that what was set together does not expire together. 0..=0.5.
    pub(crate) jitter: f64,
    /// Fetches under way at once.
    pub(crate) permits: Arc<Semaphore>,
}

/// Governance of each namespace, looked up by id.
pub(crate) struct Governances {
    default: Governance,
    special: Vec<Option<Box<Governance>>>,
}

impl Governances {
    pub(crate) fn new(default: Governance) -> Self {
        Self { default, special: std::iter::repeat_with(|| None).take(MAX_NAMESPACES).collect() }
    }

    pub(crate) fn set(&mut self, namespace: NamespaceId, governance: Governance) {
        self.special[usize::from(namespace.0)] = Some(Box::new(governance));
    }

    #[inline]
    pub(crate) fn of(&self, namespace: NamespaceId) -> &Governance {
        self.special[usize::from(namespace.0)].as_deref().unwrap_or(&self.default)
    }
}

/// What a reader wants: how to tell that bytes are of its type. No type parameter travels below the front door.
#[derive(Clone, Copy)]
pub(crate) struct Want {
    /// The type's fingerprint with the engine's salt.
    pub(crate) fingerprint: u64,
    /// Validates the bytes as that type, once.
    pub(crate) check: fn(&Entry, u64) -> Verdict,
}

/// An entry, and where it was found.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) tier: Tier,
}

/// A key that outlives its caller: of a flight, a refresh, a refill.
#[derive(Clone)]
pub(crate) struct OwnedKey {
    id: NamespaceId,
    text: Box<str>,
    hash: u64,
}

impl OwnedKey {
    pub(crate) fn key(&self) -> Key<'_> {
        Key { id: self.id, text: &self.text, hash: self.hash }
    }
}

impl From<&Key<'_>> for OwnedKey {
    fn from(key: &Key<'_>) -> Self {
        Self { id: key.id, text: key.text.into(), hash: key.hash }
    }
}
