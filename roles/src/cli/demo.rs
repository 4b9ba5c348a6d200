//! `adit demo`: pool, node and miners in one process.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::signals::Signals;
use super::{Failure, LogArguments};
use crate::config::{Chain, LogFormat, LogLevel};
use crate::demo::{self, DemoNode, DemoOptions};
use crate::logging;

#[derive(Args, Debug)]
pub(super) struct DemoArguments {
    /// Stop once the node has accepted this many blocks; without it, Ctrl-C stops
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    blocks: Option<u64>,
    /// CPU miners, in turn with a standard and an extended channel; 0 to bring your own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=64))]
    miners: u16,
    /// Hashes per second of each miner at most: one million find a signet block in about four seconds
    #[arg(long, value_name = "H/S", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    hash_rate: u32,
    /// Which node: the embedded one, or Bitcoin Core's own as a process beside the pool
    #[arg(long, default_value = "embedded", value_parser = ["embedded", "core"])]
    node: String,
    /// The program bitcoin-node for --node core; without it, the one in PATH or the one of `make fixtures`
    #[arg(long, value_name = "FILE")]
    node_path: Option<PathBuf>,
    /// Which private chain: signet blocks cost about four million hashes, regtest blocks two; signet by default, regtest
    /// with --node core
    #[arg(long, value_parser = ["signet", "regtest"])]
    chain: Option<String>,
    /// Where the pool listens; port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:3333")]
    listen: SocketAddr,
    /// Keep chain, journal and key in this directory; without it everything is gone at the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Who gets the rewards: an address or descriptor; anyone by default
    #[arg(long, value_name = "DESCRIPTOR", default_value = "raw(51)")]
    payout: String,
    #[command(flatten)]
    log: LogArguments,
}

pub(super) fn run(arguments: DemoArguments) -> Result<(), Failure> {
    logging::start(
        arguments.log.log_level.unwrap_or(LogLevel::Error),
        arguments.log.log_format.unwrap_or(LogFormat::Human),
    );
    let signals = Signals::install()?;
    let (node, chain) = node_and_chain(&arguments)?;
    let options = DemoOptions {
        blocks: arguments.blocks,
        miners: arguments.miners.into(),
        hash_rate: arguments.hash_rate,
        node,
        chain,
        listen: arguments.listen,
        data_dir: arguments.data_dir,
        payout: arguments.payout,
    };
    demo::run(&options, &mut || signals.is_stop_requested()).map_err(|error| match error {
        demo::DemoError::Usage(wrong) => Failure::usage(wrong),
        other => Failure::running(other),
    })
}

fn node_and_chain(arguments: &DemoArguments) -> Result<(DemoNode, Chain), Failure> {
    let chain = arguments.chain.as_deref().map(str::parse::<Chain>).transpose().map_err(Failure::usage)?;
    if arguments.node != "core" {
        if arguments.node_path.is_some() {
            return Err(Failure::usage("--node-path names the program for --node core: add that"));
        }
        return Ok((DemoNode::Embedded, chain.unwrap_or(Chain::Signet)));
    }
    if chain.is_some_and(|chain| chain != Chain::Regtest) {
        return Err(Failure::usage(
            "--node core runs on regtest: a signet of one's own is for the embedded node only",
        ));
    }
    Ok((DemoNode::Core { path: arguments.node_path.clone() }, Chain::Regtest))
}
