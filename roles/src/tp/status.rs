//! How the template provider does, in numbers.

use adit_engine::service::Distribution;
use adit_engine::{EngineHandle, TipLatencies};
use tracing::info;

use super::clients::ClientTally;
use crate::nodes::{SourceStanding, TemplateSource};
use crate::role::blocks::Tally;
use crate::role::feed::{self, ChainState};

/// The numbers of a moment; counts since the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Open connections.
    pub connections: u64,
    /// Frames of NewTemplate sent.
    pub templates_sent: u64,
    /// Frames of SetNewPrevHash sent.
    pub prev_hashes_sent: u64,
    /// Requests for transactions.
    pub transactions_asked: u64,
    /// Of these, those that were answered with them.
    pub transactions_answered: u64,
    /// Solutions that clients brought.
    pub solutions: u64,
    /// Of these, those under ids that lead to no template. A block may be among them.
    pub solutions_unknown: u64,
    /// Of all, those that were no blocks.
    pub solutions_refused: u64,
    /// Blocks that the source accepted.
    pub blocks_accepted: u64,
    /// Blocks that came to nothing.
    pub blocks_lost: u64,
    /// How long tips took since the start, from the node to each connection.
    pub tips: TipLatencies,
    /// Height of the tip.
    pub height: u32,
    /// Whether the template source can be used; of several, any.
    pub source_is_up: bool,
    /// How several template sources stand; empty with one.
    pub sources: Vec<SourceStanding>,
}

impl Status {
    pub(super) fn read(
        engine: &EngineHandle<Distribution>,
        source: &dyn TemplateSource,
        tally: &Tally,
        clients: &ClientTally,
        chain: &ChainState,
    ) -> Self {
        let total = engine.counters().total;
        Self {
            connections: total.connections(),
            templates_sent: total.templates_sent,
            prev_hashes_sent: total.prev_hashes_sent,
            transactions_asked: total.transaction_requests,
            transactions_answered: clients.answered(),
            solutions: total.solutions,
            solutions_unknown: total.solutions_unknown,
            solutions_refused: clients.refused(),
            blocks_accepted: tally.accepted(),
            blocks_lost: tally.lost(),
            tips: engine.tip_latencies(),
            height: chain.height(),
            source_is_up: chain.is_up(),
            sources: source.standings(),
        }
    }

    /// Writes the status line.
    pub(super) fn log(&self) {
        info!(
            connections = self.connections,
            templates_sent = self.templates_sent,
            tips_sent = self.prev_hashes_sent,
            transactions_asked = self.transactions_asked,
            transactions_answered = self.transactions_answered,
            solutions = self.solutions,
            unknown = self.solutions_unknown,
            refused = self.solutions_refused,
            blocks = self.blocks_accepted,
            height = self.height,
            tips = self.tips.sent.to_string(),
            tips_prepared = self.tips.prepared.to_string(),
            source = feed::describe(self.source_is_up, &self.sources),
            "status"
        );
    }
}
