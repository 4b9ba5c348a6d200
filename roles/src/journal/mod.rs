//! The journal of found blocks.
//!
//! Every solution is written to a file of its own and synced at the moment at which it is submitted; neither waits for the
//! other. Where the template's transactions are at hand the file holds the whole block, so that any node can take it, also
//! after a restart. An entry stays pending until its outcome is final ([`Submission::is_settled`]), and is pending again when its
//! block leaves the best chain; pending entries are offered again at start.
//!
//! One thread writes, in order. Bounds: [`QUEUE_MAX`] entries wait for it, then the caller does, so that none is dropped;
//! settled entries are pruned beyond a count and an age, and so are pending and corrupt ones, with a line in the log. The
//! directory belongs to one process at a time. A file that does not decode is reported and set aside as `*.corrupt`, or
//! left where it is if that fails, and never keeps the program from starting.

mod record;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_proto::mining::server::Solution;
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::nodes::{Submission, TemplateTransactions, assemble_block};
use record::{ENTRY_LEN_MAX, RecordEnd};

pub use record::{EntryError, JournalEntry};

/// Entries and outcomes that wait for the writer.
pub const QUEUE_MAX: usize = 1_024;
/// Pending entries that are kept; far above what a working node leaves behind.
const PENDING_MAX: usize = 10_000;
/// Files set aside as corrupt that are kept.
const CORRUPT_MAX: usize = 100;
const LOCK_FILE: &str = "journal.lock";
const ENTRY_EXTENSION: &str = "solution";
const CORRUPT_EXTENSION: &str = "corrupt";
/// What is to take an entry's place.
const PARTIAL_EXTENSION: &str = "partial";

/// Names an entry; rises with time and gives the file its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

/// Where the journal is and how much of the past it keeps.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Made if it is not there.
    pub directory: PathBuf,
    /// Settled entries that are kept; 1,000 by default. Each takes the size of its block.
    pub settled_max: usize,
    /// Age at which an entry is pruned, settled or not; 30 days by default.
    pub age_max: Duration,
}

impl JournalConfig {
    /// The defaults in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, settled_max: 1_000, age_max: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

/// Why the journal cannot be used.
#[derive(Debug)]
pub enum JournalError {
    /// Another process has it.
    InUse(PathBuf),
    /// The system's word on a path.
    Io(PathBuf, io::Error),
    /// A file is no entry.
    Entry(PathBuf, EntryError),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "another process uses the journal in {}", path.display()),
            Self::Io(path, error) => write!(f, "the journal in {} cannot be used: {error}", path.display()),
            Self::Entry(path, error) => write!(f, "the journal's {} cannot be used: {error}", path.display()),
        }
    }
}

impl std::error::Error for JournalError {}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Entries without outcome, oldest first: to be submitted again and settled. [`Journal::read`] gives them.
    pub pending: Vec<EntryId>,
    /// Files that were no entries, and why; they were set aside where the system allows it.
    pub corrupt: Vec<(PathBuf, EntryError)>,
    /// How many entries were settled.
    pub settled_count: usize,
}

/// A solution on its way to the disk.
#[derive(Debug)]
pub struct Recording {
    /// Its name, for [`Journal::settle`].
    pub id: EntryId,
    /// Answers once the entry has reached the disk, or why it cannot. Disconnected if the journal ended first.
    pub durable: Receiver<Result<(), String>>,
}

/// Solutions written since the journal was opened, and those that could not be.
#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    failed: AtomicU64,
}

enum Order {
    Record {
        id: EntryId,
        solution: Arc<Solution>,
        transactions: Option<TemplateTransactions>,
        /// Whether it takes the place of what is there.
        is_again: bool,
        durable: Sender<Result<(), String>>,
    },
    Settle {
        id: EntryId,
        outcome: String,
    },
    Reopen {
        id: EntryId,
    },
}

/// See the module.
pub struct Journal {
    directory: PathBuf,
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    last_id: AtomicU64,
    counts: Arc<Counts>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal, reads what it holds and starts the writer.
    ///
    /// # Errors
    /// A directory that cannot be used or is in use. Bad files are no errors.
    pub fn open(config: JournalConfig) -> Result<(Self, Recovery), JournalError> {
        let directory = config.directory.clone();
        let failed = |error| JournalError::Io(directory.clone(), error);
        fs::create_dir_all(&directory).map_err(failed)?;
        let lock = File::create(directory.join(LOCK_FILE)).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::InUse(directory.clone()),
            TryLockError::Error(error) => failed(error),
        })?;
        let (mut writer, recovery, last_id) = Writer::read(config, lock)?;
        let (orders, queue) = bounded(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(move || {
            for order in queue {
                writer.handle(order, &shared);
            }
        });
        let thread = Some(thread.map_err(failed)?);
        let journal =
            Self { directory, orders: Some(orders), thread, last_id: AtomicU64::new(last_id), counts };
        Ok((journal, recovery))
    }

    /// Takes a solution to be written, with the transactions of its template where the source has them. Returns at once,
    /// unless more than [`QUEUE_MAX`] wait.
    pub fn record(&self, solution: Arc<Solution>, transactions: Option<TemplateTransactions>) -> Recording {
        let now = now_us();
        let next = |last: u64| Some(now.max(last + 1));
        let last =
            self.last_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|last| last);
        let id = EntryId(now.max(last + 1));
        let (sender, durable) = bounded(1);
        self.order(Order::Record { id, solution, transactions, is_again: false, durable: sender });
        Recording { id, durable }
    }

    /// Writes an entry that is not settled once more: because it could not be written, or because its transactions are known
    /// now. A crash leaves the old entry or the new one. Answers as [`Recording::durable`] does.
    pub fn record_again(
        &self,
        id: EntryId,
        solution: Arc<Solution>,
        transactions: Option<TemplateTransactions>,
    ) -> Receiver<Result<(), String>> {
        let (sender, durable) = bounded(1);
        self.order(Order::Record { id, solution, transactions, is_again: true, durable: sender });
        durable
    }

    /// Marks an entry with what became of it, if that is final; otherwise the entry stays pending.
    pub fn settle(&self, id: EntryId, outcome: &Submission) {
        if outcome.is_settled() {
            self.order(Order::Settle { id, outcome: outcome.to_string() });
        }
    }

    /// Takes back what [`settle`](Self::settle) wrote: the entry is pending again.
    pub fn reopen(&self, id: EntryId) {
        self.order(Order::Reopen { id });
    }

    fn order(&self, order: Order) {
        let sent = self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok());
        if !sent {
            tracing::error!("the journal's writer has ended");
        }
    }

    /// Reads an entry, pending or settled.
    ///
    /// # Errors
    /// A file that is gone, cannot be read or is no entry.
    pub fn read(&self, id: EntryId) -> Result<JournalEntry, JournalError> {
        let path = entry_path(&self.directory, id);
        let bytes = read_bounded(&path).map_err(|error| JournalError::Io(path.clone(), error))?;
        Ok(record::decode(&bytes).map_err(|error| JournalError::Entry(path, error))?.entry)
    }

    /// How many solutions were written since the journal was opened, each counted once.
    pub fn written_count(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// How many could not be written when they were found.
    pub fn failed_count(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }
}

impl Drop for Journal {
    /// Writes what waits, then ends the writer.
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's writer panicked");
        }
    }
}

/// What the writer's thread owns.
struct Writer {
    config: JournalConfig,
    pending: BTreeMap<EntryId, RecordEnd>,
    /// Oldest first.
    settled: VecDeque<EntryId>,
    _lock: File,
}

impl Writer {
    /// Reads the directory: entries are sorted into pending and settled, bad files are set aside.
    fn read(config: JournalConfig, lock: File) -> Result<(Self, Recovery, u64), JournalError> {
        let mut recovery = Recovery::default();
        let mut writer = Self { config, pending: BTreeMap::new(), settled: VecDeque::new(), _lock: lock };
        let directory = writer.config.directory.clone();
        let failed = |error| JournalError::Io(directory.clone(), error);
        let mut paths = Vec::new();
        for file in fs::read_dir(&directory).map_err(failed)? {
            paths.push(file.map_err(failed)?.path());
        }
        // Names are numbers of one width: by name is by age.
        paths.sort_unstable();
        let mut last_id = 0;
        for path in paths {
            if let Some(id) = entry_id(&path, PARTIAL_EXTENSION)
                && let Err(error) = fs::remove_file(&path)
            {
                // A crash came before it took its entry's place.
                tracing::warn!(%error, %id, "journal: what a crash left of an entry cannot be removed");
            }
            let Some(id) = entry_id(&path, ENTRY_EXTENSION) else { continue };
            last_id = last_id.max(id.0);
            let bytes = match read_bounded(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "journal: a file cannot be read; it is left alone");
                    continue;
                }
            };
            match record::decode(&bytes) {
                Ok(decoded) if decoded.outcome.is_some() => writer.settled.push_back(id),
                Ok(decoded) => {
                    writer.pending.insert(id, decoded.record);
                }
                Err(error) => {
                    if let Err(error) = fs::rename(&path, path.with_extension(CORRUPT_EXTENSION)) {
                        tracing::error!(path = %path.display(), %error, "journal: a file that is no entry cannot be set aside");
                    }
                    recovery.corrupt.push((path, error));
                }
            }
        }
        writer.prune();
        prune_corrupt(&directory);
        recovery.settled_count = writer.settled.len();
        recovery.pending = writer.pending.keys().copied().collect();
        Ok((writer, recovery, last_id))
    }

    fn handle(&mut self, order: Order, counts: &Counts) {
        match order {
            Order::Record { id, solution, transactions, is_again, durable } => {
                let is_new = !self.pending.contains_key(&id);
                let written = self.write(id, &solution, transactions.as_ref(), is_again);
                match &written {
                    Ok(()) if is_new => counts.written.fetch_add(1, Ordering::Relaxed),
                    Err(_) if !is_again => counts.failed.fetch_add(1, Ordering::Relaxed),
                    _ => 0,
                };
                // Nobody has to wait.
                let _ = durable.send(written.map_err(|error| error.to_string()));
            }
            Order::Settle { id, outcome } => {
                if let Err(error) = self.settle(id, &outcome) {
                    tracing::warn!(%error, %id, "journal: an outcome could not be written; the block will be offered again");
                }
            }
            Order::Reopen { id } => {
                if let Err(error) = self.reopen(id) {
                    tracing::warn!(%error, %id, "journal: an outcome could not be taken back; a restart forgets the block");
                }
            }
        }
        self.prune();
    }

    fn write(
        &mut self,
        id: EntryId,
        solution: &Solution,
        transactions: Option<&TemplateTransactions>,
        is_again: bool,
    ) -> io::Result<()> {
        let block = transactions.and_then(|transactions| {
            let (header, coinbase_tx, path) =
                (&solution.header, &solution.coinbase_tx, &solution.merkle_path);
            assemble_block(header, coinbase_tx, path, transactions).ok()
        });
        let entry = JournalEntry { recorded_us: id.0, solution: solution.clone(), block };
        let (bytes, record) = record::encode(&entry);
        if bytes.len() as u64 > ENTRY_LEN_MAX {
            return Err(io::Error::other("the solution is too large for the journal"));
        }
        let path = entry_path(&self.config.directory, id);
        let (mut options, partial) = (OpenOptions::new(), path.with_extension(PARTIAL_EXTENSION));
        let written_to = match is_again {
            false => options.create_new(true).write(true).open(&path).map(|file| (file, &path)),
            true => {
                options.create(true).truncate(true).write(true).open(&partial).map(|file| (file, &partial))
            }
        };
        let (mut file, written_to) = written_to?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| if is_again { fs::rename(&partial, &path) } else { Ok(()) });
        // A torn entry is of no use to anyone, and takes the room that a full disk has not.
        placed.inspect_err(|_| drop(fs::remove_file(written_to)))?;
        self.pending.insert(id, record);
        // The name must last, too.
        File::open(&self.config.directory)?.sync_all()
    }

    fn settle(&mut self, id: EntryId, outcome: &str) -> io::Result<()> {
        // Entries that could not be written have nothing to settle.
        let Some(record) = self.pending.get(&id).copied() else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(entry_path(&self.config.directory, id))?;
        // A torn outcome may follow the record.
        file.set_len(record.len)?;
        file.write_all_at(&record::encode_outcome(&record, outcome), record.len)?;
        file.sync_data()?;
        self.pending.remove(&id);
        self.settled.push_back(id);
        Ok(())
    }

    fn reopen(&mut self, id: EntryId) -> io::Result<()> {
        let Some(place) = self.settled.iter().rposition(|settled| *settled == id) else { return Ok(()) };
        let path = entry_path(&self.config.directory, id);
        let record = record::decode(&read_bounded(&path)?).map_err(io::Error::other)?.record;
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(record.len)?;
        file.sync_all()?;
        self.settled.remove(place);
        self.pending.insert(id, record);
        Ok(())
    }

    /// Removes what is too much or too old.
    fn prune(&mut self) {
        let oldest = EntryId(now_us().saturating_sub(self.config.age_max.as_micros() as u64));
        while let Some(id) = self.settled.front().copied()
            && (self.settled.len() > self.config.settled_max || id < oldest)
        {
            self.settled.pop_front();
            self.remove(id);
        }
        while let Some((id, _)) = self.pending.first_key_value()
            && (self.pending.len() > PENDING_MAX || *id < oldest)
        {
            let id = *id;
            tracing::warn!(%id, "journal: a solution that was never settled is pruned");
            self.pending.remove(&id);
            self.remove(id);
        }
    }

    fn remove(&self, id: EntryId) {
        if let Err(error) = fs::remove_file(entry_path(&self.config.directory, id)) {
            tracing::warn!(%error, %id, "journal: an old entry cannot be removed");
        }
    }
}

/// Keeps the newest files that were set aside.
fn prune_corrupt(directory: &Path) {
    let Ok(files) = fs::read_dir(directory) else { return };
    let is_corrupt =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == CORRUPT_EXTENSION);
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).filter(is_corrupt).collect();
    paths.sort_unstable();
    let surplus = paths.len().saturating_sub(CORRUPT_MAX);
    for path in &paths[..surplus] {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "journal: an old corrupt file cannot be removed");
        }
    }
}

fn entry_path(directory: &Path, id: EntryId) -> PathBuf {
    directory.join(format!("{id}.{ENTRY_EXTENSION}"))
}

/// The entry that a file is or belongs to, by its name.
fn entry_id(path: &Path, extension: &str) -> Option<EntryId> {
    let is_entry = path.extension().is_some_and(|of| of == extension);
    let stem = path.file_stem()?.to_str()?;
    (is_entry && stem.len() == 20).then(|| stem.parse().ok().map(EntryId))?
}

/// At most one byte more than the largest entry: such a file decodes to an error.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(ENTRY_LEN_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
