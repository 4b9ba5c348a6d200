//! A channel's `user_identity`: kept for the day on which it finds a block, and so in as little as can be.

use alloc::boxed::Box;

/// The longest that needs no allocation of its own: `account.worker00123` has 19 bytes.
const INLINE_LEN_MAX: usize = 22;

/// Bytes as received, at most 255.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    Inline { len: u8, bytes: [u8; INLINE_LEN_MAX] },
    Boxed(Box<[u8]>),
}

impl Identity {
    pub(super) fn new(identity: &[u8]) -> Self {
        let mut bytes = [0; INLINE_LEN_MAX];
        match bytes.get_mut(..identity.len()) {
            Some(place) => {
                place.copy_from_slice(identity);
                Self::Inline { len: identity.len() as u8, bytes }
            }
            None => Self::Boxed(identity.into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Boxed(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        let bytes: [u8; 255] = core::array::from_fn(|i| i as u8);
        for len in 0..=bytes.len() {
            let identity = Identity::new(&bytes[..len]);
            assert_eq!(identity.as_bytes(), &bytes[..len]);
            assert_eq!(matches!(identity, Identity::Inline { .. }), len <= INLINE_LEN_MAX);
        }
        assert_eq!(size_of::<Identity>(), 24);
    }
}
