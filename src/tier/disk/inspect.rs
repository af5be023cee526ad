//! A look at a closed folder that changes nothing.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::files::{self, Handle, How, bytes_below};
use super::recovery::{open_segment, segment_files};
use super::scan::{Found, scan};
use super::shared::{LOCK, holder};
use super::{InspectedEntry, Inspection, debt, notes};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};

/// The largest ledger that is read.
const LEDGER_LIMIT: u64 = 1 << 30;

/// Shows every value of a folder, oldest first, without changing a byte. Memory grows with the number of distinct keys.
///
/// # Errors
///
/// [`ErrorKind::Locked`] if a cache has it open, [`ErrorKind::Io`] if it cannot be read or is no such folder.
pub(crate) fn inspect(path: &Path, visit: &mut dyn FnMut(InspectedEntry<'_>)) -> Result<Inspection, Error> {
    let subject = || format!("disk folder {}", path.display());
    let fail = |error| Error::io(subject(), error);
    let _shared = lock(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let advice = format!("is open in a cache{}; close that one, or ask it for its analytics", holder(path));
            Error::new(ErrorKind::Locked, subject(), advice)
        }
        _ => fail(error),
    })?;
    let mut inspection = Inspection { file_bytes: bytes_below(path).map_err(fail)?, ..Inspection::default() };
    let files = segment_files(path).map_err(fail)?;
    let mut newest_word = newest_words(&files, &mut inspection).map_err(fail)?;
    if debt::is_marked(path).map_err(fail)? {
        // Whoever opens it will believe nothing of it.
        inspection.damaged += 1;
        newest_word.clear();
    }
    let now = Clock::system().wall_ms();
    for (id, file) in &files {
        let Ok(Some(segment)) = open_segment(*id, file, false) else { continue };
        scan(&segment.file, segment.salt, segment.len(), &mut |found| {
            let Found::Value { place, namespace, key, header, intact: true, .. } = found else { return };
            let newest = newest_word.get(&digest(namespace, key)) == Some(&(*id, place.0));
            let live = newest && header.stale_until > now;
            inspection.live_bytes += if live { place.1 } else { 0 };
            let (created_ms, expires_ms) = (header.created, header.expires);
            visit(InspectedEntry { namespace, key, bytes: place.1, created_ms, expires_ms, live });
        })
        .map_err(fail)?;
    }
    inspection.events = notes::events(path, LEDGER_LIMIT).map_err(fail)?;
    Ok(inspection)
}

/// A lock that others who look may have too, and a cache may not. A folder that was never opened has none.
fn lock(path: &Path) -> io::Result<Option<Handle>> {
    match files::open(&path.join(LOCK), How::Read) {
        Ok(file) => {
            file.lock_to_look()?;
            Ok(Some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the last word on each key stands.
fn newest_words(
    files: &std::collections::BTreeMap<u32, std::path::PathBuf>,
    inspection: &mut Inspection,
) -> io::Result<HashMap<u128, (u32, u64)>> {
    let mut words = HashMap::new();
    let (newest, mut expected) = (files.last_key_value().map(|(id, _)| *id), None);
    for (id, file) in files {
        if expected.is_some_and(|expected| expected != *id) {
            words.clear();
        }
        expected = id.checked_add(1);
        let Ok(Some(segment)) = open_segment(*id, file, false) else {
            inspection.damaged += 1;
            words.clear();
            continue;
        };
        inspection.segments += 1;
        let end = scan(&segment.file, segment.salt, segment.len(), &mut |found| match found {
            Found::Value { place, namespace, key, intact: true, .. } => {
                words.insert(digest(namespace, key), (*id, place.0));
            }
            Found::Value { namespace, key, .. } => {
                inspection.damaged += 1;
                words.remove(&digest(namespace, key));
            }
            Found::Removal { namespace, key, .. } => {
                words.remove(&digest(namespace, key));
            }
            Found::Damage => {
                inspection.damaged += 1;
                words.clear();
            }
        })?;
        if Some(*id) != newest && !end.sealed {
            inspection.damaged += 1;
            words.clear();
        }
    }
    Ok(words)
}

/// Names a key in this listing only.
fn digest(namespace: &str, key: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(format!("{namespace}\0{key}").as_bytes())
}
