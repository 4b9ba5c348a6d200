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
use crossbeam::channel::{Receiver, Sender, TryRecvError, never, select};
use tracing::{debug, error, info, warn};

use super::mark::{Mark, Recorded};
use super::{RECALLS_MAX, REMEMBERED_MAX, Record};
use crate::journal::{EntryId, Journal, JournalEntry};
use crate::nodes::{Submission, TemplateTransactions};

/// More than can be in flight, wait for the journal and be offered again, together.
const ENTRIES_MAX: usize = 8_192;
const _: () = assert!(ENTRIES_MAX >= super::IN_FLIGHT_MAX + super::RECORDS_MAX + super::UNSETTLED_MAX);

/// A block's entry in the journal.
#[derive(Clone, Copy)]
struct Entry {
    id: EntryId,
    /// How often the block was offered again because it left the best chain.
    recalls: u32,
}

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
    entries: HashMap<Digest, Entry>,
    /// The newest entries whose blocks may be in a chain, oldest first.
    settled: VecDeque<(Digest, Entry)>,
    /// Takes those that left the best chain.
    recall: Sender<JournalEntry>,
    /// In the order in which the journal writes.
    writing: VecDeque<Writing>,
}

impl Recorder {
    pub(super) fn new(
        journal: Journal,
        orders: Receiver<Record>,
        recall: Sender<JournalEntry>,
        recovered: impl Iterator<Item = (Digest, EntryId)>,
    ) -> Self {
        let entries = recovered.map(|(hash, id)| (hash, Entry { id, recalls: 0 })).collect();
        Self { journal, orders, entries, settled: VecDeque::new(), recall, writing: VecDeque::new() }
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
                let Some(entry) = self.entries.remove(&hash) else { return };
                self.journal.settle(entry.id, &outcome);
                if !matches!(outcome, Submission::Rejected { .. }) {
                    self.settled.push_back((hash, entry));
                    if self.settled.len() > REMEMBERED_MAX {
                        self.settled.pop_front();
                    }
                }
            }
            Record::GivenUp { hash } => {
                self.entries.remove(&hash);
            }
            Record::Left { hash } => self.recall(hash),
        }
    }

    /// A block left the best chain: if it is ours, it is unsettled again.
    fn recall(&mut self, hash: Digest) {
        let Some(place) = self.settled.iter().position(|(settled, _)| *settled == hash) else { return };
        let Some((_, Entry { id, recalls })) = self.settled.remove(place) else { return };
        if recalls >= RECALLS_MAX {
            warn!(%hash, recalls, "a block of ours left the best chain too often: it is not offered again");
            return;
        }
        while self.writing.iter().any(|writing| writing.solution.digest == hash) {
            self.wait_for_written();
        }
        let entry = match self.journal.read(id) {
            Ok(entry) => entry,
            Err(error) => {
                error!(%error, %hash, "a block of ours left the best chain and cannot be offered again");
                return;
            }
        };
        self.journal.reopen(id);
        self.entries.insert(hash, Entry { id, recalls: recalls + 1 });
        if self.recall.try_send(entry).is_ok() {
            warn!(%hash, "a block of ours left the best chain: it is offered again, in case that the node has lost it");
        } else {
            error!(%hash, "a block of ours left the best chain: it is in the journal and offered at the next start");
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
            Some(Entry { id, .. }) => self.journal.record_again(id, Arc::clone(&solution), transactions),
            None => {
                let recording = self.journal.record(Arc::clone(&solution), transactions);
                if self.entries.len() < ENTRIES_MAX {
                    self.entries.insert(solution.digest, Entry { id: recording.id, recalls: 0 });
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
