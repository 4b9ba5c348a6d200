//! The engine's events as lines of the log.

use adit_engine::LogEvent;
use crossbeam::channel::Receiver;
use tracing::{debug, error, info, warn};

/// How many clients a role has, and so how much is said of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// A few: what each does is worth a line.
    Few,
    /// Thousands: what each does is for who looks for it.
    Many,
}

/// Writes events until the engine has ended.
pub(super) fn write(events: &Receiver<LogEvent>, clients: Crowd) {
    for event in events {
        match event {
            LogEvent::ShardFailed { .. }
            | LogEvent::BlocksLost { .. }
            | LogEvent::CertificateNotValid { .. }
            | LogEvent::TemplateRefused { .. } => {
                error!("{event}");
            }
            LogEvent::ConnectionsRefused { .. } => warn!("{event}"),
            _ if clients == Crowd::Few => info!("{event}"),
            _ => debug!("{event}"),
        }
    }
}
