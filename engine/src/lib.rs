//! Thread-per-core shards over io_uring: the part of Adit that clients connect to.
//!
//! [`Engine::start`] starts the threads that [`topology`] shows on one page; the [`EngineHandle`] gives them templates and takes
//! solutions, lines for the log and counters. What a message means is [`adit_proto`]'s; this crate owns sockets, ciphers
//! of live connections, clocks, randomness, threads and the bounds on all of them.
//!
//! - [`transport`]: sockets over io_uring; knows nothing of Stratum, and has all `unsafe` of the crate.
//! - [`service`]: what the engine knows of each protocol.
//! - [`shard`]: what one core does.
//! - `acceptor`: the thread that takes connections in.
//! - [`topology`]: threads and links.
//!
//! Invariants: a solution leaves its shard before any frame of the same tick is sealed; a connection is served by one shard
//! from its first byte to its last; shards share nothing but what [`topology`] lists.

mod acceptor;
mod counters;
mod end;
mod engine;
mod error;
mod identity;
mod limits;
mod log;
pub mod service;
pub mod shard;
mod tips;
pub mod topology;
pub mod transport;

pub use counters::{EngineCounters, ShardSnapshot};
pub use end::{EndKind, EndReason};
pub use engine::{Engine, EngineConfig, EngineHandle, ShutdownReport};
pub use error::StartError;
pub use identity::Identity;
pub use limits::{EngineLimits, SEND_BUFFER_BYTES_PER_CHANNEL};
pub use log::{LineKind, LogEvent, PEER_TEXT_LEN_MAX, RefuseReason};
pub use tips::{Latency, TipLatencies};
