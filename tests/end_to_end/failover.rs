//! A pool on two of Bitcoin Core's nodes that die and come back: mining goes on, and no block is lost.

use std::path::Path;
use std::time::{Duration, Instant};

use adit_codec::url::PoolUrl;
use adit_tests::node::BitcoinNode;
use adit_tests::process::{Program, own_program};
use bitcoin::BlockHash;
use serde_json::json;
use tempfile::TempDir;

/// Debug builds on two busy cores mine slowly.
const PATIENCE: Duration = Duration::from_secs(120);

/// A pool on several nodes, one miner's worth of blocks at a time.
struct Pool {
    program: Program,
    url: PoolUrl,
}

impl Pool {
    /// Starts a pool on these nodes, `first` over IPC and `second` over JSON-RPC, in a directory that an earlier one may have
    /// left.
    fn start(directory: &Path, nodes: [&BitcoinNode; 2]) -> Self {
        let adit = own_program("adit");
        let at = |name: &str| directory.join(name).display().to_string();
        let mut text = format!(
            "[pool]\nlisten = \"127.0.0.1:0\"\npayout = \"raw(51)\"\n[authority]\nsecret_key_file = \"{}\"\n\
             [journal]\ndir = \"{}\"\n[engine]\ncpus = [0]\n[log]\nstatus_interval_s = 1\n\
             [vardiff]\nshares_per_minute = 60.0\ndifficulty_min = 0.0\n",
            at("authority.key"),
            at("journal")
        );
        text.push_str(&format!(
            "[[template_source]]\nname = \"first\"\nkind = \"core-ipc\"\nsocket = \"{}\"\n",
            nodes[0].ipc_socket().display()
        ));
        text.push_str(&format!(
            "[[template_source]]\nname = \"second\"\nkind = \"core-rpc\"\naddress = \"{}\"\ncookie_file = \"{}\"\n",
            nodes[1].rpc_address(),
            nodes[1].cookie_file().display()
        ));
        let config = at("pool.toml");
        std::fs::write(&config, text).expect("the directory can be written to");
        if !directory.join("authority.key").exists() {
            let mut generate = Program::start(&adit, &["key", "generate", "--out", &at("authority.key")]);
            assert!(generate.wait(PATIENCE).success(), "{:?}", generate.lines());
        }
        let mut program = Program::start(&adit, &["pool", "--config", &config]);
        let url = program.wait_for_word("stratum2+tcp://").parse().expect("the pool prints its URL");
        Self { program, url }
    }

    fn mine(&self) -> Program {
        let args = ["mine", &self.url.to_string(), "--devices", "1", "--hash-rate-limit", "20000"];
        let nominal = ["--nominal-hash-rate", "20000"];
        Program::start(&own_program("adit-loadgen"), &[&args[..], &nominal[..]].concat())
    }

    /// The hashes in lines of the log that hold `text`.
    fn hashes(&self, text: &str) -> Vec<BlockHash> {
        self.program
            .lines()
            .iter()
            .filter(|line| line.contains(text))
            .filter_map(|line| hash_in(line))
            .collect()
    }

    /// Waits for a status line that says how the sources stand.
    fn wait_for_sources(&mut self, standing: &str) {
        self.program.wait_for(standing, PATIENCE, |line| {
            (line.contains("status connections=") && line.contains(standing)).then_some(())
        });
    }

    fn stop(mut self) {
        self.program.signal("TERM");
        let status = self.program.wait(PATIENCE);
        assert!(status.success(), "{status}; it wrote:\n{}", self.program.lines().join("\n"));
    }
}

fn hash_in(line: &str) -> Option<BlockHash> {
    line.split_once("hash=")?.1.split_whitespace().next()?.parse().ok()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_for_height(node: &BitcoinNode, height: u64) {
    wait_until("a height", || node.rpc.height() >= height);
}

/// Stops a miner; none of its connections was lost, and all its shares were answered.
fn stop_miner(mut miner: Program) {
    miner.signal("TERM");
    let status = miner.wait(PATIENCE);
    // Its last line.
    miner.wait_for("a summary", PATIENCE, |line| line.starts_with("connections").then_some(()));
    let summary = miner.lines().join("\n");
    assert!(status.success(), "{status}: {summary}");
    assert!(summary.contains("connections    1 made, 0 failed"), "{summary}");
    assert!(summary.contains("0 outstanding, 0 lost"), "{summary}");
}

/// Whether a block is of the node's best chain.
fn is_in_chain(node: &BitcoinNode, hash: &BlockHash) -> bool {
    let header = node.rpc.try_call("getblockheader", &[json!(hash.to_string())]);
    header.is_ok_and(|header| header["confirmations"].as_i64().is_some_and(|count| count > 0))
}

#[test]
fn either_of_two_nodes_may_die_and_no_miner_notices() {
    let directory = TempDir::new().expect("a temporary directory");
    let (mut first, mut second) = (BitcoinNode::start_listening(), BitcoinNode::start_listening());
    first.connect(&second);
    let mut pool = Pool::start(directory.path(), [&first, &second]);
    let miner = pool.mine();
    wait_for_height(&first, 3);

    first.kill();
    let height = second.rpc.height();
    wait_for_height(&second, height + 3);
    pool.wait_for_sources("first is down");
    assert!(!pool.hashes("block accepted").is_empty());

    first.restart();
    first.connect(&second);
    wait_until("the first catches up", || first.rpc.height() + 1 >= second.rpc.height());
    let up_again = pool.program.lines().len();
    wait_until("the pool sees it", || {
        let lines = pool.program.lines();
        lines[up_again..].iter().any(|line| line.contains("status connections=") && !line.contains("is down"))
    });
    second.kill();
    let height = first.rpc.height();
    wait_for_height(&first, height + 3);

    stop_miner(miner);
    // What was found last may still be on its way.
    let found = pool.hashes("block found");
    wait_until("every block has an outcome", || {
        let settled: Vec<_> = ["block accepted", "block stale", "block known"]
            .iter()
            .flat_map(|text| pool.hashes(text))
            .collect();
        found.iter().all(|hash| settled.contains(hash))
    });
    for hash in pool.hashes("block accepted") {
        assert!(is_in_chain(&first, &hash), "{hash} was accepted, and is lost");
    }
    pool.stop();
}

#[test]
fn a_block_found_while_all_nodes_are_down_is_in_the_journal_and_reaches_them_after_a_restart() {
    let directory = TempDir::new().expect("a temporary directory");
    let (mut first, mut second) = (BitcoinNode::start_listening(), BitcoinNode::start_listening());
    first.connect(&second);
    let pool = Pool::start(directory.path(), [&first, &second]);
    let miner = pool.mine();
    wait_for_height(&first, 2);
    stop_miner(miner);
    second.wait_for_tip_of(&first);
    let tip = first.rpc.height();
    for node in [&mut first, &mut second] {
        node.flush();
        node.kill();
    }

    // Miners are served all the same.
    let miner = pool.mine();
    wait_until("a block is found that nobody takes", || !pool.hashes("block not submitted yet").is_empty());
    stop_miner(miner);
    let found = pool.hashes("block not submitted yet");
    pool.stop();

    let pool = Pool::start(directory.path(), [&first, &second]);
    first.restart();
    wait_until("the block is accepted", || {
        pool.hashes("block accepted").iter().any(|hash| found.contains(hash))
    });
    assert_eq!(first.rpc.height(), tip + 1);
    let accepted = pool.hashes("block accepted");
    assert!(accepted.iter().all(|hash| is_in_chain(&first, hash)));

    // The nodes do not know each other any more: the pool gives the block to the other, too.
    second.restart();
    wait_for_height(&second, tip + 1);
    // Where the miner had found two before it was stopped, the node may have got the other one first.
    assert!(found.iter().any(|hash| is_in_chain(&second, hash)));
    pool.stop();
}
