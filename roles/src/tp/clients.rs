//! What the engine says of its clients: which templates they want, what they ask for, and the blocks that they find.
//!
//! One thread takes the engine's outputs in order. A block goes to the journal and the source at the same moment, by what
//! serves the pool's blocks too; a solution that is no block, as far as can be told, is journalled with the reason and never
//! handed to the node. Who brings too many of those is closed.
//!
//! Bounds: what clients ask for waits in a bounded link (`requests`); what finds it full is refused by the engine when its time
//! is up. [`SEEN_MAX`] blocks are remembered, so that a block that is brought twice is submitted once.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_engine::service::DistributionOutput;
use adit_hasher::Digest;
use adit_proto::distribution::server::SubmittedSolution;
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use tracing::{debug, error, info, warn};

use super::refusals::RefusedInMinute;
use super::requests::{Asked, Request};
use super::templates::{KnownTemplates, Refusal, Refused};
use crate::nodes::TemplateSource;
use crate::role::blocks::Records;

/// Blocks that are remembered.
const SEEN_MAX: usize = 1_024;
/// How often it is looked whether a minute of refusals has ended.
const TURN: Duration = Duration::from_secs(5);

/// What has been done since the start.
#[derive(Debug, Default)]
pub(super) struct ClientTally {
    /// Solutions that were no blocks.
    refused: AtomicU64,
    /// Answers to requests for transactions.
    pub(super) answered: AtomicU64,
}

impl ClientTally {
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

/// What the thread owns.
pub(super) struct Clients {
    pub(super) outputs: Receiver<DistributionOutput>,
    pub(super) source: Arc<Box<dyn TemplateSource>>,
    pub(super) known: Arc<KnownTemplates>,
    pub(super) tally: Arc<ClientTally>,
    /// To what answers clients.
    pub(super) asked: Sender<Asked>,
    /// To what journals and submits.
    pub(super) solutions: Sender<Box<Solution>>,
    pub(super) records: Records,
    pub(super) seen: Seen,
    pub(super) refused_in_minute: RefusedInMinute,
}

impl Clients {
    /// Runs until the engine has ended.
    pub(super) fn run(mut self) {
        loop {
            let output = match self.outputs.recv_timeout(TURN) {
                Ok(output) => output,
                Err(RecvTimeoutError::Timeout) => {
                    self.turn();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.turn(),
            };
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
                    self.ask(Asked::Transactions(Request { connection, template_id }));
                }
            }
        }
    }

    fn handle_solution(&mut self, submitted: SubmittedSolution, peer: Option<SocketAddr>) {
        let connection = submitted.connection;
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
            Err(Refused { solution, refusal }) => {
                self.ask(Asked::FalseSolution(connection));
                self.refuse(*solution, &refusal, &finder, peer.map(|peer| peer.ip()));
            }
        }
    }

    /// Says how many refusals of a minute were passed over.
    fn turn(&mut self) {
        if let Some(count) = self.refused_in_minute.turn(Instant::now()) {
            warn!(count, "solutions refused in the last minute that the journal has no room for");
        }
    }

    fn ask(&self, asked: Asked) {
        if let Err(TrySendError::Full(_)) = self.asked.try_send(asked) {
            debug!("clients ask for too much: one is not answered");
        }
    }

    fn refuse(&mut self, solution: Solution, refusal: &Refusal, finder: &str, address: Option<IpAddr>) {
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
        self.turn();
        if !self.refused_in_minute.take(address, refusal.is_proof()) {
            return;
        }
        let template_id = solution.template_id;
        let is_recorded = self.records.record_refused(solution, refusal.to_string());
        let journal =
            if is_recorded { "what is known of it is in the journal" } else { "the journal is behind" };
        warn!(finder, template_id, reason = %refusal, "solution refused: {journal}");
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
}
