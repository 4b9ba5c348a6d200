//! The channel ids of one connection (specification 5.2): what each means, in constant time, never one id twice.
//!
//! An id is [`CHANNEL_ID_MIN`] plus an index into the connection's table and, above its bits, how often the index was used
//! before. An index whose uses are exhausted is retired, so that a connection never sees an id again: a share that was
//! under way when its channel was closed cannot be credited to another. Eight bytes per channel.

use super::chunks::Chunks;
use super::event::ChannelId;
use super::slab::NONE;

/// Below are the ids of groups: the full extranonce size for default ones, then those made by SetGroupChannel.
pub(super) const CHANNEL_ID_MIN: u32 = 64;

/// How ids are divided into an index and its uses: the same for all connections of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdLayout {
    index_bits: u32,
    use_max: u32,
}

impl IdLayout {
    /// Room for `channels_max` channels at a time.
    pub(super) fn new(channels_max: u32) -> Self {
        // Twice the room: retired indices take theirs along.
        let index_bits = (u32::BITS - channels_max.saturating_sub(1).leading_zeros() + 1).min(31);
        let use_max = (((u32::MAX - CHANNEL_ID_MIN) >> index_bits) - 1).min(USES_MAX);
        Self { index_bits, use_max }
    }

    fn id(self, index: u32, uses: u32) -> ChannelId {
        ChannelId(CHANNEL_ID_MIN + (uses << self.index_bits | index))
    }

    fn split(self, id: ChannelId) -> Option<(usize, u32)> {
        let number = id.0.checked_sub(CHANNEL_ID_MIN)?;
        Some(((number & ((1 << self.index_bits) - 1)) as usize, number >> self.index_bits))
    }
}

const OPEN: u32 = 1 << 31;
const USES_MAX: u32 = OPEN - 1;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Which use this is, with [`OPEN`] while a channel has it; else the next use.
    uses: u32,
    /// The channel's slot in the shard, or the next free index.
    slot: u32,
}

/// What a channel id means on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// An open channel, by its slot in the shard.
    Open(u32),
    /// A channel that was closed.
    Closed,
    /// Never handed out.
    Unknown,
}

/// The ids of one connection.
#[derive(Debug)]
pub(super) struct Directory {
    entries: Chunks<Entry>,
    first_free: u32,
    open: u32,
}

impl Directory {
    pub(super) const fn new() -> Self {
        Self { entries: Chunks::new(), first_free: NONE, open: 0 }
    }

    /// How many channels are open.
    pub(super) const fn open(&self) -> u32 {
        self.open
    }

    /// An id for the channel in `slot`; `None` once the connection has used them all.
    pub(super) fn insert(&mut self, layout: IdLayout, slot: u32) -> Option<ChannelId> {
        let index = if self.first_free != NONE {
            let index = self.first_free;
            self.first_free = self.entries[index].slot;
            index
        } else {
            let index = self.entries.len() as u32;
            if index >= 1 << layout.index_bits {
                return None;
            }
            self.entries.push(Entry { uses: 0, slot: NONE });
            index
        };
        let entry = &mut self.entries[index];
        let id = layout.id(index, entry.uses);
        *entry = Entry { uses: entry.uses | OPEN, slot };
        self.open += 1;
        Some(id)
    }

    pub(super) fn lookup(&self, layout: IdLayout, id: ChannelId) -> Lookup {
        let Some((index, uses)) = layout.split(id) else { return Lookup::Unknown };
        match self.entries.get(index) {
            Some(entry) if entry.uses == uses | OPEN => Lookup::Open(entry.slot),
            Some(entry) if uses < entry.uses & !OPEN => Lookup::Closed,
            _ => Lookup::Unknown,
        }
    }

    /// Ends the use of an id of an open channel.
    pub(super) fn remove(&mut self, layout: IdLayout, id: ChannelId) {
        let Some((index, uses)) = layout.split(id) else { return };
        let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.uses == uses | OPEN) else {
            return;
        };
        self.open -= 1;
        *entry = Entry { uses: uses + 1, slot: NONE };
        if uses < layout.use_max {
            entry.slot = self.first_free;
            self.first_free = index as u32;
        }
    }

    /// One more than the highest index.
    pub(super) fn indices(&self) -> usize {
        self.entries.len()
    }

    /// The slot of the open channel at `index`.
    pub(super) fn slot_at(&self, index: usize) -> Option<u32> {
        self.entries.get(index).filter(|entry| entry.uses & OPEN != 0).map(|entry| entry.slot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_comes_twice() {
        let layout = IdLayout { index_bits: 3, use_max: 2 };
        let mut directory = Directory::new();
        let mut ids = HashSet::new();
        while let Some(id) = directory.insert(layout, 7) {
            assert!(id.0 >= CHANNEL_ID_MIN);
            assert!(ids.insert(id));
            assert_eq!(directory.lookup(layout, id), Lookup::Open(7));
            directory.remove(layout, id);
            assert_eq!(directory.lookup(layout, id), Lookup::Closed);
            directory.remove(layout, id);
            assert_eq!(directory.open(), 0);
        }
        assert_eq!(ids.len(), 8 * 3, "each index is used three times, then the ids are exhausted");
    }

    #[test]
    fn ids_that_were_never_handed_out_are_unknown() {
        let layout = IdLayout::new(1000);
        let mut directory = Directory::new();
        let id = directory.insert(layout, 1).expect("there is room");
        assert_eq!(id, ChannelId(64));
        directory.remove(layout, id);
        let next_use = ChannelId(64 + (1 << layout.index_bits));
        assert_eq!(directory.lookup(layout, next_use), Lookup::Unknown);
        assert_eq!(directory.lookup(layout, ChannelId(65)), Lookup::Unknown);
        assert_eq!(directory.lookup(layout, ChannelId(63)), Lookup::Unknown);
        assert_eq!(directory.insert(layout, 2), Some(next_use));
        assert_eq!(directory.lookup(layout, next_use), Lookup::Open(2));
        assert_eq!((directory.slot_at(0), directory.slot_at(1), directory.indices()), (Some(2), None, 1));
    }

    #[test]
    fn every_layout_stays_within_32_bits() {
        for channels_max in [0, 1, 2, 3, 255, 256, 1 << 20, u32::MAX] {
            let layout = IdLayout::new(channels_max);
            let last = (u64::from(layout.use_max) << layout.index_bits) + (1 << layout.index_bits) - 1;
            assert!(last + u64::from(CHANNEL_ID_MIN) <= u64::from(u32::MAX), "{channels_max}");
            assert!(channels_max > 1 << 30 || 1 << layout.index_bits >= u64::from(channels_max));
        }
    }
}
