//! Stratum V2 bytes to messages and back: frames, messages, TLV, Noise, keys.
//!
//! Owns the wire format and nothing else: no socket, clock, thread or randomness.
//!
//! - [`frame`]: the six-byte header and deframing of plaintext where it lies (spec 3.2).
//! - `noise`, `keys`, `url` (feature `noise`): the encrypted transport (spec 4).
//!
//! Without the feature `noise` the crate is `no_std`.
#![cfg_attr(not(feature = "noise"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod frame;
#[cfg(feature = "noise")]
pub mod keys;
#[cfg(feature = "noise")]
pub mod noise;
#[cfg(feature = "noise")]
pub mod url;
