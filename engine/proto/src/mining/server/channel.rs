//! The state of one channel (specification 5.2.1, 5.2.2): what a share needs close together, the rest apart.
//!
//! A target binds a job when the job becomes active, a prefix when the job is announced; see [`History`].

use alloc::boxed::Box;

use adit_hasher::{Digest, Target};

use super::duplicates::{Inserted, Room, Seen};
use super::event::ChannelId;
use super::extranonce::{PREFIX_LEN, Prefix};
use super::history::{History, Position};
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

/// Values that were replaced but still bind a valid job.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    targets: History<Target>,
    prefixes: History<Prefix>,
}

/// What shares touch.
#[derive(Debug)]
pub(super) struct Channel {
    /// The last one sent.
    pub(super) target: Target,
    /// Merkle root of the jobs of `root_source` under the present prefix; standard channels only.
    pub(super) root: [u8; 32],
    pub(super) root_source: u32,
    /// The last one sent.
    pub(super) prefix: Prefix,
    pub(super) vardiff: Vardiff,
    pub(super) seen: Seen,
    pub(super) replaced: Option<Box<Replaced>>,
    /// What the sums of difficulty that were sent left out, below 1.
    pub(super) difficulty_carried: f64,
    /// When a job made the present target binding.
    pub(super) in_force_since: Option<Instant>,
    /// Up to where jobs became active before the present target was sent.
    pub(super) target_after: Position,
    /// The channel knows of no job that became active earlier.
    pub(super) first_active: Position,
    pub(super) id: ChannelId,
    /// Slot of its connection.
    pub(super) connection: u32,
    /// Its line in the batch's accounts, or `NONE`.
    pub(super) account: u32,
    /// Slots of its neighbours among the members of its group, or `NONE`.
    pub(super) previous_member: u32,
    pub(super) next_member: u32,
    pub(super) group: u8,
    /// What the channel may roll, in bytes.
    pub(super) extranonce_size: u8,
    pub(super) kind: Kind,
    /// Cleared when it is closed: the slot stays until its shares are judged.
    pub(super) open: bool,
    /// Standard channels: whether it was given no job yet, which must be the first thing that it is told.
    pub(super) awaits_job: bool,
    /// Whether a target is to be sent after that job.
    pub(super) target_is_untold: bool,
}

impl Channel {
    /// The full extranonce, in bytes.
    pub(super) const fn size(&self) -> usize {
        PREFIX_LEN + self.extranonce_size as usize
    }

    /// The target of a job that became active at `since`.
    pub(super) fn target_for(&self, since: Position) -> &Target {
        match &self.replaced {
            Some(replaced) => replaced.targets.at(since).unwrap_or(&self.target),
            None => &self.target,
        }
    }

    /// The prefix of a job that was announced at `announced`, and whether it is the present one.
    pub(super) fn prefix_for(&self, announced: Position) -> (Prefix, bool) {
        match self.replaced.as_ref().and_then(|replaced| replaced.prefixes.at(announced)) {
            Some(prefix) => (*prefix, false),
            None => (self.prefix, true),
        }
    }

    /// A SetTarget was sent at `head`; `activations` are those of the valid jobs.
    pub(super) fn set_target(
        &mut self,
        target: Target,
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
        self.in_force_since = None;
    }

    /// A SetExtranoncePrefix was sent at `head`; `announcements` are those of the valid jobs.
    pub(super) fn set_prefix(
        &mut self,
        prefix: Prefix,
        head: Position,
        announcements: impl Iterator<Item = Position> + Clone,
    ) {
        let replaced = core::mem::replace(&mut self.prefix, prefix);
        self.replaced.get_or_insert_default().prefixes.replace(replaced, head, announcements);
        self.forget_replaced();
        self.root_source = 0;
    }

    fn forget_replaced(&mut self) {
        if self.replaced.as_ref().is_some_and(|all| all.targets.is_empty() && all.prefixes.is_empty()) {
            self.replaced = None;
        }
    }
}

/// What shares do not touch.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) user_identity: Box<[u8]>,
    /// The easiest target that the client accepts; none for any.
    max_target: Option<Box<Target>>,
}

impl Cold {
    pub(super) fn new(user_identity: &[u8], max_target: Target) -> Self {
        let mut cold = Self { user_identity: user_identity.into(), max_target: None };
        cold.set_max_target(max_target);
        cold
    }

    pub(super) fn max_target(&self) -> Target {
        self.max_target.as_deref().copied().unwrap_or(Target::MAX)
    }

    pub(super) fn set_max_target(&mut self, max_target: Target) {
        self.max_target = (max_target != Target::MAX).then(|| Box::new(max_target));
    }
}

/// The channels of a shard. Hot and cold parts lie in tables of their own, in the same slots.
#[derive(Debug)]
pub(super) struct Channels {
    hot: Slab<Channel>,
    cold: Slab<Cold>,
    /// What the shares that the channels submitted on this tip take.
    room: Room,
}

impl Channels {
    pub(super) const fn new(room: Room) -> Self {
        Self { hot: Slab::new(), cold: Slab::new(), room }
    }

    pub(super) const fn room(&self) -> &Room {
        &self.room
    }

    /// Notes a share of a channel; see [`Seen::insert`].
    pub(super) fn insert_share(&mut self, slot: u32, digest: &Digest, tip: u32, max: u32) -> Inserted {
        match self.hot.get_mut(slot) {
            Some(channel) => channel.seen.insert(digest, tip, max, &mut self.room),
            None => Inserted::Full,
        }
    }

    /// Slots of a channel's table of shares.
    pub(super) fn share_table_len(&self, slot: u32) -> usize {
        self.hot.get(slot).map_or(0, |channel| channel.seen.table_len())
    }

    /// What stands where a share of a channel belongs.
    pub(super) fn share_place(&self, slot: u32, digest: &Digest) -> u64 {
        self.hot.get(slot).map_or(0, |channel| channel.seen.place(digest))
    }

    /// Frees a channel's table of shares if it is of no use on `tip`.
    pub(super) fn give_back_stale(&mut self, slot: u32, tip: u32) {
        if let Some(channel) = self.hot.get_mut(slot) {
            channel.seen.give_back_stale(tip, &mut self.room);
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
        if let Some(mut channel) = self.hot.remove(slot, 0) {
            channel.seen.give_back(&mut self.room);
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

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Channel> {
        self.hot.get_mut(slot)
    }

    pub(super) fn cold(&self, slot: u32) -> Option<&Cold> {
        self.cold.get(slot)
    }

    pub(super) fn cold_mut(&mut self, slot: u32) -> Option<&mut Cold> {
        self.cold.get_mut(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Channels {
        /// A channel without connection, group and work.
        pub(in super::super) fn insert_bare(&mut self, extranonce_size: u8) -> u32 {
            let channel = Channel {
                target: Target::MAX,
                root: [0; 32],
                root_source: 0,
                prefix: Prefix::default(),
                vardiff: Vardiff::new(Instant::ZERO),
                seen: Seen::default(),
                replaced: None,
                difficulty_carried: 0.0,
                in_force_since: None,
                target_after: Position(0),
                first_active: Position(0),
                id: ChannelId(0),
                connection: 0,
                account: NONE,
                previous_member: NONE,
                next_member: NONE,
                group: 0,
                extranonce_size,
                kind: Kind::Extended,
                open: true,
                awaits_job: false,
                target_is_untold: false,
            };
            self.insert(channel, Cold::new(b"", Target::MAX))
        }
    }

    #[test]
    fn state_is_small() {
        // A boxed slice of the identity's bytes comes on top, and 12 bytes in the timer wheel and 8 in the directory.
        assert!(
            size_of::<Channel>() + size_of::<Cold>() <= 248,
            "{}",
            size_of::<Channel>() + size_of::<Cold>()
        );
    }
}
