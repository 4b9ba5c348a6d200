//! Targets: order, edges of the comparison, and conversions to and from floating point.

use adit_hasher::{Digest, Target};
use proptest::prelude::*;

fn one() -> Target {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    Target::from_le_bytes(bytes)
}

/// Adds one to a little-endian number; `None` past the end.
fn successor(mut bytes: [u8; 32]) -> Option<[u8; 32]> {
    for byte in &mut bytes {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(bytes);
        }
    }
    None
}

#[test]
fn equal_one_above_one_below_at_every_byte() {
    for at in 0..32 {
        for value in [1, 0x7f, 0x80, 0xff] {
            let mut bytes = [0x5a; 32];
            bytes[at] = value;
            let target = Target::from_le_bytes(bytes);
            assert!(target.is_met_by(&Digest(bytes)));
            let mut other = bytes;
            other[at] = value - 1;
            assert!(target.is_met_by(&Digest(other)), "byte {at} below");
            assert!(!Target::from_le_bytes(other).is_met_by(&Digest(bytes)), "byte {at} above");
            // Lower bytes never outweigh a higher one.
            for low in &mut other[..at] {
                *low = 0xff;
            }
            assert!(target.is_met_by(&Digest(other)));
            assert!(!Target::from_le_bytes(other).is_met_by(&Digest(bytes)));
        }
    }
    assert!(Target::MAX.is_met_by(&Digest([0xff; 32])));
    let mut zero = Target::from_le_bytes([0; 32]);
    assert!(zero.is_met_by(&Digest([0; 32])));
    assert!(!zero.is_met_by(&Digest(one().to_le_bytes())));
    zero = zero.max(one());
    assert_eq!(zero, one());
    assert_eq!(Target::MAX.min(Target::DIFFICULTY_1), Target::DIFFICULTY_1);
}

#[test]
fn difficulty_of_known_targets() {
    assert_eq!(Target::DIFFICULTY_1.difficulty(), 1.0);
    assert_eq!(Target::from_difficulty(1.0), Target::DIFFICULTY_1);
    // Mainnet, height 100,000.
    let target = Target::from_nbits(0x1b04_864c).unwrap();
    assert!((target.difficulty() - 14_484.162_361).abs() < 1e-5);
    // A device of 2^32 hashes a minute, one share a minute: one digest in 2^32.
    let target = Target::from_hash_rate(4_294_967_296.0 / 60.0, 1.0);
    let mut expected = [0xff; 32];
    expected[28..].fill(0);
    let difference = target.difficulty() / Target::from_le_bytes(expected).difficulty() - 1.0;
    assert!(difference.abs() < 1e-12, "{target} {difference}");
}

#[test]
fn no_input_leaves_the_range() {
    let odd = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.0,
        -0.0,
        -1.0,
        1.0,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        1e-300,
        1e300,
        f64::EPSILON,
        5e-324,
    ];
    for a in odd {
        let target = Target::from_difficulty(a);
        assert!(target >= one());
        assert!(target.difficulty() > 0.0 && target.difficulty().is_finite());
        for b in odd {
            let target = Target::from_hash_rate(a, b);
            assert!(target >= one(), "{a} {b}");
            assert!(target.hash_rate(b).is_finite() && target.hash_rate(b) >= 0.0, "{a} {b}");
        }
    }
    for bytes in [[0; 32], [0xff; 32]] {
        assert!(Target::from_le_bytes(bytes).difficulty().is_finite());
        assert!(odd.iter().all(|rate| Target::from_le_bytes(bytes).hash_rate(*rate).is_finite()));
    }
    assert_eq!(Target::from_difficulty(f64::NAN), Target::MAX);
    assert_eq!(Target::from_difficulty(-1.0), Target::MAX);
    assert_eq!(Target::from_difficulty(f64::INFINITY), one());
    assert_eq!(Target::from_hash_rate(0.0, 6.0), Target::MAX);
    assert_eq!(Target::from_hash_rate(f64::NAN, 6.0), Target::MAX);
    assert_eq!(Target::from_hash_rate(1e12, f64::NAN), Target::MAX);
    assert_eq!(Target::from_hash_rate(1e12, 0.0), one());
    assert_eq!(Target::from_hash_rate(f64::INFINITY, 6.0), one());
    assert_eq!(Target::from_hash_rate(1.0, 1e9), Target::MAX);
}

proptest! {
    #[test]
    fn order_is_that_of_the_reversed_bytes(a: [u8; 32], b: [u8; 32], same in 0usize..=32) {
        let mut b = b;
        b[same..].copy_from_slice(&a[same..]);
        let reversed = |mut bytes: [u8; 32]| { bytes.reverse(); bytes };
        let (x, y) = (Target::from_le_bytes(a), Target::from_le_bytes(b));
        prop_assert_eq!(x.cmp(&y), reversed(a).cmp(&reversed(b)));
        prop_assert_eq!(x.is_met_by(&Digest(b)), y <= x);
        if let Some(above) = successor(a) {
            prop_assert!(Target::from_le_bytes(above) > x);
            prop_assert!(!x.is_met_by(&Digest(above)));
        }
    }

    #[test]
    fn nbits_round_trip(bytes: [u8; 32], zeros in 0usize..32) {
        let mut bytes = bytes;
        bytes[32 - zeros..].fill(0);
        let target = Target::from_le_bytes(bytes);
        prop_assume!(target >= one());
        let compact = Target::from_nbits(target.to_nbits()).unwrap();
        prop_assert!(compact <= target);
        prop_assert_eq!(compact.to_nbits(), target.to_nbits());
        prop_assert!(compact.difficulty() / target.difficulty() < 1.0 + 1.0 / 32_768.0);
    }

    #[test]
    fn any_nbits(nbits: u32) {
        if let Ok(target) = Target::from_nbits(nbits) {
            prop_assert_eq!(Target::from_nbits(target.to_nbits()), Ok(target));
        }
    }

    #[test]
    fn difficulty_round_trip(exponent in -8.0f64..57.0) {
        let difficulty = 10f64.powf(exponent);
        let back = Target::from_difficulty(difficulty).difficulty();
        if difficulty >= 1.0 / 4_294_900_000.0 {
            prop_assert!((back / difficulty - 1.0).abs() < 1e-9, "{difficulty} {back}");
        }
    }

    #[test]
    fn hash_rate_round_trip(exponent in 0.0f64..30.0, shares in 1e-3f64..1e9) {
        let rate = 10f64.powf(exponent);
        prop_assume!(rate * 60.0 > shares * 1.01);
        let back = Target::from_hash_rate(rate, shares).hash_rate(shares);
        prop_assert!((back / rate - 1.0).abs() < 1e-9, "{rate} {back}");
    }

    #[test]
    fn conversions_are_monotone(a: f64, b: f64, exponent in -3.0f64..40.0, shares in 1e-3f64..1e9) {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        prop_assume!(!low.is_nan() && !high.is_nan());
        prop_assert!(Target::from_difficulty(low) >= Target::from_difficulty(high));
        prop_assert!(Target::from_hash_rate(low, shares) >= Target::from_hash_rate(high, shares));
        let rate = 10f64.powf(exponent);
        prop_assert!(Target::from_hash_rate(rate, low) <= Target::from_hash_rate(rate, high));
        let (near, next) = (Target::from_hash_rate(rate, shares), Target::from_hash_rate(rate.next_up(), shares));
        prop_assert!(near >= next);
    }
}
