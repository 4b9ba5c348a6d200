//! The template source `core-ipc`: against a mining interface in this process that does as it is told, and against
//! Bitcoin Core's own node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fake;
mod interface;
mod real;
#[path = "../support/mod.rs"]
mod support;
