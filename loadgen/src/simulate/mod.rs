//! Simulated devices, by the million: synthetic shares for a pool under load.
//!
//! Where a pool's target is the easiest there is, every nonce is a share, and a device costs no hash: it is 48 bytes
//! (`device`) that say which job its next share names. Connections are few or many and held apart from the devices
//! (`connection`); what the pool says is taken in `frames`; when shares are due is in `arrivals`, what is sealed of them
//! in `mining`. A thread is in `shard`, what its sockets bring in `sockets`. Threads share nothing but a start and a stop;
//! [`Simulation`] starts and ends them.
//!
//! Every share that was sent is accounted for: accepted, rejected by code, lost with its connection, or outstanding.

mod arrivals;
mod connection;
mod device;
mod frames;
mod mining;
mod scenario;
mod shard;
mod sockets;
mod spreads;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_codec::keys::AuthorityPublicKey;
pub use scenario::{
    CONNECTIONS_MAX, Check, DEVICES_MAX, EVENTS_MAX, Event, EventKind, HASH_RATE_SYNTHETIC, IN_FLIGHT_MAX,
    Join, PER_WRITE_MAX, Profile, Scenario, ScenarioError, ShareKind, Shares,
};

use crate::report::{Second, Tally};
use shard::Shard;

/// Bytes of a simulated device.
pub const DEVICE_LEN: usize = size_of::<device::Device>();

/// Threads of one process.
pub const THREADS_MAX: u32 = 256;

/// Not yet.
const NEVER_NS: u64 = u64::MAX;

/// The clock of a run: monotonic, and known in Unix time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_unix_ns: u64,
}

impl Clock {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_unix_ns = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
        Self { started: Instant::now(), started_unix_ns }
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A time of this clock as nanoseconds of Unix time.
    #[must_use]
    pub const fn unix_ns(&self, ns: u64) -> u64 {
        self.started_unix_ns.saturating_add(ns)
    }
}

/// What a run is, for all of its threads.
#[derive(Debug)]
pub(crate) struct Plan {
    scenario: Scenario,
    pool: SocketAddr,
    host: String,
    authority: AuthorityPublicKey,
    /// Threads of all processes: bounds on all connections are divided among them.
    threads: u32,
    clock: Clock,
}

/// What threads are told.
#[derive(Debug)]
struct Control {
    clock: Clock,
    go_ns: AtomicU64,
    stopped: AtomicBool,
}

impl Control {
    fn go_ns(&self) -> Option<u64> {
        Some(self.go_ns.load(Ordering::Acquire)).filter(|ns| *ns != NEVER_NS)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// What threads tell.
enum Progress {
    /// The thread's connections have joined, or the time for that is over.
    Joined,
    /// A second is over.
    Second(Second),
}

/// What a simulation loads, and with what.
#[derive(Clone, Debug)]
pub struct SimulationConfig {
    /// The load.
    pub scenario: Scenario,
    /// The pool's address.
    pub pool: SocketAddr,
    /// The host that connections name, as the user gave it.
    pub host: String,
    /// Who vouches for the pool.
    pub authority: AuthorityPublicKey,
    /// The part of the scenario's connections that this process holds.
    pub connections: Range<u32>,
    /// Threads of this process, each with rings of its own.
    pub threads: u32,
    /// Threads of all processes.
    pub threads_in_all: u32,
}

/// A running load.
#[derive(Debug)]
pub struct Simulation {
    control: Arc<Control>,
    progress: Receiver<Progress>,
    threads: Vec<JoinHandle<io::Result<Tally>>>,
    joined: usize,
}

impl Simulation {
    /// Starts the threads; connections begin at once, shares with [`Self::go`].
    ///
    /// # Errors
    /// io_uring is not to be had, or no thread.
    pub fn start(config: SimulationConfig) -> io::Result<Self> {
        let SimulationConfig { scenario, pool, host, authority, connections, threads, threads_in_all } =
            config;
        let clock = Clock::start();
        let control =
            Arc::new(Control { clock, go_ns: AtomicU64::new(NEVER_NS), stopped: AtomicBool::new(false) });
        let threads = threads.clamp(1, THREADS_MAX).min(u32::try_from(connections.len()).unwrap_or(1)).max(1);
        let threads_in_all = threads_in_all.max(threads);
        let plan = Arc::new(Plan { scenario, pool, host, authority, threads: threads_in_all, clock });
        let (sender, progress) = channel();
        let mut simulation = Self { control, progress, threads: Vec::new(), joined: 0 };
        for index in 0..threads {
            let part = part(&connections, index, threads);
            let (plan, control) = (Arc::clone(&plan), Arc::clone(&simulation.control));
            let sender = sender.clone();
            let run = move || {
                let connections = part.end - part.start;
                // A ring belongs to the thread that makes it.
                Shard::new(&plan, part.start, connections, &control, sender)?.run()
            };
            let spawned = std::thread::Builder::new().name(format!("load-{index}")).spawn(run);
            simulation
                .threads
                .push(spawned.inspect_err(|_| simulation.control.stopped.store(true, Ordering::Release))?);
        }
        Ok(simulation)
    }

    /// Waits for news, at most `timeout`, and gives each finished second of each thread to `handle`. Returns whether any
    /// thread still runs.
    pub fn poll(&mut self, timeout: Duration, mut handle: impl FnMut(Second)) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.progress.recv_timeout(left) {
                Ok(Progress::Joined) => self.joined += 1,
                Ok(Progress::Second(second)) => handle(second),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            if self.has_joined() && self.control.go_ns().is_none() {
                return true;
            }
        }
    }

    /// Whether every thread's connections have joined, or the time for that is over.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.joined == self.threads.len()
    }

    /// Lets the shares begin.
    pub fn go(&self) {
        let now_ns = self.control.clock.now_ns();
        let _ = self.control.go_ns.compare_exchange(NEVER_NS, now_ns, Ordering::AcqRel, Ordering::Acquire);
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> u32 {
        u32::try_from(self.threads.len()).expect("at most THREADS_MAX")
    }

    /// Ends the run as it is.
    pub fn stop(&self) {
        self.control.stopped.store(true, Ordering::Release);
    }

    /// Waits for the threads and adds up what they counted.
    ///
    /// # Errors
    /// A ring failed.
    ///
    /// # Panics
    /// If a thread panicked.
    pub fn finish(self) -> io::Result<Tally> {
        let mut tally = Tally::default();
        tally.shares.sum_is_right = true;
        for thread in self.threads {
            tally.merge(&thread.join().expect("a thread of the generator does not panic")?);
        }
        Ok(tally)
    }
}

/// One of so many equal parts of a range.
#[must_use]
pub fn part(range: &Range<u32>, index: u32, parts: u32) -> Range<u32> {
    let len = u64::from(range.end - range.start);
    let at = |index: u32| {
        let offset = len * u64::from(index) / u64::from(parts);
        range.start + u32::try_from(offset).expect("at most the range's length")
    };
    at(index)..at(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole() {
        let parts: Vec<_> = (0..7).map(|index| part(&(10..110), index, 7)).collect();
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((parts[0].start, parts[6].end), (10, 110));
        assert!(parts.iter().all(|part| (14..=15).contains(&part.len())));
    }
}
