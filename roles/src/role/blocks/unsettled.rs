//! Blocks that are to be offered again, and when.
//!
//! A block is not offered before its parent, if that is one of ours that is to be offered again, too: a node takes no block
//! whose parent it does not know. What has been offered more often than its child does not hold that up. Bounds:
//! [`UNSETTLED_MAX`] blocks; beyond, the one goes that was offered most often.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_hasher::Digest;
use adit_proto::mining::server::Solution;

use super::UNSETTLED_MAX;
use super::mark::Mark;
use crate::nodes::{TemplateTransactions, assemble_block};

/// A solution that is not known to have come to its end.
pub(super) struct Unsettled {
    pub(super) solution: Arc<Solution>,
    pub(super) whole: Whole,
    pub(super) mark: Arc<Mark>,
    /// It was settled, and then left the best chain: it has been counted and reported.
    pub(super) is_recalled: bool,
    /// How often it was offered again.
    pub(super) attempts: u32,
}

impl Unsettled {
    pub(super) fn hash(&self) -> Digest {
        self.solution.digest
    }

    /// The hash of the block before it.
    pub(super) fn parent(&self) -> Digest {
        let mut parent = Digest::default();
        parent.0.copy_from_slice(&self.solution.header[4..36]);
        parent
    }
}

/// What makes a solution a block without the source's template.
pub(super) enum Whole {
    /// Not at hand.
    Unknown,
    Transactions(TemplateTransactions),
    Block(Arc<[u8]>),
}

impl Whole {
    pub(super) fn of(transactions: Option<TemplateTransactions>) -> Self {
        transactions.map_or(Self::Unknown, Self::Transactions)
    }

    /// The transactions, where they are known apart from the block.
    pub(super) fn transactions(&self) -> Option<TemplateTransactions> {
        match self {
            Self::Transactions(transactions) => Some(transactions.clone()),
            Self::Unknown | Self::Block(_) => None,
        }
    }

    pub(super) fn block(&self, solution: &Solution) -> Option<Arc<[u8]>> {
        match self {
            Self::Unknown => None,
            Self::Transactions(transactions) => {
                let Solution { header, coinbase_tx, merkle_path, .. } = solution;
                assemble_block(header, coinbase_tx, merkle_path, transactions).ok().map(Arc::from)
            }
            Self::Block(block) => Some(Arc::clone(block)),
        }
    }
}

struct Postponed {
    block: Unsettled,
    due: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Retries {
    /// The one that is due next comes first.
    postponed: VecDeque<Postponed>,
}

impl Retries {
    /// Takes a block that is to be offered again after a pause. Gives back one that there is no room for.
    pub(super) fn postpone(&mut self, block: Unsettled, due: Instant) -> Option<Unsettled> {
        let place = self.postponed.partition_point(|earlier| earlier.due <= due);
        self.postponed.insert(place, Postponed { block, due });
        if self.postponed.len() <= UNSETTLED_MAX {
            return None;
        }
        let attempts = |place: &usize| Reverse(self.postponed[*place].block.attempts);
        let most = (0..self.postponed.len()).min_by_key(attempts)?;
        self.postponed.remove(most).map(|postponed| postponed.block)
    }

    /// The next block that is due. `is_answering` says of which blocks an answer is waited for.
    pub(super) fn pop_due(
        &mut self,
        now: Instant,
        is_answering: impl Fn(&Digest) -> bool,
    ) -> Option<Unsettled> {
        let mut due = self.postponed.iter().take_while(|postponed| postponed.due <= now);
        let place = due.position(|Postponed { block, .. }| {
            let parent = block.parent();
            let goes_first =
                |other: &Postponed| other.block.hash() == parent && other.block.attempts <= block.attempts;
            !is_answering(&parent) && !self.postponed.iter().any(goes_first)
        })?;
        self.postponed.remove(place).map(|postponed| postponed.block)
    }

    /// How long nothing more becomes due. What is due already and was not popped waits for an answer or for a parent.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let later = self.postponed.iter().find(|postponed| postponed.due > now);
        later.map(|postponed| postponed.due.duration_since(now))
    }

    pub(super) fn into_blocks(self) -> impl Iterator<Item = Unsettled> {
        self.postponed.into_iter().map(|postponed| postponed.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::blocks::mark::Recorded;
    use adit_hasher::Target;

    fn block(number: u8, parent: Digest, attempts: u32) -> Unsettled {
        let mut header = [number; 80];
        header[4..36].copy_from_slice(&parent.0);
        let solution = Solution {
            template_id: 1,
            header,
            digest: Digest::of(&header),
            target: Target::MAX,
            coinbase_tx: Vec::new(),
            merkle_path: Vec::new(),
            user_identity: Vec::new(),
            worker_identity: Vec::new(),
        };
        let mark = Arc::new(Mark::new(Recorded::Written));
        Unsettled { solution: Arc::new(solution), whole: Whole::Unknown, mark, is_recalled: false, attempts }
    }

    fn pop(retries: &mut Retries, now: Instant) -> Option<Digest> {
        retries.pop_due(now, |_| false).map(|block| block.hash())
    }

    #[test]
    fn a_parent_goes_first_while_it_was_not_offered_more_often() {
        let now = Instant::now();
        let mut retries = Retries::default();
        let parent = block(1, Digest([0; 32]), 0);
        let child = block(2, parent.hash(), 0);
        let grandchild = block(3, child.hash(), 0);
        let hashes = [parent.hash(), child.hash(), grandchild.hash()];
        for block in [grandchild, child, parent] {
            assert!(retries.postpone(block, now).is_none());
        }
        assert_eq!(pop(&mut retries, now), Some(hashes[0]));
        assert_eq!(retries.pop_due(now, |hash| *hash == hashes[0]).map(|block| block.hash()), None);
        assert_eq!(retries.pause(now), None, "an answer is waited for, not time");
        assert_eq!([pop(&mut retries, now), pop(&mut retries, now)], [Some(hashes[1]), Some(hashes[2])]);
        // A parent that failed once more is not waited for.
        let later = now + Duration::from_secs(5);
        retries.postpone(block(2, hashes[0], 0), now);
        retries.postpone(block(1, Digest([0; 32]), 1), later);
        assert_eq!(retries.pause(now), Some(Duration::from_secs(5)));
        assert_eq!(pop(&mut retries, now), Some(hashes[1]));
        assert_eq!(pop(&mut retries, now), None, "it is not due");
        assert_eq!(pop(&mut retries, later), Some(hashes[0]));
    }

    #[test]
    fn the_one_that_was_offered_most_often_makes_room() {
        let now = Instant::now();
        let mut retries = Retries::default();
        for number in 0..UNSETTLED_MAX {
            let attempts = if number == 100 { 9 } else { 8 };
            let mut parent = Digest::default();
            parent.0[..8].copy_from_slice(&number.to_le_bytes());
            assert!(retries.postpone(block(0, parent, attempts), now).is_none());
        }
        let given_up = retries.postpone(block(1, Digest([1; 32]), 0), now).unwrap();
        assert_eq!((given_up.attempts, given_up.parent().0[0]), (9, 100));
        let given_up = retries.postpone(block(2, Digest([1; 32]), 0), now).unwrap();
        assert_eq!(
            (given_up.attempts, given_up.parent().0[0]),
            (8, 0),
            "of equals, the one that is due first"
        );
        assert_eq!(retries.into_blocks().count(), UNSETTLED_MAX);
    }
}
