//! `adit tp` on a regtest chain of its own, with the embedded node's JSON-RPC, as a process.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use adit_codec::url::PoolUrl;

use crate::process::{PATIENCE, Program, own_program};
use crate::rpc::Node;

/// A template provider and its node.
pub struct TemplateProvider {
    /// The process.
    pub program: Program,
    /// Where its clients connect.
    pub url: PoolUrl,
    /// The embedded node.
    pub node: Node,
}

impl TemplateProvider {
    /// Starts a provider in a directory that an earlier one may have left, on a port, 0 for any.
    pub fn start(directory: &Path, port: u16) -> Self {
        let at = |name: &str| directory.join(name).display().to_string();
        let config = write_config(
            directory,
            "tp.toml",
            &format!(
                "[tp]\nlisten = \"127.0.0.1:{port}\"\n\
                 [authority]\nsecret_key_file = \"{}\"\n\
                 [journal]\ndir = \"{}\"\n\
                 [template_source]\nkind = \"embedded\"\nchain = \"regtest\"\ndata_dir = \"{}\"\n\
                 rpc_listen = \"127.0.0.1:0\"\nrpc_user = \"adit\"\nrpc_password = \"adit\"\n\
                 [log]\nlevel = \"debug\"\n",
                authority_key(directory, "tp.key"),
                at("tp-journal"),
                at("node"),
            ),
        );
        let mut program = Program::start(&own_program("adit"), &["tp", "--config", &config]);
        let rpc = program.wait_for("the node's JSON-RPC", PATIENCE, |line| {
            let (_, address) = line.split_once("JSON-RPC of the embedded node")?.1.split_once("address=")?;
            Some(address.trim().to_owned())
        });
        let url = program.wait_for_word("stratum2+tcp://").parse().expect("the provider prints its URL");
        Self { program, url, node: Node::at(&rpc) }
    }

    /// Waits until the chain is `height` blocks high.
    ///
    /// # Panics
    /// If it is not in time.
    pub fn wait_for_height(&self, height: u64, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.node.height() < height {
            assert!(Instant::now() < deadline, "the chain stays at {}", self.node.height());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The path of an authority's secret key, made if it is not there.
pub fn authority_key(directory: &Path, name: &str) -> String {
    let path = directory.join(name).display().to_string();
    if !Path::new(&path).exists() {
        let mut generate = Program::start(&own_program("adit"), &["key", "generate", "--out", &path]);
        assert!(generate.wait(PATIENCE).success(), "{:?}", generate.lines());
    }
    path
}

/// Writes a configuration that only its owner reads, as one with a password must be; returns its path.
pub fn write_config(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("the directory can be written to");
    let owner_only = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&path, owner_only).expect("the file is ours");
    path.display().to_string()
}
