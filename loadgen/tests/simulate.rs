//! Simulated devices against a pool in this process, over TCP on loopback.

mod pool;

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use adit_codec::message::SubmitSharesSuccess;
use adit_loadgen::load::{LoadConfig, run};
use adit_loadgen::report::Report;
use adit_loadgen::simulate::Scenario;
use adit_proto::mining::server::{Event, ServerConfig};
use pool::Pool;

/// A pool for which every nonce is a share.
fn easy() -> ServerConfig {
    let mut config = pool::config();
    config.vardiff.shares_per_minute = 1e9;
    config
}

fn load(pool: &Pool, assignments: &[&str]) -> LoadConfig {
    let brief = ["warmup_s=0.2", "duration_s=0.8", "join.timeout_s=20", "drain_s=10"];
    let assignments: Vec<String> =
        brief.iter().chain(assignments).map(|&assignment| assignment.to_owned()).collect();
    let scenario = Scenario::parse("", &assignments).unwrap_or_else(|error| panic!("{error}"));
    LoadConfig { url: pool.url.clone(), scenario, threads: 1, processes: 1, watched: Vec::new(), at: None }
}

fn simulate(pool: &Pool, assignments: &[&str]) -> Report {
    run(&load(pool, assignments), &AtomicBool::new(false), |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// Every share was accepted, and the pool counts as the generator does.
fn assert_good(pool: &Pool, report: &Report) {
    assert!(report.verdict.ok && !report.verdict.fails(true), "{report}");
    let shares = &report.tally.shares;
    assert_eq!((shares.submitted, shares.outstanding, shares.lost), (shares.accepted, 0, 0), "{report}");
    let counters = pool.ask(|state| *state.server.counters());
    assert_eq!(counters.shares_accepted, shares.accepted, "{report}");
    assert_eq!(counters.shares_rejected.iter().sum::<u64>(), 0, "{report}");
    let measured = &report.tally.measured;
    assert_eq!((measured.latency.count(), measured.submitted), (measured.accepted, measured.accepted));
    assert!(measured.accepted > 0 && measured.accepted < shares.accepted, "{report}");
    let per_second: u64 = report.tally.seconds.iter().map(|second| second.accepted).sum();
    assert_eq!(per_second, shares.accepted);
}

fn opened(pool: &Pool) -> (usize, usize) {
    pool.ask(|state| {
        let kinds = state.events.iter().filter_map(|event| match event {
            Event::ChannelOpened { extended, .. } => Some(*extended),
            _ => None,
        });
        let kinds: Vec<bool> = kinds.collect();
        (
            kinds.iter().filter(|extended| !**extended).count(),
            kinds.iter().filter(|extended| **extended).count(),
        )
    })
}

#[test]
fn each_profile_opens_its_channels_and_all_shares_are_accepted() {
    for (profile, channels) in [
        ("profile=standard-grouped", (40, 0)),
        ("profile=standard-jobs", (40, 0)),
        ("profile=extended", (0, 40)),
        ("profile=mixed", (20, 20)),
    ] {
        let pool = Pool::start(easy());
        let load =
            ["connections=4", "channels_per_connection=10", "shares.per_minute=1500", "opens_in_flight=3"];
        let report = simulate(&pool, &[&load[..], &[profile]].concat());
        assert_good(&pool, &report);
        assert_eq!(opened(&pool), channels, "{profile}");
        let join = &report.tally.join;
        assert_eq!((join.connections_served, join.channels_opened, join.first_job.count()), (4, 40, 4));
        assert_eq!((join.handshake.count(), join.channel_open.count()), (4, 40));
        // 40 devices at 25 shares a second, for 0.8 s: 800, give or take five standard deviations.
        let measured = report.tally.measured.submitted;
        assert!(measured.abs_diff(800) < 142, "{profile}: {report}");
    }
}

#[test]
fn a_closed_loop_keeps_its_window_full_and_no_fuller() {
    let pool = Pool::start(easy());
    let load = ["connections=3", "channels_per_connection=5", "profile=mixed", "shares.kind=closed"];
    let window = ["shares.in_flight=40", "shares.per_write=8", "shares.run=4"];
    let report = simulate(&pool, &[&load[..], &window].concat());
    assert_good(&pool, &report);
    assert!(report.tally.seconds.iter().all(|second| second.outstanding <= 3 * 40), "{report}");
    assert!(report.tally.measured.submitted > 1_000, "saturation: {report}");
}

#[test]
fn threads_divide_the_connections() {
    let pool = Pool::start(easy());
    let mut load = load(&pool, &["connections=7", "shares.per_minute=6000"]);
    load.threads = 3;
    let report = run(&load, &AtomicBool::new(false), |_| {}).unwrap();
    assert_good(&pool, &report);
    assert_eq!((report.tally.join.connections_served, report.generator.threads), (7, 3));
}

#[test]
fn a_share_that_the_pool_loses_fails_a_strict_run() {
    let pool = Pool::start(easy());
    pool.ask(|state| state.shares_swallowed = 1);
    let report = simulate(&pool, &["shares.per_minute=6000", "drain_s=0.3"]);
    let shares = &report.tally.shares;
    assert_eq!((shares.outstanding, shares.submitted - shares.accepted), (1, 1), "{report}");
    assert!(shares.sum_is_right, "it is counted as what it is");
    assert!(report.verdict.fails(true) && !report.verdict.fails(false), "{report}");
    assert!(report.verdict.misses[0].contains("1 shares without an answer"), "{report}");
    let report = simulate(&pool, &["shares.per_minute=6000", "check.outstanding_max=1"]);
    assert!(!report.verdict.fails(true), "{report}");
}

#[test]
fn an_answer_to_a_share_that_was_never_sent_fails_every_run() {
    let pool = Pool::start(easy());
    let running = load(&pool, &["shares.kind=none", "duration_s=1.5"]);
    let running = thread::spawn(move || run(&running, &AtomicBool::new(false), |_| {}).unwrap());
    pool.wait_until("the channel", |state| state.server.channel_count() == 1);
    pool.ask(|state| {
        let channel_id = state.events.iter().find_map(|event| match event {
            Event::ChannelOpened { channel, .. } => Some(channel.0),
            _ => None,
        });
        let channel_id = channel_id.unwrap();
        let (new_submits_accepted_count, new_shares_sum) = (3, 3);
        state.say(&SubmitSharesSuccess {
            channel_id,
            last_sequence_number: 3,
            new_submits_accepted_count,
            new_shares_sum,
        });
    });
    let report = running.join().unwrap();
    assert_eq!(report.tally.shares.surplus, 3, "{report}");
    assert!(report.verdict.fails(false), "{report}");
}

#[test]
fn refused_shares_are_counted_by_code() {
    let mut config = easy();
    config.limits.shares_per_tip_max = 50;
    let pool = Pool::start(config);
    let report = simulate(&pool, &["shares.per_minute=30000"]);
    let shares = &report.tally.shares;
    assert_eq!(shares.rejected.keys().collect::<Vec<_>>(), ["too-many-shares"], "{report}");
    assert_eq!(shares.accepted + shares.rejected(), shares.submitted, "{report}");
    assert!(report.verdict.fails(true) && !report.verdict.fails(false), "{report}");
}

/// The measure against coordinated omission: shares that were due while the pool stood still count from when they were due.
#[test]
fn a_pool_that_stands_still_is_seen_in_the_latency_of_all_shares_that_were_due() {
    let pool = Pool::start(easy());
    let running = load(&pool, &["connections=2", "shares.per_minute=30000", "warmup_s=0.5", "duration_s=3"]);
    let running = thread::spawn(move || run(&running, &AtomicBool::new(false), |_| {}).unwrap());
    pool.wait_until("shares", |state| state.server.counters().shares_accepted > 600);
    pool.ask(|_| thread::sleep(Duration::from_secs(1)));
    let report = running.join().unwrap();
    assert_good(&pool, &report);
    let latency = &report.tally.measured.latency;
    // A third of the window's shares were due in that second, evenly: the slowest 1 of 100 of all waited longest.
    assert!(latency.quantile_ns(0.99) > 900_000_000, "{report}");
    assert!((400_000_000..1_100_000_000).contains(&latency.quantile_ns(0.84)), "{report}");
    assert!(latency.quantile_ns(0.5) < 300_000_000, "{report}");
    // No arrival was left out: 3 s at 1,000 a second.
    assert!(report.tally.measured.submitted.abs_diff(3_000) < 300, "{report}");
}

#[test]
fn tips_are_followed_to_every_connection() {
    let pool = Pool::start(easy());
    let running = load(&pool, &["connections=20", "shares.kind=none", "duration_s=2", "warmup_s=0"]);
    let running = thread::spawn(move || run(&running, &AtomicBool::new(false), |_| {}).unwrap());
    pool.wait_until("the channels", |state| state.server.channel_count() == 20);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(100));
        pool.ask(|state| state.new_tip());
    }
    let report = running.join().unwrap();
    let tips = &report.tally.tips;
    assert_eq!(tips.len(), 3, "{report}");
    assert!(tips.iter().all(|tip| tip.made_unix_ns.is_none()), "this source says nothing of moments");
    for tip in tips {
        assert_eq!((tip.connections, tip.spread.count()), (20, 20), "{report}");
        let last_ns = tip.last_unix_ns - tip.first_unix_ns;
        assert!(
            last_ns < 1_000_000_000 && tip.spread.max_ns() <= last_ns + last_ns / 500 + 1_000,
            "{report}"
        );
    }
    assert!(tips.windows(2).all(|pair| pair[1].first_unix_ns > pair[0].last_unix_ns + 50_000_000));
    // What the pool repeats from time to time is the same template, and the first tip of a connection is no news.
    assert!(report.verdict.ok, "{report}");
}

#[test]
fn shares_go_on_through_new_tips() {
    let pool = Pool::start(easy());
    let load =
        ["connections=2", "channels_per_connection=5", "shares.per_minute=6000", "check.rejected_max=100"];
    let running = self::load(&pool, &load);
    let running = thread::spawn(move || run(&running, &AtomicBool::new(false), |_| {}).unwrap());
    pool.wait_until("shares", |state| state.server.counters().shares_accepted > 100);
    let accepted = pool.ask(|state| {
        state.new_tip();
        state.server.counters().shares_accepted
    });
    pool.wait_until("shares on the new tip", move |state| {
        state.server.counters().shares_accepted > accepted + 100
    });
    let report = running.join().unwrap();
    assert!(report.tally.shares.rejected.keys().all(|code| code == "stale-share"), "{report}");
    assert!(!report.verdict.fails(true), "{report}");
}
