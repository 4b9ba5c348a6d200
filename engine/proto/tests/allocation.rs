//! After warm-up the way of a share allocates nothing: admission, hashing, verdicts and answers. And what a flood of shares makes
//! a server keep is bounded.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::{Message, OpenStandardMiningChannel, RequestExtensions, SubmitSharesStandard};
use adit_codec::{Encode, encode_frame, frame_len, tlv};
use adit_proto::mining::server::{ConnectionId, ShareError, VardiffConfig};
use common::mirror::Mirror;
use common::{HEADER_TIMESTAMP, World, config, prev_hash, template};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // Threads of the test harness end without these.
    let _ = ALLOCATIONS.try_with(|all| all.set(all.get() + u64::from(bytes > 0)));
    let _ = BYTES.try_with(|all| all.set(all.get() + bytes));
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches thread-local cells only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(-(layout.size() as i64));
        count(size as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn bytes() -> i64 {
    BYTES.with(Cell::get)
}

/// A frame, ready to be handed in.
type Encoded = (ConnectionId, FrameHeader, Vec<u8>);

fn encode<M: Encode>(id: ConnectionId, message: &M, trailing: &[u8]) -> Encoded {
    let mut frame = vec![0; frame_len(message)];
    encode_frame(message, &mut frame).expect("it fits");
    let mut header = FrameHeader::parse(frame[..HEADER_LEN].try_into().expect("six bytes"));
    header.payload_len += trailing.len() as u32;
    (id, header, [&frame[HEADER_LEN..], trailing].concat())
}

/// Shares of all channels for the present job, good ones and bad ones.
fn shares(mirrors: &[(ConnectionId, Mirror)], round: u32) -> Vec<Encoded> {
    let mut field = [0; 64];
    let len = tlv::encode_user_identity(b"worker-7", &mut field).expect("it fits");
    let mut frames = Vec::new();
    for nonce in 0..40 {
        for (id, mirror) in mirrors {
            for channel in mirror.channels.values() {
                let job = channel.last_job.expect("work");
                let nonce = round * 1_000 + nonce;
                // Two in ten are duplicates, one names no job.
                let repeated = if nonce % 10 < 2 { round * 1_000 } else { nonce };
                let job_id = if nonce % 10 == 5 { u32::MAX } else { job };
                let extranonce = vec![1; channel.extranonce_size];
                if channel.extended {
                    let mut share = channel.extended(job, nonce, repeated, &extranonce);
                    share.job_id = job_id;
                    frames.push(encode(*id, &share, &field[..len]));
                } else {
                    let mut share = channel.standard(job, nonce, repeated);
                    share.job_id = job_id;
                    frames.push(encode(*id, &share, &[]));
                }
            }
        }
    }
    frames
}

#[test]
fn shares_allocate_nothing_after_warm_up() {
    let mut config = config();
    config.limits.errors_max = u32::MAX;
    let mut world = World::with_work(config);
    let mut mirrors = Vec::new();
    for i in 0..12 {
        let id = world.connect(u32::from(i % 3 == 0));
        let mut mirror = Mirror { standard_jobs: i % 3 == 0, ..Mirror::default() };
        world.send(id, &RequestExtensions { request_id: 1, requested_extensions: [2][..].into() });
        for _ in 0..5 {
            world.open_standard(id);
        }
        if i % 3 != 0 {
            world.open_extended(id, 4);
            world.open_extended(id, 16);
        }
        mirror.read_all(&world.take());
        mirrors.push((id, mirror));
    }
    for round in 1..=6 {
        let tip = u64::from(round) + 1;
        world.template(template(tip, true)).expect("a good template");
        world.tip(prev_hash(tip, tip as u8)).expect("a known template");
        world.fan_out();
        for frame in world.take() {
            let (_, mirror) = mirrors.iter_mut().find(|(id, _)| *id == frame.to).expect("a known connection");
            mirror.read(&frame);
        }
        let frames = shares(&mirrors, round);
        let accepted = world.server.counters().shares_accepted;
        let before = allocations();
        for batch in frames.chunks(200) {
            for (id, header, payload) in batch {
                world.server.handle_frame(*id, *header, payload, world.now, &world.hashes, &mut world.out);
            }
            world.server.settle(&world.hashes, world.now, &mut world.out);
            world.out.clear_frames();
        }
        let made = allocations() - before;
        assert!(world.server.counters().shares_accepted > accepted + 1_000);
        if round >= 4 {
            assert_eq!(made, 0, "in round {round}");
        }
    }
}

/// What a channel may take before its first share, and what sixty shares on one tip may add.
const CHANNEL_BYTES_MAX: f64 = 256.0;
const SHARES_BYTES_MAX: f64 = 1_024.0;
/// What a channel takes: 112 bytes for shares, 32 beside, 12 in the timer wheel and 8 in the directory of its connection; the rest
/// is what the last chunk of each table leaves free.
const CHANNEL_BYTES: f64 = 168.0;
/// What shares add to that: 64 bytes, and a table of 80 slots.
const SHARES_BYTES: f64 = 706.0;

/// Opens standard channels with identities of a usual length, so many on each connection, and says how many bytes each takes.
fn bytes_of_channels(
    world: &mut World,
    flags: u32,
    connections: u32,
    channels: u32,
) -> (Vec<ConnectionId>, f64) {
    let ids: Vec<ConnectionId> = (0..connections).map(|_| world.connect(flags)).collect();
    // The first channel of a connection takes along what is there once for a connection.
    for id in &ids {
        world.open_standard(*id);
    }
    world.take();
    world.take_events();
    let before = bytes();
    for channel in 1..channels {
        for id in &ids {
            let identity = format!("account.worker{channel:05}");
            let open = OpenStandardMiningChannel {
                request_id: channel,
                user_identity: identity.as_bytes(),
                nominal_hash_rate: 1e-9,
                max_target: &[0xff; 32],
            };
            world.send(*id, &open);
            world.out.clear_frames();
            world.out.drain_events().for_each(drop);
        }
    }
    assert_eq!(world.server.channel_count(), (connections * channels) as usize);
    let each = (bytes() - before) as f64 / f64::from(connections * (channels - 1));
    println!("{channels} channels on each of {connections} connections: {each} bytes a channel");
    (ids, each)
}

fn roomy() -> adit_proto::mining::server::ServerConfig {
    let mut config = config();
    config.vardiff.adjust = true;
    config.limits.channels_per_connection_max = 1_000_000;
    config.limits.channels_max = 1_000_000;
    config.limits.fingerprint_slots_max = 1 << 26;
    config
}

#[test]
fn a_channel_is_small_before_its_first_share() {
    for (connections, channels) in [(100, 1_000), (10, 40_000), (1, 100_000)] {
        let (_, each) = bytes_of_channels(&mut World::with_work(roomy()), 0, connections, channels);
        assert!(each <= CHANNEL_BYTES_MAX.min(CHANNEL_BYTES), "{each} bytes");
    }
    // Each channel has jobs of its own, and keeps the merkle root of the present one.
    let (_, each) = bytes_of_channels(&mut World::with_work(roomy()), 1, 20, 1_000);
    assert!(each <= CHANNEL_BYTES_MAX.min(CHANNEL_BYTES + 64.0), "{each} bytes");
}

#[test]
fn sixty_shares_on_a_tip_add_less_than_a_kilobyte_to_a_channel() {
    let mut config = roomy();
    // No target follows: each of the sixty is a share.
    config.vardiff.adjust = false;
    let mut world = World::with_work(config);
    let (ids, empty) = bytes_of_channels(&mut world, 0, 5, 1_000);
    let channels: Vec<u32> = (64..64 + 1_000).collect();
    // The batch's memory grows with the first.
    let (first, ids) = ids.split_first().expect("five");
    submit(&mut world, *first, &channels, 0);
    let before = bytes();
    for nonce in 0..60 {
        for id in ids {
            submit(&mut world, *id, &channels, nonce);
        }
    }
    assert_eq!(world.server.counters().shares_accepted, 1_000 + 4 * 1_000 * 60);
    let each = (bytes() - before) as f64 / 4_000.0;
    println!("60 shares: {each} bytes a channel more");
    assert!(empty + each <= CHANNEL_BYTES_MAX + SHARES_BYTES_MAX, "{empty} + {each} bytes");
    assert!(each <= SHARES_BYTES, "{each} bytes");
}

#[test]
fn connections_are_small_and_given_back() {
    let mut config = config();
    config.vardiff.adjust = true;
    let mut world = World::with_work(config);
    let warm = world.connect(0);
    world.open_extended(warm, 8);
    world.take();
    world.take_events();
    let start = bytes();
    let mut ids = Vec::with_capacity(2_000);
    let mut settled = 0;
    for round in 0..20 {
        for _ in 0..1_000 {
            let id = world.server.handle_connect(world.now);
            world.send(id, &common::setup(0));
            world.open_extended(id, 8);
            world.out.clear_frames();
            world.out.drain_events().for_each(drop);
            ids.push(id);
        }
        if round == 0 {
            let each = (bytes() - start) as f64 / 1_000.0;
            println!("{each} bytes per connection with an extended channel");
            assert!(each < 800.0, "{each} bytes per connection");
        }
        for id in ids.drain(..) {
            world.server.handle_disconnect(id, &mut world.out);
        }
        world.out.drain_events().for_each(drop);
        if round == 1 {
            settled = bytes();
        }
    }
    let grown = bytes() - settled;
    assert!(grown <= 0, "{grown} bytes more are kept after 20 rounds of 1,000 connections than after two");
}

/// Opens standard channels that announce next to no hash rate; their ids.
fn open_tiny(world: &mut World, id: ConnectionId, count: usize) -> Vec<u32> {
    let mut channels = Vec::with_capacity(count);
    for request_id in 0..count as u32 {
        world.send(
            id,
            &OpenStandardMiningChannel {
                request_id,
                user_identity: b"",
                nominal_hash_rate: 1e-9,
                max_target: &[0xff; 32],
            },
        );
        channels.extend(world.take().iter().filter_map(|frame| match frame.message() {
            Message::OpenStandardMiningChannelSuccess(opened) => Some(opened.channel_id),
            _ => None,
        }));
        world.take_events();
    }
    assert_eq!(channels.len(), count);
    channels
}

/// Submits a share on each channel.
fn submit(world: &mut World, id: ConnectionId, channels: &[u32], nonce: u32) {
    for some in channels.chunks(1_000) {
        for channel in some {
            let share = SubmitSharesStandard {
                channel_id: *channel,
                sequence_number: nonce,
                job_id: 1,
                nonce,
                ntime: HEADER_TIMESTAMP,
                version: 0x2000_0000,
            };
            world.send(id, &share);
        }
        world.settle();
        world.out.clear_frames();
    }
}

#[test]
fn a_flood_over_ten_thousand_channels_is_bounded_and_takes_nothing_from_others() {
    let mut config = config();
    // Every hash is a share, and no target ever follows: the worst that can be configured.
    config.vardiff =
        VardiffConfig { shares_per_minute: 0.5, hash_rate_default: 1.0, difficulty_min: 0.0, adjust: false };
    config.limits.channels_per_connection_max = 10_000;
    config.limits.channels_max = 20_000;
    config.limits.errors_max = u32::MAX;
    config.limits.fingerprint_slots_max = 1 << 19;
    let mut world = World::with_work(config.clone());
    let hostile = world.connect(0);
    let flooding = open_tiny(&mut world, hostile, 10_000);
    let honest: Vec<(ConnectionId, Vec<u32>)> = (0..20)
        .map(|_| {
            let id = world.connect(0);
            (id, open_tiny(&mut world, id, 10))
        })
        .collect();

    let before = bytes();
    // What the pool wants of them: seven shares in a quarter of an hour, and twice that on a long tip.
    let honest_shares = 14;
    for nonce in 0..45 {
        submit(&mut world, hostile, &flooding, nonce);
        if nonce >= 45 - honest_shares {
            for (id, channels) in &honest {
                submit(&mut world, *id, channels, nonce);
            }
        }
    }
    let (grown, slots) = (bytes() - before, world.server.fingerprint_slots());
    println!("10,000 flooding channels: {slots} slots, {grown} bytes");
    assert!(slots <= config.limits.fingerprint_slots_max);
    assert!(grown <= (slots * 8) as i64 + 1_000_000, "{grown} bytes, of which {slots} slots");
    let refused = world.server.counters().shares_rejected;
    assert!(refused[ShareError::TooManyShares as usize] > 100_000, "the flood was held back: {refused:?}");
    let all: u64 = refused.iter().sum();
    assert_eq!(all, refused[ShareError::TooManyShares as usize]);

    // The others lost nothing: each of their shares is known.
    for (id, channels) in &honest {
        for nonce in 45 - honest_shares..45 {
            submit(&mut world, *id, channels, nonce);
        }
    }
    let duplicates = world.server.counters().shares_rejected[ShareError::Duplicate as usize];
    assert_eq!(duplicates, 20 * 10 * u64::from(honest_shares));

    // Tables go with their channels, and those of channels that are quiet for a tip go by themselves.
    world.server.handle_disconnect(hostile, &mut world.out);
    world.take_events();
    assert_eq!(world.server.fingerprint_slots(), 20 * 10 * 16);
    for tip in 2..4 {
        world.template(template(tip, true)).expect("a good template");
        world.tip(prev_hash(tip, tip as u8)).expect("a known template");
    }
    world.advance(61.0);
    world.timeout();
    assert_eq!(world.server.fingerprint_slots(), 0);
}
