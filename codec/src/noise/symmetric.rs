//! The handshake's running state (spec 4.4.2): chaining key `ck` and handshake hash `h`.
//!
//! In Noise NX every key that `MixKey` yields seals exactly one text. So the key is not kept here: it
//! is a value that sealing or opening consumes, and using one twice does not compile.

use ring::{
    digest,
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    TAG_LEN,
    cipher::{CipherError, CipherState},
};

const PROTOCOL_NAME: &[u8] = b"Noise_NX_Secp256k1+EllSwift_ChaChaPoly_SHA256";

pub(super) struct SymmetricState {
    chaining_key: [u8; 32],
    hash: [u8; 32],
}

/// What `MixKey` initialises: it seals or opens one text, with nonce 0.
pub(super) struct OnceKey(CipherState);

impl SymmetricState {
    /// Spec 4.5.1: `ck = HASH(protocolName)`, `h = HASH(ck)`.
    pub(super) fn new() -> Self {
        let chaining_key = sha256(&[PROTOCOL_NAME]);
        Self { hash: sha256(&[&chaining_key]), chaining_key }
    }

    /// `MixHash(data)`.
    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = sha256(&[&self.hash, data]);
    }

    /// `MixKey(input)`.
    pub(super) fn mix_key(&mut self, input: &[u8; 32]) -> OnceKey {
        let (chaining_key, key) = hkdf(&self.chaining_key, input);
        self.chaining_key = *chaining_key;
        OnceKey(CipherState::new(*key))
    }

    /// `EncryptAndHash`: `sealed` begins with the plaintext and ends with room for the tag.
    pub(super) fn seal(&mut self, key: OnceKey, sealed: &mut [u8]) {
        let OnceKey(mut cipher) = key;
        let (text, tag) = sealed.split_at_mut(sealed.len() - TAG_LEN);
        tag.copy_from_slice(&cipher.seal(&self.hash, text).expect("a fresh key has nonces"));
        self.mix_hash(sealed);
    }

    /// `DecryptAndHash`: the plaintext is `sealed` without its last 16 bytes.
    pub(super) fn open(&mut self, key: OnceKey, sealed: &mut [u8]) -> Result<(), CipherError> {
        let OnceKey(mut cipher) = key;
        let hash = self.hash;
        self.mix_hash(sealed);
        let (text, tag) = sealed.split_at_mut(sealed.len() - TAG_LEN);
        let mut tag_bytes = [0; TAG_LEN];
        tag_bytes.copy_from_slice(tag);
        cipher.open(&hash, text, &tag_bytes)
    }

    /// The transport's keys: first the initiator's direction, then the responder's.
    pub(super) fn split(self) -> (CipherState, CipherState) {
        let (first, second) = hkdf(&self.chaining_key, &[]);
        (CipherState::new(*first), CipherState::new(*second))
    }
}

impl Drop for SymmetricState {
    fn drop(&mut self) {
        self.chaining_key.zeroize();
        self.hash.zeroize();
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

struct TwoKeys;

impl KeyType for TwoKeys {
    fn len(&self) -> usize {
        64
    }
}

type Key = Zeroizing<[u8; 32]>;

/// `HKDF(chaining_key, input)` with two outputs and no info (spec 4.4.2, RFC 5869).
fn hkdf(chaining_key: &[u8; 32], input: &[u8]) -> (Key, Key) {
    let mut both = Zeroizing::new([0; 64]);
    Salt::new(HKDF_SHA256, chaining_key)
        .extract(input)
        .expand(&[&[]], TwoKeys)
        .and_then(|okm| okm.fill(&mut both[..]))
        .expect("64 bytes are within HKDF's 255 blocks");
    let (mut first, mut second) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    first.copy_from_slice(&both[..32]);
    second.copy_from_slice(&both[32..]);
    (first, second)
}

#[cfg(test)]
mod tests {
    use ring::hmac;

    use super::*;

    /// The formula as spec 4.4.2 writes it, with HMAC alone.
    #[test]
    fn hkdf_is_the_specifications() {
        fn mac(key: &[u8], input: &[u8]) -> Vec<u8> {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), input).as_ref().to_vec()
        }
        for input in [&[][..], &[4; 32]] {
            let temp = mac(&[9; 32], input);
            let first = mac(&temp, &[1]);
            let second = mac(&temp, &[&first[..], &[2]].concat());
            let (a, b) = hkdf(&[9; 32], input);
            assert_eq!((&a[..], &b[..]), (&first[..], &second[..]));
        }
    }

    #[test]
    fn the_state_begins_with_the_hashed_name() {
        let state = SymmetricState::new();
        let name = digest::digest(&digest::SHA256, b"Noise_NX_Secp256k1+EllSwift_ChaChaPoly_SHA256");
        assert_eq!(state.chaining_key, name.as_ref());
        assert_eq!(state.hash, digest::digest(&digest::SHA256, name.as_ref()).as_ref());
    }
}
