//! The Mining Protocol (specification chapter 5), both sides.

pub mod client;
pub mod server;
