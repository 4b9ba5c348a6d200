//! Shares: every verdict, and what answers them.

mod common;

use common::mirror::Mirror;
use common::{World, config};

/// A connection with one standard channel, and the mirror that read it.
fn standard(world: &mut World, flags: u32) -> (adit_proto::mining::server::ConnectionId, Mirror, u32) {
    let id = world.connect(flags);
    let mut mirror = Mirror { standard_jobs: flags & 1 != 0, ..Mirror::default() };
    world.open_standard(id);
    mirror.read_all(&world.take());
    let channel = mirror.opened[0];
    (id, mirror, channel)
}

fn extended(world: &mut World, size: u16) -> (adit_proto::mining::server::ConnectionId, Mirror, u32) {
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, size);
    mirror.read_all(&world.take());
    let channel = mirror.opened[0];
    (id, mirror, channel)
}

#[test]
fn a_share_of_each_kind_is_accepted() {
    for flags in [0, 1] {
        let mut world = World::with_work(config());
        let (id, mut mirror, channel) = standard(&mut world, flags);
        let job = mirror.channels[&channel].last_job.expect("work came with the channel");
        for nonce in 0..20 {
            world.send(id, &mirror.channels[&channel].standard(job, nonce, nonce));
        }
        assert_eq!(world.server.pending_shares(), 20);
        world.settle();
        mirror.read_all(&world.take());
        assert_eq!(mirror.successes.len(), 1);
        assert_eq!((mirror.successes[0].1, mirror.successes[0].2), (19, 20));
        assert_eq!(world.server.counters().shares_accepted, 20);
    }
    for size in [4, 8, 24] {
        let mut world = World::with_work(config());
        let (id, mut mirror, channel) = extended(&mut world, size);
        let job = mirror.channels[&channel].last_job.expect("work came with the channel");
        for nonce in 0..20 {
            let extranonce = vec![nonce as u8; usize::from(size)];
            world.send(id, &mirror.channels[&channel].extended(job, nonce, nonce, &extranonce));
        }
        world.settle();
        mirror.read_all(&world.take());
        assert_eq!((mirror.successes[0].1, mirror.successes[0].2), (19, 20));
    }
}
