//! Shares that a channel submitted on the present tip, told apart by what was hashed.
//!
//! A share is known by 64 bits of its digest, never by its job or nonce: two jobs can share one header space. The bits
//! are the digest's first bytes, those that difficulty leaves free. Among a million shares a false duplicate has a
//! probability below 10^-13 a share.
//!
//! The set is an open-addressed table of fingerprints, empty (and unallocated) until the first share, at most 7/8 full,
//! doubled as needed up to the caller's bound. It is emptied lazily, with the first share after a tip, so that a new tip
//! costs idle channels nothing; a table that the last tip filled to less than a quarter is made smaller then.
//!
//! A block that is refused as a share is in no channel's set. [`Solved`] remembers the last [`SOLVED_MAX`] blocks of the shard,
//! so that each is reported once, however often it comes and whatever becomes of the share.

use alloc::boxed::Box;
use alloc::vec;

use adit_hasher::Digest;

const SLOTS_MIN: usize = 8;
/// Blocks that a shard remembers. The next block of a tip makes the others worthless, so more are found on test chains only,
/// and there a block that is reported again does no harm.
pub const SOLVED_MAX: usize = 64;
/// Marks a free slot; a digest that begins with it is filed under another value.
const FREE: u64 = 0;

/// What became of a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Not seen on this tip before.
    New,
    /// Seen on this tip before.
    Duplicate,
    /// New, but the channel has reached its bound of shares on this tip.
    Full,
}

/// The fingerprints of one channel.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    slots: Box<[u64]>,
    len: u32,
    tip: u32,
}

impl Seen {
    /// Notes a share's digest. `tip` numbers the tip that the share was found on: another number than the last empties the
    /// set first. At most `max` shares are kept for a tip.
    pub fn insert(&mut self, digest: &Digest, tip: u32, max: u32) -> Inserted {
        if tip != self.tip {
            self.clear();
            self.tip = tip;
        }
        let fingerprint = fingerprint(digest);
        if !self.slots.is_empty() {
            let slot = find(&self.slots, fingerprint);
            if self.slots[slot] == fingerprint {
                return Inserted::Duplicate;
            }
        }
        if self.len >= max {
            return Inserted::Full;
        }
        if (self.len as usize + 1) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let slot = find(&self.slots, fingerprint);
        self.slots[slot] = fingerprint;
        self.len += 1;
        Inserted::New
    }

    /// How many shares are noted.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether none is.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn clear(&mut self) {
        let wanted = slots_for(self.len as usize);
        if wanted * 4 < self.slots.len() {
            self.slots = vec![FREE; wanted].into_boxed_slice();
        } else {
            self.slots.fill(FREE);
        }
        self.len = 0;
    }

    fn grow(&mut self) {
        let larger = vec![FREE; (self.slots.len() * 2).max(SLOTS_MIN)].into_boxed_slice();
        let smaller = core::mem::replace(&mut self.slots, larger);
        for &fingerprint in smaller.iter().filter(|&&slot| slot != FREE) {
            let slot = find(&self.slots, fingerprint);
            self.slots[slot] = fingerprint;
        }
    }
}

/// The last blocks among a shard's shares.
#[derive(Clone, Debug)]
pub struct Solved {
    fingerprints: [u64; SOLVED_MAX],
    oldest: usize,
}

impl Default for Solved {
    fn default() -> Self {
        Self { fingerprints: [FREE; SOLVED_MAX], oldest: 0 }
    }
}

impl Solved {
    /// Notes a block; `false` if it is known already.
    pub fn insert(&mut self, digest: &Digest) -> bool {
        // A block's digest ends, not begins, with zeros: its first bytes tell it apart as they do a share's.
        let fingerprint = fingerprint(digest);
        if self.fingerprints.contains(&fingerprint) {
            return false;
        }
        self.fingerprints[self.oldest] = fingerprint;
        self.oldest = (self.oldest + 1) % SOLVED_MAX;
        true
    }
}

/// Slots for `len` shares at the fullest allowed; none for none.
fn slots_for(len: usize) -> usize {
    if len == 0 { 0 } else { (len * 8).div_ceil(7).next_power_of_two().max(SLOTS_MIN) }
}

fn fingerprint(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    match u64::from_le_bytes([a, b, c, d, e, f, g, h]) {
        FREE => 1,
        fingerprint => fingerprint,
    }
}

/// The slot that holds `fingerprint`, or the free one where it belongs. The table is never full and its length is a power
/// of two, so the walk ends.
fn find(slots: &[u64], fingerprint: u64) -> usize {
    let mask = slots.len() - 1;
    let mut slot = fingerprint as usize & mask;
    while slots[slot] != FREE && slots[slot] != fingerprint {
        slot = (slot + 1) & mask;
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn digest(first: u64) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        Digest(bytes)
    }

    #[test]
    fn agrees_with_a_hash_set() {
        let mut seen = Seen::default();
        let mut model = HashSet::new();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // A small range, so that repeats and clashing slots are common.
            let value = (state >> 33) % 9_000;
            let expected = if model.insert(value.max(1)) { Inserted::New } else { Inserted::Duplicate };
            assert_eq!(seen.insert(&digest(value), 0, u32::MAX), expected, "{value}");
        }
        assert_eq!(seen.len() as usize, model.len());
    }

    #[test]
    fn a_new_tip_empties_the_set_and_gives_memory_back() {
        let mut seen = Seen::default();
        for value in 0..1_000 {
            assert_eq!(seen.insert(&digest(value + 10), 1, u32::MAX), Inserted::New);
        }
        let slots = seen.slots.len();
        assert_eq!(seen.insert(&digest(10), 2, u32::MAX), Inserted::New, "another tip, another header");
        assert_eq!(seen.slots.len(), slots, "one busy tip keeps the room for the next");
        assert_eq!(seen.insert(&digest(10), 3, u32::MAX), Inserted::New);
        assert_eq!(seen.slots.len(), SLOTS_MIN, "a quiet tip gives it back");
    }

    #[test]
    fn the_bound_refuses_new_shares_and_still_knows_the_old() {
        let mut seen = Seen::default();
        for value in 1..=100 {
            assert_eq!(seen.insert(&digest(value), 0, 100), Inserted::New);
        }
        assert_eq!(seen.insert(&digest(101), 0, 100), Inserted::Full);
        assert_eq!(seen.insert(&digest(55), 0, 100), Inserted::Duplicate);
    }

    #[test]
    fn blocks_are_remembered_until_as_many_came_after() {
        let mut solved = Solved::default();
        for value in 1..=SOLVED_MAX as u64 {
            assert!(solved.insert(&digest(value)));
            assert!(!solved.insert(&digest(value)));
        }
        assert!(!solved.insert(&digest(1)));
        assert!(solved.insert(&digest(1_000)));
        assert!(solved.insert(&digest(1)), "the oldest made room");
    }

    #[test]
    fn sixty_shares_fit_a_kilobyte_and_none_take_nothing() {
        let mut seen = Seen::default();
        assert_eq!(seen.slots.len(), 0);
        for value in 1..=60 {
            seen.insert(&digest(value), 0, u32::MAX);
        }
        assert!(seen.slots.len() * size_of::<u64>() <= 1_024);
        assert!(size_of::<Seen>() <= 24);
    }
}
