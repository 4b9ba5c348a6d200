//! Who takes much makes nobody else wait long.

#[path = "common/detached.rs"]
mod detached;

use adit_engine::service::Distribution;
use adit_engine::shard::{Detached, Effect};
use adit_engine::transport::SocketId;
use adit_engine::{EndKind, EngineLimits, LogEvent};
use adit_proto::Instant;
use adit_proto::distribution::server::{Limits, ServerConfig};

use detached::{World, begin, identity};

/// Milliseconds of virtual time until the second act is sent to `wanted`, and how many others had theirs before.
fn handshake_ms(world: &mut World, wanted: SocketId) -> (u64, usize) {
    let mut others = 0;
    for millis in 1..60_000 {
        world.shard.core.begin_tick(Instant::from_nanos(millis * 1_000_000));
        world.shard.core.poll_handshakes(16);
        let mut served = false;
        world.shard.core.take_effects(|effect| match effect {
            Effect::Send(socket, _) if socket == wanted => served = true,
            Effect::Send(..) => others += 1,
            _ => {}
        });
        if served {
            return (millis, others);
        }
    }
    panic!("no handshake within a minute");
}

#[test]
fn a_flood_of_handshakes_from_one_address_delays_no_other() {
    let limits = EngineLimits { handshakes_per_second_max: 100, ..EngineLimits::default() };
    let mut world = World::with_limits(0, limits);
    for index in 0..5_000 {
        // The ports of one host, and the addresses of one IPv6 subscriber.
        let peer =
            if index % 2 == 0 { format!("127.0.0.1:{index}") } else { format!("[2001:db8:1:2::{index}]:9") };
        world.begin(SocketId(index), &peer);
    }
    let honest = SocketId(5_000);
    let _initiator = world.begin(honest, "127.0.0.2:5000");
    let (millis, others) = handshake_ms(&mut world, honest);
    assert!(millis < 100 && others <= 6, "{millis} ms, after {others} others");
    // Those who wait are not forgotten, only later.
    let (millis, _) = handshake_ms(&mut world, SocketId(4_999));
    assert!(millis > 40_000, "{millis} ms");
}

#[test]
fn a_full_service_refuses_no_faster_than_it_would_admit() {
    const COMERS: u32 = 500;
    let config =
        ServerConfig { first_template_id: 1, limits: Limits { clients_max: 1, ..Limits::default() } };
    let limits = EngineLimits {
        handshakes_per_second_max: 100,
        log_lines_per_second_max: u32::MAX,
        ..EngineLimits::default()
    };
    let service = Distribution::new(config).expect("sound limits");
    let mut shard = Detached::new(service, limits, identity(), Instant::ZERO);
    for index in 0..COMERS {
        begin(&mut shard, SocketId(index), &format!("127.0.0.1:{}", index + 1));
    }
    // Three seconds, which begin with the twentieth of a second's that may be done in one go.
    let (mut admitted, mut refused) = (0, Vec::new());
    for second in 0..3 {
        for millis in 0..1_000 {
            shard.core.begin_tick(Instant::from_nanos((second * 1_000 + millis) * 1_000_000));
            while shard.core.poll_handshakes(16) {}
        }
        let mut closed = 0;
        shard.core.take_effects(|effect| match effect {
            Effect::Send(..) => admitted += 1,
            Effect::Close(_) => closed += 1,
            Effect::ShutdownWrite(_) => {}
        });
        refused.push(closed);
    }
    assert_eq!(admitted, 1);
    assert!(refused.iter().all(|closed| (95..=105).contains(closed)), "{refused:?}");
    let said = shard.log.try_iter().filter(|event| {
        matches!(event, LogEvent::ConnectionClosed { reason, .. } if reason.kind() == EndKind::ClientsMax)
    });
    assert_eq!(said.count(), refused.iter().sum::<usize>());
}
