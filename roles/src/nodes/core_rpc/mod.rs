//! A Bitcoin Core anywhere, over its JSON-RPC: the way to nodes without the mining interface, and to nodes on another
//! machine.
//!
//! [`CoreRpc`] is a [`TemplateSource`] on `getblocktemplate` (BIP22, BIP23) and `submitblock`. A tip is seen by whichever
//! comes first: a long poll, which is always in flight, brings the whole template at once; short polls of the best block's
//! hash bring the tip alone, on which an empty template is mined until the whole one is there, where that is certain to be
//! valid (`template`). Fees are looked for once an interval.
//!
//! Threads: one for templates and tips, and `SUBMITTERS` for blocks, so that no template holds up a block. Bounds:
//! [`SOLUTIONS_MAX`] solutions wait for a thread, then the caller waits; [`CLASSES_MAX`] classes; each call has a time and a
//! length (`client`). A node that is lost is asked again after 100 ms, doubling to 10 s. A stop takes `STOP_MAX` at most,
//! whatever the node does.
//!
//! What a node over the network says is not trusted with more than the work itself: it is bounded, checked, and a wrong
//! template costs what that node would have paid.

mod answers;
mod chain;
mod client;
mod fault;
mod submit;
mod template;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::{Notify, watch as latest};

use self::client::Endpoint;
use self::submit::{Submit, Submitted};
use super::coinbase::BLOCK_WEIGHT_MAX;
use super::feed::Feed;
use super::store::TemplateStore;
use super::{CLASSES_MAX, SourceUpdate, Submission, TemplateSource, TemplateTransactions};

/// Solutions that wait for a thread.
pub const SOLUTIONS_MAX: usize = 1_024;
/// Threads that submit blocks: one more than a node that is slow to check a block holds up.
const SUBMITTERS: usize = 2;
/// How long a stop waits for the answers to blocks that were handed over before it: whoever submitted them has waited, too.
const STOP_MAX: Duration = Duration::from_secs(2);

/// How a node is reached.
#[derive(Clone, Debug)]
pub struct CoreRpcConfig {
    /// What the log calls it.
    pub name: String,
    /// `host:port` of its JSON-RPC.
    pub address: String,
    /// Who asks.
    pub auth: CoreRpcAuth,
    /// The chain that it must be on, as Bitcoin Core calls it: `main`, `testnet4`, `signet` or `regtest`.
    pub chain: String,
    /// How often it is asked for its tip beside the long poll.
    pub poll_interval: Duration,
    /// How often it is asked for a template that pays more.
    pub template_interval: Duration,
    /// Fees that a new template for the same tip must add, in satoshis.
    pub fee_delta_sat: u64,
}

/// What a node knows its users by.
#[derive(Clone)]
pub enum CoreRpcAuth {
    /// The file with user and password that Bitcoin Core writes at each start.
    Cookie(PathBuf),
    /// What an `rpcauth` line of its configuration was made for.
    Password {
        /// The user, without a colon.
        user: String,
        /// The password.
        password: String,
    },
}

impl fmt::Debug for CoreRpcAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).finish_non_exhaustive()
            }
        }
    }
}

/// Why a source did not start. A node that is away is no reason: it is reported as down, and asked again.
#[derive(Debug)]
pub enum StartError {
    /// The system gives no thread, or no descriptors for its events.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "core-rpc: cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Which classes are wanted. A class that is wanted anew has another number than before.
#[derive(Debug, Default)]
struct Wanted {
    classes: BTreeMap<ClassId, (u64, Reserve)>,
    wishes: u64,
    /// Answers to give; at most [`CLASSES_MAX`].
    refused: Vec<(ClassId, String)>,
}

/// What the threads and the source's users share.
#[derive(Debug)]
struct Shared {
    wanted: Mutex<Wanted>,
    /// The wishes have changed.
    wishes_changed: Notify,
    /// A block of ours was accepted: there is a new tip.
    tip_changed: Notify,
    /// Once the source is to end: until when answers are waited for.
    stopped: latest::Sender<Option<Instant>>,
    store: TemplateStore,
}

impl Shared {
    fn new() -> Self {
        Self {
            wanted: Mutex::default(),
            wishes_changed: Notify::new(),
            tip_changed: Notify::new(),
            stopped: latest::Sender::new(None),
            store: TemplateStore::default(),
        }
    }

    /// Until when answers are waited for; none before the source is to end.
    async fn stopped(&self) -> Instant {
        let mut stopped = self.stopped.subscribe();
        let until = stopped.wait_for(Option::is_some).await.expect("its sender is borrowed");
        until.expect("it was waited for")
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        // Every change is whole before the next.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        let mut wanted = self.wanted();
        let is_new = match wanted.classes.get(&class) {
            Some((_, present)) if *present == reserve => return,
            Some(_) => false,
            None => true,
        };
        let Reserve { reserved_weight, .. } = reserve;
        let refusal = if reserved_weight > BLOCK_WEIGHT_MAX {
            Some(format!(
                "a reserve of {reserved_weight} weight units is more than a block has: ask for smaller coinbase outputs"
            ))
        } else if is_new && wanted.classes.len() >= CLASSES_MAX {
            Some(format!("{CLASSES_MAX} classes of reserve are served already"))
        } else {
            None
        };
        match refusal {
            Some(reason) => {
                wanted.classes.remove(&class);
                if wanted.refused.len() < CLASSES_MAX {
                    wanted.refused.push((class, reason));
                }
            }
            None => {
                wanted.wishes += 1;
                let wish = wanted.wishes;
                wanted.classes.insert(class, (wish, reserve));
            }
        }
        drop(wanted);
        self.wishes_changed.notify_one();
    }
}

/// A Bitcoin Core over JSON-RPC. Dropping it ends it as [`shutdown`](TemplateSource::shutdown) does.
pub struct CoreRpc {
    name: String,
    shared: Arc<Shared>,
    updates: Receiver<SourceUpdate>,
    /// Present until the end.
    submits: Option<Sender<Submit>>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for CoreRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreRpc").field("name", &self.name).finish_non_exhaustive()
    }
}

impl CoreRpc {
    /// Starts to ask the node, whether it is there or not.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(config: CoreRpcConfig) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new());
        let endpoint = Arc::new(Endpoint { address: config.address.clone(), auth: config.auth.clone() });
        let (feed, updates) = Feed::new();
        let (submits, queue) = bounded(SOLUTIONS_MAX);
        let name = config.name.clone();
        // From here on a failure drops the source, which ends what was started.
        let mut source =
            Self { name, shared: Arc::clone(&shared), updates, submits: Some(submits), threads: Vec::new() };
        for _ in 0..SUBMITTERS {
            let (endpoint, shared, queue) = (Arc::clone(&endpoint), Arc::clone(&shared), queue.clone());
            source
                .spawn("core-rpc-block", move |runtime| submit::serve(runtime, &endpoint, &shared, &queue))?;
        }
        let watch = watch::Watch::new(config, endpoint, Arc::clone(&shared), feed);
        source.spawn("core-rpc", move |runtime| {
            runtime.block_on(async {
                tokio::select! {
                    _ = shared.stopped() => {}
                    never = watch.run() => match never {},
                }
            });
        })?;
        Ok(source)
    }

    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce(&tokio::runtime::Runtime) + Send + 'static,
    ) -> Result<(), StartError> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        // Names are resolved on a thread beside.
        let runtime = runtime.enable_all().max_blocking_threads(1).build().map_err(StartError::Thread)?;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            run(&runtime);
            // A name that is being resolved keeps a thread of the runtime: it is not waited for.
            runtime.shutdown_background();
        });
        self.threads.push(thread.map_err(StartError::Thread)?);
        Ok(())
    }

    fn enqueue(&self, what: Submitted) -> Receiver<Submission> {
        let (answer, receiver) = bounded(1);
        if let Some(submits) = &self.submits {
            // The threads outlive the queue.
            let _ = submits.send(Submit { what, answer });
        }
        receiver
    }

    fn stop(&mut self) {
        self.submits = None;
        self.shared.stopped.send_replace(Some(Instant::now() + STOP_MAX));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(source = %self.name, "a thread of the template source panicked");
            }
        }
    }
}

impl Drop for CoreRpc {
    fn drop(&mut self) {
        self.stop();
    }
}

impl TemplateSource for CoreRpc {
    fn name(&self) -> &str {
        &self.name
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        self.shared.want(class, reserve);
    }

    fn unwant(&self, class: ClassId) {
        self.shared.wanted().classes.remove(&class);
        self.shared.wishes_changed.notify_one();
    }

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        self.enqueue(Submitted::Solution(solution))
    }

    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        self.enqueue(Submitted::Block(block))
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.shared.store.find(template_id)
    }

    fn shutdown(mut self: Box<Self>) {
        self.stop();
    }
}
