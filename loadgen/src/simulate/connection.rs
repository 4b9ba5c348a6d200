//! What a simulated connection holds: its socket's state, its ciphers, its channels' numbers, its jobs.
//!
//! Jobs of a group are kept once for the connection; a device that has none of its own, or an older one, mines the group's. Of
//! future jobs a device keeps the newest, a group the newest [`FUTURE_JOBS_MAX`]: what a share needs of a job is its id,
//! its version and a time.

use std::collections::{HashMap, VecDeque};

use adit_codec::frame::HEADER_LEN;
use adit_codec::message::{SubmitSharesExtended, SubmitSharesStandard};
use adit_codec::noise::{ACT2_LEN, FRAME_OFFSET, Initiator, Sealer, SecureDeframer, sealed_len};
use adit_codec::{Encode, EncodeError, encode_frame, frame_len};
use adit_engine::transport::SocketId;

use super::arrivals::Rates;
use super::device::{Device, FutureJob, Work};

/// Future jobs kept for a group.
const FUTURE_JOBS_MAX: usize = 8;
/// Groups of a connection whose jobs are followed.
pub(super) const GROUPS_MAX: usize = 255;
/// Room for the longest share frame.
const SHARE_FRAME_LEN_MAX: usize = HEADER_LEN + SubmitSharesExtended::LEN_MAX;
/// Rolled extranonces are zeros: the nonce makes shares distinct.
const EXTRANONCE: [u8; 32] = [0; 32];

/// A group channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) id: u32,
    pub(super) work: Work,
    pub(super) epoch: u32,
    future: VecDeque<FutureJob>,
}

impl Group {
    pub(super) fn new(id: u32) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) fn receive_future(&mut self, job: FutureJob) {
        if self.future.len() >= FUTURE_JOBS_MAX {
            self.future.pop_front();
        }
        self.future.push_back(job);
    }

    pub(super) fn future(&self, job_id: u32) -> Option<FutureJob> {
        self.future.iter().rev().find(|job| job.job_id == job_id).copied()
    }
}

/// The client's side of a handshake.
pub(super) struct Handshake {
    pub(super) initiator: Initiator,
    pub(super) act2: [u8; ACT2_LEN],
    pub(super) received: usize,
}

/// How far a connection is.
pub(super) enum Phase {
    /// Not begun, or to be begun again.
    Idle,
    /// Connecting, then waiting for act 2.
    Handshake(Box<Handshake>),
    /// Waiting for SetupConnection.Success.
    SettingUp,
    /// Opening channels, or all of them open.
    Open,
    /// Closed for good.
    Over,
}

/// One connection.
pub(super) struct Connection {
    pub(super) socket: Option<SocketId>,
    pub(super) phase: Phase,
    pub(super) deframer: Option<SecureDeframer>,
    sealer: Option<Sealer>,
    /// Sealed, and not yet given to the kernel.
    pub(super) pending: Vec<u8>,
    pub(super) is_sending: bool,
    /// In the list of those to be flushed.
    pub(super) is_dirty: bool,
    /// In the number of those that are begun and have no job yet.
    pub(super) is_joining: bool,
    /// In the number of those that have joined.
    pub(super) is_joined: bool,
    /// Has a job.
    pub(super) is_served: bool,
    /// Had a job, and begins anew.
    pub(super) is_rejoin: bool,
    /// Reads nothing.
    pub(super) is_paused: bool,
    /// Waits for its socket before its arrivals go on.
    pub(super) is_blocked: bool,
    /// Has an entry among the arrivals, or is blocked.
    pub(super) is_scheduled: bool,
    pub(super) begun_ns: u64,
    /// Openings that were asked for, and of these answered.
    pub(super) asked: u32,
    pub(super) answered: u32,
    pub(super) channels: u32,
    /// When the unanswered openings were asked for.
    pub(super) opening_ns: VecDeque<u64>,
    directory: Directory,
    pub(super) groups: Vec<Group>,
    /// Counts activations of jobs.
    pub(super) epoch: u32,
    /// Shares without an answer.
    pub(super) outstanding: u32,
    /// Closed loop: whose turn it is, and for how many more shares.
    pub(super) turn: u32,
    pub(super) turn_left: u32,
    /// Open loop.
    pub(super) rates: Rates,
    pub(super) next_arrival_ns: u64,
    /// The tip and the template that it has.
    pub(super) prev_hash: Option<[u8; 32]>,
    pub(super) template: u64,
}

impl Connection {
    pub(super) fn new(rates: Rates) -> Self {
        Self {
            socket: None,
            phase: Phase::Idle,
            deframer: None,
            sealer: None,
            pending: Vec::new(),
            is_sending: false,
            is_dirty: false,
            is_joining: false,
            is_joined: false,
            is_served: false,
            is_rejoin: false,
            is_paused: false,
            is_blocked: false,
            is_scheduled: false,
            begun_ns: 0,
            asked: 0,
            answered: 0,
            channels: 0,
            opening_ns: VecDeque::new(),
            directory: Directory::default(),
            groups: Vec::new(),
            epoch: 0,
            outstanding: 0,
            turn: 0,
            turn_left: 0,
            rates,
            next_arrival_ns: 0,
            prev_hash: None,
            template: 0,
        }
    }

    /// Forgets the socket and all that came over it.
    pub(super) fn reset(&mut self, phase: Phase) {
        let Self { rates, is_dirty, is_joined, is_scheduled, next_arrival_ns, .. } = *self;
        // A connection that breaks before it has a job is still joining, since its first attempt.
        let (is_rejoin, begun_ns) = if self.is_served { (true, 0) } else { (self.is_rejoin, self.begun_ns) };
        // Who was blocked has no entry among the arrivals.
        let is_scheduled = is_scheduled && !self.is_blocked;
        *self = Self {
            phase,
            is_dirty,
            is_joined,
            is_scheduled,
            is_rejoin,
            begun_ns,
            next_arrival_ns,
            ..Self::new(rates)
        };
    }

    /// The ciphers of a finished handshake.
    pub(super) fn encrypt(&mut self, deframer: SecureDeframer, sealer: Sealer) {
        self.deframer = Some(deframer);
        self.sealer = Some(sealer);
    }

    /// Seals a message behind what is pending.
    ///
    /// # Errors
    /// A field is too long, which a checked scenario has not.
    pub(super) fn seal<M: Encode>(&mut self, message: &M) -> Result<(), EncodeError> {
        let Some(sealer) = &mut self.sealer else { return Ok(()) };
        let frame_len = frame_len(message);
        let start = self.pending.len();
        self.pending.resize(start + sealed_len(frame_len - HEADER_LEN), 0);
        let place = &mut self.pending[start..];
        if let Err(error) = encode_frame(message, &mut place[FRAME_OFFSET..]) {
            self.pending.truncate(start);
            return Err(error);
        }
        sealer.seal_frame(place, frame_len).expect("the frame is whole, and nonces last 2^64 frames");
        Ok(())
    }

    /// What a device mines: its own work or its group's, whichever came later.
    pub(super) fn work(&self, device: &Device) -> Option<Work> {
        let group = self.groups.get(usize::from(device.group)).filter(|group| group.epoch > device.epoch);
        match group {
            Some(group) => Some(group.work),
            None => (device.epoch > 0).then_some(device.work),
        }
    }

    /// Seals a share whose nonce is its sequence number.
    pub(super) fn seal_share(&mut self, device: &Device, work: Work, sequence_number: u32) {
        let Some(sealer) = &mut self.sealer else { return };
        let start = self.pending.len();
        self.pending.resize(start + sealed_len(SHARE_FRAME_LEN_MAX - HEADER_LEN), 0);
        let place = &mut self.pending[start..];
        let Device { channel_id, .. } = *device;
        let Work { job_id, version, ntime } = work;
        let frame_len = if device.is_extended {
            let extranonce = &EXTRANONCE[..usize::from(device.extranonce_size).min(EXTRANONCE.len())];
            let share = SubmitSharesExtended {
                channel_id,
                sequence_number,
                job_id,
                nonce: sequence_number,
                ntime,
                version,
                extranonce,
            };
            encode_frame(&share, &mut place[FRAME_OFFSET..])
        } else {
            let nonce = sequence_number;
            let share = SubmitSharesStandard { channel_id, sequence_number, job_id, nonce, ntime, version };
            encode_frame(&share, &mut place[FRAME_OFFSET..])
        }
        .expect("the place has room for the longest share");
        let len =
            sealer.seal_frame(place, frame_len).expect("the frame is whole, and nonces last 2^64 frames");
        self.pending.truncate(start + len);
    }

    /// Remembers which device has a channel.
    pub(super) fn opened(&mut self, channel_id: u32, device: u32) {
        self.directory.insert(channel_id, device);
    }

    /// The device whose channel it may be, by its number on the connection.
    pub(super) fn device(&self, channel_id: u32) -> Option<u32> {
        self.directory.lookup(channel_id)
    }

    pub(super) fn group(&self, channel_id: u32) -> Option<usize> {
        self.groups.iter().position(|group| group.id == channel_id)
    }

    /// The index of a group, which is new with its first channel. Groups beyond the bound share the last index.
    pub(super) fn join_group(&mut self, group_id: u32) -> u8 {
        let index = self.group(group_id).unwrap_or_else(|| {
            if self.groups.len() < GROUPS_MAX {
                self.groups.push(Group::new(group_id));
            }
            self.groups.len() - 1
        });
        u8::try_from(index).expect("at most GROUPS_MAX groups")
    }

    /// The number of the next activation.
    pub(super) fn next_epoch(&mut self) -> u32 {
        self.epoch = self.epoch.wrapping_add(1).max(1);
        self.epoch
    }
}

/// Channel ids to devices. Pools number channels one after the other, so that an id is an offset; what deviates is listed.
#[derive(Debug, Default)]
struct Directory {
    /// The id of device 0, if it were numbered as the first one that was opened.
    base: Option<u32>,
    others: HashMap<u32, u32>,
}

impl Directory {
    fn insert(&mut self, channel_id: u32, device: u32) {
        let base = *self.base.get_or_insert(channel_id.wrapping_sub(device));
        if channel_id.wrapping_sub(base) != device {
            self.others.insert(channel_id, device);
        }
    }

    /// A device that has no channel of this id may be returned too: the owner compares.
    fn lookup(&self, channel_id: u32) -> Option<u32> {
        let base = self.base?;
        let other = if self.others.is_empty() { None } else { self.others.get(&channel_id) };
        Some(other.copied().unwrap_or(channel_id.wrapping_sub(base)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_offsets_where_they_can_be() {
        let mut directory = Directory::default();
        assert_eq!(directory.lookup(5), None);
        for device in 0..100 {
            directory.insert(64 + device, device);
        }
        assert!(directory.others.is_empty());
        directory.insert(7, 100);
        directory.insert(9_000, 101);
        assert_eq!([64, 163, 7, 9_000].map(|id| directory.lookup(id)), [0, 99, 100, 101].map(Some));
    }

    #[test]
    fn a_device_mines_what_came_last() {
        let mut connection = Connection::new(Rates::new(1, 1.0));
        let mut device = Device::new();
        device.group = connection.join_group(4);
        assert_eq!(connection.work(&device), None);
        let work = |job_id| Work { job_id, version: 1, ntime: 2 };
        (device.work, device.epoch) = (work(1), connection.next_epoch());
        assert_eq!(connection.work(&device), Some(work(1)));
        let epoch = connection.next_epoch();
        (connection.groups[0].work, connection.groups[0].epoch) = (work(2), epoch);
        assert_eq!(connection.work(&device), Some(work(2)));
        (device.work, device.epoch) = (work(3), connection.next_epoch());
        assert_eq!(connection.work(&device), Some(work(3)));
    }

    #[test]
    fn groups_are_bounded() {
        let mut connection = Connection::new(Rates::new(1, 1.0));
        let last = (0..1_000).map(|id| connection.join_group(id)).last();
        assert_eq!((connection.groups.len(), last), (GROUPS_MAX, Some(254)));
        let group = &mut connection.groups[0];
        (0..20).for_each(|job_id| group.receive_future(FutureJob { job_id, version: job_id }));
        assert_eq!((group.future(11), group.future(19).map(|job| job.version)), (None, Some(19)));
    }
}
