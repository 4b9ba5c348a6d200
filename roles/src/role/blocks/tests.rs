//! The three threads with a source that does as it is told, and a real journal.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use adit_hasher::Target;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use crossbeam::channel::Sender;

use super::*;
use crate::journal::JournalConfig;
use crate::nodes::{SourceUpdate, TemplateSource};

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

    fn want(&self, _: ClassId, _: Reserve) {}

    fn unwant(&self, _: ClassId) {}

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
    let unsettled = recover(&journal, recovery);
    let (found, link) = bounded(16);
    let (sender, in_flight) = bounded(IN_FLIGHT_MAX);
    let (records, orders) = bounded(RECORDS_MAX);
    let (tally, stopping): (Arc<Tally>, Arc<Stopping>) = (Arc::default(), Arc::default());
    let (told, reports) = bounded(100);
    let submitter = Submitter {
        solutions: link,
        source: Arc::clone(&source),
        records: records.clone(),
        in_flight: sender,
    };
    let on_block = Box::new(move |report: &BlockReport| told.send(report.clone()).unwrap());
    let mut outcomes =
        Outcomes::new(in_flight, records, source, Arc::clone(&tally), Arc::clone(&stopping), on_block);
    let recorder =
        Recorder::new(journal, orders, unsettled.iter().map(|(id, entry)| (entry.solution.digest, *id)));
    unsettled.into_iter().for_each(|(_, entry)| outcomes.keep_recovered(entry));
    let threads = [
        std::thread::spawn(|| submitter.run()),
        std::thread::spawn(|| outcomes.run()),
        std::thread::spawn(|| recorder.run()),
    ];
    for solution in solutions {
        found.send(Box::new(solution)).unwrap();
    }
    let mut seen: Vec<_> =
        (0..expected).map(|_| reports.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    let begun = Instant::now();
    stopping.requested.store(true, Ordering::Release);
    drop(found);
    stopping.engine_ended.store(true, Ordering::Release);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    seen.extend(reports.try_iter());
    let submitted = submitted.lock().unwrap().clone();
    Run { reports: seen, submitted, tally, took: begun.elapsed() }
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

#[test]
fn answers_are_waited_for_as_long_as_the_engine_runs() {
    let patience = Duration::from_millis(20);
    let script = Script { answers: Mutex::default(), submitted: Arc::default(), held: Mutex::default() };
    let (in_flight, waiting) = bounded(4);
    let (records, _recorded) = bounded(4);
    let (told, reports) = bounded(4);
    let stopping: Arc<Stopping> = Arc::default();
    let on_block = Box::new(move |report: &BlockReport| told.send(report.clone()).unwrap());
    let source: Arc<Box<dyn TemplateSource>> = Arc::new(Box::new(script));
    let mut outcomes =
        Outcomes::new(waiting, records, source, Arc::default(), Arc::clone(&stopping), on_block);
    outcomes.patience_at_stop = patience;
    stopping.requested.store(true, Ordering::Release);
    let thread = std::thread::spawn(move || outcomes.run());
    let submit = |number| {
        let (sender, answer) = bounded(1);
        let solution = Arc::new(solution(number));
        in_flight.send(InFlight { solution, transactions: None, answer }).unwrap();
        sender
    };
    // The stop was asked for long ago, but miners are served for their grace.
    let answer = submit(1);
    assert!(reports.recv_timeout(5 * patience).is_err());
    answer.send(accepted(1)).unwrap();
    assert_eq!(reports.recv_timeout(Duration::from_secs(20)).unwrap().outcome, accepted(1));
    // Then the time runs.
    let _never = submit(2);
    stopping.engine_ended.store(true, Ordering::Release);
    drop(in_flight);
    thread.join().unwrap();
    assert!(reports.try_recv().is_err());
}
