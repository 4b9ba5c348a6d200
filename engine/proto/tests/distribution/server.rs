//! The server, by raw frames.

use std::time::Duration;

use adit_codec::message::{
    CoinbaseOutputConstraints, Message, MessageKind, NewTemplate, RequestExtensions, RequestTransactionData,
    SetupConnectionSuccess, SubmitSolution,
};
use adit_proto::distribution::server::{
    ClassId, CloseReason, CommandError, ConnectionId, Event, Limits, Server, ServerConfig, ServerConfigError,
    ServerOutbox, Standing, TemplateError, TransactionsError,
};
use adit_proto::distribution::{Constraints, TemplateFault};
use adit_proto::{Instant, Priority};

use crate::{at, decode, encode, new_template, new_tip, setup, split, template};

struct Bench {
    server: Server,
    out: ServerOutbox,
    now: Instant,
}

fn bench(limits: Limits) -> Bench {
    let server = Server::new(ServerConfig { first_template_id: 1_000, limits }).unwrap();
    Bench { server, out: ServerOutbox::new(), now: at(1) }
}

impl Bench {
    fn connect(&mut self) -> ConnectionId {
        self.server.handle_connect(self.now).unwrap()
    }

    fn feed(&mut self, id: ConnectionId, frame: &[u8]) {
        let (header, payload) = split(frame);
        self.server.handle_frame(id, header, payload, self.now, &mut self.out);
    }

    fn frames(&mut self) -> Vec<(ConnectionId, Priority, Vec<u8>)> {
        let frames = self.out.frames().map(|(to, priority, bytes)| (to, priority, bytes.to_vec())).collect();
        self.out.clear_frames();
        frames
    }

    fn events(&mut self) -> Vec<Event> {
        self.out.drain_events().collect()
    }

    /// A connection that is set up; what waited is dropped.
    fn set_up(&mut self) -> ConnectionId {
        self.frames();
        self.events();
        let id = self.connect();
        self.feed(id, &encode(&setup(2, (2, 2), 0)));
        let frames = self.frames();
        assert_eq!(frames.len(), 1);
        let success = SetupConnectionSuccess { used_version: 2, flags: 0 };
        assert_eq!(decode(&frames[0].2), success.into());
        assert!(matches!(&self.events()[..], [Event::SetUp { vendor, .. }] if vendor == b"test"));
        id
    }

    fn constrain(&mut self, id: ConnectionId, size: u32, sigops: u16) {
        self.feed(id, &encode(&constraints(size, sigops)));
    }

    fn give(&mut self, class: u64, template_id: u64, future: bool) {
        let update = new_template(template_id, future);
        self.server.handle_template(ClassId(class), &update, self.now, &mut self.out).unwrap();
    }

    fn tip(&mut self, class: u64, template_id: u64, tip: u8) {
        let update = new_tip(template_id, tip);
        self.server.handle_template(ClassId(class), &update, self.now, &mut self.out).unwrap();
    }

    /// One connection in class 0 with tip and nothing waiting.
    fn member(limits: Limits) -> (Self, ConnectionId) {
        let mut bench = bench(limits);
        let id = bench.set_up();
        bench.constrain(id, 100, 4);
        bench.give(0, 1, true);
        bench.tip(0, 1, 1);
        bench.frames();
        bench.events();
        (bench, id)
    }

    fn closed(&mut self) -> Vec<CloseReason> {
        let reason = |event| if let Event::Close { reason, .. } = event { Some(reason) } else { None };
        self.events().into_iter().filter_map(reason).collect()
    }
}

fn constraints(size: u32, sigops: u16) -> CoinbaseOutputConstraints {
    CoinbaseOutputConstraints {
        coinbase_output_max_additional_size: size,
        coinbase_output_max_additional_sigops: sigops,
    }
}

/// What work frames say: (wire id, future, the driver's id) or the wire id that a tip names.
fn work(frames: &[(ConnectionId, Priority, Vec<u8>)]) -> Vec<(ConnectionId, String)> {
    let line = |(to, priority, frame): &(ConnectionId, Priority, Vec<u8>)| {
        assert_eq!(*priority, Priority::Work);
        let line = match decode(frame) {
            Message::NewTemplate(NewTemplate { template_id, future_template, version, .. }) => {
                format!("{} {template_id} = {version}", if future_template { "future" } else { "active" })
            }
            Message::TemplateSetNewPrevHash(message) => {
                format!("tip {} on {}", message.prev_hash[0], message.template_id)
            }
            other => panic!("not work: {other:?}"),
        };
        (*to, line)
    };
    frames.iter().map(line).collect()
}

fn lines(frames: &[(ConnectionId, Priority, Vec<u8>)]) -> Vec<String> {
    work(frames).into_iter().map(|(_, line)| line).collect()
}

#[test]
fn setup_is_negotiated() {
    let cases = [
        (setup(0, (2, 2), 1), 0, "unsupported-protocol"),
        (setup(9, (2, 2), 0), 0, "unsupported-protocol"),
        (setup(2, (3, 4), 6), 6, "protocol-version-mismatch"),
        (setup(2, (0, 1), 0), 0, "protocol-version-mismatch"),
        (setup(2, (2, 2), 5), 5, "unsupported-feature-flags"),
    ];
    for (message, flags, code) in cases {
        let mut bench = bench(Limits::default());
        let id = bench.connect();
        bench.feed(id, &encode(&message));
        let frames = bench.frames();
        let Message::SetupConnectionError(error) = decode(&frames[0].2) else { panic!("refused") };
        assert_eq!((error.flags, error.error_code), (flags, code.as_bytes()));
        assert_eq!(bench.closed(), [CloseReason::SetupRefused(code)]);
        bench.feed(id, &encode(&setup(2, (2, 2), 0)));
        assert!(bench.out.is_empty(), "nothing follows a close");
    }
}

#[test]
fn templates_come_after_constraints_and_in_order() {
    let mut bench = bench(Limits::default());
    let id = bench.set_up();
    bench.constrain(id, 300, 4);
    let constraints = Constraints { max_additional_size: 300, max_additional_sigops: 4 };
    let (class, reserve) = (ClassId(0), constraints.reserve());
    let joined = |connection| Event::Joined { connection, class, constraints };
    assert_eq!(bench.events(), [Event::ClassWanted { class, reserve }, joined(id)]);
    assert!(bench.frames().is_empty());
    bench.give(0, 7, true);
    bench.tip(0, 7, 1);
    bench.give(0, 8, false);
    bench.give(0, 9, true);
    let expected = ["future 1000 = 7", "tip 1 on 1000", "active 1001 = 8", "future 1002 = 9"];
    assert_eq!(lines(&bench.frames()), expected);
    // Who joins is told the same.
    let second = bench.set_up();
    bench.constrain(second, 300, 4);
    assert_eq!(lines(&bench.frames()), expected);
    assert_eq!(bench.events(), [joined(second)], "the class is there already");
    bench.tip(0, 9, 2);
    let third = bench.set_up();
    bench.constrain(third, 300, 4);
    assert_eq!(lines(&bench.frames()), ["future 1002 = 9", "tip 2 on 1002"]);
    assert_eq!(bench.server.counters().frames_encoded, 5, "once per class");
}

#[test]
fn a_class_that_the_node_refuses_ends_with_its_clients() {
    let mut bench = bench(Limits::default());
    let (a, b, other) = (bench.set_up(), bench.set_up(), bench.set_up());
    for id in [a, b] {
        bench.constrain(id, 50_000, 0);
    }
    bench.constrain(other, 100, 0);
    bench.events();
    let reserve = Constraints { max_additional_size: 50_000, max_additional_sigops: 0 }.reserve();
    bench.server.refuse_class(ClassId(0), bench.now, &mut bench.out);
    let reason = CloseReason::ReserveRefused(reserve);
    let closed = |connection| Event::Close { connection, reason };
    assert_eq!(bench.events(), [closed(a), closed(b), Event::ClassUnwanted { class: ClassId(0) }]);
    bench.server.refuse_class(ClassId(0), bench.now, &mut bench.out);
    assert!(bench.out.is_empty(), "it is gone");
    bench.give(1, 1, true);
    assert_eq!(lines(&bench.frames()), ["future 1000 = 1"], "the others go on");
}

#[test]
fn a_change_of_class_shows_rising_ids() {
    let mut bench = bench(Limits::default());
    let (a, b) = (bench.set_up(), bench.set_up());
    bench.constrain(a, 0, 0);
    bench.constrain(b, 1_000, 0);
    bench.events();
    bench.give(0, 1, true);
    bench.tip(0, 1, 1);
    bench.give(0, 2, true);
    bench.give(0, 3, false);
    bench.give(1, 4, true);
    bench.tip(1, 4, 1);
    bench.frames();
    bench.constrain(b, 100, 0);
    let constraints = Constraints { max_additional_size: 100, max_additional_sigops: 0 };
    let joined = Event::Joined { connection: b, class: ClassId(0), constraints };
    assert_eq!(bench.events(), [joined]);
    let frames = bench.frames();
    assert_eq!(
        lines(&frames),
        ["future 1004 = 1", "tip 1 on 1004", "future 1005 = 2", "active 1006 = 3"],
        "each under a fresh id"
    );
    bench.tip(0, 2, 2);
    bench.give(0, 5, false);
    assert_eq!(
        work(&bench.frames()),
        [
            (a, "tip 2 on 1001".into()),
            (b, "tip 2 on 1005".into()),
            (a, "active 1007 = 5".into()),
            (b, "active 1007 = 5".into())
        ]
    );
    // Both ids lead to the driver's template.
    for (id, wire_id) in [(a, 1001), (b, 1005)] {
        bench.feed(id, &encode(&RequestTransactionData { template_id: wire_id }));
        assert_eq!(bench.events(), [Event::TransactionsRequested { connection: id, template_id: 2 }]);
        bench.server.answer_transactions(id, 2, b"x", &[b"tx"], &mut bench.out).unwrap();
        let frames = bench.frames();
        assert_eq!((frames[0].0, frames[0].1), (id, Priority::Reply));
        let Message::RequestTransactionDataSuccess(answer) = decode(&frames[0].2) else { panic!("answer") };
        assert_eq!((answer.template_id, answer.excess_data), (wire_id, &b"x"[..]));
        assert_eq!(answer.transaction_list.iter().collect::<Vec<_>>(), [b"tx"]);
    }
}

fn members(bench: &Bench) -> Vec<(u64, usize)> {
    bench.server.classes().map(|(class, _, members)| (class.0, members)).collect()
}

#[test]
fn equal_reserves_share_a_class_and_too_many_share_the_covering_one() {
    let mut bench = bench(Limits { classes_max: 3, ..Limits::default() });
    let ids: Vec<_> = (0..7).map(|_| bench.set_up()).collect();
    bench.constrain(ids[0], 0, 0);
    bench.constrain(ids[1], 208, 0);
    bench.constrain(ids[2], 1_000, 10);
    bench.constrain(ids[3], 500, 10);
    assert_eq!(members(&bench), [(0, 2), (1, 2)], "the last place is not for one that covers little");
    bench.events();
    bench.constrain(ids[4], 500, 11);
    bench.constrain(ids[5], 90_000, 16_000);
    assert_eq!(members(&bench), [(0, 2), (1, 2), (2, 2)]);
    let limits = Limits::default();
    let most = Constraints {
        max_additional_size: limits.max_additional_size_max,
        max_additional_sigops: limits.max_additional_sigops_max,
    };
    assert_eq!(bench.events()[0], Event::ClassWanted { class: ClassId(2), reserve: most.reserve() });
    let last = bench.set_up();
    for (id, max_additional_size, max_additional_sigops) in [(ids[6], 100_001, 0), (last, 0, 16_001)] {
        bench.constrain(id, max_additional_size, max_additional_sigops);
        let asked = Constraints { max_additional_size, max_additional_sigops };
        assert_eq!(bench.closed(), [CloseReason::ConstraintsTooLarge(asked)]);
    }
    assert_eq!(members(&bench), [(0, 2), (1, 2), (2, 2)]);
}

#[test]
fn who_comes_back_soon_finds_its_templates() {
    let (mut bench, id) = Bench::member(Limits { classes_max: 2, ..Limits::default() });
    bench.server.handle_disconnect(id, bench.now, &mut bench.out);
    assert!(bench.out.is_empty(), "its class lingers");
    assert_eq!(bench.server.poll_timeout(), Some(at(61)));
    bench.now = at(60);
    bench.server.handle_timeout(bench.now, &mut bench.out);
    let again = bench.set_up();
    bench.constrain(again, 100, 4);
    assert_eq!(lines(&bench.frames()), ["future 1000 = 1", "tip 1 on 1000"], "under the id of before");
    bench.now = at(100);
    bench.server.handle_disconnect(again, bench.now, &mut bench.out);
    bench.events();
    bench.now = at(160);
    bench.server.handle_timeout(bench.now, &mut bench.out);
    assert_eq!(bench.events(), [Event::ClassUnwanted { class: ClassId(0) }]);
    bench.now = at(170);
    bench.server.handle_timeout(bench.now, &mut bench.out);
    assert_eq!(bench.events(), [Event::TemplateReleased { template_id: 1 }]);
}

#[test]
fn a_lingering_class_gives_up_its_place() {
    let (mut bench, id) = Bench::member(Limits { classes_max: 3, ..Limits::default() });
    let second = bench.set_up();
    bench.constrain(second, 1_000, 0);
    bench.server.handle_disconnect(second, bench.now, &mut bench.out);
    bench.now = at(2);
    bench.server.handle_disconnect(id, bench.now, &mut bench.out);
    let third = bench.set_up();
    bench.constrain(third, 2_000, 0);
    assert_eq!(members(&bench), [(0, 0), (2, 1)], "the one that has lingered longer is gone");
}

#[test]
fn classes_that_begin_are_bounded_in_a_minute() {
    let limits =
        Limits { classes_begun_max: 5, class_linger: core::time::Duration::ZERO, ..Limits::default() };
    let mut bench = bench(limits);
    let mut begun = Vec::new();
    for round in 0..50 {
        let id = bench.set_up();
        bench.constrain(id, 1_000 + round, 0);
        let wanted =
            |event| if let Event::ClassWanted { reserve, .. } = event { Some(reserve) } else { None };
        begun.extend(bench.events().into_iter().filter_map(wanted));
        if round > 5 {
            // One stays in the class that covers all.
            continue;
        }
        bench.server.handle_disconnect(id, bench.now, &mut bench.out);
        bench.events();
    }
    let covering = begun.iter().filter(|reserve| reserve.max_additional_sigops == 16_000).count();
    assert_eq!((begun.len() - covering, covering), (5, 2), "{begun:?}");
    bench.now = at(62);
    let id = bench.set_up();
    bench.constrain(id, 5_000, 0);
    assert_eq!(members(&bench).last().unwrap().1, 1, "a class of its own again");
}

#[test]
fn ids_that_were_given_out_stay() {
    let (mut bench, id) = Bench::member(Limits { errors_max: 1_000, ..Limits::default() });
    let honest = bench.set_up();
    bench.constrain(honest, 1_000, 0);
    bench.give(1, 2, true);
    bench.tip(1, 2, 1);
    bench.constrain(honest, 100, 4);
    let alias = |bench: &mut Bench| {
        let frames = bench.frames();
        let Message::NewTemplate(template) = decode(&frames[frames.len() - 2].2) else {
            panic!("a template")
        };
        template.template_id
    };
    let alias = alias(&mut bench);
    assert!(alias > 1_001, "the class's template under a fresh id");
    bench.events();
    // Another goes to and fro until there are no more ids.
    let mut closed = Vec::new();
    while closed.is_empty() {
        bench.constrain(id, 1_000, 0);
        bench.constrain(id, 100, 4);
        closed = bench.closed();
    }
    assert_eq!(closed, [CloseReason::TooManyIds]);
    let submit = SubmitSolution {
        template_id: alias,
        version: 2,
        header_timestamp: 3,
        header_nonce: 4,
        coinbase_tx: b"",
    };
    bench.feed(honest, &encode(&submit));
    let Some(Event::Solution(solution)) = bench.events().pop() else { panic!("a solution") };
    assert_eq!(solution.template.unwrap().template_id, 1);
}

#[test]
fn constraints_that_change_too_often_end_the_connection() {
    let (mut bench, id) = Bench::member(Limits { errors_max: 3, ..Limits::default() });
    for size in [1_000, 2_000, 3_000] {
        bench.constrain(id, size, 0);
        assert!(bench.closed().is_empty());
    }
    bench.now = at(70);
    bench.constrain(id, 4_000, 0);
    assert!(bench.closed().is_empty(), "a new window");
    (0..3).for_each(|_| bench.constrain(id, 4_000, 0));
    assert_eq!(bench.closed(), [CloseReason::TooManyErrors]);
    assert!(members(&bench).iter().all(|(_, members)| *members == 0));
}

#[test]
fn solutions_are_never_dropped() {
    let (mut bench, id) = Bench::member(Limits::default());
    let submit = |template_id| {
        encode(&SubmitSolution {
            template_id,
            version: 2,
            header_timestamp: 3,
            header_nonce: 4,
            coinbase_tx: b"coinbase",
        })
    };
    let solution = |bench: &mut Bench| match bench.events().pop() {
        Some(Event::Solution(solution)) => solution,
        other => panic!("{other:?}"),
    };
    bench.feed(id, &submit(1_000));
    let current = solution(&mut bench);
    let known = current.template.unwrap();
    assert_eq!((known.template_id, known.standing, known.class), (1, Standing::Current, ClassId(0)));
    assert_eq!((current.version, current.header_timestamp, current.header_nonce), (2, 3, 4));
    assert_eq!((current.connection, &current.coinbase_tx[..]), (id, &b"coinbase"[..]));
    bench.give(0, 2, true);
    bench.feed(id, &submit(1_001));
    assert_eq!(solution(&mut bench).template.unwrap().standing, Standing::Future);
    bench.tip(0, 2, 2);
    bench.feed(id, &submit(1_000));
    assert_eq!(solution(&mut bench).template.unwrap().standing, Standing::Stale);
    bench.now = at(11);
    bench.server.handle_timeout(bench.now, &mut bench.out);
    assert_eq!(bench.events(), [Event::TemplateReleased { template_id: 1 }]);
    bench.feed(id, &submit(1_000));
    let unknown = solution(&mut bench);
    assert_eq!((unknown.template, unknown.wire_template_id), (None, 1_000));
    // Who has just come back brings what was found in between.
    let again = bench.set_up();
    bench.feed(again, &submit(77));
    assert_eq!(solution(&mut bench).wire_template_id, 77);
    assert_eq!((bench.server.counters().solutions, bench.server.counters().solutions_unknown), (5, 2));
}

#[test]
fn requests_are_bounded_and_answered_once() {
    let (mut bench, id) = Bench::member(Limits { requests_max: 2, ..Limits::default() });
    let error = |bench: &mut Bench| {
        let frames = bench.frames();
        let Message::RequestTransactionDataError(error) = decode(&frames[0].2) else { panic!("an error") };
        (error.template_id, String::from_utf8(error.error_code.to_vec()).unwrap())
    };
    let request =
        |bench: &mut Bench, template_id| bench.feed(id, &encode(&RequestTransactionData { template_id }));
    request(&mut bench, 5);
    assert_eq!(error(&mut bench), (5, "template-id-not-found".into()));
    bench.give(0, 2, false);
    bench.give(0, 3, false);
    bench.frames();
    let asked = |template_id| [Event::TransactionsRequested { connection: id, template_id }];
    request(&mut bench, 1_001);
    assert_eq!(bench.events(), asked(2));
    request(&mut bench, 1_001);
    assert_eq!(error(&mut bench), (1_001, "too-many-requests".into()), "it is asked for already");
    request(&mut bench, 1_000);
    assert!(bench.events().is_empty(), "one after the other");
    request(&mut bench, 1_002);
    assert_eq!(error(&mut bench), (1_002, "too-many-requests".into()));
    bench.server.refuse_transactions(id, 2, TransactionsError::StaleTemplateId, &mut bench.out).unwrap();
    assert_eq!(bench.events(), asked(1));
    assert_eq!(error(&mut bench), (1_001, "stale-template-id".into()));
    let huge = vec![0; 9 << 20];
    let answer = bench.server.answer_transactions(id, 1, &[], &[&huge, &huge], &mut bench.out);
    assert_eq!(answer, Err(CommandError::TooLong));
    let answer = bench.server.answer_transactions(id, 1, &[0; 65_536], &[], &mut bench.out);
    assert_eq!(answer, Err(CommandError::TooLong));
    let due = bench.server.poll_timeout().unwrap();
    assert_eq!(due, at(31));
    bench.server.handle_timeout(due, &mut bench.out);
    assert_eq!(error(&mut bench), (1_000, "transaction-data-unavailable".into()));
    let answer = bench.server.answer_transactions(id, 1, &[], &[], &mut bench.out);
    assert_eq!(answer, Err(CommandError::UnknownRequest));
    bench.give(0, 4, true);
    bench.tip(0, 4, 2);
    bench.frames();
    request(&mut bench, 1_000);
    assert_eq!(error(&mut bench), (1_000, "stale-template-id".into()));
    assert_eq!(bench.server.poll_timeout(), Some(at(11)), "only the old template has a time");
}

#[test]
fn what_the_driver_gives_is_checked() {
    let (mut bench, _) = Bench::member(Limits::default());
    let mut give = |class, update| {
        let result = bench.server.handle_template(ClassId(class), &update, at(1), &mut bench.out);
        assert!(result.is_ok() || bench.out.is_empty(), "an error changes nothing");
        result
    };
    assert_eq!(give(9, new_template(2, true)), Err(TemplateError::UnknownClass(ClassId(9))));
    assert_eq!(give(9, new_tip(2, 1)), Err(TemplateError::UnknownClass(ClassId(9))));
    assert_eq!(give(0, new_template(1, true)), Err(TemplateError::NotRising(1)));
    assert_eq!(give(0, new_tip(1, 2)), Err(TemplateError::UnknownFuture(1)), "it is active already");
    let mut long = template(2, true);
    long.coinbase_prefix = vec![0; 9];
    let long = adit_proto::template::TemplateUpdate::NewTemplate(long.into());
    let fault = TemplateFault::CoinbasePrefixTooLong(9);
    assert_eq!(give(0, long), Err(TemplateError::Invalid(2, fault)));
    assert_eq!(give(0, new_template(2, true)), Ok(()));
    let other = bench.set_up();
    bench.constrain(other, 9_000, 0);
    let update = new_template(3, false);
    let result = bench.server.handle_template(ClassId(1), &update, at(1), &mut bench.out);
    assert_eq!(result, Err(TemplateError::NoTip(3)));
}

#[test]
fn templates_are_bounded_and_each_is_released_once() {
    let limits = Limits { classes_max: 1, future_templates_max: 2, templates_max: 4, ..Limits::default() };
    let (mut bench, id) = Bench::member(limits);
    (2..=9).for_each(|template_id| bench.give(0, template_id, true));
    (10..=20).for_each(|template_id| bench.give(0, template_id, false));
    assert_eq!(bench.server.template_count(), 4);
    bench.server.handle_disconnect(id, at(2), &mut bench.out);
    assert_eq!(bench.server.poll_timeout(), Some(at(62)));
    bench.server.handle_timeout(at(62), &mut bench.out);
    assert_eq!(bench.server.poll_timeout(), Some(at(72)));
    bench.server.handle_timeout(at(72), &mut bench.out);
    let released =
        |event| if let Event::TemplateReleased { template_id } = event { Some(template_id) } else { None };
    let mut released: Vec<u64> = bench.events().into_iter().filter_map(released).collect();
    released.sort_unstable();
    assert_eq!(released, (1..=20).collect::<Vec<_>>());
    assert_eq!((bench.server.template_count(), bench.server.connection_count()), (0, 0));
    assert_eq!(bench.server.poll_timeout(), None);
}

#[test]
fn slow_clients_are_closed_and_silent_ones_are_not() {
    let mut bench = bench(Limits { clients_max: 2, ..Limits::default() });
    let silent = bench.connect();
    let unconstrained = bench.set_up();
    assert_eq!(bench.server.handle_connect(at(1)), None, "full");
    bench.server.handle_timeout(at(10), &mut bench.out);
    assert!(bench.out.is_empty());
    assert_eq!(bench.server.poll_timeout(), Some(at(11)));
    bench.server.handle_timeout(at(11), &mut bench.out);
    assert_eq!(
        bench.events(),
        [
            Event::Close { connection: silent, reason: CloseReason::SetupTimeout },
            Event::Close { connection: unconstrained, reason: CloseReason::ConstraintsTimeout }
        ]
    );
    assert_eq!(bench.server.poll_timeout(), None);
    bench.server.handle_disconnect(silent, at(11), &mut bench.out);
    let next = bench.connect();
    assert_eq!(next.slot, silent.slot);
    assert_ne!(next, silent);
    bench.feed(silent, &encode(&setup(2, (2, 2), 0)));
    assert!(bench.out.is_empty(), "an old id reaches nobody");
    let (mut bench, id) = Bench::member(Limits::default());
    bench.server.handle_timeout(bench.now + Duration::from_secs(1_000_000), &mut bench.out);
    assert!(bench.out.is_empty(), "{id:?} has nothing to say");
}

#[test]
fn wrong_messages_are_faults_and_unknown_extensions_are_not() {
    let unexpected = |kind| [CloseReason::Unexpected(kind)];
    let mut bench = bench(Limits::default());
    let id = bench.connect();
    bench.constrain(id, 0, 0);
    assert_eq!(bench.closed(), unexpected(MessageKind::CoinbaseOutputConstraints));
    let id = bench.set_up();
    bench.feed(id, &encode(&RequestTransactionData { template_id: 1 }));
    assert_eq!(bench.closed(), unexpected(MessageKind::RequestTransactionData));
    let id = bench.set_up();
    bench.feed(id, &encode(&setup(2, (2, 2), 0)));
    assert_eq!(bench.closed(), unexpected(MessageKind::SetupConnection));
    let id = bench.set_up();
    bench.feed(id, &encode(&SetupConnectionSuccess { used_version: 2, flags: 0 }));
    assert_eq!(bench.closed(), unexpected(MessageKind::SetupConnectionSuccess));
    // Cut off, another protocol's, an unknown number.
    for frame in [&[0, 0, 0x70, 1, 0, 0, 9][..], &[0, 0, 0x1a, 0, 0, 0], &[0, 0, 0x7f, 0, 0, 0]] {
        let id = bench.set_up();
        bench.feed(id, frame);
        assert!(matches!(bench.closed()[..], [CloseReason::Malformed(_)]));
    }
    let id = bench.set_up();
    bench.feed(id, &[0x34, 0x12, 0, 2, 0, 0, 1, 2]);
    assert!(bench.out.is_empty());
    assert_eq!(bench.server.counters().frames_discarded, 1);
    for (requested, supported) in [(&[][..], true), (&[1], true), (&[2, 2, 1], true), (&[2, 3], false)] {
        bench.feed(id, &encode(&RequestExtensions { request_id: 5, requested_extensions: requested.into() }));
        let frames = bench.frames();
        match decode(&frames[0].2) {
            Message::RequestExtensionsSuccess(answer) => assert!(supported && answer.request_id == 5),
            Message::RequestExtensionsError(answer) => {
                assert!(!supported);
                assert_eq!(answer.unsupported_extensions.iter().collect::<Vec<_>>(), requested);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn settings_are_checked() {
    let check = |first_template_id, limits| Server::new(ServerConfig { first_template_id, limits }).err();
    let limits = Limits::default();
    assert_eq!(check(0, limits), None);
    let id = u64::MAX;
    assert_eq!(check(id, limits), Some(ServerConfigError::FirstTemplateId(id)));
    let zero = Limits { clients_max: 0, ..limits };
    assert_eq!(check(0, zero), Some(ServerConfigError::LimitTooLow { limit: "clients_max", min: 1 }));
    let few = Limits { templates_max: 287, ..limits };
    assert_eq!(check(0, few), Some(ServerConfigError::TemplatesMax { min: 288 }));
}
