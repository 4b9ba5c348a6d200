//! What the specification demands of a server on its sockets, where the other tests do not show it (tests/conformance says
//! which do).

#![allow(clippy::unwrap_used, reason = "a test that fails shall panic")]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use adit_codec::message::{Message, OpenExtendedMiningChannel, SetupConnection};
use adit_codec::noise::ACT2_LEN;
use adit_codec::{encode_frame, frame_len};

use common::*;

/// Somebody on the way who passes everything on and keeps a copy.
struct Eavesdropper {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Eavesdropper {
    /// Serves one connection.
    fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let (down, _) = listener.accept().unwrap();
            let up = connect_bare(upstream);
            let (down_2, up_2, copy_2) =
                (down.try_clone().unwrap(), up.try_clone().unwrap(), Arc::clone(&copy));
            let back = std::thread::spawn(move || pass_on(&up_2, &down_2, &copy_2));
            pass_on(&down, &up, &copy);
            back.join().unwrap();
        });
        Self { address, seen, thread }
    }
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, copy: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        copy.lock().unwrap().extend_from_slice(&bytes[..len]);
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    // The peer may have gone first.
    let _ = to.shutdown(Shutdown::Write);
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Chapter 4 and 4.1: names, targets, jobs and shares pass unseen.
#[test]
fn the_wire_shows_nothing_of_what_is_said() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let eavesdropper = Eavesdropper::start(engine.local_addr());
    let mut peer = Peer::try_connect(eavesdropper.address).unwrap();
    peer.send(&setup());
    assert_eq!(peer.receive().unwrap().name(), "SetupConnection.Success");
    let mut standard = peer.open(false);
    let mut extended = peer.open(true);
    peer.mine(&mut standard, 20, 5);
    peer.mine(&mut extended, 20, 5);
    assert_eq!(peer.accepted, 40);
    drop(peer);
    eavesdropper.thread.join().unwrap();
    let seen = eavesdropper.seen.lock().unwrap();
    assert!(seen.len() > 2_000, "{} bytes", seen.len());
    let said: [&[u8]; 9] = [
        b"vendor",
        b"localhost",
        b"alice.rig1",
        b"bob.farm",
        b"adit",
        // The tip, a maximum target, an extranonce, headers of frames of shares.
        &[1; 32],
        &[0xff; 16],
        &[5; 8],
        &[0, 0x80, 0x1a],
    ];
    for words in said {
        // Three bytes come by chance once in 2^24 places, so they are looked for where there would be many.
        let times = seen.windows(words.len()).filter(|window| *window == words).count();
        assert!(times < 3 && (words.len() == 3 || times == 0), "{words:?} {times} times");
    }
}

/// Chapter 4: plaintext is not understood, and is answered with nothing that could be read.
#[test]
fn nothing_is_said_without_a_handshake() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let mut stream = connect_bare(engine.local_addr());
    let open = OpenExtendedMiningChannel {
        request_id: 7,
        user_identity: b"bob.farm",
        nominal_hash_rate: 1.0,
        max_target: &[0xff; 32],
        min_extranonce_size: 8,
    };
    let mut plain = vec![0; frame_len(&setup()) + frame_len(&open)];
    let at = encode_frame(&setup(), &mut plain).unwrap();
    encode_frame(&open, &mut plain[at..]).unwrap();
    stream.write_all(&plain).unwrap();
    // What it takes for a first act it answers with a second, random to the eye; then it sees that nothing opens.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() <= ACT2_LEN, "{} bytes", answer.len());
    assert!(!contains(&answer, &[0, 0, 0x01, 6, 0, 0, 2, 0]), "no SetupConnection.Success");
    wait_for_counters(&engine, "the end", |counters| counters.total.connections() == 0);
    assert_eq!(engine.counters().total.frames_received, 0);
}

/// 4.5: in the header, in its code, in the payload and in its code.
#[test]
fn a_frame_that_does_not_authenticate_ends_the_connection() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let mut witness = Peer::set_up(&engine);
    let mut witness_channel = witness.open(true);
    for at in [0, 5, 6, 21, 22, 45, 46, 61] {
        let mut peer = Peer::set_up(&engine);
        let mut channel = peer.open(false);
        peer.mine(&mut channel, 2, 1);
        let mut sealed = peer.share(&mut channel);
        assert_eq!(sealed.len(), 22 + 24 + 16);
        sealed[at] ^= 1;
        // Also what comes behind and is whole is not read any more.
        let behind = peer.share(&mut channel);
        peer.stream.write_all(&[sealed, behind].concat()).unwrap();
        assert!(peer.read_to_end().is_empty(), "byte {at}");
        wait_for_counters(&engine, "the end", |counters| counters.total.connections() == 1);
        assert_eq!(engine.counters().total.channels(), 1);
    }
    assert_eq!(engine.counters().total.shares_accepted, 8 * 2);
    witness.mine(&mut witness_channel, 5, 5);
    assert_eq!(witness.accepted, 5, "others are not concerned");
}

/// 3.6.3: whichever shard a client meets. 5.1: and none gives it what another gives away.
#[test]
fn every_shard_supports_the_same_flags_and_has_its_own_search_space() {
    let engine = start(config(2));
    give_work(&engine, 1, false);
    let mut answers = BTreeSet::new();
    let mut prefixes = BTreeSet::new();
    let mut peers = Vec::new();
    for _ in 0..20 {
        let mut peer = Peer::connect(&engine);
        peer.send(&SetupConnection { flags: u32::MAX, ..setup() });
        let frame = peer.receive().unwrap();
        let Message::SetupConnectionError(answer) = frame.message() else { panic!("{}", frame.name()) };
        answers.insert((answer.flags, answer.error_code.to_vec()));

        let mut peer = Peer::set_up(&engine);
        peer.send(&OpenExtendedMiningChannel {
            request_id: 7,
            user_identity: b"bob.farm",
            nominal_hash_rate: 1.0,
            max_target: &[0xff; 32],
            min_extranonce_size: 8,
        });
        let frame = peer.receive().unwrap();
        let Message::OpenExtendedMiningChannelSuccess(answer) = frame.message() else {
            panic!("{}", frame.name())
        };
        assert!(prefixes.insert(answer.extranonce_prefix.to_vec()), "a prefix is given twice");
        peers.push(peer);
    }
    assert!(engine.counters().shards.iter().all(|shard| shard.connections() > 0), "both shards were met");
    assert_eq!(answers.len(), 1, "{answers:?}");
    let sizes: BTreeSet<usize> = prefixes.iter().map(Vec::len).collect();
    assert_eq!((prefixes.len(), sizes.len()), (20, 1), "of one size and different: they do not overlap");
}
