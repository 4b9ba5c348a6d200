//! Stratum V2 state machines, both sides, without socket, clock, thread or randomness.
#![no_std]
extern crate alloc;
