//! From a frame to whoever handles its message: the order of messages that the specification demands, faults, and what is
//! discarded (specification 3.2.1, 3.4.1, 3.6).

use adit_codec::frame::FrameHeader;
use adit_codec::message::{
    Decoded, Message, Protocol, RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess,
    SetCustomMiningJobError, SetupConnection, SetupConnectionError, SetupConnectionSuccess,
};
use adit_codec::tlv;
use adit_hasher::{BatchHash, Target};

use super::admit::Submission;
use super::connection::Phase;
use super::event::{ChannelId, CloseReason, ConnectionId, Event, ProtocolFault};
use super::extensions::{self, Answer, Negotiated};
use super::open::Opening;
use super::setup;
use super::{Server, ServerOutbox, ShareError};
use crate::outbox::Priority;
use crate::setup::PROTOCOL_VERSION;
use crate::time::Instant;

impl Server {
    /// A plaintext frame arrived. Shares wait for [`settle`](Self::settle), all else is answered in `out`.
    pub fn handle_frame(
        &mut self,
        id: ConnectionId,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.connection_mut(id) else { return };
        connection.heard_at = now;
        let phase = connection.phase;
        if phase == Phase::Closing {
            return;
        }
        match Message::decode(header, payload, Protocol::Mining) {
            Ok(decoded) => self.handle_message(id, decoded, now, hashes, out),
            // Messages to a channel end here as well: the pool is the channel's endpoint.
            Err(error) if error.is_ignorable() && phase == Phase::Mining => {
                self.counters.frames_discarded += 1
            }
            Err(error) => {
                self.end_connection(id, CloseReason::Protocol(ProtocolFault::Malformed(error)), now, out);
            }
        }
    }

    fn handle_message(
        &mut self,
        id: ConnectionId,
        decoded: Decoded<'_>,
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.connection(id) else { return };
        let extensions = connection.extensions;
        match (connection.phase, &decoded.message) {
            (Phase::Setup, Message::SetupConnection(message)) => {
                return self.handle_setup(id, message, now, out);
            }
            (Phase::Mining, Message::RequestExtensions(message)) => {
                return self.handle_request_extensions(id, message, now, out);
            }
            (Phase::Setup, _) | (_, Message::SetupConnection(_)) => {
                let fault = ProtocolFault::Unexpected(decoded.message.kind().name());
                return self.end_connection(id, CloseReason::Protocol(fault), now, out);
            }
            _ => {}
        }
        if let Some(missing) = extensions.missing {
            return self.end_connection(id, CloseReason::ExtensionRequired(missing), now, out);
        }
        self.handle_request(id, decoded, extensions.worker_identity, now, hashes, out);
    }

    /// A message of a connection that was set up.
    fn handle_request(
        &mut self,
        id: ConnectionId,
        decoded: Decoded<'_>,
        worker_identity: bool,
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        match decoded.message {
            Message::SubmitSharesStandard(message) => {
                self.handle_share(id, &Submission::standard(&message), now, hashes, out);
            }
            Message::SubmitSharesExtended(message) => {
                match tlv::user_identity(decoded.trailing, worker_identity) {
                    Ok(worker) => {
                        let share = Submission::extended(&message, worker.unwrap_or_default());
                        self.handle_share(id, &share, now, hashes, out);
                    }
                    Err(_) => {
                        let share = Submission::extended(&message, &[]);
                        self.refuse_share(id, &share, ShareError::InvalidUserIdentity, now, out);
                    }
                }
            }
            Message::OpenStandardMiningChannel(message) => {
                self.handle_open(id, &Opening::standard(&message), now, hashes, out);
            }
            Message::OpenExtendedMiningChannel(message) => {
                self.handle_open(id, &Opening::extended(&message), now, hashes, out);
            }
            Message::UpdateChannel(message) => {
                let channel = ChannelId(message.channel_id);
                let max_target = Target::from_le_bytes(*message.maximum_target);
                self.handle_update(id, channel, message.nominal_hash_rate, max_target, now, hashes, out);
            }
            Message::CloseChannel(message) => self.handle_close(id, message.channel_id, now, out),
            Message::SetCustomMiningJob(message) => {
                // Work selection is refused at setup, so no client of good faith sends this.
                let answer = SetCustomMiningJobError {
                    channel_id: message.channel_id,
                    request_id: message.request_id,
                    error_code: b"jd-not-supported",
                };
                out.send(id, Priority::Reply, &answer);
                self.count_error(id, now, out);
            }
            // A proxy may say that a channel's downstream endpoint changed. No extension has state per channel here.
            Message::ChannelEndpointChanged(_) => self.counters.frames_discarded += 1,
            other => {
                let fault = ProtocolFault::Unexpected(other.kind().name());
                self.end_connection(id, CloseReason::Protocol(fault), now, out);
            }
        }
    }

    fn handle_setup(
        &mut self,
        id: ConnectionId,
        message: &SetupConnection<'_>,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        let accepted = match setup::negotiate(message, self.config.version_rolling) {
            Ok(accepted) => accepted,
            Err(refused) => {
                let answer =
                    SetupConnectionError { flags: refused.flags, error_code: refused.error_code.as_bytes() };
                out.send(id, Priority::Work, &answer);
                return self.end_connection(id, CloseReason::SetupRefused(refused.error_code), now, out);
            }
        };
        let extensions = Negotiated::required(&self.config.required_extensions);
        let Some(connection) = self.connection_mut(id) else { return };
        connection.phase = Phase::Mining;
        connection.standard_jobs = accepted.standard_jobs;
        connection.extensions = extensions;
        connection.bare_since = now;
        self.schedule_connection(id.slot);
        let answer = SetupConnectionSuccess { used_version: PROTOCOL_VERSION, flags: accepted.flags };
        out.send(id, Priority::Work, &answer);
        out.report(Event::SetUp {
            connection: id,
            vendor: message.vendor.into(),
            firmware: message.firmware.into(),
        });
    }

    /// Clients ask right after the setup, or anew after a ChannelEndpointChanged (specification 3.6.4). What they ask for
    /// replaces what they had.
    fn handle_request_extensions(
        &mut self,
        id: ConnectionId,
        message: &RequestExtensions<'_>,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        let answer =
            extensions::negotiate(message.requested_extensions.iter(), &self.config.required_extensions);
        let Some(connection) = self.connection_mut(id) else { return };
        match answer {
            Answer::Success { supported, negotiated } => {
                connection.extensions = negotiated;
                let answer = RequestExtensionsSuccess {
                    request_id: message.request_id,
                    supported_extensions: supported.as_slice().into(),
                };
                out.send(id, Priority::Work, &answer);
            }
            Answer::Error { unsupported, required } => {
                let told = connection.extensions.told;
                let missing = required.first().copied();
                connection.extensions = Negotiated { missing, told: true, ..Negotiated::NOTHING };
                let answer = RequestExtensionsError {
                    request_id: message.request_id,
                    unsupported_extensions: unsupported.as_slice().into(),
                    required_extensions: required.as_slice().into(),
                };
                out.send(id, Priority::Work, &answer);
                if let Some(missing) = missing.filter(|_| told) {
                    self.end_connection(id, CloseReason::ExtensionRequired(missing), now, out);
                } else {
                    self.count_error(id, now, out);
                }
            }
        }
    }
}
