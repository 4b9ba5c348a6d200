//! The specification's data types (spec 3.1): one marker type each, which says how its values are read, measured
//! and written.
//!
//! Reading takes from the front of a slice and yields views into it. A length that the peer states is compared with
//! the type's maximum, then with the bytes that are there, and never used to allocate. Integers are little-endian.
//! Writing goes through [`Writer`], which refuses to run over its slice instead of panicking.
//!
//! Sequences are in [`seq`](crate::seq).

use crate::error::{DecodeErrorKind, EncodeErrorKind};

/// A data type of the specification.
///
/// The table of messages is written in these types; protocol code sees only their values.
pub trait Wire {
    /// The Rust value: a number, or a view over the bytes of the frame.
    type Value<'a>: Copy;
    /// The name in the specification, e.g. `SEQ0_255[U256]`.
    const TYPE: WireType;
    /// Encoded bytes at least.
    const LEN_MIN: usize;
    /// Encoded bytes at most, saturating where a type could hold more than a frame.
    const LEN_MAX: usize;

    /// Takes one value from the front of `rest`.
    ///
    /// # Errors
    /// The bytes end too soon, or state a length or count over the type's maximum.
    fn read<'a>(rest: &mut &'a [u8]) -> Result<Self::Value<'a>, DecodeErrorKind>;

    /// Encoded bytes of a value.
    fn encoded_len(value: Self::Value<'_>) -> usize;

    /// Writes a value.
    ///
    /// # Errors
    /// The value is over the type's maximum, has a forbidden character, or does not fit the output.
    fn write(value: Self::Value<'_>, out: &mut Writer<'_>) -> Result<(), EncodeErrorKind>;
}

/// The data types by name, for tests, fuzzers and documentation that walk a message's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the specification's type of the same name")]
pub enum WireType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    F32,
    U256,
    Str0_255,
    /// STR0_255 that must not hold control characters (spec 3.5).
    ErrorCode,
    B0_32,
    B0_255,
    B0_64K,
    OptionU32,
    Seq0_255U256,
    Seq0_64KU256,
    Seq0_64KU16,
    Seq0_64KU32,
    Seq0_64KB0_16M,
}

/// The place where a message is written: a slice and how much of it is taken.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut [u8],
    written: usize,
}

impl<'o> Writer<'o> {
    /// Writes from the front of `out`.
    #[inline]
    pub const fn new(out: &'o mut [u8]) -> Self {
        Self { out, written: 0 }
    }

    /// Bytes written so far.
    #[inline]
    #[must_use]
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// They do not fit.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeErrorKind> {
        let needed = self.written + bytes.len();
        match self.out.get_mut(self.written..needed) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.written = needed;
                Ok(())
            }
            None => Err(EncodeErrorKind::BufferTooSmall { needed, have: self.out.len() }),
        }
    }
}

/// Takes `N` bytes from the front of `rest`.
#[inline(always)]
pub(crate) fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], DecodeErrorKind> {
    match rest.split_first_chunk::<N>() {
        Some((taken, after)) => {
            *rest = after;
            Ok(taken)
        }
        None => Err(DecodeErrorKind::Truncated { needed: N, left: rest.len() }),
    }
}

/// Takes `len` bytes from the front of `rest`.
#[inline(always)]
pub(crate) fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeErrorKind> {
    match rest.split_at_checked(len) {
        Some((taken, after)) => {
            *rest = after;
            Ok(taken)
        }
        None => Err(DecodeErrorKind::Truncated { needed: len, left: rest.len() }),
    }
}

/// Numbers: the value is the Rust number of the same size.
macro_rules! number {
    ($($(#[$doc:meta])* $marker:ident($number:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $marker {}

        impl Wire for $marker {
            type Value<'a> = $number;
            const TYPE: WireType = WireType::$marker;
            const LEN_MIN: usize = size_of::<$number>();
            const LEN_MAX: usize = size_of::<$number>();

            #[inline(always)]
            fn read(rest: &mut &[u8]) -> Result<$number, DecodeErrorKind> {
                Ok(<$number>::from_le_bytes(*take_array(rest)?))
            }

            #[inline(always)]
            fn encoded_len(_: $number) -> usize {
                size_of::<$number>()
            }

            #[inline(always)]
            fn write(value: $number, out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
                out.put(&value.to_le_bytes())
            }
        }
    )*};
}

number! {
    /// U8.
    U8(u8);
    /// U16, little-endian.
    U16(u16);
    /// U32, little-endian.
    U32(u32);
    /// U64, little-endian.
    U64(u64);
    /// F32: IEEE 754 single precision, little-endian. Any bits are read, also infinities and NaN: whether a hash
    /// rate makes sense is for the receiver to say, and to answer with an error message.
    F32(f32);
}

/// BOOL: one byte of which only bit 0 is read; the others are zero on sending (spec 3.1).
#[derive(Debug)]
pub enum Bool {}

impl Wire for Bool {
    type Value<'a> = bool;
    const TYPE: WireType = WireType::Bool;
    const LEN_MIN: usize = 1;
    const LEN_MAX: usize = 1;

    #[inline(always)]
    fn read(rest: &mut &[u8]) -> Result<bool, DecodeErrorKind> {
        Ok(take_array::<1>(rest)?[0] & 1 != 0)
    }

    #[inline(always)]
    fn encoded_len(_: bool) -> usize {
        1
    }

    #[inline(always)]
    fn write(value: bool, out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
        out.put(&[u8::from(value)])
    }
}

/// U256: 32 bytes, little-endian; the view is over the frame's own bytes.
#[derive(Debug)]
pub enum U256 {}

impl Wire for U256 {
    type Value<'a> = &'a [u8; 32];
    const TYPE: WireType = WireType::U256;
    const LEN_MIN: usize = 32;
    const LEN_MAX: usize = 32;

    #[inline(always)]
    fn read<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8; 32], DecodeErrorKind> {
        take_array(rest)
    }

    #[inline(always)]
    fn encoded_len(_: &[u8; 32]) -> usize {
        32
    }

    #[inline(always)]
    fn write(value: &[u8; 32], out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
        out.put(value)
    }
}

/// Byte arrays behind a length of `prefix` bytes.
macro_rules! byte_array {
    ($($(#[$doc:meta])* $marker:ident(prefix $prefix:literal, max $max:expr, check $check:expr);)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        #[allow(non_camel_case_types, reason = "the specification's name")]
        pub enum $marker {}

        impl Wire for $marker {
            type Value<'a> = &'a [u8];
            const TYPE: WireType = WireType::$marker;
            const LEN_MIN: usize = $prefix;
            const LEN_MAX: usize = $prefix + $max;

            #[inline(always)]
            fn read<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeErrorKind> {
                let len = read_length::<$prefix>(rest)?;
                if len > $max {
                    return Err(DecodeErrorKind::TooLong { len, max: $max });
                }
                take(rest, len)
            }

            #[inline(always)]
            fn encoded_len(value: &[u8]) -> usize {
                $prefix + value.len()
            }

            #[inline(always)]
            fn write(value: &[u8], out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
                $check(value)?;
                write_length::<$prefix>(value.len(), $max, out)?;
                out.put(value)
            }
        }
    )*};
}

byte_array! {
    /// STR0_255: bytes, by recommendation UTF-8, which nothing checks.
    Str0_255(prefix 1, max 255, check unchecked);
    /// STR0_255 that is an error or reason code: no control characters are sent (spec 3.5). Received ones come
    /// as they are; [`control_character`] finds what is wrong with them, `[u8]::escape_ascii` makes them safe to log.
    ErrorCode(prefix 1, max 255, check check_error_code);
    /// B0_32.
    B0_32(prefix 1, max 32, check unchecked);
    /// B0_255.
    B0_255(prefix 1, max 255, check unchecked);
    /// B0_64K.
    B0_64K(prefix 2, max 65_535, check unchecked);
}

/// `OPTION[U32]`, a sequence of at most one item.
#[derive(Debug)]
pub enum OptionU32 {}

impl Wire for OptionU32 {
    type Value<'a> = Option<u32>;
    const TYPE: WireType = WireType::OptionU32;
    const LEN_MIN: usize = 1;
    const LEN_MAX: usize = 5;

    #[inline(always)]
    fn read(rest: &mut &[u8]) -> Result<Option<u32>, DecodeErrorKind> {
        match take_array::<1>(rest)?[0] {
            0 => Ok(None),
            1 => Ok(Some(U32::read(rest)?)),
            count => Err(DecodeErrorKind::TooMany { count: usize::from(count), max: 1 }),
        }
    }

    #[inline(always)]
    fn encoded_len(value: Option<u32>) -> usize {
        if value.is_some() { 5 } else { 1 }
    }

    #[inline(always)]
    fn write(value: Option<u32>, out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
        match value {
            None => out.put(&[0]),
            Some(number) => {
                out.put(&[1])?;
                out.put(&number.to_le_bytes())
            }
        }
    }
}

/// Reads a length or count of `N` bytes (1, 2 or 3), little-endian.
#[inline(always)]
pub(crate) fn read_length<const N: usize>(rest: &mut &[u8]) -> Result<usize, DecodeErrorKind> {
    const { assert!(N <= 3, "lengths on the wire have at most 24 bits") };
    let bytes: &[u8; N] = take_array(rest)?;
    Ok(bytes.iter().rev().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
}

/// Writes a length or count of `N` bytes after comparing it with the type's maximum.
#[inline(always)]
pub(crate) fn write_length<const N: usize>(
    len: usize,
    max: usize,
    out: &mut Writer<'_>,
) -> Result<(), EncodeErrorKind> {
    const { assert!(N <= 3, "lengths on the wire have at most 24 bits") };
    if len > max {
        return Err(EncodeErrorKind::TooLong { len, max });
    }
    out.put(&len.to_le_bytes()[..N])
}

/// The position of the first control character of an error or reason code, if it has one (spec 3.5): C0 and DEL, and
/// C1 in its UTF-8 form. Printable ASCII is recommended beyond that.
#[must_use]
pub fn control_character(code: &[u8]) -> Option<usize> {
    code.iter().enumerate().position(|(at, byte)| {
        byte.is_ascii_control() || (*byte == 0xc2 && matches!(code.get(at + 1), Some(0x80..=0x9f)))
    })
}

fn check_error_code(code: &[u8]) -> Result<(), EncodeErrorKind> {
    match control_character(code) {
        Some(at) => Err(EncodeErrorKind::ControlCharacter { at }),
        None => Ok(()),
    }
}

#[inline(always)]
#[allow(clippy::unnecessary_wraps, reason = "stands where a check can stand")]
const fn unchecked(_: &[u8]) -> Result<(), EncodeErrorKind> {
    Ok(())
}
