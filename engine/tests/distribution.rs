//! The Template Distribution Protocol over TCP and Noise: a service like the Mining Protocol, on the same shard.

#![allow(clippy::unwrap_used, reason = "a test that fails shall panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use adit_codec::Encode;
use adit_codec::message::{
    CoinbaseOutputConstraints, Message, Protocol, RequestTransactionData, SetupConnection, SubmitSolution,
};
use adit_codec::noise::Aead;
use adit_engine::service::{Distribution, DistributionCommand, DistributionOutput, DistributionUpdate};
use adit_engine::{EndKind, Engine, EngineConfig, EngineHandle, EngineLimits, LogEvent, StartError};
use adit_proto::distribution::server::{ClassId, CommandError, Limits, ServerConfig, TransactionsError};
use adit_proto::template::TemplateUpdate;

use common::*;

const FIRST_TEMPLATE_ID: u64 = 1_000;

fn distribution_config(limits: Limits) -> EngineConfig<ServerConfig> {
    EngineConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        cpus: vec![0],
        aead: Aead::detect(),
        service: ServerConfig { first_template_id: FIRST_TEMPLATE_ID, limits },
        limits: EngineLimits {
            connections_max: 100,
            send_buffer_bytes_max: 6 << 20,
            frame_payload_len_max: 72 << 10,
            ..EngineLimits::default()
        },
    }
}

fn start_distribution(limits: Limits) -> EngineHandle<Distribution> {
    Engine::start(distribution_config(limits), identity(-10, 3_600)).unwrap_or_else(|error| panic!("{error}"))
}

/// A client that has its templates' class.
struct Client {
    peer: Peer,
}

impl Client {
    fn set_up(engine: &EngineHandle<Distribution>) -> Self {
        let mut client = Self { peer: Peer::try_connect(engine.local_addr()).unwrap() };
        client.peer.send(&SetupConnection { protocol: 2, ..setup() });
        client.receive(|message| assert!(matches!(message, Message::SetupConnectionSuccess(_))));
        client
    }

    /// Set up, with room for so many bytes of outputs.
    fn join(engine: &EngineHandle<Distribution>, max_additional_size: u32) -> Self {
        let mut client = Self::set_up(engine);
        client.peer.send(&CoinbaseOutputConstraints {
            coinbase_output_max_additional_size: max_additional_size,
            coinbase_output_max_additional_sigops: 4,
        });
        client
    }

    fn receive<T>(&mut self, take: impl FnOnce(Message<'_>) -> T) -> T {
        let frame = self.peer.receive().unwrap();
        take(Message::decode(frame.header, &frame.payload, Protocol::TemplateDistribution).unwrap().message)
    }

    /// The ids of a NewTemplate and of the SetNewPrevHash behind it.
    fn receive_tip(&mut self) -> (u64, u64) {
        let template = self.receive(|message| match message {
            Message::NewTemplate(template) => {
                assert!(template.future_template && template.merkle_path.len() == 12);
                template.template_id
            }
            other => panic!("unexpected {}", other.kind()),
        });
        let named = self.receive(|message| match message {
            Message::TemplateSetNewPrevHash(tip) => tip.template_id,
            other => panic!("unexpected {}", other.kind()),
        });
        (template, named)
    }

    fn send<M: Encode>(&mut self, message: &M) {
        self.peer.send(message);
    }
}

fn output(engine: &EngineHandle<Distribution>) -> DistributionOutput {
    engine.outputs().recv_timeout(PATIENCE).unwrap()
}

fn wanted(engine: &EngineHandle<Distribution>) -> ClassId {
    match output(engine) {
        DistributionOutput::ClassWanted { class, .. } => class,
        other => panic!("unexpected {other:?}"),
    }
}

fn give(engine: &EngineHandle<Distribution>, class: ClassId, update: TemplateUpdate) {
    engine.send_update(DistributionUpdate { class, update });
}

fn give_tip(engine: &EngineHandle<Distribution>, class: ClassId, id: u64) {
    give(engine, class, template(id, true));
    give(engine, class, tip(id, false));
}

#[test]
fn templates_reach_their_class_and_solutions_the_role() {
    let engine = start_distribution(Limits { class_linger: Duration::from_millis(1), ..Limits::default() });
    let (mut small, mut large) = (Client::join(&engine, 100), Client::set_up(&engine));
    let class = wanted(&engine);
    give_tip(&engine, class, 7);
    assert_eq!(small.receive_tip(), (FIRST_TEMPLATE_ID, FIRST_TEMPLATE_ID));

    large.send(&CoinbaseOutputConstraints {
        coinbase_output_max_additional_size: 50_000,
        coinbase_output_max_additional_sigops: 4,
    });
    let other = wanted(&engine);
    give_tip(&engine, other, 8);
    assert_eq!(large.receive_tip(), (FIRST_TEMPLATE_ID + 1, FIRST_TEMPLATE_ID + 1));
    give_tip(&engine, class, 9);
    assert_eq!(small.receive_tip(), (FIRST_TEMPLATE_ID + 2, FIRST_TEMPLATE_ID + 2));

    // The longest coinbase that a message can carry.
    let coinbase_tx = vec![0x42; 65_535];
    let solution = |template_id| SubmitSolution {
        template_id,
        version: 1,
        header_timestamp: 2,
        header_nonce: 3,
        coinbase_tx: &coinbase_tx,
    };
    large.send(&solution(FIRST_TEMPLATE_ID + 1));
    large.send(&solution(77));
    for expected in [Some(8), None] {
        let DistributionOutput::Solution { solution, peer } = output(&engine) else { panic!("no solution") };
        assert_eq!(solution.template.map(|known| known.template_id), expected);
        assert_eq!(solution.coinbase_tx, coinbase_tx);
        assert_eq!(peer, Some(large.peer.stream.local_addr().unwrap()));
    }
    let counters = engine.counters().total;
    assert_eq!((counters.solutions, counters.solutions_unknown), (2, 1));
    assert_eq!((counters.templates_sent, counters.prev_hashes_sent), (3, 3));
    // Three tips, each for the only client of its class; who joins later gets the tip too, and that is no latency of it.
    Client::join(&engine, 100).receive_tip();
    wait_for("the latencies", || engine.tip_latencies().sent.count > 0);
    let latencies = engine.tip_latencies();
    assert_eq!((latencies.taken.count, latencies.sent.count), (3, 3));
    assert!(latencies.taken.max <= latencies.sent.max && latencies.sent.max < PATIENCE, "{latencies:?}");

    drop(large);
    assert_eq!(output(&engine), DistributionOutput::ClassUnwanted { class: other });
    // It was on its way when the class ended: nobody has it, so it is released.
    give(&engine, other, template(10, true));
    assert_eq!(output(&engine), DistributionOutput::TemplateReleased { template_id: 10 });
    let log: Vec<String> = engine.log().try_iter().map(|event| event.to_string()).collect();
    assert!(log.iter().any(|line| line.contains("for 50000 bytes of outputs and 4 sigops")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("refused")), "{log:#?}");
}

#[test]
fn transactions_of_megabytes_are_answered() {
    let engine = start_distribution(Limits::default());
    let mut client = Client::join(&engine, 100);
    let class = wanted(&engine);
    give_tip(&engine, class, 1);
    let (id, _) = client.receive_tip();
    let transactions: Arc<[Arc<[u8]>]> = (0..4u8).map(|byte| Arc::from(vec![byte; 999_000])).collect();
    client.send(&RequestTransactionData { template_id: id });
    let DistributionOutput::TransactionsRequested { connection, template_id: 1 } = output(&engine) else {
        panic!("no request");
    };
    let answer = |transactions: Arc<[Arc<[u8]>]>| DistributionCommand::AnswerTransactions {
        connection,
        template_id: 1,
        transactions,
    };
    assert_eq!(engine.command(0, answer(Arc::clone(&transactions))), Some(Ok(())));
    client.receive(|message| match message {
        Message::RequestTransactionDataSuccess(success) => {
            assert_eq!(success.template_id, id);
            let received: Vec<&[u8]> = success.transaction_list.iter().collect();
            assert!(received.iter().zip(transactions.iter()).all(|(received, sent)| *received == &**sent));
            assert_eq!(received.len(), transactions.len());
        }
        other => panic!("unexpected {}", other.kind()),
    });
    assert_eq!(engine.command(0, answer(Arc::clone(&transactions))), Some(Err(CommandError::UnknownRequest)));

    // More than a frame can carry.
    client.send(&RequestTransactionData { template_id: id });
    output(&engine);
    let too_many: Arc<[Arc<[u8]>]> = (0..17).map(|_| Arc::clone(&transactions[0])).collect();
    assert_eq!(engine.command(0, answer(too_many)), Some(Err(CommandError::TooLong)));
    client.receive(|message| match message {
        Message::RequestTransactionDataError(error) => {
            assert_eq!(error.error_code, TransactionsError::Unavailable.code().as_bytes());
        }
        other => panic!("unexpected {}", other.kind()),
    });
}

#[test]
fn who_asks_for_megabytes_and_does_not_read_is_dropped() {
    let engine = start_distribution(Limits::default());
    let (mut slow, mut good) = (Client::join(&engine, 100), Client::join(&engine, 100));
    let class = wanted(&engine);
    give_tip(&engine, class, 1);
    let (id, _) = slow.receive_tip();
    good.receive_tip();
    let transactions: Arc<[Arc<[u8]>]> = (0..4u8).map(|byte| Arc::from(vec![byte; 999_000])).collect();
    let mut asked = 0;
    while slow.peer.try_send(&RequestTransactionData { template_id: id }).is_ok() && asked < 100 {
        asked += 1;
        match engine.outputs().recv_timeout(Duration::from_millis(500)) {
            Ok(DistributionOutput::TransactionsRequested { connection, template_id }) => {
                let transactions = Arc::clone(&transactions);
                let answer =
                    DistributionCommand::AnswerTransactions { connection, template_id, transactions };
                engine.command(0, answer).unwrap().unwrap();
            }
            _ => break,
        }
    }
    assert!((2..20).contains(&asked), "{asked} answers of 4 MB each");
    let deadline = std::time::Instant::now() + PATIENCE;
    let line = engine.log().iter().find(|event| {
        assert!(std::time::Instant::now() < deadline);
        matches!(event, LogEvent::ConnectionClosed { reason, .. } if reason.kind() == EndKind::SlowReader)
    });
    assert!(line.unwrap().to_string().contains("does not read"));
    give_tip(&engine, class, 2);
    good.receive_tip();
}

#[test]
fn clients_are_bounded_and_told_from_miners() {
    let engine = start_distribution(Limits { clients_max: 2, ..Limits::default() });
    let good = (Client::set_up(&engine), Client::set_up(&engine));
    assert!(Peer::try_connect(engine.local_addr()).is_err());
    wait_for("the refusal", || engine.counters().total.ended(EndKind::ClientsMax) == 1);
    drop(good.1);
    wait_for("the place", || engine.counters().total.connections() == 1);
    // A miner in the wrong place.
    let mut miner = Peer::try_connect(engine.local_addr()).unwrap();
    miner.send(&setup());
    assert_eq!(miner.read_to_end(), ["SetupConnection.Error"]);
    wait_for("the end", || engine.counters().total.ended(EndKind::SetupRefused) == 1);
}

#[test]
fn limits_that_do_not_work_are_said_at_start() {
    let refused = Engine::start(
        distribution_config(Limits { classes_max: 0, ..Limits::default() }),
        identity(-10, 3_600),
    );
    let error = refused.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Distribution(_)));
    assert!(error.to_string().contains("classes_max: must be at least 1"), "{error}");
    let config = EngineConfig { cpus: vec![0, 1], ..distribution_config(Limits::default()) };
    let error = Engine::start(config, identity(-10, 3_600)).map(drop).unwrap_err();
    assert!(matches!(error, StartError::Shards { found: 2, max: 1 }));
}
