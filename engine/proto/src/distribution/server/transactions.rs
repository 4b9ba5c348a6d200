//! Requests for a template's transactions, and their answers (specification 7.4 to 7.6).
//!
//! Answers are the largest frames of the protocol; they wait behind work. The driver is asked for one at a time for each
//! connection, so that connections take turns.

use adit_codec::frame::{HEADER_LEN, PAYLOAD_LEN_MAX};
use adit_codec::frame_len;
use adit_codec::message::{RequestTransactionDataError, RequestTransactionDataSuccess};

use super::super::validity::B0_64K_LEN_MAX;
use super::connection::{Connection, Phase, Request};
use super::event::{CommandError, ConnectionId, Event, Standing, TransactionsError};
use super::{Server, ServerOutbox};
use crate::outbox::Priority;
use crate::time::Instant;

/// The most items of a SEQ0_64K.
const TRANSACTIONS_MAX: usize = 65_535;

impl Server {
    pub(super) fn handle_request_transactions(
        &mut self,
        id: ConnectionId,
        wire_id: u64,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        self.counters.requests += 1;
        let limits = self.config.limits;
        let known = self.templates.get(wire_id);
        let Some(connection) = self.connection_mut(id) else { return };
        let mut waiting = connection.requests.iter();
        let error = match known {
            None => TransactionsError::TemplateIdNotFound,
            Some(known) if known.standing == Standing::Stale => TransactionsError::StaleTemplateId,
            Some(_) if waiting.len() >= limits.requests_max => TransactionsError::TooManyRequests,
            Some(known) if waiting.any(|waiting| waiting.template_id == known.template_id) => {
                TransactionsError::TooManyRequests
            }
            Some(known) => {
                let template_id = known.template_id;
                let is_first = connection.requests.is_empty();
                let deadline = now + limits.request_timeout;
                connection.requests.push_back(Request { wire_id, template_id, deadline });
                if is_first {
                    out.report(Event::TransactionsRequested { connection: id, template_id });
                }
                return;
            }
        };
        send_error(id, wire_id, error, out);
        // A tip that crosses the request is nobody's fault.
        if error != TransactionsError::StaleTemplateId {
            self.count_error(id, now, out);
        }
    }

    /// Sends the transactions of a template that a client asked for: all but the coinbase, with their witnesses, in the
    /// order of the block.
    ///
    /// # Errors
    /// Nobody waits for them, or they are more than a frame can carry: then the request still waits, to be refused.
    pub fn answer_transactions(
        &mut self,
        id: ConnectionId,
        template_id: u64,
        excess_data: &[u8],
        transactions: &[&[u8]],
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        let (index, wire_id) = self.request(id, template_id)?;
        if excess_data.len() > B0_64K_LEN_MAX || transactions.len() > TRANSACTIONS_MAX {
            return Err(CommandError::TooLong);
        }
        let transaction_list = transactions.into();
        let answer = RequestTransactionDataSuccess { template_id: wire_id, excess_data, transaction_list };
        if frame_len(&answer) > HEADER_LEN + PAYLOAD_LEN_MAX as usize {
            return Err(CommandError::TooLong);
        }
        out.send(id, Priority::Reply, &answer);
        self.forget_request(id, index, out);
        Ok(())
    }

    /// Tells a client that there are no transactions for it.
    ///
    /// # Errors
    /// Nobody waits for them.
    pub fn refuse_transactions(
        &mut self,
        id: ConnectionId,
        template_id: u64,
        error: TransactionsError,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        let (index, wire_id) = self.request(id, template_id)?;
        send_error(id, wire_id, error, out);
        self.forget_request(id, index, out);
        Ok(())
    }

    /// Gives up requests that the driver did not answer in time.
    pub(super) fn expire_requests(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        let Some(connection) = self.connection_mut(id) else { return };
        while let Some(&request) = connection.requests.front()
            && request.deadline <= now
        {
            connection.requests.pop_front();
            send_error(id, request.wire_id, TransactionsError::Unavailable, out);
        }
        ask_for_first(id, connection, out);
    }

    /// Where the oldest request for a template waits, and the id by which the client knows it.
    fn request(&self, id: ConnectionId, template_id: u64) -> Result<(usize, u64), CommandError> {
        let connection = self.connection(id).ok_or(CommandError::UnknownConnection)?;
        if matches!(connection.phase, Phase::Setup | Phase::Closing) {
            return Err(CommandError::UnknownConnection);
        }
        let mut requests = connection.requests.iter().enumerate();
        let found = requests.find(|(_, request)| request.template_id == template_id);
        found.map(|(index, request)| (index, request.wire_id)).ok_or(CommandError::UnknownRequest)
    }

    fn forget_request(&mut self, id: ConnectionId, index: usize, out: &mut ServerOutbox) {
        if let Some(connection) = self.connection_mut(id) {
            connection.requests.remove(index);
            if index == 0 {
                ask_for_first(id, connection, out);
            }
        }
    }
}

fn ask_for_first(id: ConnectionId, connection: &Connection, out: &mut ServerOutbox) {
    if let Some(Request { template_id, .. }) = connection.requests.front() {
        out.report(Event::TransactionsRequested { connection: id, template_id: *template_id });
    }
}

fn send_error(id: ConnectionId, template_id: u64, error: TransactionsError, out: &mut ServerOutbox) {
    let error_code = error.code().as_bytes();
    out.send(id, Priority::Reply, &RequestTransactionDataError { template_id, error_code });
}
