//! Merkle trees of a block's transactions, for templates and blocks: not for shares, whose roots come in batches.
//!
//! All hashes are in internal byte order. Where a level has an odd number of nodes the last one is paired with itself, as
//! consensus does.

use alloc::vec::Vec;

use crate::sha256::{self, State};

/// The merkle root over a block's transaction ids, the coinbase's first; zero for no transactions.
pub fn merkle_root(txids: &[[u8; 32]]) -> [u8; 32] {
    let mut level: Vec<State> = txids.iter().map(|txid| sha256::words(txid)).collect();
    while level.len() > 1 {
        halve(&mut level);
    }
    level.first().map_or([0; 32], sha256::to_bytes)
}

/// The siblings that lead from the first transaction, the coinbase, to the root. The first id itself has no influence: any
/// placeholder will do. Empty for a block of one transaction or none.
pub fn merkle_path(txids: &[[u8; 32]]) -> Vec<[u8; 32]> {
    let mut level: Vec<State> = txids.iter().map(|txid| sha256::words(txid)).collect();
    let mut path = Vec::new();
    while let Some(sibling) = level.get(1) {
        path.push(sha256::to_bytes(sibling));
        halve(&mut level);
    }
    path
}

/// The root that a leaf at index 0, the coinbase's id, and its path give.
pub fn merkle_root_from_path(leaf: &[u8; 32], path: &[[u8; 32]]) -> [u8; 32] {
    let leaf = sha256::words(leaf);
    sha256::to_bytes(&path.iter().fold(leaf, |left, right| sha256::node(&left, &sha256::words(right))))
}

/// Replaces a level by its parents, in place.
fn halve(level: &mut Vec<State>) {
    let parents = level.len().div_ceil(2);
    for i in 0..parents {
        let left = level[2 * i];
        let right = level.get(2 * i + 1).copied().unwrap_or(left);
        level[i] = sha256::node(&left, &right);
    }
    level.truncate(parents);
}
