//! The state of one client's connection.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::Limits;
use super::event::{ClassId, CloseReason};
use crate::setup::Faults;
use crate::time::Instant;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// SetupConnection is to come.
    Setup,
    /// CoinbaseOutputConstraints are to come.
    Constraints,
    /// It gets the templates of a class.
    Member(ClassId),
    /// The driver was told to close it.
    Closing,
}

/// A RequestTransactionData that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) wire_id: u64,
    /// As the driver knows it.
    pub(super) template_id: u64,
    pub(super) deadline: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    /// When the phase began.
    pub(super) since: Instant,
    /// Oldest first.
    pub(super) requests: VecDeque<Request>,
    /// The highest template id that the client was shown.
    pub(super) shown: Option<u64>,
    /// Future templates (the driver's ids) that the client knows by ids of its own.
    pub(super) aliases: Vec<(u64, u64)>,
    pub(super) faults: Faults,
}

impl Connection {
    pub(super) const fn new(generation: u32, now: Instant) -> Self {
        Self {
            generation,
            phase: Phase::Setup,
            since: now,
            requests: VecDeque::new(),
            shown: None,
            aliases: Vec::new(),
            faults: Faults::new(now),
        }
    }

    /// When the client must have taken the next step, and what it is closed for if not.
    pub(super) fn step_deadline(&self, limits: &Limits) -> Option<(Instant, CloseReason)> {
        let (timeout, reason): (Duration, CloseReason) = match self.phase {
            Phase::Setup => (limits.setup_timeout, CloseReason::SetupTimeout),
            Phase::Constraints => (limits.constraints_timeout, CloseReason::ConstraintsTimeout),
            Phase::Member(_) | Phase::Closing => return None,
        };
        Some((self.since + timeout, reason))
    }

    /// When something is next due on it.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let step = self.step_deadline(limits).map(|(deadline, _)| deadline);
        step.into_iter().chain(self.requests.front().map(|request| request.deadline)).min()
    }
}
