//! The state of one connection: how far it has come, its channels' ids and groups, what it was told of the shard's work.

use alloc::vec::Vec;
use core::time::Duration;

use super::directory::{CHANNEL_ID_MIN, Directory};
use super::extensions::Negotiated;
use super::extranonce::PREFIX_LEN;
use super::history::Position;
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
    pub(super) members: u32,
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
    errors: u32,
    errors_since: Instant,
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
            errors: 0,
            errors_since: now,
        }
    }

    /// Counts a fault that the connection outlives; whether it was one too many.
    pub(super) fn count_error(&mut self, max: u32, window: Duration, now: Instant) -> bool {
        if now.since(self.errors_since) >= window {
            self.errors = 0;
            self.errors_since = now;
        }
        self.errors = self.errors.saturating_add(1);
        self.errors > max
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of this id, as the wire names it.
    pub(super) fn group(&self, id: u32) -> Option<&Group> {
        self.groups.iter().find(|group| u32::from(group.id) == id)
    }

    /// Counts a channel of this full extranonce size in and names its default group.
    pub(super) fn join_default_group(&mut self, size: usize) -> u8 {
        debug_assert!((PREFIX_LEN..usize::from(MADE_GROUP_ID_MIN)).contains(&size));
        let id = size as u8;
        self.join(id, id, 1);
        id
    }

    /// Makes a group for `members` channels of one full extranonce size; `None` once 31 were made.
    pub(super) fn make_group(&mut self, size: u8, members: u32) -> Option<u8> {
        let id = self.next_group;
        if u32::from(id) >= CHANNEL_ID_MIN {
            return None;
        }
        self.next_group += 1;
        self.join(id, size, members);
        Some(id)
    }

    fn join(&mut self, id: u8, size: u8, members: u32) {
        match self.groups.iter_mut().find(|group| group.id == id) {
            Some(group) => group.members += members,
            None => {
                if self.groups.is_empty() {
                    self.groups.reserve_exact(1);
                }
                self.groups.push(Group { id, size, members });
            }
        }
    }

    /// Counts a channel out.
    pub(super) fn leave_group(&mut self, id: u8) {
        if let Some(index) = self.groups.iter().position(|group| group.id == id) {
            self.groups[index].members -= 1;
            if self.groups[index].members == 0 {
                self.groups.swap_remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection::new(0, Instant::ZERO)
    }

    #[test]
    fn groups_live_as_long_as_their_members() {
        let mut connection = connection();
        assert_eq!(connection.join_default_group(8), 8);
        assert_eq!(connection.join_default_group(8), 8);
        assert_eq!(connection.join_default_group(16), 16);
        assert_eq!(connection.groups().len(), 2);
        connection.leave_group(8);
        assert_eq!(connection.group(8).map(|group| group.members), Some(1));
        connection.leave_group(8);
        assert!(connection.group(8).is_none());
        connection.leave_group(8);
        assert_eq!(connection.groups().len(), 1);
    }

    #[test]
    fn made_groups_never_share_an_id() {
        let mut connection = connection();
        for id in 33..=63 {
            assert_eq!(connection.make_group(8, 1), Some(id));
            connection.leave_group(id);
        }
        assert_eq!(connection.make_group(8, 1), None);
    }

    #[test]
    fn errors_count_within_a_window() {
        let mut connection = connection();
        let window = Duration::from_secs(10);
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        for _ in 0..3 {
            assert!(!connection.count_error(3, window, at(9)));
        }
        assert!(connection.count_error(3, window, at(9)));
        assert!(!connection.count_error(3, window, at(10)));
    }
}
