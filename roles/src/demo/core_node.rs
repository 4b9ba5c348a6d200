//! Bitcoin Core's own node as the demo's: a process on a regtest of its own, which ends with the demo.
//!
//! It listens for nobody but the pool, on a socket in its directory. Bounds: it may take [`START_PATIENCE`] to start and
//! [`STOP_PATIENCE`] to stop; then it is killed.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::DemoError;

const PROGRAM: &str = "bitcoin-node";
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How often a start or a stop is looked after.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes of the node's own words that are shown.
const WORDS_LEN_MAX: usize = 1_000;

/// A running `bitcoin-node`, stopped when dropped.
#[derive(Debug)]
pub(super) struct CoreNode {
    child: Child,
    socket: PathBuf,
    errors: PathBuf,
}

impl CoreNode {
    /// Starts the node at `path`, or the one that is found, with its chain in `directory`, and waits until it listens.
    pub(super) fn start(path: Option<&Path>, directory: &Path) -> Result<Self, DemoError> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => find().ok_or_else(|| DemoError::Usage(missing()))?,
        };
        let failed =
            |what: &dyn std::fmt::Display, error: std::io::Error| DemoError::Node(format!("{what}: {error}"));
        let directory =
            std::path::absolute(directory).map_err(|error| failed(&directory.display(), error))?;
        fs::create_dir_all(&directory).map_err(|error| failed(&directory.display(), error))?;
        let (socket, errors) = (directory.join("node.sock"), directory.join("node.err"));
        // One that a killed node left would look like this one's.
        let _ = fs::remove_file(&socket);
        let written = File::create(&errors).map_err(|error| failed(&errors.display(), error))?;
        let mut command = Command::new(&path);
        command.args(["-regtest", "-server=0", "-listen=0", "-connect=0", "-dnsseed=0", "-fixedseeds=0"]);
        command.args(["-discover=0", "-natpmp=0", "-printtoconsole=0"]);
        command.arg(argument("-datadir=", &directory)).arg(argument("-ipcbind=unix:", &socket));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(written);
        let child = command.spawn().map_err(|error| {
            DemoError::Usage(format!(
                "{} does not start: {error}; name another with --node-path",
                path.display()
            ))
        })?;
        let mut node = Self { child, socket, errors };
        node.wait_until_it_listens(&path)?;
        Ok(node)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    fn wait_until_it_listens(&mut self, path: &Path) -> Result<(), DemoError> {
        let deadline = Instant::now() + START_PATIENCE;
        while UnixStream::connect(&self.socket).is_err() {
            let has_ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || Instant::now() >= deadline {
                let state = if has_ended { "has ended" } else { "does not listen" };
                return Err(DemoError::Node(format!(
                    "{} {state}: {}; it must be Bitcoin Core 31 or later with its mining interface (bitcoin-node, not bitcoind)",
                    path.display(),
                    self.words()
                )));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// What it wrote to stderr, on one line.
    fn words(&self) -> String {
        let words = fs::read(&self.errors).unwrap_or_default();
        let words = String::from_utf8_lossy(&words[..words.len().min(WORDS_LEN_MAX)]);
        match words.trim() {
            "" => "it says nothing".to_owned(),
            words => words.replace('\n', " "),
        }
    }
}

impl Drop for CoreNode {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id())
            && let Some(id) = Pid::from_raw(id)
            && matches!(self.child.try_wait(), Ok(None))
        {
            // One that has just ended needs no signal.
            let _ = kill_process(id, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn argument(name: &str, path: &Path) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from(name);
    argument.push(path);
    argument
}

/// The node in PATH, or else the one that `make fixtures` built.
fn find() -> Option<PathBuf> {
    let searched = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&searched).map(|directory| directory.join(PROGRAM));
    candidates.chain(fixture()).find(|candidate| candidate.is_file())
}

/// Where `make fixtures` puts the node.
fn fixture() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = from("ADIT_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|base| base.join("adit")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/adit")))?;
    Some(cache.join("core/bin").join(PROGRAM))
}

fn missing() -> String {
    format!(
        "there is no {PROGRAM} in PATH: name one with --node-path (it comes with Bitcoin Core 31 or later), or let `make \
         fixtures` build one"
    )
}
