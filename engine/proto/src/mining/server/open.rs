//! Opening channels (specification 5.3.2 to 5.3.6): what is refused, and what a new channel is given.
//!
//! After its Success a channel gets the job of the moment as a future job, SetNewPrevHash, then the future jobs that are
//! pending, all addressed to itself. Before there is any work it gets nothing, and is served with the first job.

use adit_codec::message::{
    NewMiningJob, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess, OpenMiningChannelError,
    OpenStandardMiningChannel, OpenStandardMiningChannelSuccess, SetNewPrevHash,
};
use adit_hasher::{BatchHash, Target};

use super::channel::{Beginning, Channel, Cold, Kind, Untold};
use super::event::{ChannelId, ConnectionId, Event};
use super::extranonce::{EXTRANONCE_SIZE_MAX, PREFIX_LEN};
use super::short_target::ShortTarget;
use super::vardiff::announced_target;
use super::{ChannelError, Server, ServerOutbox};
use crate::outbox::Priority;
use crate::time::Instant;

/// An extended channel gets what it asks for, but no less than this: 2^32 extranonces.
const EXTRANONCE_SIZE_MIN: usize = 4;

/// The part of a shard's channels that is kept for the first ones of connections: a tenth.
const FIRST_CHANNELS_PART: u32 = 10;

/// A request to open a channel.
#[derive(Debug)]
pub(super) struct Opening<'a> {
    pub(super) request_id: u32,
    pub(super) user_identity: &'a [u8],
    pub(super) nominal_hash_rate: f32,
    pub(super) max_target: Target,
    pub(super) kind: Kind,
    pub(super) min_extranonce_size: u16,
}

impl<'a> Opening<'a> {
    pub(super) fn standard(message: &OpenStandardMiningChannel<'a>) -> Self {
        Self {
            request_id: message.request_id,
            user_identity: message.user_identity,
            nominal_hash_rate: message.nominal_hash_rate,
            max_target: Target::from_le_bytes(*message.max_target),
            kind: Kind::Standard,
            min_extranonce_size: 0,
        }
    }

    pub(super) fn extended(message: &OpenExtendedMiningChannel<'a>) -> Self {
        Self {
            request_id: message.request_id,
            user_identity: message.user_identity,
            nominal_hash_rate: message.nominal_hash_rate,
            max_target: Target::from_le_bytes(*message.max_target),
            kind: Kind::Extended,
            min_extranonce_size: message.min_extranonce_size,
        }
    }

    /// What the channel may roll, in bytes; why the request is refused otherwise.
    fn check(&self, standard_jobs: bool) -> Result<u8, ChannelError> {
        if self.kind == Kind::Extended && standard_jobs {
            return Err(ChannelError::ExtendedChannelsNotSupported);
        }
        check_announcement(self.nominal_hash_rate, &self.max_target)?;
        match self.kind {
            Kind::Standard => Ok(0),
            Kind::Extended if usize::from(self.min_extranonce_size) > EXTRANONCE_SIZE_MAX => {
                Err(ChannelError::MinExtranonceSizeTooLarge)
            }
            Kind::Extended => Ok(usize::from(self.min_extranonce_size).max(EXTRANONCE_SIZE_MIN) as u8),
        }
    }
}

/// Whether a hash rate and a maximum target can be worked with; a hash rate of zero says that no device is there yet.
pub(super) fn check_announcement(nominal_hash_rate: f32, max_target: &Target) -> Result<(), ChannelError> {
    if !nominal_hash_rate.is_finite() || nominal_hash_rate < 0.0 {
        return Err(ChannelError::InvalidNominalHashrate);
    }
    if *max_target == Target::from_le_bytes([0; 32]) {
        return Err(ChannelError::MaxTargetOutOfRange);
    }
    Ok(())
}

impl Server {
    pub(super) fn handle_open(
        &mut self,
        id: ConnectionId,
        opening: &Opening<'_>,
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.mining(id) else { return };
        let room = self.has_room_beside(connection.directory.open());
        let checked = opening
            .check(connection.standard_jobs)
            .and_then(|size| if room { Ok(size) } else { Err(ChannelError::ChannelCapacityExhausted) });
        // Announcements to the group must not reach the channel before its own opening does.
        self.catch_up(id.slot, hashes, out);
        let slot = checked.and_then(|extranonce_size| {
            self.make_channel(id, opening, extranonce_size, now).ok_or(ChannelError::ChannelCapacityExhausted)
        });
        match slot {
            Ok(slot) => {
                self.send_open_success(id, opening.request_id, slot, out);
                self.send_first_work(id, slot, now, hashes, out);
                self.counters.channels_opened += 1;
                let channel = self.channels.get(slot).map_or(ChannelId(0), |channel| channel.id);
                out.report(Event::ChannelOpened {
                    connection: id,
                    channel,
                    extended: opening.kind == Kind::Extended,
                    user_identity: opening.user_identity.into(),
                    nominal_hash_rate: opening.nominal_hash_rate,
                });
            }
            Err(error) => {
                let answer = OpenMiningChannelError {
                    request_id: opening.request_id,
                    error_code: error.code().as_bytes(),
                };
                out.send(id, Priority::Work, &answer);
                self.count_error(id, now, out);
            }
        }
    }

    /// Whether a connection with `open` channels may open one more. The last part of the shard's channels is for connections
    /// that have none: a stranger who fills a shard over few connections shuts no device out.
    fn has_room_beside(&self, open: u32) -> bool {
        let limits = &self.config.limits;
        let kept = if open == 0 { 0 } else { limits.channels_max / FIRST_CHANNELS_PART };
        open < limits.channels_per_connection_max && self.channels.len() < limits.channels_max - kept
    }

    /// Enters a channel; `None` if the connection has no id left for it.
    fn make_channel(
        &mut self,
        id: ConnectionId,
        opening: &Opening<'_>,
        extranonce_size: u8,
        now: Instant,
    ) -> Option<u32> {
        let head = self.work.head();
        let current = self.work.current().map(|index| self.work.job(index));
        let first_active = current.and_then(|job| job.active).map_or(head.next(), |active| active.since);
        let idle = current.is_none() && self.work.futures().next().is_none();
        let connection = self.connections.get_mut(id.slot)?;
        let awaits_job = idle && opening.kind == Kind::Standard;
        let target = announced_target(&self.config.vardiff, opening.nominal_hash_rate, &opening.max_target);
        let channel = Channel::new(&Beginning {
            target: ShortTarget::rounded_down(&target),
            prefix: self.prefixes.allocate(),
            has_work: current.is_some(),
            now,
            head,
            first_active,
            connection: id.slot,
            extranonce_size,
            untold: if awaits_job { Untold::Job } else { Untold::Nothing },
        });
        let cold = Cold::new(opening.user_identity, ShortTarget::rounded_down(&opening.max_target));
        let slot = self.channels.insert(channel, cold);
        let Some(channel_id) = connection.directory.insert(self.ids, slot) else {
            self.channels.remove(slot);
            return None;
        };
        // The id of a default group is its members' full extranonce size.
        connection.join_group(PREFIX_LEN as u8 + extranonce_size, slot, &mut self.channels);
        connection.awaiting_job += u32::from(awaits_job);
        if let Some(channel) = self.channels.get_mut(slot) {
            channel.id = channel_id;
        }
        self.schedule_channel(slot, now);
        Some(slot)
    }

    fn send_open_success(&self, id: ConnectionId, request_id: u32, slot: u32, out: &mut ServerOutbox) {
        let Some(channel) = self.channels.get(slot) else { return };
        let target = channel.target.target().to_le_bytes();
        match channel.kind() {
            Kind::Standard => {
                let answer = OpenStandardMiningChannelSuccess {
                    request_id,
                    channel_id: channel.id.0,
                    target: &target,
                    extranonce_prefix: &channel.prefix,
                    group_channel_id: u32::from(channel.group),
                };
                out.send(id, Priority::Work, &answer);
            }
            Kind::Extended => {
                let answer = OpenExtendedMiningChannelSuccess {
                    request_id,
                    channel_id: channel.id.0,
                    target: &target,
                    extranonce_size: u16::from(channel.extranonce_size),
                    extranonce_prefix: &channel.prefix,
                    group_channel_id: u32::from(channel.group),
                };
                out.send(id, Priority::Work, &answer);
            }
        }
    }

    fn send_first_work(
        &mut self,
        id: ConnectionId,
        slot: u32,
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let current = self.work.current();
        if let Some(index) = current {
            self.send_as_future(id, slot, index, hashes, out);
            if let Some(channel) = self.channels.get(slot) {
                // The client counts from what it is told, so it is told what time it is.
                let min_ntime = self.work.ntime(now);
                let message =
                    SetNewPrevHash { min_ntime, ..self.work.set_new_prev_hash(channel.id.0, index) };
                out.send(id, Priority::Work, &message);
            }
        }
        let mut futures = self.work.futures().next();
        while let Some(index) = futures {
            self.send_as_future(id, slot, index, hashes, out);
            futures = self.work.futures().find(|next| *next > index);
        }
    }

    /// Announces a job to one channel as a future job.
    fn send_as_future(
        &mut self,
        id: ConnectionId,
        slot: u32,
        index: usize,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let Some(channel) = self.channels.get(slot) else { return };
        match channel.kind() {
            Kind::Standard => {
                let channel_id = channel.id.0;
                let mut roots = [[0; 32]];
                self.merkle_roots(id, index, &[slot], &mut roots, hashes);
                let job = self.work.job(index);
                let message = NewMiningJob {
                    channel_id,
                    job_id: job.id.0,
                    min_ntime: None,
                    version: job.source.template.version,
                    merkle_root: &roots[0],
                };
                out.send(id, Priority::Work, &message);
            }
            Kind::Extended => {
                let message = self.work.extended_job(index, channel.id.0, channel.size(), None);
                out.send(id, Priority::Work, &message);
            }
        }
    }
}
