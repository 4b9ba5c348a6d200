//! `adit tp`: a template provider from a configuration file.

use std::path::PathBuf;

use clap::Args;
use tracing::{info, warn};

use super::pool::{report_stop, where_host_is};
use super::signals::{Request, Signals};
use super::{Failure, LogArguments};
use crate::config::TpConfig;
use crate::logging;
use crate::tp::Provider;

#[derive(Args, Debug)]
pub(super) struct TpArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    log: LogArguments,
}

pub(super) fn run(arguments: &TpArguments) -> Result<(), Failure> {
    let config = TpConfig::load(&arguments.config)?;
    let log = &config.settings.log;
    logging::start(
        arguments.log.log_level.unwrap_or(log.level),
        arguments.log.log_format.unwrap_or(log.format),
    );
    let signals = Signals::install()?;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let (cpu, listen) = (config.cpu, config.settings.tp.listen);
    let provider = Provider::start(config, Box::new(|_| ())).map_err(Failure::running)?;
    let source = provider.source_name();
    info!(version = env!("CARGO_PKG_VERSION"), source, cpu, "template provider started");
    info!(address = %provider.local_addr(), "listening");
    let url = provider.url();
    info!("point pools and job declarators at {url}{}", where_host_is(url, listen, "clients"));
    while signals.wait() == Request::Reload {
        provider.reload();
    }
    info!("stopping; a second signal ends at once");
    report_stop(provider.stop(), "template provider")
}
