//! AVX-512: sixteen lanes of 512 bits, and eight of 256 bits with the same instructions for batches of up to eight.
//!
//! Rotations and all three-input logic are single instructions here. 98 % of what two vector ports allow is reached.

use core::arch::x86_64::*;

use super::lanes::WordVector;
use super::ymm;

/// The proof that this CPU has AVX-512 F, BW and VL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if there is one.
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        all.then_some(Self(()))
    }
}

/// The sixteen-lane kernel.
pub(crate) mod lanes16 {
    use super::super::{drive::entries, lanes::Lanes};
    entries!(Lanes<super::Words16>, 16, super::Avx512, "avx512f,avx512bw,avx512vl");
}

/// The eight-lane kernel.
pub(crate) mod lanes8 {
    use super::super::{drive::entries, lanes::Lanes};
    entries!(Lanes<super::Words8>, 8, super::Avx512, "avx512f,avx512bw,avx512vl");
}

/// Sixteen words. Exists only where [`Avx512`] does.
#[derive(Clone, Copy)]
pub(crate) struct Words16(__m512i);

/// Eight words. Exists only where [`Avx512`] does.
#[derive(Clone, Copy)]
pub(crate) struct Words8(__m256i);

/// Instructions that touch registers only.
macro_rules! avx512 {
    ($($instructions:tt)*) => {{
        // SAFETY: tokens and vectors exist only where the CPU has AVX-512, and no memory is touched.
        #[allow(unused_unsafe, clippy::macro_metavars_in_unsafe)]
        unsafe { $($instructions)* }
    }};
}

/// What both widths share: the functions of SHA-256. The tables of the three-input instruction are indexed by the bits of
/// its operands: 0x96 is exclusive or, 0xca choice, 0xe8 majority.
macro_rules! functions {
    ($logic:ident, $rotate:ident, $shift:ident, $add:ident, $sub:ident, $opaque:ident) => {
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(avx512!($add(self.0, other.0)))
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Self(avx512!($sub(self.0, other.0)))
        }

        #[inline(always)]
        fn in_order(self) -> Self {
            // SAFETY: vectors exist only where the CPU has AVX-512.
            Self(unsafe { $opaque(self.0) })
        }

        #[inline(always)]
        fn choose(e: Self, f: Self, g: Self) -> Self {
            Self(avx512!($logic::<0xca>(e.0, f.0, g.0)))
        }

        #[inline(always)]
        fn majority(a: Self, b: Self, c: Self) -> Self {
            Self(avx512!($logic::<0xe8>(a.0, b.0, c.0)))
        }

        #[inline(always)]
        fn big_sigma0(self) -> Self {
            Self(avx512!($logic::<0x96>($rotate::<2>(self.0), $rotate::<13>(self.0), $rotate::<22>(self.0))))
        }

        #[inline(always)]
        fn big_sigma1(self) -> Self {
            Self(avx512!($logic::<0x96>($rotate::<6>(self.0), $rotate::<11>(self.0), $rotate::<25>(self.0))))
        }

        #[inline(always)]
        fn small_sigma0(self) -> Self {
            Self(avx512!($logic::<0x96>($rotate::<7>(self.0), $rotate::<18>(self.0), $shift::<3>(self.0))))
        }

        #[inline(always)]
        fn small_sigma1(self) -> Self {
            Self(avx512!($logic::<0x96>($rotate::<17>(self.0), $rotate::<19>(self.0), $shift::<10>(self.0))))
        }
    };
}

/// The same vector, from assembly without an instruction. Not always inlined, since stable Rust does not join that with
/// target features; it is inlined all the same, or the speed that a test holds the kernels to would not be reached.
macro_rules! opaque {
    ($name:ident, $vector:ty, $register:ident) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn $name(x: $vector) -> $vector {
            // Miri runs no assembly, and needs none here.
            #[cfg(not(miri))]
            // SAFETY: there is no instruction.
            let x = unsafe {
                let mut x = x;
                core::arch::asm!("/* {0} */", inout($register) x, options(pure, nomem, nostack, preserves_flags));
                x
            };
            x
        }
    };
}

opaque!(opaque_256, __m256i, ymm_reg);
opaque!(opaque_512, __m512i, zmm_reg);

impl WordVector<8> for Words8 {
    type Token = Avx512;

    functions!(
        _mm256_ternarylogic_epi32,
        _mm256_ror_epi32,
        _mm256_srli_epi32,
        _mm256_add_epi32,
        _mm256_sub_epi32,
        opaque_256
    );

    #[inline(always)]
    fn splat(_: Avx512, word: u32) -> Self {
        Self(avx512!(_mm256_set1_epi32(word as i32)))
    }

    #[inline(always)]
    fn from_words(_: Avx512, words: &[u32; 8]) -> Self {
        // SAFETY: the token proves AVX-512, and 32 bytes are read from an array of 32 bytes.
        Self(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_16<const ROW: usize>(_: Avx512, rows: &[[u8; ROW]; 8], at: usize) -> [Self; 16] {
        // SAFETY: the token proves AVX-512, which includes AVX2.
        let vectors = unsafe { ymm::load_16(rows, at) };
        let mut words = [Self(vectors[0]); 16];
        for i in 0..16 {
            words[i] = Self(vectors[i]);
        }
        words
    }

    #[inline(always)]
    fn load_4<const ROW: usize>(_: Avx512, rows: &[[u8; ROW]; 8], at: usize) -> [Self; 4] {
        // SAFETY: the token proves AVX-512, which includes AVX2.
        let [a, b, c, d] = unsafe { ymm::load_4(rows, at) };
        [Self(a), Self(b), Self(c), Self(d)]
    }

    #[inline(always)]
    fn store_8(words: [Self; 8]) -> [[u8; 32]; 8] {
        let [a, b, c, d, e, f, g, h] = words;
        // SAFETY: vectors exist only where the CPU has AVX-512, which includes AVX2.
        unsafe { ymm::store_8([a.0, b.0, c.0, d.0, e.0, f.0, g.0, h.0]) }
    }

    #[inline(always)]
    fn reversed_at_most(self, limit: Self) -> u32 {
        u32::from(avx512!(_mm256_cmple_epu32_mask(ymm::reverse_words(self.0), limit.0)))
    }
}

impl WordVector<16> for Words16 {
    type Token = Avx512;

    functions!(
        _mm512_ternarylogic_epi32,
        _mm512_ror_epi32,
        _mm512_srli_epi32,
        _mm512_add_epi32,
        _mm512_sub_epi32,
        opaque_512
    );

    #[inline(always)]
    fn splat(_: Avx512, word: u32) -> Self {
        Self(avx512!(_mm512_set1_epi32(word as i32)))
    }

    #[inline(always)]
    fn from_words(_: Avx512, words: &[u32; 16]) -> Self {
        // SAFETY: the token proves AVX-512, and 64 bytes are read from an array of 64 bytes.
        Self(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_16<const ROW: usize>(_: Avx512, rows: &[[u8; ROW]; 16], at: usize) -> [Self; 16] {
        assert!(ROW >= 64 && at <= ROW - 64, "64 bytes within a row");
        // SAFETY: the token proves AVX-512, and the assertion bounds the reads.
        unsafe {
            let mut words = [_mm512_setzero_si512(); 16];
            for i in 0..16 {
                words[i] = reverse_words(_mm512_loadu_si512(rows[i].as_ptr().add(at).cast()));
            }
            transpose_16x16(words)
        }
    }

    #[inline(always)]
    fn load_4<const ROW: usize>(_: Avx512, rows: &[[u8; ROW]; 16], at: usize) -> [Self; 4] {
        assert!(ROW >= 16 && at <= ROW - 16, "16 bytes within a row");
        // SAFETY: the token proves AVX-512, and the assertion bounds the reads.
        unsafe {
            let mut words = [_mm512_setzero_si512(); 4];
            for i in 0..4 {
                // Quarter k of vector i is row i + 4k: the transposition within quarters leaves the rows in order.
                let mut x = _mm512_castsi128_si512(_mm_loadu_si128(rows[i].as_ptr().add(at).cast()));
                x = _mm512_inserti32x4::<1>(x, _mm_loadu_si128(rows[i + 4].as_ptr().add(at).cast()));
                x = _mm512_inserti32x4::<2>(x, _mm_loadu_si128(rows[i + 8].as_ptr().add(at).cast()));
                x = _mm512_inserti32x4::<3>(x, _mm_loadu_si128(rows[i + 12].as_ptr().add(at).cast()));
                words[i] = reverse_words(x);
            }
            let [a, b, c, d] = transpose_4x4(words);
            [Self(a), Self(b), Self(c), Self(d)]
        }
    }

    #[inline(always)]
    fn store_8(words: [Self; 8]) -> [[u8; 32]; 16] {
        let mut out = [[0; 32]; 16];
        let [a, b, c, d, e, f, g, h] = words;
        // SAFETY: vectors exist only where the CPU has AVX-512; row `4 * quarter + i` is one of 16, and each of its
        // halves has the 16 bytes that are written.
        unsafe {
            // Quarter k of vector i holds one half of digest 4k + i.
            let low = transpose_4x4([a.0, b.0, c.0, d.0]);
            let high = transpose_4x4([e.0, f.0, g.0, h.0]);
            for i in 0..4 {
                let (low, high) = (reverse_words(low[i]), reverse_words(high[i]));
                macro_rules! store {
                    ($quarter:literal) => {
                        let row = out[4 * $quarter + i].as_mut_ptr();
                        _mm_storeu_si128(row.cast(), _mm512_extracti32x4_epi32::<$quarter>(low));
                        _mm_storeu_si128(row.add(16).cast(), _mm512_extracti32x4_epi32::<$quarter>(high));
                    };
                }
                store!(0);
                store!(1);
                store!(2);
                store!(3);
            }
        }
        out
    }

    #[inline(always)]
    fn reversed_at_most(self, limit: Self) -> u32 {
        u32::from(avx512!(_mm512_cmple_epu32_mask(reverse_words(self.0), limit.0)))
    }
}

/// Reverses the bytes of each 32-bit word.
///
/// # Safety
/// The CPU has AVX-512 F and BW.
#[inline(always)]
unsafe fn reverse_words(x: __m512i) -> __m512i {
    // SAFETY: the caller's CPU has AVX-512.
    unsafe {
        let order = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
        _mm512_shuffle_epi8(x, order)
    }
}

/// Transposes four rows of four words, in each quarter of the vectors by itself.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn transpose_4x4(r: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller's CPU has AVX-512.
    unsafe {
        let (a, b) = (_mm512_unpacklo_epi32(r[0], r[1]), _mm512_unpackhi_epi32(r[0], r[1]));
        let (c, d) = (_mm512_unpacklo_epi32(r[2], r[3]), _mm512_unpackhi_epi32(r[2], r[3]));
        [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ]
    }
}

/// Transposes sixteen rows of sixteen words.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn transpose_16x16(r: [__m512i; 16]) -> [Words16; 16] {
    // SAFETY: the caller's CPU has AVX-512.
    unsafe {
        // Quarter k of `rows[g][c]` is word 4k + c of rows 4g..4g + 4.
        let rows = [
            transpose_4x4([r[0], r[1], r[2], r[3]]),
            transpose_4x4([r[4], r[5], r[6], r[7]]),
            transpose_4x4([r[8], r[9], r[10], r[11]]),
            transpose_4x4([r[12], r[13], r[14], r[15]]),
        ];
        let mut out = [Words16(_mm512_setzero_si512()); 16];
        for c in 0..4 {
            // Quarters 0 and 2, then 1 and 3, of two groups of rows each; a second pass picks one quarter of all four.
            let even = _mm512_shuffle_i32x4::<0x88>(rows[0][c], rows[1][c]);
            let even_later = _mm512_shuffle_i32x4::<0x88>(rows[2][c], rows[3][c]);
            let odd = _mm512_shuffle_i32x4::<0xdd>(rows[0][c], rows[1][c]);
            let odd_later = _mm512_shuffle_i32x4::<0xdd>(rows[2][c], rows[3][c]);
            out[c] = Words16(_mm512_shuffle_i32x4::<0x88>(even, even_later));
            out[c + 4] = Words16(_mm512_shuffle_i32x4::<0x88>(odd, odd_later));
            out[c + 8] = Words16(_mm512_shuffle_i32x4::<0xdd>(even, even_later));
            out[c + 12] = Words16(_mm512_shuffle_i32x4::<0xdd>(odd, odd_later));
        }
        out
    }
}
