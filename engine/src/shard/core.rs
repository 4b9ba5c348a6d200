//! A shard without its sockets: from received bytes to sealed ones, and everything that a connection goes through.
//!
//! Bytes come in through the [`Handler`] that the core is; effects leave through [`Core::take_effects`]. The order of a
//! tick is the driver's: receive, [`Core::settle`], [`Core::flush`], then slices of fan-out and handshakes. `now` is set once
//! per tick by [`Core::begin_tick`]. Whoever takes the effects between [`Core::flush_work`] and [`Core::flush`] has work on
//! its way before replies are sealed: those of others can be megabytes.
//!
//! Invariants: events leave before any frame that came with them is sealed, so a block is on its way before its
//! acknowledgement; work is sealed, and its sends are made, before any reply; nothing is handed to the service for a connection whose end is decided, unless the engine's own end is
//! what decided it; every socket that was attached
//! is closed exactly once, and its connection forgotten when the transport says that it is gone.
//!
//! Bounds: connections (the transport's table), bytes that wait per connection and in all, handshakes per second, spare
//! buffers and keys (`limits::tick`).

use adit_codec::noise::{Aead, SpareBuffers};
use adit_proto::mining::server::ConnectionId;
use adit_proto::{Instant, Priority};

use super::connection::{Act1, Connection, Stage};
use super::deadlines::Deadlines;
use super::handshakes::Handshakes;
use super::links::CoreLinks;
use super::outgoing::{Outgoing, SendBuffers};
use crate::acceptor::AddressTicket;
use crate::counters::Counter;
use crate::end::EndReason;
use crate::limits::{EngineLimits, tick};
use crate::log::{LineKind, LogEvent};
use crate::service::{Report, Service, ServiceOutbox};
use crate::tips::Since;
use crate::transport::{Ended, Handler, SocketId};

/// Where a frame says what it is: behind the extension type.
const MSG_TYPE_AT: usize = 2;

/// What the driver must do to a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes; no other send of the socket is under way.
    Send(SocketId, Vec<u8>),
    /// Tell the peer that nothing more comes.
    ShutdownWrite(SocketId),
    /// Close it, whatever is under way.
    Close(SocketId),
}

/// See the module.
pub struct Core<S: Service> {
    pub(super) service: S,
    pub(super) outbox: ServiceOutbox<S>,
    pub(super) limits: EngineLimits,
    pub(super) aead: Aead,
    pub(super) shard: u8,
    pub(super) now: Instant,
    /// By socket.
    pub(super) connections: Vec<Option<Connection>>,
    /// By the slot of the service's id: which socket, as long as the service knows the connection.
    pub(super) sockets: Vec<Option<(ConnectionId, SocketId)>>,
    pub(super) serial: u64,
    pub(super) links: CoreLinks<S::Output>,
    pub(super) handshakes: Handshakes,
    pub(super) handshake_deadlines: Deadlines,
    pub(super) close_deadlines: Deadlines,
    partials: SpareBuffers,
    pub(super) buffers: SendBuffers,
    pub(super) effects: Vec<Effect>,
    /// How many frames of the outbox the work was taken from; the replies among them are still there.
    searched: usize,
    /// Work of this tick waits behind a send, which is over in a moment.
    work_waits: bool,
    /// Connections with something gathered that is not sent yet.
    touched: Vec<SocketId>,
    /// Connections whose peers closed their side in this tick: over once their last shares are answered.
    departing: Vec<SocketId>,
    /// Connections that the service ended in this tick.
    ending: Vec<(ConnectionId, EndReason)>,
    /// Connections that fail while frames are handed out.
    failing: Vec<(SocketId, EndReason)>,
    /// Nobody is left to whom the last update is to be announced; the last frames may still be in the outbox.
    is_fanned_out: bool,
}

impl<S: Service> Core<S> {
    pub(super) fn with_links(
        service: S,
        shard: u8,
        limits: EngineLimits,
        aead: Aead,
        handshakes_per_second: f64,
        links: CoreLinks<S::Output>,
        now: Instant,
    ) -> Self {
        Self {
            service,
            shard,
            outbox: ServiceOutbox::<S>::new(),
            limits,
            aead,
            now,
            connections: Vec::new(),
            sockets: Vec::new(),
            serial: 0,
            links,
            handshakes: Handshakes::new(handshakes_per_second, now),
            handshake_deadlines: Deadlines::new(limits.handshake_timeout),
            close_deadlines: Deadlines::new(limits.close_timeout),
            partials: SpareBuffers::new(tick::SPARE_PARTIALS_MAX),
            buffers: SendBuffers::new(tick::SPARE_SENDS_MAX, tick::SPARE_SEND_CAPACITY_MAX),
            effects: Vec::new(),
            searched: 0,
            work_waits: false,
            touched: Vec::new(),
            departing: Vec::new(),
            ending: Vec::new(),
            failing: Vec::new(),
            is_fanned_out: false,
        }
    }

    /// Sets the time of everything until the next call.
    pub fn begin_tick(&mut self, now: Instant) {
        self.now = now;
        self.work_waits = false;
        self.links.counters.add(Counter::Ticks, 1);
    }

    /// A socket was attached.
    pub(crate) fn handle_socket(
        &mut self,
        socket: SocketId,
        peer: std::net::SocketAddr,
        ticket: AddressTicket,
    ) {
        if self.connections.len() <= socket.index() {
            self.connections.resize_with(socket.index() + 1, || None);
        }
        let serial = self.serial;
        self.serial += 1;
        let connections = &self.connections;
        self.handshake_deadlines.push(self.now, socket, serial, |socket, serial| {
            connections[socket.index()].as_ref().is_some_and(|connection| {
                connection.serial == serial && matches!(connection.stage, Stage::Handshake(_))
            })
        });
        self.connections[socket.index()] = Some(Connection {
            peer,
            _ticket: ticket,
            opened: self.now,
            serial,
            stage: Stage::Handshake(Box::new(Act1::new())),
            peer_ended: false,
            outgoing: Outgoing::default(),
        });
        self.links.counters.add(Counter::ConnectionsTaken, 1);
    }

    /// A template or a tip came.
    pub fn handle_update(&mut self, update: &S::Update) {
        self.handle_update_since(update, Since { learned: self.now, handed_over: self.now });
    }

    /// A template or a tip came over the link.
    pub(crate) fn handle_update_since(&mut self, update: &S::Update, since: Since) {
        self.links.counters.add(Counter::Templates, 1);
        if S::is_tip(update) {
            self.links.tips.begin(since, self.now);
        }
        let result = self.service.handle_update(update, self.now, &mut self.outbox);
        if let Err(error) = result {
            self.links.counters.add(Counter::TemplatesRefused, 1);
            let shard = self.shard;
            self.links.log.write(LineKind::TemplateRefused, self.now, &self.links.counters, || {
                LogEvent::TemplateRefused { shard, error: error.to_string() }
            });
        }
    }

    /// An operator or a role asks for something.
    pub fn handle_command(&mut self, command: S::Command) -> S::Answer {
        self.service.handle_command(command, self.now, &mut self.outbox)
    }

    /// Judges the shares of this tick.
    pub fn settle(&mut self) {
        self.service.settle(self.now, &mut self.outbox);
        for socket in &self.departing {
            let connection = self.connections.get(socket.index()).and_then(Option::as_ref);
            if let Some(Stage::Open { id, .. }) = connection.map(|connection| &connection.stage) {
                self.service.acknowledge(Some(*id), &mut self.outbox);
            }
        }
    }

    /// Judges the shares of this tick, and leaves no answer for later: none is possible then.
    pub fn settle_all(&mut self) {
        self.settle();
        self.service.acknowledge(None, &mut self.outbox);
    }

    /// Announces work to some more connections. True while more wait.
    pub fn poll_fan_out(&mut self, budget: usize) -> bool {
        let more = self.service.poll_fan_out(budget, &mut self.outbox);
        self.is_fanned_out = !more;
        more
    }

    /// Takes the outbox's events, then its work, sealed into one send per connection. Replies stay for [`Self::flush`].
    pub fn flush_work(&mut self) {
        self.take_events();
        self.gather_frames(Priority::Work);
        self.send_touched();
    }

    /// Takes the outbox: events first, then work, then replies, each sealed into one send per connection, unless one is under
    /// way; then the ends that came with them.
    pub fn flush(&mut self) {
        self.flush_work();
        self.gather_frames(Priority::Reply);
        self.send_touched();
        self.drop_slowest();
        for (id, reason) in std::mem::take(&mut self.ending) {
            if let Some(socket) = self.socket_of(id) {
                self.begin_drain(socket, reason);
            }
        }
        for socket in std::mem::take(&mut self.departing) {
            self.begin_drain(socket, EndReason::PeerClosed);
        }
        // What the ends have reported.
        self.take_events();
        if std::mem::take(&mut self.is_fanned_out) {
            self.links.tips.end();
        }
    }

    /// Whether work of this tick waits behind a send, so that the next tick should not.
    #[must_use]
    pub fn work_waits(&self) -> bool {
        self.work_waits
    }

    /// Whether there is something to be done to sockets.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Hands over what is to be done to sockets, in order.
    pub fn take_effects(&mut self, mut apply: impl FnMut(Effect)) {
        self.effects.drain(..).for_each(&mut apply);
    }

    fn take_events(&mut self) {
        self.links.retry_outputs();
        for event in self.outbox.drain_events() {
            let socket = |id: ConnectionId| match self.sockets.get(id.slot as usize) {
                Some(Some((known, socket))) if *known == id => Some(*socket),
                _ => None,
            };
            let peer = |id| {
                let connection = self.connections.get(socket(id)?.index())?.as_ref()?;
                Some(connection.peer)
            };
            match S::report(event, peer) {
                Some(Report::Output(output)) => self.links.deliver(output),
                Some(Report::Close(connection, reason)) => self.ending.push((connection, reason)),
                Some(Report::Line(kind, event)) => {
                    self.links.log.write(kind, self.now, &self.links.counters, || event);
                }
                None => {}
            }
        }
    }

    /// Hands the frames of one priority to their connections, which gather them for a send. Replies come last: with them the outbox is empty.
    fn gather_frames(&mut self, pass: Priority) {
        let (mut passed, mut gathered) = (0, 0);
        let first = if pass == Priority::Work { self.searched } else { 0 };
        let tip = self.links.tips.announced();
        for (id, priority, frame) in self.outbox.frames().skip(first) {
            passed += 1;
            if priority != pass {
                continue;
            }
            let Some(Some((known, socket))) = self.sockets.get(id.slot as usize) else { continue };
            let Some(Some(connection)) = self.connections.get_mut(socket.index()) else { continue };
            if *known != id || connection.stage.is_over() {
                continue;
            }
            gathered += 1;
            if frame.get(MSG_TYPE_AT) == Some(&S::TIP_MSG_TYPE) {
                if let Some(since) = tip {
                    connection.outgoing.note_tip(since);
                }
                if let Some(is_overtaken) = S::IS_OVERTAKEN {
                    connection.outgoing.drop_work(|waiting| is_overtaken(waiting, frame), &mut self.buffers);
                }
            }
            match connection.outgoing.push(priority, frame, &mut self.buffers) {
                Ok(true) => self.touched.push(*socket),
                Ok(false) => {
                    let waiting = connection.outgoing.backlog();
                    self.work_waits |= pass == Priority::Work && waiting > 0;
                    let max = self.limits.send_buffer_bytes_max;
                    // The service is asked about those only who are over the first bound.
                    let allowance = if waiting > max { self.service.backlog_allowance(id) } else { 0 };
                    let max = max + allowance;
                    if waiting > max {
                        connection.outgoing.discard(&mut self.buffers);
                        self.failing.push((*socket, EndReason::SlowReader { waiting, max }));
                    }
                }
                Err(_) => self.failing.push((*socket, EndReason::Internal("a frame cannot be sealed"))),
            }
        }
        self.searched = first + passed;
        if pass == Priority::Reply {
            self.outbox.clear_frames();
            self.searched = 0;
        }
        self.links.counters.add(Counter::FramesSent, gathered);
    }

    /// Seals and sends what was gathered, and ends the connections for which that failed.
    fn send_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for socket in touched.drain(..) {
            self.send(socket);
        }
        self.touched = touched;
        for (socket, reason) in std::mem::take(&mut self.failing) {
            self.end(socket, reason);
        }
    }

    /// Sends what a connection has, unless a send is under way.
    pub(super) fn send(&mut self, socket: SocketId) {
        let Some(connection) = self.connections[socket.index()].as_mut() else { return };
        if matches!(connection.stage, Stage::Closing) {
            return;
        }
        match connection.outgoing.take_send(&mut self.buffers) {
            Ok(Some(buffer)) => self.effects.push(Effect::Send(socket, buffer)),
            Ok(None) => {}
            Err(_) => self.end(socket, EndReason::Internal("a frame cannot be sealed")),
        }
    }

    fn socket_of(&self, id: ConnectionId) -> Option<SocketId> {
        let (known, socket) = (*self.sockets.get(id.slot as usize)?)?;
        (known == id).then_some(socket)
    }

    fn receive_frames(&mut self, socket: SocketId, bytes: &mut [u8]) {
        let Some(connection) = self.connections[socket.index()].as_mut() else { return };
        let (Stage::Open { id, deframer } | Stage::Parting { id, deframer, .. }) = &mut connection.stage
        else {
            return;
        };
        let mut frames = deframer.frames(bytes);
        let mut received = 0;
        let fault = loop {
            self.service.read_ahead(*id, frames.open_ahead(&mut self.partials));
            match frames.next_frame(&mut self.partials) {
                Ok(Some((header, payload))) => {
                    received += 1;
                    self.service.handle_frame(*id, header, payload, self.now, &mut self.outbox);
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        drop(frames);
        self.links.counters.add(Counter::FramesReceived, received);
        if let Some(error) = fault {
            self.end(socket, EndReason::Frame(error));
        }
    }
}

impl<S: Service> Handler for Core<S> {
    fn handle_received(&mut self, socket: SocketId, bytes: &mut [u8]) {
        self.links.counters.add(Counter::BytesReceived, bytes.len() as u64);
        let Some(Some(connection)) = self.connections.get_mut(socket.index()) else { return };
        match &mut connection.stage {
            Stage::Open { .. } | Stage::Parting { .. } => self.receive_frames(socket, bytes),
            Stage::Handshake(_) | Stage::Queued(_) => self.receive_act1(socket, bytes),
            Stage::Draining | Stage::Lingering | Stage::Closing => {}
        }
    }

    fn handle_sent(&mut self, socket: SocketId, buffer: Vec<u8>, result: Result<(), i32>) {
        self.buffers.give_back(buffer);
        let Some(Some(connection)) = self.connections.get_mut(socket.index()) else { return };
        let tip = connection.outgoing.take_sent_tip();
        let sent = connection.outgoing.handle_sent(&mut self.buffers);
        match (result, &connection.stage) {
            (_, Stage::Closing) => {}
            (Err(error), _) => {
                connection.outgoing.discard(&mut self.buffers);
                self.end(socket, EndReason::Lost(error));
            }
            (Ok(()), _) => {
                self.links.counters.add(Counter::BytesSent, sent as u64);
                if let Some(since) = tip {
                    self.links.tips.record_sent(since, self.now);
                }
                self.send(socket);
                self.continue_drain(socket);
            }
        }
    }

    fn handle_ended(&mut self, socket: SocketId, ended: Ended) {
        let Some(Some(connection)) = self.connections.get_mut(socket.index()) else { return };
        connection.peer_ended = true;
        match (&connection.stage, ended) {
            (Stage::Open { .. } | Stage::Parting { .. }, Ended::Peer) => self.departing.push(socket),
            (Stage::Draining, Ended::Peer) => self.continue_drain(socket),
            (_, Ended::Peer) => self.end(socket, EndReason::PeerClosed),
            (_, Ended::Lost(error)) => self.end(socket, EndReason::Lost(error)),
        }
    }

    fn handle_closed(&mut self, socket: SocketId) {
        if self.connections.get_mut(socket.index()).and_then(Option::take).is_some() {
            self.links.counters.add(Counter::ConnectionsGone, 1);
        }
    }
}
