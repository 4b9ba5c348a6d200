//! Targets: how they follow the shares that a channel shows, and what it announces.

mod common;

use std::time::Duration;

use adit_codec::message::UpdateChannel;
use adit_hasher::Target;
use common::mirror::{Mirror, outcome, standard};
use common::{World, config};

#[test]
fn targets_follow_the_share_rate() {
    let mut following = config();
    following.vardiff.shares_per_minute = 60.0;
    following.vardiff.adjust = true;
    following.limits.shares_per_tip_max = 1_000_000;
    let mut world = World::with_work(following);
    // It announces one hash a second and does a thousand times as many.
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let first = mirror.channels[&channel].target;
    let mut nonce = 0;
    for _ in 0..600 {
        world.advance(0.5);
        for _ in 0..50 {
            let job = mirror.channels[&channel].last_job.expect("work");
            let view = &mirror.channels[&channel];
            let active = view.jobs[&job].active.expect("active");
            nonce += 1;
            let share = view.standard(job, nonce, nonce);
            if active.target.is_met_by(&view.digest(job, &[], share.version, share.ntime, nonce)) {
                world.send(id, &share);
            }
        }
        world.settle();
        while world.server.poll_timeout().is_some_and(|due| due <= world.now) {
            world.timeout();
        }
        world.fan_out();
        mirror.read_all(&world.take());
    }
    assert!(mirror.errors.is_empty(), "no retarget costs a share: {:?}", mirror.errors);
    let retargets = world.server.counters().retargets;
    assert!((1..20).contains(&retargets), "{retargets}");
    let last = mirror.channels[&channel].target;
    let per_minute = 100.0 * 60.0 / (last.difficulty() / Target::MAX.difficulty());
    assert!(last < first && (10.0..360.0).contains(&per_minute), "{per_minute} shares a minute");
    assert!(world.now.since(adit_proto::Instant::ZERO) > Duration::from_secs(1_000));
}

/// A silent channel whose target is eased already costs a shard next to nothing.
#[test]
fn channels_that_cannot_be_eased_are_seldom_looked_at() {
    let next = |difficulty_min| {
        let mut following = config();
        following.vardiff.shares_per_minute = 1.0;
        following.vardiff.difficulty_min = difficulty_min;
        following.vardiff.adjust = true;
        following.limits.first_channel_timeout = Duration::from_secs(3_600);
        let mut world = World::new(following);
        let id = world.connect(0);
        world.open_standard(id);
        world.server.poll_timeout().expect("a channel is looked at").since(world.now)
    };
    // It announces one hash a second, so that a share has 60.
    assert!(next(1e-20) <= Duration::from_secs(31));
    assert!(next(1.0) >= Duration::from_secs(60));
}

/// A channel that has shown shares cannot ask for an easy target as often as it likes.
#[test]
fn announcements_do_not_ease_what_shares_have_shown() {
    let mut following = config();
    following.vardiff.shares_per_minute = 1.0;
    following.vardiff.adjust = true;
    let mut world = World::with_work(following);
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let announced = |world: &mut World, mirror: &mut Mirror, nominal_hash_rate: f32| {
        let update = UpdateChannel { channel_id: channel, nominal_hash_rate, maximum_target: &[0xff; 32] };
        world.send(id, &update);
        let frames = world.take();
        let names: Vec<&str> = frames.iter().map(|frame| frame.name()).collect();
        assert_eq!(names, ["SetTarget"], "every announcement is answered");
        mirror.read_all(&frames);
        mirror.channels[&channel].target
    };
    let easy = announced(&mut world, &mut mirror, 0.02);
    let shown = announced(&mut world, &mut mirror, 1.0);
    assert!(shown < easy, "before the first share a client may announce what it likes");
    let view = &mirror.channels[&channel];
    let job = view.last_job.expect("work");
    world.send(id, &view.standard(job, 1, view.find(job, &[], 0, true)));
    assert_eq!(outcome(&mut world, &mut mirror), None);
    let eased = Target::from_difficulty(shown.difficulty() / 8.0);
    for _ in 0..100 {
        assert_eq!(announced(&mut world, &mut mirror, 0.02), eased);
    }
    assert_eq!(announced(&mut world, &mut mirror, 1.0), shown, "more is believed at once");
    assert_eq!(announced(&mut world, &mut mirror, 0.02), shown, "and not taken back");
}
