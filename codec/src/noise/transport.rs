//! Sealing and opening frames (spec 4.6).
//!
//! A frame's six header bytes are sealed alone, into 22. Its payload is cut into chunks of 65,519 bytes,
//! each sealed into 65,535; an empty payload has no chunk. Opening and sealing happen where the bytes lie.

use core::fmt;

use adit_aead::{Aead, Opening};

use super::{
    TAG_LEN,
    cipher::{CipherError, CipherState},
};
use crate::frame::{FrameHeader, HEADER_LEN};

/// Bytes of a sealed header.
pub const SEALED_HEADER_LEN: usize = HEADER_LEN + TAG_LEN;

/// The most ciphertext that Noise allows in one message, tag included.
pub const SEALED_CHUNK_LEN_MAX: usize = 65_535;

/// The most payload that one chunk holds.
pub const CHUNK_LEN_MAX: usize = SEALED_CHUNK_LEN_MAX - TAG_LEN;

/// Where [`Sealer::seal_frame`] wants the plaintext frame to begin. Sealing puts 16 bytes between header and
/// payload; with the frame this far into the buffer only the header has to move.
pub const FRAME_OFFSET: usize = TAG_LEN;

const _: () = assert!(CHUNK_LEN_MAX == 65_519 && SEALED_HEADER_LEN == 22);

/// Bytes of a sealed payload of `payload_len` bytes (spec 4.6, `pt_len_to_ct_len`).
#[inline]
#[must_use]
pub const fn sealed_payload_len(payload_len: usize) -> usize {
    payload_len + payload_len.div_ceil(CHUNK_LEN_MAX) * TAG_LEN
}

/// Bytes of a sealed frame with a payload of `payload_len` bytes.
#[inline]
#[must_use]
pub const fn sealed_len(payload_len: usize) -> usize {
    SEALED_HEADER_LEN + sealed_payload_len(payload_len)
}

/// Why something does not open. The opener works no more, and the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The tag does not match: the bytes were altered, lost, repeated or reordered.
    Tag,
    /// No payload has a ciphertext of this length.
    Length {
        /// Bytes of the ciphertext.
        len: usize,
    },
    /// The peer has used up all 2^64 - 1 nonces.
    Exhausted,
    /// Something failed to open earlier.
    Poisoned,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag => f.write_str("a frame does not authenticate: it was altered, lost or reordered"),
            Self::Length { len } => write!(f, "no payload seals to {len} bytes"),
            Self::Exhausted => f.write_str("the connection has used up its nonces"),
            Self::Poisoned => f.write_str("an earlier frame of the connection did not open"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<CipherError> for OpenError {
    fn from(error: CipherError) -> Self {
        match error {
            CipherError::Tag => Self::Tag,
            CipherError::Exhausted => Self::Exhausted,
            CipherError::Wiped => Self::Poisoned,
        }
    }
}

/// Why a frame cannot be sealed: our own fault, not the peer's. Nothing was sealed and no nonce used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// The frame is shorter than a header, or its header states another payload length than it has.
    Frame {
        /// Bytes of the frame.
        frame_len: usize,
    },
    /// The buffer is too small.
    Room {
        /// Bytes it must have.
        needed: usize,
        /// Bytes it has.
        found: usize,
    },
    /// All 2^64 - 1 nonces are used.
    Exhausted,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame { frame_len } => {
                write!(f, "the {frame_len} bytes to seal are no frame: the header states another length")
            }
            Self::Room { needed, found } => {
                write!(f, "a sealed frame needs {needed} bytes, the buffer has {found}")
            }
            Self::Exhausted => f.write_str("the connection has used up its nonces"),
        }
    }
}

impl core::error::Error for SealError {}

/// Opens what a peer sends: header, payload, header, payload. 48 bytes.
///
/// A failure wipes the key: whatever is opened afterwards is [`OpenError::Poisoned`].
pub struct Opener {
    cipher: CipherState,
}

impl Opener {
    pub(super) fn new(cipher: CipherState) -> Self {
        Self { cipher }
    }

    /// Opens by these kernels from now on, instead of the fastest ones.
    pub fn set_aead(&mut self, aead: Aead) {
        self.cipher.set_aead(aead);
    }

    /// Opens a header where it lies.
    ///
    /// # Errors
    /// [`OpenError`]; the bytes then hold no plaintext.
    #[inline]
    pub fn open_header(&mut self, sealed: &mut [u8; SEALED_HEADER_LEN]) -> Result<FrameHeader, OpenError> {
        self.open_chunk(sealed)?;
        Ok(FrameHeader::parse(sealed.first_chunk().expect("22 bytes begin with 6")))
    }

    /// Opens a whole payload where it lies. The plaintext is the front of `ciphertext`; returns its length.
    ///
    /// # Errors
    /// [`OpenError`]; the bytes then hold no plaintext.
    #[inline]
    pub fn open_payload(&mut self, ciphertext: &mut [u8]) -> Result<usize, OpenError> {
        if (TAG_LEN + 1..=SEALED_CHUNK_LEN_MAX).contains(&ciphertext.len()) {
            return self.open_chunk(ciphertext);
        }
        self.open_chunks(ciphertext)
    }

    /// Opens the frame that `bytes` begin with where it lies: the header, and the payload too if it is all there, one
    /// chunk, and not longer than `payload_len_max`. `bytes` hold at least a sealed header.
    ///
    /// # Errors
    /// [`OpenError`]; what did not open is then no plaintext.
    #[inline]
    pub(super) fn open_frame(
        &mut self,
        bytes: &mut [u8],
        payload_len_max: u32,
    ) -> Result<(FrameHeader, Opening), OpenError> {
        match self.cipher.open_frame(bytes, (payload_len_max as usize).min(CHUNK_LEN_MAX)) {
            Ok(opened) => Ok(opened),
            Err(error) => {
                self.poison();
                Err(error.into())
            }
        }
    }

    /// Opens small frames that `bytes` begin with where they lie, as many as is worth it; returns how many. What follows,
    /// and what does not open, is left as it is.
    #[inline]
    pub(super) fn open_run(&mut self, bytes: &mut [u8], payload_len_max: u32) -> usize {
        self.cipher.open_run(bytes, payload_len_max as usize)
    }

    fn open_chunks(&mut self, ciphertext: &mut [u8]) -> Result<usize, OpenError> {
        let len = ciphertext.len();
        let last_len = len % SEALED_CHUNK_LEN_MAX;
        if last_len != 0 && last_len <= TAG_LEN {
            self.poison();
            return Err(OpenError::Length { len });
        }
        let (mut opened, mut start) = (0, 0);
        while start < len {
            let end = len.min(start + SEALED_CHUNK_LEN_MAX);
            match self.open_chunk(&mut ciphertext[start..end]) {
                Ok(chunk_len) => {
                    ciphertext.copy_within(start..start + chunk_len, opened);
                    opened += chunk_len;
                    start = end;
                }
                Err(error) => {
                    ciphertext.fill(0);
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    /// Opens one Noise message; `sealed` holds at least a tag. Returns the plaintext's length.
    #[inline]
    pub(super) fn open_chunk(&mut self, sealed: &mut [u8]) -> Result<usize, OpenError> {
        let Some((text, tag)) = sealed.split_last_chunk_mut::<TAG_LEN>() else {
            self.poison();
            return Err(OpenError::Length { len: sealed.len() });
        };
        match self.cipher.open(&[], text, tag) {
            Ok(()) => Ok(text.len()),
            Err(error) => {
                self.poison();
                Err(error.into())
            }
        }
    }

    /// Whether anything can still be opened.
    #[inline]
    pub(super) fn check(&self) -> Result<(), OpenError> {
        Ok(self.cipher.check(1)?)
    }

    /// Wipes the key, if it is not used up: what was the reason then stays the reason.
    #[cold]
    pub(super) fn poison(&mut self) {
        if self.check().is_ok() {
            self.cipher.wipe();
        }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// Seals what goes to a peer. 48 bytes.
///
/// Frames must be sent in the order in which they were sealed, none left out.
pub struct Sealer {
    cipher: CipherState,
}

impl Sealer {
    pub(super) fn new(cipher: CipherState) -> Self {
        Self { cipher }
    }

    /// Seals by these kernels from now on, instead of the fastest ones.
    pub fn set_aead(&mut self, aead: Aead) {
        self.cipher.set_aead(aead);
    }

    /// Seals a frame in place. The plaintext frame, header and payload of `frame_len` bytes together, begins at
    /// [`FRAME_OFFSET`]; the sealed one begins at 0. Returns the sealed frame's length, which is
    /// [`sealed_len`] of the payload's; the buffer must have that many bytes.
    ///
    /// # Errors
    /// [`SealError`]; the buffer is unchanged and no nonce was used.
    pub fn seal_frame(&mut self, buffer: &mut [u8], frame_len: usize) -> Result<usize, SealError> {
        let payload_len = frame_len
            .checked_sub(HEADER_LEN)
            .filter(|&len| sealed_len(len) <= buffer.len())
            .ok_or_else(|| match frame_len.checked_sub(HEADER_LEN) {
                Some(len) => SealError::Room { needed: sealed_len(len), found: buffer.len() },
                None => SealError::Frame { frame_len },
            })?;
        let frame = &buffer[FRAME_OFFSET..];
        let header: [u8; HEADER_LEN] = *frame.first_chunk().expect("the buffer holds a sealed header");
        check_header(&header, payload_len)?;
        self.check_nonces(payload_len)?;
        let buffer = &mut buffer[..sealed_len(payload_len)];
        let (sealed_header, payload) =
            buffer.split_first_chunk_mut::<SEALED_HEADER_LEN>().expect("the buffer holds a sealed header");
        sealed_header[..HEADER_LEN].copy_from_slice(&header);
        if payload_len > CHUNK_LEN_MAX {
            // The chunks make room for their tags, the last one first.
            for chunk in (1..payload_len.div_ceil(CHUNK_LEN_MAX)).rev() {
                let start = chunk * CHUNK_LEN_MAX;
                let text = start..payload_len.min(start + CHUNK_LEN_MAX);
                payload.copy_within(text, chunk * SEALED_CHUNK_LEN_MAX);
            }
        }
        self.seal_one(sealed_header, payload);
        Ok(buffer.len())
    }

    /// Seals a copy of `frame` into `out`, for one frame that goes to many connections. Returns the sealed frame's
    /// length.
    ///
    /// # Errors
    /// [`SealError`]; no nonce was used.
    pub fn seal_frame_into(&mut self, frame: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let payload_len =
            frame.len().checked_sub(HEADER_LEN).ok_or(SealError::Frame { frame_len: frame.len() })?;
        let needed = sealed_len(payload_len);
        if out.len() < needed {
            return Err(SealError::Room { needed, found: out.len() });
        }
        out[FRAME_OFFSET..FRAME_OFFSET + frame.len()].copy_from_slice(frame);
        self.seal_frame(out, frame.len())
    }

    /// Lays a copy of `frame` out in `out` as it will be sealed by [`Self::seal_placed`]: with room for a tag behind the header and
    /// behind each chunk of the payload. Returns the sealed frame's length.
    ///
    /// # Errors
    /// [`SealError`], but not for want of nonces.
    pub fn place_frame(frame: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let (header, payload) =
            frame.split_first_chunk::<HEADER_LEN>().ok_or(SealError::Frame { frame_len: frame.len() })?;
        check_header(header, payload.len())?;
        let needed = sealed_len(payload.len());
        let found = out.len();
        let out = out.get_mut(..needed).ok_or(SealError::Room { needed, found })?;
        let (sealed_header, sealed_payload) = out.split_at_mut(SEALED_HEADER_LEN);
        sealed_header[..HEADER_LEN].copy_from_slice(header);
        if payload.len() <= CHUNK_LEN_MAX {
            sealed_payload[..payload.len()].copy_from_slice(payload);
            return Ok(needed);
        }
        let sealed_chunks = sealed_payload.chunks_mut(SEALED_CHUNK_LEN_MAX);
        for (chunk, sealed) in payload.chunks(CHUNK_LEN_MAX).zip(sealed_chunks) {
            sealed[..chunk.len()].copy_from_slice(chunk);
        }
        Ok(needed)
    }

    /// Seals frames that [`Self::place_frame`] laid out one after the other, where they lie: several at once where that is faster.
    ///
    /// # Errors
    /// [`SealError`] if nonces run out, or what lies there is no whole frame; some frames may be sealed then, and the connection must
    /// be closed.
    pub fn seal_placed(&mut self, mut frames: &mut [u8]) -> Result<(), SealError> {
        while let Some(header) = frames.first_chunk().copied() {
            let run_len = self.cipher.seal_run(frames);
            if run_len > 0 {
                frames = &mut frames[run_len..];
                continue;
            }
            let payload_len = FrameHeader::parse(&header).payload_len as usize;
            let (needed, found) = (sealed_len(payload_len), frames.len());
            let (frame, rest) =
                frames.split_at_mut_checked(needed).ok_or(SealError::Room { needed, found })?;
            self.check_nonces(payload_len)?;
            let (header, payload) = frame.split_first_chunk_mut().expect("a sealed frame has a header");
            self.seal_one(header, payload);
            frames = rest;
        }
        match frames.len() {
            0 => Ok(()),
            frame_len => Err(SealError::Frame { frame_len }),
        }
    }

    /// Seals a frame that was laid out, for which there are nonces.
    #[inline]
    fn seal_one(&mut self, header: &mut [u8; SEALED_HEADER_LEN], payload: &mut [u8]) {
        if payload.len() <= SEALED_CHUNK_LEN_MAX {
            return self.cipher.seal_frame(header, payload).expect("nonces were counted");
        }
        self.seal_chunk(header);
        for chunk in payload.chunks_mut(SEALED_CHUNK_LEN_MAX) {
            self.seal_chunk(chunk);
        }
    }

    /// Whether there are nonces for all of a frame.
    #[inline]
    fn check_nonces(&self, payload_len: usize) -> Result<(), SealError> {
        let messages = 1 + payload_len.div_ceil(CHUNK_LEN_MAX) as u64;
        self.cipher.check(messages).map_err(|_| SealError::Exhausted)
    }

    /// Seals one Noise message, whose last 16 bytes are room for the tag.
    #[inline]
    fn seal_chunk(&mut self, sealed: &mut [u8]) {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().expect("room for the tag");
        *tag = self.cipher.seal(&[], text).expect("nonces were counted");
    }
}

/// Whether a header is that of a frame with a payload of this length.
#[inline]
fn check_header(header: &[u8; HEADER_LEN], payload_len: usize) -> Result<(), SealError> {
    if FrameHeader::parse(header).payload_len as usize == payload_len {
        return Ok(());
    }
    Err(SealError::Frame { frame_len: HEADER_LEN + payload_len })
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}
