//! `adit pool` as a process: on a regtest chain of its own, with the embedded node's JSON-RPC, or on a Bitcoin Core.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use adit_codec::url::PoolUrl;
use tempfile::TempDir;

use crate::node::BitcoinNode;
use crate::process::{PATIENCE, Program, own_program};
use crate::rpc::Node;

/// Pays to anyone: a script that is true.
pub const PAYOUT_ANYONE: &str = "raw(51)";

/// Bounded end of the pool after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A pool, its node, and the directory in which both keep everything.
pub struct Pool {
    /// The process.
    pub program: Program,
    /// Where miners connect.
    pub url: PoolUrl,
    /// The node's JSON-RPC.
    pub node: Node,
    directory: TempDir,
}

impl Pool {
    /// Starts a pool on two shards. `settings` are further lines of its configuration.
    pub fn start(settings: &str) -> Self {
        Self::start_in(TempDir::new().expect("a temporary directory"), settings)
    }

    /// Starts a pool in a directory that an earlier one may have left.
    pub fn start_in(directory: TempDir, settings: &str) -> Self {
        let mut program = launch(&directory, &[EMBEDDED, settings]);
        let rpc = program.wait_for("the node's JSON-RPC", PATIENCE, |line| {
            let (_, address) = line.split_once("JSON-RPC of the embedded node")?.1.split_once("address=")?;
            Some(address.trim().to_owned())
        });
        Self::reached(program, Node::at(&rpc), directory)
    }

    /// Starts a pool on a Bitcoin Core. `source` are the lines of its template source.
    pub fn start_on(node: &BitcoinNode, source: &str, settings: &str) -> Self {
        Self::start_on_in(TempDir::new().expect("a temporary directory"), node, source, settings)
    }

    /// As [`start_on`](Self::start_on), in a directory that an earlier pool may have left.
    pub fn start_on_in(directory: TempDir, node: &BitcoinNode, source: &str, settings: &str) -> Self {
        let program = launch(&directory, &[source, settings]);
        Self::reached(program, node.rpc.clone(), directory)
    }

    fn reached(mut program: Program, node: Node, directory: TempDir) -> Self {
        let url = program.wait_for_word("stratum2+tcp://").parse().expect("the pool prints its URL");
        Self { program, url, node, directory }
    }

    /// Starts `adit-loadgen mine` against this pool.
    pub fn mine(&self, args: &[&str]) -> Program {
        let url = self.url.to_string();
        let args: Vec<&str> = ["mine", &url].into_iter().chain(args.iter().copied()).collect();
        Program::start(&own_program("adit-loadgen"), &args)
    }

    /// Lines of the log that hold `text`.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        self.program.lines().into_iter().filter(|line| line.contains(text)).collect()
    }

    /// A number of the newest status line, such as `connections`; `None` before the first.
    pub fn status(&self, name: &str) -> Option<u64> {
        let lines = self.program.lines();
        let line =
            lines.iter().rev().find(|line| line.contains("status") && line.contains(&format!("{name}=")))?;
        let value = line.split_once(&format!(" {name}="))?.1.split_whitespace().next()?;
        value.parse().ok()
    }

    /// Waits until the chain is `height` blocks high.
    ///
    /// # Panics
    /// If it is not in time.
    pub fn wait_for_height(&self, height: u64, patience: Duration) {
        let deadline = std::time::Instant::now() + patience;
        while self.node.height() < height {
            assert!(std::time::Instant::now() < deadline, "the chain stays at {}", self.node.height());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the pool as an operator would and gives its directory back.
    ///
    /// # Panics
    /// If it does not end cleanly.
    pub fn stop(self) -> TempDir {
        let Self { mut program, directory, .. } = self;
        program.signal("TERM");
        let status = program.wait(STOP_PATIENCE);
        assert!(status.success(), "{status}; it wrote:\n{}", program.lines().join("\n"));
        directory
    }
}

/// The settings of the embedded node.
const EMBEDDED: &str = "
    template_source.data_dir = \"{dir}/node\"
    template_source.rpc_listen = \"127.0.0.1:0\"
    template_source.rpc_user = \"adit\"
    template_source.rpc_password = \"adit\"
";

/// The settings of every pool; later ones take their place. The tests ask for more shares than a CPU finds at the default's
/// difficulty.
const COMMON: &str = "
    pool.listen = \"127.0.0.1:0\"
    authority.secret_key_file = \"{dir}/authority.key\"
    template_source.chain = \"regtest\"
    journal.dir = \"{dir}/journal\"
    vardiff.difficulty_min = 0.0
    engine.cpus = [0, 1]
    log.level = \"debug\"
";

fn launch(directory: &TempDir, settings: &[&str]) -> Program {
    let path = directory.path();
    let config = path.join("pool.toml");
    std::fs::write(&config, configuration(path, settings)).expect("the directory can be written to");
    // It holds a password: the pool insists that only its owner reads it.
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&config, owner_only).expect("the file is ours");
    let adit = own_program("adit");
    let key = path.join("authority.key");
    if !key.exists() {
        let key = key.to_str().expect("temporary paths are text");
        let mut generate = Program::start(&adit, &["key", "generate", "--out", key]);
        assert!(generate.wait(PATIENCE).success(), "{:?}", generate.lines());
    }
    let config = config.to_str().expect("temporary paths are text");
    Program::start(&adit, &["pool", "--config", config])
}

/// A configuration of lines `section.key = value`, of which the last of a key counts. `{dir}` is the pool's directory.
fn configuration(directory: &Path, settings: &[&str]) -> String {
    let payout = format!("pool.payout = \"{PAYOUT_ANYONE}\"");
    let mut sections: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    let lines = [COMMON, &payout].into_iter().chain(settings.iter().copied()).flat_map(str::lines);
    for line in lines.map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(" = ").expect("section.key = value");
        let (section, key) = name.split_once('.').expect("section.key = value");
        sections.entry(section).or_default().insert(key, value);
    }
    let mut text = String::new();
    for (section, keys) in sections {
        text.push_str(&format!("[{section}]\n"));
        for (key, value) in keys {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text.replace("{dir}", directory.to_str().expect("temporary paths are text"))
}
