//! Peers that break every rule, one after the other, while an honest miner beside them loses nothing.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_codec::frame::FrameHeader;
use adit_codec::message::{SubmitSharesStandard, flags};
use adit_codec::noise::SEALED_HEADER_LEN;
use adit_engine::{EndKind, EngineHandle, EngineLimits, LineKind, LogEvent};

use common::*;

/// A miner that mines until it is told to stop, and counts.
struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>, Duration)>,
}

impl Honest {
    fn start(engine: &EngineHandle) -> Self {
        let mut peer = Peer::set_up(engine);
        let mut channel = peer.open(true);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            loop {
                // Read first: whoever is told to stop still mines once, so the honest are served after the last bad peer,
                // and also where the test was over before this thread had begun.
                let last = stopped.load(Ordering::Relaxed);
                let begun = Instant::now();
                peer.mine(&mut channel, 5, 5);
                worst = worst.max(begun.elapsed());
                if last {
                    break;
                }
            }
            (peer.accepted, peer.refused, worst)
        });
        Self { stop, thread }
    }

    /// Ends it; every share that it sent was answered and accepted, or was stale because of a tip of the test's own.
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (accepted, refused, worst) = self.thread.join().expect("the honest miner was served to the end");
        assert!(accepted > 0);
        assert!(refused.is_empty(), "{refused:?}");
        assert!(worst < Duration::from_secs(5), "{worst:?}");
    }
}

fn limits() -> EngineLimits {
    EngineLimits {
        handshake_timeout: Duration::from_millis(300),
        close_timeout: Duration::from_millis(500),
        send_buffer_bytes_max: 64 << 10,
        ..EngineLimits::default()
    }
}

fn engine_and_miner() -> (EngineHandle, Honest) {
    let mut config = config(1);
    config.limits = limits();
    let engine = start(config);
    give_work(&engine, 1, false);
    let honest = Honest::start(&engine);
    (engine, honest)
}

/// The line for a connection that ended for one kind of reason; its text.
fn end_line(engine: &EngineHandle, kind: EndKind) -> String {
    wait_for_line(
        engine,
        kind.name(),
        |event| matches!(event, LogEvent::ConnectionClosed { reason, .. } if reason.kind() == kind),
    )
    .to_string()
}

/// Only the honest miner is left, and it has lost nothing.
fn assert_only_the_honest_remain(engine: &EngineHandle, honest: Honest) {
    wait_for_counters(engine, "the bad peer to be gone", |counters| counters.total.connections() == 1);
    honest.finish();
    wait_for_counters(engine, "everybody to be gone", |counters| {
        counters.total.connections() == 0 && counters.total.channels() == 0
    });
}

#[test]
fn random_bytes_instead_of_a_handshake() {
    let (engine, honest) = engine_and_miner();
    let mut peer = connect_bare(engine.local_addr());
    peer.write_all(&random::<500>()).unwrap();
    assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "no answer is wasted on them");
    let line = end_line(&engine, EndKind::HandshakeTooLong);
    assert!(line.contains("no Noise handshake"), "{line}");
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn random_bytes_after_a_first_act() {
    let (engine, honest) = engine_and_miner();
    let mut peer = connect_bare(engine.local_addr());
    peer.write_all(&random::<64>()).unwrap();
    peer.read_exact(&mut [0; 234]).unwrap();
    peer.write_all(&random::<100>()).unwrap();
    assert_eq!(peer.read(&mut [0; 8]).unwrap_or(0), 0);
    let line = end_line(&engine, EndKind::FrameSeal);
    assert!(line.contains("does not authenticate"), "{line}");
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn half_a_handshake_and_silence() {
    let (engine, honest) = engine_and_miner();
    let silent = connect_bare(engine.local_addr());
    let mut half = connect_bare(engine.local_addr());
    half.write_all(&random::<32>()).unwrap();
    let begun = Instant::now();
    assert_eq!(half.read(&mut [0; 8]).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    for _ in 0..2 {
        let line = end_line(&engine, EndKind::HandshakeTimeout);
        assert!(line.contains("no handshake within 0.3 s"), "{line}");
    }
    drop(silent);
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn no_setup_after_the_handshake() {
    let mut config = config(1);
    config.service.server.limits.setup_timeout = Duration::from_millis(300);
    let engine = start(config);
    give_work(&engine, 1, false);
    let honest = Honest::start(&engine);
    let mut peer = Peer::connect(&engine);
    assert!(peer.receive().is_err());
    end_line(&engine, EndKind::SetupTimeout);
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_frame_that_is_too_long_is_refused_after_its_header() {
    let (engine, honest) = engine_and_miner();
    let mut peer = Peer::set_up(&engine);
    let payload_len = limits().frame_payload_len_max + 1;
    let header = FrameHeader { extension_type: 0, channel_msg: false, msg_type: 0x1a, payload_len };
    let frame = [&header.to_bytes()[..], &vec![0; payload_len as usize]].concat();
    let sealed = peer.seal_frame(&frame);
    peer.stream.write_all(&sealed[..SEALED_HEADER_LEN]).unwrap();
    assert!(peer.receive().is_err());
    let line = end_line(&engine, EndKind::FrameTooLong);
    assert!(line.contains("announces 16385 bytes of payload, at most 16384"), "{line}");
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_frame_of_the_greatest_length_in_small_pieces() {
    let (engine, honest) = engine_and_miner();
    let mut peer = Peer::set_up(&engine);
    let payload_len = limits().frame_payload_len_max;
    // An unknown message: discarded, and the connection lives on.
    let header = FrameHeader { extension_type: 0x0123, channel_msg: false, msg_type: 0x7f, payload_len };
    let frame = [&header.to_bytes()[..], &vec![0; payload_len as usize]].concat();
    for piece in peer.seal_frame(&frame).chunks(1000) {
        peer.stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut channel = peer.open(false);
    peer.mine(&mut channel, 1, 1);
    drop(peer);
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_malformed_message_and_one_out_of_place() {
    let (engine, honest) = engine_and_miner();
    let mut peer = Peer::connect(&engine);
    let header = FrameHeader { extension_type: 0, channel_msg: false, msg_type: 0, payload_len: 3 };
    let sealed = peer.seal_frame(&[&header.to_bytes()[..], &[0; 3]].concat());
    peer.stream.write_all(&sealed).unwrap();
    assert!(peer.receive().is_err());
    let line = end_line(&engine, EndKind::Protocol);
    assert!(line.contains("SetupConnection"), "{line}");
    let mut peer = Peer::connect(&engine);
    let channel_id = 64;
    peer.send(&SubmitSharesStandard {
        channel_id,
        sequence_number: 1,
        job_id: 1,
        nonce: 1,
        ntime: 1,
        version: 1,
    });
    assert!(peer.receive().is_err());
    let line = end_line(&engine, EndKind::Protocol);
    assert!(line.contains("SubmitSharesStandard has no place here"), "{line}");
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_refused_setup_is_answered_before_the_close() {
    let (engine, honest) = engine_and_miner();
    let mut peer = Peer::connect(&engine);
    let mut setup = setup();
    (setup.min_version, setup.max_version) = (7, 9);
    peer.send(&setup);
    assert_eq!(peer.read_to_end(), ["SetupConnection.Error"]);
    let line = end_line(&engine, EndKind::SetupRefused);
    assert!(line.contains("protocol-version-mismatch"), "{line}");
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_flood_of_bad_shares() {
    let (engine, honest) = engine_and_miner();
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(false);
    channel.job = 0xdead_beef;
    // Every error is answered before the close, although the flood goes on.
    let errors_max = server_config().limits.errors_max as usize;
    let mut bytes = Vec::new();
    for _ in 0..10 * errors_max {
        bytes.extend(peer.share(&mut channel));
    }
    let mut stream = peer.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let _ = stream.write_all(&bytes);
    });
    let names = peer.read_to_end();
    assert!(names.len() >= errors_max, "{}", names.len());
    assert!(names.iter().all(|name| *name == "SubmitShares.Error"));
    flood.join().unwrap();
    end_line(&engine, EndKind::TooManyErrors);
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_peer_that_never_reads() {
    let mut config = config(1);
    config.limits = limits();
    // None of the jobs that are pushed in a hurry shall make the honest miner's stale.
    config.service.server.limits.jobs_max = 100_000;
    let engine = start(config);
    give_work(&engine, 1, false);
    let honest = Honest::start(&engine);
    let mut peer = Peer::connect(&engine);
    let mut setup = setup();
    setup.flags = flags::REQUIRES_STANDARD_JOBS;
    peer.send(&setup);
    peer.receive().unwrap();
    for _ in 0..500 {
        peer.open(false);
    }
    // Each template is 500 jobs for it, and nobody reads them.
    let closed = || engine.counters().total.ended(EndKind::SlowReader) == 1;
    let deadline = Instant::now() + PATIENCE;
    for id in 2.. {
        if closed() {
            break;
        }
        assert!(Instant::now() < deadline, "not dropped after {id} templates");
        engine.send_update(template(id, false));
        std::thread::sleep(Duration::from_millis(1));
    }
    let line = end_line(&engine, EndKind::SlowReader);
    assert!(line.contains("does not read"), "{line}");
    drop(peer);
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_connection_that_is_reset() {
    let (engine, honest) = engine_and_miner();
    let mut peer = Peer::set_up(&engine);
    peer.open(false);
    // Closing with bytes unread makes the kernel send a reset.
    peer.send(&setup());
    wait_for("an answer that is not read", || {
        engine.counters().total.ended(EndKind::Protocol) == 1 || peer.stream.peek(&mut [0; 1]).is_ok()
    });
    drop(peer);
    assert_only_the_honest_remain(&engine, honest);
}

#[test]
fn a_flood_of_bad_peers_does_not_flood_the_log() {
    let (engine, honest) = engine_and_miner();
    for _ in 0..20 {
        let peers: Vec<_> = (0..50)
            .map(|_| {
                let mut peer = connect_bare(engine.local_addr());
                peer.write_all(&[b'x'; 100]).unwrap();
                peer
            })
            .collect();
        drop(peers);
    }
    wait_for_counters(&engine, "the flood to be over", |counters| {
        counters.total.ended(EndKind::HandshakeTooLong) + counters.total.ended(EndKind::Lost) >= 1000
    });
    let ended = engine.counters().total.ended;
    std::thread::sleep(Duration::from_millis(1500));
    let (mut lines, mut summed) = (0, 0);
    for event in engine.log().try_iter() {
        match event {
            LogEvent::ConnectionClosed { .. } => lines += 1,
            LogEvent::Suppressed { kind: LineKind::Ended(_), count, .. } => summed += count,
            _ => {}
        }
    }
    assert!(lines <= 200, "{lines} lines");
    assert_eq!(lines + summed, ended.iter().sum::<u64>(), "each end is a line or is summed up");
    assert_only_the_honest_remain(&engine, honest);
}
