//! A table whose slots are reused: what a shard holds many of, at a fixed index each.
//!
//! It grows in chunks, so that the millionth entry costs no more than the first: nothing that is there ever moves. The
//! last slot freed is the first reused, which keeps a shard's working set dense. A free slot remembers the generation
//! that its next entry gets.

use alloc::vec::Vec;

/// Entries of a chunk.
const CHUNK_LEN: usize = 256;
/// No slot.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<T> {
    Free { next: u32, generation: u32 },
    Taken(T),
}

/// Entries by slot.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Entry<T>>>,
    first_free: u32,
    len: u32,
    slots: u32,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), first_free: NONE, len: 0, slots: 0 }
    }

    /// How many entries there are.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// One more than the highest slot ever in use.
    pub(super) const fn slots(&self) -> u32 {
        self.slots
    }

    /// Enters what `make` makes of its slot and generation.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32, u32) -> T) -> u32 {
        self.len += 1;
        if self.first_free != NONE {
            let slot = self.first_free;
            let entry = &mut self.chunks[slot as usize / CHUNK_LEN][slot as usize % CHUNK_LEN];
            if let Entry::Free { next, generation } = *entry {
                self.first_free = next;
                *entry = Entry::Taken(make(slot, generation));
            }
            return slot;
        }
        let slot = self.slots;
        self.slots += 1;
        if (slot as usize).is_multiple_of(CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        self.chunks[slot as usize / CHUNK_LEN].push(Entry::Taken(make(slot, 0)));
        slot
    }

    /// Takes an entry out; the slot's next one gets `generation`.
    pub(super) fn remove(&mut self, slot: u32, generation: u32) -> Option<T> {
        let entry = self.chunks.get_mut(slot as usize / CHUNK_LEN)?.get_mut(slot as usize % CHUNK_LEN)?;
        if matches!(entry, Entry::Free { .. }) {
            return None;
        }
        let taken = core::mem::replace(entry, Entry::Free { next: self.first_free, generation });
        self.first_free = slot;
        self.len -= 1;
        match taken {
            Entry::Taken(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }

    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        match self.chunks.get(slot as usize / CHUNK_LEN)?.get(slot as usize % CHUNK_LEN)? {
            Entry::Taken(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        match self.chunks.get_mut(slot as usize / CHUNK_LEN)?.get_mut(slot as usize % CHUNK_LEN)? {
            Entry::Taken(value) => Some(value),
            Entry::Free { .. } => None,
        }
    }
}

#[cfg(test)]
impl<T> Slab<T> {
    /// Bytes that an entry takes.
    pub(super) const fn entry_len() -> usize {
        size_of::<Entry<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_with_the_generation_left_behind() {
        let mut slab = Slab::new();
        let slots: Vec<u32> =
            (0..1000).map(|i| slab.insert(|slot, generation| (slot, generation, i))).collect();
        assert_eq!(slots, (0..1000).collect::<Vec<_>>());
        assert_eq!(slab.get(700), Some(&(700, 0, 700)));
        assert_eq!(slab.remove(700, 8), Some((700, 0, 700)));
        assert_eq!(slab.remove(700, 9), None);
        assert_eq!((slab.get(700), slab.len()), (None, 999));
        assert_eq!(slab.insert(|slot, generation| (slot, generation, 0)), 700);
        assert_eq!(slab.get_mut(700), Some(&mut (700, 8, 0)));
        assert_eq!((slab.len(), slab.slots()), (1000, 1000));
        assert_eq!(slab.get(1_000_000), None);
        assert_eq!(slab.remove(1_000_000, 0), None);
    }
}
