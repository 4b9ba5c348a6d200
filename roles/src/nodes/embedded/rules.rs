//! What the two private chains' consensus rules fix for the next block: subsidy, difficulty, time.
//!
//! Pure functions; Bitcoin Core's validation judges the blocks that come of them.

use adit_hasher::Target;

/// Which private chain an embedded node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chain {
    /// Every second hash is a block; halves every 150 blocks. For tests.
    Regtest,
    /// A signet of one's own whose challenge is OP_TRUE: about 4 million hashes a block to begin with, retargets every
    /// 2016 blocks like the main chain.
    Signet,
}

/// Blocks between two retargets.
const RETARGET_INTERVAL: u32 = 2016;
/// Seconds that [`RETARGET_INTERVAL`] blocks shall take.
const RETARGET_TIMESPAN_S: u32 = 14 * 24 * 60 * 60;
/// Satoshis of a block's subsidy before the first halving.
const SUBSIDY_SAT: u64 = 50 * 100_000_000;
/// How far the first block after a retarget may go back behind its parent: Bitcoin Core's miner heeds this rule of BIP94 on
/// every chain.
const TIMEWARP_S_MAX: u32 = 600;
/// The script that a block of the private signet must satisfy: OP_TRUE.
pub(super) const SIGNET_CHALLENGE: [u8; 1] = [0x51];

/// What the difficulty of the next block depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ancestor {
    pub(super) height: u32,
    pub(super) time: u32,
    pub(super) nbits: u32,
}

impl Chain {
    /// The name that Bitcoin Core gives the chain in its interfaces and directories.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regtest => "regtest",
            Self::Signet => "signet",
        }
    }

    /// The easiest target that the chain allows, compact.
    pub(super) const fn pow_limit_nbits(self) -> u32 {
        match self {
            Self::Regtest => 0x207f_ffff,
            Self::Signet => 0x1e03_77ae,
        }
    }

    const fn halving_interval(self) -> u32 {
        match self {
            Self::Regtest => 150,
            Self::Signet => 210_000,
        }
    }

    /// What the block at `height` may create.
    pub(super) fn subsidy_sat(self, height: u32) -> u64 {
        SUBSIDY_SAT.checked_shr(height / self.halving_interval()).unwrap_or(0)
    }

    /// The height of the block whose time opens the period that ends with `parent`, if the block after `parent` retargets.
    pub(super) fn retarget_start(self, parent_height: u32) -> Option<u32> {
        let retargets = self == Self::Signet && (parent_height + 1).is_multiple_of(RETARGET_INTERVAL);
        retargets.then(|| parent_height + 1 - RETARGET_INTERVAL)
    }

    /// `nbits` of the block after `parent`. `period_start_time` is the time of the block at
    /// [`retarget_start`](Self::retarget_start), where there is one.
    ///
    /// Regtest allows blocks of the least difficulty and never retargets: as every block has the limit, so has the next.
    pub(super) fn next_nbits(self, parent: &Ancestor, period_start_time: Option<u32>) -> u32 {
        match period_start_time {
            None => parent.nbits,
            Some(start) => {
                retarget(parent.nbits, i64::from(parent.time) - i64::from(start), self.pow_limit_nbits())
            }
        }
    }

    /// The earliest time that the block after `parent` may carry.
    pub(super) fn min_time(self, parent: &Ancestor, median_time_past: u32) -> u32 {
        let after_median = median_time_past + 1;
        // Regtest's period is a day's worth of blocks; it has the rule, though it does not retarget.
        let interval = if self == Self::Regtest { 144 } else { RETARGET_INTERVAL };
        if (parent.height + 1).is_multiple_of(interval) {
            after_median.max(parent.time.saturating_sub(TIMEWARP_S_MAX))
        } else {
            after_median
        }
    }
}

/// The compact target after a period that took `timespan_s` at `nbits`: in proportion, at most four times easier or harder,
/// never easier than the limit. Arithmetic is modulo 2^256, as in consensus.
fn retarget(nbits: u32, timespan_s: i64, pow_limit_nbits: u32) -> u32 {
    let timespan = u64::from(RETARGET_TIMESPAN_S);
    let taken = timespan_s.clamp(timespan as i64 / 4, timespan as i64 * 4) as u64;
    let (Ok(old), Ok(limit)) = (Target::from_nbits(nbits), Target::from_nbits(pow_limit_nbits)) else {
        return pow_limit_nbits;
    };
    let mut limbs = [0u64; 4];
    for (limb, bytes) in limbs.iter_mut().zip(old.as_le_bytes().as_chunks::<8>().0) {
        *limb = u64::from_le_bytes(*bytes);
    }
    let mut carry = 0u128;
    for limb in &mut limbs {
        carry += u128::from(*limb) * u128::from(taken);
        *limb = carry as u64;
        carry >>= 64;
    }
    let mut rest = 0u128;
    for limb in limbs.iter_mut().rev() {
        rest = rest << 64 | u128::from(*limb);
        *limb = (rest / u128::from(timespan)) as u64;
        rest %= u128::from(timespan);
    }
    let mut bytes = [0; 32];
    for (out, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(limbs) {
        *out = limb.to_le_bytes();
    }
    Target::from_le_bytes(bytes).min(limit).to_nbits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::{CompactTarget, Network, params::Params};

    const MAIN_LIMIT: u32 = 0x1d00_ffff;

    /// Periods of the main chain, with the timespan between their first and last blocks.
    #[test]
    fn retargets_like_the_main_chain() {
        // First block's time, last block's time, nbits of the period, nbits of the next.
        let periods = [
            (1_261_130_161, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
            (1_231_006_505, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
            (1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
            (1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
        ];
        for (first, last, nbits, next) in periods {
            assert_eq!(retarget(nbits, last - first, MAIN_LIMIT), next, "{nbits:08x} from {first}");
        }
    }

    #[test]
    fn signet_retargets_like_an_independent_implementation() {
        let params = Params::new(Network::Signet);
        let limit = Chain::Signet.pow_limit_nbits();
        let day = 86_400;
        for nbits in [limit, 0x1e00_ddeb, 0x1d37_7ae0, 0x1c00_ffff, 0x1b04_04cb] {
            for timespan in
                [0, 1, 3 * day, 7 * day / 2, 7 * day, 14 * day, 14 * day + 1, 55 * day, 56 * day, 900 * day]
            {
                let theirs = CompactTarget::from_next_work_required(
                    CompactTarget::from_consensus(nbits),
                    timespan,
                    &params,
                );
                let parent = Ancestor { height: 4031, time: 1_700_000_000 + timespan as u32, nbits };
                assert_eq!(Chain::Signet.retarget_start(parent.height), Some(2016));
                let ours = Chain::Signet.next_nbits(&parent, Some(1_700_000_000));
                assert_eq!(ours, theirs.to_consensus(), "{nbits:08x} after {timespan} s");
            }
        }
        // A clock that went backwards counts like the shortest period.
        assert_eq!(retarget(limit, -5, limit), retarget(limit, 0, limit));
    }

    #[test]
    fn difficulty_stays_between_retargets() {
        let parent = Ancestor { height: 2014, time: 1_700_000_000, nbits: 0x1d37_7ae0 };
        assert_eq!(Chain::Signet.retarget_start(2014), None);
        assert_eq!(Chain::Signet.next_nbits(&parent, None), parent.nbits);
        assert_eq!(Chain::Signet.retarget_start(2015), Some(0));
        assert_eq!(Chain::Signet.retarget_start(2016), None);
        assert_eq!(Chain::Regtest.retarget_start(2015), None);
        assert_eq!(Chain::Regtest.retarget_start(143), None);
    }

    #[test]
    fn subsidy_halves() {
        assert_eq!(Chain::Regtest.subsidy_sat(1), 5_000_000_000);
        assert_eq!(Chain::Regtest.subsidy_sat(149), 5_000_000_000);
        assert_eq!(Chain::Regtest.subsidy_sat(150), 2_500_000_000);
        assert_eq!(Chain::Regtest.subsidy_sat(150 * 33), 0);
        assert_eq!(Chain::Regtest.subsidy_sat(150 * 64), 0);
        assert_eq!(Chain::Regtest.subsidy_sat(u32::MAX), 0);
        assert_eq!(Chain::Signet.subsidy_sat(209_999), 5_000_000_000);
        assert_eq!(Chain::Signet.subsidy_sat(210_000), 2_500_000_000);
    }

    #[test]
    fn time_follows_the_median_and_the_parent() {
        let parent = Ancestor { height: 10, time: 5_000, nbits: 0 };
        assert_eq!(Chain::Signet.min_time(&parent, 3_000), 3_001);
        let last_of_period = Ancestor { height: 2015, ..parent };
        assert_eq!(Chain::Signet.min_time(&last_of_period, 3_000), 4_400);
        assert_eq!(Chain::Signet.min_time(&last_of_period, 4_700), 4_701);
    }
}
