//! A Bitcoin Core on this machine as template source, over its mining interface: Cap'n Proto on a unix socket
//! (`bitcoin-node -ipcbind=unix`, Bitcoin Core 31.0 or newer).
//!
//! [`CoreIpcSource`] owns the connection on a thread of its own, with a runtime of one thread. The node may be missing, loading,
//! hung or gone: that is reported with what to do, and tried again without end. Templates, tips and solutions while it is
//! there are `session.rs`, the calls `connection.rs`.
//!
//! Bounds: `ORDERS_MAX` orders wait for the thread, which never waits for the node to take them; everything the node sends
//! is bounded in size, every call in time. A stop takes `STOP_MAX` and `INTERRUPT_MAX` at most.

mod chain;
mod connection;
mod driver;
mod fault;
mod held;
mod session;
mod submission;
mod template;
mod transactions;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use bitcoin::Network;
use crossbeam::channel::{Receiver, bounded};
use tokio::sync::mpsc::{self, error::TrySendError};

use self::driver::{Order, Start};
use self::submission::{SUBMISSIONS_MAX, Submit, Submitted};
use super::feed::Feed;
use super::store::TemplateStore;
use super::{SourceUpdate, Submission, TemplateSource, TemplateTransactions};

/// Orders that wait for the source's thread.
const ORDERS_MAX: usize = 1_024;
const _: () = assert!(ORDERS_MAX >= super::CLASSES_MAX && ORDERS_MAX <= SUBMISSIONS_MAX);
/// How long a stop waits for answers to what was submitted.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long it then waits for the node to end its wait for a tip.
const INTERRUPT_MAX: Duration = Duration::from_millis(500);

/// How the source is set up.
#[derive(Clone, Debug)]
pub struct CoreIpcConfig {
    /// What the log calls it.
    pub name: String,
    /// The node's socket, for example `~/.bitcoin/regtest/node.sock`.
    pub socket: PathBuf,
    /// The chain that the node must follow. On regtest a node is used although its chain is old, elsewhere once it has
    /// caught up.
    pub network: Network,
    /// The least time between two templates for one tip; 30 s by default. A template costs a job for every miner.
    pub template_interval: Duration,
    /// Fees that a new template for the same tip must add, in satoshis; 1,000 by default.
    pub fee_delta_sat: u64,
    /// How long the node may take for an answer before it counts as hung; 30 s by default.
    pub answer_max: Duration,
}

impl CoreIpcConfig {
    /// The defaults for a node with this socket.
    pub fn new(network: Network, socket: impl Into<PathBuf>) -> Self {
        Self {
            name: format!("core-ipc {network}"),
            socket: socket.into(),
            network,
            template_interval: Duration::from_secs(30),
            fee_delta_sat: 1_000,
            answer_max: Duration::from_secs(30),
        }
    }
}

/// Why the source did not start.
#[derive(Debug)]
pub enum StartError {
    /// The system gives no thread, or no means to wait for sockets.
    System(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::System(error) = self;
        write!(f, "core-ipc: the system gives no thread or no descriptor: {error}")
    }
}

impl std::error::Error for StartError {}

/// A connection to a Bitcoin Core, now or as soon as there is one. Dropping it stops it as
/// [`shutdown`](TemplateSource::shutdown) does.
pub struct CoreIpcSource {
    name: String,
    orders: mpsc::Sender<Order>,
    updates: Receiver<SourceUpdate>,
    store: TemplateStore,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for CoreIpcSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreIpcSource").field("name", &self.name).finish_non_exhaustive()
    }
}

impl CoreIpcSource {
    /// Starts to connect. Whether there is a node is told by reports.
    ///
    /// # Errors
    /// A system without a thread to spare.
    pub fn start(config: CoreIpcConfig) -> Result<Self, StartError> {
        let name = config.name.clone();
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        let (feed, updates) = Feed::new();
        let store = TemplateStore::default();
        let start = Start { config, orders: inbox, feed, store: store.clone() };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_io().enable_time().max_blocking_threads(1);
        let runtime = runtime.thread_name("adit-core-ipc-read").build().map_err(StartError::System)?;
        let thread = std::thread::Builder::new().name("adit-core-ipc".to_owned());
        let thread = thread.spawn(move || start.run(runtime)).map_err(StartError::System)?;
        Ok(Self { name, orders, updates, store, thread: Some(thread) })
    }

    /// Gives the thread an order. It takes them as they come, so that a full queue soon has room.
    fn order(&self, mut order: Order) {
        const STEP: Duration = Duration::from_millis(1);
        loop {
            match self.orders.try_send(order) {
                // A thread that has ended needs no orders; a submission is answered as it is dropped.
                Ok(()) | Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(refused)) => order = refused,
            }
            std::thread::sleep(STEP);
        }
    }

    fn submit_either(&self, what: Submitted) -> Receiver<Submission> {
        let (answer, receiver) = bounded(1);
        self.order(Order::Submit(Submit::new(what, answer)));
        receiver
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.order(Order::Stop);
        if thread.join().is_err() {
            tracing::error!(source = self.name, "the thread of the template source panicked");
        }
    }
}

impl Drop for CoreIpcSource {
    fn drop(&mut self) {
        self.stop();
    }
}

impl TemplateSource for CoreIpcSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        self.order(Order::Want(class, reserve));
    }

    fn unwant(&self, class: ClassId) {
        self.order(Order::Unwant(class));
    }

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        self.submit_either(Submitted::Solution(solution))
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        self.submit_either(Submitted::Block(block))
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.store.find(template_id)
    }

    fn shutdown(mut self: Box<Self>) {
        self.stop();
    }
}
