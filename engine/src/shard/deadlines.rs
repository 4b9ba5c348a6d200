//! Moments by which something must have happened to a connection, all equally far ahead: a queue, not a heap.

use std::collections::VecDeque;
use std::time::Duration;

use adit_proto::Instant;

use crate::transport::SocketId;

/// Entries below which the queue is not swept.
const UNSWEPT: usize = 1024;

#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    socket: SocketId,
    serial: u64,
}

/// Deadlines in the order in which they come due. Entries of connections that got there in time stay until they come up or
/// until a sweep, which keeps the queue below twice the connections that still matter.
pub(super) struct Deadlines {
    timeout: Duration,
    queue: VecDeque<Deadline>,
    sweep_at: usize,
}

impl Deadlines {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, queue: VecDeque::new(), sweep_at: UNSWEPT }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Adds a deadline; `matters` tells which of the others still count.
    pub(super) fn push(
        &mut self,
        now: Instant,
        socket: SocketId,
        serial: u64,
        matters: impl Fn(SocketId, u64) -> bool,
    ) {
        if self.queue.len() >= self.sweep_at {
            self.queue.retain(|deadline| matters(deadline.socket, deadline.serial));
            self.sweep_at = (2 * self.queue.len()).max(UNSWEPT);
        }
        self.queue.push_back(Deadline { at: now + self.timeout, socket, serial });
    }

    /// The next deadline, whether it still matters or not.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|deadline| deadline.at)
    }

    /// Takes the next deadline that has come due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(SocketId, u64)> {
        let deadline = *self.queue.front().filter(|deadline| deadline.at <= now)?;
        self.queue.pop_front();
        Some((deadline.socket, deadline.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_due_in_order() {
        let mut deadlines = Deadlines::new(Duration::from_nanos(10));
        for at in 0..3 {
            deadlines.push(Instant::from_nanos(at), SocketId(at as u32), at, |_, _| true);
        }
        assert_eq!(deadlines.next(), Some(Instant::from_nanos(10)));
        assert_eq!(deadlines.pop_due(Instant::from_nanos(11)), Some((SocketId(0), 0)));
        assert_eq!(deadlines.pop_due(Instant::from_nanos(11)), Some((SocketId(1), 1)));
        assert_eq!(deadlines.pop_due(Instant::from_nanos(11)), None);
    }

    #[test]
    fn what_no_longer_matters_is_swept() {
        let mut deadlines = Deadlines::new(Duration::from_secs(10));
        for serial in 0..1_000_000 {
            deadlines.push(Instant::ZERO, SocketId(0), serial, |_, old| old >= 999_000);
            assert!(deadlines.queue.len() <= 2 * UNSWEPT);
        }
    }
}
