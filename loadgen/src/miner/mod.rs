//! A miner on the CPU: devices that hash for real, in one process.
//!
//! A device is a channel with a search of its own. Each connection has one thread, which waits for frames and drives the
//! client's state machine; hashing threads take the devices' turns one after the other, a slice of one or two
//! milliseconds each, so that new work is taken up within that time, and send what they find at once. Connections that
//! break are made again after a pause that grows.
//!
//! Locks are taken in the order turn, link, slot, and none is held while waiting for the network to deliver.
//!
//! Bounds: devices, connections and threads by [`config`]; shares that wait for an answer by device.

pub mod config;
mod hashing;
mod search;
mod session;
mod shared;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adit_hasher::{BatchHash, Hasher, Target};

pub use self::config::{DeviceKind, MinerConfig, MinerConfigError};
use self::hashing::Lane;
use self::session::Session;
use self::shared::Shared;
use crate::summary::Summary;

/// Time that a stopping miner gives the pool to answer the last shares.
const ANSWERS_GRACE: Duration = Duration::from_secs(2);
/// Time that a stopping miner gives its threads; one that still connects ends by itself.
const THREADS_GRACE: Duration = Duration::from_secs(2);
/// A connection's thread needs little.
const SESSION_STACK_LEN: usize = 256 * 1024;
/// How long the hash rate is measured at the start.
const MEASURE_FOR: Duration = Duration::from_millis(10);

/// Starts miners.
#[derive(Clone, Copy, Debug)]
pub struct Miner;

/// A miner at work. It stops when it is dropped; [`stop`](Self::stop) waits for it.
#[derive(Debug)]
pub struct MinerHandle {
    shared: Arc<Shared>,
    sessions: Vec<Arc<Session>>,
    threads: Vec<JoinHandle<()>>,
}

impl Miner {
    /// Starts all devices.
    ///
    /// # Errors
    /// A configuration that cannot be, or no threads.
    pub fn start(config: MinerConfig) -> Result<MinerHandle, MinerConfigError> {
        config.validate()?;
        let nominal_hash_rate = config.nominal_hash_rate.unwrap_or_else(|| nominal_hash_rate(&config));
        let shared = Arc::new(Shared::new(config, nominal_hash_rate));
        let config = &shared.config;
        let sessions: Vec<_> =
            (0..config.connections()).map(|number| Arc::new(Session::new(&shared, number))).collect();
        let lanes: Arc<[Lane]> = sessions.iter().flat_map(Session::lanes).collect();

        // Dropped on an error, the handle ends what was started.
        let mut handle = MinerHandle { shared: Arc::clone(&shared), sessions, threads: Vec::new() };
        for number in 0..config.threads {
            let (shared, lanes) = (Arc::clone(&shared), Arc::clone(&lanes));
            let hashing = thread::Builder::new().name(format!("hashing-{number}"));
            handle.add(hashing.spawn(move || hashing::run(&shared, &lanes)))?;
        }
        for number in 0..handle.sessions.len() {
            let session = Arc::clone(&handle.sessions[number]);
            let builder = thread::Builder::new().name(format!("pool-{number}")).stack_size(SESSION_STACK_LEN);
            handle.add(builder.spawn(move || session.run()))?;
        }
        Ok(handle)
    }
}

impl MinerHandle {
    fn add(&mut self, thread: std::io::Result<JoinHandle<()>>) -> Result<(), MinerConfigError> {
        self.threads.push(thread.map_err(|error| MinerConfigError::Thread(error.kind()))?);
        Ok(())
    }

    /// How it goes.
    pub fn snapshot(&self) -> Summary {
        self.shared.summary()
    }

    /// Whether a limit of the configuration was reached, or the miner gave up.
    pub fn is_finished(&self) -> bool {
        self.shared.is_finished()
    }

    /// Waits until the miner [is finished](Self::is_finished), but no longer than `timeout`; returns whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.shared.wait_finished(timeout)
    }

    /// Stops hashing, waits a little for the answers to the last shares, closes the channels and connections.
    pub fn stop(mut self) -> Summary {
        self.shared.finish(None);
        let deadline = Instant::now() + ANSWERS_GRACE;
        while self.shared.outstanding() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        let summary = self.shared.summary();
        self.end();
        let deadline = Instant::now() + THREADS_GRACE;
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                // A thread that panicked has said so on stderr; the numbers stand.
                let _ = thread.join();
            }
        }
        summary
    }

    fn end(&self) {
        self.shared.stop();
        for session in &self.sessions {
            session.end();
        }
    }
}

impl Drop for MinerHandle {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a device will compute, by a short measurement.
fn nominal_hash_rate(config: &MinerConfig) -> f32 {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(config.threads);
    let device = measured_hash_rate(&config.hasher) * cores as f64 / config.devices as f64;
    config.hash_rate_limit.map_or(device, |limit| device.min(limit)) as f32
}

/// Hashes per second of one thread.
fn measured_hash_rate(hasher: &Hasher) -> f64 {
    let unreachable = Target::from_le_bytes([0; 32]);
    let (started, mut hashes) = (Instant::now(), 0);
    loop {
        hashes += hasher.scan_nonces(&[0; 80], hashes, 4_096, &unreachable, &mut Vec::new(), 1);
        let elapsed = started.elapsed();
        if elapsed >= MEASURE_FOR {
            return f64::from(hashes) / elapsed.as_secs_f64();
        }
    }
}
