//! The embedded node accepts what a pool mines from its templates, refuses what is wrong, and outlives restarts.
//!
//! Whether a block was really accepted is asked of Bitcoin Core's library on the closed data directory, not of the node.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;
use adit_roles::nodes::embedded::Chain;
use adit_roles::nodes::{SourceUpdate, Submission, TemplateSource};
use bitcoin::hashes::Hash;
use support::{Pool, blocks_on_disk, coinbase, quick_config, solve};

fn hash_of(block: &bitcoin::Block) -> [u8; 32] {
    block.block_hash().to_byte_array()
}

#[test]
fn regtest_blocks_are_accepted_and_a_restart_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut pool = Pool::at(Chain::Regtest, directory.path());
    let mut rewards = Vec::new();
    for height in 1..=152 {
        assert_eq!(pool.height(), height);
        rewards.push(pool.mine().1);
    }
    // The halving at 150 shows in the templates.
    assert_eq!((rewards[148], rewards[149]), (5_000_000_000, 2_500_000_000));
    let last_id = pool.templates.last().unwrap().template_id;
    let tip = pool.prev_hash();
    pool.wait_for(|pool| {
        let connected = |update: &&SourceUpdate| matches!(update, SourceUpdate::BlockConnected { .. });
        pool.reports.iter().filter(connected).count() == 152
    });
    drop(pool);

    let blocks = blocks_on_disk(Chain::Regtest, directory.path());
    assert_eq!(blocks.len(), 153);
    assert_eq!(hash_of(&blocks[152]), tip);
    let found: Vec<u64> = blocks[1..].iter().map(|block| block.txdata[0].output[0].value.to_sat()).collect();
    assert_eq!(found, rewards);

    let mut pool = Pool::at(Chain::Regtest, directory.path());
    assert_eq!(pool.prev_hash(), tip);
    assert_eq!(pool.height(), 153);
    assert!(pool.templates[0].template_id > last_id, "template ids rise across restarts");
    pool.mine();
    Box::new(pool.source).shutdown();
    assert_eq!(blocks_on_disk(Chain::Regtest, directory.path()).len(), 154);
}

#[test]
fn signet_blocks_are_mined_for_real() {
    let directory = tempfile::tempdir().unwrap();
    let mut pool = Pool::at(Chain::Signet, directory.path());
    assert_eq!(pool.tip.as_ref().unwrap().nbits, 0x1e03_77ae);
    assert!(pool.tip.as_ref().unwrap().target < adit_hasher::Target::from_difficulty(0.001));
    let hashes = [(); 2].map(|()| {
        pool.mine();
        pool.prev_hash()
    });
    drop(pool);
    let blocks = blocks_on_disk(Chain::Signet, directory.path());
    assert_eq!(blocks[1..].iter().map(hash_of).collect::<Vec<_>>(), hashes);
}

#[test]
fn bad_solutions_are_refused_with_their_reason_and_mining_goes_on() {
    let mut pool = Pool::start(quick_config(Chain::Regtest));
    pool.mine();
    let (template, tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
    let good = pool.solve();
    let reason = |submission: Submission| match submission {
        Submission::Rejected { reason } => reason,
        other => panic!("{other:?}"),
    };

    let unknown = Solution { template_id: 1, ..(*good).clone() };
    assert_eq!(pool.submit(Arc::new(unknown)), Submission::UnknownTemplate { template_id: 1 });

    // Another coinbase than the header commits to, a path that is not the template's, no coinbase at all.
    let mut other = (*good).clone();
    other.coinbase_tx = pool.solve().coinbase_tx.clone();
    assert!(reason(pool.submit(Arc::new(other))).starts_with("bad-txnmrklroot"));
    let other = Solution { merkle_path: vec![[7; 32]], ..(*good).clone() };
    assert!(reason(pool.submit(Arc::new(other))).starts_with("bad-txnmrklroot"));
    let torn = Solution { coinbase_tx: good.coinbase_tx[..50].to_vec(), ..(*good).clone() };
    assert!(reason(pool.submit(Arc::new(torn))).starts_with("bad-coinbase"));

    // A header that does not meet the target.
    let mut weak = (*good).clone();
    while tip.target.is_met_by(&Digest::of(&weak.header)) {
        weak.header[76] = weak.header[76].wrapping_add(1);
    }
    let refused = reason(pool.submit(Arc::new(weak)));
    assert!(refused.starts_with("high-hash") && refused.contains("InvalidHeader"), "{refused}");

    // A coinbase that takes too much passes the first checks and fails when it is connected.
    let value = template.coinbase_tx_value_remaining + 1;
    let greedy = solve(&template, &tip, &coinbase(&template, &pool.payout, value, 1 << 40));
    let refused = reason(pool.submit(Arc::new(greedy)));
    assert!(refused.starts_with("bad-cb-amount") && refused.contains("Consensus"), "{refused}");

    // One without the witness commitment's output is not the template's coinbase, yet a block without witnesses is good
    // without it: so the height decides here.
    let mut low = coinbase(&template, &pool.payout, value - 1, 1 << 41);
    low.input[0].script_sig = bitcoin::ScriptBuf::from_bytes(vec![0x51, 0x51]);
    let refused = reason(pool.submit(Arc::new(solve(&template, &tip, &low))));
    assert!(refused.starts_with("bad-cb-height"), "{refused}");

    assert!(matches!(pool.submit(good.clone()), Submission::Accepted { height: 2, .. }));
    assert_eq!(pool.submit(good.clone()), Submission::Duplicate { hash: good.digest });
    pool.wait_for(|pool| pool.prev_hash() == good.digest.0);
    pool.mine();
}

#[test]
fn the_second_block_of_a_height_is_stale_and_can_still_win() {
    let directory = tempfile::tempdir().unwrap();
    let mut pool = Pool::at(Chain::Regtest, directory.path());
    pool.mine();
    let (template, tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
    let (first, second) = (pool.solve_for(&template, &tip), pool.solve_for(&template, &tip));
    // Both are on their way before either is answered.
    let answers = [first.clone(), second.clone()].map(|solution| pool.source.submit(solution));
    let answers = answers.map(|answer| answer.recv_timeout(support::PATIENCE).unwrap());
    assert!(matches!(answers[0], Submission::Accepted { height: 2, .. }), "{answers:?}");
    assert_eq!(answers[1], Submission::Stale { height: 2, hash: second.digest });
    pool.wait_for(|pool| pool.prev_hash() == first.digest.0);

    // A block on top of the stale one makes its branch the longer.
    let mut on_second = (**pool.tip.as_ref().unwrap()).clone();
    on_second.prev_hash = second.digest.0;
    let template = pool.active.clone().unwrap();
    let third = pool.solve_for(&template, &on_second);
    assert!(matches!(pool.submit(third.clone()), Submission::Accepted { height: 3, .. }));
    pool.wait_for(|pool| pool.prev_hash() == third.digest.0 && pool.height() == 4);
    pool.wait_for(|pool| {
        let connected = |hash| {
            let is = |update: &SourceUpdate| matches!(update, SourceUpdate::BlockConnected { hash: of, .. } if *of == hash);
            pool.reports.iter().any(is)
        };
        connected(second.digest) && connected(third.digest)
    });
    let left: Vec<Digest> = pool
        .reports
        .iter()
        .filter_map(|update| match update {
            SourceUpdate::BlockDisconnected { height: 2, hash } => Some(*hash),
            _ => None,
        })
        .collect();
    assert_eq!(left, [first.digest]);
    pool.mine();
    drop(pool);
    let blocks = blocks_on_disk(Chain::Regtest, directory.path());
    assert_eq!(hash_of(&blocks[2]), second.digest.0);
    assert_eq!(blocks.len(), 5);
}

#[test]
fn a_whole_block_is_taken_without_its_template() {
    let mut pool = Pool::start(quick_config(Chain::Regtest));
    let solution = pool.solve();
    let transactions = pool.source.transactions(solution.template_id).unwrap();
    let block = adit_roles::nodes::assemble_block(
        &solution.header,
        &solution.coinbase_tx,
        &solution.merkle_path,
        &transactions,
    );
    let block: Arc<[u8]> = block.unwrap().into();
    let answer =
        |block: &Arc<[u8]>| pool.source.submit_block(block.clone()).recv_timeout(support::PATIENCE).unwrap();
    assert!(matches!(answer(&block), Submission::Accepted { height: 1, .. }));
    assert_eq!(answer(&block), Submission::Duplicate { hash: solution.digest });
    let refused = answer(&block[..100].into());
    assert_eq!(refused, Submission::Rejected { reason: "the block does not decode".to_owned() });
}

#[test]
fn the_next_template_is_announced_in_advance() {
    let mut config = quick_config(Chain::Regtest);
    config.prepare_next = true;
    let mut pool = Pool::start(config);
    for height in 1..=5 {
        // The newest template is a future one for the height after.
        pool.wait_for(|pool| pool.templates.last().unwrap().coinbase_tx_locktime == height);
        assert_eq!(pool.height(), height);
        let prepared = pool.templates.last().unwrap().template_id;
        pool.mine();
        assert_eq!(pool.tip.as_ref().unwrap().template_id, prepared);
    }
}

#[test]
fn a_data_directory_belongs_to_one_node() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Pool::at(Chain::Regtest, directory.path());
    let mut config = quick_config(Chain::Regtest);
    config.data_dir = Some(directory.path().to_owned());
    let refused = adit_roles::nodes::embedded::EmbeddedNode::start(config).unwrap_err().to_string();
    assert!(refused.contains("another process uses the chain"), "{refused}");
    assert_eq!(pool.source.name(), "embedded regtest");
}

/// Copies a directory with all below it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let target = to.join(entry.file_name().unwrap());
        if kind.is_dir() {
            copy(&entry, &target);
        } else {
            fs::copy(&entry, &target).unwrap();
        }
    }
}

#[test]
fn a_crash_costs_no_block() {
    let (directory, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut pool = Pool::at(Chain::Regtest, directory.path());
    for _ in 0..30 {
        pool.mine();
    }
    // What a killed process leaves: the files as they are while the node runs.
    copy(directory.path(), image.path());
    let mut revived = Pool::at(Chain::Regtest, image.path());
    assert_eq!((revived.prev_hash(), revived.height()), (pool.prev_hash(), 31));
    revived.mine();
    drop(revived);
    assert_eq!(blocks_on_disk(Chain::Regtest, image.path()).len(), 32);
    // Closed in order, the chain opens as it is.
    assert!(!image.path().join("regtest/open").exists());
    assert_eq!(Pool::at(Chain::Regtest, image.path()).height(), 32);
}
