//! The frame header (spec 3.2) and plaintext deframing in place.
//!
//! Every message is six header bytes and a payload of at most 2^24 - 1 bytes. The header's top
//! `extension_type` bit is `channel_msg`: the payload then begins with a `channel_id`.
//!
//! A receiver names the longest payload that it accepts. A frame that announces more is refused as soon as its
//! header is there: no peer can make a receiver wait for, or hold, more than that.

use crate::error::{DecodeError, DecodeErrorKind};
use crate::message::MessageKind;

/// Bytes of a frame header (spec 3.2).
pub const HEADER_LEN: usize = 6;

/// The largest payload that a U24 length can state.
pub const PAYLOAD_LEN_MAX: u32 = (1 << 24) - 1;

/// The bit of the wire's `extension_type` that is `channel_msg` (spec 3.2.1).
const CHANNEL_MSG_BIT: u16 = 0x8000;

/// A parsed frame header (spec 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The extension that defined the message, without the `channel_msg` bit; 0 is the core.
    pub extension_type: u16,
    /// Whether the payload begins with the `channel_id` it is meant for.
    pub channel_msg: bool,
    /// The message's number within its extension.
    pub msg_type: u8,
    /// Payload bytes that follow; at most [`PAYLOAD_LEN_MAX`].
    pub payload_len: u32,
}

impl FrameHeader {
    /// Reads a header. Every six bytes are a header, so this cannot fail; whether the length is
    /// acceptable is for the deframer to decide.
    #[inline]
    #[must_use]
    pub const fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let extension = u16::from_le_bytes([bytes[0], bytes[1]]);
        Self {
            extension_type: extension & !CHANNEL_MSG_BIT,
            channel_msg: extension & CHANNEL_MSG_BIT != 0,
            msg_type: bytes[2],
            payload_len: u32::from_le_bytes([bytes[3], bytes[4], bytes[5], 0]),
        }
    }

    /// The header as sent. `payload_len` must not exceed [`PAYLOAD_LEN_MAX`]: a larger one has no
    /// encoding, and encoding refuses it before it comes here.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        debug_assert!(self.payload_len <= PAYLOAD_LEN_MAX);
        let channel_bit = if self.channel_msg { CHANNEL_MSG_BIT } else { 0 };
        let extension = ((self.extension_type & !CHANNEL_MSG_BIT) | channel_bit).to_le_bytes();
        let len = self.payload_len.to_le_bytes();
        [extension[0], extension[1], self.msg_type, len[0], len[1], len[2]]
    }

    /// Compares the announced length with the longest payload that the receiver accepts.
    ///
    /// # Errors
    /// The payload is longer.
    #[inline]
    pub const fn check_len(self, payload_len_max: u32) -> Result<(), DecodeError> {
        if self.payload_len <= payload_len_max {
            return Ok(());
        }
        Err(DecodeError {
            message: MessageKind::from_header(self),
            field: "msg_length",
            kind: DecodeErrorKind::TooLong { len: self.payload_len as usize, max: payload_len_max as usize },
        })
    }

    /// Header and payload together, in bytes.
    #[inline]
    #[must_use]
    pub const fn frame_len(self) -> usize {
        HEADER_LEN + self.payload_len as usize
    }
}

/// A frame where it lies in the receiver's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// Its header.
    pub header: FrameHeader,
    /// Its payload, `header.payload_len` bytes.
    pub payload: &'b [u8],
}

/// Takes plaintext frames from a buffer of received bytes, where they lie.
///
/// ```
/// # use adit_codec::{encode_frame, frame::Deframer, message::{Message, Protocol, SetupConnectionSuccess}};
/// # let mut buffer = [0; 64];
/// # let success = SetupConnectionSuccess { used_version: 2, flags: 0 };
/// # let received = encode_frame(&success, &mut buffer)?;
/// let mut frames = Deframer::new(&buffer[..received], 65_536);
/// while let Some(frame) = frames.next_frame()? {
///     let decoded = Message::decode(frame.header, frame.payload, Protocol::Mining)?;
///     assert_eq!(decoded.message, success.into());
/// }
/// // What `frames.consumed()` does not count is the beginning of a frame: it stays for the next bytes.
/// assert_eq!(frames.consumed(), received);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Deframer<'b> {
    received: &'b [u8],
    /// Bytes of `received` that were given out as frames; never more than there are.
    consumed: usize,
    payload_len_max: u32,
}

impl<'b> Deframer<'b> {
    /// Reads frames from the front of `received`, none with a payload over `payload_len_max` bytes.
    #[must_use]
    pub const fn new(received: &'b [u8], payload_len_max: u32) -> Self {
        Self { received, consumed: 0, payload_len_max }
    }

    /// The next frame, or `None` until more bytes come.
    ///
    /// # Errors
    /// The header announces a payload over the maximum. The error stays: the stream cannot go on.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'b>>, DecodeError> {
        let left = self.left();
        let Some((header, behind)) = left.split_first_chunk() else { return Ok(None) };
        let header = FrameHeader::parse(header);
        header.check_len(self.payload_len_max)?;
        let Some(payload) = behind.get(..header.payload_len as usize) else { return Ok(None) };
        self.consumed += header.frame_len();
        Ok(Some(Frame { header, payload }))
    }

    /// Bytes that were given out as frames so far.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.consumed
    }

    /// Bytes that must be there, counted from [`consumed`](Self::consumed), before there is another frame: a header,
    /// and once that is there, the whole frame.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.left().first_chunk().map_or(HEADER_LEN, |header| FrameHeader::parse(header).frame_len())
    }

    fn left(&self) -> &'b [u8] {
        self.received.get(self.consumed..).unwrap_or_default()
    }
}
