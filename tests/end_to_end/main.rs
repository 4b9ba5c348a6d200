//! The whole of Adit as its users run it: real processes, real sockets, real blocks. What became of them is asked of the
//! node, not of the pool.

mod bitcoin_node;
mod core_ipc;
mod core_rpc;
mod demo;
mod failover;
mod load;
mod mining;
mod refusals;
mod template_distribution;
mod transactions;
