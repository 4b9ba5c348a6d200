//! The keystream of one frame, and what is done with it: texts opened and sealed. No `unsafe`, no instruction set.
//!
//! A frame whose payload has at most 64 bytes needs exactly four ChaCha20 blocks: for each of its two texts the one that holds
//! the Poly1305 key, and one of keystream. A backend makes all four at once; what is here is inlined into its entries.
//!
//! Invariant: a text is changed only after its tag has verified.

use crate::poly1305::{OneTimeKey, authenticate};
use crate::sealed::{split_header, split_payload};
use crate::{Forged, HEADER_LEN, Opening, SEALED_HEADER_LEN, SMALL_LEN_MAX, TAG_LEN, payload_len};

/// Poly1305's blocks in the longest text.
const BLOCKS: usize = SMALL_LEN_MAX / 16;

/// A text, sixteen bytes to a little-endian number, with zeros behind it.
type Blocks = [u128; BLOCKS];

/// Four ChaCha20 blocks of 64 bytes, as the rows of the cipher's matrix: `rows[r][b]` is block `b` from byte `16 r` on, as a
/// little-endian number. Blocks 0 and 1 belong to the first text's nonce, 2 and 3 to the second's.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct FrameStream {
    pub(crate) rows: [[u128; 4]; 4],
}

/// Which of a frame's texts, by its first block.
#[derive(Clone, Copy)]
enum Text {
    First = 0,
    Second = 2,
}

impl FrameStream {
    #[inline(always)]
    fn one_time_key(&self, text: Text) -> OneTimeKey {
        OneTimeKey { r: self.rows[0][text as usize], s: self.rows[1][text as usize] }
    }

    #[inline(always)]
    fn apply(&self, text: Text, blocks: &mut Blocks) {
        for (block, row) in blocks.iter_mut().zip(&self.rows) {
            *block ^= row[text as usize + 1];
        }
    }

    #[inline(always)]
    fn open_text(&self, text: Text, sealed: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Forged> {
        let mut blocks = load(sealed);
        let expected = authenticate(self.one_time_key(text), &blocks, sealed.len());
        if !is_equal(expected, u128::from_le_bytes(*tag)) {
            return Err(Forged);
        }
        self.apply(text, &mut blocks);
        store(&blocks, sealed);
        Ok(())
    }

    #[inline(always)]
    fn seal_text(&self, text: Text, plain: &mut [u8]) -> [u8; TAG_LEN] {
        let mut blocks = load(plain);
        self.apply(text, &mut blocks);
        store(&blocks, plain);
        clear_beyond(&mut blocks, plain.len());
        authenticate(self.one_time_key(text), &blocks, plain.len()).to_le_bytes()
    }

    /// Opens a text of at most 64 bytes where it lies. If the tag does not match, nothing is changed.
    #[inline(always)]
    pub(crate) fn open(&self, sealed: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Forged> {
        self.open_text(Text::First, sealed, tag)
    }

    /// Seals a text of at most 64 bytes where it lies.
    #[inline(always)]
    pub(crate) fn seal(&self, plain: &mut [u8]) -> [u8; TAG_LEN] {
        self.seal_text(Text::First, plain)
    }

    /// Opens a frame at the front of `bytes`: its header, then its payload if that is whole, has at most 64 bytes, and is
    /// within the limit. The header's length is looked at once the header has verified, and not before.
    #[inline(always)]
    pub(crate) fn open_frame(&self, bytes: &mut [u8], payload_len_max: usize) -> Result<Opening, Forged> {
        let (header, rest) = split_header(bytes).ok_or(Forged)?;
        self.open_text(Text::First, header.text, header.tag)?;
        let len = payload_len(header.text);
        if len == 0 {
            return Ok(Opening::Frame);
        }
        let len_max = payload_len_max.min(SMALL_LEN_MAX);
        let Some(payload) = split_payload(rest, len, len_max) else { return Ok(Opening::Header) };
        self.open_text(Text::Second, payload.text, payload.tag)?;
        Ok(Opening::Frame)
    }

    /// Seals a frame whose payload has at most 64 bytes: see [`Aead::seal_frame`](crate::Aead::seal_frame).
    #[inline(always)]
    pub(crate) fn seal_frame(&self, header: &mut [u8; SEALED_HEADER_LEN], payload: &mut [u8]) {
        let (header, tag) = header.split_at_mut(HEADER_LEN);
        tag.copy_from_slice(&self.seal_text(Text::First, header));
        if let Some((payload, tag)) = payload.split_last_chunk_mut::<TAG_LEN>() {
            *tag = self.seal_text(Text::Second, payload);
        }
    }
}

/// At most 64 bytes.
#[inline(always)]
fn load(text: &[u8]) -> Blocks {
    let mut blocks = [0; BLOCKS];
    let (whole, rest) = text.as_chunks::<16>();
    for (block, bytes) in blocks.iter_mut().zip(whole) {
        *block = u128::from_le_bytes(*bytes);
    }
    if !rest.is_empty() {
        blocks[whole.len()] = load_rest(rest);
    }
    blocks
}

/// One to fifteen bytes by two reads that overlap: a copy whose length is not known beforehand would be a call.
#[inline(always)]
fn load_rest(rest: &[u8]) -> u128 {
    let len = rest.len();
    if let (Some(first), Some(last)) = (rest.first_chunk(), rest.last_chunk()) {
        return u128::from(u64::from_le_bytes(*first))
            | u128::from(u64::from_le_bytes(*last)) << (8 * (len - 8));
    }
    if let (Some(first), Some(last)) = (rest.first_chunk(), rest.last_chunk()) {
        return u128::from(u32::from_le_bytes(*first))
            | u128::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
    }
    let place = |at: usize| u128::from(rest[at]) << (8 * at);
    place(0) | place(len / 2) | place(len - 1)
}

/// Writes a text back.
#[inline(always)]
fn store(blocks: &Blocks, text: &mut [u8]) {
    let (whole, rest) = text.as_chunks_mut::<16>();
    for (bytes, block) in whole.iter_mut().zip(blocks) {
        *bytes = block.to_le_bytes();
    }
    if !rest.is_empty() {
        store_rest(blocks[whole.len()], rest);
    }
}

#[inline(always)]
fn store_rest(block: u128, rest: &mut [u8]) {
    let len = rest.len();
    let from = |at: usize| block >> (8 * at);
    if len >= 8 {
        rest[..8].copy_from_slice(&(block as u64).to_le_bytes());
        rest[len - 8..].copy_from_slice(&(from(len - 8) as u64).to_le_bytes());
    } else if len >= 4 {
        rest[..4].copy_from_slice(&(block as u32).to_le_bytes());
        rest[len - 4..].copy_from_slice(&(from(len - 4) as u32).to_le_bytes());
    } else {
        for at in [0, len / 2, len - 1] {
            rest[at] = from(at) as u8;
        }
    }
}

/// The keystream behind a text is no part of its ciphertext.
#[inline(always)]
fn clear_beyond(blocks: &mut Blocks, len: usize) {
    if len < SMALL_LEN_MAX {
        blocks[len / 16] &= (1 << (8 * (len % 16))) - 1;
    }
}

/// In constant time: nothing depends on the tags but whether all of them is the same.
#[inline(always)]
fn is_equal(a: u128, b: u128) -> bool {
    let difference = a ^ b;
    core::hint::black_box(difference as u64 | (difference >> 64) as u64) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_read_and_written_whole() {
        let bytes: [u8; 64] = core::array::from_fn(|i| i as u8 + 1);
        for len in 0..=64 {
            let mut expected = [0; 64];
            expected[..len].copy_from_slice(&bytes[..len]);
            let blocks = load(&bytes[..len]);
            assert_eq!(blocks.map(u128::to_le_bytes).as_flattened(), expected, "{len}");
            let mut out = [0xff; 64];
            store(&blocks, &mut out[..len]);
            assert_eq!((&out[..len], &out[len..]), (&bytes[..len], &[0xff; 64][len..]));
            let mut cleared = load(&bytes);
            clear_beyond(&mut cleared, len);
            assert_eq!(cleared[..len.div_ceil(16)], blocks[..len.div_ceil(16)]);
        }
    }

    #[test]
    fn tags_are_equal_only_if_every_bit_is() {
        for bit in 0..128 {
            assert!(!is_equal(7, 7 ^ 1 << bit));
        }
        assert!(is_equal(7, 7));
    }
}
