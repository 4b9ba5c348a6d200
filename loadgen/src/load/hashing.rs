//! A load of real hashes: the miner's, reported like any other.
//!
//! Few devices find few shares, but true ones: targets, retargets and blocks are as in life. There is no warm-up, the whole
//! time is measured, and joining is not timed. The answers are checked by the client's state machine, which takes an answer to
//! a share that was never sent for a fault of the pool.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{LoadConfig, LoadError, TICK};
use crate::miner::{DeviceKind, Miner, MinerConfig};
use crate::report::{Latencies, Phases, Second, Tally, live_line};
use crate::simulate::Profile;
use crate::summary::Summary;

fn miner_config(config: &LoadConfig) -> MinerConfig {
    let scenario = &config.scenario;
    MinerConfig {
        devices: usize::try_from(scenario.devices()).unwrap_or(usize::MAX),
        devices_per_connection: scenario.channels_per_connection as usize,
        kind: match scenario.profile {
            Profile::StandardGrouped | Profile::StandardJobs => DeviceKind::Standard,
            Profile::Extended => DeviceKind::Extended,
            Profile::Mixed => DeviceKind::Mixed,
        },
        threads: scenario.shares.threads as usize,
        user_identity: scenario.user_identity.clone(),
        nominal_hash_rate: scenario.nominal_hash_rate,
        duration: Some(Duration::from_secs_f64(scenario.duration_s)),
        requires_standard_jobs: scenario.profile == Profile::StandardJobs,
        min_extranonce_size: scenario.extranonce_size,
        ..MinerConfig::new(config.url.clone())
    }
}

/// What happened in a second, from the sums at its end and those before.
fn second(at_s: u64, now: &Summary, before: &Summary) -> Second {
    Second {
        at_s,
        submitted: now.shares_submitted - before.shares_submitted,
        accepted: now.shares_accepted - before.shares_accepted,
        rejected: now.rejected() - before.rejected(),
        connections: now.connections,
        channels: now.devices_mining as u64,
        outstanding: now.shares_outstanding,
        latency: Latencies::coarse(),
    }
}

/// Mines until the scenario's time is over.
pub(super) fn run(
    config: &LoadConfig,
    stop: &AtomicBool,
    mut show: impl FnMut(&str),
) -> Result<(Tally, Phases), LoadError> {
    let scenario = &config.scenario;
    let begun = Instant::now();
    let miner = Miner::start(miner_config(config)).map_err(|error| LoadError::Miner(error.to_string()))?;
    let mut tally = Tally::default();
    let mut before = Summary::default();
    while !stop.load(Ordering::Relaxed) && !miner.wait(TICK) {
        let at_s = tally.seconds.len() as u64;
        if begun.elapsed().as_secs() > at_s {
            let now = miner.snapshot();
            let second = second(at_s, &now, &before);
            show(&live_line(&second, scenario.connections));
            tally.seconds.push(second);
            before = now;
        }
    }
    let measured = begun.elapsed();
    let summary = miner.stop();
    tally.seconds.push(second(tally.seconds.len() as u64, &summary, &before));
    let shares = &mut tally.shares;
    shares.submitted = summary.shares_submitted;
    shares.accepted = summary.shares_accepted;
    shares.rejected.clone_from(&summary.shares_rejected);
    shares.outstanding = summary.shares_outstanding;
    shares.lost = summary.shares_lost;
    shares.difficulty_sum = summary.difficulty_accepted;
    shares.check_sum();
    tally.measured.submitted = summary.shares_submitted;
    tally.measured.accepted = summary.shares_accepted;
    tally.measured.rejected = summary.rejected();
    tally.measured.latency.clone_from(&summary.latencies);
    tally.measured.accepted_per_s = summary.shares_accepted as f64 / measured.as_secs_f64();
    let join = &mut tally.join;
    (join.connections_asked, join.channels_asked) = (scenario.connections.into(), scenario.devices());
    join.connections_served = summary.connections.min(join.connections_asked);
    join.channels_opened = summary.channels_opened.min(join.channels_asked);
    tally.connections.begun = summary.connections;
    tally.connections.closed_by_pool = summary.connection_errors;
    tally.connections.open_at_end = join.connections_served;
    if let Some(error) = summary.failure.or(summary.last_error) {
        tally.connections.errors.insert(error, 1);
    }
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let phases = Phases {
        measured_ns: nanos(measured),
        drain_ns: nanos(begun.elapsed() - measured),
        ..Phases::default()
    };
    Ok((tally, phases))
}
