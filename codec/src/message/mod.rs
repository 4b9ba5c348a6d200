//! Every message of the specification, from one table (spec 3.6, 5.3, 6.4, 7, 8, extension 0x0001).
//!
//! A received message is a struct of numbers and of views over the frame's payload: nothing is copied but numbers, and
//! nothing allocated. The same structs are filled to send, borrowing what is to be written.
//!
//! Decoding is strict about lengths and lenient where the specification wants room to grow:
//! - bytes after the last field are handed back untouched ([`Decoded::trailing`]), for [`tlv`](crate::tlv) or for
//!   nobody;
//! - a `channel_msg` bit that is wrong for a known message is not looked at: the number already says what the message
//!   is, and the channel id is a field of its own. Frames are sent with the right one;
//! - a frame of an unknown extension gives an error for which [`DecodeError::is_ignorable`] holds;
//! - strings are bytes, hash rates any bits, and values are not judged.
//!
//! Decoding costs time linear in the payload at most (one pass over the items of `SEQ0_64K[B0_16M]`), for all other
//! messages constant time.

#[macro_use]
mod define;
pub mod flags;
mod table;

use core::fmt;

pub use table::*;

use crate::error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
use crate::frame::{FrameHeader, HEADER_LEN, PAYLOAD_LEN_MAX};
use crate::wire::WireType;

/// The (sub)protocols, one of which a connection speaks (spec 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// Mining Protocol (spec 5).
    Mining = 0,
    /// Job Declaration Protocol (spec 6).
    JobDeclaration = 1,
    /// Template Distribution Protocol (spec 7).
    TemplateDistribution = 2,
}

impl Protocol {
    /// The protocol of [`SetupConnection::protocol`], if it is a known one.
    #[must_use]
    pub const fn from_wire(protocol: u8) -> Option<Self> {
        match protocol {
            0 => Some(Self::Mining),
            1 => Some(Self::JobDeclaration),
            2 => Some(Self::TemplateDistribution),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mining => "Mining",
            Self::JobDeclaration => "Job Declaration",
            Self::TemplateDistribution => "Template Distribution",
        })
    }
}

/// Who a message is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to server.
    Server,
    /// Server to client.
    Client,
    /// Both ways.
    Either,
}

/// What the table says about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name in the specification, e.g. `OpenStandardMiningChannel.Success`.
    pub name: &'static str,
    /// The extension that defines it; 0 is the core.
    pub extension_type: u16,
    /// Its number within the extension.
    pub msg_type: u8,
    /// Its protocol, or `None` if every protocol has it.
    pub protocol: Option<Protocol>,
    /// Who it is sent to.
    pub direction: Direction,
    /// Whether it is sent with the `channel_msg` bit (spec 8).
    pub channel_msg: bool,
    /// Payload bytes at least.
    pub len_min: usize,
    /// Payload bytes at most, without trailing fields.
    pub len_max: usize,
    /// Its fields in wire order.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in the specification, in snake case.
    pub name: &'static str,
    /// Type in the specification.
    pub wire_type: WireType,
}

impl MessageKind {
    /// The message that a header announces, if it is known.
    #[inline]
    #[must_use]
    pub const fn from_header(header: FrameHeader) -> Option<Self> {
        Self::from_wire(header.extension_type, header.msg_type)
    }

    /// Name in the specification, e.g. `OpenStandardMiningChannel.Success`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The protocol, or `None` if every protocol has it.
    #[inline]
    #[must_use]
    pub const fn protocol(self) -> Option<Protocol> {
        self.row().protocol
    }

    /// The header of a frame with this message; `payload_len` is at most [`PAYLOAD_LEN_MAX`].
    #[inline]
    #[must_use]
    pub const fn header(self, payload_len: u32) -> FrameHeader {
        let row = self.row();
        FrameHeader {
            extension_type: row.extension_type,
            channel_msg: row.channel_msg,
            msg_type: row.msg_type,
            payload_len,
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A message that can be read from a payload.
pub trait Decode<'a>: Encode + Sized {
    /// Reads the message and returns it with the bytes after its last field.
    ///
    /// # Errors
    /// A field is cut off or over its maximum.
    #[inline]
    fn decode(payload: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        match Self::read(payload) {
            Some(read) => Ok(read),
            None => Err(Self::fault(payload)),
        }
    }

    /// What [`decode`](Self::decode) gives, without the reason: an error carried through every field (48 bytes)
    /// would keep the message in memory, with a stalled load where two 8-byte stores are read as 16 bytes.
    #[doc(hidden)]
    fn read(payload: &'a [u8]) -> Option<(Self, &'a [u8])>;

    /// Why `read` finds nothing: walks the fields once more, out of line.
    #[doc(hidden)]
    fn fault(payload: &'a [u8]) -> DecodeError;
}

/// A message that can be written.
pub trait Encode {
    /// Which message it is.
    const KIND: MessageKind;

    /// Payload bytes.
    fn encoded_len(&self) -> usize;

    /// Writes the payload to the front of `out` and returns its length.
    ///
    /// # Errors
    /// A field is over its type's maximum, a code has a control character, or `out` is too small. `out` may then
    /// hold a part of the message.
    fn encode_into(&self, out: &mut [u8]) -> Result<usize, EncodeError>;
}

/// A message and what follows it in its payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decoded<'a> {
    /// The message.
    pub message: Message<'a>,
    /// Bytes after the last field: TLVs of negotiated extensions, or to be ignored.
    pub trailing: &'a [u8],
}

impl<'a> Message<'a> {
    /// Decodes a frame's payload; `protocol` is the connection's.
    ///
    /// The length in the header is not looked at: `payload` is what the frame holds. Trailing bytes come back
    /// untouched.
    ///
    /// Shares are nearly all that a pool receives. They are decoded where this is called, so that the compiler sees
    /// through the enum and keeps their fields in registers; all else is decoded out of line.
    ///
    /// # Errors
    /// The extension or message is unknown, the message is of another protocol, or a field is cut off or over its
    /// maximum.
    #[inline(always)]
    pub fn decode(
        header: FrameHeader,
        payload: &'a [u8],
        protocol: Protocol,
    ) -> Result<Decoded<'a>, DecodeError> {
        if let (0, Protocol::Mining) = (header.extension_type, protocol) {
            const STANDARD: u8 = MessageKind::SubmitSharesStandard.row().msg_type;
            const EXTENDED: u8 = MessageKind::SubmitSharesExtended.row().msg_type;
            match header.msg_type {
                STANDARD => return Self::decode_as::<SubmitSharesStandard>(payload),
                EXTENDED => return Self::decode_as::<SubmitSharesExtended<'a>>(payload),
                _ => {}
            }
        }
        Self::decode_any(header, payload, protocol)
    }

    /// Decodes a message of a type.
    #[inline(always)]
    fn decode_as<M: Decode<'a> + Into<Self>>(payload: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
        match M::read(payload) {
            Some((message, trailing)) => Ok(Decoded { message: message.into(), trailing }),
            None => Err(M::fault(payload)),
        }
    }

    /// Decodes a message of any kind.
    #[inline(never)]
    fn decode_any(
        header: FrameHeader,
        payload: &'a [u8],
        protocol: Protocol,
    ) -> Result<Decoded<'a>, DecodeError> {
        let Some(kind) = MessageKind::from_header(header) else {
            return Err(unknown(header));
        };
        if kind.protocol().is_some_and(|own| own != protocol) {
            let other = DecodeErrorKind::OtherProtocol { expected: protocol };
            return Err(DecodeError::in_field(kind, "msg_type", other));
        }
        Self::decode_kind(kind, payload)
    }
}

/// The error for a header that announces no known message.
#[cold]
fn unknown(header: FrameHeader) -> DecodeError {
    let FrameHeader { extension_type, msg_type, .. } = header;
    if MessageKind::ALL.iter().any(|kind| kind.row().extension_type == extension_type) {
        let kind = DecodeErrorKind::UnknownMessage { extension_type, msg_type };
        DecodeError { message: None, field: "msg_type", kind }
    } else {
        let kind = DecodeErrorKind::UnknownExtension { extension_type };
        DecodeError { message: None, field: "extension_type", kind }
    }
}

/// Bytes of the frame of a message: header and payload.
#[inline]
#[must_use]
pub fn frame_len<M: Encode>(message: &M) -> usize {
    HEADER_LEN + message.encoded_len()
}

/// Writes a frame, header and payload, to the front of `out` and returns its length.
///
/// # Errors
/// As [`Encode::encode_into`], and if the payload is over [`PAYLOAD_LEN_MAX`].
#[inline]
pub fn encode_frame<M: Encode>(message: &M, out: &mut [u8]) -> Result<usize, EncodeError> {
    encode_frame_with_trailing(message, &[], out)
}

/// Writes a frame whose payload is a message and, after it, fields of extensions (see [`tlv`](crate::tlv)), and
/// returns its length.
///
/// # Errors
/// As [`encode_frame`].
#[inline]
pub fn encode_frame_with_trailing<M: Encode>(
    message: &M,
    trailing: &[u8],
    out: &mut [u8],
) -> Result<usize, EncodeError> {
    let payload_len = message.encoded_len() + trailing.len();
    let have = out.len();
    let header = match u32::try_from(payload_len) {
        Ok(len) if len <= PAYLOAD_LEN_MAX => M::KIND.header(len),
        _ => {
            let kind = EncodeErrorKind::TooLong { len: payload_len, max: PAYLOAD_LEN_MAX as usize };
            return Err(EncodeError::in_field(M::KIND, "msg_length", kind));
        }
    };
    let needed = HEADER_LEN + payload_len;
    match out.get_mut(..needed).and_then(|frame| frame.split_first_chunk_mut::<HEADER_LEN>()) {
        Some((head, payload)) => {
            let (body, tail) = payload.split_at_mut(payload_len - trailing.len());
            message.encode_into(body)?;
            tail.copy_from_slice(trailing);
            *head = header.to_bytes();
            Ok(needed)
        }
        None => {
            let kind = EncodeErrorKind::BufferTooSmall { needed, have };
            Err(EncodeError::in_field(M::KIND, "msg_length", kind))
        }
    }
}

/// A maximum of a message, capped by what a frame can hold.
const fn at_most_a_frame(len: usize) -> usize {
    if len > PAYLOAD_LEN_MAX as usize { PAYLOAD_LEN_MAX as usize } else { len }
}
