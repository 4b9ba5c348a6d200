//! Who is dropped because too much waits for it, and who is not.

#[path = "common/detached.rs"]
mod detached;

use adit_codec::message::flags::REQUIRES_STANDARD_JOBS;
use adit_engine::shard::Effect;
use adit_engine::transport::SocketId;

use detached::{World, work};

/// Gives new tips until the connection is closed, at most `max`, while nothing that was sent is taken. Returns how many it
/// outlived.
fn tips_outlived(channels: usize, max: u64) -> u64 {
    let mut world = World::new(0);
    world.join(SocketId(0), REQUIRES_STANDARD_JOBS, channels);
    for tip in 0..max {
        let (template, prev_hash) = work(2 + tip);
        world.shard.core.handle_template(&template);
        world.shard.core.handle_template(&prev_hash);
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
