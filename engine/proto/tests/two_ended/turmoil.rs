//! Everything at once: clients of all kinds, jobs, tips, operators' commands, closings and broken connections.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use adit_codec::message::flags::{REQUIRES_STANDARD_JOBS, REQUIRES_VERSION_ROLLING};
use adit_hasher::{Portable, Target};
use adit_proto::mining::client::{ChannelKind, ClientEvent};
use adit_proto::mining::server::{ChannelId, CloseReason, CommandError, ConnectionId, VardiffConfig};

use super::common;
use super::peer::{Order, Peer};
use super::random::Random;
use super::world::World;

const STEPS: usize = 600;

/// What may happen to a share that was sent in good faith: it was found for a tip or a channel that ended meanwhile.
const GOOD_FAITH: [&str; 2] = ["stale-share", "invalid-channel-id"];

fn peer(random: &mut Random) -> Peer {
    let flags = [0, REQUIRES_VERSION_ROLLING, REQUIRES_STANDARD_JOBS][random.below(3) as usize];
    let orders = (0..1 + random.below(5))
        .map(|_| Order {
            extended: flags != REQUIRES_STANDARD_JOBS && random.chance(0.5),
            hash_rate: 5.0 + random.fraction() * 50.0,
        })
        .collect();
    Peer::new(flags, orders, Duration::from_millis(random.below(300)))
}

fn world(seed: u64) -> World {
    let mut config = common::config();
    config.vardiff = VardiffConfig {
        shares_per_minute: 30.0,
        hash_rate_default: 20.0,
        difficulty_min: 0.0,
        adjust: seed.is_multiple_of(2),
    };
    config.job_interval = Duration::from_secs(10);
    let mut world = World::new(config, seed);
    for _ in 0..2 + seed % 4 {
        let peer = peer(&mut world.random);
        world.add(peer);
    }
    world
}

fn channels_of(world: &World, peer: usize) -> Vec<ChannelId> {
    world.peers[peer].devices.keys().copied().collect()
}

/// Something that can happen at any time.
fn disturb(world: &mut World) {
    let index = world.random.below(world.peers.len() as u64) as usize;
    let channels = channels_of(world, index);
    let (now, connection) = (world.now, world.peers[index].connection);
    let channel = world.random.pick(&channels);
    match (world.random.below(12), connection, channel) {
        (0, _, _) => world.new_tip(),
        (1, _, _) => {
            world.new_template(true);
        }
        (2 | 3, _, _) => {
            world.new_template(false);
        }
        (4, Some(_), _) => world.disconnect(index),
        (5, Some(_), Some(channel)) => {
            let hash_rate = 5.0 + world.random.fraction() * 100.0;
            if let Some(device) = world.peers[index].devices.get_mut(&channel) {
                device.hash_rate = hash_rate;
            }
            world.peers[index].update(channel, hash_rate, now);
        }
        (6, Some(_), Some(channel)) => world.peers[index].close(channel, now),
        (7, Some(_), _) if world.peers[index].client.is_ready() && channels.len() < 8 => {
            let orders = world.peers[index].orders.clone();
            let order = world.random.pick(&orders).expect("a peer has orders");
            world.peers[index].open(order, now);
        }
        (_, Some(connection), Some(channel)) => command(world, connection, channel, &channels),
        _ => world.reconnect(index),
    }
}

/// A command of the operator. It may name a channel that is being closed.
fn command(world: &mut World, connection: ConnectionId, channel: ChannelId, channels: &[ChannelId]) {
    let World { server, out, random, now, .. } = world;
    let result = match random.below(6) {
        0 => server.close_channel(connection, channel, "operator", *now, out),
        1 => server.set_extranonce_prefix(connection, channel, &Portable, out),
        2 => {
            // Not every set of channels can be a group: that is for the server to say.
            let some: Vec<ChannelId> = channels.iter().copied().filter(|_| random.chance(0.5)).collect();
            server.set_group_channel(connection, &some, &Portable, out).map_or(Ok(()), |_| Ok(()))
        }
        3 => {
            let target = Target::from_hash_rate(5.0 + random.fraction() * 100.0, 30.0);
            server.set_target(connection, channel, target, &Portable, out)
        }
        4 => server.channel_endpoint_changed(connection, channel, out),
        _ => server.reconnect(connection, "", 0, out),
    };
    let refusable =
        matches!(result, Ok(()) | Err(CommandError::UnknownChannel | CommandError::UnknownConnection));
    assert!(refusable, "{result:?}");
    world.deliver();
}

fn run(seed: u64) {
    let mut world = world(seed);
    for _ in 0..STEPS {
        let passed = Duration::from_millis(50 + world.random.below(600));
        world.step(passed);
        if world.random.chance(0.25) {
            disturb(&mut world);
        }
        let index = world.random.below(world.peers.len() as u64) as usize;
        if world.random.chance(0.1) {
            world.reconnect(index);
        }
        obey_reconnect(&mut world);
    }
    settle(&mut world, seed);
}

/// A client that is sent away comes back.
fn obey_reconnect(world: &mut World) {
    for index in 0..world.peers.len() {
        let events = std::mem::take(&mut world.peers[index].events);
        if events.iter().any(|event| matches!(event, ClientEvent::Reconnect { .. })) {
            world.disconnect(index);
            world.reconnect(index);
        }
    }
}

/// Once nothing disturbs any more, every device works on the newest job, and every share is answered.
fn settle(world: &mut World, seed: u64) {
    for index in 0..world.peers.len() {
        world.reconnect(index);
    }
    world.run(Duration::from_secs(5), Duration::from_millis(100));
    world.new_tip();
    let mut accepted = world.server.counters().shares_accepted;
    world.run(Duration::from_secs(20), Duration::from_millis(100));
    accepted = world.server.counters().shares_accepted - accepted;
    let devices: usize = world.peers.iter().map(|peer| peer.devices.len()).sum();
    assert!(devices == 0 || accepted > 0, "{devices} devices find nothing");

    for peer in &mut world.peers {
        for device in peer.devices.values_mut() {
            device.hash_rate = 0.0;
        }
    }
    world.run(Duration::from_secs(3), Duration::from_millis(100));
    for peer in &world.peers {
        for channel in peer.client.channels() {
            assert_eq!(channel.outstanding(), 0, "an answer is missing on {:?}", channel.id());
            let work = peer.client.work(channel.id(), &Portable).expect("every channel has work");
            if channel.kind() == ChannelKind::Standard {
                assert_eq!(work.extranonce_size(), 0);
            }
        }
    }
    let rejected = world.rejected();
    assert!(rejected.keys().all(|code| GOOD_FAITH.contains(&code.as_str())), "{rejected:?}");
    let fine = |reason: &CloseReason| matches!(reason, CloseReason::NoChannel | CloseReason::Operator);
    assert!(world.closed.iter().all(fine), "{:?}", world.closed);
    // A share that a client saw accepted was accepted.
    let seen: u64 = world.peers.iter().map(Peer::shares_accepted).sum();
    assert!(seen <= world.server.counters().shares_accepted);
    assert!(seen > 50, "seed {seed}: hardly anything happened: {seen} shares");
}

#[test]
fn whatever_happens_nobody_breaks_the_protocol() {
    for seed in 0..40 {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("seed {seed}");
            resume_unwind(panic);
        }
    }
}
