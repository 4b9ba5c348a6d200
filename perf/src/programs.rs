//! The programs under test: where they lie, and how they are started, watched and ended.
//!
//! A process inherits the CPUs of the thread that starts it, so that it sees no others: what counts its CPUs at start (a runtime's
//! threads) counts right. Its output goes to a file. Every wait is bounded; a process that is dropped is killed.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::failure::Failure;

/// How long a program may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a program may take to end when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often what has no event is looked at.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Lines of a log that a failure shows.
const LOG_LINES: usize = 20;

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) adit: PathBuf,
    pub(crate) loadgen: PathBuf,
    /// The reference implementation's pool. Looked for when it is run.
    peer: PathBuf,
}

impl Programs {
    /// Those in `directory`, or beside this program; the peer's where it is said to be, or in the cache.
    pub(crate) fn find(directory: Option<PathBuf>, peer: Option<PathBuf>) -> Result<Self, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::System { what: "this program's path is unknown", error })?;
        let directory = directory.unwrap_or_else(|| own.parent().unwrap_or(Path::new("/")).to_owned());
        let (adit, loadgen) = (directory.join("adit"), directory.join("adit-loadgen"));
        for path in [&adit, &loadgen] {
            exists(path, "run `make build`, or say --programs DIRECTORY")?;
        }
        let peer = peer.unwrap_or_else(|| cache().join("sri/bin/pool_sv2"));
        Ok(Self { adit, loadgen, peer })
    }

    /// The peer's pool.
    pub(crate) fn peer(&self) -> Result<&Path, Failure> {
        exists(&self.peer, "run `make fixtures FIXTURES=peers`, or say --peer FILE")?;
        Ok(&self.peer)
    }
}

fn exists(path: &Path, remedy: &'static str) -> Result<(), Failure> {
    if path.exists() { Ok(()) } else { Err(Failure::Missing { path: path.to_owned(), remedy }) }
}

/// Where `make` keeps what is slow to build.
fn cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    variable("ADIT_CACHE").unwrap_or_else(|| base().unwrap_or_default().join("adit"))
}

/// A running program.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` on these CPUs, its output in `directory/NAME.log`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        cpus: &[usize],
        directory: &Path,
    ) -> Result<Self, Failure> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log).map_err(Failure::file(&log))?;
        let errors = output.try_clone().map_err(Failure::file(&log))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output).stderr(errors).current_dir(directory);
        // What the peer says at lower levels costs it a third of its speed.
        command.env("RUST_LOG", "error");
        let failed = |error| Failure::Program { name: name.to_owned(), error };
        let child = on_cpus(cpus, move || command.spawn()).map_err(failed)?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it accepts connections.
    pub(crate) fn wait_until_listening(&mut self, address: SocketAddr) -> Result<(), Failure> {
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.try_wait()? {
                return Err(self.ended(&status.to_string()));
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(Failure::Slow {
                    name: self.name.clone(),
                    waited: START_PATIENCE,
                    log: self.last_lines(),
                });
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<ExitStatus, Failure> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > patience {
                return Err(Failure::Slow {
                    name: self.name.clone(),
                    waited: patience,
                    log: self.last_lines(),
                });
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Whether it has ended.
    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>, Failure> {
        self.child.try_wait().map_err(|error| Failure::Program { name: self.name.clone(), error })
    }

    /// Sends a signal; a process that ended already takes none.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, signal));
    }

    /// The last line that it wrote; empty if there is none.
    pub(crate) fn last_line(&self) -> String {
        self.last_lines().lines().next_back().unwrap_or_default().to_owned()
    }

    /// Asks it to end and waits; what does not end in time is killed.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.signal(Signal::TERM);
        self.wait(STOP_PATIENCE).map(drop).or_else(|failure| match failure {
            Failure::Slow { .. } => Ok(()),
            other => Err(other),
        })
    }

    /// The failure of a program that ended as it should not have.
    pub(crate) fn ended(&self, what: &str) -> Failure {
        Failure::Ended { name: self.name.clone(), what: what.to_owned(), log: self.last_lines() }
    }

    fn last_lines(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `start` on a thread that may use these CPUs only.
fn on_cpus<T: Send>(cpus: &[usize], start: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let mut set = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
    let run = move || {
        sched_setaffinity(None, &set)?;
        start()
    };
    std::thread::scope(|scope| {
        scope
            .spawn(run)
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    })
}

/// An address on loopback that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    let failed = |error| Failure::System { what: "loopback gives no port", error };
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, directory: &Path) -> Process {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Process::start("shell", Path::new("/bin/sh"), &arguments, &[0], directory).unwrap()
    }

    #[test]
    fn a_process_has_its_cpus_and_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("grep Cpus_allowed_list /proc/self/status; exit 3", directory.path());
        assert_eq!(process.wait(START_PATIENCE).unwrap().code(), Some(3));
        assert_eq!(process.last_lines(), "Cpus_allowed_list:\t0");
        let failure = process.ended("exit 3").to_string();
        assert!(
            failure.starts_with("shell ended: exit 3") && failure.contains("Cpus_allowed_list"),
            "{failure}"
        );
    }

    #[test]
    fn what_ends_too_early_or_too_late_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let nobody = free_address().unwrap();
        let failure =
            shell("echo no >&2; exit 1", directory.path()).wait_until_listening(nobody).unwrap_err();
        assert!(matches!(&failure, Failure::Ended { log, .. } if log == "no"), "{failure}");
        let mut slow = shell("sleep 60", directory.path());
        assert!(matches!(slow.wait(Duration::from_millis(50)), Err(Failure::Slow { .. })));
        slow.stop().unwrap();
    }

    #[test]
    fn missing_programs_are_named_with_a_remedy() {
        let failure = Programs::find(Some("/nowhere".into()), None).unwrap_err().to_string();
        assert_eq!(failure, "/nowhere/adit is missing: run `make build`, or say --programs DIRECTORY");
    }
}
