//! Channels: opening, changing, grouping and closing them, by client and operator.

mod common;

use adit_codec::message::{
    CloseChannel, Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, UpdateChannel,
};
use adit_hasher::Target;
use adit_proto::mining::server::{
    ChannelId, CloseReason, CommandError, ConnectionId, Event, ServerConfig, VardiffConfig,
};
use common::mirror::Mirror;
use common::{World, config, prev_hash, template};

fn open_error(world: &mut World) -> String {
    let frames = world.take();
    assert_eq!(frames.len(), 1);
    let Message::OpenMiningChannelError(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!(answer.request_id, 9);
    String::from_utf8(answer.error_code.to_vec()).expect("ASCII")
}

fn standard(hash_rate: f32, max_target: &[u8; 32]) -> OpenStandardMiningChannel<'_> {
    OpenStandardMiningChannel { request_id: 9, user_identity: b"u", nominal_hash_rate: hash_rate, max_target }
}

fn extended(min_extranonce_size: u16) -> OpenExtendedMiningChannel<'static> {
    OpenExtendedMiningChannel {
        request_id: 9,
        user_identity: b"u",
        nominal_hash_rate: 1.0,
        max_target: &[0xff; 32],
        min_extranonce_size,
    }
}

#[test]
fn openings_that_cannot_be_are_refused() {
    let mut limited = config();
    limited.limits.channels_per_connection_max = 2;
    limited.limits.channels_max = 3;
    let mut world = World::with_work(limited);
    let id = world.connect(0);
    for hash_rate in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
        world.send(id, &standard(hash_rate, &[0xff; 32]));
        assert_eq!(open_error(&mut world), "invalid-nominal-hashrate");
    }
    world.send(id, &standard(1.0, &[0; 32]));
    assert_eq!(open_error(&mut world), "max-target-out-of-range");
    for size in [25, 32, u16::MAX] {
        world.send(id, &extended(size));
        assert_eq!(open_error(&mut world), "min-extranonce-size-too-large");
    }
    world.send(id, &standard(0.0, &[0xff; 32]));
    world.send(id, &extended(0));
    world.take();
    world.send(id, &extended(4));
    assert_eq!(open_error(&mut world), "channel-capacity-exhausted");

    let other = world.connect(1);
    world.send(other, &extended(4));
    assert_eq!(open_error(&mut world), "extended-channels-not-supported-for-standard-jobs");
    world.send(other, &standard(1.0, &[0xff; 32]));
    assert_eq!(world.names()[0], "OpenStandardMiningChannel.Success");
    world.send(other, &standard(1.0, &[0xff; 32]));
    assert_eq!(open_error(&mut world), "channel-capacity-exhausted");
    assert_eq!(world.server.channel_count(), 3);
}

#[test]
fn who_has_many_channels_leaves_room_for_the_first_of_others() {
    let mut limited = config();
    limited.limits.channels_per_connection_max = 100;
    limited.limits.channels_max = 20;
    let mut world = World::with_work(limited);
    let greedy = world.connect(0);
    let opened = (0..100).filter(|_| {
        world.send(greedy, &extended(4));
        world.names()[0] == "OpenExtendedMiningChannel.Success"
    });
    assert_eq!(opened.count(), 18);
    for _ in 0..2 {
        let device = world.connect(0);
        world.send(device, &standard(1.0, &[0xff; 32]));
        assert_eq!(world.names()[0], "OpenStandardMiningChannel.Success");
        world.send(device, &standard(1.0, &[0xff; 32]));
        assert_eq!(open_error(&mut world), "channel-capacity-exhausted");
    }
    let late = world.connect(0);
    world.send(late, &standard(1.0, &[0xff; 32]));
    assert_eq!(open_error(&mut world), "channel-capacity-exhausted");
}

#[test]
fn an_extended_channel_gets_what_it_asks_for() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    for (asked, granted) in [(0, 4), (4, 4), (5, 5), (16, 16), (24, 24)] {
        world.send(id, &extended(asked));
        let frames = world.take();
        let Message::OpenExtendedMiningChannelSuccess(answer) = frames[0].message() else {
            panic!("{:?}", frames[0])
        };
        assert_eq!(answer.extranonce_size, granted);
        assert_eq!(answer.group_channel_id, u32::from(granted) + 8);
        assert_eq!(answer.extranonce_prefix.len(), 8);
        assert_eq!(answer.extranonce_prefix[..3], [1, 2, 3], "node and shard");
    }
}

#[test]
fn the_first_target_follows_the_announcement() {
    let vardiff =
        VardiffConfig { shares_per_minute: 6.0, hash_rate_default: 1e12, difficulty_min: 0.0, adjust: true };
    let mut world = World::with_work(ServerConfig { vardiff, ..config() });
    let id = world.connect(0);
    let hard = Target::from_difficulty(1e12).to_le_bytes();
    let cases = [
        (1e15_f32, [0xff; 32], Target::from_hash_rate(f64::from(1e15_f32), 6.0)),
        (0.0, [0xff; 32], Target::from_hash_rate(1e12, 6.0)),
        (1.0, hard, Target::from_le_bytes(hard)),
    ];
    for (hash_rate, max_target, target) in cases {
        world.send(id, &standard(hash_rate, &max_target));
        let frames = world.take();
        let Message::OpenStandardMiningChannelSuccess(answer) = frames[0].message() else {
            panic!("{:?}", frames[0])
        };
        assert_eq!(Target::from_le_bytes(*answer.target), target);
    }
}

#[test]
fn an_uneven_maximum_target_is_kept_to() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    // More significant bits than a channel keeps.
    let mut uneven = [0x5a; 32];
    uneven[31] = 0;
    let max_target = Target::from_le_bytes(uneven);
    world.send(id, &standard(1.0, &uneven));
    let sent = |frames: &[common::Frame]| match frames[0].message() {
        Message::OpenStandardMiningChannelSuccess(answer) => Target::from_le_bytes(*answer.target),
        Message::SetTarget(answer) => Target::from_le_bytes(*answer.maximum_target),
        other => panic!("{other:?}"),
    };
    let first = sent(&world.take());
    assert!(first <= max_target);
    assert!(first.difficulty() < max_target.difficulty() * 1.000_001);
    world.send(id, &UpdateChannel { channel_id: 64, nominal_hash_rate: 1.0, maximum_target: &uneven });
    assert_eq!(sent(&world.take()), first);
    for (channel, target) in [(64, max_target), (8, Target::MAX)] {
        let result = world.server.set_target(id, ChannelId(channel), target, &world.hashes, &mut world.out);
        assert_eq!((result, sent(&world.take())), (Ok(()), first));
    }
}

#[test]
fn updates_are_answered_with_a_target() {
    let vardiff =
        VardiffConfig { shares_per_minute: 6.0, hash_rate_default: 1e12, difficulty_min: 0.0, adjust: true };
    let mut world = World::with_work(ServerConfig { vardiff, ..config() });
    let id = world.connect(0);
    world.open_extended(id, 8);
    world.take();
    let mut update = |hash_rate: f32, max_target: Target| {
        let max_target = max_target.to_le_bytes();
        world.send(
            id,
            &UpdateChannel { channel_id: 64, nominal_hash_rate: hash_rate, maximum_target: &max_target },
        );
        let frames = world.take();
        assert_eq!(frames.len(), 1);
        match frames[0].message() {
            Message::SetTarget(answer) => {
                assert_eq!(answer.channel_id, 64);
                Ok(Target::from_le_bytes(*answer.maximum_target))
            }
            Message::UpdateChannelError(answer) => {
                Err(String::from_utf8(answer.error_code.to_vec()).expect("ASCII"))
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(update(1e15, Target::MAX), Ok(Target::from_hash_rate(f64::from(1e15_f32), 6.0)));
    assert_eq!(update(1e15, Target::MAX), Ok(Target::from_hash_rate(f64::from(1e15_f32), 6.0)));
    assert_eq!(update(0.0, Target::MAX), Ok(Target::from_hash_rate(1e12, 6.0)));
    let hard = Target::from_difficulty(1e15);
    assert_eq!(update(0.0, hard), Ok(hard));
    for hash_rate in [f32::NAN, f32::INFINITY, -1.0] {
        assert_eq!(update(hash_rate, Target::MAX), Err("invalid-nominal-hashrate".into()));
    }
    let zero = Target::from_le_bytes([0; 32]);
    assert_eq!(update(1.0, zero), Err("max-target-out-of-range".into()));
    world.send(id, &UpdateChannel { channel_id: 999, nominal_hash_rate: 1.0, maximum_target: &[0xff; 32] });
    let frames = world.take();
    let Message::UpdateChannelError(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!((answer.channel_id, answer.error_code), (999, &b"invalid-channel-id"[..]));
}

#[test]
fn nothing_follows_a_close() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    for _ in 0..3 {
        world.open_standard(id);
    }
    mirror.read_all(&world.take());
    let job = mirror.channels[&64].last_job.expect("work");
    for channel in [64, 65, 66] {
        world.send(id, &mirror.channels[&channel].standard(job, 1, 0));
    }
    // By the client, with a share waiting.
    let late = mirror.channels[&64].standard(job, 2, 1);
    world.send(id, &CloseChannel { channel_id: 64, reason_code: b"done" });
    mirror.close(64);
    // By the operator.
    world
        .server
        .close_channel(id, ChannelId(65), "maintenance", world.now, &mut world.out)
        .expect("the channel is open");
    world.send(id, &late);
    world.send(id, &UpdateChannel { channel_id: 65, nominal_hash_rate: 1.0, maximum_target: &[0xff; 32] });
    world.send(id, &CloseChannel { channel_id: 65, reason_code: b"" });
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!(mirror.successes.len(), 1, "only the channel that is left is answered");
    assert_eq!(world.server.counters().shares_accepted, 3, "but all shares count");
    assert_eq!(world.server.channel_count(), 1);
    world.open_standard(id);
    mirror.read_all(&world.take());
    assert!(mirror.opened.iter().all(|id| *id >= 64));
    assert_eq!(mirror.opened.len(), 4);
}

#[test]
fn closing_a_group_closes_its_channels() {
    for flags in [0, 1] {
        let mut world = World::with_work(config());
        let id = world.connect(flags);
        for _ in 0..3 {
            world.open_standard(id);
        }
        if flags == 0 {
            world.open_extended(id, 8);
        }
        world.take();
        world.take_events();
        world.send(id, &CloseChannel { channel_id: 8, reason_code: b"" });
        assert!(world.take().is_empty());
        let events = world.take_events();
        assert_eq!(events.len(), 3);
        assert!(events.iter().all(|event| matches!(event, Event::ChannelClosed { .. })));
        assert_eq!(world.server.channel_count(), usize::from(flags == 0));
    }
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, 8);
    world.open_extended(id, 8);
    world.server.close_channel(id, ChannelId(16), "", world.now, &mut world.out).expect("the group is there");
    mirror.read_all(&world.take());
    assert!(mirror.channels.is_empty());
    assert_eq!(world.server.channel_count(), 0);
}

/// The least time that it takes a client to open a channel and close its group, some times over, beside `others` channels of
/// another group.
fn closing_beside(others: usize) -> std::time::Duration {
    let mut limited = config();
    limited.limits.channels_per_connection_max = 100_000;
    limited.limits.channels_max = 100_000;
    let mut world = World::with_work(limited);
    let id = world.connect(0);
    for _ in 0..others {
        world.open_extended(id, 16);
        world.take();
    }
    let group_of_4 = CloseChannel { channel_id: 12, reason_code: b"" };
    let rounds = (0..10).map(|_| {
        let begun = std::time::Instant::now();
        for _ in 0..20 {
            world.open_extended(id, 4);
            world.send(id, &group_of_4);
        }
        world.take();
        assert_eq!(world.server.channel_count(), others);
        begun.elapsed()
    });
    rounds.min().expect("ten rounds")
}

#[test]
fn closing_a_group_costs_what_its_members_cost() {
    let (few, many) = (closing_beside(10), closing_beside(50_000));
    assert!(many < few * 8, "{few:?} beside 10 channels, {many:?} beside 50,000");
}

#[test]
fn joining_and_leaving_leaks_nothing() {
    let mut world = World::with_work(config());
    for round in 0..50_u32 {
        let ids: Vec<ConnectionId> = (0..10).map(|i| world.connect(u32::from(i % 2 == 0))).collect();
        for id in &ids {
            for _ in 0..3 {
                world.open_standard(*id);
            }
        }
        assert_eq!((world.server.connection_count(), world.server.channel_count()), (10, 30));
        for id in &ids {
            if round % 2 == 0 {
                world.send(*id, &CloseChannel { channel_id: 64, reason_code: b"" });
            }
            world.server.handle_disconnect(*id, &mut world.out);
            world.server.handle_disconnect(*id, &mut world.out);
        }
        world.take();
        assert_eq!((world.server.connection_count(), world.server.channel_count()), (0, 0));
        let counters = world.server.counters();
        assert_eq!(counters.channels_opened, counters.channels_closed);
    }
    let opened = world.take_events().iter().filter(|e| matches!(e, Event::ChannelOpened { .. })).count();
    assert_eq!(opened, 1_500);
    world.timeout();
    assert!(world.take_events().is_empty(), "no timer is left of them");
}

#[test]
fn a_slot_that_is_reused_is_another_connection() {
    let mut world = World::with_work(config());
    let first = world.connect(0);
    world.server.handle_disconnect(first, &mut world.out);
    let second = world.connect(0);
    assert_eq!(first.slot, second.slot);
    assert_ne!(first, second);
    world.open_standard(first);
    assert!(world.take().is_empty(), "a late frame reaches nobody");
    assert_eq!(
        world.server.close_connection(first, CloseReason::Operator, world.now, &mut world.out),
        Err(CommandError::UnknownConnection)
    );
    world
        .server
        .close_connection(second, CloseReason::Operator, world.now, &mut world.out)
        .expect("it is there");
    let close = Event::Close { connection: second, reason: CloseReason::Operator };
    assert_eq!(world.take_events().last(), Some(&close));
}

#[test]
fn prefixes_are_never_shared() {
    let mut world = World::with_work(config());
    let mut prefixes = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let id = world.connect(0);
        let mut mirror = Mirror::default();
        world.open_standard(id);
        world.open_extended(id, 8);
        world.open_extended(id, 24);
        world
            .server
            .set_extranonce_prefix(id, ChannelId(64), &world.hashes, &mut world.out)
            .expect("the channel is open");
        let frames = world.take();
        for frame in &frames {
            mirror.read(frame);
            for channel in mirror.channels.values() {
                prefixes.insert(channel.extranonce_prefix.clone());
            }
        }
        world.server.handle_disconnect(id, &mut world.out);
    }
    assert_eq!(prefixes.len(), 20 * 4);
}

#[test]
fn operators_regroup_channels() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    for size in [8, 8, 8, 16] {
        world.open_extended(id, size);
    }
    mirror.read_all(&world.take());
    let group = |world: &mut World, channels: &[u32]| {
        let channels: Vec<ChannelId> = channels.iter().map(|id| ChannelId(*id)).collect();
        world.server.set_group_channel(id, &channels, &world.hashes, &mut world.out)
    };
    assert_eq!(group(&mut world, &[64, 67]), Err(CommandError::MixedExtranonceSizes));
    assert_eq!(group(&mut world, &[64, 999]), Err(CommandError::UnknownChannel));
    assert_eq!(group(&mut world, &[]), Err(CommandError::ChannelCount));
    assert_eq!(group(&mut world, &[64, 64]), Err(CommandError::ChannelCount));
    assert!(world.take().is_empty());
    // A template is pending as the group is made: it goes to the group as the client knows it.
    world.template(template(2, false)).expect("a good template");
    assert_eq!(group(&mut world, &[64, 65]), Ok(ChannelId(33)));
    world.template(template(3, true)).expect("a good template");
    world.tip(prev_hash(3, 2)).expect("a known template");
    world.fan_out();
    let frames = world.take();
    let addressed: Vec<u32> = frames
        .iter()
        .filter_map(|frame| match frame.message() {
            Message::NewExtendedMiningJob(job) => Some(job.channel_id),
            _ => None,
        })
        .collect();
    assert_eq!(addressed.len(), 2 + 3, "{addressed:?}");
    mirror.read_all(&frames);
    let jobs: Vec<Option<u32>> = mirror.channels.values().map(|channel| channel.last_job).collect();
    assert!(jobs.iter().all(|job| *job == jobs[0] && job.is_some()));
    for (channel, job) in [(64, jobs[0]), (66, jobs[0])] {
        let job = job.expect("work");
        world.send(id, &mirror.channels[&channel].extended(job, 1, 5, &[1; 8]));
    }
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!(mirror.accepted, 2);
    world.send(id, &CloseChannel { channel_id: 33, reason_code: b"" });
    mirror.close(33);
    assert_eq!(world.server.channel_count(), 2);

    let standard = world.connect(1);
    world.open_standard(standard);
    assert_eq!(
        world.server.set_group_channel(standard, &[ChannelId(64)], &world.hashes, &mut world.out),
        Err(CommandError::RequiresStandardJobs)
    );
}

#[test]
fn a_target_for_a_group_is_held_to_each_clients_maximum() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let hard = Target::from_difficulty(1000.0);
    world.open_standard(id);
    world.send(id, &standard(1.0, &hard.to_le_bytes()));
    world.take();
    let mut set = |channel: u32, target: Target| {
        let result = world.server.set_target(id, ChannelId(channel), target, &world.hashes, &mut world.out);
        let frames = world.take();
        let sent = frames.iter().map(|frame| match frame.message() {
            Message::SetTarget(m) => (m.channel_id, Target::from_le_bytes(*m.maximum_target)),
            other => panic!("{other:?}"),
        });
        (result, sent.collect::<Vec<_>>())
    };
    let (easy, harder) = (Target::from_difficulty(1.0), Target::from_difficulty(1e6));
    assert_eq!(set(8, harder), (Ok(()), vec![(8, harder)]));
    assert_eq!(set(8, easy), (Ok(()), vec![(64, easy), (65, hard)]));
    assert_eq!(set(65, easy), (Ok(()), vec![(65, hard)]));
    let zero = Target::from_le_bytes([0; 32]);
    assert_eq!(set(64, zero), (Err(CommandError::TargetOutOfRange), vec![]));
    assert_eq!(set(9, easy), (Err(CommandError::UnknownChannel), vec![]));
}

#[test]
fn operators_send_clients_elsewhere() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    world.open_standard(id);
    world.take();
    world.server.reconnect(id, "other.example", 3334, &mut world.out).expect("it is there");
    world.server.channel_endpoint_changed(id, ChannelId(64), &mut world.out).expect("it is open");
    let long = "x".repeat(256);
    assert_eq!(world.server.reconnect(id, &long, 1, &mut world.out), Err(CommandError::InvalidText));
    for reason in [long.as_str(), "line\nfeed"] {
        assert_eq!(
            world.server.close_channel(id, ChannelId(64), reason, world.now, &mut world.out),
            Err(CommandError::InvalidText)
        );
    }
    let unknown = ChannelId(65);
    assert_eq!(
        world.server.channel_endpoint_changed(id, unknown, &mut world.out),
        Err(CommandError::UnknownChannel)
    );
    assert_eq!(
        world.server.set_extranonce_prefix(id, ChannelId(8), &world.hashes, &mut world.out),
        Err(CommandError::UnknownChannel),
        "groups have no prefix"
    );
    let frames = world.take();
    let Message::Reconnect(message) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!((message.new_host, message.new_port), (&b"other.example"[..], 3334));
    assert_eq!(frames[1].name(), "ChannelEndpointChanged");
    assert_eq!(frames.len(), 2);
}
