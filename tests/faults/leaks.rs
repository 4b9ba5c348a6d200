//! A disconnect in the middle of anything leaks nothing.

use std::time::{Duration, Instant};

use adit_tests::peer::{Peer, address, connect_bare, random};
use adit_tests::pool::Pool;
use std::io::Write;

const ROUNDS: u32 = 1_000;
/// Rounds before memory is looked at: buffers and tables have found their size.
const WARM_UP: u32 = 200;
/// What the allocator may keep more or less from one moment to the next.
const SLACK_BYTES: u64 = 4 << 20;

/// Connects and hangs up in a middle that depends on the round.
fn leave_in_the_middle(pool: &Pool, round: u32) {
    match round % 6 {
        0 => drop(connect_bare(address(&pool.url)).expect("the pool listens")),
        1 => {
            let mut stream = connect_bare(address(&pool.url)).expect("the pool listens");
            stream.write_all(&random::<20>()).expect("the pool reads");
        }
        2 => drop(Peer::connect(&pool.url).expect("the pool shakes hands")),
        3 => {
            let mut peer = Peer::set_up(&pool.url, 0).expect("the pool accepts");
            peer.open_standard(1, b"leaver", 1e6).expect("the pool reads");
        }
        4 => {
            let mut peer = Peer::set_up(&pool.url, 0).expect("the pool accepts");
            for request in 0..4 {
                peer.open_extended(request, b"leaver", 1e6, 8).expect("the pool reads");
            }
            let _ = peer.receive();
        }
        _ => {
            let mut peer = Peer::set_up(&pool.url, 1).expect("the pool accepts");
            peer.open_standard(1, b"leaver", 1e6).expect("the pool reads");
            let _ = peer.receive();
            peer.close();
        }
    }
}

#[test]
fn a_thousand_disconnects_in_the_middle_leak_no_channel_and_no_memory() {
    let pool =
        Pool::start("log.level = \"info\"\nlog.status_interval_s = 1\nlimits.handshake_timeout_s = 2.0");
    let mut resident = 0;
    for round in 0..ROUNDS {
        leave_in_the_middle(&pool, round);
        if round == WARM_UP {
            resident = pool.program.resident_bytes();
        }
    }
    // The last of them are noticed by their timeouts.
    let deadline = Instant::now() + Duration::from_secs(30);
    while (pool.status("connections"), pool.status("channels")) != (Some(0), Some(0)) {
        assert!(
            Instant::now() < deadline,
            "connections or channels are left: {:?}",
            pool.log_lines("status").pop()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    let now = pool.program.resident_bytes();
    assert!(
        now <= resident + SLACK_BYTES,
        "{} KiB after {WARM_UP} rounds, {} KiB after {ROUNDS}",
        resident / 1024,
        now / 1024
    );
    pool.stop();
}
