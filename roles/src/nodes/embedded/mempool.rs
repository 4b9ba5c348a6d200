//! Transactions that wait for a block.
//!
//! Invariants: every input of an entry is a coin of the best chain or an output of another entry; no two entries spend
//! the same output; a parent arrived before its children, so order of arrival is an order in which a block can hold them.
//! Bounds: [`MempoolLimits`]; an entry has at most [`FAMILY_COUNT_MAX`] ancestors and as many descendants, itself
//! included, which bounds every walk. There is no replacement: the first spender of an output stays until it is mined,
//! conflicts with a block, or is evicted for its fee rate.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{Block, OutPoint, Transaction, TxOut, Txid};

/// Ancestors of an entry, and its descendants, each with itself.
pub(super) const FAMILY_COUNT_MAX: usize = 25;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolLimits {
    /// Transactions; 50,000 by default.
    pub transactions_max: usize,
    /// Weight units of all together; 200 million by default: 50 full blocks, at most 200 MB.
    pub weight_max: u64,
}

impl Default for MempoolLimits {
    fn default() -> Self {
        Self { transactions_max: 50_000, weight_max: 200_000_000 }
    }
}

/// A transaction that passed every check, with what the checks found.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) transaction: Transaction,
    pub(super) txid: Txid,
    /// The outputs that it spends, in the order of its inputs.
    pub(super) spent: Vec<TxOut>,
    pub(super) fee_sat: u64,
    pub(super) weight: u64,
    /// In block-wide cost units (BIP141).
    pub(super) sigops: u64,
}

/// A waiting transaction.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) checked: Checked,
    /// Serialised with witness; shared with the templates that hold it.
    pub(super) raw: Arc<[u8]>,
    /// Internal byte order.
    pub(super) wtxid: [u8; 32],
    pub(super) arrival: u64,
    parents: BTreeSet<Txid>,
    children: BTreeSet<Txid>,
}

/// Satoshis per weight unit, in steps of 2^-32.
pub(super) fn fee_rate(fee_sat: u64, weight: u64) -> u128 {
    (u128::from(fee_sat) << 32) / u128::from(weight.max(1))
}

impl Entry {
    fn rate(&self) -> u128 {
        fee_rate(self.checked.fee_sat, self.checked.weight)
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Its fee rate is the lowest and the mempool is full.
    Mempool,
    /// Too many ancestors, or an ancestor has too many descendants.
    Family,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mempool {
    limits: MempoolLimits,
    entries: HashMap<Txid, Entry>,
    spends: HashMap<OutPoint, Txid>,
    by_rate: BTreeSet<(u128, Txid)>,
    weight: u64,
    arrivals: u64,
}

impl Mempool {
    pub(super) fn new(limits: MempoolLimits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            spends: HashMap::new(),
            by_rate: BTreeSet::new(),
            weight: 0,
            arrivals: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Weight units of all entries.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn entry(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    /// Entries in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Which entry spends an output.
    pub(super) fn spender(&self, place: &OutPoint) -> Option<&Txid> {
        self.spends.get(place)
    }

    /// The output of an entry, spent by another or not.
    pub(super) fn output(&self, place: &OutPoint) -> Option<&TxOut> {
        self.entries.get(&place.txid)?.checked.transaction.output.get(place.vout as usize)
    }

    /// Adds a transaction that was checked against this mempool and the present chain.
    pub(super) fn insert(&mut self, checked: Checked, raw: Arc<[u8]>) -> Result<(), Full> {
        let txid = checked.txid;
        let inputs = || checked.transaction.input.iter().map(|input| input.previous_output);
        let parents: BTreeSet<Txid> =
            inputs().map(|place| place.txid).filter(|parent| self.entries.contains_key(parent)).collect();
        let ancestors = self.family(&parents, |entry| &entry.parents);
        let crowded = |ancestor: &Txid| {
            self.family(&BTreeSet::from([*ancestor]), |entry| &entry.children).len() >= FAMILY_COUNT_MAX
        };
        if ancestors.len() >= FAMILY_COUNT_MAX || ancestors.iter().any(crowded) {
            return Err(Full::Family);
        }
        for place in inputs() {
            self.spends.insert(place, txid);
        }
        for parent in &parents {
            if let Some(entry) = self.entries.get_mut(parent) {
                entry.children.insert(txid);
            }
        }
        let wtxid = *AsRef::<[u8; 32]>::as_ref(&checked.transaction.compute_wtxid());
        self.weight += checked.weight;
        self.arrivals += 1;
        let entry = Entry { checked, raw, wtxid, arrival: self.arrivals, parents, children: BTreeSet::new() };
        self.by_rate.insert((entry.rate(), txid));
        self.entries.insert(txid, entry);
        self.evict();
        if self.entries.contains_key(&txid) { Ok(()) } else { Err(Full::Mempool) }
    }

    /// Drops the lowest fee rates, and what depends on them, until the limits hold.
    fn evict(&mut self) {
        while self.entries.len() > self.limits.transactions_max || self.weight > self.limits.weight_max {
            let Some(&(_, txid)) = self.by_rate.first() else { return };
            self.remove_family(txid);
        }
    }

    /// `roots` and all that is reached from them by `next`.
    fn family(&self, roots: &BTreeSet<Txid>, next: impl Fn(&Entry) -> &BTreeSet<Txid>) -> BTreeSet<Txid> {
        let mut family = roots.clone();
        let mut waiting: Vec<Txid> = roots.iter().copied().collect();
        while let Some(txid) = waiting.pop() {
            let Some(entry) = self.entries.get(&txid) else { continue };
            waiting.extend(next(entry).iter().copied().filter(|relative| family.insert(*relative)));
        }
        family
    }

    /// An entry's ancestors and itself.
    pub(super) fn with_ancestors(&self, txid: Txid) -> BTreeSet<Txid> {
        self.family(&BTreeSet::from([txid]), |entry| &entry.parents)
    }

    /// An entry's descendants and itself.
    pub(super) fn with_descendants(&self, txid: Txid) -> BTreeSet<Txid> {
        self.family(&BTreeSet::from([txid]), |entry| &entry.children)
    }

    fn remove_family(&mut self, txid: Txid) {
        for member in self.with_descendants(txid) {
            self.remove(&member);
        }
    }

    fn remove(&mut self, txid: &Txid) {
        let Some(entry) = self.entries.remove(txid) else { return };
        self.weight -= entry.checked.weight;
        self.by_rate.remove(&(entry.rate(), *txid));
        for input in &entry.checked.transaction.input {
            self.spends.remove(&input.previous_output);
        }
        for parent in &entry.parents {
            if let Some(parent) = self.entries.get_mut(parent) {
                parent.children.remove(txid);
            }
        }
        for child in &entry.children {
            if let Some(child) = self.entries.get_mut(child) {
                child.parents.remove(txid);
            }
        }
    }

    /// Drops what a block of the best chain holds, and what conflicts with it.
    pub(super) fn connect(&mut self, block: &Block) {
        for transaction in &block.txdata {
            self.remove(&transaction.compute_txid());
            for input in &transaction.input {
                if let Some(conflict) = self.spends.get(&input.previous_output).copied() {
                    self.remove_family(conflict);
                }
            }
        }
    }

    /// Empties the mempool and gives back its transactions, parents first, with their bytes.
    pub(super) fn take_all(&mut self) -> Vec<(Transaction, Arc<[u8]>)> {
        let mut entries: Vec<Entry> = self.entries.drain().map(|(_, entry)| entry).collect();
        entries.sort_unstable_by_key(|entry| entry.arrival);
        self.spends.clear();
        self.by_rate.clear();
        self.weight = 0;
        entries.into_iter().map(|entry| (entry.checked.transaction, entry.raw)).collect()
    }
}
