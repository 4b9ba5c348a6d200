//! The source against nodes that misbehave: what a real one does the end-to-end tests show.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use adit_proto::template::TemplateUpdate;
use serde_json::{Value, json};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const TIP: &str = "00000000000000000001a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6";

/// A node that answers every call with what `answer` makes of method and parameters: a whole HTTP response.
fn node(answer: impl Fn(&str, &Value) -> Vec<u8> + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), answer) = (stream, answer.clone()) else { return };
            std::thread::spawn(move || {
                while let Some(call) = read_call(&mut stream) {
                    let response = answer(call["method"].as_str().unwrap(), &call["params"]);
                    if response.is_empty() || stream.write_all(&response).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn read_call(stream: &mut TcpStream) -> Option<Value> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap().to_ascii_lowercase();
    assert!(head.contains("authorization: basic dtpw"), "u:p in base64");
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; len.parse().unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(serde_json::from_slice(&body).unwrap())
}

fn respond(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn result(value: Value) -> Vec<u8> {
    respond("200 OK", &json!({ "result": value, "error": null, "id": 1 }).to_string())
}

fn refuse(code: i32, message: &str) -> Vec<u8> {
    let error = json!({ "result": null, "error": { "code": code, "message": message }, "id": 1 });
    respond("500 Internal Server Error", &error.to_string())
}

fn template() -> Value {
    json!({
        "version": 0x2000_0000, "previousblockhash": TIP, "transactions": [], "coinbasevalue": 5_000_000_000u64,
        "longpollid": format!("{TIP}1"), "target": format!("7fffff{:058}", 0), "mintime": 1_700_000_000,
        "curtime": 1_700_000_001, "bits": "207fffff", "height": 300,
        "default_witness_commitment": "6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9",
    })
}

/// What a node in order answers; a long poll is not answered.
fn in_order(method: &str, params: &Value) -> Vec<u8> {
    match method {
        "getblockchaininfo" => result(json!({ "chain": "main" })),
        "getbestblockhash" => result(json!(TIP)),
        "getblocktemplate" if params[0]["longpollid"].is_null() => result(template()),
        "getblocktemplate" => {
            std::thread::sleep(PATIENCE);
            Vec::new()
        }
        "getblockheader" => result(json!({
            "hash": TIP, "confirmations": 1, "height": 299, "mediantime": 1_700_000_000, "bits": "207fffff",
        })),
        other => panic!("{other}"),
    }
}

fn source(address: String) -> CoreRpc {
    let config = CoreRpcConfig {
        name: "test".to_owned(),
        address,
        auth: CoreRpcAuth::Password { user: "u".to_owned(), password: "p".to_owned() },
        chain: "main".to_owned(),
        poll_interval: Duration::from_millis(10),
        template_interval: PATIENCE,
        fee_delta_sat: 1_000,
    };
    CoreRpc::start(config).unwrap()
}

fn reserve(reserved_weight: u64) -> Reserve {
    Reserve { reserved_weight, max_additional_sigops: 0 }
}

fn down(address: String) -> String {
    match source(address).updates().recv_timeout(PATIENCE).unwrap() {
        SourceUpdate::Down { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_class_gets_a_template_and_its_tip_and_what_fits_nowhere_is_refused() {
    let source = source(node(in_order));
    let updates = source.updates();
    source.want(ClassId(1), reserve(2_000));
    source.want(ClassId(2), reserve(4_000_001));
    let (mut template_id, mut refused, mut activated) = (None, None, None);
    while refused.is_none() || activated.is_none() {
        match updates.recv_timeout(PATIENCE).unwrap() {
            SourceUpdate::Template { class, update: TemplateUpdate::NewTemplate(template), .. } => {
                assert_eq!((class, template.future_template), (ClassId(1), true));
                assert_eq!(template.coinbase_prefix, [2, 0x2c, 0x01]);
                template_id = Some(template.template_id);
            }
            SourceUpdate::Template { class, update: TemplateUpdate::SetNewPrevHash(tip), .. } => {
                assert_eq!((class, Some(tip.template_id)), (ClassId(1), template_id));
                assert_eq!((tip.header_timestamp, tip.nbits), (1_700_000_001, 0x207f_ffff));
                activated = template_id;
            }
            SourceUpdate::Refused { class, reason } => refused = Some((class, reason)),
            SourceUpdate::Up => {}
            other => panic!("{other:?}"),
        }
    }
    let (class, reason) = refused.unwrap();
    assert_eq!(class, ClassId(2));
    assert!(reason.contains("more than a block has"), "{reason}");
    assert!(source.transactions(activated.unwrap()).unwrap().is_empty());

    // A class of the same number that is wanted anew is served anew.
    source.unwant(ClassId(1));
    source.want(ClassId(1), reserve(2_000));
    let again = updates.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(again, SourceUpdate::Template { class: ClassId(1), .. }), "{again:?}");
}

#[test]
fn classes_are_bounded() {
    let source = source(node(in_order));
    for class in 0..=CLASSES_MAX as u64 {
        source.want(ClassId(class), reserve(2_000));
    }
    let refused = source.updates().iter().find_map(|update| match update {
        SourceUpdate::Refused { class, reason } => Some((class, reason)),
        _ => None,
    });
    let (class, reason) = refused.unwrap();
    assert_eq!(class, ClassId(CLASSES_MAX as u64));
    assert!(reason.contains("64 classes"), "{reason}");
}

#[test]
fn what_a_node_refuses_is_said_with_a_remedy() {
    for (code, said) in [
        (-10, "still downloading the chain"),
        (-9, "no connection to other nodes"),
        (-28, "the node is starting: Loading block index"),
        (-8, "error -8: Loading block index"),
    ] {
        let reason = down(node(move |method, params| match method {
            "getblocktemplate" => refuse(code, "Loading block index\u{1b}[2J"),
            _ => in_order(method, params),
        }));
        assert!(reason.contains(said) && !reason.contains('\u{1b}'), "{reason}");
    }
    for (status, said) in [
        ("401 Unauthorized", "refuses this user and password"),
        ("403 Forbidden", "rpcallowip"),
        ("503 Service Unavailable", "rpcworkqueue"),
        ("404 Not Found", "HTTP status 404"),
    ] {
        let reason = down(node(move |_, _| respond(status, "")));
        assert!(reason.contains(said), "{reason}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(down(nobody.to_string()).contains("server=1"));
}

#[test]
fn an_answer_that_is_none_is_named() {
    let change = |key: &str, value: Value| {
        let mut template = template();
        template[key] = value;
        result(template)
    };
    let transaction = json!({ "data": "00ff", "txid": TIP, "hash": TIP, "fee": 5, "sigops": 0, "weight": 8 });
    let answers = [
        (respond("200 OK", "<html>"), "not what Bitcoin Core gives"),
        (respond("200 OK", "{}"), "there is no result"),
        (change("height", json!(0)), ": height"),
        (change("height", json!(-1)), "invalid value"),
        (change("target", json!("00".repeat(32))), ": target"),
        (change("previousblockhash", json!("00")), ": previousblockhash"),
        (change("transactions", json!([transaction])), "default_witness_commitment"),
        (change("coinbasevalue", json!(u64::MAX)), ": coinbasevalue"),
        (change("signet_challenge", json!("5121aa51ae")), "must be signed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(), "longer than"),
    ];
    for (answer, said) in answers {
        let reason = down(node(move |method, params| match method {
            "getblocktemplate" => answer.clone(),
            _ => in_order(method, params),
        }));
        assert!(reason.contains(said), "{said}: {reason}");
    }
    let reason = down(node(|method, params| match method {
        "getblockchaininfo" => result(json!({ "chain": "test" })),
        _ => in_order(method, params),
    }));
    assert!(reason.contains("on the chain test, but the pool mines main"), "{reason}");
}

#[test]
fn what_becomes_of_a_block_is_told_in_the_node_s_words() {
    let block = adit_block();
    for (said, expected) in [
        (result(Value::Null), "accepted: block 300"),
        (result(json!("bad-cb-amount")), "rejected: bad-cb-amount"),
        (result(json!("prev-blk-not-found")), "not submitted: the node answered prev-blk-not-found"),
        (refuse(-22, "Block decode failed"), "rejected: Block decode failed"),
        (refuse(-1, "no disk"), "not submitted: the node answered submitblock with error -1: no disk"),
        (Vec::new(), "unconfirmed"),
        (respond("503 Service Unavailable", ""), "not submitted: the node has too many calls"),
    ] {
        let source = source(node(move |method, params| match method {
            "submitblock" => said.clone(),
            _ => in_order(method, params),
        }));
        let told = source.submit_block(Arc::clone(&block)).recv_timeout(PATIENCE).unwrap().to_string();
        assert!(told.starts_with(expected), "{expected}: {told}");
    }
    // A block that the node keeps: where it lies, its header tells, and the best chain's length.
    for (said, confirmations, best_height, expected) in [
        ("inconclusive", -1, 300, "stale: block 300"),
        ("inconclusive", -1, 299, "unconfirmed"),
        ("inconclusive", 2, 301, "accepted: block 300"),
        ("duplicate", 1, 300, "accepted: block 300"),
        ("duplicate", -1, 301, "stale: block 300"),
        ("duplicate-inconclusive", -1, 298, "unconfirmed"),
    ] {
        let source = source(keeping(said, confirmations, best_height));
        let told = source.submit_block(Arc::clone(&block)).recv_timeout(PATIENCE).unwrap().to_string();
        assert!(told.starts_with(expected), "{said}, {confirmations}, {best_height}: {told}");
    }
    // Nobody is there, and no block at all.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = source(nobody.to_string()).submit_block(block).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(told, Submission::Failed { .. }), "{told}");
}

/// A node that has the block of [`adit_block`] already, with so many confirmations, and a best chain of this height.
fn keeping(said: &'static str, confirmations: i64, best_height: u32) -> String {
    node(move |method, params| match method {
        "submitblock" => result(json!(said)),
        "getblockheader" => {
            let (confirmations, height) =
                if params[0] == TIP { (1, best_height) } else { (confirmations, 300) };
            result(json!({
                "hash": TIP, "confirmations": confirmations, "height": height, "mediantime": 0, "bits": "207fffff",
            }))
        }
        _ => in_order(method, params),
    })
}

#[test]
fn a_block_whose_answer_was_lost_is_accepted_when_it_is_handed_over_again() {
    let is_handed = Arc::new(std::sync::atomic::AtomicBool::default());
    let source = source(node(move |method, params| match method {
        "submitblock" if !is_handed.swap(true, std::sync::atomic::Ordering::Relaxed) => Vec::new(),
        "submitblock" => result(json!("duplicate")),
        _ => in_order(method, params),
    }));
    let submit = || source.submit_block(adit_block()).recv_timeout(PATIENCE).unwrap();
    assert!(matches!(submit(), Submission::Unconfirmed { .. }));
    assert!(matches!(submit(), Submission::Accepted { height: 300, .. }));
}

#[test]
fn a_node_that_does_not_answer_to_a_block_holds_up_no_stop() {
    let (taken, is_taken) = bounded(SUBMITTERS);
    let source = source(node(move |method, params| match method {
        "submitblock" => {
            taken.send(()).unwrap();
            std::thread::sleep(PATIENCE);
            Vec::new()
        }
        _ => in_order(method, params),
    }));
    // More than there are threads for them.
    let answers = [(); SUBMITTERS + 1].map(|()| source.submit_block(adit_block()));
    (0..SUBMITTERS).for_each(|_| is_taken.recv_timeout(PATIENCE).unwrap());
    let begun = std::time::Instant::now();
    Box::new(source).shutdown();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let [first, second, third] = answers.map(|answer| answer.try_recv().unwrap());
    assert!(matches!((first, second), (Submission::Unconfirmed { .. }, Submission::Unconfirmed { .. })));
    assert!(matches!(third, Submission::Failed { .. }), "{third}");
}

#[test]
fn a_node_that_answers_long_polls_at_once_is_not_asked_without_a_pause() {
    let (answered, is_answered) = bounded(1_000);
    let source = source(node(move |method, params| match method {
        "getblocktemplate" if !params[0]["longpollid"].is_null() => {
            let _ = answered.try_send(std::time::Instant::now());
            result(template())
        }
        _ => in_order(method, params),
    }));
    let [first, _, last] = [(); 3].map(|()| is_answered.recv_timeout(PATIENCE).unwrap());
    assert!(last.duration_since(first) >= Duration::from_millis(1_900), "{:?}", last.duration_since(first));
    drop(source);
}

/// A block at height 300, as far as `submitblock` needs one.
fn adit_block() -> Arc<[u8]> {
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin);
    let mut coinbase = genesis.txdata[0].clone();
    coinbase.input[0].script_sig = bitcoin::ScriptBuf::from_bytes(vec![2, 0x2c, 0x01, 0]);
    let block = bitcoin::Block { txdata: vec![coinbase], ..genesis };
    bitcoin::consensus::serialize(&block).into()
}
