//! The sockets of simulated connections: connecting them, shaking hands, taking frames from what they bring.

use std::io;

use adit_codec::noise::{ACT2_LEN, SecureDeframer, SpareBuffers};
use adit_engine::transport::{Ended, Handler, SocketId};

use super::connection::Phase;
use super::frames::Fault;
use super::shard::{NONE, Simulated};
use crate::connection::{DRIFT_S, PAYLOAD_LEN_MAX, unix_now};

/// Buffers that are kept for the next writes, and the most bytes of one.
const SPARES_MAX: usize = 1_024;
const SPARE_LEN_MAX: usize = 128 * 1024;

impl Simulated {
    fn connection_of(&self, socket: SocketId) -> Option<usize> {
        self.by_socket.get(socket.index()).filter(|index| **index != NONE).map(|index| *index as usize)
    }

    /// Gathers act 2 and finishes the handshake; what follows it stays in `bytes`.
    fn handle_act2(&mut self, index: usize, bytes: &mut &mut [u8]) -> Result<(), Fault> {
        let now_ns = self.now_ns;
        let connection = &mut self.connections[index];
        let Phase::Handshake(handshake) = &mut connection.phase else { return Ok(()) };
        let len = bytes.len().min(ACT2_LEN - handshake.received);
        let (act2, rest) = std::mem::take(bytes).split_at_mut(len);
        *bytes = rest;
        handshake.act2[handshake.received..handshake.received + len].copy_from_slice(act2);
        handshake.received += len;
        if handshake.received < ACT2_LEN {
            return Ok(());
        }
        let Phase::Handshake(handshake) = std::mem::replace(&mut connection.phase, Phase::SettingUp) else {
            return Ok(());
        };
        let transport = handshake
            .initiator
            .finish(&handshake.act2, Some(&self.plan.authority), unix_now(), DRIFT_S)
            .map_err(|error| error.to_string())?;
        connection.encrypt(SecureDeframer::new(transport.opener, PAYLOAD_LEN_MAX), transport.sealer);
        let after_ns = now_ns - connection.begun_ns;
        self.join_times(index).handshake.record(after_ns);
        self.set_up(index)?;
        self.mark_dirty(index);
        Ok(())
    }

    fn handle_bytes(&mut self, index: usize, mut bytes: &mut [u8]) -> Result<(), Fault> {
        self.handle_act2(index, &mut bytes)?;
        let Some(mut deframer) = self.connections[index].deframer.take() else { return Ok(()) };
        let mut partials = std::mem::replace(&mut self.partials, SpareBuffers::new(0));
        let result = loop {
            match deframer.next_frame_with(&mut bytes, &mut partials) {
                Ok(Some((header, payload))) => {
                    if let Err(fault) = self.handle_frame(index, header, payload) {
                        break Err(fault);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        self.partials = partials;
        self.connections[index].deframer = Some(deframer);
        result
    }
}

impl Handler for Simulated {
    fn handle_received(&mut self, socket: SocketId, bytes: &mut [u8]) {
        let Some(index) = self.connection_of(socket) else { return };
        self.now_ns = self.plan.clock.now_ns();
        if let Err(fault) = self.handle_bytes(index, bytes) {
            self.fail(index, &fault);
        }
    }

    fn handle_sent(&mut self, socket: SocketId, mut buffer: Vec<u8>, result: Result<(), i32>) {
        buffer.clear();
        if self.spares.len() < SPARES_MAX && buffer.capacity() <= SPARE_LEN_MAX {
            self.spares.push(buffer);
        }
        let Some(index) = self.connection_of(socket) else { return };
        let connection = &mut self.connections[index];
        connection.is_sending = false;
        if let Err(error) = result {
            let error = io::Error::from_raw_os_error(error);
            return self.fail(index, &format!("the connection broke: {error}"));
        }
        if std::mem::take(&mut connection.is_blocked) {
            self.push_arrival(index);
        }
        self.mark_dirty(index);
    }

    fn handle_ended(&mut self, socket: SocketId, ended: Ended) {
        let Some(index) = self.connection_of(socket) else { return };
        match ended {
            Ended::Peer => self.fail(index, "the pool closed the connection"),
            Ended::Lost(error) => {
                let error = io::Error::from_raw_os_error(error);
                self.fail(index, &format!("the connection broke: {error}"));
            }
        }
    }

    fn handle_closed(&mut self, _: SocketId) {}
}
