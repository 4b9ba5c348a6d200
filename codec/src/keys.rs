//! The keys of spec 4.3 and 4.7: a pool's authority, the responder's static key, the certificate
//! that ties one to the other.
//!
//! An authority signs the static keys of servers; its public half is what miners write into their
//! configuration, as base58check text. Invariants: a key that exists is valid (a secret lies in
//! 1..n, a public key's x is on the curve); secrets are wiped when dropped and never printed by
//! `Debug`. Bounds: key text longer than [`KEY_TEXT_LEN_MAX`] is refused before it is decoded.

mod certificate;
mod curve;

use alloc::string::String;
use core::{fmt, str::FromStr};

use secp256k1::{Keypair, SecretKey, XOnlyPublicKey};
use zeroize::Zeroizing;

pub use certificate::{CERTIFICATE_LEN, CERTIFICATE_VERSION, Certificate, CertificateError};
pub(crate) use curve::{CurveKey, Role};

/// Bytes of an ElligatorSwift-encoded public key (spec 4.3.1.1).
pub const ELLSWIFT_LEN: usize = 64;

/// The longest key text that is decoded, in bytes. Valid keys have at most 52 characters; base58 takes quadratic time.
pub const KEY_TEXT_LEN_MAX: usize = 96;

/// The version before an authority's public key, little-endian (spec 4.7).
const PUBLIC_KEY_PREFIX: [u8; 2] = [1, 0];
const PUBLIC_KEY_LEN: usize = PUBLIC_KEY_PREFIX.len() + 32;
const SECRET_KEY_LEN: usize = 32;

/// Why bytes or text are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The text is longer than any key.
    TextTooLong {
        /// Bytes of the text.
        len: usize,
    },
    /// A character that base58 does not have, such as 0, O, I or l.
    Character {
        /// Index of its first byte.
        position: usize,
    },
    /// The checksum does not match: a character is wrong or missing.
    Checksum,
    /// The text decodes to another number of bytes than such a key has.
    Length {
        /// Bytes before the checksum.
        found: usize,
        /// Bytes that such a key has.
        expected: usize,
    },
    /// The version prefix is not 1.
    Prefix {
        /// The two bytes in front of the key.
        found: [u8; 2],
    },
    /// No point of secp256k1 has this x coordinate.
    NotOnCurve,
    /// The secret is zero or not below the order of the curve.
    SecretOutOfRange,
    /// A secret key stands where a public key is meant.
    SecretKeyGiven,
    /// A public key stands where a secret key is meant.
    PublicKeyGiven,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TextTooLong { len } => {
                write!(f, "{len} characters are no key: keys have at most 52")
            }
            Self::Character { position } => {
                write!(
                    f,
                    "the character at position {position} does not belong to base58, which has no 0, O, I and l"
                )
            }
            Self::Checksum => f.write_str("the checksum does not match: a character is wrong or missing"),
            Self::Length { found, expected } => {
                write!(f, "the key holds {found} bytes, expected {expected}")
            }
            Self::Prefix { found: [low, high] } => {
                write!(
                    f,
                    "the key begins with the bytes {low:#04x} {high:#04x}, expected 0x01 0x00 (version 1)"
                )
            }
            Self::NotOnCurve => f.write_str("the key is no point of the curve secp256k1"),
            Self::SecretOutOfRange => f.write_str("the secret is zero or above the order of secp256k1"),
            Self::SecretKeyGiven => f.write_str(
                "this is an authority's secret key, and the public one is meant: keep the secret one secret",
            ),
            Self::PublicKeyGiven => {
                f.write_str("this is an authority's public key, and the secret one is meant")
            }
        }
    }
}

impl core::error::Error for KeyError {}

/// An authority's public key: 32 bytes of x coordinate (spec 4.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuthorityPublicKey(XOnlyPublicKey);

impl AuthorityPublicKey {
    /// Takes an x coordinate.
    ///
    /// # Errors
    /// [`KeyError::NotOnCurve`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        XOnlyPublicKey::from_byte_array(bytes).map(Self).map_err(|_| KeyError::NotOnCurve)
    }

    /// The x coordinate.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.serialize()
    }
}

impl FromStr for AuthorityPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut buffer = Zeroizing::new([0; KEY_TEXT_LEN_MAX]);
        let decoded = decode_base58check(text, &mut buffer)?;
        if decoded.len() == SECRET_KEY_LEN {
            return Err(KeyError::SecretKeyGiven);
        }
        let Ok([low, high, key @ ..]) = <[u8; PUBLIC_KEY_LEN]>::try_from(decoded) else {
            return Err(KeyError::Length { found: decoded.len(), expected: PUBLIC_KEY_LEN });
        };
        if [low, high] != PUBLIC_KEY_PREFIX {
            return Err(KeyError::Prefix { found: [low, high] });
        }
        Self::from_bytes(key)
    }
}

impl fmt::Display for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; PUBLIC_KEY_LEN];
        bytes[..2].copy_from_slice(&PUBLIC_KEY_PREFIX);
        bytes[2..].copy_from_slice(&self.to_bytes());
        f.pad(&bs58::encode(bytes).with_check().into_string())
    }
}

impl fmt::Debug for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityPublicKey({self})")
    }
}

/// An authority's secret key, which signs certificates.
pub struct AuthoritySecretKey(Keypair);

impl AuthoritySecretKey {
    /// Takes 32 secret bytes; random ones make a new authority.
    ///
    /// # Errors
    /// [`KeyError::SecretOutOfRange`], for random bytes with probability 2^-128.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let mut secret = SecretKey::from_byte_array(*bytes).map_err(|_| KeyError::SecretOutOfRange)?;
        let keypair = Keypair::from_secret_key(curve::context(), &secret);
        secret.non_secure_erase();
        Ok(Self(keypair))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> AuthorityPublicKey {
        AuthorityPublicKey(self.0.x_only_public_key().0)
    }

    /// Signs `static_key` for the time from `valid_from` to `not_valid_after`, both unix seconds.
    /// `aux` is fresh randomness that hardens the signature (BIP340).
    ///
    /// Peers' clocks differ: set `valid_from` a little in the past.
    #[must_use]
    pub fn certify(
        &self,
        static_key: &StaticPublicKey,
        valid_from: u32,
        not_valid_after: u32,
        aux: &[u8; 32],
    ) -> Certificate {
        Certificate::sign(&self.0, static_key, valid_from, not_valid_after, aux)
    }

    /// The key as base58check text, the form that its `FromStr` reads. There is no `Display`, so that
    /// no log or error message shows it by accident.
    #[must_use]
    pub fn to_secret_string(&self) -> String {
        bs58::encode(Zeroizing::new(self.0.secret_bytes())).with_check().into_string()
    }
}

impl FromStr for AuthoritySecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut buffer = Zeroizing::new([0; KEY_TEXT_LEN_MAX]);
        let decoded = decode_base58check(text, &mut buffer)?;
        if decoded.len() == PUBLIC_KEY_LEN && decoded.starts_with(&PUBLIC_KEY_PREFIX) {
            return Err(KeyError::PublicKeyGiven);
        }
        match <&[u8; SECRET_KEY_LEN]>::try_from(decoded) {
            Ok(bytes) => Self::from_bytes(bytes),
            Err(_) => Err(KeyError::Length { found: decoded.len(), expected: SECRET_KEY_LEN }),
        }
    }
}

impl Drop for AuthoritySecretKey {
    fn drop(&mut self) {
        self.0.non_secure_erase();
    }
}

impl fmt::Debug for AuthoritySecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthoritySecretKey(of {})", self.public_key())
    }
}

/// The x coordinate of a responder's static key, which certificates sign (spec 4.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StaticPublicKey([u8; 32]);

impl StaticPublicKey {
    /// Decodes the 64 bytes that travel in act 2. Every 64 bytes encode a point.
    #[must_use]
    pub fn from_ellswift(bytes: &[u8; ELLSWIFT_LEN]) -> Self {
        Self(curve::x_only(bytes))
    }

    /// Takes an x coordinate, as an authority that is off line is told it.
    ///
    /// # Errors
    /// [`KeyError::NotOnCurve`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        XOnlyPublicKey::from_byte_array(bytes).map(|_| Self(bytes)).map_err(|_| KeyError::NotOnCurve)
    }

    /// The x coordinate.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// A responder's static key with its ElligatorSwift encoding, made once and used by every handshake.
pub struct StaticKeyPair {
    pub(crate) key: CurveKey,
    public: StaticPublicKey,
}

impl StaticKeyPair {
    /// Makes the key from 64 random bytes: 32 of secret, 32 that choose among the public key's encodings.
    ///
    /// # Errors
    /// [`KeyError::SecretOutOfRange`], for random bytes with probability 2^-128.
    pub fn new(random: &[u8; 64]) -> Result<Self, KeyError> {
        let key = CurveKey::new(random)?;
        let public = StaticPublicKey::from_ellswift(&key.ellswift());
        Ok(Self { key, public })
    }

    /// What an authority signs.
    #[must_use]
    pub fn public_key(&self) -> &StaticPublicKey {
        &self.public
    }
}

impl fmt::Debug for StaticKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Decodes into `buffer` and returns what precedes the checksum.
fn decode_base58check<'a>(text: &str, buffer: &'a mut [u8; KEY_TEXT_LEN_MAX]) -> Result<&'a [u8], KeyError> {
    use bs58::decode::Error;
    if text.len() > KEY_TEXT_LEN_MAX {
        return Err(KeyError::TextTooLong { len: text.len() });
    }
    let decoded = bs58::decode(text).with_check(None).onto(&mut buffer[..]);
    match decoded {
        Ok(len) => Ok(&buffer[..len]),
        Err(Error::InvalidCharacter { index, .. } | Error::NonAsciiCharacter { index }) => {
            Err(KeyError::Character { position: index })
        }
        Err(_) => Err(KeyError::Checksum),
    }
}
