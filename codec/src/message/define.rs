//! The macros behind the table: each row of [`table`](super::table) becomes a struct that can be read and written, a
//! [`MessageKind`](super::MessageKind) and a variant of [`Message`](super::Message).

/// The marker type of a data type in the specification's notation.
#[rustfmt::skip]
macro_rules! marker {
    (BOOL) => { $crate::wire::Bool };
    (U8) => { $crate::wire::U8 };
    (U16) => { $crate::wire::U16 };
    (U32) => { $crate::wire::U32 };
    (U64) => { $crate::wire::U64 };
    (F32) => { $crate::wire::F32 };
    (U256) => { $crate::wire::U256 };
    (STR0_255) => { $crate::wire::Str0_255 };
    (ERROR_CODE) => { $crate::wire::ErrorCode };
    (B0_32) => { $crate::wire::B0_32 };
    (B0_255) => { $crate::wire::B0_255 };
    (B0_64K) => { $crate::wire::B0_64K };
    (OPTION[U32]) => { $crate::wire::OptionU32 };
    (SEQ0_255[U256]) => { $crate::seq::Seq0_255U256 };
    (SEQ0_64K[U256]) => { $crate::seq::Seq0_64KU256 };
    (SEQ0_64K[U16]) => { $crate::seq::Seq0_64KU16 };
    (SEQ0_64K[U32]) => { $crate::seq::Seq0_64KU32 };
    (SEQ0_64K[B0_16M]) => { $crate::seq::Seq0_64KB0_16M };
}

/// The Rust type of a data type's values; `'a` is the frame's lifetime.
#[rustfmt::skip]
macro_rules! value {
    (BOOL) => { bool };
    (U8) => { u8 };
    (U16) => { u16 };
    (U32) => { u32 };
    (U64) => { u64 };
    (F32) => { f32 };
    (U256) => { &'a [u8; 32] };
    (STR0_255) => { &'a [u8] };
    (ERROR_CODE) => { &'a [u8] };
    (B0_32) => { &'a [u8] };
    (B0_255) => { &'a [u8] };
    (B0_64K) => { &'a [u8] };
    (OPTION[U32]) => { Option<u32> };
    (SEQ0_255[U256]) => { $crate::seq::Seq<'a, [u8; 32]> };
    (SEQ0_64K[U256]) => { $crate::seq::Seq<'a, [u8; 32]> };
    (SEQ0_64K[U16]) => { $crate::seq::Seq<'a, u16> };
    (SEQ0_64K[U32]) => { $crate::seq::Seq<'a, u32> };
    (SEQ0_64K[B0_16M]) => { $crate::seq::SeqBytes<'a> };
}

/// Defines the messages; the table says how a row is written.
macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $extension:literal $msg_type:literal $name:literal $protocol:ident $direction:ident $channel_msg:ident
        $kind:ident $(<$lifetime:lifetime>)?
        { $( $(#[$field_doc:meta])* $field:ident: $wire:ident $([$item:ident])?, )* }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq)]
            pub struct $kind $(<$lifetime>)? {
                $( $(#[$field_doc])* pub $field: value!($wire $([$item])?), )*
            }

            impl $(<$lifetime>)? $kind $(<$lifetime>)? {
                /// Payload bytes at least.
                pub const LEN_MIN: usize = 0 $(+ <marker!($wire $([$item])?) as Wire>::LEN_MIN)*;
                /// Payload bytes at most, without trailing fields.
                pub const LEN_MAX: usize = at_most_a_frame(0 $(+ <marker!($wire $([$item])?) as Wire>::LEN_MAX)*);
            }

            impl<'a> Decode<'a> for $kind $(<$lifetime>)? {
                #[inline]
                fn read(payload: &'a [u8]) -> Option<(Self, &'a [u8])> {
                    // One comparison proves the bounds of the fields in front.
                    if payload.len() < Self::LEN_MIN {
                        return None;
                    }
                    let mut rest = payload;
                    $( let $field = <marker!($wire $([$item])?) as Wire>::read(&mut rest).ok()?; )*
                    Some((Self { $($field),* }, rest))
                }

                #[cold]
                #[inline(never)]
                fn fault(payload: &'a [u8]) -> DecodeError {
                    let mut rest = payload;
                    $(
                        if let Err(kind) = <marker!($wire $([$item])?) as Wire>::read(&mut rest) {
                            return DecodeError::in_field(MessageKind::$kind, stringify!($field), kind);
                        }
                    )*
                    // Not reached where `read` found nothing.
                    let kind = DecodeErrorKind::Truncated { needed: Self::LEN_MIN, left: payload.len() };
                    DecodeError::in_field(MessageKind::$kind, "msg_length", kind)
                }
            }

            impl $(<$lifetime>)? Encode for $kind $(<$lifetime>)? {
                const KIND: MessageKind = MessageKind::$kind;

                #[inline]
                fn encoded_len(&self) -> usize {
                    0 $(+ <marker!($wire $([$item])?) as Wire>::encoded_len(self.$field))*
                }

                #[inline]
                fn encode_into(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                    let needed = self.encoded_len();
                    let have = out.len();
                    let Some(out) = out.get_mut(..needed) else {
                        let kind = EncodeErrorKind::BufferTooSmall { needed, have };
                        return Err(EncodeError::in_field(Self::KIND, "msg_length", kind));
                    };
                    let mut writer = Writer::new(out);
                    $(
                        if let Err(kind) = <marker!($wire $([$item])?) as Wire>::write(self.$field, &mut writer) {
                            return Err(EncodeError::in_field(Self::KIND, stringify!($field), kind));
                        }
                    )*
                    Ok(writer.written())
                }
            }

            impl<'a> From<$kind $(<$lifetime>)?> for Message<'a> {
                #[inline]
                fn from(message: $kind $(<$lifetime>)?) -> Self {
                    Self::$kind(message)
                }
            }
        )*

        /// Every message by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum MessageKind {
            $( $(#[$doc])* $kind, )*
        }

        impl MessageKind {
            /// Every message, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The message of an extension and number.
            #[inline]
            #[must_use]
            pub const fn from_wire(extension_type: u16, msg_type: u8) -> Option<Self> {
                match (extension_type, msg_type) {
                    $( ($extension, $msg_type) => Some(Self::$kind), )*
                    _ => None,
                }
            }

            /// What the table says about the message.
            #[must_use]
            pub const fn row(self) -> &'static Row {
                match self {
                    $( Self::$kind => &Row {
                        name: $name,
                        extension_type: $extension,
                        msg_type: $msg_type,
                        protocol: protocol!($protocol),
                        direction: Direction::$direction,
                        channel_msg: channel_msg!($channel_msg),
                        len_min: $kind::LEN_MIN,
                        len_max: $kind::LEN_MAX,
                        fields: &[$(Field {
                            name: stringify!($field),
                            wire_type: <marker!($wire $([$item])?) as Wire>::TYPE,
                        }),*],
                    }, )*
                }
            }
        }

        /// A message of any kind, as views over a frame's payload.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Message<'a> {
            $( $(#[$doc])* $kind($kind $(<$lifetime>)?), )*
        }

        impl<'a> Message<'a> {
            /// The message's name.
            #[inline]
            #[must_use]
            pub const fn kind(&self) -> MessageKind {
                match self { $( Self::$kind(_) => MessageKind::$kind, )* }
            }

            /// Reads the payload of a message of a known kind; [`Message::decode`] finds the kind.
            ///
            /// # Errors
            /// A field is cut off or over its maximum.
            #[inline]
            pub fn decode_kind(kind: MessageKind, payload: &'a [u8]) -> Result<Decoded<'a>, DecodeError> {
                match kind {
                    $( MessageKind::$kind => Self::decode_as::<$kind $(<$lifetime>)?>(payload), )*
                }
            }

            /// Payload bytes.
            #[must_use]
            pub fn encoded_len(&self) -> usize {
                match self { $( Self::$kind(message) => message.encoded_len(), )* }
            }

            /// Writes the payload to the front of `out` and returns its length.
            ///
            /// # Errors
            /// As [`Encode::encode_into`].
            pub fn encode_into(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                match self { $( Self::$kind(message) => message.encode_into(out), )* }
            }

            /// Writes header and payload to the front of `out` and returns their length.
            ///
            /// # Errors
            /// As [`encode_frame`].
            pub fn encode_frame(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
                match self { $( Self::$kind(message) => encode_frame(message, out), )* }
            }
        }
    };
}

/// The protocol of a row; `All` stands for messages that every protocol has.
#[rustfmt::skip]
macro_rules! protocol {
    (All) => { None };
    ($protocol:ident) => { Some(Protocol::$protocol) };
}

/// The channel bit of a row.
#[rustfmt::skip]
macro_rules! channel_msg {
    (channel) => { true };
    (connection) => { false };
}
