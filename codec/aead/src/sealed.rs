//! Where a sealed frame's texts and tags lie.

use crate::{Forged, HEADER_LEN, LANES, Opening, SEALED_HEADER_LEN, TAG_LEN};

/// A ciphertext and its tag.
pub(crate) struct Sealed<'a, T: ?Sized> {
    pub(crate) text: &'a mut T,
    pub(crate) tag: &'a [u8; TAG_LEN],
}

/// A frame for each lane, and how long its payload may be. A lane without bytes is refused.
pub(crate) struct Frames<'a> {
    pub(crate) bytes: [&'a mut [u8]; LANES],
    pub(crate) payload_len_max: [usize; LANES],
}

/// What became of each lane's frame.
pub(crate) type Outcomes = [Result<Opening, Forged>; LANES];

/// The header at the front, and what follows; `None` if it is not all there.
#[inline(always)]
pub(crate) fn split_header(bytes: &mut [u8]) -> Option<(Sealed<'_, [u8; HEADER_LEN]>, &mut [u8])> {
    let (header, rest) = bytes.split_first_chunk_mut::<SEALED_HEADER_LEN>()?;
    let (text, tag) = header.split_first_chunk_mut()?;
    Some((Sealed { text, tag: tag.first_chunk()? }, rest))
}

/// A payload of `len` bytes at the front; `None` if it is longer than the limit or not all there.
#[inline(always)]
pub(crate) fn split_payload(bytes: &mut [u8], len: usize, len_max: usize) -> Option<Sealed<'_, [u8]>> {
    if len > len_max {
        return None;
    }
    let (text, rest) = bytes.split_at_mut_checked(len)?;
    Some(Sealed { text, tag: rest.first_chunk()? })
}
