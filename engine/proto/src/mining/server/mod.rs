//! The server of the Mining Protocol: one [`Server`] holds a shard's connections, channels and jobs.

pub mod config;
pub mod duplicates;
mod error;
mod event;
pub mod extranonce;
pub mod vardiff;

pub use config::{CoinbasePolicy, ExtranonceLayout, Limits, ServerConfig, ShardId, VardiffConfig};
pub use error::ShareError;
pub use event::{ChannelId, CloseReason, ConnectionId, Counters, Event, JobId, ProtocolFault, Solution};
