//! Fields that extensions add to the end of messages: type, length, value (spec 3.4.3), and the one field of extension
//! 0x0002, Worker-Specific Hashrate Tracking.
//!
//! A field is `extension_type` (U16), `field_type` (U8), length (U16) and value. The specification demands
//! little-endian numbers (3.1) but prints big-endian examples, so both are found in the field. Little-endian is what is
//! written. Both are read: an `extension_type` that was negotiated says by itself which order its field has.
//!
//! What was not negotiated is ignored, whatever it holds, also if it is no TLV at all. A negotiated field that is cut
//! off or over its maximum rejects the message. The order of fields does not matter (extension 0x0002, 1.3). Reading is
//! bounded by the trailing bytes: each step takes five of them at least.

use crate::error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
use crate::message::MessageKind;
use crate::wire::{Writer, write_length};

/// Extensions Negotiation.
pub const EXTENSIONS_NEGOTIATION: u16 = 0x0001;
/// Worker-Specific Hashrate Tracking.
pub const WORKER_HASHRATE_TRACKING: u16 = 0x0002;

/// `user_identity` of extension 0x0002.
pub const USER_IDENTITY_FIELD: u8 = 0x01;
/// Most bytes of a `user_identity` (extension 0x0002, 1.1).
pub const USER_IDENTITY_LEN_MAX: usize = 32;

/// Bytes before a value.
pub const TLV_HEADER_LEN: usize = 5;

/// A field of a negotiated extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// The extension.
    pub extension_type: u16,
    /// The field's number within the extension.
    pub field_type: u8,
    /// The value; whether its length is allowed is for the extension to say.
    pub value: &'a [u8],
}

/// The fields of negotiated extensions among a message's trailing bytes.
///
/// After an error, and after bytes that cannot be a field, there is nothing more.
#[derive(Clone, Debug)]
pub struct Tlvs<'a, 'n> {
    rest: &'a [u8],
    negotiated: &'n [u16],
    message: Option<MessageKind>,
}

impl<'a, 'n> Tlvs<'a, 'n> {
    /// Looks for fields of the extensions `negotiated` in the bytes after a message's last field.
    #[must_use]
    pub const fn new(trailing: &'a [u8], negotiated: &'n [u16]) -> Self {
        Self { rest: trailing, negotiated, message: None }
    }

    /// Names the message in errors.
    #[must_use]
    pub const fn of(self, message: MessageKind) -> Self {
        Self { message: Some(message), ..self }
    }
}

impl<'a> Iterator for Tlvs<'a, '_> {
    type Item = Result<Tlv<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        // Each turn takes a header, so that the loop ends with the bytes.
        while let Some((header, behind)) = self.rest.split_first_chunk::<TLV_HEADER_LEN>() {
            let [e0, e1, field_type, l0, l1] = *header;
            let orders = [
                (u16::from_le_bytes([e0, e1]), usize::from(u16::from_le_bytes([l0, l1]))),
                (u16::from_be_bytes([e0, e1]), usize::from(u16::from_be_bytes([l0, l1]))),
            ];
            let mut negotiated = orders
                .iter()
                .filter(|(extension_type, _)| self.negotiated.contains(extension_type))
                .peekable();
            let Some(&&(_, len)) = negotiated.peek() else {
                // Not ours; its length is good for nothing but finding the next field, in the order that fits.
                let after = orders.iter().find_map(|(_, len)| behind.get(*len..));
                self.rest = after.unwrap_or_default();
                continue;
            };
            let whole = negotiated
                .find_map(|&(extension_type, len)| Some((extension_type, behind.split_at_checked(len)?)));
            let Some((extension_type, (value, after))) = whole else {
                self.rest = &[];
                let kind = DecodeErrorKind::Truncated { needed: len, left: behind.len() };
                return Some(Err(DecodeError { message: self.message, field: "tlv", kind }));
            };
            self.rest = after;
            return Some(Ok(Tlv { extension_type, field_type, value }));
        }
        None
    }
}

/// The worker's name in the bytes after a SubmitSharesExtended (extension 0x0002), if the extension was negotiated and
/// the field is there. Of several the first counts.
///
/// # Errors
/// The field is cut off or over [`USER_IDENTITY_LEN_MAX`] bytes.
#[inline]
pub fn user_identity(trailing: &[u8], negotiated: bool) -> Result<Option<&[u8]>, DecodeError> {
    if !negotiated || trailing.is_empty() {
        return Ok(None);
    }
    find_user_identity(trailing)
}

fn find_user_identity(trailing: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    for tlv in Tlvs::new(trailing, &[WORKER_HASHRATE_TRACKING]).of(MessageKind::SubmitSharesExtended) {
        let tlv = tlv?;
        if tlv.field_type != USER_IDENTITY_FIELD {
            continue;
        }
        let len = tlv.value.len();
        if len > USER_IDENTITY_LEN_MAX {
            let kind = DecodeErrorKind::TooLong { len, max: USER_IDENTITY_LEN_MAX };
            return Err(DecodeError::in_field(MessageKind::SubmitSharesExtended, "user_identity", kind));
        }
        return Ok(Some(tlv.value));
    }
    Ok(None)
}

/// Writes a field to the front of `out` and returns its length. `message` is the one that the field will follow.
///
/// # Errors
/// The value is over 65,535 bytes, or `out` is too small.
pub fn encode_tlv(message: MessageKind, tlv: Tlv<'_>, out: &mut [u8]) -> Result<usize, EncodeError> {
    let mut writer = Writer::new(out);
    let mut write = || {
        writer.put(&tlv.extension_type.to_le_bytes())?;
        writer.put(&[tlv.field_type])?;
        write_length::<2>(tlv.value.len(), usize::from(u16::MAX), &mut writer)?;
        writer.put(tlv.value)
    };
    match write() {
        Ok(()) => Ok(writer.written()),
        Err(kind) => Err(EncodeError::in_field(message, "tlv", kind)),
    }
}

/// Writes the worker's name (extension 0x0002), to go after a SubmitSharesExtended, and returns its length.
///
/// # Errors
/// The name is over [`USER_IDENTITY_LEN_MAX`] bytes, or `out` is too small.
pub fn encode_user_identity(value: &[u8], out: &mut [u8]) -> Result<usize, EncodeError> {
    let message = MessageKind::SubmitSharesExtended;
    if value.len() > USER_IDENTITY_LEN_MAX {
        let kind = EncodeErrorKind::TooLong { len: value.len(), max: USER_IDENTITY_LEN_MAX };
        return Err(EncodeError::in_field(message, "user_identity", kind));
    }
    let tlv = Tlv { extension_type: WORKER_HASHRATE_TRACKING, field_type: USER_IDENTITY_FIELD, value };
    encode_tlv(message, tlv, out)
}
