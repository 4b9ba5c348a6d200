//! What happens by the clock: certificates and the status line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_engine::EngineHandle;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use tracing::{error, info, warn};

use super::blocks::Tally;
use super::status::{Meter, Status};
use super::templates::ChainState;
use crate::certificates::{self, Renewal, Urgency};
use crate::nodes::TemplateSource;
use crate::utc::Utc;

/// What the upkeep thread is asked for.
pub(super) enum Order {
    /// Look for a new certificate now.
    Reload,
    /// End.
    Stop,
}

/// What the thread owns.
pub(super) struct Upkeep {
    pub(super) engine: Arc<EngineHandle>,
    pub(super) source: Arc<Box<dyn TemplateSource>>,
    pub(super) tally: Arc<Tally>,
    pub(super) chain: Arc<ChainState>,
    pub(super) renewal: Renewal,
    /// 0 for never.
    pub(super) status_interval_s: u32,
}

impl Upkeep {
    /// Runs until it is stopped.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(certificates::POLL_INTERVAL_S);
        let mut meter = Meter::default();
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
                Status::read(&self.engine, &**self.source, &self.tally, &self.chain, &mut meter).log();
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
            self.engine.set_identity(identity);
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
