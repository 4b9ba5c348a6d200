//! A shard's outgoing links, and what it keeps while one of them is full.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam::channel::{Sender, TrySendError};
use crossbeam::utils::CachePadded;

use crate::counters::{Counter, ShardCounters};
use crate::identity::IdentityReader;
use crate::log::LogSender;
use crate::tips::TipClock;
use crate::topology::OUTPUTS_KEPT;

/// See the module.
pub(crate) struct CoreLinks<O> {
    outputs: Sender<O>,
    /// Outputs that found the link full, oldest first.
    kept: VecDeque<O>,
    pub(super) log: LogSender,
    pub(super) identity: IdentityReader,
    /// The generation of the identity that was last found invalid: said once.
    pub(super) invalid_identity: Option<u64>,
    pub(super) counters: Arc<CachePadded<ShardCounters>>,
    pub(super) tips: TipClock,
}

impl<O> CoreLinks<O> {
    pub(crate) fn new(
        outputs: Sender<O>,
        log: LogSender,
        identity: IdentityReader,
        counters: Arc<CachePadded<ShardCounters>>,
        tips: TipClock,
    ) -> Self {
        Self { outputs, kept: VecDeque::new(), log, identity, invalid_identity: None, counters, tips }
    }

    /// Sends a block, or whatever else leaves the service, on its way. None is dropped while there is a reader.
    pub(super) fn deliver(&mut self, output: O) {
        if !self.kept.is_empty() {
            self.kept.push_back(output);
        } else if let Err(TrySendError::Full(output)) = self.outputs.try_send(output) {
            self.counters.add(Counter::OutputsDelayed, 1);
            self.kept.push_back(output);
        }
    }

    /// Sends what was kept, as far as there is room.
    pub(super) fn retry_outputs(&mut self) {
        while let Some(output) = self.kept.pop_front() {
            if let Err(TrySendError::Full(output)) = self.outputs.try_send(output) {
                self.kept.push_front(output);
                break;
            }
        }
    }

    /// Whether outputs wait for room.
    pub(super) fn keeps_outputs(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Takes what was kept and cannot be sent any more.
    pub(super) fn take_kept(&mut self) -> VecDeque<O> {
        std::mem::take(&mut self.kept)
    }

    /// Whether so many wait that no more frames may be taken.
    pub(super) fn is_blocked(&self) -> bool {
        self.kept.len() >= OUTPUTS_KEPT
    }
}
