//! Jobs as a channel keeps them, and the bound on their bytes.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use adit_codec::message::NewExtendedMiningJob;
use adit_hasher::{CoinbaseJob, CoinbaseJobError, EXTRANONCE_LEN_MAX};

use crate::mining::server::JobId;

/// The bytes of the extranonce that the upstream fixed for a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtranoncePrefix {
    len: u8,
    bytes: [u8; EXTRANONCE_LEN_MAX],
}

impl ExtranoncePrefix {
    /// A prefix of at most 32 bytes.
    pub fn new(prefix: &[u8]) -> Option<Self> {
        let mut bytes = [0; EXTRANONCE_LEN_MAX];
        bytes.get_mut(..prefix.len())?.copy_from_slice(prefix);
        Some(Self { len: u8::try_from(prefix.len()).ok()?, bytes })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What NewExtendedMiningJob carries, shared by all channels that got it and by whoever hashes it.
#[derive(Debug)]
pub struct ExtendedJob {
    /// Header version.
    pub version: u32,
    /// Whether the bits of BIP323 may be changed.
    pub version_rolling_allowed: bool,
    /// The coinbase before the extranonce, without witness.
    pub coinbase_tx_prefix: Box<[u8]>,
    /// The coinbase after the extranonce.
    pub coinbase_tx_suffix: Box<[u8]>,
    /// Hashes that lead from the coinbase to the root, the deepest first.
    pub merkle_path: Box<[[u8; 32]]>,
    /// All of it prepared for hashing with full extranonces.
    pub coinbase: CoinbaseJob,
}

impl ExtendedJob {
    /// Copies a message's job, for channels with a full extranonce of `extranonce_len` bytes.
    pub(super) fn new(
        message: &NewExtendedMiningJob<'_>,
        extranonce_len: usize,
    ) -> Result<Self, CoinbaseJobError> {
        let (prefix, suffix) = (message.coinbase_tx_prefix, message.coinbase_tx_suffix);
        let path = message.merkle_path.as_slice();
        Ok(Self {
            version: message.version,
            version_rolling_allowed: message.version_rolling_allowed,
            coinbase_tx_prefix: prefix.into(),
            coinbase_tx_suffix: suffix.into(),
            merkle_path: path.into(),
            coinbase: CoinbaseJob::new(prefix, extranonce_len, suffix, path)?,
        })
    }

    /// An estimate of the memory that a job takes, before it is made: the coinbase is kept as bytes and, where it follows
    /// the extranonce, as schedules of four times its size.
    fn bytes_of(message: &NewExtendedMiningJob<'_>) -> usize {
        size_of::<Self>()
            + message.coinbase_tx_prefix.len()
            + 5 * message.coinbase_tx_suffix.len()
            + 2 * message.merkle_path.len() * 32
    }
}

/// What is hashed for a job.
#[derive(Clone, Debug)]
pub(super) enum JobBody {
    Standard { version: u32, merkle_root: [u8; 32] },
    Extended(Arc<ExtendedJob>),
}

/// A job of one channel.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) body: JobBody,
    /// The channel's prefix when the job came: a later one does not apply (specification 5.3.10).
    pub(super) prefix: ExtranoncePrefix,
}

/// The bytes of all extended jobs in use. A job is in use while a channel or a device holds it, so that the sum is taken
/// anew, by asking each job, whenever twice as much was received as was in use the last time.
#[derive(Debug)]
pub(super) struct JobBytes {
    jobs: Vec<(Arc<ExtendedJob>, usize)>,
    bytes: usize,
    sweep_at: usize,
    bytes_max: usize,
}

/// Below this nothing is swept.
const SWEEP_AT_MIN: usize = 64 << 10;

impl JobBytes {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { jobs: Vec::new(), bytes: 0, sweep_at: SWEEP_AT_MIN, bytes_max }
    }

    /// Makes room for a job; the error holds the bytes that all would take.
    pub(super) fn reserve(&mut self, message: &NewExtendedMiningJob<'_>) -> Result<(), usize> {
        let with_it = |bytes: usize| bytes.saturating_add(ExtendedJob::bytes_of(message));
        if with_it(self.bytes) > self.sweep_at.min(self.bytes_max) {
            self.jobs.retain(|(job, _)| Arc::strong_count(job) > 1);
            self.bytes = self.jobs.iter().map(|(_, bytes)| bytes).sum();
            self.sweep_at = with_it(self.bytes).saturating_mul(2).max(SWEEP_AT_MIN);
        }
        if with_it(self.bytes) > self.bytes_max { Err(with_it(self.bytes)) } else { Ok(()) }
    }

    /// Counts a job that was reserved.
    pub(super) fn add(&mut self, job: &Arc<ExtendedJob>, message: &NewExtendedMiningJob<'_>) {
        let bytes = ExtendedJob::bytes_of(message);
        self.bytes = self.bytes.saturating_add(bytes);
        self.jobs.push((Arc::clone(job), bytes));
    }
}
