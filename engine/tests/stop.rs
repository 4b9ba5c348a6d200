//! What a stop does to those who are at work.

mod common;
#[path = "common/detached.rs"]
mod detached;

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_engine::service::Command;
use adit_engine::shard::Effect;
use adit_engine::transport::{Ended, Handler, SocketId};
use adit_engine::{EndKind, LogEvent};
use adit_hasher::Target;
use adit_proto::mining::server::ConnectionId;

use common::{PATIENCE, Peer, config, give_work, start, wait_for};
use detached::{World, work_for};

/// A tick in which the only client sends a share. What was to be done to its socket.
fn share_tick(world: &mut World) -> Vec<Effect> {
    let mut share = Vec::new();
    world.clients[0].share(&mut share);
    world.next_tick();
    world.shard.core.handle_received(SocketId(0), &mut share);
    world.tick();
    effects(world)
}

fn effects(world: &mut World) -> Vec<Effect> {
    let mut effects = Vec::new();
    world.shard.core.take_effects(|effect| effects.push(effect));
    effects
}

#[test]
fn shares_are_answered_until_the_peer_is_told_and_judged_until_it_closes() {
    let mut world = World::new(1);
    let (template, tip) = work_for(2, Target::MAX);
    world.shard.core.handle_update(&template);
    world.shard.core.handle_update(&tip);
    world.next_tick();
    world.tick();
    let work = world.take(SocketId(0));
    world.clients[0].receive(work);

    // Someone whose handshake waits has nothing to lose.
    let _initiator = world.begin(SocketId(1), "192.0.2.1:9");
    world.shard.core.begin_shutdown();
    assert_eq!(effects(&mut world), [Effect::Close(SocketId(1))]);

    let [Effect::Send(_, answer)] = &share_tick(&mut world)[..] else { panic!("one answer") };
    world.clients[0].receive(answer.clone());
    assert_eq!(world.clients[0].accepted, 1);
    assert!(world.shard.outputs.try_recv().is_ok());

    // That answer is still under way: the peer is told behind it.
    world.shard.core.hang_up();
    assert!(effects(&mut world).is_empty());
    world.shard.core.handle_sent(SocketId(0), answer.clone(), Ok(()));
    assert_eq!(effects(&mut world), [Effect::ShutdownWrite(SocketId(0))]);
    for _ in 0..3 {
        assert!(share_tick(&mut world).is_empty());
        assert!(world.shard.outputs.try_recv().is_ok(), "a block that was on its way");
    }
    // The last share comes together with the peer's close.
    let mut share = Vec::new();
    world.clients[0].share(&mut share);
    world.next_tick();
    world.shard.core.handle_received(SocketId(0), &mut share);
    world.shard.core.handle_ended(SocketId(0), Ended::Peer);
    world.tick();
    assert!(world.shard.outputs.try_recv().is_ok());
    assert_eq!(effects(&mut world), [Effect::Close(SocketId(0))]);
    let ends: Vec<_> = world
        .shard
        .log
        .try_iter()
        .filter_map(|event| match event {
            LogEvent::ConnectionClosed { reason, .. } => Some(reason.kind()),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [EndKind::Shutdown, EndKind::Shutdown], "each is said once");
}

#[test]
fn a_block_that_arrives_after_the_stop_was_requested_is_delivered() {
    let engine = start(config(1));
    give_work(&engine, 1, true);
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(false);
    let (address, solutions) = (engine.local_addr(), engine.outputs());
    let stop = std::thread::spawn(move || engine.shutdown(PATIENCE));
    wait_for("the end of accepting", || TcpStream::connect(address).is_err());
    for _ in 0..2 {
        let share = peer.share(&mut channel);
        peer.stream.write_all(&share).unwrap();
        solutions.recv_timeout(PATIENCE).expect("it is judged");
        // The second one comes after the peer was told, unless this machine is very slow.
        peer.read_to_end();
    }
    drop(peer);
    let report = stop.join().unwrap();
    // One that knocked above may have been let in.
    assert!((1..=2).contains(&report.connections_closed), "{report:?}");
    assert_eq!((report.connections_cut, report.threads_failed), (0, 0));
    assert!(report.lasted < PATIENCE, "it does not wait for those who have gone");
}

#[test]
fn tips_reach_who_is_served_at_a_stop_until_feeding_ends() {
    let engine = start(config(1));
    give_work(&engine, 1, false);
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(false);
    let (address, mut last, mut fed) = (engine.local_addr(), channel.job, 0);
    let report = engine.shutdown_after(PATIENCE, || {
        wait_for("the end of accepting", || TcpStream::connect(address).is_err());
        for id in 2..5 {
            give_work(&engine, id, false);
            let named = loop {
                let frame = peer.receive().expect("it was told of no end yet");
                peer.take(&frame, &mut channel);
                if frame.name() == "SetNewPrevHash" {
                    break channel.job;
                }
            };
            assert_ne!(std::mem::replace(&mut last, named), named);
            fed += 1;
        }
        // And who has heard of them is answered.
        peer.mine(&mut channel, 1, 1);
        drop(peer);
    });
    assert_eq!((fed, report.connections_cut, report.threads_failed), (3, 0, 0), "{report:?}");
}

#[test]
fn an_engine_ends_in_good_order_under_those_who_hold_it() {
    let engine = Arc::new(start(config(2)));
    give_work(&engine, 1, true);
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(false);
    let nobody = Command::CloseConnection(ConnectionId { slot: 999, generation: 0 });
    let (holder, has_ended) = (Arc::clone(&engine), Arc::new(AtomicBool::new(false)));
    let asking = {
        let (nobody, has_ended) = (nobody.clone(), Arc::clone(&has_ended));
        std::thread::spawn(move || {
            while !has_ended.load(Ordering::Acquire) {
                holder.command(0, nobody.clone());
            }
            holder
        })
    };
    peer.mine(&mut channel, 1, 1);
    drop(peer);
    let report = engine.shutdown(PATIENCE);
    assert_eq!((report.connections_cut, report.threads_failed), (0, 0), "{report:?}");
    has_ended.store(true, Ordering::Release);
    drop(engine);
    let holder = asking.join().unwrap();
    assert_eq!(holder.command(1, nobody), None);
    (0..100).for_each(|id| give_work(&holder, id, true));
    assert_eq!(holder.outputs().iter().count(), 1, "what was found is there, and the link has its end");
    let again = holder.shutdown(PATIENCE);
    assert!(
        again.lasted < PATIENCE / 2 && again.threads_failed == 0,
        "nothing is left to be ended: {again:?}"
    );
}

#[test]
fn blocks_that_nobody_took_are_said() {
    let engine = start(config(1));
    give_work(&engine, 1, true);
    let log = engine.log();
    let mut peer = Peer::set_up(&engine);
    let mut channel = peer.open(false);
    // As many as their link holds, and three.
    peer.mine(&mut channel, adit_engine::topology::OUTPUTS as u64 + 3, 50);
    drop(peer);
    engine.shutdown(Duration::from_millis(300));
    let line = log
        .try_iter()
        .find_map(|event| match &event {
            LogEvent::BlocksLost { count, blocks, .. } => Some((*count, blocks.clone(), event.to_string())),
            _ => None,
        })
        .expect("it is said");
    assert_eq!((line.0, line.1.len()), (3, 3));
    assert!(line.1.iter().all(|hash| hash.len() == 64 && line.2.contains(hash)), "{}", line.2);
}
