//! The hashing threads: each takes the devices' turns one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use adit_hasher::BatchHash;
use adit_proto::mining::client::ClientOutbox;

use super::search::{Search, Slice};
use super::session::{Assignment, Session};
use super::shared::{Shared, add, lock};

/// How long a slice shall take: new work waits at most so long.
const SLICE_TIME: Duration = Duration::from_micros(1_500);
/// Nonces of a slice at least and at most.
const SLICE_COUNT_MIN: u32 = 256;
const SLICE_COUNT_MAX: u32 = 1 << 22;
/// Nonces of the first slice.
const SLICE_COUNT_FIRST: u32 = 4_096;
/// Shares that a slice may find: it then ends, and they are sent.
const FOUND_MAX: usize = 64;
/// A device with so many shares waiting for an answer pauses. The client's own bound is far above.
const OUTSTANDING_MAX: usize = 1_024;
/// Between the turns of devices that may not hash faster.
const LIMITED_PAUSE: Duration = Duration::from_millis(1);
/// Between looks for work; new work rings before.
const WORKLESS_PAUSE: Duration = Duration::from_millis(50);
/// A device with a limit saves up hashes for so long at most, and uses up at least so many at a time.
const SAVED_TIME_S: f64 = 0.1;
const SPENT_TIME_S: f64 = 0.02;

/// One device for the hashing threads.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) session: Arc<Session>,
    pub(super) device: usize,
}

/// A device's search and what it may spend; whoever holds it has the turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    epoch: u64,
    assignment: Option<Assignment>,
    search: Search,
    found: Vec<u32>,
    allowance: Allowance,
}

/// Hashes that a device with a limit may compute.
#[derive(Debug, Default)]
struct Allowance {
    hashes: f64,
    since: Option<Instant>,
}

impl Allowance {
    /// How many hashes may be computed now: none until a stretch that is worth it has been saved.
    fn take_up(&mut self, limit: Option<f64>, now: Instant) -> u32 {
        let Some(limit) = limit else { return u32::MAX };
        let passed = self.since.replace(now).map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        self.hashes = (self.hashes + passed * limit).min((limit * SAVED_TIME_S).max(1.0));
        if self.hashes < (limit * SPENT_TIME_S).max(1.0) { 0 } else { self.hashes as u32 }
    }

    fn spend(&mut self, hashes: u32) {
        self.hashes -= f64::from(hashes);
    }
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Hashed,
    /// There is work, but not now.
    Waits,
    NoWork,
}

/// Hashes until the miner stops.
pub(super) fn run(shared: &Shared, lanes: &[Lane]) {
    let mut pace = Pace { slice_count: SLICE_COUNT_FIRST };
    let mut out = ClientOutbox::new();
    while !shared.is_stopping() {
        if shared.is_finished() {
            shared.wait(WORKLESS_PAUSE);
            continue;
        }
        // One round: the first device that can hash does.
        let mut outcome = Outcome::NoWork;
        for _ in 0..lanes.len() {
            let turn = add(&shared.next_lane, 1);
            let lane = &lanes[usize::try_from(turn % lanes.len() as u64).unwrap_or(0)];
            match take_turn(shared, lane, &mut pace, &mut out) {
                Outcome::Hashed => {
                    outcome = Outcome::Hashed;
                    break;
                }
                Outcome::Waits => outcome = Outcome::Waits,
                Outcome::NoWork => {}
            }
        }
        match outcome {
            Outcome::Hashed => {}
            Outcome::Waits => std::thread::sleep(LIMITED_PAUSE),
            Outcome::NoWork => shared.wait(WORKLESS_PAUSE),
        }
    }
}

/// How many nonces a slice of this thread has.
struct Pace {
    slice_count: u32,
}

impl Pace {
    /// Learns from a slice that was long enough to tell.
    fn learn(&mut self, tried: u32, took: Duration) {
        if tried < SLICE_COUNT_MIN || took.is_zero() {
            return;
        }
        let wanted = f64::from(tried) * SLICE_TIME.as_secs_f64() / took.as_secs_f64();
        let next = (f64::from(self.slice_count) + wanted) / 2.0;
        self.slice_count = (next as u32).clamp(SLICE_COUNT_MIN, SLICE_COUNT_MAX);
    }
}

fn take_turn(shared: &Shared, lane: &Lane, pace: &mut Pace, out: &mut ClientOutbox) -> Outcome {
    let device = lane.session.device(lane.device);
    // Another thread has the turn.
    let Ok(mut turn) = device.turn.try_lock() else { return Outcome::Waits };
    let turn = &mut *turn;
    let epoch = device.epoch.load(Ordering::Acquire);
    if turn.epoch != epoch {
        turn.epoch = epoch;
        turn.assignment = lock(&device.slot).clone();
        turn.search.turn_to(turn.assignment.as_ref().map(|assignment| Arc::clone(&assignment.work)));
    }
    let Some(assignment) = &turn.assignment else { return Outcome::NoWork };
    if device.outstanding.load(Ordering::Relaxed) >= OUTSTANDING_MAX {
        return Outcome::Waits;
    }
    let started = Instant::now();
    let count = turn.allowance.take_up(shared.config.hash_rate_limit, started).min(pace.slice_count);
    let hasher = &shared.config.hasher;
    if count == 0 {
        return Outcome::Waits;
    }
    let Some(slice) = turn.search.next_slice(count, shared.now(), hasher) else { return Outcome::Waits };
    let Slice { header, first_nonce, count, .. } = slice;
    let target = &assignment.work.target;
    turn.found.clear();
    let tried = hasher.scan_nonces(&header, first_nonce, count, target, &mut turn.found, FOUND_MAX);
    pace.learn(tried, started.elapsed());
    turn.search.advance(tried);
    turn.allowance.spend(tried);
    add(&shared.counters.hashes, u64::from(tried));
    if !turn.found.is_empty() {
        lane.session.submit(lane.device, assignment, &slice, &turn.search.extranonce, &turn.found, out);
    }
    Outcome::Hashed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_device_computes_what_it_may() {
        for limit in [3.0, 1_000.0, 2e6] {
            let (mut allowance, start) = (Allowance::default(), Instant::now());
            let mut hashes = 0;
            for milli in 0..=2_000 {
                let may = allowance.take_up(Some(limit), start + Duration::from_millis(milli));
                allowance.spend(may);
                hashes += may;
            }
            let expected = 2.0 * limit;
            assert!(
                (f64::from(hashes) - expected).abs() <= (limit * SPENT_TIME_S).max(1.0),
                "{hashes} at {limit}"
            );
        }
    }

    #[test]
    fn hashes_are_not_saved_up_for_long() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        allowance.take_up(Some(1_000.0), start);
        assert_eq!(allowance.take_up(Some(1_000.0), start + Duration::from_secs(3_600)), 100);
    }

    #[test]
    fn slices_take_the_time_they_should() {
        let mut pace = Pace { slice_count: SLICE_COUNT_FIRST };
        for _ in 0..20 {
            // 10 MH/s.
            let took = Duration::from_nanos(u64::from(pace.slice_count) * 100);
            pace.learn(pace.slice_count, took);
        }
        assert!((14_000..=15_001).contains(&pace.slice_count), "{}", pace.slice_count);
    }
}
