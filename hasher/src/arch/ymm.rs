//! Loads and stores of eight lanes in 256-bit vectors, for AVX2 and for AVX-512's eight-lane kernel.
//!
//! Rows go in, one per lane, and are transposed to words, 7 cycles a header: less than gathering them one by one.

use core::arch::x86_64::*;

/// Reverses the bytes of each 32-bit word.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn reverse_words(x: __m256i) -> __m256i {
    // SAFETY: the caller's CPU has AVX2.
    unsafe {
        let order = _mm256_set_epi64x(
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
            0x0c0d_0e0f_0809_0a0b,
            0x0405_0607_0001_0203,
        );
        _mm256_shuffle_epi8(x, order)
    }
}

/// Transposes eight rows of eight words.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn transpose_8x8(r: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: the caller's CPU has AVX2.
    unsafe {
        // Words c and c + 4 of rows 0..4 (`low`) and 4..8 (`high`), in the two halves of vector c.
        let low = transpose_4x4([r[0], r[1], r[2], r[3]]);
        let high = transpose_4x4([r[4], r[5], r[6], r[7]]);
        [
            _mm256_permute2x128_si256::<0x20>(low[0], high[0]),
            _mm256_permute2x128_si256::<0x20>(low[1], high[1]),
            _mm256_permute2x128_si256::<0x20>(low[2], high[2]),
            _mm256_permute2x128_si256::<0x20>(low[3], high[3]),
            _mm256_permute2x128_si256::<0x31>(low[0], high[0]),
            _mm256_permute2x128_si256::<0x31>(low[1], high[1]),
            _mm256_permute2x128_si256::<0x31>(low[2], high[2]),
            _mm256_permute2x128_si256::<0x31>(low[3], high[3]),
        ]
    }
}

/// Transposes four rows of four words, in each half of the vectors by itself.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn transpose_4x4(r: [__m256i; 4]) -> [__m256i; 4] {
    // SAFETY: the caller's CPU has AVX2.
    unsafe {
        let (a, b) = (_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1]));
        let (c, d) = (_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3]));
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    }
}

/// Eight words of each row, from `at`.
///
/// # Safety
/// The CPU has AVX2, and `at + 32 <= ROW`.
#[inline(always)]
unsafe fn load_8<const ROW: usize>(rows: &[[u8; ROW]; 8], at: usize) -> [__m256i; 8] {
    // SAFETY: the caller's CPU has AVX2, and 32 bytes from `at` lie within each row.
    unsafe {
        let mut words = [_mm256_setzero_si256(); 8];
        for i in 0..8 {
            words[i] = reverse_words(_mm256_loadu_si256(rows[i].as_ptr().add(at).cast()));
        }
        transpose_8x8(words)
    }
}

/// Sixteen words of each row, from `at`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn load_16<const ROW: usize>(rows: &[[u8; ROW]; 8], at: usize) -> [__m256i; 16] {
    assert!(ROW >= 64 && at <= ROW - 64, "64 bytes within a row");
    // SAFETY: the caller's CPU has AVX2, and the assertion bounds both reads.
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) =
        unsafe { (load_8(rows, at), load_8(rows, at + 32)) };
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// Four words of each row, from `at`.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn load_4<const ROW: usize>(rows: &[[u8; ROW]; 8], at: usize) -> [__m256i; 4] {
    assert!(ROW >= 16 && at <= ROW - 16, "16 bytes within a row");
    // SAFETY: the caller's CPU has AVX2, and the assertion bounds the reads.
    unsafe {
        let mut words = [_mm256_setzero_si256(); 4];
        for i in 0..4 {
            let low = _mm_loadu_si128(rows[i].as_ptr().add(at).cast());
            let high = _mm_loadu_si128(rows[i + 4].as_ptr().add(at).cast());
            words[i] = reverse_words(_mm256_set_m128i(high, low));
        }
        transpose_4x4(words)
    }
}

/// Eight words of each lane as rows.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn store_8(words: [__m256i; 8]) -> [[u8; 32]; 8] {
    let mut out = [[0; 32]; 8];
    // SAFETY: the caller's CPU has AVX2, and each row of `out` has the 32 bytes that are written.
    unsafe {
        let rows = transpose_8x8(words);
        for i in 0..8 {
            _mm256_storeu_si256(out[i].as_mut_ptr().cast(), reverse_words(rows[i]));
        }
    }
    out
}
