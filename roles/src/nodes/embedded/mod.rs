//! An embedded node: Bitcoin Core's own validation on a private chain in this process.
//!
//! [`EmbeddedNode`] is a [`TemplateSource`] on a regtest or a private signet of one's own. The library
//! (`bitcoinkernel`) validates blocks and keeps the chain; this module adds what it lacks: an index of unspent outputs, a
//! mempool, templates, and, if configured, Bitcoin Core's JSON-RPC. There is no network: the chain consists of the blocks
//! submitted here.
//!
//! Threads: the node's own, which owns all state, and one for JSON-RPC. Bounds: [`SOLUTIONS_MAX`] solutions and
//! [`COMMANDS_MAX`] commands wait for the node's thread; then the caller waits, so that nothing is dropped. Files: the
//! chain lies in `DATA_DIR/regtest` or `DATA_DIR/signet` and belongs to one process at a time; the mempool is not kept
//! across restarts.

mod admission;
mod coins;
mod kernel;
mod mempool;
mod node;
mod rpc;
mod rules;
mod selection;
mod template;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use bitcoin::Txid;
use crossbeam::channel::{Receiver, Sender, bounded};

use self::node::{Command, Node, Submit, Submitted};
use self::rpc::RpcServer;
use super::feed::Feed;
use super::store::TemplateStore;
use super::{SourceUpdate, Submission, TemplateSource, TemplateTransactions};

pub use admission::TransactionRefusal;
pub use mempool::MempoolLimits;
pub use rpc::{RpcAuth, RpcConfig};
pub use rules::Chain;

/// Solutions that wait for the node's thread.
pub const SOLUTIONS_MAX: usize = 1_024;
/// Other commands that wait for it.
pub const COMMANDS_MAX: usize = 64;

/// How an embedded node is set up.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// What the log calls it; `embedded` and the chain by default.
    pub name: Option<String>,
    /// Which chain.
    pub chain: Chain,
    /// Where the chain is kept; without it, in a temporary directory that goes with the node.
    pub data_dir: Option<PathBuf>,
    /// Bounds of the mempool.
    pub mempool: MempoolLimits,
    /// The least time between two templates for one tip; 1 s by default. A template costs a job for every miner.
    pub template_interval: Duration,
    /// Fees that a new template for the same tip must add, in satoshis; 1,000 by default.
    pub fee_delta_sat: u64,
    /// Whether the empty template of the height after the next block is announced in advance, so that a new tip takes
    /// nothing but its `SetNewPrevHash`. Costs another job for each tip; off by default.
    pub prepare_next: bool,
    /// Bitcoin Core's JSON-RPC; off by default.
    pub rpc: Option<RpcConfig>,
}

impl EmbeddedConfig {
    /// The defaults on `chain`, in a temporary directory, without JSON-RPC.
    pub fn new(chain: Chain) -> Self {
        Self {
            name: None,
            chain,
            data_dir: None,
            mempool: MempoolLimits::default(),
            template_interval: Duration::from_secs(1),
            fee_delta_sat: 1_000,
            prepare_next: false,
            rpc: None,
        }
    }
}

/// Why an embedded node did not start.
#[derive(Debug)]
pub enum StartError {
    /// The directory cannot be used.
    Directory(PathBuf, std::io::Error),
    /// Bitcoin Core does not open the chain; its words.
    Chain(String),
    /// The system gives no thread.
    Thread(std::io::Error),
    /// JSON-RPC cannot listen on the address.
    Rpc(SocketAddr, std::io::Error),
    /// JSON-RPC would listen beyond this machine without a password.
    RpcOpen(SocketAddr),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path, error) => {
                write!(f, "embedded node: cannot use the directory {}: {error}", path.display())
            }
            Self::Chain(reason) => write!(f, "embedded node: {reason}"),
            Self::Thread(error) => write!(f, "embedded node: cannot start a thread: {error}"),
            Self::Rpc(address, error) => {
                write!(f, "embedded node: JSON-RPC cannot listen on {address}: {error}")
            }
            Self::RpcOpen(address) => {
                write!(
                    f,
                    "embedded node: JSON-RPC on {address} needs a user and a password, or a loopback address"
                )
            }
        }
    }
}

impl std::error::Error for StartError {}

/// A caller's bounds on a transaction, against slips: what Bitcoin Core's `sendrawtransaction` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionBounds {
    /// Satoshis per 1,000 virtual bytes; none for no bound.
    pub fee_rate_max: Option<u64>,
    /// Satoshis in outputs that can never be spent.
    pub burn_max_sat: u64,
}

impl Default for TransactionBounds {
    /// Bitcoin Core's defaults: 0.10 BTC/kvB, and nothing burnt.
    fn default() -> Self {
        Self { fee_rate_max: Some(10_000_000), burn_max_sat: 0 }
    }
}

/// The way to a node's thread; cheap to clone.
#[derive(Clone)]
struct NodeLink {
    solutions: Sender<Submit>,
    commands: Sender<Command>,
}

impl NodeLink {
    fn submit(&self, what: Submitted) -> Receiver<Submission> {
        let (answer, receiver) = bounded(1);
        if let Err(refused) = self.solutions.send(Submit { what, answer }) {
            let reason = "the embedded node has stopped".to_owned();
            // The channel has room for its only message.
            let _ = refused.0.answer.send(Submission::Failed { reason });
        }
        receiver
    }

    /// Runs `ask` on the node's thread; none if the node has stopped.
    fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&mut Node) -> T + Send + 'static) -> Option<T> {
        let (answer, receiver) = bounded(1);
        let run = Box::new(move |node: &mut Node| {
            let _ = answer.send(ask(node));
        });
        self.commands.send(Command::Run(run)).ok()?;
        receiver.recv().ok()
    }

    fn submit_transaction(&self, raw: &[u8], bounds: TransactionBounds) -> Result<Txid, TransactionRefusal> {
        let transaction = admission::decode(raw)?;
        let txid = transaction.compute_txid();
        admission::check_burn(&transaction, bounds.burn_max_sat)?;
        let checked = self
            .ask(move |node| match node.mempool.entry(&txid) {
                Some(_) => Ok(None),
                None => node.check(transaction).map(Some),
            })
            .ok_or(TransactionRefusal::Down)??;
        let Some(checked) = checked else { return Ok(txid) };
        admission::check_fee_rate(&checked, bounds.fee_rate_max)?;
        admission::verify_scripts(&checked)?;
        let raw: Arc<[u8]> = raw.into();
        self.ask(move |node| node.admit(checked, raw)).ok_or(TransactionRefusal::Down)??;
        Ok(txid)
    }
}

/// A running embedded node. Dropping it stops it as [`shutdown`](TemplateSource::shutdown) does.
pub struct EmbeddedNode {
    name: String,
    link: NodeLink,
    store: TemplateStore,
    updates: Receiver<SourceUpdate>,
    // Ends before the node's thread, which its calls wait for.
    rpc: Option<RpcServer>,
    thread: Option<JoinHandle<()>>,
    // Goes after the thread that uses it.
    _temporary: Option<tempfile::TempDir>,
}

impl fmt::Debug for EmbeddedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedNode").field("name", &self.name).finish_non_exhaustive()
    }
}

impl EmbeddedNode {
    /// Opens or creates the chain, reads it, and starts to serve. On a long chain this takes seconds, with lines of
    /// progress in the log.
    ///
    /// # Errors
    /// A directory that cannot be used, also because another process uses it; a chain that Bitcoin Core does not open; an
    /// address that cannot be listened on.
    pub fn start(config: EmbeddedConfig) -> Result<Self, StartError> {
        let (directory, temporary) = match &config.data_dir {
            Some(directory) => (directory.clone(), None),
            None => {
                let temporary = tempfile::Builder::new().prefix("adit-").tempdir();
                let temporary =
                    temporary.map_err(|error| StartError::Directory(std::env::temp_dir(), error))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let directory = directory.join(config.chain.name());
        std::fs::create_dir_all(&directory)
            .map_err(|error| StartError::Directory(directory.clone(), error))?;
        let name = config.name.clone().unwrap_or_else(|| format!("embedded {}", config.chain.name()));
        let rpc = config.rpc.clone();
        let (feed, updates) = Feed::new();
        let store = TemplateStore::default();
        let node = Node::open(config, &directory, store.clone(), feed)
            .map_err(|kernel::KernelFault(reason)| StartError::Chain(reason))?;
        let (solutions, submits) = bounded(SOLUTIONS_MAX);
        let (commands, orders) = bounded(COMMANDS_MAX);
        let thread = std::thread::Builder::new().name("node".to_owned());
        let thread = thread.spawn(move || node.run(&submits, &orders)).map_err(StartError::Thread)?;
        let link = NodeLink { solutions, commands };
        let mut this =
            Self { name, link, store, updates, rpc: None, thread: Some(thread), _temporary: temporary };
        this.rpc = rpc.map(|rpc| RpcServer::start(&rpc, this.link.clone())).transpose()?;
        Ok(this)
    }

    /// Offers a serialised transaction to the mempool; scripts are checked on the caller's thread. One that waits already
    /// is taken again.
    ///
    /// # Errors
    /// Bitcoin Core's code and reason.
    pub fn submit_transaction(
        &self,
        raw: &[u8],
        bounds: TransactionBounds,
    ) -> Result<Txid, TransactionRefusal> {
        self.link.submit_transaction(raw, bounds)
    }

    /// Where JSON-RPC listens, if it does.
    pub fn rpc_address(&self) -> Option<SocketAddr> {
        self.rpc.as_ref().map(|rpc| rpc.address)
    }

    fn stop(&mut self) {
        self.rpc = None;
        let Some(thread) = self.thread.take() else { return };
        // A thread that has ended takes no command.
        let _ = self.link.commands.send(Command::Stop);
        if thread.join().is_err() {
            tracing::error!("the embedded node's thread panicked");
        }
    }
}

impl Drop for EmbeddedNode {
    fn drop(&mut self) {
        self.stop();
    }
}

impl TemplateSource for EmbeddedNode {
    fn name(&self) -> &str {
        &self.name
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        // A node that has stopped has said so.
        let _ = self.link.commands.send(Command::Run(Box::new(move |node| node.want(class, reserve))));
    }

    fn unwant(&self, class: ClassId) {
        let _ = self.link.commands.send(Command::Run(Box::new(move |node| node.unwant(class))));
    }

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        self.link.submit(Submitted::Solution(solution))
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        self.link.submit(Submitted::Block(block))
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.store.find(template_id)
    }

    fn shutdown(mut self: Box<Self>) {
        self.stop();
    }
}
