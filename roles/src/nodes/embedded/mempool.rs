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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::consensus::serialize;
    use bitcoin::hashes::Hash;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, Witness};
    use std::collections::HashSet;

    /// A coin of the chain.
    pub(in super::super) fn coin(number: u8) -> OutPoint {
        OutPoint { txid: Txid::from_byte_array([number; 32]), vout: 0 }
    }

    /// A transaction that nobody signed; `weight` is what it claims to weigh.
    pub(in super::super) fn spend(from: &[OutPoint], outputs: u64, fee_sat: u64, weight: u64) -> Checked {
        let input = from.iter().map(|place| TxIn {
            previous_output: *place,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        });
        let output = |value| TxOut {
            value: Amount::from_sat(value),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        };
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: input.collect(),
            output: (1..=outputs).map(output).collect(),
        };
        let txid = transaction.compute_txid();
        Checked { transaction, txid, spent: Vec::new(), fee_sat, weight, sigops: 4 }
    }

    pub(in super::super) fn insert(mempool: &mut Mempool, checked: &Checked) -> Result<(), Full> {
        mempool.insert(checked.clone(), serialize(&checked.transaction).into())
    }

    pub(in super::super) fn output(checked: &Checked, vout: u32) -> OutPoint {
        OutPoint { txid: checked.txid, vout }
    }

    /// Everything that the module's first lines promise.
    fn check_invariants(mempool: &Mempool) {
        let entries: HashSet<Txid> = mempool.entries.keys().copied().collect();
        assert_eq!(mempool.weight, mempool.entries().map(|entry| entry.checked.weight).sum::<u64>());
        assert_eq!(mempool.by_rate.iter().map(|(_, txid)| *txid).collect::<HashSet<_>>(), entries);
        let mut spent = HashSet::new();
        for entry in mempool.entries() {
            for input in &entry.checked.transaction.input {
                let place = input.previous_output;
                assert!(spent.insert(place), "one spender for each output");
                assert_eq!(mempool.spender(&place), Some(&entry.checked.txid));
                assert_eq!(entry.parents.contains(&place.txid), entries.contains(&place.txid));
                if let Some(parent) = mempool.entry(&place.txid) {
                    assert!(parent.arrival < entry.arrival && parent.children.contains(&entry.checked.txid));
                }
            }
            assert!(entry.children.is_subset(&entries.iter().copied().collect()));
            assert!(mempool.with_ancestors(entry.checked.txid).len() <= FAMILY_COUNT_MAX);
            assert!(mempool.with_descendants(entry.checked.txid).len() <= FAMILY_COUNT_MAX);
        }
        assert_eq!(mempool.spends.len(), spent.len());
        assert!(
            mempool.len() <= mempool.limits.transactions_max && mempool.weight <= mempool.limits.weight_max
        );
    }

    #[test]
    fn the_least_fee_rate_makes_room_with_its_descendants() {
        let mut mempool = Mempool::new(MempoolLimits { transactions_max: 3, weight_max: 4_000 });
        let poor = spend(&[coin(1)], 2, 100, 1_000);
        let child = spend(&[output(&poor, 0)], 1, 9_000, 1_000);
        let rich = spend(&[coin(2)], 1, 5_000, 1_000);
        for one in [&poor, &child, &rich] {
            assert_eq!(insert(&mut mempool, one), Ok(()));
        }
        assert_eq!(insert(&mut mempool, &spend(&[coin(3)], 1, 50, 1_000)), Err(Full::Mempool));
        check_invariants(&mempool);
        assert_eq!(insert(&mut mempool, &spend(&[coin(4)], 1, 2_000, 1_000)), Ok(()));
        check_invariants(&mempool);
        assert_eq!((mempool.len(), mempool.entry(&child.txid).is_some()), (2, false));
        assert_eq!(insert(&mut mempool, &spend(&[coin(5)], 1, 90_000, 3_000)), Ok(()));
        assert_eq!((mempool.len(), mempool.weight()), (2, 4_000));
        check_invariants(&mempool);
    }

    #[test]
    fn a_block_takes_its_transactions_and_what_conflicts() {
        let mut mempool = Mempool::new(MempoolLimits::default());
        let mined = spend(&[coin(1)], 1, 100, 1_000);
        let child = spend(&[output(&mined, 0)], 1, 100, 1_000);
        let loser = spend(&[coin(2)], 1, 100, 1_000);
        let orphan = spend(&[output(&loser, 0), output(&child, 0)], 1, 100, 1_000);
        for one in [&mined, &child, &loser, &orphan] {
            assert_eq!(insert(&mut mempool, one), Ok(()));
        }
        let winner = spend(&[coin(2)], 2, 100, 1_000);
        let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        block.txdata.extend([mined.transaction.clone(), winner.transaction]);
        mempool.connect(&block);
        check_invariants(&mempool);
        assert_eq!(mempool.entries().map(|entry| entry.checked.txid).collect::<Vec<_>>(), [child.txid]);
        assert!(mempool.with_ancestors(child.txid).len() == 1);
    }

    /// Random families, blocks and evictions; a seed that fails is printed with its step.
    #[test]
    fn invariants_hold_under_random_use() {
        for seed in 1..40u64 {
            let mut state = seed;
            let mut random = |below: u64| {
                // Xorshift: enough to vary the steps.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut mempool = Mempool::new(MempoolLimits { transactions_max: 30, weight_max: 40_000 });
            let mut places: Vec<OutPoint> = (0..40).map(coin).collect();
            for step in 0..200 {
                if random(12) == 0 {
                    let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
                    let entries: Vec<Transaction> =
                        mempool.entries().map(|entry| entry.checked.transaction.clone()).collect();
                    block.txdata.extend(entries.into_iter().take(random(4) as usize));
                    mempool.connect(&block);
                } else {
                    let from: BTreeSet<OutPoint> =
                        (0..=random(3)).map(|_| places[random(places.len() as u64) as usize]).collect();
                    if from.iter().any(|place| mempool.spender(place).is_some()) {
                        continue;
                    }
                    let from: Vec<OutPoint> = from.into_iter().collect();
                    let mut checked = spend(&from, 1 + random(3), random(10_000), 400 + random(3_000));
                    // No txid comes twice, as on a chain.
                    checked.transaction.lock_time = LockTime::from_consensus(step);
                    checked.txid = checked.transaction.compute_txid();
                    if insert(&mut mempool, &checked).is_ok() {
                        places.extend(
                            (0..checked.transaction.output.len() as u32).map(|vout| output(&checked, vout)),
                        );
                    }
                }
                check_invariants(&mempool);
            }
            let all = mempool.take_all();
            check_invariants(&mempool);
            assert!(mempool.len() == 0 && !all.is_empty(), "seed {seed}");
        }
    }
}
