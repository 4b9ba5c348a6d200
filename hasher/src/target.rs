//! Targets: 256-bit numbers, little-endian as on the wire, and the compact form of block headers.
//!
//! A share is valid if its digest, read as a little-endian number, is at most the target. Conversions to and from
//! floating point (difficulty, hash rate) are in the module `difficulty`.

use core::cmp::Ordering;
use core::fmt;

use crate::Digest;

/// A 256-bit number that a digest must not exceed. Bytes are little-endian, as on the wire; the order is by value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target([u8; 32]);

/// Why an `nbits` names no target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NbitsError {
    /// The number is zero: nothing could meet it.
    Zero,
    /// The sign bit is set.
    Negative,
    /// The number has more than 256 bits.
    Overflow,
}

impl fmt::Display for NbitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "nbits: the target is zero",
            Self::Negative => "nbits: the target is negative",
            Self::Overflow => "nbits: the target has more than 256 bits",
        })
    }
}

impl core::error::Error for NbitsError {}

impl Target {
    /// The easiest target: every digest meets it.
    pub const MAX: Self = Self([0xff; 32]);

    /// The target of difficulty 1: `0xffff << 208`.
    pub const DIFFICULTY_1: Self = {
        let mut bytes = [0; 32];
        bytes[26] = 0xff;
        bytes[27] = 0xff;
        Self(bytes)
    };

    /// The target with these little-endian bytes.
    pub const fn from_le_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The little-endian bytes.
    pub const fn to_le_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The little-endian bytes, in place.
    pub const fn as_le_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The target with this value: four 64-bit limbs, the least significant first.
    pub(crate) const fn from_limbs(limbs: [u64; 4]) -> Self {
        let mut bytes = [0; 32];
        let mut i = 0;
        while i < 32 {
            bytes[i] = (limbs[i / 8] >> (8 * (i % 8))) as u8;
            i += 1;
        }
        Self(bytes)
    }

    /// The value as four 64-bit limbs, the least significant first.
    pub(crate) fn limbs(&self) -> [u64; 4] {
        limbs(&self.0)
    }

    /// The most significant 32 bits: enough to refuse almost every digest.
    #[cfg(all(feature = "kernels", target_arch = "x86_64"))]
    pub(crate) fn top_word(&self) -> u32 {
        (self.limbs()[3] >> 32) as u32
    }

    /// Whether the digest, as a little-endian number, is at most this target.
    #[inline]
    pub fn is_met_by(&self, digest: &Digest) -> bool {
        order(&digest.0, &self.0) != Ordering::Greater
    }

    /// The target that a header's `nbits` stands for. The mantissa's low bytes are dropped where the exponent says so, as
    /// consensus does.
    ///
    /// # Errors
    /// A compact number that is zero, negative or wider than 256 bits.
    pub fn from_nbits(nbits: u32) -> Result<Self, NbitsError> {
        let size = (nbits >> 24) as usize;
        let mantissa = nbits & 0x007f_ffff;
        let negative = nbits & 0x0080_0000 != 0;
        let mut bytes = [0; 32];
        let (mut zero, mut overflow) = (true, false);
        for (i, byte) in mantissa.to_le_bytes().into_iter().enumerate() {
            // Byte `i` of the mantissa has weight `256^(size - 3 + i)`: below one it is cut off.
            let Some(at) = (size + i).checked_sub(3) else { continue };
            zero &= byte == 0;
            match bytes.get_mut(at) {
                Some(slot) => *slot = byte,
                None => overflow |= byte != 0,
            }
        }
        match (zero, negative, overflow) {
            (true, _, _) => Err(NbitsError::Zero),
            (_, true, _) => Err(NbitsError::Negative),
            (_, _, true) => Err(NbitsError::Overflow),
            (false, false, false) => Ok(Self(bytes)),
        }
    }

    /// The compact form, its low bytes cut off as consensus does: never above this target.
    pub fn to_nbits(&self) -> u32 {
        let size = 32 - self.0.iter().rev().take_while(|byte| **byte == 0).count();
        let byte = |at: Option<usize>| at.map_or(0, |at| u32::from(self.0[at]));
        let mantissa =
            byte(size.checked_sub(1)) << 16 | byte(size.checked_sub(2)) << 8 | byte(size.checked_sub(3));
        // The top bit of the mantissa is the sign: make room for it.
        if mantissa & 0x0080_0000 != 0 {
            (size as u32 + 1) << 24 | mantissa >> 8
        } else {
            (size as u32) << 24 | mantissa
        }
    }
}

fn limbs(bytes: &[u8; 32]) -> [u64; 4] {
    let mut out = [0; 4];
    for (limb, chunk) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *limb = u64::from_le_bytes(*chunk);
    }
    out
}

/// Compares two little-endian numbers.
#[inline]
fn order(a: &[u8; 32], b: &[u8; 32]) -> Ordering {
    let (a, b) = (limbs(a), limbs(b));
    a.iter().rev().cmp(b.iter().rev())
}

impl Ord for Target {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.0, &other.0)
    }
}

impl PartialOrd for Target {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The most significant digit first.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}
