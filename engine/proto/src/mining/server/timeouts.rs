//! The passing of time: connections that are too slow, channels whose target and table of shares are to be looked at, jobs that are to be
//! repeated. Each call does a bounded amount; what is left over is due at once.

use core::time::Duration;

use adit_hasher::BatchHash;

use super::config::Limits;
use super::connection::{Connection, Phase};
use super::event::CloseReason;
use super::vardiff::is_easiest;
use super::{Server, ServerOutbox};
use crate::time::Instant;

/// Connections looked at in one call.
const CONNECTIONS_MAX: usize = 1_024;
/// Channels looked at in one call.
const CHANNELS_MAX: usize = 1_024;
/// Channels acknowledged in one call.
const ACKNOWLEDGED_MAX: usize = 1_024;
/// Between two looks at a channel without shares whose target is as it shall be: at its table alone.
const TABLE_CHECK: Duration = Duration::from_secs(60);

/// When a connection is next to be looked at, and what to close it for if that moment has come.
fn connection_deadline(connection: &Connection, limits: &Limits) -> (Instant, CloseReason) {
    match connection.phase {
        Phase::Setup => (connection.bare_since + limits.setup_timeout, CloseReason::SetupTimeout),
        Phase::Mining | Phase::Closing => {
            let idle = connection.heard_at + limits.idle_timeout;
            let bare = connection.bare_since + limits.first_channel_timeout;
            if connection.directory.open() == 0 && bare <= idle {
                (bare, CloseReason::NoChannel)
            } else {
                (idle, CloseReason::Idle)
            }
        }
    }
}

impl Server {
    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, hashes: &impl BatchHash, out: &mut ServerOutbox) {
        if self.work.renewal().is_some_and(|due| due <= now) {
            self.work.renew(now);
            self.fan_out.begin(self.connections.slots());
        }
        for _ in 0..CONNECTIONS_MAX {
            let Some(slot) = self.connection_timers.poll(now) else { break };
            self.check_connection(slot, now, out);
        }
        for _ in 0..ACKNOWLEDGED_MAX {
            let Some(slot) = self.owed.poll(now) else { break };
            self.acknowledge_owed(slot, out);
        }
        for _ in 0..CHANNELS_MAX {
            let Some(slot) = self.channel_timers.poll(now) else { break };
            self.check_channel(slot, now, hashes, out);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [
            self.connection_timers.deadline(),
            self.channel_timers.deadline(),
            self.owed.deadline(),
            self.work.renewal(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Sets the timer of a connection whose state changed.
    pub(super) fn schedule_connection(&mut self, slot: u32) {
        let Some(connection) = self.connections.get(slot).filter(|c| c.phase != Phase::Closing) else {
            return;
        };
        let (deadline, _) = connection_deadline(connection, &self.config.limits);
        self.connection_timers.schedule(slot, deadline);
    }

    /// Sets when a channel is next to be looked at.
    pub(super) fn schedule_channel(&mut self, slot: u32, now: Instant) {
        let Some(channel) = self.channels.get(slot).filter(|channel| channel.open) else { return };
        let vardiff = &self.config.vardiff;
        // A channel that cannot be eased is looked at for its shares alone, when they come.
        let due = if vardiff.adjust && !is_easiest(vardiff, &channel.target.target()) {
            channel.vardiff.next_check(vardiff)
        } else {
            now + TABLE_CHECK
        };
        self.channel_timers.schedule(slot, due);
    }

    /// Looks at a channel: at its target, and at its table of shares.
    fn check_channel(&mut self, slot: u32, now: Instant, hashes: &impl BatchHash, out: &mut ServerOutbox) {
        if let Some(tip) = self.work.tip() {
            self.channels.give_back_stale(slot, tip.number, |source| self.work.has_source(source));
        }
        if self.config.vardiff.adjust {
            self.retarget(slot, now, hashes, out);
        } else {
            self.schedule_channel(slot, now);
        }
    }

    fn check_connection(&mut self, slot: u32, now: Instant, out: &mut ServerOutbox) {
        let (Some(connection), Some(id)) = (self.connections.get(slot), self.connection_at(slot)) else {
            return;
        };
        let (deadline, reason) = connection_deadline(connection, &self.config.limits);
        if deadline <= now {
            self.end_connection(id, reason, now, out);
        } else {
            self.connection_timers.schedule(slot, deadline);
        }
    }
}
