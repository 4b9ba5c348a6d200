//! What every role has: an engine, a template source, a journal, the threads between them, and their end in order.
//!
//! A [`Role`] owns the threads that are no shards. Those that feed the engine go on while it still serves at a stop, and end
//! before connections are told; those that its links feed come to their end when the engine has ended, so that nothing that
//! was found is left behind. They meet only by bounded links.
//!
//! Invariants: a solution reaches the source and the journal without either waiting for the other; the outcome reaches
//! journal and log; the engine ends in order, whoever still holds it. Bounds: a stop takes the configured grace, a quarter
//! of it at most for what feeds the engine to end; then 10 s at most for answers and the journal's disk, then 20 s at most for
//! the source to close; what is left undone is said.

pub(crate) mod blocks;
mod error;
mod events;
pub(crate) mod feed;
#[cfg(test)]
mod tests;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthorityPublicKey;
use adit_engine::service::{Service, ServiceConfig};
use adit_engine::{Engine, EngineConfig, EngineHandle, ShutdownReport};
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, Sender, bounded};
use tracing::error;

use crate::certificates::Renewal;
use crate::config::Authority;
use crate::journal::{Journal, JournalConfig, Recovery};
use crate::nodes::TemplateSource;
use crate::utc::Utc;

pub use blocks::{BlockReport, Btc, Finder, OnBlock};
use blocks::{Stopping, Tally};
pub use error::RoleError;
pub(crate) use events::Crowd;
use feed::{ChainState, Fed};

/// How long a stop waits for what feeds the engine before connections are told; a quarter of the grace at most, so that they
/// have the rest. A thread that takes longer may end after the engine.
const FEED_PATIENCE: Duration = Duration::from_secs(2);
/// How long a stop waits for the role's own threads: for the source's answers and the journal's disk.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stop waits for the source to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);
/// Orders that wait for the upkeep thread.
const ORDERS_MAX: usize = 16;

/// A running role. Dropped without [`Role::end`], it ends without grace.
pub(crate) struct Role<S: Service> {
    /// Present until the end.
    running: Option<Running<S>>,
    orders: Sender<upkeep::Order>,
    /// Taken when the upkeep thread starts.
    inbox: Option<(Receiver<upkeep::Order>, Renewal)>,
    stop_feeding: Option<Sender<()>>,
    stopped: Receiver<()>,
    /// Ends before connections are told: what uses the engine.
    feeding: Vec<JoinHandle<()>>,
    /// Ends with the engine's links: what drains them.
    draining: Vec<JoinHandle<()>>,
    /// Taken when the feed starts.
    records: Option<blocks::Records>,
}

/// What is taken apart at the end.
pub(crate) struct Running<S: Service> {
    /// Held by the role and the feeding threads.
    pub(crate) engine: Arc<EngineHandle<S>>,
    /// Held by the role, the draining threads and those that feed.
    pub(crate) source: Arc<Box<dyn TemplateSource>>,
    pub(crate) chain: Arc<ChainState>,
    pub(crate) tally: Arc<Tally>,
    stopping: Arc<Stopping>,
}

impl<S: Service> Role<S> {
    /// Starts the engine, and a thread that writes its events to the log.
    ///
    /// # Errors
    /// What did not start and what to do; nothing is left running.
    pub(crate) fn start<C: ServiceConfig<Service = S>>(
        config: EngineConfig<C>,
        authority: Authority,
        source: Box<dyn TemplateSource>,
        clients: Crowd,
    ) -> Result<Self, RoleError> {
        let (renewal, identity) = Renewal::start(authority, Utc::now()).map_err(RoleError::Identity)?;
        let engine = Engine::start(config, identity).map_err(RoleError::Engine)?;
        let events = engine.log();
        let (orders, inbox) = bounded(ORDERS_MAX);
        let (stop_feeding, stopped) = bounded(0);
        let running = Running {
            engine: Arc::new(engine),
            source: Arc::new(source),
            chain: Arc::default(),
            tally: Arc::default(),
            stopping: Arc::default(),
        };
        let mut role = Self {
            running: Some(running),
            orders,
            inbox: Some((inbox, renewal)),
            stop_feeding: Some(stop_feeding),
            stopped,
            feeding: Vec::new(),
            draining: Vec::new(),
            records: None,
        };
        // From here on a failure drops the role, which ends and joins what was started.
        role.drain("log", move || events::write(&events, clients))?;
        Ok(role)
    }

    /// Starts what journals and submits solutions, until `solutions` is disconnected.
    pub(crate) fn start_blocks(
        &mut self,
        solutions: Receiver<Box<Solution>>,
        journal: Journal,
        recovery: Recovery,
        on_block: OnBlock,
    ) -> Result<blocks::Records, RoleError> {
        let Running { source, tally, stopping, .. } = self.running();
        let ends = blocks::Ends {
            solutions,
            source: Arc::clone(source),
            tally: Arc::clone(tally),
            stopping: Arc::clone(stopping),
        };
        let blocks::Parts { submitter, outcomes, recorder, records } =
            blocks::parts(ends, journal, recovery, on_block);
        self.drain("blocks", move || submitter.run())?;
        self.drain("outcomes", move || outcomes.run())?;
        self.drain("recorder", move || recorder.run())?;
        self.records = Some(records.clone());
        Ok(records)
    }

    /// Starts what takes the source's reports.
    pub(crate) fn start_feed(&mut self, take: impl FnMut(Fed) + Send + 'static) -> Result<(), RoleError> {
        let records = self.records.take();
        let running = self.running();
        let feeder = feed::Feeder {
            source: running.source.name().to_owned(),
            updates: running.source.updates(),
            chain: Arc::clone(&running.chain),
            records,
        };
        self.feed("templates", move |stopped| feeder.run(&stopped, take))
    }

    /// Starts what happens by the clock: certificates, and `status` every so many seconds, 0 for never.
    pub(crate) fn start_upkeep(
        &mut self,
        status_interval_s: u32,
        status: impl FnMut() + Send + 'static,
    ) -> Result<(), RoleError> {
        let Some((inbox, renewal)) = self.inbox.take() else { return Ok(()) };
        let engine = Arc::clone(&self.running().engine);
        let show = move |identity| engine.set_identity(identity);
        let upkeep = upkeep::Upkeep { show, renewal, status, status_interval_s };
        self.feed("upkeep", move |_| upkeep.run(&inbox))
    }

    /// Starts a thread that uses the engine and ends when what it is given is disconnected.
    pub(crate) fn feed(
        &mut self,
        name: &str,
        run: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> Result<(), RoleError> {
        let stopped = self.stopped.clone();
        self.feeding.push(spawn(name, move || run(stopped))?);
        Ok(())
    }

    /// Starts a thread that ends with the engine's links.
    pub(crate) fn drain(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), RoleError> {
        self.draining.push(spawn(name, run)?);
        Ok(())
    }

    pub(crate) fn running(&self) -> &Running<S> {
        self.running.as_ref().expect("a role that has not ended has its parts")
    }

    /// Looks for a new certificate at once.
    pub(crate) fn reload(&self) {
        // A full link holds such an order already.
        let _ = self.orders.try_send(upkeep::Order::Reload);
    }

    /// Stops: no new connections, what was found is submitted and recorded, everything is closed. None if it has ended
    /// before.
    pub(crate) fn end(&mut self, grace: Duration) -> Option<ShutdownReport> {
        let Running { engine, source, stopping, .. } = self.running.take()?;
        stopping.requested.store(true, Ordering::Release);
        // Nobody but who feeds and who drains holds the recorder.
        self.records = None;
        // The engine's threads end, and with them its links: the draining threads come to their end, and no thread that
        // feeds can wait for it any more.
        let report = engine.shutdown_after(grace, || self.end_feeding(FEED_PATIENCE.min(grace / 4)));
        stopping.engine_ended.store(true, Ordering::Release);
        let mut failed = join_all(&mut self.feeding, JOIN_PATIENCE);
        failed += join_all(&mut self.draining, JOIN_PATIENCE);
        let closing = spawn("closing", move || {
            if let Some(source) = Arc::into_inner(source) {
                source.shutdown();
            }
        });
        failed += closing.map_or(1, |thread| join_all(&mut vec![thread], CLOSE_PATIENCE));
        Some(ShutdownReport { threads_failed: report.threads_failed + failed, ..report })
    }

    /// Tells the threads that feed the engine to end, and gives them a moment to do so.
    fn end_feeding(&mut self, patience: Duration) {
        self.stop_feeding = None;
        let _ = self.orders.send(upkeep::Order::Stop);
        wait_for_all(&self.feeding, patience);
    }
}

impl<S: Service> Drop for Role<S> {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Opens the journal.
///
/// # Errors
/// A directory that cannot be used.
pub(crate) fn open_journal(directory: std::path::PathBuf) -> Result<(Journal, Recovery), RoleError> {
    Journal::open(JournalConfig::new(directory)).map_err(RoleError::Journal)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RoleError> {
    std::thread::Builder::new().name(format!("adit-{name}")).spawn(run).map_err(RoleError::Thread)
}

/// Waits until all threads have ended, but not longer than `patience`.
fn wait_for_all(threads: &[JoinHandle<()>], patience: Duration) {
    const STEP: Duration = Duration::from_millis(2);
    let deadline = Instant::now() + patience;
    while !threads.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
        std::thread::sleep(STEP);
    }
}

/// Joins threads; says how many had panicked or do not end in time. Those are left to the end of the process.
fn join_all(threads: &mut Vec<JoinHandle<()>>, patience: Duration) -> usize {
    wait_for_all(threads, patience);
    let mut failed = 0;
    for thread in threads.drain(..) {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if !thread.is_finished() {
            error!(thread = name, "does not end in time: what it had to do is left undone");
            failed += 1;
        } else if thread.join().is_err() {
            error!(thread = name, "had panicked");
            failed += 1;
        }
    }
    failed
}

/// The line that points a client at a server.
pub(crate) fn server_url(public_host: Option<&str>, listen: SocketAddr, key: AuthorityPublicKey) -> String {
    let host = match public_host {
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host.to_owned(),
        None if listen.ip().is_unspecified() => "HOST".to_owned(),
        None if listen.is_ipv6() => format!("[{}]", listen.ip()),
        None => listen.ip().to_string(),
    };
    format!("stratum2+tcp://{host}:{}/{key}", listen.port())
}
