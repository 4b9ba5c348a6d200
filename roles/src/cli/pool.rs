//! `adit pool`: a pool from a configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

use adit_engine::ShutdownReport;
use clap::Args;
use tracing::{info, warn};

use super::signals::{Request, Signals};
use super::{Failure, LogArguments};
use crate::config::PoolConfig;
use crate::logging;
use crate::pool::Pool;

#[derive(Args, Debug)]
pub(super) struct PoolArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    log: LogArguments,
}

pub(super) fn run(arguments: &PoolArguments) -> Result<(), Failure> {
    let config = PoolConfig::load(&arguments.config)?;
    let log = &config.settings.log;
    logging::start(
        arguments.log.log_level.unwrap_or(log.level),
        arguments.log.log_format.unwrap_or(log.format),
    );
    let signals = Signals::install()?;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let (hasher, aead) = (config.hasher.describe(), config.aead.describe());
    let (payout, cpus) = (config.payout.to_string(), config.cpus.clone());
    let listen = config.settings.pool.listen;
    let pool = Pool::start(config, Box::new(|_| ())).map_err(Failure::running)?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        source = pool.source_name(),
        ?cpus,
        hasher,
        aead,
        "pool started"
    );
    info!(payout, "rewards go to a script");
    info!(address = %pool.local_addr(), "listening");
    info!("point miners at {}{}", pool.url(), where_host_is(pool.url(), listen, "miners"));
    while signals.wait() == Request::Reload {
        pool.reload();
    }
    info!("stopping; a second signal ends at once");
    report_stop(pool.stop(), "pool")
}

/// Says how a role ended.
pub(super) fn report_stop(report: ShutdownReport, what: &str) -> Result<(), Failure> {
    if report.threads_failed > 0 {
        let failure = format!("the {what} did not end in good order; what went wrong is above");
        return Err(Failure::running(failure));
    }
    info!(
        connections_closed = report.connections_closed,
        connections_cut = report.connections_cut,
        seconds = %format_args!("{:.1}", report.lasted.as_secs_f64()),
        "stopped"
    );
    Ok(())
}

/// What stands for HOST in the address of a server that listens everywhere.
pub(super) fn where_host_is(url: &str, listen: SocketAddr, clients: &str) -> String {
    match listen.ip().is_unspecified() && url.contains("//HOST:") {
        true => format!(" (HOST: this machine's name or address as {clients} see it)"),
        false => String::new(),
    }
}
