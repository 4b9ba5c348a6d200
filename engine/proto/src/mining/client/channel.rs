//! A channel: its target, prefix, jobs and shares (specification 5.2, 5.3.10 to 5.3.21).
//!
//! A job waits as a future job until SetNewPrevHash names it, or is active from the start. The target is bound when a job
//! becomes active: SetTarget applies to later and to future jobs. SetNewPrevHash invalidates every other job.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use adit_hasher::{BatchHash, Target};

use super::config::ClientLimits;
use super::fault::Refusal;
use super::job::{ExtranoncePrefix, Job, JobBody};
use super::outstanding::Outstanding;
use super::work::{BIP323_VERSION_MASK, Work, WorkKind, merkle_root, whole_seconds};
use crate::mining::server::{ChannelId, JobId};
use crate::time::Instant;

/// What kind of jobs a channel gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// Header-only mining.
    Standard,
    /// The extranonce may be rolled.
    Extended {
        /// Bytes of it that belong to the channel.
        extranonce_size: u16,
    },
}

impl ChannelKind {
    /// Bytes of extranonce behind the prefix.
    pub const fn extranonce_size(self) -> usize {
        match self {
            Self::Standard => 0,
            Self::Extended { extranonce_size } => extranonce_size as usize,
        }
    }
}

/// The tip as the last SetNewPrevHash told it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    pub(super) prev_hash: [u8; 32],
    pub(super) nbits: u32,
    pub(super) min_ntime: u32,
    pub(super) received_at: Instant,
}

/// A job that shares may be sent for.
#[derive(Clone, Debug)]
struct ActiveJob {
    job: Job,
    target: Target,
    /// Smallest ntime, and when it was told.
    min_ntime: u32,
    since: Instant,
}

/// What a share is made of, as the channel checks it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShareForm {
    pub(super) job: JobId,
    pub(super) ntime: u32,
    pub(super) version: u32,
}

/// A channel on an upstream connection.
#[derive(Clone, Debug)]
pub struct ClientChannel {
    id: ChannelId,
    kind: ChannelKind,
    pub(super) group: ChannelId,
    pub(super) target: Target,
    /// The easiest target that was ever asked for: one that was on its way when less was asked for is no fault.
    pub(super) max_target: Target,
    pub(super) prefix: ExtranoncePrefix,
    tip: Option<Tip>,
    future: VecDeque<Job>,
    /// On the present tip; the last is the current one.
    active: VecDeque<ActiveJob>,
    pub(super) outstanding: Outstanding,
}

impl ClientChannel {
    pub(super) fn new(
        id: ChannelId,
        kind: ChannelKind,
        group: ChannelId,
        target: Target,
        max_target: Target,
        prefix: ExtranoncePrefix,
    ) -> Self {
        Self {
            id,
            kind,
            group,
            target,
            max_target,
            prefix,
            tip: None,
            future: VecDeque::new(),
            active: VecDeque::new(),
            outstanding: Outstanding::new(),
        }
    }

    /// Its id on the connection.
    pub fn id(&self) -> ChannelId {
        self.id
    }

    /// Standard or extended.
    pub fn kind(&self) -> ChannelKind {
        self.kind
    }

    /// The group that it belongs to.
    pub fn group(&self) -> ChannelId {
        self.group
    }

    /// The target of jobs that become active from now on.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The extranonce prefix of jobs that come from now on.
    pub fn extranonce_prefix(&self) -> &[u8] {
        self.prefix.as_slice()
    }

    /// Bytes of a full extranonce: prefix, and what the channel may roll.
    pub fn extranonce_len(&self) -> usize {
        self.prefix.as_slice().len() + self.kind.extranonce_size()
    }

    /// Shares that wait for an answer.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// The job that is to be mined.
    pub fn current_job(&self) -> Option<JobId> {
        self.active.back().map(|active| active.job.id)
    }

    /// The future jobs that wait for a SetNewPrevHash, oldest first.
    pub fn future_jobs(&self) -> impl Iterator<Item = JobId> {
        self.future.iter().map(|job| job.id)
    }

    /// What is to be mined, as if the upstream allowed version rolling.
    pub(super) fn work(&self, hashes: &impl BatchHash) -> Option<Work> {
        let (active, tip) = (self.active.back()?, self.tip?);
        let (version, version_rolling_allowed, kind) = match (&active.job.body, self.kind) {
            (JobBody::Standard { version, merkle_root }, _) => {
                (*version, true, WorkKind::Standard { merkle_root: *merkle_root })
            }
            (JobBody::Extended(job), ChannelKind::Standard) => {
                let merkle_root = merkle_root(job, &active.job.prefix, &[], hashes)?;
                (job.version, job.version_rolling_allowed, WorkKind::Standard { merkle_root })
            }
            (JobBody::Extended(job), ChannelKind::Extended { .. }) => {
                let kind = WorkKind::Extended {
                    job: Arc::clone(job),
                    extranonce_prefix: active.job.prefix,
                    extranonce_size: self.kind.extranonce_size(),
                };
                (job.version, job.version_rolling_allowed, kind)
            }
        };
        Some(Work {
            channel: self.id,
            job_id: active.job.id,
            version,
            version_rolling_allowed,
            prev_hash: tip.prev_hash,
            nbits: tip.nbits,
            min_ntime: active.min_ntime,
            since: active.since,
            target: active.target,
            kind,
        })
    }

    pub(super) fn has_job(&self, id: JobId) -> bool {
        self.is_future(id) || self.active_job(id).is_some()
    }

    pub(super) fn is_future(&self, id: JobId) -> bool {
        self.future.iter().any(|job| job.id == id)
    }

    fn active_job(&self, id: JobId) -> Option<&ActiveJob> {
        self.active.iter().rev().find(|active| active.job.id == id)
    }

    pub(super) fn has_tip(&self) -> bool {
        self.tip.is_some()
    }

    /// Keeps a future job; the oldest makes room.
    pub(super) fn receive_future(&mut self, id: JobId, body: JobBody, limits: &ClientLimits) {
        if self.future.len() >= limits.future_jobs_max {
            self.future.pop_front();
        }
        self.future.push_back(Job { id, body, prefix: self.prefix });
    }

    /// Makes a new job current, with the present target.
    pub(super) fn receive_active(
        &mut self,
        id: JobId,
        body: JobBody,
        min_ntime: u32,
        now: Instant,
        limits: &ClientLimits,
    ) {
        if self.active.len() >= limits.active_jobs_max {
            self.active.pop_front();
        }
        let job = Job { id, body, prefix: self.prefix };
        let min_ntime = self.tip.map_or(min_ntime, |tip| min_ntime.max(tip.min_ntime));
        self.active.push_back(ActiveJob { job, target: self.target, min_ntime, since: now });
    }

    /// Makes a future job the only valid one, on a new tip. The job must be there.
    pub(super) fn activate(&mut self, id: JobId, tip: Tip) {
        let Some(position) = self.future.iter().position(|job| job.id == id) else { return };
        let Some(job) = self.future.remove(position) else { return };
        self.future.clear();
        self.active.clear();
        let (min_ntime, since) = (tip.min_ntime, tip.received_at);
        self.active.push_back(ActiveJob { job, target: self.target, min_ntime, since });
        self.tip = Some(tip);
    }

    /// Whether a share's form is one that the upstream can accept.
    pub(super) fn check_share(
        &self,
        share: ShareForm,
        fixed_version: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(active) = self.active_job(share.job) else {
            return Err(if self.is_future(share.job) { Refusal::FutureJob } else { Refusal::UnknownJob });
        };
        let tip = self.tip.ok_or(Refusal::UnknownJob)?;
        let ahead =
            |min_ntime: u32, since: Instant| min_ntime.saturating_add(whole_seconds(now.since(since)));
        let ntime_max = ahead(tip.min_ntime, tip.received_at).max(ahead(active.min_ntime, active.since));
        if !(active.min_ntime..=ntime_max).contains(&share.ntime) {
            return Err(Refusal::NtimeOutOfRange);
        }
        let (version, rolling) = match &active.job.body {
            JobBody::Standard { version, .. } => (*version, true),
            JobBody::Extended(job) => (job.version, job.version_rolling_allowed),
        };
        let free = if rolling && !fixed_version { BIP323_VERSION_MASK } else { 0 };
        if (share.version ^ version) & !free != 0 {
            return Err(Refusal::VersionBits);
        }
        Ok(())
    }
}
