//! From a frame to whoever handles its message: the order that the specification demands, and what is discarded.

use alloc::boxed::Box;

use adit_codec::frame::FrameHeader;
use adit_codec::message::{Message, Protocol, SubmitSolution};

use super::connection::Phase;
use super::event::{CloseReason, ConnectionId, Event, SubmittedSolution};
use super::{Server, ServerOutbox};
use crate::time::Instant;

impl Server {
    /// A plaintext frame arrived.
    pub fn handle_frame(
        &mut self,
        id: ConnectionId,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        let Some(phase) = self.connection(id).map(|connection| connection.phase) else { return };
        if phase == Phase::Closing {
            return;
        }
        let message = match Message::decode(header, payload, Protocol::TemplateDistribution) {
            Ok(decoded) => decoded.message,
            Err(error) if error.is_ignorable() && phase != Phase::Setup => {
                self.counters.frames_discarded += 1;
                return;
            }
            Err(error) => return self.end_connection(id, CloseReason::Malformed(error), now, out),
        };
        match (phase, message) {
            (Phase::Setup, Message::SetupConnection(message)) => self.handle_setup(id, &message, now, out),
            (Phase::Constraints | Phase::Member(_), Message::CoinbaseOutputConstraints(message)) => {
                self.handle_constraints(id, message, now, out);
            }
            // Also before its constraints: who has just reconnected may bring what was found in between.
            (Phase::Constraints | Phase::Member(_), Message::SubmitSolution(message)) => {
                self.handle_solution(id, &message, out);
            }
            (Phase::Constraints | Phase::Member(_), Message::RequestExtensions(message)) => {
                self.handle_request_extensions(id, &message, now, out);
            }
            (Phase::Member(_), Message::RequestTransactionData(message)) => {
                self.handle_request_transactions(id, message.template_id, now, out);
            }
            (_, other) => self.end_connection(id, CloseReason::Unexpected(other.kind()), now, out),
        }
    }

    fn handle_solution(&mut self, id: ConnectionId, message: &SubmitSolution<'_>, out: &mut ServerOutbox) {
        let template = self.templates.get(message.template_id);
        self.counters.solutions += 1;
        out.report(Event::Solution(Box::new(SubmittedSolution {
            connection: id,
            template,
            wire_template_id: message.template_id,
            version: message.version,
            header_timestamp: message.header_timestamp,
            header_nonce: message.header_nonce,
            coinbase_tx: message.coinbase_tx.into(),
        })));
        if template.is_none() {
            self.counters.solutions_unknown += 1;
        }
    }
}
