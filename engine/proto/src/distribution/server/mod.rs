//! The server of the Template Distribution Protocol: what a template provider speaks to pools and job declarators
//! (specification chapter 7).
//!
//! # How it is driven
//! - Events come in through `handle_*`: a connection, a plaintext frame, a template or tip for a constraint class, the
//!   passing of time. Effects go out through the [`ServerOutbox`]. The driver takes the events first: a block leaves
//!   before any frame.
//! - [`Event::ClassWanted`] says which templates the node is to make. The driver answers with a future template and the
//!   tip that names it, then with newer templates, each by [`Server::handle_template`], until [`Event::ClassUnwanted`].
//! - A node's template is held until [`Event::TemplateReleased`] names it.
//!
//! # Invariants
//! - A client gets nothing but the templates of its class, none before its constraints, and ids that rise strictly.
//! - SetNewPrevHash names a future template that the client was sent before, and no other frame is put between.
//! - A class's frame is encoded once, however many clients share it.
//! - A solution is always reported, also of a template that is not kept.
//! - Every template that was taken in is released once.
//!
//! # Bounds
//! [`Limits`]. Time per call is linear in connections and kept templates.

mod class;
pub mod config;
mod connection;
mod event;
mod fan_out;
mod frames;
mod membership;
mod setup;
mod templates;
mod transactions;

use alloc::collections::BTreeMap;

pub use config::{Limits, ServerConfig, ServerConfigError};
pub use event::{
    ClassId, CloseReason, CommandError, ConnectionId, Counters, Event, KnownTemplate, Standing,
    SubmittedSolution, TemplateError, TransactionsError,
};

use self::class::Class;
use self::connection::{Connection, Phase};
use self::templates::Templates;
use super::Reserve;
use crate::outbox::Outbox;
use crate::setup::Faults;
use crate::time::Instant;

/// Where a server's effects go.
pub type ServerOutbox = Outbox<ConnectionId, Event>;

/// The server side of the Template Distribution Protocol. The module says how it is driven.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    /// By slot.
    connections: BTreeMap<u32, Connection>,
    next_generation: u32,
    classes: BTreeMap<ClassId, Class>,
    next_class: u64,
    classes_begun: Faults,
    templates: Templates,
    /// The driver's last template id.
    last_template_id: Option<u64>,
    counters: Counters,
}

impl Server {
    /// A server without clients.
    ///
    /// # Errors
    /// A limit with which it cannot work.
    pub fn new(config: ServerConfig) -> Result<Self, ServerConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            connections: BTreeMap::new(),
            next_generation: 0,
            classes: BTreeMap::new(),
            next_class: 0,
            classes_begun: Faults::new(Instant::ZERO),
            templates: Templates::new(config.first_template_id),
            last_template_id: None,
            counters: Counters::default(),
        })
    }

    /// What was done since the server was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections that were not disconnected yet.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Templates that are not released yet.
    pub fn template_count(&self) -> usize {
        self.templates.len()
    }

    /// The constraint classes that are wanted now, and how many clients each has.
    pub fn classes(&self) -> impl Iterator<Item = (ClassId, Reserve, usize)> {
        self.classes.iter().map(|(id, class)| (*id, class.reserve, class.members))
    }

    /// A connection was made; `None` if there are [`Limits::clients_max`] already, and the driver closes it.
    pub fn handle_connect(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.connections.len() >= self.config.limits.clients_max {
            return None;
        }
        let slot = (0..).zip(self.connections.keys()).find(|(free, taken)| free != *taken);
        let slot = slot.map_or(self.connections.len() as u32, |(free, _)| free);
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        self.connections.insert(slot, Connection::new(generation, now));
        Some(ConnectionId { slot, generation })
    }

    /// The socket is gone. Frees all that the connection held.
    pub fn handle_disconnect(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        if self.connection(id).is_some() {
            self.leave(id, now, out);
            self.connections.remove(&id.slot);
        }
    }

    /// Ends a connection: what waits is sent, then it is closed.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`].
    pub fn close_connection(
        &mut self,
        id: ConnectionId,
        reason: CloseReason,
        now: Instant,
        out: &mut ServerOutbox,
    ) -> Result<(), CommandError> {
        self.connection(id).ok_or(CommandError::UnknownConnection)?;
        self.end_connection(id, reason, now, out);
        Ok(())
    }

    /// A client brought a solution that is none: too many of them end its connection.
    pub fn count_false_solution(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        self.count_error(id, now, out);
    }

    /// The node cannot leave the room that a class asks for: its clients are closed, and it ends.
    pub fn refuse_class(&mut self, class: ClassId, now: Instant, out: &mut ServerOutbox) {
        let Some(reserve) = self.classes.get(&class).map(|class| class.reserve) else { return };
        for id in self.ids(|connection| connection.phase == Phase::Member(class)) {
            self.end_connection(id, CloseReason::ReserveRefused(reserve), now, out);
        }
        self.end_class(class, now, out);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let limits = &self.config.limits;
        let connections = self.connections.values().filter_map(|connection| connection.deadline(limits));
        connections.chain(self.templates.deadline()).chain(self.idle_deadline()).min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut ServerOutbox) {
        while let Some(template_id) = self.templates.expire(now) {
            out.report(Event::TemplateReleased { template_id });
        }
        self.end_idle_classes(now, out);
        let limits = self.config.limits;
        for id in self.ids(|connection| connection.deadline(&limits).is_some_and(|due| due <= now)) {
            let step = self.connection(id).and_then(|connection| connection.step_deadline(&limits));
            match step.filter(|(due, _)| *due <= now) {
                Some((_, reason)) => self.end_connection(id, reason, now, out),
                None => self.expire_requests(id, now, out),
            }
        }
    }

    fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id.slot).filter(|connection| connection.generation == id.generation)
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(&id.slot).filter(|connection| connection.generation == id.generation)
    }

    /// The ids of some connections.
    fn ids(&self, include: impl Fn(&Connection) -> bool) -> alloc::vec::Vec<ConnectionId> {
        let included = self.connections.iter().filter(|(_, connection)| include(connection));
        included.map(|(slot, c)| ConnectionId { slot: *slot, generation: c.generation }).collect()
    }

    /// Tells the driver to close a connection and forgets what it held. Frames of it are ignored from now on.
    fn end_connection(
        &mut self,
        id: ConnectionId,
        reason: CloseReason,
        now: Instant,
        out: &mut ServerOutbox,
    ) {
        self.leave(id, now, out);
        let Some(connection) = self.connection_mut(id).filter(|c| c.phase != Phase::Closing) else {
            return;
        };
        connection.phase = Phase::Closing;
        connection.requests.clear();
        connection.aliases.clear();
        out.report(Event::Close { connection: id, reason });
    }

    /// Counts what a connection outlives once, but not too often.
    fn count_error(&mut self, id: ConnectionId, now: Instant, out: &mut ServerOutbox) {
        let limits = self.config.limits;
        if self
            .connection_mut(id)
            .is_some_and(|connection| connection.faults.count(limits.errors_max, limits.errors_window, now))
        {
            self.end_connection(id, CloseReason::TooManyErrors, now, out);
        }
    }
}
