//! A double-SHA256 digest, in the byte order in which SHA-256 gives it.

use core::fmt;

/// A double-SHA256: bytes as SHA-256 gives them, which is Bitcoin's internal order.
///
/// `Display` shows the reverse, as block explorers and RPC do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a message of any length: the id of a transaction without witness, for one.
    pub fn of(message: &[u8]) -> Self {
        Self(crate::sha256::to_bytes(&crate::sha256::double(message)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
