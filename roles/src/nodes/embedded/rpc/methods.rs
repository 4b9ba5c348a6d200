//! The methods, with Bitcoin Core's names, parameters, results and error codes.
//!
//! What a method would need and the library does not give (chainwork, transaction indices) is left out of its result.

use adit_hasher::{Digest, Target};
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{Address, Block, Network, OutPoint, ScriptBuf, Txid};
use serde_json::{Map, Value, json};

use super::super::kernel::Tip;
use super::super::node::Node;
use super::super::rules::Chain;
use super::super::{NodeLink, TransactionBounds};
use super::{METHOD_NOT_FOUND, RpcError};
use crate::nodes::Submission;

const MISC_ERROR: i32 = -1;
const TYPE_ERROR: i32 = -3;
const INVALID_ADDRESS_OR_KEY: i32 = -5;
const INVALID_PARAMETER: i32 = -8;
const DESERIALIZATION_ERROR: i32 = -22;
const IN_WARMUP: i32 = -28;
const SAT_PER_BTC: f64 = 100_000_000.0;

type Result<T> = std::result::Result<T, RpcError>;

/// Parameters by position or by name.
struct Params<'a>(&'a Value);

impl<'a> Params<'a> {
    fn find(&self, index: usize, name: &str) -> Option<&'a Value> {
        let value = match self.0 {
            Value::Array(values) => values.get(index),
            Value::Object(values) => values.get(name),
            _ => None,
        };
        value.filter(|value| !value.is_null())
    }

    fn text(&self, index: usize, name: &str) -> Result<&'a str> {
        let value = self.find(index, name);
        let value = value.ok_or_else(|| RpcError::new(MISC_ERROR, format!("missing parameter {name}")))?;
        value.as_str().ok_or_else(|| wrong_type(name, "string"))
    }

    fn hash(&self, index: usize, name: &str) -> Result<Digest> {
        let text = self.text(index, name)?;
        let hash = <[u8; 32]>::from_hex(text).map_err(|_| {
            let message = format!("{name} must be of length 64 (not {}, for '{text:.80}')", text.len());
            RpcError::new(INVALID_PARAMETER, message)
        });
        hash.map(|mut hash| {
            hash.reverse();
            Digest(hash)
        })
    }

    fn number(&self, index: usize, name: &str) -> Result<Option<i64>> {
        let number = |value: &Value| value.as_i64().ok_or_else(|| wrong_type(name, "number"));
        self.find(index, name).map(number).transpose()
    }

    fn flag(&self, index: usize, name: &str) -> Result<Option<bool>> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| wrong_type(name, "bool"));
        self.find(index, name).map(flag).transpose()
    }

    /// An amount in BTC, as a number or a string, in satoshis.
    fn amount(&self, index: usize, name: &str) -> Result<Option<u64>> {
        let amount = |value: &Value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let amount = bitcoin::Amount::from_str_in(&text, bitcoin::Denomination::Bitcoin);
            amount.map(bitcoin::Amount::to_sat).map_err(|_| RpcError::new(TYPE_ERROR, "Invalid amount"))
        };
        self.find(index, name).map(amount).transpose()
    }
}

fn wrong_type(name: &str, expected: &str) -> RpcError {
    RpcError::new(TYPE_ERROR, format!("JSON value of {name} is not of expected type {expected}"))
}

fn ask<T: Send + 'static>(link: &NodeLink, ask: impl FnOnce(&mut Node) -> T + Send + 'static) -> Result<T> {
    link.ask(ask).ok_or_else(|| RpcError::new(IN_WARMUP, "the node is shutting down"))
}

/// Calls a method.
pub(super) fn call(link: &NodeLink, method: &str, params: &Value) -> Result<Value> {
    let params = Params(params);
    match method {
        "getblockchaininfo" => ask(link, chain_info),
        "getmininginfo" => ask(link, mining_info),
        "getmempoolinfo" => ask(link, mempool_info),
        "getblockcount" => ask(link, |node| json!(node.tip.last.height)),
        "getbestblockhash" => ask(link, |node| json!(node.tip.hash.to_string())),
        "getblockhash" => block_hash(link, &params),
        "getblockheader" => block_header(link, &params),
        "getblock" => block(link, &params),
        "gettxout" => tx_out(link, &params),
        "getrawmempool" => raw_mempool(link, &params),
        "sendrawtransaction" => send_raw_transaction(link, &params),
        "submitblock" => submit_block(link, &params),
        _ => Err(RpcError::new(METHOD_NOT_FOUND, "Method not found")),
    }
}

/// The target that `nbits` stands for: the three ways in which results name it.
fn difficulty_fields(nbits: u32) -> Map<String, Value> {
    let target = Target::from_nbits(nbits).unwrap_or(Target::from_le_bytes([0; 32]));
    let mut fields = Map::new();
    fields.insert("bits".to_owned(), json!(format!("{nbits:08x}")));
    fields.insert("target".to_owned(), json!(target.to_string()));
    fields.insert("difficulty".to_owned(), json!(target.difficulty()));
    fields
}

/// Two objects as one.
fn joined(first: Value, second: impl IntoIterator<Item = (String, Value)>) -> Value {
    match first {
        Value::Object(mut fields) => {
            fields.extend(second);
            Value::Object(fields)
        }
        other => other,
    }
}

fn chain_info(node: &mut Node) -> Value {
    let tip = &node.tip;
    let info = json!({
        "chain": node.config.chain.name(),
        "blocks": tip.last.height,
        "headers": tip.last.height,
        "bestblockhash": tip.hash.to_string(),
        "time": tip.last.time,
        "mediantime": tip.median_time_past,
        "verificationprogress": 1,
        "initialblockdownload": false,
        "pruned": false,
        "warnings": [],
    });
    joined(info, difficulty_fields(tip.last.nbits))
}

fn mining_info(node: &mut Node) -> Value {
    let next = joined(
        json!({"height": node.tip.last.height + 1}),
        difficulty_fields(node.kernel.next_nbits(&node.tip)),
    );
    let info = json!({
        "blocks": node.tip.last.height,
        "pooledtx": node.mempool.len(),
        "chain": node.config.chain.name(),
        "next": next,
        "warnings": [],
    });
    joined(info, difficulty_fields(node.tip.last.nbits))
}

fn mempool_info(node: &mut Node) -> Value {
    let fees: u64 = node.mempool.entries().map(|entry| entry.checked.fee_sat).sum();
    json!({
        "loaded": true,
        "size": node.mempool.len(),
        "bytes": node.mempool.weight().div_ceil(4),
        "total_fee": fees as f64 / SAT_PER_BTC,
    })
}

fn block_hash(link: &NodeLink, params: &Params<'_>) -> Result<Value> {
    let out_of_range = || RpcError::new(INVALID_PARAMETER, "Block height out of range");
    let height = params.number(0, "height")?;
    let height = height.ok_or_else(|| RpcError::new(MISC_ERROR, "missing parameter height"))?;
    let height = u32::try_from(height).map_err(|_| out_of_range())?;
    let found = ask(link, move |node| node.kernel.at_height(height))?;
    found.map(|block| json!(block.hash.to_string())).ok_or_else(out_of_range)
}

fn not_found() -> RpcError {
    RpcError::new(INVALID_ADDRESS_OR_KEY, "Block not found")
}

fn block_header(link: &NodeLink, params: &Params<'_>) -> Result<Value> {
    let hash = params.hash(0, "blockhash")?;
    let verbose = params.flag(1, "verbose")?.unwrap_or(true);
    ask(link, move |node| {
        let header = node.kernel.header(&hash).ok_or_else(not_found)?;
        if verbose { header_fields(node, &hash) } else { Ok(json!(header.to_lower_hex_string())) }
    })?
}

fn block(link: &NodeLink, params: &Params<'_>) -> Result<Value> {
    let hash = params.hash(0, "blockhash")?;
    // Older clients ask with a flag.
    let verbosity = match params.find(1, "verbosity") {
        Some(Value::Bool(verbose)) => i64::from(*verbose),
        _ => params.number(1, "verbosity")?.unwrap_or(1),
    };
    if verbosity > 1 {
        return Err(RpcError::new(INVALID_PARAMETER, "verbosity 0 and 1 are offered"));
    }
    let (raw, fields) = ask(link, move |node| {
        node.kernel.header(&hash).ok_or_else(not_found)?;
        let raw = node.kernel.read_block(&hash);
        let raw = raw.map_err(|_| RpcError::new(MISC_ERROR, "Block not found on disk"))?;
        Ok((raw, header_fields(node, &hash)?))
    })??;
    if verbosity <= 0 {
        return Ok(json!(raw.to_lower_hex_string()));
    }
    let block: Block =
        deserialize(&raw).map_err(|error| RpcError::new(MISC_ERROR, format!("block {hash}: {error}")))?;
    let txids: Vec<String> =
        block.txdata.iter().map(|transaction| transaction.compute_txid().to_string()).collect();
    let stripped = (block.weight().to_wu() - raw.len() as u64) / 3;
    let rest = json!({
        "nTx": txids.len(),
        "strippedsize": stripped,
        "size": raw.len(),
        "weight": block.weight().to_wu(),
        "tx": txids,
    });
    Ok(joined(fields, rest.as_object().cloned().unwrap_or_default()))
}

/// What `getblockheader` tells of a block.
fn header_fields(node: &Node, hash: &Digest) -> Result<Value> {
    let (block, in_chain) = node.kernel.find(hash).ok_or_else(not_found)?;
    let raw = node.kernel.header(hash).ok_or_else(not_found)?;
    let header: bitcoin::block::Header =
        deserialize(&raw).map_err(|error| RpcError::new(MISC_ERROR, error.to_string()))?;
    let Tip { last, median_time_past, .. } = block;
    let confirmations =
        if in_chain { i64::from(node.tip.last.height) - i64::from(last.height) + 1 } else { -1 };
    let mut fields = json!({
        "hash": hash.to_string(),
        "confirmations": confirmations,
        "height": last.height,
        "version": header.version.to_consensus(),
        "versionHex": format!("{:08x}", header.version.to_consensus()),
        "merkleroot": header.merkle_root.to_string(),
        "time": last.time,
        "mediantime": median_time_past,
        "nonce": header.nonce,
    });
    if last.height > 0 {
        fields["previousblockhash"] = json!(header.prev_blockhash.to_string());
    }
    if let Some(next) = node.kernel.at_height(last.height + 1).filter(|_| in_chain) {
        fields["nextblockhash"] = json!(next.hash.to_string());
    }
    Ok(joined(fields, difficulty_fields(last.nbits)))
}

fn tx_out(link: &NodeLink, params: &Params<'_>) -> Result<Value> {
    let txid = Txid::from_byte_array(params.hash(0, "txid")?.0);
    let vout = params.number(1, "n")?;
    let vout = vout.ok_or_else(|| RpcError::new(MISC_ERROR, "missing parameter n"))?;
    let Ok(vout) = u32::try_from(vout) else { return Ok(Value::Null) };
    let include_mempool = params.flag(2, "include_mempool")?.unwrap_or(true);
    let place = OutPoint { txid, vout };
    ask(link, move |node| {
        let chain = node.config.chain;
        let best = node.tip.hash.to_string();
        if include_mempool && node.mempool.spender(&place).is_some() {
            return Value::Null;
        }
        let waiting = node.mempool.output(&place).filter(|_| include_mempool);
        let (output, confirmations, coinbase) = match (node.coins.find(&place), waiting) {
            (Some(coin), _) => (&coin.output, node.tip.last.height + 1 - coin.height, coin.coinbase),
            (None, Some(output)) => (output, 0, false),
            (None, None) => return Value::Null,
        };
        json!({
            "bestblock": best,
            "confirmations": confirmations,
            "value": output.value.to_sat() as f64 / SAT_PER_BTC,
            "scriptPubKey": script_fields(&output.script_pubkey, chain),
            "coinbase": coinbase,
        })
    })
}

fn script_fields(script: &ScriptBuf, chain: Chain) -> Value {
    let kind = if script.is_p2wpkh() {
        "witness_v0_keyhash"
    } else if script.is_p2wsh() {
        "witness_v0_scripthash"
    } else if script.is_p2tr() {
        "witness_v1_taproot"
    } else if script.is_p2pkh() {
        "pubkeyhash"
    } else if script.is_p2sh() {
        "scripthash"
    } else if script.is_p2pk() {
        "pubkey"
    } else {
        "nonstandard"
    };
    let network = match chain {
        Chain::Regtest => Network::Regtest,
        Chain::Signet => Network::Signet,
    };
    let mut fields = json!({"hex": script.to_hex_string(), "type": kind});
    if let Ok(address) = Address::from_script(script, network) {
        fields["address"] = json!(address.to_string());
    }
    fields
}

fn raw_mempool(link: &NodeLink, params: &Params<'_>) -> Result<Value> {
    if params.flag(0, "verbose")? == Some(true) {
        return Err(RpcError::new(INVALID_PARAMETER, "only verbose=false is offered"));
    }
    ask(link, |node| {
        let mut txids: Vec<(u64, String)> =
            node.mempool.entries().map(|entry| (entry.arrival, entry.checked.txid.to_string())).collect();
        txids.sort_unstable();
        json!(txids.into_iter().map(|(_, txid)| txid).collect::<Vec<_>>())
    })
}

fn send_raw_transaction(link: &NodeLink, params: &Params<'_>) -> Result<Value> {
    let refused =
        |refusal: super::super::TransactionRefusal| RpcError::new(refusal.code(), refusal.to_string());
    let raw = Vec::<u8>::from_hex(params.text(0, "hexstring")?);
    let raw = raw.map_err(|_| refused(super::super::TransactionRefusal::Malformed))?;
    let mut bounds = TransactionBounds::default();
    if let Some(sat) = params.amount(1, "maxfeerate")? {
        if sat as f64 >= SAT_PER_BTC {
            let message = "Fee rates larger than or equal to 1BTC/kvB are not accepted";
            return Err(RpcError::new(INVALID_PARAMETER, message));
        }
        // Zero means no bound.
        bounds.fee_rate_max = (sat > 0).then_some(sat);
    }
    if let Some(sat) = params.amount(2, "maxburnamount")? {
        bounds.burn_max_sat = sat;
    }
    let txid = link.submit_transaction(&raw, bounds).map_err(refused)?;
    Ok(json!(txid.to_string()))
}

fn submit_block(link: &NodeLink, params: &Params<'_>) -> Result<Value> {
    let undecodable = || RpcError::new(DESERIALIZATION_ERROR, "Block decode failed");
    let raw = Vec::<u8>::from_hex(params.text(0, "hexdata")?).map_err(|_| undecodable())?;
    deserialize::<Block>(&raw).map_err(|_| undecodable())?;
    let submission = ask(link, move |node| node.submit_block(&raw))?;
    match submission {
        Submission::Accepted { .. } => Ok(Value::Null),
        Submission::Stale { .. } => Ok(json!("inconclusive")),
        Submission::Duplicate { .. } => Ok(json!("duplicate")),
        Submission::Rejected { reason } => {
            let code = reason.split([',', '[']).next().unwrap_or_default().trim();
            Ok(json!(code))
        }
        Submission::UnknownTemplate { .. }
        | Submission::Unconfirmed { .. }
        | Submission::NotTaken { .. }
        | Submission::Failed { .. } => Err(RpcError::new(MISC_ERROR, submission.to_string())),
    }
}
