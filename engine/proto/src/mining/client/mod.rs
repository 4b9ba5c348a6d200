//! The client of the Mining Protocol: what a device, a proxy or a load generator speaks to its upstream.
//!
//! A [`Client`] owns one upstream connection: its setup, the extensions negotiated on it, its channels and groups, their
//! jobs and the shares that wait for an answer. Its driver hands it plaintext frames and the time, and takes frames and
//! [`ClientEvent`]s out of a [`ClientOutbox`]. [`Work`] is what a device hashes.
//!
//! Invariants:
//! - a frame that is a [`ClientFault`] changes nothing; the driver says why and closes the connection;
//! - every job keeps the extranonce prefix that its channel had when the job came, and the target that it had when the
//!   job became active: later messages cannot change what a share is judged by;
//! - a share that the upstream would have to refuse for its form (job, ntime, version bits, extranonce size) is not sent,
//!   but refused with a [`Refusal`];
//! - no id is answered twice, and what was asked is not forgotten before it is answered or its time is up.
//!
//! Bounds: [`ClientLimits`] has one for everything that an upstream can make the client keep. An event carries at most
//! the bytes of the frame that caused it; a message to a group causes at most one event for each of its channels.
//!
//! Specification: 3.2 to 3.6, chapter 5, extensions 0x0001 and 0x0002.

mod channel;
mod config;
mod connection;
mod distribution;
mod event;
mod fault;
mod group;
mod job;
mod outstanding;
mod requests;
mod setup;
mod shares;
#[cfg(test)]
mod tests;
mod work;

pub use channel::{ChannelKind, ClientChannel};
pub use config::{ClientConfig, ClientConfigError, ClientLimits};
pub use connection::{Client, ClientCounters};
pub use event::{ClientEvent, RequestId};
pub use fault::{ClientFault, Refusal};
pub use job::{ExtendedJob, ExtranoncePrefix};
pub use work::{BIP323_VERSION_MASK, Work, WorkKind};

use crate::outbox::Outbox;

/// What a [`Client`] emits: frames for its one connection, and events.
pub type ClientOutbox = Outbox<(), ClientEvent>;
