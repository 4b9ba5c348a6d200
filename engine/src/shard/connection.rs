//! One connection's state, from its socket to its close.

use std::net::SocketAddr;

use adit_codec::noise::{ACT1_LEN, SecureDeframer};
use adit_proto::Instant;
use adit_proto::mining::server::ConnectionId;

use super::outgoing::Outgoing;
use crate::acceptor::AddressTicket;

/// A connection. About 250 bytes, and buffers while bytes are on their way.
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    /// Counts for the peer's address as long as the socket lives.
    pub(super) _ticket: AddressTicket,
    pub(super) opened: Instant,
    /// Tells it from those that had or will have its socket id.
    pub(super) serial: u64,
    pub(super) stage: Stage,
    /// The peer has closed its side.
    pub(super) peer_ended: bool,
    pub(super) outgoing: Outgoing,
}

/// Where in its life a connection is. It only moves down this list.
pub(super) enum Stage {
    /// The first act is incomplete.
    Handshake(Box<Act1>),
    /// The first act is here, and waits for its turn.
    Queued(Box<Act1>),
    /// In the service's hands.
    Open { id: ConnectionId, deframer: SecureDeframer },
    /// The engine stops: what waits is being sent and nothing more comes, but what arrives is judged until the peer closes.
    /// A block may be on its way.
    Parting {
        id: ConnectionId,
        deframer: SecureDeframer,
        /// All is sent and the peer knows.
        told: bool,
    },
    /// Over for the service: what waits is being sent, what arrives is ignored.
    Draining,
    /// All is sent and the peer knows: waiting for it to close, so that it can read all.
    Lingering,
    /// The transport has been told to close.
    Closing,
}

/// The bytes of the first act, as far as they have come.
pub(super) struct Act1 {
    bytes: [u8; ACT1_LEN],
    len: usize,
}

/// More bytes than the first act has: nobody can send them before the second.
pub(super) struct TooLong;

impl Act1 {
    pub(super) fn new() -> Self {
        Self { bytes: [0; ACT1_LEN], len: 0 }
    }

    /// Returns whether it is complete.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<bool, TooLong> {
        let place = self.bytes[self.len..].get_mut(..bytes.len()).ok_or(TooLong)?;
        place.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(self.len == ACT1_LEN)
    }

    pub(super) fn bytes(&self) -> &[u8; ACT1_LEN] {
        &self.bytes
    }
}

impl Stage {
    /// Whether the end of the connection is decided: nothing more is sent to it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Parting { .. } | Self::Draining | Self::Lingering | Self::Closing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_the_first_act_and_no_more() {
        let mut act1 = Act1::new();
        for byte in 0..63u8 {
            assert!(matches!(act1.receive(&[byte]), Ok(false)));
        }
        assert!(act1.receive(&[1, 2]).is_err());
        assert!(matches!(act1.receive(&[63]), Ok(true)));
        assert_eq!(act1.bytes()[62..], [62, 63]);
        assert!(act1.receive(&[0]).is_err());
    }
}
