//! Shares: every verdict, and what answers them.

mod common;

use std::time::Duration;

use adit_codec::frame::FrameHeader;
use adit_codec::message::{CloseChannel, RequestExtensions, SubmitSharesExtended, SubmitSharesStandard};
use adit_codec::tlv;
use adit_hasher::{Digest, Target};
use adit_proto::Priority;
use adit_proto::mining::server::{
    Acknowledgement, ChannelId, CloseReason, ConnectionId, Event, ServerConfig, ShareError, Solution,
};
use adit_proto::template::{PrevHash, Template};
use common::mirror::{Mirror, outcome, standard};
use common::{HEADER_TIMESTAMP, World, config, prev_hash, template};

/// A target that every other digest meets.
fn half() -> Target {
    let mut bytes = [0xff; 32];
    bytes[31] = 0x7f;
    Target::from_le_bytes(bytes)
}

fn extended(world: &mut World, size: u16) -> (ConnectionId, Mirror, u32) {
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_extended(id, size);
    mirror.read_all(&world.take());
    let channel = mirror.opened[0];
    (id, mirror, channel)
}

fn code(error: ShareError) -> Option<String> {
    Some(error.code().into())
}

/// What was acknowledged since the last look: last sequence number and count of each message.
fn acknowledged(world: &mut World, mirror: &mut Mirror) -> Vec<(u32, u32)> {
    let before = mirror.successes.len();
    mirror.read_all(&world.take());
    mirror.successes[before..].iter().map(|success| (success.1, success.2)).collect()
}

fn gathering() -> ServerConfig {
    let delay = Duration::from_millis(500);
    ServerConfig { acknowledgement: Acknowledgement { shares: 10, delay }, ..config() }
}

#[test]
fn successes_gather_over_ticks_if_that_is_chosen() {
    let mut world = World::with_work(gathering());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let job = mirror.channels[&channel].last_job.expect("work came with the channel");
    let mine = |world: &mut World, mirror: &Mirror, numbers: std::ops::Range<u32>| {
        for number in numbers {
            world.send(id, &mirror.channels[&channel].standard(job, number, number));
        }
        world.settle();
    };
    mine(&mut world, &mirror, 0..4);
    mine(&mut world, &mirror, 4..9);
    assert_eq!(acknowledged(&mut world, &mut mirror), []);
    mine(&mut world, &mirror, 9..12);
    assert_eq!(acknowledged(&mut world, &mut mirror), [(11, 12)]);
    // What is not enough waits for its time, and errors do not wait with it.
    mine(&mut world, &mirror, 12..14);
    mine(&mut world, &mirror, 3..4);
    assert_eq!(acknowledged(&mut world, &mut mirror), []);
    assert_eq!(mirror.errors.len(), 1, "a duplicate");
    let due = world.now + Duration::from_millis(500);
    assert_eq!(world.server.poll_timeout(), Some(due));
    world.advance(0.499);
    world.timeout();
    assert_eq!(acknowledged(&mut world, &mut mirror), []);
    world.advance(0.001);
    world.timeout();
    assert_eq!(acknowledged(&mut world, &mut mirror), [(13, 2)]);
    // Before an end nothing is left unsaid, and after it nothing is said.
    mine(&mut world, &mirror, 14..17);
    world.server.close_channel(id, ChannelId(channel), "operator", world.now, &mut world.out).unwrap();
    let names: Vec<_> = world.take().iter().map(common::Frame::name).collect();
    assert_eq!(names, ["SubmitShares.Success", "CloseChannel"]);
    world.advance(5.0);
    world.timeout();
    assert!(world.take().is_empty());
}

#[test]
fn what_is_owed_is_said_before_the_end() {
    let mut world = World::with_work(gathering());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let (other, mut second, opened) = standard(&mut world, 0);
    let mine = |world: &mut World, id, mirror: &Mirror, channel, number| {
        let job = mirror.channels[&channel].last_job.expect("work came with the channel");
        world.send(id, &mirror.channels[&channel].standard(job, number, number));
        world.settle();
    };
    mine(&mut world, id, &mirror, channel, 0);
    mine(&mut world, other, &second, opened, 0);
    world.server.acknowledge_connection(id, &mut world.out);
    assert_eq!(acknowledged(&mut world, &mut mirror), [(0, 1)]);
    world.server.acknowledge_all(&mut world.out);
    assert_eq!(acknowledged(&mut world, &mut second), [(0, 1)]);
    // A connection that the pool ends is told first; the client's own close ends it all.
    mine(&mut world, id, &mirror, channel, 1);
    world.server.close_connection(id, CloseReason::Operator, world.now, &mut world.out).unwrap();
    assert_eq!(acknowledged(&mut world, &mut mirror), [(1, 1)]);
    mine(&mut world, other, &second, opened, 1);
    world.send(other, &CloseChannel { channel_id: opened, reason_code: b"" });
    world.advance(5.0);
    world.timeout();
    assert_eq!(acknowledged(&mut world, &mut second), []);
    assert_eq!(world.server.channel_count(), 0);
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

#[test]
fn shares_of_the_wrong_channel_are_refused() {
    let mut world = World::with_work(config());
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.open_standard(id);
    world.open_extended(id, 8);
    mirror.read_all(&world.take());
    let job = mirror.channels[&64].last_job.expect("work");
    let good = mirror.channels[&64].standard(job, 1, 0);
    world.send(id, &SubmitSharesStandard { channel_id: 65, ..good });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidChannelId));
    world.send(id, &SubmitSharesStandard { channel_id: 8, ..good });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidChannelId));
    world.send(id, &SubmitSharesStandard { channel_id: 66, ..good });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidChannelId));
    let other = mirror.channels[&65].extended(job, 1, 0, &[0; 8]);
    world.send(id, &SubmitSharesExtended { channel_id: 64, extranonce: &[], ..other });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidChannelId));
    assert_eq!(world.server.counters().shares_rejected[ShareError::InvalidChannelId as usize], 4);
}

/// Among so many channels that shares are looked at before they are handled: whatever is shown, only what is handled counts.
#[test]
fn what_is_only_looked_at_changes_nothing() {
    const CHANNELS: u32 = 5_000;
    let mut config = config();
    config.limits.channels_per_connection_max = CHANNELS;
    let mut world = World::with_work(config);
    let (id, gone) = (world.connect(0), world.connect(0));
    let mut mirror = Mirror::default();
    (0..CHANNELS).for_each(|_| world.open_standard(id));
    world.send(id, &CloseChannel { channel_id: 64 + 10, reason_code: b"" });
    world.server.handle_disconnect(gone, &mut world.out);
    mirror.read_all(&world.take());
    let job = mirror.channels[&64].last_job.expect("work");

    let header = |msg_type, payload_len: usize| FrameHeader {
        extension_type: 0,
        channel_msg: true,
        msg_type,
        payload_len: payload_len as u32,
    };
    // Channels that are open, closed and never were, of shares that are whole and cut short, and of all other messages.
    let payloads: Vec<Vec<u8>> = [64, 64 + 10, 64 + CHANNELS - 1, 64 + CHANNELS, 0, u32::MAX]
        .into_iter()
        .flat_map(|channel| {
            (0..=24).map(move |len| [&channel.to_le_bytes()[..], &[0; 20]].concat()[..len].to_vec())
        })
        .collect();
    let frames = (0..=u8::MAX).flat_map(|msg_type| {
        payloads.iter().map(move |payload| (header(msg_type, payload.len()), &payload[..]))
    });
    for frame in frames.clone() {
        world.server.read_ahead(id, [frame]);
    }
    world.server.read_ahead(id, frames.clone());
    world.server.read_ahead(gone, frames);
    assert_eq!((world.server.pending_shares(), world.take().len()), (0, 0));

    let shares: Vec<_> = (0..100)
        .map(|number| mirror.channels[&(64 + 11 + 40 * number)].standard(job, number, number))
        .collect();
    for share in &shares {
        world.send(id, share);
    }
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!((mirror.successes.len(), mirror.errors.len()), (100, 0));
}

#[test]
fn job_ids_are_known_stale_or_invalid() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let first = mirror.channels[&channel].last_job.expect("work");
    let share = mirror.channels[&channel].standard(first, 1, 0);
    for job_id in [0, first + 1, u32::MAX] {
        world.send(id, &SubmitSharesStandard { job_id, ..share });
        assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidJobId), "{job_id}");
    }
    // A future job is announced: it cannot be worked on yet.
    world.template(template(2, true)).expect("a good template");
    world.send(id, &SubmitSharesStandard { job_id: first + 1, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidJobId));
    world.fan_out();
    mirror.read_all(&world.take());
    world.send(id, &SubmitSharesStandard { job_id: first + 1, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidJobId));
    // A tip is known here, not yet there.
    world.tip(prev_hash(2, 2)).expect("a known template");
    world.send(id, &SubmitSharesStandard { job_id: first + 1, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidJobId));
    world.send(id, &share);
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::Stale));
    world.fan_out();
    mirror.read_all(&world.take());
    world.send(id, &mirror.channels[&channel].standard(first + 1, 2, 0));
    assert_eq!(outcome(&mut world, &mut mirror), None);
    world.send(id, &share);
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::Stale));
}

#[test]
fn a_channel_has_no_jobs_from_before_its_time() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let first = mirror.channels[&channel].last_job.expect("work");
    world.template(template(2, false)).expect("a good template");
    world.fan_out();
    world.open_standard(id);
    mirror.read_all(&world.take());
    let second = mirror.channels[&65].last_job.expect("work");
    assert_ne!(first, second);
    let share = mirror.channels[&65].standard(second, 1, 0);
    world.send(id, &SubmitSharesStandard { job_id: first, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidJobId));
    world.send(id, &share);
    assert_eq!(outcome(&mut world, &mut mirror), None);
    world.send(id, &mirror.channels[&64].standard(first, 1, 0));
    assert_eq!(outcome(&mut world, &mut mirror), None, "the older channel still may");
}

#[test]
fn ntime_lies_between_the_tip_and_the_clock() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let first = mirror.channels[&channel].last_job.expect("work");
    let share = mirror.channels[&channel].standard(first, 1, 0);
    assert_eq!(share.ntime, HEADER_TIMESTAMP);
    world.advance(10.9);
    let cases =
        [(HEADER_TIMESTAMP - 1, false), (HEADER_TIMESTAMP + 15, true), (HEADER_TIMESTAMP + 16, false)];
    for (ntime, good) in cases.into_iter().chain([(HEADER_TIMESTAMP, true), (u32::MAX, false), (0, false)]) {
        world.send(id, &SubmitSharesStandard { ntime, ..share });
        let expected = if good { None } else { code(ShareError::NtimeOutOfRange) };
        assert_eq!(outcome(&mut world, &mut mirror), expected, "{ntime}");
    }
    // A job that comes later has a later first nTime. Devices that go by their own clock may stay below it, but not below the
    // tip.
    world.template(template(2, false)).expect("a good template");
    world.fan_out();
    mirror.read_all(&world.take());
    let second = mirror.channels[&channel].last_job.expect("work");
    let share = mirror.channels[&channel].standard(second, 2, 0);
    assert_eq!(share.ntime, HEADER_TIMESTAMP + 10);
    world.send(id, &SubmitSharesStandard { ntime: share.ntime - 1, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), None);
    world.send(id, &SubmitSharesStandard { ntime: HEADER_TIMESTAMP - 1, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::NtimeOutOfRange));
    world.send(id, &share);
    assert_eq!(outcome(&mut world, &mut mirror), None);
}

#[test]
fn versions_roll_where_they_may() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let job = mirror.channels[&channel].last_job.expect("work");
    let share = mirror.channels[&channel].standard(job, 1, 0);
    world.send(id, &SubmitSharesStandard { version: share.version ^ 0x1fff_ffe0, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), None);
    for bit in [0, 4, 29, 31] {
        world.send(id, &SubmitSharesStandard { version: share.version ^ (1 << bit), ..share });
        assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidVersionBits), "{bit}");
    }

    let mut world = World::with_work(ServerConfig { version_rolling: false, ..config() });
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let share = mirror.channels[&channel].standard(job, 1, 0);
    world.send(id, &SubmitSharesStandard { version: share.version ^ 0x20, ..share });
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::VersionRollingNotAllowed));
    world.send(id, &share);
    assert_eq!(outcome(&mut world, &mut mirror), None);
}

/// Specification 7.2 and 7.7: what a template's version says in the bits of BIP323 binds nobody, and its other bits do.
#[test]
fn a_template_may_have_any_of_the_free_version_bits() {
    const FREE: u32 = 0x1fff_ffe0;
    for set in [0, 0x20, 0x1000_0000, 0x0aaa_aaa0, FREE] {
        let version = 0x2000_0000 | set;
        let mut world = World::new(config());
        world.template(Template { version, ..template(1, true) }).expect("a good template");
        let tip = PrevHash { target: half(), ..prev_hash(1, 1) };
        world.tip(tip.clone()).expect("a known template");
        let (id, mut mirror, channel) = standard(&mut world, 0);
        let job = mirror.channels[&channel].last_job.expect("work");

        let each = (5..29).map(|bit| version ^ (1 << bit));
        let rolled = [0x2000_0000, 0x2000_0000 | FREE, version, version ^ FREE, version ^ 0x0123_45e0];
        for (sequence_number, version) in (0..).zip(each.chain(rolled)) {
            let view = &mirror.channels[&channel];
            // Each a nonce of its own: some versions come twice.
            let from = sequence_number * 1_000;
            let nonce = (from..)
                .find(|nonce| tip.target.is_met_by(&view.digest(job, &[], version, HEADER_TIMESTAMP, *nonce)))
                .expect("every other");
            let header = view.header(job, &[], version, HEADER_TIMESTAMP, nonce);
            let share = view.standard(job, sequence_number, nonce);
            world.send(id, &SubmitSharesStandard { version, ..share });
            assert_eq!(outcome(&mut world, &mut mirror), None, "{version:#x}");
            let found = solutions(&mut world);
            assert_eq!(found.len(), 1, "{version:#x}");
            assert_eq!(found[0].header, header, "what the share says, and not the template");
        }
        for bit in [0, 4, 29, 31] {
            let share = mirror.channels[&channel].standard(job, 1, 0);
            world.send(id, &SubmitSharesStandard { version: version ^ (1 << bit), ..share });
            assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::InvalidVersionBits), "{bit}");
        }
        assert!(solutions(&mut world).is_empty());
    }
}

#[test]
fn extranonces_have_the_channels_size() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = extended(&mut world, 8);
    let job = mirror.channels[&channel].last_job.expect("work");
    for len in [0, 7, 9, 32] {
        let extranonce = vec![0; len];
        world.send(id, &mirror.channels[&channel].extended(job, 1, 0, &extranonce));
        assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::BadExtranonceSize), "{len}");
    }
}

#[test]
fn duplicates_are_told_by_what_was_hashed() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let job = mirror.channels[&channel].last_job.expect("work");
    let share = mirror.channels[&channel].standard(job, 1, 7);
    world.send(id, &share);
    world.send(id, &SubmitSharesStandard { sequence_number: 2, ..share });
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!(mirror.errors, [(channel, 2, "duplicate-share".into())]);
    assert_eq!(mirror.accepted, 1);
    // The same template under another job id, at the nTime where both are valid.
    world.advance(30.0);
    world.timeout();
    world.fan_out();
    mirror.read_all(&world.take());
    let repeated = mirror.channels[&channel].last_job.expect("work");
    assert_ne!(job, repeated);
    let later = mirror.channels[&channel].standard(repeated, 3, 7);
    world.send(id, &SubmitSharesStandard { job_id: job, ..later });
    assert_eq!(outcome(&mut world, &mut mirror), None);
    world.send(id, &later);
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::Duplicate));
    // The same tip told again, with the same template, forgets nothing.
    world.tip(prev_hash(1, 1)).expect("a known template");
    world.send(id, &later);
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::Duplicate));
}

#[test]
fn shares_per_tip_are_bounded() {
    let mut limited = config();
    limited.limits.shares_per_tip_max = 3;
    let mut world = World::with_work(limited);
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let job = mirror.channels[&channel].last_job.expect("work");
    for nonce in 0..5 {
        world.send(id, &mirror.channels[&channel].standard(job, nonce, nonce));
    }
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!(mirror.accepted, 3);
    let refused = ShareError::TooManyShares.code().to_string();
    assert_eq!(mirror.errors, [(channel, 3, refused.clone()), (channel, 4, refused)]);
    world.template(template(2, true)).expect("a good template");
    world.tip(prev_hash(2, 2)).expect("a known template");
    world.fan_out();
    mirror.read_all(&world.take());
    let job = mirror.channels[&channel].last_job.expect("work");
    world.send(id, &mirror.channels[&channel].standard(job, 9, 0));
    assert_eq!(outcome(&mut world, &mut mirror), None, "a new tip begins at zero");
}

#[test]
fn errors_leave_before_successes_and_replies_never_before_work() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let job = mirror.channels[&channel].last_job.expect("work");
    world
        .server
        .set_target(id, ChannelId(channel), half(), &world.hashes, &mut world.out)
        .expect("it is open");
    world.template(template(2, false)).expect("a good template");
    world.fan_out();
    mirror.read_all(&world.take());
    let job_2 = mirror.channels[&channel].last_job.expect("work");
    assert_ne!(job, job_2);
    let view = &mirror.channels[&channel];
    let good = view.find(job_2, &[], 0, true);
    let bad = view.find(job_2, &[], 0, false);
    world.send(id, &view.standard(job_2, 1, good));
    world.send(id, &view.standard(job_2, 2, bad));
    world.send(id, &view.standard(job_2, 3, view.find(job_2, &[], good + 1, true)));
    world.settle();
    let frames = world.take();
    let names: Vec<&str> = frames.iter().map(|frame| frame.name()).collect();
    assert_eq!(names, ["SubmitShares.Error", "SubmitShares.Success"]);
    assert!(frames.iter().all(|frame| frame.priority == Priority::Reply));
    mirror.read_all(&frames);
    assert_eq!(mirror.errors, [(channel, 2, "difficulty-too-low".into())]);
    assert_eq!((mirror.successes[0].1, mirror.successes[0].2), (3, 2));
}

#[test]
fn sums_are_those_of_the_assigned_difficulty() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    // Easier than difficulty 1 by far: shares add up through what is carried.
    let easy = Target::from_le_bytes({
        let mut bytes = [0xff; 32];
        bytes[31] = 0x0f;
        bytes
    });
    world.server.set_target(id, ChannelId(channel), easy, &world.hashes, &mut world.out).expect("it is open");
    world.template(template(2, false)).expect("a good template");
    world.fan_out();
    mirror.read_all(&world.take());
    let job = mirror.channels[&channel].last_job.expect("work");
    let mut nonce = 0;
    for sequence_number in 0..40 {
        nonce = mirror.channels[&channel].find(job, &[], nonce + 1, true);
        world.send(id, &mirror.channels[&channel].standard(job, sequence_number, nonce));
        world.settle();
    }
    mirror.read_all(&world.take());
    assert_eq!((mirror.accepted, mirror.successes.len()), (40, 40));
    let difficulty = 40.0 * easy.difficulty();
    assert!((world.server.counters().difficulty_accepted - difficulty).abs() < 1e-9);
    assert_eq!(mirror.difficulty, difficulty as u64);
}

#[test]
fn workers_are_named_where_that_was_negotiated() {
    for negotiated in [false, true] {
        let mut world = World::with_work(config());
        let id = world.connect(0);
        if negotiated {
            world.send(id, &RequestExtensions { request_id: 1, requested_extensions: [2][..].into() });
        }
        let mut mirror = Mirror::default();
        world.open_extended(id, 8);
        mirror.read_all(&world.take());
        let job = mirror.channels[&64].last_job.expect("work");
        let mut field = vec![0; 64];
        let len = tlv::encode_user_identity(&[b'w'; 32], &mut field).expect("32 bytes fit");
        world.send_with_trailing(id, &mirror.channels[&64].extended(job, 1, 1, &[1; 8]), &field[..len]);
        assert_eq!(outcome(&mut world, &mut mirror), None);
        world.send(id, &mirror.channels[&64].extended(job, 2, 2, &[1; 8]));
        assert_eq!(outcome(&mut world, &mut mirror), None, "a missing name costs no share");
        let long = [&[2, 0, 1, 33, 0][..], &[b'w'; 33]].concat();
        world.send_with_trailing(id, &mirror.channels[&64].extended(job, 3, 3, &[1; 8]), &long);
        let expected = if negotiated { code(ShareError::InvalidUserIdentity) } else { None };
        assert_eq!(outcome(&mut world, &mut mirror), expected);
    }
}

/// The parts of a serialised coinbase that the assembly decides.
struct Coinbase {
    script_sig: Vec<u8>,
    outputs: Vec<(u64, Vec<u8>)>,
    witness: Option<Vec<u8>>,
    /// As it is hashed for the txid.
    stripped: Vec<u8>,
}

fn parse(bytes: &[u8]) -> Coinbase {
    let mut at = 4;
    let mut take = |len: usize| {
        let part = &bytes[at..at + len];
        at += len;
        part.to_vec()
    };
    let marker = take(1);
    let segwit = marker == [0];
    let inputs = if segwit {
        assert_eq!(take(1), [1]);
        take(1)
    } else {
        marker
    };
    assert_eq!(inputs, [1]);
    assert_eq!(take(36), [[0; 32].to_vec(), [0xff; 4].to_vec()].concat());
    let len = take(1)[0];
    let script_sig = take(usize::from(len));
    let sequence = take(4);
    let count = take(1)[0];
    let mut outputs = Vec::new();
    let mut tail = vec![count];
    for _ in 0..count {
        let value = take(8);
        let len = take(1);
        let script = take(usize::from(len[0]));
        tail.extend([&value[..], &len, &script].concat());
        outputs.push((u64::from_le_bytes(value.try_into().expect("8 bytes")), script));
    }
    let witness = segwit.then(|| {
        assert_eq!(take(2), [1, 32]);
        take(32)
    });
    let locktime = take(4);
    assert_eq!(at, bytes.len());
    let stripped =
        [&bytes[..4], &[1], &[0; 32], &[0xff; 4], &[len], &script_sig[..], &sequence, &tail, &locktime]
            .concat();
    Coinbase { script_sig, outputs, witness, stripped }
}

fn check_solution(solution: &Solution, segwit: bool, extranonce: &[u8]) {
    let coinbase = parse(&solution.coinbase_tx);
    assert!(coinbase.script_sig.ends_with(extranonce));
    assert_eq!(coinbase.script_sig[..8], [2, 0x10, 0x20, 4, b'a', b'd', b'i', b't']);
    assert_eq!(coinbase.outputs[0], (1_000_000 + solution.template_id, vec![0x51]));
    assert_eq!(coinbase.outputs.len(), 1 + usize::from(segwit));
    assert_eq!(coinbase.witness, segwit.then(|| vec![0; 32]));
    let root = solution
        .merkle_path
        .iter()
        .fold(Digest::of(&coinbase.stripped).0, |root, node| Digest::of(&[root, *node].concat()).0);
    assert_eq!(solution.header[36..68], root);
    assert_eq!(solution.digest, Digest::of(&solution.header));
    assert!(solution.target.is_met_by(&solution.digest));
}

fn solutions(world: &mut World) -> Vec<Solution> {
    let events = world.take_events();
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::Solution(solution) => Some(*solution),
            _ => None,
        })
        .collect()
}

#[test]
fn a_block_is_reported_whole() {
    for segwit in [true, false] {
        let mut world = World::new(config());
        let mut first = template(1, true);
        if !segwit {
            first.coinbase_tx_outputs = Vec::new();
            first.coinbase_tx_outputs_count = 0;
        }
        world.template(first).expect("a good template");
        let mut tip = prev_hash(1, 1);
        tip.target = half();
        world.tip(tip.clone()).expect("a known template");

        let (id, mirror, channel) = standard(&mut world, 0);
        let job = mirror.channels[&channel].last_job.expect("work");
        let view = &mirror.channels[&channel];
        let block = (0..)
            .find(|nonce| tip.target.is_met_by(&view.digest(job, &[], 0x2000_0000, HEADER_TIMESTAMP, *nonce)))
            .expect("every other");
        for _ in 0..2 {
            world.send(id, &view.standard(job, 1, block));
        }
        world.settle();
        world.take();
        let found = solutions(&mut world);
        assert_eq!(found.len(), 1, "a duplicate is no second block");
        check_solution(&found[0], segwit, &view.extranonce_prefix);
        assert_eq!(found[0].user_identity, b"alice.rig1");
        assert_eq!(world.server.counters().solutions, 1);

        let (id, mirror, channel) = extended(&mut world, 16);
        let extranonce = [0xab; 16];
        let view = &mirror.channels[&channel];
        let block = (0..)
            .find(|nonce| {
                let digest = view.digest(job, &extranonce, 0x2000_0000, HEADER_TIMESTAMP, *nonce);
                tip.target.is_met_by(&digest)
            })
            .expect("every other");
        world.send(id, &view.extended(job, 1, block, &extranonce));
        // The channel goes before its block is judged.
        world.send(id, &CloseChannel { channel_id: channel, reason_code: b"" });
        world.settle();
        assert!(world.take().is_empty());
        let found = solutions(&mut world);
        let full = [&view.extranonce_prefix[..], &extranonce].concat();
        check_solution(&found[0], segwit, &full);
        assert_eq!(found[0].user_identity, b"bob");
    }
}

#[test]
fn a_block_below_its_share_target_is_reported_all_the_same() {
    let mut world = World::new(config());
    world.template(template(1, true)).expect("a good template");
    let mut tip = prev_hash(1, 1);
    tip.target = half();
    world.tip(tip.clone()).expect("a known template");
    let id = world.connect(0);
    let mut mirror = Mirror::default();
    world.send(
        id,
        &adit_codec::message::OpenStandardMiningChannel {
            request_id: 1,
            user_identity: b"",
            nominal_hash_rate: 1.0,
            max_target: &Target::from_difficulty(1.0).to_le_bytes(),
        },
    );
    mirror.read_all(&world.take());
    let view = &mirror.channels[&64];
    let block = (0..)
        .find(|nonce| tip.target.is_met_by(&view.digest(1, &[], 0x2000_0000, HEADER_TIMESTAMP, *nonce)))
        .expect("every other");
    world.send(id, &view.standard(1, 1, block));
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::DifficultyTooLow));
    assert_eq!(solutions(&mut world).len(), 1);
    let again = mirror.channels[&64].standard(1, 2, block);
    world.send(id, &again);
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::DifficultyTooLow));
    assert!(solutions(&mut world).is_empty(), "submitted again it is no second block");
}

#[test]
fn a_block_above_the_bound_of_shares_is_reported_once() {
    let mut limited = config();
    limited.limits.shares_per_tip_max = 0;
    let mut world = World::new(limited);
    world.template(template(1, true)).expect("a good template");
    world.tip(PrevHash { target: half(), ..prev_hash(1, 1) }).expect("a known template");
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let mut blocks = 0;
    for round in 0..2 {
        for nonce in 0..20 {
            let share = mirror.channels[&channel].standard(1, round * 20 + nonce, nonce);
            world.send(id, &share);
            assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::TooManyShares));
        }
        let found = solutions(&mut world).len();
        assert!(if round == 0 { (1..20).contains(&found) } else { found == 0 }, "{found} in round {round}");
        blocks += found;
    }
    assert_eq!(world.server.counters().solutions, blocks as u64);
}

#[test]
fn tickets_outlive_what_happens_meanwhile() {
    let mut world = World::with_work(config());
    let (id, mut mirror, channel) = standard(&mut world, 0);
    let job = mirror.channels[&channel].last_job.expect("work");
    world.send(id, &mirror.channels[&channel].standard(job, 1, 1));
    // A target that nothing meets, a prefix, a tip: all of it comes too late for the share.
    let hard = prev_hash(0, 0).target;
    world.server.set_target(id, ChannelId(channel), hard, &world.hashes, &mut world.out).expect("it is open");
    world
        .server
        .set_extranonce_prefix(id, ChannelId(channel), &world.hashes, &mut world.out)
        .expect("it is open");
    world.template(template(2, true)).expect("a good template");
    world.tip(prev_hash(2, 2)).expect("a known template");
    world.fan_out();
    world.advance(100.0);
    world.settle();
    mirror.read_all(&world.take());
    assert_eq!((mirror.accepted, mirror.errors.len()), (1, 0));
    // From the tip on, the new target binds.
    let job = mirror.channels[&channel].last_job.expect("work");
    world.send(id, &mirror.channels[&channel].standard(job, 2, 1));
    assert_eq!(outcome(&mut world, &mut mirror), code(ShareError::DifficultyTooLow));
}

#[test]
fn a_full_batch_settles_itself() {
    let mut limited = config();
    limited.limits.shares_per_tip_max = u32::MAX;
    let mut world = World::with_work(limited);
    let (id, mirror, channel) = standard(&mut world, 0);
    let job = mirror.channels[&channel].last_job.expect("work");
    let count = adit_proto::mining::server::SHARES_PENDING_MAX as u32 + 10;
    for nonce in 0..count {
        world.send(id, &mirror.channels[&channel].standard(job, nonce, nonce));
    }
    assert_eq!(world.server.pending_shares(), 10);
    world.settle();
    assert_eq!(world.server.counters().shares_accepted, u64::from(count));
}
