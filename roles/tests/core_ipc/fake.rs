//! A mining interface on a unix socket, as several versions of Bitcoin Core have it, with a chain of hashes and nothing
//! behind. It counts what a node must never see: two uses of a template at once, and templates that nobody frees.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use adit_hasher::{Digest, Target, merkle_path, merkle_root_from_path};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::{Block, Transaction};
use bitcoin_capnp_types::capnp::{Error, message::ReaderOptions};
use bitcoin_capnp_types::capnp_rpc::{self, RpcSystem, rpc_twoparty_capnp::Side, twoparty::VatNetwork};
use bitcoin_capnp_types::init_capnp::init;
use bitcoin_capnp_types::mining_capnp::{block_template, mining};
use bitcoin_capnp_types::proxy_capnp::{thread, thread_map};
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

/// Regtest's target.
pub(crate) const NBITS: u32 = 0x207f_ffff;
const SUBSIDY_SAT: i64 = 5_000_000_000;

/// Whose interface it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Without the makeMining that we know.
    V30,
    /// Without whole blocks.
    V31,
    /// With whole blocks.
    V31_99,
    /// With a new number for submitSolution.
    Next,
}

/// What the node does, and what befell it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) is_test_chain: bool,
    pub(crate) is_behind: bool,
    /// No call is answered.
    pub(crate) is_silent: bool,
    pub(crate) height: u32,
    pub(crate) mempool: Vec<Transaction>,
    pub(crate) fees_sat: i64,
    /// What is wrong with every block, once it is on the tip.
    pub(crate) refusal: Option<&'static str>,
    /// What keeps the node from storing a block, be it good or not.
    pub(crate) trouble: Option<&'static str>,
    /// createNewBlock takes an hour for templates with transactions.
    pub(crate) is_slow: bool,
    /// What createNewBlock throws for templates with transactions.
    pub(crate) exception: Option<&'static str>,
    pub(crate) nbits: u32,
    pub(crate) connections: usize,
    pub(crate) templates_alive: usize,
    pub(crate) templates_made: usize,
    pub(crate) collisions: usize,
    pub(crate) solutions: usize,
    pub(crate) blocks: usize,
}

/// A running interface.
pub(crate) struct Fake {
    pub(crate) state: Arc<Mutex<State>>,
    tip: watch::Sender<Digest>,
    pub(crate) socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    version: Version,
    _directory: tempfile::TempDir,
}

#[derive(Clone)]
struct Node {
    version: Version,
    state: Arc<Mutex<State>>,
    tip: watch::Sender<Digest>,
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits for ever where the node is silent.
    async fn answer(&self) {
        if self.lock().is_silent {
            std::future::pending::<()>().await;
        }
    }

    /// As ProcessNewBlock: whether it was processed, and the reason of the methods that give one.
    fn process(&self, block: &Block) -> (bool, &'static str) {
        let hash = Digest(block.block_hash().to_byte_array());
        let header = Digest::of(&serialize(&block.header));
        if !Target::from_nbits(NBITS).unwrap().is_met_by(&header) {
            return (false, "high-hash");
        }
        let tip = *self.tip.borrow();
        if tip == hash {
            return (true, "duplicate");
        }
        if block.header.prev_blockhash.to_byte_array() != tip.0 {
            return (true, "inconclusive");
        }
        let mut state = self.lock();
        if let Some(trouble) = state.trouble {
            return (false, trouble);
        }
        if let Some(refusal) = state.refusal {
            return (true, refusal);
        }
        state.height += 1;
        drop(state);
        self.tip.send_replace(hash);
        (true, "")
    }
}

impl Fake {
    pub(crate) fn start(version: Version) -> Self {
        let state = State {
            is_test_chain: true,
            is_behind: false,
            is_silent: false,
            height: 100,
            mempool: Vec::new(),
            fees_sat: 0,
            refusal: None,
            trouble: None,
            is_slow: false,
            exception: None,
            nbits: NBITS,
            connections: 0,
            templates_alive: 0,
            templates_made: 0,
            collisions: 0,
            solutions: 0,
            blocks: 0,
        };
        let directory = tempfile::tempdir().unwrap();
        let mut fake = Self {
            state: Arc::new(Mutex::new(state)),
            tip: watch::Sender::new(Digest([1; 32])),
            socket: directory.path().join("node.sock"),
            stop: None,
            thread: None,
            version,
            _directory: directory,
        };
        fake.restart();
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Solutions and whole blocks.
    pub(crate) fn submitted(&self) -> (usize, usize) {
        let state = self.state();
        (state.solutions, state.blocks)
    }

    pub(crate) fn tip(&self) -> Digest {
        *self.tip.borrow()
    }

    /// Somebody else found a block.
    pub(crate) fn move_tip(&self, height: u32, hash: Digest) {
        self.state().height = height;
        self.tip.send_replace(hash);
    }

    /// Ends the node: every connection is closed.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        let _ = std::fs::remove_file(&self.socket);
        let (stop, mut stopped) = oneshot::channel::<()>();
        let node = Node { version: self.version, state: Arc::clone(&self.state), tip: self.tip.clone() };
        let listener = std::os::unix::net::UnixListener::bind(&self.socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.stop = Some(stop);
        self.thread = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        accepted = listener.accept() => {
                            node.lock().connections += 1;
                            let (reader, writer) = accepted.unwrap().0.into_split();
                            let (reader, writer) = (reader.compat(), writer.compat_write());
                            let network = VatNetwork::new(reader, writer, Side::Server, ReaderOptions::new());
                            let init: init::Client = capnp_rpc::new_client(Init(node.clone()));
                            tokio::task::spawn_local(RpcSystem::new(Box::new(network), Some(init.client)));
                        }
                    }
                }
            });
        }));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Init(Node);
struct ThreadMap;
struct Thread;
struct Mining(Node);

impl init::Server for Init {
    async fn construct(
        self: Rc<Self>,
        _: init::ConstructParams,
        mut to: init::ConstructResults,
    ) -> Result<(), Error> {
        to.get().set_thread_map(capnp_rpc::new_client(ThreadMap));
        Ok(())
    }

    async fn make_mining(
        self: Rc<Self>,
        from: init::MakeMiningParams,
        mut to: init::MakeMiningResults,
    ) -> Result<(), Error> {
        if self.0.version == Version::V30 {
            return Err(Error::unimplemented("Method not implemented.".to_owned()));
        }
        from.get()?.get_context()?.get_thread()?;
        self.0.answer().await;
        to.get().set_result(capnp_rpc::new_client(Mining(self.0.clone())));
        Ok(())
    }
}

impl thread_map::Server for ThreadMap {
    async fn make_thread(
        self: Rc<Self>,
        _: thread_map::MakeThreadParams,
        mut to: thread_map::MakeThreadResults,
    ) -> Result<(), Error> {
        to.get().set_result(capnp_rpc::new_client(Thread));
        Ok(())
    }
}

impl thread::Server for Thread {}

impl mining::Server for Mining {
    async fn is_test_chain(
        self: Rc<Self>,
        _: mining::IsTestChainParams,
        mut to: mining::IsTestChainResults,
    ) -> Result<(), Error> {
        to.get().set_result(self.0.lock().is_test_chain);
        Ok(())
    }

    async fn is_initial_block_download(
        self: Rc<Self>,
        _: mining::IsInitialBlockDownloadParams,
        mut to: mining::IsInitialBlockDownloadResults,
    ) -> Result<(), Error> {
        to.get().set_result(self.0.lock().is_behind);
        Ok(())
    }

    async fn get_tip(
        self: Rc<Self>,
        _: mining::GetTipParams,
        mut to: mining::GetTipResults,
    ) -> Result<(), Error> {
        self.0.answer().await;
        let (height, tip) = (self.0.lock().height, *self.0.tip.borrow());
        to.get().set_has_result(true);
        let mut result = to.get().init_result();
        result.set_hash(&tip.0);
        result.set_height(height as i32);
        Ok(())
    }

    async fn wait_tip_changed(
        self: Rc<Self>,
        from: mining::WaitTipChangedParams,
        mut to: mining::WaitTipChangedResults,
    ) -> Result<(), Error> {
        self.0.answer().await;
        let (current, timeout) = (from.get()?.get_current_tip()?.to_vec(), from.get()?.get_timeout());
        let mut tip = self.0.tip.subscribe();
        let changed = tip.wait_for(|tip| tip.0[..] != current[..]);
        let _ = tokio::time::timeout(Duration::from_secs_f64(timeout / 1_000.0), changed).await;
        self.0.answer().await;
        let (height, tip) = (self.0.lock().height, *self.0.tip.borrow());
        let mut result = to.get().init_result();
        result.set_hash(&tip.0);
        result.set_height(height as i32);
        Ok(())
    }

    async fn create_new_block(
        self: Rc<Self>,
        from: mining::CreateNewBlockParams,
        mut to: mining::CreateNewBlockResults,
    ) -> Result<(), Error> {
        self.0.answer().await;
        let is_full = from.get()?.get_options()?.get_use_mempool();
        if is_full && self.0.lock().is_slow {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
        }
        let mut state = self.0.lock();
        if let Some(exception) = state.exception.filter(|_| is_full) {
            return Err(Error::failed(exception.to_owned()));
        }
        state.templates_alive += 1;
        state.templates_made += 1;
        let (transactions, fees_sat) =
            if is_full { (state.mempool.clone(), state.fees_sat) } else { Default::default() };
        let (height, nbits) = (state.height + 1, state.nbits);
        drop(state);
        let template = Template {
            node: self.0.clone(),
            prev_hash: *self.0.tip.borrow(),
            height,
            nbits,
            transactions,
            fees_sat,
            block: Mutex::default(),
            is_busy: Cell::new(false),
        };
        to.get().set_result(capnp_rpc::new_client(template));
        Ok(())
    }

    async fn check_block(
        self: Rc<Self>,
        from: mining::CheckBlockParams,
        mut to: mining::CheckBlockResults,
    ) -> Result<(), Error> {
        let block: Block =
            deserialize(from.get()?.get_block()?).map_err(|error| Error::failed(error.to_string()))?;
        let tip = *self.0.tip.borrow();
        let reason = if block.header.prev_blockhash.to_byte_array() != tip.0 {
            "inconclusive-not-best-prevblk"
        } else if !Target::from_nbits(NBITS).unwrap().is_met_by(&Digest(block.block_hash().to_byte_array())) {
            "high-hash"
        } else {
            self.0.lock().refusal.unwrap_or_default()
        };
        to.get().set_reason(reason);
        to.get().set_debug(if reason.is_empty() { "" } else { "said in full" });
        to.get().set_result(reason.is_empty());
        Ok(())
    }

    async fn interrupt(
        self: Rc<Self>,
        _: mining::InterruptParams,
        _: mining::InterruptResults,
    ) -> Result<(), Error> {
        self.0.answer().await;
        Ok(())
    }

    async fn submit_block(
        self: Rc<Self>,
        from: mining::SubmitBlockParams,
        mut to: mining::SubmitBlockResults,
    ) -> Result<(), Error> {
        let block: Block =
            deserialize(from.get()?.get_block()?).map_err(|error| Error::failed(error.to_string()))?;
        self.0.lock().blocks += 1;
        let (is_processed, reason) = self.0.process(&block);
        to.get().set_result(is_processed && reason.is_empty());
        to.get().set_reason(reason);
        to.get().set_debug("");
        Ok(())
    }

    async fn get_transactions_by_tx_i_d(
        self: Rc<Self>,
        _: mining::GetTransactionsByTxIDParams,
        mut to: mining::GetTransactionsByTxIDResults,
    ) -> Result<(), Error> {
        if self.0.version == Version::V31 {
            return Err(Error::unimplemented("Method not implemented.".to_owned()));
        }
        to.get().init_result(0);
        Ok(())
    }
}

struct Template {
    node: Node,
    prev_hash: Digest,
    height: u32,
    nbits: u32,
    transactions: Vec<Transaction>,
    fees_sat: i64,
    /// Once it was solved.
    block: Mutex<Option<Block>>,
    is_busy: Cell<bool>,
}

impl Drop for Template {
    fn drop(&mut self) {
        // A test that fails may have poisoned it.
        if let Ok(mut state) = self.node.state.lock() {
            state.templates_alive -= 1;
        }
    }
}

impl Template {
    /// Takes its time, so that two uses at once are seen.
    async fn be_used(&self) {
        if self.is_busy.replace(true) {
            self.node.lock().collisions += 1;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        self.is_busy.set(false);
    }

    fn header(&self) -> Vec<u8> {
        let mut header = vec![0; 80];
        header[..4].copy_from_slice(&0x2000_0000_u32.to_le_bytes());
        header[4..36].copy_from_slice(&self.prev_hash.0);
        header[68..72].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
        header[72..76].copy_from_slice(&self.nbits.to_le_bytes());
        header
    }

    fn path(&self) -> Vec<[u8; 32]> {
        let ids = self.transactions.iter().map(|transaction| transaction.compute_txid().to_byte_array());
        merkle_path(&std::iter::once([0; 32]).chain(ids).collect::<Vec<_>>())
    }

    /// As AddMerkleRootAndCoinbase and SubmitBlock.
    async fn solve(
        &self,
        version: u32,
        ntime: u32,
        nonce: u32,
        coinbase: &[u8],
    ) -> Result<(bool, &'static str), Error> {
        let coinbase: Transaction =
            deserialize(coinbase).map_err(|error| Error::failed(error.to_string()))?;
        self.be_used().await;
        let mut header = self.header();
        header[..4].copy_from_slice(&version.to_le_bytes());
        let root = merkle_root_from_path(&coinbase.compute_txid().to_byte_array(), &self.path());
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&ntime.to_le_bytes());
        header[76..].copy_from_slice(&nonce.to_le_bytes());
        let mut block = Block { header: deserialize(&header).unwrap(), txdata: vec![coinbase] };
        block.txdata.extend(self.transactions.iter().cloned());
        self.node.lock().solutions += 1;
        let processed = self.node.process(&block);
        *self.block.lock().unwrap() = Some(block);
        Ok(processed)
    }
}

impl block_template::Server for Template {
    async fn destroy(
        self: Rc<Self>,
        _: block_template::DestroyParams,
        _: block_template::DestroyResults,
    ) -> Result<(), Error> {
        self.be_used().await;
        Ok(())
    }

    async fn get_block_header(
        self: Rc<Self>,
        _: block_template::GetBlockHeaderParams,
        mut to: block_template::GetBlockHeaderResults,
    ) -> Result<(), Error> {
        to.get().set_result(&self.header());
        Ok(())
    }

    async fn get_block(
        self: Rc<Self>,
        _: block_template::GetBlockParams,
        mut to: block_template::GetBlockResults,
    ) -> Result<(), Error> {
        self.be_used().await;
        let solved = self.block.lock().unwrap().clone();
        let block = solved.unwrap_or_else(|| {
            // The coinbase is a dummy.
            let dummy = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).txdata.swap_remove(0);
            let mut block = Block { header: deserialize(&self.header()).unwrap(), txdata: vec![dummy] };
            block.txdata.extend(self.transactions.iter().cloned());
            block
        });
        to.get().set_result(&serialize(&block));
        Ok(())
    }

    async fn get_coinbase_tx(
        self: Rc<Self>,
        _: block_template::GetCoinbaseTxParams,
        mut to: block_template::GetCoinbaseTxResults,
    ) -> Result<(), Error> {
        let mut coinbase = to.get().init_result();
        coinbase.set_version(2);
        coinbase.set_sequence(0xffff_fffe);
        coinbase.set_script_sig_prefix(Builder::new().push_int(self.height.into()).as_bytes());
        coinbase.set_block_reward_remaining(SUBSIDY_SAT + self.fees_sat);
        coinbase.set_lock_time(self.height - 1);
        coinbase.init_required_outputs(0);
        Ok(())
    }

    async fn get_coinbase_merkle_path(
        self: Rc<Self>,
        _: block_template::GetCoinbaseMerklePathParams,
        mut to: block_template::GetCoinbaseMerklePathResults,
    ) -> Result<(), Error> {
        let path = self.path();
        let mut list = to.get().init_result(path.len() as u32);
        (0..).zip(&path).for_each(|(at, hash)| list.set(at, hash));
        Ok(())
    }

    async fn submit_solution_old7(
        self: Rc<Self>,
        from: block_template::SubmitSolutionOld7Params,
        mut to: block_template::SubmitSolutionOld7Results,
    ) -> Result<(), Error> {
        if self.node.version == Version::Next {
            return Err(Error::failed("no longer supported".to_owned()));
        }
        let from = from.get()?;
        let solved = self
            .solve(from.get_version(), from.get_timestamp(), from.get_nonce(), from.get_coinbase()?)
            .await;
        to.get().set_result(solved?.0);
        Ok(())
    }

    async fn submit_solution(
        self: Rc<Self>,
        from: block_template::SubmitSolutionParams,
        mut to: block_template::SubmitSolutionResults,
    ) -> Result<(), Error> {
        if self.node.version != Version::Next {
            return Err(Error::unimplemented("Method not implemented.".to_owned()));
        }
        let from = from.get()?;
        let solved = self
            .solve(from.get_version(), from.get_timestamp(), from.get_nonce(), from.get_coinbase()?)
            .await;
        let (is_processed, reason) = solved?;
        to.get().set_result(is_processed);
        to.get().set_reason(reason);
        to.get().set_debug("");
        Ok(())
    }
}
