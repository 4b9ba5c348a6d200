//! The transactions of a node's block, in memory: with them a found block can be built without the node.
//!
//! Templates that follow one another have most transactions in common, so each is held once: a template costs a pointer for
//! each of its transactions. Bound: what is kept belongs to a template that somebody still holds, or to the last one.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::consensus::deserialize_partial;
use bitcoin::{Transaction, VarInt};

use crate::nodes::TemplateTransactions;

/// Bytes of a block's header.
const HEADER_LEN: usize = 80;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SharedTransactions {
    kept: HashSet<Arc<[u8]>>,
}

impl SharedTransactions {
    /// Takes a serialised block apart; none where it is none. The coinbase is left out: the node's is a dummy.
    pub(super) fn split(&mut self, block: &[u8]) -> Option<TemplateTransactions> {
        let body = block.get(HEADER_LEN..)?;
        let (count, len) = deserialize_partial::<VarInt>(body).ok()?;
        let (mut rest, mut transactions) = (&body[len..], Vec::new());
        // Each takes bytes of the block, which is as long as a message at most: a wrong count ends soon.
        for at in 0..count.0 {
            let (_, len) = deserialize_partial::<Transaction>(rest).ok()?;
            let (raw, others) = rest.split_at(len);
            if at > 0 {
                transactions.push(self.share(raw));
            }
            rest = others;
        }
        if !rest.is_empty() || count.0 == 0 {
            return None;
        }
        // One reference is ours.
        self.kept.retain(|raw| Arc::strong_count(raw) > 1);
        Some(TemplateTransactions::new(transactions))
    }

    fn share(&mut self, raw: &[u8]) -> Arc<[u8]> {
        if let Some(kept) = self.kept.get(raw) {
            return Arc::clone(kept);
        }
        let new: Arc<[u8]> = raw.into();
        self.kept.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::serialize;
    use bitcoin::constants::genesis_block;
    use bitcoin::{Block, Network, absolute::LockTime};

    fn block(lock_times: &[u32]) -> Vec<u8> {
        let mut block: Block = genesis_block(Network::Regtest);
        for lock_time in lock_times {
            let lock_time = LockTime::from_consensus(*lock_time);
            let transaction = Transaction { lock_time, ..block.txdata[0].clone() };
            block.txdata.push(transaction);
        }
        serialize(&block)
    }

    #[test]
    fn transactions_are_split_and_shared_and_let_go() {
        let mut shared = SharedTransactions::default();
        let first = shared.split(&block(&[1, 2])).unwrap();
        let second = shared.split(&block(&[2, 3])).unwrap();
        assert_eq!((first.len(), second.len(), shared.kept.len()), (2, 2, 3));
        assert!(std::ptr::eq(first.iter().nth(1).unwrap(), second.iter().next().unwrap()), "held once");
        let raw: Vec<&[u8]> = second.iter().collect();
        let whole = block(&[2, 3]);
        assert!(whole.ends_with(&raw.concat()));
        drop((first, second));
        assert!(shared.split(&block(&[])).unwrap().is_empty());
        assert!(shared.kept.is_empty());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let whole = block(&[1]);
        let mut shared = SharedTransactions::default();
        for len in 0..whole.len() {
            assert!(shared.split(&whole[..len]).is_none(), "{len} bytes");
        }
        assert!(shared.split(&[whole, vec![0]].concat()).is_none(), "a byte too many");
        let mut huge = block(&[]);
        huge.splice(HEADER_LEN..=HEADER_LEN, [0xff; 9]);
        assert!(shared.split(&huge).is_none());
    }
}
