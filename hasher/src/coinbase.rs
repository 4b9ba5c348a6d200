//! What all lanes of an extended job share: the coinbase's fixed bytes and the merkle path.
//!
//! A coinbase is `prefix | extranonce | suffix`. The whole 64-byte blocks of the prefix become a midstate. The one or two
//! blocks that hold extranonce bytes become a template with a hole. Every later block, padding included, is the same for
//! all lanes, so its expanded schedule is kept: 256 bytes for 64 of the suffix, and its hashing costs the rounds only.

use alloc::vec::Vec;
use core::fmt;

use crate::sha256::{self, State};

/// The longest extranonce, prefix of the pool included, in bytes.
pub const EXTRANONCE_LEN_MAX: usize = 32;

/// The longest coinbase prefix and the longest suffix, in bytes: what the wire's `B0_64K` can hold. A job of that size
/// takes 256 KiB.
pub const COINBASE_PART_LEN_MAX: usize = 65_535;

/// The deepest merkle path. Consensus ends far below: a block has no room for 2^17 transactions.
pub const MERKLE_PATH_LEN_MAX: usize = 32;

/// Blocks that can hold extranonce bytes: 32 bytes cross at most one border.
pub(crate) const VARIABLE_BLOCKS_MAX: usize = 2;

const _: () = assert!(EXTRANONCE_LEN_MAX <= 64 * (VARIABLE_BLOCKS_MAX - 1) + 1);

/// Why a job was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CoinbaseJobError {
    /// The extranonce is longer than [`EXTRANONCE_LEN_MAX`].
    ExtranonceTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The prefix or the suffix is longer than [`COINBASE_PART_LEN_MAX`].
    CoinbaseTooLong {
        /// The length of the longer one in bytes.
        len: usize,
    },
    /// The merkle path is deeper than [`MERKLE_PATH_LEN_MAX`].
    MerklePathTooLong {
        /// The number of its nodes.
        len: usize,
    },
}

impl fmt::Display for CoinbaseJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtranonceTooLong { len } => {
                write!(f, "extranonce: {len} bytes, at most {EXTRANONCE_LEN_MAX}")
            }
            Self::CoinbaseTooLong { len } => {
                write!(f, "coinbase prefix or suffix: {len} bytes, at most {COINBASE_PART_LEN_MAX}")
            }
            Self::MerklePathTooLong { len } => {
                write!(f, "merkle path: {len} nodes, at most {MERKLE_PATH_LEN_MAX}")
            }
        }
    }
}

impl core::error::Error for CoinbaseJobError {}

/// An extended job, prepared for [`merkle_roots`](crate::BatchHash::merkle_roots).
///
/// Preparing costs one compression for each block of the coinbase; it is done once per job.
#[derive(Clone, Debug)]
pub struct CoinbaseJob {
    extranonce_len: usize,
    /// The chaining value after the prefix's whole blocks.
    pub(crate) midstate: State,
    /// The blocks with extranonce bytes, zero where these go.
    pub(crate) template: [u8; 64 * VARIABLE_BLOCKS_MAX],
    /// Where in `template` the extranonce begins: 0..64.
    pub(crate) hole: usize,
    /// How many blocks of `template` are in use: 1 or 2; 0 without an extranonce.
    pub(crate) variable_blocks: usize,
    /// The expanded schedules of the blocks after the template.
    pub(crate) constant: Vec<sha256::Schedule>,
    /// The siblings on the way to the root, as words.
    pub(crate) path: Vec<State>,
    /// The root itself, if there is no extranonce that could change it.
    pub(crate) root: Option<[u8; 32]>,
}

impl CoinbaseJob {
    /// Prepares a job. The coinbase comes without witness, since its id is the leaf; `extranonce_len` is that of the full
    /// extranonce; `merkle_path` is in internal byte order, the coinbase's sibling first.
    ///
    /// # Errors
    /// A part over its maximum: [`EXTRANONCE_LEN_MAX`], [`COINBASE_PART_LEN_MAX`], [`MERKLE_PATH_LEN_MAX`].
    pub fn new(
        coinbase_tx_prefix: &[u8],
        extranonce_len: usize,
        coinbase_tx_suffix: &[u8],
        merkle_path: &[[u8; 32]],
    ) -> Result<Self, CoinbaseJobError> {
        let part_len = coinbase_tx_prefix.len().max(coinbase_tx_suffix.len());
        if extranonce_len > EXTRANONCE_LEN_MAX {
            return Err(CoinbaseJobError::ExtranonceTooLong { len: extranonce_len });
        }
        if part_len > COINBASE_PART_LEN_MAX {
            return Err(CoinbaseJobError::CoinbaseTooLong { len: part_len });
        }
        if merkle_path.len() > MERKLE_PATH_LEN_MAX {
            return Err(CoinbaseJobError::MerklePathTooLong { len: merkle_path.len() });
        }

        let (whole, rest) = coinbase_tx_prefix.as_chunks::<64>();
        let mut midstate = sha256::IV;
        for block in whole {
            sha256::compress(&mut midstate, &sha256::words(block));
        }

        let hole = rest.len();
        let message_len = coinbase_tx_prefix.len() + extranonce_len + coinbase_tx_suffix.len();
        let mut tail = Vec::with_capacity(hole + extranonce_len + coinbase_tx_suffix.len() + 72);
        tail.extend_from_slice(rest);
        tail.resize(hole + extranonce_len, 0);
        tail.extend_from_slice(coinbase_tx_suffix);
        tail.push(0x80);
        tail.resize((tail.len() + 8).next_multiple_of(64) - 8, 0);
        tail.extend_from_slice(&(message_len as u64 * 8).to_be_bytes());

        let variable_blocks = if extranonce_len == 0 { 0 } else { (hole + extranonce_len).div_ceil(64) };
        let (variable, constant) = tail.split_at(64 * variable_blocks);
        let mut template = [0; 64 * VARIABLE_BLOCKS_MAX];
        template[..variable.len()].copy_from_slice(variable);

        let mut job = Self {
            extranonce_len,
            midstate,
            template,
            hole,
            variable_blocks,
            constant: constant
                .as_chunks::<64>()
                .0
                .iter()
                .map(|block| sha256::expand(&sha256::words(block)))
                .collect(),
            path: merkle_path.iter().map(|node| sha256::words(node)).collect(),
            root: None,
        };
        if extranonce_len == 0 {
            job.root = Some(job.root_of(&[]));
        }
        Ok(job)
    }

    /// The length of the full extranonce, in bytes: the length of a row in
    /// [`merkle_roots`](crate::BatchHash::merkle_roots).
    pub fn extranonce_len(&self) -> usize {
        self.extranonce_len
    }

    /// The number of nodes on the merkle path.
    pub fn merkle_path_len(&self) -> usize {
        self.path.len()
    }

    /// One merkle root, without any kernel. `extranonce` has the job's length.
    pub(crate) fn root_of(&self, extranonce: &[u8]) -> [u8; 32] {
        let mut template = self.template;
        template[self.hole..self.hole + self.extranonce_len].copy_from_slice(extranonce);
        let mut state = self.midstate;
        for block in &template.as_chunks::<64>().0[..self.variable_blocks] {
            sha256::compress(&mut state, &sha256::words(block));
        }
        for schedule in &self.constant {
            sha256::compress_const(&mut state, schedule);
        }
        let leaf = sha256::second(&state);
        sha256::to_bytes(&self.path.iter().fold(leaf, |left, right| sha256::node(&left, right)))
    }
}
