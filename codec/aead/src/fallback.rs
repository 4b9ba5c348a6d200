//! `ring`: for every CPU and every length, and the oracle that the kernels are proven against.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use crate::sealed::{split_header, split_payload};
use crate::{Forged, HEADER_LEN, KEY_LEN, Opening, SEALED_HEADER_LEN, TAG_LEN, payload_len};

/// A key as `ring` wants it: 544 bytes, 27 ns to make, so it lives for one frame.
pub(crate) struct Key(LessSafeKey);

impl Key {
    #[inline]
    pub(crate) fn new(key: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("ChaCha20 keys have 32 bytes");
        Self(LessSafeKey::new(key))
    }

    #[inline]
    pub(crate) fn seal_with(&self, nonce: u64, associated: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(ring_nonce(nonce), Aad::from(associated), text)
            .expect("a text shorter than ChaCha20's 256 GB");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// If the tag does not match, `text` is zeroed.
    #[inline]
    pub(crate) fn open_with(
        &self,
        nonce: u64,
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Forged> {
        let (nonce, associated, tag) = (ring_nonce(nonce), Aad::from(associated), Tag::from(*tag));
        if self.0.open_in_place_separate_tag(nonce, associated, tag, text, 0..).is_ok() {
            return Ok(());
        }
        text.fill(0);
        Err(Forged)
    }

    /// Without associated data.
    #[inline]
    pub(crate) fn seal(&self, nonce: u64, text: &mut [u8]) -> [u8; TAG_LEN] {
        self.seal_with(nonce, &[], text)
    }

    /// Without associated data.
    #[inline]
    pub(crate) fn open(&self, nonce: u64, text: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), Forged> {
        self.open_with(nonce, &[], text, tag)
    }

    /// See [`Aead::open_frame`](crate::Aead::open_frame).
    pub(crate) fn open_frame(
        &self,
        nonce: u64,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> Result<Opening, Forged> {
        let (header, rest) = split_header(bytes).ok_or(Forged)?;
        self.open(nonce, header.text, header.tag)?;
        let len = payload_len(header.text);
        if len == 0 {
            return Ok(Opening::Frame);
        }
        let Some(payload) = split_payload(rest, len, payload_len_max) else { return Ok(Opening::Header) };
        self.open(nonce.wrapping_add(1), payload.text, payload.tag)?;
        Ok(Opening::Frame)
    }

    /// See [`Aead::seal_frame`](crate::Aead::seal_frame).
    pub(crate) fn seal_frame(&self, nonce: u64, header: &mut [u8; SEALED_HEADER_LEN], payload: &mut [u8]) {
        let (header, tag) = header.split_at_mut(HEADER_LEN);
        tag.copy_from_slice(&self.seal(nonce, header));
        if let Some((payload, tag)) = payload.split_last_chunk_mut() {
            *tag = self.seal(nonce.wrapping_add(1), payload);
        }
    }
}

/// 32 zero bits, then the counter, little-endian (spec 4.4.1).
#[inline]
fn ring_nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8439, 2.8.2. Its nonce does not begin with four zero bytes, as Noise's do, so it goes past `ring_nonce`.
    #[test]
    fn ring_meets_rfc_8439() {
        let nonce = hex::decode("070000004041424344454647").unwrap();
        let associated = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you \
            only one tip for the future, sunscreen would be it.";
        let tag = Key::new(&core::array::from_fn(|i| 0x80 + i as u8))
            .0
            .seal_in_place_separate_tag(
                Nonce::try_assume_unique_for_key(&nonce).unwrap(),
                Aad::from(&associated),
                &mut text,
            )
            .unwrap();
        assert_eq!(hex::encode(tag.as_ref()), "1ae10b594f09e26a7e902ecbd0600691");
        assert_eq!(
            hex::encode(text),
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
             1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
             3ff4def08e4b7a9de576d26586cec64b6116"
        );
    }

    #[test]
    fn the_nonce_is_four_zeros_and_the_counter_little_endian() {
        assert_eq!(ring_nonce(0x0102).as_ref(), &[0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
