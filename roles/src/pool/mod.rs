//! The pool: an engine, a template source, a journal, and what keeps them going.
//!
//! Owns the threads that are no shards: one hands templates to the engine, one hands solutions to source and journal at
//! the same moment, one waits for the outcomes, one owns the journal, one writes the engine's events to the log, one renews
//! certificates and writes the status. They meet only by bounded links.
//!
//! Invariants: a solution reaches the source and the journal without either waiting for the other; the outcome reaches
//! journal and log. Miners are served while the source is away. Bounds: a stop takes the configured grace, then 10 s at
//! most for answers and the journal's disk, then 20 s at most for the source to close; what is left undone is said.

mod blocks;
mod error;
mod events;
mod status;
mod templates;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthorityPublicKey;
use adit_engine::service::MiningConfig;
use adit_engine::{Engine, EngineConfig, EngineHandle, ShutdownReport};
use adit_proto::distribution::Reserve;
use crossbeam::channel::{Receiver, Sender, bounded};
use tracing::error;

use crate::certificates::Renewal;
use crate::config::{Authority, PoolConfig};
use crate::journal::{Journal, JournalConfig, Recovery};
use crate::nodes::{self, TemplateSource};
use crate::utc::Utc;

pub use blocks::{BlockReport, Btc, Finder};
use blocks::{Stopping, Tally};
pub use error::PoolError;
pub use status::{HashRate, Meter, Status};
use templates::ChainState;

/// How long a stop waits for the pool's own threads: for the source's answers and the journal's disk.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stop waits for the source to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);
/// Orders that wait for the upkeep thread.
const ORDERS_MAX: usize = 16;

/// Told of every block's outcome, on the thread that waits for outcomes.
pub type OnBlock = Box<dyn FnMut(&BlockReport) + Send>;

/// A running pool. Dropped without [`Pool::stop`], it ends without grace.
pub struct Pool {
    /// Present until the end.
    running: Option<Running>,
    orders: Sender<upkeep::Order>,
    /// Ends first: what uses the engine.
    stop_templates: Option<Sender<()>>,
    feeding: Vec<JoinHandle<()>>,
    /// Ends with the engine's links: what drains them.
    draining: Vec<JoinHandle<()>>,
    url: String,
    authority: AuthorityPublicKey,
    grace: Duration,
}

/// What is taken apart at the end.
struct Running {
    /// Held by the pool and the feeding threads.
    engine: Arc<EngineHandle>,
    /// Held by the pool, the draining threads and the status.
    source: Arc<Box<dyn TemplateSource>>,
    chain: Arc<ChainState>,
    tally: Arc<Tally>,
    stopping: Arc<Stopping>,
}

impl Pool {
    /// Starts everything. The source comes first, so that the first miner finds work.
    ///
    /// # Errors
    /// What did not start and what to do; nothing is left running.
    pub fn start(config: PoolConfig, on_block: OnBlock) -> Result<Self, PoolError> {
        let source = nodes::start(&config.settings).map_err(PoolError::Node)?;
        Self::start_with(config, source, on_block)
    }

    /// Starts a pool on a template source that runs already.
    ///
    /// # Errors
    /// What did not start and what to do; nothing is left running.
    pub fn start_with(
        config: PoolConfig,
        source: Box<dyn TemplateSource>,
        on_block: OnBlock,
    ) -> Result<Self, PoolError> {
        let (journal, recovery) = Journal::open(JournalConfig::new(config.settings.journal.dir.clone()))
            .map_err(PoolError::Journal)?;
        let engine_config = EngineConfig {
            listen: config.settings.pool.listen,
            cpus: config.cpus.clone(),
            service: MiningConfig { server: config.server(), hasher: config.hasher },
            limits: config.engine_limits(),
        };
        let reserve = config.payout.constraints().reserve();
        let public_host = config.settings.pool.public_host.clone();
        let authority = config.authority.public_key();
        let status_interval_s = config.settings.log.status_interval_s;
        let grace = Duration::from_secs_f64(config.settings.pool.shutdown_grace_s);
        let (renewal, identity) = start_identity(config.authority)?;
        let engine = Engine::start(engine_config, identity).map_err(PoolError::Engine)?;
        let url = pool_url(public_host.as_deref(), engine.local_addr(), authority);
        let (orders, inbox) = bounded(ORDERS_MAX);
        let (stop_templates, stopped) = bounded(0);
        let running = Running {
            engine: Arc::new(engine),
            source: Arc::new(source),
            chain: Arc::default(),
            tally: Arc::default(),
            stopping: Arc::default(),
        };
        let mut pool = Self {
            running: Some(running),
            orders,
            stop_templates: Some(stop_templates),
            feeding: Vec::new(),
            draining: Vec::new(),
            url,
            authority,
            grace,
        };
        // From here on a failure drops the pool, which ends and joins what was started.
        pool.start_draining(journal, recovery, on_block)?;
        pool.start_feeding(reserve, stopped, inbox, renewal, status_interval_s)?;
        Ok(pool)
    }

    fn start_draining(
        &mut self,
        journal: Journal,
        recovery: Recovery,
        on_block: OnBlock,
    ) -> Result<(), PoolError> {
        let running = self.running();
        let events = running.engine.log();
        let blocks::Parts { submitter, outcomes, recorder } =
            blocks::parts(running, journal, recovery, on_block);
        self.draining.push(spawn("log", move || events::write(&events))?);
        self.draining.push(spawn("blocks", move || submitter.run())?);
        self.draining.push(spawn("outcomes", move || outcomes.run())?);
        self.draining.push(spawn("recorder", move || recorder.run())?);
        Ok(())
    }

    fn start_feeding(
        &mut self,
        reserve: Reserve,
        stopped: Receiver<()>,
        inbox: Receiver<upkeep::Order>,
        renewal: Renewal,
        status_interval_s: u32,
    ) -> Result<(), PoolError> {
        let running = self.running();
        running.source.want(templates::POOL_CLASS, reserve);
        let feeder = templates::Feeder {
            source: running.source.name().to_owned(),
            updates: running.source.updates(),
            engine: Arc::clone(&running.engine),
            chain: Arc::clone(&running.chain),
        };
        let upkeep = upkeep::Upkeep {
            engine: Arc::clone(&running.engine),
            source: Arc::clone(&running.source),
            tally: Arc::clone(&running.tally),
            chain: Arc::clone(&running.chain),
            renewal,
            status_interval_s,
        };
        self.feeding.push(spawn("templates", move || feeder.run(&stopped))?);
        self.feeding.push(spawn("upkeep", move || upkeep.run(&inbox))?);
        Ok(())
    }

    /// Where miners connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.running().engine.local_addr()
    }

    /// `stratum2+tcp://HOST:PORT/KEY`, for a person to read: `HOST` stands for itself where none is known.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What miners write behind the address.
    pub fn authority(&self) -> AuthorityPublicKey {
        self.authority
    }

    /// What the template source is called.
    pub fn source_name(&self) -> &str {
        self.running().source.name()
    }

    /// The present numbers.
    pub fn status(&self, meter: &mut Meter) -> Status {
        let running = self.running();
        Status::read(&running.engine, &**running.source, &running.tally, &running.chain, meter)
    }

    /// Looks for a new certificate at once.
    pub fn reload(&self) {
        // A full link holds such an order already.
        let _ = self.orders.try_send(upkeep::Order::Reload);
    }

    /// Stops: no new connections, what is found until the grace is over is submitted and recorded, everything is closed. None if a thread that
    /// panicked took the engine with it.
    pub fn stop(mut self) -> Option<ShutdownReport> {
        self.end(self.grace)
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("a pool that has not ended has its parts")
    }

    fn end(&mut self, grace: Duration) -> Option<ShutdownReport> {
        let Running { engine, source, stopping, .. } = self.running.take()?;
        stopping.requested.store(true, Ordering::Release);
        self.stop_templates = None;
        let _ = self.orders.send(upkeep::Order::Stop);
        let mut failed = join_all(&mut self.feeding, JOIN_PATIENCE);
        // The engine's threads end, and with them its links: the draining threads come to their end.
        let report = Arc::into_inner(engine).map(|engine| engine.shutdown(grace));
        stopping.engine_ended.store(true, Ordering::Release);
        failed += join_all(&mut self.draining, JOIN_PATIENCE);
        let closing = spawn("closing", move || {
            if let Some(source) = Arc::into_inner(source) {
                source.shutdown();
            }
        });
        failed += closing.map_or(1, |thread| join_all(&mut vec![thread], CLOSE_PATIENCE));
        report.map(|report| ShutdownReport { threads_failed: report.threads_failed + failed, ..report })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PoolError> {
    std::thread::Builder::new().name(format!("adit-{name}")).spawn(run).map_err(PoolError::Thread)
}

/// Joins threads; says how many had panicked or do not end in time. Those are left to the end of the process.
fn join_all(threads: &mut Vec<JoinHandle<()>>, patience: Duration) -> usize {
    const STEP: Duration = Duration::from_millis(2);
    let deadline = Instant::now() + patience;
    let mut failed = 0;
    for thread in threads.drain(..) {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(STEP);
        }
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

fn start_identity(authority: Authority) -> Result<(Renewal, adit_engine::Identity), PoolError> {
    Renewal::start(authority, Utc::now()).map_err(PoolError::Identity)
}

/// The line that points a miner at a pool.
pub fn pool_url(public_host: Option<&str>, listen: SocketAddr, key: AuthorityPublicKey) -> String {
    let host = match public_host {
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host.to_owned(),
        None if listen.ip().is_unspecified() => "HOST".to_owned(),
        None if listen.is_ipv6() => format!("[{}]", listen.ip()),
        None => listen.ip().to_string(),
    };
    format!("stratum2+tcp://{host}:{}/{key}", listen.port())
}
