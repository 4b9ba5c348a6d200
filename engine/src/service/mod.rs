//! What a shard serves: one protocol's server side, as the shard's core drives it.
//!
//! A [`Service`] is a state machine of [`adit_proto`] and what this crate must know about it beside frames: how its events
//! are said in the log, what of them leaves the shard, what it counts. Sockets, ciphers, handshakes, limits on connections
//! and the order of a tick are the core's, and the same for all.
//!
//! The core is generic over it, so that each service is compiled into a shard of its own: nothing is boxed, nothing is
//! called through a table, and the Mining Protocol pays nothing for the others.

mod distribution;
mod mining;
mod overtaken;

use std::fmt;
use std::net::SocketAddr;

use adit_codec::frame::FrameHeader;
use adit_proto::mining::server::ConnectionId;
use adit_proto::{Instant, Outbox};

pub use self::distribution::{Distribution, DistributionCommand, DistributionOutput, DistributionUpdate};
pub use self::mining::{Command, Done, Mining, MiningConfig};

use crate::counters::ShardCounters;
use crate::end::EndReason;
use crate::error::StartError;
use crate::log::{LineKind, LogEvent};

/// What a service is made from, on the thread of each shard.
pub trait ServiceConfig: Clone + Send + 'static {
    /// What it makes.
    type Service: Service<Config = Self>;
    /// How many shards can serve side by side.
    const SHARDS_MAX: usize;

    /// A service without connections, for one shard. `random` differs from start to start.
    ///
    /// # Errors
    /// Settings with which it cannot work.
    fn start(self, shard: u8, random: u64, now: Instant) -> Result<Self::Service, StartError>;
}

/// Where a service's effects go: frames for connections, and events.
pub type ServiceOutbox<S> = Outbox<ConnectionId, <S as Service>::Event>;

/// Whether a frame of work that still waits, unsealed, on a connection (first argument) is void with the SetNewPrevHash
/// (second) that would wait behind it. Both are whole frames.
pub type IsOvertaken = fn(&[u8], &[u8]) -> bool;

/// One protocol's server side. `now` never goes back.
pub trait Service: Sized + 'static {
    /// What it is made from.
    type Config: ServiceConfig<Service = Self>;
    /// What it reports beside frames.
    type Event;
    /// What comes from the template source.
    type Update: Clone + Send + 'static;
    /// Why an update is refused.
    type UpdateError: fmt::Display;
    /// What an operator or a role asks of it.
    type Command: Send + 'static;
    /// What a command is answered.
    type Answer: Send + 'static;
    /// What leaves the shard for the role: blocks above all. None is dropped.
    type Output: Send + 'static;
    /// The message type of its SetNewPrevHash.
    const TIP_MSG_TYPE: u8;
    /// Which work that waits is void with a tip, and never sent. None where all work is delivered.
    const IS_OVERTAKEN: Option<IsOvertaken>;

    /// A handshake is complete.
    ///
    /// # Errors
    /// There is no place for the connection: it is closed.
    fn handle_connect(&mut self, now: Instant) -> Result<ConnectionId, EndReason>;

    /// The connection is over; nothing is sent to it any more.
    fn handle_disconnect(&mut self, id: ConnectionId, now: Instant, out: &mut ServiceOutbox<Self>);

    /// These frames are handled next. Nothing is done but reading what that will read, so that it is in a cache.
    fn read_ahead<'a>(&self, _id: ConnectionId, _frames: impl Iterator<Item = (FrameHeader, &'a [u8])>) {}

    /// A plaintext frame came.
    fn handle_frame(
        &mut self,
        id: ConnectionId,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
        out: &mut ServiceOutbox<Self>,
    );

    /// A template or a tip came.
    ///
    /// # Errors
    /// What is wrong with it. The service goes on.
    fn handle_update(
        &mut self,
        update: &Self::Update,
        now: Instant,
        out: &mut ServiceOutbox<Self>,
    ) -> Result<(), Self::UpdateError>;

    /// Whether an update is a tip.
    fn is_tip(update: &Self::Update) -> bool;

    /// A command came.
    fn handle_command(
        &mut self,
        command: Self::Command,
        now: Instant,
        out: &mut ServiceOutbox<Self>,
    ) -> Self::Answer;

    /// Judges what the frames of this tick have brought.
    fn settle(&mut self, now: Instant, out: &mut ServiceOutbox<Self>);

    /// Says what it has put off saying to a connection, or to all: nothing can be said soon.
    fn acknowledge(&mut self, _whom: Option<ConnectionId>, _out: &mut ServiceOutbox<Self>) {}

    /// Announces work to at most `budget` more connections. True while more wait.
    fn poll_fan_out(&mut self, budget: usize, out: &mut ServiceOutbox<Self>) -> bool;

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due.
    fn handle_timeout(&mut self, now: Instant, out: &mut ServiceOutbox<Self>);

    /// Bytes that may wait for a connection beyond [`send_buffer_bytes_max`](crate::EngineLimits::send_buffer_bytes_max).
    fn backlog_allowance(&self, id: ConnectionId) -> usize;

    /// The same for all connections together.
    fn backlog_allowance_in_all(&self) -> usize;

    /// What the core does with an event. `peer` is the address of a connection, as long as it is there.
    fn report(
        event: Self::Event,
        peer: impl FnOnce(ConnectionId) -> Option<SocketAddr>,
    ) -> Option<Report<Self::Output>>;

    /// What a line about blocks that nobody took calls this one. None for what is no block.
    fn name_of_block(output: &Self::Output) -> Option<String>;

    /// Writes what it has counted where others read it.
    fn publish(&self, counters: &ShardCounters);
}

/// What the core does with an event.
#[derive(Debug)]
pub enum Report<O> {
    /// It leaves the shard, before any frame of the tick.
    Output(O),
    /// The connection is over: what waits is sent, then it is closed.
    Close(ConnectionId, EndReason),
    /// A line of the log.
    Line(LineKind, LogEvent),
}
