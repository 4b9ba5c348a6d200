//! The roles of Stratum V2 as thin layers above the engine, and the program `adit`.
//!
//! Policy and wiring, no hot loop: what a share costs is decided below.
//!
//! - [`cli`]: the command line, one module for each command.
//! - [`config`]: the configuration file, its checks and its reference.
//! - [`keys`], [`certificates`]: who the pool is, as files, and how that is kept valid.
//! - [`nodes`], [`journal`]: where templates come from and blocks go to, and the record of blocks.
//! - `role`: what every role has: engine, source, journal and the threads between them.
//! - [`pool`]: miners; [`tp`]: pools and job declarators that want templates; [`demo`]: a pool, a node and miners in one process.
//! - [`logging`]: events as lines on stderr.
#![forbid(unsafe_code)]

pub mod certificates;
pub mod cli;
pub mod config;
pub mod demo;
pub mod journal;
pub mod keys;
pub mod logging;
pub mod nodes;
pub mod pool;
mod role;
pub mod tp;
pub mod utc;
