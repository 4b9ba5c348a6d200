//! Sequences (spec 3.1): views over many items, made from a frame's bytes or from a slice of our own.
//!
//! Neither reading nor building one allocates. A received sequence is checked when its message is decoded (a sequence
//! of byte arrays is walked once for that), so iterating cannot fail. The count that a peer states bounds nothing by
//! itself: items must be there in bytes.

use core::fmt;

use crate::error::{DecodeErrorKind, EncodeErrorKind};
use crate::wire::{Wire, WireType, Writer, read_length, take, write_length};

/// An item of fixed size: `u16`, `u32` or `[u8; 32]`.
pub trait SeqItem: Copy + PartialEq + fmt::Debug + sealed::Sealed {
    /// Encoded bytes.
    const LEN: usize;

    /// Reads an item from its `LEN` bytes; other lengths give no item.
    #[doc(hidden)]
    fn from_wire(bytes: &[u8]) -> Option<Self>;

    /// The items where they lie, for types whose bytes are their value.
    #[doc(hidden)]
    fn in_place(bytes: &[u8]) -> Option<&[Self]>;

    /// Appends items.
    #[doc(hidden)]
    fn write_all(items: &[Self], out: &mut Writer<'_>) -> Result<(), EncodeErrorKind>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for [u8; 32] {}
}

macro_rules! integer_item {
    ($($integer:ty)*) => {$(
        impl SeqItem for $integer {
            const LEN: usize = size_of::<$integer>();

            #[inline]
            fn from_wire(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }

            #[inline]
            fn in_place(_: &[u8]) -> Option<&[Self]> {
                None
            }

            fn write_all(items: &[Self], out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
                items.iter().try_for_each(|item| out.put(&item.to_le_bytes()))
            }
        }
    )*};
}
integer_item!(u16 u32);

impl SeqItem for [u8; 32] {
    const LEN: usize = 32;

    #[inline]
    fn from_wire(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }

    #[inline]
    fn in_place(bytes: &[u8]) -> Option<&[Self]> {
        Some(bytes.as_chunks().0)
    }

    fn write_all(items: &[Self], out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
        out.put(items.as_flattened())
    }
}

/// A sequence of items of fixed size: `SEQ0_255[T]` or `SEQ0_64K[T]`.
///
/// `Seq::from(&path[..])` makes one to send.
#[derive(Clone, Copy)]
pub struct Seq<'a, T: SeqItem>(Place<'a, T>);

/// Where the items are.
#[derive(Clone, Copy)]
enum Place<'a, T> {
    /// In a frame; a multiple of the item's length.
    Wire(&'a [u8]),
    /// In memory.
    Items(&'a [T]),
}

impl<'a, T: SeqItem> Seq<'a, T> {
    /// The sequence without items.
    pub const EMPTY: Self = Self(Place::Items(&[]));

    /// Items laid out as on the wire, without the count in front; bytes after the last whole item are left out.
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        match T::in_place(bytes) {
            Some(items) => Self(Place::Items(items)),
            None => Self(Place::Wire(&bytes[..bytes.len() - bytes.len() % T::LEN])),
        }
    }

    /// Count of items.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Place::Wire(bytes) => bytes.len() / T::LEN,
            Place::Items(items) => items.len(),
        }
    }

    /// Whether there are no items.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at `index`.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        match self.0 {
            Place::Wire(bytes) => {
                let start = index.checked_mul(T::LEN)?;
                T::from_wire(bytes.get(start..start.checked_add(T::LEN)?)?)
            }
            Place::Items(items) => items.get(index).copied(),
        }
    }

    /// The items in order.
    #[inline]
    #[must_use]
    pub const fn iter(&self) -> SeqIter<'a, T> {
        SeqIter { seq: *self, next: 0 }
    }

    /// Reads the items behind a count of `N` bytes.
    #[inline]
    fn read<const N: usize>(rest: &mut &'a [u8]) -> Result<Self, DecodeErrorKind> {
        let count = read_length::<N>(rest)?;
        Ok(Self::from_bytes(take(rest, count * T::LEN)?))
    }

    /// Writes the items behind a count of `N` bytes.
    #[inline]
    fn write<const N: usize>(&self, count_max: usize, out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
        write_length::<N>(self.len(), count_max, out)?;
        match self.0 {
            Place::Wire(bytes) => out.put(bytes),
            Place::Items(items) => T::write_all(items, out),
        }
    }
}

impl<'a> Seq<'a, [u8; 32]> {
    /// The items as one slice, where they lie.
    #[inline]
    #[must_use]
    pub const fn as_slice(&self) -> &'a [[u8; 32]] {
        match self.0 {
            Place::Wire(bytes) => bytes.as_chunks().0,
            Place::Items(items) => items,
        }
    }
}

impl<'a, T: SeqItem> From<&'a [T]> for Seq<'a, T> {
    #[inline]
    fn from(items: &'a [T]) -> Self {
        Self(Place::Items(items))
    }
}

impl<T: SeqItem> PartialEq for Seq<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: SeqItem> fmt::Debug for Seq<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: SeqItem> IntoIterator for Seq<'a, T> {
    type Item = T;
    type IntoIter = SeqIter<'a, T>;

    fn into_iter(self) -> SeqIter<'a, T> {
        self.iter()
    }
}

/// The items of a [`Seq`] in order.
#[derive(Clone, Debug)]
pub struct SeqIter<'a, T: SeqItem> {
    seq: Seq<'a, T>,
    next: usize,
}

impl<T: SeqItem> Iterator for SeqIter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        let item = self.seq.get(self.next)?;
        self.next += 1;
        Some(item)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.seq.len() - self.next;
        (left, Some(left))
    }
}

impl<T: SeqItem> ExactSizeIterator for SeqIter<'_, T> {}

/// A sequence of byte arrays: `SEQ0_64K[B0_16M]`, the transactions of a template.
///
/// `SeqBytes::from(&slices[..])` makes one to send.
#[derive(Clone, Copy)]
pub struct SeqBytes<'a>(BytesPlace<'a>);

#[derive(Clone, Copy)]
enum BytesPlace<'a> {
    /// In a frame: `count` items, each behind its length, all found whole.
    Wire { items: &'a [u8], count: usize },
    /// In memory.
    Items(&'a [&'a [u8]]),
}

/// The most items of a SEQ0_64K.
const SEQ0_64K_COUNT_MAX: usize = 65_535;
/// The most bytes of a B0_16M.
const B0_16M_LEN_MAX: usize = (1 << 24) - 1;

impl<'a> SeqBytes<'a> {
    /// The sequence without items.
    pub const EMPTY: Self = Self(BytesPlace::Items(&[]));

    /// Count of items.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            BytesPlace::Wire { count, .. } => count,
            BytesPlace::Items(items) => items.len(),
        }
    }

    /// Whether there are no items.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items in order.
    #[must_use]
    pub const fn iter(&self) -> SeqBytesIter<'a> {
        SeqBytesIter(self.0)
    }
}

impl<'a> From<&'a [&'a [u8]]> for SeqBytes<'a> {
    fn from(items: &'a [&'a [u8]]) -> Self {
        Self(BytesPlace::Items(items))
    }
}

impl PartialEq for SeqBytes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for SeqBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for SeqBytes<'a> {
    type Item = &'a [u8];
    type IntoIter = SeqBytesIter<'a>;

    fn into_iter(self) -> SeqBytesIter<'a> {
        self.iter()
    }
}

/// The items of a [`SeqBytes`] in order.
#[derive(Clone)]
pub struct SeqBytesIter<'a>(BytesPlace<'a>);

impl fmt::Debug for SeqBytesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&SeqBytes(self.0), f)
    }
}

impl<'a> Iterator for SeqBytesIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.0 {
            BytesPlace::Wire { items, count } => {
                *count = count.checked_sub(1)?;
                take_item(items).ok()
            }
            BytesPlace::Items(items) => {
                let (first, rest) = items.split_first()?;
                *items = rest;
                Some(first)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = SeqBytes(self.0).len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for SeqBytesIter<'_> {}

/// Takes one B0_16M.
fn take_item<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeErrorKind> {
    let len = read_length::<3>(rest)?;
    take(rest, len)
}

macro_rules! sequence {
    ($($(#[$doc:meta])* $marker:ident($item:ty, prefix $prefix:literal, max $max:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        #[allow(non_camel_case_types, reason = "the specification's name")]
        pub enum $marker {}

        impl Wire for $marker {
            type Value<'a> = Seq<'a, $item>;
            const TYPE: WireType = WireType::$marker;
            const LEN_MIN: usize = $prefix;
            const LEN_MAX: usize = $prefix + $max * <$item as SeqItem>::LEN;

            #[inline]
            fn read<'a>(rest: &mut &'a [u8]) -> Result<Seq<'a, $item>, DecodeErrorKind> {
                Seq::read::<$prefix>(rest)
            }

            #[inline]
            fn encoded_len(value: Seq<'_, $item>) -> usize {
                $prefix + value.len() * <$item as SeqItem>::LEN
            }

            #[inline]
            fn write(value: Seq<'_, $item>, out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
                value.write::<$prefix>($max, out)
            }
        }
    )*};
}

sequence! {
    /// `SEQ0_255[U256]`, a merkle path.
    Seq0_255U256([u8; 32], prefix 1, max 255);
    /// `SEQ0_64K[U256]`, wtxids.
    Seq0_64KU256([u8; 32], prefix 2, max 65_535);
    /// `SEQ0_64K[U16]`, extensions or positions.
    Seq0_64KU16(u16, prefix 2, max 65_535);
    /// `SEQ0_64K[U32]`, channel ids.
    Seq0_64KU32(u32, prefix 2, max 65_535);
}

/// `SEQ0_64K[B0_16M]`, transactions.
#[derive(Debug)]
#[allow(non_camel_case_types, reason = "the specification's name")]
pub enum Seq0_64KB0_16M {}

impl Wire for Seq0_64KB0_16M {
    type Value<'a> = SeqBytes<'a>;
    const TYPE: WireType = WireType::Seq0_64KB0_16M;
    const LEN_MIN: usize = 2;
    const LEN_MAX: usize = crate::frame::PAYLOAD_LEN_MAX as usize;

    fn read<'a>(rest: &mut &'a [u8]) -> Result<SeqBytes<'a>, DecodeErrorKind> {
        let count = read_length::<2>(rest)?;
        let items = *rest;
        for _ in 0..count {
            take_item(rest)?;
        }
        let items = &items[..items.len() - rest.len()];
        Ok(SeqBytes(BytesPlace::Wire { items, count }))
    }

    fn encoded_len(value: SeqBytes<'_>) -> usize {
        match value.0 {
            BytesPlace::Wire { items, .. } => 2 + items.len(),
            BytesPlace::Items(items) => 2 + items.iter().map(|item| 3 + item.len()).sum::<usize>(),
        }
    }

    fn write(value: SeqBytes<'_>, out: &mut Writer<'_>) -> Result<(), EncodeErrorKind> {
        write_length::<2>(value.len(), SEQ0_64K_COUNT_MAX, out)?;
        match value.0 {
            BytesPlace::Wire { items, .. } => out.put(items),
            BytesPlace::Items(items) => items.iter().try_for_each(|item| {
                write_length::<3>(item.len(), B0_16M_LEN_MAX, out)?;
                out.put(item)
            }),
        }
    }
}
