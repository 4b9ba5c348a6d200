//! From what the node gives to what a class is served.
//!
//! The node leaves the coinbase the room of its own configuration (`blockreservedweight`, 8,000 by default), whatever a
//! class needs. What its transactions leave of the block is known, and where that is too little, transactions are dropped
//! from the end until the class has its room: parents come before children, so what remains is valid, and the end is what
//! pays least.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use adit_hasher::{Target, merkle_path};
use adit_proto::distribution::Reserve;
use adit_proto::template::{PrevHash, Template};

use crate::nodes::TemplateTransactions;
use crate::nodes::coinbase::{
    BLOCK_SIGOPS_MAX, BLOCK_WEIGHT_MAX, COINBASE_SEQUENCE, COINBASE_TX_VERSION, height_push,
    witness_commitment,
};

/// Transactions that templates hold, each once, by wtxid: a template has most of them in common with the one before, and as
/// many templates are kept as miners may still solve. Bound: what is kept belongs to a template that somebody holds, or held
/// when the last one came.
#[derive(Debug, Default)]
pub(super) struct SharedTransactions {
    kept: HashMap<[u8; 32], Arc<[u8]>>,
}

impl SharedTransactions {
    /// Has a template hold what others hold already, and forgets what nobody does.
    pub(super) fn share(&mut self, template: &mut NodeTemplate) {
        for one in &mut template.transactions {
            match self.kept.entry(one.wtxid) {
                // The node's word for its hash is not taken.
                Entry::Occupied(kept) if *kept.get() == one.raw => one.raw = Arc::clone(kept.get()),
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => {
                    place.insert(Arc::clone(&one.raw));
                }
            }
        }
        // One reference is ours.
        self.kept.retain(|_, raw| Arc::strong_count(raw) > 1);
    }
}

/// Between two blocks of one period of both lengths nothing changes that an empty template needs: difficulty and the
/// deployments' states change with every 2,016th block (on regtest every 144th, which divides it), the subsidy with every
/// 210,000th (on regtest every 150th, which divides it).
const PERIODS: [u32; 2] = [144, 150];

/// A transaction of the node's template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeTransaction {
    /// Serialised with witness.
    pub(super) raw: Arc<[u8]>,
    pub(super) txid: [u8; 32],
    pub(super) wtxid: [u8; 32],
    pub(super) fee_sat: u64,
    pub(super) weight: u64,
    /// Their cost.
    pub(super) sigops: u64,
}

/// What becomes of the node's template when only some of its transactions are kept.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) fees_sat: u64,
    /// Subsidy and fees.
    value_sat: u64,
    merkle_path: Vec<[u8; 32]>,
    /// The serialised output.
    commitment: Vec<u8>,
    pub(super) transactions: TemplateTransactions,
}

/// The node's template: for every class the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeTemplate {
    pub(super) version: u32,
    /// In header order.
    pub(super) prev_hash: [u8; 32],
    /// At least 1.
    pub(super) height: u32,
    pub(super) nbits: u32,
    pub(super) target: Target,
    /// When it was made, in seconds since 1970; never before a block may.
    pub(super) time: u32,
    /// Subsidy and fees; at least the fees.
    pub(super) value_sat: u64,
    pub(super) transactions: Vec<NodeTransaction>,
}

/// A new tip, as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    /// In header order.
    pub(super) hash: [u8; 32],
    pub(super) height: u32,
    pub(super) nbits: u32,
    pub(super) median_time: u32,
}

impl NodeTemplate {
    /// How many transactions, from the first on, leave the room; `None` if no block can.
    pub(super) fn fitting(&self, reserve: Reserve) -> Option<usize> {
        let mut weight = BLOCK_WEIGHT_MAX.checked_sub(reserve.reserved_weight)?;
        let mut sigops = BLOCK_SIGOPS_MAX - u64::from(reserve.max_additional_sigops);
        for (count, one) in self.transactions.iter().enumerate() {
            match weight.checked_sub(one.weight).zip(sigops.checked_sub(one.sigops)) {
                Some(left) => (weight, sigops) = left,
                None => return Some(count),
            }
        }
        Some(self.transactions.len())
    }

    /// Fees of the first `count` transactions.
    pub(super) fn fees_sat(&self, count: usize) -> u64 {
        self.transactions[..count].iter().map(|one| one.fee_sat).sum()
    }

    /// The template on `tip` without transactions, made of this one of an earlier block and so before the node can give it;
    /// `None` where the next block follows other rules than this one's.
    pub(super) fn empty_on(&self, tip: &Tip, now_unix: u32) -> Option<Self> {
        let height = tip.height.checked_add(1)?;
        let same_period = PERIODS.iter().all(|period| self.height / period == height / period);
        (same_period && tip.nbits == self.nbits).then(|| Self {
            prev_hash: tip.hash,
            height,
            time: now_unix.max(tip.median_time.saturating_add(1)),
            value_sat: self.value_sat - self.fees_sat(self.transactions.len()),
            transactions: Vec::new(),
            ..*self
        })
    }

    /// What miners are given of the first `count` transactions.
    pub(super) fn parts(&self, count: usize) -> Parts {
        let kept = &self.transactions[..count];
        let txids: Vec<[u8; 32]> = std::iter::once([0; 32]).chain(kept.iter().map(|one| one.txid)).collect();
        let dropped_sat: u64 = self.transactions[count..].iter().map(|one| one.fee_sat).sum();
        Parts {
            fees_sat: self.fees_sat(count),
            value_sat: self.value_sat - dropped_sat,
            merkle_path: merkle_path(&txids),
            commitment: witness_commitment(kept.iter().map(|one| one.wtxid)),
            transactions: TemplateTransactions::new(kept.iter().map(|one| Arc::clone(&one.raw))),
        }
    }

    /// The announcement of these parts under an id.
    pub(super) fn announcement(&self, parts: &Parts, template_id: u64, future_template: bool) -> Template {
        Template {
            template_id,
            future_template,
            version: self.version,
            coinbase_tx_version: COINBASE_TX_VERSION,
            coinbase_prefix: height_push(self.height),
            coinbase_tx_input_sequence: COINBASE_SEQUENCE,
            coinbase_tx_value_remaining: parts.value_sat,
            coinbase_tx_outputs_count: 1,
            coinbase_tx_outputs: parts.commitment.clone(),
            coinbase_tx_locktime: self.height - 1,
            merkle_path: parts.merkle_path.clone(),
        }
    }

    /// The tip that activates a future template.
    pub(super) fn activation(&self, template_id: u64) -> PrevHash {
        PrevHash {
            template_id,
            prev_hash: self.prev_hash,
            header_timestamp: self.time,
            nbits: self.nbits,
            target: self.target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transactions of a weight and as many sigops as their place, each with a fee of 1,000 more than the last.
    fn template(weights: &[u64]) -> NodeTemplate {
        let transaction = |(place, weight): (u64, &u64)| NodeTransaction {
            raw: Arc::from([place as u8].as_slice()),
            txid: [place as u8; 32],
            wtxid: [place as u8 + 100; 32],
            fee_sat: 1_000 * place,
            weight: *weight,
            sigops: place,
        };
        let transactions: Vec<_> = (1..).zip(weights).map(transaction).collect();
        let fees_sat: u64 = transactions.iter().map(|one| one.fee_sat).sum();
        NodeTemplate {
            version: 0x2000_0000,
            prev_hash: [9; 32],
            height: 1_000,
            nbits: 0x207f_ffff,
            target: Target::MAX,
            time: 1_700_000_000,
            value_sat: 5_000_000_000 + fees_sat,
            transactions,
        }
    }

    fn reserve(reserved_weight: u64, max_additional_sigops: u16) -> Reserve {
        Reserve { reserved_weight, max_additional_sigops }
    }

    #[test]
    fn what_does_not_fit_is_dropped_from_the_end() {
        let template = template(&[1_000_000, 2_000_000, 990_000]);
        assert_eq!(template.fitting(reserve(10_000, 0)), Some(3));
        assert_eq!(template.fitting(reserve(10_001, 0)), Some(2));
        assert_eq!(template.fitting(reserve(1_000_000, 0)), Some(2));
        assert_eq!(template.fitting(reserve(1_000_001, 0)), Some(1));
        assert_eq!(template.fitting(reserve(3_000_001, 0)), Some(0));
        assert_eq!(template.fitting(reserve(4_000_000, 0)), Some(0));
        assert_eq!(template.fitting(reserve(4_000_001, 0)), None);
        // One after another: the transaction after one that does not fit may follow from it.
        assert_eq!(self::template(&[3_000_000, 2_000_000, 10]).fitting(reserve(2_000, 0)), Some(1));
    }

    #[test]
    fn templates_hold_a_transaction_once_and_let_it_go() {
        let mut shared = SharedTransactions::default();
        let mut first = template(&[400, 400]);
        // As it comes in the node's next answer, with one more and one whose bytes are not what its hash says.
        let copy = |of: &NodeTransaction| NodeTransaction { raw: Arc::from(&*of.raw), ..of.clone() };
        let mut second = template(&[400, 400, 400]);
        second.transactions = second.transactions.iter().map(copy).collect();
        second.transactions[1].raw = Arc::from([9].as_slice());
        shared.share(&mut first);
        shared.share(&mut second);
        let is_same = |at: usize| Arc::ptr_eq(&first.transactions[at].raw, &second.transactions[at].raw);
        assert!(is_same(0) && !is_same(1));
        assert_eq!((shared.kept.len(), &*second.transactions[1].raw), (3, &[9][..]));
        drop((first, second));
        shared.share(&mut template(&[]));
        assert!(shared.kept.is_empty());
    }

    #[test]
    fn sigops_count_too() {
        let mut template = template(&[400, 400]);
        template.transactions[1].sigops = 79_500;
        assert_eq!(template.fitting(reserve(2_000, 499)), Some(2));
        assert_eq!(template.fitting(reserve(2_000, 500)), Some(1));
    }

    #[test]
    fn dropped_transactions_take_their_fees_path_and_commitment_along() {
        let whole = template(&[400, 400, 400]);
        let kept = whole.parts(2);
        let fewer = template(&[400, 400]);
        let expected = fewer.parts(2);
        assert_eq!((kept.fees_sat, expected.fees_sat), (3_000, 3_000));
        assert_eq!(whole.announcement(&kept, 7, true), fewer.announcement(&expected, 7, true));
        assert_eq!(whole.announcement(&kept, 7, true).coinbase_tx_value_remaining, 5_000_003_000);
        assert_ne!(whole.announcement(&whole.parts(3), 7, true), whole.announcement(&kept, 7, true));
        let kept: Vec<&[u8]> = kept.transactions.iter().collect();
        assert_eq!(kept, [&[1u8][..], &[2]]);
    }

    #[test]
    fn an_empty_template_is_made_in_advance_only_within_a_period() {
        let template = template(&[400, 400]);
        let tip = Tip { hash: [7; 32], height: 1_000, nbits: template.nbits, median_time: 1_700_000_100 };
        let empty = template.empty_on(&tip, 1_700_000_050).unwrap();
        let expected = NodeTemplate {
            prev_hash: [7; 32],
            height: 1_001,
            time: 1_700_000_101,
            value_sat: 5_000_000_000,
            transactions: Vec::new(),
            ..template.clone()
        };
        assert_eq!(empty, expected);
        assert_eq!(template.empty_on(&tip, 1_700_000_500).unwrap().time, 1_700_000_500);
        // The template is for 1,000; 1,008 opens a period of difficulty, 1,050 one of subsidy.
        let at = |height| template.empty_on(&Tip { height, ..tip }, 0).map(|empty| empty.height);
        assert_eq!((at(1_006), at(1_007), at(1_008), at(1_049)), (Some(1_007), None, None, None));
        assert_eq!(template.empty_on(&Tip { nbits: 0x1d00_ffff, ..tip }, 0), None);
        assert_eq!(template.empty_on(&Tip { height: u32::MAX, ..tip }, 0), None);
        let later = NodeTemplate { height: 1_040, ..template.clone() };
        let at = |height| later.empty_on(&Tip { height, ..tip }, 0).map(|empty| empty.height);
        assert_eq!((at(1_048), at(1_049)), (Some(1_049), None));
    }
}
