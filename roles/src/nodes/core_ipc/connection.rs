//! One connection to a Bitcoin Core's mining interface: its calls as async functions.
//!
//! Bounds: every call has a longest time, after which the connection is given up; a message has at most
//! [`MESSAGE_LEN_MAX`] bytes; the node gives us five threads ([`Lane`]), and no call of ours runs beside another on the same
//! one, which older nodes cannot bear. A call is never cancelled while the connection lasts: the node would go on with it.
//!
//! The schema is that of the Bitcoin Core after 31, which contains those of 31.0 and 31.99. What a node lacks it answers
//! as unimplemented: submitBlock is asked for when connecting, submitSolution has a new number that is tried where the old
//! one is refused. Bitcoin Core 30 has other numbers throughout and is refused with a clear reason.

use std::cell::Cell;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use adit_hasher::{Digest, HeaderBytes};
use adit_proto::distribution::Reserve;
use bitcoin_capnp_types::capnp::{self, message::ReaderOptions};
use bitcoin_capnp_types::capnp_rpc::{RpcSystem, rpc_twoparty_capnp::Side, twoparty::VatNetwork};
use bitcoin_capnp_types::init_capnp::init;
use bitcoin_capnp_types::mining_capnp::{block_template, mining};
use bitcoin_capnp_types::proxy_capnp::{context, thread, thread_map};
use tokio::io::{BufReader, BufWriter};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use super::fault::Fault;
use super::template::{CoinbaseFields, HeaderFields, NodeTemplate};

/// Bytes of a message from the node: twice the largest block.
const MESSAGE_LEN_MAX: usize = 8 << 20;
/// How long a node may load its chain before it answers to its first call.
const LOADING_MAX: Duration = Duration::from_secs(60);
/// Validating a block and writing it to a slow disk takes its time.
const SUBMISSION_MAX: Duration = Duration::from_secs(60);

/// Height and hash of the best chain's last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) height: u32,
    pub(super) hash: Digest,
}

/// What the node says about a block or a solution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Processed, or valid: as the method has it.
    pub(super) is_good: bool,
    /// BIP22's reason and more, empty where the node gives none.
    pub(super) reason: String,
}

/// A thread of the node's that runs our calls one after the other.
struct Lane {
    thread: thread::Client,
    turn: Mutex<()>,
}

impl Lane {
    /// Waits for the call before, and names the thread in the new one's context.
    async fn enter(
        &self,
        context: capnp::Result<context::Builder<'_>>,
        call: &'static str,
    ) -> Result<MutexGuard<'_, ()>, Fault> {
        let turn = self.turn.lock().await;
        context.map_err(|error| Fault::of(call, error))?.set_thread(self.thread.clone());
        Ok(turn)
    }
}

/// See the module.
pub(super) struct Connection {
    mining: mining::Client,
    /// Waits for tips.
    tip: Lane,
    /// Makes empty templates, and answers what is asked in between.
    quick: Lane,
    /// Makes templates with transactions.
    full: Lane,
    /// Reads and destroys templates.
    read: Lane,
    /// Takes solutions and blocks.
    submit: Lane,
    answer_max: Duration,
    has_submit_block: bool,
    /// Whether the old number of submitSolution was refused.
    has_new_submit_solution: Cell<bool>,
    /// Runs as long as the connection lasts.
    _system: JoinSet<()>,
}

/// Waits for a call's answer for `max` at most.
async fn answer<T>(
    call: &'static str,
    max: Duration,
    promise: impl Future<Output = Result<T, capnp::Error>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(max, promise).await {
        Ok(answered) => answered.map_err(|error| Fault::of(call, error)),
        Err(_) => Err(Fault::Silent { call, after: max }),
    }
}

/// Reads a field of an answer.
fn field<T>(call: &'static str, read: capnp::Result<T>) -> Result<T, Fault> {
    read.map_err(|_| Fault::Malformed { call, what: "a field that cannot be read" })
}

fn digest(call: &'static str, bytes: &[u8]) -> Result<Digest, Fault> {
    let bytes =
        bytes.try_into().map_err(|_| Fault::Malformed { call, what: "a hash of other than 32 bytes" })?;
    Ok(Digest(bytes))
}

fn text(read: capnp::Result<capnp::text::Reader<'_>>) -> String {
    // A reason is for people: what is no UTF-8 says nothing to them.
    read.ok().and_then(|reason| reason.to_str().ok()).unwrap_or_default().to_owned()
}

impl Connection {
    /// Connects and learns what the node has. Must run within a `LocalSet`.
    pub(super) async fn open(socket: &Path, answer_max: Duration) -> Result<Self, Fault> {
        let stream = tokio::time::timeout(answer_max, UnixStream::connect(socket)).await;
        let stream = stream
            .map_err(|_| Fault::Silent { call: "connect", after: answer_max })?
            .map_err(Fault::Connect)?;
        let (reader, writer) = stream.into_split();
        let mut options = ReaderOptions::new();
        options.traversal_limit_in_words(Some(MESSAGE_LEN_MAX / 8));
        let (reader, writer) = (BufReader::new(reader).compat(), BufWriter::new(writer).compat_write());
        let network = VatNetwork::new(reader, writer, Side::Client, options);
        let mut system = RpcSystem::new(Box::new(network), None);
        let init: init::Client = system.bootstrap(Side::Server);
        let mut running = JoinSet::new();
        running.spawn_local(async move {
            // How it ended is told to every call.
            let _ = system.await;
        });

        let call = "Init.construct";
        let constructed = answer(call, answer_max, init.construct_request().send().promise).await?;
        let threads = field(call, constructed.get().and_then(|answer| answer.get_thread_map()))?;
        let tip = make_lane(&threads, "tip", answer_max).await?;
        let quick = make_lane(&threads, "quick", answer_max).await?;
        let full = make_lane(&threads, "full", answer_max).await?;
        let read = make_lane(&threads, "read", answer_max).await?;
        let submit = make_lane(&threads, "submit", answer_max).await?;

        let call = "Init.makeMining";
        let mut request = init.make_mining_request();
        let turn = quick.enter(request.get().get_context(), call).await?;
        let made = answer(call, LOADING_MAX, request.send().promise).await?;
        drop(turn);
        let made = field(call, made.get())?;
        if !made.has_result() {
            return Err(Fault::Stopping);
        }
        let mining = field(call, made.get_result())?;
        let mut this = Self {
            mining,
            tip,
            quick,
            full,
            read,
            submit,
            answer_max,
            has_submit_block: false,
            has_new_submit_solution: Cell::new(false),
            _system: running,
        };
        this.has_submit_block = this.knows_whole_blocks().await?;
        Ok(this)
    }

    /// Whether whole blocks can be submitted, told by a method that came with submitBlock and that asks for nothing here.
    async fn knows_whole_blocks(&self) -> Result<bool, Fault> {
        let call = "Mining.getTransactionsByTxID";
        let mut request = self.mining.get_transactions_by_tx_i_d_request();
        let _turn = self.quick.enter(request.get().get_context(), call).await?;
        request.get().init_txids(0);
        match answer(call, self.answer_max, request.send().promise).await {
            Ok(_) => Ok(true),
            Err(Fault::Missing { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Whether the node takes whole blocks; Bitcoin Core 31.0 does not.
    pub(super) fn has_submit_block(&self) -> bool {
        self.has_submit_block
    }

    /// Whether the chain is for tests only.
    pub(super) async fn is_test_chain(&self) -> Result<bool, Fault> {
        let call = "Mining.isTestChain";
        let mut request = self.mining.is_test_chain_request();
        let _turn = self.quick.enter(request.get().get_context(), call).await?;
        let answered = answer(call, self.answer_max, request.send().promise).await?;
        Ok(field(call, answered.get())?.get_result())
    }

    /// Whether the node still downloads the chain, or has nothing but an old one.
    pub(super) async fn is_initial_block_download(&self) -> Result<bool, Fault> {
        let call = "Mining.isInitialBlockDownload";
        let mut request = self.mining.is_initial_block_download_request();
        let _turn = self.quick.enter(request.get().get_context(), call).await?;
        let answered = answer(call, self.answer_max, request.send().promise).await?;
        Ok(field(call, answered.get())?.get_result())
    }

    /// The present tip; none before the node has loaded one.
    pub(super) async fn tip(&self) -> Result<Option<Tip>, Fault> {
        self.tip_by(&self.quick).await
    }

    /// The tip after what was submitted.
    pub(super) async fn tip_after_submission(&self) -> Result<Option<Tip>, Fault> {
        self.tip_by(&self.submit).await
    }

    async fn tip_by(&self, lane: &Lane) -> Result<Option<Tip>, Fault> {
        let call = "Mining.getTip";
        let mut request = self.mining.get_tip_request();
        let _turn = lane.enter(request.get().get_context(), call).await?;
        let answered = answer(call, self.answer_max, request.send().promise).await?;
        let answered = field(call, answered.get())?;
        if !answered.get_has_result() {
            return Ok(None);
        }
        let tip = field(call, answered.get_result())?;
        read_tip(call, tip.get_height(), field(call, tip.get_hash())?).map(Some)
    }

    /// Waits until the tip is another than `current`, or for `max`; either way the tip then.
    pub(super) async fn wait_tip_changed(&self, current: &Digest, max: Duration) -> Result<Tip, Fault> {
        let call = "Mining.waitTipChanged";
        let mut request = self.mining.wait_tip_changed_request();
        let _turn = self.tip.enter(request.get().get_context(), call).await?;
        request.get().set_current_tip(&current.0);
        request.get().set_timeout(max.as_secs_f64() * 1_000.0);
        let answered = answer(call, max + self.answer_max, request.send().promise).await?;
        let answered = field(call, answered.get())?;
        if !answered.has_result() {
            return Err(Fault::Stopping);
        }
        let tip = field(call, answered.get_result())?;
        read_tip(call, tip.get_height(), field(call, tip.get_hash())?)
    }

    /// Ends a [`wait_tip_changed`](Self::wait_tip_changed), which then says that the node is stopping.
    pub(super) async fn interrupt(&self) -> Result<(), Fault> {
        let promise = self.mining.interrupt_request().send().promise;
        answer("Mining.interrupt", self.answer_max, promise).await.map(drop)
    }

    /// A template for the present tip, with transactions or without.
    pub(super) async fn create_template(
        &self,
        reserve: Reserve,
        with_transactions: bool,
    ) -> Result<NodeTemplate, Fault> {
        let lane = if with_transactions { &self.full } else { &self.quick };
        let call = "Mining.createNewBlock";
        let mut request = self.mining.create_new_block_request();
        let turn = lane.enter(request.get().get_context(), call).await?;
        // The node's own wait for headers or the end of its download has no bound; see the session.
        request.get().set_cooldown(false);
        let mut options = request.get().init_options();
        options.set_use_mempool(with_transactions);
        options.set_block_reserved_weight(reserve.reserved_weight);
        options.set_coinbase_output_max_additional_sigops(reserve.max_additional_sigops.into());
        let made = answer(call, self.answer_max, request.send().promise).await?;
        drop(turn);
        let made = field(call, made.get())?;
        if !made.has_result() {
            return Err(Fault::Stopping);
        }
        let template = field(call, made.get_result())?;
        self.read_template(lane, template, with_transactions).await
    }

    async fn read_template(
        &self,
        lane: &Lane,
        client: block_template::Client,
        with_transactions: bool,
    ) -> Result<NodeTemplate, Fault> {
        let call = "BlockTemplate.getBlockHeader";
        let mut request = client.get_block_header_request();
        let turn = lane.enter(request.get().get_context(), call).await?;
        let answered = answer(call, self.answer_max, request.send().promise).await?;
        drop(turn);
        let header =
            HeaderFields::read(call, field(call, answered.get().and_then(|answer| answer.get_result()))?)?;

        let call = "BlockTemplate.getCoinbaseTx";
        let mut request = client.get_coinbase_tx_request();
        let turn = lane.enter(request.get().get_context(), call).await?;
        let answered = answer(call, self.answer_max, request.send().promise).await?;
        drop(turn);
        let coinbase = field(call, answered.get().and_then(|answer| answer.get_result()))?;
        let coinbase = CoinbaseFields::read(call, coinbase)?;

        // A block of nothing but its coinbase has no path.
        let mut merkle_path = Vec::new();
        if with_transactions {
            let call = "BlockTemplate.getCoinbaseMerklePath";
            let mut request = client.get_coinbase_merkle_path_request();
            let _turn = lane.enter(request.get().get_context(), call).await?;
            let answered = answer(call, self.answer_max, request.send().promise).await?;
            let path = field(call, answered.get().and_then(|answer| answer.get_result()))?;
            merkle_path = super::template::read_merkle_path(call, path)?;
        }
        Ok(NodeTemplate { client, header, coinbase, merkle_path })
    }

    /// The template's block, serialised.
    pub(super) async fn read_block(&self, template: &NodeTemplate) -> Result<Vec<u8>, Fault> {
        let call = "BlockTemplate.getBlock";
        let mut request = template.client.get_block_request();
        let _turn = self.read.enter(request.get().get_context(), call).await?;
        let answered = answer(call, self.answer_max, request.send().promise).await?;
        let block = field(call, answered.get().and_then(|answer| answer.get_result()))?;
        Ok(block.to_vec())
    }

    /// Lets the node free a template at once.
    pub(super) async fn destroy(&self, template: &NodeTemplate) -> Result<(), Fault> {
        let call = "BlockTemplate.destroy";
        let mut request = template.client.destroy_request();
        let _turn = self.read.enter(request.get().get_context(), call).await?;
        answer(call, self.answer_max, request.send().promise).await.map(drop)
    }

    /// Gives the node a solution of its template. A good verdict means that the block was processed, not that it is valid.
    pub(super) async fn submit_solution(
        &self,
        template: &NodeTemplate,
        header: &HeaderBytes,
        coinbase_tx: &[u8],
    ) -> Result<Verdict, Fault> {
        let mut old_reason = String::new();
        if !self.has_new_submit_solution.get() {
            match self.submit_solution_old(template, header, coinbase_tx).await {
                // Also what a newer node says of the old number.
                Err(Fault::Refused { reason, .. }) => old_reason = reason,
                answered => return answered,
            }
        }
        let call = "BlockTemplate.submitSolution";
        let mut request = template.client.submit_solution_request();
        let _turn = self.submit.enter(request.get().get_context(), call).await?;
        let fields = HeaderFields::of(header);
        request.get().set_version(fields.version);
        request.get().set_timestamp(fields.ntime);
        request.get().set_nonce(fields.nonce);
        request.get().set_coinbase(coinbase_tx);
        let answered = match answer(call, SUBMISSION_MAX, request.send().promise).await {
            // There is but the old number: what it said counts.
            Err(Fault::Missing { .. }) => return Err(Fault::Refused { call, reason: old_reason }),
            answered => answered?,
        };
        self.has_new_submit_solution.set(true);
        let answered = field(call, answered.get())?;
        Ok(verdict(answered.get_result(), answered.get_reason(), answered.get_debug()))
    }

    /// As Bitcoin Core 31 has it.
    async fn submit_solution_old(
        &self,
        template: &NodeTemplate,
        header: &HeaderBytes,
        coinbase_tx: &[u8],
    ) -> Result<Verdict, Fault> {
        let call = "BlockTemplate.submitSolution";
        let mut request = template.client.submit_solution_old7_request();
        let _turn = self.submit.enter(request.get().get_context(), call).await?;
        let fields = HeaderFields::of(header);
        request.get().set_version(fields.version);
        request.get().set_timestamp(fields.ntime);
        request.get().set_nonce(fields.nonce);
        request.get().set_coinbase(coinbase_tx);
        let answered = answer(call, SUBMISSION_MAX, request.send().promise).await?;
        Ok(Verdict { is_good: field(call, answered.get())?.get_result(), reason: String::new() })
    }

    /// Gives the node a whole block. A good verdict means that it was new and was connected.
    pub(super) async fn submit_block(&self, block: &[u8]) -> Result<Verdict, Fault> {
        let call = "Mining.submitBlock";
        let mut request = self.mining.submit_block_request();
        let _turn = self.submit.enter(request.get().get_context(), call).await?;
        request.get().set_block(block);
        let answered = answer(call, SUBMISSION_MAX, request.send().promise).await?;
        let answered = field(call, answered.get())?;
        Ok(verdict(answered.get_result(), answered.get_reason(), answered.get_debug()))
    }

    /// Asks whether a block would be valid on the present tip.
    pub(super) async fn check_block(&self, block: &[u8]) -> Result<Verdict, Fault> {
        let call = "Mining.checkBlock";
        let mut request = self.mining.check_block_request();
        let _turn = self.submit.enter(request.get().get_context(), call).await?;
        request.get().set_block(block);
        let mut options = request.get().init_options();
        options.set_check_merkle_root(true);
        options.set_check_pow(true);
        let answered = answer(call, SUBMISSION_MAX, request.send().promise).await?;
        let answered = field(call, answered.get())?;
        Ok(verdict(answered.get_result(), answered.get_reason(), answered.get_debug()))
    }
}

async fn make_lane(threads: &thread_map::Client, name: &str, max: Duration) -> Result<Lane, Fault> {
    let call = "ThreadMap.makeThread";
    let mut request = threads.make_thread_request();
    request.get().set_name(name);
    let made = answer(call, max, request.send().promise).await?;
    let thread = field(call, made.get().and_then(|answer| answer.get_result()))?;
    Ok(Lane { thread, turn: Mutex::new(()) })
}

fn read_tip(call: &'static str, height: i32, hash: &[u8]) -> Result<Tip, Fault> {
    let height = height.try_into().map_err(|_| Fault::Malformed { call, what: "a negative height" })?;
    Ok(Tip { height, hash: digest(call, hash)? })
}

fn verdict(
    is_good: bool,
    reason: capnp::Result<capnp::text::Reader<'_>>,
    debug: capnp::Result<capnp::text::Reader<'_>>,
) -> Verdict {
    let (mut reason, debug) = (text(reason), text(debug));
    if !debug.is_empty() && debug != reason {
        reason = if reason.is_empty() { debug } else { format!("{reason}, {debug}") };
    }
    Verdict { is_good, reason }
}
