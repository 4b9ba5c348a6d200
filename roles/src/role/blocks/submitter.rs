//! Hands solutions to the template source and to the recorder.

use std::sync::Arc;

use adit_proto::mining::server::Solution;
use bitcoin::hex::DisplayHex;
use crossbeam::channel::{Receiver, Sender};
use tracing::{error, info};

use super::mark::{Mark, Recorded};
use super::{Finder, InFlight, Record};
use crate::nodes::TemplateSource;

/// What the thread owns.
pub(in crate::role) struct Submitter {
    pub(super) solutions: Receiver<Box<Solution>>,
    pub(super) source: Arc<Box<dyn TemplateSource>>,
    pub(super) records: Sender<Record>,
    pub(super) in_flight: Sender<InFlight>,
}

impl Submitter {
    /// Runs until the engine has ended.
    pub(in crate::role) fn run(self) {
        for solution in self.solutions {
            let solution: Arc<Solution> = Arc::from(solution);
            // Looked up first: a block that is accepted may drive its template out.
            let transactions = self.source.transactions(solution.template_id);
            let mark = Arc::new(Mark::new(Recorded::Waiting));
            let found = Record::Found {
                solution: Arc::clone(&solution),
                transactions: transactions.clone(),
                mark: Arc::clone(&mark),
            };
            let is_recorded = self.records.try_send(found).is_ok();
            let answer = self.source.submit(Arc::clone(&solution));
            let (hash, finder) = (solution.digest, Finder::of(&solution));
            info!(%hash, %finder, "block found");
            if !is_recorded {
                mark.set(Recorded::Missing);
                let (header, coinbase_tx) = (solution.header.as_hex(), solution.coinbase_tx.as_hex());
                error!(
                    %hash, %header, %coinbase_tx,
                    "block not recorded: the journal is behind; it is submitted, and recorded if it must be offered again"
                );
            }
            if self.in_flight.send(InFlight { solution, transactions, mark, answer }).is_err() {
                error!(
                    "the thread that waits for blocks' outcomes has ended: outcomes are not known any more"
                );
            }
        }
    }
}
