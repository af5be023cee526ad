//! What the server runs in one piece, and how it is called: by the digest of its text.
//!
//! A Cluster runs a script on one server alone. So what a single server does in one piece is two steps there: first the data, in
//! a script where they are, then the record in the log, where that is.

use std::sync::LazyLock;

/// What the server runs in one piece.
#[derive(Clone, Copy, Debug)]
pub(in crate::tier::remote) enum Script {
    /// KEYS entry, slot, log; ARGV value, life ms, slot life ms, instance, message. Stores, moves the slot's mark, tells the log.
    Set,
    /// KEYS entry, slot, epoch; ARGV value, life ms, slot mark, field, wide marks. Stores if no mark has moved. 1 if it did.
    Fill,
    /// KEYS entry, slot, log; ARGV slot life ms, instance, message. Deletes, moves the mark, tells the log. 1 if there was one.
    Remove,
    /// KEYS log, epoch; ARGV field, instance, message. Moves a wide mark and tells the log.
    Mark,
    /// KEYS entry; ARGV first bytes as read, or "" for a value that is no string. Deletes what is still the same.
    Scrub,
    /// KEYS log, epoch; ARGV a random id. Gives the log a new incarnation if it has none or its records are gone.
    Birth,
    /// In a Cluster, where the log is elsewhere. KEYS entry, slot; ARGV value, life ms, slot life ms, mark. Stores, moves the slot's mark.
    SetHere,
    /// KEYS entry, slot; ARGV value, life ms, slot mark. Stores if the slot's mark has not moved. 1 if it did.
    FillHere,
    /// KEYS entry, slot; ARGV slot life ms, mark. Deletes, moves the mark. 1 if there was one.
    RemoveHere,
}

pub(super) const SCRIPTS: [(Script, &str); 9] = [
    (
        Script::Set,
        "local id = redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*', 'b', ARGV[4], 'm', ARGV[5])
redis.call('SET', KEYS[2], id, 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
    ),
    (
        Script::Fill,
        "if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
local m = redis.call('HMGET', KEYS[3], 'id', ARGV[4], '*')
if not m[1] or m[1] .. '/' .. (m[2] or '') .. '/' .. (m[3] or '') ~= ARGV[5] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
    ),
    (
        Script::Remove,
        "local n = redis.call('UNLINK', KEYS[1])
local id = redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*', 'b', ARGV[2], 'm', ARGV[3])
redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
return n",
    ),
    (
        Script::Mark,
        "local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'b', ARGV[2], 'm', ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], id)
return 1",
    ),
    (
        Script::Scrub,
        "local string = redis.call('TYPE', KEYS[1]).ok == 'string'
if ARGV[1] == '' then
  if string then return 0 end
elseif not string or redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) ~= ARGV[1] then
  return 0
end
return redis.call('UNLINK', KEYS[1])",
    ),
    (
        Script::Birth,
        "if redis.call('XLEN', KEYS[1]) > 0 and redis.call('HEXISTS', KEYS[2], 'id') == 1 then return 0 end
redis.call('HSET', KEYS[2], 'id', ARGV[1])
redis.call('XADD', KEYS[1], '*', 'b', '', 'm', '')
return 1",
    ),
    (
        Script::SetHere,
        "redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
    ),
    (
        Script::FillHere,
        "if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1",
    ),
    (
        Script::RemoveHere,
        "local n = redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[1])
return n",
    ),
];

/// The scripts' digests, in the order of [`SCRIPTS`].
pub(super) static DIGESTS: LazyLock<Vec<String>> =
    LazyLock::new(|| SCRIPTS.iter().map(|(_, text)| redis::Script::new(text).get_hash().to_owned()).collect());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_stands_at_its_place() {
        for (at, (script, _)) in SCRIPTS.into_iter().enumerate() {
            assert_eq!(script as usize, at, "{script:?}");
        }
    }
}
