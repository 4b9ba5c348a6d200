//! Owns the journal: writes what was found and what became of it.
//!
//! Its thread alone waits for the disk. What the disk does not take is written to the log, as far as it is small, and is written
//! again when the block is offered again. Bounds: [`ENTRIES_MAX`] entries without outcome are remembered; one beyond is written,
//! and offered again at the next start whatever became of it, which harms nothing. As many writes are under way as the journal's
//! queue holds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;
use bitcoin::hex::DisplayHex;
use crossbeam::channel::{Receiver, TryRecvError, never, select};
use tracing::{debug, error, info, warn};

use super::Record;
use super::mark::{Mark, Recorded};
use crate::journal::{EntryId, Journal};
use crate::nodes::{Submission, TemplateTransactions};

/// More than can be in flight, wait for the journal and be offered again, together.
const ENTRIES_MAX: usize = 8_192;
const _: () = assert!(ENTRIES_MAX >= super::IN_FLIGHT_MAX + super::RECORDS_MAX + super::UNSETTLED_MAX);

/// A solution on its way to the disk.
struct Writing {
    solution: Arc<Solution>,
    /// None for a solution that comes to nothing.
    mark: Option<Arc<Mark>>,
    is_first: bool,
    durable: Receiver<Result<(), String>>,
}

/// What the thread owns.
pub(in crate::role) struct Recorder {
    journal: Journal,
    orders: Receiver<Record>,
    /// Entries without outcome, by the block's hash.
    entries: HashMap<Digest, EntryId>,
    /// In the order in which the journal writes.
    writing: VecDeque<Writing>,
}

impl Recorder {
    pub(super) fn new(
        journal: Journal,
        orders: Receiver<Record>,
        recovered: impl Iterator<Item = (Digest, EntryId)>,
    ) -> Self {
        Self { journal, orders, entries: recovered.collect(), writing: VecDeque::new() }
    }

    /// Runs until the submitter and the thread that waits for outcomes have ended, and everything is on disk.
    pub(in crate::role) fn run(mut self) {
        loop {
            let written = self.writing.front().map_or_else(never, |writing| writing.durable.clone());
            select! {
                recv(self.orders) -> order => match order {
                    Ok(order) => self.handle(order),
                    Err(_) => break,
                },
                recv(written) -> result => self.handle_written(result.unwrap_or_else(|_| Err(ended()))),
            }
            // As many as have been written meanwhile.
            while let Some(writing) = self.writing.front() {
                match writing.durable.try_recv() {
                    Ok(result) => self.handle_written(result),
                    Err(TryRecvError::Disconnected) => self.handle_written(Err(ended())),
                    Err(TryRecvError::Empty) => break,
                }
            }
        }
        while !self.writing.is_empty() {
            self.wait_for_written();
        }
    }

    /// Waits for the first of those that are being written.
    fn wait_for_written(&mut self) {
        if let Some(writing) = self.writing.front() {
            let result = writing.durable.recv().unwrap_or_else(|_| Err(ended()));
            self.handle_written(result);
        }
    }

    fn handle(&mut self, order: Record) {
        match order {
            Record::Found { solution, transactions, mark } => self.write(solution, transactions, mark),
            Record::Refused { solution, reason } => {
                let recording = self.journal.record(Arc::clone(&solution), None);
                self.journal.settle(recording.id, &Submission::Rejected { reason });
                let durable = recording.durable;
                self.writing.push_back(Writing { solution, mark: None, is_first: true, durable });
            }
            Record::Settled { hash, outcome } => {
                if let Some(id) = self.entries.remove(&hash) {
                    self.journal.settle(id, &outcome);
                }
            }
            Record::GivenUp { hash } => {
                self.entries.remove(&hash);
            }
        }
    }

    fn write(
        &mut self,
        solution: Arc<Solution>,
        transactions: Option<TemplateTransactions>,
        mark: Arc<Mark>,
    ) {
        let earlier = self.entries.get(&solution.digest).copied();
        let durable = match earlier {
            Some(id) => self.journal.record_again(id, Arc::clone(&solution), transactions),
            None => {
                let recording = self.journal.record(Arc::clone(&solution), transactions);
                if self.entries.len() < ENTRIES_MAX {
                    self.entries.insert(solution.digest, recording.id);
                }
                recording.durable
            }
        };
        let is_first = earlier.is_none();
        self.writing.push_back(Writing { solution, mark: Some(mark), is_first, durable });
    }

    /// The first of those that are being written has come to its end.
    fn handle_written(&mut self, result: Result<(), String>) {
        let Some(Writing { solution, mark, is_first, .. }) = self.writing.pop_front() else { return };
        let hash = solution.digest;
        let Some(mark) = mark else {
            if let Err(error) = result {
                warn!(%error, %hash, "a refused solution could not be journalled");
            }
            return;
        };
        match result {
            Ok(()) => {
                if mark.recorded() == Recorded::Missing || !is_first {
                    info!(%hash, "what is known of a found block is in the journal now");
                }
                mark.set(Recorded::Written);
            }
            // The entry is as it was.
            Err(error) if mark.recorded() == Recorded::Written => {
                warn!(%error, %hash, "a found block could not be journalled whole; it is in the journal without its transactions");
            }
            Err(error) => {
                mark.set(Recorded::Missing);
                if is_first {
                    let (header, coinbase_tx) = (solution.header.as_hex(), solution.coinbase_tx.as_hex());
                    error!(
                        %error, %hash, %header, %coinbase_tx,
                        "a found block could not be journalled: it is tried again when the block is offered again; make room in \
                         the journal's directory"
                    );
                } else {
                    debug!(%error, %hash, "a found block could still not be journalled");
                }
            }
        }
    }
}

fn ended() -> String {
    "the journal's writer has ended".to_owned()
}
