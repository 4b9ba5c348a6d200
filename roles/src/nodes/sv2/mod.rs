//! Templates from a server of the Template Distribution Protocol (specification chapter 7): `sv2-tp`, or `adit tp` in
//! another process or on another machine.
//!
//! [`Sv2Source`] holds one connection for each class of reserve, because a connection has one CoinbaseOutputConstraints; a
//! pool has one class. All connections live on one control thread with a current-thread runtime, so that none blocks
//! another, nor the end of the program. `connection` makes them and makes them again, `provider` is what is known of the
//! server, `solutions` finds out what became of blocks, which the protocol does not say, `transactions` keeps what makes
//! blocks whole without the server. Those are judged on a thread of their own (`checker`), which yields to every other.
//!
//! The server proves by its certificate that the pinned authority key vouches for it; without a key whoever answers is
//! believed. What it sends is bounded in size, rate and time at every step, and judged before it is used; each fault is a
//! [`SourceUpdate::Down`] that says what to do, and another try follows.
//!
//! Bounds: [`REQUESTS_MAX`] solutions and other requests wait for the thread, then their caller does; the modules have theirs.

mod checker;
mod connection;
mod dial;
mod lost;
mod provider;
mod serialized;
mod solutions;
mod templates;
#[cfg(test)]
mod tests;
pub mod transactions;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthorityPublicKey;
use adit_proto::distribution::client::{Client, ClientConfig, ClientLimits};
use adit_proto::distribution::server::ClassId;
use adit_proto::distribution::{Constraints, Reserve};
use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, LocalSet};

use self::checker::Checked;
use self::connection::{Connection, Report, Target, What, pass};
use self::provider::{Provider, Wanted};
use self::transactions::{Keeper, Store};
use super::feed::Feed;
use super::{FUTURES_MAX, SourceUpdate, Submission, TemplateSource, TemplateTransactions};

/// Requests that wait for the source's thread.
pub const REQUESTS_MAX: usize = 1_024;
/// Reports of the connections that wait for it.
const REPORTS_MAX: usize = 64;
/// How long connections may take to send what waits when the source ends.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// Pause before reports that their reader did not take are offered again.
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// Where a template provider is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sv2Config {
    /// What the log calls the source; `sv2` and the address by default.
    pub name: Option<String>,
    /// Host name or IP address, IPv6 without brackets. A name is resolved anew for each connection.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The key that must vouch for the server; without it whoever answers is believed.
    pub authority: Option<AuthorityPublicKey>,
    /// How long the server may take to give a template's transactions before it counts as hung; 30 s by default.
    pub answer_max: Duration,
}

impl Sv2Config {
    /// The defaults for a server there, whoever it is.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { name: None, host: host.into(), port, authority: None, answer_max: Duration::from_secs(30) }
    }
}

/// Why a source did not start. A provider that cannot be reached is no reason: it is reported and tried again.
#[derive(Debug)]
pub enum StartError {
    /// The host's name is longer than a message can carry.
    Host(String),
    /// The system gives no thread, or no descriptors for it.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(wrong) => write!(f, "sv2 template source: {wrong}; shorten the host in the url"),
            Self::Thread(error) => write!(f, "sv2 template source: cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What the source's thread is asked for.
enum Request {
    Want(ClassId, Reserve),
    Unwant(ClassId),
    Submit(Arc<Solution>, Sender<Submission>),
    SubmitBlock(Arc<[u8]>, Sender<Submission>),
    Stop,
}

/// Templates from another server. Dropping it ends it as [`shutdown`](TemplateSource::shutdown) does.
pub struct Sv2Source {
    name: String,
    requests: Sender<Request>,
    /// Wakes the thread for a request.
    wake: Arc<Notify>,
    store: Store,
    updates: Receiver<SourceUpdate>,
    /// The one that speaks to the provider, then the one that checks transactions, which ends with it.
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Sv2Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sv2Source").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sv2Source {
    /// Starts the source's thread. It connects when the first class is wanted.
    ///
    /// # Errors
    /// A host's name that no message can carry, or no thread.
    pub fn start(config: Sv2Config) -> Result<Self, StartError> {
        let Sv2Config { name, host, port, authority, answer_max } = config;
        let name = name.unwrap_or_else(|| match host.contains(':') {
            true => format!("sv2 [{host}]:{port}"),
            false => format!("sv2 {host}:{port}"),
        });
        let client = ClientConfig {
            endpoint_host: host.as_bytes().to_vec(),
            endpoint_port: port,
            vendor: b"adit".to_vec(),
            hardware_version: Vec::new(),
            firmware: env!("CARGO_PKG_VERSION").as_bytes().to_vec(),
            device_id: Vec::new(),
            constraints: Constraints::default(),
            limits: ClientLimits {
                future_templates_max: FUTURES_MAX,
                request_timeout: answer_max,
                ..ClientLimits::default()
            },
        };
        // Whether messages can carry it.
        Client::new(client.clone()).map_err(|error| StartError::Host(error.to_string()))?;
        let target = Target { host, port, authority, client };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (requests, inbox) = bounded(REQUESTS_MAX);
        let (feed, updates) = Feed::new();
        let (wake, store) = (Arc::new(Notify::new()), Store::default());
        let (checks, jobs) = bounded(checker::JOBS_MAX);
        let (done, checked) = mpsc::channel(checker::JOBS_MAX);
        let (provider, woken) = (Provider::new(store.clone(), checks, feed), Arc::clone(&wake));
        let mut this = Self { name, requests, wake, store, updates, threads: Vec::new() };
        let thread = std::thread::Builder::new().name("adit-sv2".to_owned());
        let thread = thread.spawn(move || {
            let (reports, inbound) = mpsc::channel(REPORTS_MAX);
            let tasks = Tasks { target, links: Rc::default(), reports, running: JoinSet::new() };
            LocalSet::new().block_on(&runtime, run(provider, tasks, (inbound, checked), &inbox, &woken));
            // A name that is being resolved keeps a thread of the runtime: it is not waited for.
            runtime.shutdown_background();
        });
        this.threads.push(thread.map_err(StartError::Thread)?);
        let keeper = Keeper::new(this.store.clone());
        let thread = std::thread::Builder::new().name("adit-sv2-checker".to_owned());
        let thread = thread.spawn(move || checker::run(keeper, &jobs, &done));
        this.threads.push(thread.map_err(StartError::Thread)?);
        Ok(this)
    }

    fn request(&self, request: Request) {
        if let Err(refused) = self.requests.send(request)
            && let Request::Submit(_, answer) | Request::SubmitBlock(_, answer) = refused.0
        {
            let reason = "the template source has ended".to_owned();
            // The channel has room for its only message.
            let _ = answer.send(Submission::Failed { reason });
        }
        self.wake.notify_one();
    }

    fn stop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        self.request(Request::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(source = self.name, "a thread of the template source panicked");
            }
        }
    }
}

impl Drop for Sv2Source {
    fn drop(&mut self) {
        self.stop();
    }
}

impl TemplateSource for Sv2Source {
    fn name(&self) -> &str {
        &self.name
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        self.request(Request::Want(class, reserve));
    }

    fn unwant(&self, class: ClassId) {
        self.request(Request::Unwant(class));
    }

    /// What became of a solution is seen in the provider's tips, since the protocol does not say it: a tip that is the block,
    /// or another of its height, is an outcome. Without either in time it is [`Submission::Unconfirmed`]; without a
    /// connection [`Submission::Failed`], and the solution goes out when there is one again. Whoever asks again gets the
    /// outcome as soon as it is known.
    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        let (answer, receiver) = bounded(1);
        self.request(Request::Submit(solution, answer));
        receiver
    }

    /// The protocol carries no blocks. One that was made of a template of this provider, also of one that was announced again
    /// since, goes out as its solution; others are [`Submission::NotTaken`], for another source.
    fn submit_block(&self, block: Arc<[u8]>) -> Receiver<Submission> {
        let (answer, receiver) = bounded(1);
        self.request(Request::SubmitBlock(block, answer));
        receiver
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.store.find(template_id)
    }

    fn shutdown(mut self: Box<Self>) {
        self.stop();
    }
}

/// The connections' tasks.
struct Tasks {
    target: Target,
    links: Rc<Cell<u64>>,
    reports: mpsc::Sender<Report>,
    running: JoinSet<()>,
}

impl Tasks {
    fn start(&mut self, wanted: Wanted) {
        let connection = Connection::new(wanted, &self.target, Rc::clone(&self.links), self.reports.clone());
        self.running.spawn_local(connection.run());
    }
}

/// Serves requests and reports until the source is to end.
async fn run(
    mut provider: Provider,
    mut tasks: Tasks,
    (mut reports, mut checked): (mpsc::Receiver<Report>, mpsc::Receiver<Checked>),
    requests: &Receiver<Request>,
    wake: &Notify,
) {
    while serve_requests(&mut provider, &mut tasks, requests) {
        let flush = provider.is_blocked().then(|| Instant::now() + FLUSH_PAUSE);
        tokio::select! {
            // A solution goes before what came.
            biased;
            () = wake.notified() => {}
            Some(report) = reports.recv() => {
                let is_work = matches!(report.what, What::Template(_));
                provider.handle_report(report, Instant::now());
                if is_work && reports.is_empty() {
                    // Whoever brings it to the shards may be waiting for this very CPU; what is left to do here can wait.
                    std::thread::yield_now();
                }
            }
            Some(checked) = checked.recv() => provider.handle_checked(checked),
            () = pass(provider.poll_timeout(), flush) => {
                provider.flush();
                provider.handle_timeout(Instant::now());
            }
            Some(ended) = tasks.running.join_next() => {
                if ended.is_err() {
                    tracing::error!("a connection to the template provider panicked: its class gets no templates any more");
                }
            }
        }
    }
    // Without their queues of orders the connections end, once they have sent what is in them.
    provider.finish();
    drop((reports, checked));
    let ended = async { while tasks.running.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
        tracing::warn!("the template provider takes no bytes: what was to be sent is not");
    }
}

/// Serves the requests that wait; false once the source is to end.
fn serve_requests(provider: &mut Provider, tasks: &mut Tasks, requests: &Receiver<Request>) -> bool {
    // As many as can wait: more come with the next wake.
    for request in requests.try_iter().take(REQUESTS_MAX) {
        match request {
            Request::Want(class, reserve) => {
                if let Some(wanted) = provider.want(class, reserve) {
                    tasks.start(wanted);
                }
            }
            Request::Unwant(class) => provider.unwant(class),
            Request::Submit(solution, answer) => provider.submit(&solution, answer, Instant::now()),
            Request::SubmitBlock(block, answer) => provider.submit_block(&block, answer, Instant::now()),
            Request::Stop => return false,
        }
    }
    true
}
