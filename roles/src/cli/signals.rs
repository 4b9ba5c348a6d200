//! Signals: Ctrl-C and SIGTERM stop, SIGHUP looks for a new certificate. A second Ctrl-C or SIGTERM ends at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator;

use super::Failure;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// End in good order.
    Stop,
    /// Look for a new certificate.
    Reload,
}

/// The signals that this process has taken over.
pub(super) struct Signals(iterator::Signals);

impl Signals {
    /// Takes the signals over; before anything is started, so that nothing is left half done.
    pub(super) fn install() -> Result<Self, Failure> {
        let failed = |error| Failure::running(format!("signals cannot be taken over: {error}"));
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal arms what ends the process with the second.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping)).map_err(failed)?;
            flag::register(signal, Arc::clone(&stopping)).map_err(failed)?;
        }
        iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map(Self).map_err(failed)
    }

    /// Waits for the next signal.
    pub(super) fn wait(&mut self) -> Request {
        loop {
            let last = self.0.wait().last();
            if let Some(signal) = last {
                return request(signal);
            }
        }
    }

    /// Whether a signal asked to stop. Others are taken and forgotten.
    pub(super) fn is_stop_requested(&mut self) -> bool {
        self.0.pending().any(|signal| request(signal) == Request::Stop)
    }
}

const fn request(signal: i32) -> Request {
    if signal == SIGHUP { Request::Reload } else { Request::Stop }
}
