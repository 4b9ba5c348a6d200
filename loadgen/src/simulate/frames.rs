//! What a simulated connection makes of the pool's messages.
//!
//! The state is what shares need: channels, jobs, answers. Everything else is counted or ignored. What a pool must not send
//! ends the connection with an error that is counted by its text.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use adit_codec::frame::FrameHeader;
use adit_codec::message::flags::REQUIRES_STANDARD_JOBS;
use adit_codec::message::{
    Message, NewExtendedMiningJob, OpenExtendedMiningChannel, OpenStandardMiningChannel, Protocol,
    SetNewPrevHash, SetupConnection, SubmitSharesError, SubmitSharesSuccess, UpdateChannel,
};

use super::connection::{Connection, Phase};
use super::device::{FutureJob, Work};
use super::scenario::Profile;
use super::shard::Simulated;
use super::spreads::Template;
use crate::report::{JoinTimes, count};
use crate::stamp::Stamp;

/// Why a connection is given up; counted by its text.
pub(super) type Fault = String;

impl Simulated {
    /// Takes one message of the pool.
    pub(super) fn handle_frame(
        &mut self,
        index: usize,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let decoded = match Message::decode(header, payload, Protocol::Mining) {
            Ok(decoded) => decoded,
            Err(error) if error.is_ignorable() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        match decoded.message {
            Message::SubmitSharesSuccess(message) => self.handle_success(index, &message),
            Message::SubmitSharesError(message) => self.handle_error(index, &message),
            Message::SetNewPrevHash(message) => self.handle_prev_hash(index, &message),
            Message::NewExtendedMiningJob(message) => self.handle_extended_job(index, &message),
            Message::NewMiningJob(message) => {
                self.tally.connections.jobs += 1;
                let (job_id, version) = (message.job_id, message.version);
                let Some(device) = self.device_of(index, message.channel_id) else { return Ok(()) };
                match message.min_ntime {
                    None => self.devices[device].future = FutureJob { job_id, version },
                    Some(ntime) => self.activate_on_device(index, device, Work { job_id, version, ntime }),
                }
            }
            Message::SetTarget(_) => self.tally.connections.targets += 1,
            Message::OpenStandardMiningChannelSuccess(message) => {
                let group = message.group_channel_id;
                self.handle_opened(index, message.request_id, message.channel_id, group, None)?;
            }
            Message::OpenExtendedMiningChannelSuccess(message) => {
                let size = Some(message.extranonce_size);
                let group = message.group_channel_id;
                self.handle_opened(index, message.request_id, message.channel_id, group, size)?;
            }
            Message::OpenMiningChannelError(message) => {
                count(
                    &mut self.tally.connections.errors,
                    &said("OpenMiningChannel.Error", message.error_code),
                );
                self.join_times(index).channels_refused += 1;
                self.answered(index);
            }
            Message::SetupConnectionSuccess(_) => self.handle_set_up(index)?,
            Message::SetupConnectionError(message) => {
                return Err(said("SetupConnection.Error", message.error_code));
            }
            Message::CloseChannel(message) => self.handle_close(index, message.channel_id),
            Message::UpdateChannelError(message) => {
                count(&mut self.tally.connections.errors, &said("UpdateChannel.Error", message.error_code));
            }
            Message::Reconnect(_) => return Err("the pool asks to reconnect".to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// The histograms for a connection that begins, or begins again.
    pub(super) fn join_times(&mut self, index: usize) -> &mut JoinTimes {
        if self.connections[index].is_rejoin { &mut self.tally.rejoin } else { &mut self.tally.join }
    }

    /// Sends SetupConnection.
    pub(super) fn set_up(&mut self, index: usize) -> Result<(), Fault> {
        let standard_jobs = self.plan.scenario.profile == Profile::StandardJobs;
        let message = SetupConnection {
            protocol: Protocol::Mining as u8,
            min_version: 2,
            max_version: 2,
            flags: if standard_jobs { REQUIRES_STANDARD_JOBS } else { 0 },
            endpoint_host: self.plan.host.as_bytes(),
            endpoint_port: self.plan.pool.port(),
            vendor: b"adit",
            hardware_version: b"simulated",
            firmware: concat!("adit-loadgen ", env!("CARGO_PKG_VERSION")).as_bytes(),
            device_id: b"",
        };
        self.connections[index].seal(&message).map_err(|error| error.to_string())
    }

    fn handle_set_up(&mut self, index: usize) -> Result<(), Fault> {
        let now_ns = self.now_ns;
        let connection = &mut self.connections[index];
        if !matches!(connection.phase, Phase::SettingUp) {
            return Err("SetupConnection.Success comes twice".to_owned());
        }
        connection.phase = Phase::Open;
        let after_ns = now_ns - connection.begun_ns;
        self.join_times(index).setup.record(after_ns);
        self.ask_for_channels(index)
    }

    /// Asks for further channels, as many as may wait for their answers.
    fn ask_for_channels(&mut self, index: usize) -> Result<(), Fault> {
        let plan = &self.plan;
        let scenario = &plan.scenario;
        let connection = &mut self.connections[index];
        let max = (connection.answered + scenario.opens_in_flight).min(scenario.channels_per_connection);
        // Half a window at a time: so many frames share a write.
        if connection.asked < max
            && (max - connection.asked) * 2 < scenario.opens_in_flight
            && max < scenario.channels_per_connection
        {
            return Ok(());
        }
        while connection.asked < max {
            let request_id = connection.asked;
            let user_identity = scenario.user_identity.as_bytes();
            let (nominal_hash_rate, max_target) = (scenario.hash_rate(), &[0xff; 32]);
            if scenario.is_extended(request_id) {
                let min_extranonce_size = scenario.extranonce_size;
                connection.seal(&OpenExtendedMiningChannel {
                    request_id,
                    user_identity,
                    nominal_hash_rate,
                    max_target,
                    min_extranonce_size,
                })
            } else {
                connection.seal(&OpenStandardMiningChannel {
                    request_id,
                    user_identity,
                    nominal_hash_rate,
                    max_target,
                })
            }
            .map_err(|error| error.to_string())?;
            connection.asked += 1;
            connection.opening_ns.push_back(self.now_ns);
        }
        self.mark_dirty(index);
        Ok(())
    }

    fn handle_opened(
        &mut self,
        index: usize,
        request_id: u32,
        channel_id: u32,
        group_id: u32,
        extranonce_size: Option<u16>,
    ) -> Result<(), Fault> {
        let now_ns = self.now_ns;
        let first = self.first_device(index);
        let connection = &mut self.connections[index];
        let device = match self.devices.get_mut(first + request_id as usize) {
            Some(device) if request_id < connection.asked && !device.is_open => device,
            _ => return Err("a channel is opened that was not asked for".to_owned()),
        };
        device.is_open = true;
        device.is_extended = extranonce_size.is_some();
        device.extranonce_size = u8::try_from(extranonce_size.unwrap_or(0))
            .map_err(|_| "a channel is opened with more than 32 bytes of extranonce".to_owned())?;
        device.channel_id = channel_id;
        device.group = connection.join_group(group_id);
        connection.opened(channel_id, request_id);
        connection.channels += 1;
        let asked_ns = connection.opening_ns.pop_front().unwrap_or(now_ns);
        let (is_first, begun_ns) = (connection.channels == 1, connection.begun_ns);
        self.channels += 1;
        let times = self.join_times(index);
        times.channels_opened += 1;
        times.channel_open.record(now_ns - asked_ns);
        if is_first {
            times.open.record(now_ns - begun_ns);
        }
        self.answered(index);
        self.ask_for_channels(index)
    }

    fn answered(&mut self, index: usize) {
        self.connections[index].answered += 1;
        self.look_whether_joined(index);
    }

    /// The open device with this channel, by its place in the thread's table.
    fn device_of(&self, index: usize, channel_id: u32) -> Option<usize> {
        let number = self.connections[index].device(channel_id)?;
        if number >= self.plan.scenario.channels_per_connection {
            return None;
        }
        let place = self.first_device(index) + number as usize;
        let device = &self.devices[place];
        (device.is_open && device.channel_id == channel_id).then_some(place)
    }

    fn handle_close(&mut self, index: usize, channel_id: u32) {
        let group = self.connections[index].group(channel_id);
        let first = self.first_device(index);
        let places = match (group, self.device_of(index, channel_id)) {
            (_, Some(place)) => place..place + 1,
            (Some(_), None) => first..first + self.plan.scenario.channels_per_connection as usize,
            (None, None) => return,
        };
        for place in places {
            let is_meant = self.devices[place].is_open
                && (self.devices[place].channel_id == channel_id
                    || group == Some(usize::from(self.devices[place].group)));
            if is_meant {
                let lost = self.forget_device(place);
                self.tally.shares.lost += lost;
                let connection = &mut self.connections[index];
                connection.outstanding -= u32::try_from(lost).expect("a part of the connection's");
                connection.channels -= 1;
            }
        }
    }

    fn activate_on_device(&mut self, index: usize, device: usize, work: Work) {
        let epoch = self.connections[index].next_epoch();
        let device = &mut self.devices[device];
        (device.work, device.epoch) = (work, epoch);
        self.look_whether_served(index);
    }

    fn activate_on_group(&mut self, index: usize, group: usize, work: Work) {
        let connection = &mut self.connections[index];
        let epoch = connection.next_epoch();
        let group = &mut connection.groups[group];
        (group.work, group.epoch) = (work, epoch);
        self.look_whether_served(index);
    }

    fn handle_extended_job(&mut self, index: usize, message: &NewExtendedMiningJob<'_>) {
        self.tally.connections.jobs += 1;
        let (job_id, version) = (message.job_id, message.version);
        let future = FutureJob { job_id, version };
        let device = self.device_of(index, message.channel_id);
        let group = self.connections[index].group(message.channel_id);
        let Some(ntime) = message.min_ntime else {
            match (device, group) {
                (Some(device), _) => self.devices[device].future = future,
                (None, Some(group)) => self.connections[index].groups[group].receive_future(future),
                (None, None) => {}
            }
            return;
        };
        self.record_template(index, message);
        let work = Work { job_id, version, ntime };
        match (device, group) {
            (Some(device), _) => self.activate_on_device(index, device, work),
            (None, Some(group)) => self.activate_on_group(index, group, work),
            (None, None) => {}
        }
    }

    /// A template is followed where there was work before: what a new channel is told is no news.
    fn record_template(&mut self, index: usize, message: &NewExtendedMiningJob<'_>) {
        let connection = &mut self.connections[index];
        let mut path = [0; 32];
        message.merkle_path.iter().for_each(|hash| {
            path.iter_mut().zip(hash).for_each(|(sum, byte)| *sum = (*sum ^ byte).wrapping_mul(167));
        });
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let digest = hasher.hash_one((path, message.coinbase_tx_suffix)).max(1);
        let is_new = connection.template != digest;
        connection.template = digest;
        if connection.is_served && is_new {
            let made = Stamp::of_coinbase_suffix(message.coinbase_tx_suffix);
            self.templates.record(Template { digest, made }, true, self.now_ns);
        }
    }

    fn handle_prev_hash(&mut self, index: usize, message: &SetNewPrevHash<'_>) {
        self.tally.connections.prev_hashes += 1;
        let (job_id, ntime) = (message.job_id, message.min_ntime);
        let device = self.device_of(index, message.channel_id);
        let connection = &mut self.connections[index];
        let group = connection.group(message.channel_id);
        let is_new = connection.prev_hash.as_ref() != Some(message.prev_hash);
        let had_work = match (device, group) {
            // What a new channel is told is no news.
            (Some(place), _) => self.devices[place].epoch > 0,
            (None, Some(_)) => connection.is_served && is_new,
            (None, None) => return,
        };
        if had_work {
            self.tips.record(*message.prev_hash, is_new, self.now_ns);
        }
        connection.prev_hash = Some(*message.prev_hash);
        match (device, group) {
            (Some(place), _) => {
                let device = &self.devices[place];
                let of_group = |connection: &Connection| {
                    connection.groups.get(usize::from(device.group)).and_then(|group| group.future(job_id))
                };
                let version = match device.future {
                    future if future.job_id == job_id => future.version,
                    future => of_group(connection).map_or(future.version, |job| job.version),
                };
                self.activate_on_device(index, place, Work { job_id, version, ntime });
            }
            (None, Some(group)) => {
                let group_future = connection.groups[group].future(job_id);
                let first = self.first_device(index);
                // Jobs may have come to each channel, and the tip to the group.
                let version = group_future.map_or(self.devices[first].future.version, |job| job.version);
                self.activate_on_group(index, group, Work { job_id, version, ntime });
            }
            (None, None) => {}
        }
    }

    fn handle_success(&mut self, index: usize, message: &SubmitSharesSuccess) {
        let Some(place) = self.device_of(index, message.channel_id) else {
            return count(
                &mut self.tally.connections.errors,
                "SubmitShares.Success for a channel that is not open",
            );
        };
        let count = message.new_submits_accepted_count;
        let mut taken = 0;
        while taken < count {
            let device = &mut self.devices[place];
            let at_ns = if taken + 1 < count {
                self.outstanding.take_oldest(device)
            } else {
                self.outstanding.take(device, message.last_sequence_number)
            };
            let Some(at_ns) = at_ns else { break };
            taken += 1;
            let latency_ns = self.now_ns.saturating_sub(at_ns);
            self.second.latency.record(latency_ns);
            if self.is_measured(at_ns) {
                self.tally.measured.accepted += 1;
                self.tally.measured.latency.record(latency_ns);
            }
        }
        let shares = &mut self.tally.shares;
        shares.accepted += u64::from(taken);
        shares.surplus += u64::from(count - taken);
        shares.difficulty_sum = shares.difficulty_sum.saturating_add(message.new_shares_sum);
        self.second.accepted += u64::from(taken);
        self.connections[index].outstanding -= taken;
        self.mark_dirty(index);
    }

    fn handle_error(&mut self, index: usize, message: &SubmitSharesError<'_>) {
        let Some(place) = self.device_of(index, message.channel_id) else {
            return count(
                &mut self.tally.connections.errors,
                "SubmitShares.Error for a channel that is not open",
            );
        };
        let Some(at_ns) = self.outstanding.take(&mut self.devices[place], message.sequence_number) else {
            self.tally.shares.surplus += 1;
            return;
        };
        match std::str::from_utf8(message.error_code) {
            Ok(code) => count(&mut self.tally.shares.rejected, code),
            Err(_) => count(&mut self.tally.shares.rejected, "(no text)"),
        }
        self.second.rejected += 1;
        self.tally.measured.rejected += u64::from(self.is_measured(at_ns));
        self.connections[index].outstanding -= 1;
        self.mark_dirty(index);
    }

    /// Announces another hash rate for a fraction of a connection's channels.
    pub(super) fn update_channels(&mut self, index: usize, fraction: f64, factor: f64) {
        let channels = self.plan.scenario.channels_per_connection;
        let first = self.first_device(index);
        let nominal_hash_rate = self.plan.scenario.hash_rate() * factor as f32;
        let connection = &mut self.connections[index];
        for place in first..first + (f64::from(channels) * fraction).ceil() as usize {
            if self.devices[place].is_open {
                let channel_id = self.devices[place].channel_id;
                let message = UpdateChannel { channel_id, nominal_hash_rate, maximum_target: &[0xff; 32] };
                connection.seal(&message).expect("numbers fit");
            }
        }
        self.mark_dirty(index);
    }
}

/// What an error message says, in characters that do no harm.
fn said(message: &str, code: &[u8]) -> String {
    format!("{message}: {}", code.escape_ascii())
}
