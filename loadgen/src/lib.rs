//! Simulated mining devices.
//!
//! [`miner`] hashes for real, on the CPU: it proves a pool end to end, with real shares and real blocks. The network
//! (`connection`) is apart from what the miner says on it, which is the client's state machine of `adit-proto`.
//!
//! [`simulate`] hashes nothing: it loads a pool with the shares of millions of devices, over the engine's transport;
//! [`load`] runs it in one process or several, and [`report`] says what became of each share, and when. [`stamp`] tells
//! how old synthetic work is.
#![forbid(unsafe_code)]

pub mod connection;
pub mod load;
pub mod miner;
pub mod report;
pub mod simulate;
pub mod stamp;
pub mod summary;
pub mod watch;
