//! What happens to a connection beside its frames: the handshake, timeouts, its end.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_codec::noise::{ACT2_LEN, Responder, SecureDeframer};
use adit_proto::Instant;

use super::connection::Stage;
use super::core::{Core, Effect};
use crate::acceptor::address_block;
use crate::counters::Counter;
use crate::end::EndReason;
use crate::log::{LineKind, LogEvent};
use crate::service::Service;
use crate::topology::Stop;
use crate::transport::SocketId;

/// Blocks that the line about lost ones names.
const LOST_BLOCKS_NAMED_MAX: usize = 16;

impl<S: Service> Core<S> {
    pub(super) fn receive_act1(&mut self, socket: SocketId, bytes: &[u8]) {
        let Some(connection) = self.connections[socket.index()].as_mut() else { return };
        let complete = match &mut connection.stage {
            Stage::Handshake(act1) => act1.receive(bytes),
            _ => Err(super::connection::TooLong),
        };
        match complete {
            Ok(false) => {}
            Ok(true) => {
                let stage = std::mem::replace(&mut connection.stage, Stage::Closing);
                if let Stage::Handshake(act1) = stage {
                    connection.stage = Stage::Queued(act1);
                    let (serial, address) = (connection.serial, address_block(connection.peer.ip()));
                    let connections = &self.connections;
                    self.handshakes.push(address, socket, serial, |socket, serial| {
                        connections[socket.index()].as_ref().is_some_and(|connection| {
                            connection.serial == serial && matches!(connection.stage, Stage::Queued(_))
                        })
                    });
                }
            }
            Err(super::connection::TooLong) => self.end(socket, EndReason::HandshakeTooLong),
        }
    }

    /// Answers up to `max` handshakes, as far as their rate allows. Returns whether there was one.
    pub fn poll_handshakes(&mut self, max: usize) -> bool {
        if self.handshakes.is_empty() {
            return false;
        }
        let now_unix = now_unix();
        let mut done = 0;
        while done < max {
            let Some((socket, serial)) = self.handshakes.pop(self.now) else { break };
            let waits = self.connections[socket.index()].as_ref().is_some_and(|connection| {
                connection.serial == serial && matches!(connection.stage, Stage::Queued(_))
            });
            if waits {
                self.answer_handshake(socket, now_unix);
                done += 1;
            }
        }
        done > 0
    }

    fn answer_handshake(&mut self, socket: SocketId, now_unix: u32) {
        let (generation, identity) = self.links.identity.present();
        if !identity.is_valid_at(now_unix) {
            let certificate = &identity.certificate;
            let line = LogEvent::CertificateNotValid {
                valid_from: certificate.valid_from,
                not_valid_after: certificate.not_valid_after,
                now: now_unix,
            };
            if self.links.invalid_identity != Some(generation) {
                self.links.invalid_identity = Some(generation);
                self.links.log.write_unlimited(&self.links.counters, line);
            }
            return self.end(socket, EndReason::NoValidCertificate);
        }
        // Also for who finds the service full: the key is used up, and they would come again at once.
        self.handshakes.spend();
        let Some(key) = self.handshakes.take_key(self.now) else {
            return self.end(socket, EndReason::Internal("the system gives no random numbers"));
        };
        let id = match self.service.handle_connect(self.now) {
            Ok(id) => id,
            Err(reason) => return self.end(socket, reason),
        };
        let Some(connection) = self.connections[socket.index()].as_mut() else { return };
        let Stage::Queued(act1) = &connection.stage else { return };
        let mut act2 = [0; ACT2_LEN];
        let mut session =
            Responder::respond(act1.bytes(), &identity.static_key, &identity.certificate, key, &mut act2);
        session.set_aead(self.aead);
        let deframer = SecureDeframer::new(session.opener, self.limits.frame_payload_len_max);
        connection.stage = Stage::Open { id, deframer };
        connection.outgoing.push_raw(&act2, &mut self.buffers);
        connection.outgoing.set_sealer(session.sealer);
        if self.sockets.len() <= id.slot as usize {
            self.sockets.resize(id.slot as usize + 1, None);
        }
        self.sockets[id.slot as usize] = Some((id, socket));
        let (peer, shard) = (connection.peer, self.shard);
        self.links.counters.add(Counter::Handshakes, 1);
        self.links.log.write(LineKind::Opened, self.now, &self.links.counters, || {
            LogEvent::ConnectionOpened { peer, shard, connection: id }
        });
        self.send(socket);
    }

    /// The next moment at which something is due. None: nothing is.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.service.poll_timeout(),
            self.handshakes.poll_timeout(),
            self.handshake_deadlines.next(),
            self.close_deadlines.next(),
            self.links.log.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self) {
        if self.service.poll_timeout().is_some_and(|due| due <= self.now) {
            self.service.handle_timeout(self.now, &mut self.outbox);
        }
        while let Some((socket, serial)) = self.handshake_deadlines.pop_due(self.now) {
            if self.is_in(socket, serial, |stage| matches!(stage, Stage::Handshake(_))) {
                self.end(socket, EndReason::HandshakeTimeout(self.handshake_deadlines.timeout()));
            }
        }
        while let Some((socket, serial)) = self.close_deadlines.pop_due(self.now) {
            if self.is_in(socket, serial, |stage| matches!(stage, Stage::Draining | Stage::Lingering)) {
                self.close(socket);
            }
        }
        self.links.log.handle_timeout(self.now, &self.links.counters);
    }

    fn is_in(&self, socket: SocketId, serial: u64, stage: impl Fn(&Stage) -> bool) -> bool {
        self.connections[socket.index()]
            .as_ref()
            .is_some_and(|connection| connection.serial == serial && stage(&connection.stage))
    }

    /// Makes a key for a later handshake. Returns whether one was missing.
    pub fn make_spare_key(&mut self) -> bool {
        self.handshakes.make_spare_key(self.now)
    }

    /// Ends a connection at once: nobody would read what waits.
    pub(super) fn end(&mut self, socket: SocketId, reason: EndReason) {
        self.conclude(socket, &reason);
        self.close(socket);
    }

    /// Ends a connection once its peer has had what waits for it.
    pub(super) fn begin_drain(&mut self, socket: SocketId, reason: EndReason) {
        let Some(connection) = self.connections[socket.index()].as_ref() else { return };
        if matches!(connection.stage, Stage::Draining | Stage::Lingering | Stage::Closing) {
            return;
        }
        let serial = connection.serial;
        self.conclude(socket, &reason);
        self.forget(socket);
        if let Some(connection) = self.connections[socket.index()].as_mut() {
            connection.stage = Stage::Draining;
        }
        let connections = &self.connections;
        self.close_deadlines.push(self.now, socket, serial, |socket, serial| {
            connections[socket.index()].as_ref().is_some_and(|connection| connection.serial == serial)
        });
        self.send(socket);
        self.continue_drain(socket);
    }

    /// Once all is sent, says so to the peer and waits for its close: closing with bytes unread would reset the connection,
    /// and the peer might lose what it has not read.
    pub(super) fn continue_drain(&mut self, socket: SocketId) {
        let Some(connection) = self.connections[socket.index()].as_mut() else { return };
        if !connection.outgoing.is_idle() {
            return;
        }
        match &mut connection.stage {
            Stage::Draining if connection.peer_ended => return self.close(socket),
            Stage::Draining => connection.stage = Stage::Lingering,
            Stage::Parting { told, .. } if !*told => *told = true,
            _ => return,
        }
        self.effects.push(Effect::ShutdownWrite(socket));
    }

    /// Writes the line and counts; once per connection.
    fn conclude(&mut self, socket: SocketId, reason: &EndReason) {
        let Some(connection) = self.connections[socket.index()].as_ref() else { return };
        if connection.stage.is_over() {
            return;
        }
        let (peer, shard, lasted) = (connection.peer, self.shard, self.now.since(connection.opened));
        self.links.counters.add_ended(reason.kind());
        self.links.log.write(LineKind::Ended(reason.kind()), self.now, &self.links.counters, || {
            LogEvent::ConnectionClosed { peer, shard, reason: reason.clone(), lasted }
        });
    }

    /// Tells the service that a connection is gone, if it is in its hands.
    fn forget(&mut self, socket: SocketId) {
        let Some(connection) = self.connections[socket.index()].as_ref() else { return };
        if let Stage::Open { id, .. } | Stage::Parting { id, .. } = connection.stage {
            self.sockets[id.slot as usize] = None;
            self.service.handle_disconnect(id, self.now, &mut self.outbox);
        }
    }

    fn close(&mut self, socket: SocketId) {
        self.forget(socket);
        let Some(connection) = self.connections[socket.index()].as_mut() else { return };
        if !matches!(connection.stage, Stage::Closing) {
            connection.stage = Stage::Closing;
            connection.outgoing.discard(&mut self.buffers);
            self.effects.push(Effect::Close(socket));
        }
    }

    /// The engine stops. Those in the service's hands are served as before for a moment, until [`Self::hang_up`]: shares
    /// that are on their way are answered. The others end.
    pub fn begin_shutdown(&mut self) {
        for socket in self.attached() {
            let Some(connection) = self.connections[socket.index()].as_ref() else { continue };
            if matches!(connection.stage, Stage::Handshake(_) | Stage::Queued(_)) {
                self.end(socket, EndReason::Shutdown);
            }
        }
    }

    /// Tells every peer, behind what waits for it, that nothing more comes. What arrives until they close is judged, and a
    /// block delivered; only answers are not possible any more.
    pub fn hang_up(&mut self) {
        self.begin_shutdown();
        for socket in self.attached() {
            self.conclude(socket, &EndReason::Shutdown);
            let Some(connection) = self.connections[socket.index()].as_mut() else { continue };
            let stage = std::mem::replace(&mut connection.stage, Stage::Closing);
            connection.stage = match stage {
                Stage::Open { id, deframer } => Stage::Parting { id, deframer, told: false },
                stage => stage,
            };
            self.send(socket);
            self.continue_drain(socket);
        }
    }

    /// The sockets that may have a connection.
    fn attached(&self) -> impl Iterator<Item = SocketId> + use<S> {
        let end = u32::try_from(self.connections.len()).expect("sockets are numbered by u32");
        (0..end).map(SocketId)
    }

    /// A socket could not be attached: it is closed, and its connection over before it began.
    pub(crate) fn refuse_socket(&mut self, peer: SocketAddr, error: &std::io::Error) {
        let (shard, reason) = (self.shard, EndReason::NotTaken(error.raw_os_error().unwrap_or(0)));
        self.links.counters.add(Counter::ConnectionsTaken, 1);
        self.links.counters.add(Counter::ConnectionsGone, 1);
        self.links.counters.add_ended(reason.kind());
        self.links.log.write(LineKind::Ended(reason.kind()), self.now, &self.links.counters, || {
            LogEvent::ConnectionClosed { peer, shard, reason, lasted: Duration::ZERO }
        });
    }

    /// The thread ends: outputs that were kept still go out, as long as there is time. Blocks among those that do not are
    /// said.
    pub(crate) fn leave(&mut self, stop: &Stop) {
        self.links.retry_outputs();
        while self.links.keeps_outputs() && !stop.at_once.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
            self.links.retry_outputs();
        }
        let lost = self.links.take_kept();
        let mut blocks: Vec<_> = lost.iter().filter_map(S::name_of_block).collect();
        if !blocks.is_empty() {
            let (shard, count) = (self.shard, blocks.len());
            blocks.truncate(LOST_BLOCKS_NAMED_MAX);
            self.links
                .log
                .write_unlimited(&self.links.counters, LogEvent::BlocksLost { shard, count, blocks });
        }
    }

    /// Whether outputs wait for room in their link.
    #[must_use]
    pub fn keeps_outputs(&self) -> bool {
        self.links.keeps_outputs()
    }

    /// Whether so many outputs wait that no more frames may be taken.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.links.is_blocked()
    }

    /// Writes what the service has counted where others read it.
    pub fn publish_counters(&mut self) {
        self.links.tips.publish(self.now);
        self.service.publish(&self.links.counters);
    }
}

/// Unix seconds; certificates are checked against the wall clock.
fn now_unix() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}
