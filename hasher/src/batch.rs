//! The batch interface that every backend implements, described once.

use alloc::vec::Vec;

use crate::{CoinbaseJob, Digest, Target};

/// A block header, serialised: version, prev_hash, merkle root, ntime, nbits, nonce.
pub type HeaderBytes = [u8; 80];

/// Where the nonce begins in a header.
pub(crate) const NONCE_AT: usize = 76;

/// Hashing in batches. All implementations give the same results for all inputs; they differ in speed.
///
/// Batches may have any size, zero included. Nothing allocates but the growth of `found` in
/// [`scan_nonces`](Self::scan_nonces).
pub trait BatchHash {
    /// The merkle root of each extranonce. `extranonces` holds `roots.len()` rows of
    /// [`job.extranonce_len()`](CoinbaseJob::extranonce_len) bytes; row `i` gives `roots[i]`, in internal byte order.
    ///
    /// # Panics
    /// If `extranonces` does not hold one row for each root.
    fn merkle_roots(&self, job: &CoinbaseJob, extranonces: &[u8], roots: &mut [[u8; 32]]);

    /// The double-SHA256 of each header: `headers[i]` gives `digests[i]`.
    ///
    /// # Panics
    /// If the two slices differ in length.
    fn header_digests(&self, headers: &[HeaderBytes], digests: &mut [Digest]);

    /// Tries `count` nonces from `first_nonce` upwards in place of the header's own, and appends those whose digest meets
    /// `target` to `found`, in ascending order. It ends early after the nonce that brings `found` to a length of
    /// `max_found` (at once, if it has that length already), and after nonce `u32::MAX`: it does not wrap around.
    ///
    /// Returns how many nonces were tried; the last one found is among them.
    fn scan_nonces(
        &self,
        header: &HeaderBytes,
        first_nonce: u32,
        count: u32,
        target: &Target,
        found: &mut Vec<u32>,
        max_found: usize,
    ) -> u32;
}

/// The number of nonces in `first_nonce..` that exist, at most `count`.
pub(crate) fn nonces_in_range(first_nonce: u32, count: u32) -> u32 {
    // From nonce 0 there are 2^32, one more than `count` can ask for.
    count.min((u32::MAX - first_nonce).saturating_add(1))
}

/// Panics unless there is one extranonce row for each root.
#[track_caller]
pub(crate) fn check_rows(job: &CoinbaseJob, extranonces: &[u8], roots: &[[u8; 32]]) {
    assert_eq!(
        extranonces.len(),
        job.extranonce_len() * roots.len(),
        "one extranonce of {} bytes for each of {} merkle roots",
        job.extranonce_len(),
        roots.len()
    );
}

/// Panics unless there is one digest for each header.
#[track_caller]
pub(crate) fn check_digests(headers: &[HeaderBytes], digests: &[Digest]) {
    assert_eq!(headers.len(), digests.len(), "one digest for each header");
}
