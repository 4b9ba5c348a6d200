//! Who is dropped because too much waits for it, and who is not.

#[path = "common/detached.rs"]
mod detached;

use std::collections::{BTreeMap, BTreeSet};

use adit_codec::message::flags::REQUIRES_STANDARD_JOBS;
use adit_engine::shard::Effect;
use adit_engine::transport::{Handler, SocketId};
use adit_engine::{EndKind, EngineLimits, LogEvent, SEND_BUFFER_BYTES_PER_CHANNEL};

use detached::{World, work};

/// Gives new tips until the connection is closed, at most `max`, while nothing that was sent is taken. Returns how many it
/// outlived.
fn tips_outlived(channels: usize, max: u64) -> u64 {
    let mut world = World::new(0);
    world.join(SocketId(0), REQUIRES_STANDARD_JOBS, channels);
    for tip in 0..max {
        let (template, prev_hash) = work(2 + tip);
        world.shard.core.handle_update(&template);
        world.shard.core.handle_update(&prev_hash);
        let mut closed = false;
        for _ in 0..10 {
            world.next_tick();
            world.tick();
            world.shard.core.take_effects(|effect| closed |= matches!(effect, Effect::Close(_)));
        }
        if closed {
            return tip;
        }
    }
    max
}

#[test]
fn two_tips_may_wait_for_ten_thousand_channels() {
    let outlived = tips_outlived(10_000, 100);
    assert!((2..20).contains(&outlived), "{outlived} tips");
}

#[test]
fn many_slow_readers_are_bounded_together_and_fast_ones_unharmed() {
    const SLOW: u32 = 300;
    const FAST: u32 = 20;
    const PROXY_CHANNELS: usize = 500;
    let shard_max = 128 << 10;
    let limits = EngineLimits {
        handshakes_per_second_max: u32::MAX,
        shard_send_buffer_bytes_max: shard_max,
        ..EngineLimits::default()
    };
    let mut world = World::with_limits((SLOW + FAST) as usize, limits);
    let proxy = SocketId(SLOW + FAST);
    world.join(proxy, REQUIRES_STANDARD_JOBS, PROXY_CHANNELS);
    let channels = (SLOW + FAST) as usize + PROXY_CHANNELS;
    let bound = shard_max + channels * SEND_BUFFER_BYTES_PER_CHANNEL;

    let mut unread: BTreeMap<SocketId, Vec<u8>> = BTreeMap::new();
    let mut dropped = BTreeSet::new();
    let mut largest = 0;
    for tip in 0..400 {
        let (template, prev_hash) = work(2 + tip);
        world.shard.core.handle_update(&template);
        world.shard.core.handle_update(&prev_hash);
        for _ in 0..4 {
            world.next_tick();
            world.tick();
            let (mut sent, mut closed) = (Vec::new(), Vec::new());
            world.shard.core.take_effects(|effect| match effect {
                Effect::Send(socket, buffer) => sent.push((socket, buffer)),
                Effect::Close(socket) => closed.push(socket),
                Effect::ShutdownWrite(_) => {}
            });
            largest = largest.max(world.shard.core.send_backlog());
            for (socket, buffer) in sent {
                if socket.0 >= SLOW && socket != proxy {
                    world.shard.core.handle_sent(socket, buffer, Ok(()));
                } else {
                    unread.insert(socket, buffer);
                }
            }
            for socket in closed {
                let buffer = unread.remove(&socket).expect("who is dropped had not read");
                world.shard.core.handle_sent(socket, buffer, Err(125));
                world.shard.core.handle_closed(socket);
                dropped.insert(socket);
            }
        }
        // It holds far more than any of the slow ones for a whole tip, and reads then.
        if let Some(buffer) = unread.remove(&proxy) {
            assert!(buffer.len() > PROXY_CHANNELS * 50);
            world.shard.core.handle_sent(proxy, buffer, Ok(()));
        }
    }
    assert!(largest > shard_max && largest <= bound, "{largest} of {bound}");
    assert!(!dropped.is_empty() && dropped.iter().all(|socket| socket.0 < SLOW), "{dropped:?}");
    let line = world
        .shard
        .log
        .try_iter()
        .find(|event| matches!(event, LogEvent::ConnectionClosed { reason, .. } if reason.kind() == EndKind::SlowestReader))
        .expect("it is said");
    assert!(line.to_string().contains("on its shard, at most"), "{line}");
    // Once those who do not read have gone and the others have read, nothing is held any more.
    for (socket, buffer) in unread {
        world.shard.core.handle_sent(socket, buffer, Err(104));
    }
    let mut sent = Vec::new();
    world.shard.core.take_effects(|effect| {
        if let Effect::Send(socket, buffer) = effect {
            sent.push((socket, buffer));
        }
    });
    world.complete(&mut sent);
    assert_eq!(world.shard.core.send_backlog(), 0);
}
