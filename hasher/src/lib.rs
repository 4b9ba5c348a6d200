//! Batched double-SHA256, merkle roots, targets and difficulty.
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
