//! What SetupConnection and RequestExtensions are answered (specification 3.6, extension 0x0001).

use alloc::vec::Vec;

use adit_codec::message::{
    Protocol, RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess, SetupConnection,
    SetupConnectionError, SetupConnectionSuccess,
};
use adit_codec::tlv::EXTENSIONS_NEGOTIATION;

use super::connection::Phase;
use super::event::{CloseReason, ConnectionId, Event};
use super::{Server, ServerOutbox};
use crate::outbox::Priority;
use crate::setup::{PROTOCOL_VERSION, Refused, negotiate};
use crate::time::Instant;

impl Server {
    pub(super) fn handle_setup(
        &mut self,
        id: ConnectionId,
        message: &SetupConnection<'_>,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        // This protocol defines no flags, so whatever is set is not supported.
        if let Err(Refused { flags, error_code }) = negotiate(message, Protocol::TemplateDistribution, 0, 0) {
            out.send(id, Priority::Work, &SetupConnectionError { flags, error_code: error_code.as_bytes() });
            return self.end_connection(id, CloseReason::SetupRefused(error_code), now, out);
        }
        let Some(connection) = self.connection_mut(id) else { return };
        connection.phase = Phase::Constraints;
        connection.since = now;
        let answer = SetupConnectionSuccess { used_version: PROTOCOL_VERSION, flags: 0 };
        out.send(id, Priority::Work, &answer);
        let (vendor, firmware) = (message.vendor.into(), message.firmware.into());
        out.report(Event::SetUp { connection: id, vendor, firmware });
    }

    /// No extension but the negotiation itself is known in this protocol.
    pub(super) fn handle_request_extensions(
        &mut self,
        id: ConnectionId,
        message: &RequestExtensions<'_>,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        let request_id = message.request_id;
        let mut unsupported: Vec<u16> = message.requested_extensions.iter().collect();
        let nothing_requested = unsupported.is_empty();
        unsupported.sort_unstable();
        unsupported.dedup();
        let requested = unsupported.len();
        unsupported.retain(|extension| *extension != EXTENSIONS_NEGOTIATION);
        if nothing_requested || unsupported.len() < requested {
            let supported: &[u16] = if nothing_requested { &[] } else { &[EXTENSIONS_NEGOTIATION] };
            let supported_extensions = supported.into();
            out.send(id, Priority::Work, &RequestExtensionsSuccess { request_id, supported_extensions });
            return;
        }
        let answer = RequestExtensionsError {
            request_id,
            unsupported_extensions: unsupported.as_slice().into(),
            required_extensions: [].as_slice().into(),
        };
        out.send(id, Priority::Work, &answer);
        self.count_error(id, now, out);
    }
}
