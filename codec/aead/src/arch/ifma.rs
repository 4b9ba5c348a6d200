//! AVX-512 IFMA: eight frames at once, of one connection or of several. Their keystreams are made four and four beside each
//! other, and Poly1305 runs in eight lanes, first over all headers, then over the payloads.
//!
//! A lane's accumulator has three limbs of 44, 44 and 42 bits in words of 64: the instructions multiply 52 bits by 52 and
//! add the lower or the upper 52 bits of the product. After each multiplication the lowest limb is below 2^44, the middle
//! one below 2^44 plus 2^8, and the highest below 2^42; a block adds less than 2^44 to each, so no factor has more than 52
//! bits.

use core::arch::x86_64::*;

use super::avx512::keystreams;
use crate::sealed::{Frames, Outcomes};
use crate::stream::FrameStream;
use crate::{Forged, HEADER_LEN, KEY_LEN, LANES, Opening, SEALED_HEADER_LEN, SMALL_LEN_MAX, TAG_LEN};

/// The proof that this CPU has AVX-512 F, BW, VL and IFMA, and BMI2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ifma(());

impl Ifma {
    /// The proof, if there is one.
    pub(crate) fn detect() -> Option<Self> {
        (super::avx512::Avx512::detect().is_some() && is_x86_feature_detected!("avx512ifma"))
            .then_some(Self(()))
    }

    /// Opens the frame that each of the first `count` lanes' bytes begin with, as [`FrameStream::open_frame`] does. The other
    /// lanes have no keystream, and nothing in them is opened.
    pub(crate) fn open_frames(
        self,
        count: usize,
        keys: [&[u8; KEY_LEN]; LANES],
        nonces: [u64; LANES],
        frames: Frames<'_>,
    ) -> Outcomes {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
        fn entry(
            count: usize,
            keys: [&[u8; KEY_LEN]; LANES],
            nonces: [u64; LANES],
            mut frames: Frames<'_>,
        ) -> Outcomes {
            // Without keystream, a tag of zeros would do.
            frames.bytes[count..].fill_with(Default::default);
            let streams = streams(count, keys, nonces);
            let verified = verify(&streams, &frames);
            for lane in 0..LANES {
                verified.apply(lane, &streams[lane], frames.bytes[lane]);
            }
            verified.outcomes
        }
        // SAFETY: the token proves that the CPU has these features.
        unsafe { entry(count, keys, nonces, frames) }
    }

    /// See [`Aead::open_run`](crate::Aead::open_run). At most `count` frames are opened.
    pub(crate) fn open_run(
        self,
        count: usize,
        key: &[u8; KEY_LEN],
        nonce: u64,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> usize {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
        fn entry(
            count: usize,
            key: &[u8; KEY_LEN],
            nonce: u64,
            bytes: &mut [u8],
            payload_len_max: usize,
        ) -> usize {
            let nonces = core::array::from_fn(|lane| nonce.wrapping_add(2 * lane as u64));
            let streams = streams(count, [key; LANES], nonces);
            let bytes = cut(&streams[..count], bytes, payload_len_max.min(SMALL_LEN_MAX));
            let frames = Frames { bytes, payload_len_max: [payload_len_max; LANES] };
            let verified = verify(&streams, &frames);
            let is_open = |outcome: &Result<Opening, Forged>| *outcome == Ok(Opening::Frame);
            let opened = verified.outcomes.iter().take_while(|outcome| is_open(outcome)).count();
            for lane in 0..opened {
                verified.apply(lane, &streams[lane], frames.bytes[lane]);
            }
            opened
        }
        // SAFETY: the token proves that the CPU has these features.
        unsafe { entry(count, key, nonce, bytes, payload_len_max) }
    }

    /// Seals the first `count` frames, of one connection and in this order, each as [`FrameStream::seal_frame`] does; none of their
    /// payloads is empty or longer than [`SMALL_LEN_MAX`].
    pub(crate) fn seal_run(self, count: usize, key: &[u8; KEY_LEN], nonce: u64, frames: [&mut [u8]; LANES]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
        fn entry(count: usize, key: &[u8; KEY_LEN], nonce: u64, mut frames: [&mut [u8]; LANES]) {
            let nonces = core::array::from_fn(|lane| nonce.wrapping_add(2 * lane as u64));
            let streams = streams(count, [key; LANES], nonces);
            seal(&streams, &mut frames[..count]);
        }
        // SAFETY: the token proves that the CPU has these features.
        unsafe { entry(count, key, nonce, frames) }
    }
}

/// Cuts a run into frames by what their headers say. None of them has verified yet: where one is forged, what is cut from
/// there on is wrong, and is thrown away when that header is found not to verify. A frame without payload ends the run, as
/// it uses one nonce only.
#[inline(always)]
fn cut<'a>(streams: &[FrameStream], mut bytes: &'a mut [u8], len_max: usize) -> [&'a mut [u8]; LANES] {
    let mut frames: [&mut [u8]; LANES] = Default::default();
    for (frame, stream) in frames.iter_mut().zip(streams) {
        let Some([a, b, c, d, e, f]) = bytes.first_chunk::<HEADER_LEN>() else { break };
        let header = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, 0, 0]) ^ stream.rows[0][1] as u64;
        let len = header_payload_len(header);
        if !(1..=len_max).contains(&len) {
            break;
        }
        let sealed_len = SEALED_HEADER_LEN + len + TAG_LEN;
        if bytes.len() < sealed_len {
            break;
        }
        (*frame, bytes) = core::mem::take(&mut bytes).split_at_mut(sealed_len);
    }
    frames
}

/// The payload's length in a header that is the lower 48 bits of a number.
#[inline(always)]
fn header_payload_len(header: u64) -> usize {
    (header >> 24) as usize & 0xff_ffff
}

type Vector = __m512i;

/// The streams of the first `count` lanes, at least; those of a half that has none are zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn streams(count: usize, keys: [&[u8; KEY_LEN]; LANES], nonces: [u64; LANES]) -> [FrameStream; LANES] {
    let [k0, k1, k2, k3, k4, k5, k6, k7] = keys;
    let [n0, n1, n2, n3, n4, n5, n6, n7] = nonces;
    let mut streams = [FrameStream { rows: [[0; 4]; 4] }; LANES];
    let (lower, upper) = streams.split_at_mut(LANES / 2);
    lower.copy_from_slice(&keystreams([k0, k1, k2, k3], [n0, n1, n2, n3]));
    if count > LANES / 2 {
        upper.copy_from_slice(&keystreams([k4, k5, k6, k7], [n4, n5, n6, n7]));
    }
    streams
}

/// What is known of frames before any of their bytes are changed.
struct Verified {
    outcomes: Outcomes,
    /// The headers' plaintexts, in the lower 48 bits; of no meaning where the header does not verify.
    headers: [u64; LANES],
    payloads: Payloads,
}

/// The payloads that are opened; a lane that has none has the length 0.
struct Payloads {
    lens: [u64; LANES],
    /// Ciphertexts, with zeros behind them.
    texts: [Vector; LANES],
    tags: [[u64; LANES]; 2],
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn verify(streams: &[FrameStream; LANES], frames: &Frames<'_>) -> Verified {
    let stream_words = StreamWords::of(streams);
    let (verified, headers) = verify_headers(&stream_words, &frames.bytes);

    let mut outcomes = [Err(Forged); LANES];
    let mut payloads =
        Payloads { lens: [0; LANES], texts: [_mm512_setzero_si512(); LANES], tags: [[0; LANES]; 2] };
    for lane in 0..LANES {
        if verified & 1 << lane == 0 {
            continue;
        }
        let len = header_payload_len(headers[lane]);
        outcomes[lane] = Ok(if len == 0 { Opening::Frame } else { Opening::Header });
        if len == 0 || len > frames.payload_len_max[lane].min(SMALL_LEN_MAX) {
            continue;
        }
        if let Some((text, rest)) = frames.bytes[lane][SEALED_HEADER_LEN..].split_at_checked(len)
            && let Some(tag) = rest.first_chunk()
        {
            payloads.lens[lane] = len as u64;
            // SAFETY: as many bytes are read as the slice has; what is masked out is not touched.
            payloads.texts[lane] = unsafe { _mm512_maskz_loadu_epi8(mask(len), text.as_ptr().cast()) };
            (payloads.tags[0][lane], payloads.tags[1][lane]) = tag_words(tag);
        }
    }

    let [low, high] = payload_tags(&stream_words, &payloads.lens, payloads.texts);
    let verified = are_equal([low, high], &payloads.tags);
    for lane in 0..LANES {
        if payloads.lens[lane] > 0 {
            outcomes[lane] = if verified & 1 << lane == 0 { Err(Forged) } else { Ok(Opening::Frame) };
        }
    }
    Verified { outcomes, headers, payloads }
}

impl Verified {
    /// Writes the plaintext of what has verified over the ciphertext.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn apply(&self, lane: usize, stream: &FrameStream, bytes: &mut [u8]) {
        let Ok(opening) = self.outcomes[lane] else { return };
        bytes[..HEADER_LEN].copy_from_slice(&self.headers[lane].to_le_bytes()[..HEADER_LEN]);
        let len = self.payloads.lens[lane] as usize;
        if opening == Opening::Header || len == 0 {
            return;
        }
        let plain = _mm512_xor_si512(self.payloads.texts[lane], payload_stream(stream));
        let text = &mut bytes[SEALED_HEADER_LEN..][..len];
        // SAFETY: as many bytes are written as the slice has; what is masked out is not touched.
        unsafe { _mm512_mask_storeu_epi8(text.as_mut_ptr().cast(), mask(len), plain) };
    }
}

/// Words of the streams' first two rows. In each, for the header and then for the payload: two of the one-time key, two of
/// keystream.
struct StreamWords {
    /// With the keys' `r`.
    first: [Vector; 8],
    /// With the keys' `s`.
    second: [Vector; 8],
}

impl StreamWords {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn of(streams: &[FrameStream; LANES]) -> Self {
        Self { first: transpose(load_rows(streams, 0)), second: transpose(load_rows(streams, 1)) }
    }

    /// What a header's text and its ciphertext differ by.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn of_headers(&self) -> Vector {
        _mm512_and_si512(self.first[2], _mm512_set1_epi64((1 << (8 * HEADER_LEN)) - 1))
    }
}

/// Which headers verify, and their plaintexts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn verify_headers(stream_words: &StreamWords, frames: &[&mut [u8]; LANES]) -> (u8, [u64; LANES]) {
    let (mut texts, mut tags, mut present) = ([0; LANES], [[0; LANES]; 2], 0u8);
    for lane in 0..LANES {
        if let Some(header) = frames[lane].first_chunk::<SEALED_HEADER_LEN>() {
            let [a, b, c, d, e, f, tag @ ..] = header;
            texts[lane] = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, 0, 0]);
            (tags[0][lane], tags[1][lane]) = tag_words(tag);
            present |= 1 << lane;
        }
    }
    let text = load(&texts);
    let verified = present & are_equal(header_tags(stream_words, text), &tags);
    (verified, store(_mm512_xor_si512(text, stream_words.of_headers())))
}

/// The tags of headers' ciphertexts, as their lower and upper words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn header_tags(stream_words: &StreamWords, texts: Vector) -> [Vector; 2] {
    let (StreamWords { first, second }, zero) = (stream_words, _mm512_setzero_si512());
    let mut poly = Poly1305::new(first[0], first[1]);
    poly.absorb(texts, zero);
    poly.absorb(zero, _mm512_set1_epi64(HEADER_LEN as i64));
    poly.finish([second[0], second[1]])
}

/// The tags of payloads' ciphertexts, which have zeros behind them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn payload_tags(stream_words: &StreamWords, lens: &[u64; LANES], texts: [Vector; LANES]) -> [Vector; 2] {
    let StreamWords { first, second } = stream_words;
    let words = transpose(texts);
    let longest = lens.iter().fold(0, |longest, len| longest.max(*len));
    let lens = load(lens);
    let mut poly = Poly1305::new(first[4], first[5]);
    for block in 0..SMALL_LEN_MAX / 16 {
        let begin = 16 * block as i64;
        if longest as i64 <= begin {
            break;
        }
        // A lane whose payload has ended stays as it is.
        let before = poly.limbs;
        let has_more = _mm512_cmpgt_epi64_mask(lens, _mm512_set1_epi64(begin));
        poly.absorb(words[2 * block], words[2 * block + 1]);
        for limb in 0..3 {
            poly.limbs[limb] = _mm512_mask_mov_epi64(before[limb], has_more, poly.limbs[limb]);
        }
    }
    poly.absorb(_mm512_setzero_si512(), lens);
    poly.finish([second[4], second[5]])
}

/// Seals frames where they lie: a header, room for its tag, a payload of 1 to 64 bytes, room for its tag.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn seal(streams: &[FrameStream; LANES], frames: &mut [&mut [u8]]) {
    let stream_words = StreamWords::of(streams);
    let (mut headers, mut lens, mut texts) = ([0; LANES], [0; LANES], [_mm512_setzero_si512(); LANES]);
    for (lane, frame) in frames.iter().enumerate() {
        let [a, b, c, d, e, f, ..] = *frame.first_chunk::<SEALED_HEADER_LEN>().expect("a frame has a header");
        headers[lane] = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let text = &frame[SEALED_HEADER_LEN..frame.len() - TAG_LEN];
        assert!((1..=SMALL_LEN_MAX).contains(&text.len()), "a payload that the lanes have room for");
        lens[lane] = text.len() as u64;
        let mask = mask(text.len());
        // SAFETY: as many bytes are read as the slice has; what is masked out is not touched.
        let plain = unsafe { _mm512_maskz_loadu_epi8(mask, text.as_ptr().cast()) };
        // The keystream behind a text is no part of its ciphertext.
        texts[lane] = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(plain, payload_stream(&streams[lane])));
    }
    let headers = _mm512_xor_si512(load(&headers), stream_words.of_headers());
    let [low, high] = header_tags(&stream_words, headers);
    let header_tags = [store(low), store(high)];
    let [low, high] = payload_tags(&stream_words, &lens, texts);
    let payload_tags = [store(low), store(high)];
    let headers = store(headers);
    for (lane, frame) in frames.iter_mut().enumerate() {
        frame[..HEADER_LEN].copy_from_slice(&headers[lane].to_le_bytes()[..HEADER_LEN]);
        frame[HEADER_LEN..SEALED_HEADER_LEN].copy_from_slice(&tag_of(&header_tags, lane));
        let (text, tag) = frame[SEALED_HEADER_LEN..].split_last_chunk_mut().expect("a payload has a tag");
        *tag = tag_of(&payload_tags, lane);
        // SAFETY: as many bytes are written as the slice has; what is masked out is not touched.
        unsafe { _mm512_mask_storeu_epi8(text.as_mut_ptr().cast(), mask(text.len()), texts[lane]) };
    }
}

/// A lane's tag.
#[inline]
fn tag_of(tags: &[[u64; LANES]; 2], lane: usize) -> [u8; TAG_LEN] {
    (u128::from(tags[1][lane]) << 64 | u128::from(tags[0][lane])).to_le_bytes()
}

/// Block 1 of a payload's nonce: its keystream.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn payload_stream(stream: &FrameStream) -> Vector {
    let [a, b, c, d] = &stream.rows;
    // SAFETY: each reads the 16 bytes of an array's element.
    let (a, b, c, d) = unsafe {
        (
            _mm_loadu_si128((&raw const a[3]).cast()),
            _mm_loadu_si128((&raw const b[3]).cast()),
            _mm_loadu_si128((&raw const c[3]).cast()),
            _mm_loadu_si128((&raw const d[3]).cast()),
        )
    };
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Poly1305 of eight texts.
struct Poly1305 {
    limbs: [Vector; 3],
    r: [Vector; 3],
    /// Twenty times the upper two limbs of `r`: a product at 2^132 counts as twenty at 1.
    r_folded: [Vector; 2],
}

impl Poly1305 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn new(r_low: Vector, r_high: Vector) -> Self {
        let low = _mm512_and_si512(r_low, _mm512_set1_epi64(0x0fff_fffc_0fff_ffff));
        let high = _mm512_and_si512(r_high, _mm512_set1_epi64(0x0fff_fffc_0fff_fffc));
        let r = limbs(low, high);
        let zero = _mm512_setzero_si512();
        Self {
            limbs: [zero; 3],
            r,
            r_folded: [times_5(_mm512_slli_epi64::<2>(r[1])), times_5(_mm512_slli_epi64::<2>(r[2]))],
        }
    }

    /// Adds a block of sixteen bytes, and multiplies by `r`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn absorb(&mut self, low: Vector, high: Vector) {
        let block = limbs(low, high);
        let h0 = _mm512_add_epi64(self.limbs[0], block[0]);
        let h1 = _mm512_add_epi64(self.limbs[1], block[1]);
        let h2 = _mm512_add_epi64(self.limbs[2], _mm512_or_si512(block[2], _mm512_set1_epi64(1 << 40)));
        let ([r0, r1, r2], [s1, s2]) = (self.r, self.r_folded);
        let (d0, e0) = sum_of_products([(h0, r0), (h1, s2), (h2, s1)]);
        let (d1, e1) = sum_of_products([(h0, r1), (h1, r0), (h2, s2)]);
        let (d2, e2) = sum_of_products([(h0, r2), (h1, r1), (h2, r0)]);
        // The upper halves are at 2^52 of their limb: that is 8 bits into the next one, and 10 bits past the highest.
        let d1 =
            _mm512_add_epi64(d1, _mm512_add_epi64(_mm512_srli_epi64::<44>(d0), _mm512_slli_epi64::<8>(e0)));
        let d2 =
            _mm512_add_epi64(d2, _mm512_add_epi64(_mm512_srli_epi64::<44>(d1), _mm512_slli_epi64::<8>(e1)));
        let carry = _mm512_add_epi64(_mm512_srli_epi64::<42>(d2), _mm512_slli_epi64::<10>(e2));
        let d0 = _mm512_add_epi64(bits_44(d0), times_5(carry));
        self.limbs = [bits_44(d0), _mm512_add_epi64(bits_44(d1), _mm512_srli_epi64::<44>(d0)), bits_42(d2)];
    }

    /// The tags, as their lower and upper words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn finish(&self, s: [Vector; 2]) -> [Vector; 2] {
        // One pass of carries is enough: where the middle limb overflows into the highest, and that one out, little is left
        // in both.
        let [h0, h1, h2] = self.limbs;
        let h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
        let h0 = _mm512_add_epi64(h0, times_5(_mm512_srli_epi64::<42>(h2)));
        let h1 = _mm512_add_epi64(bits_44(h1), _mm512_srli_epi64::<44>(h0));
        let (h0, h2) = (bits_44(h0), bits_42(h2));
        // Five more, less 2^130: that is the remainder where 2^130 - 5 is reached.
        let g0 = _mm512_add_epi64(h0, _mm512_set1_epi64(5));
        let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(g0));
        let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(g1));
        let has_reached = _mm512_test_epi64_mask(g2, _mm512_set1_epi64(1 << 42));
        let h0 = _mm512_mask_mov_epi64(h0, has_reached, bits_44(g0));
        let h1 = _mm512_mask_mov_epi64(h1, has_reached, bits_44(g1));
        let h2 = _mm512_mask_mov_epi64(h2, has_reached, bits_42(g2));
        let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
        let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
        let low_sum = _mm512_add_epi64(low, s[0]);
        let carries = _mm512_cmplt_epu64_mask(low_sum, low);
        let high_sum = _mm512_add_epi64(high, s[1]);
        [low_sum, _mm512_mask_add_epi64(high_sum, carries, high_sum, _mm512_set1_epi64(1))]
    }
}

/// Which lanes have these tags. All bits are compared before anything depends on them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn are_equal([low, high]: [Vector; 2], tags: &[[u64; LANES]; 2]) -> u8 {
    let difference =
        _mm512_or_si512(_mm512_xor_si512(low, load(&tags[0])), _mm512_xor_si512(high, load(&tags[1])));
    _mm512_testn_epi64_mask(difference, difference)
}

/// Lower and upper 52 bits of three products, each summed up.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn sum_of_products(factors: [(Vector, Vector); 3]) -> (Vector, Vector) {
    let zero = _mm512_setzero_si512();
    let [(a, x), (b, y), (c, z)] = factors;
    let low = _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, a, x), b, y);
    let high = _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(zero, a, x), b, y);
    // The third apart: shorter chains.
    (
        _mm512_add_epi64(low, _mm512_madd52lo_epu64(zero, c, z)),
        _mm512_add_epi64(high, _mm512_madd52hi_epu64(zero, c, z)),
    )
}

/// Numbers of 128 bits as limbs of 44, 44 and 40 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn limbs(low: Vector, high: Vector) -> [Vector; 3] {
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [bits_44(low), bits_44(middle), _mm512_srli_epi64::<24>(high)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn bits_44(x: Vector) -> Vector {
    _mm512_and_si512(x, _mm512_set1_epi64((1 << 44) - 1))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn bits_42(x: Vector) -> Vector {
    _mm512_and_si512(x, _mm512_set1_epi64((1 << 42) - 1))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn times_5(x: Vector) -> Vector {
    _mm512_add_epi64(x, _mm512_slli_epi64::<2>(x))
}

/// The lowest `len` of 64 bits; `len` is 1 to 64.
#[inline]
fn mask(len: usize) -> u64 {
    u64::MAX >> (64 - len)
}

#[inline]
fn tag_words(tag: &[u8; TAG_LEN]) -> (u64, u64) {
    let tag = u128::from_le_bytes(*tag);
    (tag as u64, (tag >> 64) as u64)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn load(words: &[u64; LANES]) -> Vector {
    // SAFETY: 64 bytes are read from an array of 64 bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn store(vector: Vector) -> [u64; LANES] {
    let mut words = [0; LANES];
    // SAFETY: 64 bytes are written to an array of 64 bytes.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
    words
}

/// A row of every stream.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn load_rows(streams: &[FrameStream; LANES], row: usize) -> [Vector; LANES] {
    let mut rows = [_mm512_setzero_si512(); LANES];
    for lane in 0..LANES {
        // SAFETY: 64 bytes are read from an array of 64 bytes.
        rows[lane] = unsafe { _mm512_loadu_si512(streams[lane].rows[row].as_ptr().cast()) };
    }
    rows
}

/// Eight rows of eight words become columns: vector `i` has word `i` of every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
fn transpose(rows: [Vector; 8]) -> [Vector; 8] {
    let mut pairs = rows;
    for i in 0..4 {
        pairs[2 * i] = _mm512_unpacklo_epi64(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi64(rows[2 * i], rows[2 * i + 1]);
    }
    let mut words = rows;
    for i in 0..2 {
        // Quarters 0 and 2, then 1 and 3, of two pairs of rows each; a second pass takes one quarter of all four.
        let even = _mm512_shuffle_i64x2::<0x88>(pairs[i], pairs[i + 2]);
        let even_later = _mm512_shuffle_i64x2::<0x88>(pairs[i + 4], pairs[i + 6]);
        let odd = _mm512_shuffle_i64x2::<0xdd>(pairs[i], pairs[i + 2]);
        let odd_later = _mm512_shuffle_i64x2::<0xdd>(pairs[i + 4], pairs[i + 6]);
        words[i] = _mm512_shuffle_i64x2::<0x88>(even, even_later);
        words[i + 2] = _mm512_shuffle_i64x2::<0x88>(odd, odd_later);
        words[i + 4] = _mm512_shuffle_i64x2::<0xdd>(even, even_later);
        words[i + 6] = _mm512_shuffle_i64x2::<0xdd>(odd, odd_later);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poly1305::tests::tag;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn words(numbers: [u128; LANES]) -> (Vector, Vector) {
        (load(&numbers.map(|number| number as u64)), load(&numbers.map(|number| (number >> 64) as u64)))
    }

    /// Eight texts of whole blocks, without the lengths.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma,bmi2")]
    fn tags(r: [u128; LANES], s: [u128; LANES], blocks: &[u128]) -> [u128; LANES] {
        let (r_low, r_high) = words(r);
        let (s_low, s_high) = words(s);
        let mut poly = Poly1305::new(r_low, r_high);
        for block in blocks {
            let (low, high) = words([*block; LANES]);
            poly.absorb(low, high);
        }
        let [low, high] = poly.finish([s_low, s_high]);
        let (low, high) = (store(low), store(high));
        core::array::from_fn(|lane| u128::from(high[lane]) << 64 | u128::from(low[lane]))
    }

    /// Against the scalar code, which is held against long multiplication: blocks at the edges of limbs and of the prime,
    /// each with every `r` in every lane. Two blocks under r = 1 reach all values from 2^130 - 6 to 2^130 - 1.
    #[test]
    fn lanes_meet_the_scalar_poly1305() {
        if Ifma::detect().is_none() {
            println!("avx-512 IFMA: not on this CPU");
            return;
        }
        let limb = (1 << 44) - 1;
        let edges: Vec<u128> =
            [0, 1, 5, limb, limb << 44, limb << 88].into_iter().chain(u128::MAX - 6..=u128::MAX).collect();
        let rs = [0, 1, 2, u128::MAX, limb, limb << 44, 4 << 64 | 1, 0x0123_4567_89ab_cdef << 33];
        for turn in 0..LANES {
            let r = core::array::from_fn(|lane| rs[(lane + turn) % LANES]);
            let s = core::array::from_fn(|lane| edges[(lane * turn) % edges.len()]);
            for a in &edges {
                for b in &edges {
                    for blocks in [&[*a][..], &[*a, *b], &[*a, *b, *b, *a, *b]] {
                        // SAFETY: the token above proves that the CPU has these features.
                        let found = unsafe { tags(r, s, blocks) };
                        assert_eq!(found, core::array::from_fn(|lane| tag(r[lane], s[lane], blocks)));
                    }
                }
            }
        }
    }
}
