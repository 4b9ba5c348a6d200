//! AVX2: the four blocks of a frame in two sets of vectors, two blocks in the halves of each.
//!
//! The two sets are independent, so the instructions of one fill the waits of the other. More would not fit into the sixteen
//! registers.

use core::arch::x86_64::*;

use crate::KEY_LEN;
use crate::stream::FrameStream;

/// The proof that this CPU has AVX2 and BMI2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if there is one.
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2")).then_some(Self(()))
    }
}

super::entries!(Avx2, "avx2,bmi2");

/// Four rows of ChaCha20's matrix, of two blocks each.
type Rows = [__m256i; 4];

/// Blocks 0 and 1 for `nonce`, then for the one after it.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn keystream(key: &[u8; KEY_LEN], nonce: u64) -> FrameStream {
    let first = begin(key, nonce);
    let second = [first[0], first[1], first[2], counters(nonce.wrapping_add(1))];
    let (mut rows, mut later) = (first, second);
    for _ in 0..10 {
        quarter_rounds(&mut rows, &mut later);
        diagonals_to_columns(&mut rows);
        diagonals_to_columns(&mut later);
        quarter_rounds(&mut rows, &mut later);
        columns_to_diagonals(&mut rows);
        columns_to_diagonals(&mut later);
    }
    let mut stream = FrameStream { rows: [[0; 4]; 4] };
    for r in 0..4 {
        let (row, later) = (_mm256_add_epi32(rows[r], first[r]), _mm256_add_epi32(later[r], second[r]));
        let out = stream.rows[r].as_mut_ptr();
        // SAFETY: twice 32 bytes are written to an array of 64 bytes.
        unsafe {
            _mm256_storeu_si256(out.cast(), row);
            _mm256_storeu_si256(out.add(2).cast(), later);
        }
    }
    stream
}

/// The matrix before the rounds: constants, key, counter and nonce.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn begin(key: &[u8; KEY_LEN], nonce: u64) -> Rows {
    // SAFETY: twice 16 bytes are read from an array of 32 bytes.
    let (low, high) = unsafe {
        (_mm_loadu_si128(key.as_ptr().cast()), _mm_loadu_si128(key[KEY_LEN / 2..].as_ptr().cast()))
    };
    [
        _mm256_broadcastsi128_si256(super::constants()),
        _mm256_broadcastsi128_si256(low),
        _mm256_broadcastsi128_si256(high),
        counters(nonce),
    ]
}

/// In each half: the block's number, 32 zero bits, and the nonce's counter.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn counters(nonce: u64) -> __m256i {
    _mm256_set_epi64x(nonce.cast_signed(), 1, nonce.cast_signed(), 0)
}

#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn diagonals_to_columns(rows: &mut Rows) {
    rows[1] = _mm256_shuffle_epi32::<0b00_11_10_01>(rows[1]);
    rows[2] = _mm256_shuffle_epi32::<0b01_00_11_10>(rows[2]);
    rows[3] = _mm256_shuffle_epi32::<0b10_01_00_11>(rows[3]);
}

#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn columns_to_diagonals(rows: &mut Rows) {
    rows[1] = _mm256_shuffle_epi32::<0b10_01_00_11>(rows[1]);
    rows[2] = _mm256_shuffle_epi32::<0b01_00_11_10>(rows[2]);
    rows[3] = _mm256_shuffle_epi32::<0b00_11_10_01>(rows[3]);
}

/// A quarter round on every column of every block, both sets step by step beside each other.
#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn quarter_rounds(rows: &mut Rows, later: &mut Rows) {
    for [a, b, c, d] in [&mut *rows, &mut *later] {
        *a = _mm256_add_epi32(*a, *b);
        *d = rotate_left_16(_mm256_xor_si256(*d, *a));
        *c = _mm256_add_epi32(*c, *d);
        *b = _mm256_xor_si256(*b, *c);
        *b = _mm256_or_si256(_mm256_slli_epi32::<12>(*b), _mm256_srli_epi32::<20>(*b));
    }
    for [a, b, c, d] in [rows, later] {
        *a = _mm256_add_epi32(*a, *b);
        *d = rotate_left_8(_mm256_xor_si256(*d, *a));
        *c = _mm256_add_epi32(*c, *d);
        *b = _mm256_xor_si256(*b, *c);
        *b = _mm256_or_si256(_mm256_slli_epi32::<7>(*b), _mm256_srli_epi32::<25>(*b));
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn rotate_left_16(words: __m256i) -> __m256i {
    let order = _mm_set_epi32(0x0d0c_0f0e, 0x0908_0b0a, 0x0504_0706, 0x0100_0302);
    _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(order))
}

#[inline]
#[target_feature(enable = "avx2,bmi2")]
fn rotate_left_8(words: __m256i) -> __m256i {
    let order = _mm_set_epi32(0x0e0d_0c0f, 0x0a09_080b, 0x0605_0407, 0x0201_0003);
    _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(order))
}
