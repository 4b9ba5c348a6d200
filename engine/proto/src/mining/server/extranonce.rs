//! Extranonce prefixes: every channel its own part of the search space (specification 5.1.2.1).
//!
//! A prefix is 8 bytes: node (2, big-endian), shard (1), slot (5, big-endian). Node and shard keep two machines or two
//! cores from handing out the same prefix without asking one another. Slots are counted, never given back: 2^40 of them
//! last three years at 10,000 openings a second on one shard, so a slot that comes round again names no job that is still
//! valid, and nothing has to be remembered of closed channels. The counter starts elsewhere after each restart, so that
//! miners who come back on the same tip do not repeat what was searched.

use super::config::{EXTRANONCE_LEN_MAX, ExtranonceLayout, ShardId};

/// Bytes of every prefix.
pub const PREFIX_LEN: usize = 8;
/// Most bytes that an extended channel can be granted.
pub const EXTRANONCE_SIZE_MAX: usize = EXTRANONCE_LEN_MAX - PREFIX_LEN;

const SLOT_BITS: u32 = 40;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// An extranonce prefix as it stands in the coinbase.
pub type Prefix = [u8; PREFIX_LEN];

/// Hands out the prefixes of one shard.
#[derive(Clone, Debug)]
pub struct Prefixes {
    node_and_shard: u64,
    next_slot: u64,
}

impl Prefixes {
    /// Starts at the layout's first slot.
    pub const fn new(layout: ExtranonceLayout, shard: ShardId) -> Self {
        Self {
            node_and_shard: (layout.node as u64) << 48 | (shard.0 as u64) << SLOT_BITS,
            next_slot: layout.first_slot & SLOT_MASK,
        }
    }

    /// The prefixes that will be handed out next, in their order.
    pub fn upcoming(&self) -> impl Iterator<Item = Prefix> + use<> {
        let mut next = self.clone();
        core::iter::repeat_with(move || next.allocate())
    }

    /// A prefix that was not handed out before.
    pub fn allocate(&mut self) -> Prefix {
        let slot = self.next_slot;
        self.next_slot = (slot + 1) & SLOT_MASK;
        (self.node_and_shard | slot).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_node_shard_and_slot() {
        let mut prefixes =
            Prefixes::new(ExtranonceLayout { node: 0x0102, first_slot: 0x0004_0506_0708 }, ShardId(3));
        assert_eq!(prefixes.upcoming().nth(1), Some([1, 2, 3, 4, 5, 6, 7, 9]));
        assert_eq!(prefixes.allocate(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(prefixes.allocate(), [1, 2, 3, 4, 5, 6, 7, 9]);
    }

    #[test]
    fn wraps_inside_its_own_space() {
        let mut prefixes = Prefixes::new(ExtranonceLayout { node: 7, first_slot: u64::MAX }, ShardId(9));
        assert_eq!(prefixes.allocate(), [0, 7, 9, 255, 255, 255, 255, 255]);
        assert_eq!(prefixes.allocate(), [0, 7, 9, 0, 0, 0, 0, 0]);
    }
}
