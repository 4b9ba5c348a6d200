//! secp256k1 with x-only ElligatorSwift keys (spec 4.3.1, BIP324): key generation and ECDH.
//!
//! All of it goes through one context that is made once and never randomised again. Randomising it
//! for each call, as `secp256k1` 0.33 does, made key generation cost 44 us instead of 25.

use std::sync::OnceLock;

use secp256k1::{
    All, PublicKey, Secp256k1, SecretKey,
    ellswift::{ElligatorSwift, Party},
};
use zeroize::Zeroizing;

use super::{ELLSWIFT_LEN, KeyError};

/// Which side of the handshake holds the secret: the shared secret depends on it (spec 4.4.2, `v2_ecdh`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// The process's context, which is immutable once made.
pub(super) fn context() -> &'static Secp256k1<All> {
    static CONTEXT: OnceLock<Secp256k1<All>> = OnceLock::new();
    CONTEXT.get_or_init(Secp256k1::new)
}

/// A secret and the ElligatorSwift encoding of its public key. The secret is wiped when dropped.
pub(crate) struct CurveKey {
    secret: SecretKey,
    public: ElligatorSwift,
}

impl CurveKey {
    /// `random`: 32 bytes of secret, then 32 that choose the encoding.
    pub(crate) fn new(random: &[u8; 64]) -> Result<Self, KeyError> {
        let mut secret_bytes = Zeroizing::new([0; 32]);
        let mut aux = [0; 32];
        secret_bytes.copy_from_slice(&random[..32]);
        aux.copy_from_slice(&random[32..]);
        let secret = SecretKey::from_byte_array(*secret_bytes).map_err(|_| KeyError::SecretOutOfRange)?;
        let public = ElligatorSwift::from_seckey(context(), secret, Some(aux));
        Ok(Self { secret, public })
    }

    pub(crate) fn ellswift(&self) -> [u8; ELLSWIFT_LEN] {
        self.public.to_array()
    }

    /// `ECDH(self, theirs)` of spec 4.4.2. Every 64 bytes are a public key, so this cannot fail.
    pub(crate) fn shared_secret(&self, theirs: &[u8; ELLSWIFT_LEN], role: Role) -> Zeroizing<[u8; 32]> {
        let theirs = ElligatorSwift::from_array(*theirs);
        let (initiator, responder, party) = match role {
            Role::Initiator => (self.public, theirs, Party::Initiator),
            Role::Responder => (theirs, self.public, Party::Responder),
        };
        Zeroizing::new(
            ElligatorSwift::shared_secret(initiator, responder, self.secret, party, None).to_secret_bytes(),
        )
    }
}

impl Drop for CurveKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

/// The x coordinate that an encoding stands for.
pub(super) fn x_only(ellswift: &[u8; ELLSWIFT_LEN]) -> [u8; 32] {
    PublicKey::from_ellswift(ElligatorSwift::from_array(*ellswift)).x_only_public_key().0.serialize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    fn rows(csv: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
        csv.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(',').collect())
    }

    #[test]
    fn decoding_meets_bip324() {
        let mut count = 0;
        for row in rows(include_str!("../../tests/vectors/bip324_decode.csv")) {
            assert_eq!(x_only(&bytes(row[0])), bytes(row[1]), "{}", row[0]);
            count += 1;
        }
        assert_eq!(count, 76);
    }

    #[test]
    fn ecdh_meets_bip324() {
        let mut count = 0;
        for row in rows(include_str!("../../tests/vectors/bip324_ecdh.csv")) {
            let key = CurveKey {
                secret: SecretKey::from_byte_array(bytes(row[0])).unwrap(),
                public: ElligatorSwift::from_array(bytes(row[1])),
            };
            let role = if row[3] == "1" { Role::Initiator } else { Role::Responder };
            if !row[4].is_empty() {
                assert_eq!(x_only(&bytes(row[1])), bytes(row[4]));
            }
            assert_eq!(*key.shared_secret(&bytes(row[2]), role), bytes(row[5]), "{}", row[0]);
            count += 1;
        }
        assert_eq!(count, 14);
    }

    #[test]
    fn a_key_encodes_its_own_point_whatever_the_randomness() {
        let mut random = [7; 64];
        let one = CurveKey::new(&random).unwrap();
        random[63] = 8;
        let other = CurveKey::new(&random).unwrap();
        assert_ne!(one.ellswift(), other.ellswift());
        assert_eq!(x_only(&one.ellswift()), x_only(&other.ellswift()));
        let x = one.secret.x_only_public_key(context()).0.serialize();
        assert_eq!(x_only(&one.ellswift()), x);
    }

    #[test]
    fn secrets_out_of_range_are_refused() {
        let order: [u8; 32] = bytes("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
        let mut random = [0; 64];
        assert_eq!(CurveKey::new(&random).err(), Some(KeyError::SecretOutOfRange));
        random[..32].copy_from_slice(&order);
        assert_eq!(CurveKey::new(&random).err(), Some(KeyError::SecretOutOfRange));
        random[31] -= 1;
        assert!(CurveKey::new(&random).is_ok());
    }
}
