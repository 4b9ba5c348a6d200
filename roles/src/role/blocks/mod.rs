//! From a solution to a block of the chain.
//!
//! Three threads. The submitter hands each solution to the template source and, by a link that it never waits for, to the
//! recorder, which owns the journal: a slow disk holds up no block. A third waits for the source's answers, tells log and
//! recorder, and offers what could not be submitted again. So does it with a block that was settled and left the best chain: a
//! node that crashes forgets blocks, and then the journal may be the only one that has it. What is not settled when the role stops stays pending in the
//! journal and is offered at the next start.
//!
//! Bounds: [`IN_FLIGHT_MAX`] solutions wait for their turn to be waited for, beyond that the submitter waits, and then the
//! engine, so that no solution is dropped. [`RECORDS_MAX`] records wait for the journal; what finds that link full is submitted
//! all the same, and recorded when it is offered again. [`UNSETTLED_MAX`] solutions wait to be offered again, each
//! [`ATTEMPTS_MAX`] times. [`REMEMBERED_MAX`] settled ones are remembered, and offered again [`RECALLS_MAX`] times.

mod mark;
mod outcomes;
mod recorder;
mod submitter;
#[cfg(test)]
mod tests;
mod unsettled;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, Sender, bounded};
use tracing::{error, warn};

use crate::journal::{EntryId, Journal, JournalEntry, Recovery};
use crate::nodes::{Submission, TemplateSource, TemplateTransactions};
use mark::Mark;
use outcomes::{Outcomes, Waits};
use recorder::Recorder;
use submitter::Submitter;

/// Solutions that were submitted and whose answers nobody waits for yet.
const IN_FLIGHT_MAX: usize = 4_096;
/// Records that wait for the journal, which has a queue of its own behind.
const RECORDS_MAX: usize = 1_024;
/// Solutions that are offered again; more wait in the journal for the next start.
const UNSETTLED_MAX: usize = 256;
/// Settled blocks that are remembered, in case that they leave the best chain.
const REMEMBERED_MAX: usize = 128;
/// How often a block is offered again because it left the best chain.
const RECALLS_MAX: u32 = 16;
/// How often a solution is offered again before that is left to the next start: ten minutes, then a day.
const ATTEMPTS_MAX: u32 = ATTEMPTS_QUICK + 1_440;
/// After how many attempts the pause becomes longer.
const ATTEMPTS_QUICK: u32 = 120;
/// Pause before a solution is offered again; the first time it is shorter.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// See [`RETRY_PAUSE`].
const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Pause before a block is offered again that left the best chain: those below it may have left with it, and are told later.
const RECALL_PAUSE: Duration = Duration::from_millis(200);
/// Pause after [`ATTEMPTS_QUICK`] attempts: a block that old is seldom of use any more.
const LATE_RETRY_PAUSE: Duration = Duration::from_secs(60);
/// After which a source that does not answer is reported.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long answers are waited for once the engine has ended and no block can come any more, all together.
const ANSWER_PATIENCE_AT_STOP: Duration = Duration::from_secs(5);
/// Bytes of a peer's text that are shown.
const FINDER_LEN_MAX: usize = 64;

/// Who found a block: text of a peer, cut and escaped, so that it cannot forge lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finder(String);

impl Finder {
    fn of(solution: &Solution) -> Self {
        let shown = |bytes: &[u8]| bytes[..bytes.len().min(FINDER_LEN_MAX)].escape_ascii().to_string();
        match solution.worker_identity.as_slice() {
            [] => Self(shown(&solution.user_identity)),
            worker => Self(format!("{} ({})", shown(&solution.user_identity), shown(worker))),
        }
    }
}

impl fmt::Display for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Satoshis, shown as bitcoin: `50.00000000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Btc(pub u64);

impl fmt::Display for Btc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SAT_PER_BTC: u64 = 100_000_000;
        write!(f, "{}.{:08}", self.0 / SAT_PER_BTC, self.0 % SAT_PER_BTC)
    }
}

/// What became of a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockReport {
    /// The source's answer.
    pub outcome: Submission,
    /// The block's hash.
    pub hash: Digest,
    /// Who found it.
    pub finder: Finder,
}

/// Blocks since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    accepted: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Rejected ones and stale ones.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A solution whose answer is waited for.
struct InFlight {
    solution: Arc<Solution>,
    transactions: Option<TemplateTransactions>,
    mark: Arc<Mark>,
    answer: Receiver<Submission>,
}

/// Told of every block's outcome, on the thread that waits for outcomes.
pub type OnBlock = Box<dyn FnMut(&BlockReport) + Send>;

/// What the recorder is told.
enum Record {
    /// Write this, or, if it is known already, write it again: the disk did not take it, or more is known of it.
    Found { solution: Arc<Solution>, transactions: Option<TemplateTransactions>, mark: Arc<Mark> },
    /// Write this, which comes to nothing, with the reason.
    Refused { solution: Arc<Solution>, reason: String },
    /// This became of it.
    Settled { hash: Digest, outcome: Submission },
    /// It is not offered any more: the entry stays pending.
    GivenUp { hash: Digest },
    /// A block, ours or another's, left the best chain.
    Left { hash: Digest },
}

/// How far a stop of the role has come.
#[derive(Debug, Default)]
pub(in crate::role) struct Stopping {
    /// It was asked for: nothing is offered again, but clients are still served for the grace, and what they find is submitted.
    pub(in crate::role) requested: AtomicBool,
    /// The engine has ended: no block can come any more.
    pub(in crate::role) engine_ended: AtomicBool,
}

/// A way to the recorder for what is no new block.
#[derive(Clone)]
pub(crate) struct Records(Sender<Record>);

impl Records {
    /// Writes what is known of a solution that comes to nothing, with the reason. Whether there was room for it.
    pub(crate) fn record_refused(&self, solution: Solution, reason: String) -> bool {
        self.0.try_send(Record::Refused { solution: Arc::new(solution), reason }).is_ok()
    }

    /// Says that a block left the best chain. If it is ours, it is offered again: a node may have lost it.
    pub(in crate::role) fn report_left(&self, hash: Digest) {
        if self.0.try_send(Record::Left { hash }).is_err() {
            warn!(%hash, "the journal is behind: if this block was ours, it is not offered again");
        }
    }
}

/// Where solutions come from and go to.
pub(super) struct Ends {
    pub(super) solutions: Receiver<Box<Solution>>,
    pub(super) source: Arc<Box<dyn TemplateSource>>,
    pub(super) tally: Arc<Tally>,
    pub(super) stopping: Arc<Stopping>,
}

/// The three threads' parts.
pub(super) struct Parts {
    pub(super) submitter: Submitter,
    pub(super) outcomes: Outcomes,
    pub(super) recorder: Recorder,
    pub(super) records: Records,
}

/// Makes the parts. Solutions that an earlier run did not settle are offered first.
pub(super) fn parts(ends: Ends, journal: Journal, recovery: Recovery, on_block: OnBlock) -> Parts {
    let unsettled = recover(&journal, recovery);
    let (sender, in_flight) = bounded(IN_FLIGHT_MAX);
    let (records, orders) = bounded(RECORDS_MAX);
    let submitter = Submitter {
        solutions: ends.solutions,
        source: Arc::clone(&ends.source),
        records: records.clone(),
        in_flight: sender,
    };
    let (recall, recalled) = bounded(REMEMBERED_MAX);
    let waits = Waits { in_flight, recalled, records: records.clone() };
    let mut outcomes = Outcomes::new(waits, ends.source, ends.tally, ends.stopping, on_block);
    let recovered = unsettled.iter().map(|(id, entry)| (entry.solution.digest, *id));
    let recorder = Recorder::new(journal, orders, recall, recovered);
    unsettled.into_iter().for_each(|(_, entry)| outcomes.keep_recovered(entry));
    Parts { submitter, outcomes, recorder, records: Records(records) }
}

/// What the journal holds without outcome: the newest, which have the best chances, oldest first.
fn recover(journal: &Journal, recovery: Recovery) -> Vec<(EntryId, JournalEntry)> {
    for (path, error) in &recovery.corrupt {
        error!(path = %path.display(), %error, "journal: set aside what is no entry");
    }
    let pending = recovery.pending.len();
    if pending > 0 {
        let offered = pending.min(UNSETTLED_MAX);
        warn!(
            pending,
            offered, "journal: solutions of an earlier run were not settled; offering the newest again"
        );
    }
    let newest = recovery.pending.into_iter().skip(pending.saturating_sub(UNSETTLED_MAX));
    newest
        .filter_map(|id| match journal.read(id) {
            Ok(entry) => Some((id, entry)),
            Err(error) => {
                error!(%error, "journal: an entry cannot be read");
                None
            }
        })
        .collect()
}
