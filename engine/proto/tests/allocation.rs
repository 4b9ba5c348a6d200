//! After warm-up the way of a share allocates nothing: admission, hashing, verdicts and answers.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use adit_codec::frame::{FrameHeader, HEADER_LEN};
use adit_codec::message::RequestExtensions;
use adit_codec::{Encode, encode_frame, frame_len, tlv};
use adit_proto::mining::server::ConnectionId;
use common::mirror::Mirror;
use common::{World, config, prev_hash, template};

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

#[test]
fn channels_and_connections_are_small_and_given_back() {
    let mut config = config();
    config.vardiff.adjust = true;
    config.limits.channels_per_connection_max = 100_000;
    config.limits.channels_max = 100_000;
    let mut world = World::with_work(config);
    let id = world.connect(0);
    for _ in 0..10 {
        world.open_standard(id);
    }
    world.take();
    world.take_events();
    let channels = 20_000;
    let before = bytes();
    for _ in 0..channels {
        world.open_standard(id);
        world.out.clear_frames();
        world.out.drain_events().for_each(drop);
    }
    let each = (bytes() - before) as f64 / f64::from(channels);
    // Tables that double hold up to twice what is in them; the state itself is bounded in the unit tests.
    assert!(each < 320.0, "{each} bytes per channel");
    println!("{each} bytes per standard channel in a group before its first share");

    let mut config = common::config();
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
