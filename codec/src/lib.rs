//! Stratum V2 bytes to messages and back: frames, messages, TLV, Noise, keys.
//!
//! Owns the wire format and nothing else: no socket, clock, thread or randomness. Received bytes are read where they
//! lie; what is to be sent is written into the caller's slice; neither allocates. Bytes from outside give a message or
//! an error that names message and field, never a panic.
//!
//! - [`frame`]: the six-byte header, and plaintext frames in a buffer (spec 3.2).
//! - [`message`]: every message, from one table (spec 3.6, 5.3, 6.4, 7, 8, extension 0x0001).
//! - [`wire`], [`seq`]: the data types that the table is written in (spec 3.1).
//! - [`tlv`]: what extensions append to messages (spec 3.4.3, extension 0x0002).
//! - `noise`, `keys`, `url` (feature `noise`): the encrypted transport (spec 4).
//!
//! Without the feature `noise` the crate is `no_std`.
#![cfg_attr(not(feature = "noise"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod error;
pub mod frame;
#[cfg(feature = "noise")]
pub mod keys;
pub mod message;
#[cfg(feature = "noise")]
pub mod noise;
pub mod seq;
pub mod tlv;
#[cfg(feature = "noise")]
pub mod url;
pub mod wire;

pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use message::{Decode, Encode, encode_frame, encode_frame_with_trailing, frame_len};
