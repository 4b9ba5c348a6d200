//! Random sequences: of honest parties against each other, and of hostile frames against each side.

use adit_codec::frame::FrameHeader;
use adit_codec::message::{
    CoinbaseOutputConstraints, NewTemplate, RequestTransactionData, SubmitSolution, TemplateSetNewPrevHash,
};
use adit_proto::distribution::Constraints;
use adit_proto::distribution::client::{Client, ClientEvent, ClientOutbox};
use adit_proto::distribution::server::{ClassId, Event, Limits, Server, ServerConfig, ServerOutbox};
use adit_proto::template::TemplateUpdate;
use proptest::prelude::*;

use crate::world::World;
use crate::{at, client_config, encode, new_template, new_tip, setup, split};

#[derive(Clone, Debug)]
enum Op {
    Join(Constraints),
    Lose(usize),
    Constrain(usize, Constraints),
    Fees,
    Future,
    Tip,
    Pass(u64),
    Request(usize),
    Solve(usize),
}

fn room() -> impl Strategy<Value = Constraints> {
    let sizes = prop::sample::select(vec![0, 200, 1_000, 5_000]);
    (sizes, 0u16..2).prop_map(|(max_additional_size, max_additional_sigops)| Constraints {
        max_additional_size,
        max_additional_sigops,
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => room().prop_map(Op::Join),
        1 => (0usize..6).prop_map(Op::Lose),
        3 => ((0usize..6), room()).prop_map(|(index, room)| Op::Constrain(index, room)),
        2 => Just(Op::Fees),
        3 => Just(Op::Future),
        2 => Just(Op::Tip),
        1 => (0u64..12).prop_map(Op::Pass),
        2 => (0usize..6).prop_map(Op::Request),
        2 => (0usize..6).prop_map(Op::Solve),
    ]
}

fn run(world: &mut World, op: &Op) {
    let peers = world.peers.len();
    match *op {
        Op::Join(room) => world.join(room),
        Op::Fees => world.new_fees(),
        Op::Future => world.new_future(),
        Op::Tip => world.new_tip(),
        Op::Pass(seconds) => world.pass(seconds),
        _ if peers == 0 => {}
        Op::Lose(index) => world.lose(index % peers),
        Op::Constrain(index, room) => world.constrain(index % peers, room),
        Op::Request(index) => world.request(index % peers),
        Op::Solve(index) => world.solve(index % peers),
    }
}

/// Any frame: of any bytes, or of a message with small numbers that may mean something.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |len| prop::collection::vec(any::<u8>(), 0..len);
    let types = prop_oneof![0u8..8, 0x6fu8..0x79, any::<u8>()];
    let raw = (prop::sample::select(vec![0u16, 0, 0, 1, 2]), any::<bool>(), types, bytes(80)).prop_map(
        |(extension_type, channel_msg, msg_type, payload)| {
            let payload_len = payload.len() as u32;
            let header = FrameHeader { extension_type, channel_msg, msg_type, payload_len };
            [&header.to_bytes()[..], &payload].concat()
        },
    );
    let constraints = (0u32..200_000, 0u16..3).prop_map(|(size, sigops)| {
        encode(&CoinbaseOutputConstraints {
            coinbase_output_max_additional_size: size,
            coinbase_output_max_additional_sigops: sigops,
        })
    });
    let request = (0u64..20).prop_map(|template_id| encode(&RequestTransactionData { template_id }));
    let solution = (0u64..20, bytes(20)).prop_map(|(template_id, coinbase_tx)| {
        let [version, header_timestamp, header_nonce] = [1, 2, 3];
        let coinbase_tx = &coinbase_tx;
        encode(&SubmitSolution { template_id, version, header_timestamp, header_nonce, coinbase_tx })
    });
    let template = (0u64..40, any::<bool>(), bytes(12), 0u32..3, bytes(12)).prop_map(
        |(template_id, future_template, prefix, count, outputs)| {
            encode(&NewTemplate {
                template_id,
                future_template,
                version: 1,
                coinbase_tx_version: 1,
                coinbase_prefix: &prefix,
                coinbase_tx_input_sequence: 1,
                coinbase_tx_value_remaining: 1,
                coinbase_tx_outputs_count: count,
                coinbase_tx_outputs: if count == 0 { &[] } else { &outputs },
                coinbase_tx_locktime: 1,
                merkle_path: [].as_slice().into(),
            })
        },
    );
    let tip = (0u64..40, 0u8..3).prop_map(|(template_id, target)| {
        let target = &[target; 32];
        let prev_hash = &[1; 32];
        encode(&TemplateSetNewPrevHash { template_id, prev_hash, header_timestamp: 1, n_bits: 1, target })
    });
    prop_oneof![1 => raw, 2 => constraints, 2 => request, 2 => solution, 4 => template, 4 => tip]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn everybody_has_the_newest_work(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in &ops {
            run(&mut world, op);
        }
        while !world.peers.is_empty() {
            world.lose(0);
        }
        world.pass(60);
        world.pass(10);
        assert!(world.held.is_empty(), "all templates are released");
    }

    #[test]
    fn a_server_stands_any_frames(frames in prop::collection::vec((0usize..3, hostile()), 1..120)) {
        let limits = Limits {
            classes_max: 2, future_templates_max: 1, templates_max: 6, requests_max: 2, ..Limits::default()
        };
        let mut server = Server::new(ServerConfig { first_template_id: 1, limits }).unwrap();
        let mut out = ServerOutbox::new();
        let connect = |server: &mut Server, out: &mut ServerOutbox| {
            let id = server.handle_connect(at(1)).unwrap();
            let frame = encode(&setup(2, (2, 2), 0));
            let (header, payload) = split(&frame);
            server.handle_frame(id, header, payload, at(1), out);
            id
        };
        let mut ids = [(); 3].map(|()| connect(&mut server, &mut out));
        let mut next = 1;
        let (mut submitted, mut reported) = (0, 0);
        for (index, frame) in frames {
            let (header, payload) = split(&frame);
            server.handle_frame(ids[index], header, payload, at(2), &mut out);
            let events: Vec<Event> = out.drain_events().collect();
            for event in events {
                match event {
                    Event::ClassWanted { class: ClassId(class), .. } => {
                        let class = ClassId(class);
                        // An error: the class may be gone again.
                        let _ = server.handle_template(class, &new_template(next, true), at(2), &mut out);
                        let _ = server.handle_template(class, &new_tip(next, 1), at(2), &mut out);
                        next += 1;
                    }
                    Event::Close { connection, .. } => {
                        server.handle_disconnect(connection, at(2), &mut out);
                        let index = ids.iter().position(|id| *id == connection).unwrap();
                        ids[index] = connect(&mut server, &mut out);
                    }
                    Event::Solution(_) => reported += 1,
                    _ => {}
                }
            }
            submitted = server.counters().solutions;
            assert!(server.classes().count() <= 2 && server.template_count() <= 6);
            assert_eq!(server.connection_count(), 3);
            out.clear_frames();
        }
        // What the last frame left is not taken yet.
        reported += out.drain_events().filter(|event| matches!(event, Event::Solution(_))).count() as u64;
        assert_eq!(reported, submitted);
    }

    #[test]
    fn a_client_reports_nothing_that_is_wrong(frames in prop::collection::vec(hostile(), 1..120)) {
        let mut client = Client::new(client_config(Constraints::default())).unwrap();
        let mut out = ClientOutbox::new();
        client.handle_connected(at(1), &mut out);
        let success = encode(&adit_codec::message::SetupConnectionSuccess { used_version: 2, flags: 0 });
        let (mut last, mut futures) = (None, Vec::new());
        for frame in core::iter::once(success).chain(frames) {
            let (header, payload) = split(&frame);
            out.clear_frames();
            if client.handle_frame(header, payload, at(1), &mut out).is_err() {
                assert!(out.is_empty(), "a fault changes nothing");
            }
            for event in out.drain_events() {
                match event {
                    ClientEvent::Template(TemplateUpdate::NewTemplate(template)) => {
                        assert!(Some(template.template_id) > last);
                        assert!(template.coinbase_prefix.len() <= 8);
                        last = Some(template.template_id);
                        if template.future_template {
                            futures.push(template.template_id);
                        }
                    }
                    ClientEvent::Template(TemplateUpdate::SetNewPrevHash(prev_hash)) => {
                        assert!(futures.contains(&prev_hash.template_id));
                        futures.clear();
                    }
                    _ => {}
                }
            }
        }
    }
}
