//! The codec's fuzz targets on the stable compiler: the same functions as cargo-fuzz runs, over the committed corpus
//! and mutations of it, for a bounded time. `ADIT_FUZZ_SECONDS` sets the seconds for each target.

#[path = "../../tests/fuzz/src/codec.rs"]
#[allow(unreachable_pub, reason = "public in the crate that cargo-fuzz builds")]
mod codec;
mod generate;
#[path = "../../tests/fuzz/src/stable.rs"]
#[allow(unreachable_pub, reason = "public in the crate that cargo-fuzz builds")]
mod stable;

use std::path::PathBuf;

use adit_codec::message::MessageKind;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(target)
}

fn fuzz(target: &str, body: fn(&[u8])) {
    let runs = stable::run(&corpus(target), body);
    println!("{target}: {runs} inputs");
    assert!(runs > 100, "{target}: only {runs} inputs");
}

#[test]
fn frame() {
    fuzz("frame", codec::frame);
}

#[test]
fn message() {
    fuzz("message", codec::message);
}

#[test]
fn tlv() {
    fuzz("tlv", codec::tlv);
}

/// The corpus has a sound frame of every message, so that mutations start inside each.
#[test]
fn corpus_covers_every_message() {
    let inputs = stable::read_corpus(&corpus("message"));
    for kind in MessageKind::ALL {
        let head = &kind.header(0).to_bytes()[..3];
        let sound = inputs
            .iter()
            .filter(|input| input.starts_with(head))
            .any(|input| adit_codec::message::Message::decode_kind(*kind, &input[6..]).is_ok());
        assert!(sound, "{kind}: no input");
    }
}

/// Writes the corpus anew: run with `ADIT_FUZZ_WRITE_CORPUS=1` after changing the table. Otherwise it only proves that
/// what it would write passes the targets.
#[test]
fn generated_inputs_pass() {
    let mut runner = TestRunner::deterministic();
    let mut stream = vec![0xff, 0xff, 100];
    for kind in MessageKind::ALL {
        let small = generate::pieces(*kind).prop_filter("small", |pieces| pieces.payload().len() < 600);
        let payload = small.new_tree(&mut runner).expect("most are small").current().payload();
        let frame = [&kind.header(payload.len() as u32).to_bytes()[..], &payload].concat();
        codec::message(&frame);
        write("message", &format!("{kind:?}"), &frame);
        if frame.len() < 80 && stream.len() < 600 {
            stream.extend_from_slice(&frame);
        }
    }
    let [mut short_max, mut cut] = [stream.clone(), stream.clone()];
    short_max[..3].copy_from_slice(&[30, 0, 7]);
    cut.truncate(cut.len() - 3);
    for (name, input) in [("stream", stream), ("oversized", short_max), ("cut", cut)] {
        codec::frame(&input);
        write("frame", name, &input);
    }
    let tlvs: [(&str, &[u8]); 4] = [
        ("little_endian", b"\x01\x02\x00\x02\x00\x01\x0a\x00Worker_001"),
        ("big_endian", b"\x01\x02\x00\x00\x02\x01\x00\x0aWorker_001"),
        (
            "several",
            b"\x02\x02\x00\x05\x00\x09\x00\x01\x03\x00abc\x02\x00\x01\x03\x00rig\x00\x05\x07\x00\x01x",
        ),
        ("symmetric", b"\x01\x03\x03\x03\x03\x07\x00\x02ab"),
    ];
    for (name, input) in tlvs {
        codec::tlv(input);
        write("tlv", name, input);
    }
}

fn write(target: &str, name: &str, input: &[u8]) {
    if std::env::var_os("ADIT_FUZZ_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(corpus(target)).expect("a writable tree");
        std::fs::write(corpus(target).join(name), input).expect("a writable tree");
    }
}
