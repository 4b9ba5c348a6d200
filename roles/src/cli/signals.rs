//! Signals: Ctrl-C and SIGTERM stop, SIGHUP looks for a new certificate. A second Ctrl-C or SIGTERM ends at once.
//!
//! A stop is often sent twice in one moment, to the process and to its group (`timeout` does so): what comes within
//! [`ONE_STOP`] of the first is the same wish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select_biased};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator;

use super::Failure;

/// How long after the first a further stop signal changes nothing.
const ONE_STOP: Duration = Duration::from_millis(300);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// End in good order.
    Stop,
    /// Look for a new certificate.
    Reload,
}

/// The signals that this process has taken over. One of each kind waits: more would say the same.
pub(super) struct Signals {
    stops: Receiver<()>,
    reloads: Receiver<()>,
}

impl Signals {
    /// Takes the signals over; before anything is started, so that nothing is left half done.
    pub(super) fn install() -> Result<Self, Failure> {
        let failed = |error| Failure::running(format!("signals cannot be taken over: {error}"));
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&stopping)).map_err(failed)?;
        }
        let signals = iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
        let ((stop, stops), (reload, reloads)) = (bounded(1), bounded(1));
        let thread = std::thread::Builder::new().name("adit-signals".to_owned());
        thread.spawn(move || pass_on(signals, &stop, &reload, &stopping)).map_err(failed)?;
        Ok(Self { stops, reloads })
    }

    /// Waits for the next signal.
    pub(super) fn wait(&self) -> Request {
        // The thread lasts as long as the process; should it ever not, the pool stops.
        select_biased! {
            recv(self.stops) -> _ => Request::Stop,
            recv(self.reloads) -> _ => Request::Reload,
        }
    }

    /// Whether a signal came: any ends what has nothing to reload. A terminal that is closed sends SIGHUP.
    pub(super) fn is_stop_requested(&self) -> bool {
        self.stops.try_recv().is_ok() || self.reloads.try_recv().is_ok()
    }
}

fn pass_on(mut signals: iterator::Signals, stop: &Sender<()>, reload: &Sender<()>, stopping: &AtomicBool) {
    for signal in signals.forever() {
        // A full link says what this one would.
        if signal == SIGHUP {
            let _ = reload.try_send(());
        } else {
            let _ = stop.try_send(());
            std::thread::sleep(ONE_STOP);
            stopping.store(true, Ordering::SeqCst);
        }
    }
}
