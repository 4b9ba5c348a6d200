//! A core on its own, for benches and simulations: the same code, driven by hand instead of by sockets.

use std::sync::Arc;

use adit_codec::noise::Aead;
use adit_proto::Instant;
use crossbeam::channel::{Receiver, bounded};

use super::core::Core;
use super::links::CoreLinks;
use crate::acceptor::AddressTicket;
use crate::identity::{Identity, IdentityCell, IdentityReader};
use crate::limits::EngineLimits;
use crate::log::{LogEvent, LogSender};
use crate::service::Service;
use crate::tips::TipClock;
use crate::topology::{LOG_EVENTS, OUTPUTS};
use crate::transport::SocketId;

/// A [`Core`] and the readers of its links.
pub struct Detached<S: Service> {
    /// The core. Its driver calls it as a shard would.
    pub core: Core<S>,
    /// What leaves the service: blocks found.
    pub outputs: Receiver<S::Output>,
    /// Lines for the log.
    pub log: Receiver<LogEvent>,
}

impl<S: Service> Detached<S> {
    /// A core without connections and work.
    #[must_use]
    pub fn new(service: S, limits: EngineLimits, identity: Identity, now: Instant) -> Self {
        Self::with_aead(service, limits, identity, Aead::detect(), now)
    }

    /// As [`Self::new`], with an AEAD of one's own: what counts or compares must not depend on a measurement.
    #[must_use]
    pub fn with_aead(service: S, limits: EngineLimits, identity: Identity, aead: Aead, now: Instant) -> Self {
        let (outputs_sender, outputs) = bounded(OUTPUTS);
        let (log_sender, log) = bounded(LOG_EVENTS);
        let links = CoreLinks::new(
            outputs_sender,
            LogSender::new(0, log_sender, limits.log_lines_per_second_max),
            IdentityReader::new(Arc::new(IdentityCell::new(identity))),
            Arc::default(),
            TipClock::new(Arc::default()),
        );
        let handshakes_per_second = f64::from(limits.handshakes_per_second_max);
        let core = Core::with_links(service, 0, limits, aead, handshakes_per_second, links, now);
        Self { core, outputs, log }
    }

    /// Adds a connection, whose handshake is to come. Its id must not be in use.
    pub fn connect(&mut self, socket: SocketId, peer: std::net::SocketAddr) {
        self.core.handle_socket(socket, peer, AddressTicket::default());
    }
}
