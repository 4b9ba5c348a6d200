//! What SetupConnection and RequestExtensions are answered (specification 3.6, extension 0x0001).

use alloc::vec::Vec;

use adit_codec::message::{
    Protocol, RequestExtensions, RequestExtensionsError, RequestExtensionsSuccess, SetupConnection,
    SetupConnectionError, SetupConnectionSuccess,
};
use adit_codec::tlv::EXTENSIONS_NEGOTIATION;

use super::super::PROTOCOL_VERSION;
use super::connection::Phase;
use super::event::{CloseReason, ConnectionId, Event};
use super::{Server, ServerOutbox};
use crate::outbox::Priority;
use crate::time::Instant;

/// Judges a SetupConnection; a refusal has the flags that are not supported, and a code. This protocol defines no flags,
/// so whatever is set is not supported.
fn negotiate(message: &SetupConnection<'_>) -> Result<(), (u32, &'static str)> {
    if Protocol::from_wire(message.protocol) != Some(Protocol::TemplateDistribution) {
        // Flags mean something else in other protocols.
        return Err((0, "unsupported-protocol"));
    }
    if !(message.min_version..=message.max_version).contains(&PROTOCOL_VERSION) {
        return Err((message.flags, "protocol-version-mismatch"));
    }
    if message.flags != 0 {
        return Err((message.flags, "unsupported-feature-flags"));
    }
    Ok(())
}

impl Server {
    pub(super) fn handle_setup(
        &mut self,
        id: ConnectionId,
        message: &SetupConnection<'_>,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        if let Err((flags, code)) = negotiate(message) {
            out.send(id, Priority::Work, &SetupConnectionError { flags, error_code: code.as_bytes() });
            return self.end_connection(id, CloseReason::SetupRefused(code), now, out);
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
