//! The transactions of synthetic blocks: as a usual payment looks, and the same for the same height, index and edition.
//!
//! A template differs from the one before in few transactions, but in every hash of the merkle path: one transaction below each
//! hash of the path is replaced, as it would be by better fees somewhere in each part of a block. The others are shared
//! between the templates, so that a template costs a pointer for each.

use std::sync::Arc;

use adit_hasher::{Digest, merkle_path};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash, Witness};

use crate::nodes::TemplateTransactions;
use crate::nodes::coinbase::{BLOCK_WEIGHT_MAX, witness_commitment};

/// Transactions of a block at most.
pub(super) const TRANSACTIONS_MAX: usize = 8_000;
/// Weight units of each.
pub(super) const WEIGHT: u64 = 438;
/// What each pays for its place.
pub(super) const FEE_SAT: u64 = 1_000;
/// A signature and a public key, as a payment to a key's hash is spent.
const SIGNATURE_LEN: usize = 72;
const PUBLIC_KEY_LEN: usize = 33;

const _: () = assert!(TRANSACTIONS_MAX as u64 * WEIGHT <= BLOCK_WEIGHT_MAX - 4_000);

#[derive(Clone, Debug)]
struct Entry {
    raw: Arc<[u8]>,
    txid: [u8; 32],
    wtxid: [u8; 32],
}

impl Entry {
    fn new(height: u32, index: usize, edition: u64) -> Self {
        let mut seed = [0; 20];
        seed[..4].copy_from_slice(&height.to_le_bytes());
        seed[4..12].copy_from_slice(&(index as u64).to_le_bytes());
        seed[12..].copy_from_slice(&edition.to_le_bytes());
        let digest = Digest::of(&seed).0;
        let witness: Vec<u8> = digest.iter().copied().cycle().take(SIGNATURE_LEN + PUBLIC_KEY_LEN).collect();
        let (signature, public_key) = witness.split_at(SIGNATURE_LEN);
        let payee = WPubkeyHash::from_byte_array(*digest.first_chunk().expect("a digest has 32 bytes"));
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint { txid: Txid::from_byte_array(digest), vout: 0 },
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::from_slice(&[signature, public_key]),
            }],
            output: vec![TxOut {
                value: Amount::from_sat(100_000),
                script_pubkey: ScriptBuf::new_p2wpkh(&payee),
            }],
        };
        Self {
            raw: serialize(&transaction).into(),
            txid: transaction.compute_txid().to_byte_array(),
            wtxid: transaction.compute_wtxid().to_byte_array(),
        }
    }
}

/// What waits for the block at a height, in block order.
#[derive(Clone, Debug)]
pub(super) struct Transactions {
    height: u32,
    edition: u64,
    entries: Vec<Entry>,
}

impl Transactions {
    /// New ones for the block at `height`: those of the block before are in it.
    pub(super) fn new(height: u32, count: usize) -> Self {
        let entries = (0..count.min(TRANSACTIONS_MAX)).map(|index| Entry::new(height, index, 0)).collect();
        Self { height, edition: 0, entries }
    }

    /// Replaces one transaction below each hash of the merkle path.
    pub(super) fn renew(&mut self) {
        self.edition += 1;
        // The coinbase is the first leaf, so that leaves 1, 2 to 3, 4 to 7 and so on make the path's hashes.
        let leaves = self.entries.len();
        for leaf in (0..usize::BITS).map(|level| 1_usize << level).take_while(|leaf| *leaf <= leaves) {
            self.entries[leaf - 1] = Entry::new(self.height, leaf - 1, self.edition);
        }
    }

    /// The first of them, as many as fit a weight.
    pub(super) fn select(&self, weight: u64) -> Selection<'_> {
        let count = usize::try_from(weight / WEIGHT).unwrap_or(usize::MAX).min(self.entries.len());
        Selection(&self.entries[..count])
    }
}

/// The transactions of one template.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection<'a>(&'a [Entry]);

impl Selection<'_> {
    pub(super) fn fees_sat(self) -> u64 {
        self.0.len() as u64 * FEE_SAT
    }

    pub(super) fn merkle_path(self) -> Vec<[u8; 32]> {
        // The coinbase's own txid has no influence on its path.
        let txids: Vec<_> = std::iter::once([0; 32]).chain(self.0.iter().map(|entry| entry.txid)).collect();
        merkle_path(&txids)
    }

    /// The output that commits to the witnesses, serialised.
    pub(super) fn witness_commitment(self) -> Vec<u8> {
        witness_commitment(self.0.iter().map(|entry| entry.wtxid))
    }

    pub(super) fn shared(self) -> TemplateTransactions {
        TemplateTransactions::new(self.0.iter().map(|entry| Arc::clone(&entry.raw)))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::deserialize;

    use super::*;

    #[test]
    fn every_transaction_has_the_weight_that_is_counted() {
        for (height, index) in [(1, 0), (930_000, 7_999)] {
            let entry = Entry::new(height, index, 3);
            let transaction: Transaction = deserialize(&entry.raw).unwrap();
            assert_eq!(transaction.weight().to_wu(), WEIGHT);
            assert_eq!(transaction.compute_txid().to_byte_array(), entry.txid);
            assert_eq!(transaction.compute_wtxid().to_byte_array(), entry.wtxid);
        }
    }

    #[test]
    fn a_renewal_changes_the_whole_path_and_little_else() {
        for count in [0, 1, 2, 3, 4_000] {
            let mut transactions = Transactions::new(930_000, count);
            let before = transactions.clone();
            transactions.renew();
            let (old, new) =
                (before.select(u64::MAX).merkle_path(), transactions.select(u64::MAX).merkle_path());
            assert_eq!(old.len(), (count + 1).next_power_of_two().trailing_zeros() as usize);
            assert!(old.iter().zip(&new).all(|(old, new)| old != new), "{count}");
            let same = |(old, new): (&Entry, &Entry)| Arc::ptr_eq(&old.raw, &new.raw);
            let kept = before.entries.iter().zip(&transactions.entries).filter(|pair| same(*pair)).count();
            assert_eq!(count - kept, old.len());
        }
    }

    #[test]
    fn what_fits_is_selected() {
        let transactions = Transactions::new(5, 10);
        assert_eq!(transactions.select(3 * WEIGHT + 1).fees_sat(), 3 * FEE_SAT);
        assert_eq!(transactions.select(0).merkle_path(), Vec::<[u8; 32]>::new());
        assert_eq!(transactions.select(u64::MAX).shared().len(), 10);
    }
}
