//! The three threads with a source that does as it is told, and a real journal.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Instant;

use adit_hasher::Target;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use bitcoin::Network;
use bitcoin::consensus::serialize;
use bitcoin::constants::genesis_block;
use crossbeam::channel::{Sender, unbounded};

use super::*;
use crate::journal::JournalConfig;
use crate::nodes::{SourceUpdate, TemplateSource};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the source was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    hash: Digest,
    /// By a block, not a solution of a template.
    is_whole: bool,
}

/// Answers with what it was given, in order; then always the same, or never.
struct Script {
    answers: Mutex<VecDeque<Option<Submission>>>,
    otherwise: Option<Submission>,
    asked: Sender<Asked>,
    held: Mutex<Vec<Sender<Submission>>>,
    transactions: Mutex<Option<TemplateTransactions>>,
}

impl Script {
    fn new(answers: Vec<Option<Submission>>, otherwise: Option<Submission>) -> (Arc<Self>, Receiver<Asked>) {
        let (asked, questions) = unbounded();
        let answers = Mutex::new(answers.into());
        let script =
            Self { answers, otherwise, asked, held: Mutex::default(), transactions: Mutex::default() };
        (Arc::new(script), questions)
    }

    fn answer(&self, hash: Digest, is_whole: bool) -> Receiver<Submission> {
        let (sender, receiver) = bounded(1);
        match self.answers.lock().unwrap().pop_front().or_else(|| self.otherwise.clone().map(Some)) {
            Some(Some(answer)) => sender.send(answer).unwrap(),
            // Disconnected.
            Some(None) => {}
            None => self.held.lock().unwrap().push(sender),
        }
        let _ = self.asked.send(Asked { hash, is_whole });
        receiver
    }
}

struct Scripted(Arc<Script>);

impl TemplateSource for Scripted {
    fn name(&self) -> &str {
        "script"
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        crossbeam::channel::never()
    }

    fn want(&self, _: ClassId, _: Reserve) {}

    fn unwant(&self, _: ClassId) {}

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        self.0.answer(solution.digest, false)
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        self.0.answer(Digest::of(&block[..80]), true)
    }

    fn transactions(&self, _: u64) -> Option<TemplateTransactions> {
        self.0.transactions.lock().unwrap().clone()
    }

    fn shutdown(self: Box<Self>) {}
}

fn hash(number: u8) -> Digest {
    Digest::of(&[number; 80])
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
    Submission::Accepted { height: number.into(), hash: hash(number), reward_sat: 1 }
}

fn failed() -> Submission {
    Submission::Failed { reason: "the node is away".to_owned() }
}

/// The threads at work.
struct Running {
    script: Arc<Script>,
    asked: Receiver<Asked>,
    found: Sender<Box<Solution>>,
    reports: Receiver<BlockReport>,
    tally: Arc<Tally>,
    stopping: Arc<Stopping>,
    records: Records,
    threads: [JoinHandle<()>; 3],
}

impl Running {
    fn start(directory: &Path, answers: Vec<Option<Submission>>, otherwise: Option<Submission>) -> Self {
        let (script, asked) = Script::new(answers, otherwise);
        let (journal, recovery) = Journal::open(JournalConfig::new(directory.to_owned())).unwrap();
        let (found, solutions) = bounded(16);
        let (tally, stopping): (Arc<Tally>, Arc<Stopping>) = (Arc::default(), Arc::default());
        let (told, reports) = bounded(100);
        let on_block = Box::new(move |report: &BlockReport| told.send(report.clone()).unwrap());
        let ends = Ends {
            solutions,
            source: Arc::new(Box::new(Scripted(Arc::clone(&script)))),
            tally: Arc::clone(&tally),
            stopping: Arc::clone(&stopping),
        };
        let Parts { submitter, outcomes, recorder, records } = parts(ends, journal, recovery, on_block);
        let threads = [
            std::thread::spawn(|| submitter.run()),
            std::thread::spawn(|| outcomes.run()),
            std::thread::spawn(|| recorder.run()),
        ];
        Self { script, asked, found, reports, tally, stopping, records, threads }
    }

    fn find(&self, solution: Solution) {
        self.found.send(Box::new(solution)).unwrap();
    }

    fn report(&self) -> BlockReport {
        self.reports.recv_timeout(PATIENCE).unwrap()
    }

    fn asked(&self) -> Asked {
        self.asked.recv_timeout(PATIENCE).unwrap()
    }

    fn answer_with(&self, answer: Submission) {
        self.script.answers.lock().unwrap().push_back(Some(answer));
    }

    /// Ends as a pool does. What was still reported, and how long it took.
    fn end(self) -> (Vec<BlockReport>, Duration) {
        let begun = Instant::now();
        self.stopping.requested.store(true, Ordering::Release);
        drop((self.found, self.records));
        self.stopping.engine_ended.store(true, Ordering::Release);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.reports.try_iter().collect(), begun.elapsed())
    }
}

struct Run {
    reports: Vec<BlockReport>,
    submitted: Vec<Digest>,
    tally: Arc<Tally>,
    took: Duration,
}

/// Sends `solutions`, waits for as many reports as `expected`, then ends as a pool does.
fn run(directory: &Path, answers: Vec<Option<Submission>>, solutions: Vec<Solution>, expected: usize) -> Run {
    let running = Running::start(directory, answers, None);
    solutions.into_iter().for_each(|solution| running.find(solution));
    let mut reports: Vec<_> = (0..expected).map(|_| running.report()).collect();
    let (tally, asked) = (Arc::clone(&running.tally), running.asked.clone());
    let (late, took) = running.end();
    reports.extend(late);
    Run { reports, submitted: asked.try_iter().map(|asked| asked.hash).collect(), tally, took }
}

#[test]
fn outcomes_are_counted_and_told_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let rejected = Submission::Rejected { reason: "bad-cb-amount".to_owned() };
    let ran =
        run(dir.path(), vec![Some(accepted(1)), Some(rejected.clone())], vec![solution(1), solution(2)], 2);
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
    assert_eq!(ran.submitted, [hash(3); 2]);
    assert_eq!(ran.tally.accepted(), 1);
}

#[test]
fn a_source_that_is_silent_holds_up_neither_journal_nor_stop_and_the_next_start_offers_again() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(dir.path(), vec![], vec![solution(4), solution(5), solution(6)], 0);
    assert!(ran.took < ANSWER_PATIENCE_AT_STOP + Duration::from_secs(4), "{:?}", ran.took);
    assert_eq!((ran.reports.len(), ran.submitted.len()), (0, 3));
    let next = run(dir.path(), [4, 5, 6].map(|number| Some(accepted(number))).into(), vec![], 3);
    assert_eq!(next.reports.len(), 3);
    assert_eq!(next.reports[0].outcome, accepted(4));
    assert_eq!(next.submitted, ran.submitted, "in the order in which they were found");
}

#[test]
fn blocks_whose_answers_do_not_come_hold_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), vec![Some(failed()), Some(failed())], vec![solution(1), solution(2)], 2);
    // Both are offered again, and one that is new is submitted: the source answers to none of them.
    let running = Running::start(dir.path(), vec![], None);
    assert_eq!([running.asked().hash, running.asked().hash], [1, 2].map(hash));
    running.find(solution(3));
    assert_eq!(running.asked().hash, hash(3));
    // What comes now is reported all the same, and offered again.
    running.answer_with(failed());
    running.find(solution(4));
    assert!(matches!(running.report().outcome, Submission::Failed { .. }));
    running.answer_with(accepted(4));
    assert_eq!(running.report().outcome, accepted(4));
    running.script.held.lock().unwrap().clear();
    running.end();
}

#[test]
fn with_too_many_blocks_to_offer_again_the_newest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(JournalConfig::new(dir.path().to_owned())).unwrap();
    for number in 0..UNSETTLED_MAX {
        let mut solution = solution(0);
        solution.header[..8].copy_from_slice(&number.to_le_bytes());
        solution.digest = Digest::of(&solution.header);
        journal.record(Arc::new(solution), None);
    }
    drop(journal);
    let running = Running::start(dir.path(), vec![], Some(failed()));
    running.find(solution(1));
    assert_eq!(running.report().hash, hash(1));
    let asked = std::iter::from_fn(|| running.asked.recv_timeout(Duration::from_secs(3)).ok());
    assert_eq!(asked.filter(|asked| asked.hash == hash(1)).take(2).count(), 2, "it is offered again");
    running.end();
}

#[test]
fn a_refused_solution_is_recorded_with_its_reason_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(JournalConfig::new(dir.path().to_owned())).unwrap();
    let (sender, orders) = bounded(1);
    let records = Records(sender);
    assert!(records.record_refused(solution(1), "high-hash".to_owned()), "there is room for one");
    assert!(!records.record_refused(solution(2), "high-hash".to_owned()), "there is no room");
    drop(records);
    Recorder::new(journal, orders, bounded(1).0, std::iter::empty()).run();
    let (_, recovery) = Journal::open(JournalConfig::new(dir.path().to_owned())).unwrap();
    assert_eq!((recovery.pending.len(), recovery.settled_count), (0, 1));
}

#[test]
fn what_the_disk_did_not_take_is_written_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("journal");
    let running = Running::start(&inner, vec![Some(failed()); 2], None);
    // As good as full.
    std::fs::remove_dir_all(&inner).unwrap();
    running.find(solution(1));
    running.report();
    assert_eq!([running.asked().hash, running.asked().hash], [hash(1); 2]);
    std::fs::create_dir(&inner).unwrap();
    // It is offered once more, and nobody answers.
    assert_eq!(running.asked().hash, hash(1));
    running.script.held.lock().unwrap().clear();
    running.end();
    let (_, recovery) = Journal::open(JournalConfig::new(inner)).unwrap();
    assert_eq!(recovery.pending.len(), 1, "it is in the journal");
}

#[test]
fn transactions_that_come_late_make_a_block_whole() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = genesis_block(Network::Regtest);
    let header: [u8; 80] = serialize(&genesis.header).try_into().unwrap();
    let coinbase_tx = serialize(&genesis.txdata[0]);
    let found = Solution { header, digest: Digest::of(&header), coinbase_tx, ..solution(1) };
    let running =
        Running::start(dir.path(), vec![Some(Submission::UnknownTemplate { template_id: 1 })], None);
    running.find(found.clone());
    running.report();
    // Its coinbase is all that it has.
    *running.script.transactions.lock().unwrap() = Some(TemplateTransactions::default());
    let asked = [running.asked(), running.asked()];
    assert_eq!(asked, [false, true].map(|is_whole| Asked { hash: found.digest, is_whole }));
    running.script.held.lock().unwrap().clear();
    running.end();
    let (journal, recovery) = Journal::open(JournalConfig::new(dir.path().to_owned())).unwrap();
    let entries: Vec<_> = recovery.pending.iter().map(|id| journal.read(*id).unwrap()).collect();
    assert_eq!((entries.len(), &entries[0].solution), (1, &found));
    assert_eq!(entries[0].block, Some(serialize(&genesis)), "any node can take it after a restart");
}

#[test]
fn a_block_of_ours_that_leaves_the_best_chain_is_offered_again() {
    let dir = tempfile::tempdir().unwrap();
    let answers = [accepted(1), accepted(2), Submission::Duplicate { hash: hash(2) }];
    let running = Running::start(dir.path(), answers.map(Some).into(), None);
    for number in [1, 2] {
        running.find(solution(number));
        assert_eq!((running.report().outcome, running.asked().hash), (accepted(number), hash(number)));
    }
    running.records.report_left(hash(9));
    [2, 1].into_iter().for_each(|number| running.records.report_left(hash(number)));
    assert_eq!([running.asked().hash, running.asked().hash], [2, 1].map(hash), "and not that of another");
    running.script.held.lock().unwrap().clear();
    let tally = Arc::clone(&running.tally);
    assert_eq!(running.end().0, [], "it was reported");
    assert_eq!(tally.accepted(), 2, "and counted");
    // One was settled again, the other was not and is offered at the next start.
    let ran = run(dir.path(), vec![Some(accepted(1))], vec![], 1);
    assert_eq!((ran.reports[0].outcome.clone(), ran.submitted), (accepted(1), vec![hash(1)]));
    let (_, recovery) = Journal::open(JournalConfig::new(dir.path().to_owned())).unwrap();
    assert_eq!((recovery.pending.len(), recovery.settled_count), (0, 2));
}

#[test]
fn a_block_that_leaves_the_best_chain_again_and_again_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(JournalConfig::new(dir.path().to_owned())).unwrap();
    let (sender, orders) = unbounded();
    let (recall, recalled) = unbounded();
    let (solution, mark) = (Arc::new(solution(1)), Arc::new(mark::Mark::new(mark::Recorded::Waiting)));
    sender.send(Record::Found { solution, transactions: None, mark }).unwrap();
    for _ in 0..RECALLS_MAX + 2 {
        sender.send(Record::Settled { hash: hash(1), outcome: accepted(1) }).unwrap();
        sender.send(Record::Left { hash: hash(1) }).unwrap();
    }
    drop(sender);
    Recorder::new(journal, orders, recall, std::iter::empty()).run();
    assert_eq!(recalled.try_iter().count(), RECALLS_MAX as usize);
    let (_, recovery) = Journal::open(JournalConfig::new(dir.path().to_owned())).unwrap();
    assert_eq!((recovery.pending.len(), recovery.settled_count), (0, 1));
}

#[test]
fn rewards_are_shown_in_bitcoin() {
    assert_eq!(Btc(5_000_000_001).to_string(), "50.00000001");
    assert_eq!(Btc(0).to_string(), "0.00000000");
}

#[test]
fn answers_are_waited_for_as_long_as_the_engine_runs() {
    let patience = Duration::from_millis(20);
    let (script, _asked) = Script::new(vec![], None);
    let (in_flight, waiting) = bounded(4);
    let (records, _recorded) = bounded(4);
    let (told, reports) = bounded(4);
    let stopping: Arc<Stopping> = Arc::default();
    let on_block = Box::new(move |report: &BlockReport| told.send(report.clone()).unwrap());
    let source: Arc<Box<dyn TemplateSource>> = Arc::new(Box::new(Scripted(script)));
    let waits = Waits { in_flight: waiting, recalled: crossbeam::channel::never(), records };
    let mut outcomes = Outcomes::new(waits, source, Arc::default(), Arc::clone(&stopping), on_block);
    outcomes.patience_at_stop = patience;
    let entry = JournalEntry { recorded_us: 0, solution: solution(9), block: None };
    outcomes.keep_recovered(entry);
    let due = Instant::now() + FIRST_RETRY_PAUSE;
    assert!(outcomes.pause(due - Duration::from_millis(500)) <= Duration::from_millis(500));
    stopping.requested.store(true, Ordering::Release);
    // What is due is not offered any more, and nothing turns until then.
    assert_eq!([due, due + RETRY_PAUSE].map(|now| outcomes.pause(now)), [RETRY_PAUSE; 2]);
    let thread = std::thread::spawn(move || outcomes.run());
    let submit = |number| {
        let (sender, answer) = bounded(1);
        let solution = Arc::new(solution(number));
        let mark = Arc::new(mark::Mark::new(mark::Recorded::Waiting));
        in_flight.send(InFlight { solution, transactions: None, mark, answer }).unwrap();
        sender
    };
    // The stop was asked for long ago, but miners are served for their grace.
    let answer = submit(1);
    assert!(reports.recv_timeout(5 * patience).is_err());
    answer.send(accepted(1)).unwrap();
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap().outcome, accepted(1));
    // Then the time runs.
    let _never = submit(2);
    stopping.engine_ended.store(true, Ordering::Release);
    drop(in_flight);
    thread.join().unwrap();
    assert!(reports.try_recv().is_err());
}
