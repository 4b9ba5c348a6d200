//! What the engine says of its clients: which templates they want, what they ask for, and the blocks that they find.
//!
//! One thread takes the engine's outputs in order. A block goes to the journal and the source at the same moment, by what
//! serves the pool's blocks too; a solution that is no block, as far as can be told, is journalled with the reason and never
//! handed to the node. Requests for transactions are answered on a thread of their own: they are megabytes long, and no block
//! waits for them.
//!
//! Bounds: [`REQUESTS_MAX`] requests wait for an answer; what finds that link full is refused by the engine when its time is
//! up. [`SEEN_MAX`] blocks are remembered, so that a block that is brought twice is submitted once. Refused solutions take
//! at most [`REFUSED_PER_MINUTE_MAX`] entries of the journal in a minute: a hostile client may send as many as it likes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_engine::EngineHandle;
use adit_engine::service::{Distribution, DistributionCommand, DistributionOutput};
use adit_hasher::Digest;
use adit_proto::distribution::server::{ConnectionId, SubmittedSolution, TransactionsError};
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, Sender, TrySendError, select_biased};
use tracing::{debug, error, info, warn};

use super::templates::{KnownTemplates, Refusal, Refused};
use crate::nodes::TemplateSource;
use crate::role::blocks::Records;

/// Requests for transactions that wait for an answer: all that a few hundred clients may have open.
pub(super) const REQUESTS_MAX: usize = 2_048;
/// Blocks that are remembered.
const SEEN_MAX: usize = 1_024;
/// See the module.
const REFUSED_PER_MINUTE_MAX: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// What has been done since the start.
#[derive(Debug, Default)]
pub(super) struct ClientTally {
    /// Solutions that were no blocks.
    refused: AtomicU64,
    /// Answers to requests for transactions.
    answered: AtomicU64,
}

impl ClientTally {
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// A request for a template's transactions.
pub(super) struct Request {
    connection: ConnectionId,
    template_id: u64,
}

/// What the thread owns.
pub(super) struct Clients {
    pub(super) outputs: Receiver<DistributionOutput>,
    pub(super) source: Arc<Box<dyn TemplateSource>>,
    pub(super) known: Arc<KnownTemplates>,
    pub(super) tally: Arc<ClientTally>,
    pub(super) requests: Sender<Request>,
    /// To what journals and submits.
    pub(super) solutions: Sender<Box<Solution>>,
    pub(super) records: Records,
    pub(super) seen: Seen,
    pub(super) refused_in_minute: Minute,
}

impl Clients {
    /// Runs until the engine has ended.
    pub(super) fn run(mut self) {
        while let Ok(output) = self.outputs.recv() {
            match output {
                DistributionOutput::Solution { solution, peer } => self.handle_solution(*solution, peer),
                DistributionOutput::ClassWanted { class, reserve } => {
                    let (weight, sigops) = (reserve.reserved_weight, reserve.max_additional_sigops);
                    info!(class = class.0, weight, sigops, "templates of a new constraint class are wanted");
                    self.known.begin_class(class);
                    self.source.want(class, reserve);
                }
                DistributionOutput::ClassUnwanted { class } => {
                    info!(class = class.0, "the last client of a constraint class is gone");
                    self.source.unwant(class);
                    self.known.forget_class(class);
                }
                DistributionOutput::TemplateReleased { template_id } => self.known.release(template_id),
                DistributionOutput::TransactionsRequested { connection, template_id } => {
                    if let Err(TrySendError::Full(_)) =
                        self.requests.try_send(Request { connection, template_id })
                    {
                        debug!(template_id, "too many requests for transactions: one is not answered");
                    }
                }
            }
        }
    }

    fn handle_solution(&mut self, submitted: SubmittedSolution, peer: Option<SocketAddr>) {
        let finder = peer.map_or_else(|| "a client that has gone".to_owned(), |peer| peer.to_string());
        match self.known.solution(submitted, finder.clone()) {
            Ok(solution) if !self.seen.insert(solution.digest) => {
                info!(hash = %solution.digest, %finder, "block known already: it was brought before");
            }
            Ok(solution) => {
                let hash = solution.digest;
                // Waits while as many wait as may: none is dropped.
                if self.solutions.send(solution).is_err() {
                    error!(%hash, %finder, "the thread that submits blocks has ended: a block is lost");
                }
            }
            Err(Refused { solution, refusal }) => self.refuse(*solution, &refusal, &finder),
        }
    }

    fn refuse(&mut self, solution: Solution, refusal: &Refusal, finder: &str) {
        let refused = self.tally.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.refused_in_minute.take() {
            debug!(finder, %refusal, refused, "solution refused, and not journalled: too many in a minute");
            return;
        }
        let template_id = solution.template_id;
        let is_recorded = self.records.record_refused(solution, refusal.to_string());
        let journal =
            if is_recorded { "what is known of it is in the journal" } else { "the journal is behind" };
        warn!(finder, template_id, reason = %refusal, "solution refused: {journal}");
    }
}

/// Answers requests for transactions, until `stopped` is disconnected.
pub(super) fn answer(
    requests: &Receiver<Request>,
    stopped: &Receiver<()>,
    engine: &EngineHandle<Distribution>,
    source: &dyn TemplateSource,
    tally: &ClientTally,
) {
    loop {
        let Request { connection, template_id } = select_biased! {
            recv(stopped) -> _ => return,
            recv(requests) -> request => match request {
                Ok(request) => request,
                Err(_) => return,
            },
        };
        let command = match source.transactions(template_id) {
            Some(transactions) => {
                let transactions = transactions.shared();
                DistributionCommand::AnswerTransactions { connection, template_id, transactions }
            }
            None => {
                debug!(template_id, "the source does not have the transactions that a client asked for");
                let error = TransactionsError::Unavailable;
                DistributionCommand::RefuseTransactions { connection, template_id, error }
            }
        };
        match engine.command(0, command) {
            Some(Ok(())) => tally.answered.fetch_add(1, Ordering::Relaxed),
            Some(Err(error)) => {
                debug!(template_id, %error, "a request for transactions is not answered");
                0
            }
            None => 0,
        };
    }
}

/// The last blocks.
#[derive(Debug, Default)]
pub(super) struct Seen(VecDeque<Digest>);

impl Seen {
    /// Whether it was not there.
    fn insert(&mut self, hash: Digest) -> bool {
        if self.0.contains(&hash) {
            return false;
        }
        if self.0.len() == SEEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash);
        true
    }
}

/// So many a minute.
#[derive(Debug)]
pub(super) struct Minute {
    begun: Instant,
    taken: u32,
}

impl Default for Minute {
    fn default() -> Self {
        Self { begun: Instant::now(), taken: 0 }
    }
}

impl Minute {
    /// Whether there is one left in this minute.
    fn take(&mut self) -> bool {
        if self.begun.elapsed() >= MINUTE {
            *self = Self::default();
        }
        self.taken += 1;
        self.taken <= REFUSED_PER_MINUTE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_submitted_once() {
        let mut seen = Seen::default();
        let hash = |number: usize| Digest::of(&number.to_le_bytes());
        assert!(seen.insert(hash(0)) && !seen.insert(hash(0)));
        assert!((1..=SEEN_MAX).all(|number| seen.insert(hash(number))));
        assert_eq!(seen.0.len(), SEEN_MAX);
    }

    #[test]
    fn refused_solutions_do_not_fill_the_journal() {
        let mut minute = Minute::default();
        let taken = (0..1_000).filter(|_| minute.take()).count();
        assert_eq!(taken, REFUSED_PER_MINUTE_MAX as usize);
    }
}
