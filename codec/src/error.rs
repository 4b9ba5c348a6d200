//! What can be wrong with received bytes ([`DecodeError`]) and with a message to send ([`EncodeError`]).
//!
//! The first is a peer's fault, the second our own. Both name the message and the field, hold no bytes of the
//! peer's and allocate nothing.

use core::fmt;

use crate::message::{MessageKind, Protocol};

/// Why received bytes are no acceptable message: which message, which field, what about it.
///
/// Displayed as `SubmitSharesExtended.extranonce: 33 bytes, at most 32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The message, or `None` where the frame header names none that is known.
    pub message: Option<MessageKind>,
    /// The field, by the specification's name in snake case; header fields are `extension_type`, `msg_type` and
    /// `msg_length`.
    pub field: &'static str,
    /// What is wrong with the field.
    pub kind: DecodeErrorKind,
}

/// What is wrong with a received field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The payload ends inside the field.
    Truncated {
        /// Bytes that the part being read takes.
        needed: usize,
        /// Bytes that are left of the payload.
        left: usize,
    },
    /// The field states a length over its type's maximum, or a frame over the receiver's.
    TooLong {
        /// The stated length in bytes.
        len: usize,
        /// The maximum in bytes.
        max: usize,
    },
    /// The field states more items than its type allows (only OPTION can).
    TooMany {
        /// The stated count.
        count: usize,
        /// The maximum count.
        max: usize,
    },
    /// No message of this number is defined in the extension.
    UnknownMessage {
        /// The frame's extension.
        extension_type: u16,
        /// The frame's message number.
        msg_type: u8,
    },
    /// The extension is not known. Such frames are to be ignored (spec 3.4.1).
    UnknownExtension {
        /// The frame's extension.
        extension_type: u16,
    },
    /// The message belongs to another protocol than the connection's.
    OtherProtocol {
        /// The connection's protocol.
        expected: Protocol,
    },
}

impl DecodeError {
    /// An error in a field of a known message.
    #[cold]
    #[inline(never)]
    pub(crate) const fn in_field(message: MessageKind, field: &'static str, kind: DecodeErrorKind) -> Self {
        Self { message: Some(message), field, kind }
    }

    /// Whether the frame is to be dropped without a word, the connection going on: the specification demands it
    /// for extensions that the receiver does not know (spec 3.4.1). Everything else is the peer's fault.
    #[must_use]
    pub const fn is_ignorable(&self) -> bool {
        matches!(self.kind, DecodeErrorKind::UnknownExtension { .. })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}: {}", self.message.map_or("frame", MessageKind::name), self.field, self.kind)
    }
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, left } => write!(f, "{needed} bytes needed, {left} left"),
            Self::TooLong { len, max } => write!(f, "{len} bytes, at most {max}"),
            Self::TooMany { count, max } => write!(f, "{count} items, at most {max}"),
            Self::UnknownMessage { extension_type, msg_type } => {
                write!(f, "no message 0x{msg_type:02x} in extension 0x{extension_type:04x}")
            }
            Self::UnknownExtension { extension_type } => {
                write!(f, "unknown extension 0x{extension_type:04x}")
            }
            Self::OtherProtocol { expected } => {
                write!(f, "not a message of the {expected} protocol, which this connection speaks")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// Why a message of our own cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError {
    /// The message.
    pub message: MessageKind,
    /// The field, or `msg_length` where the whole message is concerned.
    pub field: &'static str,
    /// What is wrong with the field.
    pub kind: EncodeErrorKind,
}

/// What is wrong with a field to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeErrorKind {
    /// More bytes, or items, than the field's type can carry.
    TooLong {
        /// Bytes or items given.
        len: usize,
        /// Bytes or items allowed.
        max: usize,
    },
    /// The output is too small; nothing useful was written.
    BufferTooSmall {
        /// Bytes that the message takes.
        needed: usize,
        /// Bytes that were given.
        have: usize,
    },
    /// An error or reason code holds a control character (spec 3.5).
    ControlCharacter {
        /// Where in the code, in bytes.
        at: usize,
    },
}

impl EncodeError {
    /// An error in a field of a message.
    #[cold]
    #[inline(never)]
    pub(crate) const fn in_field(message: MessageKind, field: &'static str, kind: EncodeErrorKind) -> Self {
        Self { message, field, kind }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}: {}", self.message.name(), self.field, self.kind)
    }
}

impl fmt::Display for EncodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, max } => write!(f, "length {len}, at most {max}"),
            Self::BufferTooSmall { needed, have } => {
                write!(f, "{needed} bytes needed, the output has {have}")
            }
            Self::ControlCharacter { at } => write!(f, "control character at byte {at}"),
        }
    }
}

impl core::error::Error for EncodeError {}
