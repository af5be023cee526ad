//! The table of one shard: open addressing with linear steps and no graves; a removal shifts the followers back.
//!
//! It grows by a quarter at 85 % load: 28 to 35 bytes an entry in all. Its slots are in blocks of one size, and a growth frees an old block as
//! soon as it is moved: the next growth of any shard takes just these, so that growing leaves no holes in the heap. (One array a
//! shard was rejected: with 500 000 entries the heap that these and the directory were in had 28 MB for 15, now it has 20.)

use super::Place;

/// Slots of a block, 3 KiB.
const BLOCK: usize = 128;
/// Highest bit of [`Slot::len`]: read since it was written.
pub(super) const READ: u32 = 1 << 31;

/// One entry of the table. `len` of 0 marks an empty slot; its highest bit says "read since it was written".
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) segment: u32,
    /// In units of 8 bytes.
    pub(super) offset: u32,
    /// In units of 8 bytes; see above.
    pub(super) len: u32,
    /// Steady seconds, rounded up, after which the entry may not be served at all.
    pub(super) deadline: u32,
}

impl Slot {
    pub(super) fn place(&self) -> Place {
        Place { segment: self.segment, offset: u64::from(self.offset) * 8, len: u64::from(self.len & !READ) * 8 }
    }

    /// Is its life over?
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.deadline != u32::MAX && u64::from(self.deadline) * 1000 <= now_ms
    }
}

type Block = Box<[Slot; BLOCK]>;

/// Slots by hash.
#[derive(Default)]
pub(super) struct Table {
    blocks: Vec<Block>,
    /// Slots in use.
    pub(super) len: usize,
    /// Is it being loaded? Then it doubles when it is full, and is [settled](Self::settle) afterwards: half of the moves.
    is_loading: bool,
}

impl Table {
    fn size(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// Bytes of the slots.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        (self.size() * size_of::<Slot>()) as u64
    }

    pub(super) fn get(&self, at: usize) -> &Slot {
        &self.blocks[at / BLOCK][at % BLOCK]
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut Slot {
        &mut self.blocks[at / BLOCK][at % BLOCK]
    }

    /// The slots in use.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.blocks.iter().flat_map(|block| block.iter()).filter(|slot| slot.len != 0)
    }

    /// Where the search for `hash` begins: the hash without the shard's bits, scaled to the table.
    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash << 6) * self.size() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.size() { 0 } else { at + 1 }
    }

    pub(super) fn find(&self, hash: u64) -> Option<usize> {
        if self.blocks.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let slot = self.get(at);
            if slot.len == 0 {
                return None;
            }
            if slot.hash == hash {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        if let Some(at) = self.find(slot.hash) {
            *self.get_mut(at) = slot;
            return;
        }
        if (self.len + 1) * 100 > self.size() * 85 {
            let more = if self.is_loading { self.blocks.len() } else { self.blocks.len() / 4 };
            self.rebuild(self.blocks.len() + more.max(1), |_| true);
        }
        self.place(slot);
    }

    /// Many inserts come.
    pub(super) fn load(&mut self) {
        self.is_loading = true;
    }

    /// They have come: gives back what was taken too much.
    pub(super) fn settle(&mut self) {
        self.is_loading = false;
        let blocks = (self.len * 5 / 4).div_ceil(BLOCK).max(1);
        if blocks < self.blocks.len() {
            self.rebuild(blocks, |_| true);
        }
    }

    /// Into the first empty slot; there is one.
    fn place(&mut self, slot: Slot) {
        let mut at = self.home(slot.hash);
        while self.get(at).len != 0 {
            at = self.after(at);
        }
        *self.get_mut(at) = slot;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, mut hole: usize) {
        let (size, mut at) = (self.size(), hole);
        loop {
            at = self.after(at);
            let slot = *self.get(at);
            if slot.len == 0 {
                break;
            }
            // May the follower move into the hole? Only if the hole is not before its home.
            let home = self.home(slot.hash);
            let (steps, to_hole) = ((at + size - home) % size, (at + size - hole) % size);
            if steps >= to_hole {
                *self.get_mut(hole) = slot;
                hole = at;
            }
        }
        *self.get_mut(hole) = Slot::default();
        self.len -= 1;
    }

    /// Keeps what `keep` says; how many went. Gives memory back when much went.
    pub(super) fn retain(&mut self, keep: impl Fn(&Slot) -> bool) -> u64 {
        let gone = self.iter().filter(|slot| !keep(slot)).count();
        if gone > 0 {
            let left = self.len - gone;
            let blocks = if left * 3 < self.size() { (left * 3 / 2).div_ceil(BLOCK).max(1) } else { self.blocks.len() };
            self.rebuild(blocks, keep);
        }
        gone as u64
    }

    fn rebuild(&mut self, blocks: usize, keep: impl Fn(&Slot) -> bool) {
        let fresh = (0..blocks).map(|_| Box::new([Slot::default(); BLOCK])).collect();
        let old = std::mem::replace(&mut self.blocks, fresh);
        self.len = 0;
        for block in old {
            for slot in block.iter().filter(|slot| slot.len != 0 && keep(slot)) {
                self.place(*slot);
            }
        }
    }
}
