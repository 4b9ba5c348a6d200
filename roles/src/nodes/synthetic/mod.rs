//! A template source without a node: work that looks like mainnet's, for measurements.
//!
//! Templates carry a merkle path as long as that of so many transactions, the coinbase's usual fields, and transactions for who
//! asks for them. The target is the hardest there is, so that no share is a block; a solution is answered as refused,
//! whatever it is. Tips and templates carry the moment they were made ([`Stamp`]): a simulated device behind any pool knows how
//! old its work is.
//!
//! New tips and templates come on timers, and at signals: SIGUSR2 makes a tip, SIGUSR1 a template. Signals need no port and no
//! client, work for every role alike, and let whoever measures say when; several that come at once are one.
//!
//! Bounds: [`COMMANDS_MAX`] commands wait, then the caller waits; [`TRANSACTIONS_MAX`] transactions; templates are kept as
//! `store` says and share their transactions. Threads: the source's own, and one for the signals.

mod transactions;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_hasher::{Digest, Target};
use adit_loadgen::stamp::Stamp;
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use crossbeam::channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use signal_hook::iterator::{Handle, Signals};

use self::transactions::Transactions;
use super::coinbase::{BLOCK_WEIGHT_MAX, COINBASE_SEQUENCE, COINBASE_TX_VERSION, height_push};
use super::feed::Feed;
use super::store::TemplateStore;
use super::{CLASSES_MAX, SourceUpdate, Submission, TemplateIds, TemplateSource, TemplateTransactions};
use crate::utc::Utc;

/// Transactions of a template at most: as many as fit a block.
pub const TRANSACTIONS_MAX: usize = transactions::TRANSACTIONS_MAX;
/// Commands that wait for the source's thread.
pub const COMMANDS_MAX: usize = 64;
/// The height of the first tip: about where mainnet is.
const FIRST_HEIGHT: u32 = 925_000;
/// What a block of that height makes.
const SUBSIDY_SAT: u64 = 312_500_000;
/// Header version of every template: BIP9 with no deployment signalled.
const VERSION: u32 = 0x2000_0000;
/// The smallest target that has a compact form: 1. A hash meets it once in 2^255.
const NBITS: u32 = 0x0300_0001;
/// How soon reports that the reader did not take are offered again.
const FEED_RETRY: Duration = Duration::from_millis(20);

/// How a synthetic source is set up.
#[derive(Clone, Debug)]
pub struct SyntheticConfig {
    /// What the log calls it.
    pub name: String,
    /// Transactions of each template, besides the coinbase; at most [`TRANSACTIONS_MAX`], and what its class leaves room for.
    pub transactions_count: usize,
    /// Between two templates for one tip.
    pub template_interval: Duration,
    /// Between two tips.
    pub tip_interval: Duration,
}

impl Default for SyntheticConfig {
    /// As busy as mainnet.
    fn default() -> Self {
        Self {
            name: "synthetic".to_owned(),
            transactions_count: 4_000,
            template_interval: Duration::from_secs(30),
            tip_interval: Duration::from_secs(600),
        }
    }
}

/// Why a synthetic source did not start.
#[derive(Debug)]
pub enum StartError {
    /// SIGUSR1 and SIGUSR2 cannot be taken over.
    Signals(std::io::Error),
    /// The system gives no thread.
    Thread(std::io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signals(error) => {
                write!(f, "synthetic source: the signals USR1 and USR2 cannot be taken over: {error}")
            }
            Self::Thread(error) => write!(
                f,
                "synthetic source: the system gives no thread: {error}; raise the limit with `ulimit -u` or TasksMax="
            ),
        }
    }
}

impl std::error::Error for StartError {}

enum Command {
    Want(ClassId, Reserve),
    Unwant(ClassId),
    Tip,
    Template,
    Stop,
}

/// A running synthetic source. Dropping it stops it.
pub struct SyntheticSource {
    name: String,
    commands: Sender<Command>,
    updates: Receiver<SourceUpdate>,
    store: TemplateStore,
    signals: Handle,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for SyntheticSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyntheticSource").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SyntheticSource {
    /// Takes over SIGUSR1 and SIGUSR2 and begins with a first tip.
    ///
    /// # Errors
    /// The system refuses signals or threads; nothing is left running.
    pub fn start(config: SyntheticConfig) -> Result<Self, StartError> {
        let mut taken = Signals::new([SIGUSR1, SIGUSR2]).map_err(StartError::Signals)?;
        let (commands, orders) = bounded(COMMANDS_MAX);
        let (feed, updates) = Feed::new();
        let store = TemplateStore::default();
        let name = config.name.clone();
        let mut this = Self { name, commands, updates, store, signals: taken.handle(), threads: Vec::new() };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
        };
        let store = this.store.clone();
        this.threads
            .push(spawn("synthetic", Box::new(move || Chain::begin(config, store, feed).run(&orders)))?);
        let commands = this.commands.clone();
        let pass_on = move || {
            for signal in taken.forever() {
                let command = if signal == SIGUSR2 { Command::Tip } else { Command::Template };
                if commands.send(command).is_err() {
                    return;
                }
            }
        };
        this.threads.push(spawn("synthetic-signals", Box::new(pass_on))?);
        Ok(this)
    }

    /// Makes a new tip, with a template on it for every class.
    pub fn announce_tip(&self) {
        self.send(Command::Tip);
    }

    /// Makes a new template on the present tip for every class.
    pub fn announce_template(&self) {
        self.send(Command::Template);
    }

    fn send(&self, command: Command) {
        // The thread ends only when the source does.
        let _ = self.commands.send(command);
    }

    fn stop(&mut self) {
        self.signals.close();
        self.send(Command::Stop);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the synthetic source panicked");
            }
        }
    }
}

impl Drop for SyntheticSource {
    fn drop(&mut self) {
        self.stop();
    }
}

impl TemplateSource for SyntheticSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn updates(&self) -> Receiver<SourceUpdate> {
        self.updates.clone()
    }

    fn want(&self, class: ClassId, reserve: Reserve) {
        self.send(Command::Want(class, reserve));
    }

    fn unwant(&self, class: ClassId) {
        self.send(Command::Unwant(class));
    }

    fn submit(&self, solution: Arc<Solution>) -> Receiver<Submission> {
        let Solution { digest, target, .. } = *solution;
        let reason = if target.is_met_by(&digest) {
            tracing::error!(%digest, "a hash meets a target that nothing should meet");
            format!("no node behind the synthetic source; {digest} meets the target, which nothing should")
        } else {
            format!("no node behind the synthetic source; high-hash, {digest} does not meet the target")
        };
        refuse(reason)
    }

    fn submit_block(&self, _block: Arc<[u8]>) -> Receiver<Submission> {
        refuse("no node behind the synthetic source: it has no chain that a block could join".to_owned())
    }

    fn transactions(&self, template_id: u64) -> Option<TemplateTransactions> {
        self.store.find(template_id)
    }

    fn shutdown(mut self: Box<Self>) {
        self.stop();
    }
}

fn refuse(reason: String) -> Receiver<Submission> {
    let (answer, receiver) = bounded(1);
    // The channel has room for its only message.
    let _ = answer.send(Submission::Rejected { reason });
    receiver
}

/// What the source's thread owns.
struct Chain {
    config: SyntheticConfig,
    classes: BTreeMap<ClassId, Reserve>,
    height: u32,
    /// The tip's hash: the same for a class that comes later.
    prev_hash: [u8; 32],
    transactions: Transactions,
    next_tip: Instant,
    next_template: Instant,
    ids: TemplateIds,
    store: TemplateStore,
    feed: Feed,
}

impl Chain {
    fn begin(config: SyntheticConfig, store: TemplateStore, feed: Feed) -> Self {
        let now = Instant::now();
        let mut this = Self {
            transactions: Transactions::new(FIRST_HEIGHT + 1, config.transactions_count),
            classes: BTreeMap::new(),
            height: FIRST_HEIGHT,
            prev_hash: Stamp::now().prev_hash(FIRST_HEIGHT),
            next_tip: now + config.tip_interval,
            next_template: now + config.template_interval,
            ids: TemplateIds::default(),
            config,
            store,
            feed,
        };
        this.store.begin_tip();
        this.feed.report(SourceUpdate::Up);
        this
    }

    /// Serves until it is told to stop.
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(self.next_timeout()) {
                Ok(Command::Want(class, reserve)) => self.want(class, reserve),
                Ok(Command::Unwant(class)) => {
                    self.classes.remove(&class);
                    self.store.unwant(class);
                }
                Ok(Command::Tip) => self.advance(),
                Ok(Command::Template) => self.renew(),
                Err(error) if error.is_timeout() => {}
                Ok(Command::Stop) | Err(_) => return,
            }
            let now = Instant::now();
            if now >= self.next_tip {
                self.advance();
            } else if now >= self.next_template {
                self.renew();
            }
            self.feed.flush();
        }
    }

    fn next_timeout(&self) -> Duration {
        let timers = self.next_tip.min(self.next_template).saturating_duration_since(Instant::now());
        if self.feed.is_blocked() { timers.min(FEED_RETRY) } else { timers }
    }

    /// Begins a class, or gives it another reserve.
    fn want(&mut self, class: ClassId, reserve: Reserve) {
        if self.classes.get(&class) == Some(&reserve) {
            return;
        }
        let is_known = self.classes.remove(&class).is_some();
        if reserve.reserved_weight > BLOCK_WEIGHT_MAX {
            let weight = reserve.reserved_weight;
            let reason = format!("a reserve of {weight} weight units leaves no room for a block");
            return self.feed.report(SourceUpdate::Refused { class, reason });
        }
        if !is_known && self.classes.len() >= CLASSES_MAX {
            let reason = format!("{CLASSES_MAX} classes of reserve are served already");
            return self.feed.report(SourceUpdate::Refused { class, reason });
        }
        self.classes.insert(class, reserve);
        let template_id = self.announce_template(class, reserve, true);
        self.announce_tip(class, template_id);
    }

    /// A new tip. Everything is made before its moment is taken, which is that of the announcement.
    fn advance(&mut self) {
        self.height += 1;
        self.transactions = Transactions::new(self.height + 1, self.config.transactions_count);
        self.store.begin_tip();
        let mut named = Vec::with_capacity(self.classes.len());
        for (class, reserve) in self.classes.clone() {
            named.push((class, self.announce_template(class, reserve, true)));
        }
        self.prev_hash = Stamp::now().prev_hash(self.height);
        for (class, template_id) in named {
            self.announce_tip(class, template_id);
        }
        let (height, hash) = (self.height, Digest(self.prev_hash));
        self.feed.report(SourceUpdate::BlockConnected { height, hash, reward_sat: None });
        let now = Instant::now();
        (self.next_tip, self.next_template) =
            (now + self.config.tip_interval, now + self.config.template_interval);
    }

    /// A new template on the tip.
    fn renew(&mut self) {
        self.transactions.renew();
        for (class, reserve) in self.classes.clone() {
            self.announce_template(class, reserve, false);
        }
        self.next_template = Instant::now() + self.config.template_interval;
    }

    fn announce_tip(&mut self, class: ClassId, template_id: u64) {
        let tip = PrevHash {
            template_id,
            prev_hash: self.prev_hash,
            header_timestamp: Utc::now().to_u32(),
            nbits: NBITS,
            target: Target::from_nbits(NBITS).expect("the constant is a target"),
        };
        self.report(class, TemplateUpdate::SetNewPrevHash(Arc::new(tip)));
    }

    fn announce_template(&mut self, class: ClassId, reserve: Reserve, future_template: bool) -> u64 {
        let selection = self.transactions.select(BLOCK_WEIGHT_MAX - reserve.reserved_weight);
        let template_id = self.ids.next_id();
        let merkle_path = selection.merkle_path();
        self.store.insert(template_id, class, selection.shared());
        let mut coinbase_tx_outputs = selection.witness_commitment();
        coinbase_tx_outputs.extend_from_slice(&Stamp::now().output());
        let template = Template {
            template_id,
            future_template,
            version: VERSION,
            coinbase_tx_version: COINBASE_TX_VERSION,
            coinbase_prefix: height_push(self.height + 1),
            coinbase_tx_input_sequence: COINBASE_SEQUENCE,
            coinbase_tx_value_remaining: SUBSIDY_SAT + selection.fees_sat(),
            coinbase_tx_outputs_count: 2,
            coinbase_tx_outputs,
            coinbase_tx_locktime: self.height,
            merkle_path,
        };
        self.report(class, TemplateUpdate::NewTemplate(Arc::new(template)));
        template_id
    }

    fn report(&mut self, class: ClassId, update: TemplateUpdate) {
        // There is no node to hear it from: it begins here.
        self.feed.report(SourceUpdate::Template { class, update, learned: Instant::now() });
    }
}
