//! Owns the journal: writes what was found and what became of it.
//!
//! Its thread alone waits for the disk. Bounds: [`ENTRIES_MAX`] entries without outcome are remembered; one beyond is written,
//! and offered again at the next start whatever became of it, which harms nothing.

use std::collections::HashMap;

use adit_hasher::Digest;
use crossbeam::channel::Receiver;

use super::Record;
use crate::journal::{EntryId, Journal};
use crate::nodes::Submission;

/// More than can be in flight, wait for the journal and be offered again, together.
const ENTRIES_MAX: usize = 8_192;
const _: () = assert!(ENTRIES_MAX >= super::IN_FLIGHT_MAX + super::RECORDS_MAX + super::UNSETTLED_MAX);

/// What the thread owns.
pub(in crate::role) struct Recorder {
    journal: Journal,
    orders: Receiver<Record>,
    /// Entries without outcome, by the block's hash.
    entries: HashMap<Digest, EntryId>,
}

impl Recorder {
    pub(super) fn new(
        journal: Journal,
        orders: Receiver<Record>,
        recovered: impl Iterator<Item = (Digest, EntryId)>,
    ) -> Self {
        Self { journal, orders, entries: recovered.collect() }
    }

    /// Runs until the submitter and the thread that waits for outcomes have ended, and everything is on disk.
    pub(in crate::role) fn run(mut self) {
        for order in &self.orders {
            match order {
                Record::Found { solution, transactions } => {
                    let hash = solution.digest;
                    let recording = self.journal.record(solution, transactions);
                    if self.entries.len() < ENTRIES_MAX {
                        self.entries.insert(hash, recording.id);
                    }
                }
                Record::Refused { solution, reason } => {
                    let recording = self.journal.record(solution, None);
                    self.journal.settle(recording.id, &Submission::Rejected { reason });
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
    }
}
