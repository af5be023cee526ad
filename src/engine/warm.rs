//! The warm restart: what was hot goes down before the end and comes back after it.
//!
//! `close` sends to disk what memory alone holds of policies that may live there, and writes down the keys of memory, hottest
//! first. `open` serves at once; a task brings the keys back in that order, through the same promotion as a
//! hit, so that nothing old can overtake a newer write. What expired while the process was down stays down.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::state::{Engine, Found, OwnedKey};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::policy::placement::DiskPlacement;
use crate::tier::disk::Disk;
use crate::tier::{Lookup, Tier};

/// The hot list is kept on disk under this name.
const HOT_NOTE: &str = "hot";
/// Keys on it.
const HOT_KEYS: usize = 100_000;
/// How often it is asked whether the disk has been read, while it is.
const WHILE_READING: Duration = Duration::from_millis(20);
/// Its size, in bytes: keys beyond are left out.
const HOT_BYTES: usize = 4 << 20;

impl Engine {
    /// Sends what only memory holds to disk, and writes the hot list.
    pub(crate) async fn keep_warm(&self) -> Result<(), Error> {
        let Some(disk) = &self.disk else { return Ok(()) };
        for entry in self.memory.hottest(usize::MAX) {
            let may = self.placement.of(entry.meta().policy).disk != DiskPlacement::Never;
            if !may || !self.clock.is_before(entry.expires()) {
                continue;
            }
            disk.room().await;
            let hash = self.hasher.hash(entry.namespace_id(), entry.key());
            let key = crate::key::Key { id: entry.namespace_id(), text: entry.key(), hash };
            // Under the gate, and only if memory still has this very entry: nothing newer can be overwritten.
            let _gate = self.gates.write(hash);
            let is_current = self.memory.peek(&key).is_some_and(|resident| std::ptr::eq(resident.payload(), entry.payload()));
            if is_current && !disk.contains(&key) && !self.rules.covers(entry.stamp(), key.id, key.text) {
                disk.offer(&entry, true);
            }
        }
        self.write_hot_list().await;
        Ok(())
    }

    /// Writes down the keys of memory, hottest first.
    pub(crate) async fn write_hot_list(&self) {
        let Some(disk) = &self.disk else { return };
        let mut bytes = Vec::new();
        for entry in self.memory.hottest(HOT_KEYS) {
            let (namespace, key) = (entry.namespace().name(), entry.key());
            if bytes.len() + namespace.len() + key.len() + 3 > HOT_BYTES {
                break;
            }
            bytes.push(namespace.len() as u8);
            bytes.extend((key.len() as u16).to_le_bytes());
            bytes.extend(namespace.as_bytes());
            bytes.extend(key.as_bytes());
        }
        self.noted(Tier::Disk, disk.write_note(HOT_NOTE, bytes).await);
    }

    /// Reads the hot list of the last run.
    pub(crate) async fn read_hot_list(&self) -> Vec<OwnedKey> {
        let Some(disk) = &self.disk else { return Vec::new() };
        let bytes = self.noted(Tier::Disk, disk.read_note(HOT_NOTE).await).flatten().unwrap_or_default();
        let mut keys = Vec::new();
        let mut rest = &bytes[..];
        while let Some((namespace, key, behind)) = next_key(rest) {
            rest = behind;
            let Ok(namespace) = Namespace::parse(namespace) else { continue };
            if let Ok(key) = self.hasher.key(namespace, key) {
                keys.push(OwnedKey::from(&key));
            }
        }
        keys
    }

    /// Brings the hot keys back to memory, hottest first, until memory is full or the cache is gone.
    pub(crate) async fn refill(engine: Weak<Engine>, keys: Vec<OwnedKey>) {
        let (started, planned) = (crate::clock::Clock::stopwatch(), keys.len() as u64);
        let mut done = 0;
        while engine.upgrade().is_some_and(|engine| engine.disk.as_ref().is_some_and(Disk::is_being_read)) {
            tokio::time::sleep(WHILE_READING).await;
        }
        for (at, key) in keys.iter().enumerate() {
            let Some(engine) = engine.upgrade() else { return };
            let usage = engine.memory.usage();
            if usage.bytes > usage.capacity / 100 * 95 {
                break;
            }
            done += u64::from(engine.refill_one(&key.key()).await);
            engine.refill.done.store(done, Ordering::Relaxed);
            engine.refill.skipped.store(at as u64 + 1 - done, Ordering::Relaxed);
            if at % 64 == 63 {
                tokio::task::yield_now().await;
            }
        }
        if let Some(engine) = engine.upgrade() {
            engine.refill.skipped.store(planned - done, Ordering::Relaxed);
            engine.refill.finished.store(true, Ordering::Release);
        }
        tracing::info!(done, skipped = planned - done, took = ?started.elapsed(), "memory is warm again");
    }

    async fn refill_one(&self, key: &crate::key::Key<'_>) -> bool {
        let Some(disk) = &self.disk else { return false };
        if self.memory.peek(key).is_some() {
            return false;
        }
        let fill = self.begin_fill(key);
        match disk.get(key).await {
            Lookup::Hit(entry) if self.is_servable(&entry, key) => {
                self.promote(key, &Found { entry, tier: Tier::Disk }, &fill);
                true
            }
            _ => false,
        }
    }
}

/// The first key of a hot list, and what follows. Foreign bytes: every length is checked against what is there.
fn next_key(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let ([namespace_len, low, high], rest) = bytes.split_first_chunk::<3>()?;
    let (namespace, rest) = rest.split_at_checked(usize::from(*namespace_len))?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*low, *high])))?;
    Some((std::str::from_utf8(namespace).ok()?, std::str::from_utf8(key).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::next_key;

    #[test]
    fn a_cut_hot_list_ends_where_it_was_cut() {
        let bytes = [&[6, 3, 0][..], b"curvespjm", &[6, 9, 0], b"curvespj"].concat();
        let (namespace, key, rest) = next_key(&bytes).unwrap();
        assert_eq!((namespace, key), ("curves", "pjm"));
        assert!(next_key(rest).is_none());
        assert!(next_key(&[]).is_none());
    }
}
