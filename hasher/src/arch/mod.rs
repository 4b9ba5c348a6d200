//! The kernels, and the only `unsafe` code of this package.
//!
//! Three layers, the upper two free of `unsafe`:
//! - [`drive`]: headers, merkle roots and nonce scans, over anything that can run SHA-256 for several messages at once
//!   ([`Streams`](drive::Streams));
//! - [`lanes`]: SHA-256 word by word, one message per lane of a vector ([`WordVector`](lanes::WordVector));
//! - the shells: vectors of AVX2 (8 lanes) and AVX-512 (16, and 8 for small batches), and SHA-NI, whose instructions do
//!   four words of one message and so implement [`Streams`](drive::Streams) themselves, two messages interleaved.
//!
//! **Proof of support.** A token (`ShaNi`, `Avx2`, `Avx512`) is made only by its `detect`, and every vector or state is made
//! from a token: whoever holds one runs on a CPU that has the instructions.
//!
//! **Inlining.** An intrinsic that is not inlined under a matching `#[target_feature]` becomes a call for each
//! instruction, 40 times slower. So everything below an entry is `#[inline(always)]` and free of closures, the entry alone
//! carries `#[target_feature]`, and a test holds the kernels to a speed that calls cannot reach.

#![allow(
    clippy::needless_range_loop,
    reason = "lanes have numbers, and iterators' calls might not be inlined"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod drive;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(target_arch = "x86_64")]
mod ymm;

use alloc::vec::Vec;

use crate::{Backend, BatchHash, CoinbaseJob, Digest, HeaderBytes, Portable, Target};

/// One way to hash a group of messages, with the proof that this CPU can.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    ShaNiLane1(sha_ni::ShaNi),
    #[cfg(target_arch = "x86_64")]
    ShaNiLanes2(sha_ni::ShaNi),
    #[cfg(target_arch = "x86_64")]
    Avx2Lanes8(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512Lanes8(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Lanes16(avx512::Avx512),
}

/// Calls the entry of a kernel by its name.
macro_rules! dispatch {
    ($kernel:expr, $entry:ident($($argument:expr),*)) => {
        match $kernel {
            Kernel::Portable => Portable.$entry($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::ShaNiLane1(token) => sha_ni::lane1::$entry(token, $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::ShaNiLanes2(token) => sha_ni::lanes2::$entry(token, $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2Lanes8(token) => avx2::lanes8::$entry(token, $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Lanes8(token) => avx512::lanes8::$entry(token, $($argument),*),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Lanes16(token) => avx512::lanes16::$entry(token, $($argument),*),
        }
    };
}

impl Kernel {
    /// The kernels of a backend, the one with the most lanes first; empty if the CPU cannot run them.
    pub(crate) fn of(backend: Backend) -> Vec<Self> {
        match backend {
            Backend::Portable => vec![Self::Portable],
            #[cfg(target_arch = "x86_64")]
            Backend::ShaNi => sha_ni::ShaNi::detect()
                .map_or(Vec::new(), |token| vec![Self::ShaNiLanes2(token), Self::ShaNiLane1(token)]),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => avx2::Avx2::detect().map_or(Vec::new(), |token| vec![Self::Avx2Lanes8(token)]),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => avx512::Avx512::detect()
                .map_or(Vec::new(), |token| vec![Self::Avx512Lanes16(token), Self::Avx512Lanes8(token)]),
            #[cfg(not(target_arch = "x86_64"))]
            Backend::ShaNi | Backend::Avx2 | Backend::Avx512 => Vec::new(),
        }
    }

    /// How many messages one pass takes. A pass costs the same however full it is.
    pub(crate) fn lanes(self) -> usize {
        match self {
            Self::Portable => 1,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNiLane1(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNiLanes2(_) => 2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Lanes8(_) | Self::Avx512Lanes8(_) => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Lanes16(_) => 16,
        }
    }

    /// The name in the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::ShaNiLane1(_) | Self::ShaNiLanes2(_) => "sha-ni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Lanes8(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Lanes8(_) => "avx-512 (8 lanes)",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Lanes16(_) => "avx-512",
        }
    }

    /// What a pass over headers is assumed to take where it cannot be measured, in picoseconds: figures of a
    /// Sapphire Rapids. Only their ratios matter.
    pub(crate) fn assumed_pass_ps(self) -> u64 {
        match self {
            Self::Portable => 500_000,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNiLane1(_) => 134_000,
            #[cfg(target_arch = "x86_64")]
            Self::ShaNiLanes2(_) => 180_000,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Lanes8(_) => 936_000,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Lanes8(_) => 480_000,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Lanes16(_) => 672_000,
        }
    }
}

impl Kernel {
    /// The double hashes of messages that take `blocks` blocks each, their padding included; the slices are of one length.
    pub(crate) fn message_digests(self, messages: &[&[u8]], blocks: usize, digests: &mut [[u8; 32]]) {
        dispatch!(self, message_digests(messages, blocks, digests));
    }
}

impl BatchHash for Kernel {
    fn merkle_roots(&self, job: &CoinbaseJob, extranonces: &[u8], roots: &mut [[u8; 32]]) {
        crate::batch::check_rows(job, extranonces, roots);
        // Without an extranonce there is one root, and it is known.
        match job.root {
            Some(root) => roots.fill(root),
            None => dispatch!(*self, merkle_roots(job, extranonces, roots)),
        }
    }

    fn header_digests(&self, headers: &[HeaderBytes], digests: &mut [Digest]) {
        crate::batch::check_digests(headers, digests);
        dispatch!(*self, header_digests(headers, digests));
    }

    fn scan_nonces(
        &self,
        header: &HeaderBytes,
        first_nonce: u32,
        count: u32,
        target: &Target,
        found: &mut Vec<u32>,
        max_found: usize,
    ) -> u32 {
        dispatch!(*self, scan_nonces(header, first_nonce, count, target, found, max_found))
    }
}
