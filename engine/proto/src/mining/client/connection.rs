//! The client itself: what a connection holds, and where each frame goes.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use adit_codec::frame::FrameHeader;
use adit_codec::message::flags::{REQUIRES_FIXED_VERSION, REQUIRES_STANDARD_JOBS};
use adit_codec::message::{CloseChannel, Message, MessageKind, Protocol, Reconnect};
use adit_hasher::BatchHash;

use super::ClientOutbox;
use super::channel::ClientChannel;
use super::config::{ClientConfig, ClientConfigError};
use super::event::{ClientEvent, printable};
use super::fault::ClientFault;
use super::group::{ClosedIds, Groups};
use super::job::JobBytes;
use super::requests::Openings;
use super::setup::{Negotiation, Phase};
use super::work::Work;
use crate::mining::server::ChannelId;
use crate::time::Instant;

/// What a client has seen since it was made; monotone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Shares sent.
    pub shares_submitted: u64,
    /// Shares that the upstream accepted.
    pub shares_accepted: u64,
    /// Sum of their difficulties, as the upstream counts.
    pub difficulty_accepted: u64,
    /// Shares that the upstream refused.
    pub shares_rejected: u64,
    /// Shares whose channel ended before their answer came.
    pub shares_unanswered: u64,
    /// Frames ignored: of unknown extensions, or for channels that were closed.
    pub frames_ignored: u64,
}

/// The client side of one mining connection; the module's description says what it guarantees.
#[derive(Debug)]
pub struct Client {
    pub(super) config: ClientConfig,
    pub(super) phase: Phase,
    /// Flags of SetupConnection.Success.
    pub(super) server_flags: u32,
    pub(super) negotiation: Option<Negotiation>,
    pub(super) next_extensions_request: u16,
    /// Extensions in force.
    pub(super) negotiated: Vec<u16>,
    pub(super) openings: Openings,
    pub(super) channels: BTreeMap<ChannelId, ClientChannel>,
    pub(super) groups: Groups,
    pub(super) closed: ClosedIds,
    pub(super) job_bytes: JobBytes,
    /// When shares' ages are looked at next; only with a share timeout.
    pub(super) next_share_check: Option<Instant>,
    pub(super) counters: ClientCounters,
    /// Reused list of the channels that a message is for.
    addressed: Vec<ChannelId>,
}

impl Client {
    /// A client that is not connected yet.
    ///
    /// # Errors
    /// A text that no message can carry, or a limit of zero.
    pub fn new(config: ClientConfig) -> Result<Self, ClientConfigError> {
        config.validate()?;
        Ok(Self {
            phase: Phase::Idle,
            server_flags: 0,
            negotiation: None,
            next_extensions_request: 1,
            negotiated: Vec::new(),
            openings: Openings::default(),
            channels: BTreeMap::new(),
            groups: Groups::default(),
            closed: ClosedIds::new(config.limits.closed_channels_max),
            job_bytes: JobBytes::new(config.limits.job_bytes_max),
            next_share_check: None,
            counters: ClientCounters::default(),
            addressed: Vec::new(),
            config,
        })
    }

    /// An open channel.
    pub fn channel(&self, channel: ChannelId) -> Option<&ClientChannel> {
        self.channels.get(&channel)
    }

    /// The open channels, by id.
    pub fn channels(&self) -> impl Iterator<Item = &ClientChannel> {
        self.channels.values()
    }

    /// What a channel is to mine now; `None` before its first active job. `hashes` computes the merkle root of a standard
    /// channel whose group got an extended job.
    pub fn work(&self, channel: ChannelId, hashes: &impl BatchHash) -> Option<Work> {
        let mut work = self.channels.get(&channel)?.work(hashes)?;
        work.version_rolling_allowed &= !self.fixed_version();
        Some(work)
    }

    /// Extensions in force.
    pub fn extensions(&self) -> &[u16] {
        &self.negotiated
    }

    /// What was seen so far.
    pub fn counters(&self) -> &ClientCounters {
        &self.counters
    }

    /// Shares of all channels that wait for an answer.
    pub fn outstanding(&self) -> usize {
        self.channels.values().map(ClientChannel::outstanding).sum()
    }

    pub(super) fn fixed_version(&self) -> bool {
        self.server_flags & REQUIRES_FIXED_VERSION != 0
    }

    pub(super) fn requires_standard_jobs(&self) -> bool {
        self.config.flags & REQUIRES_STANDARD_JOBS != 0
    }

    /// Takes a plaintext frame from the upstream.
    ///
    /// # Errors
    /// The upstream's breach of the protocol. Nothing has changed; the driver closes the connection.
    pub fn handle_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let message = match Message::decode(header, payload, Protocol::Mining) {
            Ok(decoded) => decoded.message,
            Err(error) if error.is_ignorable() => return self.handle_unknown(header, payload, out),
            Err(error) => return Err(error.into()),
        };
        match (self.phase, &message) {
            (Phase::SettingUp { .. }, Message::SetupConnectionSuccess(message)) => {
                return self.handle_setup_success(message, now, out);
            }
            (Phase::SettingUp { .. }, Message::SetupConnectionError(message)) => {
                self.handle_setup_error(message, out);
                return Ok(());
            }
            (Phase::SetUp, _) => {}
            _ => return Err(ClientFault::Unexpected(message.kind())),
        }
        match &message {
            Message::RequestExtensionsSuccess(message) => self.handle_extensions_success(message, now, out),
            Message::RequestExtensionsError(message) => self.handle_extensions_error(message, now, out),
            Message::ChannelEndpointChanged(message) => self.handle_endpoint_changed(message, now, out),
            Message::Reconnect(message) => handle_reconnect(message, out),
            Message::OpenStandardMiningChannelSuccess(message) => self.handle_standard_success(message, out),
            Message::OpenExtendedMiningChannelSuccess(message) => self.handle_extended_success(message, out),
            Message::OpenMiningChannelError(message) => self.handle_open_error(message, out),
            Message::UpdateChannelError(message) => self.handle_update_error(message, out),
            Message::CloseChannel(message) => self.handle_close_channel(message, out),
            Message::SetGroupChannel(message) => self.handle_set_group_channel(message, out),
            Message::SetExtranoncePrefix(message) => self.handle_set_extranonce_prefix(message, out),
            Message::SetTarget(message) => self.handle_set_target(message, out),
            Message::NewMiningJob(message) => self.handle_new_mining_job(message, now, out),
            Message::NewExtendedMiningJob(message) => self.handle_new_extended_mining_job(message, now, out),
            Message::SetNewPrevHash(message) => self.handle_set_new_prev_hash(message, now, out),
            Message::SubmitSharesSuccess(message) => self.handle_shares_success(message, out),
            Message::SubmitSharesError(message) => self.handle_shares_error(message, out),
            other => Err(ClientFault::Unexpected(other.kind())),
        }
    }

    /// A message of an extension that is not known here. Channel messages are for the channel's end, which a proxy is
    /// not; others are to be ignored (specification 3.4.1).
    fn handle_unknown(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let FrameHeader { extension_type, msg_type, channel_msg, .. } = header;
        if channel_msg {
            let Some(id) = payload.first_chunk() else {
                return Err(ClientFault::NoChannelId { extension_type, msg_type });
            };
            let channel = ChannelId(u32::from_le_bytes(*id));
            if self.channels.contains_key(&channel) || self.groups.contains(channel) {
                let payload = payload.into();
                out.report(ClientEvent::UnknownChannelMessage { extension_type, msg_type, channel, payload });
                return Ok(());
            }
        }
        self.counters.frames_ignored += 1;
        Ok(())
    }

    /// Whether a message's id names an open channel or a group; `false` if it named one that is closed: the message
    /// crossed the closing.
    pub(super) fn is_addressable(
        &mut self,
        message: MessageKind,
        id: ChannelId,
    ) -> Result<bool, ClientFault> {
        if self.channels.contains_key(&id) || self.groups.contains(id) {
            return Ok(true);
        }
        if self.closed.may_contain(id) {
            self.counters.frames_ignored += 1;
            return Ok(false);
        }
        Err(ClientFault::UnknownChannel { message, channel: id })
    }

    /// Lends the list of the channels that an id names: one, or those of a group. It is given back by
    /// [`return_addressed`](Self::return_addressed).
    pub(super) fn take_addressed(&mut self, id: ChannelId) -> Vec<ChannelId> {
        let mut addressed = core::mem::take(&mut self.addressed);
        addressed.clear();
        match self.groups.get(id) {
            Some(group) => addressed.extend(&group.members),
            None => addressed.extend(self.channels.contains_key(&id).then_some(id)),
        }
        addressed
    }

    pub(super) fn return_addressed(&mut self, addressed: Vec<ChannelId>) {
        self.addressed = addressed;
    }

    /// Forgets a channel; its id stays known as closed. Returns how many of its shares will have no answer.
    pub(super) fn remove_channel(&mut self, id: ChannelId) -> usize {
        let Some(channel) = self.channels.remove(&id) else { return 0 };
        if self.groups.leave(channel.group(), id) {
            self.closed.insert(channel.group());
        }
        self.closed.insert(id);
        let unanswered = channel.outstanding();
        self.counters.shares_unanswered += unanswered as u64;
        unanswered
    }

    /// The upstream closes a channel, or all channels of a group.
    fn handle_close_channel(
        &mut self,
        message: &CloseChannel<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let id = ChannelId(message.channel_id);
        if !self.is_addressable(MessageKind::CloseChannel, id)? {
            return Ok(());
        }
        let addressed = self.take_addressed(id);
        for &channel in &addressed {
            let unanswered = self.remove_channel(channel);
            let reason_code = printable(message.reason_code);
            out.report(ClientEvent::ChannelClosed { channel, reason_code, unanswered });
        }
        self.return_addressed(addressed);
        Ok(())
    }
}

fn handle_reconnect(message: &Reconnect<'_>, out: &mut ClientOutbox) -> Result<(), ClientFault> {
    let host = match core::str::from_utf8(message.new_host) {
        Ok(host) if host.chars().all(|character| character.is_ascii_graphic()) => String::from(host),
        _ => return Err(ClientFault::ReconnectHost),
    };
    let host = (!host.is_empty()).then_some(host);
    let port = (message.new_port != 0).then_some(message.new_port);
    out.report(ClientEvent::Reconnect { host, port });
    Ok(())
}
