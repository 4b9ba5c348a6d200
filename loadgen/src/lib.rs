//! Simulated mining devices.
//!
//! [`miner`] hashes for real, on the CPU: it proves a pool end to end, with real shares and real blocks. The network
//! (`connection`) is apart from what the miner says on it, which is the client's state machine of `adit-proto`. [`stamp`] tells how old synthetic
//! work is.
#![forbid(unsafe_code)]

pub mod connection;
pub mod miner;
pub mod stamp;
pub mod summary;
