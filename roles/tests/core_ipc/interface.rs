//! Every version of the interface, and a node that misbehaves.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::TemplateUpdate;
use adit_roles::nodes::core_ipc::{CoreIpcConfig, CoreIpcSource};
use adit_roles::nodes::{SourceUpdate, Submission, TemplateSource, assemble_block};
use bitcoin::Network;
use bitcoin::{Amount, OutPoint, TxOut};

use crate::fake::{Fake, Version};
use crate::support::{PATIENCE, Pool, Wallet, unsigned, wait_until};

const RESERVE: Reserve = Reserve { reserved_weight: 8_000, max_additional_sigops: 400 };

fn config(fake: &Fake) -> CoreIpcConfig {
    CoreIpcConfig {
        template_interval: Duration::from_millis(10),
        answer_max: Duration::from_secs(2),
        ..CoreIpcConfig::new(Network::Regtest, &fake.socket)
    }
}

fn connect(fake: &Fake) -> Pool<CoreIpcSource> {
    let mut pool = Pool::on(CoreIpcSource::start(config(fake)).unwrap());
    pool.want(RESERVE);
    pool
}

fn transactions(count: u64) -> Vec<bitcoin::Transaction> {
    let place = (OutPoint { vout: 7, ..OutPoint::default() }, 0);
    let output = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: Wallet::new().script() };
    (1..=count).map(|sat| unsigned(&[place], vec![output(sat)])).collect()
}

fn reason_of_down<S>(pool: &Pool<S>) -> Option<&str> {
    pool.reports.iter().rev().find_map(|report| match report {
        SourceUpdate::Down { reason } => Some(reason.as_str()),
        _ => None,
    })
}

/// The solution as a whole block, once the source has the transactions.
fn whole(pool: &Pool<CoreIpcSource>, solution: &Solution) -> Arc<[u8]> {
    wait_until("the transactions are read", || pool.source.transactions(solution.template_id).is_some());
    let transactions = pool.source.transactions(solution.template_id).unwrap();
    assemble_block(&solution.header, &solution.coinbase_tx, &solution.merkle_path, &transactions)
        .unwrap()
        .into()
}

#[test]
fn every_version_takes_solutions_and_says_what_became_of_them() {
    for version in [Version::V31, Version::V31_99, Version::Next] {
        let fake = Fake::start(version);
        let mut pool = connect(&fake);
        for _ in 0..3 {
            pool.mine();
        }
        assert_eq!(fake.tip().0, pool.prev_hash());

        // Another block of the height came first.
        let (late, height) = (pool.solve(), pool.height());
        fake.move_tip(height, Digest([9; 32]));
        let stale = Submission::Stale { height, hash: late.digest };
        assert_eq!(pool.submit(Arc::clone(&late)), stale, "{version:?}");
        pool.wait_for(|pool| pool.prev_hash() == [9; 32]);

        // The node's reason for an invalid one.
        fake.state().refusal = Some("bad-cb-amount");
        let greedy = pool.solve();
        let answer = pool.submit(Arc::clone(&greedy));
        let Submission::Rejected { reason } = answer else { panic!("{version:?}: {answer:?}") };
        assert!(reason.starts_with("bad-cb-amount"), "{version:?}: {reason}");
        fake.state().refusal = None;

        pool.wait_for(|pool| pool.prev_hash() == fake.tip().0);
        let solution = pool.solve();
        assert!(matches!(pool.submit(Arc::clone(&solution)), Submission::Accepted { .. }));
        assert_eq!(pool.submit(Arc::clone(&solution)), Submission::Duplicate { hash: solution.digest });
        assert_eq!(fake.state().collisions, 0, "{version:?}: a template was used twice at once");
    }
}

/// A reason can be an error of the node's own, which says nothing of the block.
#[test]
fn a_node_in_trouble_refuses_no_block_for_good() {
    for version in [Version::V31, Version::V31_99, Version::Next] {
        let fake = Fake::start(version);
        let mut pool = connect(&fake);
        let solution = pool.solve();
        let unconfirmed = Submission::Unconfirmed { hash: solution.digest };
        fake.state().trouble = Some("System error while saving block to disk");
        assert_eq!(pool.submit(Arc::clone(&solution)), unconfirmed, "{version:?}");
        fake.state().trouble = None;
        fake.state().refusal = Some("time-too-new");
        let early = pool.submit(Arc::clone(&solution));
        assert!(matches!(early, Submission::Failed { .. }), "{version:?}: {early}");
        fake.state().refusal = None;

        // A node whose tip is below the block is behind: nothing is decided by that.
        let (before, height) = (fake.tip(), pool.height());
        fake.move_tip(height - 2, Digest([9; 32]));
        assert_eq!(pool.submit(Arc::clone(&solution)), unconfirmed, "{version:?}");
        fake.move_tip(height - 1, before);
        let answer = pool.submit(Arc::clone(&solution));
        assert!(matches!(answer, Submission::Accepted { .. }), "{version:?}: {answer}");
    }
}

/// The pool ended before the node's answer came.
#[test]
fn a_block_whose_answer_was_lost_is_accepted_once() {
    for version in [Version::V31, Version::V31_99] {
        let fake = Fake::start(version);
        let mut pool = connect(&fake);
        let solution = pool.solve();
        let block = whole(&pool, &solution);
        assert!(matches!(pool.submit(Arc::clone(&solution)), Submission::Accepted { .. }));
        let mut pool = connect(&fake);
        pool.wait_for(|pool| pool.tip.is_some());
        let submit = || pool.source.submit_block(Arc::clone(&block)).recv_timeout(PATIENCE).unwrap();
        let answer = submit();
        assert!(matches!(answer, Submission::Accepted { height: 101, .. }), "{version:?}: {answer}");
        assert_eq!(submit(), Submission::Duplicate { hash: solution.digest }, "{version:?}");
    }
}

/// A block whose template the node has forgotten, because it was started again.
#[test]
fn whole_blocks_are_taken_as_far_as_a_version_can() {
    for version in [Version::V31, Version::V31_99] {
        let mut fake = Fake::start(version);
        fake.state().mempool = transactions(3);
        fake.state().fees_sat = 6;
        let mut pool = connect(&fake);
        pool.wait_for(|pool| pool.active.as_ref().is_some_and(|active| !active.merkle_path.is_empty()));
        let solution = pool.solve();
        let block = whole(&pool, &solution);
        assert_eq!(block.len() - solution.coinbase_tx.len(), 81 + 3 * transaction_len());

        fake.stop();
        pool.wait_for(|pool| reason_of_down(pool).is_some());
        let away = pool.source.submit_block(Arc::clone(&block)).recv_timeout(PATIENCE).unwrap();
        assert!(matches!(away, Submission::Failed { .. }), "{away:?}");

        // With another mempool, there is no template like it.
        fake.state().mempool.truncate(2);
        fake.restart();
        pool.wait_for(|pool| {
            let path = &pool.active.as_ref().unwrap().merkle_path;
            !path.is_empty() && *path != solution.merkle_path
        });
        let answer = pool.source.submit_block(Arc::clone(&block)).recv_timeout(PATIENCE).unwrap();
        match version {
            Version::V31 => {
                let Submission::NotTaken { reason } = answer else { panic!("{answer:?}") };
                assert!(reason.contains("bitcoin-cli submitblock"), "{reason}");
                // With the same one, there is.
                fake.state().mempool = transactions(3);
                fake.state().fees_sat = 60_000;
                pool.wait_for(|pool| pool.active.as_ref().unwrap().merkle_path == solution.merkle_path);
                let answer = pool.source.submit_block(Arc::clone(&block)).recv_timeout(PATIENCE).unwrap();
                assert!(matches!(answer, Submission::Accepted { height: 101, .. }), "{answer:?}");
                assert_eq!(fake.submitted(), (1, 0));
            }
            _ => {
                assert!(matches!(answer, Submission::Accepted { height: 101, .. }), "{answer:?}");
                assert_eq!(fake.submitted(), (0, 1));
            }
        }
        assert_eq!(fake.tip(), solution.digest);
    }
}

fn transaction_len() -> usize {
    bitcoin::consensus::serialize(&transactions(1)[0]).len()
}

#[test]
fn a_node_that_is_too_old_is_refused_with_a_reason() {
    let fake = Fake::start(Version::V30);
    let mut pool = Pool::on(CoreIpcSource::start(config(&fake)).unwrap());
    pool.wait_for(|pool| reason_of_down(pool).is_some());
    let reason = reason_of_down(&pool).unwrap();
    assert!(reason.contains("makeMining") && reason.contains("Bitcoin Core 31"), "{reason}");
}

#[test]
fn a_node_on_another_chain_is_refused_with_a_reason() {
    let fake = Fake::start(Version::V31_99);
    let config = CoreIpcConfig { network: Network::Bitcoin, ..config(&fake) };
    let mut pool = Pool::on(CoreIpcSource::start(config).unwrap());
    pool.wait_for(|pool| reason_of_down(pool).is_some());
    assert!(reason_of_down(&pool).unwrap().contains("set `chain`"), "{:?}", pool.reports);
}

#[test]
fn a_node_that_downloads_the_chain_is_waited_for() {
    let fake = Fake::start(Version::V31_99);
    fake.state().is_behind = true;
    let config = CoreIpcConfig { network: Network::Testnet4, ..config(&fake) };
    let mut pool = Pool::on(CoreIpcSource::start(config).unwrap());
    pool.source.want(ClassId(7), RESERVE);
    pool.wait_for(|pool| {
        reason_of_down(pool).is_some_and(|reason| reason.contains("initial block download"))
    });
    assert!(pool.templates.is_empty());
    fake.state().is_behind = false;
    pool.wait_for(|pool| pool.tip.is_some());
    let told: Vec<_> =
        pool.reports.iter().filter(|report| !matches!(report, SourceUpdate::Template { .. })).collect();
    assert!(matches!(told[..], [SourceUpdate::Down { .. }, SourceUpdate::Up]), "{told:?}");
}

#[test]
fn a_missing_node_is_told_with_the_remedy_and_found_when_it_comes() {
    let mut fake = Fake::start(Version::V31_99);
    fake.stop();
    std::fs::remove_file(&fake.socket).unwrap();
    let mut pool = Pool::on(CoreIpcSource::start(config(&fake)).unwrap());
    pool.source.want(ClassId(7), RESERVE);
    pool.wait_for(|pool| reason_of_down(pool).is_some());
    let reason = reason_of_down(&pool).unwrap();
    assert!(reason.contains("node.sock") && reason.contains("-ipcbind=unix"), "{reason}");
    let answer = pool.source.submit_block([0; 100][..].into()).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(answer, Submission::Failed { .. }), "{answer:?}");
    fake.restart();
    pool.wait_for(|pool| pool.tip.is_some());
    pool.mine();
}

/// Each time it is up, every miner gets new work.
#[test]
fn a_node_that_fails_as_soon_as_it_is_up_is_left_alone_longer_each_time() {
    let fake = Fake::start(Version::V31_99);
    // No target: its first template is none.
    fake.state().nbits = 0;
    let begun = Instant::now();
    let pool = Pool::on(CoreIpcSource::start(config(&fake)).unwrap());
    pool.source.want(ClassId(7), RESERVE);
    wait_until("it is connected again and again", || fake.state().connections >= 6);
    // At least three quarters of 100, 200, 400, 800 and 1,600 ms.
    assert!(begun.elapsed() >= Duration::from_millis(2_325), "{:?}", begun.elapsed());
}

/// What a socket says to everybody who connects, and what the source makes of it.
fn reason_at_a_socket_that_says(greeting: &'static [u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("node.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        // Held open until the test ends.
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.write_all(greeting).unwrap();
            open.push(stream);
        }
    });
    let config = CoreIpcConfig {
        answer_max: Duration::from_millis(300),
        ..CoreIpcConfig::new(Network::Regtest, socket)
    };
    let mut pool = Pool::on(CoreIpcSource::start(config).unwrap());
    pool.wait_for(|pool| reason_of_down(pool).is_some());
    reason_of_down(&pool).unwrap().to_owned()
}

#[test]
fn strangers_at_the_socket_are_left() {
    let silent = reason_at_a_socket_that_says(b"");
    assert!(silent.contains("no answer to Init.construct"), "{silent}");
    // One segment of eight gigabytes, and half a billion segments: refused before anything is stored.
    let heavy = reason_at_a_socket_that_says(&[0, 0, 0, 0, 0, 0, 0, 0x40]);
    assert!(heavy.contains("too large"), "{heavy}");
    let many = reason_at_a_socket_that_says(&[0xff, 0xff, 0xff, 0x1f, 0, 0, 0, 0]);
    assert!(many.contains("Too many segments"), "{many}");
    let other = reason_at_a_socket_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(other.contains("node.sock"), "{other}");
}

#[test]
fn a_node_that_does_not_answer_is_noticed_and_holds_up_no_stop() {
    let fake = Fake::start(Version::V31_99);
    let mut pool = connect(&fake);
    let solution = pool.solve();
    fake.state().is_silent = true;
    pool.wait_for(|pool| reason_of_down(pool).is_some());
    assert!(reason_of_down(&pool).unwrap().contains("no answer to"), "{:?}", pool.reports);
    // What is submitted meanwhile is not swallowed.
    let answer = pool.submit(solution);
    assert!(matches!(answer, Submission::Failed { .. }), "{answer:?}");
    fake.state().is_silent = false;
    pool.tip = None;
    pool.wait_for(|pool| pool.tip.is_some());
    pool.mine();

    fake.state().is_silent = true;
    let begun = Instant::now();
    Box::new(pool.source).shutdown();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_template_follows_fees_that_rise_enough_and_others_are_freed() {
    let fake = Fake::start(Version::V31_99);
    let config = CoreIpcConfig { fee_delta_sat: 500, ..config(&fake) };
    let mut pool = Pool::on(CoreIpcSource::start(config).unwrap());
    pool.want(RESERVE);
    let value = |pool: &Pool<CoreIpcSource>| {
        pool.active.as_ref().unwrap().coinbase_tx_value_remaining - 5_000_000_000
    };
    fake.state().mempool = transactions(1);
    fake.state().fees_sat = 600;
    pool.wait_for(|pool| value(pool) == 600);
    assert!(!pool.active.as_ref().unwrap().future_template);
    // Too little, for as long as the node is asked three times.
    fake.state().fees_sat = 1_099;
    let (announced, made) = (pool.templates.len(), fake.state().templates_made);
    wait_until("the node is asked", || fake.state().templates_made >= made + 3);
    pool.poll();
    assert_eq!(pool.templates.len(), announced);
    fake.state().fees_sat = 1_100;
    pool.wait_for(|pool| value(pool) == 1_100);
    // The target eased with time, as on chains for tests.
    fake.state().nbits = 0x207f_fffe;
    pool.wait_for(|pool| pool.tip.as_ref().unwrap().nbits == 0x207f_fffe);
    assert!(pool.active.as_ref().unwrap().future_template);
    // What was announced for the tip is held, what was only looked at is not; one may be on its way.
    let held = pool.templates.len();
    wait_until("the node is asked on", || fake.state().templates_made > held + 3);
    wait_until("templates are freed", || fake.state().templates_alive <= held + 1);
    pool.source.unwant(ClassId(7));
    wait_until("nothing more is made", || fake.state().templates_alive <= held);
    assert_eq!(fake.state().collisions, 0);
}

#[test]
fn a_tip_does_not_wait_for_a_full_template_that_was_quick_before() {
    let fake = Fake::start(Version::V31_99);
    fake.state().mempool = transactions(2);
    let mut pool = connect(&fake);
    let has_path = |pool: &Pool<CoreIpcSource>| {
        pool.active.as_ref().is_some_and(|active| !active.merkle_path.is_empty())
    };
    pool.wait_for(has_path);
    // At some tip a full template comes within 5 ms, and is the first.
    for height in 101..200 {
        fake.move_tip(height, Digest([height as u8; 32]));
        pool.wait_for(|pool| pool.prev_hash() == fake.tip().0);
        if has_path(&pool) {
            break;
        }
        pool.wait_for(has_path);
    }
    // The next one comes never.
    fake.state().is_slow = true;
    fake.move_tip(300, Digest([77; 32]));
    pool.wait_for(|pool| pool.prev_hash() == [77; 32]);
    assert!(!has_path(&pool));
}

#[test]
fn classes_are_served_side_by_side_and_refused_by_themselves() {
    let fake = Fake::start(Version::V31_99);
    fake.state().exception = Some("block_reserved_weight: too large");
    let source = CoreIpcSource::start(config(&fake)).unwrap();
    let updates = source.updates();
    let mut seen = Vec::new();
    let mut wait_for = |of: u64, what: fn(&SourceUpdate) -> bool| {
        let is_it = |update: &SourceUpdate| match update {
            SourceUpdate::Template { class, .. } | SourceUpdate::Refused { class, .. } => {
                class.0 == of && what(update)
            }
            _ => false,
        };
        while !seen.iter().any(is_it) {
            seen.push(updates.recv_timeout(PATIENCE).unwrap());
        }
        seen.clear();
    };
    let is_refused = |update: &SourceUpdate| matches!(update, SourceUpdate::Refused { .. });
    let is_tip = |update: &SourceUpdate| {
        matches!(update, SourceUpdate::Template { update: TemplateUpdate::SetNewPrevHash(_), .. })
    };
    source.want(ClassId(1), RESERVE);
    wait_for(1, is_tip);
    wait_for(1, is_refused);
    source.want(ClassId(2), Reserve { reserved_weight: 5_000_000, ..RESERVE });
    wait_for(2, is_refused);
    fake.state().exception = None;
    source.want(ClassId(3), Reserve { reserved_weight: 2_000, max_additional_sigops: 0 });
    wait_for(3, is_tip);
    // At a new tip everybody is served again.
    fake.move_tip(101, Digest([2; 32]));
    wait_for(1, is_tip);
    fake.move_tip(102, Digest([3; 32]));
    wait_for(3, is_tip);
    Box::new(source).shutdown();
}
