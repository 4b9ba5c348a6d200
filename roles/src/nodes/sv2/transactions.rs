//! The transactions of the templates that may still be solved: with them a block is whole without the provider.
//!
//! A provider sends all transactions of a template at once, and most of them again with the next. A [`Keeper`] keeps each once,
//! with its ids: of what it knows already nothing is read or hashed again. What a provider sends is judged by the template;
//! what does not fit is not kept, since a block made of it would be invalid. What fits is in a [`Store`], which is locked for
//! moments only: the source's thread looks into it while a tip may be behind.
//!
//! Bound: `LEN_MAX` bytes, with what each transaction and each mention of one takes besides; the oldest template makes room.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_hasher::{Hasher, merkle_path};
use adit_proto::distribution::client::TransactionList;
use adit_proto::template::Template;
use hashbrown::HashTable;

use super::serialized::Layout;
use crate::nodes::TemplateTransactions;
use crate::nodes::coinbase::{COMMITMENT_START, commitment_script};

/// Bytes that are taken by what is kept, each transaction counted once.
const LEN_MAX: usize = 64 * 1024 * 1024;
/// What a transaction takes beside its bytes: two ids, two counts, its place in a table, and what the allocator rounds up.
const TRANSACTION_OVERHEAD: usize = 192;
/// What a template takes for each of its transactions, also where it has one many times.
const MENTION_LEN: usize = size_of::<Arc<[u8]>>();

const _: () = assert!(LEN_MAX > adit_codec::frame::PAYLOAD_LEN_MAX as usize);

/// Why transactions are not those of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Bytes that are no transaction.
    Malformed {
        /// Which.
        index: usize,
    },
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

/// What the hashes of one transaction are.
#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    txid: [u8; 32],
    wtxid: [u8; 32],
}

/// Whether transactions with these ids, coinbase left out, are the template's.
fn check(template: &Template, ids: &[Ids]) -> Result<(), Mismatch> {
    // The coinbase's place: its txid is not part of the path.
    let txids: Vec<_> = std::iter::once([0; 32]).chain(ids.iter().map(|ids| ids.txid)).collect();
    if merkle_path(&txids) != template.merkle_path {
        return Err(Mismatch::MerklePath);
    }
    let outputs = &template.coinbase_tx_outputs;
    let commits = outputs.windows(COMMITMENT_START.len()).any(|window| window == COMMITMENT_START);
    if !commits {
        let has_witness = ids.iter().any(|ids| ids.txid != ids.wtxid);
        return if has_witness { Err(Mismatch::WitnessCommitment) } else { Ok(()) };
    }
    let commitment = commitment_script(ids.iter().map(|ids| ids.wtxid));
    let is_committed = outputs.windows(commitment.len()).any(|window| window == commitment.as_bytes());
    if is_committed { Ok(()) } else { Err(Mismatch::WitnessCommitment) }
}

/// One transaction that is kept.
#[derive(Clone, Debug)]
struct Known {
    raw: Arc<[u8]>,
    /// Of these bytes.
    hash: u64,
    ids: Ids,
}

/// Keeps every transaction of the templates in a [`Store`] once. One thread's own.
#[derive(Debug)]
pub struct Keeper {
    store: Store,
    hasher: Hasher,
    /// Every transaction of the store's templates.
    known: HashTable<Known>,
    /// Differs from run to run, so that no provider can make bytes collide.
    keys: ahash::RandomState,
    len: usize,
}

impl Keeper {
    /// Keeps what a store holds. There is one for each store.
    pub fn new(store: Store) -> Self {
        let (hasher, known, keys) = (Hasher::detect(), HashTable::new(), ahash::RandomState::new());
        Self { store, hasher, known, keys, len: 0 }
    }

    /// Puts a template's transactions, without the coinbase, into the store if they are its own.
    ///
    /// # Errors
    /// They are not: nothing changed.
    pub fn keep(
        &mut self,
        template_id: u64,
        template: &Template,
        transactions: &TransactionList,
    ) -> Result<(), Mismatch> {
        let hashes: Vec<u64> = transactions.iter().map(|raw| self.keys.hash_one(raw)).collect();
        let ids = self.ids(transactions, &hashes)?;
        check(template, &ids)?;
        self.insert(template_id, transactions, &hashes, &ids);
        Ok(())
    }

    fn find(&self, raw: &[u8], hash: u64) -> Option<&Known> {
        self.known.find(hash, |known| known.raw[..] == *raw)
    }

    /// Finds out the ids: what is new is read and hashed, all of it as one batch.
    fn ids(&self, transactions: &TransactionList, hashes: &[u64]) -> Result<Vec<Ids>, Mismatch> {
        let mut ids = Vec::with_capacity(transactions.len());
        // Of each new transaction its index, the whole of it, and what of it the txid covers if that is less.
        let (mut new, mut stripped) = (Vec::new(), Vec::new());
        for (index, (raw, hash)) in transactions.iter().zip(hashes).enumerate() {
            if let Some(known) = self.find(raw, *hash) {
                ids.push(known.ids);
                continue;
            }
            let layout = Layout::of(raw).ok_or(Mismatch::Malformed { index })?;
            let begin = stripped.len();
            layout.strip_into(raw, &mut stripped);
            ids.push(Ids::default());
            new.push((index, raw, begin..stripped.len()));
        }
        let whole = new.iter().map(|(_, raw, _)| *raw);
        let parts = new.iter().map(|(_, _, part)| &stripped[part.clone()]).filter(|part| !part.is_empty());
        let messages: Vec<&[u8]> = whole.chain(parts).collect();
        let mut digests = vec![[0; 32]; messages.len()];
        self.hasher.message_digests(&messages, &mut digests);
        let (wtxids, txids) = digests.split_at(new.len());
        let mut txids = txids.iter();
        for ((index, _, part), wtxid) in new.iter().zip(wtxids) {
            let txid = if part.is_empty() { None } else { txids.next() };
            ids[*index] = Ids { txid: *txid.unwrap_or(wtxid), wtxid: *wtxid };
        }
        Ok(ids)
    }

    fn insert(&mut self, template_id: u64, transactions: &TransactionList, hashes: &[u64], ids: &[Ids]) {
        let mut shared: Vec<Arc<[u8]>> = Vec::with_capacity(transactions.len());
        for ((raw, hash), ids) in transactions.iter().zip(hashes).zip(ids) {
            // Also one that is new may be in the list twice.
            if let Some(known) = self.find(raw, *hash) {
                shared.push(Arc::clone(&known.raw));
                continue;
            }
            let known = Known { raw: raw.into(), hash: *hash, ids: *ids };
            self.len += len_of(raw);
            shared.push(Arc::clone(&known.raw));
            self.known.insert_unique(*hash, known, |known| known.hash);
        }
        self.len += shared.len() * MENTION_LEN;
        self.store.lock().insert(template_id, TemplateTransactions::new(shared));
        self.sweep_if_lost();
        while self.len > LEN_MAX && self.store.drop_oldest() {
            self.sweep();
        }
    }

    /// Forgets transactions that no template has, if the store has forgotten a template.
    pub fn sweep_if_lost(&mut self) {
        if self.store.0.has_lost.swap(false, Ordering::AcqRel) {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        self.known.retain(|known| Arc::strong_count(&known.raw) > 1);
        let raws: usize = self.known.iter().map(|known| len_of(&known.raw)).sum();
        let lists: Vec<_> = self.store.lock().values().map(TemplateTransactions::shared).collect();
        // Templates that share their transactions share the mentions, too.
        let mut seen = HashSet::new();
        let lists = lists.iter().filter(|list| seen.insert(list.as_ptr()));
        self.len = raws + lists.map(|list| list.len()).sum::<usize>() * MENTION_LEN;
    }
}

/// What a transaction takes.
fn len_of(raw: &[u8]) -> usize {
    raw.len() + TRANSACTION_OVERHEAD
}

/// By the source's template id.
type Templates = BTreeMap<u64, TemplateTransactions>;

/// See the module. Shared between the source's thread, which forgets, the thread that checks, which adds, and whoever assembles
/// a block.
#[derive(Clone, Debug, Default)]
pub struct Store(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    templates: Mutex<Templates>,
    /// Whether templates were forgotten since transactions were swept.
    has_lost: AtomicBool,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Templates> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the table whole.
        self.0.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the oldest template, if there is another.
    fn drop_oldest(&self) -> bool {
        let mut templates = self.lock();
        templates.len() > 1 && templates.pop_first().is_some()
    }

    /// A template that has nothing but its coinbase.
    pub fn insert_empty(&self, template_id: u64) {
        self.lock().insert(template_id, TemplateTransactions::default());
    }

    /// Keeps for `template_id` what is kept for `other`, which has the same; whether there was anything.
    pub fn share(&self, other: u64, template_id: u64) -> bool {
        let mut templates = self.lock();
        let Some(transactions) = templates.get(&other).cloned() else { return false };
        templates.insert(template_id, transactions);
        true
    }

    /// Forgets all templates but those that `is_kept` names, and gives what they had: to let thousands of transactions go takes
    /// a part of a millisecond, which is for the caller to choose.
    pub fn retain(&self, is_kept: impl Fn(u64) -> bool) -> Vec<TemplateTransactions> {
        let mut templates = self.lock();
        let leaving: Vec<u64> =
            templates.keys().copied().filter(|template_id| !is_kept(*template_id)).collect();
        let lost: Vec<_> = leaving.iter().filter_map(|template_id| templates.remove(template_id)).collect();
        self.0.has_lost.fetch_or(!lost.is_empty(), Ordering::AcqRel);
        lost
    }

    /// The transactions of a template, if they are here.
    pub fn find(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.lock().get(&template_id).cloned()
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

    /// Has a store keep what is no template's.
    fn insert(keeper: &mut Keeper, template_id: u64, raws: Vec<Vec<u8>>) {
        let transactions: TransactionList = raws.into_iter().collect();
        let hashes: Vec<u64> = transactions.iter().map(|raw| keeper.keys.hash_one(raw)).collect();
        keeper.insert(template_id, &transactions, &hashes, &vec![Ids::default(); hashes.len()]);
    }

    fn empty() -> (Store, Keeper) {
        let store = Store::default();
        (store.clone(), Keeper::new(store))
    }

    #[test]
    fn transactions_are_kept_once() {
        let (store, mut keeper) = empty();
        insert(&mut keeper, 1, vec![raw(1, 100), raw(2, 100)]);
        insert(&mut keeper, 2, vec![raw(2, 100), raw(3, 100)]);
        let taken = |transactions: usize, mentions: usize| {
            transactions * (100 + TRANSACTION_OVERHEAD) + mentions * MENTION_LEN
        };
        assert_eq!(keeper.len, taken(3, 4));
        assert!(store.share(2, 3) && !store.share(9, 4));
        store.retain(|template_id| template_id == 3);
        keeper.sweep_if_lost();
        assert_eq!(keeper.len, taken(2, 2));
        let found = store.find(3).expect("kept");
        assert!(found.iter().eq([&raw(2, 100)[..], &raw(3, 100)]));
        assert!(store.find(1).is_none());
        drop(found);
        store.retain(|_| false);
        keeper.sweep_if_lost();
        assert_eq!((keeper.len, keeper.known.len()), (0, 0));
    }

    #[test]
    fn mentions_of_one_transaction_take_room_too() {
        let (store, mut keeper) = empty();
        insert(&mut keeper, 0, vec![raw(0, 60 * 1024 * 1024)]);
        for template_id in 1..=5 {
            // As often as a message can list it, which takes a megabyte.
            insert(&mut keeper, template_id, vec![raw(1, 61); 65_535]);
            assert_eq!(store.find(0).is_some(), template_id < 4, "{template_id}");
        }
        assert!((1..=5).all(|template_id| store.find(template_id).is_some()));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (store, mut keeper) = empty();
        let len = 16 * 1024 * 1024 - 1_000;
        for template_id in 0..8 {
            insert(&mut keeper, template_id, vec![raw(template_id as u32, len)]);
        }
        assert!(keeper.len <= LEN_MAX);
        let kept: Vec<u64> = (0..8).filter(|id| store.find(*id).is_some()).collect();
        assert_eq!(kept, [4, 5, 6, 7]);
    }
}
