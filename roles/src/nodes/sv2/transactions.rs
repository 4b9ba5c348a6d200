//! The transactions of the templates that may still be solved: with them a block is whole without the provider.
//!
//! A provider sends all transactions of a template at once, and most of them again with the next: those that are kept
//! already are shared. What it sends is judged by the template ([`check`]); what does not fit is not kept, since a block
//! made of it would be invalid.
//!
//! Bound: [`LEN_MAX`] bytes, with what each transaction and each mention of one takes besides; the oldest template makes room.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_hasher::merkle_path;
use adit_proto::template::Template;
use bitcoin::Transaction;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;

use crate::nodes::TemplateTransactions;
use crate::nodes::coinbase::{COMMITMENT_START, commitment_script};

/// Bytes that are taken by what is kept, each transaction counted once.
const LEN_MAX: usize = 64 * 1024 * 1024;
/// What a transaction takes beside its bytes: two counts, its place in a table, and what the allocator rounds up.
const TRANSACTION_OVERHEAD: usize = 64;
/// What a template takes for each of its transactions, also where it has one many times.
const MENTION_LEN: usize = size_of::<Arc<[u8]>>();

const _: () = assert!(LEN_MAX > adit_codec::frame::PAYLOAD_LEN_MAX as usize);

/// Why transactions are not those of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// Bytes that are no transaction.
    Malformed { index: usize },
    /// They give another merkle path.
    MerklePath,
    /// The template's outputs do not commit to their witnesses.
    WitnessCommitment,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { index } => write!(f, "number {index} is no transaction"),
            Self::MerklePath => f.write_str("they do not give the template's merkle path"),
            Self::WitnessCommitment => {
                f.write_str("the template's witness commitment is not that of their witnesses")
            }
        }
    }
}

/// Whether these transactions, coinbase left out, are the template's.
pub(super) fn check(template: &Template, transactions: &[Vec<u8>]) -> Result<(), Mismatch> {
    // The coinbase's place: its txid is not part of the path.
    let (mut txids, mut wtxids) = (vec![[0; 32]], Vec::with_capacity(transactions.len()));
    let mut has_witness = false;
    for (index, raw) in transactions.iter().enumerate() {
        let transaction: Transaction = deserialize(raw).map_err(|_| Mismatch::Malformed { index })?;
        let (txid, wtxid) = (transaction.compute_txid(), transaction.compute_wtxid());
        has_witness |= txid.to_byte_array() != wtxid.to_byte_array();
        txids.push(txid.to_byte_array());
        wtxids.push(wtxid.to_byte_array());
    }
    if merkle_path(&txids) != template.merkle_path {
        return Err(Mismatch::MerklePath);
    }
    let commitment = commitment_script(wtxids.into_iter());
    let outputs = &template.coinbase_tx_outputs;
    let is_committed = outputs.windows(commitment.len()).any(|window| window == commitment.as_bytes());
    let commits = outputs.windows(COMMITMENT_START.len()).any(|window| window == COMMITMENT_START);
    match is_committed || !(commits || has_witness) {
        true => Ok(()),
        false => Err(Mismatch::WitnessCommitment),
    }
}

#[derive(Debug, Default)]
struct Kept {
    /// By the source's template id.
    templates: BTreeMap<u64, TemplateTransactions>,
    /// Every transaction of these once.
    raws: HashSet<Arc<[u8]>>,
    len: usize,
}

impl Kept {
    /// Forgets transactions that no template has.
    fn sweep(&mut self) {
        self.raws.retain(|raw| Arc::strong_count(raw) > 1);
        let raws: usize = self.raws.iter().map(|raw| len_of(raw)).sum();
        // Templates that share their transactions share the mentions, too.
        let mut seen = HashSet::new();
        let lists = self.templates.values().map(TemplateTransactions::shared);
        let mentions: usize = lists.filter(|list| seen.insert(list.as_ptr())).map(|list| list.len()).sum();
        self.len = raws + mentions * MENTION_LEN;
    }
}

/// What a transaction takes.
fn len_of(raw: &[u8]) -> usize {
    raw.len() + TRANSACTION_OVERHEAD
}

/// See the module. Shared between the source's thread, which writes, and whoever assembles a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Store(Arc<Mutex<Kept>>);

impl Store {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere leaves the tables whole: at worst bytes are counted that nobody needs.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a template's transactions, which [`check`] found good.
    pub(super) fn insert(&self, template_id: u64, transactions: Vec<Vec<u8>>) {
        let mut kept = self.lock();
        let mut shared: Vec<Arc<[u8]>> = Vec::with_capacity(transactions.len());
        kept.len += transactions.len() * MENTION_LEN;
        for raw in transactions {
            if let Some(known) = kept.raws.get(&raw[..]) {
                shared.push(Arc::clone(known));
                continue;
            }
            let raw: Arc<[u8]> = raw.into();
            kept.len += len_of(&raw);
            kept.raws.insert(Arc::clone(&raw));
            shared.push(raw);
        }
        kept.templates.insert(template_id, TemplateTransactions::new(shared));
        while kept.len > LEN_MAX && kept.templates.len() > 1 {
            kept.templates.pop_first();
            kept.sweep();
        }
    }

    /// Keeps for `template_id` what is kept for `other`, which has the same; whether there was anything.
    pub(super) fn share(&self, other: u64, template_id: u64) -> bool {
        let mut kept = self.lock();
        let Some(transactions) = kept.templates.get(&other).cloned() else { return false };
        kept.templates.insert(template_id, transactions);
        true
    }

    /// Forgets all templates but those that `is_kept` names.
    pub(super) fn retain(&self, is_kept: impl Fn(u64) -> bool) {
        let mut kept = self.lock();
        let before = kept.templates.len();
        kept.templates.retain(|template_id, _| is_kept(*template_id));
        if kept.templates.len() < before {
            kept.sweep();
        }
    }

    /// The transactions of a template, if they are here.
    pub(super) fn find(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.lock().templates.get(&template_id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(number: u32, len: usize) -> Vec<u8> {
        let mut raw = vec![7; len];
        raw[..4].copy_from_slice(&number.to_le_bytes());
        raw
    }

    #[test]
    fn transactions_are_kept_once() {
        let store = Store::default();
        store.insert(1, vec![raw(1, 100), raw(2, 100)]);
        store.insert(2, vec![raw(2, 100), raw(3, 100)]);
        let taken = |transactions: usize, mentions: usize| {
            transactions * (100 + TRANSACTION_OVERHEAD) + mentions * MENTION_LEN
        };
        assert_eq!(store.lock().len, taken(3, 4));
        assert!(store.share(2, 3) && !store.share(9, 4));
        store.retain(|template_id| template_id == 3);
        assert_eq!(store.lock().len, taken(2, 2));
        let found = store.find(3).expect("kept");
        assert!(found.iter().eq([&raw(2, 100)[..], &raw(3, 100)]));
        assert!(store.find(1).is_none());
        drop(found);
        store.retain(|_| false);
        let kept = store.lock();
        assert_eq!((kept.len, kept.raws.len()), (0, 0));
    }

    #[test]
    fn mentions_of_one_transaction_take_room_too() {
        let store = Store::default();
        store.insert(0, vec![raw(0, 60 * 1024 * 1024)]);
        for template_id in 1..=5 {
            // As often as a message can list it, which takes a megabyte.
            store.insert(template_id, vec![raw(1, 61); 65_535]);
            assert_eq!(store.find(0).is_some(), template_id < 4, "{template_id}");
        }
        assert!((1..=5).all(|template_id| store.find(template_id).is_some()));
    }

    #[test]
    fn the_oldest_makes_room() {
        let store = Store::default();
        let len = 16 * 1024 * 1024 - 1_000;
        for template_id in 0..8 {
            store.insert(template_id, vec![raw(template_id as u32, len)]);
        }
        assert!(store.lock().len <= LEN_MAX);
        let kept: Vec<u64> = (0..8).filter(|id| store.find(*id).is_some()).collect();
        assert_eq!(kept, [4, 5, 6, 7]);
    }
}
