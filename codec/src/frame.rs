//! The frame header (spec 3.2) and plaintext deframing in place.
//!
//! Every message is six header bytes and a payload of at most 2^24 - 1 bytes. The header's top
//! `extension_type` bit is `channel_msg`: the payload then begins with a `channel_id`.

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

    /// Header and payload together, in bytes.
    #[inline]
    #[must_use]
    pub const fn frame_len(self) -> usize {
        HEADER_LEN + self.payload_len as usize
    }
}
