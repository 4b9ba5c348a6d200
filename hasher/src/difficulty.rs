//! Targets as floating-point numbers: difficulty and hash rate.
//!
//! No input gives a panic, a NaN or an infinity: results are clamped to the targets from 1 (a zero target can be met by
//! nothing, and miners leave a pool that sends one) to [`Target::MAX`], and every conversion is monotone. Relative
//! errors stay below 1e-9 for targets of more than 2^31.

use crate::Target;

/// 2^256.
const TWO_256: f64 =
    115_792_089_237_316_195_423_570_985_008_687_907_853_269_984_665_640_564_039_457_584_007_913_129_639_936.0;

/// `0xffff << 208`.
const DIFFICULTY_1: f64 =
    65_535.0 * 411_376_139_330_301_510_538_742_295_639_337_626_245_683_966_408_394_965_837_152_256.0;

const SECONDS_PER_MINUTE: f64 = 60.0;

impl Target {
    /// How many times harder than [`Target::DIFFICULTY_1`] this target is. The zero target counts as 1.
    pub fn difficulty(&self) -> f64 {
        DIFFICULTY_1 / self.to_f64().max(1.0)
    }

    /// The target of a difficulty, rounded down. A difficulty that is zero, negative or not a number gives
    /// [`Target::MAX`]; one too great for any target gives 1.
    pub fn from_difficulty(difficulty: f64) -> Self {
        if difficulty.is_nan() || difficulty <= 0.0 {
            return Self::MAX;
        }
        Self::clamped(DIFFICULTY_1 / difficulty)
    }

    /// The target that a device of `hashes_per_second` meets `shares_per_minute` times a minute on average.
    ///
    /// A hash rate that is zero, negative or not a number, and a share rate that is not a number, give [`Target::MAX`]: an
    /// unknown device must be able to show a share. A share rate of zero or less gives the hardest target, 1.
    pub fn from_hash_rate(hashes_per_second: f64, shares_per_minute: f64) -> Self {
        if hashes_per_second.is_nan() || hashes_per_second <= 0.0 || shares_per_minute.is_nan() {
            return Self::MAX;
        }
        // One digest in 2^256 / (target + 1) meets the target.
        let hashes_per_share = hashes_per_second / shares_per_minute.max(0.0) * SECONDS_PER_MINUTE;
        if hashes_per_share.is_nan() {
            return Self::MAX;
        }
        Self::clamped(TWO_256 / hashes_per_share - 1.0)
    }

    /// The hash rate, per second, that meets this target `shares_per_minute` times a minute on average; zero for a share
    /// rate that is negative or not a number.
    pub fn hash_rate(&self, shares_per_minute: f64) -> f64 {
        let shares_per_minute =
            if shares_per_minute > 0.0 { shares_per_minute.min(f64::MAX / TWO_256) } else { 0.0 };
        shares_per_minute / SECONDS_PER_MINUTE * (TWO_256 / (self.to_f64() + 1.0))
    }

    fn to_f64(self) -> f64 {
        const TWO_64: f64 = 18_446_744_073_709_551_616.0;
        self.limbs().iter().rev().fold(0.0, |sum, limb| sum * TWO_64 + *limb as f64)
    }

    /// The integer part of a number, at least 1 and at most [`Target::MAX`].
    fn clamped(value: f64) -> Self {
        if value >= TWO_256 {
            return Self::MAX;
        }
        if value.is_nan() || value < 1.0 {
            return Self::from_limbs([1, 0, 0, 0]);
        }
        // A normal number from 1 to below 2^256: mantissa * 2^(exponent - 52) with an exponent of 0..=255.
        let bits = value.to_bits();
        let exponent = (bits >> 52) as usize - 1023;
        let mantissa = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
        let mut limbs = [0; 4];
        if exponent < 52 {
            limbs[0] = (mantissa >> (52 - exponent)) as u64;
        } else {
            let (limb, shift) = ((exponent - 52) / 64, (exponent - 52) % 64);
            let wide = mantissa << shift;
            limbs[limb] = wide as u64;
            if let Some(next) = limbs.get_mut(limb + 1) {
                *next = (wide >> 64) as u64;
            }
        }
        Self::from_limbs(limbs)
    }
}
