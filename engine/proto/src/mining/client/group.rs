//! Which channels a channel id of a message addresses (specification 5.2.3).
//!
//! Channels and groups share one space of ids. A group lives as long as it has channels. Messages may still be under way
//! for what was closed: its id is remembered for that, and when more was closed than is remembered, a message for an
//! unknown id gets the benefit of the doubt.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::mining::server::ChannelId;

/// The channels of a group, and the size that their full extranonces share.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) members: BTreeSet<ChannelId>,
    pub(super) extranonce_len: usize,
}

/// The groups of a connection; none is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups(BTreeMap<ChannelId, Group>);

impl Groups {
    pub(super) fn get(&self, id: ChannelId) -> Option<&Group> {
        self.0.get(&id)
    }

    pub(super) fn contains(&self, id: ChannelId) -> bool {
        self.0.contains_key(&id)
    }

    /// Puts a channel in a group, which begins to exist with its first channel.
    pub(super) fn join(&mut self, group: ChannelId, channel: ChannelId, extranonce_len: usize) {
        let group = self.0.entry(group).or_default();
        group.members.insert(channel);
        group.extranonce_len = extranonce_len;
    }

    /// Takes a channel out; returns whether the group ended with it.
    pub(super) fn leave(&mut self, group: ChannelId, channel: ChannelId) -> bool {
        let Some(entry) = self.0.get_mut(&group) else { return false };
        entry.members.remove(&channel);
        let ended = entry.members.is_empty();
        if ended {
            self.0.remove(&group);
        }
        ended
    }
}

/// Ids that named a channel or a group once.
#[derive(Clone, Debug)]
pub(super) struct ClosedIds {
    ids: BTreeSet<ChannelId>,
    order: VecDeque<ChannelId>,
    forgot: bool,
    max: usize,
}

impl ClosedIds {
    pub(super) const fn new(max: usize) -> Self {
        Self { ids: BTreeSet::new(), order: VecDeque::new(), forgot: false, max }
    }

    pub(super) fn insert(&mut self, id: ChannelId) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > self.max {
            self.forgot = true;
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
    }

    /// Whether the id may have named something.
    pub(super) fn may_contain(&self, id: ChannelId) -> bool {
        self.forgot || self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_ends_with_its_last_channel() {
        let mut groups = Groups::default();
        groups.join(ChannelId(7), ChannelId(64), 16);
        groups.join(ChannelId(7), ChannelId(65), 16);
        assert!(!groups.leave(ChannelId(7), ChannelId(64)));
        assert!(groups.contains(ChannelId(7)));
        assert!(groups.leave(ChannelId(7), ChannelId(65)));
        assert!(!groups.contains(ChannelId(7)));
        assert!(!groups.leave(ChannelId(7), ChannelId(65)));
    }

    #[test]
    fn closed_ids_are_bounded_and_then_forgiving() {
        let mut closed = ClosedIds::new(2);
        for id in [1, 2, 2] {
            closed.insert(ChannelId(id));
        }
        assert!(closed.may_contain(ChannelId(1)) && !closed.may_contain(ChannelId(3)));
        closed.insert(ChannelId(3));
        assert_eq!((closed.ids.len(), closed.order.len()), (2, 2));
        assert!(closed.may_contain(ChannelId(1)));
    }
}
