//! The source's thread: connects, runs a session while the node is there, and waits to connect again.
//!
//! Owns what outlives a connection: the wanted classes, the stream of reports, template ids, the transactions of templates.
//! Orders are taken at all times; what is submitted while there is no node is answered as failed. A reason for being down is
//! reported when it changes. Bounds: pauses between attempts double from [`PAUSE_MIN`] to [`PAUSE_MAX`], and begin anew once a
//! connection has held for longer than that: a node that comes and goes shall not give every miner new work each time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use bitcoin::Network;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::CoreIpcConfig;
use super::chain::Chain;
use super::connection::{Connection, Tip};
use super::fault::Fault;
use super::session::{Ended, Session};
use super::submission::Submit;
use super::transactions::SharedTransactions;
use crate::nodes::coinbase::BLOCK_WEIGHT_MAX;
use crate::nodes::feed::Feed;
use crate::nodes::pause::Pause;
use crate::nodes::store::TemplateStore;
use crate::nodes::{CLASSES_MAX, SourceUpdate, Submission, TemplateIds};

/// The pause after the first attempt that fails.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a node that has not caught up is asked again.
const CATCH_UP_POLL: Duration = Duration::from_secs(1);
/// How soon a reader who was behind is offered reports again.
pub(super) const FEED_RETRY: Duration = Duration::from_millis(10);
/// Weight units that Bitcoin Core reserves at least.
const RESERVED_WEIGHT_MIN: u64 = 2_000;

/// What the source's thread is told.
#[derive(Debug)]
pub(super) enum Order {
    Want(ClassId, Reserve),
    Unwant(ClassId),
    Submit(Submit),
    Stop,
}

/// The source is to end.
pub(super) struct Stopped;

/// What a driver begins with. The rest is made on its thread, which it does not leave.
pub(super) struct Start {
    pub(super) config: CoreIpcConfig,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) feed: Feed,
    pub(super) store: TemplateStore,
}

impl Start {
    /// Runs the source on this thread until it is stopped.
    pub(super) fn run(self, runtime: Runtime) {
        LocalSet::new().block_on(&runtime, Driver::new(self).serve());
        // A block that is being taken apart may be dropped.
        runtime.shutdown_background();
    }
}

/// See the module.
pub(super) struct Driver {
    pub(super) config: CoreIpcConfig,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) feed: Feed,
    pub(super) store: TemplateStore,
    pub(super) ids: TemplateIds,
    pub(super) classes: BTreeMap<ClassId, Reserve>,
    pub(super) chain: Rc<RefCell<Chain>>,
    pub(super) transactions: Arc<Mutex<SharedTransactions>>,
    /// How long the node took for the last template with transactions.
    pub(super) full_took: Option<Duration>,
    /// Why there are no templates; none while the node can be used.
    down: Option<String>,
}

impl Driver {
    fn new(start: Start) -> Self {
        let Start { config, orders, feed, store } = start;
        Self {
            config,
            orders,
            feed,
            store,
            ids: TemplateIds::default(),
            classes: BTreeMap::new(),
            chain: Rc::default(),
            transactions: Arc::default(),
            full_took: None,
            down: Some("not connected yet".to_owned()),
        }
    }

    /// Runs until it is stopped.
    async fn serve(mut self) {
        let mut pause = Pause::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            let begun = Instant::now();
            match self.connect_and_serve().await {
                Ended::Stopped => return,
                Ended::Lost(fault) => {
                    if self.down.is_none() && begun.elapsed() > PAUSE_MAX {
                        pause.reset();
                    }
                    let socket = self.config.socket.display().to_string();
                    self.report_down(format!("{socket}: {fault}"));
                }
            }
            if self.meanwhile(sleep(pause.next_pause())).await.is_err() {
                return;
            }
        }
    }

    async fn connect_and_serve(&mut self) -> Ended {
        match self.connect().await {
            Ok(Some((connection, tip))) => {
                let has_submit_block = connection.has_submit_block();
                tracing::info!(
                    source = self.config.name,
                    height = tip.height,
                    has_submit_block,
                    "connected to Bitcoin Core"
                );
                if !has_submit_block {
                    tracing::warn!(
                        source = self.config.name,
                        "this Bitcoin Core takes no whole blocks over IPC: a block whose template it has forgotten, also by a \
                         restart, must be given to it by `bitcoin-cli submitblock`; newer ones than 31.0 take them"
                    );
                }
                self.report_up();
                Session::new(self, connection, tip).serve().await
            }
            Ok(None) => Ended::Stopped,
            Err(fault) => Ended::Lost(fault),
        }
    }

    /// A connection to a node that can be used, and its tip; none if the source was stopped meanwhile.
    async fn connect(&mut self) -> Result<Option<(Connection, Tip)>, Fault> {
        let (socket, answer_max) = (self.config.socket.clone(), self.config.answer_max);
        let Ok(connection) = self.meanwhile(Connection::open(&socket, answer_max)).await else {
            return Ok(None);
        };
        let connection = connection?;
        let Ok(is_test_chain) = self.meanwhile(connection.is_test_chain()).await else { return Ok(None) };
        match (self.config.network, is_test_chain?) {
            (Network::Bitcoin, true) => return Err(Fault::Chain { expected: "the main one" }),
            (Network::Bitcoin, false) | (_, true) => {}
            (_, false) => return Err(Fault::Chain { expected: "one for tests" }),
        }
        loop {
            let Ok(tip) = self.meanwhile(connection.tip()).await else { return Ok(None) };
            let tip = tip?;
            let is_behind = match self.config.network {
                // A private chain is as old as its last block, and caught up all the same.
                Network::Regtest => false,
                _ => {
                    let asked = self.meanwhile(connection.is_initial_block_download()).await;
                    let Ok(is_behind) = asked else { return Ok(None) };
                    is_behind?
                }
            };
            match tip {
                Some(tip) if !is_behind => return Ok(Some((connection, tip))),
                Some(_) => self.report_down(
                    "the node is still in initial block download; templates follow when it has caught up (a private signet \
                     whose last block is a day old needs `-maxtipage`)"
                        .to_owned(),
                ),
                None => self.report_down("the node is still loading its chain; templates follow".to_owned()),
            }
            if self.meanwhile(sleep(CATCH_UP_POLL)).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Takes orders while something else is waited for.
    async fn meanwhile<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Stopped> {
        let mut awaited = pin!(awaited);
        loop {
            let is_blocked = self.feed.is_blocked();
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Stop) | None => return Err(Stopped),
                    Some(Order::Submit(submit)) => {
                        let reason = self.down.clone().unwrap_or_else(|| "the node is away".to_owned());
                        submit.answer(Submission::Failed { reason });
                    }
                    Some(Order::Want(class, reserve)) => self.want(class, reserve),
                    Some(Order::Unwant(class)) => {
                        self.classes.remove(&class);
                        self.store.unwant(class);
                    }
                },
                done = &mut awaited => return Ok(done),
                () = sleep(FEED_RETRY), if is_blocked => self.feed.flush(),
            }
        }
    }

    /// Notes a class, within the bounds of a block.
    pub(super) fn want(&mut self, class: ClassId, mut reserve: Reserve) {
        let reason = if reserve.reserved_weight > BLOCK_WEIGHT_MAX {
            let weight = reserve.reserved_weight;
            format!("{weight} weight units for the coinbase are more than a block has; ask for less")
        } else if self.classes.len() >= CLASSES_MAX && !self.classes.contains_key(&class) {
            format!("{CLASSES_MAX} sizes of coinbases are served already; use one of them")
        } else {
            reserve.reserved_weight = reserve.reserved_weight.max(RESERVED_WEIGHT_MIN);
            self.classes.insert(class, reserve);
            return;
        };
        self.classes.remove(&class);
        self.feed.report(SourceUpdate::Refused { class, reason });
    }

    fn report_up(&mut self) {
        self.down = None;
        self.feed.report(SourceUpdate::Up);
    }

    /// Reports a reason that is new.
    fn report_down(&mut self, reason: String) {
        if self.down.as_ref() != Some(&reason) {
            self.feed.report(SourceUpdate::Down { reason: reason.clone() });
            self.down = Some(reason);
        }
    }
}
