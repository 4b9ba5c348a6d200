//! A shard's outgoing links, and what it keeps while one of them is full.

use std::collections::VecDeque;
use std::sync::Arc;

use adit_proto::mining::server::Solution;
use crossbeam::channel::{Sender, TrySendError};
use crossbeam::utils::CachePadded;

use crate::counters::{Counter, ShardCounters};
use crate::identity::IdentityReader;
use crate::log::LogSender;
use crate::topology::SOLUTIONS_KEPT;

/// See the module.
pub(crate) struct CoreLinks {
    solutions: Sender<Box<Solution>>,
    /// Solutions that found the link full, oldest first.
    kept: VecDeque<Box<Solution>>,
    pub(super) log: LogSender,
    pub(super) identity: IdentityReader,
    /// The generation of the identity that was last found invalid: said once.
    pub(super) invalid_identity: Option<u64>,
    pub(super) counters: Arc<CachePadded<ShardCounters>>,
}

impl CoreLinks {
    pub(crate) fn new(
        solutions: Sender<Box<Solution>>,
        log: LogSender,
        identity: IdentityReader,
        counters: Arc<CachePadded<ShardCounters>>,
    ) -> Self {
        Self { solutions, kept: VecDeque::new(), log, identity, invalid_identity: None, counters }
    }

    /// Sends a block on its way. None is dropped while there is a reader.
    pub(super) fn deliver(&mut self, solution: Box<Solution>) {
        if !self.kept.is_empty() {
            self.kept.push_back(solution);
        } else if let Err(TrySendError::Full(solution)) = self.solutions.try_send(solution) {
            self.counters.add(Counter::SolutionsDelayed, 1);
            self.kept.push_back(solution);
        }
    }

    /// Sends what was kept, as far as there is room.
    pub(super) fn retry_solutions(&mut self) {
        while let Some(solution) = self.kept.pop_front() {
            if let Err(TrySendError::Full(solution)) = self.solutions.try_send(solution) {
                self.kept.push_front(solution);
                break;
            }
        }
    }

    /// Whether solutions wait for room.
    pub(super) fn keeps_solutions(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Whether so many wait that no more shares may be judged.
    pub(super) fn is_blocked(&self) -> bool {
        self.kept.len() >= SOLUTIONS_KEPT
    }
}
