//! What a device hashes (specification 5.3.15 and 5.3.16).

use alloc::sync::Arc;
use core::time::Duration;

use adit_hasher::{BatchHash, EXTRANONCE_LEN_MAX, HeaderBytes, Portable, Target};

use super::job::{ExtendedJob, ExtranoncePrefix};
use crate::mining::server::{ChannelId, JobId};
use crate::time::Instant;

/// The bits of a header's version that BIP323 frees for rolling.
pub const BIP323_VERSION_MASK: u32 = 0x1fff_ffe0;

/// A channel's active job with all that is needed to hash it. It can leave the client, for another thread.
#[derive(Clone, Debug)]
pub struct Work {
    /// Whose.
    pub channel: ChannelId,
    /// The job that shares name.
    pub job_id: JobId,
    /// Header version.
    pub version: u32,
    /// Whether the bits of [`BIP323_VERSION_MASK`] may be changed.
    pub version_rolling_allowed: bool,
    /// Hash of the block to build on.
    pub prev_hash: [u8; 32],
    /// Compact target for the header; what a share must meet is `target`.
    pub nbits: u32,
    /// The smallest ntime, and the one to begin with.
    pub min_ntime: u32,
    /// When [`min_ntime`](Self::min_ntime) was the time: it may be rolled by as much as has passed since.
    pub since: Instant,
    /// What a share's digest must meet.
    pub target: Target,
    /// The merkle root, or how to get one.
    pub kind: WorkKind,
}

/// Where a work's merkle root comes from.
#[derive(Clone, Debug)]
pub enum WorkKind {
    /// It is fixed.
    Standard {
        /// Header order.
        merkle_root: [u8; 32],
    },
    /// It follows from the extranonce.
    Extended {
        /// Coinbase and merkle path.
        job: Arc<ExtendedJob>,
        /// The fixed part of the extranonce.
        extranonce_prefix: ExtranoncePrefix,
        /// Bytes of the extranonce that may be rolled and are submitted.
        extranonce_size: usize,
    },
}

impl Work {
    /// The greatest ntime that a share may have at `now` (specification 5.3.11).
    pub fn ntime_max(&self, now: Instant) -> u32 {
        self.min_ntime.saturating_add(whole_seconds(now.since(self.since)))
    }

    /// Bytes of extranonce that [`header`](Self::header) takes: zero for standard jobs.
    pub fn extranonce_size(&self) -> usize {
        match self.kind {
            WorkKind::Standard { .. } => 0,
            WorkKind::Extended { extranonce_size, .. } => extranonce_size,
        }
    }

    /// The merkle root for an extranonce; `None` if that has not [`extranonce_size`](Self::extranonce_size) bytes.
    pub fn merkle_root(&self, extranonce: &[u8], hashes: &impl BatchHash) -> Option<[u8; 32]> {
        if extranonce.len() != self.extranonce_size() {
            return None;
        }
        match &self.kind {
            WorkKind::Standard { merkle_root } => Some(*merkle_root),
            WorkKind::Extended { job, extranonce_prefix, .. } => {
                merkle_root(job, extranonce_prefix, extranonce, hashes)
            }
        }
    }

    /// The header with a merkle root from [`merkle_root`](Self::merkle_root).
    pub fn header_with_root(
        &self,
        merkle_root: &[u8; 32],
        version: u32,
        ntime: u32,
        nonce: u32,
    ) -> HeaderBytes {
        let mut header = [0; 80];
        header[0..4].copy_from_slice(&version.to_le_bytes());
        header[4..36].copy_from_slice(&self.prev_hash);
        header[36..68].copy_from_slice(merkle_root);
        header[68..72].copy_from_slice(&ntime.to_le_bytes());
        header[72..76].copy_from_slice(&self.nbits.to_le_bytes());
        header[76..80].copy_from_slice(&nonce.to_le_bytes());
        header
    }

    /// The header for an extranonce, hashed without any kernel; `None` if that has not
    /// [`extranonce_size`](Self::extranonce_size) bytes.
    pub fn header(&self, extranonce: &[u8], version: u32, ntime: u32, nonce: u32) -> Option<HeaderBytes> {
        let merkle_root = self.merkle_root(extranonce, &Portable)?;
        Some(self.header_with_root(&merkle_root, version, ntime, nonce))
    }
}

/// The merkle root of a job for a prefix and what follows it; `None` if these have not the job's size together.
pub(super) fn merkle_root(
    job: &ExtendedJob,
    prefix: &ExtranoncePrefix,
    extranonce: &[u8],
    hashes: &impl BatchHash,
) -> Option<[u8; 32]> {
    let prefix = prefix.as_slice();
    let len = prefix.len() + extranonce.len();
    if len != job.coinbase.extranonce_len() {
        return None;
    }
    let mut full = [0; EXTRANONCE_LEN_MAX];
    full.get_mut(..prefix.len())?.copy_from_slice(prefix);
    full.get_mut(prefix.len()..len)?.copy_from_slice(extranonce);
    let mut root = [[0; 32]];
    hashes.merkle_roots(&job.coinbase, &full[..len], &mut root);
    Some(root[0])
}

/// Seconds as ntime counts them.
pub(super) fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
