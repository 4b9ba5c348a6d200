//! Which transactions go into a template.
//!
//! Packages are taken by the fee rate of a transaction together with those of its ancestors that are not taken yet, so a
//! child can pay for its parents. Work is bounded by the mempool's size times the bound on families, and ends early once
//! the block is nearly full.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use bitcoin::Txid;

use super::mempool::{Entry, Mempool, fee_rate};

/// Packages in a row that may not fit before a nearly full block is left as it is.
const MISFITS_MAX: usize = 1_000;
/// A block with less room than this counts as nearly full.
const NEARLY_FULL_WEIGHT: u64 = 4_000;

/// What fits into a block beside its coinbase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) weight: u64,
    pub(super) sigops: u64,
}

/// Transactions in block order.
#[derive(Debug, Default)]
pub(super) struct Selection<'a> {
    pub(super) entries: Vec<&'a Entry>,
    pub(super) fees_sat: u64,
    pub(super) weight: u64,
    pub(super) sigops: u64,
}

struct Package<'a> {
    entries: Vec<&'a Entry>,
    fees_sat: u64,
    weight: u64,
    sigops: u64,
}

impl Package<'_> {
    fn rate(&self) -> u128 {
        fee_rate(self.fees_sat, self.weight)
    }
}

/// The best packages that fit into `room`.
pub(super) fn select(mempool: &Mempool, room: Room) -> Selection<'_> {
    let mut selection = Selection::default();
    let mut taken: HashSet<Txid> = HashSet::new();
    // Ties go to what arrived first.
    let mut heap: BinaryHeap<(u128, Reverse<u64>, Txid)> = mempool
        .entries()
        .map(|entry| {
            let txid = entry.checked.txid;
            (package(mempool, txid, &taken).rate(), Reverse(entry.arrival), txid)
        })
        .collect();
    let mut misfits = 0;
    while let Some((rate, arrival, txid)) = heap.pop() {
        if taken.contains(&txid) {
            continue;
        }
        let package = package(mempool, txid, &taken);
        // Ancestors that were taken meanwhile change the rate; a better one was pushed when they were.
        if package.rate() < rate {
            heap.push((package.rate(), arrival, txid));
            continue;
        }
        let fits = selection.weight + package.weight <= room.weight
            && selection.sigops + package.sigops <= room.sigops;
        if !fits {
            misfits += 1;
            if misfits > MISFITS_MAX && selection.weight + NEARLY_FULL_WEIGHT > room.weight {
                break;
            }
            continue;
        }
        misfits = 0;
        let members: Vec<Txid> = package.entries.iter().map(|entry| entry.checked.txid).collect();
        taken.extend(&members);
        selection.fees_sat += package.fees_sat;
        selection.weight += package.weight;
        selection.sigops += package.sigops;
        selection.entries.extend(package.entries);
        for txid in members {
            renew_descendants(mempool, txid, &taken, &mut heap);
        }
    }
    selection
}

/// A transaction with its ancestors that are not taken yet, in order of arrival.
fn package<'a>(mempool: &'a Mempool, txid: Txid, taken: &HashSet<Txid>) -> Package<'a> {
    let mut entries: Vec<&Entry> = mempool
        .with_ancestors(txid)
        .iter()
        .filter(|member| !taken.contains(*member))
        .filter_map(|member| mempool.entry(member))
        .collect();
    entries.sort_unstable_by_key(|entry| entry.arrival);
    let sum = |of: fn(&Entry) -> u64| entries.iter().map(|entry| of(entry)).sum();
    Package {
        fees_sat: sum(|entry| entry.checked.fee_sat),
        weight: sum(|entry| entry.checked.weight),
        sigops: sum(|entry| entry.checked.sigops),
        entries,
    }
}

fn renew_descendants(
    mempool: &Mempool,
    txid: Txid,
    taken: &HashSet<Txid>,
    heap: &mut BinaryHeap<(u128, Reverse<u64>, Txid)>,
) {
    for descendant in mempool.with_descendants(txid) {
        if let Some(entry) = mempool.entry(&descendant).filter(|_| !taken.contains(&descendant)) {
            heap.push((package(mempool, descendant, taken).rate(), Reverse(entry.arrival), descendant));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mempool::MempoolLimits;
    use super::super::mempool::tests::{coin, insert, output, spend};
    use super::*;

    const ROOM: Room = Room { weight: 10_000, sigops: 100 };

    fn fees(selection: &Selection<'_>) -> Vec<u64> {
        selection.entries.iter().map(|entry| entry.checked.fee_sat).collect()
    }

    #[test]
    fn a_child_pays_for_its_parents() {
        let mut mempool = Mempool::new(MempoolLimits::default());
        let parent = spend(&[coin(1)], 2, 0, 1_000);
        let child = spend(&[output(&parent, 0)], 1, 9_000, 1_000);
        let sibling = spend(&[output(&parent, 1)], 1, 2_000, 1_000);
        let alone = spend(&[coin(2)], 1, 3_000, 1_000);
        for one in [&parent, &child, &sibling, &alone] {
            assert_eq!(insert(&mut mempool, one), Ok(()));
        }
        let selection = select(&mempool, ROOM);
        // Parent and child make 4,500 for 1,000 units; the sibling needs no parent any more.
        assert_eq!(fees(&selection), [0, 9_000, 3_000, 2_000]);
        assert_eq!((selection.fees_sat, selection.weight, selection.sigops), (14_000, 4_000, 16));
        // Without room for the package its child has no place either.
        assert_eq!(fees(&select(&mempool, Room { weight: 1_999, sigops: 100 })), [3_000]);
        assert_eq!(fees(&select(&mempool, Room { weight: 2_000, sigops: 100 })), [0, 9_000]);
        assert_eq!(fees(&select(&mempool, Room { weight: 10_000, sigops: 9 })), [0, 9_000]);
    }

    #[test]
    fn a_rich_ancestor_does_not_carry_poor_descendants() {
        let mut mempool = Mempool::new(MempoolLimits::default());
        let rich = spend(&[coin(1)], 1, 20_000, 1_000);
        let poor = spend(&[output(&rich, 0)], 1, 10, 1_000);
        let middle = spend(&[coin(2)], 1, 1_000, 1_000);
        for one in [&rich, &poor, &middle] {
            assert_eq!(insert(&mut mempool, one), Ok(()));
        }
        assert_eq!(fees(&select(&mempool, ROOM)), [20_000, 1_000, 10]);
        assert_eq!(fees(&select(&mempool, Room { weight: 2_000, sigops: 100 })), [20_000, 1_000]);
    }

    #[test]
    fn parents_come_before_children_whatever_they_pay() {
        let mut mempool = Mempool::new(MempoolLimits::default());
        for family in 0..20u8 {
            let mut last = spend(&[coin(family)], 1, u64::from(family) * 37 % 11, 500);
            assert_eq!(insert(&mut mempool, &last), Ok(()));
            for generation in 0..9u64 {
                last = spend(&[output(&last, 0)], 1, (u64::from(family) + generation * 7) % 13 * 100, 500);
                assert_eq!(insert(&mut mempool, &last), Ok(()));
            }
        }
        for weight in [0, 499, 500, 20_000, 50_000, 1_000_000] {
            let selection = select(&mempool, Room { weight, sigops: 10_000 });
            assert!(selection.weight <= weight);
            assert!(weight < 1_000_000 || selection.entries.len() == 200);
            let mut placed = HashSet::new();
            for entry in &selection.entries {
                for input in &entry.checked.transaction.input {
                    let parent = input.previous_output.txid;
                    assert!(mempool.entry(&parent).is_none() || placed.contains(&parent));
                }
                assert!(placed.insert(entry.checked.txid));
            }
        }
    }
}
