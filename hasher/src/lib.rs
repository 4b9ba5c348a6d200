//! Batched double-SHA256, merkle roots, targets and difficulty.
//!
//! - [`BatchHash`] is the interface to hash with: headers, merkle roots of a [`CoinbaseJob`]'s extranonces, nonce scans. Its
//!   implementations agree on every result.
//! - [`Portable`] is the one for every CPU, and the oracle that the others are proven against. With feature `kernels`, which
//!   needs `std`, `Hasher` adds SHA-NI, AVX2 and AVX-512.
//! - [`Target`], [`Digest`] and the functions on merkle trees need no feature; with none the crate is `no_std` with `alloc`
//!   and free of `unsafe`.
//!
//! Bytes are in internal order throughout: digests as SHA-256 gives them, targets little-endian. Only `Display` reverses.
//!
//! # Which kernel
//! `Hasher::detect` measures the kernels that the CPU can run, once per process, in about 1 ms, and picks one by batch
//! size. Feature bits alone would choose wrongly: a pass over 16 lanes costs the same for one message as for 16, and SHA units
//! differ twofold per clock. On a Sapphire Rapids, SHA-NI wins up to 4 messages, AVX-512 with 8 lanes up to 8, and with
//! 16 lanes from 9 on; on a Zen 3 SHA-NI wins always. `Hasher::describe` says what was chosen. `Hasher::forced` takes one
//! backend for all sizes: for tests, and where an operator knows better.
//!
//! Callers hand over what they have and never wait to fill lanes. Rows of one job belong together: a coinbase's fixed blocks are
//! hashed or expanded once per job, and what remains of each row is one or two blocks, the rounds of the fixed tail, a second
//! hash, and three compressions for each node of the path.
//!
//! # Figures
//! Nanoseconds a message on an AMD EPYC (Zen 3, 2 virtual cores, 2.4 GHz), Rust 1.95, release build, by
//! `cargo run --release -p adit-hasher --example figures`: the least of 3,000 runs, since the machine was shared. Coinbases
//! have 247 bytes.
//!
//! | batch of | 1 | 2 | 8 | 16 | 256 |
//! |---|---|---|---|---|---|
//! | headers, `sha2` 0.11 (SHA-NI) | 170 | 150 | 139 | 136 | 134 |
//! | headers, portable | 769 | 770 | 773 | 767 | 766 |
//! | headers, SHA-NI | 106 | 62 | 61 | 60 | 59 |
//! | headers, AVX2 | 1020 | 511 | 125 | 124 | 123 |
//! | roots, depth 12, SHA-NI | 1634 | 825 | 825 | 820 | 820 |
//! | roots, depth 12, AVX2 | 11240 | 5644 | 1383 | 1409 | 1377 |
//!
//! A nonce of a scan takes 37.5 ns with SHA-NI, 82 with AVX2, 507 without either. This machine has no AVX-512: prototypes of
//! these kernels took 42 ns a header with 16 lanes and 60 with 8 on a Sapphire Rapids, where SHA-NI took 90. The same sweep
//! under criterion, every backend beside `sha2`: `cargo bench -p adit-bench --bench hasher`.
//!
//! Lost experiments: two AVX-512 groups of 16 in one body (they spill); three or four interleaved SHA-NI messages (no
//! gain over two); two SHA-NI messages without a barrier between groups of rounds (the compiler unravels them into one after
//! the other: 102 ns a header).
#![cfg_attr(not(feature = "kernels"), no_std)]
#![cfg_attr(not(feature = "kernels"), forbid(unsafe_code))]

extern crate alloc;

#[cfg(feature = "kernels")]
mod arch;
#[cfg(feature = "kernels")]
mod backend;
mod batch;
mod coinbase;
mod difficulty;
mod digest;
mod merkle;
#[cfg(feature = "kernels")]
mod plan;
mod portable;
mod sha256;
mod target;

#[cfg(feature = "kernels")]
pub use backend::{Backend, BackendError, Hasher};
pub use batch::{BatchHash, HeaderBytes};
pub use coinbase::{
    COINBASE_PART_LEN_MAX, CoinbaseJob, CoinbaseJobError, EXTRANONCE_LEN_MAX, MERKLE_PATH_LEN_MAX,
};
pub use digest::Digest;
pub use merkle::{merkle_path, merkle_root, merkle_root_from_path};
pub use portable::Portable;
pub use target::{NbitsError, Target};
