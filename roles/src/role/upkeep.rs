//! What happens by the clock: certificates and the status line.

use std::time::{Duration, Instant};

use adit_engine::Identity;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use tracing::{error, info, warn};

use crate::certificates::{self, Renewal, Urgency};
use crate::utc::Utc;

/// What the upkeep thread is asked for.
pub(super) enum Order {
    /// Look for a new certificate now.
    Reload,
    /// End.
    Stop,
}

/// What the thread owns.
pub(super) struct Upkeep<I, S> {
    /// Shows another identity from now on.
    pub(super) show: I,
    pub(super) renewal: Renewal,
    /// Writes the status line.
    pub(super) status: S,
    /// 0 for never.
    pub(super) status_interval_s: u32,
}

impl<I: Fn(Identity), S: FnMut()> Upkeep<I, S> {
    /// Runs until it is stopped.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(certificates::POLL_INTERVAL_S);
        let status_interval =
            (self.status_interval_s > 0).then(|| Duration::from_secs(self.status_interval_s.into()));
        let mut certificate_due = Instant::now();
        let mut status_due = status_interval.map(|interval| Instant::now() + interval);
        loop {
            let now = Instant::now();
            if now >= certificate_due {
                certificate_due = now + CERTIFICATE_INTERVAL;
                self.poll_certificate();
            }
            if let (Some(due), Some(interval)) = (status_due, status_interval)
                && now >= due
            {
                status_due = Some(now + interval);
                (self.status)();
            }
            let next = status_due.map_or(certificate_due, |due| due.min(certificate_due));
            match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Order::Reload) => {
                    info!("looking for a new certificate");
                    certificate_due = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn poll_certificate(&mut self) {
        let outcome = self.renewal.poll(Utc::now());
        if let Some(identity) = outcome.identity {
            (self.show)(identity);
        }
        for notice in outcome.notices {
            match notice.urgency {
                Urgency::Info => info!("{}", notice.text),
                Urgency::Warning => warn!("{}", notice.text),
                Urgency::Error => error!("{}", notice.text),
            }
        }
    }
}
