//! The server of the Mining Protocol: one [`Server`] holds a shard's connections, channels and jobs (specification
//! chapter 5, extensions 0x0001 and 0x0002).
//!
//! # How it is driven
//! - Events come in through `handle_*`: a connection, a plaintext frame, a template or tip, the passing of time.
//! - Effects go out through the [`ServerOutbox`]: frames for connections, and [`Event`]s. The driver takes the events
//!   first: a block leaves before any frame of the same tick.
//! - Shares are only admitted as their frames come in. Once per tick the driver calls [`Server::settle`], which hashes what
//!   has gathered in one batch, judges it and answers.
//! - A template is taken in at once, its announcement is spread over calls of [`Server::poll_fan_out`].
//! - Operators' commands have methods of their own; see [`CommandError`].
//!
//! # Invariants
//! - Nothing is sent for a channel after its CloseChannel, by either side.
//! - What changes how a client reads later jobs (a target, an extranonce prefix, a group) is sent only after every job
//!   that is pending for its connection. So positions in the shard's work say what each client knows.
//! - A share is judged by what held when it was admitted: its ticket carries target, extranonce, coinbase and tip.
//!
//! # Bounds
//! [`Limits`], and [`SHARES_PENDING_MAX`] shares between two calls of `settle`.

mod admit;
mod batch;
mod channel;
mod chunks;
mod close;
mod coinbase;
mod commands;
pub mod config;
mod connection;
mod directory;
pub mod duplicates;
mod error;
mod event;
mod extensions;
pub mod extranonce;
mod fan_out;
mod frames;
mod history;
mod identity;
mod jobs;
mod open;
mod owed;
mod roots_ahead;
mod settle;
mod setup;
mod short_target;
mod slab;
mod timeouts;
mod update;
pub mod vardiff;
mod wheel;

pub use batch::SHARES_PENDING_MAX;
pub use config::{CoinbasePolicy, ExtranonceLayout, Limits, ServerConfig, ShardId, VardiffConfig};
pub use error::{ChannelError, CommandError, ShareError, TemplateError};
pub use event::{ChannelId, CloseReason, ConnectionId, Counters, Event, JobId, ProtocolFault, Solution};
pub use owed::Acknowledgement;

use self::batch::Batch;
use self::channel::Channels;
use self::connection::{Connection, Phase};
use self::directory::IdLayout;
use self::duplicates::{Room, Solved};
use self::extranonce::Prefixes;
use self::fan_out::FanOut;
use self::jobs::Work;
use self::owed::Owed;
use self::slab::Slab;
use self::wheel::Wheel;
use crate::outbox::Outbox;
use crate::template::TemplateUpdate;
use crate::time::Instant;

/// Where a server's effects go.
pub type ServerOutbox = Outbox<ConnectionId, Event>;

/// The Mining Protocol's server side for one shard. The module says how it is driven.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    ids: IdLayout,
    connections: Slab<Connection>,
    channels: Channels,
    prefixes: Prefixes,
    work: Work,
    batch: Batch,
    solved: Solved,
    owed: Owed,
    fan_out: FanOut,
    connection_timers: Wheel,
    channel_timers: Wheel,
    counters: Counters,
}

impl Server {
    /// A server without connections and work.
    pub fn new(config: ServerConfig, now: Instant) -> Self {
        let limits = &config.limits;
        Self {
            ids: IdLayout::new(limits.channels_per_connection_max.min(limits.channels_max)),
            connections: Slab::new(),
            channels: Channels::new(Room::new(
                limits.fingerprint_slots_max,
                config.vardiff.shares_per_minute,
            )),
            prefixes: Prefixes::new(config.extranonce, config.shard),
            work: Work::new(
                config.coinbase.clone(),
                config.version_rolling,
                limits.jobs_max,
                config.job_interval,
            ),
            batch: Batch::default(),
            solved: Solved::default(),
            owed: Owed::new(config.acknowledgement),
            fan_out: FanOut::default(),
            connection_timers: Wheel::new(now),
            channel_timers: Wheel::new(now),
            counters: Counters::default(),
            config,
        }
    }

    /// What was done since the server was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections that were not disconnected yet.
    pub fn connection_count(&self) -> usize {
        self.connections.len() as usize
    }

    /// Open channels, and closed ones whose last shares are not settled yet.
    pub fn channel_count(&self) -> usize {
        self.channels.len() as usize
    }

    /// Open channels of one connection.
    pub fn channels_of(&self, id: ConnectionId) -> u32 {
        self.connection(id).map_or(0, |connection| connection.directory.open())
    }

    /// Slots of the tables in which shares are remembered, 8 bytes each; see [`Limits::fingerprint_slots_max`].
    pub fn fingerprint_slots(&self) -> usize {
        self.channels.room().used()
    }

    /// Shares that wait for [`settle`](Self::settle).
    pub fn pending_shares(&self) -> usize {
        self.batch.len()
    }

    /// A connection was made. The driver bounds how many there are.
    pub fn handle_connect(&mut self, now: Instant) -> ConnectionId {
        let mut id = ConnectionId { slot: 0, generation: 0 };
        self.connections.insert(|slot, generation| {
            id = ConnectionId { slot, generation };
            Connection::new(generation, now)
        });
        self.schedule_connection(id.slot);
        id
    }

    /// The socket is gone. Frees all that the connection held.
    pub fn handle_disconnect(&mut self, id: ConnectionId, out: &mut ServerOutbox) {
        if self.connection(id).is_none() {
            return;
        }
        self.close_channels_of(id, out);
        self.connection_timers.cancel(id.slot);
        self.fan_out.forget(id);
        self.connections.remove(id.slot, id.generation.wrapping_add(1));
    }

    /// A template or a tip came. Connections hear of it through [`poll_fan_out`](Self::poll_fan_out).
    ///
    /// # Errors
    /// See [`TemplateError`]; the server stays consistent and goes on.
    pub fn handle_template(&mut self, update: &TemplateUpdate, now: Instant) -> Result<(), TemplateError> {
        let result = match update {
            TemplateUpdate::NewTemplate(template) => self.work.handle_template(template, now),
            TemplateUpdate::SetNewPrevHash(prev_hash) => self.work.handle_prev_hash(prev_hash, now),
        };
        self.fan_out.begin(self.connections.slots());
        result
    }

    fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.slot).filter(|connection| connection.generation == id.generation)
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.slot).filter(|connection| connection.generation == id.generation)
    }

    /// The id of the connection in a slot.
    fn connection_at(&self, slot: u32) -> Option<ConnectionId> {
        self.connections.get(slot).map(|connection| ConnectionId { slot, generation: connection.generation })
    }

    /// The connection, if it is set up and not being closed.
    fn mining(&self, id: ConnectionId) -> Option<&Connection> {
        self.connection(id).filter(|connection| connection.phase == Phase::Mining)
    }
}
