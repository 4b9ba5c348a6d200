//! What the specification demands of a server, where the other tests do not show it (tests/conformance says which do):
//! driven by frames, judged by frames.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use adit_codec::frame::FrameHeader;
use adit_codec::message::{
    CloseChannel, Message, OpenExtendedMiningChannel, OpenStandardMiningChannel, RequestExtensions,
    SetupConnection, UpdateChannel,
};
use adit_codec::tlv::encode_user_identity;
use adit_hasher::{Digest, Target};
use adit_proto::mining::server::{ChannelId, ConnectionId, Event, ServerConfig, Solution, VardiffConfig};
use common::mirror::{Body, Mirror};
use common::{Frame, World, config, prev_hash, setup, template};

/// Connects, opens three standard and three extended channels of two sizes, and reads what comes.
fn busy_connection(world: &mut World) -> (ConnectionId, Mirror) {
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    for size in [8, 8, 16] {
        world.open_standard(id);
        world.open_extended(id, size);
    }
    mirror.read_all(&world.take());
    (id, mirror)
}

fn new_tip(world: &mut World, id: u64) {
    world.template(template(id, true)).expect("a good template");
    world.tip(prev_hash(id, id as u8)).expect("a known template");
    world.fan_out();
}

/// Frames of everything that a server sends, requested or not.
fn all_kinds_of_frames() -> Vec<Frame> {
    let mut world = World::with_work(config());
    let id = world.server.handle_connect(world.now);
    world.send(id, &setup(0));
    let mut frames = world.take();
    world.send(id, &RequestExtensions { request_id: 1, requested_extensions: [2][..].into() });
    world.send(id, &RequestExtensions { request_id: 2, requested_extensions: [9][..].into() });
    for size in [8, 8, 99] {
        world.open_extended(id, size);
    }
    world.open_standard(id);
    frames.extend(world.take());
    let mut mirror = Mirror::default();
    mirror.read_all(&frames);
    new_tip(&mut world, 2);
    frames.extend(world.take());
    mirror = Mirror::default();
    mirror.read_all(&frames);
    let job = mirror.channels[&64].last_job.expect("work");
    world.send(id, &mirror.channels[&64].extended(job, 1, 1, &[0; 8]));
    world.send(id, &mirror.channels[&64].extended(job, 2, 1, &[0; 8]));
    world.settle();
    for (channel_id, target) in [(64, [0xff; 32]), (999, [0xff; 32])] {
        world.send(id, &UpdateChannel { channel_id, nominal_hash_rate: 1.0, maximum_target: &target });
    }
    let (out, hashes) = (&mut world.out, &world.hashes);
    world.server.set_extranonce_prefix(id, ChannelId(64), hashes, out).expect("it is open");
    world.server.set_group_channel(id, &[ChannelId(64), ChannelId(65)], hashes, out).expect("of one size");
    world.server.channel_endpoint_changed(id, ChannelId(64), out).expect("it is open");
    world.server.reconnect(id, "elsewhere", 1, out).expect("it is there");
    world.server.close_channel(id, ChannelId(64), "maintenance", world.now, out).expect("it is open");
    frames.extend(world.take());
    let refused = world.server.handle_connect(world.now);
    world.send(refused, &setup(u32::MAX));
    frames.extend(world.take());
    frames
}

/// 3.2, 3.4.1, extension 0x0001 chapter 3: numbers as the specification's lists have them, written here by hand.
#[test]
fn frames_name_the_extension_that_defined_them() {
    const SENT: [(&str, u16, bool, u8); 18] = [
        ("SetupConnection.Success", 0, false, 0x01),
        ("SetupConnection.Error", 0, false, 0x02),
        ("ChannelEndpointChanged", 0, true, 0x03),
        ("Reconnect", 0, false, 0x04),
        ("OpenStandardMiningChannel.Success", 0, false, 0x11),
        ("OpenMiningChannel.Error", 0, false, 0x12),
        ("OpenExtendedMiningChannel.Success", 0, false, 0x14),
        ("NewMiningJob", 0, true, 0x15),
        ("UpdateChannel.Error", 0, true, 0x17),
        ("CloseChannel", 0, true, 0x18),
        ("SetExtranoncePrefix", 0, true, 0x19),
        ("SubmitShares.Success", 0, true, 0x1c),
        ("SubmitShares.Error", 0, true, 0x1d),
        ("NewExtendedMiningJob", 0, true, 0x1f),
        ("SetNewPrevHash", 0, true, 0x20),
        ("SetTarget", 0, true, 0x21),
        ("RequestExtensions.Success", 1, false, 0x01),
        ("RequestExtensions.Error", 1, false, 0x02),
    ];
    let mut seen = BTreeSet::new();
    for frame in all_kinds_of_frames() {
        let FrameHeader { extension_type, channel_msg, msg_type, .. } = frame.header;
        seen.insert(frame.name());
        if frame.name() == "SetGroupChannel" {
            assert_eq!((extension_type, channel_msg, msg_type), (0, false, 0x25));
            continue;
        }
        let sent = SENT.iter().find(|(name, ..)| *name == frame.name()).expect("listed");
        assert_eq!((sent.1, sent.2, sent.3), (extension_type, channel_msg, msg_type), "{}", sent.0);
    }
    assert_eq!(seen.len(), SENT.len() + 1, "all are sent: {seen:?}");
}

/// 3.4: a range of numbers is for experiments.
#[test]
fn experimental_extensions_are_not_supported() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let experimental: Vec<u16> = (0x4000..=0x7fff).collect();
    world.send(id, &RequestExtensions { request_id: 3, requested_extensions: experimental[..].into() });
    let frames = world.take();
    let Message::RequestExtensionsError(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!(answer.request_id, 3);
    assert_eq!(answer.unsupported_extensions.iter().collect::<Vec<u16>>(), experimental);
    let mixed = [0x4000, 2];
    world.send(id, &RequestExtensions { request_id: 4, requested_extensions: mixed[..].into() });
    let frames = world.take();
    let Message::RequestExtensionsSuccess(answer) = frames[0].message() else { panic!("{:?}", frames[0]) };
    assert_eq!(answer.supported_extensions.iter().collect::<Vec<u16>>(), [2]);
}

/// 3.5, 5.3.9.
#[test]
fn codes_on_the_wire_are_printable() {
    let mut codes = 0;
    for frame in all_kinds_of_frames() {
        let code = match frame.message() {
            Message::SetupConnectionError(m) => m.error_code.to_vec(),
            Message::OpenMiningChannelError(m) => m.error_code.to_vec(),
            Message::UpdateChannelError(m) => m.error_code.to_vec(),
            Message::SubmitSharesError(m) => m.error_code.to_vec(),
            Message::CloseChannel(m) => m.reason_code.to_vec(),
            _ => continue,
        };
        codes += 1;
        assert!(!code.is_empty() && code.iter().all(u8::is_ascii_graphic), "{code:?}");
    }
    assert_eq!(codes, 5);
}

/// Solutions that were reported.
fn solutions(world: &mut World) -> Vec<Solution> {
    let solution = |event| match event {
        Event::Solution(solution) => Some(*solution),
        _ => None,
    };
    world.take_events().into_iter().filter_map(solution).collect()
}

/// 3.7 to 3.7.3, 5.3.16: what is sent hashes to the txid, what is reported can stand in a block.
#[test]
fn jobs_carry_no_witness_and_blocks_do() {
    let mut world = World::new(config());
    world.template(template(1, true)).expect("a good template");
    let mut tip = prev_hash(1, 1);
    tip.target = Target::MAX;
    world.tip(tip).expect("a known template");
    let id = world.connect(0);
    world.open_extended(id, 8);
    let mut mirror = Mirror::default();
    mirror.read_all(&world.take());
    let channel = &mirror.channels[&64];
    let Body::Coinbase { prefix, suffix, path, .. } = &channel.jobs[&1].body else {
        panic!("an extended job")
    };
    // Version, then the count of inputs: a marker would be a count of zero. The locktime follows the last output.
    assert_eq!(prefix[..5], [2, 0, 0, 0, 1]);
    let sent = [&prefix[..], &channel.extranonce_prefix, &[7; 8], suffix].concat();
    world.send(id, &channel.extended(1, 1, 0, &[7; 8]));
    world.settle();
    let found = solutions(&mut world);
    let whole = &found[0].coinbase_tx;
    assert_eq!(whole.len(), sent.len() + 36);
    assert_eq!(whole[..6], [2, 0, 0, 0, 0, 1], "version, marker, flag");
    let witness = whole.len() - 4 - 34;
    assert_eq!(whole[witness..witness + 2], [1, 32]);
    assert_eq!(whole[witness + 2..whole.len() - 4], [0; 32]);
    let stripped = [&whole[..4], &whole[6..witness], &whole[whole.len() - 4..]].concat();
    assert_eq!(stripped, sent, "the same transaction, but for BIP141's fields");
    let commitment = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    assert!(sent.windows(6).any(|window| window == commitment), "an output commits to the witnesses");
    let root = path.iter().fold(Digest::of(&sent).0, |root, node| Digest::of(&[root, *node].concat()).0);
    assert_eq!(found[0].header[36..68], root);
}

/// 5.1: the transactions of all jobs are those of the template, in its order.
#[test]
fn all_jobs_of_a_template_have_its_transactions() {
    let mut world = World::with_work(config());
    let (_, mut first) = busy_connection(&mut world);
    for _ in 0..2 {
        world.advance(31.0);
        world.timeout();
        world.fan_out();
    }
    let (_, second) = busy_connection(&mut World::with_work(config()));
    first.read_all(&world.take());
    let expected = template(1, true).merkle_path;
    let mut jobs = 0;
    for channel in first.channels.values().chain(second.channels.values()) {
        for job in channel.jobs.values() {
            if let Body::Coinbase { path, .. } = &job.body {
                assert_eq!(*path, expected);
                jobs += 1;
            }
        }
    }
    assert!(jobs >= 6 * 2 + 3, "{jobs}");
}

/// 5.1: a prefix is never part of two channels' search space, whatever they roll behind it.
#[test]
fn no_two_channels_can_find_the_same_header() {
    let mut world = World::with_work(config());
    let mut spaces: Vec<Vec<u8>> = Vec::new();
    for _ in 0..10 {
        let (id, mirror) = busy_connection(&mut world);
        spaces.extend(mirror.channels.values().map(|channel| channel.extranonce_prefix.clone()));
        world.server.handle_disconnect(id, &mut world.out);
    }
    assert_eq!(spaces.len(), 60);
    for (index, space) in spaces.iter().enumerate() {
        let overlapping = spaces.iter().skip(index + 1).find(|other| {
            let len = space.len().min(other.len());
            space[..len] == other[..len]
        });
        assert_eq!(overlapping, None);
    }
}

/// 5.1.2.1, 5.2, 5.2.3, 5.3.22.
#[test]
fn groups_have_one_extranonce_size_and_ids_of_their_own() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    let mut groups = BTreeSet::new();
    let mut channels = BTreeSet::new();
    for round in 0..20 {
        for size in [4, 8, 24] {
            world.open_extended(id, size);
            world.open_extended(id, size);
        }
        world.open_standard(id);
        mirror.read_all(&world.take());
        let newest: Vec<u32> = mirror.channels.keys().rev().take(7).copied().collect();
        for channel in &newest {
            assert!(channels.insert(*channel), "no id comes twice, also not after a close");
        }
        let wanted = mirror.channels.values().filter(|channel| channel.extranonce_size == 8);
        let wanted: Vec<ChannelId> = wanted.map(|channel| ChannelId(channel.id)).collect();
        let (out, hashes) = (&mut world.out, &world.hashes);
        let made = world.server.set_group_channel(id, &wanted, hashes, out).expect("of one size");
        assert!(groups.insert(made.0), "a group's id is a new one");
        mirror.read_all(&world.take());
        groups.extend(mirror.channels.values().map(|channel| channel.group));
        assert!(groups.is_disjoint(&channels), "one namespace");
        let mut sizes: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for channel in mirror.channels.values() {
            let size = channel.extranonce_prefix.len() + channel.extranonce_size;
            sizes.entry(channel.group).or_default().insert(size);
        }
        assert!(sizes.values().all(|sizes| sizes.len() == 1), "{sizes:?}");
        new_tip(&mut world, round + 2);
        mirror.read_all(&world.take());
        for channel in mirror.channels.values() {
            let job = &channel.jobs[&channel.last_job.expect("work")];
            let Body::Coinbase { prefix, .. } = &job.body else { panic!("groups get extended jobs") };
            // Version, count, null outpoint, then the script's length.
            let script_begins = 4 + 1 + 36 + 1;
            let full = channel.extranonce_prefix.len() + channel.extranonce_size;
            assert_eq!(usize::from(prefix[script_begins - 1]), prefix.len() - script_begins + full);
        }
        for channel in newest.iter().filter(|id| *id % 2 == 0) {
            world.send(id, &CloseChannel { channel_id: *channel, reason_code: b"" });
            mirror.close(*channel);
        }
    }
}

/// 5.1.3: a tip is first told with the job that waited for it; the better one does not wait for anything.
#[test]
fn a_better_template_for_the_tip_is_announced_at_once() {
    let mut world = World::with_work(config());
    let (_, mut mirror) = busy_connection(&mut world);
    new_tip(&mut world, 2);
    mirror.read_all(&world.take());
    let first: Vec<_> = mirror.channels.values().map(|channel| channel.last_job).collect();
    world.template(template(3, false)).expect("a good template");
    world.fan_out();
    mirror.read_all(&world.take());
    for (channel, first) in mirror.channels.values().zip(first) {
        assert_ne!(channel.last_job, first, "without any time passing");
        assert_eq!(channel.prev.as_ref().expect("a tip").prev_hash, [2; 32]);
    }
}

/// 5.3.1.
#[test]
fn jobs_allow_version_rolling_as_was_agreed() {
    for version_rolling in [true, false] {
        let mut world = World::with_work(ServerConfig { version_rolling, ..config() });
        let id = world.server.handle_connect(world.now);
        world.send(id, &SetupConnection { flags: 0b100, ..setup(0) });
        let frames = world.take();
        match frames[0].message() {
            Message::SetupConnectionSuccess(answer) => {
                assert!(version_rolling);
                assert_eq!(answer.flags & 1, 0, "REQUIRES_FIXED_VERSION");
            }
            Message::SetupConnectionError(answer) => {
                assert!(!version_rolling);
                assert_eq!(answer.flags & 0b100, 0b100);
            }
            other => panic!("{other:?}"),
        }
        let (_, mut mirror) = busy_connection(&mut world);
        new_tip(&mut world, 2);
        world.template(template(3, false)).expect("a good template");
        world.fan_out();
        mirror.read_all(&world.take());
        for channel in mirror.channels.values() {
            let extended = channel.jobs.values().filter_map(|job| match job.body {
                Body::Coinbase { rolling, .. } => Some(rolling),
                Body::Root(_) => None,
            });
            let extended: Vec<bool> = extended.collect();
            assert!(extended.len() >= 2 && extended.iter().all(|rolling| *rolling == version_rolling));
        }
    }
}

/// 5.3.2, 5.3.7: in what the server grants, in what the operator orders and in what follows the shares.
#[test]
fn no_target_is_easier_than_the_client_asked_for() {
    let vardiff =
        VardiffConfig { shares_per_minute: 6.0, hash_rate_default: 1e12, difficulty_min: 0.0, adjust: true };
    let mut patient = ServerConfig { vardiff, ..config() };
    patient.limits.idle_timeout = std::time::Duration::from_secs(1_000_000);
    let mut world = World::with_work(patient);
    let id = world.connect(0);
    let mut max_target = Target::from_difficulty(1e9);
    let mut targets = 0;
    let mut check = |world: &mut World, max_target: &Target| {
        let mut last = None;
        for frame in world.take() {
            let target = match frame.message() {
                Message::OpenStandardMiningChannelSuccess(m) => *m.target,
                Message::SetTarget(m) => *m.maximum_target,
                _ => continue,
            };
            let target = Target::from_le_bytes(target);
            assert!(target <= *max_target);
            targets += 1;
            last = Some(target);
        }
        last
    };
    let open = OpenStandardMiningChannel {
        request_id: 1,
        user_identity: b"",
        nominal_hash_rate: 1.0,
        max_target: &max_target.to_le_bytes(),
    };
    world.send(id, &open);
    assert_eq!(check(&mut world, &max_target), Some(max_target), "as easy as it may be, as it is weak");
    for difficulty in [1e10, 1e12, 1e11] {
        max_target = Target::from_difficulty(difficulty);
        let update = UpdateChannel {
            channel_id: 64,
            nominal_hash_rate: 1.0,
            maximum_target: &max_target.to_le_bytes(),
        };
        world.send(id, &update);
        assert_eq!(check(&mut world, &max_target), Some(max_target));
        // An hour without a share makes targets easier, but not that easy.
        for _ in 0..120 {
            world.advance(30.0);
            world.timeout();
            world.fan_out();
            check(&mut world, &max_target);
        }
        let (out, hashes) = (&mut world.out, &world.hashes);
        world.server.set_target(id, ChannelId(64), Target::MAX, hashes, out).expect("it is open");
        world.server.set_target(id, ChannelId(8), Target::MAX, hashes, out).expect("a group");
        check(&mut world, &max_target);
    }
    assert!(targets >= 10, "{targets}");
}

/// 5.3.9: whatever the server has to tell afterwards.
#[test]
fn closed_channels_and_their_groups_hear_nothing_more() {
    for flags in [0, 1] {
        let mut world = World::with_work(config());
        let id = world.connect(flags);
        for _ in 0..4 {
            world.open_standard(id);
        }
        // Who stays keeps the connection busy.
        if flags == 0 {
            world.open_extended(id, 8)
        } else {
            world.open_standard(id)
        }
        let mut mirror = Mirror::default();
        mirror.read_all(&world.take());
        let stays = if flags == 0 { 16 } else { mirror.opened[4] };
        // Pending for all of them as the first is closed.
        world.template(template(2, false)).expect("a good template");
        world.send(id, &CloseChannel { channel_id: 64, reason_code: b"" });
        world.take();
        for round in 3..6 {
            new_tip(&mut world, round);
            world.advance(31.0);
            world.timeout();
            world.fan_out();
            let frames = world.take();
            let about = |channel: u32| frames.iter().any(|frame| frame.payload[..4] == channel.to_le_bytes());
            assert!(!about(64));
            assert!(if flags == 0 { about(8) } else { about(65) && about(66) && about(67) });
        }
        for channel_id in 65..68 {
            world.send(id, &CloseChannel { channel_id, reason_code: b"" });
        }
        new_tip(&mut world, 7);
        world.advance(31.0);
        world.timeout();
        world.fan_out();
        let frames = world.take();
        assert!(frames.len() >= 3);
        assert!(
            frames.iter().all(|frame| frame.payload[..4] == stays.to_le_bytes()),
            "the group has ended too"
        );
    }
}

/// 5.3.9: a frame may overtake those that can wait, so what closes a group must not reach who joins it afterwards.
#[test]
fn closing_a_group_spares_who_joins_it_meanwhile() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, 8);
    world.open_extended(id, 8);
    mirror.read_all(&world.take());
    let (now, out) = (world.now, &mut world.out);
    world.server.close_channel(id, ChannelId(16), "maintenance", now, out).expect("the group is there");
    world.open_extended(id, 8);
    mirror.read_reordered(&world.take());
    let newest = mirror.opened[2];
    assert_eq!(mirror.channels.keys().collect::<Vec<_>>(), [&newest]);
    world.send(id, &mirror.channels[&newest].extended(1, 1, 1, &[1; 8]));
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!(mirror.accepted, 1);
}

/// 5.3.11, 5.3.15: a client begins at min_ntime, which must not be ahead of what the tip's age allows. It is told the age in
/// whole seconds, so that one may be lost to rounding.
#[test]
fn a_job_begins_at_an_ntime_that_shares_may_have() {
    for flags in [0, 1] {
        let mut world = World::with_work(config());
        let mut clients = Vec::new();
        for _ in 0..8 {
            let id = world.connect(flags);
            world.open_standard(id);
            clients.push((id, Mirror { standard_jobs: flags == 1, ..Mirror::default() }, None));
            let frames = world.take();
            let (_, mirror, told_at) = clients.last_mut().expect("just pushed");
            mirror.read_all(&frames);
            *told_at = Some(world.now);
            world.advance(23.0);
            world.timeout();
            world.fan_out();
            let frames = world.take();
            for (id, mirror, told_at) in &mut clients {
                let own: Vec<Frame> = frames.iter().filter(|frame| frame.to == *id).cloned().collect();
                mirror.read_all(&own);
                let channel = &mirror.channels[&64];
                let active = channel.jobs[&channel.last_job.expect("work")].active.expect("active");
                let elapsed = world.now.since(told_at.expect("set")).as_secs() as u32;
                let tip = channel.prev.as_ref().expect("a tip").header_timestamp;
                assert!((tip..=tip + elapsed + 1).contains(&active.min_ntime), "{elapsed} s after the tip");
            }
        }
    }
}

/// 5.3.13.
#[test]
fn each_success_counts_its_own_shares() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, 8);
    world.open_extended(id, 8);
    mirror.read_all(&world.take());
    let mut nonce = 0;
    for count in [3_u32, 1, 7, 2] {
        for _ in 0..count {
            nonce += 1;
            for channel in [64, 65] {
                world.send(id, &mirror.channels[&channel].extended(1, nonce, nonce, &[channel as u8; 8]));
            }
        }
        world.settle();
        mirror.read_all(&world.take());
        let of_batch = mirror.successes.split_off(0);
        let counts: Vec<_> =
            of_batch.iter().map(|(channel, last, count, _)| (*channel, *last, *count)).collect();
        assert_eq!(counts, [(64, nonce, count), (65, nonce, count)]);
    }
    world.settle();
    assert!(world.take().is_empty(), "nothing is acknowledged twice");
}

/// 5.3.15, before there is any work: neither a target nor a tip comes before the job.
#[test]
fn nothing_precedes_a_standard_channels_first_job() {
    let vardiff =
        VardiffConfig { shares_per_minute: 6.0, hash_rate_default: 1e12, difficulty_min: 0.0, adjust: true };
    for flags in [0, 1] {
        let mut world = World::new(ServerConfig { vardiff, ..config() });
        let id = world.connect(flags);
        for _ in 0..2 {
            world.open_standard(id);
        }
        assert_eq!(world.names(), ["OpenStandardMiningChannel.Success"; 2]);
        for _ in 0..20 {
            world.advance(60.0);
            world.timeout();
            world.fan_out();
        }
        assert!(world.take().is_empty(), "there is nothing to be told");
        let hard = Target::from_difficulty(1e15).to_le_bytes();
        let update = UpdateChannel { channel_id: 64, nominal_hash_rate: 1.0, maximum_target: &hard };
        world.send(id, &update);
        new_tip(&mut world, 1);
        let frames = world.take();
        for channel in [64_u32, 65] {
            let own: Vec<&str> = frames
                .iter()
                .filter(|frame| frame.payload[..4] == channel.to_le_bytes())
                .map(Frame::name)
                .collect();
            assert_eq!(own.first(), Some(&"NewMiningJob"), "{own:?}");
            assert_eq!(own.contains(&"SetTarget"), channel == 64, "{own:?}");
        }
        let target = frames.iter().find_map(|frame| match frame.message() {
            Message::SetTarget(m) => Some(*m.maximum_target),
            _ => None,
        });
        assert_eq!(target, Some(hard));
        let first = frames.iter().find_map(|frame| match frame.message() {
            Message::NewMiningJob(m) => Some(m.min_ntime),
            _ => None,
        });
        assert_eq!(first, Some(None), "a future job");
    }
}

/// Extension 0x0002, 1.3; 3.4.3.
#[test]
fn fields_that_were_not_negotiated_change_nothing() {
    let mut name = [0; 64];
    let len = encode_user_identity(b"worker", &mut name).expect("it fits");
    let too_long = [&[2, 0, 1, 200, 0][..], &[b'w'; 200]].concat();
    let cut_off = [2, 0, 1, 30, 0, b'w'];
    let strange = [&[0x03, 0x00, 0x01, 0x02, 0x00, 1, 2][..], &[0xff; 11]].concat();
    let trailings: [&[u8]; 5] = [&name[..len], &too_long, &cut_off, &strange, &[0]];
    let converse = |trailing: &[u8]| {
        let mut world = World::with_work(config());
        let id = world.server.handle_connect(world.now);
        world.send_with_trailing(id, &setup(0), trailing);
        let open = OpenStandardMiningChannel {
            request_id: 1,
            user_identity: b"u",
            nominal_hash_rate: 1.0,
            max_target: &[0xff; 32],
        };
        world.send_with_trailing(id, &open, trailing);
        let open = OpenExtendedMiningChannel {
            request_id: 2,
            user_identity: b"u",
            nominal_hash_rate: 1.0,
            max_target: &[0xff; 32],
            min_extranonce_size: 8,
        };
        world.send_with_trailing(id, &open, trailing);
        let mut frames = world.take();
        let mut mirror = Mirror::default();
        mirror.read_all(&frames);
        world.send_with_trailing(id, &mirror.channels[&64].standard(1, 1, 1), trailing);
        world.send_with_trailing(id, &mirror.channels[&65].extended(1, 1, 1, &[1; 8]), trailing);
        world.settle();
        let update = UpdateChannel { channel_id: 64, nominal_hash_rate: 2.0, maximum_target: &[0xff; 32] };
        world.send_with_trailing(id, &update, trailing);
        world.send_with_trailing(id, &CloseChannel { channel_id: 64, reason_code: b"" }, trailing);
        frames.extend(world.take());
        assert_eq!(world.server.counters().shares_accepted, 2);
        assert_eq!(world.server.channel_count(), 1);
        frames
    };
    let plain = converse(&[]);
    for trailing in trailings {
        assert_eq!(converse(trailing), plain, "{trailing:?}");
    }
}

/// 3.4.3 and extension 0x0002, 1.3: between fields of extensions that were not negotiated, in both byte orders.
#[test]
fn a_worker_is_found_wherever_its_field_stands() {
    let little = b"\x02\x00\x01\x05\x00rig.7";
    let big = b"\x00\x02\x01\x00\x05rig.7";
    let low = b"\x01\x00\x09\x02\x00xy";
    let high = b"\x05\x00\x01\x03\x00abc";
    let other_field = b"\x02\x00\x07\x01\x00z";
    let trailings = [
        little.to_vec(),
        big.to_vec(),
        [&low[..], little].concat(),
        [&little[..], high].concat(),
        [&high[..], little, low].concat(),
        [&other_field[..], little].concat(),
    ];
    for trailing in trailings {
        let mut world = World::new(config());
        world.template(template(1, true)).expect("a good template");
        let mut tip = prev_hash(1, 1);
        tip.target = Target::MAX;
        world.tip(tip).expect("a known template");
        let id = world.connect(0);
        world.send(id, &RequestExtensions { request_id: 1, requested_extensions: [2][..].into() });
        world.open_extended(id, 8);
        let mut mirror = Mirror::default();
        mirror.read_all(&world.take());
        world.send_with_trailing(id, &mirror.channels[&64].extended(1, 1, 1, &[1; 8]), &trailing);
        world.settle();
        assert_eq!(solutions(&mut world)[0].worker_identity, b"rig.7", "{trailing:?}");
    }
}
