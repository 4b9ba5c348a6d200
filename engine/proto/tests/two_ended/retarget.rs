//! Targets that follow the hash rate, and that never make a share worthless.

use std::time::Duration;

use adit_proto::mining::server::{ChannelId, VardiffConfig};

use super::common;
use super::peer::{Order, Peer};
use super::world::World;

const SHARES_PER_MINUTE: f64 = 6.0;
const STEP: Duration = Duration::from_millis(500);
const LATENCY: Duration = Duration::from_millis(60);

/// One device at its rate, which the server knows; no tips come, so that nothing is stale.
fn steady(seed: u64, extended: bool, hash_rate: f64) -> (World, ChannelId) {
    let mut config = common::config();
    config.vardiff = VardiffConfig {
        shares_per_minute: SHARES_PER_MINUTE,
        hash_rate_default: 100.0,
        difficulty_min: 0.0,
        adjust: true,
    };
    let mut world = World::new(config, seed);
    world.add(Peer::new(0, vec![Order { extended, hash_rate }], LATENCY));
    // The jump may fall anywhere between two jobs.
    let settled = 600_000 + world.random.below(60_000);
    world.run(Duration::from_millis(settled), STEP);
    let channel = *world.peers[0].devices.keys().next().expect("the channel is open");
    (world, channel)
}

/// How far the target that the device works with is from the right one.
fn deviation(world: &World, channel: ChannelId) -> f64 {
    let peer = &world.peers[0];
    let work = peer.client.work(channel, &adit_hasher::Portable).expect("there is work");
    let ratio = work.target.hash_rate(SHARES_PER_MINUTE) / peer.devices[&channel].hash_rate;
    ratio.max(1.0 / ratio)
}

/// Runs until the target fits within a factor of `fits`; returns after how many seconds.
fn time_until_fitting(world: &mut World, channel: ChannelId, fits: f64) -> f64 {
    let from = world.now;
    while deviation(world, channel) > fits {
        world.step(STEP);
        assert!(world.now.since(from) < Duration::from_secs(1_800), "the target never follows");
    }
    world.now.since(from).as_secs_f64()
}

/// The times that a tenfold jump takes to be followed, in order: until the device works with a target that fits, so with
/// the wait for the next job. Nothing may be rejected meanwhile, nor after.
fn jump(from_hash_rate: f64, factor: f64) -> Vec<f64> {
    let mut times: Vec<f64> = (0..24)
        .map(|seed| {
            let (mut world, channel) = steady(seed, seed.is_multiple_of(2), from_hash_rate);
            let device = world.peers[0].devices.get_mut(&channel).expect("the device");
            device.hash_rate *= factor;
            let time = time_until_fitting(&mut world, channel, 4.0);
            world.run(Duration::from_secs(300), STEP);
            assert!(world.rejected().is_empty(), "seed {seed}: {:?}", world.rejected());
            let counters = world.server.counters();
            assert!(counters.retargets > 0 && counters.shares_accepted > 50, "seed {seed}: {counters:?}");
            assert_eq!(counters.shares_rejected.iter().sum::<u64>(), 0, "seed {seed}");
            time
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("times {factor} the hash rate was followed within, in seconds: {times:?}");
    times
}

#[test]
fn a_tenfold_rise_is_followed_within_a_minute() {
    let times = jump(20.0, 10.0);
    assert!(times[times.len() * 9 / 10] <= 60.0, "seconds: {times:?}");
}

#[test]
fn a_tenfold_fall_is_followed_within_three_minutes() {
    let times = jump(200.0, 0.1);
    assert!(times[times.len() * 9 / 10] <= 180.0, "seconds: {times:?}");
}

/// Jumps up and down at random, with jobs and tips under way: only what was found for an old tip is refused.
#[test]
fn retargets_reject_nothing() {
    let mut retargets = 0;
    for seed in 100..108 {
        let (mut world, channel) = steady(seed, seed.is_multiple_of(2), 50.0);
        for _ in 0..12 {
            let up = world.random.chance(0.5);
            let announce = world.random.chance(0.3);
            let tip = world.random.chance(0.5);
            let now = world.now;
            let peer = &mut world.peers[0];
            let device = peer.devices.get_mut(&channel).expect("the device");
            let up = if up { device.hash_rate < 100.0 } else { device.hash_rate < 10.0 };
            device.hash_rate *= if up { 10.0 } else { 0.1 };
            let hash_rate = device.hash_rate;
            if announce {
                peer.update(channel, hash_rate, now);
            }
            if tip {
                world.new_tip();
            } else {
                world.new_template(false);
            }
            world.run(Duration::from_secs(150), STEP);
        }
        let rejected = world.rejected();
        assert!(rejected.keys().all(|code| code == "stale-share"), "seed {seed}: {rejected:?}");
        retargets += world.server.counters().retargets;
    }
    assert!(retargets >= 8 * 4, "{retargets} retargets prove little");
}
