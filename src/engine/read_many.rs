//! Many keys at once: memory and disk one by one, Redis in one round trip for all that are left.

use crate::clock::Clock;
use crate::engine::read::{Fill, Missing, Read};
use crate::engine::state::{Engine, Found, Want};
use crate::key::Key;
use crate::metrics::Verb;
use crate::tier::Tier;

/// A key that memory and disk do not have.
struct Open<'a> {
    at: usize,
    key: Key<'a>,
    fill: Fill,
    miss: Missing,
}

impl Engine {
    /// Reads many keys, in order; `None` also for a key that is not allowed.
    pub(crate) async fn read_many(&self, keys: &[Option<Key<'_>>], want: Want) -> Vec<Option<Found>> {
        let mut answers: Vec<Option<Found>> = keys.iter().map(|_| None).collect();
        let mut open = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let Some(key) = *key else { continue };
            let mut miss = Missing::new();
            let found = match self.find_in_memory(&key, want, &mut miss) {
                Some(found) => Some(found),
                None => {
                    let fill = self.begin_fill(&key);
                    match self.find_on_disk(&key, want, &fill, &mut miss).await {
                        Some(found) => Some(found),
                        None => {
                            open.push(Open { at, key, fill, miss });
                            continue;
                        }
                    }
                }
            };
            answers[at] = self.counted(found, key);
        }
        self.ask_redis(&mut open, want, &mut answers).await;
        for Open { at, key, miss, .. } in open {
            if answers[at].is_none()
                && let Read::Miss { cause, .. } = miss.into_read(self, &key)
            {
                self.recorder.miss(key.id, cause);
            }
        }
        answers
    }

    fn counted(&self, found: Option<Found>, key: Key<'_>) -> Option<Found> {
        if let Some(found) = &found {
            self.recorder.hit(found.tier, key.id);
        }
        found
    }

    async fn ask_redis(&self, open: &mut [Open<'_>], want: Want, answers: &mut [Option<Found>]) {
        let Some(remote) = &self.remote else { return };
        let asked: Vec<usize> = (0..open.len()).filter(|i| self.may_ask_redis(&open[*i].key)).collect();
        // All fills began before this moment, so the lowest of their stamps is right for all.
        let Some(stamp) = open.iter().map(|one| one.fill.stamp.stamp).min() else { return };
        let keys: Vec<Key<'_>> = asked.iter().map(|i| open[*i].key).collect();
        if keys.is_empty() {
            return;
        }
        let took = Clock::stopwatch();
        let lookups = remote.get_many(&keys, stamp).await;
        self.recorder.timed(Tier::Redis, Verb::Get, took.elapsed());
        for (i, lookup) in asked.into_iter().zip(lookups) {
            let Open { at, key, fill, miss } = &mut open[i];
            let Some(entry) = self.take(key, lookup, Tier::Redis, miss) else { continue };
            if let Some(found) = self.judge(key, want, entry, Tier::Redis, miss) {
                self.promote(key, &found, fill);
                answers[*at] = self.counted(Some(found), *key);
            }
        }
    }
}
