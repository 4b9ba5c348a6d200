//! Shares as they arrive (specification 5.3.11, 5.3.12): refused at once if something plain is wrong, else given a ticket
//! and a lane in the batch. The cheapest checks come first; nothing is hashed and nothing allocated here.

use core::hint::black_box;

use adit_codec::frame::FrameHeader;
use adit_codec::message::{MessageKind, SubmitSharesError, SubmitSharesExtended, SubmitSharesStandard};
use adit_hasher::BatchHash;

use super::batch::{SHARES_PENDING_MAX, Ticket, header};
use super::channel::Kind;
use super::config::EXTRANONCE_LEN_MAX;
use super::directory::Lookup;
use super::event::{ChannelId, ConnectionId, JobId};
use super::extranonce::PREFIX_LEN;
use super::slab::NONE;
use super::{Server, ServerOutbox, ShareError};
use crate::outbox::Priority;
use crate::time::Instant;

/// Shares whose channels are read together before they are admitted; of more frames, the first. More than are opened together.
const READ_TOGETHER: usize = 64;

/// Channels up to which they are in a near cache: half a megabyte.
const CHANNELS_NEAR: u32 = 4_096;

/// The bits of a version that a channel may roll (BIP323).
pub(super) const VERSION_ROLLING_MASK: u32 = 0x1fff_ffe0;

/// A share of either kind.
#[derive(Debug)]
pub(super) struct Submission<'a> {
    pub(super) channel: ChannelId,
    pub(super) sequence_number: u32,
    pub(super) job: JobId,
    pub(super) nonce: u32,
    pub(super) ntime: u32,
    pub(super) version: u32,
    /// Of SubmitSharesExtended.
    pub(super) extranonce: Option<&'a [u8]>,
    /// Worker named by extension 0x0002.
    pub(super) worker: &'a [u8],
}

impl<'a> Submission<'a> {
    pub(super) const fn standard(message: &SubmitSharesStandard) -> Self {
        Self {
            channel: ChannelId(message.channel_id),
            sequence_number: message.sequence_number,
            job: JobId(message.job_id),
            nonce: message.nonce,
            ntime: message.ntime,
            version: message.version,
            extranonce: None,
            worker: &[],
        }
    }

    pub(super) const fn extended(message: &SubmitSharesExtended<'a>, worker: &'a [u8]) -> Self {
        Self {
            channel: ChannelId(message.channel_id),
            sequence_number: message.sequence_number,
            job: JobId(message.job_id),
            nonce: message.nonce,
            ntime: message.ntime,
            version: message.version,
            extranonce: Some(message.extranonce),
            worker,
        }
    }
}

/// Whether the version of a share is one that its job allows.
fn check_version(share: u32, job: u32, version_rolling: bool) -> Result<(), ShareError> {
    let changed = share ^ job;
    if changed == 0 {
        Ok(())
    } else if !version_rolling {
        Err(ShareError::VersionRollingNotAllowed)
    } else if changed & !VERSION_ROLLING_MASK != 0 {
        Err(ShareError::InvalidVersionBits)
    } else {
        Ok(())
    }
}

/// The channel that a frame submits a share to, if it is such a frame.
fn channel_of_share(header: FrameHeader, payload: &[u8]) -> Option<ChannelId> {
    const STANDARD: u8 = MessageKind::SubmitSharesStandard.row().msg_type;
    const EXTENDED: u8 = MessageKind::SubmitSharesExtended.row().msg_type;
    // Both begin with it.
    let id = payload.first_chunk().filter(|_| matches!(header.msg_type, STANDARD | EXTENDED))?;
    Some(ChannelId(u32::from_le_bytes(*id)))
}

impl Server {
    /// Reads what the admission of shares will read first, where there are so many channels that theirs is in no near cache. Frames
    /// that are handled next are to be shown here: handled one by one, each waits for its own channel; read in a row, their
    /// places do not depend on one another, and the processor fetches them side by side.
    pub fn read_ahead<'a>(
        &self,
        id: ConnectionId,
        frames: impl IntoIterator<Item = (FrameHeader, &'a [u8])>,
    ) {
        if self.channels.len() <= CHANNELS_NEAR {
            return;
        }
        let Some(connection) = self.connection(id) else { return };
        let channels = frames.into_iter().filter_map(|(header, payload)| channel_of_share(header, payload));
        let (mut slots, mut count) = ([NONE; READ_TOGETHER], 0);
        for channel in channels.take(READ_TOGETHER) {
            if let Lookup::Open(slot) = connection.directory.lookup(self.ids, channel) {
                slots[count] = slot;
                count += 1;
            }
        }
        black_box(slots[..count].iter().fold(0, |sum, slot| sum ^ self.channels.touch(*slot)));
    }

    pub(super) fn handle_share(
        &mut self,
        id: ConnectionId,
        share: &Submission<'_>,
        now: Instant,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        if self.batch.len() >= SHARES_PENDING_MAX {
            self.settle(hashes, now, out);
        }
        if let Err(error) = self.admit(id, share, now) {
            self.refuse_share(id, share, error, now, out);
        }
    }

    /// Answers a share that is not judged by its hash.
    pub(super) fn refuse_share(
        &mut self,
        id: ConnectionId,
        share: &Submission<'_>,
        error: ShareError,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        self.counters.shares_rejected[error as usize] += 1;
        let Some(connection) = self.mining(id) else { return };
        if connection.directory.lookup(self.ids, share.channel) == Lookup::Closed {
            // It was under way when the channel was closed, and nothing may be said about that any more.
            return;
        }
        let answer = SubmitSharesError {
            channel_id: share.channel.0,
            sequence_number: share.sequence_number,
            error_code: error.code().as_bytes(),
        };
        out.send(id, Priority::Reply, &answer);
        self.count_error(id, now, out);
    }

    fn admit(&mut self, id: ConnectionId, share: &Submission<'_>, now: Instant) -> Result<(), ShareError> {
        let connection = self.connection(id).ok_or(ShareError::InvalidChannelId)?;
        let Lookup::Open(slot) = connection.directory.lookup(self.ids, share.channel) else {
            return Err(ShareError::InvalidChannelId);
        };
        let told = self.fan_out.told(id, connection);
        let channel = self.channels.get_mut(slot).ok_or(ShareError::InvalidChannelId)?;
        if (channel.kind() == Kind::Extended) != share.extranonce.is_some() {
            return Err(ShareError::InvalidChannelId);
        }
        let Some(job) = self.work.find(share.job) else {
            let stale = self.work.was_announced(share.job);
            return Err(if stale { ShareError::Stale } else { ShareError::InvalidJobId });
        };
        // A job that this channel was not given, or that no SetNewPrevHash has named to it, is not one of its jobs.
        let known = job.active.filter(|active| active.since >= channel.first_active && active.since <= told);
        let (Some(active), Some(tip)) = (known, self.work.tip()) else {
            return Err(ShareError::InvalidJobId);
        };
        // The tip's bound, not the job's later one: devices that go by their own clock do valid work below a repeated
        // job's min_ntime, and what they search twice is told by its digest.
        let ntime_max = tip.ntime_max(now, self.config.ntime_tolerance_s);
        if share.ntime < tip.prev_hash.header_timestamp || u64::from(share.ntime) > ntime_max {
            return Err(ShareError::NtimeOutOfRange);
        }
        check_version(share.version, job.source.template.version, self.config.version_rolling)?;
        let rolled = share.extranonce.unwrap_or_default();
        if rolled.len() != usize::from(channel.extranonce_size) {
            return Err(ShareError::BadExtranonceSize);
        }

        let prefix = channel.prefix_for(job.announced);
        let mut extranonce = [0; EXTRANONCE_LEN_MAX];
        extranonce[..PREFIX_LEN].copy_from_slice(&prefix);
        extranonce[PREFIX_LEN..][..rolled.len()].copy_from_slice(rolled);
        let (prev_hash, nbits) = (&tip.prev_hash.prev_hash, tip.prev_hash.nbits);
        let header = header(share.version, prev_hash, share.ntime, nbits, share.nonce);
        let worker = (self.batch.workers.len() as u32, share.worker.len() as u8);
        if channel.account == NONE {
            channel.account = self.batch.open_account(slot);
        }
        self.batch.workers.extend_from_slice(share.worker);
        self.batch.headers.push(header);
        self.batch.tickets.push(Ticket {
            channel: slot,
            sequence_number: share.sequence_number,
            target: channel.target_for(active.since),
            source: job.source.clone(),
            tip: tip.clone(),
            extranonce,
            size: (PREFIX_LEN + rolled.len()) as u8,
            has_root: false,
            worker,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_roll_within_bip323() {
        let job = 0x2000_0003;
        assert_eq!(check_version(job, job, false), Ok(()));
        assert_eq!(check_version(job ^ 0x20, job, false), Err(ShareError::VersionRollingNotAllowed));
        assert_eq!(check_version(job ^ VERSION_ROLLING_MASK, job, true), Ok(()));
        for bit in 0..32 {
            let allowed = (5..29).contains(&bit);
            assert_eq!(check_version(job ^ (1 << bit), job, true).is_ok(), allowed, "bit {bit}");
        }
    }
}
