//! Waits for the template source's answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use adit_proto::mining::server::Solution;
use bitcoin::hex::DisplayHex;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use tracing::{error, info, warn};

use super::{
    ANSWER_PATIENCE, ANSWER_PATIENCE_AT_STOP, ATTEMPTS_MAX, ATTEMPTS_QUICK, BlockReport, Btc,
    FIRST_RETRY_PAUSE, Finder, InFlight, LATE_RETRY_PAUSE, OnBlock, RETRY_PAUSE, Record, Stopping, Tally,
    UNSETTLED_MAX,
};
use crate::journal::JournalEntry;
use crate::nodes::{Submission, TemplateSource, TemplateTransactions, assemble_block};

/// A solution that is to be offered again.
struct Unsettled {
    solution: Arc<Solution>,
    whole: Whole,
    attempts: u32,
    due: Instant,
}

/// What makes a solution a block without the source's template.
enum Whole {
    /// Not at hand.
    Unknown,
    Transactions(TemplateTransactions),
    Block(Arc<[u8]>),
}

impl Whole {
    fn block(&self, solution: &Solution) -> Option<Arc<[u8]>> {
        match self {
            Self::Unknown => None,
            Self::Transactions(transactions) => {
                let Solution { header, coinbase_tx, merkle_path, .. } = solution;
                assemble_block(header, coinbase_tx, merkle_path, transactions).ok().map(Arc::from)
            }
            Self::Block(block) => Some(Arc::clone(block)),
        }
    }
}

/// What the thread owns.
pub(in crate::role) struct Outcomes {
    in_flight: Receiver<InFlight>,
    records: Sender<Record>,
    source: Arc<Box<dyn TemplateSource>>,
    tally: Arc<Tally>,
    stopping: Arc<Stopping>,
    /// Once the engine has ended: until when answers are waited for.
    answers_until: Option<Instant>,
    pub(super) patience_at_stop: Duration,
    /// The one that is due next comes first.
    unsettled: VecDeque<Unsettled>,
    on_block: OnBlock,
}

impl Outcomes {
    pub(super) fn new(
        in_flight: Receiver<InFlight>,
        records: Sender<Record>,
        source: Arc<Box<dyn TemplateSource>>,
        tally: Arc<Tally>,
        stopping: Arc<Stopping>,
        on_block: OnBlock,
    ) -> Self {
        Self {
            in_flight,
            records,
            source,
            tally,
            stopping,
            answers_until: None,
            patience_at_stop: ANSWER_PATIENCE_AT_STOP,
            unsettled: VecDeque::new(),
            on_block,
        }
    }

    /// Takes an entry that an earlier run did not settle.
    pub(super) fn keep_recovered(&mut self, entry: JournalEntry) {
        let whole = entry.block.map_or(Whole::Unknown, |block| Whole::Block(block.into()));
        let solution = Arc::new(entry.solution);
        self.unsettled.push_back(Unsettled {
            solution,
            whole,
            attempts: 0,
            due: Instant::now() + FIRST_RETRY_PAUSE,
        });
    }

    /// Runs until the submitter has ended and what is in flight is answered, or the time for answers is over.
    pub(in crate::role) fn run(mut self) {
        let mut unanswered = 0_u64;
        loop {
            let now = Instant::now();
            let pause =
                self.unsettled.front().map_or(RETRY_PAUSE, |next| next.due.saturating_duration_since(now));
            match self.in_flight.recv_timeout(pause) {
                Ok(InFlight { solution, transactions, answer }) => match self.wait(&answer, &solution) {
                    Some(outcome) => {
                        let whole = transactions.map_or(Whole::Unknown, Whole::Transactions);
                        self.settle(solution, whole, outcome, 0);
                    }
                    None => unanswered += 1,
                },
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.retry();
        }
        if unanswered > 0 {
            error!(
                unanswered,
                "stopped before the template source answered to found blocks; what is in the journal is offered at the next \
                 start"
            );
        }
    }

    /// Waits for the source's answer: as long as it takes while the engine runs. None if the time for answers is over.
    fn wait(&mut self, answer: &Receiver<Submission>, solution: &Solution) -> Option<Submission> {
        const STEP: Duration = Duration::from_millis(50);
        let begun = Instant::now();
        let mut is_reported = false;
        loop {
            let now = Instant::now();
            if self.answers_until.is_none() && self.stopping.engine_ended.load(Ordering::Acquire) {
                self.answers_until = Some(now + self.patience_at_stop);
            }
            let step =
                self.answers_until.map_or(STEP, |until| until.saturating_duration_since(now).min(STEP));
            match answer.recv_timeout(step) {
                Ok(outcome) => return Some(outcome),
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(Submission::Failed { reason: "the template source has ended".to_owned() });
                }
                Err(RecvTimeoutError::Timeout) if step.is_zero() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !is_reported && now.duration_since(begun) >= ANSWER_PATIENCE {
                is_reported = true;
                error!(hash = %solution.digest, "the template source does not answer to a block; it is in the journal");
            }
        }
    }

    fn settle(&mut self, solution: Arc<Solution>, whole: Whole, outcome: Submission, attempts: u32) {
        let is_settled = outcome.is_settled();
        let is_given_up = !is_settled && (attempts >= ATTEMPTS_MAX || self.unsettled.len() >= UNSETTLED_MAX);
        if is_settled || is_given_up {
            // The journal is behind if the link is full. The entry then stays pending, and is offered again for nothing.
            let _ =
                self.records.try_send(Record::Settled { hash: solution.digest, outcome: outcome.clone() });
        }
        self.count(&outcome);
        let report = BlockReport { outcome, hash: solution.digest, finder: Finder::of(&solution) };
        if attempts == 0
            && let Submission::UnknownTemplate { template_id } = report.outcome
        {
            // Whoever knows the transactions can still make a block of this.
            let (header, coinbase_tx) = (&solution.header, &solution.coinbase_tx);
            error!(
                hash = %report.hash, template_id, header = %header.as_hex(), coinbase_tx = %coinbase_tx.as_hex(),
                "nobody knows the template of a found block: it is offered again, and in the journal as it is"
            );
        }
        if attempts == 0 || is_settled {
            log(&report);
            (self.on_block)(&report);
        }
        if is_given_up {
            error!(hash = %report.hash, "block not submitted: it stays in the journal and is offered at the next start");
        } else if !is_settled {
            let pause = match attempts {
                0 => FIRST_RETRY_PAUSE,
                1..ATTEMPTS_QUICK => RETRY_PAUSE,
                _ => LATE_RETRY_PAUSE,
            };
            let due = Instant::now() + pause;
            let place = self.unsettled.partition_point(|earlier| earlier.due <= due);
            self.unsettled.insert(place, Unsettled { solution, whole, attempts, due });
        }
    }

    fn count(&self, outcome: &Submission) {
        match outcome {
            Submission::Accepted { .. } => self.tally.accepted.fetch_add(1, Ordering::Relaxed),
            Submission::Stale { .. } | Submission::Rejected { .. } => {
                self.tally.lost.fetch_add(1, Ordering::Relaxed)
            }
            _ => 0,
        };
    }

    fn retry(&mut self) {
        while !self.stopping.requested.load(Ordering::Acquire)
            && self.unsettled.front().is_some_and(|next| next.due <= Instant::now())
            && let Some(Unsettled { solution, whole, attempts, .. }) = self.unsettled.pop_front()
        {
            let answer = match whole.block(&solution) {
                Some(block) => self.source.submit_block(block),
                None => self.source.submit(Arc::clone(&solution)),
            };
            // Without an answer it stays in the journal.
            if let Some(outcome) = self.wait(&answer, &solution) {
                self.settle(solution, whole, outcome, attempts + 1);
            }
        }
    }
}

fn log(report: &BlockReport) {
    let BlockReport { outcome, hash, finder } = report;
    match outcome {
        Submission::Accepted { height, reward_sat, .. } => {
            info!(height, %hash, %finder, reward = format!("{} BTC", Btc(*reward_sat)), "block accepted");
        }
        Submission::Stale { height, .. } => {
            warn!(height, %hash, %finder, "block stale: another of its height came first");
        }
        Submission::Duplicate { .. } => info!(%hash, %finder, "block known already"),
        Submission::Rejected { reason } => error!(%hash, %finder, %reason, "block rejected"),
        Submission::Unconfirmed { .. } => {
            warn!(%hash, %finder, "block handed over, and the node does not show what became of it: it will be asked again");
        }
        Submission::UnknownTemplate { .. } | Submission::NotTaken { .. } | Submission::Failed { .. } => {
            error!(%hash, %finder, reason = %outcome, "block not submitted yet: it is in the journal and will be offered again");
        }
    }
}
