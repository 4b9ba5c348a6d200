//! The unspent outputs of the best chain.
//!
//! The library keeps them too, but gives no way to look one up. This index is built by reading every block at start and
//! follows the chain from then on; memory grows with the outputs (about 150 bytes each), which private chains keep few.
//! Rebuilding beats a second database beside Bitcoin Core's: nothing can disagree after a crash, and 100,000 small blocks
//! are read in seconds.

use std::collections::HashMap;

use bitcoin::hashes::Hash;
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, TxOut};

/// Scripts above this size can never be spent.
const SCRIPT_LEN_MAX: usize = 10_000;

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coin {
    pub(super) output: TxOut,
    /// Height of the block that created it.
    pub(super) height: u32,
    pub(super) coinbase: bool,
}

/// The unspent outputs, following one chain block by block.
#[derive(Debug, Default)]
pub(super) struct Coins {
    unspent: HashMap<OutPoint, Coin>,
}

/// The outputs of a transaction that can be spent, with their places.
pub(super) fn spendable_outputs(transaction: &Transaction) -> impl Iterator<Item = (OutPoint, &TxOut)> {
    let txid = transaction.compute_txid();
    let places = (0..).map(move |vout| OutPoint { txid, vout });
    places.zip(&transaction.output).filter(|(_, output)| !is_unspendable(&output.script_pubkey))
}

/// Whether no witness or signature can ever spend this script.
pub(super) fn is_unspendable(script: &ScriptBuf) -> bool {
    script.is_op_return() || script.len() > SCRIPT_LEN_MAX
}

impl Coins {
    /// Adds the outputs of a block at `height` and removes what it spends. The genesis block's coinbase is no coin.
    pub(super) fn connect(&mut self, block: &Block, height: u32) {
        if block.header.prev_blockhash == bitcoin::BlockHash::all_zeros() {
            return;
        }
        for (index, transaction) in block.txdata.iter().enumerate() {
            let coinbase = index == 0;
            if !coinbase {
                for input in &transaction.input {
                    self.unspent.remove(&input.previous_output);
                }
            }
            for (place, output) in spendable_outputs(transaction) {
                self.unspent.insert(place, Coin { output: output.clone(), height, coinbase });
            }
        }
    }

    /// Takes a block back: `spent` holds, for each transaction but the coinbase, the coins of its inputs.
    pub(super) fn disconnect(&mut self, block: &Block, spent: Vec<Vec<Coin>>) {
        let coins = std::iter::once(Vec::new()).chain(spent);
        for (transaction, coins) in block.txdata.iter().zip(coins.collect::<Vec<_>>()).rev() {
            for (place, _) in spendable_outputs(transaction) {
                self.unspent.remove(&place);
            }
            for (input, coin) in transaction.input.iter().zip(coins) {
                self.unspent.insert(input.previous_output, coin);
            }
        }
    }

    /// The coin at `place`, if it is unspent.
    pub(super) fn find(&self, place: &OutPoint) -> Option<&Coin> {
        self.unspent.get(place)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.unspent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::constants::genesis_block;
    use bitcoin::{Amount, Network, Sequence, TxIn, Witness};

    /// Blocks whose transactions spend each other, within a block as well, taken back in the opposite order.
    #[test]
    fn what_is_taken_back_was_never_there() {
        let genesis = genesis_block(Network::Regtest);
        let mut coins = Coins::default();
        coins.connect(&genesis, 0);
        assert_eq!(coins.len(), 0, "the genesis block pays nobody");

        let mut states = Vec::new();
        let mut blocks = Vec::new();
        let mut open: Vec<OutPoint> = Vec::new();
        for height in 1..20u32 {
            let mut block = genesis.clone();
            block.header.prev_blockhash = genesis.block_hash();
            block.txdata[0].lock_time = bitcoin::absolute::LockTime::from_consensus(height);
            for part in 0..height % 4 {
                let Some(place) = open.pop() else { break };
                let output =
                    TxOut { value: Amount::from_sat(u64::from(part)), script_pubkey: ScriptBuf::new() };
                let burnt = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return([1]) };
                let transaction = Transaction {
                    input: vec![TxIn {
                        previous_output: place,
                        script_sig: ScriptBuf::new(),
                        sequence: Sequence::MAX,
                        witness: Witness::new(),
                    }],
                    output: vec![output.clone(), burnt, output],
                    ..genesis.txdata[0].clone()
                };
                // The next may spend what was just made.
                open.extend(spendable_outputs(&transaction).map(|(place, _)| place));
                block.txdata.push(transaction);
            }
            open.insert(0, OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 });
            let before = coins.unspent.clone();
            let mut spent = Vec::new();
            let mut seen = before.clone();
            for transaction in &block.txdata[1..] {
                spent.push(vec![seen.remove(&transaction.input[0].previous_output).unwrap()]);
                for (place, output) in spendable_outputs(transaction) {
                    seen.insert(place, Coin { output: output.clone(), height, coinbase: false });
                }
            }
            coins.connect(&block, height);
            states.push(before);
            blocks.push((block, spent));
        }
        assert!(coins.len() > 10);
        assert!(open.iter().all(|place| coins.find(place).is_some()));
        for ((block, spent), before) in blocks.into_iter().zip(states).rev() {
            coins.disconnect(&block, spent);
            assert_eq!(coins.unspent, before);
        }
    }
}
