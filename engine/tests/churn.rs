//! Joining and leaving, two hundred times over: nothing is left behind. One test, because it measures its process.

#![allow(clippy::unwrap_used, reason = "a test that fails shall panic")]

mod common;

use std::time::Duration;

use common::*;

const ROUNDS: usize = 200;
const PEERS: usize = 50;
const SHARDS: usize = 2;

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn threads_named(prefix: &str) -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix))
        .count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn nothing_is_left_of_those_who_leave() {
    let descriptors_before = descriptors();
    let mut config = config(SHARDS);
    config.limits.close_timeout = Duration::from_millis(500);
    let engine = start(config);
    give_work(&engine, 1, false);
    let idle_descriptors = descriptors();
    let mut after_warm_up = 0;
    for round in 0..ROUNDS {
        let mut peers: Vec<_> = (0..PEERS).map(|_| Peer::set_up(&engine)).collect();
        for (index, peer) in peers.iter_mut().enumerate() {
            let mut channel = peer.open(index % 2 == 0);
            peer.mine(&mut channel, 2, 2);
        }
        assert_eq!(engine.counters().total.channels(), PEERS as u64);
        if round == 0 {
            // The peers' own descriptors only: those of the engine's side are direct.
            assert!(descriptors() <= idle_descriptors + PEERS, "{} {idle_descriptors}", descriptors());
        }
        drop(peers);
        wait_for_counters(&engine, "the round's end", |counters| {
            counters.total.connections() == 0 && counters.total.channels() == 0
        });
        if round == ROUNDS / 4 {
            after_warm_up = resident_kib();
        }
    }
    let growth = resident_kib().saturating_sub(after_warm_up);
    assert!(growth < 2048, "{growth} KiB in {} rounds of {PEERS}", ROUNDS - ROUNDS / 4);
    let counters = engine.counters().total;
    assert_eq!(counters.shares_accepted, (ROUNDS * PEERS * 2) as u64);
    assert_eq!(counters.handshakes, (ROUNDS * PEERS) as u64);

    // The end: those who are there are told, threads and descriptors go.
    let mut peers: Vec<_> = (0..20).map(|_| Peer::set_up(&engine)).collect();
    let silent = connect_bare(engine.local_addr());
    wait_for_counters(&engine, "all connections", |counters| counters.total.connections() == 21);
    assert!(threads_named("adit-") >= 3);
    let log = engine.log();
    let readers = std::thread::spawn(move || peers.iter_mut().all(|peer| peer.read_to_end().is_empty()));
    let report = engine.shutdown(Duration::from_secs(10));
    assert!(readers.join().unwrap());
    assert_eq!((report.connections_closed, report.connections_cut), (21, 0));
    assert_eq!(report.threads_failed, 0);
    assert!(report.lasted < Duration::from_secs(5), "{report:?}");
    let ended = log.try_iter().filter(|event| event.to_string().contains("the server shuts down")).count();
    assert!(ended > 0);
    drop(silent);
    wait_for("the threads to go", || threads_named("adit-") == 0);
    // The eventfds by which others wake shards.
    drop(engine);
    // glommio 0.9 keeps one eventfd of each executor that there has ever been, and one of its own.
    wait_for("the descriptors to go", || descriptors() <= descriptors_before + SHARDS + 1);
}
