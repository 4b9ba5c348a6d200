//! Groups, prefixes, targets, jobs and tips as the upstream distributes them (specification 5.3.10, 5.3.15 to 5.3.22).
//!
//! Each message is checked for all channels that it addresses before it changes any.

use alloc::sync::Arc;

use adit_codec::message::flags::REQUIRES_VERSION_ROLLING;
use adit_codec::message::{
    MessageKind, NewExtendedMiningJob, NewMiningJob, SetExtranoncePrefix, SetGroupChannel, SetNewPrevHash,
    SetTarget,
};
use adit_hasher::{EXTRANONCE_LEN_MAX, Target};

use super::ClientOutbox;
use super::channel::{ChannelKind, ClientChannel, Tip};
use super::connection::Client;
use super::event::ClientEvent;
use super::fault::ClientFault;
use super::job::{ExtendedJob, ExtranoncePrefix, JobBody};
use super::requests::check_target;
use crate::mining::server::{ChannelId, JobId};
use crate::time::Instant;

impl Client {
    pub(super) fn handle_set_group_channel(
        &mut self,
        message: &SetGroupChannel<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let kind = MessageKind::SetGroupChannel;
        if self.requires_standard_jobs() {
            return Err(ClientFault::StandardJobsRequired(kind));
        }
        let group = ChannelId(message.group_channel_id);
        if self.channels.contains_key(&group) {
            return Err(ClientFault::IdInUse { message: kind, channel: group });
        }
        let mut group_len = self.groups.get(group).map(|entry| entry.extranonce_len);
        for id in message.channel_ids.iter().map(ChannelId) {
            if self.groups.contains(id) {
                return Err(ClientFault::WrongChannelKind { message: kind, channel: id });
            }
            if !self.is_addressable(kind, id)? {
                continue;
            }
            let len = self.channels.get(&id).map_or(0, ClientChannel::extranonce_len);
            let group_len = *group_len.get_or_insert(len);
            if len != group_len {
                return Err(ClientFault::GroupExtranonceLen { group, channel: id, len, group_len });
            }
        }
        for id in message.channel_ids.iter().map(ChannelId) {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let before = core::mem::replace(&mut channel.group, group);
            if before == group {
                continue;
            }
            self.groups.join(group, id, channel.extranonce_len());
            if self.groups.leave(before, id) {
                self.closed.insert(before);
            }
            out.report(ClientEvent::GroupChanged { channel: id, group });
        }
        Ok(())
    }

    /// A prefix of another size changes the full extranonce's, which a channel alone in its group can bear.
    pub(super) fn handle_set_extranonce_prefix(
        &mut self,
        message: &SetExtranoncePrefix<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let kind = MessageKind::SetExtranoncePrefix;
        let id = ChannelId(message.channel_id);
        if !self.is_addressable(kind, id)? {
            return Ok(());
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return Err(ClientFault::WrongChannelKind { message: kind, channel: id });
        };
        let len = message.extranonce_prefix.len() + channel.kind().extranonce_size();
        let Some(prefix) =
            ExtranoncePrefix::new(message.extranonce_prefix).filter(|_| len <= EXTRANONCE_LEN_MAX)
        else {
            return Err(ClientFault::ExtranonceTooLong { channel: id, len });
        };
        let group = channel.group;
        if let Some(entry) = self.groups.get(group)
            && entry.extranonce_len != len
        {
            if entry.members.len() > 1 {
                let group_len = entry.extranonce_len;
                return Err(ClientFault::GroupExtranonceLen { group, channel: id, len, group_len });
            }
            self.groups.join(group, id, len);
        }
        channel.prefix = prefix;
        out.report(ClientEvent::ExtranoncePrefixChanged { channel: id });
        Ok(())
    }

    pub(super) fn handle_set_target(
        &mut self,
        message: &SetTarget<'_>,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let id = ChannelId(message.channel_id);
        if !self.is_addressable(MessageKind::SetTarget, id)? {
            return Ok(());
        }
        let target = Target::from_le_bytes(*message.maximum_target);
        self.for_addressed(
            id,
            |channel| check_target(channel.id(), &target, &channel.max_target),
            |channel| {
                channel.target = target;
                out.report(ClientEvent::TargetChanged { channel: channel.id() });
            },
        )
    }

    pub(super) fn handle_new_mining_job(
        &mut self,
        message: &NewMiningJob<'_>,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let kind = MessageKind::NewMiningJob;
        let id = ChannelId(message.channel_id);
        if !self.is_addressable(kind, id)? {
            return Ok(());
        }
        if self.channels.get(&id).is_none_or(|channel| channel.kind() != ChannelKind::Standard) {
            return Err(ClientFault::WrongChannelKind { message: kind, channel: id });
        }
        let body = JobBody::Standard { version: message.version, merkle_root: *message.merkle_root };
        self.receive_job(id, JobId(message.job_id), message.min_ntime, &body, now, out)
    }

    pub(super) fn handle_new_extended_mining_job(
        &mut self,
        message: &NewExtendedMiningJob<'_>,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let kind = MessageKind::NewExtendedMiningJob;
        let (id, job) = (ChannelId(message.channel_id), JobId(message.job_id));
        if self.requires_standard_jobs() {
            return Err(ClientFault::StandardJobsRequired(kind));
        }
        if !self.is_addressable(kind, id)? {
            return Ok(());
        }
        let extranonce_len = match (self.channels.get(&id), self.groups.get(id)) {
            (Some(channel), _) if channel.kind() == ChannelKind::Standard => {
                return Err(ClientFault::WrongChannelKind { message: kind, channel: id });
            }
            (Some(channel), _) => channel.extranonce_len(),
            (None, Some(group)) => group.extranonce_len,
            (None, None) => return Ok(()),
        };
        let allowed = message.version_rolling_allowed;
        let required = self.config.flags & REQUIRES_VERSION_ROLLING != 0;
        if (required && !allowed) || (self.fixed_version() && allowed) {
            return Err(ClientFault::VersionRolling { job, allowed });
        }
        let bytes_max = self.config.limits.job_bytes_max;
        self.job_bytes.reserve(message).map_err(|bytes| ClientFault::JobBytes { bytes, bytes_max })?;
        let extended =
            ExtendedJob::new(message, extranonce_len).map_err(|error| ClientFault::Job { job, error })?;
        let extended = Arc::new(extended);
        self.receive_job(id, job, message.min_ntime, &JobBody::Extended(Arc::clone(&extended)), now, out)?;
        self.job_bytes.add(&extended, message);
        Ok(())
    }

    fn receive_job(
        &mut self,
        id: ChannelId,
        job: JobId,
        min_ntime: Option<u32>,
        body: &JobBody,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let limits = self.config.limits;
        let check = |channel: &ClientChannel| {
            if channel.has_job(job) {
                return Err(ClientFault::JobIdInUse { channel: channel.id(), job });
            }
            if min_ntime.is_some() && !channel.has_tip() {
                return Err(ClientFault::NoPrevHash { channel: channel.id(), job });
            }
            Ok(())
        };
        self.for_addressed(id, check, |channel| match min_ntime {
            None => {
                channel.receive_future(job, body.clone(), &limits);
                out.report(ClientEvent::FutureJob { channel: channel.id(), job });
            }
            Some(min_ntime) => {
                channel.receive_active(job, body.clone(), min_ntime, now, &limits);
                out.report(ClientEvent::NewWork { channel: channel.id() });
            }
        })
    }

    pub(super) fn handle_set_new_prev_hash(
        &mut self,
        message: &SetNewPrevHash<'_>,
        now: Instant,
        out: &mut ClientOutbox,
    ) -> Result<(), ClientFault> {
        let (id, job) = (ChannelId(message.channel_id), JobId(message.job_id));
        if !self.is_addressable(MessageKind::SetNewPrevHash, id)? {
            return Ok(());
        }
        let tip = Tip {
            prev_hash: *message.prev_hash,
            nbits: message.nbits,
            min_ntime: message.min_ntime,
            received_at: now,
        };
        let check = |channel: &ClientChannel| {
            let unknown = ClientFault::UnknownFutureJob { channel: channel.id(), job };
            if channel.is_future(job) { Ok(()) } else { Err(unknown) }
        };
        self.for_addressed(id, check, |channel| {
            channel.activate(job, tip);
            out.report(ClientEvent::NewWork { channel: channel.id() });
        })
    }

    /// Checks every channel that an id names, and only then changes them.
    fn for_addressed(
        &mut self,
        id: ChannelId,
        check: impl Fn(&ClientChannel) -> Result<(), ClientFault>,
        mut change: impl FnMut(&mut ClientChannel),
    ) -> Result<(), ClientFault> {
        let addressed = self.take_addressed(id);
        let channels = &mut self.channels;
        let checked = addressed.iter().filter_map(|id| channels.get(id)).try_for_each(check);
        if checked.is_ok() {
            for id in &addressed {
                if let Some(channel) = channels.get_mut(id) {
                    change(channel);
                }
            }
        }
        self.return_addressed(addressed);
        checked
    }
}
