//! The roles of Stratum V2 as thin layers above the engine, and the program `adit`.
//!
//! Policy and wiring, no hot loop: what a share costs is decided below.
//!
//! - [`cli`]: the command line, one module for each command.
//! - [`config`]: the configuration file, its checks and its reference.
//! - [`keys`], [`certificates`]: who the pool is, as files, and how that is kept valid.
//! - [`nodes`]: where templates come from and blocks go; [`journal`]: found blocks on disk.
//! - [`logging`]: events as lines on stderr.

pub mod certificates;
pub mod cli;
pub mod config;
pub mod journal;
pub mod keys;
pub mod logging;
pub mod nodes;
pub mod utc;

use std::net::SocketAddr;

/// The line that points a miner at the pool: `stratum2+tcp://HOST:PORT/KEY`. `HOST` stands for itself where the pool
/// listens on every address and no public host is configured.
pub fn pool_url(config: &config::PoolConfig, listen: SocketAddr) -> String {
    let key = config.authority.public_key();
    let host = match &config.settings.pool.public_host {
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host.clone(),
        None if listen.ip().is_unspecified() => "HOST".to_owned(),
        None if listen.is_ipv6() => format!("[{}]", listen.ip()),
        None => listen.ip().to_string(),
    };
    format!("stratum2+tcp://{host}:{}/{key}", listen.port())
}
