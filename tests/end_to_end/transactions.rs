//! Transactions given to the embedded node end in blocks.

use std::time::Duration;

use adit_tests::pool::Pool;
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(120);
const FEE: Amount = Amount::from_sat(12_345);
const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);

#[test]
fn a_spend_of_a_matured_coinbase_ends_in_a_block_and_pays_its_fee() {
    // A target that nearly any hash meets: 101 blocks in seconds.
    let pool = Pool::start("vardiff.shares_per_minute = 6000.0");
    let mut miner = pool.mine(&["--devices", "2", "--kind", "mixed", "--hash-rate-limit", "20000"]);
    pool.wait_for_height(101, PATIENCE);

    // The payout script is OP_TRUE: anyone may spend it without a signature.
    let spent = pool.node.block(1).txdata[0].clone();
    let spend = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: spent.compute_txid(), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: spent.output[0].value - FEE,
            // Long enough that the transaction is no 64-byte one.
            script_pubkey: ScriptBuf::from_bytes([vec![0x51], vec![0x61; 40]].concat()),
        }],
    };
    let txid = pool.node.call("sendrawtransaction", &[json!(serialize_hex(&spend))]);
    assert_eq!(txid.as_str(), Some(spend.compute_txid().to_string().as_str()));
    let from = pool.node.height();
    pool.wait_for_height(from + 3, PATIENCE);
    miner.signal("TERM");
    miner.wait(PATIENCE);

    let holding = (from..=pool.node.height())
        .map(|height| pool.node.block(height))
        .find(|block| {
            block.txdata.iter().any(|transaction| transaction.compute_txid() == spend.compute_txid())
        })
        .expect("the transaction is in a block");
    assert_eq!(holding.txdata[0].output[0].value, SUBSIDY + FEE, "its fee goes to the pool");

    // The output is gone.
    let refused = pool.node.try_call("sendrawtransaction", &[json!(serialize_hex(&spend))]);
    assert!(refused.is_err(), "{refused:?}");
    pool.stop();
}
