//! The checks between a raw transaction and the mempool.
//!
//! They are those of consensus for the next block, with Bitcoin Core's reasons, and of its policy only what bounds work:
//! size, signature operations, families. [`decode`] and [`verify_scripts`] need no chain and run on the caller's thread, as
//! scripts can take long; [`check`] needs the chain and is quick, so it runs on the node's thread, once before the scripts
//! and once after them. All script rules are in force from the first block of both chains, so a script that was found good
//! stays good.

use std::collections::{HashMap, HashSet};
use std::fmt;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxOut};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{PrecomputedTransactionData, ScriptPubkey, VERIFY_ALL};

use super::coins::{Coin, Coins, is_unspendable, spendable_outputs};
use super::kernel::Tip;
use super::mempool::{Checked, FAMILY_COUNT_MAX, Full, Mempool};

/// Weight units of the heaviest transaction taken: a tenth of a block.
pub(super) const WEIGHT_MAX: u64 = 400_000;
/// Bytes without witness of the smallest: 64 would look like a node of the merkle tree.
const STRIPPED_LEN_MIN: usize = 65;
/// Cost of signature operations of one transaction: a fifth of a block's.
const SIGOPS_MAX: u64 = 16_000;
/// Blocks on top of a coinbase before it can be spent, its own included.
const COINBASE_MATURITY: u32 = 100;
/// Lock times below are heights, others are times.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// Sequence bits of BIP68.
const SEQUENCE_DISABLED: u32 = 1 << 31;
const SEQUENCE_IS_TIME: u32 = 1 << 22;
const SEQUENCE_VALUE: u32 = 0xffff;
/// Seconds in a step of a relative lock time, as a power of two.
const SEQUENCE_TIME_SHIFT: u32 = 9;

/// Why a transaction is refused, with Bitcoin Core's code and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRefusal {
    /// Not exactly one transaction.
    Malformed,
    /// An input is unknown or was spent by the chain.
    MissingInputs,
    /// It was mined, and one of its outputs is unspent.
    AlreadyMined,
    /// Its fee rate is above the caller's bound.
    FeeTooHigh,
    /// It burns more than the caller's bound.
    BurnTooHigh,
    /// A rule of consensus or a bound of the mempool; Bitcoin Core's reason.
    Rejected(String),
    /// The node is gone.
    Down,
}

impl TransactionRefusal {
    /// The error code of JSON-RPC.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Malformed => -22,
            Self::MissingInputs | Self::FeeTooHigh | Self::BurnTooHigh => -25,
            Self::Rejected(_) => -26,
            Self::AlreadyMined => -27,
            Self::Down => -28,
        }
    }
}

impl fmt::Display for TransactionRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "TX decode failed. Make sure the tx has at least one input.",
            Self::MissingInputs => "bad-txns-inputs-missingorspent",
            Self::AlreadyMined => "Transaction outputs already in utxo set",
            Self::FeeTooHigh => "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
            Self::BurnTooHigh => "Unspendable output exceeds maximum configured by user (maxburnamount)",
            Self::Rejected(reason) => reason,
            Self::Down => "the node is shutting down",
        })
    }
}

impl std::error::Error for TransactionRefusal {}

impl From<Full> for TransactionRefusal {
    fn from(full: Full) -> Self {
        match full {
            Full::Mempool => rejected("mempool full"),
            Full::Family => Self::Rejected(format!(
                "too-long-mempool-chain, a transaction has at most {FAMILY_COUNT_MAX} ancestors or descendants"
            )),
        }
    }
}

fn rejected(reason: &str) -> TransactionRefusal {
    TransactionRefusal::Rejected(reason.to_owned())
}

/// The chain as the next block will see it.
pub(super) struct View<'a> {
    pub(super) coins: &'a Coins,
    pub(super) mempool: &'a Mempool,
    pub(super) tip: &'a Tip,
    /// Median time past of the best chain's block at a height.
    pub(super) median_time_past_at: &'a dyn Fn(u32) -> Option<u32>,
}

impl View<'_> {
    fn next_height(&self) -> u32 {
        self.tip.last.height + 1
    }

    /// The coin at `place`, from the chain or the mempool.
    fn coin(&self, place: &OutPoint) -> Option<Coin> {
        let waiting = || {
            let output =
                self.mempool.output(place).filter(|output| !is_unspendable(&output.script_pubkey))?;
            Some(Coin { output: output.clone(), height: self.next_height(), coinbase: false })
        };
        self.coins.find(place).cloned().or_else(waiting)
    }
}

/// Reads one transaction and checks what needs no chain.
pub(super) fn decode(raw: &[u8]) -> Result<Transaction, TransactionRefusal> {
    if raw.len() as u64 > WEIGHT_MAX {
        return Err(rejected("tx-size"));
    }
    let transaction: Transaction = deserialize(raw).map_err(|_| TransactionRefusal::Malformed)?;
    let reason = if transaction.input.is_empty() {
        "bad-txns-vin-empty"
    } else if transaction.output.is_empty() {
        "bad-txns-vout-empty"
    } else if transaction.is_coinbase() {
        "coinbase"
    } else if transaction.input.iter().any(|input| input.previous_output.is_null()) {
        "bad-txns-prevout-null"
    } else if !inputs_are_distinct(&transaction) {
        "bad-txns-inputs-duplicate"
    } else if transaction.weight().to_wu() > WEIGHT_MAX {
        "tx-size"
    } else if transaction.base_size() < STRIPPED_LEN_MIN {
        "tx-size-small"
    } else if transaction.output.iter().any(|output| output.value > Amount::MAX_MONEY) {
        "bad-txns-vout-toolarge"
    } else if outputs_value(&transaction).is_none_or(|value| value > Amount::MAX_MONEY) {
        "bad-txns-txouttotal-toolarge"
    } else {
        return Ok(transaction);
    };
    Err(rejected(reason))
}

fn inputs_are_distinct(transaction: &Transaction) -> bool {
    let mut seen = HashSet::with_capacity(transaction.input.len());
    transaction.input.iter().all(|input| seen.insert(input.previous_output))
}

fn outputs_value(transaction: &Transaction) -> Option<Amount> {
    transaction.output.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value))
}

/// Checks a decoded transaction against the chain and the mempool; its scripts are left to [`verify_scripts`].
pub(super) fn check(transaction: Transaction, view: &View<'_>) -> Result<Checked, TransactionRefusal> {
    if spendable_outputs(&transaction).any(|(place, _)| view.coins.find(&place).is_some()) {
        return Err(TransactionRefusal::AlreadyMined);
    }
    if !is_final(&transaction, view.next_height(), view.tip.median_time_past) {
        return Err(rejected("non-final"));
    }
    let txid = transaction.compute_txid();
    if transaction.input.iter().any(|input| view.mempool.spender(&input.previous_output).is_some()) {
        return Err(rejected("txn-mempool-conflict"));
    }
    let coins: Option<Vec<Coin>> =
        transaction.input.iter().map(|input| view.coin(&input.previous_output)).collect();
    let coins = coins.ok_or(TransactionRefusal::MissingInputs)?;
    if !sequence_locks_hold(&transaction, &coins, view) {
        return Err(rejected("non-BIP68-final"));
    }
    let fee_sat = fee(&transaction, &coins, view.next_height())?;
    let spent: Vec<TxOut> = coins.into_iter().map(|coin| coin.output).collect();
    let places = transaction.input.iter().map(|input| input.previous_output);
    let outputs: HashMap<OutPoint, &TxOut> = places.zip(&spent).collect();
    let sigops = transaction.total_sigop_cost(|place| outputs.get(place).copied().cloned()) as u64;
    if sigops > SIGOPS_MAX {
        return Err(TransactionRefusal::Rejected(format!("bad-txns-too-many-sigops, {sigops}")));
    }
    let weight = transaction.weight().to_wu();
    Ok(Checked { transaction, txid, spent, fee_sat, weight, sigops })
}

/// What the inputs leave above the outputs.
fn fee(transaction: &Transaction, coins: &[Coin], height: u32) -> Result<u64, TransactionRefusal> {
    let mut value = Amount::ZERO;
    for coin in coins {
        let depth = height - coin.height;
        if coin.coinbase && depth < COINBASE_MATURITY {
            return Err(TransactionRefusal::Rejected(format!(
                "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth {depth}"
            )));
        }
        value = value
            .checked_add(coin.output.value)
            .filter(|value| *value <= Amount::MAX_MONEY)
            .ok_or_else(|| rejected("bad-txns-inputvalues-outofrange"))?;
    }
    let outputs = outputs_value(transaction).ok_or_else(|| rejected("bad-txns-txouttotal-toolarge"))?;
    let fee = value.checked_sub(outputs).ok_or_else(|| {
        TransactionRefusal::Rejected(format!(
            "bad-txns-in-belowout, value in ({value}) < value out ({outputs})"
        ))
    })?;
    Ok(fee.to_sat())
}

/// Whether the lock time allows a block at `height` on a chain with this median time past.
fn is_final(transaction: &Transaction, height: u32, median_time_past: u32) -> bool {
    let locktime = transaction.lock_time.to_consensus_u32();
    let now = if locktime < LOCKTIME_THRESHOLD { height } else { median_time_past };
    locktime == 0 || locktime < now || transaction.input.iter().all(|input| input.sequence == Sequence::MAX)
}

/// Whether the relative lock times of all inputs have passed (BIP68).
fn sequence_locks_hold(transaction: &Transaction, coins: &[Coin], view: &View<'_>) -> bool {
    // The version is unsigned for this rule.
    if (transaction.version.0 as u32) < 2 {
        return true;
    }
    transaction.input.iter().zip(coins).all(|(input, coin)| {
        let sequence = input.sequence.to_consensus_u32();
        let steps = sequence & SEQUENCE_VALUE;
        if sequence & SEQUENCE_DISABLED != 0 {
            true
        } else if sequence & SEQUENCE_IS_TIME != 0 {
            let since = (view.median_time_past_at)(coin.height.saturating_sub(1));
            // A parent in the mempool counts from the tip.
            let since = since.unwrap_or(view.tip.median_time_past);
            since.saturating_add(steps << SEQUENCE_TIME_SHIFT) <= view.tip.median_time_past
        } else {
            coin.height.saturating_add(steps) <= view.next_height()
        }
    })
}

/// Runs the scripts of every input, under all rules of consensus.
pub(super) fn verify_scripts(checked: &Checked) -> Result<(), TransactionRefusal> {
    let failed = |what: &dyn fmt::Display| {
        TransactionRefusal::Rejected(format!("mempool-script-verify-flag-failed ({what})"))
    };
    let raw = serialize(&checked.transaction);
    let transaction = bitcoinkernel::Transaction::new(&raw).map_err(|_| TransactionRefusal::Malformed)?;
    let outputs: Result<Vec<bitcoinkernel::TxOut>, bitcoinkernel::KernelError> = checked
        .spent
        .iter()
        .map(|output| {
            let script = ScriptPubkey::new(output.script_pubkey.as_bytes())?;
            Ok(bitcoinkernel::TxOut::new(&script, output.value.to_sat() as i64))
        })
        .collect();
    let outputs = outputs.map_err(|error| failed(&error))?;
    let precomputed =
        PrecomputedTransactionData::new(&transaction, &outputs).map_err(|error| failed(&error))?;
    for (index, output) in outputs.iter().enumerate() {
        let (script, value) = (output.script_pubkey(), output.value());
        bitcoinkernel::verify(&script, Some(value), &transaction, index, Some(VERIFY_ALL), &precomputed)
            .map_err(|_| failed(&format_args!("script of input {index} does not hold")))?;
    }
    Ok(())
}

/// Refuses a transaction that burns more than `max_sat` in outputs that can never be spent.
pub(super) fn check_burn(transaction: &Transaction, max_sat: u64) -> Result<(), TransactionRefusal> {
    let burns = |output: &TxOut| is_unspendable(&output.script_pubkey) && output.value.to_sat() > max_sat;
    if transaction.output.iter().any(burns) { Err(TransactionRefusal::BurnTooHigh) } else { Ok(()) }
}

/// Refuses a fee above `max` satoshis per 1,000 virtual bytes.
pub(super) fn check_fee_rate(checked: &Checked, max: Option<u64>) -> Result<(), TransactionRefusal> {
    let allowed = max.map(|max| u128::from(max) * u128::from(checked.weight.div_ceil(4)) / 1_000);
    match allowed {
        Some(allowed) if u128::from(checked.fee_sat) > allowed => Err(TransactionRefusal::FeeTooHigh),
        _ => Ok(()),
    }
}
