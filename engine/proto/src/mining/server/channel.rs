//! The state of one channel (specification 5.2.1, 5.2.2), in three parts: what every share touches, what a channel has from its
//! first share on, and what shares do not touch.
//!
//! Most channels of a proxy say nothing for minutes, so what they take before their first share is what a shard's memory
//! is made of: [`Channel`] and [`Cold`], 12 bytes in the timer wheel and 8 in the connection's directory.
//!
//! A target binds a job when the job becomes active, a prefix when the job is announced; see [`History`].

use alloc::boxed::Box;

use adit_hasher::Digest;

use super::duplicates::{Inserted, Room, Seen};
use super::event::ChannelId;
use super::extranonce::{PREFIX_LEN, Prefix};
use super::history::{History, Position};
use super::identity::Identity;
use super::short_target::ShortTarget;
use super::slab::{NONE, Slab};
use super::vardiff::Vardiff;
use crate::time::Instant;

/// Which of the two kinds a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Header-only mining: the extranonce is the prefix.
    Standard,
    /// The channel rolls what follows the prefix.
    Extended,
}

/// What a standard channel is still to be told. NewMiningJob comes first (specification 5.3.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untold {
    Nothing,
    /// It was given no job yet.
    Job,
    /// Nor the target that came after its opening.
    JobAndTarget,
}

/// A moment, or none, in eight bytes: the end of time stands for none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(Instant);

impl Since {
    const NEVER: Instant = Instant::from_nanos(u64::MAX);

    pub(super) fn new(moment: Option<Instant>) -> Self {
        Self(moment.unwrap_or(Self::NEVER))
    }

    pub(super) fn moment(self) -> Option<Instant> {
        Some(self.0).filter(|moment| *moment != Self::NEVER)
    }
}

/// Values that were replaced but still bind a valid job.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    targets: History<ShortTarget>,
    prefixes: History<Prefix>,
}

/// What every share touches.
#[derive(Debug)]
pub(super) struct Channel {
    /// The last one sent.
    pub(super) target: ShortTarget,
    /// The last one sent.
    pub(super) prefix: Prefix,
    pub(super) vardiff: Vardiff,
    pub(super) replaced: Option<Box<Replaced>>,
    /// When a job made the present target binding.
    pub(super) in_force_since: Since,
    /// Up to where jobs became active before the present target was sent.
    pub(super) target_after: Position,
    /// The channel knows of no job that became active earlier.
    pub(super) first_active: Position,
    /// What the sums of difficulty that were sent left out, in parts of 2^32.
    pub(super) difficulty_carried: u32,
    pub(super) id: ChannelId,
    /// Slot of its connection.
    pub(super) connection: u32,
    /// Its line in the batch's accounts, or `NONE`.
    pub(super) account: u32,
    /// Slots of its neighbours among the members of its group, or `NONE`.
    pub(super) previous_member: u32,
    pub(super) next_member: u32,
    /// Slot of its [`Warm`] part, or `NONE`.
    warm: u32,
    pub(super) group: u8,
    /// What the channel may roll, in bytes: none if it is a standard channel.
    pub(super) extranonce_size: u8,
    /// Cleared when it is closed: the slot stays until its shares are judged.
    pub(super) open: bool,
    pub(super) untold: Untold,
}

/// What a new channel begins with.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) target: ShortTarget,
    pub(super) prefix: Prefix,
    /// Whether a job is active already.
    pub(super) has_work: bool,
    pub(super) now: Instant,
    pub(super) head: Position,
    pub(super) first_active: Position,
    /// Slot of its connection.
    pub(super) connection: u32,
    pub(super) extranonce_size: u8,
    pub(super) untold: Untold,
}

impl Channel {
    /// A channel without id and group.
    pub(super) fn new(beginning: &Beginning) -> Self {
        Self {
            target: beginning.target,
            prefix: beginning.prefix,
            vardiff: Vardiff::new(beginning.now),
            replaced: None,
            in_force_since: Since::new(beginning.has_work.then_some(beginning.now)),
            target_after: beginning.head,
            first_active: beginning.first_active,
            difficulty_carried: 0,
            id: ChannelId(0),
            connection: beginning.connection,
            account: NONE,
            previous_member: NONE,
            next_member: NONE,
            warm: NONE,
            group: 0,
            extranonce_size: beginning.extranonce_size,
            open: true,
            untold: beginning.untold,
        }
    }

    pub(super) const fn kind(&self) -> Kind {
        // An extended channel is granted no less than four bytes.
        if self.extranonce_size == 0 { Kind::Standard } else { Kind::Extended }
    }

    /// The full extranonce, in bytes.
    pub(super) const fn size(&self) -> usize {
        PREFIX_LEN + self.extranonce_size as usize
    }

    /// Whether it was given no job yet.
    pub(super) fn awaits_job(&self) -> bool {
        self.untold != Untold::Nothing
    }

    /// The target of a job that became active at `since`.
    pub(super) fn target_for(&self, since: Position) -> ShortTarget {
        match &self.replaced {
            Some(replaced) => replaced.targets.at(since).copied().unwrap_or(self.target),
            None => self.target,
        }
    }

    /// The prefix of a job that was announced at `announced`.
    pub(super) fn prefix_for(&self, announced: Position) -> Prefix {
        let replaced = self.replaced.as_ref().and_then(|replaced| replaced.prefixes.at(announced));
        replaced.copied().unwrap_or(self.prefix)
    }

    /// A SetTarget was sent at `head`; `activations` are those of the valid jobs.
    pub(super) fn set_target(
        &mut self,
        target: ShortTarget,
        head: Position,
        activations: impl Iterator<Item = Position> + Clone,
    ) {
        if target == self.target {
            return;
        }
        let replaced = core::mem::replace(&mut self.target, target);
        let first_active = self.first_active;
        self.replaced.get_or_insert_default().targets.replace(
            replaced,
            head,
            activations.filter(move |since| *since >= first_active),
        );
        self.forget_replaced();
        self.target_after = head;
        self.in_force_since = Since::new(None);
    }

    fn forget_replaced(&mut self) {
        if self.replaced.as_ref().is_some_and(|all| all.targets.is_empty() && all.prefixes.is_empty()) {
            self.replaced = None;
        }
    }
}

/// What a channel has from its first share on; on connections that require standard jobs, from its first job on.
/// In a cache line of its own: it is one more place that a share has to go to.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Warm {
    seen: Seen,
    /// Merkle root of the jobs of `root_source` under the present prefix; standard channels only.
    root: [u8; 32],
    root_source: u32,
    /// Its entry in [`Owed`](super::owed::Owed), or `NONE`.
    owed: u32,
}

impl Default for Warm {
    fn default() -> Self {
        Self { seen: Seen::default(), root: [0; 32], root_source: 0, owed: NONE }
    }
}

impl Warm {
    /// The merkle root of the jobs of a source under the channel's present prefix, if it is known.
    pub(super) fn root(&self, source: u32) -> Option<&[u8; 32]> {
        (self.root_source == source).then_some(&self.root)
    }
}

/// What shares do not touch.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) user_identity: Identity,
    /// The easiest target that the client accepts.
    pub(super) max_target: ShortTarget,
}

impl Cold {
    pub(super) fn new(user_identity: &[u8], max_target: ShortTarget) -> Self {
        Self { user_identity: Identity::new(user_identity), max_target }
    }
}

/// The channels of a shard. Hot and cold parts lie in tables of their own, in the same slots; the warm parts of those
/// that have one in a third.
#[derive(Debug)]
pub(super) struct Channels {
    hot: Slab<Channel>,
    warm: Slab<Warm>,
    cold: Slab<Cold>,
    /// What the shares that the channels submitted on this tip take.
    room: Room,
}

impl Channels {
    pub(super) const fn new(room: Room) -> Self {
        Self { hot: Slab::new(), warm: Slab::new(), cold: Slab::new(), room }
    }

    pub(super) const fn room(&self) -> &Room {
        &self.room
    }

    /// Notes a share of a channel; see [`Seen::insert`].
    pub(super) fn insert_share(&mut self, slot: u32, digest: &Digest, tip: u32, max: u32) -> Inserted {
        let Some(channel) = self.hot.get_mut(slot) else { return Inserted::Full };
        match warm_of(channel, &mut self.warm) {
            Some(warm) => warm.seen.insert(digest, tip, max, &mut self.room),
            None => Inserted::Full,
        }
    }

    /// Where it stands what a channel with shares is owed.
    pub(super) fn owed_mut(&mut self, slot: u32) -> Option<&mut u32> {
        Some(&mut self.warm.get_mut(self.hot.get(slot)?.warm)?.owed)
    }

    /// Slots of a channel's table of shares.
    pub(super) fn share_table_len(&self, slot: u32) -> usize {
        self.warm_at(slot).map_or(0, |warm| warm.seen.table_len())
    }

    /// What stands where a share of a channel belongs.
    pub(super) fn share_place(&self, slot: u32, digest: &Digest) -> u64 {
        self.warm_at(slot).map_or(0, |warm| warm.seen.place(digest))
    }

    fn warm_at(&self, slot: u32) -> Option<&Warm> {
        self.warm.get(self.hot.get(slot)?.warm)
    }

    /// Keeps the merkle root of a source's jobs under a standard channel's present prefix: its next shares need but one hash
    /// each.
    pub(super) fn keep_root(&mut self, slot: u32, source: u32, root: &[u8; 32]) {
        let Some(channel) = self.hot.get_mut(slot) else { return };
        if let Some(warm) = warm_of(channel, &mut self.warm) {
            (warm.root, warm.root_source) = (*root, source);
        }
    }

    /// Frees a channel's table of shares if it is of no use on `tip`, and its whole warm part if the root that it keeps is
    /// none of a valid job's either.
    pub(super) fn give_back_stale(&mut self, slot: u32, tip: u32, is_valid: impl FnOnce(u32) -> bool) {
        let Some(channel) = self.hot.get_mut(slot) else { return };
        let Some(warm) = self.warm.get_mut(channel.warm) else { return };
        if warm.seen.give_back_stale(tip, &mut self.room) && !is_valid(warm.root_source) && warm.owed == NONE
        {
            self.warm.remove(core::mem::replace(&mut channel.warm, NONE), 0);
        }
    }

    pub(super) const fn len(&self) -> u32 {
        self.hot.len()
    }

    pub(super) fn insert(&mut self, channel: Channel, cold: Cold) -> u32 {
        let slot = self.hot.insert(|_, _| channel);
        let cold_slot = self.cold.insert(|_, _| cold);
        debug_assert_eq!(slot, cold_slot, "both tables see the same insertions and removals");
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let warm = self.hot.remove(slot, 0).and_then(|channel| self.warm.remove(channel.warm, 0));
        if let Some(mut warm) = warm {
            warm.seen.give_back(&mut self.room);
        }
        self.cold.remove(slot, 0);
    }

    /// Puts a channel before `first`, the first member of its group.
    pub(super) fn link(&mut self, slot: u32, first: u32) {
        if let Some(next) = self.hot.get_mut(first) {
            next.previous_member = slot;
        }
        if let Some(channel) = self.hot.get_mut(slot) {
            (channel.previous_member, channel.next_member) = (NONE, first);
        }
    }

    /// Takes a channel from between its neighbours and returns the slot of the next.
    pub(super) fn unlink(&mut self, slot: u32) -> u32 {
        let Some(channel) = self.hot.get_mut(slot) else { return NONE };
        let previous = core::mem::replace(&mut channel.previous_member, NONE);
        let next = core::mem::replace(&mut channel.next_member, NONE);
        if let Some(channel) = self.hot.get_mut(previous) {
            channel.next_member = next;
        }
        if let Some(channel) = self.hot.get_mut(next) {
            channel.previous_member = previous;
        }
        next
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Channel> {
        self.hot.get(slot)
    }

    /// Reads something of a channel from places that lie apart, so that most of what a share touches is fetched.
    pub(super) fn touch(&self, slot: u32) -> u64 {
        self.hot.get(slot).map_or(0, |channel| {
            u64::from_ne_bytes(channel.prefix)
                ^ u64::from(channel.account)
                ^ u64::from(channel.extranonce_size)
        })
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Channel> {
        self.hot.get_mut(slot)
    }

    /// The merkle root of a source's jobs that a standard channel keeps, if `prefix` is its present one.
    pub(super) fn kept_root(&self, slot: u32, source: u32, prefix: &[u8]) -> Option<&[u8; 32]> {
        let channel = self.hot.get(slot).filter(|channel| channel.prefix == prefix)?;
        self.warm.get(channel.warm)?.root(source)
    }

    /// How many channels have a warm part.
    pub(super) const fn warm_len(&self) -> u32 {
        self.warm.len()
    }

    pub(super) fn warm(&self, channel: &Channel) -> Option<&Warm> {
        self.warm.get(channel.warm)
    }

    /// A SetExtranoncePrefix was sent at `head`; `announcements` are those of the valid jobs.
    pub(super) fn set_prefix(
        &mut self,
        slot: u32,
        prefix: Prefix,
        head: Position,
        announcements: impl Iterator<Item = Position> + Clone,
    ) {
        let Some(channel) = self.hot.get_mut(slot) else { return };
        let replaced = core::mem::replace(&mut channel.prefix, prefix);
        channel.replaced.get_or_insert_default().prefixes.replace(replaced, head, announcements);
        channel.forget_replaced();
        if let Some(warm) = self.warm.get_mut(channel.warm) {
            warm.root_source = 0;
        }
    }

    pub(super) fn cold(&self, slot: u32) -> Option<&Cold> {
        self.cold.get(slot)
    }

    pub(super) fn cold_mut(&mut self, slot: u32) -> Option<&mut Cold> {
        self.cold.get_mut(slot)
    }
}

/// The warm part of a channel, which gets one if it has none.
fn warm_of<'a>(channel: &mut Channel, all: &'a mut Slab<Warm>) -> Option<&'a mut Warm> {
    if channel.warm == NONE {
        channel.warm = all.insert(|_, _| Warm::default());
    }
    all.get_mut(channel.warm)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Channels {
        /// A channel without connection, group and work.
        pub(in super::super) fn insert_bare(&mut self, extranonce_size: u8) -> u32 {
            let beginning = Beginning {
                target: ShortTarget::MAX,
                prefix: Prefix::default(),
                has_work: false,
                now: Instant::ZERO,
                head: Position(0),
                first_active: Position(0),
                connection: 0,
                extranonce_size,
                untold: Untold::Nothing,
            };
            self.insert(Channel::new(&beginning), Cold::new(b"", ShortTarget::MAX))
        }
    }

    #[test]
    fn state_is_small() {
        // In the tables, where a free slot must be told from a taken one. 12 bytes in the timer wheel and 8 in the directory
        // come on top, and an identity of more than 22 bytes is boxed.
        assert!(Slab::<Channel>::entry_len() <= 112, "{}", Slab::<Channel>::entry_len());
        assert!(Slab::<Cold>::entry_len() <= 32, "{}", Slab::<Cold>::entry_len());
        assert!(Slab::<Warm>::entry_len() <= 64, "{}", Slab::<Warm>::entry_len());
    }

    #[test]
    fn a_moment_or_none_comes_back() {
        for moment in [None, Some(Instant::ZERO), Some(Instant::from_nanos(u64::MAX - 1))] {
            assert_eq!(Since::new(moment).moment(), moment);
        }
    }

    #[test]
    fn warm_parts_come_with_use_and_go_with_their_channels() {
        let mut channels = Channels::new(Room::new(1 << 10, 6.0));
        let slots = [(); 3].map(|()| channels.insert_bare(0));
        let root = |channels: &Channels, slot, source| {
            let channel = channels.get(slot).expect("it is there");
            channels.warm(channel).and_then(|warm| warm.root(source)).copied()
        };
        assert_eq!(channels.warm.len(), 0);
        channels.keep_root(slots[0], 7, &[1; 32]);
        assert_eq!(channels.insert_share(slots[1], &Digest([1; 32]), 1, 10), Inserted::New);
        channels.keep_root(slots[1], 7, &[2; 32]);
        assert_eq!(channels.insert_share(slots[1], &Digest([1; 32]), 1, 10), Inserted::Duplicate);
        assert_eq!((channels.warm.len(), channels.room.used()), (2, 8));
        assert_eq!((root(&channels, slots[0], 7), root(&channels, slots[0], 8)), (Some([1; 32]), None));
        channels.set_prefix(slots[0], [9; 8], Position(1), core::iter::empty());
        assert_eq!((root(&channels, slots[0], 7), root(&channels, slots[1], 7)), (None, Some([2; 32])));

        channels.give_back_stale(slots[1], 2, |_| false);
        assert_eq!((channels.warm.len(), channels.room.used()), (2, 8), "it may come again");
        channels.give_back_stale(slots[1], 3, |source| source == 7);
        assert_eq!((channels.warm.len(), channels.room.used()), (2, 0), "the root is of use");
        channels.give_back_stale(slots[1], 3, |_| false);
        channels.give_back_stale(slots[2], 3, |_| false);
        assert_eq!(channels.warm.len(), 1);
        assert_eq!(channels.insert_share(slots[1], &Digest([1; 32]), 3, 10), Inserted::New);
        channels.remove(slots[1]);
        channels.remove(slots[0]);
        assert_eq!((channels.warm.len(), channels.room.used(), channels.len()), (0, 0, 1));
    }
}
