//! The state of one connection: how far it has come, its channels' ids and groups, what it was told of the shard's work.

use alloc::vec::Vec;

use super::channel::Channels;
use super::directory::{CHANNEL_ID_MIN, Directory};
use super::extensions::Negotiated;
use super::history::Position;
use super::slab::NONE;
use crate::setup::Faults;
use crate::time::Instant;

/// The first id of a group made by SetGroupChannel; those below are full extranonce sizes.
pub(super) const MADE_GROUP_ID_MIN: u8 = 33;

const _: () = assert!(MADE_GROUP_ID_MIN as usize > super::config::EXTRANONCE_LEN_MAX);
const _: () = assert!((MADE_GROUP_ID_MIN as u32) < CHANNEL_ID_MIN);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// SetupConnection is to come.
    Setup,
    /// SetupConnection was accepted.
    Mining,
    /// The driver was told to close it.
    Closing,
}

/// A group channel of a connection (specification 5.2.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) id: u8,
    /// Full extranonce size of its members.
    pub(super) size: u8,
    /// Slot of the member that joined last; the others follow by [`Channel::next_member`](super::channel::Channel).
    pub(super) first: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// REQUIRES_STANDARD_JOBS.
    pub(super) standard_jobs: bool,
    pub(super) extensions: Negotiated,
    pub(super) directory: Directory,
    /// Those that have had a member; few.
    groups: Vec<Group>,
    next_group: u8,
    /// What was announced up to here was sent to it.
    pub(super) delivered: Position,
    /// Channels that were given no job yet.
    pub(super) awaiting_job: u32,
    /// When the peer's last frame came.
    pub(super) heard_at: Instant,
    /// Since when it has been without a channel, or without SetupConnection.
    pub(super) bare_since: Instant,
    pub(super) faults: Faults,
}

impl Connection {
    pub(super) const fn new(generation: u32, now: Instant) -> Self {
        Self {
            generation,
            phase: Phase::Setup,
            standard_jobs: false,
            extensions: Negotiated::NOTHING,
            directory: Directory::new(),
            groups: Vec::new(),
            next_group: MADE_GROUP_ID_MIN,
            delivered: Position(0),
            awaiting_job: 0,
            heard_at: now,
            bare_since: now,
            faults: Faults::new(now),
        }
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of this id, as the wire names it.
    pub(super) fn group(&self, id: u32) -> Option<&Group> {
        self.groups.iter().find(|group| u32::from(group.id) == id)
    }

    /// An id for a group that is to be made; `None` once 31 were.
    pub(super) fn next_group_id(&mut self) -> Option<u8> {
        let id = self.next_group;
        if u32::from(id) >= CHANNEL_ID_MIN {
            return None;
        }
        self.next_group += 1;
        Some(id)
    }

    /// Makes the channel in `slot`, which is in no group, a member of group `id`.
    pub(super) fn join_group(&mut self, id: u8, slot: u32, channels: &mut Channels) {
        let Some(channel) = channels.get_mut(slot) else { return };
        let size = channel.size() as u8;
        channel.group = id;
        let index = self.groups.iter().position(|group| group.id == id).unwrap_or_else(|| {
            if self.groups.is_empty() {
                self.groups.reserve_exact(1);
            }
            self.groups.push(Group { id, size, first: NONE });
            self.groups.len() - 1
        });
        let group = &mut self.groups[index];
        debug_assert_eq!(group.size, size, "a group has one extranonce size (specification 5.2.3)");
        channels.link(slot, group.first);
        group.first = slot;
    }

    /// Takes the channel in `slot` out of its group, which ends with its last member.
    pub(super) fn leave_group(&mut self, slot: u32, channels: &mut Channels) {
        let Some(id) = channels.get(slot).map(|channel| channel.group) else { return };
        let Some(index) = self.groups.iter().position(|group| group.id == id) else { return };
        let next = channels.unlink(slot);
        let group = &mut self.groups[index];
        if group.first == slot {
            group.first = next;
        }
        if group.first == NONE {
            self.groups.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::duplicates::Room;
    use core::time::Duration;

    use super::*;

    fn connection() -> Connection {
        Connection::new(0, Instant::ZERO)
    }

    /// Slots of a group's members, the last to join first.
    fn members(connection: &Connection, channels: &Channels, id: u32) -> Vec<u32> {
        let mut slot = connection.group(id).map_or(NONE, |group| group.first);
        let mut members = Vec::new();
        while let Some(channel) = channels.get(slot) {
            members.push(slot);
            slot = channel.next_member;
        }
        members
    }

    #[test]
    fn groups_live_as_long_as_their_members() {
        let (mut connection, mut channels) = (connection(), Channels::new(Room::new(0, 6.0)));
        let slots: Vec<u32> = [0, 0, 8, 0].iter().map(|size| channels.insert_bare(*size)).collect();
        for (slot, group) in slots.iter().zip([8, 8, 16, 8]) {
            connection.join_group(group, *slot, &mut channels);
        }
        assert_eq!(connection.groups().len(), 2);
        assert_eq!(members(&connection, &channels, 8), [3, 1, 0]);
        connection.leave_group(1, &mut channels);
        connection.leave_group(3, &mut channels);
        assert_eq!(members(&connection, &channels, 8), [0]);
        connection.join_group(33, 1, &mut channels);
        connection.join_group(8, 3, &mut channels);
        connection.leave_group(0, &mut channels);
        assert_eq!(members(&connection, &channels, 8), [3]);
        connection.leave_group(3, &mut channels);
        assert!(connection.group(8).is_none());
        assert_eq!(members(&connection, &channels, 33), [1]);
        assert_eq!(members(&connection, &channels, 16), [2]);
        assert_eq!(connection.groups().len(), 2);
    }

    #[test]
    fn made_groups_never_share_an_id() {
        let mut connection = connection();
        for id in 33..=63 {
            assert_eq!(connection.next_group_id(), Some(id));
        }
        assert_eq!(connection.next_group_id(), None);
    }

    #[test]
    fn errors_count_within_a_window() {
        let mut connection = connection();
        let window = Duration::from_secs(10);
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        for _ in 0..3 {
            assert!(!connection.faults.count(3, window, at(9)));
        }
        assert!(connection.faults.count(3, window, at(9)));
        assert!(!connection.faults.count(3, window, at(10)));
    }
}
