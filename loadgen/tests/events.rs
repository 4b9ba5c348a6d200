//! What happens during a load: connections that end and come back, rates that change, readers that do not read.

mod pool;

use std::sync::atomic::AtomicBool;
use std::thread;

use adit_loadgen::load::{LoadConfig, run};
use adit_loadgen::report::Report;
use adit_loadgen::simulate::Scenario;
use pool::Pool;

/// A pool for which every nonce is a share.
fn easy() -> Pool {
    let mut config = pool::config();
    config.vardiff.shares_per_minute = 1e9;
    Pool::start(config)
}

fn load(pool: &Pool, text: &str) -> LoadConfig {
    let text = format!("warmup_s = 0.2\ndrain_s = 10\n{text}");
    let scenario = Scenario::parse(&text, &[]).unwrap_or_else(|error| panic!("{error}"));
    LoadConfig { url: pool.url.clone(), scenario, threads: 1, processes: 1, watched: Vec::new(), at: None }
}

fn simulate(pool: &Pool, text: &str) -> Report {
    run(&load(pool, text), &AtomicBool::new(false), |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn connections_that_reconnect_are_served_again() {
    let pool = easy();
    let report = simulate(
        &pool,
        "connections = 12\nchannels_per_connection = 3\nduration_s = 1.5\nshares.per_minute = 3000\nprofile = \"mixed\"\n\
         [[event]]\nat_s = 0.3\nkind = \"reconnect\"\n[[event]]\nat_s = 0.8\nkind = \"reconnect\"\nfraction = 0.5",
    );
    assert!(!report.verdict.fails(true), "{report}");
    let (join, rejoin, connections) = (&report.tally.join, &report.tally.rejoin, &report.tally.connections);
    assert_eq!((join.connections_served, join.channels_opened), (12, 36), "{report}");
    assert_eq!((rejoin.connections_served, rejoin.channels_opened), (18, 54), "{report}");
    assert_eq!((rejoin.first_job.count(), rejoin.handshake.count()), (18, 18), "{report}");
    assert_eq!((connections.begun, connections.closed_by_us, connections.open_at_end), (30, 18, 12));
    let shares = &report.tally.shares;
    assert_eq!((shares.lost, shares.outstanding, shares.rejected()), (0, 0, 0), "{report}");
    assert_eq!(shares.submitted, shares.accepted + shares.abandoned, "{report}");
    // 36 devices at 50 a second: what is left out is the moment of the reconnection.
    assert!(report.tally.measured.submitted > 1_800, "{report}");
    pool.wait_until("the channels to be closed", |state| state.server.channel_count() == 0);
}

#[test]
fn connections_that_leave_stay_away() {
    let pool = easy();
    let report = simulate(
        &pool,
        "connections = 10\nduration_s = 1\nshares.per_minute = 6000\n\
         [[event]]\nat_s = 0.5\nkind = \"disconnect\"\nfraction = 0.4",
    );
    let connections = &report.tally.connections;
    assert_eq!(
        (connections.closed_by_us, connections.open_at_end, connections.begun),
        (4, 6, 10),
        "{report}"
    );
    assert!(!report.verdict.fails(true), "{report}");
}

#[test]
fn shares_that_go_down_with_the_pools_connections_are_lost_and_the_devices_come_back() {
    let pool = easy();
    let running = load(&pool, "connections = 3\nduration_s = 3\nshares.per_minute = 60000");
    let running = thread::spawn(move || run(&running, &AtomicBool::new(false), |_| {}).unwrap());
    pool.wait_until("shares", |state| state.server.counters().shares_accepted > 300);
    // Unseen by the server, so that there are some to be lost.
    pool.ask(|state| state.shares_swallowed = 5);
    pool.wait_until("shares to be swallowed", |state| state.shares_swallowed == 0);
    pool.ask(|state| state.connections().into_iter().for_each(|id| state.disconnect(id)));
    let report = running.join().unwrap();
    let (shares, connections) = (&report.tally.shares, &report.tally.connections);
    assert!(shares.sum_is_right && shares.lost >= 5, "{report}");
    assert_eq!((connections.closed_by_pool, connections.open_at_end), (3, 3), "{report}");
    assert_eq!(report.tally.rejoin.connections_served, 3, "{report}");
    assert!(report.verdict.fails(true) && !report.verdict.fails(false), "{report}");
    assert!(report.verdict.misses.iter().any(|miss| miss.contains("lost")), "{report}");
}

#[test]
fn a_part_of_the_devices_finds_more() {
    let pool = easy();
    let report = simulate(
        &pool,
        "connections = 2\nchannels_per_connection = 10\nduration_s = 2\nshares.per_minute = 600\n\
         [[event]]\nat_s = 1\nkind = \"rate\"\nfraction = 0.5\nfactor = 10",
    );
    assert!(!report.verdict.fails(true), "{report}");
    // 200 a second, then 5.5 times as many: 1,300, give or take five standard deviations.
    let submitted = report.tally.measured.submitted;
    assert!(submitted.abs_diff(1_300) < 180, "{report}");
}

#[test]
fn hash_rates_are_announced() {
    let pool = easy();
    let report = simulate(
        &pool,
        "connections = 2\nchannels_per_connection = 10\nduration_s = 1\nshares.per_minute = 600\nprofile = \"extended\"\n\
         [[event]]\nat_s = 0.3\nkind = \"update\"\nfraction = 0.5\nfactor = 3",
    );
    assert!(!report.verdict.fails(true), "{report}");
    assert_eq!(report.tally.connections.targets, 10, "one for each announcement: {report}");
}

#[test]
fn who_does_not_read_waits_and_nobody_else() {
    let pool = easy();
    let report = simulate(
        &pool,
        "connections = 4\nduration_s = 2\nshares.per_minute = 6000\n\
         [[event]]\nat_s = 0.5\nkind = \"slow-readers\"\nfraction = 0.25\nduration_s = 1",
    );
    assert!(!report.verdict.fails(true), "{report}");
    let latency = &report.tally.measured.latency;
    // An eighth of all shares were sent by the one in that second; they wait half a second on average.
    assert!(latency.max_ns() > 800_000_000, "{report}");
    assert!(latency.quantile_ns(0.8) < 300_000_000, "{report}");
}

#[test]
fn arrivals_can_wait_for_a_common_write() {
    let pool = easy();
    let report = simulate(&pool, "duration_s = 1\nshares.per_minute = 60000\nshares.batch_ms = 100");
    assert!(!report.verdict.fails(true), "{report}");
    let late = &report.tally.measured.late;
    // The first of a batch waits for all of it, the last for nothing.
    assert!((20_000_000..90_000_000).contains(&late.quantile_ns(0.5)), "{report}");
    assert!(late.max_ns() > 90_000_000, "{report}");
}

#[test]
fn real_hashes_are_reported_like_synthetic_ones() {
    let mut config = pool::config();
    config.vardiff.shares_per_minute = 60.0 * pool::SHARES_PER_SECOND;
    let pool = Pool::start(config);
    let report = simulate(
        &pool,
        "connections = 2\nchannels_per_connection = 2\nduration_s = 1.5\nprofile = \"mixed\"\nshares.kind = \"hash\"",
    );
    assert!(!report.verdict.fails(true), "{report}");
    let measured = &report.tally.measured;
    assert_eq!(measured.latency.count(), measured.accepted, "{report}");
    assert_eq!(pool.ask(|state| state.server.counters().shares_accepted), measured.accepted);
    assert_eq!((report.tally.join.connections_served, report.tally.join.channels_opened), (2, 4));
    assert_eq!(report.tally.seconds.iter().map(|second| second.accepted).sum::<u64>(), measured.accepted);
}
