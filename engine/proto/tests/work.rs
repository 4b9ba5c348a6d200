//! Work: what is announced, to whom, in which order, and what binds it.

mod common;

use adit_codec::message::Message;
use adit_hasher::Target;
use adit_proto::Priority;
use adit_proto::mining::server::{ChannelId, ConnectionId, TemplateError};
use common::mirror::Mirror;
use common::{Frame, HEADER_TIMESTAMP, World, config, prev_hash, template};

fn names(frames: &[Frame]) -> Vec<&'static str> {
    frames.iter().map(Frame::name).collect()
}

/// Job id, and whether it is a future job, of the announcements among frames.
fn jobs(frames: &[Frame]) -> Vec<(u32, u32, bool)> {
    frames
        .iter()
        .filter_map(|frame| match frame.message() {
            Message::NewMiningJob(m) => Some((m.channel_id, m.job_id, m.min_ntime.is_none())),
            Message::NewExtendedMiningJob(m) => Some((m.channel_id, m.job_id, m.min_ntime.is_none())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_channel_gets_the_job_the_tip_then_the_future_jobs() {
    let mut world = World::with_work(config());
    world.template(template(2, true)).expect("a good template");
    world.template(template(3, false)).expect("a good template");
    world.template(template(4, true)).expect("a good template");
    for (flags, extended) in [(0, false), (1, false), (0, true)] {
        let id = world.connect(flags);
        if extended {
            world.open_extended(id, 8);
        } else {
            world.open_standard(id);
        }
        let frames = world.take();
        let job = if extended { "NewExtendedMiningJob" } else { "NewMiningJob" };
        let opened =
            if extended { "OpenExtendedMiningChannel.Success" } else { "OpenStandardMiningChannel.Success" };
        assert_eq!(names(&frames), [opened, job, "SetNewPrevHash", job, job]);
        assert!(frames.iter().all(|frame| frame.priority == Priority::Work));
        assert_eq!(jobs(&frames), [(64, 3, true), (64, 2, true), (64, 4, true)]);
        let mut mirror = Mirror { standard_jobs: flags == 1, ..Mirror::default() };
        mirror.read_all(&frames);
        assert_eq!(mirror.channels[&64].last_job, Some(3));
    }
    assert!(!world.server.poll_fan_out(1_000, &world.hashes, &mut world.out), "nothing is told twice");
    assert!(world.take().is_empty());
}

#[test]
fn channels_may_open_before_there_is_work() {
    for (flags, standard) in [(0, true), (1, true), (0, false)] {
        let mut world = World::new(config());
        let id = world.connect(flags);
        let mut mirror = Mirror { standard_jobs: flags == 1, ..Mirror::default() };
        for _ in 0..3 {
            if standard { world.open_standard(id) } else { world.open_extended(id, 8) }
        }
        let frames = world.take();
        assert_eq!(frames.len(), 3, "the openings alone: {:?}", names(&frames));
        mirror.read_all(&frames);
        world.template(template(1, true)).expect("a good template");
        world.fan_out();
        mirror.read_all(&world.take());
        world.open_standard(id);
        world.tip(prev_hash(1, 1)).expect("a known template");
        world.fan_out();
        mirror.read_all(&world.take());
        assert_eq!(mirror.channels.len(), 4);
        assert!(mirror.channels.values().all(|channel| channel.last_job == Some(1)));
        for channel in mirror.channels.values() {
            let extranonce = vec![3; channel.extranonce_size];
            if channel.extended {
                world.send(id, &channel.extended(1, 1, 0, &extranonce));
            } else {
                world.send(id, &channel.standard(1, 1, 0));
            }
        }
        world.settle();
        mirror.read_all(&world.take());
        assert_eq!(mirror.accepted, 4, "{:?}", mirror.errors);
    }
}

#[test]
fn one_frame_per_group_is_shared() {
    let mut world = World::with_work(config());
    let mut mirrors: Vec<(ConnectionId, Mirror)> = Vec::new();
    for _ in 0..5 {
        let id = world.connect(0);
        let mut mirror = Mirror::default();
        world.open_standard(id);
        world.open_standard(id);
        for size in [8, 8, 16] {
            world.open_extended(id, size);
        }
        mirror.read_all(&world.take());
        mirrors.push((id, mirror));
    }
    world.template(template(2, false)).expect("a good template");
    world.fan_out();
    let frames = world.take();
    assert_eq!(frames.len(), 5 * 3, "three groups of each connection");
    for size in [8, 16, 24] {
        let same: Vec<&Frame> = frames
            .iter()
            .filter(|frame| {
                matches!(frame.message(), Message::NewExtendedMiningJob(job) if job.channel_id == size)
            })
            .collect();
        assert_eq!(same.len(), 5);
        assert!(same.iter().all(|frame| frame.payload == same[0].payload));
    }
    for (id, mirror) in &mut mirrors {
        let own: Vec<Frame> = frames.iter().filter(|frame| frame.to == *id).cloned().collect();
        mirror.read_all(&own);
        for channel in mirror.channels.values() {
            let extranonce = vec![9; channel.extranonce_size];
            if channel.extended {
                world.send(*id, &channel.extended(2, 1, 0, &extranonce));
            } else {
                world.send(*id, &channel.standard(2, 1, 0));
            }
        }
    }
    world.settle();
    assert_eq!(world.server.counters().shares_accepted, 25, "groups of mixed sizes all hash what was meant");
}

#[test]
fn standard_jobs_are_told_channel_by_channel() {
    let mut world = World::with_work(config());
    let id = world.connect(1);
    let mut mirror = Mirror { standard_jobs: true, ..Mirror::default() };
    for _ in 0..150 {
        world.open_standard(id);
    }
    mirror.read_all(&world.take());
    world.template(template(2, true)).expect("a good template");
    world.tip(prev_hash(2, 2)).expect("a known template");
    let mut calls = 0;
    while world.server.poll_fan_out(4, &world.hashes, &mut world.out) {
        calls += 1;
    }
    assert!(calls >= 2, "a large connection takes several slices");
    let frames = world.take();
    assert_eq!(frames.len(), 300);
    mirror.read_all(&frames);
    for channel in mirror.channels.values() {
        world.send(id, &channel.standard(2, 1, 3));
    }
    world.settle();
    assert_eq!(world.server.counters().shares_accepted, 150);
    // Repeated jobs have the same roots, under another id.
    world.advance(31.0);
    world.timeout();
    world.fan_out();
    let before: Vec<_> = mirror.channels.values().map(|channel| channel.jobs[&2].body.clone()).collect();
    mirror.read_all(&world.take());
    let after: Vec<_> = mirror.channels.values().map(|channel| channel.jobs[&3].body.clone()).collect();
    assert_eq!(before, after);
    let unique: std::collections::BTreeSet<String> = after.iter().map(|body| format!("{body:?}")).collect();
    assert_eq!(unique.len(), 150);
}

#[test]
fn a_connection_left_in_the_middle_is_finished_first() {
    let mut world = World::with_work(config());
    let id = world.connect(1);
    let mut mirror = Mirror { standard_jobs: true, ..Mirror::default() };
    for _ in 0..150 {
        world.open_standard(id);
    }
    mirror.read_all(&world.take());
    world.template(template(2, false)).expect("a good template");
    assert!(world.server.poll_fan_out(4, &world.hashes, &mut world.out));
    mirror.read_all(&world.take());
    let told = mirror.channels.values().filter(|channel| channel.last_job == Some(2)).count();
    assert!((1..150).contains(&told), "{told}");
    // Those who were told may submit, before the others were.
    world.send(id, &mirror.channels[&64].standard(2, 1, 1));
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!(mirror.accepted, 1);
    // News in the middle, and a channel that opens: everything arrives, once, in order.
    world.template(template(3, true)).expect("a good template");
    world.open_standard(id);
    mirror.read_all(&world.take());
    assert!(
        mirror.channels.values().all(|channel| channel.last_job == Some(2) && channel.jobs.contains_key(&3))
    );
    world.fan_out();
    assert!(world.take().is_empty());

    // The same with a tip in the middle: what went stale is not told to the rest.
    world.template(template(4, false)).expect("a good template");
    assert!(world.server.poll_fan_out(4, &world.hashes, &mut world.out));
    world.tip(prev_hash(3, 2)).expect("a known template");
    world.fan_out();
    let frames = world.take();
    let stale = jobs(&frames).iter().filter(|(_, job, _)| *job == 4).count();
    assert!(stale < 150, "{stale}");
    mirror.read_all(&frames);
    assert!(mirror.channels.values().all(|channel| channel.last_job == Some(3)));
    world.server.handle_disconnect(id, &mut world.out);
    world.fan_out();
}

#[test]
fn jobs_are_repeated() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, 8);
    mirror.read_all(&world.take());
    let due = world.server.poll_timeout().expect("a job is to be repeated");
    assert!(due.since(world.now).as_secs() <= 30);
    for round in 1..=8_u32 {
        world.advance(30.0);
        world.timeout();
        world.fan_out();
        let frames = world.take();
        assert_eq!(jobs(&frames), [(16, 1 + round, false)]);
        let Message::NewExtendedMiningJob(job) = frames[0].message() else { panic!("{:?}", frames[0]) };
        assert_eq!(job.min_ntime, Some(HEADER_TIMESTAMP + 30 * round), "repeated jobs search new headers");
        mirror.read_all(&frames);
    }
    // Of the older ones, those beyond the bound are stale: the tip's own stays, and the newest.
    let verdicts: Vec<bool> = (1..=9)
        .map(|job| {
            let accepted = world.server.counters().shares_accepted;
            world.send(id, &mirror.channels[&64].extended(job, job, job, &[0; 8]));
            world.settle();
            mirror.read_all(&world.take());
            world.server.counters().shares_accepted > accepted
        })
        .collect();
    assert_eq!(verdicts, [true, false, false, false, false, false, true, true, true]);
    assert!(mirror.errors.iter().all(|(_, _, code)| code == "stale-share"));
    // A template in between puts the next repetition off.
    world.advance(29.0);
    world.template(template(2, false)).expect("a good template");
    world.advance(29.0);
    world.timeout();
    world.fan_out();
    assert_eq!(jobs(&world.take()), [(16, 10, false)]);
}

#[test]
fn a_target_binds_the_jobs_that_become_active_after_it() {
    for flags in [0, 1] {
        let mut world = World::with_work(config());
        let id = world.connect(flags);
        let mut mirror = Mirror { standard_jobs: flags == 1, ..Mirror::default() };
        world.open_standard(id);
        world.template(template(2, true)).expect("a good template");
        world.fan_out();
        mirror.read_all(&world.take());
        let impossible = prev_hash(0, 0).target;
        let set = |world: &mut World, mirror: &mut Mirror, target: Target| {
            world.server.set_target(id, ChannelId(64), target, &world.hashes, &mut world.out).expect("open");
            mirror.read_all(&world.take());
        };
        let accepted = |world: &mut World, mirror: &mut Mirror, job: u32, nonce: u32| {
            let before = world.server.counters().shares_accepted;
            world.send(id, &mirror.channels[&64].standard(job, nonce, nonce));
            world.settle();
            mirror.read_all(&world.take());
            world.server.counters().shares_accepted > before
        };
        set(&mut world, &mut mirror, impossible);
        assert!(accepted(&mut world, &mut mirror, 1, 1), "an active job keeps its target");
        // Pending while the target changes twice: it hears of the job first, so the first target binds it.
        world.template(template(3, false)).expect("a good template");
        set(&mut world, &mut mirror, Target::MAX);
        assert!(!accepted(&mut world, &mut mirror, 3, 2));
        assert!(accepted(&mut world, &mut mirror, 1, 3));
        world.template(template(4, false)).expect("a good template");
        world.fan_out();
        mirror.read_all(&world.take());
        set(&mut world, &mut mirror, impossible);
        assert!(accepted(&mut world, &mut mirror, 4, 4));
        assert!(!accepted(&mut world, &mut mirror, 3, 5));
        assert!(accepted(&mut world, &mut mirror, 1, 6));
        // The future job was sent under the first target, and becomes active under the last.
        set(&mut world, &mut mirror, Target::MAX);
        world.tip(prev_hash(2, 2)).expect("a known template");
        world.fan_out();
        mirror.read_all(&world.take());
        assert!(accepted(&mut world, &mut mirror, 2, 7));
    }
}

#[test]
fn a_prefix_binds_the_jobs_that_are_sent_after_it() {
    for (flags, extended) in [(0, false), (1, false), (0, true)] {
        let mut world = World::with_work(config());
        let id = world.connect(flags);
        let mut mirror = Mirror { standard_jobs: flags == 1, ..Mirror::default() };
        if extended {
            world.open_extended(id, 8)
        } else {
            world.open_standard(id)
        }
        world.template(template(2, true)).expect("a good template");
        world.fan_out();
        world.template(template(3, false)).expect("a good template");
        // Job 3 is pending and is sent before the prefix.
        world
            .server
            .set_extranonce_prefix(id, ChannelId(64), &world.hashes, &mut world.out)
            .expect("it is open");
        world.template(template(4, false)).expect("a good template");
        world.fan_out();
        world
            .server
            .set_extranonce_prefix(id, ChannelId(64), &world.hashes, &mut world.out)
            .expect("it is open");
        mirror.read_all(&world.take());
        // Every digest must be the one that the client meant: no target is that easy by accident.
        let channel = mirror.channels[&64].clone();
        let prefixes: std::collections::BTreeSet<_> =
            channel.jobs.values().map(|job| job.extranonce_prefix.clone()).collect();
        assert_eq!(prefixes.len(), 2);
        let half = {
            let mut bytes = [0xff; 32];
            bytes[31] = 0x7f;
            Target::from_le_bytes(bytes)
        };
        let check = |world: &mut World, mirror: &mut Mirror, job: u32| {
            let channel = mirror.channels[&64].clone();
            let target = channel.jobs[&job].active.expect("active").target;
            for nonce in 0..16 {
                let extranonce = vec![7; channel.extranonce_size];
                let digest =
                    channel.digest(job, &extranonce, 0x2000_0000, channel_ntime(&channel, job), nonce);
                let (ok, bad) = (mirror.accepted, mirror.errors.len());
                if extended {
                    world.send(id, &channel.extended(job, nonce, nonce, &extranonce));
                } else {
                    world.send(id, &channel.standard(job, nonce, nonce));
                }
                world.settle();
                mirror.read_all(&world.take());
                let met = target.is_met_by(&digest);
                assert_eq!(
                    (mirror.accepted - ok, mirror.errors.len() - bad),
                    (u64::from(met), usize::from(!met))
                );
            }
        };
        for job in [1, 3, 4] {
            check(&mut world, &mut mirror, job);
        }
        world.server.set_target(id, ChannelId(64), half, &world.hashes, &mut world.out).expect("it is open");
        world.tip(prev_hash(2, 2)).expect("a known template");
        world.fan_out();
        mirror.read_all(&world.take());
        // The future job was announced under the first prefix; half of the digests pass.
        assert_eq!(mirror.channels[&64].jobs[&2].extranonce_prefix, channel.jobs[&1].extranonce_prefix);
        check(&mut world, &mut mirror, 2);
        world.template(template(9, false)).expect("a good template");
        world.fan_out();
        mirror.read_all(&world.take());
        check(&mut world, &mut mirror, 5);
    }
}

fn channel_ntime(channel: &common::mirror::Channel, job: u32) -> u32 {
    channel.jobs[&job].active.expect("active").min_ntime
}

#[test]
fn rounds_begin_elsewhere() {
    let mut world = World::with_work(config());
    let ids: Vec<ConnectionId> = (0..8)
        .map(|_| {
            let id = world.connect(0);
            world.open_extended(id, 8);
            id
        })
        .collect();
    world.take();
    let mut first = std::collections::BTreeSet::new();
    for id in 2..40 {
        world.template(template(id, false)).expect("a good template");
        assert!(world.server.poll_fan_out(3, &world.hashes, &mut world.out));
        let frames = world.take();
        assert_eq!(frames.len(), 3, "a slice is what was asked for");
        first.insert(frames[0].to.slot);
        world.fan_out();
        assert_eq!(world.take().len(), 5);
    }
    assert_eq!(first.len(), ids.len());
}

#[test]
fn what_goes_stale_on_the_way_is_never_told() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, 8);
    mirror.read_all(&world.take());
    for (job, tip) in [(2, 2), (3, 3), (4, 4)] {
        world.template(template(job, true)).expect("a good template");
        world.tip(prev_hash(job, tip)).expect("a known template");
    }
    world.template(template(5, false)).expect("a good template");
    world.fan_out();
    let frames = world.take();
    assert_eq!(names(&frames), ["NewExtendedMiningJob", "SetNewPrevHash", "NewExtendedMiningJob"]);
    assert_eq!(jobs(&frames), [(16, 4, true), (16, 5, false)]);
    mirror.read_all(&frames);
}

#[test]
fn a_tip_may_name_a_template_that_was_announced_as_active() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, 8);
    world.template(template(2, false)).expect("a good template");
    world.fan_out();
    mirror.read_all(&world.take());
    world.tip(prev_hash(2, 2)).expect("a known template");
    world.fan_out();
    let frames = world.take();
    assert_eq!(names(&frames), ["NewExtendedMiningJob", "SetNewPrevHash"]);
    assert_eq!(jobs(&frames), [(16, 3, true)], "announced anew, as future");
    mirror.read_all(&frames);
}

#[test]
fn a_tip_without_its_template_waits_for_one() {
    for late in [template(9, true), template(8, false)] {
        let mut world = World::with_work(config());
        let id = world.connect(0);
        let mut mirror = Mirror::default();
        world.open_standard(id);
        mirror.read_all(&world.take());
        let share = mirror.channels[&64].standard(1, 1, 1);
        assert_eq!(world.tip(prev_hash(9, 2)), Err(TemplateError::UnknownTemplate(9)));
        world.fan_out();
        assert!(world.take().is_empty(), "there is nothing to be told");
        world.send(id, &share);
        world.settle();
        mirror.read_all(&world.take());
        assert_eq!(mirror.errors, [(64, 1, "stale-share".into())]);
        // A channel that opens now gets its first job on its own, the others by their group.
        world.open_standard(id);
        mirror.read_all(&world.take());
        world.advance(3.0);
        world.template(late).expect("a good template");
        world.fan_out();
        mirror.read_all(&world.take());
        for channel in [64, 65] {
            let view = &mirror.channels[&channel];
            let job = view.last_job.expect("work");
            world.send(id, &view.standard(job, 1, 1));
        }
        world.settle();
        mirror.read_all(&world.take());
        assert_eq!(mirror.accepted, 2);
    }
    // A template for a later tip does not stand in for the one that is missing.
    let mut world = World::with_work(config());
    let id = world.connect(0);
    world.open_extended(id, 8);
    world.take();
    assert_eq!(world.tip(prev_hash(9, 2)), Err(TemplateError::UnknownTemplate(9)));
    world.template(template(8, true)).expect("a good template");
    world.fan_out();
    assert_eq!(names(&world.take()), ["NewExtendedMiningJob"]);
    world.template(template(9, true)).expect("a good template");
    world.fan_out();
    let frames = world.take();
    // SetNewPrevHash ended the job of template 8, so it is announced anew.
    assert_eq!(names(&frames), ["NewExtendedMiningJob", "SetNewPrevHash", "NewExtendedMiningJob"]);
    assert_eq!(jobs(&frames), [(16, 3, true), (16, 4, true)]);
    // The same tip told again, naming what is gone: nothing changes.
    assert_eq!(world.tip(prev_hash(1, 2)), Err(TemplateError::UnknownTemplate(1)));
    world.fan_out();
    assert!(world.take().is_empty());
}

#[test]
fn templates_may_come_before_any_tip() {
    let mut world = World::new(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, 8);
    // Said to be for the present tip, which nobody has named yet.
    world.template(template(1, false)).expect("a good template");
    world.fan_out();
    mirror.read_all(&world.take());
    assert!(mirror.channels[&64].jobs[&1].active.is_none());
    assert_eq!(world.server.poll_timeout().map(|due| due > world.now), Some(true));
    world.tip(prev_hash(1, 1)).expect("a known template");
    world.fan_out();
    mirror.read_all(&world.take());
    assert_eq!(mirror.channels[&64].last_job, Some(1));
}

#[test]
fn bad_templates_are_refused_and_change_nothing() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    world.open_extended(id, 8);
    world.take();
    let good = || template(5, false);
    let mut long_prefix = good();
    long_prefix.coinbase_prefix = vec![0; 9];
    let mut wrong_count = good();
    wrong_count.coinbase_tx_outputs_count = 2;
    let mut cut = good();
    cut.coinbase_tx_outputs.pop();
    let mut deep = good();
    deep.merkle_path = vec![[0; 32]; 33];
    let mut large = good();
    large.coinbase_tx_outputs = [&[0; 8][..], &[0xfe, 0, 0, 1, 0], &[0x6a; 65_536]].concat();
    let cases = [
        (template(1, true), TemplateError::NotRising(1)),
        (long_prefix, TemplateError::CoinbasePrefixTooLong(5)),
        (wrong_count, TemplateError::OutputsMalformed(5)),
        (cut, TemplateError::OutputsMalformed(5)),
        (deep, TemplateError::MerklePathTooLong(5)),
        (large, TemplateError::CoinbaseTooLong(5)),
    ];
    for (template, error) in cases {
        assert_eq!(world.template(template), Err(error));
        assert!(!error.to_string().is_empty());
        world.fan_out();
        assert!(world.take().is_empty());
    }
    world.template(good()).expect("the id is still free");
}

#[test]
fn future_jobs_are_bounded_too() {
    let mut world = World::with_work(config());
    for id in 2..50 {
        world.template(template(id, true)).expect("a good template");
    }
    let id = world.connect(0);
    world.open_standard(id);
    let frames = world.take();
    let futures: Vec<u32> = jobs(&frames).iter().skip(1).map(|(_, job, _)| *job).collect();
    assert_eq!(futures, [46, 47, 48, 49]);
    assert_eq!(world.tip(prev_hash(2, 2)), Err(TemplateError::UnknownTemplate(2)));
}

#[test]
fn a_repeated_job_takes_the_new_prefix() {
    for flags in [0, 1] {
        let mut world = World::with_work(config());
        let id = world.connect(flags);
        let mut mirror = Mirror { standard_jobs: flags == 1, ..Mirror::default() };
        world.open_standard(id);
        mirror.read_all(&world.take());
        world
            .server
            .set_extranonce_prefix(id, ChannelId(64), &world.hashes, &mut world.out)
            .expect("it is open");
        let mut bytes = [0xff; 32];
        bytes[31] = 0x7f;
        let half = Target::from_le_bytes(bytes);
        world.server.set_target(id, ChannelId(64), half, &world.hashes, &mut world.out).expect("it is open");
        world.advance(30.0);
        world.timeout();
        world.fan_out();
        mirror.read_all(&world.take());
        let channel = mirror.channels[&64].clone();
        assert_ne!(channel.jobs[&1].body, channel.jobs[&2].body, "another prefix, another root");
        for nonce in 0..16 {
            let met = half.is_met_by(&channel.digest(2, &[], 0x2000_0000, channel_ntime(&channel, 2), nonce));
            let accepted = mirror.accepted;
            world.send(id, &channel.standard(2, nonce, nonce));
            world.settle();
            mirror.read_all(&world.take());
            assert_eq!(mirror.accepted - accepted, u64::from(met));
        }
    }
}
