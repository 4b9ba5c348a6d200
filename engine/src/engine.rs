//! Starting an engine, talking to it, ending it.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_codec::noise::Aead;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossbeam::utils::CachePadded;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use ring::rand::{SecureRandom, SystemRandom};

use crate::acceptor::Acceptor;
use crate::counters::{CounterBoard, EngineCounters, ShardCounters};
use crate::error::StartError;
use crate::identity::{Identity, IdentityCell};
use crate::limits::EngineLimits;
use crate::log::LogEvent;
use crate::service::{Mining, MiningConfig, Service, ServiceConfig};
use crate::shard::{Shard, ShardConfig};
use crate::tips::{self, TipLatencies};
use crate::topology::{Links, PendingCommand, SHARDS_MAX, Sent, ShardInlet, ShardLinks, Stop};
use crate::transport::{
    Listener, RINGS_MAX, Sizes, Wake, kernel_version, locked_memory_max, open_files_max, probe,
};

/// Memory that a shard's executor registers for file IO. Its default, 10 MiB, does not fit under the usual memlock limit.
const EXECUTOR_MEMORY: usize = 64 << 10;
/// The least limit on locked memory with which the executor starts.
const EXECUTOR_MEMLOCK_MIN: u64 = 512 << 10;
/// Entries of the executor's own rings: it awaits an eventfd, timers and the share log's files.
const EXECUTOR_RING_DEPTH: usize = 32;
/// How long a shard may take to come up.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Sockets beyond `connections_max` for which a shard has room: those that are closing still hold theirs.
const CLOSING_ROOM: u32 = 1024;
/// How long connections are served as before at a stop, so that shares on their way are answered; half the grace at most.
const SERVED_AT_STOP: Duration = Duration::from_secs(1);
/// How long the caller of a command waits for its shard: for room in its link, and for the answer, together.
const COMMAND_PATIENCE: Duration = Duration::from_secs(2);

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct EngineConfig<C = MiningConfig> {
    /// Where clients connect; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// CPUs, one shard each.
    pub cpus: Vec<usize>,
    /// What connections are encrypted with.
    pub aead: Aead,
    /// What is served.
    pub service: C,
    /// Bounds.
    pub limits: EngineLimits,
}

/// The engine's beginning.
#[derive(Clone, Copy, Debug)]
pub struct Engine;

impl Engine {
    /// Starts shards and acceptor. Clients are served from then on; they get work with the first template.
    ///
    /// # Errors
    /// [`StartError`], which says what to do; nothing is left running.
    pub fn start<C: ServiceConfig>(
        config: EngineConfig<C>,
        identity: Identity,
    ) -> Result<EngineHandle<C::Service>, StartError> {
        let (shards, shards_max) = (config.cpus.len(), C::SHARDS_MAX.min(SHARDS_MAX));
        if shards == 0 || shards > shards_max {
            return Err(StartError::Shards { found: shards, max: shards_max });
        }
        if let Some((major, minor)) = kernel_version().filter(|(major, _)| *major < 6) {
            return Err(StartError::KernelTooOld { major, minor });
        }
        // On a thread of its own: a ring that is taken down later interrupts system calls of the thread that made it.
        std::thread::spawn(probe).join().unwrap_or(Ok(())).map_err(StartError::from_ring)?;
        if locked_memory_max() < EXECUTOR_MEMLOCK_MIN {
            return Err(StartError::MemlockTooSmall(std::io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        let sizes = Sizes::for_sockets(config.limits.connections_max.saturating_add(CLOSING_ROOM));
        if sizes.rings() > RINGS_MAX {
            let connections_max = config.limits.connections_max;
            return Err(StartError::OpenFilesTooFew { connections_max, open_files_max: open_files_max() });
        }
        let system = |what| move |error| StartError::System { what, error };
        let acceptor_wake = Arc::new(Wake::new().map_err(system("make an eventfd"))?);
        let listener =
            Listener::bind(config.listen, config.limits.delivery_timeout, Arc::clone(&acceptor_wake))
                .map_err(|error| StartError::Listen { address: config.listen, error })?;
        let local_addr = listener.local_addr().map_err(system("read the listening address"))?;

        let board = CounterBoard::new(shards);
        let stop = Arc::new(Stop::default());
        let identity = Arc::new(IdentityCell::new(identity));
        let links = Links::new(shards, &board, &identity, &stop).map_err(system("make an eventfd"))?;
        let mut handle = EngineHandle {
            local_addr,
            inlets: links.inlets,
            outputs: links.outputs,
            log: links.log.1,
            board,
            identity,
            stop,
            acceptor_wake,
            updates: Mutex::new(()),
            threads: Mutex::default(),
        };
        // From here on a failure drops the handle, which ends and joins what was started.
        let origin = Instant::now();
        for (index, (cpu, links)) in config.cpus.iter().zip(links.shards).enumerate() {
            let thread = start_shard(index, *cpu, &config, sizes, origin, links)?;
            running(&mut handle.threads).shards.push(thread);
        }
        let acceptor = Acceptor::new(
            listener,
            links.doors,
            config.limits,
            Arc::clone(&handle.board.acceptor),
            links.log.0,
            Arc::clone(&handle.stop),
        );
        let thread = std::thread::Builder::new()
            .name("adit-acceptor".into())
            .spawn(move || acceptor.run())
            .map_err(system("start the acceptor's thread"))?;
        running(&mut handle.threads).acceptor = Some(thread);
        Ok(handle)
    }
}

/// Starts one shard's thread and waits until it serves. Unpinned if the CPU cannot be had.
fn start_shard<C: ServiceConfig>(
    index: usize,
    cpu: usize,
    config: &EngineConfig<C>,
    sizes: Sizes,
    origin: Instant,
    links: ShardLinks<C::Service>,
) -> Result<ExecutorJoinHandle<()>, StartError> {
    let shard_config = ShardConfig {
        service: config.service.clone(),
        shard: u8::try_from(index).expect("at most SHARDS_MAX shards"),
        random: random()?,
        limits: config.limits,
        aead: config.aead,
        handshakes_per_second: f64::from(config.limits.handshakes_per_second_max) / config.cpus.len() as f64,
        sizes,
        origin,
    };
    // A placement that fails does so before the shard is taken: then it is started on any CPU.
    let parts = Arc::new(Mutex::new(Some((shard_config, links))));
    match launch(index, Placement::Fixed(cpu), &parts) {
        Err(_) if take(&parts, |parts| parts.is_some()) => launch(index, Placement::Unbound, &parts),
        result => result,
    }
}

/// What a shard's thread takes with it, once it runs.
type Parts<S> = Mutex<Option<(ShardConfig<<S as Service>::Config>, ShardLinks<S>)>>;

fn take<P, T>(parts: &Mutex<P>, with: impl FnOnce(&mut P) -> T) -> T {
    with(&mut parts.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Starts a shard's thread and waits until it serves.
fn launch<S: Service>(
    index: usize,
    placement: Placement,
    parts: &Arc<Parts<S>>,
) -> Result<ExecutorJoinHandle<()>, StartError> {
    let (report, reported) = bounded(1);
    let executor = |cause: String| StartError::Executor { shard: index, cause };
    let parts = Arc::clone(parts);
    let thread = LocalExecutorBuilder::new(placement)
        .name(&format!("adit-shard-{index}"))
        .io_memory(EXECUTOR_MEMORY)
        .ring_depth(EXECUTOR_RING_DEPTH)
        .spawn(move || async move {
            if let Some((config, links)) = take(&parts, Option::take) {
                run_shard(config, links, report).await;
            }
        })
        .map_err(|error| executor_error(index, &error))?;
    match reported.recv_timeout(START_PATIENCE) {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(RecvTimeoutError::Timeout) => Err(executor("it does not answer".into())),
        // The executor could not be made: its error comes with the thread's end.
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(()) => Err(executor("it ended at once".into())),
            Err(error) => Err(executor_error(index, &error)),
        },
    }
}

async fn run_shard<S: Service>(
    config: ShardConfig<S::Config>,
    links: ShardLinks<S>,
    report: Sender<Result<(), StartError>>,
) {
    let failure =
        PanicReport { shard: config.shard, log: links.log.clone(), counters: Arc::clone(&links.counters) };
    match Shard::new(config, links) {
        Ok(shard) => {
            let _ = report.send(Ok(()));
            drop(report);
            shard.run().await;
        }
        Err(error) => {
            let _ = report.send(Err(error));
        }
    }
    drop(failure);
}

/// Tells the log of a shard that panicked: a fault of the program's, which the other shards survive.
struct PanicReport {
    shard: u8,
    log: Sender<LogEvent>,
    counters: Arc<CachePadded<ShardCounters>>,
}

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.counters.set_over();
            let cause = "a panic; please report it".to_owned();
            let _ = self.log.try_send(LogEvent::ShardFailed { shard: self.shard, cause });
        }
    }
}

/// Sorts what an executor's rings can fail with.
fn executor_error<T>(shard: usize, error: &glommio::GlommioError<T>) -> StartError {
    use glommio::{GlommioError, ReactorErrorKind};
    match error {
        GlommioError::IoError(error) => {
            let copy = error.raw_os_error().map_or_else(
                || std::io::Error::new(error.kind(), error.to_string()),
                std::io::Error::from_raw_os_error,
            );
            StartError::from_ring(copy)
        }
        GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(..)) => {
            StartError::MemlockTooSmall(std::io::Error::from_raw_os_error(libc::ENOMEM))
        }
        error => StartError::Executor { shard, cause: error.to_string() },
    }
}

fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::System {
        what: "get random numbers",
        error: std::io::Error::other("the system gives none"),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

#[derive(Default)]
struct Threads {
    shards: Vec<ExecutorJoinHandle<()>>,
    acceptor: Option<JoinHandle<()>>,
}

fn running(threads: &mut Mutex<Threads>) -> &mut Threads {
    threads.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// A running engine. Dropped without [`EngineHandle::shutdown`], it ends at once. What is asked of one that has ended comes to
/// nothing and does not wait.
pub struct EngineHandle<S: Service = Mining> {
    local_addr: SocketAddr,
    inlets: Vec<ShardInlet<S>>,
    outputs: Receiver<S::Output>,
    log: Receiver<LogEvent>,
    board: CounterBoard,
    identity: Arc<IdentityCell>,
    stop: Arc<Stop>,
    acceptor_wake: Arc<Wake>,
    /// Held while an update goes to the shards, so that all of them see updates in one order.
    updates: Mutex<()>,
    /// None once the engine has ended.
    threads: Mutex<Threads>,
}

/// How an engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Connections that were told and closed in time.
    pub connections_closed: u64,
    /// Connections that were cut off when the time was over.
    pub connections_cut: u64,
    /// Threads that had panicked.
    pub threads_failed: usize,
    /// How long it took.
    pub lasted: Duration,
}

impl<S: Service> EngineHandle<S> {
    /// Where clients connect.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.inlets.len()
    }

    /// Gives a template or a tip to every shard. Waits while a shard's link is full; a shard that failed is passed over.
    pub fn send_update(&self, update: S::Update) {
        self.send_update_learned(update, Instant::now());
    }

    /// [`send_update`](Self::send_update) of what was learnt at another moment, from which [`tip_latencies`](Self::tip_latencies)
    /// counts.
    pub fn send_update_learned(&self, update: S::Update, learned: Instant) {
        self.send_updates(&[(update, learned)]);
    }

    /// Gives updates that belong together to every shard, each with the moment at which it was learnt: a shard wakes when it has
    /// all of them. So a tip and the template that it names leave as one send for each connection, and no shard is still busy
    /// with the template when the tip comes.
    pub fn send_updates(&self, updates: &[(S::Update, Instant)]) {
        let _order = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        for inlet in &self.inlets {
            for (update, learned) in updates {
                let sent = Sent { update: update.clone(), learned: *learned, at };
                let Err(refused) = inlet.updates.try_send(sent) else { continue };
                if refused.is_disconnected() {
                    break;
                }
                // Awake it makes room.
                inlet.wake.wake();
                if inlet.updates.send(refused.into_inner()).is_err() {
                    break;
                }
            }
            inlet.wake.wake();
        }
    }

    /// What leaves the service: blocks, as they are found. All readers share one link; nothing is dropped as long as there
    /// is a reader.
    #[must_use]
    pub fn outputs(&self) -> Receiver<S::Output> {
        self.outputs.clone()
    }

    /// Lines for the log. All readers share one link; lines that find it full are dropped and counted.
    #[must_use]
    pub fn log(&self) -> Receiver<LogEvent> {
        self.log.clone()
    }

    /// What was done until now; may be a tick old.
    #[must_use]
    pub fn counters(&self) -> EngineCounters {
        self.board.read()
    }

    /// How long tips have taken, until now; may be a second old.
    #[must_use]
    pub fn tip_latencies(&self) -> TipLatencies {
        tips::read(self.inlets.iter().map(|inlet| &inlet.tips))
    }

    /// Shows another identity from the next handshake on. Connections that are there stay.
    pub fn set_identity(&self, identity: Identity) {
        self.identity.set(identity);
    }

    /// Has a shard carry out a command. None if there is no such shard, or if it does not answer within two seconds.
    pub fn command(&self, shard: u8, command: S::Command) -> Option<S::Answer> {
        let inlet = self.inlets.get(usize::from(shard))?;
        let (answer, answered) = bounded(1);
        let deadline = Instant::now() + COMMAND_PATIENCE;
        inlet.commands.send_deadline(PendingCommand { command, answer }, deadline).ok()?;
        inlet.wake.wake();
        answered.recv_deadline(deadline).ok()
    }

    /// Stops accepting and ends the threads. Connections are served for another second, or half of `grace` if that is less;
    /// then each is told that nothing more comes, and what arrives until it closes is still judged: a block that is on its way
    /// is not lost. What has not closed after `grace` is cut off.
    ///
    /// Others may still hold the engine: an update of theirs goes nowhere then, and a command has no answer.
    pub fn shutdown(&self, grace: Duration) -> ShutdownReport {
        self.shutdown_after(grace, || ())
    }

    /// [`shutdown`](Self::shutdown) of an engine that is fed until the end: `end_feeding` is called once connections have been
    /// served for that second, before they are told. Until then they get tips and answers as before. What `end_feeding` takes
    /// counts against `grace`.
    pub fn shutdown_after(&self, grace: Duration, end_feeding: impl FnOnce()) -> ShutdownReport {
        let begun = Instant::now();
        let before = self.board.read().total.connections();
        self.stop.requested.store(true, Ordering::Release);
        self.acceptor_wake.wake();
        self.wake_shards();
        let gone = || self.board.shards.iter().all(|shard| shard.is_over());
        let wait_until = |end: Duration| {
            while begun.elapsed() < end && !gone() {
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        wait_until(SERVED_AT_STOP.min(grace / 2));
        end_feeding();
        self.stop.hang_up.store(true, Ordering::Release);
        self.wake_shards();
        wait_until(grace);
        let cut = self.board.read().total.connections();
        self.stop.at_once.store(true, Ordering::Release);
        self.wake_shards();
        let threads = take(&self.threads, std::mem::take);
        let acceptor_failed = threads.acceptor.is_some_and(|thread| thread.join().is_err());
        let shards_failed = threads.shards.into_iter().filter_map(|thread| thread.join().err()).count();
        ShutdownReport {
            connections_closed: before.saturating_sub(cut),
            connections_cut: cut,
            threads_failed: usize::from(acceptor_failed) + shards_failed,
            lasted: begun.elapsed(),
        }
    }

    fn wake_shards(&self) {
        self.inlets.iter().for_each(|inlet| inlet.wake.wake());
    }
}

impl<S: Service> Drop for EngineHandle<S> {
    fn drop(&mut self) {
        let threads = running(&mut self.threads);
        if threads.acceptor.is_some() || !threads.shards.is_empty() {
            self.shutdown(Duration::ZERO);
        }
    }
}

impl<S: Service> std::fmt::Debug for EngineHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle")
            .field("local_addr", &self.local_addr)
            .field("shards", &self.inlets.len())
            .finish_non_exhaustive()
    }
}
