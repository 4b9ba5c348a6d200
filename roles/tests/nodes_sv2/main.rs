//! The `sv2` template source against a template provider over TCP and Noise: one that behaves, and many that do not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod provider;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_codec::frame::HEADER_LEN;
use adit_codec::message::{
    Message, MessageKind, RequestTransactionDataError, RequestTransactionDataSuccess, SetupConnectionError,
    SetupConnectionSuccess,
};
use adit_hasher::{Digest, Target};
use adit_proto::distribution::Reserve;
use adit_proto::distribution::server::ClassId;
use adit_proto::mining::server::Solution;
use adit_proto::template::{PrevHash, Template, TemplateUpdate};
use adit_roles::nodes::sv2::{Sv2Config, Sv2Source};
use adit_roles::nodes::{SourceUpdate, Submission, TemplateSource};
use crossbeam::channel::Receiver;
use socket2::{Domain, Socket, Type};

use provider::{Connection, Identity, Provider, decode, encode};

/// Nothing here takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const POOL: ClassId = ClassId(3);
const RESERVE: Reserve = Reserve { reserved_weight: 2_168, max_additional_sigops: 7 };

/// A source that wants one class.
struct Pool {
    source: Box<Sv2Source>,
    updates: Receiver<SourceUpdate>,
}

impl Pool {
    fn of(provider: &Provider) -> Self {
        Self::at("127.0.0.1", provider.port(), provider)
    }

    fn at(host: &str, port: u16, provider: &Provider) -> Self {
        let authority = Some(provider.identity.authority.public_key());
        Self::with(Sv2Config { authority, ..Sv2Config::new(host, port) })
    }

    fn with(config: Sv2Config) -> Self {
        let source = Box::new(Sv2Source::start(config).unwrap());
        source.want(POOL, RESERVE);
        let updates = source.updates();
        Self { source, updates }
    }

    #[track_caller]
    fn next(&self) -> SourceUpdate {
        self.updates.recv_timeout(PATIENCE).expect("a report in time")
    }

    #[track_caller]
    fn down(&self) -> String {
        loop {
            match self.next() {
                SourceUpdate::Down { reason } => return reason,
                SourceUpdate::Up | SourceUpdate::Template { .. } | SourceUpdate::BlockConnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next tip and the template that it names.
    #[track_caller]
    fn tip(&self) -> (Arc<Template>, Arc<PrevHash>) {
        let mut templates: Vec<Arc<Template>> = Vec::new();
        loop {
            match self.next() {
                SourceUpdate::Template { class, update, .. } => {
                    assert_eq!(class, POOL);
                    match update {
                        TemplateUpdate::NewTemplate(template) => templates.push(template),
                        TemplateUpdate::SetNewPrevHash(tip) => {
                            let named = templates.iter().find(|it| it.template_id == tip.template_id);
                            return (named.expect("it came before").clone(), tip);
                        }
                    }
                }
                SourceUpdate::Down { reason } => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn solution(template: &Template, tip: &PrevHash) -> Arc<Solution> {
        let mut coinbase = vec![2, 0, 0, 0, 1];
        coinbase.extend([0; 32]);
        coinbase.extend([0xff; 4]);
        let script = [&template.coinbase_prefix[..], &[1, 9]].concat();
        coinbase.push(script.len() as u8);
        coinbase.extend(&script);
        coinbase.extend([0xff; 4]);
        coinbase.push(1);
        coinbase.extend(5_000_000_000_u64.to_le_bytes());
        coinbase.extend([1, 0x51, 0, 0, 0, 0]);
        let mut header = [0; 80];
        header[..4].copy_from_slice(&template.version.to_le_bytes());
        header[4..36].copy_from_slice(&tip.prev_hash);
        let root = adit_hasher::merkle_root_from_path(&Digest::of(&coinbase).0, &template.merkle_path);
        header[36..68].copy_from_slice(&root);
        header[68..72].copy_from_slice(&tip.header_timestamp.to_le_bytes());
        header[76..].copy_from_slice(&77_u32.to_le_bytes());
        Arc::new(Solution {
            template_id: template.template_id,
            header,
            digest: Digest::of(&header),
            target: Target::MAX,
            coinbase_tx: coinbase,
            merkle_path: template.merkle_path.clone(),
            user_identity: Vec::new(),
            worker_identity: Vec::new(),
        })
    }
}

#[test]
fn templates_come_and_a_solution_goes_and_is_accepted_when_the_tip_says_so() {
    let provider = Provider::start();
    let pool = Pool::of(&provider);
    let mut line = provider.accept();
    let (setup, constraints) = line.set_up();
    assert_eq!(setup, (2, 2, 2, 0), "protocol, versions, flags");
    assert_eq!(constraints, (250, 7), "the reserve's room");
    line.tip(5, 40, [1; 32]);
    assert!(matches!(pool.next(), SourceUpdate::Up));
    let (first, tip) = pool.tip();
    assert!(first.future_template);
    assert_eq!((first.coinbase_prefix.as_slice(), tip.prev_hash), (&[1, 40][..], [1; 32]));

    // A better one for the same tip, which a solution is found for.
    line.template(6, false, 40, &[[8; 32]]);
    assert!(matches!(pool.next(), SourceUpdate::BlockConnected { height: 39, .. }));
    let SourceUpdate::Template { update: TemplateUpdate::NewTemplate(better), .. } = pool.next() else {
        panic!("a template")
    };
    assert!(!better.future_template && better.template_id > first.template_id);
    line.expect_request(6);
    let solution = Pool::solution(&better, &tip);
    let answer = pool.source.submit(solution.clone());
    let (kind, payload) = line.receive();
    assert_eq!(kind, MessageKind::SubmitSolution);
    let sent = decode(kind, &payload);
    let Message::SubmitSolution(sent) = sent else { panic!("{sent:?}") };
    assert_eq!((sent.template_id, sent.version, sent.header_nonce), (6, better.version, 77));
    assert_eq!(sent.coinbase_tx, solution.coinbase_tx);
    assert!(answer.try_recv().is_err(), "nobody has said anything yet");
    line.tip(7, 41, solution.digest.0);
    let outcome = answer.recv_timeout(PATIENCE).unwrap();
    let hash = solution.digest;
    assert_eq!(outcome, Submission::Accepted { height: 40, hash, reward_sat: 5_000_000_000 });
    pool.source.shutdown();
    assert_eq!(line.ended(), 0, "the connection is closed");
}

#[test]
fn a_lost_provider_is_found_again_and_announces_all_anew() {
    let provider = Provider::start();
    // The name is resolved for each try.
    let pool = Pool::at("localhost", provider.port(), &provider);
    let mut line = provider.accept();
    line.set_up();
    line.tip(900, 40, [1; 32]);
    let (first, tip) = pool.tip();
    let solution = Pool::solution(&first, &tip);
    let answer = pool.source.submit(solution.clone());
    assert_eq!(line.receive().0, MessageKind::SubmitSolution);
    drop(line);
    let reason = pool.down();
    assert!(reason.contains("closed") || reason.contains("broke"), "{reason}");

    // It comes back with ids that begin again, and with the tip of before.
    let mut line = provider.accept();
    line.set_up();
    line.tip(1, 40, [1; 32]);
    assert!(matches!(pool.next(), SourceUpdate::Up));
    let (again, _) = pool.tip();
    assert!(again.template_id > first.template_id);
    // What was found before the end goes out once more, by its name of now.
    let (kind, payload) = line.receive();
    let sent = decode(kind, &payload);
    assert!(matches!(sent, Message::SubmitSolution(sent) if sent.template_id == 1));
    line.tip(2, 41, solution.digest.0);
    assert!(matches!(answer.recv_timeout(PATIENCE).unwrap(), Submission::Accepted { height: 40, .. }));
}

#[test]
fn a_flood_of_tips_reaches_miners_at_a_pace() {
    let provider = Provider::start();
    let pool = Pool::of(&provider);
    let mut line = provider.accept();
    line.set_up();
    let begun = Instant::now();
    // A hundred may come at once; the thirty more take 50 ms each.
    for number in 1..=130 {
        line.tip(number, 40, [number as u8; 32]);
    }
    while pool.tip().1.prev_hash != [130; 32] {}
    line.tip(131, 41, [131; 32]);
    while pool.tip().1.prev_hash != [131; 32] {}
    assert!(begun.elapsed() >= Duration::from_millis(1_500), "{:?}", begun.elapsed());
}

/// The system answers for a process that was stopped: only what the process itself should say tells.
#[test]
fn a_provider_that_hangs_is_noticed_when_it_owes_an_answer() {
    let provider = Provider::start();
    let authority = Some(provider.identity.authority.public_key());
    let answer_max = Duration::from_millis(300);
    let config = Sv2Config { authority, answer_max, ..Sv2Config::new("127.0.0.1", provider.port()) };
    let pool = Pool::with(config);
    let mut line = provider.accept();
    line.set_up();
    line.template(1, true, 40, &[[4; 32]]);
    line.prev_hash(1, [1; 32]);
    line.expect_request(1);
    let reason = pool.down();
    assert!(reason.contains("no answer to RequestTransactionData"), "{reason}");
    assert_eq!(line.ended(), 0, "the connection is given up");
    let mut line = provider.accept();
    line.set_up();
    line.tip(1, 40, [1; 32]);
    pool.tip();
}

#[test]
fn transactions_are_kept_only_if_they_are_the_templates() {
    let provider = Provider::start();
    let pool = Pool::of(&provider);
    let mut line = provider.accept();
    line.set_up();
    let spend = bitcoin::consensus::serialize(&bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn::default()],
        output: Vec::new(),
    });
    let path = [Digest::of(&spend).0];
    line.template(1, true, 40, &path);
    line.prev_hash(1, [1; 32]);
    line.expect_request(1);
    let (first, _) = pool.tip();
    assert!(pool.source.transactions(first.template_id).is_none());
    line.send(&encode(&RequestTransactionDataSuccess {
        template_id: 1,
        excess_data: b"unread",
        transaction_list: [&spend[..]].as_slice().into(),
    }));
    // The next template's refusal says that the answer before was read.
    line.template(2, true, 41, &[[4; 32]]);
    line.prev_hash(2, [2; 32]);
    line.expect_request(2);
    line.send(&encode(&RequestTransactionDataError { template_id: 2, error_code: b"stale-template-id" }));
    let (second, _) = pool.tip();
    let kept = pool.source.transactions(first.template_id).expect("kept");
    assert!(kept.iter().eq([&spend[..]]));
    line.template(3, true, 42, &[[4; 32]]);
    line.prev_hash(3, [3; 32]);
    line.expect_request(3);
    line.send(&encode(&RequestTransactionDataSuccess {
        template_id: 3,
        excess_data: b"",
        transaction_list: [&spend[..]].as_slice().into(),
    }));
    line.template(4, true, 43, &[]);
    line.prev_hash(4, [4; 32]);
    let (third, _) = pool.tip();
    pool.tip();
    for id in [second.template_id, third.template_id] {
        assert!(pool.source.transactions(id).is_none());
    }
}

/// Lets a provider misbehave after the setup and returns what the source says; it then comes back.
fn trouble(misbehave: impl FnOnce(&mut Connection)) -> String {
    let provider = Provider::start();
    let pool = Pool::of(&provider);
    let mut line = provider.accept();
    line.set_up();
    misbehave(&mut line);
    let reason = pool.down();
    let mut line = provider.accept();
    line.set_up();
    line.tip(1, 40, [1; 32]);
    pool.tip();
    reason
}

#[test]
fn breaches_of_the_protocol_end_the_connection_and_not_the_source() {
    type Breach = fn(&mut Connection);
    let breaches: [(&str, Breach); 9] = [
        ("must rise", |line| {
            line.tip(5, 40, [1; 32]);
            line.template(5, true, 41, &[]);
        }),
        ("no future template", |line| line.prev_hash(5, [1; 32])),
        ("before any SetNewPrevHash", |line| line.template(5, false, 40, &[])),
        ("without SetNewPrevHash, where 40 is due", |line| {
            line.tip(5, 40, [1; 32]);
            line.template(6, false, 41, &[]);
        }),
        ("merkle_path", |line| line.template(5, true, 40, &[[1; 32]; 33])),
        ("not expected", |line| line.send(&encode(&SetupConnectionSuccess { used_version: 2, flags: 0 }))),
        ("was not asked for", |line| {
            line.send(&encode(&RequestTransactionDataError { template_id: 5, error_code: b"" }));
        }),
        ("NewTemplate", |line| {
            // A payload that is cut short.
            let mut frame = encode(&SetupConnectionSuccess { used_version: 2, flags: 0 });
            frame[2] = 0x71;
            line.send(&frame);
        }),
        ("does not authenticate", |line| line.send_raw(&[7; 64])),
    ];
    for (expected, breach) in breaches {
        let reason = trouble(breach);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}

#[test]
fn a_flood_of_frames_ends_the_connection() {
    let reason = trouble(|line| {
        // A message of an extension that nobody knows is ignored, but not for ever.
        let mut frame = vec![0; HEADER_LEN];
        frame[..2].copy_from_slice(&9_u16.to_le_bytes());
        for _ in 0..100 {
            if line.try_send(&[frame.as_slice(); 200]).is_err() {
                break;
            }
        }
    });
    assert!(reason.contains("too many frames"), "{reason}");
}

#[test]
fn setup_is_refused_or_answered_wrongly_or_not() {
    type Answer = fn(&mut Connection);
    let answers: [(&str, Answer); 5] = [
        ("another service's", |line| {
            line.send(&encode(&SetupConnectionError { flags: 0, error_code: b"unsupported-protocol" }));
        }),
        ("speaks version 2", |line| {
            line.send(&encode(&SetupConnectionError { flags: 0, error_code: b"protocol-version-mismatch" }));
        }),
        ("flags 0x6", |line| {
            line.send(&encode(&SetupConnectionError { flags: 6, error_code: b"unsupported-feature-flags" }));
        }),
        ("it speaks version 3", |line| {
            line.send(&encode(&SetupConnectionSuccess { used_version: 3, flags: 0 }));
        }),
        ("announces 5000 bytes", |line| {
            // Nothing before the setup is so long.
            let mut frame = vec![0; HEADER_LEN + 5_000];
            frame[3..5].copy_from_slice(&5_000_u16.to_le_bytes());
            line.send(&frame);
        }),
    ];
    for (expected, answer) in answers {
        let provider = Provider::start();
        let pool = Pool::of(&provider);
        let mut line = provider.accept();
        assert_eq!(line.receive().0, MessageKind::SetupConnection);
        answer(&mut line);
        let reason = pool.down();
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}

#[test]
fn who_the_provider_is_must_be_proven() {
    let now = provider::unix_now();
    for (expected, key, valid) in [
        ("wrong server or wrong authority key", [9; 32], (now - 60, now + 60)),
        ("renew the template provider's certificate", [7; 32], (now - 60, now - 30)),
        ("check both clocks", [7; 32], (now + 60, now + 120)),
    ] {
        let mut provider = Provider::start();
        let pinned = Pool::of(&provider);
        provider.identity = Identity::new(&key, valid);
        assert!(
            provider.try_accept().is_some_and(|mut line| line.ended() == 0),
            "nothing is said to a stranger"
        );
        let reason = pinned.down();
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
    // Ten seconds of drift are allowed.
    let mut provider = Provider::start();
    provider.identity = Identity::new(&[7; 32], (now + 5, now + 60));
    let pool = Pool::of(&provider);
    let mut line = provider.accept();
    line.set_up();
    line.tip(1, 40, [1; 32]);
    pool.tip();
}

#[test]
fn without_a_provider_the_source_says_so_and_goes_on_trying() {
    // A port that is taken, so that no other test gets it, and on which nobody listens yet.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let config = Sv2Config::new("127.0.0.1", port);
    let source = Sv2Source::start(config).unwrap();
    assert_eq!(source.name(), format!("sv2 127.0.0.1:{port}"));
    source.want(POOL, RESERVE);
    let updates = source.updates();
    let Ok(SourceUpdate::Down { reason }) = updates.recv_timeout(PATIENCE) else { panic!("down") };
    assert!(reason.contains("check that the template provider runs"), "{reason}");
    let solution = Solution { template_id: 1, ..Solution::clone(&some_solution()) };
    let answer = source.submit(Arc::new(solution)).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(answer, Submission::Failed { .. }), "{answer:?}");
    // Somebody listens, but speaks no Noise: the source hangs up.
    socket.listen(4).unwrap();
    let (mut stream, _) = TcpListener::from(socket).accept().unwrap();
    stream.write_all(&[b'x'; 400]).unwrap();
    let Ok(SourceUpdate::Down { reason }) = updates.recv_timeout(PATIENCE) else { panic!("down") };
    assert!(reason.contains("the port is the template provider's"), "{reason}");
}

fn some_solution() -> Arc<Solution> {
    let template = provider::template(1, false, 40, &[]);
    let tip =
        PrevHash { template_id: 1, prev_hash: [1; 32], header_timestamp: 0, nbits: 0, target: Target::MAX };
    Pool::solution(&template, &tip)
}

#[test]
fn a_provider_that_says_nothing_holds_up_no_stop() {
    let provider = Provider::start();
    /// Returns what must not be closed yet.
    type Silence = fn(&Provider) -> Box<dyn std::any::Any>;
    let silences: [Silence; 3] = [
        // No act of the handshake.
        |provider| Box::new(provider.accept_tcp()),
        // No answer to SetupConnection.
        |provider| {
            let mut line = provider.accept();
            line.receive();
            Box::new(line)
        },
        // The beginning of a frame, and then byte by byte nothing more.
        |provider| {
            let mut line = provider.accept();
            line.set_up();
            line.send_part(&encode(&SetupConnectionSuccess { used_version: 2, flags: 0 }), 25);
            Box::new(line)
        },
    ];
    for silence in silences {
        let pool = Pool::of(&provider);
        let held = silence(&provider);
        let begun = Instant::now();
        pool.source.shutdown();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        drop(held);
    }
}

#[test]
fn a_provider_can_send_its_clients_elsewhere() {
    let (first, second) = (Provider::start(), Provider::start());
    let pool = Pool::of(&first);
    let mut line = first.accept();
    line.set_up();
    line.tip(1, 40, [1; 32]);
    pool.tip();
    line.send(&encode(&adit_codec::message::Reconnect { new_host: b"", new_port: second.port() }));
    assert!(pool.down().contains("asked to connect anew"));
    let mut line = second.accept();
    line.set_up();
    line.tip(1, 40, [1; 32]);
    pool.tip();
    // Once: who is lost there is looked for where the configuration says.
    drop(line);
    pool.down();
    first.accept().set_up();
}

#[test]
fn each_room_has_a_connection_of_its_own() {
    let provider = Provider::start();
    let pool = Pool::of(&provider);
    let mut line = provider.accept();
    line.set_up();
    line.tip(1, 40, [1; 32]);
    pool.tip();
    pool.source.want(ClassId(9), Reserve { reserved_weight: 50_000, max_additional_sigops: 0 });
    let mut other = provider.accept();
    let (_, constraints) = other.set_up();
    assert_eq!(constraints, (12_208, 0));
    other.tip(2, 40, [1; 32]);
    loop {
        if matches!(
            pool.next(),
            SourceUpdate::Template { class: ClassId(9), update: TemplateUpdate::SetNewPrevHash(_), .. }
        ) {
            break;
        }
    }
    pool.source.unwant(ClassId(9));
    assert_eq!(other.ended(), 0);
    // The same class with other room: another connection.
    pool.source.want(POOL, Reserve { reserved_weight: 3_168, max_additional_sigops: 7 });
    assert_eq!(line.ended(), 0);
    let (_, constraints) = provider.accept().set_up();
    assert_eq!(constraints, (500, 7));
}

impl Connection {
    /// Reads to the end of the stream; says how many frames came before it.
    fn ended(&mut self) -> usize {
        let mut frames = 0;
        while self.try_receive().is_some() {
            frames += 1;
        }
        assert_eq!(self.stream.read(&mut [0]).unwrap_or_default(), 0);
        frames
    }
}
