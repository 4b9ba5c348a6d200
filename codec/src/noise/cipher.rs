//! `CipherState` of spec 4.4.1: a key and a counter, and which kernels seal and open with them. 48 bytes.

use adit_aead::{Aead, Opening};
use zeroize::Zeroize;

use super::{SEALED_HEADER_LEN, TAG_LEN};
use crate::frame::FrameHeader;

/// The nonce that Noise reserves: a counter that stands here seals and opens nothing any more.
const NONCE_END: u64 = u64::MAX;

/// What opening or sealing several frames at once can use.
const RUN_NONCES_MAX: u64 = 2 * adit_aead::LANES as u64;

// The AEAD knows where a frame's payload length is.
const _: () = assert!(
    adit_aead::HEADER_LEN == crate::frame::HEADER_LEN
        && adit_aead::SEALED_HEADER_LEN == SEALED_HEADER_LEN
        && adit_aead::TAG_LEN == TAG_LEN
);

/// Why a cipher state does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CipherError {
    /// The tag does not match.
    Tag,
    /// All nonces are used.
    Exhausted,
    /// The key was wiped.
    Wiped,
}

/// A key and the nonce it is used with next.
pub(super) struct CipherState {
    key: [u8; 32],
    /// [`NONCE_END`] when there is none left, and also when the key was wiped.
    nonce: u64,
    aead: Aead,
}

impl CipherState {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, nonce: 0, aead: Aead::detect() }
    }

    /// Seals and opens by other kernels from now on.
    pub(super) fn set_aead(&mut self, aead: Aead) {
        self.aead = aead;
    }

    /// Whether `count` further texts can be sealed or opened.
    #[inline]
    pub(super) fn check(&self, count: u64) -> Result<(), CipherError> {
        if count <= NONCE_END - self.nonce { Ok(()) } else { Err(self.ended()) }
    }

    /// Encrypts in place; the tag covers `associated` too. A failure changes nothing.
    #[inline]
    pub(super) fn seal(&mut self, associated: &[u8], text: &mut [u8]) -> Result<[u8; TAG_LEN], CipherError> {
        self.check(1)?;
        let tag = self.aead.seal(&self.key, self.nonce, associated, text);
        self.nonce += 1;
        Ok(tag)
    }

    /// Decrypts in place. If the tag does not match, the nonce stays and `text` holds no plaintext.
    #[inline]
    pub(super) fn open(
        &mut self,
        associated: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), CipherError> {
        self.check(1)?;
        self.aead.open(&self.key, self.nonce, associated, text, tag).map_err(|_| CipherError::Tag)?;
        self.nonce += 1;
        Ok(())
    }

    /// Encrypts a frame whose payload is one text or none, each text followed by room for its tag. A failure changes nothing.
    #[inline]
    pub(super) fn seal_frame(
        &mut self,
        header: &mut [u8; SEALED_HEADER_LEN],
        payload: &mut [u8],
    ) -> Result<(), CipherError> {
        let count = if payload.is_empty() { 1 } else { 2 };
        self.check(count)?;
        self.aead.seal_frame(&self.key, self.nonce, header, payload);
        self.nonce += count;
        Ok(())
    }

    /// Encrypts small frames that `bytes` begin with, each lying as for [`Self::seal_frame`], as many as is worth it; returns the
    /// bytes that they take. What follows is untouched.
    #[inline]
    pub(super) fn seal_run(&mut self, bytes: &mut [u8]) -> usize {
        if self.check(RUN_NONCES_MAX).is_err() {
            return 0;
        }
        let (count, len) = self.aead.seal_run(&self.key, self.nonce, bytes);
        self.nonce += 2 * count as u64;
        len
    }

    /// Decrypts the frame that `bytes` begin with, in place: a header's length and then, if it is whole and not longer than
    /// the limit, the payload as one text. The limit is at most what one text holds. If a tag does not match, the nonce
    /// stays and `bytes` hold no plaintext of what does not.
    #[inline]
    pub(super) fn open_frame(
        &mut self,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> Result<(FrameHeader, Opening), CipherError> {
        self.check(1)?;
        // With one nonce left, only the header's text can be opened.
        let len_max = if self.check(2).is_ok() { payload_len_max } else { 0 };
        let opening =
            self.aead.open_frame(&self.key, self.nonce, bytes, len_max).map_err(|_| CipherError::Tag)?;
        let header = FrameHeader::parse(bytes.first_chunk().expect("an opened header is there"));
        self.nonce += match opening {
            Opening::Frame if header.payload_len > 0 => 2,
            Opening::Frame | Opening::Header => 1,
        };
        Ok((header, opening))
    }

    /// Decrypts whole small frames that `bytes` begin with, as many as is worth it; returns how many. What follows is
    /// untouched.
    #[inline]
    pub(super) fn open_run(&mut self, bytes: &mut [u8], payload_len_max: usize) -> usize {
        if self.check(RUN_NONCES_MAX).is_err() {
            return 0;
        }
        let count = self.aead.open_run(&self.key, self.nonce, bytes, payload_len_max);
        self.nonce += 2 * count as u64;
        count
    }

    /// Forgets the key: nothing can be sealed or opened any more.
    pub(super) fn wipe(&mut self) {
        self.key.zeroize();
        self.nonce = NONCE_END;
    }

    /// The two ends are told apart by the key, which is all zeros only when wiped.
    #[cold]
    fn ended(&self) -> CipherError {
        if self.key == [0; 32] { CipherError::Wiped } else { CipherError::Exhausted }
    }
}

impl Drop for CipherState {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8; 114] = b"Ladies and Gentlemen of the class of '99: If I could offer you \
        only one tip for the future, sunscreen would be it.";

    #[test]
    fn a_failed_open_keeps_the_nonce_and_gives_no_plaintext() {
        let mut sealing = CipherState::new([3; 32]);
        let mut opening = CipherState::new([3; 32]);
        let mut sealed = *TEXT;
        let tag = sealing.seal(b"h", &mut sealed).unwrap();
        for (associated, flip) in [(b"g", 0), (b"h", 1)] {
            let mut text = sealed;
            text[50] ^= flip;
            assert_eq!(opening.open(associated, &mut text, &tag), Err(CipherError::Tag));
            assert_eq!(text, [0; 114]);
        }
        let mut text = sealed;
        opening.open(b"h", &mut text, &tag).unwrap();
        assert_eq!(&text, TEXT);
    }

    #[test]
    fn the_last_nonce_is_never_used() {
        let mut cipher = CipherState::new([3; 32]);
        cipher.nonce = u64::MAX - 1;
        assert_eq!(cipher.check(2), Err(CipherError::Exhausted));
        let mut other = CipherState::new([3; 32]);
        other.nonce = u64::MAX - 1;
        let mut text = *TEXT;
        let tag = cipher.seal(&[], &mut text).unwrap();
        let sealed = text;
        other.open(&[], &mut text, &tag).unwrap();
        assert_eq!(&text, TEXT);
        assert_eq!(cipher.seal(&[], &mut text), Err(CipherError::Exhausted));
        assert_eq!(&text, TEXT);
        text = sealed;
        assert_eq!(other.open(&[], &mut text, &tag), Err(CipherError::Exhausted));
        assert_eq!(text, sealed);
    }

    #[test]
    fn the_last_nonce_opens_a_header_and_no_payload() {
        let frame = |payload: &[u8]| {
            let mut sealing = CipherState::new([3; 32]);
            sealing.nonce = u64::MAX - 2;
            let mut header = [0; SEALED_HEADER_LEN];
            header[3] = payload.len() as u8;
            let mut sealed = payload.to_vec();
            sealed.resize(payload.len() + if payload.is_empty() { 0 } else { TAG_LEN }, 0);
            sealing.seal_frame(&mut header, &mut sealed).unwrap();
            (sealing.nonce, [&header[..], &sealed].concat())
        };
        for (payload, used) in [(&b""[..], 1), (b"x", 2), (TEXT, 2)] {
            let (nonce, sealed) = frame(payload);
            assert_eq!(nonce, u64::MAX - 2 + used);
            let mut opening = CipherState::new([3; 32]);
            opening.nonce = u64::MAX - 2;
            let (header, opened) = opening.open_frame(&mut sealed.clone(), 1000).unwrap();
            assert_eq!((header.payload_len as usize, opened), (payload.len(), Opening::Frame));
            assert_eq!(opening.nonce, nonce);
        }
        let mut sealing = CipherState::new([3; 32]);
        sealing.nonce = u64::MAX - 1;
        let mut header = [0; SEALED_HEADER_LEN];
        header[3] = 1;
        assert_eq!(sealing.seal_frame(&mut header, &mut [0; 17]), Err(CipherError::Exhausted));
        assert_eq!(sealing.nonce, u64::MAX - 1);
        let tag = sealing.seal(&[], &mut header[..6]).unwrap();
        header[6..].copy_from_slice(&tag);
        let mut opening = CipherState::new([3; 32]);
        opening.nonce = u64::MAX - 1;
        let mut sealed = [&header[..], &[7; 17]].concat();
        assert_eq!(opening.open_frame(&mut sealed, 1000).unwrap().1, Opening::Header);
        assert_eq!(sealed[SEALED_HEADER_LEN..], [7; 17]);
        assert_eq!(opening.open_frame(&mut sealed, 1000), Err(CipherError::Exhausted));
    }

    #[test]
    fn no_run_goes_past_the_last_nonce() {
        for left in 0..2 * RUN_NONCES_MAX {
            let mut sealing = CipherState::new([3; 32]);
            sealing.nonce = NONCE_END - left;
            let mut run = Vec::new();
            let mut header = [0; SEALED_HEADER_LEN];
            header[3] = 24;
            let mut payload = [7; 24 + TAG_LEN];
            while sealing.seal_frame(&mut header, &mut payload).is_ok() {
                run.extend(header.iter().chain(&payload));
                header = [0; SEALED_HEADER_LEN];
                header[3] = 24;
            }
            run.resize(100 * 62, 0);
            let mut opening = CipherState::new([3; 32]);
            opening.nonce = NONCE_END - left;
            let count = opening.open_run(&mut run, 24) as u64;
            assert!(2 * count <= left && opening.nonce == NONCE_END - left + 2 * count);

            let mut plain = [0; 62];
            plain[3] = 24;
            let mut run = plain.repeat(100);
            let mut sealing = CipherState::new([3; 32]);
            sealing.nonce = NONCE_END - left;
            let sealed_len = sealing.seal_run(&mut run) as u64;
            assert!(2 * sealed_len / 62 <= left && sealing.nonce == NONCE_END - left + 2 * sealed_len / 62);
        }
    }

    #[test]
    fn a_wiped_key_does_nothing() {
        let mut cipher = CipherState::new([3; 32]);
        cipher.wipe();
        let mut text = *TEXT;
        assert_eq!(cipher.seal(&[], &mut text), Err(CipherError::Wiped));
        assert_eq!(cipher.open(&[], &mut text, &[0; 16]), Err(CipherError::Wiped));
        assert_eq!(&text, TEXT);
        assert_eq!(cipher.key, [0; 32]);
    }

    #[test]
    fn a_cipher_state_is_small() {
        assert_eq!(size_of::<CipherState>(), 48);
    }
}
