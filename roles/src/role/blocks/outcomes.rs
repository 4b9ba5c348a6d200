//! Waits for the template source's answers.
//!
//! All answers that are outstanding are waited for together, so that none holds up another; those that have come are taken
//! in the order in which they were asked for. Bounds: [`AWAITED_MAX`] answers, of which [`OFFERED_MAX`] are to blocks that
//! are offered again; further blocks stay in the link for that long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;
use bitcoin::hex::DisplayHex;
use crossbeam::channel::{Receiver, Select, Sender, TryRecvError, never};
use tracing::{error, info, warn};

use super::mark::{Mark, Recorded};
use super::unsettled::{Retries, Unsettled, Whole};
use super::{
    ANSWER_PATIENCE, ANSWER_PATIENCE_AT_STOP, ATTEMPTS_MAX, ATTEMPTS_QUICK, BlockReport, Btc,
    FIRST_RETRY_PAUSE, Finder, InFlight, LATE_RETRY_PAUSE, OnBlock, RECALL_PAUSE, RETRY_PAUSE, Record,
    Stopping, Tally,
};
use crate::journal::JournalEntry;
use crate::nodes::{Submission, TemplateSource};

/// Answers that are waited for at a time.
const AWAITED_MAX: usize = 256;
/// Blocks that are offered again at a time.
const OFFERED_MAX: usize = 16;
const _: () = assert!(OFFERED_MAX < AWAITED_MAX);
/// Blocks without an answer that are named at a stop; more are counted.
const NAMED_MAX: usize = 64;

/// A block that the source was asked to take.
struct Awaited {
    block: Unsettled,
    answer: Receiver<Submission>,
    since: Instant,
    is_reported: bool,
}

impl Awaited {
    fn new(block: Unsettled, answer: Receiver<Submission>) -> Self {
        Self { block, answer, since: Instant::now(), is_reported: false }
    }
}

/// The thread's links.
pub(super) struct Waits {
    /// From the submitter.
    pub(super) in_flight: Receiver<InFlight>,
    /// Entries of blocks that left the best chain.
    pub(super) recalled: Receiver<JournalEntry>,
    /// To the recorder.
    pub(super) records: Sender<Record>,
}

/// What the thread owns.
pub(in crate::role) struct Outcomes {
    waits: Waits,
    source: Arc<Box<dyn TemplateSource>>,
    tally: Arc<Tally>,
    stopping: Arc<Stopping>,
    /// Once the engine has ended: until when answers are waited for.
    answers_until: Option<Instant>,
    pub(super) patience_at_stop: Duration,
    /// The one that was asked for first comes first.
    awaited: VecDeque<Awaited>,
    retries: Retries,
    /// Blocks that were left to the next start.
    left: usize,
    on_block: OnBlock,
}

impl Outcomes {
    pub(super) fn new(
        waits: Waits,
        source: Arc<Box<dyn TemplateSource>>,
        tally: Arc<Tally>,
        stopping: Arc<Stopping>,
        on_block: OnBlock,
    ) -> Self {
        Self {
            waits,
            source,
            tally,
            stopping,
            answers_until: None,
            patience_at_stop: ANSWER_PATIENCE_AT_STOP,
            awaited: VecDeque::new(),
            retries: Retries::default(),
            left: 0,
            on_block,
        }
    }

    /// Takes an entry that an earlier run did not settle.
    pub(super) fn keep_recovered(&mut self, entry: JournalEntry) {
        self.keep(entry, false, FIRST_RETRY_PAUSE);
    }

    fn keep(&mut self, entry: JournalEntry, is_recalled: bool, pause: Duration) {
        let whole = entry.block.map_or(Whole::Unknown, |block| Whole::Block(block.into()));
        let mark = Arc::new(Mark::new(Recorded::Written));
        let block = Unsettled { solution: Arc::new(entry.solution), whole, mark, is_recalled, attempts: 0 };
        self.postpone(block, pause);
    }

    /// Runs until the submitter has ended and what is in flight is answered, or the time for answers is over.
    pub(in crate::role) fn run(mut self) {
        let mut is_fed = true;
        loop {
            let now = Instant::now();
            self.receive_answers(now);
            if !is_fed && self.awaited.is_empty() {
                break;
            }
            self.offer_due(now);
            self.wait(is_fed, now);
            if is_fed && self.awaited.len() < AWAITED_MAX {
                match self.waits.in_flight.try_recv() {
                    Ok(InFlight { solution, transactions, mark, answer }) => {
                        let whole = Whole::of(transactions);
                        let block = Unsettled { solution, whole, mark, is_recalled: false, attempts: 0 };
                        self.awaited.push_back(Awaited::new(block, answer));
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => is_fed = false,
                }
            }
            match self.waits.recalled.try_recv() {
                Ok(entry) => self.keep(entry, true, RECALL_PAUSE),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.waits.recalled = never(),
            }
        }
        self.leave_the_rest();
    }

    /// Waits until there is something to do.
    fn wait(&self, is_fed: bool, now: Instant) {
        let mut select = Select::new();
        if is_fed && self.awaited.len() < AWAITED_MAX {
            select.recv(&self.waits.in_flight);
        }
        select.recv(&self.waits.recalled);
        self.awaited.iter().for_each(|awaited| {
            select.recv(&awaited.answer);
        });
        let _ = select.ready_timeout(self.pause(now));
    }

    /// How long nothing is to be done if nothing comes.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        /// Whether the engine has ended is looked up.
        const STEP: Duration = Duration::from_millis(50);
        let pause = if self.awaited.is_empty() { RETRY_PAUSE } else { STEP };
        match self.stopping.requested.load(Ordering::Acquire) {
            // Nothing is offered again, however long it has been due.
            true => pause,
            false => self.retries.pause(now).map_or(pause, |due| due.min(pause)),
        }
    }

    /// Takes the answers that have come: as long as it takes while the engine runs, and then until the time is over.
    fn receive_answers(&mut self, now: Instant) {
        if self.answers_until.is_none() && self.stopping.engine_ended.load(Ordering::Acquire) {
            self.answers_until = Some(now + self.patience_at_stop);
        }
        let is_over = self.answers_until.is_some_and(|until| until <= now);
        for mut awaited in std::mem::take(&mut self.awaited) {
            match awaited.answer.try_recv() {
                Ok(outcome) => self.settle(awaited.block, outcome),
                Err(TryRecvError::Disconnected) => {
                    let reason = "the template source has ended".to_owned();
                    self.settle(awaited.block, Submission::Failed { reason });
                }
                Err(TryRecvError::Empty) if is_over => self.leave(awaited.block),
                Err(TryRecvError::Empty) => {
                    if !awaited.is_reported && now.duration_since(awaited.since) >= ANSWER_PATIENCE {
                        awaited.is_reported = true;
                        let recorded = awaited.block.mark.recorded();
                        error!(
                            hash = %awaited.block.hash(),
                            "the template source does not answer to a block; {recorded}"
                        );
                    }
                    self.awaited.push_back(awaited);
                }
            }
        }
    }

    fn settle(&mut self, block: Unsettled, outcome: Submission) {
        let Unsettled { solution, attempts, mark, .. } = &block;
        let (hash, is_first, is_settled) = (block.hash(), *attempts == 0, outcome.is_settled());
        if is_settled {
            // The journal is behind if the link is full. The entry then stays pending, and is offered again for nothing.
            let _ = self.waits.records.try_send(Record::Settled { hash, outcome: outcome.clone() });
        }
        if !block.is_recalled {
            self.count(&outcome);
        }
        let report = BlockReport { outcome, hash, finder: Finder::of(solution) };
        if is_first && let Submission::UnknownTemplate { template_id } = report.outcome {
            // Whoever knows the transactions can still make a block of this.
            let (header, coinbase_tx) = (&solution.header, &solution.coinbase_tx);
            error!(
                %hash, template_id, header = %header.as_hex(), coinbase_tx = %coinbase_tx.as_hex(),
                "nobody knows the template of a found block: it is offered again, and {}", mark.recorded()
            );
        }
        if is_first || is_settled {
            log(&report, mark.recorded());
            if !block.is_recalled {
                (self.on_block)(&report);
            }
        }
        if is_settled {
            return;
        }
        match *attempts {
            0 => self.postpone(block, FIRST_RETRY_PAUSE),
            1..ATTEMPTS_QUICK => self.postpone(block, RETRY_PAUSE),
            ATTEMPTS_QUICK..ATTEMPTS_MAX => self.postpone(block, LATE_RETRY_PAUSE),
            ATTEMPTS_MAX.. => self.give_up(&block),
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

    fn postpone(&mut self, block: Unsettled, pause: Duration) {
        if let Some(surplus) = self.retries.postpone(block, Instant::now() + pause) {
            self.give_up(&surplus);
        }
    }

    fn give_up(&self, block: &Unsettled) {
        let hash = block.hash();
        // A full link forgets it neither: the recorder then remembers one entry too many.
        let _ = self.waits.records.try_send(Record::GivenUp { hash });
        match block.mark.recorded() {
            Recorded::Missing => log_lost(block),
            recorded => error!(%hash, "block not submitted: {recorded}, and offered at the next start"),
        }
    }

    /// Looks for what a block lacks, and has the journal write what it has not got.
    fn complete(&self, block: &mut Unsettled) {
        let mut is_news = false;
        if matches!(block.whole, Whole::Unknown)
            && let Some(transactions) = self.source.transactions(block.solution.template_id)
        {
            block.whole = Whole::Transactions(transactions);
            is_news = true;
        }
        let is_missing = block.mark.recorded() == Recorded::Missing;
        if !is_news && !is_missing {
            return;
        }
        if is_missing {
            block.mark.set(Recorded::Waiting);
        }
        let found = Record::Found {
            solution: Arc::clone(&block.solution),
            transactions: block.whole.transactions(),
            mark: Arc::clone(&block.mark),
        };
        if self.waits.records.try_send(found).is_err() && is_missing {
            block.mark.set(Recorded::Missing);
        }
    }

    fn offer_due(&mut self, now: Instant) {
        while !self.stopping.requested.load(Ordering::Acquire)
            && offered(&self.awaited).count() < OFFERED_MAX
            && let Some(mut block) = self.retries.pop_due(now, |hash| is_answering(&self.awaited, hash, now))
        {
            self.complete(&mut block);
            let answer = match block.whole.block(&block.solution) {
                Some(whole) => self.source.submit_block(whole),
                None => self.source.submit(Arc::clone(&block.solution)),
            };
            let block = Unsettled { attempts: block.attempts + 1, ..block };
            self.awaited.push_back(Awaited::new(block, answer));
        }
    }

    /// Leaves a block to the next start, once everything has ended.
    fn leave(&mut self, mut block: Unsettled) {
        self.complete(&mut block);
        self.left += 1;
        if self.left <= NAMED_MAX {
            match block.mark.recorded() {
                Recorded::Missing => log_lost(&block),
                recorded => error!(
                    hash = %block.hash(), finder = %Finder::of(&block.solution),
                    "stopped before the template source took a block: {recorded}, and offered at the next start"
                ),
            }
        }
    }

    /// Names what was not settled when everything ended.
    fn leave_the_rest(&mut self) {
        for block in std::mem::take(&mut self.retries).into_blocks() {
            self.leave(block);
        }
        if self.left > NAMED_MAX {
            error!(
                more = self.left - NAMED_MAX,
                "stopped before the template source took more blocks than are named: what is in the journal is offered at the \
                 next start"
            );
        }
    }
}

/// The last word on a block that neither a source nor the journal has taken.
fn log_lost(block: &Unsettled) {
    let Solution { header, coinbase_tx, .. } = &*block.solution;
    error!(
        hash = %block.hash(), header = %header.as_hex(), coinbase_tx = %coinbase_tx.as_hex(),
        "block not submitted, and it is not in the journal either: this line is all that is left of it"
    );
}

/// Blocks that were offered again and have no answer yet.
fn offered(awaited: &VecDeque<Awaited>) -> impl Iterator<Item = &Awaited> {
    awaited.iter().filter(|awaited| awaited.block.attempts > 0)
}

/// Whether the answer to a block that was offered again can be expected still.
fn is_answering(awaited: &VecDeque<Awaited>, hash: &Digest, now: Instant) -> bool {
    offered(awaited).any(|it| it.block.hash() == *hash && now.duration_since(it.since) < ANSWER_PATIENCE)
}

fn log(report: &BlockReport, recorded: Recorded) {
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
            error!(%hash, %finder, reason = %outcome, "block not submitted yet: {recorded}, and it will be offered again");
        }
    }
}
