//! Events on their way to stderr: one line each, as text or as JSON.
//!
//! Shards never log: their events come by link, and a thread of the pool turns them into lines.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogFormat, LogLevel};

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Sends the program's events to stderr. Libraries are heard only when they warn, or at `trace`.
///
/// A second call changes nothing: a process has one log.
pub fn start(level: LogLevel, format: LogFormat) {
    let level = Level::from(level);
    let others = if level == Level::TRACE { LevelFilter::DEBUG } else { LevelFilter::WARN.min(level.into()) };
    let targets = Targets::new()
        .with_default(others)
        .with_target("adit", level)
        .with_target("adit_roles", level)
        .with_target("adit_engine", level);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // The only way to fail is that a log runs already.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}
