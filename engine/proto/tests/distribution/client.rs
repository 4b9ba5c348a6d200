//! The client, by raw frames.

use adit_codec::Encode;
use adit_codec::message::{
    Message, MessageKind, NewTemplate, Reconnect, RequestTransactionDataError, RequestTransactionDataSuccess,
    SetupConnectionError, SetupConnectionSuccess, TemplateSetNewPrevHash,
};
use adit_hasher::{Digest, Target};
use adit_proto::distribution::client::{
    Client, ClientConfigError, ClientEvent, ClientFault, ClientLimits, ClientOutbox, Refusal,
};
use adit_proto::distribution::{Constraints, TemplateFault};
use adit_proto::mining::server::Solution;
use adit_proto::template::TemplateUpdate;
use adit_proto::{Instant, Priority};

use crate::{at, client_config, decode, encode, split, template};

const ROOM: Constraints = Constraints { max_additional_size: 100, max_additional_sigops: 4 };

struct Bench {
    client: Client,
    out: ClientOutbox,
    now: Instant,
}

impl Bench {
    fn new(limits: ClientLimits) -> Self {
        let mut config = client_config(ROOM);
        config.limits = limits;
        Self { client: Client::new(config).unwrap(), out: ClientOutbox::new(), now: at(1) }
    }

    fn feed<M: Encode>(&mut self, message: &M) -> Result<(), ClientFault> {
        let frame = encode(message);
        let (header, payload) = split(&frame);
        let was_empty = self.out.is_empty();
        let result = self.client.handle_frame(header, payload, self.now, &mut self.out);
        assert!(result.is_ok() || self.out.is_empty() == was_empty, "a fault changes nothing");
        result
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        let frames = self.out.frames().map(|(_, _, bytes)| bytes.to_vec()).collect();
        self.out.clear_frames();
        frames
    }

    fn events(&mut self) -> Vec<ClientEvent> {
        self.out.drain_events().collect()
    }

    fn set_up(limits: ClientLimits) -> Self {
        let mut bench = Self::new(limits);
        bench.client.handle_connected(bench.now, &mut bench.out);
        bench.out.clear_frames();
        bench.feed(&SetupConnectionSuccess { used_version: 2, flags: 0 }).unwrap();
        bench.out.clear_frames();
        bench.events();
        bench
    }

    fn template(&mut self, template_id: u64, future: bool) -> Result<(), ClientFault> {
        let outputs = template(template_id, future).coinbase_tx_outputs;
        self.feed(&message(template_id, future, &outputs))
    }

    fn tip(&mut self, template_id: u64) -> Result<(), ClientFault> {
        self.feed(&tip(template_id, &[9; 32]))
    }
}

fn message(template_id: u64, future_template: bool, outputs: &[u8]) -> NewTemplate<'_> {
    NewTemplate {
        template_id,
        future_template,
        version: 1,
        coinbase_tx_version: 2,
        coinbase_prefix: &[1, 9],
        coinbase_tx_input_sequence: 3,
        coinbase_tx_value_remaining: 4,
        coinbase_tx_outputs_count: 1,
        coinbase_tx_outputs: outputs,
        coinbase_tx_locktime: 5,
        merkle_path: [].as_slice().into(),
    }
}

fn tip<'a>(template_id: u64, target: &'a [u8; 32]) -> TemplateSetNewPrevHash<'a> {
    TemplateSetNewPrevHash { template_id, prev_hash: &[8; 32], header_timestamp: 6, n_bits: 7, target }
}

#[test]
fn setup_is_followed_by_constraints() {
    let mut bench = Bench::new(ClientLimits::default());
    assert_eq!(bench.template(1, true), Err(ClientFault::Unexpected(MessageKind::NewTemplate)));
    bench.client.handle_connected(at(1), &mut bench.out);
    let frames = bench.frames();
    let Message::SetupConnection(setup) = decode(&frames[0]) else { panic!("setup first") };
    assert_eq!((setup.protocol, setup.min_version, setup.max_version, setup.flags), (2, 2, 2, 0));
    bench.client.set_constraints(Constraints { max_additional_size: 5, ..ROOM }, &mut bench.out);
    assert!(bench.out.is_empty(), "not before the answer");
    let success = |used_version| SetupConnectionSuccess { used_version, flags: 0 };
    assert_eq!(bench.feed(&success(3)), Err(ClientFault::VersionNotOffered(3)));
    bench.feed(&success(2)).unwrap();
    assert!(matches!(bench.events()[..], [ClientEvent::SetUp { used_version: 2, flags: 0 }]));
    bench.client.set_constraints(Constraints { max_additional_size: 6, ..ROOM }, &mut bench.out);
    bench.client.set_constraints(Constraints { max_additional_size: 6, ..ROOM }, &mut bench.out);
    let frames = bench.frames();
    let sizes: Vec<u32> = frames
        .iter()
        .map(|frame| match decode(frame) {
            Message::CoinbaseOutputConstraints(message) => message.coinbase_output_max_additional_size,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [5, 6]);
    let success = success(2);
    assert_eq!(bench.feed(&success), Err(ClientFault::Unexpected(MessageKind::SetupConnectionSuccess)));
}

#[test]
fn a_refusal_is_told() {
    let mut bench = Bench::new(ClientLimits::default());
    bench.client.handle_connected(at(1), &mut bench.out);
    bench.out.clear_frames();
    bench.feed(&SetupConnectionError { flags: 1, error_code: b"unsupported-feature-flags" }).unwrap();
    let events = bench.events();
    let [ClientEvent::SetupRefused { flags: 1, error_code }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(error_code, "unsupported-feature-flags");
    assert!(!bench.client.is_ready());
}

#[test]
fn templates_and_tips_are_judged() {
    let mut bench = Bench::set_up(ClientLimits { future_templates_max: 2, ..ClientLimits::default() });
    assert_eq!(bench.template(5, false), Err(ClientFault::NoPrevHash { template_id: 5 }));
    assert_eq!(bench.tip(5), Err(ClientFault::UnknownFutureTemplate { template_id: 5 }));
    bench.template(5, true).unwrap();
    assert_eq!(bench.template(5, true), Err(ClientFault::NotRising { template_id: 5, last: 5 }));
    assert_eq!(bench.template(4, true), Err(ClientFault::NotRising { template_id: 4, last: 5 }));
    let fault = TemplateFault::OutputsMalformed;
    assert_eq!(bench.feed(&message(6, true, &[])), Err(ClientFault::Template { template_id: 6, fault }));
    bench.events();
    assert_eq!(bench.feed(&tip(5, &[0; 32])), Err(ClientFault::ZeroTarget));
    bench.tip(5).unwrap();
    let events = bench.events();
    let [ClientEvent::Template(TemplateUpdate::SetNewPrevHash(prev_hash))] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((prev_hash.template_id, prev_hash.prev_hash, prev_hash.nbits), (5, [8; 32], 7));
    assert_eq!((prev_hash.header_timestamp, prev_hash.target), (6, Target::from_le_bytes([9; 32])));
    bench.events();
    assert_eq!(bench.tip(5), Err(ClientFault::UnknownFutureTemplate { template_id: 5 }), "used up");
    bench.template(6, false).unwrap();
    (7..=9).for_each(|id| bench.template(id, true).unwrap());
    bench.events();
    assert_eq!(
        bench.tip(7),
        Err(ClientFault::UnknownFutureTemplate { template_id: 7 }),
        "the oldest made room"
    );
    bench.tip(8).unwrap();
    bench.events();
    assert_eq!(bench.tip(9), Err(ClientFault::UnknownFutureTemplate { template_id: 9 }), "for the same tip");
    assert_eq!((bench.client.counters().templates, bench.client.counters().prev_hashes), (5, 2));
    // A new connection may begin anew.
    bench.client.handle_connected(at(2), &mut bench.out);
    bench.feed(&SetupConnectionSuccess { used_version: 2, flags: 0 }).unwrap();
    bench.template(1, true).unwrap();
}

#[test]
fn requests_are_answered_refused_or_time_out() {
    let mut bench = Bench::set_up(ClientLimits { requests_max: 2, ..ClientLimits::default() });
    let request =
        |bench: &mut Bench, id| bench.client.request_transaction_data(id, bench.now, &mut bench.out);
    assert_eq!(request(&mut bench, 1), Err(Refusal::UnknownTemplate));
    for id in 1..=3 {
        bench.template(id, true).unwrap();
    }
    bench.events();
    request(&mut bench, 1).unwrap();
    assert_eq!(request(&mut bench, 1), Err(Refusal::AlreadyRequested));
    request(&mut bench, 2).unwrap();
    assert_eq!(request(&mut bench, 3), Err(Refusal::TooManyRequests));
    bench.frames();
    let transactions: [&[u8]; 2] = [b"one", b""];
    let answer = |template_id| RequestTransactionDataSuccess {
        template_id,
        excess_data: b"x",
        transaction_list: transactions[..].into(),
    };
    bench.feed(&answer(2)).unwrap();
    let events = bench.events();
    let [ClientEvent::Transactions { template_id: 2, excess_data, transactions }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((&excess_data[..], transactions), (&b"x"[..], &[&b"one"[..], b""].into_iter().collect()));
    let message = MessageKind::RequestTransactionDataSuccess;
    assert_eq!(bench.feed(&answer(2)), Err(ClientFault::UnknownRequest { message, template_id: 2 }));
    assert_eq!(bench.client.poll_timeout(), Some(at(31)));
    bench.client.handle_timeout(at(31), &mut bench.out).unwrap();
    assert!(matches!(bench.events()[..], [ClientEvent::TransactionsTimedOut { template_id: 1 }]));
    bench.feed(&answer(1)).unwrap();
    assert!(bench.out.is_empty(), "late, but no fault");
    request(&mut bench, 3).unwrap();
    bench.frames();
    bench.feed(&RequestTransactionDataError { template_id: 3, error_code: b"stale-template-id" }).unwrap();
    let events = bench.events();
    assert!(matches!(&events[..], [ClientEvent::TransactionsRefused { template_id: 3, error_code }]
        if error_code == "stale-template-id"));
    let message = MessageKind::RequestTransactionDataError;
    let again = RequestTransactionDataError { template_id: 3, error_code: b"" };
    assert_eq!(bench.feed(&again), Err(ClientFault::UnknownRequest { message, template_id: 3 }));
    request(&mut bench, 3).unwrap();
    bench.client.handle_connected(at(40), &mut bench.out);
    assert!(matches!(bench.events()[..], [ClientEvent::TransactionsTimedOut { template_id: 3 }]));
    assert_eq!(request(&mut bench, 3), Err(Refusal::NotReady));
}

#[test]
fn a_solution_is_sent_whole() {
    let mut solution = Solution {
        template_id: 77,
        header: core::array::from_fn(|index| index as u8),
        digest: Digest([0; 32]),
        target: Target::from_le_bytes([1; 32]),
        coinbase_tx: b"coinbase".to_vec(),
        merkle_path: vec![],
        user_identity: vec![],
        worker_identity: vec![],
    };
    let mut bench = Bench::new(ClientLimits::default());
    assert_eq!(bench.client.submit_solution(&solution, &mut bench.out), Err(Refusal::NotReady));
    bench = Bench::set_up(ClientLimits::default());
    bench.client.submit_solution(&solution, &mut bench.out).unwrap();
    assert!(bench.out.frames().all(|(_, priority, _)| priority == Priority::Work));
    let frames = bench.frames();
    let Message::SubmitSolution(sent) = decode(&frames[0]) else { panic!("a solution") };
    assert_eq!((sent.template_id, sent.coinbase_tx), (77, &b"coinbase"[..]));
    assert_eq!((sent.version, sent.header_timestamp), (0x0302_0100, 0x4746_4544));
    assert_eq!(sent.header_nonce, 0x4f4e_4d4c);
    solution.coinbase_tx = vec![0; 65_536];
    assert_eq!(bench.client.submit_solution(&solution, &mut bench.out), Err(Refusal::CoinbaseTooLong));
}

#[test]
fn time_and_other_messages() {
    let mut bench = Bench::new(ClientLimits::default());
    bench.client.handle_connected(at(1), &mut bench.out);
    assert_eq!(bench.client.poll_timeout(), Some(at(11)));
    let timeout = Err(ClientFault::Timeout(MessageKind::SetupConnection));
    assert_eq!(bench.client.handle_timeout(at(11), &mut bench.out), timeout);
    let tip_timeout = Some(core::time::Duration::from_secs(5));
    let mut bench = Bench::set_up(ClientLimits { tip_timeout, ..ClientLimits::default() });
    let timeout = Err(ClientFault::Timeout(MessageKind::CoinbaseOutputConstraints));
    assert_eq!(bench.client.handle_timeout(at(5), &mut bench.out), Ok(()));
    assert_eq!(bench.client.handle_timeout(at(6), &mut bench.out), timeout);
    bench.template(1, true).unwrap();
    bench.tip(1).unwrap();
    assert_eq!(bench.client.poll_timeout(), None);
    bench.events();
    bench.feed(&Reconnect { new_host: b"other", new_port: 0 }).unwrap();
    let events = bench.events();
    assert!(
        matches!(&events[..], [ClientEvent::Reconnect { host: Some(host), port: None }] if host == "other")
    );
    let odd = Reconnect { new_host: b"o\n", new_port: 0 };
    assert_eq!(bench.feed(&odd), Err(ClientFault::ReconnectHost));
    let submission = adit_codec::message::RequestTransactionData { template_id: 1 };
    assert_eq!(
        bench.feed(&submission),
        Err(ClientFault::Unexpected(MessageKind::RequestTransactionData)),
        "a client's message"
    );
    for frame in [&[0, 0, 0x1f, 0, 0, 0][..], &[0, 0, 0x71, 1, 0, 0, 3], &[0, 0, 0x7e, 0, 0, 0]] {
        let (header, payload) = split(frame);
        let result = bench.client.handle_frame(header, payload, at(7), &mut bench.out);
        assert!(matches!(result, Err(ClientFault::Malformed(_))));
    }
    let (header, payload) = split(&[0x34, 0x12, 0, 1, 0, 0, 9]);
    bench.client.handle_frame(header, payload, at(7), &mut bench.out).unwrap();
    assert_eq!(bench.client.counters().frames_ignored, 1);
}

#[test]
fn settings_are_checked() {
    let check = |change: fn(&mut adit_proto::distribution::client::ClientConfig)| {
        let mut config = client_config(ROOM);
        change(&mut config);
        Client::new(config).err()
    };
    assert_eq!(check(|_| {}), None);
    assert_eq!(check(|config| config.vendor.clear()), Some(ClientConfigError::NoVendor));
    let long = Some(ClientConfigError::TooLong { field: "firmware", len: 256 });
    assert_eq!(check(|config| config.firmware = vec![b'x'; 256]), long);
    let zero = Some(ClientConfigError::ZeroLimit { limit: "requests_max" });
    assert_eq!(check(|config| config.limits.requests_max = 0), zero);
}
