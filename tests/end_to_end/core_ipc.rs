//! The pool on Bitcoin Core's own node, over its mining interface: what became of blocks is asked of `bitcoin-cli`.

use std::time::{Duration, Instant};

use adit_tests::node::{BitcoinNode, SUBSIDY};
use adit_tests::pool::{PAYOUT_ANYONE, Pool};
use adit_tests::process::Program;
use bitcoin::{Amount, Block};

/// Debug builds on two busy cores mine slowly.
const PATIENCE: Duration = Duration::from_secs(120);
/// Every share is a block: one a second from each of two devices.
const ONE_A_SECOND: &str = "vardiff.shares_per_minute = 60.0";

fn start(node: &BitcoinNode) -> Pool {
    let source = format!(
        "template_source.kind = \"core-ipc\"
         template_source.data_dir = \"{}\"
         template_source.template_interval_s = 0.2",
        node.directory().display()
    );
    Pool::start_on(node, &source, ONE_A_SECOND)
}

fn mine(pool: &Pool) -> Program {
    pool.mine(&["--devices", "2", "--kind", "mixed", "--hash-rate-limit", "20000", "--user", "e2e"])
}

fn end(mut miner: Program) -> Vec<String> {
    miner.signal("TERM");
    assert!(miner.wait(PATIENCE).success(), "{:?}", miner.lines());
    miner.lines()
}

/// Checks that a block is the pool's and claims all that it may.
fn check_block(block: &Block, fees: Amount) {
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    let coinbase = block.coinbase().expect("a block has a coinbase");
    assert_eq!(format!("raw({:x})", coinbase.output[0].script_pubkey), PAYOUT_ANYONE);
    assert_eq!(coinbase.output[0].value, SUBSIDY + fees);
    assert_eq!(coinbase.output.len(), 2, "payout and witness commitment");
}

fn wait_for_log(pool: &Pool, text: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while pool.log_lines(text).len() < count {
        assert!(Instant::now() < deadline, "the pool's log has not {count} times {text:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the node has said of every block that was found while it was away what became of it.
fn wait_until_settled(pool: &Pool) {
    let hash = |line: &String| {
        line.split_once("hash=").and_then(|(_, rest)| rest.split(' ').next().map(str::to_owned))
    };
    let waiting: Vec<String> = pool.log_lines("block not submitted yet").iter().filter_map(hash).collect();
    assert!(!waiting.is_empty());
    for hash in waiting {
        let is_settled = |line: &String| {
            ["block accepted", "block stale", "block known already"]
                .iter()
                .any(|outcome| line.contains(outcome))
        };
        let deadline = Instant::now() + PATIENCE;
        while !pool.log_lines(&hash).iter().any(is_settled) {
            assert!(Instant::now() < deadline, "lost: {:?}", pool.log_lines(&hash));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn miners_find_blocks_and_fees_over_ipc() {
    let node = BitcoinNode::start();
    node.fund(3);
    let height = node.rpc.height();
    // Fees of two transactions, one of which follows from the other.
    let parent = node.spend_coinbase(1, Amount::from_sat(11_000));
    let child = node.spend(&parent, Amount::from_sat(500));
    let pool = start(&node);
    // Before any device could be served without them.
    wait_for_log(&pool, "template source up", 1);
    let miner = mine(&pool);
    pool.wait_for_height(height + 4, PATIENCE);
    let late = node.spend_coinbase(2, Amount::from_sat(42_000));
    let sent_at = node.rpc.height();
    pool.wait_for_height(sent_at + 4, PATIENCE);
    let summary = end(miner);
    assert!(summary.iter().any(|line| line.contains("0 outstanding, 0 lost")), "{summary:?}");

    let last: u64 = node.cli(&["getblockcount"]).parse().expect("a height");
    assert_eq!(node.rpc.block(last).block_hash().to_string(), node.cli(&["getbestblockhash"]));
    let mut mined = Vec::new();
    for block in (height + 1..=last).map(|height| node.rpc.block(height)) {
        let fees: u64 = block.txdata[1..]
            .iter()
            .map(|transaction| {
                [(&parent, 11_000), (&child, 500), (&late, 42_000)]
                    .iter()
                    .find(|(sent, _)| *sent == transaction)
                    .expect("sent")
                    .1
            })
            .sum();
        check_block(&block, Amount::from_sat(fees));
        mined.extend(block.txdata.into_iter().skip(1));
    }
    assert_eq!(mined, [parent, child, late]);
    assert_eq!(pool.log_lines("block rejected"), [""; 0]);
    assert!(pool.log_lines("block accepted").len() as u64 >= last - height);
    pool.stop();
}

#[test]
fn a_node_that_goes_and_comes_back_costs_no_connection_and_no_block() {
    let mut node = BitcoinNode::start();
    node.generate(1);
    let pool = start(&node);
    let miner = mine(&pool);
    pool.wait_for_height(4, PATIENCE);

    node.stop();
    wait_for_log(&pool, "template source down", 1);
    // What is found while it is away waits for it.
    wait_for_log(&pool, "block not submitted yet", 1);
    node.restart();
    wait_for_log(&pool, "template source up", 2);
    let height = node.rpc.height();
    pool.wait_for_height(height + 3, PATIENCE);
    wait_until_settled(&pool);

    // A crash, with blocks that it had not written.
    node.kill();
    wait_for_log(&pool, "template source down", 2);
    node.restart();
    wait_for_log(&pool, "template source up", 3);
    let height = node.rpc.height();
    pool.wait_for_height(height + 3, PATIENCE);

    assert_eq!(pool.log_lines(": disconnected after"), [""; 0], "no miner left");
    assert_eq!(pool.log_lines("block rejected"), [""; 0]);
    let summary = end(miner);
    assert!(summary.iter().any(|line| line.contains("0 lost")), "{summary:?}");
    pool.stop();
}
