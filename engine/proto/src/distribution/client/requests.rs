//! What the driver asks for: transactions of a template, and the submission of a block (specification 7.4 to 7.7).

use alloc::collections::VecDeque;

use adit_codec::message::{MessageKind, RequestTransactionData, SubmitSolution};

use super::super::validity::B0_64K_LEN_MAX;
use super::{Client, ClientEvent, ClientFault, ClientOutbox, Phase, Refusal};
use crate::mining::server::Solution;
use crate::outbox::Priority;
use crate::time::Instant;

/// Requests for transactions of one connection.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Templates whose transactions are awaited, and until when; oldest first.
    waiting: VecDeque<(u64, Instant)>,
    /// Templates whose answers came not in time: they may still come.
    late: VecDeque<u64>,
}

impl Requests {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(_, deadline)| *deadline)
    }

    /// Forgets all at the end of a connection.
    pub(super) fn abandon(&mut self, out: &mut ClientOutbox) {
        for (template_id, _) in self.waiting.drain(..) {
            out.report(ClientEvent::TransactionsTimedOut { template_id });
        }
        self.late.clear();
    }

    /// Gives up what waited too long; of these, the last `late_max` may still be answered.
    pub(super) fn expire(&mut self, now: Instant, late_max: usize, out: &mut ClientOutbox) {
        while let Some(&(template_id, deadline)) = self.waiting.front()
            && deadline <= now
        {
            self.waiting.pop_front();
            if self.late.len() >= late_max {
                self.late.pop_front();
            }
            self.late.push_back(template_id);
            out.report(ClientEvent::TransactionsTimedOut { template_id });
        }
    }

    /// Whether an answer is awaited; `false` if it comes too late.
    pub(super) fn settle(&mut self, message: MessageKind, template_id: u64) -> Result<bool, ClientFault> {
        if let Some(index) = self.waiting.iter().position(|(waiting, _)| *waiting == template_id) {
            self.waiting.remove(index);
            return Ok(true);
        }
        let index = self.late.iter().position(|late| *late == template_id);
        let index = index.ok_or(ClientFault::UnknownRequest { message, template_id })?;
        self.late.remove(index);
        Ok(false)
    }
}

impl Client {
    /// Asks for the transactions of a template.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn request_transaction_data(
        &mut self,
        template_id: u64,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), Refusal> {
        if self.phase != Phase::SetUp {
            return Err(Refusal::NotReady);
        }
        if self.last_template_id.is_none_or(|last| template_id > last) {
            return Err(Refusal::UnknownTemplate);
        }
        let waiting = &mut self.requests.waiting;
        if waiting.iter().any(|(waiting, _)| *waiting == template_id) {
            return Err(Refusal::AlreadyRequested);
        }
        if waiting.len() >= self.config.limits.requests_max {
            return Err(Refusal::TooManyRequests);
        }
        waiting.push_back((template_id, now + self.config.limits.request_timeout));
        out.send((), Priority::Reply, &RequestTransactionData { template_id });
        Ok(())
    }

    /// Submits a block. The template may be one of an earlier connection: the provider decides.
    ///
    /// # Errors
    /// The connection is not set up, or the coinbase too long: the driver offers the block elsewhere.
    pub fn submit_solution(&mut self, solution: &Solution, out: &mut ClientOutbox) -> Result<(), Refusal> {
        if self.phase != Phase::SetUp {
            return Err(Refusal::NotReady);
        }
        if solution.coinbase_tx.len() > B0_64K_LEN_MAX {
            return Err(Refusal::CoinbaseTooLong);
        }
        let [v0, v1, v2, v3, .., t0, t1, t2, t3, _, _, _, _, n0, n1, n2, n3] = solution.header;
        let message = SubmitSolution {
            template_id: solution.template_id,
            version: u32::from_le_bytes([v0, v1, v2, v3]),
            header_timestamp: u32::from_le_bytes([t0, t1, t2, t3]),
            header_nonce: u32::from_le_bytes([n0, n1, n2, n3]),
            coinbase_tx: &solution.coinbase_tx,
        };
        out.send((), Priority::Work, &message);
        self.counters.solutions += 1;
        Ok(())
    }
}
