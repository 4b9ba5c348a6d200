//! What a node answers, as far as it is used here; checked before it is.
//!
//! Bounds: an answer's length (the client's), [`TRANSACTIONS_MAX`] transactions.

use std::sync::Arc;

use adit_hasher::Target;
use bitcoin::hex::FromHex;
use serde::Deserialize;

use super::client::Body;
use super::fault::RpcFault;
use super::template::{NodeTemplate, NodeTransaction};
use crate::nodes::coinbase::{BLOCK_WEIGHT_MAX, MONEY_MAX_SAT, commitment_script};

/// Transactions of a template: none weighs less than 60 bytes without witness.
const TRANSACTIONS_MAX: usize = BLOCK_WEIGHT_MAX as usize / 240;
/// The challenge of a signet whose blocks anyone may make: OP_TRUE.
const OPEN_CHALLENGE: &str = "51";

/// `getblocktemplate`.
#[derive(Deserialize)]
struct TemplateAnswer<'a> {
    version: i32,
    previousblockhash: &'a str,
    #[serde(borrow)]
    transactions: Vec<TransactionAnswer<'a>>,
    coinbasevalue: u64,
    longpollid: &'a str,
    target: &'a str,
    mintime: u32,
    curtime: u32,
    bits: &'a str,
    height: u32,
    default_witness_commitment: Option<&'a str>,
    signet_challenge: Option<&'a str>,
}

#[derive(Deserialize)]
struct TransactionAnswer<'a> {
    data: &'a str,
    txid: &'a str,
    hash: &'a str,
    fee: u64,
    sigops: u64,
    weight: u64,
}

/// `getblockheader`.
#[derive(Deserialize)]
pub(super) struct HeaderAnswer {
    pub(super) hash: String,
    /// Blocks of the best chain from this one on; -1 beside the best chain.
    pub(super) confirmations: i64,
    pub(super) height: u32,
    pub(super) mediantime: u32,
    pub(super) bits: String,
    /// Missing for the genesis.
    pub(super) previousblockhash: Option<String>,
}

/// `getblockchaininfo`.
#[derive(Deserialize)]
pub(super) struct ChainAnswer {
    pub(super) chain: String,
}

/// A hash as the node writes it, in header order.
pub(super) fn hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = <[u8; 32]>::from_hex(text).ok()?;
    hash.reverse();
    Some(hash)
}

/// A compact target as the node writes it.
pub(super) fn nbits(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

/// The template in an answer of `getblocktemplate`, and the id that the next long poll names.
pub(super) fn template(body: &Body) -> Result<(NodeTemplate, String), RpcFault> {
    let answer: TemplateAnswer<'_> = body.result()?;
    if answer.signet_challenge.is_some_and(|challenge| challenge != OPEN_CHALLENGE) {
        return Err(RpcFault::SignedBlocks);
    }
    let id = answer.longpollid.to_owned();
    check(answer).map(|template| (template, id)).map_err(|what| body.malformed(what))
}

/// Every value that is no such value is named.
fn check(answer: TemplateAnswer<'_>) -> Result<NodeTemplate, &'static str> {
    if answer.transactions.len() > TRANSACTIONS_MAX {
        return Err("transactions: more than fit into a block");
    }
    // Height 0 is the genesis, which nobody mines; the limit is the lock time's.
    if !(1..500_000_000).contains(&answer.height) {
        return Err("height");
    }
    // A target that no hash meets would be no harm, one that is zero is no target.
    let target =
        hash(answer.target).map(Target::from_le_bytes).filter(|target| *target.as_le_bytes() != [0; 32]);
    let transactions = answer.transactions.iter().map(transaction).collect::<Option<Vec<_>>>();
    let transactions = transactions.ok_or("transactions")?;
    let template = NodeTemplate {
        // A signed number on the wire: its bits are what counts.
        version: answer.version as u32,
        prev_hash: hash(answer.previousblockhash).ok_or("previousblockhash")?,
        height: answer.height,
        nbits: nbits(answer.bits).ok_or("bits")?,
        target: target.ok_or("target")?,
        time: answer.curtime.max(answer.mintime),
        value_sat: answer.coinbasevalue,
        transactions,
    };
    if template.value_sat > MONEY_MAX_SAT {
        return Err("coinbasevalue: more than there will ever be");
    }
    let fees_sat = template.transactions.iter().try_fold(0u64, |sum, one| sum.checked_add(one.fee_sat));
    if fees_sat.is_none_or(|fees_sat| fees_sat > template.value_sat) {
        return Err("coinbasevalue: less than the fees");
    }
    // What the node commits to is known: a transaction that is not what its hash says shows here.
    if let Some(expected) = answer.default_witness_commitment {
        let script = commitment_script(template.transactions.iter().map(|one| one.wtxid));
        if Vec::from_hex(expected).ok().as_deref() != Some(script.as_bytes()) {
            return Err("default_witness_commitment: not that of the transactions");
        }
    }
    Ok(template)
}

fn transaction(answer: &TransactionAnswer<'_>) -> Option<NodeTransaction> {
    let raw: Arc<[u8]> = Vec::from_hex(answer.data).ok()?.into();
    // A transaction weighs at least its bytes, and at most four times as much.
    let len = raw.len() as u64;
    let is_weight = (len..=4 * len).contains(&answer.weight);
    (is_weight && len > 0).then_some(())?;
    Some(NodeTransaction {
        raw,
        txid: hash(answer.txid)?,
        wtxid: hash(answer.hash)?,
        fee_sat: answer.fee,
        weight: answer.weight,
        sigops: answer.sigops,
    })
}
