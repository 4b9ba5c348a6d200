//! Clients against a server in virtual time: real frames, real hashes, easy targets. Every run follows from its seed,
//! which a failure prints.

#![allow(unreachable_pub, reason = "a program of its own: nothing is exported")]

#[path = "../common/mod.rs"]
mod common;
mod peer;
mod random;
mod retarget;
mod turmoil;
mod world;
