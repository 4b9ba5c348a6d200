//! Headers, merkle roots, messages of any length and nonce scans over several messages at once. No `unsafe`, no instruction set.
//!
//! The last group of a batch is filled up with copies of its first row; the copies' results are not looked at.

use alloc::vec::Vec;

use crate::batch::{self, HeaderBytes, NONCE_AT};
use crate::coinbase::VARIABLE_BLOCKS_MAX;
use crate::sha256::{self, PAD64, Schedule, State};
use crate::{CoinbaseJob, Digest, Target};

/// The chaining values of `LANES` messages, and what SHA-256 needs to move them on.
///
/// All methods are to be inlined into an entry with the target features that `Token` proves.
pub(crate) trait Streams<const LANES: usize>: Copy {
    /// The proof that the CPU has the instructions.
    type Token: Copy;
    /// One block of each message.
    type Block: Copy;

    /// The same chaining value in every lane.
    fn broadcast(token: Self::Token, state: &State) -> Self;
    /// The 64 bytes from `at` of each row. `at + 64` is at most `ROW`.
    fn load_block<const ROW: usize>(token: Self::Token, rows: &[[u8; ROW]; LANES], at: usize) -> Self::Block;
    /// The last 16 bytes of each header with the padding of an 80-byte message.
    fn load_header_tail(token: Self::Token, rows: &[HeaderBytes; LANES]) -> Self::Block;
    /// The last block of headers that differ in their last word only.
    fn nonce_block(token: Self::Token, tail: &[u32; 3], nonces: &[u32; LANES]) -> Self::Block;
    /// The digests with the padding of a 32-byte message.
    fn second_block(self, token: Self::Token) -> Self::Block;
    /// The digests, each followed by the same sibling.
    fn node_block(self, token: Self::Token, right: &State) -> Self::Block;
    /// One compression.
    fn compress(self, token: Self::Token, block: Self::Block) -> Self;
    /// One compression of a block that is the same in all lanes and was expanded before.
    fn compress_const(self, token: Self::Token, schedule: &Schedule) -> Self;
    /// The digests as bytes.
    fn store(self) -> [[u8; 32]; LANES];
    /// Bit `i` is set if the top 32 bits of digest `i`, as a little-endian number, are at most `limit`.
    fn top_words_at_most(self, token: Self::Token, limit: u32) -> u32;
}

/// The hash of the digests: the second half of a double hash.
#[inline(always)]
fn second<S: Streams<LANES>, const LANES: usize>(token: S::Token, first: S) -> S {
    S::broadcast(token, &sha256::IV).compress(token, first.second_block(token))
}

/// Fewer than `LANES` rows, at least one, filled up with the first.
#[inline(always)]
fn pad<const LANES: usize>(rows: &[HeaderBytes]) -> [HeaderBytes; LANES] {
    let mut padded = [rows[0]; LANES];
    padded[..rows.len()].copy_from_slice(rows);
    padded
}

/// `digests[i]` is the double hash of `headers[i]`; the slices are of one length.
#[inline(always)]
pub(crate) fn header_digests<S: Streams<LANES>, const LANES: usize>(
    token: S::Token,
    headers: &[HeaderBytes],
    digests: &mut [Digest],
) {
    for (rows, digests) in headers.chunks(LANES).zip(digests.chunks_mut(LANES)) {
        let padded: [HeaderBytes; LANES];
        let rows = match <&[HeaderBytes; LANES]>::try_from(rows) {
            Ok(rows) => rows,
            Err(_) => {
                padded = pad(rows);
                &padded
            }
        };
        let state = S::broadcast(token, &sha256::IV)
            .compress(token, S::load_block(token, rows, 0))
            .compress(token, S::load_header_tail(token, rows));
        for (digest, bytes) in digests.iter_mut().zip(second(token, state).store()) {
            digest.0 = bytes;
        }
    }
}

/// `roots[i]` comes from row `i` of `extranonces`. The job has an extranonce, and there is one row for each root.
#[inline(always)]
pub(crate) fn merkle_roots<S: Streams<LANES>, const LANES: usize>(
    token: S::Token,
    job: &CoinbaseJob,
    extranonces: &[u8],
    roots: &mut [[u8; 32]],
) {
    let len = job.extranonce_len();
    let hole = job.hole..job.hole + len;
    let mut rows: [[u8; 64 * VARIABLE_BLOCKS_MAX]; LANES] = [job.template; LANES];
    for (extranonces, roots) in extranonces.chunks(len * LANES).zip(roots.chunks_mut(LANES)) {
        for (lane, row) in rows.iter_mut().enumerate() {
            let from = if lane < roots.len() { lane * len } else { 0 };
            row[hole.clone()].copy_from_slice(&extranonces[from..from + len]);
        }
        let mut state = S::broadcast(token, &job.midstate);
        for block in 0..job.variable_blocks.min(VARIABLE_BLOCKS_MAX) {
            state = state.compress(token, S::load_block(token, &rows, 64 * block));
        }
        for schedule in &job.constant {
            state = state.compress_const(token, schedule);
        }
        state = second(token, state);
        for right in &job.path {
            let first = S::broadcast(token, &sha256::IV).compress(token, state.node_block(token, right));
            state = second(token, first.compress_const(token, &PAD64));
        }
        for (root, bytes) in roots.iter_mut().zip(state.store()) {
            *root = bytes;
        }
    }
}

/// `digests[i]` is the double hash of `messages[i]`; the slices are of one length, and all messages take `blocks` blocks, their
/// padding included.
#[inline(always)]
pub(crate) fn message_digests<S: Streams<LANES>, const LANES: usize>(
    token: S::Token,
    messages: &[&[u8]],
    blocks: usize,
    digests: &mut [[u8; 32]],
) {
    for (messages, digests) in messages.chunks(LANES).zip(digests.chunks_mut(LANES)) {
        let mut rows = [[0; 64]; LANES];
        let mut state = S::broadcast(token, &sha256::IV);
        for block in 0..blocks {
            for lane in 0..LANES {
                let message = if lane < messages.len() { messages[lane] } else { messages[0] };
                sha256::padded_block(message, block, blocks, &mut rows[lane]);
            }
            state = state.compress(token, S::load_block(token, &rows, 0));
        }
        for (digest, bytes) in digests.iter_mut().zip(second(token, state).store()) {
            *digest = bytes;
        }
    }
}

/// See [`BatchHash::scan_nonces`](crate::BatchHash::scan_nonces).
#[inline(always)]
pub(crate) fn scan_nonces<S: Streams<LANES>, const LANES: usize>(
    token: S::Token,
    header: &HeaderBytes,
    first_nonce: u32,
    count: u32,
    target: &Target,
    found: &mut Vec<u32>,
    max_found: usize,
) -> u32 {
    let count = batch::nonces_in_range(first_nonce, count);
    let midstate = crate::portable::midstate(header);
    let tail: [u32; 3] = sha256::words(&header[64..NONCE_AT]);
    let limit = target.top_word();
    let mut tried = 0;
    while tried < count {
        if found.len() >= max_found {
            return tried;
        }
        let mut nonces = [0; LANES];
        for (lane, nonce) in nonces.iter_mut().enumerate() {
            // Lanes past the end of the range wrap around; they are masked.
            *nonce = first_nonce.wrapping_add(tried).wrapping_add(lane as u32).swap_bytes();
        }
        let state = S::broadcast(token, &midstate).compress(token, S::nonce_block(token, &tail, &nonces));
        let state = second(token, state);
        let lanes = (count - tried).min(LANES as u32);
        let mut candidates = state.top_words_at_most(token, limit) & ((1 << lanes) - 1);
        if candidates != 0 {
            let digests = state.store();
            while candidates != 0 {
                let lane = candidates.trailing_zeros();
                candidates &= candidates - 1;
                if target.is_met_by(&Digest(digests[lane as usize])) {
                    found.push(first_nonce + tried + lane);
                    if found.len() >= max_found {
                        return tried + lane + 1;
                    }
                }
            }
        }
        tried += lanes;
    }
    count
}

/// The entries of a shell: where `#[target_feature]` begins and everything below is inlined.
macro_rules! entries {
    ($streams:ty, $lanes:expr, $token:ty, $features:literal) => {
        /// See [`drive::header_digests`](crate::arch::drive::header_digests).
        pub(crate) fn header_digests(
            token: $token,
            headers: &[crate::HeaderBytes],
            digests: &mut [crate::Digest],
        ) {
            #[target_feature(enable = $features)]
            fn entry(token: $token, headers: &[crate::HeaderBytes], digests: &mut [crate::Digest]) {
                crate::arch::drive::header_digests::<$streams, { $lanes }>(token, headers, digests);
            }
            // SAFETY: the token proves that the CPU has these features.
            unsafe { entry(token, headers, digests) }
        }

        /// See [`drive::merkle_roots`](crate::arch::drive::merkle_roots).
        pub(crate) fn merkle_roots(
            token: $token,
            job: &crate::CoinbaseJob,
            extranonces: &[u8],
            roots: &mut [[u8; 32]],
        ) {
            #[target_feature(enable = $features)]
            fn entry(token: $token, job: &crate::CoinbaseJob, extranonces: &[u8], roots: &mut [[u8; 32]]) {
                crate::arch::drive::merkle_roots::<$streams, { $lanes }>(token, job, extranonces, roots);
            }
            // SAFETY: the token proves that the CPU has these features.
            unsafe { entry(token, job, extranonces, roots) }
        }

        /// See [`drive::message_digests`](crate::arch::drive::message_digests).
        pub(crate) fn message_digests(
            token: $token,
            messages: &[&[u8]],
            blocks: usize,
            digests: &mut [[u8; 32]],
        ) {
            #[target_feature(enable = $features)]
            fn entry(token: $token, messages: &[&[u8]], blocks: usize, digests: &mut [[u8; 32]]) {
                crate::arch::drive::message_digests::<$streams, { $lanes }>(token, messages, blocks, digests);
            }
            // SAFETY: the token proves that the CPU has these features.
            unsafe { entry(token, messages, blocks, digests) }
        }

        /// See [`drive::scan_nonces`](crate::arch::drive::scan_nonces).
        pub(crate) fn scan_nonces(
            token: $token,
            header: &crate::HeaderBytes,
            first_nonce: u32,
            count: u32,
            target: &crate::Target,
            found: &mut alloc::vec::Vec<u32>,
            max_found: usize,
        ) -> u32 {
            #[target_feature(enable = $features)]
            fn entry(
                token: $token,
                header: &crate::HeaderBytes,
                range: (u32, u32),
                target: &crate::Target,
                found: &mut alloc::vec::Vec<u32>,
                max_found: usize,
            ) -> u32 {
                crate::arch::drive::scan_nonces::<$streams, { $lanes }>(
                    token, header, range.0, range.1, target, found, max_found,
                )
            }
            // SAFETY: the token proves that the CPU has these features.
            unsafe { entry(token, header, (first_nonce, count), target, found, max_found) }
        }
    };
}
pub(crate) use entries;
