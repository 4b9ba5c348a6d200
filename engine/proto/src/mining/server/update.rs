//! Targets after the opening: what the client announces (specification 5.3.7, 5.3.8), what its shares show, and the
//! SetTarget that says so (specification 5.3.21).

use adit_codec::message::{SetTarget, UpdateChannelError};
use adit_hasher::{BatchHash, Target};

use super::channel::{Since, Untold};
use super::directory::Lookup;
use super::event::{ChannelId, ConnectionId};
use super::open::check_announcement;
use super::short_target::ShortTarget;
use super::vardiff::{announced_target, is_close};
use super::{ChannelError, Server, ServerOutbox};
use crate::outbox::Priority;
use crate::time::Instant;

impl Server {
    /// UpdateChannel: always answered, with SetTarget or an error.
    #[allow(clippy::too_many_arguments, reason = "the message's fields and the effects")]
    pub(super) fn handle_update(
        &mut self,
        id: ConnectionId,
        channel_id: ChannelId,
        nominal_hash_rate: f32,
        max_target: Target,
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.mining(id) else { return };
        let slot = match connection.directory.lookup(self.ids, channel_id) {
            Lookup::Open(slot) => Ok(slot),
            // It crossed our CloseChannel, after which nothing is said about the channel.
            Lookup::Closed => return,
            Lookup::Unknown => Err(ChannelError::InvalidChannelId),
        };
        let checked = slot.and_then(|slot| check_announcement(nominal_hash_rate, &max_target).map(|()| slot));
        match checked {
            Ok(slot) => {
                let vardiff = &self.config.vardiff;
                // Rounded as the present target was: to announce the same again is to announce no less.
                let announced = announced_target(vardiff, nominal_hash_rate, &max_target);
                let announced = ShortTarget::rounded_down(&announced).target();
                if let Some(cold) = self.channels.cold_mut(slot) {
                    cold.max_target = ShortTarget::rounded_down(&max_target);
                }
                let Some(channel) = self.channels.get_mut(slot) else { return };
                let present = channel.target.target();
                let granted = channel.vardiff.announce(vardiff, &present, announced, now);
                let target = granted.min(max_target);
                // Many small changes must not keep the shares from being counted.
                let in_force_since = channel.in_force_since.moment().filter(|_| is_close(&present, &target));
                self.send_target(id, slot, ShortTarget::rounded_down(&target), hashes, out);
                if let Some(channel) = self.channels.get_mut(slot) {
                    channel.in_force_since = Since::new(in_force_since.or(channel.in_force_since.moment()));
                }
                self.schedule_channel(slot, now);
            }
            Err(error) => {
                let answer =
                    UpdateChannelError { channel_id: channel_id.0, error_code: error.code().as_bytes() };
                out.send(id, Priority::Reply, &answer);
                self.count_error(id, now, out);
            }
        }
    }

    /// Compares a channel's shares with what its target should give, and sends a better one.
    pub(super) fn retarget(
        &mut self,
        slot: u32,
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let Some(channel) = self.channels.get_mut(slot).filter(|channel| channel.open) else { return };
        if channel.in_force_since.moment().is_none() {
            channel.in_force_since = Since::new(self.work.active_after(channel.target_after));
        }
        let (present, since) = (channel.target.target(), channel.in_force_since.moment());
        let wanted = channel.vardiff.poll(&self.config.vardiff, &present, since, now);
        let (connection, present) = (channel.connection, channel.target);
        // The cold part is another place in memory, and most looks change nothing.
        let target = wanted.and_then(|target| {
            Some(ShortTarget::rounded_down(&target).min(self.channels.cold(slot)?.max_target))
        });
        let target = target.filter(|new| *new != present);
        if let (Some(target), Some(id)) = (target, self.connection_at(connection)) {
            self.counters.retargets += 1;
            self.send_target(id, slot, target, hashes, out);
        }
        self.schedule_channel(slot, now);
    }

    /// Sends SetTarget to one channel: it binds the jobs that become active from now on.
    pub(super) fn send_target(
        &mut self,
        id: ConnectionId,
        slot: u32,
        target: ShortTarget,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        self.catch_up(id.slot, hashes, out);
        let Some(channel) = self.channels.get_mut(slot) else { return };
        if channel.awaits_job() {
            // NewMiningJob comes first on a standard channel (specification 5.3.15). Until then nothing is active that a
            // target could bind, so it loses nothing by following.
            channel.untold = Untold::JobAndTarget;
        } else {
            let message =
                SetTarget { channel_id: channel.id.0, maximum_target: &target.target().to_le_bytes() };
            out.send(id, Priority::Work, &message);
        }
        self.note_target(slot, target);
    }

    /// A SetTarget for the channel was sent.
    pub(super) fn note_target(&mut self, slot: u32, target: ShortTarget) {
        if let Some(channel) = self.channels.get_mut(slot) {
            channel.set_target(target, self.work.head(), self.work.activations());
        }
    }
}
