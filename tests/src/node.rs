//! Bitcoin Core's own node on regtest, as a process: the judge of every block.
//!
//! It has no wallet. Blocks pay to [`spendable`], a script that anyone may spend with [`spendable_witness`], so whoever
//! knows the chain can make transactions. User and password are those of [`rpc::Node`](crate::rpc::Node), and the cookie
//! works as well. It listens on loopback only, and not for other nodes unless it is told to.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{PATIENCE, Program, core_program, free_port};
use crate::rpc::Node;

/// `adit` with the password `adit`, salted with `adit`: `rpcauth`, unlike `rpcpassword`, leaves the cookie in use.
const RPC_AUTH: &str = "-rpcauth=adit:adit$84c766caed96e45a75d0ee6e540d2eb80c47a930e80292536f4739977a1e43e0";
/// A port that was free a moment ago may be somebody else's when the node takes it.
const PORT_TRIES: usize = 5;
/// After how many blocks a coinbase can be spent.
pub const COINBASE_MATURITY: u64 = 100;
/// What a block of regtest's first 150 makes.
pub const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);
/// How often a state that has no event is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What the node's blocks pay to: anyone may spend it, and with a witness.
pub fn spendable() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&Script::from_bytes(&[0x51]).wscript_hash())
}

/// What spends [`spendable`].
pub fn spendable_witness() -> Witness {
    Witness::from_slice(&[[0x51]])
}

/// A running `bitcoin-node`. Killed when dropped; the end of its log is shown when a test fails.
pub struct BitcoinNode {
    /// The process.
    pub program: Program,
    /// Its JSON-RPC.
    pub rpc: Node,
    ports: Ports,
    args: Vec<String>,
    directory: TempDir,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    rpc: u16,
    /// For other nodes.
    peers: Option<u16>,
}

impl BitcoinNode {
    /// A node alone, with a chain that has nothing but its genesis.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments, such as `-blockreservedweight=2000`.
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_on_free_ports(args, false)
    }

    /// A node that others can [connect to](Self::connect).
    pub fn start_listening() -> Self {
        Self::start_on_free_ports(&[], true)
    }

    fn start_on_free_ports(args: &[&str], listens: bool) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        for attempt in 1.. {
            let directory = TempDir::new().expect("a temporary directory");
            let ports = Ports { rpc: free_port(), peers: listens.then(free_port) };
            match launch(directory.path(), ports, &args) {
                Ok(program) => {
                    let rpc = Node::at(&format!("127.0.0.1:{}", ports.rpc));
                    return Self { program, rpc, ports, args, directory };
                }
                Err(lines) => {
                    assert!(attempt < PORT_TRIES, "bitcoin-node does not start:\n{}", lines.join("\n"));
                }
            }
        }
        unreachable!("the last attempt panics")
    }

    /// Where JSON-RPC listens.
    pub fn rpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.rpc)
    }

    /// The node's directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file with the user and password of this run.
    pub fn cookie_file(&self) -> PathBuf {
        self.directory().join("regtest/.cookie")
    }

    /// The socket of the IPC interface.
    pub fn ipc_socket(&self) -> PathBuf {
        self.directory().join("regtest/node.sock")
    }

    /// What `bitcoin-cli` prints for a command, without the line's end.
    ///
    /// # Panics
    /// If the command fails.
    pub fn cli(&self, command: &[&str]) -> String {
        let mut cli = Command::new(core_program("bitcoin-cli"));
        cli.arg("-regtest").arg(format!("-datadir={}", self.directory().display()));
        cli.arg(format!("-rpcport={}", self.ports.rpc)).args(command);
        let output = cli.output().expect("bitcoin-cli starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "bitcoin-cli {command:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Mines `count` blocks that pay to [`spendable`].
    pub fn generate(&self, count: usize) -> Vec<BlockHash> {
        self.generate_to(&spendable(), count)
    }

    /// Mines `count` blocks that pay to a script. Blocks of one second that pay the same are the same.
    pub fn generate_to(&self, script: &Script, count: usize) -> Vec<BlockHash> {
        let descriptor = format!("raw({})", script.to_hex_string());
        let info = self.rpc.call("getdescriptorinfo", &[json!(descriptor)]);
        let hashes = self.rpc.call("generatetodescriptor", &[json!(count), info["descriptor"].clone()]);
        let hashes = hashes.as_array().expect("the blocks' hashes").iter();
        hashes.map(|hash| hash.as_str().and_then(|hash| hash.parse().ok()).expect("a hash is hex")).collect()
    }

    /// Mines until the coinbases of the first `count` blocks can be spent.
    pub fn fund(&self, count: u64) {
        let wanted = count + COINBASE_MATURITY;
        let missing = wanted.saturating_sub(self.rpc.height());
        self.generate(usize::try_from(missing).expect("heights are small"));
    }

    /// Spends the coinbase of the block at `height` to [`spendable`] again, for a fee.
    pub fn spend_coinbase(&self, height: u64, fee: Amount) -> Transaction {
        let coinbase = self.rpc.block(height).txdata.swap_remove(0);
        self.spend(&coinbase, fee)
    }

    /// Spends the first output of a transaction to [`spendable`] again, for a fee.
    ///
    /// # Panics
    /// If the node does not take it.
    pub fn spend(&self, parent: &Transaction, fee: Amount) -> Transaction {
        let input = TxIn {
            previous_output: OutPoint { txid: parent.compute_txid(), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: spendable_witness(),
        };
        let output = TxOut { value: parent.output[0].value - fee, script_pubkey: spendable() };
        let spend = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![output],
        };
        // Fees here may be any.
        let sent = self.rpc.call("sendrawtransaction", &[json!(serialize_hex(&spend)), json!(0)]);
        assert_eq!(sent.as_str(), Some(spend.compute_txid().to_string().as_str()));
        spend
    }

    /// Connects to a node that [listens](Self::start_listening), and waits until the two have shaken hands.
    pub fn connect(&self, other: &Self) {
        let port = other.ports.peers.expect("the other node listens");
        let address = format!("127.0.0.1:{port}");
        self.rpc.call("addnode", &[json!(address), json!("onetry")]);
        let is_connected = |peers: Value| {
            let peers = peers.as_array().cloned().unwrap_or_default();
            peers.iter().any(|peer| peer["addr"] == address && peer["version"].as_u64() > Some(0))
        };
        wait_until("the nodes are connected", || is_connected(self.rpc.call("getpeerinfo", &[])));
    }

    /// Parts from a node that this one [connected to](Self::connect).
    pub fn disconnect(&self, other: &Self) {
        let port = other.ports.peers.expect("the other node listens");
        self.rpc.call("disconnectnode", &[json!(format!("127.0.0.1:{port}"))]);
        let no_peers = |peers: Value| peers.as_array().is_some_and(Vec::is_empty);
        wait_until("the nodes have parted", || {
            no_peers(self.rpc.call("getpeerinfo", &[])) && no_peers(other.rpc.call("getpeerinfo", &[]))
        });
    }

    /// Waits until both have one tip.
    pub fn wait_for_tip_of(&self, other: &Self) {
        wait_until("both nodes have one tip", || {
            self.rpc.call("getbestblockhash", &[]) == other.rpc.call("getbestblockhash", &[])
        });
    }

    /// Writes everything to the disk, where a crash leaves it. Bitcoin Core by itself does so once an hour.
    pub fn flush(&self) {
        // This report is taken of what is on the disk.
        self.rpc.call("gettxoutsetinfo", &[]);
    }

    /// Ends the process at once, as a crash would. Blocks that were not [flushed](Self::flush) are lost with it.
    pub fn kill(&mut self) {
        self.program.signal("KILL");
        self.program.wait(PATIENCE);
    }

    /// Ends the process as an operator would.
    pub fn stop(&mut self) {
        self.rpc.call("stop", &[]);
        self.program.wait(PATIENCE);
    }

    /// Starts again after [`kill`](Self::kill) or [`stop`](Self::stop), on the same chain and the same ports.
    ///
    /// # Panics
    /// If it does not start.
    pub fn restart(&mut self) {
        for attempt in 1.. {
            match launch(self.directory.path(), self.ports, &self.args) {
                Ok(program) => {
                    self.program = program;
                    return;
                }
                Err(lines) => {
                    assert!(attempt < PORT_TRIES, "bitcoin-node does not start again:\n{}", lines.join("\n"));
                }
            }
        }
    }
}

/// Starts a node and waits until it answers; what it wrote if it ends instead.
fn launch(directory: &Path, ports: Ports, args: &[String]) -> Result<Program, Vec<String>> {
    let mut command = Command::new(core_program("bitcoin-node"));
    command.args([
        "-regtest",
        "-server=1",
        "-ipcbind=unix",
        "-printtoconsole=1",
        "-acceptnonstdtxn=1",
        RPC_AUTH,
    ]);
    command.args(["-discover=0", "-dnsseed=0", "-fixedseeds=0", "-listenonion=0", "-natpmp=0"]);
    command.arg(format!("-datadir={}", directory.display()));
    command.args(["-rpcbind=127.0.0.1".to_owned(), "-rpcallowip=127.0.0.1".to_owned()]);
    command.arg(format!("-rpcport={}", ports.rpc));
    match ports.peers {
        Some(port) => command.args(["-listen=1".to_owned(), format!("-bind=127.0.0.1:{port}")]),
        None => command.arg("-listen=0"),
    };
    command.args(args);
    let mut program = Program::start_command(&mut command);
    let rpc = Node::at(&format!("127.0.0.1:{}", ports.rpc));
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The port may be another node's by now: that one would name another log.
        let log = rpc.ask("getrpcinfo", &[]).ok().and_then(Result::ok).map(|info| info["logpath"].clone());
        if log.is_some_and(|log| log.as_str().is_some_and(|log| Path::new(log).starts_with(directory))) {
            return Ok(program);
        }
        if program.has_ended() {
            return Err(program.lines());
        }
        let lines = program.lines();
        assert!(Instant::now() < deadline, "bitcoin-node is not ready:\n{}", lines.join("\n"));
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}
