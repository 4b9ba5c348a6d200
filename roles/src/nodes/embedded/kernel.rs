//! Bitcoin Core's validation behind the few calls that the embedded node needs.
//!
//! Owns the chain's data directory (one process at a time). Bitcoin Core writes its index of blocks about once an hour and
//! when it is closed, so a crash, or a disk that is full at the end, would cost the blocks in between, though their files
//! are there: a marker tells that the last owner did not close the chain, and then the index is built anew from the files
//! of blocks. Used from the node's thread only. Bitcoin Core calls back while it processes a block, on the same thread and
//! under its main lock, so the callbacks only note what happened; [`Kernel::process`] takes the notes when it is done. The
//! library gives results but no reasons: those stand in Bitcoin Core's log lines, which pass through here on their way to
//! the program's own log.

use std::cell::RefCell;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};

use adit_hasher::Digest;
use bitcoin::consensus::deserialize;
use bitcoinkernel::notifications::types::BlockValidationStateExt;
use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    Block as KernelBlock, BlockHash, BlockTreeEntry, BlockValidationStateRef, ChainType, ChainstateManager,
    Context, ContextBuilder, KernelError, ProcessBlockResult, ValidationMode,
};

use super::coins::Coin;
use super::rules::{Ancestor, Chain, SIGNET_CHALLENGE};

/// Threads that check scripts beside the node's own.
const SCRIPT_THREADS: i32 = 1;
/// Blocks whose times make the median time past.
const MEDIAN_TIME_SPAN: usize = 11;
/// Characters of a reason that are kept.
const REASON_LEN_MAX: usize = 300;

/// A block that joined or left the best chain.
pub(super) struct ChainEvent {
    pub(super) connected: bool,
    pub(super) height: u32,
    pub(super) hash: Digest,
    pub(super) block: bitcoin::Block,
}

/// What Bitcoin Core said of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BlockVerdict {
    /// It is part of the best chain.
    Connected { height: u32 },
    /// It is kept beside the best chain.
    Stale { height: u32 },
    /// It was known, as part of the best chain or beside it.
    Duplicate,
    /// It is invalid, for this reason.
    Invalid(String),
}

/// What happened while a block was processed.
pub(super) struct Processed {
    pub(super) hash: Option<Digest>,
    pub(super) verdict: BlockVerdict,
    /// In order: blocks that left the chain before those that joined it.
    pub(super) events: Vec<ChainEvent>,
}

/// The best chain's last block and what follows from its ancestors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) hash: Digest,
    pub(super) last: Ancestor,
    pub(super) median_time_past: u32,
}

/// Why the node cannot start or go on.
#[derive(Debug)]
pub(super) struct KernelFault(pub(super) String);

impl From<KernelError> for KernelFault {
    fn from(error: KernelError) -> Self {
        Self(error.to_string())
    }
}

#[derive(Default)]
struct Notes {
    events: Vec<(bool, u32, Digest, Vec<u8>)>,
    /// Verdicts of invalidity: hash and the kind that Bitcoin Core put it in.
    invalid: Vec<(Digest, String)>,
    /// A disk that failed or a database that broke: nothing more can be trusted to last.
    fatal: Option<String>,
}

type SharedNotes = Arc<Mutex<Notes>>;

fn note(notes: &SharedNotes, write: impl FnOnce(&mut Notes)) {
    // Notes are plain values: a panic elsewhere leaves them whole.
    write(&mut notes.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The chain, its blocks and its state on disk.
pub(super) struct Kernel {
    chain: Chain,
    notes: SharedNotes,
    // Fields drop in order: the manager uses the context.
    manager: ChainstateManager,
    _context: Context,
    _marker: Marker,
}

/// A file that is there while the chain is open, and locked; gone once the chain was closed and everything was written.
struct Marker {
    path: PathBuf,
    _lock: File,
    notes: SharedNotes,
    /// Whether the chain was opened. What was left half indexed is indexed anew.
    is_open: bool,
}

impl Marker {
    /// Takes the directory; the flag tells whether its last owner left without closing the chain.
    fn take(directory: &Path, notes: &SharedNotes) -> Result<(Self, bool), KernelFault> {
        let path = directory.join("open");
        let crashed = path.exists();
        let failed = |error| KernelFault(format!("cannot use {}: {error}", path.display()));
        let lock = File::create(&path).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                KernelFault(format!("another process uses the chain in {}", directory.display()))
            }
            TryLockError::Error(error) => failed(error),
        })?;
        // The name must last through a loss of power; some file systems sync no directories, and then it mostly does.
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
        Ok((Self { path, _lock: lock, notes: notes.clone(), is_open: false }, crashed))
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        let has_failed = self.notes.lock().unwrap_or_else(PoisonError::into_inner).fatal.is_some();
        if has_failed {
            tracing::error!(
                path = %self.path.display(),
                "the chain could not be written whole; it is indexed anew at the next start: see that the disk has room"
            );
        }
        if has_failed || !self.is_open {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the chain will be indexed anew at the next start");
        }
    }
}

impl Kernel {
    /// Opens or creates the chain in `directory` (Bitcoin Core's layout below it).
    pub(super) fn open(chain: Chain, directory: &Path) -> Result<Self, KernelFault> {
        route_log();
        let path = |sub: &str| {
            let path = directory.join(sub);
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| KernelFault(format!("the path {} is not UTF-8", path.display())))
        };
        let (data, blocks) = (path("")?, path("blocks")?);
        std::fs::create_dir_all(&blocks)
            .map_err(|error| KernelFault(format!("cannot create {blocks}: {error}")))?;
        let notes = SharedNotes::default();
        let (mut marker, crashed) = Marker::take(directory, &notes)?;
        if crashed {
            tracing::warn!(
                chain = chain.name(),
                "the chain was not closed: indexing it anew from its blocks"
            );
        }
        let context = context(chain, &notes)?;
        REASON.take();
        let builder = ChainstateManager::builder(&context, &data, &blocks)?.worker_threads(SCRIPT_THREADS);
        let manager = builder.wipe_db(crashed, crashed)?.build().map_err(|_| {
            let reason = REASON.take().unwrap_or_else(|| "no reason given".to_owned());
            KernelFault(format!(
                "cannot open the chain in {data}: {reason}; it needs write access and 100 MB of free space"
            ))
        })?;
        manager.import_blocks()?;
        // Whoever opens the chain reads it whole: what was connected just now is no news.
        note(&notes, |notes| notes.events.clear());
        marker.is_open = true;
        Ok(Self { chain, notes, manager, _context: context, _marker: marker })
    }

    /// Validates a serialised block and adds it to the chain if it is good.
    pub(super) fn process(&self, raw: &[u8]) -> Processed {
        let Ok(block) = KernelBlock::new(raw) else {
            let verdict = BlockVerdict::Invalid("the block does not decode".to_owned());
            return Processed { hash: None, verdict, events: Vec::new() };
        };
        let hash = digest(&block.hash());
        REASON.take();
        let result = self.manager.process_block(&block);
        let mut notes = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        // A fatal fault is for `fatal_fault`, which asks later.
        note(&self.notes, |kept| kept.fatal = notes.fatal.take());
        // Accepting a block means storing it; whether it connects is told by the callback alone.
        let invalid = notes.invalid.into_iter().find(|(of, _)| *of == hash).map(|(_, kind)| kind);
        let verdict = match (result, invalid) {
            (ProcessBlockResult::Rejected, kind) => BlockVerdict::Invalid(reason(kind)),
            (ProcessBlockResult::NewBlock, Some(kind)) => BlockVerdict::Invalid(reason(Some(kind))),
            (ProcessBlockResult::Duplicate, _) => BlockVerdict::Duplicate,
            (ProcessBlockResult::NewBlock, None) => self.place_of(&block.hash()),
        };
        let events = notes.events.into_iter().filter_map(|(connected, height, hash, raw)| {
            let block = deserialize(&raw).inspect_err(|error| {
                tracing::error!(%hash, %error, "a block of the best chain does not decode");
            });
            Some(ChainEvent { connected, height, hash, block: block.ok()? })
        });
        Processed { hash: Some(hash), verdict, events: events.collect() }
    }

    fn place_of(&self, hash: &BlockHash) -> BlockVerdict {
        match self.manager.get_block_tree_entry(hash) {
            Some(entry) if self.manager.active_chain().contains(&entry) => {
                BlockVerdict::Connected { height: height(&entry) }
            }
            Some(entry) => BlockVerdict::Stale { height: height(&entry) },
            None => BlockVerdict::Invalid("the block was not stored".to_owned()),
        }
    }

    /// A fault of the disk or the database that ends all trust in this chain, if there was one.
    pub(super) fn fatal_fault(&self) -> Option<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).fatal.clone()
    }

    /// The best chain's last block.
    pub(super) fn tip(&self) -> Tip {
        self.describe(&self.manager.active_chain().tip())
    }

    /// The block of the best chain at `height`.
    pub(super) fn at_height(&self, height: u32) -> Option<Tip> {
        Some(self.describe(&self.manager.active_chain().at_height(height as usize)?))
    }

    /// A known block, whether it is in the best chain, and its height.
    pub(super) fn find(&self, hash: &Digest) -> Option<(Tip, bool)> {
        let entry = self.manager.get_block_tree_entry(&BlockHash::from(hash.0))?;
        Some((self.describe(&entry), self.manager.active_chain().contains(&entry)))
    }

    fn describe(&self, entry: &BlockTreeEntry<'_>) -> Tip {
        let header = entry.header();
        let last = Ancestor { height: height(entry), time: header.timestamp(), nbits: header.bits() };
        let mut times = Vec::with_capacity(MEDIAN_TIME_SPAN);
        let mut at = Some(*entry);
        while let Some(entry) = at.filter(|_| times.len() < MEDIAN_TIME_SPAN) {
            times.push(entry.header().timestamp());
            at = entry.prev();
        }
        times.sort_unstable();
        Tip { hash: digest(&entry.block_hash()), last, median_time_past: times[times.len() / 2] }
    }

    /// `nbits` of the block after the tip.
    pub(super) fn next_nbits(&self, tip: &Tip) -> u32 {
        let start = self.chain.retarget_start(tip.last.height);
        let start = start.and_then(|height| self.manager.active_chain().at_height(height as usize));
        self.chain.next_nbits(&tip.last, start.map(|entry| entry.header().timestamp()))
    }

    /// The serialised header of a known block.
    pub(super) fn header(&self, hash: &Digest) -> Option<[u8; 80]> {
        self.manager.get_block_tree_entry(&BlockHash::from(hash.0))?.header().consensus_encode().ok()
    }

    /// The serialised block, read from disk.
    pub(super) fn read_block(&self, hash: &Digest) -> Result<Vec<u8>, KernelFault> {
        let entry = self.manager.get_block_tree_entry(&BlockHash::from(hash.0));
        let entry = entry.ok_or_else(|| KernelFault(format!("block {hash} is not known")))?;
        Ok(self.manager.read_block_data(&entry)?.consensus_encode()?)
    }

    /// What the transactions of a block spent, without its coinbase, in block order, read from disk.
    pub(super) fn read_spent(&self, hash: &Digest) -> Result<Vec<Vec<Coin>>, KernelFault> {
        let entry = self.manager.get_block_tree_entry(&BlockHash::from(hash.0));
        let entry = entry.ok_or_else(|| KernelFault(format!("block {hash} is not known")))?;
        let spent = self.manager.read_spent_outputs(&entry)?;
        let coins = |transaction: bitcoinkernel::TransactionSpentOutputsRef<'_>| {
            transaction
                .coins()
                .map(|coin| Coin {
                    output: bitcoin::TxOut {
                        value: bitcoin::Amount::from_sat(coin.output().value().unsigned_abs()),
                        script_pubkey: coin.output().script_pubkey().to_bytes().into(),
                    },
                    height: coin.confirmation_height(),
                    coinbase: coin.is_coinbase(),
                })
                .collect()
        };
        Ok(spent.iter().map(coins).collect())
    }
}

fn height(entry: &BlockTreeEntry<'_>) -> u32 {
    entry.height().unsigned_abs()
}

fn digest(hash: &impl BlockHashExt) -> Digest {
    Digest(hash.to_bytes())
}

/// Bitcoin Core's own words where its log had them, and its kind of failure.
fn reason(kind: Option<String>) -> String {
    match (REASON.take(), kind) {
        (Some(words), Some(kind)) => format!("{words} [{kind}]"),
        (Some(words), None) => words,
        (None, Some(kind)) => kind,
        (None, None) => "the block could not be processed".to_owned(),
    }
}

fn context(chain: Chain, notes: &SharedNotes) -> Result<Context, KernelError> {
    let builder = match chain {
        Chain::Regtest => ContextBuilder::new().chain_type(ChainType::Regtest),
        Chain::Signet => ContextBuilder::new().signet(&SIGNET_CHALLENGE),
    };
    let (checked, connected, disconnected) = (notes.clone(), notes.clone(), notes.clone());
    let (flush, fatal) = (notes.clone(), notes.clone());
    builder
        .with_block_checked_validation(move |block: KernelBlock, state: BlockValidationStateRef<'_>| {
            if state.mode() != ValidationMode::Valid {
                let (hash, kind) = (digest(&block.hash()), format!("{:?}", state.result()));
                note(&checked, |notes| notes.invalid.push((hash, kind)));
            }
        })
        .with_block_connected_validation(move |block: KernelBlock, entry: BlockTreeEntry<'_>| {
            note_event(&connected, true, &block, &entry);
        })
        .with_block_disconnected_validation(move |block: KernelBlock, entry: BlockTreeEntry<'_>| {
            note_event(&disconnected, false, &block, &entry);
        })
        .with_flush_error_notification(move |message: String| {
            note(&flush, |notes| notes.fatal = Some(message));
        })
        .with_fatal_error_notification(move |message: String| {
            note(&fatal, |notes| notes.fatal = Some(message));
        })
        .build()
}

fn note_event(notes: &SharedNotes, connected: bool, block: &KernelBlock, entry: &BlockTreeEntry<'_>) {
    // A block in memory always encodes; if not, it shows as a block that does not decode.
    let raw = block.consensus_encode().unwrap_or_default();
    let event = (connected, height(entry), digest(&entry.block_hash()), raw);
    note(notes, |notes| notes.events.push(event));
}

thread_local! {
    /// The last reason for a refusal that Bitcoin Core logged on this thread.
    static REASON: RefCell<Option<String>> = const { RefCell::new(None) };
}

struct CoreLog;

impl bitcoinkernel::Log for CoreLog {
    fn log(&self, message: &str) {
        let message = message.trim_end();
        match message.strip_prefix("[error] ") {
            Some(error) => {
                let words = words_of_refusal(error).chars().take(REASON_LEN_MAX).collect();
                // A thread that ends has no reader for the reason.
                let _ = REASON.try_with(|reason| reason.replace(Some(words)));
                tracing::debug!(target: "bitcoin_core", "{error}");
            }
            None if message.starts_with("[warning]") => tracing::warn!(target: "bitcoin_core", "{message}"),
            None => tracing::trace!(target: "bitcoin_core", "{message}"),
        }
    }
}

/// The state in a line like `ProcessNewBlock: AcceptBlock FAILED (state)` or `ConnectTip: ConnectBlock hash failed, state`.
fn words_of_refusal(line: &str) -> &str {
    if let Some((_, rest)) = line.split_once("AcceptBlock FAILED (") {
        return rest.strip_suffix(')').unwrap_or(rest);
    }
    if let Some((_, rest)) = line.split_once(" failed, ").filter(|(head, _)| head.contains("ConnectBlock")) {
        return rest;
    }
    line
}

/// Sends Bitcoin Core's log to `tracing` under the target `bitcoin_core`. The log is one for the process, so the
/// connection is made once and lasts as long.
fn route_log() {
    static ROUTED: Once = Once::new();
    ROUTED.call_once(|| {
        let options = bitcoinkernel::log::logging::LoggingOptions {
            log_timestamps: false,
            log_time_micros: false,
            log_threadnames: false,
            log_sourcelocations: false,
            always_print_category_levels: false,
        };
        match bitcoinkernel::Logger::new_with_options(CoreLog, options) {
            Ok(logger) => std::mem::forget(logger),
            Err(error) => tracing::warn!(%error, "Bitcoin Core's log is not available"),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Marker, SharedNotes, note, words_of_refusal};

    /// Whether the next owner of a chain indexes it anew.
    #[test]
    fn only_a_chain_that_was_opened_and_written_whole_counts_as_closed() {
        let directory = tempfile::tempdir().unwrap();
        let close = |is_open: bool, fault: Option<&str>| {
            let notes = SharedNotes::default();
            let (mut marker, crashed) = Marker::take(directory.path(), &notes).unwrap();
            marker.is_open = is_open;
            note(&notes, |notes| notes.fatal = fault.map(str::to_owned));
            crashed
        };
        assert!(!close(true, None), "a new chain");
        assert!(!close(true, Some("Disk space is too low!")), "closed in order");
        assert!(close(false, None), "not written whole");
        assert!(close(true, None), "never opened");
        assert!(!close(true, None), "closed in order");
    }

    #[test]
    fn reasons_are_found_in_log_lines() {
        for (line, words) in [
            (
                "ProcessNewBlock: AcceptBlock FAILED (high-hash, proof of work failed)",
                "high-hash, proof of work failed",
            ),
            (
                "ConnectTip: ConnectBlock 00ff failed, bad-cb-amount, coinbase pays too much",
                "bad-cb-amount, coinbase pays too much",
            ),
            ("AcceptBlock: bad-cb-height", "AcceptBlock: bad-cb-height"),
        ] {
            assert_eq!(words_of_refusal(line), words);
        }
    }
}
