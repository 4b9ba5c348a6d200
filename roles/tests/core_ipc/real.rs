//! Bitcoin Core's own node decides what is a block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::distribution::Reserve;
use adit_proto::mining::server::Solution;
use adit_roles::nodes::core_ipc::{CoreIpcConfig, CoreIpcSource};
use adit_roles::nodes::{SourceUpdate, Submission, TemplateSource, TemplateTransactions, assemble_block};
use adit_tests::node::{BitcoinNode, SUBSIDY, spendable, spendable_witness};
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_RETURN};
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxOut, Weight};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Pool, coinbase, solve, unsigned, wait_until};

const RESERVE: Reserve = Reserve { reserved_weight: 8_000, max_additional_sigops: 400 };
const FEE: Amount = Amount::from_sat(12_345);

fn connect(node: &BitcoinNode) -> Pool<CoreIpcSource> {
    let config = CoreIpcConfig {
        template_interval: Duration::from_millis(100),
        fee_delta_sat: 1,
        answer_max: Duration::from_secs(5),
        ..CoreIpcConfig::new(Network::Regtest, node.ipc_socket())
    };
    let mut pool = Pool::on(CoreIpcSource::start(config).unwrap());
    pool.want(RESERVE);
    pool
}

fn value(pool: &Pool<CoreIpcSource>) -> Amount {
    Amount::from_sat(pool.active.as_ref().map_or(0, |template| template.coinbase_tx_value_remaining))
}

fn downs(pool: &Pool<CoreIpcSource>) -> usize {
    pool.reports.iter().filter(|report| matches!(report, SourceUpdate::Down { .. })).count()
}

/// Waits until the node's tip is announced.
fn wait_for_tip(pool: &mut Pool<CoreIpcSource>, node: &BitcoinNode) {
    let tip = node.rpc.call("getbestblockhash", &[]);
    pool.wait_for(|pool| pool.tip.as_ref().is_some_and(|at| tip == json!(Digest(at.prev_hash).to_string())));
}

fn send(node: &BitcoinNode, transaction: &Transaction) {
    let sent =
        node.rpc.call("sendrawtransaction", &[json!(serialize_hex(transaction)), json!(0), json!(1_000)]);
    assert_eq!(sent, json!(transaction.compute_txid().to_string()));
}

/// Outputs that anyone may spend, one for each of the first blocks.
fn coins(node: &BitcoinNode, count: u64) -> Vec<(OutPoint, u64)> {
    node.fund(count);
    let coin = |height| {
        let coinbase = &node.rpc.block(height).txdata[0];
        (OutPoint { txid: coinbase.compute_txid(), vout: 0 }, coinbase.output[0].value.to_sat())
    };
    (1..=count).map(coin).collect()
}

fn spend(coin: (OutPoint, u64), output: Vec<TxOut>) -> Transaction {
    let mut transaction = unsigned(&[coin], output);
    transaction.input[0].witness = spendable_witness();
    transaction
}

#[test]
fn blocks_of_the_mempool_are_mined_and_told_truly() {
    let node = BitcoinNode::start();
    node.fund(2);
    let mut pool = connect(&node);
    wait_for_tip(&mut pool, &node);
    let spent = node.spend_coinbase(1, FEE);
    pool.wait_for(|pool| value(pool) == SUBSIDY + FEE);
    let height = pool.height();
    pool.mine();
    assert_eq!(node.cli(&["getblockcount"]), height.to_string());
    let block = node.rpc.block(height.into());
    assert_eq!(node.cli(&["getbestblockhash"]), block.block_hash().to_string());
    assert_eq!((block.txdata.len(), &block.txdata[1]), (2, &spent));
    assert_eq!(block.txdata[0].output[0].value, SUBSIDY + FEE);
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    let is_told = |report: &SourceUpdate| {
        matches!(report, SourceUpdate::BlockConnected { height: of, reward_sat: Some(sat), .. }
            if *of == height && *sat == (SUBSIDY + FEE).to_sat())
    };
    pool.wait_for(|pool| pool.reports.iter().any(is_told));

    // More than the block makes.
    let (template, tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
    let greedy = coinbase(&template, &spendable(), template.coinbase_tx_value_remaining + 1, 1);
    let answer = pool.submit(Arc::new(solve(&template, &tip, &greedy)));
    let Submission::Rejected { reason } = answer else { panic!("{answer:?}") };
    assert!(reason.starts_with("bad-cb-amount"), "{reason}");

    // Somebody else was first.
    let (late, again) = (pool.solve(), pool.height());
    node.generate(1);
    assert_eq!(pool.submit(Arc::clone(&late)), Submission::Stale { height: again, hash: late.digest });
    wait_for_tip(&mut pool, &node);
    let solution = pool.solve();
    assert!(matches!(pool.submit(Arc::clone(&solution)), Submission::Accepted { .. }));
    assert_eq!(pool.submit(Arc::clone(&solution)), Submission::Duplicate { hash: solution.digest });
    assert_eq!(downs(&pool), 0, "{:?}", pool.reports);
}

#[test]
fn a_crash_of_the_node_loses_no_solution() {
    let mut node = BitcoinNode::start();
    node.fund(1);
    // A crash costs the node what it has not written; what it had at an orderly end, it keeps.
    node.stop();
    node.restart();
    let mut pool = connect(&node);
    wait_for_tip(&mut pool, &node);
    node.spend_coinbase(1, FEE);
    pool.wait_for(|pool| value(pool) == SUBSIDY + FEE);
    let (solution, height) = (pool.solve(), pool.height());
    wait_until("the transactions are read", || pool.source.transactions(solution.template_id).is_some());
    let transactions = pool.source.transactions(solution.template_id).unwrap();
    assert_eq!(transactions.len(), 1);
    let Solution { header, coinbase_tx, merkle_path, .. } = &*solution;
    let block: Arc<[u8]> = assemble_block(header, coinbase_tx, merkle_path, &transactions).unwrap().into();

    node.kill();
    pool.wait_for(|pool| downs(pool) > 0);
    let away = pool.submit(Arc::clone(&solution));
    assert!(matches!(away, Submission::Failed { .. } | Submission::Unconfirmed { .. }), "{away:?}");
    // Twice: the second crash costs the node the block that it had taken.
    for crashes in 1..=2 {
        node.restart();
        pool.tip = None;
        pool.wait_for(|pool| pool.tip.is_some());
        assert_eq!(pool.height(), height);
        let answer = pool.source.submit_block(Arc::clone(&block)).recv_timeout(PATIENCE).unwrap();
        let reward_sat = (SUBSIDY + FEE).to_sat();
        assert_eq!(answer, Submission::Accepted { height, hash: solution.digest, reward_sat });
        assert_eq!(node.cli(&["getbestblockhash"]), solution.digest.to_string());
        wait_for_tip(&mut pool, &node);
        if crashes == 1 {
            let before = downs(&pool);
            node.kill();
            pool.wait_for(|pool| downs(pool) > before);
        }
    }

    let (before, next) = (downs(&pool), pool.height());
    node.stop();
    pool.wait_for(|pool| downs(pool) > before);
    node.restart();
    pool.tip = None;
    pool.wait_for(|pool| pool.tip.is_some());
    pool.mine();
    assert_eq!(node.cli(&["getblockcount"]), next.to_string());
}

#[test]
fn a_node_that_lost_its_chain_rejects_no_block_for_good() {
    let mut node = BitcoinNode::start();
    node.generate(3);
    let mut pool = connect(&node);
    wait_for_tip(&mut pool, &node);
    let solution = pool.solve();
    let Solution { header, coinbase_tx, .. } = &*solution;
    let block = assemble_block(header, coinbase_tx, &[], &TemplateTransactions::default()).unwrap();
    // Nothing of the chain was written yet.
    node.kill();
    pool.wait_for(|pool| downs(pool) > 0);
    node.restart();
    pool.wait_for(|pool| pool.height() == 1);
    let answer = pool.source.submit_block(block.into()).recv_timeout(PATIENCE).unwrap();
    let Submission::Failed { reason } = answer else { panic!("{answer:?}") };
    assert!(reason.contains("does not know the block's parent"), "{reason}");
}

#[test]
fn a_node_that_hangs_is_noticed_and_used_again_when_it_goes_on() {
    let node = BitcoinNode::start();
    node.generate(1);
    let mut pool = connect(&node);
    node.program.signal("STOP");
    pool.wait_for(|pool| downs(pool) > 0);
    node.program.signal("CONT");
    pool.tip = None;
    pool.wait_for(|pool| pool.tip.is_some());
    pool.mine();
    node.program.signal("STOP");
    let begun = Instant::now();
    Box::new(pool.source).shutdown();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    node.program.signal("CONT");
}

#[test]
fn reorganisations_are_followed() {
    let node = BitcoinNode::start();
    let hashes = node.generate(3);
    let mut pool = connect(&node);
    wait_for_tip(&mut pool, &node);
    pool.mine();
    let own = node.cli(&["getbestblockhash"]);
    // Two blocks leave, and three others come.
    node.rpc.call("invalidateblock", &[json!(hashes[2].to_string())]);
    pool.wait_for(|pool| pool.height() == 3);
    pool.mine();
    node.generate(2);
    wait_for_tip(&mut pool, &node);
    assert_eq!(pool.height(), 6);
    let left: Vec<u32> = pool
        .reports
        .iter()
        .filter_map(|report| match report {
            SourceUpdate::BlockDisconnected { height, hash } => {
                assert!(*height == 3 || hash.to_string() == own);
                Some(*height)
            }
            _ => None,
        })
        .collect();
    assert_eq!(left, [4, 3]);
    pool.mine();
}

/// A coinbase that is as heavy as it may be, by an output that nobody can spend.
fn heaviest(mut coinbase: Transaction, weight: Weight) -> Transaction {
    let burn = |len: usize| TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(vec![OP_RETURN.to_u8(); len]),
    };
    coinbase.output.insert(1, burn(0));
    let mut len = usize::try_from((weight - coinbase.weight()).to_wu() / 4).unwrap();
    coinbase.output[1] = burn(len);
    // A long script's length takes more than a byte.
    while coinbase.weight() > weight {
        len -= 1;
        coinbase.output[1] = burn(len);
    }
    coinbase
}

#[test]
fn the_heaviest_block_with_the_heaviest_coinbase_is_valid() {
    let node = BitcoinNode::start();
    let mut coins = coins(&node, 60).into_iter();
    // Heavy ones, then small ones that fill what is left.
    for (coin, at) in coins.by_ref().take(45).zip(0..) {
        let burn = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return([0; 0]) };
        let mut data = vec![OP_RETURN.to_u8()];
        data.resize(22_000, at);
        let rest = TxOut { value: Amount::from_sat(coin.1 - 50_000_000), script_pubkey: spendable() };
        let heavy = TxOut { script_pubkey: ScriptBuf::from_bytes(data), ..burn };
        send(&node, &spend(coin, vec![rest, heavy]));
    }
    let small = |sat| TxOut { value: Amount::from_sat(sat), script_pubkey: spendable() };
    for coin in coins {
        let mut parent = spend(coin, vec![small(coin.1 - 1_000_000)]);
        for _ in 0..20 {
            send(&node, &parent);
            let place = OutPoint { txid: parent.compute_txid(), vout: 0 };
            let left = parent.output[0].value.to_sat();
            parent = spend((place, left), vec![small(left - 100_000)]);
        }
    }
    for reserve in [
        RESERVE,
        Reserve { reserved_weight: 2_000, max_additional_sigops: 0 },
        Reserve { reserved_weight: 100_000, ..RESERVE },
    ] {
        let mut pool = connect(&node);
        pool.want(reserve);
        // Subsidies halve every 150 blocks here.
        pool.wait_for(|pool| value(pool) > SUBSIDY / 2 + Amount::from_sat(40 * 50_000_000));
        let (template, tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
        let base = coinbase(&template, &spendable(), template.coinbase_tx_value_remaining, 1);
        // Header and count of transactions are in the reserve.
        let weight = Weight::from_wu(reserve.reserved_weight - 4 * (80 + 3));
        let solution = Arc::new(solve(&template, &tip, &heaviest(base, weight)));
        wait_until("the transactions are read", || pool.source.transactions(template.template_id).is_some());
        let answer = pool.submit(Arc::clone(&solution));
        assert!(matches!(answer, Submission::Accepted { .. }), "{reserve:?}: {answer:?}");
        let block = node.rpc.call("getblock", &[json!(solution.digest.to_string()), json!(1)]);
        let weight = block["weight"].as_u64().unwrap();
        assert!((3_990_000..=4_000_000).contains(&weight), "{reserve:?}: {weight}");
        // The next reserve gets the same transactions.
        node.rpc.call("invalidateblock", &[json!(solution.digest.to_string())]);
        assert_eq!(node.rpc.call("getmempoolinfo", &[])["size"], json!(45 + 15 * 20));
    }
}

#[test]
fn a_block_with_all_signature_operations_is_valid() {
    let node = BitcoinNode::start();
    let coins = coins(&node, 5);
    let checks = |count: usize| ScriptBuf::from_bytes(vec![OP_CHECKSIG.to_u8(); count]);
    // A legacy operation costs 4, a block may cost 80,000, and the coinbase is to have 400 of them.
    for (coin, count) in coins.into_iter().zip([3_999, 3_999, 3_999, 3_999, 3_900]) {
        let output = TxOut { value: Amount::from_sat(coin.1 - 50_000_000), script_pubkey: checks(count) };
        send(&node, &spend(coin, vec![output]));
    }
    let mut pool = connect(&node);
    pool.wait_for(|pool| value(pool) == SUBSIDY + Amount::from_sat(5 * 50_000_000));
    let (template, tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
    let with_checks = |count| {
        let mut coinbase = coinbase(&template, &spendable(), template.coinbase_tx_value_remaining, 1);
        coinbase.output.insert(1, TxOut { value: Amount::ZERO, script_pubkey: checks(count) });
        Arc::new(solve(&template, &tip, &coinbase))
    };
    // 16 are left beside the reserve.
    let answer = pool.submit(with_checks(105));
    let Submission::Rejected { reason } = answer else { panic!("{answer:?}") };
    assert!(reason.starts_with("bad-blk-sigops"), "{reason}");
    let answer = pool.submit(with_checks(100));
    assert!(matches!(answer, Submission::Accepted { .. }), "{answer:?}");
    assert_eq!(node.rpc.call("getmempoolinfo", &[])["size"], Value::from(0));
}
