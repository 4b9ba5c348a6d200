//! What all threads of a miner share: counters, and whether to go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::MinerConfig;
use crate::report::Latencies;
use crate::summary::{Latency, Summary};

/// Counters that any thread may raise. None orders anything: relaxed.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) hashes: AtomicU64,
    pub(super) submitted: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) difficulty: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) discarded: AtomicU64,
    pub(super) channels_opened: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) connection_errors: AtomicU64,
    pub(super) devices_mining: AtomicUsize,
}

/// Raises a counter.
pub(super) fn add(counter: &AtomicU64, by: u64) -> u64 {
    counter.fetch_add(by, Ordering::Relaxed) + by
}

/// What is told in words, or kept under a lock.
#[derive(Debug)]
struct Details {
    codes: BTreeMap<String, u64>,
    latency: Latencies,
    last_error: Option<String>,
    failure: Option<String>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: MinerConfig,
    pub(super) nominal_hash_rate: f32,
    pub(super) counters: Counters,
    /// Whose turn is next.
    pub(super) next_lane: AtomicU64,
    started: Instant,
    /// No more hashing; answers are still taken.
    finished: AtomicBool,
    /// Everything ends.
    stopping: AtomicBool,
    details: Mutex<Details>,
    /// For those who wait for work, for the end, or for their next attempt to connect.
    bell: Mutex<()>,
    rung: Condvar,
}

impl Shared {
    pub(super) fn new(config: MinerConfig, nominal_hash_rate: f32) -> Self {
        let latency = Latencies::coarse();
        let details = Details { codes: BTreeMap::new(), latency, last_error: None, failure: None };
        Self {
            config,
            nominal_hash_rate,
            counters: Counters::default(),
            next_lane: AtomicU64::new(0),
            started: Instant::now(),
            finished: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            details: Mutex::new(details),
            bell: Mutex::new(()),
            rung: Condvar::new(),
        }
    }

    /// The state machines' time.
    pub(super) fn now(&self) -> adit_proto::Instant {
        adit_proto::Instant::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn is_finished(&self) -> bool {
        if self.config.duration.is_some_and(|duration| self.started.elapsed() >= duration) {
            self.finish(None);
        }
        self.finished.load(Ordering::Acquire)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Ends the hashing; a `failure` says why the miner gives up.
    pub(super) fn finish(&self, failure: Option<String>) {
        if failure.is_some() {
            lock(&self.details).failure = failure;
        }
        if !self.finished.swap(true, Ordering::AcqRel) {
            self.ring();
        }
    }

    pub(super) fn stop(&self) {
        self.finished.store(true, Ordering::Release);
        self.stopping.store(true, Ordering::Release);
        self.ring();
    }

    /// Wakes all who wait.
    pub(super) fn ring(&self) {
        drop(lock(&self.bell));
        self.rung.notify_all();
    }

    /// Waits for [`ring`](Self::ring), or for a time.
    pub(super) fn wait(&self, timeout: Duration) {
        let bell = lock(&self.bell);
        if !self.is_stopping() {
            drop(self.rung.wait_timeout(bell, timeout));
        }
    }

    /// Waits for a time, however often the bell rings, unless the miner stops.
    pub(super) fn pause(&self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            if self.is_stopping() {
                return;
            }
            self.wait(left);
        }
    }

    pub(super) fn wait_finished(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            if self.is_finished() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let ends_in =
                self.config.duration.map(|duration| duration.saturating_sub(self.started.elapsed()));
            let bell = lock(&self.bell);
            if !self.finished.load(Ordering::Acquire) {
                drop(self.rung.wait_timeout(bell, ends_in.unwrap_or(left).min(left)));
            }
        }
    }

    pub(super) fn count_accepted(&self, count: u32, difficulty: u64) {
        add(&self.counters.difficulty, difficulty);
        let accepted = add(&self.counters.accepted, u64::from(count));
        if self.config.shares_max.is_some_and(|max| accepted >= max) {
            self.finish(None);
        }
    }

    pub(super) fn record_latency(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        lock(&self.details).latency.record(nanos);
    }

    pub(super) fn count_rejected(&self, code: String) {
        add(&self.counters.rejected, 1);
        Summary::count_rejected(&mut lock(&self.details).codes, code);
    }

    pub(super) fn note_error(&self, error: String) {
        lock(&self.details).last_error = Some(error);
    }

    /// Shares that wait for an answer.
    pub(super) fn outstanding(&self) -> u64 {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { submitted, accepted, rejected, lost, .. } = &self.counters;
        let answered = read(accepted) + read(rejected) + read(lost);
        read(submitted).saturating_sub(answered)
    }

    pub(super) fn summary(&self) -> Summary {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let details = lock(&self.details);
        let quantile = |quantile| Duration::from_nanos(details.latency.quantile_ns(quantile));
        Summary {
            devices: self.config.devices,
            devices_mining: counters.devices_mining.load(Ordering::Relaxed),
            elapsed: self.started.elapsed(),
            hashes: read(&counters.hashes),
            shares_outstanding: self.outstanding(),
            shares_submitted: read(&counters.submitted),
            shares_accepted: read(&counters.accepted),
            difficulty_accepted: read(&counters.difficulty),
            shares_rejected: details.codes.clone(),
            shares_lost: read(&counters.lost),
            shares_discarded: read(&counters.discarded),
            channels_opened: read(&counters.channels_opened),
            connections: read(&counters.connections),
            connection_errors: read(&counters.connection_errors),
            last_error: details.last_error.clone(),
            failure: details.failure.clone(),
            latencies: details.latency.clone(),
            latency: Latency {
                count: details.latency.count(),
                p50: quantile(0.50),
                p99: quantile(0.99),
                max: Duration::from_nanos(details.latency.max_ns()),
            },
        }
    }
}

/// Counters and queues stay usable when a thread that held their lock has panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
