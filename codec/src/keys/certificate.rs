//! The certificate of spec 4.5.3: an authority's signature over a server's static key and a span of time.

use core::fmt;

use ring::digest;
use secp256k1::{Keypair, schnorr::Signature};

use super::{AuthorityPublicKey, StaticPublicKey, curve};

/// Bytes of a certificate on the wire (spec 4.5.2, `SIGNATURE_NOISE_MESSAGE`).
pub const CERTIFICATE_LEN: usize = 74;

/// The one version that exists.
pub const CERTIFICATE_VERSION: u16 = 0;

/// What a responder sends to prove its static key. All integers are little-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Format of the certificate; [`CERTIFICATE_VERSION`].
    pub version: u16,
    /// First moment of validity, unix seconds.
    pub valid_from: u32,
    /// Last moment of validity, unix seconds.
    pub not_valid_after: u32,
    /// BIP340 signature by the authority.
    pub signature: [u8; 64],
}

/// Why a certificate does not prove a server's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateError {
    /// A version that is not understood.
    Version {
        /// The certificate's version.
        found: u16,
    },
    /// The signature is not the expected authority's over this static key and these times.
    Signature {
        /// The authority that was expected.
        authority: AuthorityPublicKey,
    },
    /// Its time has not begun, also with the allowed drift of clocks.
    NotYetValid {
        /// Begin of validity, unix seconds.
        valid_from: u32,
        /// The time it was compared with, unix seconds.
        now: u32,
    },
    /// Its time is over, also with the allowed drift of clocks.
    Expired {
        /// End of validity, unix seconds.
        not_valid_after: u32,
        /// The time it was compared with, unix seconds.
        now: u32,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => {
                write!(f, "the certificate has version {found}, only {CERTIFICATE_VERSION} is known")
            }
            Self::Signature { authority } => {
                write!(
                    f,
                    "the certificate is not signed by the authority {authority}: wrong server or wrong authority key"
                )
            }
            Self::NotYetValid { valid_from, now } => {
                write!(
                    f,
                    "the certificate is valid from {valid_from} on, and it is {now}: {} s too early; check both clocks",
                    valid_from.saturating_sub(*now)
                )
            }
            Self::Expired { not_valid_after, now } => {
                write!(
                    f,
                    "the certificate was valid until {not_valid_after}, and it is {now}: expired {} s ago",
                    now.saturating_sub(*not_valid_after)
                )
            }
        }
    }
}

impl core::error::Error for CertificateError {}

impl Certificate {
    pub(super) fn sign(
        authority: &Keypair,
        static_key: &StaticPublicKey,
        valid_from: u32,
        not_valid_after: u32,
        aux: &[u8; 32],
    ) -> Self {
        let unsigned = Self { version: CERTIFICATE_VERSION, valid_from, not_valid_after, signature: [0; 64] };
        let digest = unsigned.signed_digest(static_key);
        let signature = curve::context().sign_schnorr_with_aux_rand(digest.as_ref(), authority, aux);
        Self { signature: signature.to_byte_array(), ..unsigned }
    }

    /// Reads the wire form. Every 74 bytes are a certificate; whether it proves anything is for [`Self::verify`] to say.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; CERTIFICATE_LEN]) -> Self {
        let [v0, v1, f0, f1, f2, f3, n0, n1, n2, n3, signature @ ..] = *bytes;
        Self {
            version: u16::from_le_bytes([v0, v1]),
            valid_from: u32::from_le_bytes([f0, f1, f2, f3]),
            not_valid_after: u32::from_le_bytes([n0, n1, n2, n3]),
            signature,
        }
    }

    /// The wire form.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; CERTIFICATE_LEN] {
        let mut bytes = [0; CERTIFICATE_LEN];
        bytes[..10].copy_from_slice(&self.signed_head());
        bytes[10..].copy_from_slice(&self.signature);
        bytes
    }

    /// Checks that `authority` vouches for `static_key` at `now_unix`, with clocks that may differ by `drift_s`
    /// seconds. The signature comes before the times: without it they mean nothing.
    ///
    /// # Errors
    /// One [`CertificateError`] for each thing that can be wrong.
    pub fn verify(
        &self,
        static_key: &StaticPublicKey,
        authority: &AuthorityPublicKey,
        now_unix: u32,
        drift_s: u32,
    ) -> Result<(), CertificateError> {
        self.check_version()?;
        let digest = self.signed_digest(static_key);
        curve::context()
            .verify_schnorr(&Signature::from_byte_array(self.signature), digest.as_ref(), &authority.0)
            .map_err(|_| CertificateError::Signature { authority: *authority })?;
        if now_unix.saturating_add(drift_s) < self.valid_from {
            return Err(CertificateError::NotYetValid { valid_from: self.valid_from, now: now_unix });
        }
        if now_unix.saturating_sub(drift_s) > self.not_valid_after {
            return Err(CertificateError::Expired { not_valid_after: self.not_valid_after, now: now_unix });
        }
        Ok(())
    }

    pub(crate) fn check_version(&self) -> Result<(), CertificateError> {
        if self.version == CERTIFICATE_VERSION {
            Ok(())
        } else {
            Err(CertificateError::Version { found: self.version })
        }
    }

    fn signed_head(&self) -> [u8; 10] {
        let [v0, v1] = self.version.to_le_bytes();
        let [f0, f1, f2, f3] = self.valid_from.to_le_bytes();
        let [n0, n1, n2, n3] = self.not_valid_after.to_le_bytes();
        [v0, v1, f0, f1, f2, f3, n0, n1, n2, n3]
    }

    /// `m` of spec 4.5.3.1: SHA-256 of version, times and the static key's x coordinate.
    fn signed_digest(&self, static_key: &StaticPublicKey) -> digest::Digest {
        let mut signed = [0; 42];
        signed[..10].copy_from_slice(&self.signed_head());
        signed[10..].copy_from_slice(&static_key.0);
        digest::digest(&digest::SHA256, &signed)
    }
}
