//! A target in eight bytes: what channels keep, and what is sent to them.
//!
//! Bits from the top: the place of the target's highest bit (8), the 55 bits below that one, and whether all further bits
//! are ones (1) or zeros. So the order of the numbers is that of the targets. What is converted from floating point has 53
//! significant bits, and what clients state is mostly all ones below some bit (`2^256 - 1` above all): those are kept as
//! they are. Any other target is rounded down by less than one part in 2^55. That makes it harder, so it stays within a
//! client's maximum; and whoever sends a target sends what is kept, so that shares are judged by what the client knows.

use adit_hasher::Target;

/// Bits below the highest that are kept.
const FRACTION_BITS: usize = 55;
const FRACTION_MASK: u64 = (1 << FRACTION_BITS) - 1;

/// `0xffff << 208`, the target of difficulty 1, without the power of two.
const DIFFICULTY_1: f64 = 65_535.0;
const DIFFICULTY_1_SHIFT: u64 = 208;
/// Of a floating-point number.
const EXPONENT_BIAS: u64 = 1_023;
const EXPONENT_AT: u32 = 52;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShortTarget(u64);

impl ShortTarget {
    /// The easiest.
    #[cfg(test)]
    pub(super) const MAX: Self = Self(u64::MAX);

    /// The easiest that is no easier than `target`, which is not zero: nothing could meet that, and no client and no command
    /// may ask for it.
    pub(super) fn rounded_down(target: &Target) -> Self {
        let limbs = limbs(target);
        let Some(top) = limbs.iter().rposition(|limb| *limb != 0) else { return Self(0) };
        let place = top * 64 + limbs[top].ilog2() as usize;
        let bits = match place.checked_sub(FRACTION_BITS) {
            None => (limbs[0] << (FRACTION_BITS - place) & FRACTION_MASK) << 1,
            Some(below) => {
                let (limb, shift) = (below / 64, below % 64);
                let above = limbs.get(limb + 1).copied().unwrap_or_default();
                let window = (u128::from(above) << 64 | u128::from(limbs[limb])) >> shift;
                let rest_mask = (1 << shift) - 1;
                let is_filled = below > 0
                    && limbs[limb] & rest_mask == rest_mask
                    && limbs[..limb].iter().all(|limb| *limb == u64::MAX);
                (window as u64 & FRACTION_MASK) << 1 | u64::from(is_filled)
            }
        };
        Self((place as u64) << (FRACTION_BITS + 1) | bits)
    }

    /// The target that is meant.
    #[inline]
    pub(super) fn target(self) -> Target {
        let (place, significant) = (self.place() as usize, self.significant());
        let Some(below) = place.checked_sub(FRACTION_BITS) else {
            return from_limbs([significant >> (FRACTION_BITS - place), 0, 0, 0]);
        };
        let (limb, shift) = (below / 64, below % 64);
        let ones = 0_u64.wrapping_sub(self.0 & 1);
        let wide = u128::from(significant) << shift | u128::from(ones & ((1 << shift) - 1));
        // Each share is judged by one of these: choices instead of writes to places that are not known ahead.
        from_limbs(core::array::from_fn(|index| match index.wrapping_sub(limb) {
            0 => wide as u64,
            1 => (wide >> 64) as u64,
            _ if index < limb => ones,
            _ => 0,
        }))
    }

    /// [`Target::difficulty`] of the target that is meant, but for the last bit. Each share counts by one: this is a division
    /// and no sum of limbs.
    #[inline]
    pub(super) fn difficulty(self) -> f64 {
        let exponent = EXPONENT_BIAS + DIFFICULTY_1_SHIFT + FRACTION_BITS as u64 - self.place();
        DIFFICULTY_1 / self.significant().cast_signed() as f64 * f64::from_bits(exponent << EXPONENT_AT)
    }

    /// Which bit is the highest.
    const fn place(self) -> u64 {
        self.0 >> (FRACTION_BITS + 1)
    }

    /// It and those below it that are kept.
    const fn significant(self) -> u64 {
        self.0 >> 1 & FRACTION_MASK | 1 << FRACTION_BITS
    }
}

fn from_limbs(limbs: [u64; 4]) -> Target {
    let mut bytes = [0; 32];
    for (place, limb) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(limbs) {
        *place = limb.to_le_bytes();
    }
    Target::from_le_bytes(bytes)
}

fn limbs(target: &Target) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().zip(target.as_le_bytes().as_chunks::<8>().0) {
        *limb = u64::from_le_bytes(*chunk);
    }
    limbs
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn kept(target: Target) -> Target {
        ShortTarget::rounded_down(&target).target()
    }

    /// One with these bits set, and all below `ones`.
    fn bits(set: impl IntoIterator<Item = usize>, ones: usize) -> Target {
        let mut bytes = [0; 32];
        for bit in set.into_iter().chain(0..ones) {
            bytes[bit / 8] |= 1 << (bit % 8);
        }
        Target::from_le_bytes(bytes)
    }

    #[test]
    fn usual_targets_are_kept_as_they_are() {
        assert_eq!(ShortTarget::MAX.target(), Target::MAX);
        assert_eq!(ShortTarget::rounded_down(&Target::MAX), ShortTarget::MAX);
        assert_eq!(kept(Target::DIFFICULTY_1), Target::DIFFICULTY_1);
        for ones in 1..=256 {
            let target = bits([], ones);
            assert_eq!(kept(target), target, "{ones} ones");
            let target = bits([ones - 1], 0);
            assert_eq!(kept(target), target, "bit {}", ones - 1);
        }
        let mut hash_rate = 1e-9;
        while hash_rate < 1e80 {
            for target in [Target::from_hash_rate(hash_rate, 6.0), Target::from_difficulty(hash_rate / 7.0)] {
                assert_eq!(kept(target), target, "{hash_rate}");
            }
            hash_rate *= 1.37;
        }
        for nbits in [0x1d00_ffff, 0x207f_ffff, 0x1703_4219, 0x0300_ffff, 0x0101_0000] {
            let target = Target::from_nbits(nbits).expect("a target");
            assert_eq!(kept(target), target);
        }
    }

    #[test]
    fn others_are_rounded_down_by_less_than_one_part_in_two_to_the_55th() {
        let mut state = 3_u64;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 32
        };
        let mut all = Vec::new();
        for len in (1..=32).cycle().take(20_000) {
            let mut bytes = [0; 32];
            bytes[..len].iter_mut().for_each(|byte| *byte = random() as u8);
            bytes[len - 1] |= 1 << (random() % 8);
            let target = Target::from_le_bytes(bytes);
            let short = ShortTarget::rounded_down(&target);
            let kept = short.target();
            assert!(kept <= target);
            assert_eq!(ShortTarget::rounded_down(&kept), short, "what is kept is kept as it is");
            // All that the kept bits leave out is below the 55th bit after the highest.
            let top = (0..256).rfind(|bit| bytes[bit / 8] >> (bit % 8) & 1 == 1).expect("not zero");
            for bit in top.saturating_sub(FRACTION_BITS)..256 {
                let of = |target: &Target| target.as_le_bytes()[bit / 8] >> (bit % 8) & 1;
                assert_eq!(of(&kept), of(&target), "bit {bit} of {target}");
            }
            all.push((kept, short));
        }
        all.sort();
        assert!(all.is_sorted_by_key(|(_, short)| *short), "the order is that of the targets");
    }

    #[test]
    fn difficulties_are_those_of_the_targets() {
        let mut difficulty = 1e-14;
        while difficulty < 1e64 {
            let target = Target::from_difficulty(difficulty);
            let short = ShortTarget::rounded_down(&target).difficulty();
            assert!(
                (short / target.difficulty() - 1.0).abs() < 1e-15,
                "{short}, not {}",
                target.difficulty()
            );
            difficulty *= 1.37;
        }
        for ones in 1..=256 {
            let target = bits([], ones);
            let short = ShortTarget::rounded_down(&target).difficulty();
            assert!(
                (short / target.difficulty() - 1.0).abs() < 1e-15,
                "{short}, not {}",
                target.difficulty()
            );
        }
    }

    #[test]
    fn eight_bytes_do() {
        assert_eq!(size_of::<ShortTarget>(), 8);
        assert_eq!(
            kept(Target::from_le_bytes([0; 32])),
            bits([0], 0),
            "zero, which nobody may ask for, is the next"
        );
    }
}
