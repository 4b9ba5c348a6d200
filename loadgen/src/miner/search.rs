//! Where a device searches: no header is tried twice in the life of a channel.
//!
//! The position is one number that only rises, across jobs as well: two jobs can share one header space, since a pool
//! repeats a job under a new id when a target changes. Its low bits are the nonce; what lies above rolls the extranonce
//! first, then the version bits of BIP323, then ntime, as far as the time allows.

use std::sync::Arc;

use adit_hasher::{BatchHash, HeaderBytes};
use adit_proto::Instant;
use adit_proto::mining::client::{BIP323_VERSION_MASK, Work};

/// Bits of the nonce that are tried before the extranonce rolls: all with standard jobs, else so few that a CPU rolls
/// several times a second.
const NONCE_BITS_STANDARD: u32 = 32;
const NONCE_BITS_EXTENDED: u32 = 20;
/// Bits of the version that may be rolled, and where they begin.
const VERSION_BITS: u32 = BIP323_VERSION_MASK.count_ones();
const VERSION_SHIFT: u32 = BIP323_VERSION_MASK.trailing_zeros();
/// More extranonce is not counted with; the bytes above stay zero.
const EXTRANONCE_BITS_MAX: u32 = 64;

/// A stretch of nonces to scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) header: HeaderBytes,
    pub(super) first_nonce: u32,
    pub(super) count: u32,
    pub(super) version: u32,
    pub(super) ntime: u32,
}

/// One channel's search.
#[derive(Debug, Default)]
pub(super) struct Search {
    work: Option<Arc<Work>>,
    position: u128,
    /// The bytes submitted with shares of extended channels.
    pub(super) extranonce: Vec<u8>,
    /// The root for these bytes; `None` before it was computed for the work at hand.
    merkle_root: Option<[u8; 32]>,
    /// Positions of ntime's rolls count from here: a header space that was left begins at its own ntime.
    ntime_origin: u128,
}

impl Search {
    /// Turns to new work, where the old one was left.
    pub(super) fn turn_to(&mut self, work: Option<Arc<Work>>) {
        self.merkle_root = None;
        let Some(work) = work else {
            self.work = None;
            return;
        };
        self.extranonce.resize(work.extranonce_size(), 0);
        let is_fresh = self.work.as_ref().is_none_or(|old| {
            old.prev_hash != work.prev_hash || old.version_rolling_allowed != work.version_rolling_allowed
        });
        self.work = Some(work);
        if is_fresh {
            // Another header space, whatever the position: ntime begins anew.
            self.ntime_origin = self.rolls() >> self.ntime_shift();
        }
    }

    fn nonce_bits(&self) -> u32 {
        if self.extranonce.is_empty() { NONCE_BITS_STANDARD } else { NONCE_BITS_EXTENDED }
    }

    fn extranonce_bits(&self) -> u32 {
        u32::try_from(self.extranonce.len() * 8).unwrap_or(u32::MAX).min(EXTRANONCE_BITS_MAX)
    }

    fn version_bits(&self) -> u32 {
        if self.work.as_ref().is_some_and(|work| work.version_rolling_allowed) { VERSION_BITS } else { 0 }
    }

    /// What lies above the nonce.
    fn rolls(&self) -> u128 {
        self.position >> self.nonce_bits()
    }

    /// How far above ntime's rolls begin.
    fn ntime_shift(&self) -> u32 {
        self.extranonce_bits() + self.version_bits()
    }

    /// The next nonces to scan, at most `count_max` of them; `None` without work, or while ntime cannot roll further.
    pub(super) fn next_slice(
        &mut self,
        count_max: u32,
        now: Instant,
        hashes: &impl BatchHash,
    ) -> Option<Slice> {
        let work = Arc::clone(self.work.as_ref()?);
        let rolls = self.rolls();
        let (extranonce_bits, version_bits) = (self.extranonce_bits(), self.version_bits());

        let ntime_roll = (rolls >> self.ntime_shift()).saturating_sub(self.ntime_origin);
        let ntime = work.min_ntime.checked_add(u32::try_from(ntime_roll).ok()?)?;
        if ntime > work.ntime_max(now) {
            return None;
        }
        let version_roll = (rolls >> extranonce_bits) & ((1 << version_bits) - 1);
        let version = work.version ^ u32::try_from(version_roll).ok()?.checked_shl(VERSION_SHIFT)?;
        let merkle_root = self.merkle_root(&work, rolls & ((1 << extranonce_bits) - 1), hashes)?;

        let space: u128 = 1 << self.nonce_bits();
        let nonce = self.position & (space - 1);
        let count = u128::from(count_max).min(space - nonce);
        let first_nonce = u32::try_from(nonce).ok()?;
        let header = work.header_with_root(&merkle_root, version, ntime, 0);
        Some(Slice { header, first_nonce, count: u32::try_from(count).ok()?, version, ntime })
    }

    /// The root for an extranonce, which changes much less often than slices are taken.
    fn merkle_root(&mut self, work: &Work, roll: u128, hashes: &impl BatchHash) -> Option<[u8; 32]> {
        let counter = roll.to_be_bytes();
        let len = self.extranonce.len().min(counter.len());
        let tail_at = self.extranonce.len() - len;
        let counter = &counter[counter.len() - len..];
        if self.merkle_root.is_none() || self.extranonce[tail_at..] != *counter {
            self.extranonce[tail_at..].copy_from_slice(counter);
            self.merkle_root = work.merkle_root(&self.extranonce, hashes);
        }
        self.merkle_root
    }

    /// `tried` nonces of the last slice are done.
    pub(super) fn advance(&mut self, tried: u32) {
        self.position += u128::from(tried);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use adit_hasher::{Portable, Target};
    use adit_proto::mining::client::WorkKind;
    use adit_proto::mining::server::{ChannelId, JobId};

    use super::*;

    fn work(job: u32, version_rolling_allowed: bool, root: u8) -> Arc<Work> {
        Arc::new(Work {
            channel: ChannelId(64),
            job_id: JobId(job),
            version: 0x2000_0000,
            version_rolling_allowed,
            prev_hash: [7; 32],
            nbits: 0x207f_ffff,
            min_ntime: 1_000,
            since: Instant::ZERO,
            target: Target::MAX,
            kind: WorkKind::Standard { merkle_root: [root; 32] },
        })
    }

    #[test]
    fn a_repeated_job_is_continued_not_begun_again() {
        let mut search = Search::default();
        let mut seen = HashSet::new();
        for job in 1..20 {
            search.turn_to(Some(work(job, true, u8::from(job % 2 == 0))));
            let slice = search.next_slice(1_000, Instant::ZERO, &Portable).unwrap();
            for nonce in slice.first_nonce..slice.first_nonce + slice.count {
                assert!(seen.insert((slice.header, nonce)));
            }
            search.advance(slice.count);
        }
    }

    #[test]
    fn version_rolls_when_the_nonces_are_used_up_and_then_ntime() {
        let mut search = Search::default();
        search.turn_to(Some(work(1, true, 0)));
        search.position = (1 << 32) - 10;
        let slice = search.next_slice(1_000, Instant::ZERO, &Portable).unwrap();
        assert_eq!((slice.first_nonce, slice.count, slice.version), (u32::MAX - 9, 10, 0x2000_0000));
        search.advance(10);
        let slice = search.next_slice(1_000, Instant::ZERO, &Portable).unwrap();
        assert_eq!((slice.first_nonce, slice.count, slice.version), (0, 1_000, 0x2000_0020));
        search.position = (1 << (32 + VERSION_BITS)) - 1;
        let slice = search.next_slice(1_000, Instant::ZERO, &Portable).unwrap();
        assert_eq!((slice.count, slice.version, slice.ntime), (1, 0x2000_0000 ^ BIP323_VERSION_MASK, 1_000));
        search.advance(1);
        assert_eq!(search.next_slice(1_000, Instant::ZERO, &Portable), None, "the time has not come");
        let later = Instant::ZERO + Duration::from_secs(1);
        let slice = search.next_slice(1_000, later, &Portable).unwrap();
        assert_eq!((slice.version, slice.ntime), (0x2000_0000, 1_001));
    }

    #[test]
    fn without_version_rolling_ntime_follows_the_nonces_and_begins_anew_on_a_tip() {
        let mut search = Search::default();
        search.turn_to(Some(work(1, false, 0)));
        search.position = 3 << 32;
        assert_eq!(search.next_slice(1, Instant::ZERO, &Portable), None);
        let later = Instant::ZERO + Duration::from_secs(3);
        assert_eq!(search.next_slice(1, later, &Portable).unwrap().ntime, 1_003);
        // The same tip: the rolls that were made count.
        search.turn_to(Some(work(2, false, 0)));
        assert_eq!(search.next_slice(1, later, &Portable).unwrap().ntime, 1_003);
        let mut tip = Work::clone(&work(3, false, 0));
        tip.prev_hash = [8; 32];
        search.turn_to(Some(Arc::new(tip)));
        let slice = search.next_slice(1, Instant::ZERO, &Portable).unwrap();
        assert_eq!((slice.version, slice.ntime), (0x2000_0000, 1_000));
    }
}
