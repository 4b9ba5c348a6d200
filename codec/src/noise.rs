//! The encrypted transport (spec 4): `Noise_NX_Secp256k1+EllSwift_ChaChaPoly_SHA256`.
//!
//! - the handshake in two acts: [`Initiator`] and [`Responder`] (spec 4.5),
//! - sealing and opening frames in place: [`Sealer`] and [`Opener`] (spec 4.6),
//! - frames out of a byte stream, read where they lie: [`SecureDeframer`],
//! - the choice of what encrypts, which is the package `adit-aead`'s: [`Aead`].
//!
//! Randomness and time are arguments. Invariants: a nonce is never used twice with one key; no
//! plaintext is handed out before its tag has verified; whatever fails to open ends the connection,
//! because the key is wiped. Bounds: a connection with nothing in flight holds its two keys and
//! counters and no buffer; one with a frame in flight holds at most that frame, whose length is checked
//! as soon as its header is there.

mod cipher;
mod deframing;
mod handshake;
mod symmetric;
mod transport;

pub use adit_aead::{Aead, Backend as AeadBackend};
pub use deframing::{DeframeError, Frames, SPARE_CAPACITY_MAX, SecureDeframer, SpareBuffers};
pub use handshake::{EphemeralKey, HandshakeError, Initiator, Responder, Transport};
pub use transport::{
    CHUNK_LEN_MAX, FRAME_OFFSET, OpenError, Opener, SEALED_CHUNK_LEN_MAX, SEALED_HEADER_LEN, SealError,
    Sealer, sealed_len, sealed_payload_len,
};

/// Bytes of act 1: the initiator's ephemeral key (spec 4.5.1).
pub const ACT1_LEN: usize = crate::keys::ELLSWIFT_LEN;

/// Bytes of act 2: ephemeral key, sealed static key, sealed certificate (spec 4.5.2).
pub const ACT2_LEN: usize = crate::keys::ELLSWIFT_LEN
    + (crate::keys::ELLSWIFT_LEN + TAG_LEN)
    + (crate::keys::CERTIFICATE_LEN + TAG_LEN);

/// Bytes that authenticate a ciphertext (Poly1305).
pub const TAG_LEN: usize = 16;

const _: () = assert!(ACT1_LEN == 64 && ACT2_LEN == 234);
