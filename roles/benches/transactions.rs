//! What a template's transactions cost a pool that has them from a template provider: checked and kept, where all are new, as
//! after a tip, and where few are, as in a later template; beside the `bitcoin` crate's decoder and hashes.
//!
//! `cargo bench -p adit-roles --bench transactions`; throughput is in transactions, 4,000 of 222 bytes.

use std::hint::black_box;
use std::time::Duration;

use adit_hasher::{Digest, merkle_path, merkle_root};
use adit_proto::distribution::client::TransactionList;
use adit_proto::template::Template;
use adit_roles::nodes::sv2::transactions::{Keeper, Store};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness};
use criterion::{BatchSize, Criterion, Throughput};

const TRANSACTIONS: u64 = 4_000;
/// Those that a template has new among them: one below each hash of the merkle path.
const RENEWED: u64 = 12;

/// A payment as most are: one input with a signature and a key, one output.
fn payment(number: u64) -> Vec<u8> {
    let digest = Digest::of(&number.to_le_bytes()).0;
    let witness: Vec<u8> = digest.iter().copied().cycle().take(105).collect();
    let payee = WPubkeyHash::from_byte_array(*digest.first_chunk().expect("a digest has 32 bytes"));
    serialize(&Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array(digest), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[&witness[..72], &witness[72..]]),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(100_000),
            script_pubkey: ScriptBuf::new_p2wpkh(&payee),
        }],
    })
}

/// Txids and wtxids by the `bitcoin` crate, each with a placeholder for the coinbase in front.
fn ids(transactions: &TransactionList) -> (Vec<[u8; 32]>, Vec<[u8; 32]>) {
    let (mut txids, mut wtxids) = (vec![[0; 32]], vec![[0; 32]]);
    for raw in transactions.iter() {
        let transaction: Transaction = deserialize(raw).expect("a payment");
        txids.push(transaction.compute_txid().to_byte_array());
        wtxids.push(transaction.compute_wtxid().to_byte_array());
    }
    (txids, wtxids)
}

fn template_of(transactions: &TransactionList) -> Template {
    let (txids, wtxids) = ids(transactions);
    let commitment = Digest::of(&[merkle_root(&wtxids), [0; 32]].concat()).0;
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], &commitment].concat();
    let output = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) };
    Template {
        template_id: 1,
        future_template: false,
        version: 2,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![1, 1],
        coinbase_tx_input_sequence: u32::MAX,
        coinbase_tx_value_remaining: 0,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: serialize(&output),
        coinbase_tx_locktime: 0,
        merkle_path: merkle_path(&txids),
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    let first: TransactionList = (0..TRANSACTIONS).map(payment).collect();
    let later: TransactionList = (0..TRANSACTIONS - RENEWED)
        .map(payment)
        .chain((TRANSACTIONS..TRANSACTIONS + RENEWED).map(payment))
        .collect();
    let (template, renewed) = (template_of(&first), template_of(&later));
    let keeper = || Keeper::new(Store::default());

    let mut group = criterion.benchmark_group("a template's transactions");
    group.throughput(Throughput::Elements(TRANSACTIONS));
    group.bench_function("all new", |bencher| {
        bencher.iter_batched_ref(
            keeper,
            |keeper| keeper.keep(1, &template, black_box(&first)),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("12 new", |bencher| {
        let known = || {
            let mut keeper = keeper();
            keeper.keep(1, &template, &first).expect("its own");
            keeper
        };
        bencher.iter_batched_ref(
            known,
            |keeper| keeper.keep(2, &renewed, black_box(&later)),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("bitcoin's decoder and ids alone", |bencher| {
        bencher.iter(|| ids(black_box(&first)));
    });
    group.finish();
    criterion.final_summary();
}
