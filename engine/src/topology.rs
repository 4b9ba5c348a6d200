//! Every thread of an engine and every link between two of them, on one page.
//!
//! ```text
//!  template source ──updates────▶ ┌──────────┐ ──outputs──▶ journal, nodes
//!  (its own thread)               │ shard 0  │
//!  handle ──commands────────────▶ │  ...     │ ──log──────▶ log, dashboard
//!                                 │ shard n-1│
//!  acceptor ──sockets───────────▶ └──────────┘
//! ```
//!
//! | thread | how many | pinned | does |
//! |---|---|---|---|
//! | `adit-shard-i` | one per CPU given | to that CPU, if the system allows | everything about its connections, from handshake to close |
//! | `adit-acceptor` | 1 | no | accepts, checks limits, hands each socket to the shard with the fewest connections |
//!
//! | link | from, to | depth | when full |
//! |---|---|---|---|
//! | sockets | acceptor, each shard | [`SOCKETS`] | next shard; if all are, waits [`SOCKET_PATIENCE`] (the kernel's backlog fills), then closes the socket, counted |
//! | updates | source, each shard | [`UPDATES`] | the source waits: templates are few, and none may be lost |
//! | commands | handle, each shard | [`COMMANDS`] | the caller waits |
//! | outputs | each shard, one reader | [`OUTPUTS`] | the shard keeps [`OUTPUTS_KEPT`] itself, then stops reading frames until there is room: none is dropped |
//! | log | all, one reader | [`LOG_EVENTS`] | dropped, counted |
//!
//! What goes over `updates`, `commands` and `outputs` is the [service](crate::service)'s: for the Mining Protocol templates,
//! an operator's commands, and blocks; for Template Distribution templates of a constraint class, answers to requests for
//! transactions, and blocks with everything that the node must be told.
//!
//! Beside the links threads share only: the identity (an `Arc` that is replaced as a whole, told by a generation), immutable
//! templates behind `Arc`, counters that one thread writes and others read, histograms of what tips took (added to without waiting), and the count of connections per address
//! (the references to an `Arc`). Whoever puts something into a shard's link also wakes it by its eventfd.
//!
//! None of them is unbounded.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::utils::CachePadded;

use crate::acceptor::AddressTicket;
use crate::counters::{CounterBoard, ShardCounters};
use crate::identity::IdentityCell;
use crate::log::LogEvent;
use crate::service::Service;
use crate::tips::SharedLegs;
use crate::transport::Wake;

/// Sockets that wait for one shard. Each holds a file descriptor: with [`SHARDS_MAX`] shards they must stay few.
pub const SOCKETS: usize = 256;
/// How long the acceptor waits for a place in some shard's link.
pub const SOCKET_PATIENCE: Duration = Duration::from_millis(200);
/// Templates and tips that wait for one shard.
pub const UPDATES: usize = 64;
/// Commands that wait for one shard.
pub const COMMANDS: usize = 64;
/// Outputs that wait for their reader. On any network with a real target there is a block in ten minutes; on test chains
/// every share can be one.
pub const OUTPUTS: usize = 1024;
/// Outputs that a shard keeps while the link is full, before it stops reading frames. Those of one tick may come on top.
pub const OUTPUTS_KEPT: usize = 1024;
/// Lines that wait for the log's reader.
pub const LOG_EVENTS: usize = 8192;
/// Shards of one engine: a shard's number is one byte.
pub const SHARDS_MAX: usize = 256;

/// A command on its way, and where its answer goes.
pub(crate) struct PendingCommand<S: Service> {
    pub(crate) command: S::Command,
    pub(crate) answer: Sender<S::Answer>,
}

/// An update on its way to a shard.
pub(crate) struct Sent<U> {
    pub(crate) update: U,
    /// When the role learnt of it.
    pub(crate) learned: std::time::Instant,
    /// Since when it is on its way.
    pub(crate) at: std::time::Instant,
}

/// A socket on its way to its shard.
pub(crate) struct NewSocket {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: std::net::SocketAddr,
    pub(crate) ticket: AddressTicket,
}

/// A shard's ends of its links.
pub(crate) struct ShardLinks<S: Service> {
    pub(crate) sockets: Receiver<NewSocket>,
    pub(crate) updates: Receiver<Sent<S::Update>>,
    pub(crate) commands: Receiver<PendingCommand<S>>,
    pub(crate) outputs: Sender<S::Output>,
    pub(crate) log: Sender<LogEvent>,
    pub(crate) identity: Arc<IdentityCell>,
    pub(crate) counters: Arc<CachePadded<ShardCounters>>,
    pub(crate) tips: SharedLegs,
    pub(crate) stop: Arc<Stop>,
    pub(crate) wake: Arc<Wake>,
}

/// The acceptor's ends of one shard's links.
pub(crate) struct ShardDoor {
    pub(crate) sockets: Sender<NewSocket>,
    pub(crate) counters: Arc<CachePadded<ShardCounters>>,
    pub(crate) wake: Arc<Wake>,
}

/// The handle's ends of one shard's links.
pub(crate) struct ShardInlet<S: Service> {
    pub(crate) updates: Sender<Sent<S::Update>>,
    pub(crate) commands: Sender<PendingCommand<S>>,
    pub(crate) tips: SharedLegs,
    pub(crate) wake: Arc<Wake>,
}

/// How threads are told to end.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// Take no more connections; those that are there are served for another moment.
    pub(crate) requested: AtomicBool,
    /// Tell those that are there, judge what still arrives, and end once they have closed.
    pub(crate) hang_up: AtomicBool,
    /// End now.
    pub(crate) at_once: AtomicBool,
}

/// All links of an engine.
pub(crate) struct Links<S: Service> {
    pub(crate) shards: Vec<ShardLinks<S>>,
    pub(crate) doors: Vec<ShardDoor>,
    pub(crate) inlets: Vec<ShardInlet<S>>,
    pub(crate) outputs: Receiver<S::Output>,
    pub(crate) log: (Sender<LogEvent>, Receiver<LogEvent>),
}

impl<S: Service> Links<S> {
    pub(crate) fn new(
        count: usize,
        board: &CounterBoard,
        identity: &Arc<IdentityCell>,
        stop: &Arc<Stop>,
    ) -> std::io::Result<Self> {
        let (outputs_sender, outputs) = bounded(OUTPUTS);
        let log = bounded(LOG_EVENTS);
        let mut shards = Vec::with_capacity(count);
        let (mut doors, mut inlets) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for counters in board.shards.iter().take(count) {
            let (sockets_sender, sockets) = bounded(SOCKETS);
            let (updates_sender, updates) = bounded(UPDATES);
            let (commands_sender, commands) = bounded(COMMANDS);
            let wake = Arc::new(Wake::new()?);
            let tips = SharedLegs::default();
            doors.push(ShardDoor {
                sockets: sockets_sender,
                counters: Arc::clone(counters),
                wake: Arc::clone(&wake),
            });
            inlets.push(ShardInlet {
                updates: updates_sender,
                commands: commands_sender,
                tips: Arc::clone(&tips),
                wake: Arc::clone(&wake),
            });
            shards.push(ShardLinks {
                sockets,
                updates,
                commands,
                outputs: outputs_sender.clone(),
                log: log.0.clone(),
                identity: Arc::clone(identity),
                counters: Arc::clone(counters),
                tips,
                stop: Arc::clone(stop),
                wake,
            });
        }
        Ok(Self { shards, doors, inlets, outputs, log })
    }
}
