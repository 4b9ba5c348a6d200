//! Stratum V2 state machines, both sides, without socket, clock, thread or randomness.
//!
//! Whoever drives a machine hands it events (`handle_*`: a connection, a plaintext frame, a template, the passing of
//! time) together with `now`, and takes its effects out of an [`Outbox`]: plaintext frames for connections, and
//! [`Event`](mining::server::Event)s. Opening, sealing and sending frames belong to the driver, and so does hashing, which
//! comes in as an [`adit_hasher::BatchHash`]. The crate is `no_std`: the compiler proves that nothing here can reach a
//! socket, a clock or a thread, so every run can be repeated, and both ends can be run in virtual time.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod distribution;
pub mod mining;
pub mod outbox;
mod setup;
pub mod template;
pub mod time;

pub use outbox::{Outbox, Priority};
pub use time::Instant;
