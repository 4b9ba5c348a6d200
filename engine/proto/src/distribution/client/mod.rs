//! The client of the Template Distribution Protocol: what a pool or a job declarator speaks to a template provider
//! (specification chapter 7).
//!
//! A [`Client`] owns one connection: its setup, its constraints, the future templates that wait for a tip and the
//! requests that wait for an answer. Its driver hands it plaintext frames and the time, and takes frames and
//! [`ClientEvent`]s out of a [`ClientOutbox`]. A new connection begins with [`Client::handle_connected`], which forgets
//! the one before.
//!
//! Invariants:
//! - a frame that is a [`ClientFault`] changes nothing; the driver says why and closes the connection;
//! - every template that is reported is well formed, and their ids rise strictly on a connection;
//! - every tip that is reported names a future template that was reported before;
//! - a request for transactions is reported once: answered, refused or timed out.
//!
//! Bounds: [`ClientLimits`]. An event carries at most what the frame that caused it holds.

mod config;
mod event;
mod fault;
mod receive;
mod requests;
mod transactions;

use alloc::collections::VecDeque;

pub use config::{ClientConfig, ClientConfigError, ClientLimits};
pub use event::{ClientCounters, ClientEvent};
pub use fault::{ClientFault, Refusal};
pub use transactions::TransactionList;

use self::requests::Requests;
use super::Constraints;
use crate::outbox::{Outbox, Priority};
use crate::setup::PROTOCOL_VERSION;
use crate::time::Instant;
use adit_codec::message::{CoinbaseOutputConstraints, MessageKind, Protocol, SetupConnection};

/// What a [`Client`] emits: frames for its one connection, and events.
pub type ClientOutbox = Outbox<(), ClientEvent>;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not connected.
    Idle,
    /// SetupConnection waits for its answer.
    SettingUp { deadline: Instant },
    /// The constraints were sent.
    SetUp,
    /// SetupConnection was refused.
    Refused,
}

/// The client side of one connection to a template provider; the module says what it guarantees.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    phase: Phase,
    last_template_id: Option<u64>,
    /// Ids of templates that wait for a tip, rising.
    futures: VecDeque<u64>,
    has_tip: bool,
    /// When a first tip must have come; only with a template timeout.
    tip_deadline: Option<Instant>,
    requests: Requests,
    counters: ClientCounters,
}

impl Client {
    /// A client that is not connected yet.
    ///
    /// # Errors
    /// A text that no message can carry, or a limit of zero.
    pub fn new(config: ClientConfig) -> Result<Self, ClientConfigError> {
        config.validate()?;
        Ok(Self {
            phase: Phase::Idle,
            last_template_id: None,
            futures: VecDeque::new(),
            has_tip: false,
            tip_deadline: None,
            requests: Requests::default(),
            counters: ClientCounters::default(),
            config,
        })
    }

    /// What was seen so far.
    pub fn counters(&self) -> &ClientCounters {
        &self.counters
    }

    /// Whether solutions and requests can be sent.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::SetUp
    }

    /// The room that is asked for.
    pub fn constraints(&self) -> Constraints {
        self.config.constraints
    }

    /// The connection, and its secure session, stand: sends SetupConnection. What was known of an earlier connection is
    /// forgotten; requests that waited there count as timed out.
    pub fn handle_connected(&mut self, now: Instant, out: &mut ClientOutbox) {
        self.last_template_id = None;
        self.futures.clear();
        self.has_tip = false;
        self.tip_deadline = None;
        self.requests.abandon(out);
        let config = &self.config;
        let message = SetupConnection {
            protocol: Protocol::TemplateDistribution as u8,
            min_version: PROTOCOL_VERSION,
            max_version: PROTOCOL_VERSION,
            flags: 0,
            endpoint_host: &config.endpoint_host,
            endpoint_port: config.endpoint_port,
            vendor: &config.vendor,
            hardware_version: &config.hardware_version,
            firmware: &config.firmware,
            device_id: &config.device_id,
        };
        out.send((), Priority::Work, &message);
        self.phase = Phase::SettingUp { deadline: now + config.limits.setup_timeout };
    }

    /// Asks for other room in the coinbase, from the next template on; at once, or when the connection is set up.
    pub fn set_constraints(&mut self, constraints: Constraints, out: &mut ClientOutbox) {
        let is_changed = self.config.constraints != constraints;
        self.config.constraints = constraints;
        if is_changed && self.phase == Phase::SetUp {
            self.send_constraints(out);
        }
    }

    fn send_constraints(&self, out: &mut ClientOutbox) {
        let Constraints { max_additional_size, max_additional_sigops } = self.config.constraints;
        let message = CoinbaseOutputConstraints {
            coinbase_output_max_additional_size: max_additional_size,
            coinbase_output_max_additional_sigops: max_additional_sigops,
        };
        out.send((), Priority::Work, &message);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let setup = match self.phase {
            Phase::SettingUp { deadline } => Some(deadline),
            _ => None,
        };
        [setup, self.tip_deadline, self.requests.deadline()].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    /// SetupConnection or the constraints were not answered in time: the driver closes the connection.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut ClientOutbox) -> Result<(), ClientFault> {
        self.requests.expire(now, self.config.limits.requests_max, out);
        if matches!(self.phase, Phase::SettingUp { deadline } if deadline <= now) {
            return Err(ClientFault::Timeout(MessageKind::SetupConnection));
        }
        if self.tip_deadline.is_some_and(|deadline| deadline <= now) {
            return Err(ClientFault::Timeout(MessageKind::CoinbaseOutputConstraints));
        }
        Ok(())
    }
}
