//! What the end-to-end tests share: programs as processes, a node's JSON-RPC, and a peer that speaks Noise over TCP.
//!
//! Everything is bounded in time, listens on loopback only, and ends with the test: a process is killed when its
//! [`Program`](process::Program) is dropped.

pub mod node;
pub mod peer;
pub mod pool;
pub mod process;
pub mod rpc;
pub mod template_provider;
