//! AVX-512: the four blocks of a frame in the four quarters of one set of vectors.
//!
//! Each of the four rows of ChaCha20's matrix is a vector, so a quarter round works on 16 columns at once, and the diagonals are
//! rotations within quarters. Rotations of words are single instructions here.

use core::arch::x86_64::*;

use crate::KEY_LEN;
use crate::stream::FrameStream;

/// The proof that this CPU has AVX-512 F, BW and VL, and BMI2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if there is one.
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("bmi2");
        all.then_some(Self(()))
    }
}

super::entries!(Avx512, "avx512f,avx512bw,avx512vl,bmi2");

/// Four rows of ChaCha20's matrix, of four blocks each.
type Rows = [__m512i; 4];

/// Blocks 0 and 1 for `nonce`, then for the one after it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn keystream(key: &[u8; KEY_LEN], nonce: u64) -> FrameStream {
    let begin = begin(key, nonce);
    let mut rows = begin;
    for _ in 0..10 {
        double_round(&mut rows);
    }
    let mut stream = FrameStream { rows: [[0; 4]; 4] };
    for r in 0..4 {
        let row = _mm512_add_epi32(rows[r], begin[r]);
        // SAFETY: 64 bytes are written to an array of 64 bytes.
        unsafe { _mm512_storeu_si512(stream.rows[r].as_mut_ptr().cast(), row) };
    }
    stream
}

/// The matrix before the rounds: constants, key, counter and nonce.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn begin(key: &[u8; KEY_LEN], nonce: u64) -> Rows {
    // SAFETY: twice 16 bytes are read from an array of 32 bytes.
    let (low, high) = unsafe {
        (_mm_loadu_si128(key.as_ptr().cast()), _mm_loadu_si128(key[KEY_LEN / 2..].as_ptr().cast()))
    };
    // In each quarter: the block's number, 32 zero bits, and the nonce's counter.
    let nonces = _mm512_maskz_set1_epi64(0b1010_1010, nonce.cast_signed());
    let steps = _mm512_set_epi64(1, 1, 1, 0, 0, 1, 0, 0);
    [
        _mm512_broadcast_i32x4(super::constants()),
        _mm512_broadcast_i32x4(low),
        _mm512_broadcast_i32x4(high),
        _mm512_add_epi64(nonces, steps),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn double_round(rows: &mut Rows) {
    quarter_rounds(rows);
    // The diagonals become columns, and back.
    rows[1] = _mm512_shuffle_epi32::<0b00_11_10_01>(rows[1]);
    rows[2] = _mm512_shuffle_epi32::<0b01_00_11_10>(rows[2]);
    rows[3] = _mm512_shuffle_epi32::<0b10_01_00_11>(rows[3]);
    quarter_rounds(rows);
    rows[1] = _mm512_shuffle_epi32::<0b10_01_00_11>(rows[1]);
    rows[2] = _mm512_shuffle_epi32::<0b01_00_11_10>(rows[2]);
    rows[3] = _mm512_shuffle_epi32::<0b00_11_10_01>(rows[3]);
}

/// A quarter round on every column of every block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn quarter_rounds([a, b, c, d]: &mut Rows) {
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<16>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<12>(_mm512_xor_si512(*b, *c));
    *a = _mm512_add_epi32(*a, *b);
    *d = _mm512_rol_epi32::<8>(_mm512_xor_si512(*d, *a));
    *c = _mm512_add_epi32(*c, *d);
    *b = _mm512_rol_epi32::<7>(_mm512_xor_si512(*b, *c));
}
