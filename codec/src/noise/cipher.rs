//! `CipherState` of spec 4.4.1: a key and a counter, 40 bytes.
//!
//! `ring`'s key object has 544 bytes, most of them room for another cipher's tables. So the 32 bytes
//! are kept, and the object is made for each frame: 27 ns, where sealing 40 bytes takes 170.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroize;

use super::TAG_LEN;

/// The nonce that Noise reserves: a counter that stands here seals and opens nothing any more.
const NONCE_END: u64 = u64::MAX;

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
}

/// A state's key as `ring` wants it, for as long as one frame takes.
pub(super) struct RingKey(LessSafeKey);

impl CipherState {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, nonce: 0 }
    }

    /// Whether `count` further texts can be sealed or opened.
    #[inline]
    pub(super) fn check(&self, count: u64) -> Result<(), CipherError> {
        if count <= NONCE_END - self.nonce { Ok(()) } else { Err(self.ended()) }
    }

    /// Encrypts in place; the tag covers `associated` too. `key` is this state's. A failure changes nothing.
    #[inline]
    pub(super) fn seal(
        &mut self,
        key: &RingKey,
        associated: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CipherError> {
        self.check(1)?;
        let tag = key
            .0
            .seal_in_place_separate_tag(ring_nonce(self.nonce), Aad::from(associated), text)
            .expect("a text shorter than ChaCha20's 256 GB");
        self.nonce += 1;
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }

    /// Decrypts in place. `key` is this state's. If the tag does not match, the nonce stays and `text` holds no
    /// plaintext.
    #[inline]
    pub(super) fn open(
        &mut self,
        key: &RingKey,
        associated: &[u8],
        text: &mut [u8],
        tag: [u8; TAG_LEN],
    ) -> Result<(), CipherError> {
        self.check(1)?;
        let opened = key
            .0
            .open_in_place_separate_tag(
                ring_nonce(self.nonce),
                Aad::from(associated),
                Tag::from(tag),
                text,
                0..,
            )
            .is_ok();
        if opened {
            self.nonce += 1;
            Ok(())
        } else {
            text.fill(0);
            Err(CipherError::Tag)
        }
    }

    /// Forgets the key: nothing can be sealed or opened any more.
    pub(super) fn wipe(&mut self) {
        self.key.zeroize();
        self.nonce = NONCE_END;
    }

    /// The key in the form in which it works; not for a wiped state.
    #[inline]
    pub(super) fn ring_key(&self) -> RingKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.key).expect("ChaCha20 keys have 32 bytes");
        RingKey(LessSafeKey::new(key))
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

    const TEXT: &[u8; 114] = b"Ladies and Gentlemen of the class of '99: If I could offer you \
        only one tip for the future, sunscreen would be it.";

    /// RFC 8439, 2.8.2. Its nonce does not begin with four zero bytes, as Noise's do, so it goes past `ring_nonce`.
    #[test]
    fn aead_meets_rfc_8439() {
        let key: [u8; 32] = core::array::from_fn(|i| 0x80 + i as u8);
        let nonce = hex::decode("070000004041424344454647").unwrap();
        let associated = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let mut text = *TEXT;
        let tag = CipherState::new(key)
            .ring_key()
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

    #[test]
    fn a_failed_open_keeps_the_nonce_and_gives_no_plaintext() {
        let mut sealing = CipherState::new([3; 32]);
        let key = sealing.ring_key();
        let mut opening = CipherState::new([3; 32]);
        let mut sealed = *TEXT;
        let tag = sealing.seal(&key, b"h", &mut sealed).unwrap();
        for (associated, flip) in [(b"g", 0), (b"h", 1)] {
            let mut text = sealed;
            text[50] ^= flip;
            assert_eq!(opening.open(&key, associated, &mut text, tag), Err(CipherError::Tag));
            assert_eq!(text, [0; 114]);
        }
        let mut text = sealed;
        opening.open(&key, b"h", &mut text, tag).unwrap();
        assert_eq!(&text, TEXT);
    }

    #[test]
    fn the_last_nonce_is_never_used() {
        let mut cipher = CipherState::new([3; 32]);
        let key = cipher.ring_key();
        cipher.nonce = u64::MAX - 1;
        assert_eq!(cipher.check(2), Err(CipherError::Exhausted));
        let mut other = CipherState::new([3; 32]);
        other.nonce = u64::MAX - 1;
        let mut text = *TEXT;
        let tag = cipher.seal(&key, &[], &mut text).unwrap();
        let sealed = text;
        other.open(&key, &[], &mut text, tag).unwrap();
        assert_eq!(&text, TEXT);
        assert_eq!(cipher.seal(&key, &[], &mut text), Err(CipherError::Exhausted));
        assert_eq!(&text, TEXT);
        text = sealed;
        assert_eq!(other.open(&key, &[], &mut text, tag), Err(CipherError::Exhausted));
        assert_eq!(text, sealed);
    }

    #[test]
    fn a_wiped_key_does_nothing() {
        let mut cipher = CipherState::new([3; 32]);
        let key = cipher.ring_key();
        cipher.wipe();
        let mut text = *TEXT;
        assert_eq!(cipher.seal(&key, &[], &mut text), Err(CipherError::Wiped));
        assert_eq!(cipher.open(&key, &[], &mut text, [0; 16]), Err(CipherError::Wiped));
        assert_eq!(&text, TEXT);
        assert_eq!(cipher.key, [0; 32]);
    }

    #[test]
    fn a_cipher_state_is_a_key_and_a_counter() {
        assert_eq!(size_of::<CipherState>(), 40);
    }
}
