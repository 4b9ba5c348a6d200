//! Setup of a connection, negotiation of extensions, and time (specification 3.6, extension 0x0001).
//!
//! Nothing else is requested while an answer about extensions is awaited, unless it is late: servers without the
//! extension never answer. A late answer still counts.

use alloc::vec::Vec;
use core::time::Duration;

use adit_codec::message::flags::REQUIRES_VERSION_ROLLING;
use adit_codec::message::{
    ChannelEndpointChanged, MessageKind, Protocol, RequestExtensions, RequestExtensionsError,
    RequestExtensionsSuccess, SetupConnection, SetupConnectionError, SetupConnectionSuccess,
};

use super::ClientOutbox;
use super::connection::Client;
use super::event::{ClientEvent, printable};
use super::fault::{ClientFault, Refusal};
use crate::mining::server::ChannelId;
use crate::outbox::Priority;
use crate::time::Instant;

/// The protocol's version that this client speaks.
const VERSION: u16 = 2;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not connected.
    Idle,
    /// SetupConnection waits for its answer.
    SettingUp { deadline: Instant },
    /// SetupConnection was accepted.
    SetUp,
    /// SetupConnection was refused.
    Refused,
}

/// A RequestExtensions that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Negotiation {
    request_id: u16,
    requested: Vec<u16>,
    /// `None` once it has passed.
    deadline: Option<Instant>,
    /// Whether extensions that the upstream does not know were left out already.
    reduced: bool,
    /// The other end changed since: the answer says nothing about the new one.
    outdated: bool,
}

impl Client {
    /// The connection, and its secure session, stand: sends SetupConnection.
    pub fn handle_connected(&mut self, now: Instant, out: &mut ClientOutbox) {
        let config = &self.config;
        let message = SetupConnection {
            protocol: Protocol::Mining as u8,
            min_version: VERSION,
            max_version: VERSION,
            flags: config.flags,
            endpoint_host: &config.endpoint_host,
            endpoint_port: config.endpoint_port,
            vendor: &config.vendor,
            hardware_version: &config.hardware_version,
            firmware: &config.firmware,
            device_id: &config.device_id,
        };
        out.send((), Priority::Work, &message);
        self.phase = Phase::SettingUp { deadline: now + config.limits.setup_timeout };
    }

    /// Whether channels may be opened.
    pub fn is_ready(&self) -> bool {
        self.check_ready().is_ok()
    }

    pub(super) fn check_ready(&self) -> Result<(), Refusal> {
        let negotiating = self.negotiation.as_ref().is_some_and(|negotiation| negotiation.deadline.is_some());
        if self.phase == Phase::SetUp && !negotiating { Ok(()) } else { Err(Refusal::NotReady) }
    }

    pub(super) fn handle_setup_success(
        &mut self,
        message: &SetupConnectionSuccess,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        if message.used_version != VERSION {
            return Err(ClientFault::VersionNotOffered(message.used_version));
        }
        let before = core::mem::replace(&mut self.server_flags, message.flags);
        if self.config.flags & REQUIRES_VERSION_ROLLING != 0 && self.fixed_version() {
            self.server_flags = before;
            return Err(ClientFault::VersionRollingRefused);
        }
        self.phase = Phase::SetUp;
        out.report(ClientEvent::SetUp { used_version: message.used_version, flags: message.flags });
        if self.config.requested_extensions.is_empty() {
            out.report(ClientEvent::Ready);
        } else {
            self.request_extensions(self.config.requested_extensions.clone(), false, now, out);
        }
        Ok(())
    }

    pub(super) fn handle_setup_error(&mut self, message: &SetupConnectionError<'_>, out: &mut ClientOutbox) {
        self.phase = Phase::Refused;
        let error_code = printable(message.error_code);
        out.report(ClientEvent::SetupRefused { flags: message.flags, error_code });
    }

    fn request_extensions(
        &mut self,
        requested: Vec<u16>,
        reduced: bool,
        now: Instant,
        out: &mut ClientOutbox,
    ) {
        let request_id = self.next_extensions_request;
        self.next_extensions_request = request_id.wrapping_add(1);
        let message = RequestExtensions { request_id, requested_extensions: requested.as_slice().into() };
        out.send((), Priority::Work, &message);
        let deadline = Some(now + self.config.limits.extensions_timeout);
        self.negotiation = Some(Negotiation { request_id, requested, deadline, reduced, outdated: false });
    }

    /// Ends the negotiation that an answer is for.
    fn take_negotiation(
        &mut self,
        message: MessageKind,
        request_id: u16,
    ) -> Result<Negotiation, ClientFault> {
        self.negotiation
            .take_if(|negotiation| negotiation.request_id == request_id)
            .ok_or(ClientFault::UnknownRequest { message, request_id: u32::from(request_id) })
    }

    fn settle_extensions(&mut self, negotiated: Vec<u16>, was_late: bool, out: &mut ClientOutbox) {
        self.negotiated.clone_from(&negotiated);
        out.report(ClientEvent::ExtensionsNegotiated(negotiated));
        // Who was late was told to go on when the time was up.
        if !was_late {
            out.report(ClientEvent::Ready);
        }
    }

    pub(super) fn handle_extensions_success(
        &mut self,
        message: &RequestExtensionsSuccess<'_>,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let Negotiation { mut requested, deadline, outdated, .. } =
            self.take_negotiation(MessageKind::RequestExtensionsSuccess, message.request_id)?;
        if outdated {
            self.request_extensions(self.config.requested_extensions.clone(), false, now, out);
            return Ok(());
        }
        // One pass over the answer: it can be much longer than the request.
        let mut supported = Vec::with_capacity(requested.len());
        for extension in message.supported_extensions {
            if let Some(position) = requested.iter().position(|requested| *requested == extension) {
                supported.push(requested.swap_remove(position));
            }
        }
        self.settle_extensions(supported, deadline.is_none(), out);
        Ok(())
    }

    pub(super) fn handle_extensions_error(
        &mut self,
        message: &RequestExtensionsError<'_>,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let negotiation = self.take_negotiation(MessageKind::RequestExtensionsError, message.request_id)?;
        if negotiation.outdated {
            self.request_extensions(self.config.requested_extensions.clone(), false, now, out);
            return Ok(());
        }
        let mut requested = negotiation.requested;
        let missing: Vec<u16> =
            message.required_extensions.iter().filter(|required| !requested.contains(required)).collect();
        if !missing.is_empty() {
            out.report(ClientEvent::ExtensionsRequired(missing));
            return Ok(());
        }
        for extension in message.unsupported_extensions {
            requested.retain(|requested| *requested != extension);
        }
        // Without the extensions that the upstream does not know it may well accept the rest.
        if requested.is_empty() || negotiation.reduced || message.unsupported_extensions.is_empty() {
            self.settle_extensions(Vec::new(), negotiation.deadline.is_none(), out);
        } else {
            self.request_extensions(requested, true, now, out);
        }
        Ok(())
    }

    /// Extensions were agreed on with somebody else: begin again (specification 3.6.4).
    pub(super) fn handle_endpoint_changed(
        &mut self,
        message: &ChannelEndpointChanged,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let channel = ChannelId(message.channel_id);
        if !self.is_addressable(MessageKind::ChannelEndpointChanged, channel)? {
            return Ok(());
        }
        self.negotiated.clear();
        out.report(ClientEvent::ExtensionsReset { channel });
        match &mut self.negotiation {
            // One request at a time, however often the end changes.
            Some(negotiation) => negotiation.outdated = true,
            None if self.config.requested_extensions.is_empty() => {}
            None => self.request_extensions(self.config.requested_extensions.clone(), false, now, out),
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let setup = match self.phase {
            Phase::SettingUp { deadline } => Some(deadline),
            _ => None,
        };
        let negotiation = self.negotiation.as_ref().and_then(|negotiation| negotiation.deadline);
        [setup, negotiation, self.openings.next_deadline(), self.next_share_check].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    /// SetupConnection, or a share, was not answered in time: the driver closes the connection.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut ClientOutbox) -> Result<(), ClientFault> {
        if matches!(self.phase, Phase::SettingUp { deadline } if deadline <= now) {
            return Err(ClientFault::Timeout(MessageKind::SetupConnection));
        }
        if let Some(negotiation) = &mut self.negotiation
            && negotiation.deadline.is_some_and(|deadline| deadline <= now)
        {
            negotiation.deadline = None;
            out.report(ClientEvent::ExtensionsNegotiated(Vec::new()));
            out.report(ClientEvent::Ready);
        }
        while let Some(request) = self.openings.expire(now) {
            out.report(ClientEvent::OpenTimedOut { request });
        }
        if self.next_share_check.is_some_and(|check| check <= now) {
            self.check_shares(now)?;
        }
        Ok(())
    }

    /// Looks for shares that waited too long, and says when to look again.
    fn check_shares(&mut self, now: Instant) -> Result<(), ClientFault> {
        self.next_share_check = None;
        let Some(timeout) = self.config.limits.share_timeout else { return Ok(()) };
        let oldest = self
            .channels
            .values()
            .filter_map(|channel| channel.outstanding.oldest())
            .map(|share| share.at)
            .min();
        let Some(oldest) = oldest else { return Ok(()) };
        if now.since(oldest) >= timeout {
            return Err(ClientFault::Timeout(MessageKind::SubmitSharesStandard));
        }
        self.next_share_check = Some(oldest + timeout.max(Duration::from_nanos(1)));
        Ok(())
    }
}
