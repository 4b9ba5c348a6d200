//! What a tip does not wait for: the template provider's shard, driven by hand.

#![allow(clippy::unwrap_used, reason = "a test that fails shall panic")]

#[path = "common/detached.rs"]
mod detached;

use std::sync::Arc;

use adit_codec::frame::HEADER_LEN;
use adit_codec::message::{
    CoinbaseOutputConstraints, Message, Protocol, RequestTransactionData, SetupConnection,
};
use adit_codec::noise::{Sealer, SecureDeframer, sealed_len};
use adit_codec::{Encode, encode_frame, frame_len};
use adit_engine::EngineLimits;
use adit_engine::service::{Distribution, DistributionCommand, DistributionOutput, DistributionUpdate};
use adit_engine::shard::{Detached, Effect};
use adit_engine::transport::{Handler, SocketId};
use adit_proto::Instant;
use adit_proto::distribution::server::{ClassId, Limits, ServerConfig};
use adit_proto::template::{Template, TemplateUpdate};

use detached::{begin, identity, work};

/// A shard of a template provider; clients' sends are under way until [`World::complete`].
struct World {
    shard: Detached<Distribution>,
    clock: u64,
}

/// A client's end of a connection.
struct Client {
    socket: SocketId,
    sealer: Sealer,
    deframer: SecureDeframer,
    class: ClassId,
}

impl World {
    fn new() -> Self {
        let service = ServerConfig { first_template_id: 100, limits: Limits::default() };
        let limits = EngineLimits { send_buffer_bytes_max: 64 << 20, ..EngineLimits::default() };
        let service = Distribution::new(service).unwrap();
        Self { shard: Detached::new(service, limits, identity(), Instant::ZERO), clock: 0 }
    }

    fn next_tick(&mut self) {
        self.clock += 1_000_000_000;
        self.shard.core.begin_tick(Instant::from_nanos(self.clock));
    }

    /// A client of a class of its own, which has its tip already.
    fn join(&mut self, socket: u32, max_additional_size: u32, tip: u64) -> Client {
        let socket = SocketId(socket);
        let initiator = begin(&mut self.shard, socket, "192.0.2.1:1");
        self.next_tick();
        assert!(self.shard.core.poll_handshakes(1));
        let act2 = self.sent(socket).concat().try_into().unwrap();
        let session = initiator.finish(&act2, None, 1, 0).unwrap();
        let deframer = SecureDeframer::new(session.opener, 1 << 24);
        let mut client = Client { socket, sealer: session.sealer, deframer, class: ClassId(0) };
        let setup = SetupConnection {
            protocol: 2,
            min_version: 2,
            max_version: 2,
            flags: 0,
            endpoint_host: b"localhost",
            endpoint_port: 8442,
            vendor: b"vendor",
            hardware_version: b"",
            firmware: b"",
            device_id: b"",
        };
        self.receive(&mut client, &setup);
        self.receive(
            &mut client,
            &CoinbaseOutputConstraints {
                coinbase_output_max_additional_size: max_additional_size,
                coinbase_output_max_additional_sigops: 0,
            },
        );
        self.shard.core.flush();
        let DistributionOutput::ClassWanted { class, .. } = self.shard.outputs.try_recv().unwrap() else {
            panic!("a class is wanted");
        };
        client.class = class;
        self.give_tip(class, tip);
        self.shard.core.flush();
        while !self.complete(&mut client).is_empty() {}
        client
    }

    /// The shard receives a client's message.
    fn receive<M: Encode>(&mut self, client: &mut Client, message: &M) {
        let mut frame = vec![0; frame_len(message)];
        encode_frame(message, &mut frame).unwrap();
        let mut sealed = vec![0; sealed_len(frame.len() - HEADER_LEN)];
        client.sealer.seal_frame_into(&frame, &mut sealed).unwrap();
        self.shard.core.handle_received(client.socket, &mut sealed);
    }

    fn give(&mut self, class: ClassId, update: TemplateUpdate) {
        self.shard.core.handle_update(&DistributionUpdate { class, update });
    }

    fn give_tip(&mut self, class: ClassId, id: u64) {
        let (template, tip) = work(id);
        self.give(class, template);
        self.give(class, tip);
    }

    /// A template for the tip that there is, or for the next.
    fn give_template(&mut self, class: ClassId, template_id: u64, future_template: bool) {
        let (TemplateUpdate::NewTemplate(template), _) = work(template_id) else { unreachable!() };
        let template = Template { future_template, ..Template::clone(&template) };
        self.give(class, TemplateUpdate::NewTemplate(template.into()));
    }

    /// The sends that are to be made, and to whom.
    fn sends(&mut self) -> Vec<(SocketId, Vec<u8>)> {
        let mut sends = Vec::new();
        self.shard.core.take_effects(|effect| match effect {
            Effect::Send(socket, bytes) => sends.push((socket, bytes)),
            effect => panic!("unexpected {effect:?}"),
        });
        sends
    }

    /// The same for one socket alone, and done.
    fn sent(&mut self, socket: SocketId) -> Vec<Vec<u8>> {
        let sends = self.sends();
        sends
            .into_iter()
            .map(|(to, bytes)| {
                assert_eq!(to, socket);
                self.shard.core.handle_sent(socket, bytes.clone(), Ok(()));
                bytes
            })
            .collect()
    }

    /// A send's names of messages, each with the id of its template; whatever waited is sent then.
    fn complete(&mut self, client: &mut Client) -> Vec<(&'static str, u64)> {
        let sent = self.sent(client.socket);
        sent.into_iter().flat_map(|bytes| client.read(bytes)).collect()
    }
}

impl Client {
    fn read(&mut self, mut bytes: Vec<u8>) -> Vec<(&'static str, u64)> {
        let (mut input, mut read) = (&mut bytes[..], Vec::new());
        while let Some((header, payload)) = self.deframer.next_frame(&mut input).unwrap() {
            let message = Message::decode(header, payload, Protocol::TemplateDistribution).unwrap().message;
            let id = match &message {
                Message::NewTemplate(template) => template.template_id,
                Message::TemplateSetNewPrevHash(tip) => tip.template_id,
                Message::RequestTransactionDataSuccess(success) => success.template_id,
                _ => 0,
            };
            read.push((message.kind().name(), id));
        }
        read
    }
}

#[test]
fn a_tip_is_on_its_way_before_megabytes_for_another_are_sealed() {
    let mut world = World::new();
    let mut asking = world.join(0, 100, 1);
    let mut waiting = world.join(1, 50_000, 2);
    world.receive(&mut asking, &RequestTransactionData { template_id: 100 });
    world.shard.core.flush();
    let Ok(DistributionOutput::TransactionsRequested { connection, template_id }) =
        world.shard.outputs.try_recv()
    else {
        panic!("transactions are asked for");
    };

    // The answer first, so that nothing but the priority decides.
    world.next_tick();
    let transactions: Arc<[Arc<[u8]>]> = (0..16u8).map(|byte| vec![byte; 1_000_000].into()).collect();
    let answer = DistributionCommand::AnswerTransactions { connection, template_id, transactions };
    world.shard.core.handle_command(answer).unwrap();
    world.give_tip(waiting.class, 3);
    world.shard.core.flush_work();
    assert!(world.shard.core.has_effects());
    let backlog = world.shard.core.send_backlog();
    let sends = world.sends();
    let [(to, tip)] = &sends[..] else { panic!("{} sends", sends.len()) };
    assert_eq!((*to, backlog), (waiting.socket, tip.len()), "nothing else is sealed or waits");
    let told = waiting.read(tip.clone());
    assert_eq!(told, [("NewTemplate", 102), ("SetNewPrevHash", 102)]);
    assert!(!world.shard.core.work_waits());
    // What comes until the replies' turn is neither lost nor behind them, and a busy shard does not pause before it.
    world.give_tip(waiting.class, 4);
    world.shard.core.flush();
    assert!(world.shard.core.work_waits());
    let sends = world.sends();
    let [(to, answer)] = &sends[..] else { panic!("{} sends", sends.len()) };
    assert!(*to == asking.socket && answer.len() > 16_000_000);
    assert_eq!(asking.read(answer.clone()), [("RequestTransactionData.Success", 100)]);
    world.shard.core.handle_sent(waiting.socket, tip.clone(), Ok(()));
    assert_eq!(world.complete(&mut waiting), [("NewTemplate", 103), ("SetNewPrevHash", 103)]);
}

#[test]
fn templates_of_before_are_not_sent_to_who_still_waits_for_them() {
    let mut world = World::new();
    let mut client = world.join(0, 100, 1);
    let class = client.class;
    let flush = |world: &mut World| {
        world.next_tick();
        world.shard.core.flush();
    };
    // It is under way, and whoever is named later as well.
    world.give_template(class, 2, false);
    world.give_template(class, 3, true);
    flush(&mut world);
    let under_way = world.sends();
    for (id, is_future) in [(4, false), (5, true)] {
        world.give_template(class, id, is_future);
        flush(&mut world);
    }
    let (_, tip) = work(3);
    world.give(class, tip);
    flush(&mut world);
    world.give_template(class, 6, false);
    flush(&mut world);
    let waiting = world.shard.core.send_backlog();
    world.give_tip(class, 7);
    flush(&mut world);
    world.give_template(class, 8, false);
    flush(&mut world);
    assert!(world.shard.core.send_backlog() < waiting + 1_200, "what is void counts no more");
    assert!(world.sends().is_empty(), "a send is under way");

    let [(_, bytes)] = &under_way[..] else { panic!("one send") };
    assert_eq!(client.read(bytes.clone()), [("NewTemplate", 101), ("NewTemplate", 102)]);
    world.shard.core.handle_sent(client.socket, bytes.clone(), Ok(()));
    let told = world.complete(&mut client);
    assert_eq!(told, [("NewTemplate", 106), ("SetNewPrevHash", 106), ("NewTemplate", 107)]);
}

#[test]
fn a_tip_that_waits_takes_the_place_of_what_is_over_alone() {
    let mut world = World::new();
    let mut client = world.join(0, 100, 1);
    world.give_template(client.class, 2, true);
    world.shard.core.flush();
    let under_way = world.sends();
    world.give_template(client.class, 3, false);
    world.shard.core.flush();
    // It names what is under way.
    world.give(client.class, work(2).1);
    world.shard.core.flush();
    let [(_, bytes)] = &under_way[..] else { panic!("one send") };
    assert_eq!(client.read(bytes.clone()), [("NewTemplate", 101)]);
    world.shard.core.handle_sent(client.socket, bytes.clone(), Ok(()));
    assert_eq!(world.complete(&mut client), [("SetNewPrevHash", 101)]);
}
