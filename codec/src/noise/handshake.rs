//! The handshake (spec 4.5): `-> e`, then `<- e, ee, s, es, SIGNATURE_NOISE_MESSAGE`.
//!
//! A stranger costs the responder one call of [`Responder::respond`] for 64 bytes: about 88 us of CPU, of
//! which [`EphemeralKey::new`] is 25 and can be done ahead of time. No 64 bytes make it fail, and nothing
//! is kept beyond the [`Transport`] that it returns.

use core::fmt;

use adit_aead::Aead;
use zeroize::Zeroizing;

use super::{
    ACT1_LEN, ACT2_LEN, TAG_LEN,
    symmetric::SymmetricState,
    transport::{Opener, Sealer},
};
use crate::keys::{
    AuthorityPublicKey, CERTIFICATE_LEN, Certificate, CertificateError, CurveKey, ELLSWIFT_LEN, KeyError,
    Role, StaticKeyPair, StaticPublicKey,
};

/// Where act 2's sealed static key begins and ends; the sealed certificate follows.
const STATIC_START: usize = ELLSWIFT_LEN;
const STATIC_END: usize = STATIC_START + ELLSWIFT_LEN + TAG_LEN;

/// Why an initiator refuses act 2. Each of them ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The responder's static key does not open: act 1 or act 2 was changed on the way, or the peer speaks no Noise.
    StaticKey,
    /// The certificate does not open: act 2 was changed on the way.
    Certificate,
    /// The handshake is sound, but the certificate does not prove who the responder is.
    Identity(CertificateError),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaticKey => f.write_str(
                "act 2: the static key does not authenticate: the handshake was altered, or the peer speaks no Noise",
            ),
            Self::Certificate => {
                f.write_str("act 2: the certificate does not authenticate: the handshake was altered")
            }
            Self::Identity(error) => write!(f, "the server is not who it should be: {error}"),
        }
    }
}

impl core::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Identity(error) => Some(error),
            _ => None,
        }
    }
}

/// A key for one handshake. Making it is the one part that needs nothing from the peer, so a shard can
/// make some in idle time.
pub struct EphemeralKey(CurveKey);

impl EphemeralKey {
    /// Makes the key from 64 random bytes, which must be used for nothing else: 32 of secret, 32 that choose
    /// the encoding.
    ///
    /// # Errors
    /// [`KeyError::SecretOutOfRange`], with probability 2^-128: take new randomness.
    pub fn new(random: &[u8; 64]) -> Result<Self, KeyError> {
        CurveKey::new(random).map(Self)
    }
}

impl fmt::Debug for EphemeralKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EphemeralKey")
    }
}

/// What a handshake yields: a cipher state for each direction.
#[derive(Debug)]
pub struct Transport {
    /// Opens what the peer sends.
    pub opener: Opener,
    /// Seals what goes to the peer.
    pub sealer: Sealer,
}

impl Transport {
    /// Opens and seals by these kernels, instead of the fastest ones.
    pub fn set_aead(&mut self, aead: Aead) {
        self.opener.set_aead(aead);
        self.sealer.set_aead(aead);
    }
}

/// The server's side, which keeps no state between its acts.
#[derive(Clone, Copy, Debug)]
pub struct Responder;

impl Responder {
    /// Takes act 1, writes act 2. `certificate` must be for `static_key`; both are given with each call, so
    /// that they can be renewed.
    #[must_use]
    pub fn respond(
        act1: &[u8; ACT1_LEN],
        static_key: &StaticKeyPair,
        certificate: &Certificate,
        ephemeral: EphemeralKey,
        act2: &mut [u8; ACT2_LEN],
    ) -> Transport {
        let EphemeralKey(ephemeral) = ephemeral;
        let mut state = SymmetricState::new();
        state.mix_hash(act1);
        state.mix_hash(&[]);

        act2[..STATIC_START].copy_from_slice(&ephemeral.ellswift());
        state.mix_hash(&act2[..STATIC_START]);

        let key = state.mix_key(&ephemeral.shared_secret(act1, Role::Responder));
        act2[STATIC_START..STATIC_START + ELLSWIFT_LEN].copy_from_slice(&static_key.key.ellswift());
        state.seal(key, &mut act2[STATIC_START..STATIC_END]);

        let key = state.mix_key(&static_key.key.shared_secret(act1, Role::Responder));
        act2[STATIC_END..STATIC_END + CERTIFICATE_LEN].copy_from_slice(&certificate.to_bytes());
        state.seal(key, &mut act2[STATIC_END..]);

        let (from_initiator, to_initiator) = state.split();
        Transport { opener: Opener::new(from_initiator), sealer: Sealer::new(to_initiator) }
    }
}

/// The client's side, waiting for act 2.
pub struct Initiator {
    state: SymmetricState,
    ephemeral: CurveKey,
}

impl Initiator {
    /// Begins a handshake: returns act 1, which goes to the responder.
    #[must_use]
    pub fn new(ephemeral: EphemeralKey) -> (Self, [u8; ACT1_LEN]) {
        let EphemeralKey(ephemeral) = ephemeral;
        let act1 = ephemeral.ellswift();
        let mut state = SymmetricState::new();
        state.mix_hash(&act1);
        state.mix_hash(&[]);
        (Self { state, ephemeral }, act1)
    }

    /// Takes act 2 and checks who sent it: `authority` must have signed the certificate, and it must be valid
    /// at `now_unix`, give or take `drift_s` seconds. Without an authority the peer is encrypted to but not
    /// identified; that is for local networks.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection must be closed.
    pub fn finish(
        self,
        act2: &[u8; ACT2_LEN],
        authority: Option<&AuthorityPublicKey>,
        now_unix: u32,
        drift_s: u32,
    ) -> Result<Transport, HandshakeError> {
        let Self { mut state, ephemeral } = self;
        let mut act2 = Zeroizing::new(*act2);
        let theirs: [u8; ELLSWIFT_LEN] = leading(&act2[..STATIC_START]);
        state.mix_hash(&theirs);

        let key = state.mix_key(&ephemeral.shared_secret(&theirs, Role::Initiator));
        state.open(key, &mut act2[STATIC_START..STATIC_END]).map_err(|_| HandshakeError::StaticKey)?;
        let static_key: [u8; ELLSWIFT_LEN] = leading(&act2[STATIC_START..STATIC_END]);

        let key = state.mix_key(&ephemeral.shared_secret(&static_key, Role::Initiator));
        state.open(key, &mut act2[STATIC_END..]).map_err(|_| HandshakeError::Certificate)?;
        let certificate = Certificate::from_bytes(&leading(&act2[STATIC_END..]));

        match authority {
            Some(authority) => {
                let static_key = StaticPublicKey::from_ellswift(&static_key);
                certificate.verify(&static_key, authority, now_unix, drift_s)
            }
            None => certificate.check_version(),
        }
        .map_err(HandshakeError::Identity)?;

        let (to_responder, from_responder) = state.split();
        Ok(Transport { opener: Opener::new(from_responder), sealer: Sealer::new(to_responder) })
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator")
    }
}

/// The first `N` bytes of a field of act 2, whose offsets are constants.
fn leading<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("act 2 holds the field")
}
