//! The miner against a pool in this process, over TCP on loopback.

mod pool;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use adit_codec::keys::AuthoritySecretKey;
use adit_codec::url::PoolUrl;
use adit_loadgen::miner::{DeviceKind, Miner, MinerConfig, MinerConfigError, MinerHandle};
use adit_loadgen::summary::Summary;
use adit_proto::mining::server::Event;
use pool::{Pool, config};

/// Slow devices that announce their rate truly: 20 shares a second each, on little CPU.
const HASH_RATE: f64 = 50_000.0;
const PATIENCE: Duration = Duration::from_secs(60);

fn miner_config(pool: &Pool) -> MinerConfig {
    MinerConfig {
        hash_rate_limit: Some(HASH_RATE),
        nominal_hash_rate: Some(HASH_RATE as f32),
        user_identity: "rig".to_owned(),
        ..MinerConfig::new(pool.url.clone())
    }
}

/// Mines until the configured number of shares is accepted.
fn mine(config: MinerConfig) -> Summary {
    let miner = Miner::start(config).expect("a good configuration");
    assert!(miner.wait(PATIENCE), "{:#?}", miner.snapshot());
    miner.stop()
}

fn wait_for(miner: &MinerHandle, what: &str, holds: impl Fn(&Summary) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds(&miner.snapshot()) {
        assert!(Instant::now() < deadline, "still waiting for {what}: {:#?}", miner.snapshot());
        thread::sleep(Duration::from_millis(5));
    }
}

/// `user_identity` and kind of the channels that were opened.
fn opened(pool: &Pool) -> BTreeSet<(String, bool)> {
    pool.ask(|state| {
        let opened = |event: &Event| match event {
            Event::ChannelOpened { user_identity, extended, .. } => {
                Some((String::from_utf8(user_identity.clone()).expect("text"), *extended))
            }
            _ => None,
        };
        state.events.iter().filter_map(opened).collect()
    })
}

/// All shares arrived and were accepted, and the pool counts as the miner does.
fn assert_flawless(pool: &Pool, summary: &Summary) {
    assert!(summary.is_flawless(), "{summary:#?}");
    assert_eq!(summary.shares_submitted, summary.shares_accepted);
    assert_eq!(summary.latency.count, summary.shares_accepted);
    let counters = pool.ask(|state| *state.server.counters());
    assert_eq!(counters.shares_accepted, summary.shares_accepted, "{counters:?}");
    assert_eq!(counters.shares_rejected.iter().sum::<u64>(), 0, "{counters:?}");
    pool.wait_until("the channels to be closed", |state| state.server.channel_count() == 0);
}

#[test]
fn standard_devices_on_connections_of_their_own() {
    let pool = Pool::start(config());
    let summary = mine(MinerConfig { devices: 3, shares_max: Some(60), ..miner_config(&pool) });
    assert!(summary.shares_accepted >= 60, "{summary:#?}");
    assert_eq!((summary.connections, summary.channels_opened, summary.devices_mining), (3, 3, 3));
    assert_flawless(&pool, &summary);
    let expected = [1, 2, 3].map(|n| (format!("rig.{n}"), false));
    assert_eq!(opened(&pool), BTreeSet::from(expected));
}

#[test]
fn devices_of_both_kinds_on_one_connection() {
    let pool = Pool::start(config());
    let summary = mine(MinerConfig {
        devices: 6,
        devices_per_connection: 6,
        kind: DeviceKind::Mixed,
        threads: 2,
        worker_names: true,
        shares_max: Some(200),
        ..miner_config(&pool)
    });
    assert_eq!((summary.connections, summary.channels_opened), (1, 6));
    assert_flawless(&pool, &summary);
    let expected = [1, 2, 3, 4, 5, 6].map(|n| (format!("rig.{n}"), n % 2 == 0));
    assert_eq!(opened(&pool), BTreeSet::from(expected));
}

#[test]
fn extended_devices_roll_the_extranonce_without_duplicates() {
    let pool = Pool::start(config());
    // Fast enough to roll: a million nonces for each extranonce.
    let summary = mine(MinerConfig {
        kind: DeviceKind::Extended,
        hash_rate_limit: None,
        nominal_hash_rate: Some(2e5),
        shares_max: Some(300),
        ..miner_config(&pool)
    });
    assert_flawless(&pool, &summary);
    assert_eq!(opened(&pool), BTreeSet::from([("rig".to_owned(), true)]));
}

#[test]
fn devices_that_require_standard_jobs() {
    let pool = Pool::start(config());
    let summary = mine(MinerConfig {
        devices: 4,
        devices_per_connection: 2,
        requires_standard_jobs: true,
        shares_max: Some(60),
        ..miner_config(&pool)
    });
    assert_eq!(summary.connections, 2);
    assert_flawless(&pool, &summary);
}

#[test]
fn new_work_is_taken_up_at_once() {
    let pool = Pool::start(config());
    let miner = Miner::start(MinerConfig { devices: 2, devices_per_connection: 2, ..miner_config(&pool) })
        .expect("a good configuration");
    wait_for(&miner, "the first shares", |summary| summary.shares_accepted > 10);
    for _ in 0..5 {
        let accepted = pool.ask(|state| {
            state.new_tip();
            state.server.counters().shares_accepted
        });
        pool.wait_until("shares on the new tip", move |state| {
            state.server.counters().shares_accepted > accepted
        });
    }
    let summary = miner.stop();
    // A share can cross the new tip on the wire, one per device and tip.
    assert!(summary.rejected() <= 10, "{summary:#?}");
    assert!(summary.shares_rejected.keys().all(|code| code == "stale-share"), "{summary:#?}");
    assert_eq!((summary.shares_lost, summary.shares_outstanding), (0, 0));
}

#[test]
fn another_authority_is_refused_and_said_clearly() {
    let pool = Pool::start(config());
    let authority = AuthoritySecretKey::from_bytes(&[8; 32]).expect("a key").public_key();
    let url = PoolUrl { authority, ..pool.url.clone() };
    let miner =
        Miner::start(MinerConfig { devices: 2, ..MinerConfig::new(url) }).expect("a good configuration");
    assert!(miner.wait(PATIENCE), "the miner gives up by itself");
    let summary = miner.stop();
    let failure = summary.failure.clone().expect("the miner gave up");
    assert!(failure.contains("not signed by the authority"), "{failure}");
    assert!(!summary.is_flawless());
    assert_eq!((summary.connections, summary.shares_submitted), (0, 0));
    assert_eq!(pool.ask(|state| state.server.channel_count()), 0);
}

#[test]
fn a_broken_connection_is_made_again() {
    let pool = Pool::start(config());
    let miner = Miner::start(miner_config(&pool)).expect("a good configuration");
    for round in 1..=3 {
        wait_for(&miner, "shares", |summary| {
            summary.shares_accepted >= 10 * round && summary.devices_mining == 1
        });
        pool.ask(|state| state.connections().into_iter().for_each(|id| state.disconnect(id)));
        wait_for(&miner, "another connection", |summary| summary.connections > round);
    }
    wait_for(&miner, "shares", |summary| summary.shares_accepted >= 40);
    let summary = miner.stop();
    assert_eq!(
        (summary.connections, summary.connection_errors, summary.rejected()),
        (4, 3, 0),
        "{summary:#?}"
    );
    let accounted = summary.shares_accepted + summary.shares_lost + summary.shares_outstanding;
    assert_eq!(summary.shares_submitted, accounted);
}

#[test]
fn a_miner_waits_for_a_pool_that_is_not_there_yet() {
    let pool = Pool::start(config());
    let gone = MinerConfig { ..miner_config(&pool) };
    drop(pool);
    let miner = Miner::start(gone).expect("a good configuration");
    wait_for(&miner, "failed attempts", |summary| summary.connection_errors >= 2);
    let summary = miner.stop();
    assert_eq!(summary.connections, 0);
    assert!(summary.last_error.is_some_and(|error| error.contains("no connection")));
}

#[test]
fn a_miner_goes_where_the_pool_sends_it() {
    let (first, second) = (Pool::start(config()), Pool::start(config()));
    let miner = Miner::start(miner_config(&first)).expect("a good configuration");
    wait_for(&miner, "shares", |summary| summary.shares_accepted >= 10);
    let port = second.address.port();
    first.ask(move |state| {
        for id in state.connections() {
            state.server.reconnect(id, "", port, &mut state.out).expect("it is connected");
        }
    });
    second.wait_until("shares", |state| state.server.counters().shares_accepted >= 10);
    let summary = miner.stop();
    assert_eq!((summary.connections, summary.connection_errors), (2, 0));
    assert!(summary.is_flawless(), "{summary:#?}");
}

#[test]
fn a_closed_channel_is_opened_again() {
    let pool = Pool::start(config());
    let miner = Miner::start(MinerConfig { devices: 2, devices_per_connection: 2, ..miner_config(&pool) })
        .expect("a good configuration");
    wait_for(&miner, "shares", |summary| summary.shares_accepted >= 10);
    pool.ask(|state| {
        let opened = state.events.iter().find_map(|event| match event {
            Event::ChannelOpened { connection, channel, .. } => Some((*connection, *channel)),
            _ => None,
        });
        let (connection, channel) = opened.expect("channels are open");
        let now = state.now();
        state.server.close_channel(connection, channel, "test", now, &mut state.out).expect("it is open");
    });
    wait_for(&miner, "a new channel", |summary| summary.channels_opened == 3 && summary.devices_mining == 2);
    let accepted = miner.snapshot().shares_accepted;
    wait_for(&miner, "shares", |summary| summary.shares_accepted >= accepted + 10);
    let summary = miner.stop();
    assert_eq!((summary.connections, summary.shares_outstanding), (1, 0), "{summary:#?}");
}

#[test]
fn a_limit_on_the_hash_rate_is_kept() {
    let pool = Pool::start(config());
    let miner = Miner::start(MinerConfig {
        devices: 2,
        duration: Some(Duration::from_secs(2)),
        ..miner_config(&pool)
    })
    .expect("a good configuration");
    assert!(miner.wait(PATIENCE));
    let summary = miner.stop();
    let most = 2.0 * 2.0 * HASH_RATE * 1.1;
    assert!((summary.hashes as f64) < most && summary.hashes > 10_000, "{} of {most}", summary.hashes);
    assert_flawless(&pool, &summary);
}

#[test]
fn shares_that_the_pool_refuses_are_counted_by_code() {
    let mut config = config();
    config.limits.shares_per_tip_max = 10;
    let pool = Pool::start(config);
    let miner = Miner::start(miner_config(&pool)).expect("a good configuration");
    wait_for(&miner, "refusals", |summary| summary.rejected() >= 5);
    let summary = miner.stop();
    assert!(!summary.is_flawless());
    assert_eq!(summary.shares_accepted, 10);
    assert_eq!(summary.shares_rejected.keys().collect::<Vec<_>>(), ["too-many-shares"]);
    assert_eq!(summary.shares_submitted, 10 + summary.rejected());
}

#[test]
fn configurations_that_cannot_be() {
    let pool = Pool::start(config());
    let refused = |change: fn(&mut MinerConfig)| {
        let mut config = miner_config(&pool);
        change(&mut config);
        Miner::start(config).map(drop).expect_err("refused")
    };
    let no_devices = MinerConfigError::Range { what: "devices", value: 0, max: 100_000 };
    assert_eq!(refused(|config| config.devices = 0), no_devices);
    let too_many = MinerConfigError::Range { what: "connections", value: 5_000, max: 4_096 };
    assert_eq!(refused(|config| config.devices = 5_000), too_many);
    let kinds = refused(|config| {
        config.requires_standard_jobs = true;
        config.kind = DeviceKind::Mixed;
    });
    assert_eq!(kinds, MinerConfigError::StandardJobs);
    assert_eq!(refused(|config| config.hash_rate_limit = Some(0.0)), MinerConfigError::HashRate);
}
