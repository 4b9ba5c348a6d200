//! The pool on Bitcoin Core's own node, over JSON-RPC: what became of blocks is asked of `bitcoin-cli`.

use std::time::Duration;

use adit_tests::node::{BitcoinNode, SUBSIDY};
use adit_tests::pool::Pool;
use adit_tests::process::Program;
use bitcoin::{Amount, Block};

/// Debug builds on two busy cores mine slowly.
const PATIENCE: Duration = Duration::from_secs(120);
/// OP_TRUE, as the pool's configuration says.
const PAYOUT_SCRIPT: [u8; 1] = [0x51];

/// The template source's settings, with the node's cookie.
fn by_cookie(node: &BitcoinNode) -> String {
    format!(
        "template_source.kind = \"core-rpc\"
         template_source.address = \"{}\"
         template_source.cookie_file = \"{}\"
         template_source.template_interval_s = 0.2",
        node.rpc_address(),
        node.cookie_file().display()
    )
}

/// The same, with user and password.
fn by_password(node: &BitcoinNode, password: &str) -> String {
    format!(
        "template_source.kind = \"core-rpc\"
         template_source.address = \"{}\"
         template_source.rpc_user = \"adit\"
         template_source.rpc_password = \"{password}\"",
        node.rpc_address()
    )
}

/// Every share is a block: one a second from each of two devices.
const ONE_A_SECOND: &str = "vardiff.shares_per_minute = 60.0";

fn mine(pool: &Pool) -> Program {
    pool.mine(&["--devices", "2", "--kind", "mixed", "--hash-rate-limit", "20000", "--user", "e2e"])
}

fn tip_by_cli(node: &BitcoinNode) -> (u64, String) {
    let height = node.cli(&["getblockcount"]).parse().expect("a height");
    (height, node.cli(&["getbestblockhash"]))
}

/// Checks that a block is the pool's and claims all that it may.
fn check_block(block: &Block, fees: Amount) {
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    let coinbase = block.coinbase().expect("a block has a coinbase");
    assert_eq!(coinbase.output[0].script_pubkey.as_bytes(), PAYOUT_SCRIPT);
    assert_eq!(coinbase.output[0].value, SUBSIDY + fees);
    assert_eq!(coinbase.output.len(), 2, "payout and witness commitment");
}

fn end(mut miner: Program) -> Vec<String> {
    miner.signal("TERM");
    assert!(miner.wait(PATIENCE).success(), "{:?}", miner.lines());
    miner.lines()
}

#[test]
fn miners_find_blocks_and_fees_on_bitcoin_core() {
    let node = BitcoinNode::start();
    node.fund(3);
    let start = node.rpc.height();
    // Fees of three transactions, two of which follow from one another.
    let parent = node.spend_coinbase(1, Amount::from_sat(11_000));
    node.spend(&parent, Amount::from_sat(500));
    node.spend_coinbase(2, Amount::from_sat(7_000));
    let fees = Amount::from_sat(11_000 + 500 + 7_000);

    let pool = Pool::start_on(&node, &by_cookie(&node), ONE_A_SECOND);
    let miner = mine(&pool);
    pool.wait_for_height(start + 4, PATIENCE);
    let late = node.spend_coinbase(3, Amount::from_sat(42_000));
    let sent_at = node.rpc.height();
    pool.wait_for_height(sent_at + 4, PATIENCE);
    let summary = end(miner);
    assert!(summary.iter().any(|line| line.contains("0 outstanding, 0 lost")), "{summary:?}");

    let (height, tip) = tip_by_cli(&node);
    assert_eq!(node.rpc.block(height).block_hash().to_string(), tip);
    let first = node.rpc.block(start + 1);
    assert_eq!(first.txdata.len(), 4, "what waits is in the first block");
    check_block(&first, fees);
    let blocks: Vec<Block> = (start + 2..=height).map(|height| node.rpc.block(height)).collect();
    let holding = blocks.iter().find(|block| block.txdata.len() > 1).expect("the late transaction is mined");
    assert_eq!(holding.txdata[1], late);
    for block in &blocks {
        check_block(block, if block.txdata.len() > 1 { Amount::from_sat(42_000) } else { Amount::ZERO });
    }
    // The node's view of the coinbase.
    let seen = node.cli(&["getblockstats", &(start + 1).to_string(), "[\"totalfee\",\"subsidy\"]"]);
    assert!(seen.contains("18500") && seen.contains("5000000000"), "{seen}");
    assert_eq!(pool.log_lines("block rejected"), [""; 0]);
    assert!(pool.log_lines("block accepted").len() as u64 >= height - start);
    pool.stop();
}

#[test]
fn a_node_that_restarts_costs_no_connection() {
    let mut node = BitcoinNode::start();
    node.generate(1);
    let pool = Pool::start_on(&node, &by_cookie(&node), ONE_A_SECOND);
    let miner = mine(&pool);
    pool.wait_for_height(4, PATIENCE);

    // A new start makes a new cookie.
    node.stop();
    wait_for_log(&pool, "template source down", 1);
    node.restart();
    wait_for_log(&pool, "template source up", 2);
    let height = node.rpc.height();
    pool.wait_for_height(height + 3, PATIENCE);

    node.flush();
    node.kill();
    wait_for_log(&pool, "template source down", 2);
    node.restart();
    wait_for_log(&pool, "template source up", 3);
    let height = node.rpc.height();
    pool.wait_for_height(height + 3, PATIENCE);

    assert_eq!(pool.log_lines(" disconnected"), [""; 0], "no miner left");
    let summary = end(miner);
    assert!(summary.iter().any(|line| line.contains("0 lost")), "{summary:?}");
    pool.stop();
}

#[test]
fn a_crash_that_loses_blocks_does_not_stop_mining() {
    let mut node = BitcoinNode::start();
    node.generate(1);
    let pool = Pool::start_on(&node, &by_cookie(&node), ONE_A_SECOND);
    let miner = mine(&pool);
    pool.wait_for_height(5, PATIENCE);
    // Bitcoin Core writes its index seldom: these blocks are gone.
    node.kill();
    wait_for_log(&pool, "template source down", 1);
    node.restart();
    assert!(node.rpc.height() < 5);
    wait_for_log(&pool, "template source up", 2);
    pool.wait_for_height(6, PATIENCE);
    end(miner);
    pool.stop();
}

#[test]
fn blocks_that_a_crash_of_the_node_loses_are_given_back() {
    let mut node = BitcoinNode::start();
    node.generate(1);
    node.flush();
    let pool = Pool::start_on(&node, &by_cookie(&node), ONE_A_SECOND);
    let miner = mine(&pool);
    pool.wait_for_height(5, PATIENCE);
    end(miner);
    let (height, tip) = tip_by_cli(&node);
    wait_for_log(&pool, "block accepted", usize::try_from(height - 1).expect("heights are small"));
    // No other node has them.
    node.kill();
    wait_for_log(&pool, "template source down", 1);
    node.restart();
    let ours = usize::try_from(height - 1).expect("heights are small");
    wait_for_log(&pool, "a block of ours left the best chain: it is offered again", ours);
    pool.wait_for_height(height, PATIENCE);
    assert_eq!(tip_by_cli(&node), (height, tip), "the same blocks");
    let miner = mine(&pool);
    pool.wait_for_height(height + 1, PATIENCE);
    end(miner);
    pool.stop();
}

#[test]
fn a_reorganisation_is_followed() {
    let (node, other) = (BitcoinNode::start(), BitcoinNode::start_listening());
    node.generate(1);
    node.connect(&other);
    node.wait_for_tip_of(&other);
    node.disconnect(&other);
    let pool = Pool::start_on(&node, &by_cookie(&node), ONE_A_SECOND);
    let miner = mine(&pool);
    pool.wait_for_height(3, PATIENCE);
    end(miner);
    let (height, lost) = tip_by_cli(&node);

    other.generate(usize::try_from(height).expect("heights are small") + 5);
    node.connect(&other);
    node.wait_for_tip_of(&other);
    let (longer, tip) = tip_by_cli(&node);
    assert!(longer > height);
    wait_for_log(&pool, "block left the best chain", usize::try_from(height - 1).expect("heights are small"));
    assert!(pool.log_lines("block left the best chain").iter().any(|line| line.contains(&lost)));
    let miner = mine(&pool);
    pool.wait_for_height(longer + 2, PATIENCE);
    end(miner);
    let next = node.rpc.block(longer + 1);
    assert_eq!(next.header.prev_blockhash.to_string(), tip);
    check_block(&next, Amount::ZERO);
    pool.stop();
}

#[test]
fn a_block_from_elsewhere_moves_the_miners_at_once() {
    let node = BitcoinNode::start();
    node.generate(1);
    // Hard shares: the chain moves by the node alone.
    let pool = Pool::start_on(&node, &by_password(&node, "adit"), "vardiff.shares_per_minute = 6.0");
    let tip = node.generate(1)[0].to_string();
    wait_for_log(&pool, &tip, 1);
    pool.stop();
}

#[test]
fn a_wrong_password_and_a_wrong_chain_are_named_and_mended_while_the_pool_runs() {
    let mut node = BitcoinNode::start();
    node.generate(1);
    let wrong = Pool::start_on(&node, &by_password(&node, "guess"), "");
    wait_for_log(&wrong, "refuses this user and password: set rpc_user and rpc_password", 1);
    wrong.stop();

    // A chain of another kind, with a payout that belongs to it.
    let settings = "template_source.chain = \"main\"";
    let wrong = Pool::start_on(&node, &by_cookie(&node), settings);
    wait_for_log(&wrong, "is on the chain regtest, but the pool mines main", 1);
    wrong.stop();

    // A node that comes later than the pool.
    let source = by_cookie(&node);
    node.stop();
    let pool = Pool::start_on(&node, &source, ONE_A_SECOND);
    wait_for_log(&pool, "template source down", 1);
    node.restart();
    let miner = mine(&pool);
    pool.wait_for_height(3, PATIENCE);
    end(miner);
    pool.stop();
}

fn wait_for_log(pool: &Pool, text: &str, count: usize) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while pool.log_lines(text).len() < count {
        assert!(std::time::Instant::now() < deadline, "the pool's log has not {count} times {text:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
