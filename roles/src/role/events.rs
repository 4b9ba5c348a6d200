//! The engine's events as lines of the log.

use adit_engine::LogEvent;
use crossbeam::channel::Receiver;
use tracing::{debug, error, warn};

/// Writes events until the engine has ended.
pub(super) fn write(events: &Receiver<LogEvent>) {
    for event in events {
        match event {
            LogEvent::ShardFailed { .. }
            | LogEvent::BlocksLost { .. }
            | LogEvent::CertificateNotValid { .. }
            | LogEvent::TemplateRefused { .. } => {
                error!("{event}");
            }
            LogEvent::ConnectionsRefused { .. } => warn!("{event}"),
            // What miners do: a pool has many.
            _ => debug!("{event}"),
        }
    }
}
