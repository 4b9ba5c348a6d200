//! Transactions on their way into blocks: what is taken, what is refused and why, and what fills a block.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use adit_proto::distribution::Reserve;
use adit_proto::template::Template;
use adit_roles::nodes::embedded::{
    Chain, EmbeddedConfig, EmbeddedNode, MempoolLimits, RpcAuth, RpcConfig, TransactionBounds,
};
use adit_roles::nodes::{Submission, TemplateSource};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::consensus::serialize;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid};
use serde_json::{Value, json};
use support::{Pool, Wallet, blocks_on_disk, http, quick_config, rpc, txids, unsigned};

const COIN: u64 = 100_000_000;
/// The code of a missing or spent input, of a rule broken, and of outputs that are in the chain.
const MISSING: i64 = -25;
const REJECTED: i64 = -26;
const ALREADY_MINED: i64 = -27;
const MALFORMED: i64 = -22;

fn with_rpc(mut config: EmbeddedConfig) -> EmbeddedConfig {
    config.rpc = Some(RpcConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), auth: None });
    config
}

/// A pool with JSON-RPC and `count` blocks, and their coinbases.
fn funded(config: EmbeddedConfig, count: usize) -> (Pool, SocketAddr, Vec<(OutPoint, u64)>) {
    let mut pool = Pool::start(with_rpc(config));
    let coins = (0..count).map(|_| pool.mine()).collect();
    let address = pool.source.rpc_address().unwrap();
    (pool, address, coins)
}

fn send(address: SocketAddr, transaction: &Transaction) -> Result<Txid, (i64, String)> {
    let txid = rpc(address, "sendrawtransaction", json!([serialize_hex(transaction)]))?;
    assert_eq!(txid, json!(transaction.compute_txid().to_string()));
    Ok(transaction.compute_txid())
}

#[track_caller]
fn refused(address: SocketAddr, transaction: &Transaction, code: i64, reason: &str) {
    let (found, message) = send(address, transaction).expect_err("it is refused");
    assert_eq!(found, code, "{message}");
    assert!(message.starts_with(reason), "{message}");
}

fn holds(pool: &Pool, template: &Template, transaction: &Transaction) -> bool {
    let transactions = pool.source.transactions(template.template_id).unwrap();
    transactions.iter().any(|raw| raw == serialize(transaction))
}

#[test]
fn a_spend_is_mined_and_its_fee_is_in_the_coinbase() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = quick_config(Chain::Regtest);
    config.data_dir = Some(directory.path().to_owned());
    let (mut pool, address, coins) = funded(config, 101);
    let wallet = Wallet::new();
    let parent = wallet.spend(&coins[..1], &[coins[0].1 - 7_000]);
    let parent_out = OutPoint { txid: send(address, &parent).unwrap(), vout: 0 };
    // A child that spends what is not mined yet.
    let child = wallet.spend(&[(parent_out, coins[0].1 - 7_000)], &[COIN, 49 * COIN - 500_000]);
    send(address, &child).unwrap();
    // What waits already is taken again.
    send(address, &parent).unwrap();

    let fees = 500_000;
    let waiting = json!([parent.compute_txid().to_string(), child.compute_txid().to_string()]);
    assert_eq!(rpc(address, "getrawmempool", json!([])), Ok(waiting));
    pool.wait_for(|pool| pool.active.as_ref().unwrap().coinbase_tx_value_remaining == 50 * COIN + fees);
    let template = pool.active.clone().unwrap();
    assert!(!template.future_template);
    assert!(holds(&pool, &template, &parent) && holds(&pool, &template, &child));
    let (_, reward) = pool.mine();
    assert_eq!(reward, 50 * COIN + fees);

    assert_eq!(rpc(address, "getrawmempool", json!([])), Ok(json!([])));
    let output = rpc(address, "gettxout", json!([child.compute_txid().to_string(), 1])).unwrap();
    assert_eq!(
        (&output["value"], &output["confirmations"], &output["coinbase"]),
        (&json!(48.995), &json!(1), &json!(false))
    );
    assert_eq!(output["scriptPubKey"]["hex"], json!(wallet.script().to_hex_string()));
    assert_eq!(rpc(address, "gettxout", json!([parent.compute_txid().to_string(), 0])), Ok(Value::Null));
    refused(address, &child, ALREADY_MINED, "Transaction outputs already in utxo set");
    drop(pool);

    let blocks = blocks_on_disk(Chain::Regtest, directory.path());
    assert_eq!(txids(&blocks[102])[1..], [parent.compute_txid(), child.compute_txid()]);
    assert_eq!(blocks[102].txdata[0].output[0].value.to_sat(), reward);
    // The index of a restarted node is the same.
    let mut config = quick_config(Chain::Regtest);
    config.data_dir = Some(directory.path().to_owned());
    let pool = Pool::start(with_rpc(config));
    let again =
        rpc(pool.source.rpc_address().unwrap(), "gettxout", json!([child.compute_txid().to_string(), 1]));
    assert_eq!(again, Ok(output));
}

#[test]
fn what_breaks_a_rule_is_refused_with_bitcoin_cores_code() {
    let (mut pool, address, coins) = funded(quick_config(Chain::Regtest), 102);
    let wallet = Wallet::new();
    let good = wallet.spend(&coins[..1], &[coins[0].1 - 1_000]);

    // A coinbase needs 100 blocks, its own included: with 102 blocks the third has 100 only at height 103.
    refused(
        address,
        &wallet.spend(&coins[3..4], &[COIN]),
        REJECTED,
        "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 99",
    );
    let mature = wallet.spend(&coins[2..3], &[coins[2].1 - 1_000]);
    send(address, &mature).unwrap();

    let mut forged = good.clone();
    forged.output[0].value -= Amount::from_sat(1);
    refused(address, &forged, REJECTED, "mempool-script-verify-flag-failed");
    refused(
        address,
        &unsigned(&coins[..1], good.output.clone()),
        REJECTED,
        "mempool-script-verify-flag-failed",
    );

    let nowhere = OutPoint { txid: good.compute_txid(), vout: 5 };
    refused(address, &wallet.spend(&[(nowhere, COIN)], &[COIN]), MISSING, "bad-txns-inputs-missingorspent");
    refused(address, &wallet.spend(&coins[..1], &[coins[0].1 + 1]), REJECTED, "bad-txns-in-belowout");
    refused(address, &wallet.spend(&[coins[0], coins[0]], &[COIN]), REJECTED, "bad-txns-inputs-duplicate");
    refused(address, &wallet.spend(&coins[..1], &[22_000_000 * COIN]), REJECTED, "bad-txns-vout-toolarge");
    refused(
        address,
        &wallet.spend(&coins[..1], &[20_000_000 * COIN; 2]),
        REJECTED,
        "bad-txns-txouttotal-toolarge",
    );
    refused(address, &wallet.spend(&coins[..1], &[1_000; 4_000]), REJECTED, "tx-size");
    refused(address, &wallet.spend(&coins[..1], &[COIN]), MISSING, "Fee exceeds maximum configured by user");
    refused(address, &wallet.spend(&coins[..1], &[]), REJECTED, "bad-txns-vout-empty");

    let mut coinbase = unsigned(&[(OutPoint::null(), 0)], good.output.clone());
    coinbase.input[0].script_sig = ScriptBuf::from_bytes(vec![0x51, 0x51]);
    refused(address, &coinbase, REJECTED, "coinbase");

    let mut later = unsigned(&coins[..1], good.output.clone());
    later.lock_time = LockTime::from_height(103).unwrap();
    later.input[0].sequence = Sequence::ZERO;
    refused(address, &wallet.sign(later.clone(), &[coins[0].1]), REJECTED, "non-final");
    later.lock_time = LockTime::from_time(2_000_000_000).unwrap();
    refused(address, &wallet.sign(later.clone(), &[coins[0].1]), REJECTED, "non-final");
    later.lock_time = LockTime::ZERO;
    later.input[0].sequence = Sequence::from_height(103);
    refused(address, &wallet.sign(later.clone(), &[coins[0].1]), REJECTED, "non-BIP68-final");
    // From the median time of the block before the coin's: for the second block that is this test's start.
    let mut later = unsigned(&coins[1..2], good.output.clone());
    later.input[0].sequence = Sequence::from_512_second_intervals(1);
    refused(address, &wallet.sign(later, &[coins[1].1]), REJECTED, "non-BIP68-final");

    let burnt = TxOut { value: Amount::from_sat(COIN), script_pubkey: ScriptBuf::new_op_return([0; 40]) };
    let change = TxOut { value: Amount::from_sat(coins[0].1 - COIN - 1_000), script_pubkey: wallet.script() };
    let burning = wallet.sign(unsigned(&coins[..1], vec![burnt, change]), &[coins[0].1]);
    refused(address, &burning, MISSING, "Unspendable output exceeds maximum configured by user");

    for garbage in [
        "",
        "00",
        "zz",
        "0200000000000000",
        &serialize_hex(&good)[2..],
        &format!("{}00", serialize_hex(&good)),
    ] {
        let (code, _) = rpc(address, "sendrawtransaction", json!([garbage])).unwrap_err();
        assert_eq!(code, MALFORMED, "{garbage:.20}");
    }

    // The first spend of an output stays.
    send(address, &good).unwrap();
    refused(address, &wallet.spend(&coins[..1], &[coins[0].1 - 9_000]), REJECTED, "txn-mempool-conflict");
    pool.wait_for(|pool| pool.active.as_ref().unwrap().coinbase_tx_value_remaining == 50 * COIN + 2_000);
    pool.mine();
    // Spent by the chain now.
    refused(
        address,
        &wallet.spend(&coins[..1], &[coins[0].1 - 9_000]),
        MISSING,
        "bad-txns-inputs-missingorspent",
    );
    pool.mine();
}

#[test]
fn lock_times_open_with_the_chain() {
    let (mut pool, address, coins) = funded(quick_config(Chain::Regtest), 101);
    let wallet = Wallet::new();
    let output = vec![TxOut { value: Amount::from_sat(coins[0].1 - 500), script_pubkey: wallet.script() }];
    let mut absolute = unsigned(&coins[..1], output);
    absolute.lock_time = LockTime::from_height(102).unwrap();
    absolute.input[0].sequence = Sequence::ZERO;
    let absolute = wallet.sign(absolute, &[coins[0].1]);
    refused(address, &absolute, REJECTED, "non-final");
    pool.mine();
    send(address, &absolute).unwrap();

    // Two blocks after its parent, not one.
    let place = OutPoint { txid: absolute.compute_txid(), vout: 0 };
    let output = vec![TxOut { value: Amount::from_sat(coins[0].1 - 900), script_pubkey: wallet.script() }];
    let mut relative = unsigned(&[(place, coins[0].1 - 500)], output);
    relative.input[0].sequence = Sequence::from_height(2);
    let relative = wallet.sign(relative, &[coins[0].1 - 500]);
    refused(address, &relative, REJECTED, "non-BIP68-final");
    pool.wait_for(|pool| pool.active.as_ref().unwrap().coinbase_tx_value_remaining == 50 * COIN + 500);
    pool.mine();
    refused(address, &relative, REJECTED, "non-BIP68-final");
    pool.mine();
    send(address, &relative).unwrap();
    pool.wait_for(|pool| pool.active.as_ref().unwrap().coinbase_tx_value_remaining == 50 * COIN + 400);
    pool.mine();
}

#[test]
fn a_reorganisation_gives_transactions_back() {
    let (mut pool, address, coins) = funded(quick_config(Chain::Regtest), 103);
    let wallet = Wallet::new();
    let (fork_template, fork_tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
    let kept = wallet.spend(&coins[..1], &[coins[0].1 - 1_000]);
    let child = wallet.spend(
        &[(OutPoint { txid: kept.compute_txid(), vout: 0 }, coins[0].1 - 1_000)],
        &[50 * COIN - 500_000],
    );
    let lost = wallet.spend(&coins[1..2], &[coins[1].1 - 2_000]);
    for transaction in [&kept, &child, &lost] {
        send(address, transaction).unwrap();
    }
    let fees = 502_000;
    pool.wait_for(|pool| pool.active.as_ref().unwrap().coinbase_tx_value_remaining == 50 * COIN + fees);
    pool.mine();
    assert_eq!(rpc(address, "getrawmempool", json!([])), Ok(json!([])));

    // A branch of two blocks from the tip before; its first spends what `lost` spent.
    let rival = wallet.spend(&coins[1..2], &[coins[1].1 - 5_000]);
    let branch = branch_block(&mut pool, &fork_template, &fork_tip, std::slice::from_ref(&rival));
    let first = pool.source.submit_block(branch.into()).recv_timeout(support::PATIENCE).unwrap();
    let Submission::Stale { height: 104, hash } = first else { panic!("{first:?}") };
    let mut on_branch = (**pool.tip.as_ref().unwrap()).clone();
    on_branch.prev_hash = hash.0;
    let template = pool.active.clone().unwrap();
    let second = pool.solve_for(&template, &on_branch);
    assert!(matches!(pool.submit(second.clone()), Submission::Accepted { height: 105, .. }));

    // Parent and child wait again; what the branch made impossible is gone.
    pool.wait_for(|pool| {
        let active = pool.active.as_ref().unwrap();
        pool.prev_hash() == second.digest.0 && active.coinbase_tx_value_remaining == 50 * COIN + fees - 2_000
    });
    let waiting = json!([kept.compute_txid().to_string(), child.compute_txid().to_string()]);
    assert_eq!(rpc(address, "getrawmempool", json!([])), Ok(waiting));
    refused(address, &lost, MISSING, "bad-txns-inputs-missingorspent");
    let out = |transaction: &Transaction| {
        rpc(address, "gettxout", json!([transaction.compute_txid().to_string(), 0, false])).unwrap()
    };
    assert_eq!(
        (out(&rival)["confirmations"].clone(), out(&lost), out(&kept)),
        (json!(2), Value::Null, Value::Null)
    );
    pool.mine();
    assert_eq!(out(&child)["confirmations"], json!(1));
}

/// A block of its own making on `tip`, with transactions that the template does not have.
fn branch_block(
    pool: &mut Pool,
    template: &Template,
    tip: &adit_proto::template::PrevHash,
    more: &[Transaction],
) -> Vec<u8> {
    use bitcoin::hashes::Hash;
    let mut coinbase = support::coinbase(template, &pool.payout, 50 * COIN, 1 << 50);
    let wtxids: Vec<[u8; 32]> =
        std::iter::once([0; 32]).chain(more.iter().map(|one| one.compute_wtxid().to_byte_array())).collect();
    let mut preimage = adit_hasher::merkle_root(&wtxids).to_vec();
    preimage.extend([0; 32]);
    let mut script = hex::decode("6a24aa21a9ed").unwrap();
    script.extend(adit_hasher::Digest::of(&preimage).0);
    coinbase.output[1].script_pubkey = ScriptBuf::from_bytes(script);
    let all: Vec<&Transaction> = std::iter::once(&coinbase).chain(more).collect();
    let ids: Vec<[u8; 32]> = all.iter().map(|one| one.compute_txid().to_byte_array()).collect();
    let header = support::work(support::header(template, tip, adit_hasher::merkle_root(&ids)), &tip.target);
    let mut block = header.to_vec();
    block.push(all.len() as u8);
    all.iter().for_each(|one| block.extend(serialize(*one)));
    block
}

/// Outputs of equal value that fill their transaction.
fn outputs(script: &ScriptBuf, count: usize, total_sat: u64) -> Vec<TxOut> {
    let value = Amount::from_sat(total_sat / count as u64);
    vec![TxOut { value, script_pubkey: script.clone() }; count]
}

#[test]
fn a_full_block_keeps_to_weight_and_takes_the_best_fees() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = quick_config(Chain::Regtest);
    config.data_dir = Some(directory.path().to_owned());
    let (mut pool, address, coins) = funded(config, 114);
    let wallet = Wallet::new();
    // Thirteen transactions of nearly 400,000 weight units; the later, the more they pay.
    let large: Vec<Transaction> = (0..13)
        .map(|index| {
            let value = coins[index].1 - 1_000_000 * (index as u64 + 1);
            wallet.sign(
                unsigned(&coins[index..=index], outputs(&wallet.script(), 3_200, value)),
                &[coins[index].1],
            )
        })
        .collect();
    assert!(large.iter().all(|one| (390_000..=400_000).contains(&one.weight().to_wu())));
    for one in &large {
        send(address, one).unwrap();
    }
    // A small one with a low rate finds the room that is left.
    let small = wallet.spend(&coins[13..14], &[coins[13].1 - 1_000]);
    send(address, &small).unwrap();
    let best = large.iter().skip(3).collect::<Vec<_>>();
    pool.wait_for(|pool| {
        let active = pool.active.as_ref().unwrap();
        holds(pool, active, best[9]) && holds(pool, active, &small)
    });
    let template = pool.active.clone().unwrap();
    let transactions = pool.source.transactions(template.template_id).unwrap();
    assert_eq!(transactions.len(), 11);
    let (_, reward) = pool.mine();
    assert!(reward > 50 * COIN + (4..=13).map(|fee| fee * 1_000_000).sum::<u64>());
    // What did not fit waits for the next one.
    assert_eq!(rpc(address, "getrawmempool", json!([])).unwrap().as_array().unwrap().len(), 3);
    pool.wait_for(|pool| holds(pool, pool.active.as_ref().unwrap(), &large[0]));
    pool.mine();
    drop(pool);

    let blocks = blocks_on_disk(Chain::Regtest, directory.path());
    let weight = blocks[115].weight().to_wu();
    assert!((3_900_000..=4_000_000).contains(&weight), "{weight}");
    assert_eq!((blocks[115].txdata.len(), blocks[116].txdata.len()), (12, 4));
    assert_eq!(txids(&blocks[115])[1], large[12].compute_txid(), "the best rate comes first");
}

#[test]
fn a_full_block_keeps_to_signature_operations() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = quick_config(Chain::Regtest);
    config.data_dir = Some(directory.path().to_owned());
    let (mut pool, address, coins) = funded(config, 108);
    let wallet = Wallet::new();
    // 20 outputs of 199 OP_CHECKSIG at cost 4, and one for the input: 15,921 of the 79,600 that the coinbase leaves.
    let busy = ScriptBuf::from_bytes(vec![0xac; 199]);
    let with = |count: usize, index: usize| {
        wallet.sign(
            unsigned(&coins[index..=index], outputs(&busy, count, coins[index].1 - 100_000)),
            &[coins[index].1],
        )
    };
    refused(address, &with(21, 0), REJECTED, "bad-txns-too-many-sigops");
    let sent: HashSet<Txid> = (0..7).map(|index| send(address, &with(20, index)).unwrap()).collect();
    let fees = |count: u64| 50 * COIN + count * 100_000;
    pool.wait_for(|pool| pool.active.as_ref().unwrap().coinbase_tx_value_remaining >= fees(4));
    pool.mine();
    pool.wait_for(|pool| pool.active.as_ref().unwrap().coinbase_tx_value_remaining >= fees(3));
    pool.mine();
    drop(pool);
    let blocks = blocks_on_disk(Chain::Regtest, directory.path());
    assert_eq!(blocks[109].txdata.len(), 5, "a fifth has no room");
    let mined: HashSet<Txid> = blocks[109..].iter().flat_map(|block| txids(block)[1..].to_vec()).collect();
    assert_eq!(mined, sent);
}

/// Nothing in it can conflict with a block that nobody knows yet.
#[test]
fn a_template_ahead_of_its_tip_is_empty_whatever_waits() {
    let (mut pool, address, coins) =
        funded(EmbeddedConfig { prepare_next: true, ..quick_config(Chain::Regtest) }, 101);
    let (before, tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
    let wallet = Wallet::new();
    let spend = wallet.spend(&coins[..1], &[coins[0].1 - 10_000]);
    send(address, &spend).unwrap();
    pool.wait_for(|pool| holds(pool, pool.active.as_ref().unwrap(), &spend));
    // A block from an older template leaves it waiting while the next template is made ahead.
    let block = pool.solve_for(&before, &tip);
    assert!(matches!(pool.submit(block.clone()), Submission::Accepted { height: 102, .. }));
    pool.wait_for(|pool| pool.prev_hash() == block.digest.0);
    pool.wait_for(|pool| holds(pool, pool.active.as_ref().unwrap(), &spend));
    let is_ahead =
        |template: &&Arc<Template>| template.future_template && template.coinbase_tx_locktime == 103;
    pool.wait_for(|pool| pool.templates.iter().any(|template| is_ahead(&template)));
    let ahead = pool.templates.iter().find(is_ahead).cloned().unwrap();
    assert!(ahead.merkle_path.is_empty());
    pool.mine();
    assert_eq!(pool.tip.as_ref().unwrap().template_id, ahead.template_id);
    assert_eq!(rpc(address, "getrawmempool", json!([])), Ok(json!([])));
}

#[test]
fn a_large_mempool_does_not_delay_the_new_tip() {
    let mut config = quick_config(Chain::Regtest);
    config.mempool = MempoolLimits { transactions_max: 150, weight_max: 1_000_000 };
    let (mut pool, address, coins) = funded(config, 101);
    // Blocks with room for some 40 small transactions.
    pool.want(Reserve { reserved_weight: 4_000_000 - 40 * 450, max_additional_sigops: 400 });
    let wallet = Wallet::new();
    let split = wallet.spend(&coins[..1], &vec![COIN / 10; 200]);
    let bounds = TransactionBounds { fee_rate_max: None, ..TransactionBounds::default() };
    pool.source.submit_transaction(&serialize(&split), bounds).unwrap();
    assert_eq!(rpc(address, "getmempoolinfo", json!([])).unwrap()["size"], json!(1));
    // It is heavier than a block has room: the chain takes it from elsewhere.
    let (template, tip) = (pool.active.clone().unwrap(), pool.tip.clone().unwrap());
    let block = branch_block(&mut pool, &template, &tip, std::slice::from_ref(&split));
    let accepted = pool.source.submit_block(block.into()).recv_timeout(support::PATIENCE).unwrap();
    assert!(matches!(accepted, Submission::Accepted { height: 102, .. }), "{accepted:?}");
    pool.wait_for(|pool| pool.height() == 103);

    // 200 transactions of rising fees into a mempool of 150: the 50 that pay least are evicted, or refused once they are
    // the least.
    let spends: Vec<Transaction> = (0..200u32)
        .map(|vout| {
            let place = OutPoint { txid: split.compute_txid(), vout };
            wallet.spend(&[(place, COIN / 10)], &[COIN / 10 - 1_000 - 10 * u64::from(vout)])
        })
        .collect();
    for spend in &spends {
        send(address, spend).unwrap();
    }
    let waiting = rpc(address, "getrawmempool", json!([])).unwrap();
    let expected: Vec<String> = spends[50..].iter().map(|spend| spend.compute_txid().to_string()).collect();
    assert_eq!(waiting, json!(expected));
    refused(address, &spends[3], REJECTED, "mempool full");

    pool.wait_for(|pool| holds(pool, pool.active.as_ref().unwrap(), &spends[199]));
    let count = pool.templates.len();
    pool.mine();
    // More than a hundred are left: the tip comes with an empty template, then a full one.
    pool.wait_for(|pool| pool.templates.len() >= count + 2);
    let (empty, full) = (&pool.templates[count], &pool.templates[count + 1]);
    assert!(empty.future_template && empty.merkle_path.is_empty());
    assert_eq!(empty.template_id, pool.tip.as_ref().unwrap().template_id);
    assert!(!full.future_template && !full.merkle_path.is_empty());
    // Both can be mined; a block from the empty one drops nothing.
    let (empty, tip) = (empty.clone(), pool.tip.clone().unwrap());
    let solution = pool.solve_for(&empty, &tip);
    assert!(matches!(pool.submit(solution.clone()), Submission::Accepted { .. }));
    pool.wait_for(|pool| pool.prev_hash() == solution.digest.0);
    pool.wait_for(|pool| !pool.active.as_ref().unwrap().merkle_path.is_empty());
    pool.mine();
}

#[test]
fn a_family_is_bounded() {
    let (_pool, address, coins) = funded(quick_config(Chain::Regtest), 101);
    let wallet = Wallet::new();
    let mut coin = coins[0];
    for generation in 0..26 {
        let value = coin.1 - 1_000;
        let spend = wallet.spend(&[coin], &[value]);
        if generation == 25 {
            refused(address, &spend, REJECTED, "too-long-mempool-chain");
        } else {
            coin = (OutPoint { txid: send(address, &spend).unwrap(), vout: 0 }, value);
        }
    }
}

#[test]
fn json_rpc_tells_what_bitcoin_core_tells() {
    let (mut pool, address, _) = funded(quick_config(Chain::Regtest), 3);
    let genesis = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
    let call = |method, params| rpc(address, method, params);
    assert_eq!(call("getblockcount", json!([])), Ok(json!(3)));
    assert_eq!(call("getblockhash", json!([0])), Ok(json!(genesis)));
    assert_eq!(call("getblockhash", json!({"height": 0})), Ok(json!(genesis)));
    assert_eq!(call("getblockhash", json!([4])).unwrap_err(), (-8, "Block height out of range".to_owned()));
    assert_eq!(call("getblockhash", json!([-1])).unwrap_err().0, -8);
    let best = call("getbestblockhash", json!([])).unwrap();
    assert_eq!(call("getblockhash", json!([3])), Ok(best.clone()));
    let info = call("getblockchaininfo", json!([])).unwrap();
    assert_eq!(
        (&info["chain"], &info["blocks"], &info["bestblockhash"]),
        (&json!("regtest"), &json!(3), &best)
    );
    assert_eq!((&info["bits"], &info["initialblockdownload"]), (&json!("207fffff"), &json!(false)));
    let mining = call("getmininginfo", json!([])).unwrap();
    assert_eq!((&mining["blocks"], &mining["next"]["height"]), (&json!(3), &json!(4)));

    let raw = call("getblock", json!([genesis, 0])).unwrap();
    let expected = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    assert_eq!(raw, json!(serialize_hex(&expected)));
    assert_eq!(call("getblockheader", json!([genesis, false])), Ok(json!(serialize_hex(&expected.header))));
    let block = call("getblock", json!([best])).unwrap();
    assert_eq!((&block["height"], &block["confirmations"], &block["nTx"]), (&json!(3), &json!(1), &json!(1)));
    let header = call("getblockheader", json!([block["previousblockhash"]])).unwrap();
    assert_eq!((&header["height"], &header["nextblockhash"]), (&json!(2), &best));
    assert_eq!(call("getblock", json!([best, 2])).unwrap_err().0, -8);
    assert_eq!(call("getblock", json!(["00".repeat(32)])).unwrap_err(), (-5, "Block not found".to_owned()));
    assert_eq!(call("getblock", json!(["00"])).unwrap_err().0, -8);
    assert_eq!(call("getblock", json!([7])).unwrap_err().0, -3);
    assert_eq!(call("getblock", json!([])).unwrap_err().0, -1);
    assert_eq!(call("stop", json!([])).unwrap_err(), (-32601, "Method not found".to_owned()));

    // A block by submitblock.
    let solution = pool.solve();
    let none = adit_roles::nodes::TemplateTransactions::default();
    let block =
        adit_roles::nodes::assemble_block(&solution.header, &solution.coinbase_tx, &[], &none).unwrap();
    let submit = |block: &[u8]| call("submitblock", json!([hex::encode(block)]));
    assert_eq!(submit(&block), Ok(Value::Null));
    assert_eq!(submit(&block), Ok(json!("duplicate")));
    pool.wait_for(|pool| pool.prev_hash() == solution.digest.0);
    assert_eq!(call("getblockcount", json!([])), Ok(json!(4)));
    let mut weak = block.clone();
    while pool.tip.as_ref().unwrap().target.is_met_by(&adit_hasher::Digest::of(&weak[..80])) {
        weak[76] = weak[76].wrapping_add(1);
    }
    assert_eq!(submit(&weak), Ok(json!("high-hash")));
    assert_eq!(submit(&block[..90]).unwrap_err(), (MALFORMED, "Block decode failed".to_owned()));
}

#[test]
fn json_rpc_keeps_its_bounds() {
    let (_pool, address, _) = funded(quick_config(Chain::Regtest), 1);
    let count = r#"{"method":"getblockcount","params":[],"id":7}"#;
    assert_eq!(http(address, "", count), (200, "{\"error\":null,\"id\":7,\"result\":1}\n".to_owned()));
    let version_2 = r#"{"jsonrpc":"2.0","method":"nothing","id":7}"#;
    let (status, body) = http(address, "", version_2);
    assert_eq!((status, body.contains("-32601"), body.contains("result")), (200, true, false));
    let (status, body) = http(address, "", &format!("[{count},{{}},5]"));
    let answers: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert_eq!((status, answers.len(), &answers[0]["result"]), (200, 3, &json!(1)));
    assert_eq!(
        (&answers[1]["error"]["code"], &answers[2]["error"]["code"]),
        (&json!(-32600), &json!(-32600))
    );
    assert_eq!(http(address, "", &format!("[{}]", vec![count; 101].join(","))).0, 400);
    assert_eq!(http(address, "", "{").0, 500);
    assert_eq!(http(address, "", &"[".repeat(100_000)).0, 500);
    assert_eq!(http(address, "Origin: http://example.org\r\n", count).0, 403);
    assert_eq!(http(address, "", &" ".repeat(9_000_000)).0, 413);
    assert_eq!(http(address, "", count).0, 200);
}

#[test]
fn json_rpc_asks_for_the_password() {
    let auth = RpcAuth { user: "pool".to_owned(), password: "secret".to_owned() };
    let mut config = quick_config(Chain::Regtest);
    config.rpc = Some(RpcConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), auth: Some(auth.clone()) });
    let pool = Pool::start(config);
    let address = pool.source.rpc_address().unwrap();
    let count = r#"{"method":"getblockcount","params":[],"id":7}"#;
    // "pool:secret" and "pool:Secret".
    assert_eq!(http(address, "Authorization: Basic cG9vbDpzZWNyZXQ=\r\n", count).0, 200);
    assert_eq!(http(address, "Authorization: Basic cG9vbDpTZWNyZXQ=\r\n", count).0, 401);
    assert_eq!(http(address, "", count).0, 401);
    assert!(!format!("{auth:?}").contains("secret"));

    let mut open = quick_config(Chain::Regtest);
    open.rpc = Some(RpcConfig { listen: SocketAddr::from(([0, 0, 0, 0], 0)), auth: None });
    let error = EmbeddedNode::start(open).unwrap_err().to_string();
    assert!(error.contains("needs a user and a password"), "{error}");
}
