//! What a client knows: built from the frames it was sent, with the specification's rules and hashing of its own.

use std::collections::{BTreeMap, BTreeSet};

use adit_codec::message::{Message, SubmitSharesExtended, SubmitSharesStandard};
use adit_hasher::{Digest, Target};
use adit_proto::Priority;
use adit_proto::mining::server::ConnectionId;

use super::{Frame, World};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Root([u8; 32]),
    Coinbase { prefix: Vec<u8>, suffix: Vec<u8>, path: Vec<[u8; 32]>, rolling: bool },
}

#[derive(Clone, Debug)]
pub struct Job {
    pub version: u32,
    pub body: Body,
    /// Bound when it was announced.
    pub extranonce_prefix: Vec<u8>,
    /// Set, with the target bound, when it became active.
    pub active: Option<Active>,
}

#[derive(Clone, Copy, Debug)]
pub struct Active {
    pub min_ntime: u32,
    pub target: Target,
}

#[derive(Clone, Debug)]
pub struct Prev {
    pub prev_hash: [u8; 32],
    pub nbits: u32,
    pub header_timestamp: u32,
}

#[derive(Clone, Debug)]
pub struct Channel {
    pub id: u32,
    pub extended: bool,
    pub group: u32,
    pub extranonce_size: usize,
    pub extranonce_prefix: Vec<u8>,
    pub target: Target,
    pub jobs: BTreeMap<u32, Job>,
    pub last_job: Option<u32>,
    pub prev: Option<Prev>,
    pub messages: u32,
}

/// One connection from the client's side.
#[derive(Default)]
pub struct Mirror {
    pub channels: BTreeMap<u32, Channel>,
    pub closed: BTreeSet<u32>,
    pub standard_jobs: bool,
    pub accepted: u64,
    pub difficulty: u64,
    pub errors: Vec<(u32, u32, String)>,
    pub successes: Vec<(u32, u32, u32, u64)>,
    pub opened: Vec<u32>,
}

impl Mirror {
    /// Reads frames in the order in which they may arrive: work first where a driver reorders.
    pub fn read_all(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.read(frame);
        }
    }

    /// As [`read_all`](Self::read_all), with every waiting work frame ahead of every reply.
    pub fn read_reordered(&mut self, frames: &[Frame]) {
        for priority in [Priority::Work, Priority::Reply] {
            frames.iter().filter(|frame| frame.priority == priority).for_each(|frame| self.read(frame));
        }
    }

    pub fn close(&mut self, id: u32) {
        let members = self.addressed(id);
        for member in members {
            self.channels.remove(&member);
            self.closed.insert(member);
        }
    }

    fn addressed(&self, id: u32) -> Vec<u32> {
        assert!(!self.closed.contains(&id), "a message for channel {id} after its CloseChannel");
        if self.channels.contains_key(&id) {
            return vec![id];
        }
        let members: Vec<u32> = self.channels.values().filter(|c| c.group == id).map(|c| c.id).collect();
        assert!(!members.is_empty(), "channel or group {id} is not there");
        members
    }

    pub fn channel(&mut self, id: u32) -> &mut Channel {
        assert!(!self.closed.contains(&id), "a message for channel {id} after its CloseChannel");
        let channel = self.channels.get_mut(&id).expect("the channel is open");
        channel.messages += 1;
        channel
    }

    pub fn read(&mut self, frame: &Frame) {
        match frame.message() {
            Message::OpenStandardMiningChannelSuccess(m) => {
                let prefix = m.extranonce_prefix;
                self.open(m.channel_id, false, m.group_channel_id, 0, prefix, m.target);
            }
            Message::OpenExtendedMiningChannelSuccess(m) => {
                let size = usize::from(m.extranonce_size);
                self.open(m.channel_id, true, m.group_channel_id, size, m.extranonce_prefix, m.target);
            }
            Message::NewMiningJob(m) => {
                let channel = self.channel(m.channel_id);
                assert!(!channel.extended, "NewMiningJob on an extended channel");
                channel.announce(m.job_id, m.min_ntime, m.version, Body::Root(*m.merkle_root));
            }
            Message::NewExtendedMiningJob(m) => {
                assert!(!self.standard_jobs, "an extended job for a client that requires standard jobs");
                let own = self.channels.contains_key(&m.channel_id);
                for id in self.addressed(m.channel_id) {
                    let channel = self.channel(id);
                    assert!(channel.extended || !own, "an extended job addressed to a standard channel");
                    assert!(
                        channel.extended || channel.messages > 1,
                        "NewMiningJob is a standard channel's first message"
                    );
                    let body = Body::Coinbase {
                        prefix: m.coinbase_tx_prefix.to_vec(),
                        suffix: m.coinbase_tx_suffix.to_vec(),
                        path: m.merkle_path.iter().collect(),
                        rolling: m.version_rolling_allowed,
                    };
                    channel.announce(m.job_id, m.min_ntime, m.version, body);
                }
            }
            Message::SetNewPrevHash(m) => {
                for id in self.addressed(m.channel_id) {
                    let prev =
                        Prev { prev_hash: *m.prev_hash, nbits: m.nbits, header_timestamp: m.min_ntime };
                    self.channel(id).activate(m.job_id, prev, m.min_ntime);
                }
            }
            Message::SetTarget(m) => {
                for id in self.addressed(m.channel_id) {
                    self.channel(id).target = Target::from_le_bytes(*m.maximum_target);
                }
            }
            Message::SetExtranoncePrefix(m) => {
                self.channel(m.channel_id).extranonce_prefix = m.extranonce_prefix.to_vec();
            }
            Message::SetGroupChannel(m) => {
                assert!(!self.standard_jobs);
                assert!(!self.channels.contains_key(&m.group_channel_id));
                for id in m.channel_ids.iter() {
                    self.channel(id).group = m.group_channel_id;
                }
                let sizes: BTreeSet<usize> = self
                    .channels
                    .values()
                    .filter(|c| c.group == m.group_channel_id)
                    .map(|c| c.extranonce_prefix.len() + c.extranonce_size)
                    .collect();
                assert_eq!(sizes.len(), 1, "a group has one full extranonce size");
            }
            Message::CloseChannel(m) => self.close(m.channel_id),
            Message::SubmitSharesSuccess(m) => {
                self.channel(m.channel_id);
                self.accepted += u64::from(m.new_submits_accepted_count);
                self.difficulty += m.new_shares_sum;
                self.successes.push((
                    m.channel_id,
                    m.last_sequence_number,
                    m.new_submits_accepted_count,
                    m.new_shares_sum,
                ));
            }
            Message::SubmitSharesError(m) => {
                assert!(!self.closed.contains(&m.channel_id), "an answer after CloseChannel");
                let code = String::from_utf8(m.error_code.to_vec()).expect("ASCII");
                self.errors.push((m.channel_id, m.sequence_number, code));
            }
            Message::UpdateChannelError(m) => {
                assert!(!self.closed.contains(&m.channel_id), "an answer after CloseChannel");
            }
            Message::SetupConnectionSuccess(_)
            | Message::RequestExtensionsSuccess(_)
            | Message::RequestExtensionsError(_)
            | Message::OpenMiningChannelError(_)
            | Message::Reconnect(_)
            | Message::ChannelEndpointChanged(_) => {}
            other => panic!("a client does not expect {}", other.kind().name()),
        }
    }

    fn open(&mut self, id: u32, extended: bool, group: u32, size: usize, prefix: &[u8], target: &[u8; 32]) {
        assert!(id >= 64 && group < 64, "channels and groups share one namespace");
        assert!(!self.closed.contains(&id), "channel id {id} is used twice");
        assert!(prefix.len() + size <= 32);
        let channel = Channel {
            id,
            extended,
            group,
            extranonce_size: size,
            extranonce_prefix: prefix.to_vec(),
            target: Target::from_le_bytes(*target),
            jobs: BTreeMap::new(),
            last_job: None,
            prev: None,
            messages: 0,
        };
        assert!(self.channels.insert(id, channel).is_none(), "channel id {id} is used twice");
        self.opened.push(id);
    }
}

impl Channel {
    fn announce(&mut self, job_id: u32, min_ntime: Option<u32>, version: u32, body: Body) {
        assert!(
            !self.jobs.contains_key(&job_id),
            "job id {job_id} is in use by a valid job on channel {}",
            self.id
        );
        if let (Some(min_ntime), Some(prev)) = (min_ntime, &self.prev) {
            assert!(min_ntime >= prev.header_timestamp, "an active job below the tip's time");
        }
        assert!(min_ntime.is_none() || self.prev.is_some(), "an active job without a tip");
        let active = min_ntime.map(|min_ntime| Active { min_ntime, target: self.target });
        if active.is_some() {
            self.last_job = Some(job_id);
        }
        let extranonce_prefix = self.extranonce_prefix.clone();
        self.jobs.insert(job_id, Job { version, body, extranonce_prefix, active });
    }

    fn activate(&mut self, job_id: u32, prev: Prev, min_ntime: u32) {
        self.jobs.retain(|id, _| *id == job_id);
        let job = self.jobs.get_mut(&job_id).expect("SetNewPrevHash names a job that was sent");
        assert!(job.active.is_none(), "SetNewPrevHash names a job that was sent as future");
        job.active = Some(Active { min_ntime, target: self.target });
        self.last_job = Some(job_id);
        self.prev = Some(prev);
    }

    /// The header of a share, with a merkle root computed here.
    pub fn header(&self, job_id: u32, extranonce: &[u8], version: u32, ntime: u32, nonce: u32) -> [u8; 80] {
        let job = &self.jobs[&job_id];
        let prev = self.prev.as_ref().expect("a tip");
        let root = match &job.body {
            Body::Root(root) => *root,
            Body::Coinbase { prefix, suffix, path, .. } => {
                let coinbase = [&prefix[..], &job.extranonce_prefix, extranonce, suffix].concat();
                let mut root = Digest::of(&coinbase).0;
                for node in path {
                    root = Digest::of(&[root, *node].concat()).0;
                }
                root
            }
        };
        let mut header = [0; 80];
        header[..4].copy_from_slice(&version.to_le_bytes());
        header[4..36].copy_from_slice(&prev.prev_hash);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&ntime.to_le_bytes());
        header[72..76].copy_from_slice(&prev.nbits.to_le_bytes());
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        header
    }

    pub fn digest(&self, job_id: u32, extranonce: &[u8], version: u32, ntime: u32, nonce: u32) -> Digest {
        Digest::of(&self.header(job_id, extranonce, version, ntime, nonce))
    }

    /// A nonce from `from` up whose digest meets the target bound to the job, or fails it.
    pub fn find(&self, job_id: u32, extranonce: &[u8], from: u32, meets: bool) -> u32 {
        let job = &self.jobs[&job_id];
        let active = job.active.expect("an active job");
        (from..)
            .take(100_000)
            .find(|nonce| {
                let digest = self.digest(job_id, extranonce, job.version, active.min_ntime, *nonce);
                active.target.is_met_by(&digest) == meets
            })
            .expect("an easy target")
    }

    /// A share of a standard channel.
    pub fn standard(&self, job_id: u32, sequence_number: u32, nonce: u32) -> SubmitSharesStandard {
        let job = &self.jobs[&job_id];
        SubmitSharesStandard {
            channel_id: self.id,
            sequence_number,
            job_id,
            nonce,
            ntime: job.active.expect("an active job").min_ntime,
            version: job.version,
        }
    }

    /// A share of an extended channel.
    pub fn extended<'a>(
        &self,
        job_id: u32,
        sequence_number: u32,
        nonce: u32,
        extranonce: &'a [u8],
    ) -> SubmitSharesExtended<'a> {
        let job = &self.jobs[&job_id];
        SubmitSharesExtended {
            channel_id: self.id,
            sequence_number,
            job_id,
            nonce,
            ntime: job.active.expect("an active job").min_ntime,
            version: job.version,
            extranonce,
        }
    }
}

/// A connection with one standard channel, and the mirror that read it.
pub fn standard(world: &mut World, flags: u32) -> (ConnectionId, Mirror, u32) {
    let id = world.connect(flags);
    let mut mirror = Mirror { standard_jobs: flags & 1 != 0, ..Mirror::default() };
    world.open_standard(id);
    mirror.read_all(&world.take());
    let channel = mirror.opened[0];
    (id, mirror, channel)
}

/// Settles, reads the answers and returns the code of the only error, or `None` if the only answer is a success.
pub fn outcome(world: &mut World, mirror: &mut Mirror) -> Option<String> {
    world.settle();
    let (errors, successes) = (mirror.errors.len(), mirror.successes.len());
    mirror.read_all(&world.take());
    assert_eq!(mirror.errors.len() + mirror.successes.len(), errors + successes + 1, "one answer");
    mirror.errors.get(errors).map(|(_, _, code)| code.clone())
}
