//! Ends: of channels, by either side (specification 5.3.9), and of connections.
//!
//! A closed channel loses its id and its group at once; its slot stays until the shares that were admitted before are
//! judged, so that none is lost or misjudged.

use super::connection::Phase;
use super::directory::Lookup;
use super::event::{ChannelId, CloseReason, ConnectionId, Event};
use super::slab::NONE;
use super::{Server, ServerOutbox};
use crate::time::Instant;

impl Server {
    /// The client closes a channel, or all channels of a group. It knows best: an id that is no longer in use is no fault.
    pub(super) fn handle_close(
        &mut self,
        id: ConnectionId,
        channel_id: u32,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.mining(id) else { return };
        if connection.group(channel_id).is_some() {
            return self.close_group(id, channel_id, now, out);
        }
        match connection.directory.lookup(self.ids, ChannelId(channel_id)) {
            Lookup::Open(slot) => self.close_slot(id, slot, now, out),
            Lookup::Closed => {}
            Lookup::Unknown => self.count_error(id, now, out),
        }
    }

    /// Closes all channels of a group.
    pub(super) fn close_group(
        &mut self,
        id: ConnectionId,
        group_id: u32,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        // A stranger may do this often: the cost is that of the members, not of the connection's other channels.
        let open = self.connection(id).map_or(0, |connection| connection.directory.open());
        for _ in 0..open {
            let group = self.connection(id).and_then(|connection| connection.group(group_id));
            let Some(first) = group.map(|group| group.first) else { break };
            self.close_slot(id, first, now, out);
        }
    }

    /// Closes an open channel.
    pub(super) fn close_slot(&mut self, id: ConnectionId, slot: u32, now: Instant, out: &mut ServerOutbox) {
        self.drop_channel(id, slot, out);
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.directory.open() == 0 {
            connection.bare_since = now;
            self.schedule_connection(id.slot);
        }
    }

    pub(super) fn close_channels_of(&mut self, id: ConnectionId, out: &mut ServerOutbox) {
        let indices = self.connection(id).map_or(0, |connection| connection.directory.indices());
        for index in 0..indices {
            if let Some(slot) = self.connection(id).and_then(|connection| connection.directory.slot_at(index))
            {
                self.drop_channel(id, slot, out);
            }
        }
    }

    fn drop_channel(&mut self, id: ConnectionId, slot: u32, out: &mut ServerOutbox) {
        let Some(channel) = self.channels.get_mut(slot) else { return };
        channel.open = false;
        let (channel_id, awaits_job) = (channel.id, channel.awaits_job());
        let unsettled = channel.account != NONE;
        self.channel_timers.cancel(slot);
        if let Some(connection) = self.connections.get_mut(id.slot) {
            connection.directory.remove(self.ids, channel_id);
            connection.leave_group(slot, &mut self.channels);
            connection.awaiting_job -= u32::from(awaits_job);
        }
        if !unsettled {
            self.remove_channel(slot);
        }
        self.counters.channels_closed += 1;
        out.report(Event::ChannelClosed { connection: id, channel: channel_id });
    }

    /// Frees the slot of a channel that is closed and settled.
    pub(super) fn remove_channel(&mut self, slot: u32) {
        if let Some(owed) = self.channels.owed_mut(slot) {
            self.owed.take(owed);
        }
        self.channels.remove(slot);
    }

    /// Tells the driver to close a connection and forgets its channels. Frames of it are ignored from now on.
    pub(super) fn end_connection(
        &mut self,
        id: ConnectionId,
        reason: CloseReason,
        _now: Instant,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.connection_mut(id) else { return };
        if connection.phase == Phase::Closing {
            return;
        }
        connection.phase = Phase::Closing;
        self.acknowledge_connection(id, out);
        self.connection_timers.cancel(id.slot);
        self.close_channels_of(id, out);
        out.report(Event::Close { connection: id, reason });
    }

    /// Counts a refused share or an invalid request. Each further channel may have one more: behind a proxy with thousands,
    /// a tip alone makes that many shares stale.
    pub(super) fn count_error(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        let (max, window) = (self.config.limits.errors_max, self.config.limits.errors_window);
        let Some(connection) = self.connection_mut(id) else { return };
        let further = connection.directory.open().saturating_sub(1);
        if connection.faults.count(max.saturating_add(further), window, now) {
            self.end_connection(id, CloseReason::TooManyErrors, now, out);
        }
    }
}
