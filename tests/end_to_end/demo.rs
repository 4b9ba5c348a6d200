//! `adit demo` on Bitcoin Core's own node.

use std::time::Duration;

use adit_tests::process::{Program, core_program, own_program};
use tempfile::TempDir;

/// Debug builds on two busy cores mine slowly.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_demo_runs_bitcoin_core_and_ends_it() {
    let directory = TempDir::new().expect("a temporary directory");
    let at = |path: &std::path::Path| path.display().to_string();
    let (node, kept) = (at(&core_program("bitcoin-node")), at(directory.path()));
    let run = || {
        let args =
            ["demo", "--node", "core", "--node-path", &node, "--listen", "127.0.0.1:0", "--data-dir", &kept];
        let mut demo = Program::start(&own_program("adit"), &[&args[..], &["--blocks", "3"]].concat());
        let status = demo.wait(PATIENCE);
        // Its last line.
        demo.wait_for("a summary", PATIENCE, |line| line.starts_with("Miners: ").then_some(()));
        let shown = demo.lines().join("\n");
        assert!(status.success(), "{status}: {shown}");
        assert!(shown.contains("blocks accepted by the node"), "{shown}");
        // Bitcoin Core removes it when it ends in good order.
        assert!(!directory.path().join("core/regtest/bitcoind.pid").exists(), "the node runs on: {shown}");
        shown
    };
    let first = run();
    assert!(first.contains("block     1 ") && first.contains("block     3 "), "{first}");
    let second = run();
    assert!(
        !second.contains("block     1 ") && !second.contains("block     3 "),
        "the chain was kept: {second}"
    );
}
