//! What happened, counted by each shard for itself and read by anybody.
//!
//! Each counter has one writer, so that adding is a load and a store; readers see values that may be a tick old.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use adit_proto::distribution::server as distribution;
use adit_proto::mining::server as mining;
use adit_proto::mining::server::ShareError;
use crossbeam::utils::CachePadded;

use crate::end::EndKind;
use crate::log::RefuseReason;

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $field:ident,)*) => {
        /// A counter of a shard.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Counter { $($variant,)* }

        const COUNT: usize = [$(Counter::$variant,)*].len();

        /// The counters of one shard, or their sums over all.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct ShardSnapshot {
            $($(#[$doc])* pub $field: u64,)*
            /// Sum of the difficulties assigned to accepted shares.
            pub difficulty_accepted: f64,
            /// Refused shares, by [`ShareError`] as index.
            pub shares_rejected: [u64; ShareError::COUNT],
            /// Ended connections, by [`EndKind`] as index.
            pub ended: [u64; EndKind::COUNT],
        }

        impl ShardSnapshot {
            fn read(counters: &ShardCounters) -> Self {
                let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
                Self {
                    $($field: counters.load(Counter::$variant),)*
                    difficulty_accepted: f64::from_bits(load(&counters.difficulty)),
                    shares_rejected: array::from_fn(|index| load(&counters.shares_rejected[index])),
                    ended: array::from_fn(|index| load(&counters.ended[index])),
                }
            }

            fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                self.difficulty_accepted += other.difficulty_accepted;
                for (sum, count) in self.shares_rejected.iter_mut().zip(&other.shares_rejected) {
                    *sum += count;
                }
                for (sum, count) in self.ended.iter_mut().zip(&other.ended) {
                    *sum += count;
                }
            }
        }
    };
}

counters! {
    /// Connections taken over from the acceptor.
    ConnectionsTaken => connections_taken,
    /// Connections whose socket is gone.
    ConnectionsGone => connections_gone,
    /// Handshakes completed.
    Handshakes => handshakes,
    /// Bytes received.
    BytesReceived => bytes_received,
    /// Bytes that the kernel took over to send.
    BytesSent => bytes_sent,
    /// Frames opened.
    FramesReceived => frames_received,
    /// Frames sealed.
    FramesSent => frames_sent,
    /// Shares that met their target.
    SharesAccepted => shares_accepted,
    /// Blocks among the shares, or solutions that clients of Template Distribution brought.
    Solutions => solutions,
    /// Channels opened.
    ChannelsOpened => channels_opened,
    /// Channels closed.
    ChannelsClosed => channels_closed,
    /// SetTarget messages sent because of the share rate.
    Retargets => retargets,
    /// Templates and tips taken.
    Templates => templates,
    /// Templates and tips that could not be used.
    TemplatesRefused => templates_refused,
    /// Rounds of work.
    Ticks => ticks,
    /// Receives that found no buffer and were armed again.
    ReceiveBuffersExhausted => receive_buffers_exhausted,
    /// Rounds in which the completion queue was full.
    CompletionOverflows => completion_overflows,
    /// System calls of the shard's own rings.
    RingEnters => ring_enters,
    /// Lines for the log that found the link full.
    LogEventsDropped => log_events_dropped,
    /// Solutions, and whatever else leaves a shard, that found the link full and waited.
    OutputsDelayed => outputs_delayed,
    /// Frames of NewTemplate sent to clients of Template Distribution.
    TemplatesSent => templates_sent,
    /// Frames of SetNewPrevHash sent to clients of Template Distribution.
    PrevHashesSent => prev_hashes_sent,
    /// Requests for a template's transactions.
    TransactionRequests => transaction_requests,
    /// Solutions for templates that are not kept, among the solutions of Template Distribution.
    SolutionsUnknown => solutions_unknown,
}

/// What one shard writes and others read.
#[derive(Debug, Default)]
pub struct ShardCounters {
    cells: [AtomicU64; COUNT],
    difficulty: AtomicU64,
    shares_rejected: [AtomicU64; ShareError::COUNT],
    ended: [AtomicU64; EndKind::COUNT],
    /// Nothing will be counted any more: the shard has let go of its last connection.
    over: AtomicBool,
}

impl ShardCounters {
    pub(crate) fn set_over(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Adds, by the one writer.
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        add(&self.cells[counter as usize], count);
    }

    pub(crate) fn set(&self, counter: Counter, count: u64) {
        self.cells[counter as usize].store(count, Ordering::Relaxed);
    }

    pub(crate) fn load(&self, counter: Counter) -> u64 {
        self.cells[counter as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn add_ended(&self, kind: EndKind) {
        add(&self.ended[kind as usize], 1);
    }

    /// Takes over what a server of Template Distribution has counted.
    pub(crate) fn publish_distribution(&self, server: &distribution::Counters) {
        self.set(Counter::Solutions, server.solutions);
        self.set(Counter::SolutionsUnknown, server.solutions_unknown);
        self.set(Counter::TemplatesSent, server.templates_sent);
        self.set(Counter::PrevHashesSent, server.prev_hashes_sent);
        self.set(Counter::TransactionRequests, server.requests);
    }

    /// Takes over what a mining server has counted.
    pub(crate) fn publish_mining(&self, server: &mining::Counters) {
        self.set(Counter::SharesAccepted, server.shares_accepted);
        self.set(Counter::Solutions, server.solutions);
        self.set(Counter::ChannelsOpened, server.channels_opened);
        self.set(Counter::ChannelsClosed, server.channels_closed);
        self.set(Counter::Retargets, server.retargets);
        self.difficulty.store(server.difficulty_accepted.to_bits(), Ordering::Relaxed);
        for (cell, count) in self.shares_rejected.iter().zip(server.shares_rejected) {
            cell.store(count, Ordering::Relaxed);
        }
    }
}

fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl ShardSnapshot {
    /// Connections that are open, those in their handshake and those that are closing included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections_taken.saturating_sub(self.connections_gone)
    }

    /// Channels that are open.
    #[must_use]
    pub fn channels(&self) -> u64 {
        self.channels_opened.saturating_sub(self.channels_closed)
    }

    /// Refused shares in all.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.shares_rejected.iter().sum()
    }

    /// Connections that ended for one kind of reason.
    #[must_use]
    pub fn ended(&self, kind: EndKind) -> u64 {
        self.ended[kind as usize]
    }
}

/// What the acceptor writes and others read.
#[derive(Debug, Default)]
pub(crate) struct AcceptorCounters {
    accepted: AtomicU64,
    refused: [AtomicU64; RefuseReason::COUNT],
}

impl AcceptorCounters {
    pub(crate) fn add_accepted(&self) {
        add(&self.accepted, 1);
    }

    pub(crate) fn add_refused(&self, reason: RefuseReason) {
        add(&self.refused[reason as usize], 1);
    }
}

/// All of an engine's counters, on cache lines of their own per writer.
#[derive(Clone, Debug)]
pub(crate) struct CounterBoard {
    pub(crate) acceptor: Arc<CachePadded<AcceptorCounters>>,
    pub(crate) shards: Vec<Arc<CachePadded<ShardCounters>>>,
}

impl CounterBoard {
    pub(crate) fn new(shards: usize) -> Self {
        Self { acceptor: Arc::default(), shards: (0..shards).map(|_| Arc::default()).collect() }
    }

    pub(crate) fn read(&self) -> EngineCounters {
        let shards: Vec<_> = self.shards.iter().map(|counters| ShardSnapshot::read(counters)).collect();
        let mut total = ShardSnapshot::default();
        shards.iter().for_each(|shard| total.add(shard));
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        EngineCounters {
            total,
            shards,
            connections_accepted: load(&self.acceptor.accepted),
            connections_refused: array::from_fn(|index| load(&self.acceptor.refused[index])),
        }
    }
}

/// What an engine has done since it was started; monotone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineCounters {
    /// Sums over the shards.
    pub total: ShardSnapshot,
    /// Each shard's own.
    pub shards: Vec<ShardSnapshot>,
    /// Connections accepted, those refused at once not included.
    pub connections_accepted: u64,
    /// Connections refused at once, by [`RefuseReason`] as index.
    pub connections_refused: [u64; RefuseReason::COUNT],
}

impl EngineCounters {
    /// Connections refused at once for one reason.
    #[must_use]
    pub fn refused(&self, reason: RefuseReason) -> u64 {
        self.connections_refused[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_shards() {
        let board = CounterBoard::new(2);
        board.shards[0].add(Counter::ConnectionsTaken, 3);
        board.shards[1].add(Counter::ConnectionsTaken, 4);
        board.shards[1].add(Counter::ConnectionsGone, 1);
        board.shards[1].add_ended(EndKind::Idle);
        let mut server =
            mining::Counters { shares_accepted: 5, difficulty_accepted: 2.5, ..mining::Counters::default() };
        server.shares_rejected[ShareError::Duplicate as usize] = 6;
        board.shards[0].publish_mining(&server);
        board.shards[0].publish_mining(&server);
        board.acceptor.add_refused(RefuseReason::AddressFull);
        let counters = board.read();
        assert_eq!(counters.total.connections(), 6);
        assert_eq!(counters.shards[1].connections(), 3);
        assert_eq!(counters.total.ended(EndKind::Idle), 1);
        assert_eq!((counters.total.shares_accepted, counters.total.rejected()), (5, 6));
        assert_eq!(counters.total.difficulty_accepted, 2.5);
        assert_eq!(counters.refused(RefuseReason::AddressFull), 1);
    }
}
