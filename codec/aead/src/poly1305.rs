//! Poly1305 of one short text, with products of 64-bit numbers (RFC 8439, 2.5).
//!
//! The accumulator is `low + 2^128 high`, below 2^130 plus a little: after each multiplication `high` is at most 4, and a
//! block adds at most 2, so it is at most 6 where the next begins. With both halves of `r` below 2^60 no sum of products
//! exceeds 128 bits. No branch and no address depends on a secret.

/// A one-time key, as ChaCha20 gave it.
#[derive(Clone, Copy)]
pub(crate) struct OneTimeKey {
    pub(crate) r: u128,
    pub(crate) s: u128,
}

/// The tag, as a little-endian number, of a ciphertext without associated data. `blocks` has its first `len` bytes, and zeros
/// behind them.
#[inline(always)]
pub(crate) fn authenticate<const BLOCKS: usize>(
    key: OneTimeKey,
    blocks: &[u128; BLOCKS],
    len: usize,
) -> u128 {
    let mut state = Accumulator::new(key.r);
    for block in &blocks[..len.div_ceil(16)] {
        state.absorb(*block);
    }
    // The lengths of the associated data, which is 0, and of the ciphertext.
    state.absorb((len as u128) << 64);
    state.finish(key.s)
}

struct Accumulator {
    low: u128,
    high: u64,
    r0: u64,
    r1: u64,
    /// Five quarters of `r1`, which is a multiple of four: 2^130 counts as 5, so this is 2^128 times `r1`.
    r1_folded: u64,
}

impl Accumulator {
    #[inline(always)]
    fn new(r: u128) -> Self {
        let (r0, r1) = (r as u64 & 0x0fff_fffc_0fff_ffff, (r >> 64) as u64 & 0x0fff_fffc_0fff_fffc);
        Self { low: 0, high: 0, r0, r1, r1_folded: r1 + (r1 >> 2) }
    }

    /// Adds a block of sixteen bytes, and multiplies by `r`.
    #[inline(always)]
    fn absorb(&mut self, block: u128) {
        let Self { low, high, r0, r1, r1_folded } = *self;
        let (low, carry) = low.overflowing_add(block);
        let (h0, h1, h2) = (low as u64, (low >> 64) as u64, high + 1 + u64::from(carry));

        let first = wide(h0, r0) + wide(h1, r1_folded);
        let second = wide(h0, r1) + wide(h1, r0) + u128::from(h2 * r1_folded) + (first >> 64);
        let third = h2 * r0 + (second >> 64) as u64;

        // What is at 2^130 and above comes back five times: `third / 4`, once and four times.
        let low = u128::from(second as u64) << 64 | u128::from(first as u64);
        let (low, carry) = low.overflowing_add(u128::from((third >> 2) + (third & !3)));
        self.low = low;
        self.high = (third & 3) + u64::from(carry);
    }

    #[inline(always)]
    fn finish(self, s: u128) -> u128 {
        // Five more, less 2^130: that is the remainder if the accumulator has reached 2^130 - 5.
        let (less, carry) = self.low.overflowing_add(5);
        let has_reached = (self.high + u64::from(carry)) >> 2;
        let mask = u128::from(has_reached).wrapping_neg();
        (self.low & !mask | less & mask).wrapping_add(s)
    }
}

#[inline(always)]
fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The tag of whole blocks, without the lengths.
    pub(crate) fn tag(r: u128, s: u128, blocks: &[u128]) -> u128 {
        let mut state = Accumulator::new(r);
        for block in blocks {
            state.absorb(*block);
            assert!(state.high <= 4);
        }
        state.finish(s)
    }

    /// RFC 8439, appendix A.3, tests 5 to 11: values around 2^130 - 5, and carries through all words.
    #[test]
    fn the_edges_of_rfc_8439() {
        const ONES: u128 = u128::MAX;
        assert_eq!(tag(2, 0, &[ONES]), 3);
        assert_eq!(tag(2, ONES, &[2]), 3);
        assert_eq!(tag(1, 0, &[ONES, ONES - 0xf, 0x11]), 5);
        let fe = 0xfefe_fefe_fefe_fefe_fefe_fefe_fefe_fefe;
        assert_eq!(tag(1, 0, &[ONES, fe - 3, 0x0101_0101_0101_0101_0101_0101_0101_0101]), 0);
        assert_eq!(tag(2, 0, &[ONES - 2]), ONES - 5);
        let word = |bytes: [u8; 8]| u128::from(u64::from_le_bytes(bytes));
        let blocks = [
            word([0xe3, 0x35, 0x94, 0xd7, 0x50, 0x5e, 0x43, 0xb9]),
            word([0x33, 0x94, 0xd7, 0x50, 0x5e, 0x43, 0x79, 0xcd]) | 1 << 64,
            0,
            1,
        ];
        assert_eq!(tag(4 << 64 | 1, 0, &blocks), 0x55 << 64 | 0x14);
        assert_eq!(tag(4 << 64 | 1, 0, &blocks[..3]), 0x13);
    }

    /// Numbers of 260 bits by hand: what the accumulator should hold, without a clever reduction.
    fn slow_tag(r: u128, s: u128, blocks: &[u128]) -> u128 {
        let r = r & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        // The accumulator below the prime, bit by bit of `r`: doubled and added with a reduction after each step.
        let (mut low, mut high) = (0u128, 0u8);
        let reduce = |low: u128, high: u8| {
            let (folded, carry) = low.overflowing_add(5 * u128::from(high >> 2));
            (folded, (high & 3) + u8::from(carry))
        };
        for block in blocks {
            let (sum, carry) = low.overflowing_add(*block);
            let (x, x_high) = reduce(sum, high + 1 + u8::from(carry));
            (low, high) = (0, 0);
            for bit in (0..128).rev() {
                (low, high) = reduce(low << 1, high << 1 | (low >> 127) as u8);
                if r >> bit & 1 == 1 {
                    let (sum, carry) = low.overflowing_add(x);
                    (low, high) = reduce(sum, high + x_high + u8::from(carry));
                }
            }
        }
        let (less, carry) = low.overflowing_add(5);
        if high + u8::from(carry) >= 4 { less.wrapping_add(s) } else { low.wrapping_add(s) }
    }

    /// All combinations of blocks at the edges of words and of the prime, under keys with all bits and with few.
    #[test]
    fn edges_meet_long_multiplication() {
        let word = u128::from(u64::MAX);
        let edges =
            [0, 1, 4, 5, word, word + 1, word << 64, u128::MAX - 5, u128::MAX - 4, u128::MAX - 1, u128::MAX];
        let keys =
            [0, 1, 2, 5, u128::MAX, word, word << 64, 1 << 64, 4 << 64 | 1, 0x0123_4567_89ab_cdef << 33];
        for r in keys {
            for a in edges {
                for b in edges {
                    for s in [0, 1, u128::MAX] {
                        assert_eq!(tag(r, s, &[a, b]), slow_tag(r, s, &[a, b]), "{r:x} {s:x} {a:x} {b:x}");
                    }
                    assert_eq!(tag(r, 0, &[a, b, b, a, b]), slow_tag(r, 0, &[a, b, b, a, b]));
                }
            }
        }
    }
}
