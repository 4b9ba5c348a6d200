//! Backends by name.

use core::fmt;
use core::str::FromStr;

use crate::Aead;

/// What seals and opens small frames.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// The library `ring`, as for long texts: for every CPU.
    Ring,
    /// AVX2: two pairs of ChaCha20 blocks side by side.
    Avx2,
    /// AVX-512: four ChaCha20 blocks in one set of vectors. Wants AVX-512 F, BW and VL.
    Avx512,
}

impl Backend {
    /// Every backend, whether this CPU can run it or not.
    pub const ALL: [Self; 3] = [Self::Ring, Self::Avx2, Self::Avx512];

    /// Whether this CPU can run it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        Aead::forced(self).is_some()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx-512",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that belongs to no backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendError;

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown AEAD backend: use ring, avx2 or avx-512")
    }
}

impl core::error::Error for BackendError {}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        Self::ALL.into_iter().find(|backend| backend.name() == name).ok_or(BackendError)
    }
}
