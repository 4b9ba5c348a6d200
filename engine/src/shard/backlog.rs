//! What waits to be sent on all connections together: bounded, at the cost of those who read least.
//!
//! Bytes are counted as they come and go ([`SendBuffers::held`](super::outgoing::SendBuffers::held)); connections are gone
//! through only when there are too many, and then so many are dropped that it takes a while until the next time.
//!
//! What the service allows a connection ([`Service::backlog_allowance`]: so much for each channel) widens the shard's bound
//! and is taken off its backlog. So whenever the bound is exceeded, some hold more than they are allowed, and dropping those is enough.

use super::connection::Stage;
use super::core::Core;
use crate::end::EndReason;
use crate::limits::SHARD_SEND_BUFFER_FREED_PART;
use crate::service::Service;
use crate::transport::SocketId;

impl<S: Service> Core<S> {
    /// Bytes that wait or are under way to all peers.
    #[must_use]
    pub fn send_backlog(&self) -> usize {
        self.buffers.held()
    }

    /// Drops the connections with the largest backlogs, if the shard's bound is exceeded.
    pub(super) fn drop_slowest(&mut self) {
        let held = self.buffers.held();
        let base = self.limits.shard_send_buffer_bytes_max;
        if held <= base {
            return;
        }
        let max = base + self.service.backlog_allowance_in_all();
        if held <= max {
            return;
        }
        let mut backlogs: Vec<_> = (0u32..)
            .zip(&self.connections)
            .filter_map(|(index, connection)| {
                let connection = connection.as_ref()?;
                let allowance = match connection.stage {
                    Stage::Open { id, .. } => self.service.backlog_allowance(id),
                    _ => 0,
                };
                let waiting = connection.outgoing.held();
                let excess = waiting.saturating_sub(allowance);
                (excess > 0).then_some((excess, waiting, SocketId(index)))
            })
            .collect();
        backlogs.sort_unstable_by_key(|(excess, ..)| std::cmp::Reverse(*excess));
        let mut surplus = held - max + base / SHARD_SEND_BUFFER_FREED_PART;
        for (excess, waiting, socket) in backlogs {
            self.end(socket, EndReason::SlowestReader { waiting, shard_waiting: held, shard_max: max });
            surplus = surplus.saturating_sub(excess);
            if surplus == 0 {
                break;
            }
        }
    }
}
