//! Frames out of the sealed byte stream, wherever the stream was cut.
//!
//! A frame that lies whole in the received bytes is opened there. What is cut off at their end is gathered
//! in a buffer of the connection's own, which exists only as long as a frame is incomplete. Of a large frame
//! each chunk is opened as soon as it is whole, so that the work keeps pace with the bytes; nothing
//! is handed out before all of it is.
//!
//! Bounds: a declared payload over the configured length is refused right after its header. The buffer grows
//! with the bytes that arrived, never with those announced, and to at most one frame.

use alloc::{boxed::Box, vec::Vec};
use core::{fmt, mem};

use adit_aead::Opening;

use super::{
    TAG_LEN,
    transport::{OpenError, Opener, SEALED_CHUNK_LEN_MAX, SEALED_HEADER_LEN, sealed_payload_len},
};
use crate::frame::FrameHeader;

/// The largest buffer that [`SpareBuffers`] keeps, in bytes.
pub const SPARE_CAPACITY_MAX: usize = 16 * 1024;

/// Frames from which on [`Frames::open_ahead`] opens no more: a few runs.
const AHEAD_MAX: usize = 32;

/// A new buffer's least capacity, once a header is known: it then serves frames of usual sizes without growing.
const CAPACITY_MIN: usize = 1024;

/// Why a stream yields no further frame. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeframeError {
    /// Something does not open.
    Open(OpenError),
    /// The peer announces a payload over the limit.
    PayloadTooLong {
        /// The frame's header.
        header: FrameHeader,
        /// The limit, in bytes.
        payload_len_max: u32,
    },
}

impl fmt::Display for DeframeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::PayloadTooLong { header, payload_len_max } => write!(
                f,
                "a message of type {:#04x} announces {} bytes of payload, at most {payload_len_max}",
                header.msg_type, header.payload_len
            ),
        }
    }
}

impl core::error::Error for DeframeError {}

impl From<OpenError> for DeframeError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// One connection's received stream. 64 bytes, and a buffer while a frame is incomplete.
///
/// After an error every further call fails.
pub struct SecureDeframer {
    opener: Opener,
    payload_len_max: u32,
    partial: Option<Box<Partial>>,
}

/// A frame that is not whole yet, or that was handed out by the last call.
#[derive(Default)]
struct Partial {
    /// None as long as `bytes` are those of a sealed header.
    header: Option<FrameHeader>,
    /// With a header: `opened_len` bytes of plaintext, then sealed bytes of the next chunk.
    bytes: Vec<u8>,
    opened_len: usize,
    /// The frame was handed out: the buffer is free with the next call.
    delivered: bool,
}

impl SecureDeframer {
    /// Begins after the handshake, with the limit for payloads in bytes.
    #[must_use]
    pub fn new(opener: Opener, payload_len_max: u32) -> Self {
        Self { opener, payload_len_max, partial: None }
    }

    /// Changes the limit; it holds from the next header on.
    pub fn set_payload_len_max(&mut self, payload_len_max: u32) {
        self.payload_len_max = payload_len_max;
    }

    /// Bytes held for an incomplete frame, or for the one handed out last.
    #[must_use]
    pub fn buffered_len(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.bytes.len())
    }

    /// Takes the next frame from `input`, which it moves past the bytes it has used. The payload lies in `input`'s
    /// bytes or in the deframer. `None` says that `input` is used up, to the last byte; so call it until then.
    ///
    /// # Errors
    /// [`DeframeError`], also for every call after the first that failed.
    pub fn next_frame<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<(FrameHeader, &'a [u8])>, DeframeError> {
        self.next_frame_with(input, &mut SpareBuffers::new(0))
    }

    /// As [`Self::next_frame`], with buffers that are taken from `spares` and go back there.
    ///
    /// # Errors
    /// [`DeframeError`], also for every call after the first that failed.
    pub fn next_frame_with<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
        spares: &mut SpareBuffers,
    ) -> Result<Option<(FrameHeader, &'a [u8])>, DeframeError> {
        self.opener.check()?;
        if self.partial.as_ref().is_some_and(|partial| partial.delivered) {
            self.release(spares);
        }
        if input.is_empty() {
            return Ok(None);
        }
        let header = if self.partial.is_none() && input.len() >= SEALED_HEADER_LEN {
            let (header, opening) = self.opener.open_frame(input, self.payload_len_max)?;
            self.check(header)?;
            let (_, rest) = mem::take(input).split_at_mut(SEALED_HEADER_LEN);
            *input = rest;
            if opening == Opening::Frame {
                let payload_len = header.payload_len as usize;
                let (payload, rest) = mem::take(input).split_at_mut(sealed_payload_len(payload_len));
                *input = rest;
                return Ok(Some((header, &payload[..payload_len])));
            }
            header
        } else {
            let Some(header) = self.gather_header(input, spares)? else { return Ok(None) };
            header
        };
        let sealed_len = sealed_payload_len(header.payload_len as usize);
        let nothing_gathered = self.partial.as_ref().is_none_or(|partial| partial.bytes.is_empty());
        if nothing_gathered && input.len() >= sealed_len {
            self.release(spares);
            let (payload, rest) = mem::take(input).split_at_mut(sealed_len);
            *input = rest;
            let len = self.opener.open_payload(payload)?;
            return Ok(Some((header, &payload[..len])));
        }
        let partial = self.partial.get_or_insert_with(|| spares.take());
        partial.header = Some(header);
        if !partial.gather_payload(&mut self.opener, header, input)? {
            return Ok(None);
        }
        partial.delivered = true;
        Ok(Some((header, &partial.bytes)))
    }

    /// The frames of received bytes, several of them opened at once where that is faster.
    pub fn frames<'d, 'i>(&'d mut self, input: &'i mut [u8]) -> Frames<'d, 'i> {
        Frames { deframer: self, input, ahead: 0, is_single: false }
    }

    /// The header of the frame that is incomplete: the one known already, or the one whose bytes begin or go on with the
    /// input. None if the input ends before.
    fn gather_header(
        &mut self,
        input: &mut &mut [u8],
        spares: &mut SpareBuffers,
    ) -> Result<Option<FrameHeader>, DeframeError> {
        let partial = self.partial.get_or_insert_with(|| spares.take());
        if let Some(header) = partial.header {
            return Ok(Some(header));
        }
        partial.gather(input, SEALED_HEADER_LEN, SEALED_HEADER_LEN);
        let Some(sealed) = partial.bytes.first_chunk_mut() else {
            return Ok(None);
        };
        let header = self.opener.open_header(sealed)?;
        partial.bytes.clear();
        partial.header = Some(header);
        self.check(header)?;
        Ok(Some(header))
    }

    /// Opens frames at the front of the input ahead of their turn; says how many.
    fn open_run(&mut self, input: &mut [u8], spares: &mut SpareBuffers) -> usize {
        if self.partial.as_ref().is_some_and(|partial| partial.delivered) {
            self.release(spares);
        }
        if self.partial.is_some() {
            return 0;
        }
        self.opener.open_run(input, self.payload_len_max)
    }

    fn check(&mut self, header: FrameHeader) -> Result<(), DeframeError> {
        if header.payload_len > self.payload_len_max {
            self.opener.poison();
            return Err(DeframeError::PayloadTooLong { header, payload_len_max: self.payload_len_max });
        }
        Ok(())
    }

    fn release(&mut self, spares: &mut SpareBuffers) {
        if let Some(partial) = self.partial.take() {
            spares.give(partial);
        }
    }
}

impl fmt::Debug for SecureDeframer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureDeframer")
            .field("payload_len_max", &self.payload_len_max)
            .field("buffered_len", &self.buffered_len())
            .finish_non_exhaustive()
    }
}

/// What received bytes hold: see [`SecureDeframer::frames`].
///
/// Frames are opened ahead of their turn, where they lie. So whoever drops this before the last of them drops frames, and the
/// opener is poisoned: what follows could not be trusted to follow.
pub struct Frames<'d, 'i> {
    deframer: &'d mut SecureDeframer,
    input: &'i mut [u8],
    /// How many frames at the front of the input are open.
    ahead: usize,
    /// The next frame begins no run that is worth it: that was tried.
    is_single: bool,
}

impl Frames<'_, '_> {
    /// The next frame. The payload lies in the received bytes or in the deframer. `None` says that the bytes are used up,
    /// to the last one. Buffers are taken from `spares` and go back there.
    ///
    /// # Errors
    /// [`DeframeError`], also for every call after the first that failed.
    pub fn next_frame(
        &mut self,
        spares: &mut SpareBuffers,
    ) -> Result<Option<(FrameHeader, &[u8])>, DeframeError> {
        if self.ahead == 0 && !mem::take(&mut self.is_single) {
            self.ahead = self.deframer.open_run(self.input, spares);
        }
        if self.ahead == 0 {
            return self.deframer.next_frame_with(&mut self.input, spares);
        }
        self.ahead -= 1;
        let (header, len) = opened_frame(self.input);
        let (frame, rest) = mem::take(&mut self.input).split_at_mut(len);
        self.input = rest;
        Ok(Some((header, &frame[SEALED_HEADER_LEN..][..header.payload_len as usize])))
    }

    /// Opens some dozens of frames ahead of their turn, as far as that is worth it and none is open yet, and shows those that
    /// it has opened: what [`Self::next_frame`] hands out next. Who handles frames can fetch what they need side by side.
    pub fn open_ahead(
        &mut self,
        spares: &mut SpareBuffers,
    ) -> impl Iterator<Item = (FrameHeader, &[u8])> + use<'_> {
        let mut opened_len = 0;
        let mut run = if self.ahead == 0 { self.deframer.open_run(self.input, spares) } else { 0 };
        while run > 0 {
            self.ahead += run;
            opened_len += (0..run).fold(0, |len, _| len + opened_frame(&self.input[opened_len + len..]).1);
            run = match self.ahead {
                AHEAD_MAX.. => 0,
                _ => self.deframer.open_run(&mut self.input[opened_len..], spares),
            };
        }
        self.is_single = self.ahead == 0;
        let mut opened = &self.input[..opened_len];
        core::iter::from_fn(move || {
            if opened.is_empty() {
                return None;
            }
            let (header, len) = opened_frame(opened);
            let (frame, rest) = opened.split_at(len);
            opened = rest;
            Some((header, &frame[SEALED_HEADER_LEN..][..header.payload_len as usize]))
        })
    }
}

/// The header of an open frame that lies where it was sealed, and how many bytes it takes there.
fn opened_frame(bytes: &[u8]) -> (FrameHeader, usize) {
    let header = FrameHeader::parse(bytes.first_chunk().expect("an open frame begins with its header"));
    (header, SEALED_HEADER_LEN + sealed_payload_len(header.payload_len as usize))
}

impl Drop for Frames<'_, '_> {
    fn drop(&mut self) {
        if self.ahead > 0 {
            self.deframer.opener.poison();
        }
    }
}

impl fmt::Debug for Frames<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("input_len", &self.input.len())
            .field("ahead", &self.ahead)
            .finish_non_exhaustive()
    }
}

impl Partial {
    /// Moves bytes from `input` until `bytes` has `wanted_len` of them. The buffer will never need more than `len_max`.
    fn gather(&mut self, input: &mut &mut [u8], wanted_len: usize, len_max: usize) {
        let taken_len = wanted_len.saturating_sub(self.bytes.len()).min(input.len());
        let (taken, rest) = mem::take(input).split_at_mut(taken_len);
        *input = rest;
        let len = self.bytes.len() + taken.len();
        if len > self.bytes.capacity() {
            let capacity = (2 * self.bytes.capacity()).max(CAPACITY_MIN).min(len_max).max(len);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(taken);
    }

    /// Moves payload from `input` and opens each chunk that becomes whole. Returns whether all of it is there.
    fn gather_payload(
        &mut self,
        opener: &mut Opener,
        header: FrameHeader,
        input: &mut &mut [u8],
    ) -> Result<bool, OpenError> {
        let payload_len = header.payload_len as usize;
        while self.opened_len < payload_len {
            let chunk_len = SEALED_CHUNK_LEN_MAX.min(payload_len - self.opened_len + TAG_LEN);
            let wanted_len = self.opened_len + chunk_len;
            self.gather(input, wanted_len, payload_len + TAG_LEN);
            if self.bytes.len() < wanted_len {
                return Ok(false);
            }
            self.opened_len += opener.open_chunk(&mut self.bytes[self.opened_len..])?;
            self.bytes.truncate(self.opened_len);
        }
        Ok(true)
    }
}

/// Buffers for incomplete frames that a shard's connections share, so that a busy shard need not allocate.
///
/// Bounds: at most `count_max` buffers of at most [`SPARE_CAPACITY_MAX`] bytes; others are freed.
pub struct SpareBuffers {
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is handed out")]
    buffers: Vec<Box<Partial>>,
    count_max: usize,
}

impl SpareBuffers {
    /// Keeps at most `count_max` buffers; 0 keeps none and allocates nothing.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self { buffers: Vec::with_capacity(count_max), count_max }
    }

    fn take(&mut self) -> Box<Partial> {
        self.buffers.pop().unwrap_or_default()
    }

    fn give(&mut self, mut partial: Box<Partial>) {
        if self.buffers.len() < self.count_max && partial.bytes.capacity() <= SPARE_CAPACITY_MAX {
            partial.bytes.clear();
            *partial = Partial { bytes: mem::take(&mut partial.bytes), ..Partial::default() };
            self.buffers.push(partial);
        }
    }
}

impl fmt::Debug for SpareBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpareBuffers")
            .field("count", &self.buffers.len())
            .field("count_max", &self.count_max)
            .finish()
    }
}
