//! Rules: a pattern, a namespace or everything, declared dead up to a sequence number.
//!
//! Every entry carries the sequence number at which its fill began (its stamp). Declaring a rule takes the next number; from
//! that moment on each read asks whether a live rule covers what it is about to serve: same scope, lower stamp. So the
//! rule is in force at once, in all tiers, while the tiers are swept behind it. When they are, and no fill that began
//! before the sweep ended is under way any more (it may have read something just before the sweep took it), nothing can be left that it covers, and it retires. The few live
//! rules cost a read one load when there is none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::namespace::NamespaceId;
use crate::pattern::Pattern;

/// One live rule.
pub(crate) struct Rule {
    /// Covers what has a lower stamp.
    pub(crate) sequence: u64,
    /// `None`: all namespaces.
    namespace: Option<NamespaceId>,
    /// `None`: every key.
    pattern: Option<Pattern>,
    /// Redis may still hold what it covers: values from there bear the stamp of their reading, not of their writing.
    redis_pending: AtomicBool,
    /// The sequence when the tiers were swept: fills with a lower one may have read what the sweep took. 0 = they are not swept yet.
    swept: AtomicU64,
}

impl Rule {
    /// Does the rule's scope take in this key, whatever its stamp?
    pub(crate) fn matches(&self, namespace: NamespaceId, key: &str) -> bool {
        self.namespace.is_none_or(|own| own == namespace) && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(key))
    }

    /// Redis was swept too.
    pub(crate) fn redis_done(&self) {
        self.redis_pending.store(false, Ordering::SeqCst);
    }
}

/// All live rules of one cache, and the sequence.
pub(crate) struct Rules {
    sequence: AtomicU64,
    /// Length of `live`, so that a read without rules pays one load.
    count: AtomicUsize,
    live: RwLock<Vec<Arc<Rule>>>,
    /// How many fills are under way, by the stamp they began with.
    fills: Mutex<BTreeMap<u64, usize>>,
}

impl Rules {
    /// Starts behind `last`, the highest number that any stored entry may bear.
    pub(crate) fn new(last: u64) -> Arc<Self> {
        Arc::new(Self {
            sequence: AtomicU64::new(last + 1),
            count: AtomicUsize::new(0),
            live: RwLock::default(),
            fills: Mutex::default(),
        })
    }

    /// Goes on behind `last`, if that is news.
    pub(crate) fn go_on_from(&self, last: u64) {
        let _live = self.live.write();
        let _fills = self.fills.lock();
        self.sequence.fetch_max(last + 1, Ordering::SeqCst);
    }

    /// The stamp of what is written now.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// Declares a rule; in force when this returns.
    pub(crate) fn declare(&self, namespace: Option<NamespaceId>, pattern: Option<Pattern>, redis: bool) -> Arc<Rule> {
        let mut live = self.live.write();
        let fills = self.fills.lock();
        let sequence = self.sequence.load(Ordering::SeqCst) + 1;
        let rule = Rule { sequence, namespace, pattern, redis_pending: AtomicBool::new(redis), swept: AtomicU64::new(0) };
        let rule = Arc::new(rule);
        live.push(rule.clone());
        self.count.store(live.len(), Ordering::SeqCst);
        self.sequence.store(sequence, Ordering::SeqCst);
        drop(fills);
        rule
    }

    /// Is no rule alive? One load.
    #[inline]
    pub(crate) fn are_none(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Is something with this stamp dead by a live rule?
    #[inline]
    pub(crate) fn covers(&self, stamp: u64, namespace: NamespaceId, key: &str) -> bool {
        !self.are_none() && self.covers_any(stamp, namespace, key)
    }

    #[cold]
    fn covers_any(&self, stamp: u64, namespace: NamespaceId, key: &str) -> bool {
        self.live.read().iter().any(|rule| stamp < rule.sequence && rule.matches(namespace, key))
    }

    /// May Redis still hold a value of this key that a rule has declared dead?
    pub(crate) fn bar_redis(&self, namespace: NamespaceId, key: &str) -> bool {
        !self.are_none()
            && self.live.read().iter().any(|rule| rule.redis_pending.load(Ordering::SeqCst) && rule.matches(namespace, key))
    }

    /// A fill begins; its stamp stays counted until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> FillStamp {
        let mut fills = self.fills.lock();
        let stamp = self.now();
        *fills.entry(stamp).or_insert(0) += 1;
        FillStamp { rules: self.clone(), stamp }
    }

    /// The tiers hold nothing any more that `rule` covers. It retires as soon as no fill is under way that began before now.
    pub(crate) fn swept(&self, rule: &Rule) {
        {
            let _fills = self.fills.lock();
            // A number of its own tells the fills before from those after, and those who took no place among the fills see that something changed.
            rule.swept.store(self.sequence.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        }
        self.retire();
    }

    /// Lets go of the rules that have done their work.
    fn retire(&self) {
        let mut live = self.live.write();
        let fills = self.fills.lock();
        let oldest = fills.keys().next().copied().unwrap_or(u64::MAX);
        live.retain(|rule| match rule.swept.load(Ordering::SeqCst) {
            0 => true,
            swept => oldest < swept,
        });
        self.count.store(live.len(), Ordering::SeqCst);
    }

    /// How many rules are live.
    pub(crate) fn live(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// A fill's place in the sequence.
pub(crate) struct FillStamp {
    rules: Arc<Rules>,
    pub(crate) stamp: u64,
}

impl Drop for FillStamp {
    fn drop(&mut self) {
        let last = {
            let mut fills = self.rules.fills.lock();
            match fills.get_mut(&self.stamp) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    false
                }
                _ => {
                    fills.remove(&self.stamp);
                    true
                }
            }
        };
        if last && self.rules.live() != 0 {
            self.rules.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Namespace;

    fn id(namespace: Namespace) -> NamespaceId {
        namespace.id().unwrap()
    }

    #[test]
    fn a_rule_covers_what_is_older_and_in_its_scope() {
        let rules = Rules::new(0);
        let before = rules.now();
        let rule = rules.declare(Some(id(Namespace::CURVES)), Some(Pattern::parse("pjm:*").unwrap()), false);
        assert!(rules.covers(before, id(Namespace::CURVES), "pjm:1"));
        assert!(!rules.covers(rules.now(), id(Namespace::CURVES), "pjm:1"), "written after the rule");
        assert!(!rules.covers(before, id(Namespace::CURVES), "ercot:1"));
        assert!(!rules.covers(before, id(Namespace::GENERAL), "pjm:1"));
        rules.swept(&rule);
        assert_eq!(rules.live(), 0);
    }

    #[test]
    fn a_swept_rule_stays_until_older_fills_are_over() {
        let rules = Rules::new(0);
        let old = rules.begin();
        let rule = rules.declare(None, None, false);
        let new = rules.begin();
        rules.swept(&rule);
        assert!(rules.covers(old.stamp, id(Namespace::CURVES), "k"));
        drop(new);
        assert_eq!(rules.live(), 1);
        drop(old);
        assert_eq!(rules.live(), 0);
    }

    #[test]
    fn a_swept_rule_stays_until_fills_that_began_during_its_sweep_are_over() {
        let rules = Rules::new(0);
        let before = rules.now();
        let rule = rules.declare(None, None, false);
        let during = rules.begin();
        rules.swept(&rule);
        let after = rules.begin();
        assert!(rules.covers(before, id(Namespace::CURVES), "k"), "it may have read what the sweep then took");
        drop(during);
        assert_eq!(rules.live(), 0);
        drop(after);
    }

    #[test]
    fn redis_is_barred_until_it_is_swept() {
        let rules = Rules::new(0);
        let rule = rules.declare(None, None, true);
        assert!(rules.bar_redis(id(Namespace::CURVES), "k"));
        rule.redis_done();
        assert!(!rules.bar_redis(id(Namespace::CURVES), "k"));
    }
}
