//! Opening, updating and closing channels (specification 5.3.2 to 5.3.9).

use alloc::collections::BTreeMap;

use adit_codec::message::flags::REQUIRES_EXTENDED_CHANNELS;
use adit_codec::message::{
    CloseChannel, MessageKind, OpenExtendedMiningChannel, OpenExtendedMiningChannelSuccess,
    OpenMiningChannelError, OpenStandardMiningChannel, OpenStandardMiningChannelSuccess, UpdateChannel,
    UpdateChannelError,
};
use adit_codec::wire::control_character;
use adit_hasher::{EXTRANONCE_LEN_MAX, Target};

use super::ClientOutbox;
use super::channel::{ChannelKind, ClientChannel};
use super::config::STR_LEN_MAX;
use super::connection::Client;
use super::event::{ClientEvent, RequestId, printable};
use super::fault::{ClientFault, Refusal};
use super::job::ExtranoncePrefix;
use crate::mining::server::ChannelId;
use crate::outbox::Priority;
use crate::time::Instant;

/// Reason for closing a channel that was opened after its time was up.
const TOO_LATE: &[u8] = b"opened-too-late";

/// The opening of a channel, until it is answered.
#[derive(Clone, Copy, Debug)]
struct Opening {
    /// `None` for standard channels.
    min_extranonce_size: Option<u16>,
    max_target: Target,
    deadline: Instant,
}

/// The openings that wait for an answer, in time or overdue. Request ids rise with time.
#[derive(Clone, Debug, Default)]
pub(super) struct Openings {
    waiting: BTreeMap<RequestId, Opening>,
    overdue: BTreeMap<RequestId, Opening>,
    last: u32,
}

impl Openings {
    fn len(&self) -> usize {
        self.waiting.len() + self.overdue.len()
    }

    fn add(&mut self, opening: Opening) -> RequestId {
        // Ids come round after 2^32 openings; one that still waits must not be used again.
        loop {
            self.last = self.last.wrapping_add(1);
            let request = RequestId(self.last);
            if !self.waiting.contains_key(&request) && !self.overdue.contains_key(&request) {
                self.waiting.insert(request, opening);
                return request;
            }
        }
    }

    fn get(&self, request: RequestId) -> Option<&Opening> {
        self.waiting.get(&request).or_else(|| self.overdue.get(&request))
    }

    /// Ends an opening; returns whether it was in time.
    fn remove(&mut self, request: RequestId) -> Option<bool> {
        if self.waiting.remove(&request).is_some() {
            return Some(true);
        }
        self.overdue.remove(&request).map(|_| false)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, opening)| opening.deadline)
    }

    /// Moves one opening whose time is up to those that are overdue.
    pub(super) fn expire(&mut self, now: Instant) -> Option<RequestId> {
        let first = self.waiting.first_entry().filter(|first| first.get().deadline <= now)?;
        let (request, opening) = first.remove_entry();
        self.overdue.insert(request, opening);
        Some(request)
    }
}

/// The common fields of both open Successes.
struct Opened<'a> {
    message: MessageKind,
    request: RequestId,
    channel: ChannelId,
    group: ChannelId,
    kind: ChannelKind,
    target: Target,
    extranonce_prefix: &'a [u8],
}

impl Client {
    /// Asks for a standard channel.
    ///
    /// # Errors
    /// The request could not be granted, or not now.
    pub fn open_standard(
        &mut self,
        user_identity: &[u8],
        nominal_hash_rate: f32,
        max_target: Target,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<RequestId, Refusal> {
        if self.server_flags & REQUIRES_EXTENDED_CHANNELS != 0 {
            return Err(Refusal::ExtendedChannelsRequired);
        }
        let request = self.begin_opening(user_identity, nominal_hash_rate, max_target, None, now)?;
        let message = OpenStandardMiningChannel {
            request_id: request.0,
            user_identity,
            nominal_hash_rate,
            max_target: max_target.as_le_bytes(),
        };
        out.send((), Priority::Work, &message);
        Ok(request)
    }

    /// Asks for an extended channel with at least `min_extranonce_size` bytes of extranonce to roll.
    ///
    /// # Errors
    /// The request could not be granted, or not now.
    pub fn open_extended(
        &mut self,
        user_identity: &[u8],
        nominal_hash_rate: f32,
        max_target: Target,
        min_extranonce_size: u16,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<RequestId, Refusal> {
        if self.requires_standard_jobs() {
            return Err(Refusal::StandardJobsRequired);
        }
        if usize::from(min_extranonce_size) > EXTRANONCE_LEN_MAX {
            return Err(Refusal::ExtranonceTooLong);
        }
        let request =
            self.begin_opening(user_identity, nominal_hash_rate, max_target, Some(min_extranonce_size), now)?;
        let message = OpenExtendedMiningChannel {
            request_id: request.0,
            user_identity,
            nominal_hash_rate,
            max_target: max_target.as_le_bytes(),
            min_extranonce_size,
        };
        out.send((), Priority::Work, &message);
        Ok(request)
    }

    fn begin_opening(
        &mut self,
        user_identity: &[u8],
        nominal_hash_rate: f32,
        max_target: Target,
        min_extranonce_size: Option<u16>,
        now: Instant,
    ) -> Result<RequestId, Refusal> {
        self.check_ready()?;
        check_announcement(nominal_hash_rate, &max_target)?;
        if user_identity.len() > STR_LEN_MAX {
            return Err(Refusal::TextTooLong);
        }
        if self.channels.len() + self.openings.len() >= self.config.limits.channels_max {
            return Err(Refusal::TooManyChannels);
        }
        let deadline = now + self.config.limits.open_timeout;
        Ok(self.openings.add(Opening { min_extranonce_size, max_target, deadline }))
    }

    /// Tells the upstream another hash rate, or asks for another target.
    ///
    /// # Errors
    /// No such channel, or nothing that a message should say.
    pub fn update_channel(
        &mut self,
        channel: ChannelId,
        nominal_hash_rate: f32,
        maximum_target: Target,
        out: &mut ClientOutbox,
    ) -> Result<(), Refusal> {
        check_announcement(nominal_hash_rate, &maximum_target)?;
        let entry = self.channels.get_mut(&channel).ok_or(Refusal::UnknownChannel)?;
        entry.max_target = entry.max_target.max(maximum_target);
        let maximum_target = maximum_target.as_le_bytes();
        let message = UpdateChannel { channel_id: channel.0, nominal_hash_rate, maximum_target };
        out.send((), Priority::Work, &message);
        Ok(())
    }

    /// Closes a channel, or all channels of a group. Answers to its shares are not waited for.
    ///
    /// # Errors
    /// No such channel, or a reason that no message can carry.
    pub fn close_channel(
        &mut self,
        channel: ChannelId,
        reason_code: &[u8],
        out: &mut ClientOutbox,
    ) -> Result<(), Refusal> {
        if reason_code.len() > STR_LEN_MAX {
            return Err(Refusal::TextTooLong);
        }
        if control_character(reason_code).is_some() {
            return Err(Refusal::ControlCharacter);
        }
        let addressed = self.take_addressed(channel);
        let found = !addressed.is_empty();
        for &member in &addressed {
            self.remove_channel(member);
        }
        self.return_addressed(addressed);
        if !found {
            return Err(Refusal::UnknownChannel);
        }
        out.send((), Priority::Work, &CloseChannel { channel_id: channel.0, reason_code });
        Ok(())
    }

    pub(super) fn handle_standard_success(
        &mut self,
        message: &OpenStandardMiningChannelSuccess<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let opened = Opened {
            message: MessageKind::OpenStandardMiningChannelSuccess,
            request: RequestId(message.request_id),
            channel: ChannelId(message.channel_id),
            group: ChannelId(message.group_channel_id),
            kind: ChannelKind::Standard,
            target: Target::from_le_bytes(*message.target),
            extranonce_prefix: message.extranonce_prefix,
        };
        self.handle_opened(&opened, out)
    }

    pub(super) fn handle_extended_success(
        &mut self,
        message: &OpenExtendedMiningChannelSuccess<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let opened = Opened {
            message: MessageKind::OpenExtendedMiningChannelSuccess,
            request: RequestId(message.request_id),
            channel: ChannelId(message.channel_id),
            group: ChannelId(message.group_channel_id),
            kind: ChannelKind::Extended { extranonce_size: message.extranonce_size },
            target: Target::from_le_bytes(*message.target),
            extranonce_prefix: message.extranonce_prefix,
        };
        self.handle_opened(&opened, out)
    }

    fn handle_opened(&mut self, opened: &Opened<'_>, out: &mut ClientOutbox) -> Result<(), ClientFault> {
        let &Opened { message, request, channel, group, kind, target, extranonce_prefix } = opened;
        let unknown = ClientFault::UnknownRequest { message, request_id: request.0 };
        let Some(opening) = self.openings.get(request).copied() else { return Err(unknown) };
        match (opening.min_extranonce_size, kind) {
            (None, ChannelKind::Standard) => {}
            (Some(requested), ChannelKind::Extended { extranonce_size }) if extranonce_size >= requested => {}
            (Some(requested), ChannelKind::Extended { extranonce_size }) => {
                let (granted, requested) = (usize::from(extranonce_size), usize::from(requested));
                return Err(ClientFault::ExtranonceTooShort { channel, granted, requested });
            }
            _ => return Err(unknown),
        }
        if self.channels.contains_key(&channel) || self.groups.contains(channel) || channel == group {
            return Err(ClientFault::IdInUse { message, channel });
        }
        if self.channels.contains_key(&group) {
            return Err(ClientFault::IdInUse { message, channel: group });
        }
        let len = extranonce_prefix.len() + kind.extranonce_size();
        if len > EXTRANONCE_LEN_MAX {
            return Err(ClientFault::ExtranonceTooLong { channel, len });
        }
        self.check_group_len(group, channel, len)?;
        check_target(channel, &target, &opening.max_target)?;
        let Some(prefix) = ExtranoncePrefix::new(extranonce_prefix) else {
            return Err(ClientFault::ExtranonceTooLong { channel, len });
        };

        if self.openings.remove(request) == Some(false) {
            // Nobody waits for it any more.
            self.closed.insert(channel);
            out.send((), Priority::Work, &CloseChannel { channel_id: channel.0, reason_code: TOO_LATE });
            return Ok(());
        }
        self.groups.join(group, channel, len);
        let entry = ClientChannel::new(channel, kind, group, target, opening.max_target, prefix);
        self.channels.insert(channel, entry);
        out.report(ClientEvent::ChannelOpened { request, channel });
        Ok(())
    }

    /// All channels of a group have full extranonces of one size (specification 5.2.3).
    pub(super) fn check_group_len(
        &self,
        group: ChannelId,
        channel: ChannelId,
        len: usize,
    ) -> Result<(), ClientFault> {
        match self.groups.get(group) {
            Some(entry) if entry.extranonce_len != len => {
                let group_len = entry.extranonce_len;
                Err(ClientFault::GroupExtranonceLen { group, channel, len, group_len })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn handle_open_error(
        &mut self,
        message: &OpenMiningChannelError<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let request = RequestId(message.request_id);
        let Some(in_time) = self.openings.remove(request) else {
            let request_id = message.request_id;
            return Err(ClientFault::UnknownRequest {
                message: MessageKind::OpenMiningChannelError,
                request_id,
            });
        };
        if in_time {
            out.report(ClientEvent::OpenRefused { request, error_code: printable(message.error_code) });
        }
        Ok(())
    }

    pub(super) fn handle_update_error(
        &mut self,
        message: &UpdateChannelError<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let channel = ChannelId(message.channel_id);
        if self.is_addressable(MessageKind::UpdateChannelError, channel)? {
            out.report(ClientEvent::UpdateRefused { channel, error_code: printable(message.error_code) });
        }
        Ok(())
    }
}

/// Whether a hash rate and a maximum target can be announced.
fn check_announcement(nominal_hash_rate: f32, max_target: &Target) -> Result<(), Refusal> {
    if !nominal_hash_rate.is_finite() || nominal_hash_rate < 0.0 {
        return Err(Refusal::HashRate);
    }
    if *max_target == ZERO { Err(Refusal::ZeroTarget) } else { Ok(()) }
}

const ZERO: Target = Target::from_le_bytes([0; 32]);

/// Whether a target is one that the channel can work with.
pub(super) fn check_target(
    channel: ChannelId,
    target: &Target,
    max_target: &Target,
) -> Result<(), ClientFault> {
    if *target == ZERO {
        return Err(ClientFault::ZeroTarget { channel });
    }
    if target > max_target { Err(ClientFault::TargetAboveMaximum { channel }) } else { Ok(()) }
}
