//! Limits on connections, identities, and how an engine starts and fails to start.

mod common;

use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use adit_engine::service::{Command, Done};
use adit_engine::{EndKind, Engine, EngineLimits, LogEvent, RefuseReason, StartError};
use adit_proto::mining::server::{ChannelId, CommandError, ConnectionId};

use common::*;

#[test]
fn connections_per_address_are_limited() {
    let mut config = config(2);
    config.limits.connections_per_address_max = 10;
    let engine = start(config);
    give_work(&engine, 1, false);
    let mut peers: Vec<_> = (0..10).map(|_| Peer::set_up(&engine)).collect();
    let mut refused = connect_bare(engine.local_addr());
    assert_eq!(refused.read(&mut [0; 8]).unwrap_or(0), 0);
    assert_eq!(engine.counters().refused(RefuseReason::AddressFull), 1);
    let line = wait_for_line(&engine, "the refusal", |event| {
        matches!(event, LogEvent::ConnectionsRefused { reason: RefuseReason::AddressFull, .. })
    });
    assert!(line.to_string().contains("connections_per_address_max"), "{line}");
    // A place that becomes free is given away again, and those that are there were not disturbed.
    peers.pop();
    wait_for_counters(&engine, "a free place", |counters| counters.total.connections() == 9);
    peers.push(Peer::set_up(&engine));
    for peer in &mut peers {
        let mut channel = peer.open(false);
        peer.mine(&mut channel, 2, 1);
    }
}

#[test]
fn connections_in_all_are_limited() {
    let mut config = config(2);
    config.limits.connections_max = 10;
    let engine = start(config);
    let mut peers: Vec<_> = (0..10).map(|_| Peer::set_up(&engine)).collect();
    for _ in 0..5 {
        let mut refused = connect_bare(engine.local_addr());
        assert_eq!(refused.read(&mut [0; 8]).unwrap_or(0), 0);
    }
    assert_eq!(engine.counters().refused(RefuseReason::Full), 5);
    assert_eq!(engine.counters().total.connections(), 10);
    peers.truncate(5);
    wait_for_counters(&engine, "free places", |counters| counters.total.connections() == 5);
    peers.extend((0..5).map(|_| Peer::set_up(&engine)));
    assert_eq!(engine.counters().total.connections(), 10);
}

#[test]
fn many_connecting_at_once_are_all_served() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let address = engine.local_addr();
    let begun = Instant::now();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                let streams: Vec<_> = (0..250).map(|_| connect_bare(address)).collect();
                let authority = authority().public_key();
                streams
                    .into_iter()
                    .map(|stream| Peer::handshake(stream, Some(&authority)).unwrap())
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let peers: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(peers.len(), 2000);
    assert_eq!(engine.counters().total.handshakes, 2000);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn the_rate_of_handshakes_is_limited() {
    let mut config = config(1);
    config.limits.handshakes_per_second_max = 40;
    let engine = start(config);
    let begun = Instant::now();
    let peers: Vec<_> = (0..20).map(|_| connect_bare(engine.local_addr())).collect();
    let threads: Vec<_> = peers
        .into_iter()
        .map(|stream| std::thread::spawn(move || Peer::handshake(stream, None).unwrap()))
        .collect();
    let served: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(served.len(), 20, "they wait, and none is dropped");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[test]
fn an_identity_is_renewed_without_a_pause() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let mut old = Peer::set_up(&engine);
    let mut channel = old.open(false);
    engine.set_identity(identity(-5, 7_200));
    let mut new = Peer::set_up(&engine);
    let mut its_channel = new.open(false);
    old.mine(&mut channel, 10, 5);
    new.mine(&mut its_channel, 10, 5);
}

#[test]
fn an_expired_certificate_is_never_shown() {
    let engine = start(config(1));
    let mut early = Peer::set_up(&engine);
    for bad in [identity(-100, -1), identity(1_000, 2_000)] {
        engine.set_identity(bad);
        for _ in 0..3 {
            assert!(Peer::try_connect(engine.local_addr()).is_err());
        }
    }
    // Said once per identity, however many come.
    let said = engine
        .log()
        .try_iter()
        .filter(|event| matches!(event, LogEvent::CertificateNotValid { .. }))
        .inspect(|event| assert!(event.to_string().contains("nobody can connect"), "{event}"))
        .count();
    assert_eq!(said, 2);
    assert_eq!(engine.counters().total.ended(EndKind::NoValidCertificate), 6);
    engine.set_identity(identity(-5, 1_000));
    Peer::set_up(&engine);
    give_work(&engine, 1, false);
    early.open(false);
}

#[test]
fn commands_reach_their_connection() {
    let engine = start(config(2));
    give_work(&engine, 1, false);
    let mut peer = Peer::set_up(&engine);
    let LogEvent::ConnectionOpened { shard, connection, .. } =
        wait_for_line(&engine, "the connection", |event| matches!(event, LogEvent::ConnectionOpened { .. }))
    else {
        unreachable!()
    };
    let channel = ChannelId(peer.open(true).id);
    let group = engine.command(shard, Command::SetGroupChannel(connection, vec![channel])).unwrap().unwrap();
    assert!(matches!(group, Done::Group(_)));
    assert_eq!(peer.receive().unwrap().name(), "SetGroupChannel");
    let reason = "maintenance".to_owned();
    assert_eq!(
        engine.command(shard, Command::CloseChannel(connection, channel, reason)),
        Some(Ok(Done::Yes))
    );
    assert_eq!(peer.receive().unwrap().name(), "CloseChannel");
    assert_eq!(engine.command(shard, Command::CloseConnection(connection)), Some(Ok(Done::Yes)));
    assert!(peer.read_to_end().is_empty());
    wait_for_counters(&engine, "the close", |counters| counters.total.ended(EndKind::Operator) == 1);
    wait_for_counters(&engine, "the socket's end", |counters| counters.total.connections() == 0);
    let nobody = ConnectionId { slot: 999, generation: 0 };
    assert_eq!(
        engine.command(0, Command::CloseConnection(nobody)),
        Some(Err(CommandError::UnknownConnection))
    );
    assert_eq!(engine.command(9, Command::CloseConnection(nobody)), None);
}

#[test]
fn errors_at_start_say_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(1);
    config.listen = taken.local_addr().unwrap();
    let error = Engine::start(config.clone(), identity(-1, 100)).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }));
    assert!(error.to_string().contains("another program has the port"), "{error}");
    config.listen = "203.0.113.1:0".parse().unwrap();
    let error = Engine::start(config.clone(), identity(-1, 100)).unwrap_err();
    assert!(error.to_string().contains("no interface of this machine"), "{error}");
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.cpus = Vec::new();
    let error = Engine::start(config.clone(), identity(-1, 100)).unwrap_err();
    assert!(error.to_string().contains("name at least one"), "{error}");
    config.cpus = vec![0; 257];
    assert!(matches!(
        Engine::start(config.clone(), identity(-1, 100)).unwrap_err(),
        StartError::Shards { found: 257, max: 256 }
    ));
    config.cpus = vec![0];
    config.limits = EngineLimits { connections_max: u32::MAX / 2, ..EngineLimits::default() };
    let error = Engine::start(config, identity(-1, 100)).unwrap_err();
    assert!(error.to_string().contains("lower connections_max"), "{error}");
}

#[test]
fn a_cpu_that_does_not_exist_leaves_a_shard_unpinned() {
    let mut config = config(1);
    config.cpus = vec![4_000];
    let engine = start(config);
    Peer::set_up(&engine);
}
