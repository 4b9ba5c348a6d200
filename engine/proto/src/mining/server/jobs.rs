//! A shard's work: the tip, the templates' coinbases, the jobs that are valid and the frames that announce them
//! (specification 5.1, 5.3.15 to 5.3.17).
//!
//! Owned here, for all connections of the shard: job ids (rising, never reused), [`Position`]s, and one encoded frame per
//! job and full extranonce size, built when it is first wanted. Invariants:
//! - `jobs` is in the order of announcement. Once a tip has its job, that one, announced as future and named by
//!   SetNewPrevHash, stands first and stays as long as the tip; every other job was announced later.
//! - A new tip invalidates all jobs but the one it names.
//! - Bounds: [`Limits::jobs_max`](super::config::Limits::jobs_max) active and as many future jobs; the oldest makes room.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::time::Duration;

use adit_codec::message::{NewExtendedMiningJob, SetNewPrevHash};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_hasher::CoinbaseJob;

use super::coinbase;
use super::config::{COINBASE_PREFIX_LEN_MAX, CoinbasePolicy, EXTRANONCE_LEN_MAX};
use super::error::TemplateError;
use super::event::JobId;
use super::history::Position;
use crate::template::{PrevHash, Template};
use crate::time::Instant;

/// Full extranonce sizes, zero included so that a size is an index.
const SIZES: usize = EXTRANONCE_LEN_MAX + 1;
/// A shard's first job.
const JOB_ID_FIRST: u32 = 1;
/// Fewer active jobs cannot be kept: the tip's own and the newest.
const JOBS_MIN: usize = 2;
/// The deepest merkle path and the longest coinbase part that hashing takes.
const MERKLE_PATH_LEN_MAX: usize = adit_hasher::MERKLE_PATH_LEN_MAX;
const COINBASE_PART_LEN_MAX: usize = adit_hasher::COINBASE_PART_LEN_MAX;

type Frames = [Option<Rc<[u8]>>; SIZES];

/// A template's coinbase, split at the extranonce, for one full extranonce size.
#[derive(Debug)]
pub(super) struct Coinbase {
    pub(super) prefix: Box<[u8]>,
    pub(super) hash: CoinbaseJob,
}

/// What the jobs made from one template share.
#[derive(Debug)]
pub(super) struct Source {
    /// Tells sources apart; never zero.
    pub(super) number: u32,
    pub(super) template: Arc<Template>,
    pub(super) suffix: Box<[u8]>,
    /// Whether the coinbase commits to witnesses.
    pub(super) witness: bool,
    pool_tag: Rc<[u8]>,
    coinbases: [OnceCell<Box<Coinbase>>; SIZES],
}

impl Source {
    /// The coinbase for a full extranonce of `size` bytes, 1 to 32.
    pub(super) fn coinbase(&self, size: usize) -> &Coinbase {
        self.coinbases[size].get_or_init(|| {
            let prefix = coinbase::prefix(&self.template, &self.pool_tag, size);
            let hash = CoinbaseJob::new(&prefix, size, &self.suffix, &self.template.merkle_path)
                .expect("a template is checked before it becomes a source");
            Box::new(Coinbase { prefix, hash })
        })
    }
}

/// The block to build on.
#[derive(Debug)]
pub(super) struct Tip {
    pub(super) prev_hash: Arc<PrevHash>,
    /// Another number for another `prev_hash`.
    pub(super) number: u32,
    pub(super) handled_at: Instant,
}

impl Tip {
    /// Whole seconds since the tip came.
    fn age_s(&self, now: Instant) -> u64 {
        now.since(self.handled_at).as_secs()
    }

    /// The nTime at which a job that is announced now starts: devices that begin a repeated job anew then search headers
    /// that they have not searched before.
    fn ntime(&self, now: Instant) -> u32 {
        let ntime = u64::from(self.prev_hash.header_timestamp) + self.age_s(now);
        u32::try_from(ntime).unwrap_or(u32::MAX)
    }

    /// The greatest nTime that a share may have (specification 5.3.11).
    pub(super) fn ntime_max(&self, now: Instant, tolerance_s: u32) -> u64 {
        u64::from(self.prev_hash.header_timestamp) + self.age_s(now) + u64::from(tolerance_s)
    }
}

/// Since when a job is active.
#[derive(Clone, Copy, Debug)]
pub(super) struct Active {
    pub(super) since: Position,
    pub(super) at: Instant,
    pub(super) min_ntime: u32,
}

/// A valid job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) source: Rc<Source>,
    pub(super) announced: Position,
    /// Whether the announcement left `min_ntime` unset.
    pub(super) as_future: bool,
    /// `None` while it is a future job.
    pub(super) active: Option<Active>,
    frames: Box<Frames>,
}

impl Job {
    /// `min_ntime` as announced.
    pub(super) fn announced_min_ntime(&self) -> Option<u32> {
        if self.as_future { None } else { self.active.map(|active| active.min_ntime) }
    }
}

/// The SetNewPrevHash of the present tip.
#[derive(Debug)]
struct Activation {
    position: Position,
    frames: Box<Frames>,
}

/// One thing that connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The job at this index of [`Work::jobs`].
    Announce(usize),
    /// The tip's SetNewPrevHash.
    Activate,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Work {
    policy: CoinbasePolicy,
    pool_tag: Rc<[u8]>,
    version_rolling: bool,
    jobs_max: usize,
    job_interval: Duration,
    jobs: VecDeque<Job>,
    tip: Option<Rc<Tip>>,
    activation: Option<Activation>,
    head: Position,
    next_job: u32,
    next_source: u32,
    last_template_id: Option<u64>,
    /// When the newest active job was announced.
    renewed_at: Instant,
}

impl Work {
    pub(super) fn new(
        policy: CoinbasePolicy,
        version_rolling: bool,
        jobs_max: usize,
        job_interval: Duration,
    ) -> Self {
        Self {
            pool_tag: policy.pool_tag.as_slice().into(),
            policy,
            version_rolling,
            jobs_max: jobs_max.max(JOBS_MIN),
            job_interval,
            jobs: VecDeque::new(),
            tip: None,
            activation: None,
            head: Position(0),
            next_job: JOB_ID_FIRST,
            next_source: 1,
            last_template_id: None,
            renewed_at: Instant::ZERO,
        }
    }

    /// The last position that was given.
    pub(super) const fn head(&self) -> Position {
        self.head
    }

    pub(super) const fn tip(&self) -> Option<&Rc<Tip>> {
        self.tip.as_ref()
    }

    pub(super) fn job(&self, index: usize) -> &Job {
        &self.jobs[index]
    }

    /// The valid job of this id.
    pub(super) fn find(&self, id: JobId) -> Option<&Job> {
        // Most shares are for the newest job.
        self.jobs.iter().rev().find(|job| job.id == id)
    }

    /// Whether a valid job was made from this source.
    pub(super) fn has_source(&self, number: u32) -> bool {
        self.jobs.iter().any(|job| job.source.number == number)
    }

    /// Whether the id was handed out once.
    pub(super) const fn was_announced(&self, id: JobId) -> bool {
        id.0 >= JOB_ID_FIRST && id.0 < self.next_job
    }

    /// Index of the job that a channel should work on now.
    pub(super) fn current(&self) -> Option<usize> {
        self.jobs
            .iter()
            .enumerate()
            .filter_map(|(index, job)| Some((job.active?.since, index)))
            .max()
            .map(|(_, index)| index)
    }

    /// Indices of the jobs that wait for a tip.
    pub(super) fn futures(&self) -> impl Iterator<Item = usize> {
        self.jobs.iter().enumerate().filter(|(_, job)| job.active.is_none()).map(|(index, _)| index)
    }

    /// Where the valid jobs became active.
    pub(super) fn activations(&self) -> impl Iterator<Item = Position> + Clone {
        self.jobs.iter().filter_map(|job| job.active.map(|active| active.since))
    }

    /// Where the valid jobs were announced.
    pub(super) fn announcements(&self) -> impl Iterator<Item = Position> + Clone {
        self.jobs.iter().map(|job| job.announced)
    }

    /// When the first job after `position` became active.
    pub(super) fn active_after(&self, position: Position) -> Option<Instant> {
        self.jobs
            .iter()
            .filter_map(|job| job.active)
            .filter(|active| active.since > position)
            .map(|active| active.at)
            .min()
    }

    /// What a connection that knows everything up to `from` is to be told up to `upto`, in order: the job that the tip
    /// names, the tip, the rest.
    pub(super) fn steps(&self, from: Position, upto: Position) -> impl Iterator<Item = Step> {
        let new = move |position: Position| from < position && position <= upto;
        let named = usize::from(self.activation.is_some());
        let announcements = |range: core::ops::Range<usize>| {
            range.filter(move |&index| new(self.jobs[index].announced)).map(Step::Announce)
        };
        let activate = self.activation.as_ref().filter(|activation| new(activation.position));
        announcements(0..named)
            .chain(activate.map(|_| Step::Activate))
            .chain(announcements(named..self.jobs.len()))
    }

    /// The frame of a step for the default group of a full extranonce size.
    pub(super) fn frame(&mut self, step: Step, size: usize) -> Rc<[u8]> {
        let built = match step {
            Step::Announce(index) => &self.jobs[index].frames[size],
            Step::Activate => &self.activation.as_ref().expect("a step of the present tip").frames[size],
        };
        if let Some(frame) = built {
            return frame.clone();
        }
        let frame = match step {
            Step::Announce(index) => {
                encode(&self.extended_job(index, size as u32, size, self.jobs[index].announced_min_ntime()))
            }
            Step::Activate => encode(&self.set_new_prev_hash(size as u32, 0)),
        };
        let place = match step {
            Step::Announce(index) => &mut self.jobs[index].frames[size],
            Step::Activate => &mut self.activation.as_mut().expect("a step of the present tip").frames[size],
        };
        place.insert(frame).clone()
    }

    /// The message that announces the job at `index` to a group or an extended channel.
    pub(super) fn extended_job(
        &self,
        index: usize,
        channel_id: u32,
        size: usize,
        min_ntime: Option<u32>,
    ) -> NewExtendedMiningJob<'_> {
        let job = &self.jobs[index];
        let template = &job.source.template;
        NewExtendedMiningJob {
            channel_id,
            job_id: job.id.0,
            min_ntime,
            version: template.version,
            version_rolling_allowed: self.version_rolling,
            merkle_path: template.merkle_path.as_slice().into(),
            coinbase_tx_prefix: &job.source.coinbase(size).prefix,
            coinbase_tx_suffix: &job.source.suffix,
        }
    }

    /// The nTime at which work begins that is announced now.
    pub(super) fn ntime(&self, now: Instant) -> u32 {
        self.tip.as_ref().map_or(0, |tip| tip.ntime(now))
    }

    /// The message that makes the job at `index` active on the present tip.
    pub(super) fn set_new_prev_hash(&self, channel_id: u32, index: usize) -> SetNewPrevHash<'_> {
        let job = &self.jobs[index];
        let tip = self.tip.as_ref().expect("an active job has a tip");
        let min_ntime = job.active.map_or(tip.prev_hash.header_timestamp, |active| active.min_ntime);
        SetNewPrevHash {
            channel_id,
            job_id: job.id.0,
            prev_hash: &tip.prev_hash.prev_hash,
            min_ntime,
            nbits: tip.prev_hash.nbits,
        }
    }

    /// Takes a template in: announced as future, as active, or as the one that the tip was waiting for.
    pub(super) fn handle_template(
        &mut self,
        template: &Arc<Template>,
        now: Instant,
    ) -> Result<(), TemplateError> {
        let source = self.source(template)?;
        self.last_template_id = Some(template.template_id);
        match &self.tip {
            Some(tip)
                if self.activation.is_some()
                    && (!template.future_template || tip.prev_hash.template_id == template.template_id) =>
            {
                self.announce_active(source, now);
            }
            Some(tip)
                if self.activation.is_none()
                    && (!template.future_template || tip.prev_hash.template_id == template.template_id) =>
            {
                // SetNewPrevHash ends the future jobs of clients, not the templates behind them.
                let pending: Vec<_> = self.futures().map(|index| self.jobs[index].source.clone()).collect();
                self.announce_future(source);
                self.activate(self.jobs.len() - 1, now);
                pending.into_iter().for_each(|source| self.announce_future(source));
            }
            _ => self.announce_future(source),
        }
        Ok(())
    }

    /// Takes a tip in. All jobs but the one it names become stale.
    pub(super) fn handle_prev_hash(
        &mut self,
        prev_hash: &Arc<PrevHash>,
        now: Instant,
    ) -> Result<(), TemplateError> {
        let same_tip = self.tip.as_ref().is_some_and(|tip| tip.prev_hash.prev_hash == prev_hash.prev_hash);
        if self.activation.is_some()
            && self.tip.as_ref().is_some_and(|tip| same_tip && *tip.prev_hash == **prev_hash)
        {
            return Ok(());
        }
        let of_template = |job: &&Job| job.source.template.template_id == prev_hash.template_id;
        let named = self.jobs.iter().filter(of_template).max_by_key(|job| job.active.is_none());
        let named = named.map(|job| (job.id, job.active.is_none(), job.source.clone()));
        if named.is_none() && same_tip {
            return Err(TemplateError::UnknownTemplate(prev_hash.template_id));
        }
        let number = self.tip.as_ref().map_or(1, |tip| tip.number.wrapping_add(u32::from(!same_tip)));
        self.tip = Some(Rc::new(Tip { prev_hash: prev_hash.clone(), number, handled_at: now }));
        self.activation = None;
        match named {
            Some((id, true, _)) => self.jobs.retain(|job| job.id == id),
            Some((_, false, source)) => {
                // It was announced as active, and SetNewPrevHash may name future jobs only.
                self.jobs.clear();
                self.announce_future(source);
            }
            None => {
                self.jobs.clear();
                return Err(TemplateError::UnknownTemplate(prev_hash.template_id));
            }
        }
        self.activate(0, now);
        Ok(())
    }

    /// When the newest job is to be repeated.
    pub(super) fn renewal(&self) -> Option<Instant> {
        self.current().map(|_| self.renewed_at + self.job_interval)
    }

    /// Announces the newest job again under a new id, which takes new targets and prefixes into effect.
    pub(super) fn renew(&mut self, now: Instant) {
        if let Some(index) = self.current() {
            let source = self.jobs[index].source.clone();
            self.announce_active(source, now);
        }
    }

    fn source(&mut self, template: &Arc<Template>) -> Result<Rc<Source>, TemplateError> {
        let id = template.template_id;
        if self.last_template_id.is_some_and(|last| id <= last) {
            return Err(TemplateError::NotRising(id));
        }
        if template.coinbase_prefix.len() > COINBASE_PREFIX_LEN_MAX {
            return Err(TemplateError::CoinbasePrefixTooLong(id));
        }
        if template.merkle_path.len() > MERKLE_PATH_LEN_MAX {
            return Err(TemplateError::MerklePathTooLong(id));
        }
        let outputs = &template.coinbase_tx_outputs;
        let witness = coinbase::commits_to_witnesses(outputs, template.coinbase_tx_outputs_count)
            .map_err(|_| TemplateError::OutputsMalformed(id))?;
        let suffix = coinbase::suffix(template, &self.policy);
        if suffix.len() > COINBASE_PART_LEN_MAX {
            return Err(TemplateError::CoinbaseTooLong(id));
        }
        let number = self.next_source;
        self.next_source = number.checked_add(1).unwrap_or(1);
        Ok(Rc::new(Source {
            number,
            template: template.clone(),
            suffix,
            witness,
            pool_tag: self.pool_tag.clone(),
            coinbases: [const { OnceCell::new() }; SIZES],
        }))
    }

    fn announce_future(&mut self, source: Rc<Source>) {
        let oldest = self.futures().next();
        if let Some(oldest) = oldest.filter(|_| self.futures().count() >= self.jobs_max) {
            self.jobs.remove(oldest);
        }
        self.announce(source, true);
    }

    fn announce_active(&mut self, source: Rc<Source>, now: Instant) {
        let min_ntime = self.ntime(now);
        while self.jobs.iter().filter(|job| job.active.is_some()).count() >= self.jobs_max {
            // Never the first: connections that are behind have yet to hear of the tip by its name.
            let oldest = self.jobs.iter().skip(1).position(|job| job.active.is_some());
            let Some(oldest) = oldest else { break };
            self.jobs.remove(oldest + 1);
        }
        self.announce(source, false);
        let since = self.head;
        if let Some(job) = self.jobs.back_mut() {
            job.active = Some(Active { since, at: now, min_ntime });
        }
        self.renewed_at = now;
    }

    fn announce(&mut self, source: Rc<Source>, as_future: bool) {
        self.head = self.head.next();
        let id = JobId(self.next_job);
        self.next_job += 1;
        let frames = Box::new([const { None }; SIZES]);
        self.jobs.push_back(Job { id, source, announced: self.head, as_future, active: None, frames });
    }

    /// Makes the future job at `index` the tip's.
    fn activate(&mut self, index: usize, now: Instant) {
        self.jobs.swap(0, index);
        self.jobs.truncate(1);
        self.head = self.head.next();
        let min_ntime = self.ntime(now);
        if let Some(job) = self.jobs.front_mut() {
            job.active = Some(Active { since: self.head, at: now, min_ntime });
        }
        self.activation = Some(Activation { position: self.head, frames: Box::new([const { None }; SIZES]) });
        self.renewed_at = now;
    }
}

fn encode<M: Encode>(message: &M) -> Rc<[u8]> {
    let mut frame = vec![0; frame_len(message)];
    let written = encode_frame(message, &mut frame).expect("a template is checked before it becomes a job");
    frame.truncate(written);
    frame.into()
}
