//! ChaCha20-Poly1305 (RFC 8439) for Stratum V2's Noise frames, most of which are small.
//!
//! A pool opens a frame per share and seals one per answer, and nearly all of them have payloads of at most 64 bytes. A
//! general AEAD spends most of its time on such a frame on setting up: for each of its two texts, header and payload, a
//! call, a Poly1305 key, a stream that is begun and thrown away. Here both texts are one call, and the four ChaCha20 blocks
//! that they need are made at once, side by side in vectors. `ring` does whatever is longer, and everything on CPUs without
//! the instructions.
//!
//! [`Aead`] is the interface: [`Aead::open_frame`] and [`Aead::seal_frame`] for a frame, [`Aead::open_run`] for what a
//! proxy sends in one piece and [`Aead::seal_run`] for what it gets, [`Aead::open_frames`] for frames of any connections,
//! [`Aead::open`] and [`Aead::seal`] for single texts. All backends agree on every byte.
//!
//! Nonces are Noise's: 32 zero bits, then a counter of 64 bits, little-endian. Counting is the caller's, and so is never
//! using one twice. Invariants: no plaintext appears before its tag has verified, and what does not verify is left as it
//! was (a long text that `ring` opens is zeroed instead); nothing is released by a header's length before the header has
//! verified; tags are compared in constant time, and no branch or address depends on a key. Keys are borrowed and not kept;
//! what a call leaves on the stack is, as with `ring`, not wiped.
//!
//! Frames that came together are opened together where the CPU has AVX-512 IFMA, and those that leave together are sealed
//! together: eight keystreams beside each other, then Poly1305 in eight lanes. Callers hand over what they have; nothing needs full
//! lanes.
//!
//! # Which kernel
//! [`Aead::detect`] measures the kernels that the CPU can run, and from how many frames on lanes are worth it (by opening them:
//! sealing does the same work in another order), once per process, in less than 1 ms. [`Aead::forced`] takes one backend: for tests and
//! comparisons, and where an operator knows
//! better.

#![deny(unsafe_code)]

mod aead;
#[allow(unsafe_code, reason = "the kernels: see the module")]
mod arch;
mod backend;
mod calibration;
mod fallback;
mod poly1305;
mod sealed;
mod stream;

use core::fmt;

pub use aead::{Aead, OpenJob};
pub use backend::{Backend, BackendError};

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;

/// Bytes of a frame's header. Its last three are the payload's length, little-endian.
pub const HEADER_LEN: usize = 6;

/// Bytes of a sealed header.
pub const SEALED_HEADER_LEN: usize = HEADER_LEN + TAG_LEN;

/// The longest text that the kernels take, in bytes: one ChaCha20 block.
pub const SMALL_LEN_MAX: usize = 64;

/// The most frames that a kernel opens or seals at once.
pub const LANES: usize = 8;

/// A tag does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tag does not match")
    }
}

impl core::error::Error for Forged {}

/// How much of a frame was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// All of it: the header under the nonce, the payload, unless it is empty, under the next.
    Frame,
    /// The header. The payload is over the limit, or not all there.
    Header,
}

/// The payload's length in bytes, by its frame's opened header.
#[inline(always)]
#[must_use]
pub const fn payload_len(header: &[u8; HEADER_LEN]) -> usize {
    let [_, _, _, low, middle, high] = *header;
    u32::from_le_bytes([low, middle, high, 0]) as usize
}
