//! A pool that can be watched at work: node, pool and CPU miners in one process, talking over TCP as they would anywhere;
//! or with Bitcoin Core's own node beside it.
//!
//! Nothing is simulated: the miners hash, the node validates with Bitcoin Core's rules, and a block counts when the node
//! has accepted it. Bounds: 256 blocks wait to be shown.

mod core_node;
mod temporary;
mod terminal;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_codec::url::PoolUrl;
use adit_loadgen::miner::{DeviceKind, Miner, MinerConfig, MinerConfigError, MinerHandle};
use adit_loadgen::summary::Summary;

use crate::config::{
    Authority, Chain, Cpus, PoolConfig, Settings, SourceKind, TemplateSourceSettings, allowed_cpus,
};
use crate::keys::{self, files::FileError};
use crate::nodes::Submission;
use crate::pool::{BlockReport, Btc, HashRate, Meter, Pool, RoleError};
use core_node::CoreNode;
use temporary::Temporary;
use terminal::Screen;

/// Blocks that wait to be shown; older ones are only counted.
const RECENT_MAX: usize = 256;
/// How often the screen is looked after.
const TICK: Duration = Duration::from_millis(100);
/// How often rates are measured.
const METER_INTERVAL: Duration = Duration::from_secs(1);
/// Shares per minute and miner: enough to see something happen.
const SHARES_PER_MINUTE: f64 = 600.0;
/// About 4,300 hashes a share: a slow CPU finds as many shares as a fast one.
const DIFFICULTY_MIN: f64 = 1e-6;
/// Certificates made by a demo are valid for this long.
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(86_400);

/// Which node a demo runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DemoNode {
    /// The embedded one, in this process.
    Embedded,
    /// Bitcoin Core's own, as a process on regtest.
    Core {
        /// Its program; searched for without.
        path: Option<PathBuf>,
    },
}

/// What a demo is to do.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Stop after this many accepted blocks.
    pub blocks: Option<u64>,
    /// How many miners.
    pub miners: usize,
    /// Hashes per second of each miner at most: a demo is to be watched, and leaves the CPU to others.
    pub hash_rate: u32,
    /// Which node.
    pub node: DemoNode,
    /// Which private chain; regtest with [`DemoNode::Core`].
    pub chain: Chain,
    /// Where the pool listens.
    pub listen: SocketAddr,
    /// What is kept is kept here.
    pub data_dir: Option<PathBuf>,
    /// Who is paid.
    pub payout: String,
}

/// Why a demo failed.
#[derive(Debug)]
pub enum DemoError {
    /// The options do not fit.
    Usage(String),
    /// Bitcoin Core's node does not run.
    Node(String),
    /// The pool did not start.
    Pool(RoleError),
    /// A miner did not start.
    Miner(MinerConfigError),
    /// A directory or key file cannot be used.
    Files(String),
    /// The pool did not end in good order.
    Disorder,
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(wrong) | Self::Files(wrong) | Self::Node(wrong) => f.write_str(wrong),
            Self::Pool(error) => {
                error.fmt(f)?;
                if let RoleError::Engine(adit_engine::StartError::Listen { .. }) = error {
                    f.write_str(
                        "\nGive the demo another address: adit demo --listen 127.0.0.1:0 takes any free port",
                    )?;
                }
                Ok(())
            }
            Self::Miner(error) => write!(f, "miner: {error}"),
            Self::Disorder => f.write_str("the pool did not end in good order; what went wrong is above"),
        }
    }
}

impl std::error::Error for DemoError {}

impl From<FileError> for DemoError {
    fn from(error: FileError) -> Self {
        Self::Files(error.to_string())
    }
}

/// Blocks as the pool reports them.
#[derive(Debug, Default)]
struct Blocks {
    accepted: u64,
    lost: u64,
    reward_sat: u64,
    height: u32,
    recent: VecDeque<BlockReport>,
    unshown: u64,
}

impl Blocks {
    fn add(&mut self, report: &BlockReport) {
        match &report.outcome {
            Submission::Accepted { height, reward_sat, .. } => {
                self.accepted += 1;
                self.reward_sat += reward_sat;
                self.height = *height;
            }
            Submission::Stale { .. } | Submission::Rejected { .. } => self.lost += 1,
            _ => {}
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
            self.unshown += 1;
        }
        self.recent.push_back(report.clone());
    }
}

/// Runs a demo until its blocks are found or `is_stopped` says so.
///
/// # Errors
/// What did not start and what to do.
pub fn run(options: &DemoOptions, is_stopped: &mut dyn FnMut() -> bool) -> Result<(), DemoError> {
    let (directory, _temporary) = directory(options.data_dir.as_deref())?;
    let mut screen = Screen::stdout();
    let blocks: Arc<Mutex<Blocks>> = Arc::default();
    let told = Arc::clone(&blocks);
    let on_block = Box::new(move |report: &BlockReport| lock(&told).add(report));
    // Ends after the pool, which has blocks for it up to the end.
    let core = match &options.node {
        DemoNode::Embedded => None,
        DemoNode::Core { path } => Some(CoreNode::start(path.as_deref(), &directory.join("core"))?),
    };
    let config = pool_config(options, core.as_ref(), &directory)?;
    let pool = Pool::start(config, on_block).map_err(DemoError::Pool)?;
    greet(&mut screen, options, &pool);
    let started = Instant::now();
    let miners = start_miners(options, &pool)?;
    let mut watch = Watch { screen, blocks, started, goal: options.blocks };
    watch.run(&pool, &miners, is_stopped);
    let elapsed = started.elapsed();
    watch.screen.clear();
    let summaries: Vec<_> = miners.into_iter().map(MinerHandle::stop).collect();
    let status = pool.status(&mut Meter::default());
    let stopped = pool.stop();
    watch.show_blocks();
    watch.screen.line(&summary(&lock(&watch.blocks), &status, &summaries, elapsed, options));
    match stopped.threads_failed {
        0 => Ok(()),
        _ => Err(DemoError::Disorder),
    }
}

/// What the screen shows while miners work.
struct Watch {
    screen: Screen,
    blocks: Arc<Mutex<Blocks>>,
    started: Instant,
    goal: Option<u64>,
}

impl Watch {
    fn run(&mut self, pool: &Pool, miners: &[MinerHandle], is_stopped: &mut dyn FnMut() -> bool) {
        let mut meter = Meter::default();
        let mut hashing = Hashing::default();
        let mut rate = "measuring".to_owned();
        let mut meter_due = Instant::now() + METER_INTERVAL;
        loop {
            self.show_blocks();
            let accepted = lock(&self.blocks).accepted;
            if self.goal.is_some_and(|goal| accepted >= goal) || self.screen.has_failed() || is_stopped() {
                return;
            }
            let now = Instant::now();
            // A meter of its own has the counts of this moment; rates need a longer look.
            let mut status = pool.status(&mut Meter::default());
            if now >= meter_due {
                meter_due = now + METER_INTERVAL;
                status = pool.status(&mut meter);
                rate = if miners.is_empty() { status.hash_rate } else { hashing.measure(miners, now) }
                    .to_string();
                if let Some(trouble) = hashing.new_trouble() {
                    self.screen.line(&format!("a miner does not mine: {trouble}"));
                }
            }
            let blocks = match self.goal {
                Some(goal) => format!("{accepted} of {}", counted(goal, "block")),
                None => counted(accepted, "block"),
            };
            let text = format!(
                "{:>4} s   {rate}   {}, {} rejected   {blocks}   {}",
                self.started.elapsed().as_secs(),
                counted(status.shares_accepted, "share"),
                status.rejected(),
                counted(status.channels, "channel"),
            );
            self.screen.status(&text, now);
            std::thread::sleep(TICK);
        }
    }

    fn show_blocks(&mut self) {
        let (reports, unshown) = {
            let mut blocks = lock(&self.blocks);
            (std::mem::take(&mut blocks.recent), std::mem::take(&mut blocks.unshown))
        };
        if unshown > 0 {
            self.screen.line(&format!("... {unshown} blocks more"));
        }
        for report in reports {
            let line = block_line(&report, self.screen.is_terminal());
            self.screen.line(&line);
        }
    }
}

/// A block's line; on a terminal the hash is cut, so that the line fits.
fn block_line(report: &BlockReport, is_terminal: bool) -> String {
    let BlockReport { outcome, hash, finder } = report;
    let mut hash = hash.to_string();
    if is_terminal {
        const SHOWN: usize = 16;
        const SHOWN_AT_END: usize = 6;
        hash.replace_range(SHOWN..hash.len() - SHOWN_AT_END, "...");
    }
    match outcome {
        Submission::Accepted { height, reward_sat, .. } => {
            format!("block {height:>5}   {hash}   {finder:<12}   {} BTC", Btc(*reward_sat))
        }
        Submission::Stale { height, .. } => {
            format!("stale {height:>5}   {hash}   {finder:<12}   came second")
        }
        Submission::Rejected { reason } => format!("block rejected   {hash}   {finder}   {reason}"),
        other => format!("block not accepted yet   {hash}   {finder}   {other}"),
    }
}

/// What the miners compute.
#[derive(Debug)]
struct Hashing {
    hashes: u64,
    at: Instant,
    trouble: Option<String>,
    told: Option<String>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { hashes: 0, at: Instant::now(), trouble: None, told: None }
    }
}

impl Hashing {
    fn measure(&mut self, miners: &[MinerHandle], now: Instant) -> HashRate {
        let summaries: Vec<Summary> = miners.iter().map(MinerHandle::snapshot).collect();
        let hashes: u64 = summaries.iter().map(|summary| summary.hashes).sum();
        let seconds = now.duration_since(self.at).as_secs_f64().max(1e-9);
        let rate = HashRate(hashes.saturating_sub(self.hashes) as f64 / seconds);
        (self.hashes, self.at) = (hashes, now);
        let idle = summaries.into_iter().find(|summary| summary.devices_mining == 0);
        self.trouble = idle.and_then(|summary| summary.last_error);
        rate
    }

    /// What keeps a miner from mining, once.
    fn new_trouble(&mut self) -> Option<String> {
        if self.trouble == self.told {
            return None;
        }
        self.told.clone_from(&self.trouble);
        self.trouble.clone()
    }
}

/// `1 share`, `2 shares`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn greet(screen: &mut Screen, options: &DemoOptions, pool: &Pool) {
    let miners = match options.miners {
        0 => "no miner".to_owned(),
        1 => "1 CPU miner".to_owned(),
        count => format!("{count} CPU miners"),
    };
    let chain = options.chain;
    screen.line(&match options.node {
        DemoNode::Embedded => {
            format!("Adit demo: a pool, a node on a private {chain}, and {miners} in this process.")
        }
        DemoNode::Core { .. } => {
            format!("Adit demo: a pool and {miners} in this process, and Bitcoin Core's node on a private {chain}.")
        }
    });
    screen.line(&format!("Point a miner of your own at  {}", pool.url()));
    screen.line(match options.data_dir {
        Some(_) => "Chain, journal and key are kept. Ctrl-C ends it.\n",
        None => "Everything is temporary. Ctrl-C ends it.\n",
    });
}

fn summary(
    blocks: &Blocks,
    status: &crate::pool::Status,
    miners: &[Summary],
    elapsed: Duration,
    options: &DemoOptions,
) -> String {
    let accepted = blocks.accepted;
    let mut out = format!(
        "\n{} accepted by the node in {:.1} s: {} BTC",
        counted(accepted, "block"),
        elapsed.as_secs_f64(),
        Btc(blocks.reward_sat)
    );
    if accepted > 0 {
        out.push_str(&format!(", chain height {}", blocks.height));
    }
    if blocks.lost > 0 {
        out.push_str(&format!("; {} stale or rejected", blocks.lost));
    }
    let codes = match status.rejected() {
        0 => String::new(),
        _ => format!(" ({})", status.rejected_by_code()),
    };
    out.push_str(&format!(
        "\nShares: {} accepted, {} rejected{codes}",
        status.shares_accepted,
        status.rejected()
    ));
    let hashes: u64 = miners.iter().map(|miner| miner.hashes).sum();
    if hashes > 0 {
        let rate = HashRate(hashes as f64 / elapsed.as_secs_f64().max(1e-9));
        out.push_str(&format!("\nMiners: {:.1} million hashes, {rate}", hashes as f64 / 1e6));
    }
    if options.blocks.is_some_and(|goal| accepted < goal) {
        out.push_str("\nStopped before all blocks were found.");
    }
    out
}

fn directory(data_dir: Option<&Path>) -> Result<(PathBuf, Option<Temporary>), DemoError> {
    match data_dir {
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .map_err(|error| DemoError::Files(format!("{}: {error}", directory.display())))?;
            Ok((directory.to_owned(), None))
        }
        None => {
            let temporary = Temporary::make(&std::env::temp_dir()).map_err(|error| {
                DemoError::Files(format!("no temporary directory: {error}; give one with --data-dir"))
            })?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

fn pool_config(
    options: &DemoOptions,
    core: Option<&CoreNode>,
    directory: &Path,
) -> Result<PoolConfig, DemoError> {
    let key_file = directory.join("authority.key");
    let secret = if options.data_dir.is_some() && key_file.exists() {
        keys::read_authority(&key_file)?
    } else {
        let key = keys::generate_authority();
        keys::files::create_secret(&key_file, &keys::authority_text(&key))?;
        key
    };
    let authority = Authority::Present { secret, static_secret: None, validity: CERTIFICATE_VALIDITY };
    let mut settings = Settings::default();
    settings.pool.listen = options.listen;
    settings.pool.payout.clone_from(&options.payout);
    settings.pool.pool_tag = "/Adit demo/".to_owned();
    settings.pool.shutdown_grace_s = 2.0;
    // One shard is plenty, and leaves the other CPUs to the miners.
    settings.engine.cpus =
        Cpus::List(allowed_cpus().map_err(DemoError::Files)?.into_iter().take(1).collect());
    settings.vardiff.shares_per_minute = SHARES_PER_MINUTE;
    settings.vardiff.difficulty_min = DIFFICULTY_MIN;
    settings.limits.connections_max = 1_000;
    let source = TemplateSourceSettings { chain: options.chain, ..TemplateSourceSettings::default() };
    settings.template_source = vec![match core {
        Some(core) => TemplateSourceSettings {
            kind: SourceKind::CoreIpc,
            socket: Some(core.socket().to_owned()),
            ..source
        },
        None => TemplateSourceSettings { data_dir: Some(directory.join("node")), ..source },
    }];
    settings.journal.dir = directory.join("journal");
    settings.log.status_interval_s = 0;
    PoolConfig::from_settings(settings, authority).map_err(|problems| {
        let messages: Vec<_> = problems.into_iter().map(|problem| problem.message).collect();
        DemoError::Usage(messages.join("\n"))
    })
}

fn start_miners(options: &DemoOptions, pool: &Pool) -> Result<Vec<MinerHandle>, DemoError> {
    let address = pool.local_addr();
    let host = if address.ip().is_unspecified() {
        if address.is_ipv6() { "::1".to_owned() } else { "127.0.0.1".to_owned() }
    } else {
        address.ip().to_string()
    };
    let url = PoolUrl { host, port: address.port(), authority: pool.authority() };
    (1..=options.miners)
        .map(|number| {
            let kind = if number % 2 == 1 { DeviceKind::Standard } else { DeviceKind::Extended };
            let name = if number % 2 == 1 { "standard" } else { "extended" };
            let user_identity = format!("{name}-{}", number.div_ceil(2));
            let config = MinerConfig {
                kind,
                user_identity,
                hash_rate_limit: Some(options.hash_rate.into()),
                nominal_hash_rate: Some(options.hash_rate as f32),
                ..MinerConfig::new(url.clone())
            };
            Miner::start(config).map_err(DemoError::Miner)
        })
        .collect()
}

fn lock(blocks: &Mutex<Blocks>) -> std::sync::MutexGuard<'_, Blocks> {
    blocks.lock().unwrap_or_else(PoisonError::into_inner)
}
