//! The journal keeps what was found through crashes, and what it kept can be submitted.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_roles::journal::{EntryError, EntryId, Journal, JournalConfig, JournalError, Recovery};
use adit_roles::nodes::embedded::Chain;
use adit_roles::nodes::{Submission, TemplateSource};
use support::{PATIENCE, Pool, quick_config};

fn open(directory: &Path) -> (Journal, Recovery) {
    Journal::open(JournalConfig::new(directory.to_owned())).unwrap()
}

/// Finds a block, writes it and waits until it has reached the disk.
fn record(pool: &mut Pool, journal: &Journal) -> (EntryId, Arc<adit_proto::mining::server::Solution>) {
    let solution = pool.solve();
    let transactions = pool.source.transactions(solution.template_id);
    let recording = journal.record(solution.clone(), transactions);
    recording.durable.recv_timeout(PATIENCE).unwrap().unwrap();
    (recording.id, solution)
}

fn entries(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    paths.sort();
    paths
}

#[test]
fn a_block_without_outcome_is_submitted_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(quick_config(Chain::Regtest));
    let (journal, recovery) = open(directory.path());
    assert!(recovery.pending.is_empty() && recovery.corrupt.is_empty());
    let (id, solution) = record(&mut pool, &journal);
    // Not final: it stays pending.
    journal.settle(id, &Submission::Failed { reason: "the node is away".to_owned() });
    drop(journal);

    let (journal, recovery) = open(directory.path());
    assert_eq!(recovery.pending, [id]);
    let entry = journal.read(id).unwrap();
    assert_eq!(entry.solution, *solution);
    let block: Arc<[u8]> = entry.block.unwrap().into();
    let outcome = pool.source.submit_block(block).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(outcome, Submission::Accepted { height: 1, .. }), "{outcome:?}");
    journal.settle(id, &outcome);
    drop(journal);

    let (journal, recovery) = open(directory.path());
    assert_eq!((recovery.pending.len(), recovery.settled_count, recovery.corrupt.len()), (0, 1, 0));
    // The next entry's name is above, and one without transactions is kept as well.
    let solution = pool.solve();
    let recording = journal.record(solution.clone(), None);
    assert!(recording.id > id);
    recording.durable.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(journal.read(recording.id).unwrap().block, None);
    assert_eq!((journal.written_count(), journal.failed_count()), (1, 0));
}

#[test]
fn a_crash_at_any_byte_loses_nothing_that_was_whole() {
    let source = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(quick_config(Chain::Regtest));
    let (journal, _) = open(source.path());
    let (id, solution) = record(&mut pool, &journal);
    let path = entries(source.path(), "solution").remove(0);
    let record_len = fs::metadata(&path).unwrap().len() as usize;
    journal.settle(id, &Submission::Accepted { height: 1, hash: solution.digest, reward_sat: 5_000_000_000 });
    drop(journal);
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > record_len);

    for len in 0..=whole.len() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(path.file_name().unwrap()), &whole[..len]).unwrap();
        let (journal, recovery) = open(directory.path());
        if len < record_len {
            let (_, error) = &recovery.corrupt[0];
            assert_eq!(
                (recovery.pending.len(), recovery.settled_count, error),
                (0, 0, &EntryError::Torn),
                "{len}"
            );
            assert_eq!(entries(directory.path(), "corrupt").len(), 1);
        } else if len < whole.len() {
            assert_eq!((recovery.pending.as_slice(), recovery.settled_count), (&[id][..], 0), "{len}");
            assert_eq!(journal.read(id).unwrap().solution, *solution);
            // The torn outcome is written anew.
            journal.settle(id, &Submission::Duplicate { hash: solution.digest });
            drop(journal);
            assert_eq!(open(directory.path()).1.settled_count, 1, "{len}");
        } else {
            assert_eq!((recovery.pending.len(), recovery.settled_count), (0, 1));
        }
    }
}

#[test]
fn a_damaged_file_is_set_aside_and_reported_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(quick_config(Chain::Regtest));
    let (journal, _) = open(directory.path());
    let (good, _) = record(&mut pool, &journal);
    record(&mut pool, &journal);
    drop(journal);
    let path = entries(directory.path(), "solution").remove(1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[60] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::write(directory.path().join("00000000000000000007.solution"), "nonsense").unwrap();
    fs::write(directory.path().join("notes.txt"), "an operator's").unwrap();
    // It cannot be read, and keeps nothing from starting either.
    fs::create_dir(directory.path().join("00000000000000000009.solution")).unwrap();

    let (journal, recovery) = open(directory.path());
    let errors: Vec<&EntryError> = recovery.corrupt.iter().map(|(_, error)| error).collect();
    assert_eq!(errors, [&EntryError::NoEntry, &EntryError::Checksum]);
    assert_eq!(recovery.pending, [good]);
    drop(journal);
    let (_journal, recovery) = open(directory.path());
    assert!(recovery.corrupt.is_empty());
    assert_eq!(entries(directory.path(), "corrupt").len(), 2);
    assert!(directory.path().join("notes.txt").exists());
}

#[test]
fn a_damaged_file_that_cannot_be_set_aside_keeps_nothing_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("00000000000000000007.solution"), "nonsense").unwrap();
    // No file can take its place.
    fs::create_dir(directory.path().join("00000000000000000007.corrupt")).unwrap();
    for _ in 0..2 {
        let (_journal, recovery) = open(directory.path());
        assert_eq!((recovery.corrupt.len(), recovery.pending.len()), (1, 0));
    }
}

#[test]
fn growth_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut pool = Pool::start(quick_config(Chain::Regtest));
    let mut config = JournalConfig::new(directory.path().to_owned());
    config.settled_max = 3;
    let (journal, _) = Journal::open(config.clone()).unwrap();
    let ids: Vec<EntryId> = (0..6).map(|_| record(&mut pool, &journal).0).collect();
    assert_eq!(entries(directory.path(), "solution").len(), 6, "pending entries stay");
    for id in &ids[..5] {
        journal.settle(*id, &Submission::Rejected { reason: "high-hash".to_owned() });
    }
    drop(journal);
    let (journal, recovery) = Journal::open(config.clone()).unwrap();
    assert_eq!((recovery.settled_count, recovery.pending.as_slice()), (3, &ids[5..]));
    assert!(matches!(journal.read(ids[1]), Err(JournalError::Io(..))));
    assert!(journal.read(ids[2]).is_ok());
    drop(journal);

    config.age_max = Duration::ZERO;
    let (_journal, recovery) = Journal::open(config).unwrap();
    assert_eq!((recovery.settled_count, recovery.pending.len()), (0, 0));
    assert!(entries(directory.path(), "solution").is_empty());
}

#[test]
fn a_journal_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let (_journal, _) = open(directory.path());
    let second = Journal::open(JournalConfig::new(directory.path().to_owned()));
    assert!(matches!(second, Err(JournalError::InUse(_))));
}

#[test]
fn a_disk_that_fails_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("journal");
    let mut pool = Pool::start(quick_config(Chain::Regtest));
    let (journal, _) = open(&inner);
    fs::remove_dir_all(&inner).unwrap();
    let solution = pool.solve();
    let recording = journal.record(solution.clone(), None);
    assert!(recording.durable.recv_timeout(PATIENCE).unwrap().is_err());
    let again = journal.record_again(recording.id, solution.clone(), None);
    assert!(again.recv_timeout(PATIENCE).unwrap().is_err());
    assert_eq!((journal.written_count(), journal.failed_count()), (0, 1));
    // Settling what was never written does no harm.
    journal.settle(recording.id, &Submission::UnknownTemplate { template_id: 1 });
    journal.settle(recording.id, &Submission::Rejected { reason: String::new() });

    // Room returns, and then the transactions.
    fs::create_dir(&inner).unwrap();
    let transactions = pool.source.transactions(solution.template_id);
    for known in [None, transactions] {
        let is_whole = known.is_some();
        let again = journal.record_again(recording.id, solution.clone(), known);
        again.recv_timeout(PATIENCE).unwrap().unwrap();
        assert_eq!(journal.read(recording.id).unwrap().block.is_some(), is_whole);
    }
    assert_eq!((journal.written_count(), journal.failed_count()), (1, 1));
    drop(journal);
    // A crash while an entry was written anew leaves the old one.
    let partial = inner.join(format!("{}.partial", recording.id));
    fs::write(&partial, "torn").unwrap();
    let (journal, recovery) = open(&inner);
    assert_eq!(recovery.pending, [recording.id]);
    assert!(journal.read(recording.id).unwrap().block.is_some() && !partial.exists());
}
