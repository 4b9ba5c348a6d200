//! The choice of a backend.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{BatchHash, CoinbaseJob, Digest, HeaderBytes, Portable, Target};

/// The backend in use.
#[derive(Clone, Copy, Debug)]
pub struct Hasher(Portable);

impl Hasher {
    /// The fastest backend of this CPU.
    pub fn detect() -> Self {
        Self(Portable)
    }

    /// The choice in words, for the log.
    pub fn describe(&self) -> String {
        String::from("1.. portable")
    }
}

impl BatchHash for Hasher {
    fn merkle_roots(&self, job: &CoinbaseJob, extranonces: &[u8], roots: &mut [[u8; 32]]) {
        self.0.merkle_roots(job, extranonces, roots);
    }

    fn header_digests(&self, headers: &[HeaderBytes], digests: &mut [Digest]) {
        self.0.header_digests(headers, digests);
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
        self.0.scan_nonces(header, first_nonce, count, target, found, max_found)
    }
}
