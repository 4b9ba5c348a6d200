//! Peers that break the rules, and what they cannot do: honest miners on the same shards lose nothing.

mod hostile;
mod leaks;
