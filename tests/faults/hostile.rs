//! Each kind of bad peer is disconnected and logged once with its reason, while eight honest miners lose no share.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use adit_codec::frame::HEADER_LEN;
use adit_codec::message::{Message, MessageKind, SubmitSharesStandard, UpdateChannel};
use adit_codec::url::PoolUrl;
use adit_tests::peer::{Peer, address, connect_bare, random};
use adit_tests::pool::Pool;

const PATIENCE: Duration = Duration::from_secs(120);
/// On the signet a block takes millions of hashes, so that no honest share comes late for its tip.
const SETTINGS: &str = "
    template_source.chain = \"signet\"
    log.status_interval_s = 1
    vardiff.shares_per_minute = 120.0
    limits.handshake_timeout_s = 2.0
    limits.errors_max = 200
    limits.send_buffer_bytes_max = 16384
";

/// What a bad peer does; returns the port that it came from.
type Attack = fn(&PoolUrl) -> u16;

/// More than the first act, none of it a handshake.
fn sends_random_bytes(url: &PoolUrl) -> u16 {
    let mut stream = connect_bare(address(url)).expect("the pool listens");
    let port = stream.local_addr().expect("a connected socket has an address").port();
    // The pool may hang up while the bytes are on their way.
    for _ in 0..64 {
        if stream.write_all(&random::<1024>()).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    port
}

/// Half of the first act, then silence.
fn never_finishes_its_handshake(url: &PoolUrl) -> u16 {
    let mut stream = connect_bare(address(url)).expect("the pool listens");
    let port = stream.local_addr().expect("a connected socket has an address").port();
    stream.write_all(&random::<32>()).expect("the pool reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the pool hangs up in time");
    assert!(answer.is_empty(), "half a handshake has no answer");
    port
}

/// A header that announces more than the pool takes.
fn sends_an_oversized_frame(url: &PoolUrl) -> u16 {
    const PAYLOAD_LEN: usize = 1 << 20;
    let mut peer = Peer::set_up(url, 0).expect("the pool accepts");
    let port = peer.stream().local_addr().expect("a connected socket has an address").port();
    let mut frame = vec![0; HEADER_LEN + PAYLOAD_LEN];
    let header = MessageKind::SubmitSharesStandard.header(PAYLOAD_LEN as u32);
    frame[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    // The pool may hang up as soon as it has the header.
    let _ = peer.send_frame(&frame);
    peer.wait_for_close();
    port
}

/// Opens a standard channel and says which.
fn open(peer: &mut Peer, user: &[u8]) -> u32 {
    peer.open_standard(1, user, 1e6).expect("the pool reads");
    peer.receive_until(|message| match message {
        Message::OpenStandardMiningChannelSuccess(success) => Some(success.channel_id),
        _ => None,
    })
    .expect("the pool opens channels")
}

/// Shares for a job that does not exist, as fast as they go.
fn floods_with_bad_shares(url: &PoolUrl) -> u16 {
    let mut peer = Peer::set_up(url, 0).expect("the pool accepts");
    let port = peer.stream().local_addr().expect("a connected socket has an address").port();
    let channel_id = open(&mut peer, b"flood");
    for sequence_number in 0..100_000 {
        let share = SubmitSharesStandard {
            channel_id,
            sequence_number,
            job_id: u32::MAX,
            nonce: sequence_number,
            ntime: 0,
            version: 0x2000_0000,
        };
        if peer.send(&share).is_err() {
            break;
        }
    }
    peer.wait_for_close();
    port
}

/// Asks for answer after answer and reads none.
fn never_reads(url: &PoolUrl) -> u16 {
    let mut peer = Peer::set_up(url, 0).expect("the pool accepts");
    let port = peer.stream().local_addr().expect("a connected socket has an address").port();
    let channel_id = open(&mut peer, b"deaf");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let request = UpdateChannel { channel_id, nominal_hash_rate: 1e6, maximum_target: &[0xff; 32] };
        if peer.send(&request).is_err() {
            return port;
        }
    }
    panic!("a reader that never reads was kept for {PATIENCE:?}");
}

/// Waits until the pool has accepted so many shares, by its own count.
fn wait_for_shares(pool: &Pool, shares: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let accepted = pool.status("accepted").unwrap_or(0);
        if accepted >= shares {
            return accepted;
        }
        assert!(Instant::now() < deadline, "{accepted} shares were accepted, {shares} are waited for");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn bad_peers_are_disconnected_with_their_reasons_and_honest_miners_lose_nothing() {
    let pool = Pool::start(SETTINGS);
    let limits = ["--strict", "--hash-rate-limit", "20000", "--nominal-hash-rate", "20000"];
    let mut honest =
        pool.mine(&[&["--devices", "8", "--kind", "mixed", "--user", "honest"][..], &limits[..]].concat());
    let accepted_before = wait_for_shares(&pool, 20);

    let attacks: [(Attack, &str); 5] = [
        (sends_random_bytes, "no Noise handshake"),
        (never_finishes_its_handshake, "no handshake within 2 s"),
        (sends_an_oversized_frame, "payload"),
        (floods_with_bad_shares, "too many refused shares"),
        (never_reads, "does not read"),
    ];
    let ports: Vec<u16> = std::thread::scope(|scope| {
        let running: Vec<_> = attacks.iter().map(|(attack, _)| scope.spawn(|| attack(&pool.url))).collect();
        running.into_iter().map(|attack| attack.join().expect("the attack ran its course")).collect()
    });

    wait_for_shares(&pool, accepted_before + 20);
    honest.signal("TERM");
    let status = honest.wait(PATIENCE);
    assert!(status.success(), "{status}: {:?}", honest.lines());

    for (port, (_, reason)) in ports.iter().zip(attacks) {
        let ended = pool.log_lines(&format!("127.0.0.1:{port}: disconnected"));
        assert_eq!(ended.len(), 1, "each end is logged once: {ended:?}");
        assert!(ended[0].contains(reason), "{reason}: {}", ended[0]);
    }
    pool.stop();
}
