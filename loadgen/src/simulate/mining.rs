//! Shares of both loops: which device's is next, when, and its frame.
//!
//! Open loop: arrivals whose time has come are sealed; a connection whose socket takes no bytes keeps [`PENDING_LEN_MAX`] of
//! them sealed, and the time of its next arrival. Nothing is left out when it goes on. Closed loop: a connection whose window
//! has room for a write gets one.

use super::arrivals::Arrivals;
use super::scenario::ShareKind;
use super::shard::{Simulated, Window};

/// Sealed bytes of a connection that wait for the kernel: above, no further shares are sealed.
const PENDING_LEN_MAX: usize = 64 * 1024;
/// Before arrivals go on where too many shares wait for answers.
const FULL_RETRY_NS: u64 = 1_000_000;

impl Simulated {
    /// Lets a connection's arrivals begin, if there is an open loop.
    pub(super) fn schedule(&mut self, index: usize, from_ns: u64) {
        let connection = &mut self.connections[index];
        let is_open_loop = self.plan.scenario.shares.kind == ShareKind::Open;
        if !is_open_loop || !connection.is_served || connection.is_scheduled {
            return;
        }
        connection.is_scheduled = true;
        connection.next_arrival_ns = from_ns + connection.rates.draw_gap_ns(&mut self.random);
        self.push_arrival(index);
    }

    pub(super) fn batch_ns(&self) -> u64 {
        (self.plan.scenario.shares.batch_ms * 1e6) as u64
    }

    pub(super) fn push_arrival(&mut self, index: usize) {
        let due_ns = self.connections[index].next_arrival_ns + self.batch_ns();
        self.arrivals.push(due_ns, u32::try_from(index).expect("counted in u32"));
    }

    pub(super) fn rebuild_arrivals(&mut self) {
        self.arrivals = Arrivals::default();
        for index in 0..self.connections.len() {
            if self.connections[index].is_scheduled && !self.connections[index].is_blocked {
                self.push_arrival(index);
            }
        }
    }

    /// Seals the shares that are due.
    pub(super) fn mine_open_loop(&mut self) {
        while let Some(index) = self.arrivals.pop_due(self.now_ns) {
            self.mine_due(index as usize);
        }
    }

    /// Seals a connection's shares whose time has come.
    fn mine_due(&mut self, index: usize) {
        let Some(Window { end_ns, .. }) = self.window else { return };
        let until_ns = self.now_ns.min(end_ns.saturating_sub(1));
        if !self.connections[index].is_served {
            self.connections[index].is_scheduled = false;
            return;
        }
        self.mark_dirty(index);
        loop {
            let connection = &mut self.connections[index];
            let at_ns = connection.next_arrival_ns;
            if at_ns > until_ns {
                break;
            }
            if connection.pending.len() >= PENDING_LEN_MAX {
                connection.is_blocked = true;
                return;
            }
            if self.outstanding.is_full() {
                let retry_ns = self.now_ns + FULL_RETRY_NS;
                return self.arrivals.push(retry_ns, u32::try_from(index).expect("counted in u32"));
            }
            connection.next_arrival_ns = at_ns + connection.rates.draw_gap_ns(&mut self.random);
            let device = connection.rates.draw_device(&mut self.random);
            self.submit(index, device, at_ns);
        }
        if self.connections[index].next_arrival_ns < end_ns {
            self.push_arrival(index);
        } else {
            self.connections[index].is_scheduled = false;
        }
    }

    /// Seals a connection's next write, if its window has room for it.
    pub(super) fn mine_closed_loop(&mut self, index: usize) {
        let shares = &self.plan.scenario.shares;
        let Some(window) = self.window.filter(|_| shares.kind == ShareKind::Closed) else { return };
        let connection = &self.connections[index];
        let has_room = connection.outstanding + shares.per_write <= shares.in_flight;
        let is_time = (window.go_ns..window.end_ns).contains(&self.now_ns);
        if !connection.is_served || !connection.pending.is_empty() || !has_room || !is_time {
            return;
        }
        let (per_write, run) = (shares.per_write, shares.run);
        let channels = self.plan.scenario.channels_per_connection;
        let mut idle = 0;
        let mut sealed = 0;
        while sealed < per_write && idle < channels {
            let connection = &mut self.connections[index];
            if connection.turn_left == 0 {
                connection.turn = (connection.turn + 1) % channels;
                connection.turn_left = run;
            }
            connection.turn_left -= 1;
            let device = connection.turn;
            if self.submit(index, device, self.now_ns) {
                sealed += 1;
            } else {
                self.connections[index].turn_left = 0;
                idle += 1;
            }
        }
    }

    /// Seals a device's share, if it has work. Returns whether it had.
    fn submit(&mut self, index: usize, device: u32, at_ns: u64) -> bool {
        let place = self.first_device(index) + device as usize;
        let connection = &mut self.connections[index];
        let device = &mut self.devices[place];
        let Some(work) = connection.work(device).filter(|_| device.is_open) else { return false };
        if connection.pending.capacity() == 0 {
            connection.pending = self.spares.pop().unwrap_or_default();
        }
        let sequence_number = self.outstanding.submit(device, at_ns);
        connection.outstanding += 1;
        connection.seal_share(device, work, sequence_number);
        self.tally.shares.submitted += 1;
        self.second.submitted += 1;
        if self.is_measured(at_ns) {
            self.tally.measured.submitted += 1;
            self.tally.measured.late.record(self.now_ns.saturating_sub(at_ns));
        }
        true
    }

    pub(super) fn blocked(&self) -> usize {
        match self.plan.scenario.shares.kind {
            ShareKind::Open => self.connections.iter().filter(|connection| connection.is_blocked).count(),
            ShareKind::Closed | ShareKind::None | ShareKind::Hash => 0,
        }
    }

    /// Counts the arrivals that found no room until the end.
    pub(super) fn count_unsent(&mut self) {
        let Some(Window { end_ns, .. }) = self.window else { return };
        for connection in self.connections.iter_mut().filter(|connection| connection.is_scheduled) {
            while connection.next_arrival_ns < end_ns.min(self.now_ns) {
                self.tally.measured.unsent += 1;
                connection.next_arrival_ns += connection.rates.draw_gap_ns(&mut self.random).max(1);
            }
        }
    }
}
