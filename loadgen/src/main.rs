//! `adit-loadgen`: mining devices for pools under test.

mod commands;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_codec::url::PoolUrl;
use adit_hasher::{Backend, Hasher};
use adit_loadgen::miner::{DeviceKind, Miner, MinerConfig, MinerHandle};
use adit_loadgen::summary::Summary;
use clap::{Args, Parser, Subcommand, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between progress lines, on a terminal and elsewhere.
const PROGRESS_TERMINAL: Duration = Duration::from_secs(1);
const PROGRESS_LOG: Duration = Duration::from_secs(10);
/// How long after the first a further signal changes nothing.
const ONE_STOP: Duration = Duration::from_millis(300);
/// How often the end is looked for.
const TICK: Duration = Duration::from_millis(100);

/// Mining devices for pools under test.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mine on the CPU with real hashes, until a limit or a signal ends it.
    Mine(MineArgs),
    /// Simulate up to millions of devices with synthetic shares, and report what became of each share, and when.
    Simulate(commands::SimulateArgs),
    /// Add the reports of several hosts up to one.
    Merge(commands::MergeArgs),
    /// A part of a load: what `simulate --processes` starts.
    #[command(hide = true)]
    Part,
}

#[derive(Debug, Args)]
struct MineArgs {
    /// The pool: stratum2+tcp://HOST:PORT/AUTHORITY_KEY.
    url: PoolUrl,
    /// How many devices, each with a channel of its own.
    #[arg(long, default_value_t = 1)]
    devices: usize,
    /// How many connections the devices share; as many as devices if not given.
    #[arg(long, conflicts_with = "per_connection")]
    connections: Option<usize>,
    /// How many devices share a connection.
    #[arg(long)]
    per_connection: Option<usize>,
    /// Which channels the devices open; mixed: both kinds in turn.
    #[arg(long, value_enum, default_value_t = Kind::Standard)]
    kind: Kind,
    /// Hashing threads, shared by all devices.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// User identity; with several devices each appends a dot and its number.
    #[arg(long, default_value = "adit-loadgen")]
    user: String,
    /// Hashes per second that each device computes at most.
    #[arg(long)]
    hash_rate_limit: Option<f64>,
    /// Hashes per second that each device announces; measured if not given.
    #[arg(long)]
    nominal_hash_rate: Option<f32>,
    /// Stop after so many seconds.
    #[arg(long, value_parser = parse_seconds)]
    duration: Option<Duration>,
    /// Stop once so many shares were accepted.
    #[arg(long)]
    shares: Option<u64>,
    /// Say that the devices cannot use extended jobs.
    #[arg(long)]
    requires_standard_jobs: bool,
    /// Name the device in each extended share (extension 0x0002).
    #[arg(long)]
    worker_names: bool,
    /// Bytes of extranonce that extended channels ask for.
    #[arg(long, default_value_t = 4)]
    extranonce_size: u16,
    /// Hash with this backend only: portable, sha-ni, avx2 or avx-512. The fastest if not given.
    #[arg(long)]
    backend: Option<Backend>,
    /// Exit with status 1 if a share was rejected, lost or not answered, or none was accepted.
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Standard,
    Extended,
    Mixed,
}

impl From<Kind> for DeviceKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Standard => Self::Standard,
            Kind::Extended => Self::Extended,
            Kind::Mixed => Self::Mixed,
        }
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 =
        text.trim_end_matches('s').parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let failed = match Cli::parse().command {
        Command::Mine(args) => mine(&args).map(|summary| {
            // A reader that has gone misses nothing that the exit status does not say.
            let _ = writeln!(std::io::stdout(), "{summary}");
            summary.failure.is_some() || (args.strict && !summary.is_flawless())
        }),
        Command::Simulate(args) => commands::simulate(&args),
        Command::Merge(args) => commands::merge(&args),
        Command::Part => commands::part(),
    };
    match failed {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::FAILURE,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "adit-loadgen: {message}");
            ExitCode::from(2)
        }
    }
}

/// Two flags: signals set the first, and end the program once the second is set.
fn catch_signals() -> Result<(Arc<AtomicBool>, Arc<AtomicBool>), String> {
    let (stop, ends_at_once) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second signal ends the program at once, unless it comes with the first (`timeout` sends two).
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&ends_at_once))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| format!("signals cannot be caught: {error}"))?;
    }
    Ok((stop, ends_at_once))
}

fn mine(args: &MineArgs) -> Result<Summary, String> {
    let config = config(args)?;
    let (stop, ends_at_once) = catch_signals()?;
    let _ = writeln!(std::io::stderr(), "hashing by batch size: {}", config.hasher.describe());
    let miner = Miner::start(config).map_err(|error| error.to_string())?;
    watch(&miner, &stop);
    std::thread::spawn(move || {
        std::thread::sleep(ONE_STOP);
        ends_at_once.store(true, Ordering::SeqCst);
    });
    Ok(miner.stop())
}

fn config(args: &MineArgs) -> Result<MinerConfig, String> {
    let hasher = match args.backend {
        None => Hasher::detect(),
        Some(backend) => {
            Hasher::forced(backend).ok_or_else(|| format!("--backend: this CPU has no {backend}"))?
        }
    };
    let devices_per_connection = match (args.connections, args.per_connection) {
        (Some(0), _) => return Err("--connections: must be at least 1".to_owned()),
        (Some(connections), _) => args.devices.div_ceil(connections).max(1),
        (None, Some(per_connection)) => per_connection,
        (None, None) => 1,
    };
    Ok(MinerConfig {
        devices: args.devices,
        devices_per_connection,
        kind: args.kind.into(),
        threads: args.threads,
        user_identity: args.user.clone(),
        hash_rate_limit: args.hash_rate_limit,
        nominal_hash_rate: args.nominal_hash_rate,
        duration: args.duration,
        shares_max: args.shares,
        requires_standard_jobs: args.requires_standard_jobs,
        worker_names: args.worker_names,
        min_extranonce_size: args.extranonce_size,
        hasher,
        ..MinerConfig::new(args.url.clone())
    })
}

/// Shows how it goes until the miner is finished or a signal came.
fn watch(miner: &MinerHandle, stop: &AtomicBool) {
    let terminal = std::io::stderr().is_terminal();
    let interval = if terminal { PROGRESS_TERMINAL } else { PROGRESS_LOG };
    let (mut shown_at, mut hashes) = (Instant::now(), 0);
    let (mut told, mut told_at) = (None, None::<Instant>);
    while !stop.load(Ordering::Relaxed) && !miner.wait(TICK) {
        let summary = miner.snapshot();
        let mut stderr = std::io::stderr().lock();
        // What keeps all devices from mining is said at once, on a line of its own.
        let may_tell = told_at.is_none_or(|at| at.elapsed() >= PROGRESS_TERMINAL);
        if summary.devices_mining == 0 && summary.last_error != told && may_tell {
            told.clone_from(&summary.last_error);
            told_at = Some(Instant::now());
            let start = if terminal { "\r\x1b[K" } else { "" };
            let _ = told.as_ref().map(|error| writeln!(stderr, "{start}{error}"));
        }
        let passed = shown_at.elapsed();
        if passed < interval {
            continue;
        }
        let hash_rate = (summary.hashes - hashes) as f64 / passed.as_secs_f64();
        (shown_at, hashes) = (Instant::now(), summary.hashes);
        let line = summary.progress(hash_rate);
        // Cut to the narrowest usual terminal: a line that wraps cannot be redrawn. Progress that cannot be shown is no
        // reason to stop.
        let _ = if terminal { write!(stderr, "\r\x1b[K{line:.79}") } else { writeln!(stderr, "{line}") };
    }
    if terminal {
        let _ = writeln!(std::io::stderr());
    }
}
