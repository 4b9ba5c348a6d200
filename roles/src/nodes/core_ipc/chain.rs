//! What is known of the best chain: the tips that were seen, and what our own blocks are worth.
//!
//! The mining interface names tips and nothing between them, so a reorganisation is told by a tip that is not higher than
//! what was seen before, and blocks between two tips are not reported. Bounds: [`TIPS_MAX`] tips, [`OWN_MAX`] blocks of our
//! own.

use std::collections::VecDeque;

use adit_hasher::Digest;

use super::connection::Tip;
use crate::nodes::SourceUpdate;

/// Tips remembered.
const TIPS_MAX: usize = 128;
/// Submitted blocks whose reward is remembered.
const OWN_MAX: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// By rising height.
    tips: VecDeque<Tip>,
    /// Oldest first.
    own: VecDeque<Own>,
}

/// A block that was submitted.
#[derive(Clone, Copy, Debug)]
struct Own {
    hash: Digest,
    reward_sat: u64,
    /// The node took it over the present connection.
    is_accepted: bool,
    /// Whoever submitted it was told that it is of the best chain.
    is_told: bool,
}

impl Chain {
    /// Takes in a tip; says what it means for blocks. The first one is only remembered: it joined before anybody looked.
    pub(super) fn follow(&mut self, tip: Tip) -> Vec<SourceUpdate> {
        let mut updates = Vec::new();
        let is_first = self.tips.is_empty();
        while let Some(Tip { height, hash }) =
            self.tips.back().copied().filter(|seen| seen.height >= tip.height)
        {
            if hash == tip.hash {
                // The tip as it was, or the one below blocks that left.
                return updates;
            }
            updates.push(SourceUpdate::BlockDisconnected { height, hash });
            self.tips.pop_back();
        }
        self.remember(tip);
        if !is_first {
            let reward_sat = self.reward_sat(&tip.hash);
            updates.push(SourceUpdate::BlockConnected { height: tip.height, hash: tip.hash, reward_sat });
        }
        updates
    }

    fn remember(&mut self, tip: Tip) {
        self.tips.push_back(tip);
        if self.tips.len() > TIPS_MAX {
            self.tips.pop_front();
        }
    }

    /// Whether a block was the tip and did not leave since.
    pub(super) fn has(&self, hash: &Digest) -> bool {
        self.tips.iter().any(|tip| tip.hash == *hash)
    }

    /// Whether the node is known to have a block: by its tips, or because it took it from us.
    pub(super) fn is_known(&self, hash: &Digest) -> bool {
        self.has(hash) || self.own.iter().any(|own| own.hash == *hash && own.is_accepted)
    }

    /// Notes what a block is worth that is about to be submitted.
    pub(super) fn note_own(&mut self, hash: Digest, reward_sat: u64) {
        if self.own.iter().any(|own| own.hash == hash) {
            return;
        }
        self.own.push_back(Own { hash, reward_sat, is_accepted: false, is_told: false });
        if self.own.len() > OWN_MAX {
            self.own.pop_front();
        }
    }

    /// Notes that the node took a block of our own, and that whoever submitted it is told so.
    pub(super) fn note_accepted(&mut self, hash: &Digest) {
        if let Some(own) = self.own.iter_mut().find(|own| own.hash == *hash) {
            own.is_accepted = true;
            own.is_told = true;
        }
    }

    /// Whether somebody was told that a block is of the best chain.
    pub(super) fn is_told(&self, hash: &Digest) -> bool {
        self.own.iter().any(|own| own.hash == *hash && own.is_told)
    }

    /// The node was connected anew: a crash may have cost it blocks that it had taken.
    pub(super) fn forget_accepted(&mut self) {
        self.own.iter_mut().for_each(|own| own.is_accepted = false);
    }

    /// What a block of our own is worth. The interface says nothing of others.
    fn reward_sat(&self, hash: &Digest) -> Option<u64> {
        self.own.iter().find(|own| own.hash == *hash).map(|own| own.reward_sat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tip(height: u32, branch: u8) -> Tip {
        Tip { height, hash: Digest([branch; 32]) }
    }

    /// `+height` for a block that joined, `-height` for one that left.
    fn follow(chain: &mut Chain, height: u32, branch: u8) -> Vec<i64> {
        let updates = chain.follow(tip(height, branch));
        let told = updates.into_iter().map(|update| match update {
            SourceUpdate::BlockConnected { height, .. } => i64::from(height),
            SourceUpdate::BlockDisconnected { height, .. } => -i64::from(height),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    #[test]
    fn tips_join_and_leave() {
        let mut chain = Chain::default();
        assert_eq!(follow(&mut chain, 5, 5), [0_i64; 0], "what was there before is not new");
        assert_eq!(follow(&mut chain, 5, 5), [0_i64; 0]);
        assert_eq!(follow(&mut chain, 6, 6), [6]);
        assert_eq!(follow(&mut chain, 8, 8), [8], "what lies between is not named");
        assert!(chain.has(&Digest([6; 32])));
        assert_eq!(follow(&mut chain, 6, 60), [-8, -6, 6], "another branch");
        assert!(!chain.has(&Digest([6; 32])));
        assert_eq!(follow(&mut chain, 5, 5), [-6], "the tip was invalidated");
        assert_eq!(follow(&mut chain, 3, 3), [-5, 3]);
    }

    #[test]
    fn own_blocks_have_their_reward_and_memory_is_bounded() {
        let mut chain = Chain::default();
        chain.follow(tip(0, 0));
        chain.note_own(Digest([1; 32]), 50);
        let told = chain.follow(tip(1, 1));
        assert!(matches!(told[..], [SourceUpdate::BlockConnected { reward_sat: Some(50), .. }]), "{told:?}");
        for height in 2..1_000_u32 {
            let mut hash = Digest([2; 32]);
            hash.0[..4].copy_from_slice(&height.to_le_bytes());
            chain.note_own(hash, 1);
            assert!(!chain.is_known(&hash) && !chain.is_told(&hash));
            chain.note_accepted(&hash);
            assert!(chain.is_known(&hash));
            chain.forget_accepted();
            chain.note_own(hash, 1);
            assert!(!chain.is_known(&hash), "a crash may have cost the node the block");
            assert!(chain.is_told(&hash), "that it was there once stays true");
            chain.follow(tip(height, height as u8));
        }
        assert_eq!((chain.tips.len(), chain.own.len()), (TIPS_MAX, OWN_MAX));
    }
}
