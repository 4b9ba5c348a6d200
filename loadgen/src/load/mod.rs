//! A load from beginning to end: parts in this process or in children, the phases, what is watched meanwhile, the report.
//!
//! The parts join; when all have (or the time for it is over) each is told to go, so that all of them warm up and measure at
//! the same time. What each counts is added up in the end.

mod children;
mod hashing;
mod observer;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{fmt, fs, io};

use adit_codec::url::PoolUrl;
pub use children::{PROCESSES_MAX, PartRequest, run_part};

use crate::report::{FORMAT, Generator, Phases, Report, Second, Tally, judge, live_line};
use crate::simulate::{DEVICE_LEN, Scenario, ShareKind, Simulation, SimulationConfig};
use children::Children;
use observer::Observer;

/// How long news are waited for at a time.
const TICK: Duration = Duration::from_millis(20);
/// How long a second's figures may take to come from all threads before they are shown.
const SHOWN_AFTER: Duration = Duration::from_millis(200);

/// What to run, against whom, with what.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The pool.
    pub url: PoolUrl,
    /// The load.
    pub scenario: Scenario,
    /// Threads of each process.
    pub threads: u32,
    /// Processes; one is this one.
    pub processes: u32,
    /// Processes whose CPU time and memory are reported.
    pub watched: Vec<u32>,
    /// When connections begin, if not at once: so that several hosts begin together.
    pub at: Option<SystemTime>,
}

/// Why there is no report.
#[derive(Debug)]
pub enum LoadError {
    /// The pool's host has no address.
    Resolve(String, io::Error),
    /// A process that was to be watched cannot be.
    Watch(u32, io::Error),
    /// The sockets' rings cannot be made, or failed.
    Transport(io::Error),
    /// The miner cannot work so.
    Miner(String),
    /// A child cannot be started, or ended without its counts.
    Child(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(host, error) => write!(f, "{host} has no address: {error}"),
            Self::Watch(pid, error) => write!(f, "--watch-pid {pid}: {error}"),
            Self::Transport(error) => write!(
                f,
                "io_uring: {error}; Linux 6.0 or newer is needed, not forbidden by kernel.io_uring_disabled or seccomp, \
                 and `ulimit -l` large enough"
            ),
            Self::Miner(message) => write!(f, "{message}"),
            Self::Child(message) => write!(f, "a part of the load: {message}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// The parts of a load.
enum Parts {
    Local(Simulation),
    Children(Children),
}

impl Parts {
    fn start(config: &LoadConfig, pool: SocketAddr) -> Result<Self, LoadError> {
        if config.processes > 1 {
            return Children::start(config).map(Self::Children);
        }
        let whole = 0..config.scenario.connections;
        Simulation::start(simulation_config(config, pool, whole, config.threads))
            .map(Self::Local)
            .map_err(LoadError::Transport)
    }

    fn poll(&mut self, timeout: Duration, handle: impl FnMut(Second)) -> Result<bool, LoadError> {
        match self {
            Self::Local(simulation) => Ok(simulation.poll(timeout, handle)),
            Self::Children(children) => children.poll(timeout, handle),
        }
    }

    fn has_joined(&self) -> bool {
        match self {
            Self::Local(simulation) => simulation.has_joined(),
            Self::Children(children) => children.has_joined(),
        }
    }

    fn go(&mut self) {
        match self {
            Self::Local(simulation) => simulation.go(),
            Self::Children(children) => children.go(),
        }
    }

    fn stop(&mut self) {
        match self {
            Self::Local(simulation) => simulation.stop(),
            Self::Children(children) => children.stop(),
        }
    }

    fn finish(self) -> Result<(Tally, Generator), LoadError> {
        match self {
            Self::Local(simulation) => {
                let threads = simulation.threads();
                let tally = simulation.finish().map_err(LoadError::Transport)?;
                Ok((tally, Generator { processes: 1, threads, ..Generator::default() }))
            }
            Self::Children(children) => children.finish(),
        }
    }
}

fn simulation_config(
    config: &LoadConfig,
    pool: SocketAddr,
    connections: Range<u32>,
    threads_in_all: u32,
) -> SimulationConfig {
    SimulationConfig {
        scenario: config.scenario.clone(),
        pool,
        host: config.url.host.clone(),
        authority: config.url.authority,
        connections,
        threads: config.threads,
        threads_in_all,
    }
}

/// The first address of the pool's host.
fn resolve(url: &PoolUrl) -> Result<SocketAddr, LoadError> {
    let wrong = |error| LoadError::Resolve(url.host.clone(), error);
    let mut addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(wrong)?;
    addresses.next().ok_or_else(|| wrong(io::Error::from(io::ErrorKind::NotFound)))
}

/// Runs a load. `stop` ends it early; `show` gets a line each second.
///
/// # Errors
/// It could not begin, or a part of it was lost.
pub fn run(config: &LoadConfig, stop: &AtomicBool, show: impl FnMut(&str)) -> Result<Report, LoadError> {
    let pool = resolve(&config.url)?;
    let mut observer = Observer::new(&config.watched)?;
    let wait = config.at.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default();
    let begin = Instant::now() + wait;
    while !stop.load(Ordering::Relaxed) && Instant::now() < begin {
        std::thread::sleep(begin.saturating_duration_since(Instant::now()).min(TICK));
    }
    observer.begin();
    let started_unix_ns = crate::simulate::Clock::start().unix_ns(0);
    let (tally, phases, generator) = if config.scenario.shares.kind == ShareKind::Hash {
        observer.joined();
        observer.pass(Duration::ZERO, Duration::ZERO, Duration::MAX);
        let (tally, phases) = hashing::run(config, stop, show)?;
        (
            tally,
            phases,
            Generator { processes: 1, threads: config.scenario.shares.threads, ..Generator::default() },
        )
    } else {
        run_parts(config, pool, stop, &mut observer, show)?
    };
    let (watched, own) = observer.finish(&host(), tally.measured.accepted + tally.measured.rejected);
    let generator = Generator {
        cpu_ns: own.cpu_ns + generator.cpu_ns,
        cpu_ns_measured: own.cpu_ns_measured + generator.cpu_ns_measured,
        rss_bytes_max: own.rss_bytes_max.max(generator.rss_bytes_max),
        device_bytes: DEVICE_LEN as u64,
        ..generator
    };
    Ok(Report {
        format: FORMAT,
        program: concat!("adit-loadgen ", env!("CARGO_PKG_VERSION")).to_owned(),
        pool: config.url.to_string(),
        host: host(),
        started_unix_ns,
        phases,
        verdict: judge(&config.scenario, &tally),
        scenario: config.scenario.clone(),
        tally,
        generator,
        watched,
    })
}

/// Runs the parts of a load through its phases.
fn run_parts(
    config: &LoadConfig,
    pool: SocketAddr,
    stop: &AtomicBool,
    observer: &mut Observer,
    mut show: impl FnMut(&str),
) -> Result<(Tally, Phases, Generator), LoadError> {
    let started = Instant::now();
    let mut parts = Parts::start(config, pool)?;
    let mut seconds = BTreeMap::<u64, Second>::new();
    let (mut shown, mut went) = (None, None::<Instant>);
    let (warmup, measured) = (config.scenario.warmup_s, config.scenario.duration_s);
    let (warmup, measured) = (Duration::from_secs_f64(warmup), Duration::from_secs_f64(measured));
    let ended = loop {
        let runs = parts.poll(TICK, |second| {
            let at_s = second.at_s;
            seconds.entry(at_s).and_modify(|sum| sum.merge(&second)).or_insert(second);
        })?;
        if stop.load(Ordering::Relaxed) {
            parts.stop();
        }
        if parts.has_joined() && went.is_none() {
            observer.joined();
            parts.go();
            went = Some(Instant::now());
        }
        if let Some(went) = went {
            observer.pass(went.elapsed(), warmup, measured);
        }
        observer.look_each_second(started.elapsed());
        let newest = started.elapsed().saturating_sub(SHOWN_AFTER).as_secs().checked_sub(1);
        if let Some(second) =
            newest.filter(|newest| Some(*newest) != shown).and_then(|newest| seconds.get(&newest))
        {
            shown = newest;
            show(&live_line(second, config.scenario.connections));
        }
        if !runs {
            break Instant::now();
        }
    };
    let (tally, generator) = parts.finish()?;
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let after = went.map(|went| ended - went).unwrap_or_default();
    let phases = Phases {
        join_ns: nanos(went.unwrap_or(ended) - started),
        warmup_ns: nanos(after.min(warmup)),
        measured_ns: nanos(after.saturating_sub(warmup).min(measured)),
        drain_ns: nanos(after.saturating_sub(warmup + measured)),
    };
    Ok((tally, phases, generator))
}

/// This machine's name, in one word.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.split_whitespace().next().unwrap_or("localhost").to_owned()
}
