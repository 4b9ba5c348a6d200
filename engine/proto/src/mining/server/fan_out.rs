//! Telling connections about new work, slice by slice (specification 5.3.15 to 5.3.17).
//!
//! Nothing is queued per connection: a connection knows everything up to one [`Position`], and what it is still to be
//! told follows from the jobs that are valid now. So a connection that is behind never hears of work that went stale.
//! - Groups get one frame, encoded once per shard and full extranonce size and shared by all connections.
//! - Connections that require standard jobs get a job and SetNewPrevHash per channel, [`LANES`] channels at a time, whose
//!   merkle roots are one batch. A large connection is left in the middle when the budget ends. Small ones leave lanes to
//!   those that come after them ([`RootsAhead`]).
//! - A round goes around all slots; each begins elsewhere, so that nobody is always last.

use alloc::vec::Vec;

use adit_codec::frame::HEADER_LEN;
use adit_codec::message::{NewMiningJob, SetTarget};
use adit_hasher::BatchHash;

use super::channel::{Kind, Untold};
use super::connection::{Connection, Group, Phase};
use super::event::ConnectionId;
use super::extranonce::{PREFIX_LEN, Prefix};
use super::history::Position;
use super::jobs::{Job, Step};
use super::roots_ahead::{BATCH_MAX, RootsAhead};
use super::{Server, ServerOutbox};
use crate::outbox::Priority;

/// Channels served together.
const LANES: usize = BATCH_MAX;
/// Connections that are looked at for channels whose merkle roots can be computed with others.
const LOOKED_AHEAD: u32 = 2 * BATCH_MAX as u32;
/// Channels that cost as much of the budget as a connection with groups.
const CHANNELS_PER_UNIT: usize = 16;
/// Slots that need nothing and may be passed over for each unit of the budget.
const VISITS_PER_UNIT: usize = 64;

/// A connection whose channels were served in part.
#[derive(Clone, Copy, Debug)]
struct Partial {
    connection: ConnectionId,
    upto: Position,
    next_index: usize,
}

/// Where the round is.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    cursor: u32,
    /// Slots still to be visited.
    remaining: u32,
    rounds: u32,
    partial: Option<Partial>,
    /// Reused from connection to connection.
    steps: Vec<Step>,
    roots_ahead: RootsAhead,
}

impl FanOut {
    /// There is something new: all slots are to be visited.
    pub(super) fn begin(&mut self, slots: u32) {
        if self.remaining == 0 {
            // Multiples of the golden ratio spread the first places evenly.
            self.rounds = self.rounds.wrapping_add(1);
            let fraction = self.rounds.wrapping_mul(0x9e37_79b9);
            self.cursor = ((u64::from(slots) * u64::from(fraction)) >> 32) as u32;
        }
        self.remaining = slots;
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, id: ConnectionId) {
        self.partial = self.partial.filter(|partial| partial.connection != id);
    }

    /// Up to where the connection was told of work, its channels in part.
    pub(super) fn told(&self, id: ConnectionId, connection: &Connection) -> Position {
        match &self.partial {
            Some(partial) if partial.connection == id => partial.upto,
            _ => connection.delivered,
        }
    }
}

impl Server {
    /// Emits pending job messages for up to `budget` connections (one with many standard channels counts for several);
    /// `true` while more wait.
    pub fn poll_fan_out(&mut self, budget: usize, hashes: &impl BatchHash, out: &mut ServerOutbox) -> bool {
        let mut budget = budget;
        let mut visits = budget.saturating_mul(VISITS_PER_UNIT);
        while self.fan_out.remaining > 0 && budget > 0 && visits > 0 {
            visits -= 1;
            if self.fan_out.cursor >= self.connections.slots() {
                self.fan_out.cursor = 0;
            }
            if !self.deliver(self.fan_out.cursor, &mut budget, hashes, out) {
                break;
            }
            self.fan_out.cursor += 1;
            self.fan_out.remaining -= 1;
        }
        self.fan_out.remaining > 0
    }

    /// Tells a connection everything that is pending for it, before something that must not go ahead of it.
    pub(super) fn catch_up(&mut self, slot: u32, hashes: &impl BatchHash, out: &mut ServerOutbox) {
        let mut budget = usize::MAX;
        let done = self.deliver(slot, &mut budget, hashes, out);
        debug_assert!(done, "an unlimited budget delivers everything");
    }

    /// Tells a connection what is pending for it; `false` if the budget ended before.
    fn deliver(
        &mut self,
        slot: u32,
        budget: &mut usize,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) -> bool {
        let head = self.work.head();
        loop {
            let Some(id) = self.connection_at(slot) else { return true };
            let Some(connection) = self.connections.get_mut(slot) else { return true };
            if connection.phase != Phase::Mining || connection.directory.open() == 0 {
                connection.delivered = head;
                self.fan_out.forget(id);
                return true;
            }
            if connection.delivered == head {
                return true;
            }
            let partial = self.fan_out.partial.take_if(|partial| partial.connection == id);
            let upto = partial.map_or(head, |partial| partial.upto);
            let first_index = partial.map_or(0, |partial| partial.next_index);
            let per_channel = connection.standard_jobs || connection.awaiting_job > 0 || partial.is_some();
            let mut steps = core::mem::take(&mut self.fan_out.steps);
            steps.clear();
            steps.extend(self.work.steps(connection.delivered, upto));
            if first_index == 0 && !connection.standard_jobs {
                self.tell_groups(id, &steps, per_channel, out);
            }
            let stopped_at = if per_channel {
                self.tell_channels(id, &steps, first_index, budget, hashes, out)
            } else {
                None
            };
            self.fan_out.steps = steps;
            if let Some(next_index) = stopped_at {
                self.fan_out.partial = Some(Partial { connection: id, upto, next_index });
                return false;
            }
            *budget = budget.saturating_sub(1);
            if let Some(connection) = self.connections.get_mut(slot) {
                connection.delivered = upto;
            }
        }
    }

    /// One shared frame per step and group. Where standard channels are told one by one, their groups are left out.
    fn tell_groups(
        &mut self,
        id: ConnectionId,
        steps: &[Step],
        standard_apart: bool,
        out: &mut ServerOutbox,
    ) {
        let Some(connection) = self.connections.get(id.slot) else { return };
        for step in steps {
            for group in connection.groups() {
                let size = usize::from(group.size);
                if standard_apart && size == PREFIX_LEN {
                    continue;
                }
                let frame = self.work.frame(*step, size);
                if group.id == group.size {
                    out.send_shared(id, Priority::Work, frame);
                } else {
                    out.send_bytes(id, Priority::Work, &addressed_to(group, &frame));
                }
            }
        }
    }

    /// Every step for every standard channel from `first_index` on; where it stopped because the budget ended.
    fn tell_channels(
        &mut self,
        id: ConnectionId,
        steps: &[Step],
        first_index: usize,
        budget: &mut usize,
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) -> Option<usize> {
        let mut index = first_index;
        loop {
            let mut slots = [0; LANES];
            let count = self.next_standard_channels(id, &mut index, &mut slots)?;
            let slots = &slots[..count];
            for step in steps {
                match step {
                    Step::Announce(job) => self.announce_standard(id, *job, slots, hashes, out),
                    Step::Activate => {
                        for slot in slots {
                            let Some(channel) = self.channels.get(*slot) else { continue };
                            out.send(id, Priority::Work, &self.work.set_new_prev_hash(channel.id.0, 0));
                        }
                    }
                }
            }
            *budget = budget.saturating_sub(count.div_ceil(CHANNELS_PER_UNIT));
            if *budget == 0 {
                return Some(index);
            }
        }
    }

    /// Up to [`LANES`] standard channels from the connection's `index` on, which moves past them; `None` if there are
    /// none.
    fn next_standard_channels(
        &self,
        id: ConnectionId,
        index: &mut usize,
        slots: &mut [u32],
    ) -> Option<usize> {
        let directory = &self.connections.get(id.slot)?.directory;
        let mut count = 0;
        while count < slots.len() && *index < directory.indices() {
            let slot = directory.slot_at(*index);
            *index += 1;
            let Some(slot) = slot else { continue };
            if self.channels.get(slot).is_some_and(|channel| channel.kind() == Kind::Standard) {
                slots[count] = slot;
                count += 1;
            }
        }
        (count > 0).then_some(count)
    }

    /// NewMiningJob for each of up to [`LANES`] channels.
    fn announce_standard(
        &mut self,
        id: ConnectionId,
        index: usize,
        slots: &[u32],
        hashes: &impl BatchHash,
        out: &mut ServerOutbox,
    ) {
        let mut roots = [[0; 32]; LANES];
        let roots = &mut roots[..slots.len()];
        self.merkle_roots(id, index, slots, roots, hashes);
        let job = self.work.job(index);
        for (slot, root) in slots.iter().zip(roots) {
            let Some(channel) = self.channels.get_mut(*slot) else { continue };
            let message = NewMiningJob {
                channel_id: channel.id.0,
                job_id: job.id.0,
                min_ntime: job.announced_min_ntime(),
                version: job.source.template.version,
                merkle_root: root,
            };
            out.send(id, Priority::Work, &message);
            let untold = core::mem::replace(&mut channel.untold, Untold::Nothing);
            if untold != Untold::Nothing {
                if untold == Untold::JobAndTarget {
                    let (channel_id, target) = (channel.id.0, channel.target.target().to_le_bytes());
                    out.send(id, Priority::Work, &SetTarget { channel_id, maximum_target: &target });
                }
                if let Some(connection) = self.connections.get_mut(id.slot) {
                    connection.awaiting_job -= 1;
                }
            }
        }
    }

    /// The merkle roots of a job for up to [`LANES`] standard channels of a connection under their present prefixes. Where
    /// each channel is given each job, those of an active job are kept for its shares, and serve its repetitions. In a group most
    /// channels would keep a root for no share: there the first share on a job computes it.
    pub(super) fn merkle_roots(
        &mut self,
        id: ConnectionId,
        index: usize,
        slots: &[u32],
        roots: &mut [[u8; 32]],
        hashes: &impl BatchHash,
    ) {
        debug_assert!(slots.len() == roots.len() && slots.len() <= LANES);
        let standard_jobs = self.connection(id).is_some_and(|connection| connection.standard_jobs);
        let job = self.work.job(index);
        let number = job.source.number;
        let keeps = job.active.is_some() && standard_jobs;
        let mut prefixes = [Prefix::default(); LANES];
        let mut places = [0; LANES];
        let mut missing = 0;
        for (place, slot) in slots.iter().enumerate() {
            let Some(channel) = self.channels.get(*slot) else { continue };
            if let Some(known) = self.channels.warm(channel).and_then(|warm| warm.root(number)) {
                roots[place] = *known;
            } else if let Some(computed) = self.fan_out.roots_ahead.find(number, &channel.prefix) {
                roots[place] = computed;
                if keeps {
                    self.channels.keep_root(*slot, number, &computed);
                }
            } else {
                (prefixes[missing], places[missing]) = (channel.prefix, place);
                missing += 1;
            }
        }
        if missing == 0 {
            return;
        }
        let is_in_turn = self.fan_out.cursor == id.slot && self.fan_out.remaining > 0;
        let mut all = missing;
        if is_in_turn {
            all += self.prefixes_ahead(id.slot, job, &mut prefixes[missing..]);
        } else if slots.len() == 1 {
            // A channel was opened: others may follow.
            let foreseen = self.fan_out.roots_ahead.foresee(number);
            for (place, prefix) in prefixes[missing..].iter_mut().zip(self.prefixes.upcoming().take(foreseen))
            {
                *place = prefix;
                all += 1;
            }
        }
        let mut computed = [[0; 32]; LANES];
        let coinbase = job.source.coinbase(PREFIX_LEN);
        hashes.merkle_roots(&coinbase.hash, prefixes[..all].as_flattened(), &mut computed[..all]);
        for (place, root) in places.iter().zip(&computed[..missing]) {
            roots[*place] = *root;
            if keeps {
                self.channels.keep_root(slots[*place], number, root);
            }
        }
        if all > missing {
            let ahead = prefixes[missing..all].iter().copied().zip(&computed[missing..all]);
            self.fan_out.roots_ahead.keep(number, !is_in_turn, ahead);
        }
    }

    /// Prefixes of channels that this round tells of a job after those of the connection in `slot`, in their order; how many.
    fn prefixes_ahead(&self, slot: u32, job: &Job, prefixes: &mut [Prefix]) -> usize {
        let looked_at = self.fan_out.remaining.min(LOOKED_AHEAD);
        let slots = self.connections.slots();
        let connections = (1..looked_at)
            .filter_map(|offset| self.connections.get((slot + offset) % slots))
            .filter(|connection| {
                connection.standard_jobs
                    && connection.phase == Phase::Mining
                    && connection.delivered < job.announced
            });
        let channels = connections.flat_map(|connection| {
            let directory = &connection.directory;
            (0..directory.indices().min(LANES))
                .filter_map(|index| self.channels.get(directory.slot_at(index)?))
        });
        let without_root = channels.filter(|channel| {
            let known = self.channels.warm(channel).and_then(|warm| warm.root(job.source.number));
            channel.kind() == Kind::Standard && known.is_none()
        });
        let mut count = 0;
        for (place, channel) in prefixes.iter_mut().zip(without_root) {
            *place = channel.prefix;
            count += 1;
        }
        count
    }
}

/// A group's frame for a group of another id: the channel id opens the payload.
fn addressed_to(group: &Group, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&u32::from(group.id).to_le_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rounds_begin_everywhere() {
        let mut fan_out = FanOut::default();
        let mut first = HashSet::new();
        for _ in 0..100 {
            fan_out.begin(10);
            assert!(fan_out.cursor < 10);
            first.insert(fan_out.cursor);
            fan_out.remaining = 0;
        }
        assert_eq!(first.len(), 10);
    }

    #[test]
    fn news_during_a_round_prolongs_it() {
        let mut fan_out = FanOut::default();
        fan_out.begin(10);
        fan_out.remaining = 4;
        let cursor = fan_out.cursor;
        fan_out.begin(12);
        assert_eq!((fan_out.cursor, fan_out.remaining), (cursor, 12));
    }
}
