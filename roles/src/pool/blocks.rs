//! From a solution to a block of the chain.
//!
//! The submitter hands each solution to the template source and to the journal, at the same moment; both only queue it, so
//! neither waits for the other. A second thread waits for the answers, writes them to journal and log, and offers what
//! could not be submitted again. What is not settled when the pool stops stays pending in the journal and is offered at
//! the next start.
//!
//! Bounds: [`IN_FLIGHT_MAX`] answers are waited for, [`UNSETTLED_MAX`] solutions are offered again, each
//! [`ATTEMPTS_MAX`] times.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tracing::{error, info, warn};

use super::{OnBlock, Running};
use crate::journal::{EntryId, Journal, Recording, Recovery};
use crate::nodes::{Submission, TemplateSource};

/// Answers that are waited for. Beyond, the submitter waits, and then the engine: nothing is dropped.
const IN_FLIGHT_MAX: usize = 4_096;
/// Solutions that are offered again; more wait in the journal for the next start.
const UNSETTLED_MAX: usize = 256;
/// How often a solution is offered again before that is left to the next start.
const ATTEMPTS_MAX: u32 = 120;
/// Pause before a solution is offered again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// After which a source that does not answer is reported.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long answers are waited for once the pool is stopping, all together.
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
pub(super) struct Tally {
    accepted: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Rejected ones and stale ones.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// A solution whose answer is waited for.
struct InFlight {
    solution: Arc<Solution>,
    answer: Receiver<Submission>,
    recording: Recording,
}

/// Hands out solutions; see the module.
pub(super) struct Submitter {
    solutions: Receiver<Box<Solution>>,
    source: Arc<Box<dyn TemplateSource>>,
    journal: Arc<Journal>,
    in_flight: Sender<InFlight>,
}

impl Submitter {
    /// Runs until the engine has ended.
    pub(super) fn run(self) {
        for solution in self.solutions {
            let solution: Arc<Solution> = Arc::from(solution);
            // Looked up first: a block that is accepted may drive its template out.
            let transactions = self.source.transactions(solution.template_id);
            let answer = self.source.submit(Arc::clone(&solution));
            let recording = self.journal.record(Arc::clone(&solution), transactions);
            info!(hash = %solution.digest, finder = %Finder::of(&solution), "block found");
            if self.in_flight.send(InFlight { solution, answer, recording }).is_err() {
                error!(
                    "the thread that waits for blocks' outcomes has ended: outcomes are not known any more"
                );
            }
        }
    }
}

/// A solution that is to be offered again.
struct Unsettled {
    id: EntryId,
    solution: Arc<Solution>,
    attempts: u32,
    due: Instant,
}

/// Waits for answers; see the module.
pub(super) struct Outcomes {
    in_flight: Receiver<InFlight>,
    source: Arc<Box<dyn TemplateSource>>,
    journal: Arc<Journal>,
    tally: Arc<Tally>,
    stopping: Arc<AtomicBool>,
    /// Once the pool is stopping: until when answers are waited for.
    answers_until: Option<Instant>,
    unsettled: VecDeque<Unsettled>,
    on_block: OnBlock,
}

/// The two halves. Solutions that the last run did not settle are offered first.
pub(super) fn parts(running: &Running, recovery: Recovery, on_block: OnBlock) -> (Submitter, Outcomes) {
    let (sender, in_flight) = bounded(IN_FLIGHT_MAX);
    let submitter = Submitter {
        solutions: running.engine.solutions(),
        source: Arc::clone(&running.source),
        journal: Arc::clone(&running.journal),
        in_flight: sender,
    };
    let mut outcomes = Outcomes {
        in_flight,
        source: Arc::clone(&running.source),
        journal: Arc::clone(&running.journal),
        tally: Arc::clone(&running.tally),
        stopping: Arc::clone(&running.stopping),
        answers_until: None,
        unsettled: VecDeque::new(),
        on_block,
    };
    outcomes.recover(recovery);
    (submitter, outcomes)
}

impl Outcomes {
    fn recover(&mut self, recovery: Recovery) {
        for (path, error) in &recovery.corrupt {
            error!(path = %path.display(), %error, "journal: set aside what is no entry");
        }
        let pending = recovery.pending.len();
        if pending > 0 {
            warn!(pending, "journal: solutions of an earlier run were not settled; offering them again");
        }
        // The newest have the best chances.
        for id in recovery.pending.into_iter().skip(pending.saturating_sub(UNSETTLED_MAX)) {
            match self.journal.read(id) {
                Ok(entry) => self.keep(id, Arc::new(entry.solution), 0),
                Err(error) => error!(%error, "journal: an entry cannot be read"),
            }
        }
    }

    /// Runs until the submitter has ended and what is in flight is answered, or the time for answers is over.
    pub(super) fn run(mut self) {
        let mut unanswered = 0_u64;
        loop {
            let now = Instant::now();
            let pause =
                self.unsettled.front().map_or(RETRY_PAUSE, |next| next.due.saturating_duration_since(now));
            match self.in_flight.recv_timeout(pause) {
                Ok(InFlight { solution, answer, recording }) => match self.wait(&answer, &solution) {
                    Some(outcome) => {
                        self.check_recorded(&recording, &solution);
                        self.settle(recording.id, solution, outcome, 0);
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
                "stopped before the template source answered to found blocks; they are in the journal and are offered at \
                 the next start"
            );
        }
    }

    /// Waits for the source's answer: as long as it takes, unless the pool is stopping. None if the time for answers is over.
    fn wait(&mut self, answer: &Receiver<Submission>, solution: &Solution) -> Option<Submission> {
        const STEP: Duration = Duration::from_millis(50);
        let begun = Instant::now();
        let mut is_reported = false;
        loop {
            let now = Instant::now();
            if self.answers_until.is_none() && self.stopping.load(Ordering::Acquire) {
                self.answers_until = Some(now + ANSWER_PATIENCE_AT_STOP);
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

    /// The journal has had as long as the source took. A disk that is slower is not waited for: it reports itself.
    fn check_recorded(&self, recording: &Recording, solution: &Solution) {
        if let Ok(Err(reason)) = recording.durable.try_recv() {
            error!(hash = %solution.digest, %reason, "block not recorded: after a crash it could not be offered again");
        }
    }

    fn settle(&mut self, id: EntryId, solution: Arc<Solution>, outcome: Submission, attempts: u32) {
        self.journal.settle(id, &outcome);
        let report = BlockReport { outcome, hash: solution.digest, finder: Finder::of(&solution) };
        self.count(&report.outcome);
        if attempts == 0 || report.outcome.is_settled() {
            log(&report);
            (self.on_block)(&report);
        }
        if !report.outcome.is_settled() {
            self.keep(id, solution, attempts);
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

    fn keep(&mut self, id: EntryId, solution: Arc<Solution>, attempts: u32) {
        if attempts >= ATTEMPTS_MAX || self.unsettled.len() >= UNSETTLED_MAX {
            error!(hash = %solution.digest, "block not submitted: it stays in the journal and is offered at the next start");
            return;
        }
        // What was read from the journal is due at once.
        let pause = if attempts == 0 { Duration::from_secs(1) } else { RETRY_PAUSE };
        self.unsettled.push_back(Unsettled { id, solution, attempts, due: Instant::now() + pause });
    }

    fn retry(&mut self) {
        while !self.stopping.load(Ordering::Acquire)
            && self.unsettled.front().is_some_and(|next| next.due <= Instant::now())
            && let Some(Unsettled { id, solution, attempts, .. }) = self.unsettled.pop_front()
        {
            // The journal has the whole block where the template's transactions were at hand.
            let block = self.journal.read(id).ok().and_then(|entry| entry.block);
            let answer = match block {
                Some(block) => self.source.submit_block(block.into()),
                None => self.source.submit(Arc::clone(&solution)),
            };
            // Without an answer it stays in the journal.
            if let Some(outcome) = self.wait(&answer, &solution) {
                self.settle(id, solution, outcome, attempts + 1);
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
        Submission::UnknownTemplate { .. } | Submission::Failed { .. } => {
            error!(%hash, %finder, reason = %outcome, "block not submitted yet: it is in the journal and will be offered again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use adit_hasher::Target;

    use super::*;
    use crate::journal::JournalConfig;
    use crate::nodes::{SourceUpdate, TemplateTransactions};

    /// Answers with what it was given, in order; then never.
    struct Script {
        answers: Mutex<VecDeque<Option<Submission>>>,
        submitted: Arc<Mutex<Vec<Digest>>>,
        held: Mutex<Vec<Sender<Submission>>>,
    }

    impl TemplateSource for Script {
        fn name(&self) -> &str {
            "script"
        }

        fn updates(&self) -> Receiver<SourceUpdate> {
            crossbeam::channel::never()
        }

        fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
            self.submitted.lock().unwrap().push(solution.digest);
            let (sender, receiver) = bounded(1);
            match self.answers.lock().unwrap().pop_front() {
                Some(Some(answer)) => sender.send(answer).unwrap(),
                // Disconnected.
                Some(None) => {}
                None => self.held.lock().unwrap().push(sender),
            }
            receiver
        }

        fn submit_block(&self, _: Arc<[u8]>) -> Receiver<Submission> {
            panic!("no entry has a block")
        }

        fn transactions(&self, _: u64) -> Option<TemplateTransactions> {
            None
        }

        fn shutdown(self: Box<Self>) {}
    }

    fn solution(number: u8) -> Solution {
        let header = [number; 80];
        Solution {
            template_id: 1,
            header,
            digest: Digest::of(&header),
            target: Target::MAX,
            coinbase_tx: vec![0; 60],
            merkle_path: Vec::new(),
            user_identity: b"alice\n".to_vec(),
            worker_identity: Vec::new(),
        }
    }

    fn accepted(number: u8) -> Submission {
        Submission::Accepted { height: number.into(), hash: Digest::of(&[number; 80]), reward_sat: 1 }
    }

    struct Run {
        reports: Vec<BlockReport>,
        submitted: Vec<Digest>,
        tally: Arc<Tally>,
        took: Duration,
    }

    /// Sends `solutions`, waits for as many reports as `expected`, then ends as a pool does.
    fn run(
        directory: &std::path::Path,
        answers: Vec<Option<Submission>>,
        solutions: Vec<Solution>,
        expected: usize,
    ) -> Run {
        let submitted: Arc<Mutex<Vec<Digest>>> = Arc::default();
        let script = Script {
            answers: Mutex::new(answers.into()),
            submitted: Arc::clone(&submitted),
            held: Mutex::default(),
        };
        let source: Arc<Box<dyn TemplateSource>> = Arc::new(Box::new(script));
        let (journal, recovery) = Journal::open(JournalConfig::new(directory.to_owned())).unwrap();
        let journal = Arc::new(journal);
        let (found, link) = bounded(16);
        let (sender, in_flight) = bounded(IN_FLIGHT_MAX);
        let (tally, stopping): (Arc<Tally>, Arc<AtomicBool>) = (Arc::default(), Arc::default());
        let (told, reports) = bounded(100);
        let submitter = Submitter {
            solutions: link,
            source: Arc::clone(&source),
            journal: Arc::clone(&journal),
            in_flight: sender,
        };
        let mut outcomes = Outcomes {
            in_flight,
            source,
            journal,
            tally: Arc::clone(&tally),
            stopping: Arc::clone(&stopping),
            answers_until: None,
            unsettled: VecDeque::new(),
            on_block: Box::new(move |report| told.send(report.clone()).unwrap()),
        };
        outcomes.recover(recovery);
        let threads = [std::thread::spawn(|| submitter.run()), std::thread::spawn(|| outcomes.run())];
        for solution in solutions {
            found.send(Box::new(solution)).unwrap();
        }
        let mut seen: Vec<_> =
            (0..expected).map(|_| reports.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        let begun = Instant::now();
        stopping.store(true, Ordering::Release);
        drop(found);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        seen.extend(reports.try_iter());
        let submitted = submitted.lock().unwrap().clone();
        Run { reports: seen, submitted, tally, took: begun.elapsed() }
    }

    #[test]
    fn outcomes_are_counted_and_told_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let rejected = Submission::Rejected { reason: "bad-cb-amount".to_owned() };
        let ran = run(
            dir.path(),
            vec![Some(accepted(1)), Some(rejected.clone())],
            vec![solution(1), solution(2)],
            2,
        );
        let outcomes: Vec<_> = ran.reports.iter().map(|report| report.outcome.clone()).collect();
        assert_eq!(outcomes, [accepted(1), rejected]);
        assert_eq!(ran.reports[0].finder.to_string(), "alice\\n");
        assert_eq!((ran.tally.accepted(), ran.tally.lost()), (1, 1));
        let again = run(dir.path(), vec![], vec![], 0);
        assert!(again.submitted.is_empty(), "what is settled is not offered again");
    }

    #[test]
    fn a_source_that_fails_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let ran = run(dir.path(), vec![None, Some(accepted(3))], vec![solution(3)], 2);
        assert!(matches!(ran.reports[0].outcome, Submission::Failed { .. }));
        assert_eq!(ran.reports[1].outcome, accepted(3));
        assert_eq!(ran.submitted, [Digest::of(&[3; 80]); 2]);
        assert_eq!(ran.tally.accepted(), 1);
    }

    #[test]
    fn a_source_that_is_silent_holds_up_neither_journal_nor_stop_and_the_next_start_offers_again() {
        let dir = tempfile::tempdir().unwrap();
        let ran = run(dir.path(), vec![], vec![solution(4), solution(5), solution(6)], 0);
        assert!(ran.took < ANSWER_PATIENCE_AT_STOP + Duration::from_secs(5), "{:?}", ran.took);
        assert_eq!((ran.reports.len(), ran.submitted.len()), (0, 3));
        let next = run(dir.path(), [4, 5, 6].map(|number| Some(accepted(number))).into(), vec![], 3);
        assert_eq!(next.reports.len(), 3);
        assert_eq!(next.reports[0].outcome, accepted(4));
        assert_eq!(next.submitted, ran.submitted, "in the order in which they were found");
    }

    #[test]
    fn rewards_are_shown_in_bitcoin() {
        assert_eq!(Btc(5_000_000_001).to_string(), "50.00000001");
        assert_eq!(Btc(0).to_string(), "0.00000000");
    }
}
