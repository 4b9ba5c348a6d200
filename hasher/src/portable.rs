//! The portable backend: safe, `no_std`, one message after the other. Every other backend is proven against it.

use alloc::vec::Vec;

use crate::batch::{self, BatchHash, HeaderBytes, NONCE_AT};
use crate::sha256::{self, PAD, State};
use crate::{CoinbaseJob, Digest, Target};

/// The backend for every CPU, and the oracle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl BatchHash for Portable {
    fn merkle_roots(&self, job: &CoinbaseJob, extranonces: &[u8], roots: &mut [[u8; 32]]) {
        batch::check_rows(job, extranonces, roots);
        if let Some(root) = job.root {
            roots.fill(root);
            return;
        }
        for (extranonce, root) in extranonces.chunks_exact(job.extranonce_len()).zip(roots) {
            *root = job.root_of(extranonce);
        }
    }

    fn header_digests(&self, headers: &[HeaderBytes], digests: &mut [Digest]) {
        batch::check_digests(headers, digests);
        for (header, digest) in headers.iter().zip(digests) {
            *digest = finish(midstate(header), sha256::words(&header[64..]));
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
        let count = batch::nonces_in_range(first_nonce, count);
        let midstate = midstate(header);
        let mut tail: [u32; 4] = sha256::words(&header[64..]);
        const _: () = assert!(NONCE_AT == 64 + 4 * 3);
        for tried in 0..count {
            if found.len() >= max_found {
                return tried;
            }
            let nonce = first_nonce + tried;
            tail[3] = nonce.swap_bytes();
            if target.is_met_by(&finish(midstate, tail)) {
                found.push(nonce);
            }
        }
        count
    }
}

#[cfg(feature = "kernels")]
impl Portable {
    /// The double hash of each message; the slices are of one length.
    pub(crate) fn message_digests(self, messages: &[&[u8]], _blocks: usize, digests: &mut [[u8; 32]]) {
        for (message, digest) in messages.iter().zip(digests) {
            *digest = sha256::to_bytes(&sha256::double(message));
        }
    }
}

/// The chaining value after a header's first 64 bytes.
pub(crate) fn midstate(header: &HeaderBytes) -> State {
    let mut state = sha256::IV;
    sha256::compress(&mut state, &sha256::words(header));
    state
}

/// The digest of a header from its midstate and its last 16 bytes.
fn finish(mut state: State, tail: [u32; 4]) -> Digest {
    let mut block = [0; 16];
    block[..4].copy_from_slice(&tail);
    block[4] = PAD;
    block[15] = 80 * 8;
    sha256::compress(&mut state, &block);
    Digest(sha256::to_bytes(&sha256::second(&state)))
}
