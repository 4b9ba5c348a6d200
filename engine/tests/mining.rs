//! Honest miners over real sockets: setup, channels, shares, jobs, solutions.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use adit_codec::message::Message;
use adit_engine::{EngineHandle, LogEvent};
use adit_proto::mining::server::Acknowledgement;

use common::*;

#[test]
fn the_way_of_tips_is_measured_for_each_connection() {
    let engine = start(config(2));
    give_work(&engine, 1, false);
    let mut peers: Vec<_> = (0..10)
        .map(|index| {
            let mut peer = Peer::set_up(&engine);
            let channel = peer.open(index % 2 == 0);
            (peer, channel)
        })
        .collect();
    // As if the source had known the tips since then.
    let learned = Instant::now();
    wait_for("a way that can be measured", || learned.elapsed() >= Duration::from_millis(20));
    for id in 2..5 {
        engine.send_update(template(id, true));
        engine.send_update_learned(tip(id, false), learned);
        for (peer, channel) in &mut peers {
            let before = channel.job;
            while channel.job == before {
                let frame = peer.receive().unwrap();
                peer.take(&frame, channel);
            }
        }
    }
    // The first tip came before anybody was there; each shard took all four.
    wait_for("the latencies", || engine.tip_latencies().sent.count == 30);
    let latencies = engine.tip_latencies();
    assert_eq!((latencies.prepared.count, latencies.taken.count), (8, 8));
    // The first tip was handed over at once, for two shards.
    assert!(latencies.prepared.p99 >= Duration::from_millis(20), "{latencies:?}");
    assert!(latencies.sent.p50 >= Duration::from_millis(20), "the whole way counts: {latencies:?}");
    assert!(latencies.sent.p50 <= latencies.sent.p99 && latencies.sent.max < PATIENCE, "{latencies:?}");
}

/// More than a shard's link holds: what finds no room waits for it, and nothing overtakes.
#[test]
fn updates_that_are_handed_over_together_are_all_taken_in_order() {
    let engine = start(config(2));
    let learned = Instant::now();
    let updates = (1..=100).flat_map(|id| [template(id, true), tip(id, false)]);
    engine.send_updates(&updates.map(|update| (update, learned)).collect::<Vec<_>>());
    // A tip that came before its template would have been refused.
    wait_for("the tips", || engine.tip_latencies().taken.count == 200);
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(true);
    peer.mine(&mut channel, 10, 5);
    assert_eq!((peer.accepted, peer.refused.len()), (10, 0));
}

#[test]
fn mines_on_both_kinds_of_channel() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let mut standard = Peer::set_up(&engine);
    let mut channel = standard.open(false);
    standard.mine(&mut channel, 500, 20);
    let mut extended = Peer::set_up(&engine);
    let mut farm = extended.open(true);
    extended.mine(&mut farm, 500, 1);
    assert_eq!((standard.accepted, extended.accepted), (500, 500));
    assert!(standard.refused.is_empty() && extended.refused.is_empty());
    let counters = engine.counters().total;
    assert_eq!((counters.shares_accepted, counters.rejected()), (1000, 0));
    assert_eq!((counters.connections(), counters.channels(), counters.handshakes), (2, 2, 2));
    assert!(counters.bytes_received > 0 && counters.bytes_sent > 0);
    // Two SetupConnection, two openings, a thousand shares.
    assert_eq!(counters.frames_received, 1004);
    wait_for_line(
        &engine,
        "the channel",
        |event| matches!(event, LogEvent::ChannelOpened { extended: true, user_identity, .. } if user_identity == b"bob.farm"),
    );
}

#[test]
fn every_connection_gets_the_new_tip_while_shares_flow() {
    let engine = start(config(2));
    give_work(&engine, 1, false);
    let mut peers: Vec<_> = (0..300)
        .map(|index| {
            let mut peer = Peer::set_up(&engine);
            let channel = peer.open(index % 2 == 0);
            (peer, channel)
        })
        .collect();
    for tip in 2..6 {
        let first_job = peers[0].1.job;
        give_work(&engine, tip, false);
        for (peer, channel) in &mut peers {
            let before = channel.job;
            while channel.job == before {
                let frame = peer.receive().unwrap();
                peer.take(&frame, channel);
            }
            peer.mine(channel, 3, 3);
        }
        assert_ne!(peers[0].1.job, first_job);
    }
    assert!(peers.iter().all(|(peer, _)| peer.accepted == 12 && peer.refused.is_empty()));
    assert_eq!(engine.counters().total.shares_accepted, 300 * 12);
}

#[test]
fn connections_are_spread_evenly_over_two_shards() {
    let engine = start(config(2));
    let mut peers: Vec<_> = (0..100).map(|_| Peer::set_up(&engine)).collect();
    let connections = || engine.counters().shards.iter().map(|shard| shard.connections()).collect::<Vec<_>>();
    assert_eq!(connections(), [50, 50]);
    // By load, not in turns: after those of one shard have gone, the next ones all go there.
    let shard_0: Vec<_> = engine
        .log()
        .try_iter()
        .filter_map(|event| match event {
            LogEvent::ConnectionOpened { peer, shard: 0, .. } => Some(peer),
            _ => None,
        })
        .collect();
    let before = peers.len();
    peers.retain(|peer| !shard_0.contains(&peer.stream.local_addr().unwrap()));
    let gone = before - peers.len();
    assert!(gone > 0);
    wait_for("the closes", || connections() == [50 - gone as u64, 50]);
    peers.extend((0..gone).map(|_| Peer::set_up(&engine)));
    assert_eq!(connections(), [50, 50]);
}

#[test]
fn a_solution_leaves_before_its_acknowledgement() {
    let engine = start(config(1));
    give_work(&engine, 1, true);
    let solutions = engine.outputs();
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(false);
    for round in 1..=200 {
        peer.mine(&mut channel, 1, 1);
        // The acknowledgement has been read: the solution must be there already, without waiting.
        let solution = solutions.try_recv().expect("the solution left first");
        assert_eq!(solution.template_id, 1);
        assert_eq!(solution.user_identity, b"alice.rig1");
        assert_eq!(solution.header[76..], (round as u32).to_le_bytes());
    }
    assert_eq!(engine.counters().total.solutions, 200);
}

#[test]
fn solutions_wait_for_their_reader_and_none_is_lost() {
    let engine = start(config(1));
    give_work(&engine, 1, true);
    let solutions = engine.outputs();
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(true);
    // Far more than link and shard keep together: the shard must stop reading until somebody takes them.
    let count = 12_000;
    let miner = std::thread::spawn(move || {
        peer.mine(&mut channel, count, 50);
        peer.accepted
    });
    wait_for_counters(&engine, "solutions that wait", |counters| counters.total.outputs_delayed > 0);
    std::thread::sleep(Duration::from_millis(200));
    let mut nonces: Vec<_> =
        (0..count).map(|_| solutions.recv_timeout(PATIENCE).unwrap().header[76..].to_vec()).collect();
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len() as u64, count);
    assert_eq!(miner.join().unwrap(), count);
}

#[test]
fn the_first_job_of_a_connection_is_not_held_back() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        let mut peer = Peer::set_up(&engine);
        let begun = Instant::now();
        peer.open(true);
        worst = worst.max(begun.elapsed());
    }
    // Nagle's algorithm and delayed acknowledgements would make it 40 ms each time.
    assert!(worst < Duration::from_millis(500), "{worst:?}");
}

#[test]
fn a_half_closed_connection_gets_its_answers() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(false);
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(peer.share(&mut channel));
    }
    use std::io::Write;
    peer.stream.write_all(&bytes).unwrap();
    peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut accepted = 0;
    while let Ok(frame) = peer.receive() {
        if let Message::SubmitSharesSuccess(success) = frame.message() {
            accepted += success.new_submits_accepted_count;
        }
    }
    assert_eq!(accepted, 100);
    wait_for_counters(&engine, "the close", |counters| counters.total.connections() == 0);
}

/// What an operator lets gather is said before a connection ends, whoever ends it.
#[test]
fn shares_that_gather_are_acknowledged_before_an_end() {
    let mut gathering = config(1);
    let delay = Duration::from_secs(600);
    gathering.service.server.acknowledgement = Acknowledgement { shares: 10, delay };
    let engine = start(gathering);
    give_work(&engine, 1, false);
    let three_shares = |engine: &EngineHandle| {
        let mut peer = Peer::set_up(engine);
        let mut channel = peer.open(true);
        peer.mine(&mut channel, 10, 5);
        assert_eq!(peer.accepted, 10, "ten are acknowledged at once");
        let bytes: Vec<u8> = (0..3).flat_map(|_| peer.share(&mut channel)).collect();
        peer.stream.write_all(&bytes).unwrap();
        (peer, channel)
    };
    let acknowledged = |peer: &mut Peer, channel: &mut Channel| {
        while let Ok(frame) = peer.receive() {
            peer.take(&frame, channel);
        }
        peer.accepted
    };
    let (mut leaving, mut channel) = three_shares(&engine);
    leaving.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(acknowledged(&mut leaving, &mut channel), 13);

    let (mut served, mut channel) = three_shares(&engine);
    wait_for_counters(&engine, "the shares", |counters| counters.total.shares_accepted == 26);
    let stop = std::thread::spawn(move || engine.shutdown(PATIENCE));
    assert_eq!(acknowledged(&mut served, &mut channel), 13);
    drop(served);
    stop.join().unwrap();
}
