//! SHA-NI: instructions for four words of one message. Two messages are interleaved to cover the latency, which is a third
//! faster than one after the other; three or four gain nothing more. A lone message has a kernel of its own.

use core::arch::x86_64::*;

use super::drive::{Streams, entries};
use crate::HeaderBytes;
use crate::sha256::{K, PAD, Schedule, State};

/// The proof that this CPU has the SHA extensions and SSE4.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShaNi(());

impl ShaNi {
    /// The proof, if there is one.
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        all.then_some(Self(()))
    }
}

/// The kernel for one message at a time.
pub(crate) mod lane1 {
    super::entries!(super::Interleaved<1>, 1, super::ShaNi, "sha,ssse3,sse4.1");
}

/// The kernel for two messages at a time.
pub(crate) mod lanes2 {
    super::entries!(super::Interleaved<2>, 2, super::ShaNi, "sha,ssse3,sse4.1");
}

/// The chaining values of `LANES` messages, as the instructions want them: words A, B, E, F of each in one vector, C, D, G, H in the other, the
/// first letter on top. Exists only where [`ShaNi`] does.
#[derive(Clone, Copy)]
pub(crate) struct Interleaved<const LANES: usize> {
    abef: [__m128i; LANES],
    cdgh: [__m128i; LANES],
}

/// Instructions that touch registers only.
macro_rules! sha_ni {
    ($($instructions:tt)*) => {{
        // SAFETY: tokens and states exist only where the CPU has SHA-NI and SSE4.1, and no memory is touched.
        #[allow(unused_unsafe, clippy::macro_metavars_in_unsafe)]
        unsafe { $($instructions)* }
    }};
}

/// Sixteen groups of four rounds.
macro_rules! sixteen_groups {
    ($group:ident) => {
        $group!(0);
        $group!(1);
        $group!(2);
        $group!(3);
        $group!(4);
        $group!(5);
        $group!(6);
        $group!(7);
        $group!(8);
        $group!(9);
        $group!(10);
        $group!(11);
        $group!(12);
        $group!(13);
        $group!(14);
        $group!(15);
    };
}

impl<const LANES: usize> Streams<LANES> for Interleaved<LANES> {
    type Token = ShaNi;
    /// Four vectors of four words for each message.
    type Block = [[__m128i; 4]; LANES];

    #[inline(always)]
    fn broadcast(token: ShaNi, state: &State) -> Self {
        let words = state.as_chunks::<4>().0;
        let (abcd, efgh) = (load_words(token, &words[0]), load_words(token, &words[1]));
        sha_ni!({
            let badc = _mm_shuffle_epi32::<0xb1>(abcd);
            let hgfe = _mm_shuffle_epi32::<0x1b>(efgh);
            let abef = _mm_alignr_epi8::<8>(badc, hgfe);
            let cdgh = _mm_blend_epi16::<0xf0>(hgfe, badc);
            Self { abef: [abef; LANES], cdgh: [cdgh; LANES] }
        })
    }

    #[inline(always)]
    fn load_block<const ROW: usize>(token: ShaNi, rows: &[[u8; ROW]; LANES], at: usize) -> Self::Block {
        let mut block = [[zero(token); 4]; LANES];
        for n in 0..LANES {
            for i in 0..4 {
                block[n][i] = load(token, &rows[n], at + 16 * i);
            }
        }
        block
    }

    #[inline(always)]
    fn load_header_tail(token: ShaNi, rows: &[HeaderBytes; LANES]) -> Self::Block {
        let (pad, bits) = padding(token, 80 * 8);
        let mut block = [[zero(token), pad, zero(token), bits]; LANES];
        for n in 0..LANES {
            block[n][0] = load(token, &rows[n], 64);
        }
        block
    }

    #[inline(always)]
    fn nonce_block(token: ShaNi, tail: &[u32; 3], nonces: &[u32; LANES]) -> Self::Block {
        let (pad, bits) = padding(token, 80 * 8);
        let mut block = [[zero(token), pad, zero(token), bits]; LANES];
        for n in 0..LANES {
            block[n][0] = load_words(token, &[tail[0], tail[1], tail[2], nonces[n]]);
        }
        block
    }

    #[inline(always)]
    fn second_block(self, token: ShaNi) -> Self::Block {
        let (pad, bits) = padding(token, 32 * 8);
        let mut block = [[zero(token), zero(token), pad, bits]; LANES];
        for n in 0..LANES {
            [block[n][0], block[n][1]] = self.words(n);
        }
        block
    }

    #[inline(always)]
    fn node_block(self, token: ShaNi, right: &State) -> Self::Block {
        let right = right.as_chunks::<4>().0;
        let (abcd, efgh) = (load_words(token, &right[0]), load_words(token, &right[1]));
        let mut block = [[abcd, abcd, abcd, efgh]; LANES];
        for n in 0..LANES {
            [block[n][0], block[n][1]] = self.words(n);
        }
        block
    }

    #[inline(always)]
    fn compress(self, token: ShaNi, mut w: Self::Block) -> Self {
        let Self { mut abef, mut cdgh } = self;
        macro_rules! group {
            ($g:literal) => {
                let k = load_words(token, &K.as_chunks::<4>().0[$g]);
                for n in 0..LANES {
                    sha_ni!({
                        let words = w[n][$g & 3];
                        let kw = _mm_add_epi32(words, k);
                        cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], kw);
                        // Each group finishes the next one's words, and begins those of three later.
                        if $g >= 3 && $g < 15 {
                            let sum = _mm_add_epi32(
                                w[n][($g + 1) & 3],
                                _mm_alignr_epi8::<4>(words, w[n][($g + 3) & 3]),
                            );
                            w[n][($g + 1) & 3] = _mm_sha256msg2_epu32(sum, words);
                        }
                        abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32::<0x0e>(kw));
                        if $g >= 1 && $g < 13 {
                            w[n][($g + 3) & 3] = _mm_sha256msg1_epu32(w[n][($g + 3) & 3], words);
                        }
                    });
                }
                keep_interleaved(&mut abef);
            };
        }
        sixteen_groups!(group);
        self.feed_forward(abef, cdgh)
    }

    #[inline(always)]
    fn compress_const(self, token: ShaNi, schedule: &Schedule) -> Self {
        let Self { mut abef, mut cdgh } = self;
        macro_rules! group {
            ($g:literal) => {
                let kw = load_words(token, &schedule.as_chunks::<4>().0[$g]);
                for n in 0..LANES {
                    sha_ni!({
                        cdgh[n] = _mm_sha256rnds2_epu32(cdgh[n], abef[n], kw);
                        abef[n] = _mm_sha256rnds2_epu32(abef[n], cdgh[n], _mm_shuffle_epi32::<0x0e>(kw));
                    });
                }
                keep_interleaved(&mut abef);
            };
        }
        sixteen_groups!(group);
        self.feed_forward(abef, cdgh)
    }

    #[inline(always)]
    fn store(self) -> [[u8; 32]; LANES] {
        let mut out = [[0; 32]; LANES];
        for n in 0..LANES {
            let [abcd, efgh] = self.words(n);
            // SAFETY: states exist only where the CPU has SSE4.1, and each row of `out` has the 32 bytes that are written.
            unsafe {
                let row = out[n].as_mut_ptr();
                _mm_storeu_si128(row.cast(), reverse_words(abcd));
                _mm_storeu_si128(row.add(16).cast(), reverse_words(efgh));
            }
        }
        out
    }

    #[inline(always)]
    fn top_words_at_most(self, _: ShaNi, limit: u32) -> u32 {
        let mut mask = 0;
        for n in 0..LANES {
            let h = sha_ni!(_mm_cvtsi128_si32(self.cdgh[n])) as u32;
            mask |= u32::from(h.swap_bytes() <= limit) << n;
        }
        mask
    }
}

impl<const LANES: usize> Interleaved<LANES> {
    /// The chaining value of message `n` in the order of the standard.
    #[inline(always)]
    fn words(self, n: usize) -> [__m128i; 2] {
        sha_ni!({
            let feba = _mm_shuffle_epi32::<0x1b>(self.abef[n]);
            let dchg = _mm_shuffle_epi32::<0xb1>(self.cdgh[n]);
            [_mm_blend_epi16::<0xf0>(feba, dchg), _mm_alignr_epi8::<8>(dchg, feba)]
        })
    }

    /// The addition that ends a compression.
    #[inline(always)]
    fn feed_forward(mut self, abef: [__m128i; LANES], cdgh: [__m128i; LANES]) -> Self {
        for n in 0..LANES {
            self.abef[n] = sha_ni!(_mm_add_epi32(self.abef[n], abef[n]));
            self.cdgh[n] = sha_ni!(_mm_add_epi32(self.cdgh[n], cdgh[n]));
        }
        self
    }
}

/// Makes what follows depend on all messages. Without it the compiler, which sees that they are independent, does one
/// after the other in straight-line code: 102 ns a header instead of 58 on a Zen 3.
#[inline(always)]
fn keep_interleaved<const LANES: usize>(abef: &mut [__m128i; LANES]) {
    // Miri runs no assembly, and needs none here.
    #[cfg(not(miri))]
    if let [first, second] = &mut abef[..] {
        // SAFETY: a comment is no instruction. States exist only where the CPU has SSE4.1, so the registers are there.
        unsafe {
            core::arch::asm!(
                "# {0} {1}",
                inout(xmm_reg) * first,
                inout(xmm_reg) * second,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
    #[cfg(miri)]
    let _ = abef;
}

#[inline(always)]
fn zero(_: ShaNi) -> __m128i {
    sha_ni!(_mm_setzero_si128())
}

/// The vector that begins with the padding bit and the one that ends with a length in bits.
#[inline(always)]
fn padding(_: ShaNi, bits: i32) -> (__m128i, __m128i) {
    sha_ni!((_mm_set_epi32(0, 0, 0, PAD as i32), _mm_set_epi32(bits, 0, 0, 0)))
}

#[inline(always)]
fn load_words(_: ShaNi, words: &[u32; 4]) -> __m128i {
    // SAFETY: the token proves SSE4.1, and 16 bytes are read from an array of 16 bytes.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// Four big-endian words of a row, from `at`.
#[inline(always)]
fn load<const ROW: usize>(_: ShaNi, row: &[u8; ROW], at: usize) -> __m128i {
    assert!(ROW >= 16 && at <= ROW - 16, "16 bytes within a row");
    // SAFETY: the token proves SSE4.1, and the assertion bounds the read.
    unsafe { reverse_words(_mm_loadu_si128(row.as_ptr().add(at).cast())) }
}

/// Reverses the bytes of each 32-bit word.
///
/// # Safety
/// The CPU has SSSE3.
#[inline(always)]
unsafe fn reverse_words(x: __m128i) -> __m128i {
    // SAFETY: the caller's CPU has SSSE3.
    unsafe { _mm_shuffle_epi8(x, _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203)) }
}
