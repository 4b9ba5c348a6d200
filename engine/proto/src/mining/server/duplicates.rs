//! Shares that a channel submitted on the present tip, told apart by what was hashed.
//!
//! A share is known by 64 bits of its digest, never by its job or nonce: two jobs can share one header space. The bits
//! are the digest's first bytes, those that difficulty leaves free. Among a million shares a false duplicate has a
//! probability below 10^-13 a share.
//!
//! The set is an open-addressed table of fingerprints, empty (and unallocated) until the first share, at most 7/8 full, made
//! larger as needed up to the caller's bound: by quarters where what the pool wants of a channel between two tips ends up (a
//! hundred shares take no table for two hundred), else to twice its size. It is emptied lazily, with the first share after a tip,
//! so that a new tip costs idle channels nothing; a table that the last tip filled to less than a quarter is made smaller then.
//! Channels without a share on the last tip give theirs back.
//!
//! All tables of a shard share a [`Room`]: what a stranger's shares make the shard keep is bounded, and he cannot take it from
//! others.
//!
//! A block that is refused as a share is in no channel's set. [`Solved`] remembers the last [`SOLVED_MAX`] blocks of the shard,
//! so that each is reported once, however often it comes and whatever becomes of the share.

use alloc::boxed::Box;
use alloc::vec;

use adit_hasher::Digest;

const SLOTS_MIN: usize = 8;
/// Between these sizes tables grow by quarters. A smaller one would be copied for a few bytes, a larger one four times as
/// often as if it doubled. The first is more than twice the size before it: each size that most tables pass through leaves holes
/// in the allocator's pages, and there most of them stay.
const FINE_FROM: usize = 80;
const FINE_TO: usize = 512;
/// Up to here tables double.
const COARSE_TO: usize = 32;
/// Blocks that a shard remembers. The next block of a tip makes the others worthless, so more are found on test chains only,
/// and there a block that is reported again does no harm.
pub const SOLVED_MAX: usize = 64;
/// Marks a free slot; a digest that begins with it is filed under another value.
const FREE: u64 = 0;

/// The size of a table that a channel may always have: it holds what the wanted share rate brings in this many minutes.
const FAIR_MINUTES: f64 = 15.0;
const FAIR_SLOTS_MAX: usize = 4_096;
/// Parts of the room that lie open to tables of the fair size only, of twice that, four times and so on: one each.
const STEPS: u32 = 8;
/// Tables that are larger still have as much as those of this step.
const STEP_MAX: u32 = 4;

/// What all tables of a shard may take, in slots of 8 bytes.
///
/// The larger a table, the less of the room may be in use for it to grow: tables up to the fair size may fill the whole room,
/// those up to twice that 7/8 of it, then 6/8 and 5/8, and all larger ones half. So a flood of shares, over however many
/// channels, stops itself while there is room for those who send what the pool wants of them. Taking a table from a channel
/// that floods instead would need a search for it, and would make its shares count twice.
#[derive(Debug)]
pub struct Room {
    used: usize,
    max: usize,
    fair: usize,
}

impl Room {
    /// Room for `max` fingerprints, where a channel is to find `shares_per_minute`.
    pub fn new(max: usize, shares_per_minute: f64) -> Self {
        let shares = (shares_per_minute * FAIR_MINUTES).clamp(1.0, FAIR_SLOTS_MAX as f64 / 2.0);
        Self { used: 0, max, fair: slots_for(shares as usize) }
    }

    /// Slots of all tables.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Whether more than half is in use, so that tables of an earlier tip should go.
    const fn is_short(&self) -> bool {
        self.used > self.max / 2
    }

    /// Lets a table grow, if it may.
    fn grow(&mut self, from: usize, to: usize) -> bool {
        let step = to.div_ceil(self.fair).next_power_of_two().ilog2().min(STEP_MAX);
        let ceiling = self.max - self.max / STEPS as usize * step as usize;
        let used = self.used - from + to;
        let granted = used <= ceiling;
        if granted {
            self.used = used;
        }
        granted
    }

    fn give_back(&mut self, slots: usize) {
        debug_assert!(slots <= self.used, "only what was granted is given back");
        self.used -= slots;
    }
}

/// What became of a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Not seen on this tip before.
    New,
    /// Seen on this tip before.
    Duplicate,
    /// New, but the channel has reached its bound of shares on this tip, or the shard its own.
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
    /// set first. At most `max` shares are kept for a tip, and no more than there is `room` for.
    pub fn insert(&mut self, digest: &Digest, tip: u32, max: u32, room: &mut Room) -> Inserted {
        if tip != self.tip {
            self.clear(room);
            self.tip = tip;
        }
        let fingerprint = fingerprint(digest);
        let mut slot = 0;
        if !self.slots.is_empty() {
            slot = find(&self.slots, fingerprint);
            if self.slots[slot] == fingerprint {
                return Inserted::Duplicate;
            }
        }
        if self.len >= max {
            return Inserted::Full;
        }
        if (self.len as usize + 1) * 8 > self.slots.len() * 7 {
            let larger = larger(self.slots.len());
            if !room.grow(self.slots.len(), larger) {
                return Inserted::Full;
            }
            self.grow(larger);
            slot = find(&self.slots, fingerprint);
        }
        self.slots[slot] = fingerprint;
        self.len += 1;
        Inserted::New
    }

    /// Slots of the table.
    pub(super) const fn table_len(&self) -> usize {
        self.slots.len()
    }

    /// What stands where the search for a digest begins. It says nothing of the digest: whoever asks wants it in the cache.
    pub(super) fn place(&self, digest: &Digest) -> u64 {
        self.slots.get(home(self.slots.len(), fingerprint(digest))).copied().unwrap_or(FREE)
    }

    /// How many shares are noted.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether none is.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives a table back that is of no use any more: no share came on the tip before `tip`, or, if room is short, none on
    /// `tip` yet. Says whether that is so.
    pub fn give_back_stale(&mut self, tip: u32, room: &mut Room) -> bool {
        let age = tip.wrapping_sub(self.tip);
        let is_stale = age >= 2 || (age == 1 && room.is_short());
        if is_stale {
            self.give_back(room);
        }
        is_stale
    }

    /// Gives the table back.
    pub fn give_back(&mut self, room: &mut Room) {
        room.give_back(self.slots.len());
        self.slots = Box::default();
        self.len = 0;
    }

    fn clear(&mut self, room: &mut Room) {
        let wanted = slots_for(self.len as usize);
        if wanted * 4 < self.slots.len() {
            room.give_back(self.slots.len() - wanted);
            self.slots = vec![FREE; wanted].into_boxed_slice();
        } else {
            self.slots.fill(FREE);
        }
        self.len = 0;
    }

    fn grow(&mut self, slots: usize) {
        let smaller = core::mem::replace(&mut self.slots, vec![FREE; slots].into_boxed_slice());
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
    if len == 0 {
        return 0;
    }
    let least = (len * 8).div_ceil(7);
    let doubled = least.next_power_of_two().max(SLOTS_MIN);
    let is_fine = COARSE_TO < doubled && doubled <= FINE_TO;
    if is_fine { least.next_multiple_of(doubled / 8).max(FINE_FROM) } else { doubled }
}

/// The size after `slots`.
const fn larger(slots: usize) -> usize {
    match slots {
        0 => SLOTS_MIN,
        COARSE_TO..FINE_FROM => FINE_FROM,
        FINE_FROM..FINE_TO => slots + (1 << slots.ilog2()) / 4,
        _ => slots * 2,
    }
}

fn fingerprint(digest: &Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = digest.0;
    match u64::from_le_bytes([a, b, c, d, e, f, g, h]) {
        FREE => 1,
        fingerprint => fingerprint,
    }
}

/// Where the search for `fingerprint` begins in a table of any length up to 2^32: its upper half, scaled.
const fn home(slots: usize, fingerprint: u64) -> usize {
    (((fingerprint >> 32) * slots as u64) >> 32) as usize
}

/// The slot that holds `fingerprint`, or the free one where it belongs. The table is never full, so the walk ends.
fn find(slots: &[u64], fingerprint: u64) -> usize {
    let mut slot = home(slots.len(), fingerprint);
    while slots[slot] != FREE && slots[slot] != fingerprint {
        slot += 1;
        if slot == slots.len() {
            slot = 0;
        }
    }
    slot
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use std::collections::HashSet;

    /// A digest that begins so.
    fn beginning(first: u64) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        Digest(bytes)
    }

    /// Another digest for each value, spread as hashes are.
    fn digest(value: u64) -> Digest {
        beginning(value.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn plenty() -> Room {
        Room::new(1 << 30, 6.0)
    }

    #[test]
    fn agrees_with_a_hash_set() {
        let (mut seen, mut room) = (Seen::default(), plenty());
        let mut model = HashSet::new();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // A small range, so that repeats are common; some begin at the table's last slot, and go on at its first.
            let value = (state >> 33) % 9_000;
            let digest = if value < 500 { beginning(u64::MAX - value) } else { digest(value) };
            let expected = if model.insert(value) { Inserted::New } else { Inserted::Duplicate };
            assert_eq!(seen.insert(&digest, 0, u32::MAX, &mut room), expected, "{value}");
        }
        assert_eq!(seen.len() as usize, model.len());
    }

    #[test]
    fn a_digest_that_looks_like_a_free_slot_is_noted() {
        let (mut seen, mut room) = (Seen::default(), plenty());
        assert_eq!(seen.insert(&beginning(FREE), 0, u32::MAX, &mut room), Inserted::New);
        assert_eq!(seen.insert(&beginning(FREE), 0, u32::MAX, &mut room), Inserted::Duplicate);
    }

    #[test]
    fn tables_grow_through_the_sizes_that_a_number_of_shares_asks_for() {
        let mut slots = 0;
        for len in 1..100_000_usize {
            if len * 8 > slots * 7 {
                slots = larger(slots);
            }
            assert_eq!(slots, slots_for(len), "for {len} shares");
            assert!(len * 8 <= slots * 7, "{slots} slots for {len} shares");
        }
        assert_eq!(
            [28, 29, 57, 70, 71, 84, 98, 112, 448, 449].map(slots_for),
            [32, 80, 80, 80, 96, 96, 112, 128, 512, 1_024]
        );
    }

    #[test]
    fn a_new_tip_empties_the_set_and_gives_memory_back() {
        let (mut seen, mut room) = (Seen::default(), plenty());
        for value in 0..1_000 {
            assert_eq!(seen.insert(&digest(value + 10), 1, u32::MAX, &mut room), Inserted::New);
        }
        let slots = seen.slots.len();
        assert_eq!(
            seen.insert(&digest(10), 2, u32::MAX, &mut room),
            Inserted::New,
            "another tip, another header"
        );
        assert_eq!(seen.slots.len(), slots, "one busy tip keeps the room for the next");
        assert_eq!(seen.insert(&digest(10), 3, u32::MAX, &mut room), Inserted::New);
        assert_eq!(seen.slots.len(), SLOTS_MIN, "a quiet tip gives it back");
    }

    #[test]
    fn the_bound_refuses_new_shares_and_still_knows_the_old() {
        let (mut seen, mut room) = (Seen::default(), plenty());
        for value in 1..=100 {
            assert_eq!(seen.insert(&digest(value), 0, 100, &mut room), Inserted::New);
        }
        assert_eq!(seen.insert(&digest(101), 0, 100, &mut room), Inserted::Full);
        assert_eq!(seen.insert(&digest(55), 0, 100, &mut room), Inserted::Duplicate);
    }

    /// Fills a channel's table until it is refused; how many shares it took.
    fn fill(seen: &mut Seen, tip: u32, room: &mut Room) -> u32 {
        (1..)
            .find(|value| seen.insert(&digest(*value), tip, u32::MAX, room) == Inserted::Full)
            .map_or(0, |v| v as u32 - 1)
    }

    #[test]
    fn a_flood_leaves_room_for_fair_tables() {
        let mut room = Room::new(8_192, 6.0);
        assert_eq!(room.fair, 112);
        let mut flooding = vec![Seen::default()];
        assert_eq!(fill(&mut flooding[0], 1, &mut room), 4_096 / 8 * 7, "one channel gets half of the room");
        // More and more channels that take what they get fill what is left for their size, and no more.
        for _ in 0..15 {
            let mut seen = Seen::default();
            fill(&mut seen, 1, &mut room);
            flooding.push(seen);
        }
        assert!(room.used() <= 8_192);
        let sizes: Vec<usize> = flooding.iter().map(|seen| seen.slots.len()).collect();
        assert!(sizes.iter().all(|slots| *slots >= room.fair), "each has its fair table: {sizes:?}");
        assert_eq!(room.used(), sizes.iter().sum::<usize>());
        for seen in &mut flooding {
            seen.give_back(&mut room);
        }
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn stale_tables_are_given_back_sooner_if_room_is_short() {
        let mut room = Room::new(1_024, 6.0);
        let mut small = Seen::default();
        small.insert(&digest(9), 1, u32::MAX, &mut room);
        small.give_back_stale(1, &mut room);
        small.give_back_stale(2, &mut room);
        assert_eq!(room.used(), SLOTS_MIN, "it may come again on this tip");
        let mut large = Seen::default();
        for value in 1..=800 {
            large.insert(&digest(value), 1, u32::MAX, &mut room);
        }
        assert_eq!(room.used(), 512 + SLOTS_MIN);
        large.give_back_stale(1, &mut room);
        assert_eq!(large.len(), 448, "shares of this tip stay known");
        large.give_back_stale(2, &mut room);
        assert_eq!(room.used(), SLOTS_MIN, "room was short");
        small.give_back_stale(3, &mut room);
        assert_eq!((room.used(), small.len()), (0, 0));
        assert_eq!(small.insert(&digest(9), 3, u32::MAX, &mut room), Inserted::New);
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
    fn sixty_shares_take_640_bytes_and_none_take_nothing() {
        let (mut seen, mut room) = (Seen::default(), plenty());
        assert_eq!(seen.slots.len(), 0);
        for value in 1..=60 {
            seen.insert(&digest(value), 0, u32::MAX, &mut room);
        }
        assert_eq!(seen.slots.len() * size_of::<u64>(), 640);
        assert!(size_of::<Seen>() <= 24);
    }
}
