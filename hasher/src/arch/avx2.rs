//! AVX2: eight lanes of 256 bits.

use core::arch::x86_64::*;

use super::lanes::WordVector;
use super::ymm;

/// The proof that this CPU has AVX2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if there is one.
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// The eight-lane kernel.
pub(crate) mod lanes8 {
    use super::super::{drive::entries, lanes::Lanes};
    entries!(Lanes<super::Words>, 8, super::Avx2, "avx2");
}

/// Eight words. Exists only where [`Avx2`] does.
#[derive(Clone, Copy)]
pub(crate) struct Words(__m256i);

/// Instructions that touch registers only.
macro_rules! avx2 {
    ($($instructions:tt)*) => {{
        // SAFETY: tokens and vectors exist only where the CPU has AVX2, and no memory is touched.
        #[allow(unused_unsafe, clippy::macro_metavars_in_unsafe)]
        unsafe { $($instructions)* }
    }};
}

/// A rotation to the right; `$left` is 32 - `$right`.
macro_rules! rotate {
    ($x:expr, $right:literal, $left:literal) => {
        _mm256_or_si256(_mm256_srli_epi32::<$right>($x), _mm256_slli_epi32::<$left>($x))
    };
}

macro_rules! xor3 {
    ($x:expr, $y:expr, $z:expr) => {
        _mm256_xor_si256(_mm256_xor_si256($x, $y), $z)
    };
}

impl WordVector<8> for Words {
    type Token = Avx2;

    #[inline(always)]
    fn splat(_: Avx2, word: u32) -> Self {
        Self(avx2!(_mm256_set1_epi32(word as i32)))
    }

    #[inline(always)]
    fn from_words(_: Avx2, words: &[u32; 8]) -> Self {
        // SAFETY: the token proves AVX2, and 32 bytes are read from an array of 32 bytes.
        Self(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(avx2!(_mm256_add_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(avx2!(_mm256_sub_epi32(self.0, other.0)))
    }

    #[inline(always)]
    fn choose(e: Self, f: Self, g: Self) -> Self {
        Self(avx2!(_mm256_xor_si256(g.0, _mm256_and_si256(e.0, _mm256_xor_si256(f.0, g.0)))))
    }

    #[inline(always)]
    fn majority(a: Self, b: Self, c: Self) -> Self {
        // `b ^ c` is the `a ^ b` of the round before: the compiler keeps it.
        Self(avx2!(_mm256_xor_si256(
            b.0,
            _mm256_and_si256(_mm256_xor_si256(a.0, b.0), _mm256_xor_si256(b.0, c.0))
        )))
    }

    #[inline(always)]
    fn big_sigma0(self) -> Self {
        Self(avx2!(xor3!(rotate!(self.0, 2, 30), rotate!(self.0, 13, 19), rotate!(self.0, 22, 10))))
    }

    #[inline(always)]
    fn big_sigma1(self) -> Self {
        Self(avx2!(xor3!(rotate!(self.0, 6, 26), rotate!(self.0, 11, 21), rotate!(self.0, 25, 7))))
    }

    #[inline(always)]
    fn small_sigma0(self) -> Self {
        Self(avx2!(xor3!(rotate!(self.0, 7, 25), rotate!(self.0, 18, 14), _mm256_srli_epi32::<3>(self.0))))
    }

    #[inline(always)]
    fn small_sigma1(self) -> Self {
        Self(avx2!(xor3!(rotate!(self.0, 17, 15), rotate!(self.0, 19, 13), _mm256_srli_epi32::<10>(self.0))))
    }

    #[inline(always)]
    fn load_16<const ROW: usize>(_: Avx2, rows: &[[u8; ROW]; 8], at: usize) -> [Self; 16] {
        // SAFETY: the token proves AVX2.
        wrap(unsafe { ymm::load_16(rows, at) })
    }

    #[inline(always)]
    fn load_4<const ROW: usize>(_: Avx2, rows: &[[u8; ROW]; 8], at: usize) -> [Self; 4] {
        // SAFETY: the token proves AVX2.
        wrap(unsafe { ymm::load_4(rows, at) })
    }

    #[inline(always)]
    fn store_8(words: [Self; 8]) -> [[u8; 32]; 8] {
        let [a, b, c, d, e, f, g, h] = words;
        // SAFETY: vectors exist only where the CPU has AVX2.
        unsafe { ymm::store_8([a.0, b.0, c.0, d.0, e.0, f.0, g.0, h.0]) }
    }

    #[inline(always)]
    fn reversed_at_most(self, limit: Self) -> u32 {
        // There is no unsigned comparison: the smaller of two is the first if the first is at most the second.
        avx2!({
            let words = ymm::reverse_words(self.0);
            let at_most = _mm256_cmpeq_epi32(_mm256_min_epu32(words, limit.0), words);
            _mm256_movemask_ps(_mm256_castsi256_ps(at_most)) as u32
        })
    }
}

#[inline(always)]
fn wrap<const N: usize>(vectors: [__m256i; N]) -> [Words; N] {
    let mut words = [Words(vectors[0]); N];
    for i in 0..N {
        words[i] = Words(vectors[i]);
    }
    words
}
