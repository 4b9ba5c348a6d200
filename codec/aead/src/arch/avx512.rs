//! AVX-512: the four blocks of a frame in the four quarters of one set of vectors.
//!
//! Each of the four rows of ChaCha20's matrix is a vector, so a quarter round works on 16 columns at once, and the
//! diagonals are rotations within quarters. Rotations of words are single instructions here.

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
    let [stream] = keystreams([key], [nonce]);
    stream
}

/// As [`keystream`], for several frames beside each other: each waits for its own additions, so that the others' are done in
/// the meantime.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
pub(super) fn keystreams<const FRAMES: usize>(
    keys: [&[u8; KEY_LEN]; FRAMES],
    nonces: [u64; FRAMES],
) -> [FrameStream; FRAMES] {
    let mut begins = [begin(keys[0], nonces[0]); FRAMES];
    for i in 1..FRAMES {
        begins[i] = begin(keys[i], nonces[i]);
    }
    let mut matrices = begins;
    for _ in 0..10 {
        quarter_rounds(&mut matrices);
        for [_, b, c, d] in &mut matrices {
            // The diagonals become columns.
            *b = _mm512_shuffle_epi32::<0b00_11_10_01>(*b);
            *c = _mm512_shuffle_epi32::<0b01_00_11_10>(*c);
            *d = _mm512_shuffle_epi32::<0b10_01_00_11>(*d);
        }
        quarter_rounds(&mut matrices);
        for [_, b, c, d] in &mut matrices {
            *b = _mm512_shuffle_epi32::<0b10_01_00_11>(*b);
            *c = _mm512_shuffle_epi32::<0b01_00_11_10>(*c);
            *d = _mm512_shuffle_epi32::<0b00_11_10_01>(*d);
        }
    }
    let mut streams = [FrameStream { rows: [[0; 4]; 4] }; FRAMES];
    for i in 0..FRAMES {
        for r in 0..4 {
            let row = _mm512_add_epi32(matrices[i][r], begins[i][r]);
            // SAFETY: 64 bytes are written to an array of 64 bytes.
            unsafe { _mm512_storeu_si512(streams[i].rows[r].as_mut_ptr().cast(), row) };
        }
    }
    streams
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

/// A quarter round on every column of every block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
fn quarter_rounds<const FRAMES: usize>(matrices: &mut [Rows; FRAMES]) {
    for [a, b, _, d] in &mut *matrices {
        *a = _mm512_add_epi32(*a, *b);
        *d = _mm512_rol_epi32::<16>(_mm512_xor_si512(*d, *a));
    }
    for [_, b, c, d] in &mut *matrices {
        *c = _mm512_add_epi32(*c, *d);
        *b = _mm512_rol_epi32::<12>(_mm512_xor_si512(*b, *c));
    }
    for [a, b, _, d] in &mut *matrices {
        *a = _mm512_add_epi32(*a, *b);
        *d = _mm512_rol_epi32::<8>(_mm512_xor_si512(*d, *a));
    }
    for [_, b, c, d] in &mut *matrices {
        *c = _mm512_add_epi32(*c, *d);
        *b = _mm512_rol_epi32::<7>(_mm512_xor_si512(*b, *c));
    }
}
