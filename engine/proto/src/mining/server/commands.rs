//! What an operator can ask for. A command either takes place, with its message sent after all jobs that are pending for
//! the connection, or changes nothing.

use alloc::vec::Vec;

use adit_codec::message::{
    ChannelEndpointChanged, CloseChannel, Reconnect, SetExtranoncePrefix, SetGroupChannel, SetTarget,
};
use adit_codec::wire::control_character;
use adit_hasher::{BatchHash, Target};

use super::directory::Lookup;
use super::event::{ChannelId, CloseReason, ConnectionId};
use super::short_target::ShortTarget;
use super::{CommandError, Server, ServerOutbox};
use crate::outbox::Priority;
use crate::time::Instant;

/// The longest STR0_255.
const TEXT_LEN_MAX: usize = 255;
/// The most items of a SEQ0_64K.
const GROUP_MEMBERS_MAX: usize = 65_535;

impl Server {
    /// Ends a connection: what waits is sent, then it is closed.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`].
    pub fn close_connection(
        &mut self,
        id: ConnectionId,
        reason: CloseReason,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        self.connection(id).ok_or(CommandError::UnknownConnection)?;
        self.end_connection(id, reason, now, out);
        Ok(())
    }

    /// Sends CloseChannel for a channel, or for each channel of a group (specification 5.3.9). One frame that names the
    /// group would close more, if a channel joins the group before it is read: the opening's Success may overtake it.
    ///
    /// # Errors
    /// The connection or channel is unknown, or the reason cannot be sent.
    pub fn close_channel(
        &mut self,
        id: ConnectionId,
        channel: ChannelId,
        reason_code: &str,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        let slot = self.channel_or_group(id, channel)?;
        if reason_code.len() > TEXT_LEN_MAX || control_character(reason_code.as_bytes()).is_some() {
            return Err(CommandError::InvalidText);
        }
        let slots = slot.map_or_else(|| self.members(id, channel), |slot| [slot].into());
        for slot in slots {
            self.acknowledge_owed(slot, out);
            let Some(channel) = self.channels.get(slot) else { continue };
            let message = CloseChannel { channel_id: channel.id.0, reason_code: reason_code.as_bytes() };
            // It must not overtake answers to the channel's shares.
            out.send(id, Priority::Reply, &message);
            self.close_slot(id, slot, now, out);
        }
        Ok(())
    }

    /// Asks a client to connect to another host, or again to this one: an empty host and port 0 leave them as they are.
    ///
    /// # Errors
    /// The connection is unknown, or the host is too long.
    pub fn reconnect(
        &mut self,
        id: ConnectionId,
        host: &str,
        port: u16,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        self.mining(id).ok_or(CommandError::UnknownConnection)?;
        if host.len() > TEXT_LEN_MAX {
            return Err(CommandError::InvalidText);
        }
        out.send(id, Priority::Reply, &Reconnect { new_host: host.as_bytes(), new_port: port });
        Ok(())
    }

    /// Gives a channel another part of the search space, for the jobs that are announced from now on.
    ///
    /// # Errors
    /// The connection or channel is unknown; groups have no prefix.
    pub fn set_extranonce_prefix(
        &mut self,
        id: ConnectionId,
        channel: ChannelId,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        let slot = self.open_channel(id, channel)?;
        self.catch_up(id.slot, hashes, out);
        let prefix = self.prefixes.allocate();
        let message = SetExtranoncePrefix { channel_id: channel.0, extranonce_prefix: &prefix };
        out.send(id, Priority::Work, &message);
        self.channels.set_prefix(slot, prefix, self.work.head(), self.work.announcements());
        Ok(())
    }

    /// Makes a group of channels that are open (specification 5.3.22) and returns its id.
    ///
    /// # Errors
    /// The connection or a channel is unknown or named twice, sizes differ, or no id is left.
    pub fn set_group_channel(
        &mut self,
        id: ConnectionId,
        channels: &[ChannelId],
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) -> Result<ChannelId, CommandError> {
        let connection = self.mining(id).ok_or(CommandError::UnknownConnection)?;
        if connection.standard_jobs {
            return Err(CommandError::RequiresStandardJobs);
        }
        if channels.is_empty() || channels.len() > GROUP_MEMBERS_MAX {
            return Err(CommandError::ChannelCount);
        }
        let mut ids: Vec<u32> = channels.iter().map(|channel| channel.0).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(CommandError::ChannelCount);
        }
        let slots = channels.iter().map(|channel| self.open_channel(id, *channel));
        let slots = slots.collect::<Result<Vec<u32>, CommandError>>()?;
        let mut sizes =
            slots.iter().filter_map(|slot| self.channels.get(*slot)).map(|channel| channel.size());
        let size = sizes.next().ok_or(CommandError::UnknownChannel)?;
        if sizes.any(|other| other != size) {
            return Err(CommandError::MixedExtranonceSizes);
        }
        // Pending jobs go to the groups as the client knows them.
        self.catch_up(id.slot, hashes, out);
        let connection = self.connections.get_mut(id.slot).ok_or(CommandError::UnknownConnection)?;
        let group = connection.next_group_id().ok_or(CommandError::GroupsExhausted)?;
        for slot in slots {
            connection.leave_group(slot, &mut self.channels);
            connection.join_group(group, slot, &mut self.channels);
        }
        let message =
            SetGroupChannel { group_channel_id: u32::from(group), channel_ids: ids.as_slice().into() };
        out.send(id, Priority::Work, &message);
        Ok(ChannelId(u32::from(group)))
    }

    /// Sets the target of a channel, or of all channels of a group, for the jobs that become active from now on. It is
    /// held to each client's maximum, and rounded down by less than one part in 2^55. Where targets follow the share
    /// rate, this one will too.
    ///
    /// # Errors
    /// The connection or channel is unknown, or the target is zero.
    pub fn set_target(
        &mut self,
        id: ConnectionId,
        channel: ChannelId,
        target: Target,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        let slot = self.channel_or_group(id, channel)?;
        if target == Target::from_le_bytes([0; 32]) {
            return Err(CommandError::TargetOutOfRange);
        }
        let target = ShortTarget::rounded_down(&target);
        let Some(slot) = slot else {
            self.set_group_target(id, channel, target, hashes, out);
            return Ok(());
        };
        let target = self.channels.cold(slot).map_or(target, |cold| target.min(cold.max_target));
        self.send_target(id, slot, target, hashes, out);
        Ok(())
    }

    /// One message where every member can take the target and the client knows groups; else one each.
    fn set_group_target(
        &mut self,
        id: ConnectionId,
        group: ChannelId,
        target: ShortTarget,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.connection(id) else { return };
        let members = self.members(id, group);
        let max_target = |slot: &u32| self.channels.cold(*slot).map_or(target, |cold| cold.max_target);
        let awaits_job = |slot: &u32| self.channels.get(*slot).is_some_and(|channel| channel.awaits_job());
        let one_by_one = |slot: &u32| max_target(slot) < target || awaits_job(slot);
        if connection.standard_jobs || members.iter().any(one_by_one) {
            for slot in members {
                let max_target = self.channels.cold(slot).map_or(target, |cold| cold.max_target);
                self.send_target(id, slot, target.min(max_target), hashes, out);
            }
            return;
        }
        self.catch_up(id.slot, hashes, out);
        let message = SetTarget { channel_id: group.0, maximum_target: &target.target().to_le_bytes() };
        out.send(id, Priority::Work, &message);
        for slot in members {
            self.note_target(slot, target);
        }
    }

    /// Says that what stands behind a channel changed, so that extensions are negotiated anew (specification 3.6.4).
    ///
    /// # Errors
    /// The connection or channel is unknown.
    pub fn channel_endpoint_changed(
        &mut self,
        id: ConnectionId,
        channel: ChannelId,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        self.open_channel(id, channel)?;
        out.send(id, Priority::Work, &ChannelEndpointChanged { channel_id: channel.0 });
        Ok(())
    }

    /// The slots of a group's channels.
    fn members(&self, id: ConnectionId, group: ChannelId) -> Vec<u32> {
        let Some(connection) = self.connection(id) else { return Vec::new() };
        (0..connection.directory.indices())
            .filter_map(|index| connection.directory.slot_at(index))
            .filter(|slot| self.channels.get(*slot).is_some_and(|c| u32::from(c.group) == group.0))
            .collect()
    }

    /// The slot of an open channel.
    fn open_channel(&self, id: ConnectionId, channel: ChannelId) -> Result<u32, CommandError> {
        let connection = self.mining(id).ok_or(CommandError::UnknownConnection)?;
        match connection.directory.lookup(self.ids, channel) {
            Lookup::Open(slot) => Ok(slot),
            Lookup::Closed | Lookup::Unknown => Err(CommandError::UnknownChannel),
        }
    }

    /// The slot of an open channel, or `None` for a group that has members.
    fn channel_or_group(&self, id: ConnectionId, channel: ChannelId) -> Result<Option<u32>, CommandError> {
        let connection = self.mining(id).ok_or(CommandError::UnknownConnection)?;
        if connection.group(channel.0).is_some() {
            return Ok(None);
        }
        self.open_channel(id, channel).map(Some)
    }
}
