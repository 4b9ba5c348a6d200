//! Backends by name, and [`Hasher`], which combines them.

use std::fmt;
use std::str::FromStr;
use std::string::String;
use std::sync::OnceLock;
use std::vec::Vec;

use crate::plan::Plan;
use crate::{BatchHash, CoinbaseJob, Digest, HeaderBytes, Target, batch, sha256};

/// A set of instructions to hash with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// No particular instructions: for every CPU.
    Portable,
    /// The SHA extensions of x86-64, two messages interleaved.
    ShaNi,
    /// Eight lanes of AVX2.
    Avx2,
    /// Sixteen lanes of AVX-512, eight for batches of up to eight. Wants AVX-512 F, BW and VL.
    Avx512,
}

impl Backend {
    /// Every backend, whether this CPU can run it or not.
    pub const ALL: [Self; 4] = [Self::Portable, Self::ShaNi, Self::Avx2, Self::Avx512];

    /// Whether this CPU can run it.
    pub fn is_supported(self) -> bool {
        Plan::forced(self).is_some()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::ShaNi => "sha-ni",
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
        f.write_str("unknown hash backend: use portable, sha-ni, avx2 or avx-512")
    }
}

impl std::error::Error for BackendError {}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(name: &str) -> Result<Self, BackendError> {
        Self::ALL.into_iter().find(|backend| backend.name() == name).ok_or(BackendError)
    }
}

/// Hashing with the kernels of this CPU. See the [crate's documentation](crate) for how they are chosen, and what they cost.
#[derive(Clone, Copy, Debug)]
pub struct Hasher(Plan);

impl Hasher {
    /// The fastest kernels for each batch size on this CPU. The first call of the process measures them, for about 1 ms (no
    /// measurement begins after 5 ms); later calls give the same answer at once.
    pub fn detect() -> Self {
        static DETECTED: OnceLock<Hasher> = OnceLock::new();
        *DETECTED.get_or_init(|| Self(Plan::calibrated()))
    }

    /// One backend for all batch sizes; `None` if this CPU cannot run it.
    pub fn forced(backend: Backend) -> Option<Self> {
        Plan::forced(backend).map(Self)
    }

    /// Which kernel takes batches of which sizes, for the log: `1..4 sha-ni, 5..8 avx-512 (8 lanes), 9.. avx-512`. Where a
    /// batch is split, the kernel of its first part is named.
    pub fn describe(&self) -> String {
        self.0.describe()
    }
}

impl Hasher {
    /// The double-SHA256 of each message, whatever its length: `messages[i]` gives `digests[i]`. Those that take the same number
    /// of blocks are hashed together, so this allocates, unlike [`BatchHash`]: it is for a template's transactions.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn message_digests(&self, messages: &[&[u8]], digests: &mut [[u8; 32]]) {
        assert_eq!(messages.len(), digests.len(), "one digest for each message");
        let mut order: Vec<usize> = (0..messages.len()).collect();
        let blocks = |index: &usize| sha256::padded_blocks(messages[*index].len());
        // Stable, so that messages of one length are read in the order in which they lie.
        order.sort_by_key(blocks);
        let (mut alike, mut hashed) = (Vec::new(), Vec::new());
        for indices in order.chunk_by(|a, b| blocks(a) == blocks(b)) {
            alike.clear();
            alike.extend(indices.iter().map(|index| messages[*index]));
            hashed.resize(alike.len(), [0; 32]);
            self.alike_digests(&alike, &mut hashed);
            for (index, digest) in indices.iter().zip(&hashed) {
                digests[*index] = *digest;
            }
        }
    }

    /// The double-SHA256 of messages that take the same number of blocks; the slices are of one length.
    pub(crate) fn alike_digests(&self, mut messages: &[&[u8]], mut digests: &mut [[u8; 32]]) {
        let Some(blocks) = messages.first().map(|message| sha256::padded_blocks(message.len())) else {
            return;
        };
        while !messages.is_empty() {
            let (kernel, taken) = self.0.front(messages.len());
            let (front, later) = digests.split_at_mut(taken);
            kernel.message_digests(&messages[..taken], blocks, front);
            (messages, digests) = (&messages[taken..], later);
        }
    }
}

impl BatchHash for Hasher {
    fn merkle_roots(&self, job: &CoinbaseJob, mut extranonces: &[u8], mut roots: &mut [[u8; 32]]) {
        batch::check_rows(job, extranonces, roots);
        while !roots.is_empty() {
            let (kernel, taken) = self.0.front(roots.len());
            let (rows, later_rows) = extranonces.split_at(taken * job.extranonce_len());
            let (front, later) = roots.split_at_mut(taken);
            kernel.merkle_roots(job, rows, front);
            (extranonces, roots) = (later_rows, later);
        }
    }

    fn header_digests(&self, mut headers: &[HeaderBytes], mut digests: &mut [Digest]) {
        batch::check_digests(headers, digests);
        while !digests.is_empty() {
            let (kernel, taken) = self.0.front(digests.len());
            let (rows, later_rows) = headers.split_at(taken);
            let (front, later) = digests.split_at_mut(taken);
            kernel.header_digests(rows, front);
            (headers, digests) = (later_rows, later);
        }
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
        self.0.bulk().scan_nonces(header, first_nonce, count, target, found, max_found)
    }
}
