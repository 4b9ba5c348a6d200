//! The kernels, and the only `unsafe` code of this package.
//!
//! A backend has one function of its own, which makes keystream; what is done with keystream is [`FrameStream`]'s, without
//! `unsafe`, and inlined into the backend's entries (`entries!`).
//!
//! **Proof of support.** A token (`Avx2`, `Avx512`) is made only by its `detect`: whoever holds one runs on a CPU that has the
//! instructions. The entries are methods of the token.
//!
//! **Inlining.** An intrinsic that is not inlined under a matching `#[target_feature]` becomes a call for each instruction. So
//! the functions that have intrinsics carry the features themselves, and a test holds the kernels to a speed that calls cannot
//! reach.
//!
//! [`FrameStream`]: crate::stream::FrameStream

#![allow(clippy::needless_range_loop, reason = "lanes and rows have numbers")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod ifma;

use crate::fallback::Key;
use crate::sealed::{Frames, Outcomes};
use crate::{Backend, Forged, KEY_LEN, LANES, Opening, SEALED_HEADER_LEN, TAG_LEN};

/// One way to seal and open small texts, with the proof that this CPU can.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    Ring,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

/// Calls a kernel's entry by its name.
macro_rules! dispatch {
    ($kernel:expr, $key:expr, $entry:ident($($argument:expr),*)) => {
        match $kernel {
            Kernel::Ring => Key::new($key).$entry($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(token) => token.$entry($key, $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512(token) => token.$entry($key, $($argument),*),
        }
    };
}

impl Kernel {
    /// The kernel of a backend; `None` if the CPU cannot run it.
    pub(crate) fn of(backend: Backend) -> Option<Self> {
        match backend {
            Backend::Ring => Some(Self::Ring),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => avx2::Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => avx512::Avx512::detect().map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::Avx2 | Backend::Avx512 => None,
        }
    }

    pub(crate) fn backend(self) -> Backend {
        match self {
            Self::Ring => Backend::Ring,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Backend::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Backend::Avx512,
        }
    }

    /// Opens a text of at most 64 bytes.
    #[inline]
    pub(crate) fn open(
        self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        sealed: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Forged> {
        dispatch!(self, key, open(nonce, sealed, tag))
    }

    /// Seals a text of at most 64 bytes.
    #[inline]
    pub(crate) fn seal(self, key: &[u8; KEY_LEN], nonce: u64, plain: &mut [u8]) -> [u8; TAG_LEN] {
        dispatch!(self, key, seal(nonce, plain))
    }

    /// Opens a frame's header, and its payload if that is whole, within the limit, and not too long for the kernel.
    #[inline]
    pub(crate) fn open_frame(
        self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> Result<Opening, Forged> {
        dispatch!(self, key, open_frame(nonce, bytes, payload_len_max))
    }

    /// Seals a frame with a payload of at most 64 bytes.
    #[inline]
    pub(crate) fn seal_frame(
        self,
        key: &[u8; KEY_LEN],
        nonce: u64,
        header: &mut [u8; SEALED_HEADER_LEN],
        payload: &mut [u8],
    ) {
        dispatch!(self, key, seal_frame(nonce, header, payload))
    }
}

/// The way to open or seal up to eight frames at once, with the proof that this CPU can.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lanes {
    #[cfg(target_arch = "x86_64")]
    Ifma(ifma::Ifma),
}

impl Lanes {
    /// What a backend has for several frames; `None` if it has nothing, or the CPU cannot run it.
    pub(crate) fn of(backend: Backend) -> Option<Self> {
        match backend {
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => ifma::Ifma::detect().map(Self::Ifma),
            _ => None,
        }
    }

    /// Opens the frame that each of the first `count` lanes' bytes begin with.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is no such kernel"))]
    pub(crate) fn open_frames(
        self,
        count: usize,
        keys: [&[u8; KEY_LEN]; LANES],
        nonces: [u64; LANES],
        frames: Frames<'_>,
    ) -> Outcomes {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(token) => token.open_frames(count, keys, nonces, frames),
        }
    }

    /// Opens up to `count` frames of one connection that lie one after the other; returns how many.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is no such kernel"))]
    pub(crate) fn open_run(
        self,
        count: usize,
        key: &[u8; KEY_LEN],
        nonce: u64,
        bytes: &mut [u8],
        payload_len_max: usize,
    ) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(token) => token.open_run(count, key, nonce, bytes, payload_len_max),
        }
    }

    /// Seals the first `count` frames, of one connection and in this order. Their payloads have 1 to 64 bytes.
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "there is no such kernel"))]
    pub(crate) fn seal_run(self, count: usize, key: &[u8; KEY_LEN], nonce: u64, frames: [&mut [u8]; LANES]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Ifma(token) => token.seal_run(count, key, nonce, frames),
        }
    }
}

/// The first row of ChaCha20's matrix: "expand 32-byte k".
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn constants() -> core::arch::x86_64::__m128i {
    // SAFETY: a value of any bits is a vector of 16 bytes.
    unsafe { core::mem::transmute::<[u8; 16], core::arch::x86_64::__m128i>(*b"expand 32-byte k") }
}

/// A token's entries, over `keystream`.
#[cfg(target_arch = "x86_64")]
macro_rules! entries {
    ($token:ty, $features:literal) => {
        impl $token {
            #[inline]
            pub(crate) fn open(
                self,
                key: &[u8; crate::KEY_LEN],
                nonce: u64,
                sealed: &mut [u8],
                tag: &[u8; crate::TAG_LEN],
            ) -> Result<(), crate::Forged> {
                #[target_feature(enable = $features)]
                fn entry(
                    key: &[u8; crate::KEY_LEN],
                    nonce: u64,
                    sealed: &mut [u8],
                    tag: &[u8; crate::TAG_LEN],
                ) -> Result<(), crate::Forged> {
                    keystream(key, nonce).open(sealed, tag)
                }
                // SAFETY: the token proves that the CPU has these features.
                unsafe { entry(key, nonce, sealed, tag) }
            }

            #[inline]
            pub(crate) fn seal(
                self,
                key: &[u8; crate::KEY_LEN],
                nonce: u64,
                plain: &mut [u8],
            ) -> [u8; crate::TAG_LEN] {
                #[target_feature(enable = $features)]
                fn entry(key: &[u8; crate::KEY_LEN], nonce: u64, plain: &mut [u8]) -> [u8; crate::TAG_LEN] {
                    keystream(key, nonce).seal(plain)
                }
                // SAFETY: the token proves that the CPU has these features.
                unsafe { entry(key, nonce, plain) }
            }

            #[inline]
            pub(crate) fn open_frame(
                self,
                key: &[u8; crate::KEY_LEN],
                nonce: u64,
                bytes: &mut [u8],
                payload_len_max: usize,
            ) -> Result<crate::Opening, crate::Forged> {
                #[target_feature(enable = $features)]
                fn entry(
                    key: &[u8; crate::KEY_LEN],
                    nonce: u64,
                    bytes: &mut [u8],
                    payload_len_max: usize,
                ) -> Result<crate::Opening, crate::Forged> {
                    keystream(key, nonce).open_frame(bytes, payload_len_max)
                }
                // SAFETY: the token proves that the CPU has these features.
                unsafe { entry(key, nonce, bytes, payload_len_max) }
            }

            #[inline]
            pub(crate) fn seal_frame(
                self,
                key: &[u8; crate::KEY_LEN],
                nonce: u64,
                header: &mut [u8; crate::SEALED_HEADER_LEN],
                payload: &mut [u8],
            ) {
                #[target_feature(enable = $features)]
                fn entry(
                    key: &[u8; crate::KEY_LEN],
                    nonce: u64,
                    header: &mut [u8; crate::SEALED_HEADER_LEN],
                    payload: &mut [u8],
                ) {
                    keystream(key, nonce).seal_frame(header, payload);
                }
                // SAFETY: the token proves that the CPU has these features.
                unsafe { entry(key, nonce, header, payload) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use entries;
