//! `adit demo` from start to end: real miners, a real node, real blocks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod program;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use program::{Program, adit};

/// Far more than the two chains need on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a demo to its end and gives what it shows.
fn demo(arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut all = vec!["demo", "--listen", "127.0.0.1:0"];
    all.extend(arguments);
    let mut program = Program::start(dir.path(), &all);
    assert_eq!(program.wait(PATIENCE), Some(0), "{}{}", program.stdout(), program.log());
    program.stdout()
}

/// The blocks that are shown, by height.
fn heights(shown: &str) -> Vec<u32> {
    let blocks = shown.lines().filter(|line| line.starts_with("block ") && line.ends_with(" BTC"));
    blocks.map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn two_blocks_on_regtest() {
    let shown = demo(&["--chain", "regtest", "--blocks", "2"]);
    let heights = heights(&shown);
    assert!(heights.len() >= 2 && heights.starts_with(&[1, 2]), "{shown}");
    assert!(shown.contains("50.00000000 BTC") && shown.contains(" accepted by the node in "), "{shown}");
    assert!(shown.contains("stratum2+tcp://127.0.0.1:"), "{shown}");
    assert!(
        !shown.contains('\r') && !shown.contains('\x1b'),
        "no terminal, no control characters: {shown:?}"
    );
}

#[test]
fn one_block_on_signet_by_a_single_miner() {
    let shown = demo(&["--chain", "signet", "--blocks", "1", "--miners", "1"]);
    assert!(heights(&shown).starts_with(&[1]), "{shown}");
    assert!(shown.contains("standard-1"), "{shown}");
}

#[test]
fn what_is_kept_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let arguments =
        ["demo", "--listen", "127.0.0.1:0", "--chain", "regtest", "--blocks", "1", "--data-dir", "kept"];
    let run = || {
        let mut program = Program::start(dir.path(), &arguments);
        assert_eq!(program.wait(PATIENCE), Some(0), "{}{}", program.stdout(), program.log());
        program.stdout()
    };
    let key = |shown: &str| {
        shown.split("stratum2+tcp://").nth(1).unwrap().split(['/', '\n']).nth(1).unwrap().to_owned()
    };
    let (first, second) = (run(), run());
    assert_eq!(key(&first), key(&second), "the same pool to its miners");
    assert_eq!(heights(&second)[0], heights(&first).last().unwrap() + 1, "{first}{second}");
    let key_file = dir.path().join("kept/authority.key");
    assert_eq!(fs::metadata(key_file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_signal_ends_it_with_a_summary() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--miners", "0", "--log-level", "info"];
    let mut program = Program::start(dir.path(), &arguments);
    program.wait_for("template source up", PATIENCE);
    program.signal("INT");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());
    assert!(program.stdout().contains("0 blocks accepted by the node"), "{}", program.stdout());
}

#[test]
fn it_ends_with_its_terminal_or_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--miners", "0", "--log-level", "info"];
    let mut program = Program::start(dir.path(), &arguments);
    program.wait_for("template source up", PATIENCE);
    program.signal("HUP");
    assert_eq!(program.wait(PATIENCE), Some(0), "{}", program.log());

    let mut demo = Command::new(env!("CARGO_BIN_EXE_adit"));
    demo.args(["demo", "--listen", "127.0.0.1:0", "--chain", "regtest"]).current_dir(dir.path());
    let mut child = demo.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            ended => break ended,
        }
    };
    let _ = child.kill();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

#[test]
fn a_port_that_is_taken_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = adit(dir.path(), &["demo", "--listen", &address]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains(&address) && error.contains("--listen 127.0.0.1:0"), "{error}");
}

#[test]
fn wrong_options_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["demo", "--blocks", "0"][..], "--blocks"),
        (&["demo", "--chain", "main"], "signet"),
        (&["demo", "--node", "core", "--chain", "signet"], "runs on regtest"),
        (&["demo", "--node-path", "bitcoin-node"], "--node core"),
        (&["demo", "--node", "core", "--node-path", "none"], "none does not start"),
        (&["demo", "--payout", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"], "the pool mines signet"),
    ] {
        let ended = adit(dir.path(), arguments);
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_node_that_is_not_there_or_does_not_run_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_adit"));
    demo.args(["demo", "--node", "core"])
        .current_dir(dir.path())
        .env("PATH", "")
        .env("ADIT_CACHE", dir.path());
    let ended = demo.output().unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{error}");
    assert!(error.contains("no bitcoin-node in PATH") && error.contains("make fixtures"), "{error}");

    let program = dir.path().join("no-node");
    fs::write(&program, "#!/bin/sh\necho such is life >&2\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = adit(dir.path(), &["demo", "--node", "core", "--node-path", program.to_str().unwrap()]);
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains("no-node has ended: such is life"), "{error}");
}
